//! Keys with the names of what they hold: only roles, permissions and identities that still exist.

use crate::domain::credits::Credits;
use crate::domain::id::{IdentityId, KeyId, RoleId, WorkspaceId};
use crate::domain::identity::Identity;
use crate::domain::key::{DescribedKey, Key, RoleRef};
use crate::domain::role::{Held, Role};
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::tables;

use super::change::{Change, Halt};
use super::credits::Reserved;
use super::permissions::Living;
use super::{Ostiary, Reading};

/// What was looked up about a key just before a transaction, for the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Beforehand {
    /// Which of its permissions exist.
    pub living: Living,
    /// When it was last verified.
    pub last_used: Option<Timestamp>,
    /// What of its balance is in memory.
    pub reserved: Reserved,
}

/// The roles among these that still exist, inside a transaction.
pub(super) fn living_roles(change: &mut Change<'_, '_>, roles: &[RoleId]) -> Result<Vec<Role>, Halt> {
    let workspace = change.workspace();
    let mut living = Vec::new();
    for id in roles {
        let role = tables::ROLES.get(change.tx, &(workspace, *id))?;
        living.extend(role.filter(|role| role.deleted.is_none()));
    }
    Ok(living)
}

/// Roles as they are named beside a key.
pub(super) fn references(roles: &[Role]) -> Vec<RoleRef> {
    roles.iter().map(|role| RoleRef { id: role.id, name: role.name.clone() }).collect()
}

/// The identity, if it still exists, inside a transaction.
pub(super) fn living_identity(
    change: &mut Change<'_, '_>,
    identity: Option<IdentityId>,
) -> Result<Option<Identity>, Halt> {
    let Some(id) = identity else { return Ok(None) };
    let row = (change.workspace(), id);
    Ok(tables::IDENTITIES.get(change.tx, &row)?.filter(|identity| identity.deleted.is_none()))
}

/// What is left to use, inside a transaction.
pub(super) fn credits_now(change: &mut Change<'_, '_>, key: &Key, reserved: Reserved) -> Result<Option<Credits>, Halt> {
    let Some(lineage) = key.meter else { return Ok(None) };
    let row = (change.workspace(), lineage);
    let meter = tables::METERS.get(change.tx, &row)?;
    Ok(meter.and_then(|meter| reserved.shown(&meter, change.now)))
}

/// A key as a change leaves it, with what was looked up before.
pub(super) fn described(
    change: &mut Change<'_, '_>,
    key: Key,
    before: &Beforehand,
    just_added: &[Held],
) -> Result<DescribedKey, Halt> {
    let roles = references(&living_roles(change, &key.roles)?);
    let permissions = before.living.among(&key.permissions, just_added)?.into_iter().map(|held| held.slug).collect();
    let external_id = living_identity(change, key.identity)?.map(|identity| identity.external_id);
    let credits = credits_now(change, &key, before.reserved)?;
    Ok(DescribedKey { key, roles, permissions, external_id, credits, last_used: before.last_used })
}

impl Reading {
    /// The roles among these that still exist.
    pub(super) async fn living_roles(&self, workspace: WorkspaceId, roles: &[RoleId]) -> Result<Vec<Role>, Error> {
        let mut living = Vec::new();
        for id in roles {
            let role = tables::ROLES.read(self.view(), &(workspace, *id)).await?;
            living.extend(role.filter(|role| role.deleted.is_none()));
        }
        Ok(living)
    }

    /// The identity, if it still exists.
    pub(super) async fn living_identity(
        &self,
        workspace: WorkspaceId,
        identity: Option<IdentityId>,
    ) -> Result<Option<Identity>, Error> {
        let Some(id) = identity else { return Ok(None) };
        let identity = tables::IDENTITIES.read(self.view(), &(workspace, id)).await?;
        Ok(identity.filter(|identity| identity.deleted.is_none()))
    }
}

impl Ostiary {
    /// A key with the names of what it holds.
    pub(super) async fn described_key(&self, reading: &Reading, key: Key) -> Result<DescribedKey, Error> {
        let roles = references(&reading.living_roles(key.workspace, &key.roles).await?);
        let living = reading.living(key.workspace, &key.permissions).await?;
        let permissions = living.among(&key.permissions, &[])?.into_iter().map(|held| held.slug).collect();
        let identity = reading.living_identity(key.workspace, key.identity).await?;
        let external_id = identity.map(|identity| identity.external_id);
        let credits = self.credits_of(reading, &key).await?;
        let last_used = self.last_use_of(reading, key.id).await?;
        Ok(DescribedKey { key, roles, permissions, external_id, credits, last_used })
    }

    /// What the answer of a change to a key needs that can be looked up before.
    pub(super) async fn beforehand(
        &self,
        reading: &Reading,
        workspace: WorkspaceId,
        id: KeyId,
    ) -> Result<Beforehand, Error> {
        let Some(key) = tables::KEYS.read(reading.view(), &(workspace, id)).await? else {
            return Ok(Beforehand::default());
        };
        Ok(Beforehand {
            living: reading.living(workspace, &key.permissions).await?,
            last_used: self.last_use_of(reading, id).await?,
            reserved: self.credits.reserved((workspace, key.lineage())),
        })
    }
}
