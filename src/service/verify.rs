//! Verifying a key: the call that everything else exists for.
//!
//! It gathers what the verdict needs from one view and lets [`Key::verdict`] say what it comes to. No answer is kept:
//! each call looks at the state as it is.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::domain::api::Api;
use crate::domain::capability::Capability;
use crate::domain::id::{ApiId, PermissionId, WorkspaceId};
use crate::domain::identity::Identity;
use crate::domain::key::{Key, Question, RoleRef, Surroundings, Verdict};
use crate::domain::permission::Slug;
use crate::domain::query::Query;
use crate::domain::role::{Held, Role};
use crate::domain::secret::Secret;
use crate::error::Error;
use crate::store::tables;

use super::caller::Caller;
use super::described::references;
use super::{Done, Ostiary, Reading, Revision};

/// How much the answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Enough to decide.
    Basic,
    /// All about the key.
    Full,
}

/// Whether the verification counts as a use of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// It does.
    Use,
    /// It is only tried.
    DryRun,
}

/// What a caller asks about a key.
#[derive(Debug, Clone)]
pub struct VerifyQuestion {
    /// What was presented.
    pub secret: Secret,
    /// The API that it should be a key of.
    pub audience: Option<ApiId>,
    /// Where its holder called from.
    pub client: Option<IpAddr>,
    /// What it should be allowed to do.
    pub query: Option<Query>,
    /// How much to say.
    pub detail: Detail,
    /// Whether it counts.
    pub counting: Counting,
}

/// The answer about a key.
#[derive(Debug, Clone)]
pub struct Verification {
    /// What it comes to.
    pub verdict: Verdict,
    /// The key, unless it was not found.
    pub key: Option<VerifiedKey>,
}

/// A key as a verification tells of it.
#[derive(Debug, Clone)]
pub struct VerifiedKey {
    /// The record.
    pub key: Key,
    /// Whose it is, if that still exists.
    pub identity: Option<Identity>,
    /// What it may do and through which roles, if the caller asked for all.
    pub powers: Option<Powers>,
}

/// What a key may do and through which roles.
#[derive(Debug, Clone)]
pub struct Powers {
    /// Its roles that exist.
    pub roles: Vec<RoleRef>,
    /// Everything that it may do, directly or through a role.
    pub permissions: Vec<Slug>,
    /// How many keys its identity has.
    pub key_count: u64,
}

/// A key with what its verdict depends on.
struct Gathered {
    key: Key,
    api: Option<Api>,
    roles: Vec<Role>,
    identity: Option<Identity>,
}

impl Reading {
    async fn gather(&self, workspace: WorkspaceId, secret: &Secret) -> Result<Option<Gathered>, Error> {
        let home = self.home(workspace).await?;
        let Some(key) = self.key_of_secret(&home, secret).await? else { return Ok(None) };
        let api = tables::APIS.read(self.view(), &(workspace, key.api)).await?;
        let roles = self.living_roles(workspace, &key.roles).await?;
        let identity = self.living_identity(workspace, key.identity).await?;
        Ok(Some(Gathered { key, api, roles, identity }))
    }

    /// Those of the permissions that exist and that anybody asks for.
    async fn effective(
        &self,
        workspace: WorkspaceId,
        held: impl Iterator<Item = &Held>,
        asked_for: impl Fn(&Slug) -> bool,
    ) -> Result<Vec<Slug>, Error> {
        let candidates: HashMap<PermissionId, &Slug> =
            held.filter(|held| asked_for(&held.slug)).map(|held| (held.id, &held.slug)).collect();
        let mut living = BTreeSet::new();
        for (id, slug) in candidates {
            if self.lives(workspace, id).await? {
                living.insert(slug.clone());
            }
        }
        Ok(living.into_iter().collect())
    }
}

impl Ostiary {
    /// Whether a key is good for what is asked.
    ///
    /// # Errors
    /// Only for the caller's own faults and ostiary's: what is wrong with the key is the answer.
    pub async fn verify_key(
        &self,
        caller: &Caller,
        question: VerifyQuestion,
        min_revision: Option<Revision>,
    ) -> Result<Done<Verification>, Error> {
        caller.permit(Capability::VerifyKey)?;
        let VerifyQuestion { secret, audience, client, query, detail, counting } = question;
        let workspace = caller.workspace_id();
        let reading = self.read(min_revision).await?;
        let unknown = Verification { verdict: Verdict::NotFound, key: None };
        let Some(Gathered { key, api, roles, identity }) = reading.gather(workspace, &secret).await? else {
            return Ok(reading.done(unknown));
        };
        let grant = caller.allowing(Capability::VerifyKey, &key.api.to_string());
        let held = || key.permissions.iter().chain(roles.iter().flat_map(|role| &role.permissions));
        let permissions = match &query {
            None => Vec::new(),
            Some(query) => {
                let asked_for = |slug: &Slug| query.permissions().any(|asked| slug.covers(asked));
                reading.effective(workspace, held(), asked_for).await?
            }
        };
        let around = Surroundings {
            caller_may_verify: grant.is_some(),
            api: api.as_ref(),
            permissions: &permissions,
            exceeded: &[],
            uses: crate::domain::credits::Uses::Unlimited,
        };
        let verdict =
            key.verdict(Question { now: reading.now, audience, client, query: query.as_ref(), cost: 1 }, around);
        if verdict == Verdict::NotFound {
            return Ok(reading.done(unknown));
        }
        if let Some(grant) = grant {
            self.allowed_by((workspace, caller.root_key().id), grant, reading.now);
        }
        if verdict == Verdict::Valid && counting == Counting::Use {
            self.usage.key_used((workspace, key.id), reading.now);
        }
        let powers = match detail {
            Detail::Basic => None,
            Detail::Full => Some(Powers {
                roles: references(&roles),
                permissions: reading.effective(workspace, held(), |_| true).await?,
                key_count: match &identity {
                    Some(identity) => reading.keys_of_identity(workspace, identity.id).await?,
                    None => 0,
                },
            }),
        };
        Ok(reading.done(Verification { verdict, key: Some(VerifiedKey { key, identity, powers }) }))
    }
}
