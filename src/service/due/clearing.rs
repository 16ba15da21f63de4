//! Removing what nobody can use any more, a little at a time.

use crate::domain::id::{ApiId, IdentityId, KeyId, NamespaceId, PermissionId, RoleId, RootKeyId, WorkspaceId};
use crate::domain::key::Presence;
use crate::domain::root_key::RootKey;
use crate::domain::time::{Expiry, Timestamp};
use crate::error::Error;
use crate::service::Ostiary;
use crate::service::housekeeping::Drawn;
use crate::service::listing::of;
use crate::service::{counts, credits, usage};
use crate::store::tables::{self, Task};
use crate::store::{Stop, Txn};

use super::{CHUNK, CLEARED_AT_ONCE, Entry, FORGOTTEN_AT_ONCE};

impl Ostiary {
    pub(super) async fn clear(&self, entry: Entry) -> Result<(), Error> {
        let (_, task, workspace, id) = entry;
        match task {
            Task::ExpireRootKey | Task::ExpireKey => Ok(()),
            Task::PurgeRootKey => self.settle_at_leisure(move |tx, drawn| purge_root_key(tx, entry, drawn)).await,
            Task::PurgeKey => {
                let purge = move |tx: &mut Txn<'_>, drawn: Drawn| purge_key_when_due(tx, entry, drawn);
                self.purge(KeyId::from_bytes(id), purge).await
            }
            Task::PurgePermission => self.settle_at_leisure(move |tx, _| purge_permission(tx, entry)).await,
            Task::ClearRole => self.clear_role(entry, workspace, RoleId::from_bytes(id)).await,
            Task::ClearApi => self.clear_api(entry, workspace, ApiId::from_bytes(id)).await,
            Task::ClearWorkspace => self.clear_workspace(entry, workspace).await,
            Task::ClearIdentity => self.clear_identity(entry, workspace, IdentityId::from_bytes(id)).await,
            Task::ClearNamespace => self.clear_namespace(entry, workspace, NamespaceId::from_bytes(id)).await,
            Task::SettleCuts => Ok(()),
        }
    }

    /// Removes the index of a deleted role, then the role. Keys keep its id, which resolves to nothing.
    async fn clear_role(&self, entry: Entry, workspace: WorkspaceId, role: RoleId) -> Result<(), Error> {
        // A cut of the role finds its keys by this index.
        self.settle_cuts(workspace).await?;
        loop {
            let reading = self.read(None).await?;
            let rows = tables::ROLE_KEYS.list(reading.view(), &(workspace, role), None, CLEARED_AT_ONCE).await?;
            if rows.is_empty() {
                break;
            }
            self.settle_at_leisure(move |tx, _| {
                rows.iter().try_for_each(|(row, ())| tables::ROLE_KEYS.remove(tx, row))
            })
            .await?;
        }
        self.settle_at_leisure(move |tx, _| {
            counts::forget_role(tx, workspace, role)?;
            tables::ROLES.remove(tx, &(workspace, role))?;
            tables::DUE.remove(tx, &entry)
        })
        .await
    }

    /// Removes the index of a deleted identity, then the identity. Keys keep its id, which resolves to nothing.
    async fn clear_identity(&self, entry: Entry, workspace: WorkspaceId, identity: IdentityId) -> Result<(), Error> {
        // Its index says which keys a cut has taken that are not marked yet.
        self.settle_cuts(workspace).await?;
        loop {
            let reading = self.read(None).await?;
            let prefix = (workspace, identity);
            let rows = tables::IDENTITY_KEYS.list(reading.view(), &prefix, None, CLEARED_AT_ONCE).await?;
            if rows.is_empty() {
                break;
            }
            self.settle_at_leisure(move |tx, _| {
                rows.iter().try_for_each(|(row, ())| tables::IDENTITY_KEYS.remove(tx, row))
            })
            .await?;
        }
        self.settle_at_leisure(move |tx, _| {
            counts::forget_identity(tx, workspace, identity)?;
            tables::IDENTITIES.remove(tx, &(workspace, identity))?;
            tables::DUE.remove(tx, &entry)
        })
        .await
    }

    /// Removes all identities of a deleted workspace, whose keys are gone already.
    async fn clear_identities(&self, workspace: WorkspaceId) -> Result<(), Error> {
        loop {
            let reading = self.read(None).await?;
            let rows = tables::IDENTITIES.list(reading.view(), &of(workspace), None, CLEARED_AT_ONCE / 4).await?;
            if rows.is_empty() {
                return Ok(());
            }
            self.settle_at_leisure(move |tx, _| {
                for (row, identity) in &rows {
                    tables::IDENTITY_EXTERNAL_IDS.remove(tx, &(workspace, identity.external_id.to_string()))?;
                    counts::forget_identity(tx, workspace, row.1)?;
                    tables::IDENTITIES.remove(tx, row)?;
                }
                Ok(())
            })
            .await?;
        }
    }

    /// Removes the exceptions in a deleted namespace, then the namespace. What was counted in it goes when it is over.
    async fn clear_namespace(&self, entry: Entry, workspace: WorkspaceId, id: NamespaceId) -> Result<(), Error> {
        self.clear_overrides(workspace, id).await?;
        self.settle_at_leisure(move |tx, _| {
            tables::NAMESPACES.remove(tx, &(workspace, id))?;
            tables::DUE.remove(tx, &entry)
        })
        .await
    }

    async fn clear_overrides(&self, workspace: WorkspaceId, id: NamespaceId) -> Result<(), Error> {
        loop {
            let reading = self.read(None).await?;
            let rows = tables::OVERRIDES.list(reading.view(), &(workspace, id), None, CLEARED_AT_ONCE).await?;
            if rows.is_empty() {
                return self.settle_at_leisure(move |tx, _| counts::forget_namespace(tx, workspace, id)).await;
            }
            self.settle_at_leisure(move |tx, _| {
                for (row, exception) in &rows {
                    tables::OVERRIDE_IDENTIFIERS.remove(tx, &(workspace, id, exception.pattern.spelling()))?;
                    tables::OVERRIDES.remove(tx, row)?;
                }
                Ok(())
            })
            .await?;
        }
    }

    /// Removes all namespaces of a deleted workspace.
    async fn clear_namespaces(&self, workspace: WorkspaceId) -> Result<(), Error> {
        loop {
            let reading = self.read(None).await?;
            let rows = tables::NAMESPACES.list(reading.view(), &of(workspace), None, 1).await?;
            drop(reading);
            let Some(((_, id), namespace)) = rows.into_iter().next() else { return Ok(()) };
            self.clear_overrides(workspace, id).await?;
            self.settle_at_leisure(move |tx, _| {
                // The name of one that was deleted before may be another's by now.
                if namespace.deleted.is_none() {
                    tables::NAMESPACE_NAMES.remove(tx, &(workspace, namespace.name.folded()))?;
                }
                tables::NAMESPACES.remove(tx, &(workspace, id))
            })
            .await?;
        }
    }

    /// Removes the keys of a deleted API, then the API.
    async fn clear_api(&self, entry: Entry, workspace: WorkspaceId, api: ApiId) -> Result<(), Error> {
        self.clear_keys_of(workspace, api).await?;
        self.settle_at_leisure(move |tx, _| {
            if tables::APIS.get(tx, &(workspace, api))?.is_some() {
                counts::apis_to_clear(tx, workspace, counts::By::Down)?;
            }
            tables::APIS.remove(tx, &(workspace, api))?;
            tables::DUE.remove(tx, &entry)
        })
        .await
    }

    /// Removes a key for good, if `purge` says that it does.
    async fn purge(
        &self,
        key: KeyId,
        purge: impl FnMut(&mut Txn<'_>, Drawn) -> Result<bool, Stop> + Send + 'static,
    ) -> Result<(), Error> {
        let _saving = self.usage.hold().await;
        if self.settle_at_leisure(purge).await? {
            self.usage.forget(key);
        }
        Ok(())
    }

    async fn clear_keys_of(&self, workspace: WorkspaceId, api: ApiId) -> Result<(), Error> {
        loop {
            let reading = self.read(None).await?;
            let rows = tables::API_KEYS.list(reading.view(), &(workspace, api), None, CHUNK).await?;
            drop(reading);
            if rows.is_empty() {
                return Ok(());
            }
            for ((_, _, key), ()) in rows {
                self.purge(key, move |tx, _| purge_key(tx, workspace, key).map(|()| true)).await?;
            }
        }
    }

    /// Removes everything in a deleted workspace but its part of the log, then the workspace.
    async fn clear_workspace(&self, entry: Entry, workspace: WorkspaceId) -> Result<(), Error> {
        loop {
            let reading = self.read(None).await?;
            let apis = tables::APIS.list(reading.view(), &of(workspace), None, CHUNK).await?;
            drop(reading);
            let Some(((_, api), _)) = apis.into_iter().next() else { break };
            self.clear_keys_of(workspace, api).await?;
            self.settle_at_leisure(move |tx, _| {
                counts::lose_api(tx, workspace, api)?;
                tables::APIS.remove(tx, &(workspace, api))
            })
            .await?;
        }
        self.clear_identities(workspace).await?;
        self.clear_namespaces(workspace).await?;
        loop {
            let reading = self.read(None).await?;
            let roles = tables::ROLES.list(reading.view(), &of(workspace), None, CLEARED_AT_ONCE / 4).await?;
            let permissions =
                tables::PERMISSIONS.list(reading.view(), &of(workspace), None, CLEARED_AT_ONCE / 4).await?;
            let root_keys = tables::ROOT_KEYS.list(reading.view(), &of(workspace), None, CLEARED_AT_ONCE / 4).await?;
            if roles.is_empty() && permissions.is_empty() && root_keys.is_empty() {
                break;
            }
            self.settle_at_leisure(move |tx, _| {
                for (row, role) in &roles {
                    tables::ROLE_NAMES.remove(tx, &(workspace, role.name.folded()))?;
                    counts::forget_role(tx, workspace, row.1)?;
                    tables::ROLES.remove(tx, row)?;
                }
                for (row, permission) in &permissions {
                    tables::PERMISSION_SLUGS.remove(tx, &(workspace, permission.slug.folded()))?;
                    tables::PERMISSIONS.remove(tx, row)?;
                }
                for (_, root_key) in &root_keys {
                    remove_root_key(tx, root_key)?;
                }
                Ok(())
            })
            .await?;
        }
        self.settle_at_leisure(move |tx, _| {
            counts::forget_workspace(tx, workspace)?;
            tables::WORKSPACES.remove(tx, &(workspace,))?;
            tables::DUE.remove(tx, &entry)
        })
        .await
    }

    /// Forgets calls that can no longer be repeated, and says when the next one may be forgotten.
    pub(super) async fn forget_calls(&self) -> Result<Option<Timestamp>, Error> {
        loop {
            let reading = self.read(None).await?;
            let now = reading.now;
            let rows = tables::FORGETTABLE.list(reading.view(), &(), None, FORGOTTEN_AT_ONCE).await?;
            let due: Vec<_> = rows
                .iter()
                .map(|(row, ())| *row)
                .take_while(|(moment, ..)| Expiry::At(*moment).has_passed(now))
                .collect();
            let next = rows.get(due.len()).map(|((moment, ..), ())| *moment);
            if due.is_empty() {
                return Ok(next);
            }
            self.settle_at_leisure(move |tx, _| {
                for row in &due {
                    let &(moment, workspace, root_key, key) = row;
                    let place = (workspace, root_key, key);
                    // The same idempotency key may have been used again since.
                    let remembered = tables::REMEMBERED.get(tx, &place)?;
                    let meant = |time: u64| {
                        Timestamp::from_millis_saturating(time).after(crate::service::change::REMEMBERED_FOR) == moment
                    };
                    if remembered.is_some_and(|remembered| meant(remembered.time)) {
                        tables::REMEMBERED.remove(tx, &place)?;
                    }
                    tables::FORGETTABLE.remove(tx, row)?;
                }
                Ok(())
            })
            .await?;
        }
    }
}

fn remove_root_key(tx: &mut Txn<'_>, root_key: &RootKey) -> Result<(), Stop> {
    let row = (root_key.workspace, root_key.id);
    if root_key.is_counted() {
        counts::root_keys(tx, root_key.workspace, counts::By::Down)?;
    }
    tables::ROOT_KEY_DIGESTS.remove(tx, &(root_key.digest.bytes(),))?;
    tables::ROOT_KEY_USAGE.remove(tx, &row)?;
    tables::ROOT_KEYS.remove(tx, &row)
}

fn purge_root_key(tx: &mut Txn<'_>, entry: Entry, drawn: Drawn) -> Result<(), Stop> {
    let (_, _, workspace, id) = entry;
    if tables::DUE.get(tx, &entry)?.is_some() {
        tables::DUE.remove(tx, &entry)?;
        // The entry was put there under the retention of its time; what the root key has become since decides.
        let root_key = tables::ROOT_KEYS.get(tx, &(workspace, RootKeyId::from_bytes(id)))?;
        if let Some(root_key) = root_key.filter(|key| key.deleted.is_some() || key.expiry.has_passed(drawn.now)) {
            remove_root_key(tx, &root_key)?;
        }
    }
    Ok(())
}

fn purge_permission(tx: &mut Txn<'_>, entry: Entry) -> Result<(), Stop> {
    let (_, _, workspace, id) = entry;
    tables::PERMISSIONS.remove(tx, &(workspace, PermissionId::from_bytes(id)))?;
    tables::DUE.remove(tx, &entry)
}

fn purge_key_when_due(tx: &mut Txn<'_>, entry: Entry, drawn: Drawn) -> Result<bool, Stop> {
    let (_, _, workspace, id) = entry;
    if tables::DUE.get(tx, &entry)?.is_some() {
        tables::DUE.remove(tx, &entry)?;
        // The entry was put there under the retention of its time: a key that is back, or has a new life, stays.
        let key = tables::KEYS.get(tx, &(workspace, KeyId::from_bytes(id)))?;
        if key.is_some_and(|key| key.presence != Presence::Here || key.expiry.has_passed(drawn.now)) {
            purge_key(tx, workspace, KeyId::from_bytes(id))?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes all rows of a key. What the schedule still holds of it finds nothing and goes.
fn purge_key(tx: &mut Txn<'_>, workspace: WorkspaceId, id: KeyId) -> Result<(), Stop> {
    let Some(key) = tables::KEYS.get(tx, &(workspace, id))? else { return Ok(()) };
    if key.is_counted() {
        // A deleted API took all its keys off the counts when it went.
        if tables::APIS.get(tx, &(workspace, key.api))?.is_some_and(|api| api.deleted.is_none()) {
            counts::keys_of_api(tx, workspace, key.api, counts::By::Down)?;
        }
        counts::keys_of_creator(tx, workspace, key.created_by, counts::By::Down)?;
        for role in &key.roles {
            counts::keys_of_role(tx, workspace, *role, counts::By::Down)?;
        }
        if let Some(identity) = key.identity {
            counts::keys_of_identity(tx, workspace, identity, counts::By::Down)?;
        }
    }
    if key.is_replaced() {
        counts::rerolled(tx, workspace, counts::By::Down)?;
    }
    if let Some(identity) = key.identity {
        tables::IDENTITY_KEYS.remove(tx, &(workspace, identity, id))?;
    }
    if let Some(lineage) = key.meter {
        credits::let_go(tx, (workspace, lineage))?;
    }
    for role in &key.roles {
        tables::ROLE_KEYS.remove(tx, &(workspace, *role, id))?;
    }
    tables::API_KEYS.remove(tx, &(workspace, key.api, id))?;
    let by_digest = (workspace, key.digest.bytes());
    // Only keys that were imported are found by it.
    if tables::KEY_DIGESTS.get(tx, &by_digest)? == Some(id) {
        tables::KEY_DIGESTS.remove(tx, &by_digest)?;
    }
    usage::forget_key(tx, id)?;
    tables::KEYS.remove(tx, &(workspace, id))
}
