//! Tenants, managed from the operator's workspace.

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::{Capability, Grant, Grants};
use crate::domain::etag::Etag;
use crate::domain::id::{RootKeyId, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::name::{Name, ROOT_KEY_NAME};
use crate::domain::network::AllowList;
use crate::domain::root_key::{IssuedRootKey, RootKey};
use crate::domain::secret::{Prefix, Secret};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::workspace::{Purpose, Quotas, Workspace};
use crate::error::{Error, Obstacle};
use crate::store::tables::{self, Task};
use crate::store::{Stop, Txn};

use super::caller::Caller;
use super::change::{Change, Effect, Halt};
use super::listing::{ITEM_BYTES, Page, PageRequest, of};
use super::{Done, Ostiary, Reading, Revision, Run, due, root_keys};

/// Rows counted at a time.
const CHUNK: usize = 500;

/// A workspace just made, with the root key that everything in it begins with.
#[derive(Debug, Clone)]
pub struct FoundedWorkspace {
    /// The workspace.
    pub workspace: Workspace,
    /// Its first root key.
    pub issued: IssuedRootKey,
}

/// What is to be different about a workspace.
#[derive(Debug, Clone, Default)]
pub struct WorkspacePatch {
    /// All quotas.
    pub quotas: Option<Quotas>,
    /// The name.
    pub name: Option<Name>,
    /// The switch.
    pub enabled: Option<bool>,
}

/// How many things a deletion takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkspaceContents {
    /// API keys.
    pub keys: u64,
    /// Root keys.
    pub root_keys: u64,
}

pub(super) fn target(workspace: &Workspace) -> Target {
    Target::new(Kind::Workspace, workspace.id, &workspace.name)
}

/// The first root key of a workspace, by the secret that it is to have.
pub(super) fn first_root_key(
    workspace: WorkspaceId,
    id: RootKeyId,
    grants: &[&str],
    secret: &Secret,
    now: Timestamp,
) -> RootKey {
    let grants = grants.iter().map(|grant| Grant::parse(grant).expect("written here"));
    RootKey {
        id,
        workspace,
        name: Name::new("first root key", ROOT_KEY_NAME).expect("written here"),
        grants: Grants::collect(grants).expect("written here"),
        digest: secret.digest(),
        start: secret.start(),
        enabled: true,
        expiry: Expiry::Never,
        allowed: AllowList::anyone(),
        rotated_from: None,
        rotated_to: None,
        created_by: None,
        created: now,
        updated: now,
        etag: Etag::FIRST,
        deleted: None,
    }
}

fn find(change: &mut Change<'_, '_>, capability: Capability, id: WorkspaceId) -> Result<Workspace, Halt> {
    change.insist(capability, id, (Kind::Workspace, &id.to_string()))?;
    let workspace = tables::WORKSPACES.get(change.tx, &(id,))?.filter(|workspace| workspace.deleted.is_none());
    workspace.ok_or_else(|| Error::not_found(Kind::Workspace, id).into())
}

fn spare_the_operators(workspace: &Workspace) -> Result<(), Error> {
    match workspace.purpose {
        Purpose::Tenant => Ok(()),
        Purpose::Operator => Err(Error::Precondition {
            obstacle: Obstacle::OperatorWorkspace,
            subject: workspace.id.to_string(),
            description: "the operator workspace can't be disabled or deleted".to_owned(),
        }),
    }
}

/// Deletes a workspace, whose contents go in the background.
pub(super) fn delete(tx: &mut Txn<'_>, before: &Workspace, now: Timestamp) -> Result<Happening, Stop> {
    let after = Workspace { deleted: Some(now), updated: now, etag: before.etag.next(), ..before.clone() };
    put(tx, &after)?;
    due::schedule(tx, now, Task::ClearWorkspace, before.id, [0; 16])?;
    Ok(Happening::removed(EventName::WORKSPACE_DELETE, target(before), before.facts()))
}

pub(super) fn put(tx: &mut Txn<'_>, workspace: &Workspace) -> Result<(), Stop> {
    tables::WORKSPACES.put(tx, &(workspace.id,), workspace)
}

impl Ostiary {
    /// Makes a workspace and the root key that everything in it begins with. The one place where somebody is given
    /// more than the caller holds: the operator does not reach into the new workspace itself.
    pub async fn create_workspace(
        &self,
        caller: &Caller,
        name: Name,
        quotas: Quotas,
        run: Run,
    ) -> Result<Done<FoundedWorkspace>, Error> {
        let permit = caller.permit(Capability::CreateWorkspace)?;
        let id = WorkspaceId::from_bytes(self.world.ulid());
        let first = RootKeyId::from_bytes(self.world.ulid());
        let secret = Secret::issue(&Prefix::root_key(), self.world.random());
        let retention = self.retention;
        self.prepare_delivery(caller, first.bytes(), &secret);
        let changed = self
            .change(permit, run, move |change| {
                change.insist_all(Capability::CreateWorkspace)?;
                let now = change.now;
                let workspace = Workspace {
                    id,
                    name: name.clone(),
                    purpose: Purpose::Tenant,
                    enabled: true,
                    quotas,
                    created: now,
                    updated: now,
                    etag: Etag::FIRST,
                    deleted: None,
                    cuts: Vec::new(),
                    imported: Vec::new(),
                };
                put(change.tx, &workspace)?;
                let root_key = first_root_key(id, first, &["*.*.*"], &secret, now);
                root_keys::put(change.tx, None, &root_key, retention, now)?;
                let made = Happening::made(EventName::ROOT_KEY_CREATE, root_keys::target(&root_key), root_key.facts());
                change.record_as_operator(id, made)?;
                let happening = Happening::made(EventName::WORKSPACE_CREATE, target(&workspace), workspace.facts());
                let issued = IssuedRootKey { root_key, secret: Some(secret.clone()) };
                Ok(Effect::Changed(FoundedWorkspace { workspace, issued }, happening))
            })
            .await?;
        let (Done { mut answer, revision }, repeated) = (changed.done, changed.repeated);
        let made = answer.issued.root_key.id;
        let fresh = answer.issued.secret.take().filter(|_| !repeated);
        answer.issued.secret = self.deliver(caller, run, fresh, (Kind::RootKey, made.bytes(), &made))?;
        Ok(Done { answer, revision })
    }

    /// One workspace.
    pub async fn workspace(
        &self,
        caller: &Caller,
        id: WorkspaceId,
        min_revision: Option<Revision>,
    ) -> Result<Done<Workspace>, Error> {
        caller.permit(Capability::ReadWorkspace)?;
        let reading = self.read(min_revision).await?;
        let name = id.to_string();
        self.insist(caller, Capability::ReadWorkspace, id, (Kind::Workspace, &name), reading.now)?;
        let workspace = tables::WORKSPACES.read(reading.view(), &(id,)).await?;
        let workspace = workspace
            .filter(|workspace| workspace.deleted.is_none())
            .ok_or_else(|| Error::not_found(Kind::Workspace, &name))?;
        Ok(reading.done(workspace))
    }

    /// The workspaces that the caller may read.
    pub async fn list_workspaces(
        &self,
        caller: &Caller,
        name_contains: Option<String>,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<Workspace>>, Error> {
        caller.permit(Capability::ReadWorkspace)?;
        let reading = self.read(min_revision).await?;
        let part = name_contains.map(|part| part.to_ascii_lowercase());
        let mut walk = self.walk(&tables::WORKSPACES, (), &page)?;
        let mut found = Vec::new();
        while let Some((_, workspace)) = walk.next(&reading).await? {
            let visible = workspace.deleted.is_none() && caller.may(Capability::ReadWorkspace, workspace.id);
            if visible && part.as_ref().is_none_or(|part| workspace.name.folded().contains(part)) {
                found.push(workspace);
                if walk.took(ITEM_BYTES) {
                    break;
                }
            }
        }
        self.shown(caller, Capability::ReadWorkspace, found.iter().map(|found| found.id), reading.now);
        Ok(reading.done(walk.page(&reading, found).await?))
    }

    /// Changes a workspace. A disabled one's root keys are not recognised.
    pub async fn update_workspace(
        &self,
        caller: &Caller,
        id: WorkspaceId,
        patch: WorkspacePatch,
        etag: String,
        run: Run,
    ) -> Result<Done<Workspace>, Error> {
        let permit = caller.permit(Capability::UpdateWorkspace)?;
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::UpdateWorkspace, id)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let WorkspacePatch { name, enabled, quotas } = patch.clone();
                let mut after = Workspace {
                    name: name.unwrap_or_else(|| before.name.clone()),
                    enabled: enabled.unwrap_or(before.enabled),
                    quotas: quotas.unwrap_or(before.quotas),
                    ..before.clone()
                };
                if after == before {
                    return Ok(Effect::Unchanged(before));
                }
                if before.enabled && !after.enabled {
                    spare_the_operators(&before)?;
                }
                after.updated = change.now;
                after.etag = before.etag.next();
                put(change.tx, &after)?;
                let happening =
                    Happening::changed(EventName::WORKSPACE_UPDATE, target(&after), before.facts(), after.facts());
                if before.purpose == Purpose::Tenant {
                    change.record_as_operator(id, happening.clone())?;
                }
                Ok(Effect::Changed(after, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// Deletes a workspace for good. From this commit on nothing in it is recognised; its rows go in the background.
    pub async fn delete_workspace(
        &self,
        caller: &Caller,
        id: WorkspaceId,
        etag: String,
        run: Run,
    ) -> Result<Done<Option<WorkspaceContents>>, Error> {
        let permit = caller.permit(Capability::DeleteWorkspace)?;
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::DeleteWorkspace, id)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                spare_the_operators(&before)?;
                Ok(Effect::Changed((), delete(change.tx, &before, change.now)?))
            })
            .await?;
        let contents = match run {
            Run::Apply => None,
            Run::Rehearse => Some(contents(&self.read(None).await?, id).await?),
        };
        Ok(Done { answer: contents, revision: changed.done.revision })
    }
}

/// Counts what is in a workspace.
async fn contents(reading: &Reading, id: WorkspaceId) -> Result<WorkspaceContents, Error> {
    let mut contents = WorkspaceContents { keys: 0, root_keys: 0 };
    let mut after = None;
    loop {
        let apis = tables::APIS.list(reading.view(), &of(id), after.as_ref(), CHUNK).await?;
        for (_, api) in apis.iter().filter(|(_, api)| api.deleted.is_none()) {
            contents.keys += reading.keys_of_api(id, api.id).await?;
        }
        match apis.into_iter().last() {
            Some((last, _)) => after = Some(last),
            None => break,
        }
    }
    let mut after = None;
    loop {
        let root_keys = tables::ROOT_KEYS.list(reading.view(), &of(id), after.as_ref(), CHUNK).await?;
        contents.root_keys += root_keys.iter().filter(|(_, root_key)| root_key.deleted.is_none()).count() as u64;
        match root_keys.into_iter().last() {
            Some((last, _)) => after = Some(last),
            None => return Ok(contents),
        }
    }
}
