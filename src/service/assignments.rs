//! Putting roles and permissions on keys, and taking them off: all or nothing, and twice is once.

use std::collections::HashSet;

use crate::domain::capability::Capability;
use crate::domain::id::{KeyId, PermissionId, Reference, RoleId};
use crate::domain::key::{DescribedKey, Key, ROLES_MAX};
use crate::domain::kind::Kind;
use crate::domain::role::{PERMISSIONS_MAX, Role};
use crate::error::{Error, Violation};

use super::caller::Caller;
use super::change::{Change, Halt, trying};
use super::described::living_roles;
use super::keys::{find, ids, rewrite};
use super::permissions::{insist_on_removals, normalised};
use super::{Done, Ostiary, Run, roles};

/// What is done with the named ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignment {
    /// They are added to what the key holds.
    Add,
    /// They are taken off it.
    Remove,
    /// They replace it.
    Set,
}

/// Roles to put on a key or take off it.
#[derive(Debug, Clone)]
pub struct RoleAssignment {
    /// The key.
    pub key: KeyId,
    /// What to do.
    pub how: Assignment,
    /// Which.
    pub roles: Vec<Reference<RoleId>>,
    /// The key's etag, or nothing.
    pub etag: String,
}

/// Permissions to put on a key or take off it.
#[derive(Debug, Clone)]
pub struct PermissionAssignment {
    /// The key.
    pub key: KeyId,
    /// What to do.
    pub how: Assignment,
    /// Which.
    pub permissions: Vec<Reference<PermissionId>>,
    /// The key's etag, or nothing.
    pub etag: String,
}

/// Refuses a key that would hold too much, naming each list that is too long.
pub(super) fn check_numbers(roles: usize, permissions: usize) -> Result<(), Error> {
    let lists = [("roles", roles, ROLES_MAX), ("permissions", permissions, PERMISSIONS_MAX)];
    let too_long = lists.into_iter().filter(|(_, number, most)| number > most);
    let violations: Vec<Violation> = too_long
        .map(|(field, _, most)| {
            Violation::new(field, crate::domain::Flaw::new(format!("must be at most {most} on a key")))
        })
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

/// The named roles. For each that `already` does not hold the caller must be allowed to add it; a role that it may not
/// add is answered like one that isn't there.
pub(super) fn obtain_roles(
    change: &mut Change<'_, '_>,
    references: &[Reference<RoleId>],
    already: &[RoleId],
) -> Result<Vec<Role>, Halt> {
    let workspace = change.workspace();
    let mut obtained: Vec<Role> = Vec::new();
    for reference in references {
        let role = roles::look_up(change.tx, workspace, reference)?;
        let held = role.as_ref().is_some_and(|role| already.contains(&role.id));
        if !held {
            change.insist_any(Capability::AddRoleToKey)?;
        }
        let name = reference.to_string();
        let role = role.ok_or_else(|| Error::not_found(Kind::Role, &name))?;
        if !held {
            change.insist(Capability::AddRoleToKey, role.id, (Kind::Role, &name))?;
        }
        if !obtained.iter().any(|known| known.id == role.id) {
            obtained.push(role);
        }
    }
    Ok(obtained)
}

/// The roles of a key once they have been replaced by the named ones. Roles that have been deleted don't count: if the
/// rest is the same, nothing changes.
pub(super) fn replaced_roles(
    change: &mut Change<'_, '_>,
    key: &Key,
    references: &[Reference<RoleId>],
) -> Result<Vec<RoleId>, Halt> {
    let had = ids(&living_roles(change, &key.roles)?);
    let has = ids(&obtain_roles(change, references, &had)?);
    for role in had.iter().filter(|role| !has.contains(role)) {
        change.insist_unnamed(Capability::RemoveRoleFromKey, role, Kind::Role)?;
    }
    Ok(if has == had { key.roles.clone() } else { has })
}

/// The roles of a key with the named ones added.
fn added_roles(change: &mut Change<'_, '_>, key: &Key, references: &[Reference<RoleId>]) -> Result<Vec<RoleId>, Halt> {
    let had = ids(&living_roles(change, &key.roles)?);
    let mut all = ids(&obtain_roles(change, references, &[])?);
    all.extend(&had);
    all.sort();
    all.dedup();
    Ok(if all == had { key.roles.clone() } else { all })
}

/// The roles of a key without the named ones.
fn remaining_roles(
    change: &mut Change<'_, '_>,
    key: &Key,
    references: &[Reference<RoleId>],
) -> Result<Vec<RoleId>, Halt> {
    let workspace = change.workspace();
    let mut doomed = HashSet::new();
    for reference in references {
        let name = reference.to_string();
        let role = roles::look_up(change.tx, workspace, reference)?;
        let role = role.ok_or_else(|| Error::not_found(Kind::Role, &name))?;
        change.insist(Capability::RemoveRoleFromKey, role.id, (Kind::Role, &name))?;
        doomed.insert(role.id);
    }
    Ok(key.roles.iter().copied().filter(|role| !doomed.contains(role)).collect())
}

impl Ostiary {
    /// Puts roles on a key, takes them off, or replaces them. Answers with the key as it then is.
    pub async fn assign_roles(
        &self,
        caller: &Caller,
        assignment: RoleAssignment,
        run: Run,
    ) -> Result<Done<DescribedKey>, Error> {
        let permit = caller.permit(Capability::UpdateKey)?;
        let early = match assignment.how {
            Assignment::Add => Some(Capability::AddRoleToKey),
            Assignment::Remove => Some(Capability::RemoveRoleFromKey),
            Assignment::Set => None,
        };
        early.map(|capability| caller.permit(capability)).transpose()?;
        let retention = self.retention;
        trying!(async {
            let RoleAssignment { key, how, roles, etag } = assignment.clone();
            let reading = self.read(None).await?;
            let known = self.beforehand(&reading, caller.workspace_id(), key).await?;
            self.change(permit, run, move |change| {
                early.map(|capability| change.insist_any(capability)).transpose()?;
                let before = find(change, Capability::UpdateKey, key, retention)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let roles = match how {
                    Assignment::Add => added_roles(change, &before, &roles)?,
                    Assignment::Remove => remaining_roles(change, &before, &roles)?,
                    Assignment::Set => replaced_roles(change, &before, &roles)?,
                };
                check_numbers(roles.len(), 0)?;
                let after = Key { roles, ..before.clone() };
                rewrite(change, &before, (after, None), &known, retention)
            })
            .await
        })
    }

    /// Puts permissions on a key, takes them off, or replaces them. Answers with the key as it then is.
    pub async fn assign_permissions(
        &self,
        caller: &Caller,
        assignment: PermissionAssignment,
        run: Run,
    ) -> Result<Done<DescribedKey>, Error> {
        let permit = caller.permit(Capability::UpdateKey)?;
        let early = match assignment.how {
            Assignment::Add => Some(Capability::AddPermissionToKey),
            Assignment::Remove => Some(Capability::RemovePermissionFromKey),
            Assignment::Set => None,
        };
        early.map(|capability| caller.permit(capability)).transpose()?;
        let workspace = caller.workspace_id();
        let retention = self.retention;
        trying!(async {
            let PermissionAssignment { key, how, permissions, etag } = assignment.clone();
            let reading = self.read(None).await?;
            let known = self.beforehand(&reading, workspace, key).await?;
            let wanted = reading.wanted(workspace, &permissions, || self.draw_permission()).await?;
            self.change(permit, run, move |change| {
                early.map(|capability| change.insist_any(capability)).transpose()?;
                let before = find(change, Capability::UpdateKey, key, retention)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let had = known.living.among(&before.permissions, &[])?;
                let has = match how {
                    Assignment::Add => {
                        let added = wanted.obtain(change, Capability::AddPermissionToKey, &[])?;
                        normalised([had.clone(), added].concat())
                    }
                    Assignment::Remove => {
                        let doomed = wanted.removable(change, Capability::RemovePermissionFromKey)?;
                        had.iter().filter(|held| !doomed.iter().any(|doomed| doomed.id == held.id)).cloned().collect()
                    }
                    Assignment::Set => {
                        let has = wanted.obtain(change, Capability::AddPermissionToKey, &had)?;
                        insist_on_removals(change, Capability::RemovePermissionFromKey, &had, &has)?;
                        has
                    }
                };
                check_numbers(0, has.len())?;
                let permissions = if has == had { before.permissions.clone() } else { has };
                let after = Key { permissions, ..before.clone() };
                rewrite(change, &before, (after, None), &known, retention)
            })
            .await
        })
    }
}
