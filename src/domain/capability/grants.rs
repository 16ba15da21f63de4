//! All grants of a root key together.

use std::collections::BTreeSet;

use super::{Capability, Flaw, Grant};

/// The most grants of a root key.
pub const GRANTS_MAX: usize = 200;

/// A set of at most 200 grants, in order. The empty set grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Grants(Box<[Grant]>);

impl Grants {
    /// Puts grants in order. Duplicates collapse; more than 200 that differ are refused.
    pub fn collect(grants: impl IntoIterator<Item = Grant>) -> Result<Self, Flaw> {
        let mut set = BTreeSet::new();
        for grant in grants {
            set.insert(grant);
            if set.len() > GRANTS_MAX {
                return Err(Flaw::new(format!("must be at most {GRANTS_MAX} different grants")));
            }
        }
        Ok(Self(set.into_iter().collect()))
    }

    /// No grants.
    pub fn none() -> Self {
        Self::default()
    }

    /// The grants, in the order of their texts.
    pub fn iter(&self) -> std::slice::Iter<'_, Grant> {
        self.0.iter()
    }

    /// How many grants there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none, so that nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The grant that allows this on the object with this id, or without an id on the whole.
    ///
    /// Of several it is the one with the fewest `*`, and of those the first in order.
    pub fn allowing(&self, capability: Capability, id: Option<&str>) -> Option<&Grant> {
        let allowing = self.iter().filter(|grant| grant.allows(capability, id));
        allowing.min_by_key(|grant| std::cmp::Reverse(grant.specificity()))
    }

    /// The grant that allows this on an object, whose id is spelled out only if a grant names one.
    pub fn allowing_object(&self, capability: Capability, id: impl std::fmt::Display) -> Option<&Grant> {
        if self.iter().any(|grant| grant.names_an_object_for(capability)) {
            self.allowing(capability, Some(&id.to_string()))
        } else {
            // What names no object allows any.
            self.allowing(capability, Some(""))
        }
    }

    /// Whether the capability is granted on at least one object. Whoever lacks even that is denied before any lookup.
    pub fn any(&self, capability: Capability) -> bool {
        self.iter().any(|grant| grant.allows_some(capability))
    }

    /// Whether the capability is granted on the whole.
    pub fn covers_whole(&self, capability: Capability) -> bool {
        self.iter().any(|grant| grant.allows(capability, None))
    }

    /// Whether each of the other grants is covered by a single one of these; see [`Grant::covers`].
    pub fn covers(&self, other: &Self) -> bool {
        self.uncovered(other).is_none()
    }

    /// The first of the other grants that none of these covers.
    pub fn uncovered<'a>(&self, other: &'a Self) -> Option<&'a Grant> {
        other.iter().find(|theirs| !self.iter().any(|mine| mine.covers(theirs)))
    }
}

impl<'a> IntoIterator for &'a Grants {
    type Item = &'a Grant;
    type IntoIter = std::slice::Iter<'a, Grant>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(texts: &[&str]) -> Grants {
        Grants::collect(texts.iter().map(|text| Grant::parse(text).unwrap())).unwrap()
    }

    #[test]
    fn duplicates_collapse_and_order_is_that_of_the_texts() {
        let grants = grants(&["rbac.*.*", "apis.*.read_key", "api.*.read_key", "*.*.read_api", "apis.a_1.read_key"]);
        let texts: Vec<_> = grants.iter().map(Grant::to_string).collect();
        assert_eq!(texts, ["*.*.read_api", "apis.*.read_key", "apis.a_1.read_key", "rbac.*.*"]);
    }

    #[test]
    fn two_hundred_different_grants_are_the_most() {
        let grant = |n: usize| Grant::parse(&format!("apis.api_{n}.read_key")).unwrap();
        assert_eq!(Grants::collect((0..GRANTS_MAX).chain(0..GRANTS_MAX).map(grant)).unwrap().len(), GRANTS_MAX);
        assert!(Grants::collect((0..=GRANTS_MAX).map(grant)).is_err());
    }

    #[test]
    fn no_grants_grant_nothing() {
        for capability in Capability::ALL {
            let none = Grants::none();
            assert!(!none.any(*capability) && !none.covers_whole(*capability) && none.is_empty());
            assert_eq!(none.allowing(*capability, Some("api_1")), None);
        }
    }

    #[test]
    fn the_most_specific_grant_is_the_one_that_allowed() {
        let grants = grants(&["*.*.*", "apis.*.*", "apis.*.read_key", "apis.api_1.read_key", "*.api_2.read_key"]);
        let allowing = |id| grants.allowing(Capability::ReadKey, id).unwrap().to_string();
        assert_eq!(allowing(Some("api_1")), "apis.api_1.read_key");
        assert_eq!(allowing(Some("api_2")), "*.api_2.read_key");
        assert_eq!(allowing(Some("api_3")), "apis.*.read_key");
        assert_eq!(allowing(None), "apis.*.read_key");
        assert_eq!(grants.allowing(Capability::ReadWorkspace, None), None);
    }

    #[test]
    fn a_grant_on_one_object_is_a_grant_on_some_but_not_on_the_whole() {
        let grants = grants(&["apis.api_1.*"]);
        assert!(grants.any(Capability::ReadKey) && !grants.covers_whole(Capability::ReadKey));
        assert!(!grants.any(Capability::CreateApi), "an api can't be created by its id");
        assert!(!grants.any(Capability::ReadRole));
    }

    #[test]
    fn what_is_handed_out_must_be_covered_grant_by_grant() {
        let mine = grants(&["apis.*.read_key", "rbac.*.*"]);
        assert!(mine.covers(&mine) && mine.covers(&Grants::none()));
        assert!(mine.covers(&grants(&["apis.api_1.read_key", "rbac.*.read_role"])));
        let wider = grants(&["apis.*.read_key", "apis.*.update_key", "identities.*.*"]);
        assert_eq!(mine.uncovered(&wider).unwrap().to_string(), "apis.*.update_key");
        assert!(!Grants::none().covers(&mine));
    }

    #[test]
    fn all_actions_of_today_do_not_add_up_to_a_wildcard() {
        let all = Capability::ALL.iter().map(|capability| Grant::parse(&capability.to_string()).unwrap());
        let all = Grants::collect(all).unwrap();
        assert!(!all.covers(&grants(&["apis.*.*"])));
    }

    #[test]
    fn the_administrator_of_a_workspace_does_not_cover_workspaces() {
        let administrator = grants(&["*.*.*"]);
        assert!(administrator.covers(&grants(&["apis.*.*", "*.*.read_key", "audit.*.read_audit_log"])));
        assert!(!administrator.covers(&grants(&["workspaces.*.backup"])));
        assert!(!administrator.any(Capability::Backup));
    }
}
