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
