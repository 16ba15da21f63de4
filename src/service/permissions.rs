//! Permissions of API keys: made by name or on the way, held by id, deleted at once.

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::domain::etag::Etag;
use crate::domain::id::{PermissionId, Reference, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::name::{Description, Name};
use crate::domain::permission::{Permission, Slug};
use crate::domain::role::Held;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::tables::{self, Task};
use crate::store::{Stop, Txn};

use super::caller::Caller;
use super::change::{Change, Effect, Halt};
use super::listing::{ITEM_BYTES, Page, PageRequest, of};
use super::{Done, Ostiary, Retention, Revision, Run, due};

mod holding;

pub(super) use holding::{Living, Wanted, insist_on_removals, normalised};

/// Rows looked at at a time when holders are counted.
const CHUNK: usize = 500;

/// What a permission is to be.
#[derive(Debug, Clone)]
pub struct PermissionDraft {
    /// What it covers.
    pub slug: Slug,
    /// What people call it.
    pub name: Name,
    /// What it is for.
    pub description: Description,
}

/// What is to be different about a permission. The slug never is.
#[derive(Debug, Clone, Default)]
pub struct PermissionPatch {
    /// The name.
    pub name: Option<Name>,
    /// The description.
    pub description: Option<Description>,
}

/// Who would lose a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermissionHolders {
    /// Keys that hold it directly.
    pub keys: u64,
    /// Roles that hold it.
    pub roles: u64,
}

pub(super) fn target(permission: &Permission) -> Target {
    Target::new(Kind::Permission, permission.id, &permission.slug)
}

/// Deletes a permission. Whatever holds it holds it by id, and finds nothing.
pub(super) fn delete(
    tx: &mut Txn<'_>,
    before: &Permission,
    retention: Retention,
    now: Timestamp,
) -> Result<Happening, Stop> {
    let after = Permission { deleted: Some(now), updated: now, etag: before.etag.next(), ..before.clone() };
    tables::PERMISSIONS.put(tx, &(before.workspace, before.id), &after)?;
    tables::PERMISSION_SLUGS.remove(tx, &(before.workspace, before.slug.folded()))?;
    let moment = now.after(retention.expired);
    due::schedule(tx, moment, Task::PurgePermission, before.workspace, before.id.bytes())?;
    Ok(Happening::removed(EventName::PERMISSION_DELETE, target(before), before.facts()))
}

fn find(
    change: &mut Change<'_, '_>,
    capability: Capability,
    reference: &Reference<PermissionId>,
) -> Result<Permission, Halt> {
    let name = reference.to_string();
    let not_found = || Error::not_found(Kind::Permission, &name);
    let workspace = change.workspace();
    let id = match reference {
        Reference::Id(id) => Some(*id),
        Reference::Name(slug) => tables::PERMISSION_SLUGS.get(change.tx, &(workspace, slug.to_ascii_lowercase()))?,
    };
    let id = id.ok_or_else(not_found)?;
    change.insist(capability, id, (Kind::Permission, &name))?;
    let permission = tables::PERMISSIONS.get(change.tx, &(workspace, id))?;
    Ok(permission.filter(|found| is_meant(found, reference)).ok_or_else(not_found)?)
}

/// Whether this is what the caller refers to: there, and spelled so.
fn is_meant(permission: &Permission, reference: &Reference<PermissionId>) -> bool {
    permission.deleted.is_none()
        && match reference {
            Reference::Id(_) => true,
            Reference::Name(slug) => permission.slug.as_str() == slug,
        }
}

/// Makes a permission, unless its slug is taken in some spelling.
fn make(change: &mut Change<'_, '_>, id: PermissionId, draft: PermissionDraft) -> Result<Permission, Halt> {
    let PermissionDraft { slug, name, description } = draft;
    let workspace = change.workspace();
    let spelled = (workspace, slug.folded());
    if tables::PERMISSION_SLUGS.get(change.tx, &spelled)?.is_some() {
        return Err(Error::AlreadyExists { kind: Kind::Permission, name: slug.to_string() }.into());
    }
    let permission = Permission {
        id,
        workspace,
        slug,
        name,
        description,
        created: change.now,
        updated: change.now,
        etag: Etag::FIRST,
        deleted: None,
    };
    tables::PERMISSIONS.put(change.tx, &(workspace, id), &permission)?;
    tables::PERMISSION_SLUGS.put(change.tx, &spelled, &id)?;
    Ok(permission)
}

impl Ostiary {
    pub(super) fn draw_permission(&self) -> PermissionId {
        PermissionId::from_bytes(self.world.ulid())
    }

    /// Makes a permission.
    pub async fn create_permission(
        &self,
        caller: &Caller,
        draft: PermissionDraft,
        run: Run,
    ) -> Result<Done<Permission>, Error> {
        let permit = caller.permit(Capability::CreatePermission)?;
        let id = self.draw_permission();
        let changed = self
            .change(permit, run, move |change| {
                change.insist_all(Capability::CreatePermission)?;
                let permission = make(change, id, draft.clone())?;
                let happening = Happening::made(EventName::PERMISSION_CREATE, target(&permission), permission.facts());
                Ok(Effect::Changed(permission, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// One permission.
    pub async fn permission(
        &self,
        caller: &Caller,
        reference: Reference<PermissionId>,
        min_revision: Option<Revision>,
    ) -> Result<Done<Permission>, Error> {
        caller.permit(Capability::ReadPermission)?;
        let reading = self.read(min_revision).await?;
        let name = reference.to_string();
        let permission = reading.find_permission(caller.workspace_id(), &reference).await?;
        let permission = permission.ok_or_else(|| Error::not_found(Kind::Permission, &name))?;
        self.insist(caller, Capability::ReadPermission, permission.id, (Kind::Permission, &name), reading.now)?;
        Ok(reading.done(permission))
    }

    /// The permissions that the caller may read, of which slug, name or description contains the text.
    pub async fn list_permissions(
        &self,
        caller: &Caller,
        search: Option<String>,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<Permission>>, Error> {
        caller.permit(Capability::ReadPermission)?;
        let reading = self.read(min_revision).await?;
        let part = search.map(|part| part.to_ascii_lowercase());
        let mut walk = self.walk(&tables::PERMISSIONS, of(caller.workspace_id()), &page)?;
        let mut found = Vec::new();
        while let Some((_, permission)) = walk.next(&reading).await? {
            let visible = permission.deleted.is_none() && caller.may(Capability::ReadPermission, permission.id);
            let contains = |part: &String| {
                let description = permission.description.as_str().to_ascii_lowercase();
                [permission.slug.folded(), permission.name.folded(), description].iter().any(|text| text.contains(part))
            };
            if visible && part.as_ref().is_none_or(contains) {
                found.push(permission);
                if walk.took(ITEM_BYTES) {
                    break;
                }
            }
        }
        self.shown(caller, Capability::ReadPermission, found.iter().map(|found| found.id), reading.now);
        Ok(reading.done(walk.page(&reading, found).await?))
    }

    /// Changes how a permission is described.
    pub async fn update_permission(
        &self,
        caller: &Caller,
        reference: Reference<PermissionId>,
        patch: PermissionPatch,
        etag: String,
        run: Run,
    ) -> Result<Done<Permission>, Error> {
        let permit = caller.permit(Capability::UpdatePermission)?;
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::UpdatePermission, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let PermissionPatch { name, description } = patch.clone();
                let mut after = Permission {
                    name: name.unwrap_or_else(|| before.name.clone()),
                    description: description.unwrap_or_else(|| before.description.clone()),
                    ..before.clone()
                };
                if after == before {
                    return Ok(Effect::Unchanged(before));
                }
                after.updated = change.now;
                after.etag = before.etag.next();
                tables::PERMISSIONS.put(change.tx, &(after.workspace, after.id), &after)?;
                let happening =
                    Happening::changed(EventName::PERMISSION_UPDATE, target(&after), before.facts(), after.facts());
                Ok(Effect::Changed(after, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// Deletes a permission for good: from this commit on it counts for no key and no role, and a new one of the same
    /// slug does not bring it back to them. A rehearsal tells who would lose it.
    pub async fn delete_permission(
        &self,
        caller: &Caller,
        reference: Reference<PermissionId>,
        etag: String,
        run: Run,
    ) -> Result<Done<Option<PermissionHolders>>, Error> {
        let permit = caller.permit(Capability::DeletePermission)?;
        let retention = self.retention;
        let wanted = reference.clone();
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::DeletePermission, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                Ok(Effect::Changed((), delete(change.tx, &before, retention, change.now)?))
            })
            .await?;
        let holders = match run {
            Run::Apply => None,
            Run::Rehearse => Some(self.permission_holders(caller.workspace_id(), &wanted).await?),
        };
        Ok(Done { answer: holders, revision: changed.done.revision })
    }

    /// Counts who holds a permission, by looking at every key and role: there is no index of it, because a key can hold
    /// more permissions than one transaction may write rows.
    async fn permission_holders(
        &self,
        workspace: WorkspaceId,
        reference: &Reference<PermissionId>,
    ) -> Result<PermissionHolders, Error> {
        let reading = self.read(None).await?;
        let mut holders = PermissionHolders { keys: 0, roles: 0 };
        let Some(permission) = reading.find_permission(workspace, reference).await? else { return Ok(holders) };
        let holds = |held: &[Held]| held.iter().any(|held| held.id == permission.id);
        let mut after = None;
        loop {
            let keys = tables::KEYS.list(reading.view(), &of(workspace), after.as_ref(), CHUNK).await?;
            let here = keys.iter().filter(|(_, key)| key.presence == crate::domain::key::Presence::Here);
            holders.keys += here.filter(|(_, key)| holds(&key.permissions)).count() as u64;
            match keys.into_iter().last() {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
        let mut after = None;
        loop {
            let roles = tables::ROLES.list(reading.view(), &of(workspace), after.as_ref(), CHUNK).await?;
            let here = roles.iter().filter(|(_, role)| role.deleted.is_none());
            holders.roles += here.filter(|(_, role)| holds(&role.permissions)).count() as u64;
            match roles.into_iter().last() {
                Some((last, _)) => after = Some(last),
                None => return Ok(holders),
            }
        }
    }
}
