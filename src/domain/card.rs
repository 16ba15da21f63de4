//! What of a key its verdict depends on: small enough to be remembered by the million.

use std::sync::Arc;

use super::cut::Traces;
use super::id::{ApiId, IdentityId, KeyId, RoleId, RootKeyId, WorkspaceId};
use super::key::{Key, Presence, Question, Surroundings, Verdict};
use super::limit::Limits;
use super::network::AllowList;
use super::role::Held;
use super::time::{Expiry, Timestamp};

/// A key as a verification without details sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its id.
    pub id: KeyId,
    /// Whose it is. The identity may have been deleted since.
    pub identity: Option<IdentityId>,
    /// The account that it shares with all that it was rerolled from and to.
    pub meter: Option<KeyId>,
    /// How long it lives.
    pub expiry: Expiry,
    /// Switched on.
    pub enabled: bool,
    /// Whether it is still there, cuts aside.
    pub here: bool,
    /// When it was made.
    pub created: Timestamp,
    /// The revision at which it was written last: cuts made later may take it.
    pub written: u64,
    /// What it is likely to have in common with many others.
    pub traits: Arc<Traits>,
}

/// What keys have in common that were made for the same purpose.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Traits {
    /// Where they belong.
    pub workspace: WorkspaceId,
    /// The set that they are part of.
    pub api: ApiId,
    /// Who made them.
    pub created_by: RootKeyId,
    /// The roles they hold.
    pub roles: Box<[RoleId]>,
    /// The permissions they hold directly.
    pub permissions: Box<[Held]>,
    /// From where they may be used.
    pub allowed: AllowList,
    /// How often they may be used.
    pub limits: Limits,
}

impl Card {
    /// The card of a key. `share` finds traits that are the same as these, if there are any already.
    pub fn of(key: &Key, share: impl FnOnce(Traits) -> Arc<Traits>) -> Self {
        let traits = Traits {
            workspace: key.workspace,
            api: key.api,
            created_by: key.created_by,
            roles: key.roles.as_slice().into(),
            permissions: key.permissions.as_slice().into(),
            allowed: key.allowed.clone(),
            limits: key.limits.clone(),
        };
        Self {
            id: key.id,
            identity: key.identity,
            meter: key.meter,
            expiry: key.expiry,
            enabled: key.enabled,
            here: key.presence == Presence::Here,
            created: key.created,
            written: key.written,
            traits: share(traits),
        }
    }

    /// The name of what all its generations share.
    pub fn lineage(&self) -> KeyId {
        self.meter.unwrap_or(self.id)
    }

    fn traces(&self) -> Traces<'_> {
        let Traits { api, created_by, ref roles, .. } = *self.traits;
        let Self { identity, created, written, .. } = *self;
        Traces { api, identity, roles, created_by, created, written }
    }

    /// Whether this key is good for what is asked: the meaning of the product, from top to bottom.
    pub fn verdict(&self, question: Question<'_>, around: Surroundings<'_>) -> Verdict {
        let Question { now, audience, client, query, cost } = question;
        let Surroundings { caller_may_verify, home, api, permissions, exceeded, uses } = around;
        let Some(api) = api.filter(|api| api.deleted.is_none()) else { return Verdict::NotFound };
        let here = self.here && !home.cuts.iter().any(|cut| cut.takes(self.traces()));
        if !here || !caller_may_verify || audience.is_some_and(|wanted| wanted != self.traits.api) {
            return Verdict::NotFound;
        }
        if !self.enabled {
            return Verdict::Disabled;
        }
        if self.expiry.has_passed(now) {
            return Verdict::Expired;
        }
        if !api.allowed.admits(client) || !self.traits.allowed.admits(client) {
            return Verdict::Forbidden;
        }
        if let Some(query) = query {
            let holds = |asked: &str| permissions.iter().any(|slug| slug.covers(asked));
            if !query.holds(holds) {
                return Verdict::InsufficientPermissions(query.missing(holds).into_iter().map(str::to_owned).collect());
            }
        }
        if !exceeded.is_empty() {
            return Verdict::RateLimited(exceeded.iter().map(ToString::to_string).collect());
        }
        if !uses.affords(cost) {
            return Verdict::UsageExceeded;
        }
        Verdict::Valid
    }
}
