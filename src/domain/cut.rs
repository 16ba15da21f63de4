//! A cut: the revocation of every key that fits a filter, at one moment, however many there are.

use super::id::{ApiId, IdentityId, RoleId, RootKeyId};
use super::time::Timestamp;
use super::value::{Facts, Value};

/// How many cuts of a workspace can wait for their keys to be marked.
pub const CUTS_MAX: usize = 32;
/// How many root keys a filter can name: one with its successors by rotation.
pub const CREATORS_MAX: usize = 100;

/// Which keys to revoke. Everything that is set must agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CutFilter {
    /// Of this API.
    pub api: Option<ApiId>,
    /// Of this identity.
    pub identity: Option<IdentityId>,
    /// Holding this role.
    pub role: Option<RoleId>,
    /// Made by one of these root keys: one and its successors. Empty: by any.
    pub created_by: Vec<RootKeyId>,
    /// Made at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Made before this moment.
    pub created_before: Option<Timestamp>,
}

impl CutFilter {
    /// Whether a key fits, as it is.
    pub fn admits(&self, key: Traces<'_>) -> bool {
        let Self { api, identity, role, created_by, created_from, created_before } = self;
        api.is_none_or(|api| key.api == api)
            && identity.is_none_or(|identity| key.identity == Some(identity))
            && role.is_none_or(|role| key.roles.contains(&role))
            && (created_by.is_empty() || created_by.contains(&key.created_by))
            && created_from.is_none_or(|from| key.created >= from)
            && created_before.is_none_or(|before| key.created < before)
    }

    /// Whether no key can fit both, whatever roles it holds.
    pub fn is_apart_from(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.zip(other).is_some_and(|(one, other)| one != other)
        }
        let ends_before = |one: &Self, other: &Self| {
            one.created_before.zip(other.created_from).is_some_and(|(before, from)| before <= from)
        };
        let both_name_creators = !self.created_by.is_empty() && !other.created_by.is_empty();
        differ(self.api, other.api)
            || differ(self.identity, other.identity)
            || both_name_creators && !self.created_by.iter().any(|creator| other.created_by.contains(creator))
            || ends_before(self, other)
            || ends_before(other, self)
    }

    /// What the audit log says of it.
    pub fn facts(&self) -> Facts {
        let Self { api, identity, role, created_by, created_from, created_before } = self;
        let mut facts = Facts::new();
        facts.extend(api.map(|id| ("api_id".to_owned(), id.to_string().into())));
        facts.extend(identity.map(|id| ("identity_id".to_owned(), id.to_string().into())));
        facts.extend(role.map(|id| ("role_id".to_owned(), id.to_string().into())));
        if !created_by.is_empty() {
            facts.insert("created_by".to_owned(), created_by.iter().map(ToString::to_string).collect::<Value>());
        }
        facts.extend(created_from.map(|at| ("create_after".to_owned(), at.to_string().into())));
        facts.extend(created_before.map(|at| ("create_before".to_owned(), at.to_string().into())));
        facts
    }
}

/// What a cut looks at of a key.
#[derive(Debug, Clone, Copy)]
pub struct Traces<'a> {
    /// Its API.
    pub api: ApiId,
    /// Whose it is.
    pub identity: Option<IdentityId>,
    /// The roles it holds.
    pub roles: &'a [RoleId],
    /// Who made it.
    pub created_by: RootKeyId,
    /// When it was made.
    pub created: Timestamp,
    /// The revision at which it was written last.
    pub written: u64,
}

/// A revocation by filter, as it stands in the workspace's record until every key that it takes has been marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The revision at which it was made: it takes keys as they were then.
    pub revision: u64,
    /// The moment.
    pub at: Timestamp,
    /// Which keys.
    pub filter: CutFilter,
}

impl Cut {
    /// Whether it takes a key: one that fits and has not been written since.
    ///
    /// Whatever writes a key asks this first, so no later change gets a key past a cut.
    pub fn takes(&self, key: Traces<'_>) -> bool {
        key.written <= self.revision && self.filter.admits(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One of few, so that two are often the same.
    fn few<T>(made: impl Fn([u8; 16]) -> T) -> impl Strategy<Value = T>
    where
        T: std::fmt::Debug,
    {
        (0_u8..3).prop_map(move |n| made([n; 16]))
    }

    fn moment() -> impl Strategy<Value = Timestamp> {
        (0_u64..5).prop_map(Timestamp::from_millis_saturating)
    }

    prop_compose! {
        fn filter()(
            api in proptest::option::of(few(ApiId::from_bytes)),
            identity in proptest::option::of(few(IdentityId::from_bytes)),
            role in proptest::option::of(few(RoleId::from_bytes)),
            created_by in proptest::collection::vec(few(RootKeyId::from_bytes), 0..3),
            created_from in proptest::option::of(moment()),
            created_before in proptest::option::of(moment()),
        ) -> CutFilter {
            CutFilter { api, identity, role, created_by, created_from, created_before }
        }
    }

    proptest! {
        #[test]
        fn no_key_fits_two_filters_that_are_apart(
            (one, other) in (filter(), filter()),
            api in few(ApiId::from_bytes),
            identity in proptest::option::of(few(IdentityId::from_bytes)),
            roles in proptest::collection::vec(few(RoleId::from_bytes), 0..4),
            created_by in few(RootKeyId::from_bytes),
            created in moment(),
        ) {
            let key = Traces { api, identity, roles: &roles, created_by, created, written: 0 };
            prop_assert_eq!(one.is_apart_from(&other), other.is_apart_from(&one));
            prop_assert!(!(one.is_apart_from(&other) && one.admits(key) && other.admits(key)));
        }
    }

    #[test]
    fn filters_are_apart_by_api_identity_creator_or_time_and_never_by_role() {
        let nothing = CutFilter::default();
        let api = |n| CutFilter { api: Some(ApiId::from_bytes([n; 16])), ..nothing.clone() };
        let identity = |n| CutFilter { identity: Some(IdentityId::from_bytes([n; 16])), ..nothing.clone() };
        let role = |n| CutFilter { role: Some(RoleId::from_bytes([n; 16])), ..nothing.clone() };
        let creator = |n| CutFilter { created_by: vec![RootKeyId::from_bytes([n; 16])], ..nothing.clone() };
        assert!(api(1).is_apart_from(&api(2)) && !api(1).is_apart_from(&api(1)));
        assert!(identity(1).is_apart_from(&identity(2)) && !identity(1).is_apart_from(&api(2)));
        assert!(creator(1).is_apart_from(&creator(2)) && !creator(1).is_apart_from(&nothing));
        assert!(!role(1).is_apart_from(&role(2)), "a key may hold both");
        let at = Timestamp::from_millis_saturating(7);
        let (early, late) = (
            CutFilter { created_before: Some(at), ..nothing.clone() },
            CutFilter { created_from: Some(at), ..nothing },
        );
        assert!(early.is_apart_from(&late));
    }
}
