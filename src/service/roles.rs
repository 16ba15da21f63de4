//! Roles: sets of permissions that keys hold by name and lose at once.

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::domain::etag::Etag;
use crate::domain::id::{PermissionId, Reference, RoleId, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::name::{Description, Name};
use crate::domain::permission::Slug;
use crate::domain::role::{PERMISSIONS_MAX, Role};
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::tables::{self, Task};
use crate::store::{Stop, Txn};

use super::caller::Caller;
use super::change::trying;
use super::change::{Change, Effect, Halt};
use super::listing::{ITEM_BYTES, Page, PageRequest, of};
use super::permissions::{Living, insist_on_removals};
use super::{Done, Ostiary, Reading, Revision, Run, counts, due};

/// What a role is to be.
#[derive(Debug, Clone)]
pub struct RoleDraft {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub description: Description,
    /// What it gives.
    pub permissions: Vec<Reference<PermissionId>>,
}

/// What is to be different about a role.
#[derive(Debug, Clone, Default)]
pub struct RolePatch {
    /// The name.
    pub name: Option<Name>,
    /// The description.
    pub description: Option<Description>,
}

/// A role, what it gives now, and how many keys hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct CountedRole {
    /// The record.
    pub role: Role,
    /// Its permissions that still exist.
    pub permissions: Vec<Slug>,
    /// Keys that hold it and are not deleted.
    pub key_count: u64,
}

/// What a deletion takes from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleLoss {
    /// Keys that hold it.
    pub keys: u64,
    /// The permissions that they would no longer have through it.
    pub permissions: Vec<Slug>,
}

pub(super) fn target(role: &Role) -> Target {
    Target::new(Kind::Role, role.id, &role.name)
}

/// The role that a caller refers to inside a transaction, if it is there and spelled so.
pub(super) fn look_up(
    tx: &mut Txn<'_>,
    workspace: WorkspaceId,
    reference: &Reference<RoleId>,
) -> Result<Option<Role>, Stop> {
    let id = match reference {
        Reference::Id(id) => Some(*id),
        Reference::Name(name) => tables::ROLE_NAMES.get(tx, &(workspace, name.to_ascii_lowercase()))?,
    };
    let Some(id) = id else { return Ok(None) };
    let role = tables::ROLES.get(tx, &(workspace, id))?;
    Ok(role.filter(|role| is_meant(role, reference)))
}

/// Deletes a role. What refers to it is cleared away in the background.
pub(super) fn delete(tx: &mut Txn<'_>, before: &Role, now: Timestamp) -> Result<Happening, Stop> {
    let after = Role { deleted: Some(now), updated: now, etag: before.etag.next(), ..before.clone() };
    tables::ROLES.put(tx, &(before.workspace, before.id), &after)?;
    tables::ROLE_NAMES.remove(tx, &(before.workspace, before.name.folded()))?;
    due::schedule(tx, now, Task::ClearRole, before.workspace, before.id.bytes())?;
    Ok(Happening::removed(EventName::ROLE_DELETE, target(before), before.facts()))
}

fn is_meant(role: &Role, reference: &Reference<RoleId>) -> bool {
    role.deleted.is_none()
        && match reference {
            Reference::Id(_) => true,
            Reference::Name(name) => role.name.as_str() == name,
        }
}

fn find(change: &mut Change<'_, '_>, capability: Capability, reference: &Reference<RoleId>) -> Result<Role, Halt> {
    let name = reference.to_string();
    let workspace = change.workspace();
    let role = look_up(change.tx, workspace, reference)?.ok_or_else(|| Error::not_found(Kind::Role, &name))?;
    change.insist(capability, role.id, (Kind::Role, &name))?;
    Ok(role)
}

/// Gives a role its name, which must not be taken in any spelling.
fn claim_name(change: &mut Change<'_, '_>, id: RoleId, name: &Name) -> Result<(), Halt> {
    let spelled = (change.workspace(), name.folded());
    match tables::ROLE_NAMES.get(change.tx, &spelled)? {
        Some(holder) if holder != id => Err(Error::AlreadyExists { kind: Kind::Role, name: name.to_string() }.into()),
        Some(_) | None => Ok(tables::ROLE_NAMES.put(change.tx, &spelled, &id)?),
    }
}

fn counted(change: &mut Change<'_, '_>, role: Role, permissions: Vec<Slug>) -> Result<CountedRole, Halt> {
    let key_count = counts::keys_of_role_now(change.tx, role.workspace, role.id)?;
    Ok(CountedRole { role, permissions, key_count })
}

fn slugs(role: &Role, living: &Living) -> Result<Vec<Slug>, Error> {
    Ok(living.among(&role.permissions, &[])?.into_iter().map(|held| held.slug).collect())
}

fn check_number(held: &[crate::domain::role::Held]) -> Result<(), Error> {
    if held.len() > PERMISSIONS_MAX {
        return Err(Error::field("permissions", format!("must be at most {PERMISSIONS_MAX}")));
    }
    Ok(())
}

impl Reading {
    /// The role that a caller refers to, if it is there and spelled so.
    pub(super) async fn find_role(
        &self,
        workspace: WorkspaceId,
        reference: &Reference<RoleId>,
    ) -> Result<Option<Role>, Error> {
        let id = match reference {
            Reference::Id(id) => Some(*id),
            Reference::Name(name) => {
                tables::ROLE_NAMES.read(self.view(), &(workspace, name.to_ascii_lowercase())).await?
            }
        };
        let Some(id) = id else { return Ok(None) };
        let role = tables::ROLES.read(self.view(), &(workspace, id)).await?;
        Ok(role.filter(|role| is_meant(role, reference)))
    }

    async fn counted_role(&self, role: Role) -> Result<CountedRole, Error> {
        let living = self.living(role.workspace, &role.permissions).await?;
        let permissions = slugs(&role, &living)?;
        let key_count = self.keys_of_role(role.workspace, role.id).await?;
        Ok(CountedRole { role, permissions, key_count })
    }

    /// Which of the permissions of the role that a caller refers to still exist.
    async fn living_of(&self, workspace: WorkspaceId, reference: &Reference<RoleId>) -> Result<Living, Error> {
        match self.find_role(workspace, reference).await? {
            Some(role) => self.living(workspace, &role.permissions).await,
            None => Ok(Living::default()),
        }
    }
}

impl Ostiary {
    /// Makes a role.
    pub async fn create_role(&self, caller: &Caller, draft: RoleDraft, run: Run) -> Result<Done<CountedRole>, Error> {
        let permit = caller.permit(Capability::CreateRole)?;
        let id = RoleId::from_bytes(self.world.ulid());
        let RoleDraft { name, description, permissions } = draft;
        let reading = self.read(None).await?;
        let wanted = reading.wanted(caller.workspace_id(), &permissions, || self.draw_permission()).await?;
        let changed = self
            .change(permit, run, move |change| {
                change.insist_all(Capability::CreateRole)?;
                let permissions = wanted.obtain(change, Capability::AddPermissionToRole, &[])?;
                check_number(&permissions)?;
                claim_name(change, id, &name)?;
                let role = Role {
                    id,
                    workspace: change.workspace(),
                    name: name.clone(),
                    description: description.clone(),
                    permissions,
                    created: change.now,
                    updated: change.now,
                    etag: Etag::FIRST,
                    deleted: None,
                };
                tables::ROLES.put(change.tx, &(role.workspace, id), &role)?;
                let happening = Happening::made(EventName::ROLE_CREATE, target(&role), role.facts());
                let permissions = role.permissions.iter().map(|held| held.slug.clone()).collect();
                Ok(Effect::Changed(CountedRole { role, permissions, key_count: 0 }, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// One role.
    pub async fn role(
        &self,
        caller: &Caller,
        reference: Reference<RoleId>,
        min_revision: Option<Revision>,
    ) -> Result<Done<CountedRole>, Error> {
        caller.permit(Capability::ReadRole)?;
        let reading = self.read(min_revision).await?;
        let name = reference.to_string();
        let role = reading.find_role(caller.workspace_id(), &reference).await?;
        let role = role.ok_or_else(|| Error::not_found(Kind::Role, &name))?;
        self.insist(caller, Capability::ReadRole, role.id, (Kind::Role, &name), reading.now)?;
        let role = reading.counted_role(role).await?;
        Ok(reading.done(role))
    }

    /// The roles that the caller may read, of which name or description contains the text.
    pub async fn list_roles(
        &self,
        caller: &Caller,
        search: Option<String>,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<CountedRole>>, Error> {
        caller.permit(Capability::ReadRole)?;
        let reading = self.read(min_revision).await?;
        let part = search.map(|part| part.to_ascii_lowercase());
        let mut walk = self.walk(&tables::ROLES, of(caller.workspace_id()), &page)?;
        let mut found = Vec::new();
        while let Some((_, role)) = walk.next(&reading).await? {
            let visible = role.deleted.is_none() && caller.may(Capability::ReadRole, role.id);
            let contains = |part: &String| {
                role.name.folded().contains(part) || role.description.as_str().to_ascii_lowercase().contains(part)
            };
            if visible && part.as_ref().is_none_or(contains) {
                let role = reading.counted_role(role).await?;
                let bytes = ITEM_BYTES + role.permissions.iter().map(|slug| slug.as_str().len()).sum::<usize>();
                found.push(role);
                if walk.took(bytes) {
                    break;
                }
            }
        }
        self.shown(caller, Capability::ReadRole, found.iter().map(|found| found.role.id), reading.now);
        Ok(reading.done(walk.page(&reading, found).await?))
    }

    /// Changes a role's name or description.
    pub async fn update_role(
        &self,
        caller: &Caller,
        reference: Reference<RoleId>,
        patch: RolePatch,
        etag: String,
        run: Run,
    ) -> Result<Done<CountedRole>, Error> {
        let permit = caller.permit(Capability::UpdateRole)?;
        trying!(async {
            let (reference, patch, etag) = (reference.clone(), patch.clone(), etag.clone());
            let living = self.read(None).await?.living_of(caller.workspace_id(), &reference).await?;
            self.change(permit, run, move |change| {
                let before = find(change, Capability::UpdateRole, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let permissions = slugs(&before, &living)?;
                let RolePatch { name, description } = patch.clone();
                let mut after = Role {
                    name: name.unwrap_or_else(|| before.name.clone()),
                    description: description.unwrap_or_else(|| before.description.clone()),
                    ..before.clone()
                };
                if after == before {
                    return Ok(Effect::Unchanged(counted(change, before, permissions)?));
                }
                if after.name != before.name {
                    tables::ROLE_NAMES.remove(change.tx, &(before.workspace, before.name.folded()))?;
                    claim_name(change, after.id, &after.name)?;
                }
                after.updated = change.now;
                after.etag = before.etag.next();
                tables::ROLES.put(change.tx, &(after.workspace, after.id), &after)?;
                let happening =
                    Happening::changed(EventName::ROLE_UPDATE, target(&after), before.facts(), after.facts());
                Ok(Effect::Changed(counted(change, after, permissions)?, happening))
            })
            .await
        })
    }

    /// Replaces what a role gives; every key that holds it follows at its next verification.
    pub async fn set_role_permissions(
        &self,
        caller: &Caller,
        reference: Reference<RoleId>,
        permissions: Vec<Reference<PermissionId>>,
        etag: String,
        run: Run,
    ) -> Result<Done<CountedRole>, Error> {
        let permit = caller.permit(Capability::UpdateRole)?;
        trying!(async {
            let (reference, etag) = (reference.clone(), etag.clone());
            let reading = self.read(None).await?;
            let living = reading.living_of(caller.workspace_id(), &reference).await?;
            let wanted = reading.wanted(caller.workspace_id(), &permissions, || self.draw_permission()).await?;
            self.change(permit, run, move |change| {
                let before = find(change, Capability::UpdateRole, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let had = living.among(&before.permissions, &[])?;
                let permissions = wanted.obtain(change, Capability::AddPermissionToRole, &had)?;
                check_number(&permissions)?;
                insist_on_removals(change, Capability::RemovePermissionFromRole, &had, &permissions)?;
                let names = permissions.iter().map(|held| held.slug.clone()).collect();
                if permissions == had {
                    return Ok(Effect::Unchanged(counted(change, before, names)?));
                }
                let after = Role { permissions, updated: change.now, etag: before.etag.next(), ..before.clone() };
                tables::ROLES.put(change.tx, &(after.workspace, after.id), &after)?;
                let happening =
                    Happening::changed(EventName::ROLE_UPDATE, target(&after), before.facts(), after.facts());
                Ok(Effect::Changed(counted(change, after, names)?, happening))
            })
            .await
        })
    }

    /// Deletes a role for good. From this commit on no key has its permissions through it; the call takes as long
    /// whether one key holds it or a million. A rehearsal tells what would be lost.
    pub async fn delete_role(
        &self,
        caller: &Caller,
        reference: Reference<RoleId>,
        etag: String,
        run: Run,
    ) -> Result<Done<Option<RoleLoss>>, Error> {
        let permit = caller.permit(Capability::DeleteRole)?;
        let wanted = reference.clone();
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::DeleteRole, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                Ok(Effect::Changed((), delete(change.tx, &before, change.now)?))
            })
            .await?;
        let loss = match run {
            Run::Apply => None,
            Run::Rehearse => self.role_loss(caller.workspace_id(), &wanted).await?,
        };
        Ok(Done { answer: loss, revision: changed.done.revision })
    }

    async fn role_loss(
        &self,
        workspace: WorkspaceId,
        reference: &Reference<RoleId>,
    ) -> Result<Option<RoleLoss>, Error> {
        let reading = self.read(None).await?;
        let Some(role) = reading.find_role(workspace, reference).await? else { return Ok(None) };
        let CountedRole { role: _, permissions, key_count } = reading.counted_role(role).await?;
        Ok(Some(RoleLoss { keys: key_count, permissions }))
    }
}
