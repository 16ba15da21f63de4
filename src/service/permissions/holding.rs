//! Holding permissions: finding those that a caller names, making them on the way, and telling which still exist.

use std::collections::{HashMap, HashSet};

use crate::domain::audit::{EventName, Happening};
use crate::domain::capability::Capability;
use crate::domain::id::{PermissionId, Reference, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::name::{Description, Name};
use crate::domain::permission::{Permission, Slug};
use crate::domain::role::{Held, NEW_PERMISSIONS_MAX};
use crate::error::Error;
use crate::service::Reading;
use crate::service::change::{Change, Halt};
use crate::store::tables;

use super::{PermissionDraft, is_meant, make, target};

/// Permissions that a caller has named, as they were found just before a transaction.
///
/// There can be more of them than one transaction may read. What was found can only have been deleted since, which
/// leaves an id that resolves to nothing, as if it had been deleted right after; what was not found is looked for again.
#[derive(Debug, Clone)]
pub(in crate::service) struct Wanted(Vec<(Reference<PermissionId>, Found)>);

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
pub(in crate::service) fn normalised(mut held: Vec<Held>) -> Vec<Held> {
    held.sort_by(|a, b| a.slug.cmp(&b.slug).then(a.id.cmp(&b.id)));
    held.dedup_by(|a, b| a.id == b.id);
    held
}

/// Demands the right to take away each permission that is in `before` and not in `after`.
pub(in crate::service) fn insist_on_removals(
    change: &mut Change<'_, '_>,
    capability: Capability,
    before: &[Held],
    after: &[Held],
) -> Result<(), Halt> {
    let kept: HashSet<PermissionId> = after.iter().map(|held| held.id).collect();
    for held in before.iter().filter(|held| !kept.contains(&held.id)) {
        change.insist_unnamed(capability, held.id, Kind::Permission)?;
    }
    Ok(())
}

/// Which of the permissions that something holds still exist, as seen just before a transaction.
#[derive(Debug, Clone, Default)]
pub(in crate::service) struct Living(HashMap<PermissionId, bool>);

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
    pub(in crate::service) async fn wanted(
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
    pub(in crate::service) async fn find_permission(
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
    pub(in crate::service) async fn living(&self, workspace: WorkspaceId, held: &[Held]) -> Result<Living, Error> {
        let mut living = HashMap::new();
        for one in held {
            living.insert(one.id, self.lives(workspace, one.id).await?);
        }
        Ok(Living(living))
    }

    /// Whether a permission exists.
    pub(in crate::service) async fn lives(&self, workspace: WorkspaceId, id: PermissionId) -> Result<bool, Error> {
        let permission = tables::PERMISSIONS.read(self.view(), &(workspace, id)).await?;
        Ok(permission.is_some_and(|permission| permission.deleted.is_none()))
    }
}
