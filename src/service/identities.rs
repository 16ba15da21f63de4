//! Identities: the developer's users and organisations, to which keys belong by id.
//!
//! A key keeps the id of its identity when that is deleted; from then on the id resolves to nothing.

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::domain::etag::Etag;
use crate::domain::id::{IdentityId, Reference, WorkspaceId};
use crate::domain::identity::Identity;
use crate::domain::key::Key;
use crate::domain::kind::Kind;
use crate::domain::limit::Limits;
use crate::domain::name::Name;
use crate::domain::value::Metadata;
use crate::error::Error;
use crate::store::tables::{self, Task};
use crate::store::{Stop, Txn};

use super::caller::Caller;
use super::change::{Change, Effect, Halt};
use super::described::living_identity;
use super::listing::{ITEM_BYTES, Page, PageRequest, of};
use super::{Done, Ostiary, Reading, Revision, Run, counts, due};

/// What an identity is to be.
#[derive(Debug, Clone)]
pub struct IdentityDraft {
    /// What the developer calls it.
    pub external_id: Name,
    /// What is kept beside it.
    pub metadata: Metadata,
    /// What its keys are to share.
    pub limits: Limits,
}

/// What is to be different about an identity. The external id never is.
#[derive(Debug, Clone, Default)]
pub struct IdentityPatch {
    /// All metadata.
    pub metadata: Option<Metadata>,
    /// All limits.
    pub limits: Option<Limits>,
}

/// An identity, and how many keys belong to it.
#[derive(Debug, Clone, PartialEq)]
pub struct CountedIdentity {
    /// The record.
    pub identity: Identity,
    /// Keys that belong to it and are neither deleted nor rerolled.
    pub key_count: u64,
}

/// The identity that a key is to belong to, with the id that it gets if it has to be made.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    id: IdentityId,
    external_id: Name,
}

pub(super) fn target(identity: &Identity) -> Target {
    Target::new(Kind::Identity, identity.id, &identity.external_id)
}

/// The identity that a caller refers to inside a transaction, if it is there.
pub(super) fn look_up(
    tx: &mut Txn<'_>,
    workspace: WorkspaceId,
    reference: &Reference<IdentityId>,
) -> Result<Option<Identity>, Stop> {
    let id = match reference {
        Reference::Id(id) => Some(*id),
        Reference::Name(name) => tables::IDENTITY_EXTERNAL_IDS.get(tx, &(workspace, name.clone()))?,
    };
    let Some(id) = id else { return Ok(None) };
    let identity = tables::IDENTITIES.get(tx, &(workspace, id))?;
    Ok(identity.filter(|identity| identity.deleted.is_none()))
}

fn find(
    change: &mut Change<'_, '_>,
    capability: Capability,
    reference: &Reference<IdentityId>,
) -> Result<Identity, Halt> {
    let name = reference.to_string();
    let workspace = change.workspace();
    let identity = look_up(change.tx, workspace, reference)?.ok_or_else(|| Error::not_found(Kind::Identity, &name))?;
    change.insist(capability, identity.id, (Kind::Identity, &name))?;
    Ok(identity)
}

/// Makes an identity, unless its external id is taken.
fn make(change: &mut Change<'_, '_>, id: IdentityId, draft: IdentityDraft) -> Result<Identity, Halt> {
    let IdentityDraft { external_id, metadata, limits } = draft;
    let workspace = change.workspace();
    let called = (workspace, external_id.to_string());
    if tables::IDENTITY_EXTERNAL_IDS.get(change.tx, &called)?.is_some() {
        return Err(Error::AlreadyExists { kind: Kind::Identity, name: external_id.to_string() }.into());
    }
    let identity = Identity {
        id,
        workspace,
        external_id,
        metadata,
        limits,
        created: change.now,
        updated: change.now,
        etag: Etag::FIRST,
        deleted: None,
    };
    tables::IDENTITIES.put(change.tx, &(workspace, id), &identity)?;
    tables::IDENTITY_EXTERNAL_IDS.put(change.tx, &called, &id)?;
    Ok(identity)
}

impl Owner {
    /// The identity that a key is to belong to. Whoever may change the key may give it to an identity that is there;
    /// one that isn't is made on the way, if the caller may make identities.
    pub fn obtain(&self, change: &mut Change<'_, '_>) -> Result<Identity, Halt> {
        let Self { id, external_id } = self;
        let workspace = change.workspace();
        if let Some(identity) = look_up(change.tx, workspace, &Reference::Name(external_id.to_string()))? {
            return Ok(identity);
        }
        change.insist_all(Capability::CreateIdentity)?;
        let (metadata, limits) = (Metadata::default(), Limits::default());
        let identity = make(change, *id, IdentityDraft { external_id: external_id.clone(), metadata, limits })?;
        change.record(Happening::made(EventName::IDENTITY_CREATE, target(&identity), identity.facts()))?;
        Ok(identity)
    }
}

/// Whose a key is once it has been given to the owner, or taken from the one it has.
pub(super) fn owned(change: &mut Change<'_, '_>, key: &Key, owner: Option<&Owner>) -> Result<Option<IdentityId>, Halt> {
    match owner {
        Some(owner) => Ok(Some(owner.obtain(change)?.id)),
        // A key whose identity has been deleted is nobody's already: nothing visible would change.
        None if living_identity(change, key.identity)?.is_none() => Ok(key.identity),
        None => Ok(None),
    }
}

fn counted(change: &mut Change<'_, '_>, identity: Identity) -> Result<CountedIdentity, Halt> {
    let key_count = counts::keys_of_identity_now(change.tx, identity.workspace, identity.id)?;
    Ok(CountedIdentity { identity, key_count })
}

impl Reading {
    /// The identity that a caller refers to, if it is there.
    pub(super) async fn find_identity(
        &self,
        workspace: WorkspaceId,
        reference: &Reference<IdentityId>,
    ) -> Result<Option<Identity>, Error> {
        let id = match reference {
            Reference::Id(id) => Some(*id),
            Reference::Name(name) => {
                tables::IDENTITY_EXTERNAL_IDS.read(self.view(), &(workspace, name.clone())).await?
            }
        };
        self.living_identity(workspace, id).await
    }

    async fn counted_identity(&self, identity: Identity) -> Result<CountedIdentity, Error> {
        let key_count = self.keys_of_identity(identity.workspace, identity.id).await?;
        Ok(CountedIdentity { identity, key_count })
    }
}

impl Ostiary {
    /// Draws what is needed in case the identity has to be made.
    pub(super) fn owner(&self, external_id: Name) -> Owner {
        Owner { id: self.draw_identity(), external_id }
    }

    fn draw_identity(&self) -> IdentityId {
        IdentityId::from_bytes(self.world.ulid())
    }

    /// Makes an identity.
    pub async fn create_identity(
        &self,
        caller: &Caller,
        draft: IdentityDraft,
        run: Run,
    ) -> Result<Done<CountedIdentity>, Error> {
        let permit = caller.permit(Capability::CreateIdentity)?;
        let id = self.draw_identity();
        let changed = self
            .change(permit, run, move |change| {
                change.insist_all(Capability::CreateIdentity)?;
                let identity = make(change, id, draft.clone())?;
                let happening = Happening::made(EventName::IDENTITY_CREATE, target(&identity), identity.facts());
                Ok(Effect::Changed(CountedIdentity { identity, key_count: 0 }, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// One identity.
    pub async fn identity(
        &self,
        caller: &Caller,
        reference: Reference<IdentityId>,
        min_revision: Option<Revision>,
    ) -> Result<Done<CountedIdentity>, Error> {
        caller.permit(Capability::ReadIdentity)?;
        let reading = self.read(min_revision).await?;
        let name = reference.to_string();
        let identity = reading.find_identity(caller.workspace_id(), &reference).await?;
        let identity = identity.ok_or_else(|| Error::not_found(Kind::Identity, &name))?;
        self.insist(caller, Capability::ReadIdentity, identity.id, (Kind::Identity, &name), reading.now)?;
        let identity = reading.counted_identity(identity).await?;
        Ok(reading.done(identity))
    }

    /// The identities that the caller may read, of which the external id contains the text.
    pub async fn list_identities(
        &self,
        caller: &Caller,
        external_id_contains: Option<String>,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<CountedIdentity>>, Error> {
        caller.permit(Capability::ReadIdentity)?;
        let reading = self.read(min_revision).await?;
        let part = external_id_contains.map(|part| part.to_ascii_lowercase());
        let mut walk = self.walk(&tables::IDENTITIES, of(caller.workspace_id()), &page)?;
        let mut found = Vec::new();
        while let Some((_, identity)) = walk.next(&reading).await? {
            let visible = identity.deleted.is_none() && caller.may(Capability::ReadIdentity, identity.id);
            let contains = |part: &String| identity.external_id.folded().contains(part);
            if visible && part.as_ref().is_none_or(contains) {
                let metadata = crate::pb::from_facts(identity.metadata.facts());
                found.push(reading.counted_identity(identity).await?);
                if walk.took(ITEM_BYTES + prost::Message::encoded_len(&metadata)) {
                    break;
                }
            }
        }
        self.shown(caller, Capability::ReadIdentity, found.iter().map(|found| found.identity.id), reading.now);
        Ok(reading.done(walk.page(&reading, found).await?))
    }

    /// Changes what is kept beside an identity, or what its keys share.
    pub async fn update_identity(
        &self,
        caller: &Caller,
        reference: Reference<IdentityId>,
        patch: IdentityPatch,
        etag: String,
        run: Run,
    ) -> Result<Done<CountedIdentity>, Error> {
        let permit = caller.permit(Capability::UpdateIdentity)?;
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::UpdateIdentity, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let IdentityPatch { metadata, limits } = patch.clone();
                let mut after = Identity {
                    metadata: metadata.unwrap_or_else(|| before.metadata.clone()),
                    limits: limits.unwrap_or_else(|| before.limits.clone()),
                    ..before.clone()
                };
                if after == before {
                    return Ok(Effect::Unchanged(counted(change, before)?));
                }
                after.updated = change.now;
                after.etag = before.etag.next();
                tables::IDENTITIES.put(change.tx, &(after.workspace, after.id), &after)?;
                let mut facts = after.facts();
                let differing = before.metadata.differing(&after.metadata);
                if !differing.is_empty() {
                    // Which values have changed, not what they are: they may be personal.
                    facts.insert("metadata_changed".to_owned(), differing.into_iter().collect());
                }
                let happening = Happening::changed(EventName::IDENTITY_UPDATE, target(&after), before.facts(), facts);
                Ok(Effect::Changed(counted(change, after)?, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// Deletes an identity for good. From this commit on its keys belong to nobody and work on; the call takes as long
    /// whether it has one key or a million. A rehearsal tells how many it has.
    pub async fn delete_identity(
        &self,
        caller: &Caller,
        reference: Reference<IdentityId>,
        etag: String,
        run: Run,
    ) -> Result<Done<Option<u64>>, Error> {
        let permit = caller.permit(Capability::DeleteIdentity)?;
        let wanted = reference.clone();
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::DeleteIdentity, &reference)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let now = change.now;
                let workspace = before.workspace;
                let after = Identity { deleted: Some(now), updated: now, etag: before.etag.next(), ..before.clone() };
                tables::IDENTITIES.put(change.tx, &(workspace, before.id), &after)?;
                tables::IDENTITY_EXTERNAL_IDS.remove(change.tx, &(workspace, before.external_id.to_string()))?;
                due::schedule(change.tx, now, Task::ClearIdentity, workspace, before.id.bytes())?;
                let happening = Happening::removed(EventName::IDENTITY_DELETE, target(&before), before.facts());
                Ok(Effect::Changed((), happening))
            })
            .await?;
        let key_count = match run {
            Run::Apply => None,
            Run::Rehearse => Some(self.keys_left_alone(caller.workspace_id(), &wanted).await?),
        };
        Ok(Done { answer: key_count, revision: changed.done.revision })
    }

    /// How many keys the identity would leave behind.
    async fn keys_left_alone(&self, workspace: WorkspaceId, reference: &Reference<IdentityId>) -> Result<u64, Error> {
        let reading = self.read(None).await?;
        match reading.find_identity(workspace, reference).await? {
            Some(identity) => reading.keys_of_identity(workspace, identity.id).await,
            None => Ok(0),
        }
    }
}
