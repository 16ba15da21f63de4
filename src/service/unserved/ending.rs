//! Ending what a restored store would else let back in.
//!
//! A backup doesn't know what was revoked after it. Either all keys are ended, or the store that is replaced still tells
//! what has changed: whatever its records say otherwise is ended.

use futures::{StreamExt, TryStreamExt, stream};

use crate::domain::api::Api;
use crate::domain::audit::{EventName, Happening};
use crate::domain::backup::Header;
use crate::domain::cut::{Cut, CutFilter};
use crate::domain::id::{ApiId, KeyId, PermissionId, RoleId, RootKeyId, WorkspaceId};
use crate::domain::key::{Key, Presence};
use crate::domain::workspace::{Purpose, Workspace};
use crate::error::Error;
use crate::service::housekeeping::Drawn;
use crate::service::{Retention, apis, due, keys, permissions, roles, root_keys, workspaces};
use crate::store::records::Record;
use crate::store::tables::{self, Part, Table, Task};
use crate::store::{Revision, Stop, Txn, View};

use super::{Unserved, backup_revision, record};

/// Rows compared at a time.
const CHUNK: usize = 500;
/// Transactions that become durable together.
const AT_ONCE: usize = 64;

/// What to end in a restored store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// What has changed since, by the store that is replaced.
    Changed,
    /// All keys of all workspaces.
    Keys,
    /// All root keys of all workspaces.
    RootKeys,
}

impl Ending {
    /// Its name in flags and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Keys => "keys",
            Self::RootKeys => "root-keys",
        }
    }
}

/// How much was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Keys one by one; not those that went with an API or a workspace, or with all others.
    pub keys: u64,
    /// Root keys.
    pub root_keys: u64,
    /// Roles and permissions.
    pub roles_and_permissions: u64,
    /// APIs that were deleted, or all of whose keys were revoked.
    pub apis: u64,
    /// Workspaces that were deleted, disabled, or all of whose keys were revoked.
    pub workspaces: u64,
}

type Row<I> = (WorkspaceId, I);

impl Unserved<'_> {
    /// Revokes every key of every workspace, by one cut in each.
    pub async fn end_keys(&self) -> Result<Ended, Error> {
        let view = self.engine.view().await?;
        let all = everything(view.as_ref(), &tables::WORKSPACES).await?;
        let living = all.into_iter().filter(|(_, home)| home.deleted.is_none()).map(|(row, _)| row);
        let workspaces = self.each(living, |tx, drawn, (workspace,)| cut(tx, drawn, *workspace, None)).await?;
        Ok(Ended { workspaces, ..Ended::default() })
    }

    /// Deletes every root key of every workspace.
    pub async fn end_root_keys(&self) -> Result<Ended, Error> {
        let view = self.engine.view().await?;
        let all = everything(view.as_ref(), &tables::ROOT_KEYS).await?;
        let root_keys = self.each(all.into_iter().map(|(row, _)| row), end_root_key).await?;
        Ok(Ended { root_keys, ..Ended::default() })
    }

    /// Whether another store tells what has changed since a backup, of which this one was made: it is of the same
    /// installation and knows all that the backup does, by itself or by a backup that it was made from in turn.
    pub async fn continues_in(&self, since: &dyn View, backup: &Header) -> Result<bool, Error> {
        let view = self.engine.view().await?;
        let kin = tables::PAGE_KEY.read(view.as_ref(), &()).await? == tables::PAGE_KEY.read(since, &()).await?;
        let mut known = restored_revisions(since).await?;
        known.push(since.revision());
        Ok(kin && known.into_iter().any(|known| known.epoch == backup.epoch && known.counter >= backup.counter))
    }

    /// Ends what is another thing in the store that is replaced, or gone from there: revokes keys, deletes root keys,
    /// roles and permissions. An API or a workspace that was deleted since is deleted; a workspace that was disabled is
    /// disabled; of an API that was changed otherwise all keys are revoked.
    pub async fn end_changed(&self, since: &dyn View) -> Result<Ended, Error> {
        let view = self.engine.view().await?;
        let view = view.as_ref();
        // First, so that keys which go with their API are not ended one by one.
        let changed_apis = changed(view, since, &tables::APIS).await?;
        let apis = self.each(changed_apis.into_iter(), |tx, drawn, (row, is)| end_api(tx, drawn, *row, is)).await?;
        let keys = self.each(changed_keys(view, since).await?.into_iter(), end_key).await?;
        let changed_root_keys = changed_rows(view, since, &tables::ROOT_KEYS).await?;
        let root_keys = self.each(changed_root_keys.into_iter(), end_root_key).await?;
        let changed_roles = changed_rows(view, since, &tables::ROLES).await?;
        let mut roles_and_permissions = self.each(changed_roles.into_iter(), end_role).await?;
        let changed_permissions = changed_rows(view, since, &tables::PERMISSIONS).await?;
        roles_and_permissions += self.each(changed_permissions.into_iter(), end_permission).await?;
        let mut homes = Vec::new();
        for (row, _) in everything(view, &tables::WORKSPACES).await? {
            homes.push((row, tables::WORKSPACES.read(since, &row).await?));
        }
        let ended = self.each(homes.into_iter(), |tx, drawn, (row, is)| end_workspace(tx, drawn, *row, is.as_ref()));
        Ok(Ended { keys, root_keys, roles_and_permissions, apis, workspaces: ended.await? })
    }

    /// Ends each of them in a transaction of its own, many of which share a commit. Answers how many there were to end.
    async fn each<I, F>(&self, all: impl Iterator<Item = I>, end: F) -> Result<u64, Error>
    where
        I: Send + Sync + 'static,
        F: Fn(&mut Txn<'_>, Drawn, &I) -> Result<bool, Stop> + Copy + Send + Sync + 'static,
    {
        let ended = stream::iter(all.map(|one| self.settle(move |tx, drawn| end(tx, drawn, &one))));
        let ended: Vec<bool> = ended.buffered(AT_ONCE).try_collect().await?;
        Ok(ended.into_iter().map(u64::from).sum())
    }
}

/// Up to which revisions of earlier stores a store knows what was, by the backups that it was made from.
async fn restored_revisions(view: &dyn View) -> Result<Vec<Revision>, Error> {
    let Some(operator) = tables::OPERATOR.read(view, &()).await? else { return Ok(Vec::new()) };
    let (mut revisions, mut after) = (Vec::new(), None);
    loop {
        let rows = tables::AUDIT.list(view, &(operator,), after.as_ref(), CHUNK).await?;
        after = rows.last().map(|(row, _)| *row);
        let ended = rows.len() < CHUNK;
        revisions.extend(rows.iter().filter_map(|(_, event)| backup_revision(&event.happening)));
        if ended {
            return Ok(revisions);
        }
    }
}

/// Every row of a table.
async fn everything<K: Part, R: Record<K>>(view: &dyn View, table: &Table<K, R>) -> Result<Vec<(K, R)>, Error> {
    let mut all: Vec<(K, R)> = Vec::new();
    loop {
        let rows = table.list(view, &(), all.last().map(|(key, _)| key), CHUNK).await?;
        let ended = rows.len() < CHUNK;
        all.extend(rows);
        if ended {
            return Ok(all);
        }
    }
}

/// The rows of a table that are others since, or gone, each with what it is since.
async fn changed<K, R>(view: &dyn View, since: &dyn View, table: &Table<K, R>) -> Result<Vec<(K, Option<R>)>, Error>
where
    K: Part + Clone,
    R: Record<K> + PartialEq,
{
    let (mut changed, mut after): (Vec<(K, Option<R>)>, Option<K>) = (Vec::new(), None);
    loop {
        let rows = table.list(view, &(), after.as_ref(), CHUNK).await?;
        after = rows.last().map(|(key, _)| key.clone());
        let ended = rows.len() < CHUNK;
        for (key, was) in rows {
            let is = table.read(since, &key).await?;
            if is.as_ref() != Some(&was) {
                changed.push((key, is));
            }
        }
        if ended {
            return Ok(changed);
        }
    }
}

async fn changed_rows<K, R>(view: &dyn View, since: &dyn View, table: &Table<K, R>) -> Result<Vec<K>, Error>
where
    K: Part + Clone,
    R: Record<K> + PartialEq,
{
    Ok(changed(view, since, table).await?.into_iter().map(|(key, _)| key).collect())
}

/// The keys that are others since. One that a cut has taken may not say so itself yet.
async fn changed_keys(view: &dyn View, since: &dyn View) -> Result<Vec<Row<KeyId>>, Error> {
    let mut all: Vec<Row<KeyId>> = Vec::new();
    for (workspace, _) in everything(view, &tables::WORKSPACES).await? {
        // The keys of a workspace that is gone go with it.
        let since_home = tables::WORKSPACES.read(since, &workspace).await?.filter(|home| home.deleted.is_none());
        let Some(since_home) = since_home else { continue };
        let (mut after, (workspace,)) = (None, workspace);
        loop {
            let rows = tables::KEYS.list(view, &(workspace,), after.as_ref(), CHUNK).await?;
            after = rows.last().map(|(row, _)| *row);
            let ended = rows.len() < CHUNK;
            for (row, was) in rows {
                let is = tables::KEYS.read(since, &row).await?.map(|key| since_home.settled(key));
                if is.as_ref() != Some(&was) {
                    all.push(row);
                }
            }
            if ended {
                break;
            }
        }
    }
    Ok(all)
}

fn end_key(tx: &mut Txn<'_>, drawn: Drawn, &(workspace, id): &Row<KeyId>) -> Result<bool, Stop> {
    let Some(before) = keys::stored::get(tx, workspace, id)? else { return Ok(false) };
    let api = tables::APIS.get(tx, &(workspace, before.api))?;
    let deleted = match before.presence {
        Presence::Here => None,
        Presence::Deleted(at) => Some(at),
        Presence::Gone(_) | Presence::Revoked { .. } => return Ok(false),
    };
    // The keys of a deleted API are gone with it.
    if api.is_none_or(|api| api.deleted.is_some()) {
        return Ok(false);
    }
    let presence = Presence::Revoked { at: drawn.now, by: tx.revision().counter, deleted };
    let after = Key { presence, updated: drawn.now, etag: before.etag.next(), ..before.clone() };
    keys::put(tx, Some(&before), &after, Retention::default(), drawn.now)?;
    let happening = Happening::removed(EventName::KEYS_REVOKE, keys::target(&before), before.facts());
    record(tx, workspace, drawn, happening)?;
    Ok(true)
}

fn end_root_key(tx: &mut Txn<'_>, drawn: Drawn, row: &Row<RootKeyId>) -> Result<bool, Stop> {
    let root_key = tables::ROOT_KEYS.get(tx, row)?.filter(|root_key| root_key.deleted.is_none());
    let Some(root_key) = root_key else { return Ok(false) };
    let happening = root_keys::delete(tx, &root_key, Retention::default(), drawn.now)?;
    record(tx, root_key.workspace, drawn, happening)?;
    Ok(true)
}

fn end_role(tx: &mut Txn<'_>, drawn: Drawn, row: &Row<RoleId>) -> Result<bool, Stop> {
    let Some(role) = tables::ROLES.get(tx, row)?.filter(|role| role.deleted.is_none()) else { return Ok(false) };
    let happening = roles::delete(tx, &role, drawn.now)?;
    record(tx, role.workspace, drawn, happening)?;
    Ok(true)
}

fn end_permission(tx: &mut Txn<'_>, drawn: Drawn, row: &Row<PermissionId>) -> Result<bool, Stop> {
    let permission = tables::PERMISSIONS.get(tx, row)?.filter(|permission| permission.deleted.is_none());
    let Some(permission) = permission else { return Ok(false) };
    let happening = permissions::delete(tx, &permission, Retention::default(), drawn.now)?;
    record(tx, permission.workspace, drawn, happening)?;
    Ok(true)
}

fn end_api(tx: &mut Txn<'_>, drawn: Drawn, row: Row<ApiId>, since: &Option<Api>) -> Result<bool, Stop> {
    let Some(api) = tables::APIS.get(tx, &row)?.filter(|api| api.deleted.is_none()) else { return Ok(false) };
    if since.as_ref().is_some_and(|since| since.deleted.is_none()) {
        return cut(tx, drawn, api.workspace, Some(&api));
    }
    let happening = apis::delete(tx, &api, drawn.now)?;
    record(tx, api.workspace, drawn, happening)?;
    Ok(true)
}

fn end_workspace(tx: &mut Txn<'_>, drawn: Drawn, row: (WorkspaceId,), since: Option<&Workspace>) -> Result<bool, Stop> {
    let there = tables::WORKSPACES.get(tx, &row)?.filter(|home| home.deleted.is_none());
    let Some(home) = there.filter(|home| home.purpose == Purpose::Tenant) else { return Ok(false) };
    let happening = match since.filter(|since| since.deleted.is_none()) {
        None => workspaces::delete(tx, &home, drawn.now)?,
        Some(since) if home.enabled && !since.enabled => {
            let after = Workspace { enabled: false, updated: drawn.now, etag: home.etag.next(), ..home.clone() };
            workspaces::put(tx, &after)?;
            let target = workspaces::target(&home);
            Happening::changed(EventName::WORKSPACE_UPDATE, target, home.facts(), after.facts())
        }
        Some(_) => return Ok(false),
    };
    record(tx, home.id, drawn, happening)?;
    Ok(true)
}

/// Revokes all keys of a workspace or of one of its APIs. However many cuts wait there already, there is room for one.
fn cut(tx: &mut Txn<'_>, drawn: Drawn, workspace: WorkspaceId, api: Option<&Api>) -> Result<bool, Stop> {
    let Some(mut home) = tables::WORKSPACES.get(tx, &(workspace,))? else { return Ok(false) };
    let filter = CutFilter { api: api.map(|api| api.id), ..CutFilter::default() };
    let target = api.map_or_else(|| workspaces::target(&home), apis::target);
    let happening = Happening::made(EventName::KEYS_REVOKE, target, filter.facts());
    home.cuts.push(Cut { revision: tx.revision().counter, at: drawn.now, filter });
    workspaces::put(tx, &home)?;
    due::schedule(tx, drawn.now, Task::SettleCuts, workspace, [0; 16])?;
    record(tx, workspace, drawn, happening)?;
    Ok(true)
}
