//! Deleting keys, and restoring them.

use crate::domain::audit::{EventName, Happening};
use crate::domain::capability::Capability;
use crate::domain::id::KeyId;
use crate::domain::key::{DescribedKey, Key, Presence};
use crate::domain::kind::Kind;
use crate::error::Error;
use crate::service::caller::Caller;
use crate::service::change::{Effect, trying};
use crate::service::described::{described, living_identity, living_roles};
use crate::service::{Done, Ostiary, Run};

use super::{find_any, ids, put, revoked, target};

/// How a key is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It can be restored for a while.
    Restorable,
    /// For good.
    Permanent,
}

impl Ostiary {
    /// Deletes a key; unless for good, it can be restored for a while.
    pub async fn delete_key(
        &self,
        caller: &Caller,
        id: KeyId,
        deletion: Deletion,
        etag: String,
        run: Run,
    ) -> Result<Done<()>, Error> {
        let permit = caller.permit(Capability::DeleteKey)?;
        let retention = self.retention;
        let changed = self
            .change(permit, run, move |change| {
                let (before, _) = find_any(change, Capability::DeleteKey, id, retention)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let presence = match (deletion, before.presence) {
                    (_, Presence::Revoked { .. }) => return Err(revoked(id).into()),
                    (Deletion::Permanent, _) => Presence::Gone(change.now),
                    (Deletion::Restorable, Presence::Here) => Presence::Deleted(change.now),
                    (Deletion::Restorable, Presence::Deleted(_) | Presence::Gone(_)) => {
                        return Err(Error::not_found(Kind::Key, id).into());
                    }
                };
                let after = Key { presence, updated: change.now, etag: before.etag.next(), ..before.clone() };
                put(change.tx, Some(&before), &after, retention, change.now)?;
                let happening = Happening::removed(EventName::KEY_DELETE, target(&before), before.facts());
                Ok(Effect::Changed((), happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// Restores a deleted key with what it holds that still exists. It needs all that making it anew would need.
    pub async fn undelete_key(
        &self,
        caller: &Caller,
        id: KeyId,
        etag: String,
        run: Run,
    ) -> Result<Done<DescribedKey>, Error> {
        let permit = caller.permit(Capability::DeleteKey)?;
        caller.permit(Capability::CreateKey)?;
        caller.permit(Capability::UpdateKey)?;
        let retention = self.retention;
        trying!(async {
            let etag = etag.clone();
            let reading = self.read(None).await?;
            let known = self.beforehand(&reading, caller.workspace_id(), id).await?;
            self.change(permit, run, move |change| {
                change.insist_any(Capability::CreateKey)?;
                change.insist_any(Capability::UpdateKey)?;
                let name = id.to_string();
                let (before, api) = find_any(change, Capability::DeleteKey, id, retention)?;
                change.insist(Capability::CreateKey, api.id, (Kind::Key, &name))?;
                change.insist(Capability::UpdateKey, api.id, (Kind::Key, &name))?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                if matches!(before.presence, Presence::Revoked { .. }) {
                    return Err(revoked(id).into());
                }
                if before.presence == Presence::Here {
                    return Err(Error::AlreadyExists { kind: Kind::Key, name }.into());
                }
                let roles = living_roles(change, &before.roles)?;
                for role in &roles {
                    change.insist_unnamed(Capability::AddRoleToKey, role.id, Kind::Role)?;
                }
                let permissions = known.living.among(&before.permissions, &[])?;
                for held in &permissions {
                    change.insist_unnamed(Capability::AddPermissionToKey, held.id, Kind::Permission)?;
                }
                let identity = living_identity(change, before.identity)?.map(|identity| identity.id);
                let after = Key {
                    presence: Presence::Here,
                    identity,
                    roles: ids(&roles),
                    permissions,
                    updated: change.now,
                    etag: before.etag.next(),
                    ..before.clone()
                };
                put(change.tx, Some(&before), &after, retention, change.now)?;
                change.insist_on_quota_of_keys()?;
                let happening = Happening::made(EventName::KEY_UNDELETE, target(&after), after.facts());
                Ok(Effect::Changed(described(change, after, &known, &[])?, happening))
            })
            .await
        })
    }
}
