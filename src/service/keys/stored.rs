//! Keys as they lie in the store: a cut may have taken one whose record does not say so yet, so every key that is read
//! passes by the cuts of its workspace, and every key that is written has passed by them.

use crate::domain::id::{IdentityId, KeyId, WorkspaceId};
use crate::domain::key::{Key, Presence};
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::service::change::Change;
use crate::service::counts::{self, By};
use crate::service::{Reading, Retention, due};
use crate::store::{Stop, Txn, tables};

use super::finding::{Found, find};

/// Writes a key, and with it what follows from it: its places in the indexes, the counts and the schedule.
pub(in crate::service) fn put(
    tx: &mut Txn<'_>,
    before: Option<&Key>,
    after: &Key,
    retention: Retention,
    now: Timestamp,
) -> Result<(), Stop> {
    let workspace = after.workspace;
    let after = &Key { written: tx.revision().counter, ..after.clone() };
    tables::KEYS.put(tx, &(workspace, after.id), after)?;
    if before.is_none() {
        tables::API_KEYS.put(tx, &(workspace, after.api, after.id), &())?;
    }
    let had = before.map_or(&[][..], |before| &before.roles);
    for role in had.iter().filter(|role| !after.roles.contains(role)) {
        tables::ROLE_KEYS.remove(tx, &(workspace, *role, after.id))?;
    }
    for role in after.roles.iter().filter(|role| !had.contains(role)) {
        tables::ROLE_KEYS.put(tx, &(workspace, *role, after.id), &())?;
    }
    let belonged = before.and_then(|before| before.identity);
    if belonged != after.identity {
        if let Some(identity) = belonged {
            tables::IDENTITY_KEYS.remove(tx, &(workspace, identity, after.id))?;
        }
        if let Some(identity) = after.identity {
            tables::IDENTITY_KEYS.put(tx, &(workspace, identity, after.id), &())?;
        }
    }
    recount(tx, before, after)?;
    due::reschedule_key(tx, before, after, retention, now)
}

/// Keeps the counts of keys that there are, per API, creator, role and identity.
fn recount(tx: &mut Txn<'_>, before: Option<&Key>, after: &Key) -> Result<(), Stop> {
    let was = before.filter(|key| key.is_counted());
    let is = Some(after).filter(|key| key.is_counted());
    let step = match (was, is) {
        (None, Some(key)) => Some((key, By::Up)),
        (Some(key), None) => Some((key, By::Down)),
        (Some(_), Some(_)) | (None, None) => None,
    };
    if let Some((key, by)) = step {
        counts::keys_of_api(tx, key.workspace, key.api, by)?;
        counts::keys_of_creator(tx, key.workspace, key.created_by, by)?;
    }
    match (before.is_some_and(Key::is_replaced), after.is_replaced()) {
        (false, true) => counts::rerolled(tx, after.workspace, By::Up)?,
        (true, false) => counts::rerolled(tx, after.workspace, By::Down)?,
        (true, true) | (false, false) => {}
    }
    let had = was.map_or(&[][..], |key| &key.roles);
    let has = is.map_or(&[][..], |key| &key.roles);
    for role in had.iter().filter(|role| !has.contains(role)) {
        counts::keys_of_role(tx, after.workspace, *role, By::Down)?;
    }
    for role in has.iter().filter(|role| !had.contains(role)) {
        counts::keys_of_role(tx, after.workspace, *role, By::Up)?;
    }
    let belonged = was.and_then(|key| key.identity);
    let belongs = is.and_then(|key| key.identity);
    if belonged != belongs {
        let mut step = |identity: Option<IdentityId>, by| match identity {
            Some(identity) => counts::keys_of_identity(tx, after.workspace, identity, by),
            None => Ok(()),
        };
        step(belonged, By::Down)?;
        step(belongs, By::Up)?;
    }
    Ok(())
}

/// A key as it is, for housekeeping.
pub(in crate::service) fn get(tx: &mut Txn<'_>, workspace: WorkspaceId, id: KeyId) -> Result<Option<Key>, Stop> {
    let Some(key) = tables::KEYS.get(tx, &(workspace, id))? else { return Ok(None) };
    let home = tables::WORKSPACES.get(tx, &(workspace,))?;
    Ok(Some(match home {
        Some(home) => home.settled(key),
        None => key,
    }))
}

impl Change<'_, '_> {
    /// A key as it is.
    pub fn key(&mut self, id: KeyId) -> Result<Option<Key>, Stop> {
        let workspace = self.workspace();
        let key = tables::KEYS.get(self.tx, &(workspace, id))?;
        Ok(key.map(|key| self.home().settled(key)))
    }
}

impl Reading {
    /// The workspace, with the cuts that say which keys it has lost.
    pub(in crate::service) async fn home(&self, workspace: WorkspaceId) -> Result<Workspace, Error> {
        let home = tables::WORKSPACES.read(self.view(), &(workspace,)).await?;
        home.ok_or_else(|| Error::Internal("a recognised caller has no workspace".to_owned()))
    }

    /// A key as it is.
    pub(in crate::service) async fn any_key(&self, home: &Workspace, id: KeyId) -> Result<Option<Key>, Error> {
        Ok(tables::KEYS.read(self.view(), &(home.id, id)).await?.map(|key| home.settled(key)))
    }

    /// A key that is there, was revoked, or can still be restored, in an API that is there.
    pub(in crate::service) async fn shown_key(
        &self,
        home: &Workspace,
        id: KeyId,
        retention: Retention,
    ) -> Result<Option<Key>, Error> {
        let key = self.any_key(home, id).await?;
        let Some(key) = key.filter(|key| !key.is_gone(self.now, retention.deleted_keys)) else { return Ok(None) };
        let api = tables::APIS.read(self.view(), &(home.id, key.api)).await?;
        Ok(api.filter(|api| api.deleted.is_none()).map(|_| key))
    }

    /// The key that a secret belongs to, as it is.
    pub(in crate::service) async fn key_of_secret(
        &self,
        home: &Workspace,
        secret: &Secret,
    ) -> Result<Option<Key>, Error> {
        Ok(find(self.view(), home, secret).await?.map(|Found { key, .. }| home.settled(key)))
    }
}

/// Whether the key can be changed: it is there.
pub(in crate::service) const fn is_here(key: &Key) -> bool {
    matches!(key.presence, Presence::Here)
}
