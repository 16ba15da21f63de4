//! The life of a root key: made, listed, changed, rotated, deleted.
//!
//! Nobody hands on more than they hold: whatever a call would widen is compared with the caller's own root key, as it is
//! in the transaction of the change. And a workspace never loses its last administrator by accident.

use std::time::Duration;

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::{Capability, Grants};
use crate::domain::etag::Etag;
use crate::domain::id::RootKeyId;
use crate::domain::kind::Kind;
use crate::domain::name::Name;
use crate::domain::network::AllowList;
use crate::domain::root_key::{IssuedRootKey, RootKey, SELF_ROTATION_GRACE_MIN, State, Successor};
use crate::domain::rotation::{Rotated, RotationRefused, may_live};
use crate::domain::secret::{Prefix, Secret};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::workspace::Workspace;
use crate::error::{Error, Obstacle, Unrecognised};
use crate::store::{Stop, Txn, tables};

use super::caller::{Caller, recognise};
use super::change::{Change, Effect, Halt};
use super::counts::{self, By};
use super::due;
use super::listing::{ITEM_BYTES, Page, PageRequest, of};
use super::{Done, Ostiary, Reading, Retention, Revision, RootKeyUsage, Run};

mod deletion;
mod filter;

pub(super) use deletion::{delete, family};
pub use filter::RootKeyFilter;

/// Root keys deleted in one transaction when their creator is deleted with all that came from it.
const CASCADE_AT_ONCE: usize = 25;
/// Rows fetched at a time when a workspace's root keys are walked.
const CHUNK: usize = 500;

/// What a root key is to be.
#[derive(Debug, Clone)]
pub struct RootKeyDraft {
    /// What people call it.
    pub name: Name,
    /// What it may do; at least one grant.
    pub grants: Grants,
    /// How long it lives.
    pub expiry: Expiry,
    /// From where it may be used.
    pub allowed: AllowList,
}

/// What is to be different about a root key.
#[derive(Debug, Clone, Default)]
pub struct RootKeyPatch {
    /// The name.
    pub name: Option<Name>,
    /// All permissions.
    pub grants: Option<Grants>,
    /// The switch.
    pub enabled: Option<bool>,
    /// The life.
    pub expiry: Option<Expiry>,
    /// All addresses.
    pub allowed: Option<AllowList>,
}

/// Whether a caller insists on what ostiary would rather not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insistence {
    /// It does not.
    No,
    /// It does.
    Forced,
}

/// How far a deletion reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This root key alone.
    Alone,
    /// And every root key that came from it and that the caller covers.
    Descendants,
}

/// The rotation of a root key.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The new one.
    pub issued: IssuedRootKey,
    /// The old one, with the rest of its life.
    pub previous: RootKey,
}

/// A root key with what has become of it.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribedRootKey {
    /// The record.
    pub root_key: RootKey,
    /// Its state now.
    pub state: State,
    /// How it has been used.
    pub usage: RootKeyUsage,
}

/// A root key as the target of an event.
pub(super) fn target(root_key: &RootKey) -> Target {
    Target::new(Kind::RootKey, root_key.id, &root_key.name)
}

/// Writes a root key, and with it what follows from it: its moment in the schedule and the count of administrators.
pub(super) fn put(
    tx: &mut Txn<'_>,
    before: Option<&RootKey>,
    after: &RootKey,
    retention: Retention,
    now: Timestamp,
) -> Result<(), Stop> {
    let row = (after.workspace, after.id);
    tables::ROOT_KEYS.put(tx, &row, after)?;
    if before.is_none() {
        tables::ROOT_KEY_DIGESTS.put(tx, &(after.digest.bytes(),), &row)?;
    }
    due::reschedule_root_key(tx, before, after, retention, now)?;
    match (before.is_some_and(RootKey::is_counted), after.is_counted()) {
        (false, true) => counts::root_keys(tx, after.workspace, By::Up)?,
        (true, false) => counts::root_keys(tx, after.workspace, By::Down)?,
        (true, true) | (false, false) => {}
    }
    match (before.is_some_and(RootKey::is_administrator), after.is_administrator()) {
        (false, true) => counts::administrators(tx, after.workspace, By::Up),
        (true, false) => counts::administrators(tx, after.workspace, By::Down),
        (true, true) | (false, false) => Ok(()),
    }
}

/// Refuses what has just taken the last administrator away, unless the caller insists.
fn keep_an_administrator(change: &mut Change<'_, '_>, before: &RootKey, insistence: Insistence) -> Result<(), Halt> {
    let workspace = change.workspace();
    if insistence == Insistence::No
        && before.is_administrator()
        && counts::administrators_now(change.tx, workspace)? == 0
    {
        return Err(last_administrator(before.id).into());
    }
    Ok(())
}

fn last_administrator(root_key: RootKeyId) -> Error {
    Error::Precondition {
        obstacle: Obstacle::LastAdministrator,
        subject: root_key.to_string(),
        description: "the workspace would be left without an enabled, never-expiring root key that can create root \
                      keys; make another one first, or set force"
            .to_owned(),
    }
}

/// The root key of that id, if the caller may do this to it and it is still there.
fn find(change: &mut Change<'_, '_>, capability: Capability, id: RootKeyId) -> Result<RootKey, Halt> {
    let name = id.to_string();
    change.insist(capability, id, (Kind::RootKey, &name))?;
    let row = (change.workspace(), id);
    let root_key = tables::ROOT_KEYS.get(change.tx, &row)?.filter(|root_key| root_key.deleted.is_none());
    root_key.ok_or_else(|| Error::not_found(Kind::RootKey, id).into())
}

fn check_etag(etag: Etag, sent: &str) -> Result<(), Error> {
    if etag.matches(sent) { Ok(()) } else { Err(Error::EtagMismatch) }
}

fn expired(root_key: RootKeyId) -> Error {
    Error::Precondition {
        obstacle: Obstacle::RootKeyExpired,
        subject: root_key.to_string(),
        description: "the root key has expired, which is final; create a new one".to_owned(),
    }
}

fn already_rotated(root_key: RootKeyId, successor: RootKeyId) -> Error {
    Error::Precondition {
        obstacle: Obstacle::AlreadyRotated { successor },
        subject: root_key.to_string(),
        description: format!("the root key has been rotated already; its successor is {successor}"),
    }
}

impl Ostiary {
    /// Makes a root key with at most the caller's own permissions, life and addresses.
    pub async fn create_root_key(
        &self,
        caller: &Caller,
        draft: RootKeyDraft,
        run: Run,
    ) -> Result<Done<IssuedRootKey>, Error> {
        let permit = caller.permit(Capability::CreateRootKey)?;
        let id = RootKeyId::from_bytes(self.world.ulid());
        let secret = Secret::issue(&Prefix::root_key(), self.world.random());
        let retention = self.retention;
        self.prepare_delivery(caller, id.bytes(), &secret);
        let changed = self
            .change(permit, run, move |change| {
                change.insist_all(Capability::CreateRootKey)?;
                let RootKeyDraft { name, grants, expiry, allowed } = draft.clone();
                change.insist_ahead(expiry)?;
                let root_key = RootKey {
                    id,
                    workspace: change.workspace(),
                    name,
                    grants,
                    digest: secret.digest(),
                    start: secret.start(),
                    enabled: true,
                    expiry,
                    allowed,
                    rotated_from: None,
                    rotated_to: None,
                    created_by: Some(change.caller.id),
                    created: change.now,
                    updated: change.now,
                    etag: Etag::FIRST,
                    deleted: None,
                };
                if let Some(grant) = change.caller.grants.uncovered(&root_key.grants) {
                    return Err(Error::GrantExceedsOwn(format!("the caller does not hold {grant}")).into());
                }
                change.caller.covers(&root_key).map_err(|excess| {
                    Error::GrantExceedsOwn(format!(
                        "the new root key would have {} beyond the caller's own",
                        excess.noun()
                    ))
                })?;
                put(change.tx, None, &root_key, retention, change.now)?;
                change.insist_on_quota_of_root_keys()?;
                let happening = Happening::made(EventName::ROOT_KEY_CREATE, target(&root_key), root_key.facts());
                Ok(Effect::Changed(IssuedRootKey { root_key, secret: Some(secret.clone()) }, happening))
            })
            .await?;
        let (Done { mut answer, revision }, repeated) = (changed.done, changed.repeated);
        let made = answer.root_key.id;
        let fresh = answer.secret.take().filter(|_| !repeated);
        answer.secret = self.deliver(caller, run, fresh, (Kind::RootKey, made.bytes(), &made))?;
        Ok(Done { answer, revision })
    }

    /// One root key.
    pub async fn root_key(
        &self,
        caller: &Caller,
        id: RootKeyId,
        min_revision: Option<Revision>,
    ) -> Result<Done<DescribedRootKey>, Error> {
        caller.permit(Capability::ReadRootKey)?;
        let reading = self.read(min_revision).await?;
        let name = id.to_string();
        self.insist(caller, Capability::ReadRootKey, id, (Kind::RootKey, &name), reading.now)?;
        let root_key = tables::ROOT_KEYS.read(reading.view(), &(caller.workspace_id(), id)).await?;
        let root_key = root_key
            .filter(|root_key| root_key.deleted.is_none())
            .ok_or_else(|| Error::not_found(Kind::RootKey, &name))?;
        let described = self.described_root_key(&reading, root_key).await?;
        Ok(reading.done(described))
    }

    /// The root keys that the caller may read, expired and rotated-out ones included.
    pub async fn list_root_keys(
        &self,
        caller: &Caller,
        filter: RootKeyFilter,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<DescribedRootKey>>, Error> {
        caller.permit(Capability::ReadRootKey)?;
        let reading = self.read(min_revision).await?;
        let mut walk = self.walk(&tables::ROOT_KEYS, of(caller.workspace_id()), &page)?;
        let mut found = Vec::new();
        while let Some((_, root_key)) = walk.next(&reading).await? {
            let visible = root_key.deleted.is_none() && caller.may(Capability::ReadRootKey, root_key.id);
            if !visible || !filter.admits(&root_key, reading.now) {
                continue;
            }
            let described = self.described_root_key(&reading, root_key).await?;
            let used_before = |before: Timestamp| described.usage.last.is_none_or(|last| last < before);
            if filter.last_used_before.is_none_or(used_before) {
                let grants = described.root_key.grants.iter().map(|grant| grant.to_string().len()).sum::<usize>();
                let bytes = ITEM_BYTES + grants;
                found.push(described);
                if walk.took(bytes) {
                    break;
                }
            }
        }
        self.shown(caller, Capability::ReadRootKey, found.iter().map(|found| found.root_key.id), reading.now);
        Ok(reading.done(walk.page(&reading, found).await?))
    }

    /// Who the caller is.
    pub async fn who_am_i(
        &self,
        caller: &Caller,
        min_revision: Option<Revision>,
    ) -> Result<Done<(DescribedRootKey, Workspace)>, Error> {
        let reading = self.read(min_revision).await?;
        // Read and recognised anew, so that the answer is as new as the revision that is told with it.
        let root_key = tables::ROOT_KEYS.read(reading.view(), &caller.row()).await?;
        let workspace = tables::WORKSPACES.read(reading.view(), &(caller.workspace_id(),)).await?;
        recognise(root_key.as_ref(), workspace.as_ref(), caller.call.remote, reading.now)
            .map_err(Error::Unauthenticated)?;
        let (Some(root_key), Some(workspace)) = (root_key, workspace) else {
            return Err(Error::Unauthenticated(Unrecognised::Invalid));
        };
        let described = self.described_root_key(&reading, root_key).await?;
        Ok(reading.done((described, workspace)))
    }

    pub(super) async fn described_root_key(
        &self,
        reading: &Reading,
        root_key: RootKey,
    ) -> Result<DescribedRootKey, Error> {
        let usage = self.usage_of(reading, &root_key).await?;
        Ok(DescribedRootKey { state: root_key.state(reading.now), usage, root_key })
    }

    /// What has become of a root key that a change has answered with.
    pub async fn describe_root_key(&self, root_key: RootKey) -> Result<DescribedRootKey, Error> {
        let reading = self.read(None).await?;
        self.described_root_key(&reading, root_key).await
    }

    /// Changes a root key. One that the caller does not cover can only be narrowed.
    pub async fn update_root_key(
        &self,
        caller: &Caller,
        id: RootKeyId,
        patch: RootKeyPatch,
        etag: String,
        insistence: Insistence,
        run: Run,
    ) -> Result<Done<RootKey>, Error> {
        let permit = caller.permit(Capability::UpdateRootKey)?;
        let retention = self.retention;
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::UpdateRootKey, id)?;
                check_etag(before.etag, &etag)?;
                patch.expiry.map(|expiry| change.insist_ahead(expiry)).transpose()?;
                let mut after = before.patched(patch.clone());
                if after == before {
                    return Ok(Effect::Unchanged(before));
                }
                refuse_longer_life(&before, &after, change.now)?;
                before.may_become(&after, change.caller).map_err(|excess| {
                    Error::GrantExceedsOwn(format!(
                        "the change would hand on {} beyond the caller's own",
                        excess.noun()
                    ))
                })?;
                after.updated = change.now;
                after.etag = before.etag.next();
                put(change.tx, Some(&before), &after, retention, change.now)?;
                if !after.is_administrator() {
                    keep_an_administrator(change, &before, insistence)?;
                }
                let happening =
                    Happening::changed(EventName::ROOT_KEY_UPDATE, target(&after), before.facts(), after.facts());
                Ok(Effect::Changed(after, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// Replaces a root key by one that is alike, and lets the old one live on for the grace period, never longer than
    /// it would have lived.
    pub async fn rotate_root_key(
        &self,
        caller: &Caller,
        id: RootKeyId,
        grace: Duration,
        etag: String,
        insistence: Insistence,
        run: Run,
    ) -> Result<Done<Rotation>, Error> {
        let permit = caller.permit(Capability::RotateRootKey)?;
        if id == caller.root_key().id && grace < SELF_ROTATION_GRACE_MIN && insistence == Insistence::No {
            return Err(Error::field(
                "grace_period",
                "must be at least 60s when a root key rotates itself, unless force is set",
            ));
        }
        let secret = Secret::issue(&Prefix::root_key(), self.world.random());
        let next = RootKeyId::from_bytes(self.world.ulid());
        let retention = self.retention;
        self.prepare_delivery(caller, next.bytes(), &secret);
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::RotateRootKey, id)?;
                check_etag(before.etag, &etag)?;
                // A rotation hands out a secret that can do all that the root key can.
                change.caller.covers(&before).map_err(|excess| {
                    Error::GrantExceedsOwn(format!("the root key has {} beyond the caller's own", excess.noun()))
                })?;
                let successor =
                    Successor { id: next, digest: secret.digest(), start: secret.start(), by: change.caller.id };
                let (root_key, previous) =
                    before.rotated(successor, grace, change.now).map_err(|refused| match refused {
                        RotationRefused::Expired => expired(id),
                        RotationRefused::AlreadyRotated(successor) => already_rotated(id, successor),
                    })?;
                put(change.tx, None, &root_key, retention, change.now)?;
                put(change.tx, Some(&before), &previous, retention, change.now)?;
                keep_an_administrator(change, &before, insistence)?;
                let happening =
                    Happening::changed(EventName::ROOT_KEY_ROTATE, target(&previous), before.facts(), previous.facts())
                        .concerning(target(&root_key));
                let issued = IssuedRootKey { root_key, secret: Some(secret.clone()) };
                Ok(Effect::Changed(Rotation { issued, previous }, happening))
            })
            .await?;
        let (Done { mut answer, revision }, repeated) = (changed.done, changed.repeated);
        let made = answer.issued.root_key.id;
        let fresh = answer.issued.secret.take().filter(|_| !repeated);
        answer.issued.secret = self.deliver(caller, run, fresh, (Kind::RootKey, made.bytes(), &made))?;
        Ok(Done { answer, revision })
    }
}

/// A life that is over stays over, and that of a rotated-out root key is only ever cut.
fn refuse_longer_life(before: &RootKey, after: &RootKey, now: Timestamp) -> Result<(), Error> {
    if after.expiry == before.expiry {
        return Ok(());
    }
    if before.expiry.has_passed(now) {
        return Err(expired(before.id));
    }
    may_live(before.rotated_to, before.expiry, after.expiry)
        .map_err(|Rotated(successor)| already_rotated(before.id, successor))
}

impl RootKey {
    fn patched(&self, patch: RootKeyPatch) -> Self {
        let RootKeyPatch { name, grants, enabled, expiry, allowed } = patch;
        Self {
            name: name.unwrap_or_else(|| self.name.clone()),
            grants: grants.unwrap_or_else(|| self.grants.clone()),
            enabled: enabled.unwrap_or(self.enabled),
            expiry: expiry.unwrap_or(self.expiry),
            allowed: allowed.unwrap_or_else(|| self.allowed.clone()),
            ..self.clone()
        }
    }
}
