//! Permissions of API keys: made by name or on the way, held by id, deleted at once.

use std::collections::{HashMap, HashSet};

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::domain::etag::Etag;
use crate::domain::id::{PermissionId, Reference, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::name::{Description, Name};
use crate::domain::permission::{Permission, Slug};
use crate::domain::role::{Held, NEW_PERMISSIONS_MAX};
use crate::error::Error;
use crate::store::tables::{self, Task};

use super::caller::Caller;
use super::change::{Change, Effect, Halt};
use super::listing::{Page, PageRequest, of};
use super::{Done, Ostiary, Reading, Revision, Run, due};

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

/// Permissions that a caller has named, as they were found just before a transaction.
///
/// There can be more of them than one transaction may read. What was found can only have been deleted since, which
/// leaves an id that resolves to nothing, as if it had been deleted right after; what was not found is looked for again.
#[derive(Debug, Clone)]
pub(super) struct Wanted(Vec<(Reference<PermissionId>, Found)>);

#[derive(Debug, Clone)]
enum Found {
    There(Held),
    /// Not there; if it is to be made on the way, this is its id.
    Missing(PermissionId),
}

impl Wanted {
    /// All of them as held, made on the way where they are missing and the caller may.
    ///
    /// For each that `already` does not hold the caller needs `capability`. What it may not add, or may not make,
    /// is answered like what isn't there.
    pub fn obtain(
        &self,
        change: &mut Change<'_, '_>,
        capability: Capability,
        already: &[Held],
    ) -> Result<Vec<Held>, Halt> {
        let mut made = 0;
        let held_already: HashSet<PermissionId> = already.iter().map(|held| held.id).collect();
        let mut all = Vec::new();
        for (reference, found) in &self.0 {
            let had = matches!(found, Found::There(held) if held_already.contains(&held.id));
            if !had {
                // Said alike of what is there and of what isn't.
                change.insist_any(capability)?;
            }
            let held = match found {
                Found::There(held) => held.clone(),
                Found::Missing(id) => made_on_the_way(change, *id, reference, capability)?,
            };
            if !had && !held_already.contains(&held.id) {
                change.insist(capability, held.id, (Kind::Permission, &reference.to_string()))?;
            }
            // Counted only once the caller is known to see every permission, so that the number tells nobody else
            // which of them exist.
            made += usize::from(matches!(found, Found::Missing(_)));
            if made > NEW_PERMISSIONS_MAX {
                let flaw = format!("must name at most {NEW_PERMISSIONS_MAX} permissions that don't exist yet");
                return Err(Error::field("permissions", flaw).into());
            }
            all.push(held);
        }
        Ok(normalised(all))
    }

    /// The permissions, each of which must exist and the caller must be allowed to take away. One that isn't there and
    /// one that the caller may not touch are told alike, in the caller's own words.
    pub fn removable(&self, change: &mut Change<'_, '_>, capability: Capability) -> Result<Vec<Held>, Halt> {
        let mut all = Vec::new();
        for (reference, found) in &self.0 {
            let name = reference.to_string();
            let Found::There(held) = found else { return Err(Error::not_found(Kind::Permission, name).into()) };
            change.insist(capability, held.id, (Kind::Permission, &name))?;
            all.push(held.clone());
        }
        Ok(normalised(all))
    }
}

fn made_on_the_way(
    change: &mut Change<'_, '_>,
    id: PermissionId,
    reference: &Reference<PermissionId>,
    capability: Capability,
) -> Result<Held, Halt> {
    let not_found = || Error::not_found(Kind::Permission, reference);
    let slug = match reference {
        Reference::Id(_) => return Err(not_found().into()),
        Reference::Name(slug) => Slug::new(slug).map_err(|_| not_found())?,
    };
    // Somebody may have made it since it was looked for.
    let workspace = change.workspace();
    if let Some(id) = tables::PERMISSION_SLUGS.get(change.tx, &(workspace, slug.folded()))?
        && let Some(permission) = tables::PERMISSIONS.get(change.tx, &(workspace, id))?
        && permission.slug == slug
    {
        return Ok(Held { id, slug });
    }
    if !change.may_all(Capability::CreatePermission) || !change.may_all(capability) {
        return Err(not_found().into());
    }
    let draft = PermissionDraft { slug, name: Name::default(), description: Description::default() };
    let permission = make(change, id, draft)?;
    let happening = Happening::made(EventName::PERMISSION_CREATE, target(&permission), permission.facts());
    change.record(happening)?;
    Ok(Held { id: permission.id, slug: permission.slug })
}

/// In the order of slugs, each once.
pub(super) fn normalised(mut held: Vec<Held>) -> Vec<Held> {
    held.sort_by(|a, b| a.slug.cmp(&b.slug).then(a.id.cmp(&b.id)));
    held.dedup_by(|a, b| a.id == b.id);
    held
}

/// Demands the right to take away each permission that is in `before` and not in `after`.
pub(super) fn insist_on_removals(
    change: &mut Change<'_, '_>,
    capability: Capability,
    before: &[Held],
    after: &[Held],
) -> Result<(), Halt> {
    let kept: HashSet<PermissionId> = after.iter().map(|held| held.id).collect();
    for held in before.iter().filter(|held| !kept.contains(&held.id)) {
        change.insist_any(capability)?;
        change.insist(capability, held.id, (Kind::Permission, held.slug.as_str()))?;
    }
    Ok(())
}

/// Which of the permissions that something holds still exist, as seen just before a transaction.
#[derive(Debug, Clone, Default)]
pub(super) struct Living(HashMap<PermissionId, bool>);

impl Living {
    /// Those that still exist.
    ///
    /// # Errors
    /// [`Error::Conflict`] if something was added meanwhile, so that the look has to be taken again.
    pub fn among(&self, held: &[Held], just_added: &[Held]) -> Result<Vec<Held>, Error> {
        let mut living = Vec::new();
        for one in held {
            match self.0.get(&one.id) {
                Some(true) => living.push(one.clone()),
                Some(false) => {}
                None if just_added.iter().any(|added| added.id == one.id) => living.push(one.clone()),
                None => return Err(Error::Conflict),
            }
        }
        Ok(living)
    }
}

impl Reading {
    /// Looks for the permissions that a caller has named.
    pub(super) async fn wanted(
        &self,
        workspace: WorkspaceId,
        references: &[Reference<PermissionId>],
        mut draw: impl FnMut() -> PermissionId,
    ) -> Result<Wanted, Error> {
        let mut wanted: Vec<(Reference<PermissionId>, Found)> = Vec::new();
        let mut seen = HashSet::new();
        for reference in references {
            if !seen.insert(reference.to_string()) {
                continue;
            }
            let found = match self.find_permission(workspace, reference).await? {
                Some(Permission { id, slug, .. }) => Found::There(Held { id, slug }),
                None => Found::Missing(draw()),
            };
            wanted.push((reference.clone(), found));
        }
        Ok(Wanted(wanted))
    }

    /// The permission that a caller refers to, if it is there and spelled so.
    pub(super) async fn find_permission(
        &self,
        workspace: WorkspaceId,
        reference: &Reference<PermissionId>,
    ) -> Result<Option<Permission>, Error> {
        let id = match reference {
            Reference::Id(id) => Some(*id),
            Reference::Name(slug) => {
                tables::PERMISSION_SLUGS.read(self.view(), &(workspace, slug.to_ascii_lowercase())).await?
            }
        };
        let Some(id) = id else { return Ok(None) };
        let permission = tables::PERMISSIONS.read(self.view(), &(workspace, id)).await?;
        Ok(permission.filter(|permission| is_meant(permission, reference)))
    }

    /// Looks which of these still exist.
    pub(super) async fn living(&self, workspace: WorkspaceId, held: &[Held]) -> Result<Living, Error> {
        let mut living = HashMap::new();
        for one in held {
            living.insert(one.id, self.lives(workspace, one.id).await?);
        }
        Ok(Living(living))
    }

    /// Whether a permission exists.
    pub(super) async fn lives(&self, workspace: WorkspaceId, id: PermissionId) -> Result<bool, Error> {
        let permission = tables::PERMISSIONS.read(self.view(), &(workspace, id)).await?;
        Ok(permission.is_some_and(|permission| permission.deleted.is_none()))
    }
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
                if walk.took_one() {
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
        let retention = self.retention.expired;
        let wanted = reference.clone();
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::DeletePermission, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let now = change.now;
                let row = (before.workspace, before.id);
                let after = Permission { deleted: Some(now), updated: now, etag: before.etag.next(), ..before.clone() };
                tables::PERMISSIONS.put(change.tx, &row, &after)?;
                tables::PERMISSION_SLUGS.remove(change.tx, &(before.workspace, before.slug.folded()))?;
                let moment = now.after(retention);
                due::schedule(change.tx, moment, Task::PurgePermission, before.workspace, before.id.bytes())?;
                let happening = Happening::removed(EventName::PERMISSION_DELETE, target(&before), before.facts());
                Ok(Effect::Changed((), happening))
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
