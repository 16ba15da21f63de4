//! How many there are of something: rows kept by whoever keeps the thing, so that asking costs one look.

use crate::domain::id::{ApiId, IdentityId, NamespaceId, RoleId, RootKeyId, WorkspaceId};
use crate::error::Error;
use crate::store::tables::{self, Counted};
use crate::store::{Stop, Txn, View};

use super::Reading;

/// Which way a count goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// One more.
    Up,
    /// One less.
    Down,
}

type CountKey = (WorkspaceId, Counted, [u8; 16]);

fn key_of_api(workspace: WorkspaceId, api: ApiId) -> CountKey {
    (workspace, Counted::KeysOfApi, api.bytes())
}

fn key_of_role(workspace: WorkspaceId, role: RoleId) -> CountKey {
    (workspace, Counted::KeysOfRole, role.bytes())
}

fn key_of_identity(workspace: WorkspaceId, identity: IdentityId) -> CountKey {
    (workspace, Counted::KeysOfIdentity, identity.bytes())
}

fn key_of_creator(workspace: WorkspaceId, creator: RootKeyId) -> CountKey {
    (workspace, Counted::KeysOfCreator, creator.bytes())
}

fn key_of_namespace(workspace: WorkspaceId, namespace: NamespaceId) -> CountKey {
    (workspace, Counted::OverridesOfNamespace, namespace.bytes())
}

fn key_of_administrators(workspace: WorkspaceId) -> CountKey {
    (workspace, Counted::Administrators, [0; 16])
}

fn key_of_keys(workspace: WorkspaceId) -> CountKey {
    (workspace, Counted::Keys, [0; 16])
}

fn key_of_rerolled(workspace: WorkspaceId) -> CountKey {
    (workspace, Counted::RerolledKeys, [0; 16])
}

fn key_of_apis_to_clear(workspace: WorkspaceId) -> CountKey {
    (workspace, Counted::ApisToClear, [0; 16])
}

fn key_of_root_keys(workspace: WorkspaceId) -> CountKey {
    (workspace, Counted::RootKeys, [0; 16])
}

fn step(tx: &mut Txn<'_>, key: &CountKey, by: By) -> Result<(), Stop> {
    let count = tables::COUNTS.get(tx, key)?.unwrap_or(0);
    let count = match by {
        By::Up => count + 1,
        By::Down => count.saturating_sub(1),
    };
    if count == 0 { tables::COUNTS.remove(tx, key) } else { tables::COUNTS.put(tx, key, &count) }
}

/// One key more or less in an API, and so in its workspace.
pub fn keys_of_api(tx: &mut Txn<'_>, workspace: WorkspaceId, api: ApiId, by: By) -> Result<(), Stop> {
    step(tx, &key_of_api(workspace, api), by)?;
    step(tx, &key_of_keys(workspace), by)
}

/// One key more or less that is there and has a successor.
pub fn rerolled(tx: &mut Txn<'_>, workspace: WorkspaceId, by: By) -> Result<(), Stop> {
    step(tx, &key_of_rerolled(workspace), by)
}

/// How many keys that are there have a successor, those of deleted APIs included until they are removed.
pub fn rerolled_now(tx: &mut Txn<'_>, workspace: WorkspaceId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_rerolled(workspace))?.unwrap_or(0))
}

/// One API more or less that is deleted and has not been cleared away.
pub fn apis_to_clear(tx: &mut Txn<'_>, workspace: WorkspaceId, by: By) -> Result<(), Stop> {
    step(tx, &key_of_apis_to_clear(workspace), by)
}

/// How many APIs are deleted and have not been cleared away: their keys still count for roles, identities and
/// creators.
pub fn apis_to_clear_now(tx: &mut Txn<'_>, workspace: WorkspaceId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_apis_to_clear(workspace))?.unwrap_or(0))
}

/// All keys of an API fewer, at once.
pub fn lose_api(tx: &mut Txn<'_>, workspace: WorkspaceId, api: ApiId) -> Result<(), Stop> {
    let lost = keys_of_api_now(tx, workspace, api)?;
    let left = keys_now(tx, workspace)?.saturating_sub(lost);
    tables::COUNTS.remove(tx, &key_of_api(workspace, api))?;
    let key = key_of_keys(workspace);
    if left == 0 { tables::COUNTS.remove(tx, &key) } else { tables::COUNTS.put(tx, &key, &left) }
}

/// One root key more or less.
pub fn root_keys(tx: &mut Txn<'_>, workspace: WorkspaceId, by: By) -> Result<(), Stop> {
    step(tx, &key_of_root_keys(workspace), by)
}

/// How many keys a workspace has, inside a transaction.
pub fn keys_now(tx: &mut Txn<'_>, workspace: WorkspaceId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_keys(workspace))?.unwrap_or(0))
}

/// How many root keys a workspace has, inside a transaction.
pub fn root_keys_now(tx: &mut Txn<'_>, workspace: WorkspaceId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_root_keys(workspace))?.unwrap_or(0))
}

/// One key more or less that holds a role.
pub fn keys_of_role(tx: &mut Txn<'_>, workspace: WorkspaceId, role: RoleId, by: By) -> Result<(), Stop> {
    step(tx, &key_of_role(workspace, role), by)
}

/// One key more or less of an identity.
pub fn keys_of_identity(tx: &mut Txn<'_>, workspace: WorkspaceId, identity: IdentityId, by: By) -> Result<(), Stop> {
    step(tx, &key_of_identity(workspace, identity), by)
}

/// One key more or less that a root key has made.
pub fn keys_of_creator(tx: &mut Txn<'_>, workspace: WorkspaceId, creator: RootKeyId, by: By) -> Result<(), Stop> {
    step(tx, &key_of_creator(workspace, creator), by)
}

/// One exception more or less in a namespace.
pub fn overrides(tx: &mut Txn<'_>, workspace: WorkspaceId, namespace: NamespaceId, by: By) -> Result<(), Stop> {
    step(tx, &key_of_namespace(workspace, namespace), by)
}

/// One administrator more or less.
pub fn administrators(tx: &mut Txn<'_>, workspace: WorkspaceId, by: By) -> Result<(), Stop> {
    step(tx, &key_of_administrators(workspace), by)
}

/// How many administrators a workspace has, inside a transaction.
pub fn administrators_now(tx: &mut Txn<'_>, workspace: WorkspaceId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_administrators(workspace))?.unwrap_or(0))
}

/// How many keys an API has, inside a transaction.
pub fn keys_of_api_now(tx: &mut Txn<'_>, workspace: WorkspaceId, api: ApiId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_api(workspace, api))?.unwrap_or(0))
}

/// How many keys hold a role, inside a transaction.
pub fn keys_of_role_now(tx: &mut Txn<'_>, workspace: WorkspaceId, role: RoleId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_role(workspace, role))?.unwrap_or(0))
}

/// How many keys an identity has, inside a transaction.
pub fn keys_of_identity_now(tx: &mut Txn<'_>, workspace: WorkspaceId, identity: IdentityId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_identity(workspace, identity))?.unwrap_or(0))
}

/// How many keys a root key has made, inside a transaction.
pub fn keys_of_creator_now(tx: &mut Txn<'_>, workspace: WorkspaceId, creator: RootKeyId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_creator(workspace, creator))?.unwrap_or(0))
}

/// How many exceptions a namespace has, inside a transaction.
pub fn overrides_now(tx: &mut Txn<'_>, workspace: WorkspaceId, namespace: NamespaceId) -> Result<u64, Stop> {
    Ok(tables::COUNTS.get(tx, &key_of_namespace(workspace, namespace))?.unwrap_or(0))
}

/// Forgets how many exceptions a namespace had that is gone.
pub fn forget_namespace(tx: &mut Txn<'_>, workspace: WorkspaceId, namespace: NamespaceId) -> Result<(), Stop> {
    tables::COUNTS.remove(tx, &key_of_namespace(workspace, namespace))
}

/// Forgets how many keys an identity had that is gone.
pub fn forget_identity(tx: &mut Txn<'_>, workspace: WorkspaceId, identity: IdentityId) -> Result<(), Stop> {
    tables::COUNTS.remove(tx, &key_of_identity(workspace, identity))
}

/// Forgets how many keys held a role that is gone.
pub fn forget_role(tx: &mut Txn<'_>, workspace: WorkspaceId, role: RoleId) -> Result<(), Stop> {
    tables::COUNTS.remove(tx, &key_of_role(workspace, role))
}

/// Forgets what a workspace had that is gone.
pub fn forget_workspace(tx: &mut Txn<'_>, workspace: WorkspaceId) -> Result<(), Stop> {
    let of_all = [key_of_administrators, key_of_keys, key_of_rerolled, key_of_root_keys, key_of_apis_to_clear];
    for key in of_all.map(|key| key(workspace)) {
        tables::COUNTS.remove(tx, &key)?;
    }
    Ok(())
}

/// How many keys belong to an identity, in a view.
pub async fn keys_of_identity_in(view: &dyn View, workspace: WorkspaceId, identity: IdentityId) -> Result<u64, Error> {
    Ok(tables::COUNTS.read(view, &key_of_identity(workspace, identity)).await?.unwrap_or(0))
}

impl Reading {
    /// How many keys an API has.
    pub(super) async fn keys_of_api(&self, workspace: WorkspaceId, api: ApiId) -> Result<u64, Error> {
        Ok(tables::COUNTS.read(self.view(), &key_of_api(workspace, api)).await?.unwrap_or(0))
    }

    /// How many keys an identity has.
    pub(super) async fn keys_of_identity(&self, workspace: WorkspaceId, identity: IdentityId) -> Result<u64, Error> {
        keys_of_identity_in(self.view(), workspace, identity).await
    }

    /// How many exceptions a namespace has.
    pub(super) async fn overrides_of(&self, workspace: WorkspaceId, namespace: NamespaceId) -> Result<u64, Error> {
        Ok(tables::COUNTS.read(self.view(), &key_of_namespace(workspace, namespace)).await?.unwrap_or(0))
    }

    /// How many keys hold a role.
    pub(super) async fn keys_of_role(&self, workspace: WorkspaceId, role: RoleId) -> Result<u64, Error> {
        Ok(tables::COUNTS.read(self.view(), &key_of_role(workspace, role)).await?.unwrap_or(0))
    }
}
