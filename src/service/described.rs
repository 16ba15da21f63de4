//! Keys with the names of what they hold: only roles and permissions that still exist.

use crate::domain::id::{RoleId, WorkspaceId};
use crate::domain::key::{DescribedKey, Key, RoleRef};
use crate::domain::role::{Held, Role};
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::tables;

use super::change::{Change, Halt};
use super::permissions::Living;
use super::{Ostiary, Reading};

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

/// A key as a change leaves it, with what was looked up before.
pub(super) fn described(
    change: &mut Change<'_, '_>,
    key: Key,
    (living, last_used): (&Living, Option<Timestamp>),
    just_added: &[Held],
) -> Result<DescribedKey, Halt> {
    let roles = references(&living_roles(change, &key.roles)?);
    let permissions = living.among(&key.permissions, just_added)?.into_iter().map(|held| held.slug).collect();
    Ok(DescribedKey { key, roles, permissions, last_used })
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
}

impl Ostiary {
    /// A key with the names of what it holds.
    pub(super) async fn described_key(&self, reading: &Reading, key: Key) -> Result<DescribedKey, Error> {
        let roles = references(&reading.living_roles(key.workspace, &key.roles).await?);
        let living = reading.living(key.workspace, &key.permissions).await?;
        let permissions = living.among(&key.permissions, &[])?.into_iter().map(|held| held.slug).collect();
        let last_used = self.last_use_of(reading, (key.workspace, key.id)).await?;
        Ok(DescribedKey { key, roles, permissions, last_used })
    }
}
