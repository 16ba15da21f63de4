//! Which root keys a list shows.

use crate::domain::root_key::{RootKey, State};
use crate::domain::time::Timestamp;

/// Which root keys to show. Everything that is set must agree.
#[derive(Debug, Clone, Default)]
pub struct RootKeyFilter {
    /// Part of the name, ignoring ASCII case.
    pub name_contains: Option<String>,
    /// Part of one of its permissions.
    pub permission_contains: Option<String>,
    /// The state.
    pub state: Option<State>,
    /// Made at this moment or later.
    pub create_after: Option<Timestamp>,
    /// Made before this moment.
    pub create_before: Option<Timestamp>,
    /// Expiring before this moment.
    pub expire_before: Option<Timestamp>,
    /// Last used before this moment, or never.
    pub last_used_before: Option<Timestamp>,
}

impl RootKeyFilter {
    pub(super) fn admits(&self, root_key: &RootKey, now: Timestamp) -> bool {
        let Self {
            name_contains,
            permission_contains,
            state,
            create_after,
            create_before,
            expire_before,
            last_used_before: _, // known only once the usage has been read
        } = self;
        let folded = root_key.name.folded();
        name_contains.as_ref().is_none_or(|part| folded.contains(&part.to_ascii_lowercase()))
            && permission_contains
                .as_ref()
                .is_none_or(|part| root_key.grants.iter().any(|grant| grant.to_string().contains(part)))
            && state.is_none_or(|state| root_key.state(now) == state)
            && create_after.is_none_or(|after| root_key.created >= after)
            && create_before.is_none_or(|before| root_key.created < before)
            && expire_before.is_none_or(|before| root_key.expiry.moment().is_some_and(|moment| moment < before))
    }
}
