//! Namespaces of rate limits: what is limited in one of them counts apart from all others.
//!
//! Their exceptions are kept by `service/overrides.rs`, what is counted in them by `service/limiting.rs`.

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::domain::etag::Etag;
use crate::domain::id::{NamespaceId, Reference, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::name::Name;
use crate::domain::namespace::Namespace;
use crate::error::Error;
use crate::store::tables::{self, Task};
use crate::store::{Stop, Txn};

use super::caller::Caller;
use super::change::{Change, Effect, Halt};
use super::listing::{ITEM_BYTES, Page, PageRequest, of};
use super::{Done, Ostiary, Reading, Revision, Run, counts, due};

/// A namespace, and how many exceptions it has.
#[derive(Debug, Clone, PartialEq)]
pub struct CountedNamespace {
    /// The record.
    pub namespace: Namespace,
    /// Its exceptions.
    pub override_count: u64,
}

pub(super) fn target(namespace: &Namespace) -> Target {
    Target::new(Kind::Namespace, namespace.id, &namespace.name)
}

/// The namespace that a caller refers to inside a transaction, if it is there and spelled so.
fn look_up(
    tx: &mut Txn<'_>,
    workspace: WorkspaceId,
    reference: &Reference<NamespaceId>,
) -> Result<Option<Namespace>, Stop> {
    let id = match reference {
        Reference::Id(id) => Some(*id),
        Reference::Name(name) => tables::NAMESPACE_NAMES.get(tx, &(workspace, name.to_ascii_lowercase()))?,
    };
    let Some(id) = id else { return Ok(None) };
    let namespace = tables::NAMESPACES.get(tx, &(workspace, id))?;
    Ok(namespace.filter(|namespace| is_meant(namespace, reference)))
}

fn is_meant(namespace: &Namespace, reference: &Reference<NamespaceId>) -> bool {
    namespace.deleted.is_none()
        && match reference {
            Reference::Id(_) => true,
            Reference::Name(name) => namespace.name.as_str() == name,
        }
}

/// The namespace that the change is about; without the capability for it, it isn't there.
pub(super) fn find(
    change: &mut Change<'_, '_>,
    capability: Capability,
    reference: &Reference<NamespaceId>,
) -> Result<Namespace, Halt> {
    let name = reference.to_string();
    let workspace = change.workspace();
    let namespace =
        look_up(change.tx, workspace, reference)?.ok_or_else(|| Error::not_found(Kind::Namespace, &name))?;
    change.insist(capability, namespace.id, (Kind::Namespace, &name))?;
    Ok(namespace)
}

/// Gives a namespace its name, which must not be taken in any spelling.
fn claim_name(change: &mut Change<'_, '_>, id: NamespaceId, name: &Name) -> Result<(), Halt> {
    let spelled = (change.workspace(), name.folded());
    match tables::NAMESPACE_NAMES.get(change.tx, &spelled)? {
        Some(holder) if holder != id => {
            Err(Error::AlreadyExists { kind: Kind::Namespace, name: name.to_string() }.into())
        }
        Some(_) | None => Ok(tables::NAMESPACE_NAMES.put(change.tx, &spelled, &id)?),
    }
}

/// Makes a namespace, unless its name is taken.
fn make(change: &mut Change<'_, '_>, id: NamespaceId, name: &Name) -> Result<(Namespace, Happening), Halt> {
    claim_name(change, id, name)?;
    let namespace = Namespace {
        id,
        workspace: change.workspace(),
        name: name.clone(),
        patterns: Vec::new(),
        created: change.now,
        updated: change.now,
        etag: Etag::FIRST,
        deleted: None,
    };
    tables::NAMESPACES.put(change.tx, &(namespace.workspace, id), &namespace)?;
    let happening = Happening::made(EventName::NAMESPACE_CREATE, target(&namespace), namespace.facts());
    Ok((namespace, happening))
}

fn counted(change: &mut Change<'_, '_>, namespace: Namespace) -> Result<CountedNamespace, Halt> {
    let override_count = counts::overrides_now(change.tx, namespace.workspace, namespace.id)?;
    Ok(CountedNamespace { namespace, override_count })
}

impl Reading {
    /// The namespace that a caller refers to, if it is there and spelled so.
    pub(super) async fn find_namespace(
        &self,
        workspace: WorkspaceId,
        reference: &Reference<NamespaceId>,
    ) -> Result<Option<Namespace>, Error> {
        let id = match reference {
            Reference::Id(id) => Some(*id),
            Reference::Name(name) => {
                tables::NAMESPACE_NAMES.read(self.view(), &(workspace, name.to_ascii_lowercase())).await?
            }
        };
        let Some(id) = id else { return Ok(None) };
        let namespace = tables::NAMESPACES.read(self.view(), &(workspace, id)).await?;
        Ok(namespace.filter(|namespace| is_meant(namespace, reference)))
    }

    async fn counted_namespace(&self, namespace: Namespace) -> Result<CountedNamespace, Error> {
        let override_count = self.overrides_of(namespace.workspace, namespace.id).await?;
        Ok(CountedNamespace { namespace, override_count })
    }
}

impl Ostiary {
    fn draw_namespace(&self) -> NamespaceId {
        NamespaceId::from_bytes(self.world.ulid())
    }

    /// Makes a namespace.
    pub async fn create_namespace(
        &self,
        caller: &Caller,
        name: Name,
        run: Run,
    ) -> Result<Done<CountedNamespace>, Error> {
        let permit = caller.permit(Capability::CreateNamespace)?;
        let id = self.draw_namespace();
        let changed = self
            .change(permit, run, move |change| {
                change.insist_all(Capability::CreateNamespace)?;
                let (namespace, happening) = make(change, id, &name)?;
                Ok(Effect::Changed(CountedNamespace { namespace, override_count: 0 }, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// Makes the namespace of that name because somebody limits something in it, unless somebody else was faster.
    pub(super) async fn make_namespace_on_use(&self, caller: &Caller, name: Name) -> Result<(), Error> {
        // It is the call that is to be remembered, not what it made on the way.
        let mut caller = caller.clone();
        caller.call_mut().idempotency = None;
        let permit = caller.permit(Capability::Limit)?;
        let id = self.draw_namespace();
        self.change(permit, Run::Apply, move |change| {
            let workspace = change.workspace();
            if look_up(change.tx, workspace, &Reference::Name(name.to_string()))?.is_some() {
                return Ok(Effect::Unchanged(()));
            }
            change.insist_all(Capability::Limit)?;
            change.insist_all(Capability::CreateNamespace)?;
            let (_, happening) = make(change, id, &name)?;
            Ok(Effect::Changed((), happening))
        })
        .await?;
        Ok(())
    }

    /// One namespace.
    pub async fn namespace(
        &self,
        caller: &Caller,
        reference: Reference<NamespaceId>,
        min_revision: Option<Revision>,
    ) -> Result<Done<CountedNamespace>, Error> {
        let reading = self.read(min_revision).await?;
        let namespace = self.seen_namespace(caller, Capability::ReadNamespace, &reference, &reading).await?;
        let namespace = reading.counted_namespace(namespace).await?;
        Ok(reading.done(namespace))
    }

    /// The namespace that a caller looks at; without the capability for it, it isn't there.
    pub(super) async fn seen_namespace(
        &self,
        caller: &Caller,
        capability: Capability,
        reference: &Reference<NamespaceId>,
        reading: &Reading,
    ) -> Result<Namespace, Error> {
        caller.permit(capability)?;
        let name = reference.to_string();
        let namespace = reading.find_namespace(caller.workspace_id(), reference).await?;
        let namespace = namespace.ok_or_else(|| Error::not_found(Kind::Namespace, &name))?;
        self.insist(caller, capability, namespace.id, (Kind::Namespace, &name), reading.now)?;
        Ok(namespace)
    }

    /// The namespaces that the caller may read, of which the name contains the text.
    pub async fn list_namespaces(
        &self,
        caller: &Caller,
        name_contains: Option<String>,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<CountedNamespace>>, Error> {
        caller.permit(Capability::ReadNamespace)?;
        let reading = self.read(min_revision).await?;
        let part = name_contains.map(|part| part.to_ascii_lowercase());
        let mut walk = self.walk(&tables::NAMESPACES, of(caller.workspace_id()), &page)?;
        let mut found = Vec::new();
        while let Some((_, namespace)) = walk.next(&reading).await? {
            let visible = namespace.deleted.is_none() && caller.may(Capability::ReadNamespace, namespace.id);
            if visible && part.as_ref().is_none_or(|part| namespace.name.folded().contains(part)) {
                found.push(reading.counted_namespace(namespace).await?);
                if walk.took(ITEM_BYTES) {
                    break;
                }
            }
        }
        self.shown(caller, Capability::ReadNamespace, found.iter().map(|found| found.namespace.id), reading.now);
        Ok(reading.done(walk.page(&reading, found).await?))
    }

    /// Gives a namespace another name, if one is given.
    pub async fn update_namespace(
        &self,
        caller: &Caller,
        reference: Reference<NamespaceId>,
        name: Option<Name>,
        etag: String,
        run: Run,
    ) -> Result<Done<CountedNamespace>, Error> {
        let permit = caller.permit(Capability::UpdateNamespace)?;
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::UpdateNamespace, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let name = name.clone().unwrap_or_else(|| before.name.clone());
                if name == before.name {
                    return Ok(Effect::Unchanged(counted(change, before)?));
                }
                tables::NAMESPACE_NAMES.remove(change.tx, &(before.workspace, before.name.folded()))?;
                claim_name(change, before.id, &name)?;
                let after = Namespace { name, updated: change.now, etag: before.etag.next(), ..before.clone() };
                tables::NAMESPACES.put(change.tx, &(after.workspace, after.id), &after)?;
                let facts = (before.facts(), after.facts());
                let happening = Happening::changed(EventName::NAMESPACE_UPDATE, target(&after), facts.0, facts.1);
                Ok(Effect::Changed(counted(change, after)?, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// Deletes a namespace for good, with its exceptions and all that was counted in it. A rehearsal tells how many
    /// exceptions it has.
    pub async fn delete_namespace(
        &self,
        caller: &Caller,
        reference: Reference<NamespaceId>,
        etag: String,
        run: Run,
    ) -> Result<Done<Option<u64>>, Error> {
        let permit = caller.permit(Capability::DeleteNamespace)?;
        let wanted = reference.clone();
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::DeleteNamespace, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let now = change.now;
                let workspace = before.workspace;
                let after = Namespace { deleted: Some(now), updated: now, etag: before.etag.next(), ..before.clone() };
                tables::NAMESPACES.put(change.tx, &(workspace, before.id), &after)?;
                tables::NAMESPACE_NAMES.remove(change.tx, &(workspace, before.name.folded()))?;
                due::schedule(change.tx, now, Task::ClearNamespace, workspace, before.id.bytes())?;
                let happening = Happening::removed(EventName::NAMESPACE_DELETE, target(&before), before.facts());
                Ok(Effect::Changed((), happening))
            })
            .await?;
        let override_count = match run {
            Run::Apply => None,
            Run::Rehearse => Some(self.overrides_to_lose(caller.workspace_id(), &wanted).await?),
        };
        Ok(Done { answer: override_count, revision: changed.done.revision })
    }

    /// How many exceptions would go with the namespace.
    async fn overrides_to_lose(
        &self,
        workspace: WorkspaceId,
        reference: &Reference<NamespaceId>,
    ) -> Result<u64, Error> {
        let reading = self.read(None).await?;
        match reading.find_namespace(workspace, reference).await? {
            Some(namespace) => reading.overrides_of(workspace, namespace.id).await,
            None => Ok(0),
        }
    }
}
