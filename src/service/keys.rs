//! API keys: made, found, listed, changed, deleted, restored. Verifying them stands in `verify.rs`.

use crate::domain::api::Api;
use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::domain::id::{KeyId, PermissionId, Reference, RoleId};
use crate::domain::key::{DescribedKey, Key, Presence};
use crate::domain::kind::Kind;
use crate::domain::limit::Limits;
use crate::domain::name::Name;
use crate::domain::network::AllowList;
use crate::domain::role::Role;
use crate::domain::rotation::{Rotated, may_live};
use crate::domain::secret::Secret;
use crate::domain::time::Expiry;
use crate::domain::value::{Facts, Metadata};
use crate::error::{Error, Obstacle};
use crate::store::tables;

use super::assignments::check_numbers;
use super::caller::Caller;
use super::change::{Change, Effect, Halt, trying};
use super::credits::{self, CreditsPatch};
use super::described::{Beforehand, described};
use super::permissions::insist_on_removals;
use super::{Done, Ostiary, Retention, Revision, Run, identities};

mod candidates;
mod deletion;
pub(super) mod finding;
mod listing;
mod making;
mod rerolling;
mod revoking;
pub(super) mod stored;

pub(super) use candidates::Candidates;
pub(super) use stored::{is_here, put};

pub use deletion::Deletion;
pub use listing::{KeyFilter, Shown};
pub use making::{ImportDraft, KeyDraft};
pub use rerolling::Reroll;
pub use revoking::{Revocation, RevocationFilter};

/// What is to be different about a key.
#[derive(Debug, Clone, Default)]
pub struct KeyPatch {
    /// The name.
    pub name: Option<Name>,
    /// All metadata.
    pub metadata: Option<Metadata>,
    /// The switch.
    pub enabled: Option<bool>,
    /// The life; an expired key can be given a new one.
    pub expiry: Option<Expiry>,
    /// All addresses.
    pub allowed: Option<AllowList>,
    /// All roles.
    pub roles: Option<Vec<Reference<RoleId>>>,
    /// All direct permissions.
    pub permissions: Option<Vec<Reference<PermissionId>>>,
    /// The identity that it belongs to.
    pub external_id: Option<Option<Name>>,
    /// How much it may be used.
    pub credits: CreditsPatch,
    /// All limits.
    pub limits: Option<Limits>,
}

pub(super) fn target(key: &Key) -> Target {
    Target::new(Kind::Key, key.id, &key.name)
}

/// The key of that id with its API, in whatever state, if the caller may do this to it and its API is still there.
fn locate(change: &mut Change<'_, '_>, capability: Capability, id: KeyId) -> Result<(Key, Api), Halt> {
    let name = id.to_string();
    let not_found = || Error::not_found(Kind::Key, &name);
    let workspace = change.workspace();
    let key = change.key(id)?.ok_or_else(not_found)?;
    change.insist(capability, key.api, (Kind::Key, &name))?;
    let api = tables::APIS.get(change.tx, &(workspace, key.api))?.filter(|api| api.deleted.is_none());
    Ok((key, api.ok_or_else(not_found)?))
}

/// The same, if it is there or can still be restored, whether or not the sweep has removed it.
fn find_any(
    change: &mut Change<'_, '_>,
    capability: Capability,
    id: KeyId,
    retention: Retention,
) -> Result<(Key, Api), Halt> {
    let (key, api) = locate(change, capability, id)?;
    if key.is_gone(change.now, retention.deleted_keys) {
        return Err(Error::not_found(Kind::Key, id).into());
    }
    Ok((key, api))
}

/// The key of that id, if the caller may do this to it and it is not deleted.
pub(super) fn find(
    change: &mut Change<'_, '_>,
    capability: Capability,
    id: KeyId,
    retention: Retention,
) -> Result<Key, Halt> {
    let (key, _) = find_any(change, capability, id, retention)?;
    Ok(present(key)?)
}

/// The key, if it is neither deleted nor revoked.
fn present(key: Key) -> Result<Key, Error> {
    match key.presence {
        Presence::Here => Ok(key),
        Presence::Deleted(_) | Presence::Gone(_) => Err(Error::not_found(Kind::Key, key.id)),
        Presence::Revoked { .. } => Err(revoked(key.id)),
    }
}

pub(super) fn revoked(key: KeyId) -> Error {
    Error::Precondition {
        obstacle: Obstacle::KeyRevoked,
        subject: key.to_string(),
        description: "the key has been revoked, which is final; create a new one".to_owned(),
    }
}

fn already_rerolled(key: KeyId, successor: KeyId) -> Error {
    Error::Precondition {
        obstacle: Obstacle::AlreadyRerolled { successor },
        subject: key.to_string(),
        description: format!("the key has been rerolled already; its successor is {successor}"),
    }
}

/// The ids of roles, in order.
pub(super) fn ids(roles: &[Role]) -> Vec<RoleId> {
    let mut ids: Vec<RoleId> = roles.iter().map(|role| role.id).collect();
    ids.sort();
    ids
}

impl Ostiary {
    /// One key, deleted ones that can still be restored included.
    pub async fn key(
        &self,
        caller: &Caller,
        id: KeyId,
        min_revision: Option<Revision>,
    ) -> Result<Done<DescribedKey>, Error> {
        caller.permit(Capability::ReadKey)?;
        let reading = self.read(min_revision).await?;
        let name = id.to_string();
        let home = reading.home(caller.workspace_id()).await?;
        let key = reading.shown_key(&home, id, self.retention).await?;
        let key = key.ok_or_else(|| Error::not_found(Kind::Key, &name))?;
        self.insist(caller, Capability::ReadKey, key.api, (Kind::Key, &name), reading.now)?;
        let described = self.described_key(&reading, key).await?;
        Ok(reading.done(described))
    }

    /// The key of a secret. The error names no part of it.
    pub async fn look_up_key(
        &self,
        caller: &Caller,
        secret: Secret,
        min_revision: Option<Revision>,
    ) -> Result<Done<DescribedKey>, Error> {
        caller.permit(Capability::ReadKey)?;
        let reading = self.read(min_revision).await?;
        let name = "of that secret";
        let not_found = || Error::not_found(Kind::Key, name);
        let home = reading.home(caller.workspace_id()).await?;
        let found = reading.key_of_secret(&home, &secret).await?.filter(is_here).ok_or_else(not_found)?;
        let key = reading.shown_key(&home, found.id, self.retention).await?.ok_or_else(not_found)?;
        self.insist(caller, Capability::ReadKey, key.api, (Kind::Key, name), reading.now)?;
        let described = self.described_key(&reading, key).await?;
        Ok(reading.done(described))
    }

    /// Changes a key. An expired one can be given a new life.
    pub async fn update_key(
        &self,
        caller: &Caller,
        id: KeyId,
        patch: KeyPatch,
        etag: String,
        run: Run,
    ) -> Result<Done<DescribedKey>, Error> {
        let permit = caller.permit(Capability::UpdateKey)?;
        let workspace = caller.workspace_id();
        let retention = self.retention;
        let _held = match patch.credits == CreditsPatch::default() {
            true => None,
            false => self.hold_credits_of(caller, id).await?,
        };
        trying!(async {
            let (patch, etag) = (patch.clone(), etag.clone());
            let reading = self.read(None).await?;
            let known = self.beforehand(&reading, workspace, id).await?;
            let references = patch.permissions.as_deref().unwrap_or_default();
            let wanted = reading.wanted(workspace, references, || self.draw_permission()).await?;
            let owner = patch.external_id.clone().map(|named| named.map(|external_id| self.owner(external_id)));
            self.change(permit, run, move |change| {
                let KeyPatch {
                    name,
                    metadata,
                    enabled,
                    expiry,
                    allowed,
                    roles,
                    permissions,
                    external_id: _,
                    credits,
                    limits,
                } = patch.clone();
                expiry.map(|expiry| change.insist_ahead(expiry)).transpose()?;
                let before = find(change, Capability::UpdateKey, id, retention)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                may_live(before.rotated_to, before.expiry, expiry.unwrap_or(before.expiry))
                    .map_err(|Rotated(successor)| already_rerolled(id, successor))?;
                let mut after = Key {
                    name: name.unwrap_or_else(|| before.name.clone()),
                    metadata: metadata.unwrap_or_else(|| before.metadata.clone()),
                    enabled: enabled.unwrap_or(before.enabled),
                    expiry: expiry.unwrap_or(before.expiry),
                    allowed: allowed.unwrap_or_else(|| before.allowed.clone()),
                    limits: limits.unwrap_or_else(|| before.limits.clone()),
                    ..before.clone()
                };
                if let Some(roles) = roles {
                    after.roles = super::assignments::replaced_roles(change, &before, &roles)?;
                }
                if permissions.is_some() {
                    let had = known.living.among(&before.permissions, &[])?;
                    let has = wanted.obtain(change, Capability::AddPermissionToKey, &had)?;
                    insist_on_removals(change, Capability::RemovePermissionFromKey, &had, &has)?;
                    if has != had {
                        after.permissions = has;
                    }
                }
                check_numbers(after.roles.len(), after.permissions.len())?;
                if let Some(owner) = &owner {
                    after.identity = identities::owned(change, &before, owner.as_ref())?;
                }
                let moved = credits::patched(change, &mut after, credits)?;
                rewrite(change, &before, (after, moved), &known, retention)
            })
            .await
        })
    }
}

/// Writes what has become of a key, unless nothing has. Its credits are no part of its record; what has become of them
/// is told beside it.
pub(super) fn rewrite(
    change: &mut Change<'_, '_>,
    before: &Key,
    (mut after, credits): (Key, Option<(Facts, Facts)>),
    known: &Beforehand,
    retention: Retention,
) -> Result<Effect<DescribedKey>, Halt> {
    let added = after.permissions.clone();
    if after == *before && credits.is_none() {
        return Ok(Effect::Unchanged(described(change, after, known, &[])?));
    }
    after.updated = change.now;
    after.etag = before.etag.next();
    put(change.tx, Some(before), &after, retention, change.now)?;
    let mut facts = after.facts();
    let differing = before.metadata.differing(&after.metadata);
    if !differing.is_empty() {
        // Which values have changed, not what they are: they may be personal.
        facts.insert("metadata_changed".to_owned(), differing.into_iter().collect());
    }
    let mut was = before.facts();
    if let Some((before, after)) = credits {
        was.extend(before);
        facts.extend(after);
    }
    let happening = Happening::changed(EventName::KEY_UPDATE, target(&after), was, facts);
    // What has just been obtained exists; what it held before has been looked at.
    let just_added = if after.permissions == before.permissions { &[][..] } else { &added };
    Ok(Effect::Changed(described(change, after, known, just_added)?, happening))
}
