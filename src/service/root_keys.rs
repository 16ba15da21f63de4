//! The life of a root key: made, listed, changed, rotated, deleted.
//!
//! Nobody hands on more than they hold: whatever a call would widen is compared with the caller's own root key, as it is
//! in the transaction of the change. And a workspace never loses its last administrator by accident.

use std::collections::HashSet;
use std::time::Duration;

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::{Capability, Grants};
use crate::domain::etag::Etag;
use crate::domain::id::{RootKeyId, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::name::Name;
use crate::domain::network::AllowList;
use crate::domain::root_key::{IssuedRootKey, RootKey, RotationRefused, SELF_ROTATION_GRACE_MIN, State, Successor};
use crate::domain::secret::{Prefix, Secret};
use crate::domain::time::{Expiry, Timestamp};
use crate::error::{Error, Obstacle, Unrecognised};
use crate::store::{Stop, Txn, tables};

use super::caller::Caller;
use super::change::{Change, Effect, Halt};
use super::counts::{self, By};
use super::due;
use super::listing::{Page, PageRequest, of};
use super::{Done, Ostiary, Reading, Retention, Revision, RootKeyUsage, Run};

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

/// Which root keys to show. Everything that is set must agree.
#[derive(Debug, Clone, Default)]
pub struct RootKeyFilter {
    /// Part of the name, ignoring ASCII case.
    pub name_contains: Option<String>,
    /// Part of one of its permissions.
    pub permission_contains: Option<String>,
    /// The state.
    pub state: Option<State>,
    /// Made at this moment or later.
    pub create_after: Option<Timestamp>,
    /// Made before this moment.
    pub create_before: Option<Timestamp>,
    /// Expiring before this moment.
    pub expire_before: Option<Timestamp>,
    /// Last used before this moment, or never.
    pub last_used_before: Option<Timestamp>,
}

impl RootKeyFilter {
    fn admits(&self, root_key: &RootKey, now: Timestamp) -> bool {
        let Self {
            name_contains,
            permission_contains,
            state,
            create_after,
            create_before,
            expire_before,
            last_used_before: _, // known only once the usage has been read
        } = self;
        let folded = root_key.name.folded();
        name_contains.as_ref().is_none_or(|part| folded.contains(&part.to_ascii_lowercase()))
            && permission_contains
                .as_ref()
                .is_none_or(|part| root_key.grants.iter().any(|grant| grant.to_string().contains(part)))
            && state.is_none_or(|state| root_key.state(now) == state)
            && create_after.is_none_or(|after| root_key.created >= after)
            && create_before.is_none_or(|before| root_key.created < before)
            && expire_before.is_none_or(|before| root_key.expiry.moment().is_some_and(|moment| moment < before))
    }
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
        obstacle: Obstacle::AlreadyRotated,
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
                found.push(described);
                if walk.took_one() {
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
    ) -> Result<Done<DescribedRootKey>, Error> {
        let reading = self.read(min_revision).await?;
        // Read anew, so that it is as new as the revision that is told with it.
        let row = (caller.workspace_id(), caller.root_key().id);
        let root_key = tables::ROOT_KEYS.read(reading.view(), &row).await?;
        let root_key = root_key.filter(|root_key| root_key.deleted.is_none());
        let root_key = root_key.ok_or(Error::Unauthenticated(Unrecognised::Invalid))?;
        let described = self.described_root_key(&reading, root_key).await?;
        Ok(reading.done(described))
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

    /// Deletes a root key at once and for good, and with [`Reach::Descendants`] all that came from it.
    pub async fn delete_root_key(
        &self,
        caller: &Caller,
        id: RootKeyId,
        etag: String,
        reach: Reach,
        insistence: Insistence,
        run: Run,
    ) -> Result<Done<Vec<RootKeyId>>, Error> {
        caller.permit(Capability::DeleteRootKey)?;
        let Line { descendants, holds_every_administrator } = match reach {
            Reach::Alone => Line { descendants: Vec::new(), holds_every_administrator: false },
            Reach::Descendants => self.line(caller, id).await?,
        };
        // The root key itself goes first, so that nothing more comes from it; only a caller that deletes itself goes
        // last, because it is nobody afterwards.
        let mut order: Vec<RootKeyId> = std::iter::once(id).chain(descendants).collect();
        let own = order.iter().position(|key| *key == caller.root_key().id);
        if let Some(own) = own {
            let own = order.remove(own);
            order.push(own);
        }
        if own.is_some() && order.len() > CASCADE_AT_ONCE {
            // What would stop the last transaction, the one with the caller in it, must stop the first.
            let mut signed = caller.clone();
            signed.call.idempotency = None;
            let plan = Deletion {
                named: Some(id),
                etag: etag.clone(),
                batch: vec![id],
                earlier: Vec::new(),
                insistence: Insistence::Forced,
            };
            self.delete_batch(&signed, plan, Run::Rehearse).await?;
            if holds_every_administrator && insistence == Insistence::No {
                return Err(last_administrator(id));
            }
        }
        let mut deleted = Vec::new();
        let mut batches = order.chunks(CASCADE_AT_ONCE).peekable();
        let mut last = None;
        while let Some(batch) = batches.next() {
            // Only the last transaction remembers the call: it is the one after which there is nothing left to repeat.
            let mut signed = caller.clone();
            signed.call.idempotency = caller.call.idempotency.clone().filter(|_| batches.peek().is_none());
            let plan = Deletion {
                named: Some(id),
                etag: etag.clone(),
                batch: batch.to_vec(),
                earlier: deleted.clone(),
                insistence,
            };
            let done = self.delete_batch(&signed, plan, run).await?;
            deleted.clone_from(&done.answer);
            last = Some(done);
        }
        let mut done = last.ok_or_else(|| Error::Internal("a deletion without a root key".to_owned()))?;
        if reach == Reach::Descendants && run == Run::Apply && own.is_none() {
            done.answer.extend(self.delete_latecomers(caller, id, insistence).await?);
        }
        Ok(done)
    }

    /// Deletes what descended from a root key while its descendants were being deleted.
    async fn delete_latecomers(
        &self,
        caller: &Caller,
        id: RootKeyId,
        insistence: Insistence,
    ) -> Result<Vec<RootKeyId>, Error> {
        let mut signed = caller.clone();
        signed.call.idempotency = None;
        let mut all = Vec::new();
        loop {
            let mut late = self.line(caller, id).await?.descendants;
            late.truncate(CASCADE_AT_ONCE);
            let plan = Deletion { named: None, etag: String::new(), batch: late, earlier: Vec::new(), insistence };
            if plan.batch.is_empty() {
                return Ok(all);
            }
            let deleted = self.delete_batch(&signed, plan, Run::Apply).await?.answer;
            if deleted.is_empty() {
                return Ok(all);
            }
            all.extend(deleted);
        }
    }

    /// Deletes up to 20 root keys, all or none.
    pub async fn batch_delete_root_keys(
        &self,
        caller: &Caller,
        ids: Vec<RootKeyId>,
        insistence: Insistence,
        run: Run,
    ) -> Result<Done<Vec<RootKeyId>>, Error> {
        let permit = caller.permit(Capability::DeleteRootKey)?;
        let retention = self.retention;
        let changed = self
            .change(permit, run, move |change| {
                let mut unknown = Vec::new();
                let mut doomed = Vec::new();
                for id in &ids {
                    match find(change, Capability::DeleteRootKey, *id) {
                        Ok(root_key) => doomed.push(root_key),
                        Err(Halt::Refuse(Error::NotFound { name, .. })) => unknown.push(name),
                        Err(other) => return Err(other),
                    }
                }
                if !unknown.is_empty() {
                    return Err(Error::not_found(Kind::RootKey, unknown.join(", ")).into());
                }
                delete_all(change, &doomed, retention, insistence)
            })
            .await?;
        Ok(changed.done)
    }

    async fn delete_batch(&self, caller: &Caller, plan: Deletion, run: Run) -> Result<Done<Vec<RootKeyId>>, Error> {
        let permit = caller.permit(Capability::DeleteRootKey)?;
        let retention = self.retention;
        let changed = self
            .change(permit, run, move |change| {
                let Deletion { named, etag, batch, earlier, insistence } = &plan;
                let mut doomed = Vec::new();
                for id in batch {
                    match find(change, Capability::DeleteRootKey, *id) {
                        Ok(root_key) if Some(*id) == *named => {
                            check_etag(root_key.etag, etag)?;
                            doomed.push(root_key);
                        }
                        Ok(root_key) if change.caller.covers(&root_key).is_ok() => doomed.push(root_key),
                        Ok(_) => {}
                        // A descendant that somebody else has deleted meanwhile is what was asked for.
                        Err(Halt::Refuse(Error::NotFound { .. })) if Some(*id) != *named => {}
                        Err(other) => return Err(other),
                    }
                }
                let effect = delete_all(change, &doomed, retention, *insistence)?;
                Ok(match effect {
                    Effect::Changed(ids, happening) => Effect::Changed([earlier.clone(), ids].concat(), happening),
                    Effect::Unchanged(ids) => Effect::Unchanged([earlier.clone(), ids].concat()),
                })
            })
            .await?;
        Ok(changed.done)
    }

    /// What came from this root key, by creation or rotation, over any number of steps.
    async fn line(&self, caller: &Caller, ancestor: RootKeyId) -> Result<Line, Error> {
        let reading = self.read(None).await?;
        let family = family(&reading, caller.workspace_id()).await?;
        let mut line = HashSet::from([ancestor]);
        // Rows of the same millisecond come in no order of descent, so passes go on until one finds nothing new.
        loop {
            let known = line.len();
            for root_key in &family {
                let parents = [root_key.created_by, root_key.rotated_from];
                if parents.iter().flatten().any(|parent| line.contains(parent)) {
                    line.insert(root_key.id);
                }
            }
            if line.len() == known {
                break;
            }
        }
        let doomed = |root_key: &&RootKey| {
            root_key.id != ancestor
                && line.contains(&root_key.id)
                && root_key.deleted.is_none()
                && caller.may(Capability::DeleteRootKey, root_key.id)
                && caller.root_key().covers(root_key).is_ok()
        };
        let descendants: Vec<RootKeyId> = family.iter().filter(doomed).map(|root_key| root_key.id).collect();
        let mut administrators = family.iter().filter(|root_key| root_key.is_administrator()).peekable();
        let holds_every_administrator = administrators.peek().is_some()
            && administrators.all(|root_key| root_key.id == ancestor || descendants.contains(&root_key.id));
        Ok(Line { descendants, holds_every_administrator })
    }
}

/// What came from a root key.
#[derive(Debug)]
struct Line {
    /// All of it that is there, that the caller may delete and that it covers.
    descendants: Vec<RootKeyId>,
    /// Whether nobody but these and the root key itself is an administrator.
    holds_every_administrator: bool,
}

/// One transaction of a deletion.
#[derive(Debug, Clone)]
struct Deletion {
    /// The root key that was named, if it is still to be deleted; its absence is an error.
    named: Option<RootKeyId>,
    etag: String,
    batch: Vec<RootKeyId>,
    /// What transactions before it have deleted.
    earlier: Vec<RootKeyId>,
    insistence: Insistence,
}

/// All root keys of a workspace in the order in which they were made.
async fn family(reading: &Reading, workspace: WorkspaceId) -> Result<Vec<RootKey>, Error> {
    let mut all: Vec<RootKey> = Vec::new();
    loop {
        let after = all.last().map(|root_key| (workspace, root_key.id));
        let rows = tables::ROOT_KEYS.list(reading.view(), &of(workspace), after.as_ref(), CHUNK).await?;
        let ended = rows.len() < CHUNK;
        all.extend(rows.into_iter().map(|(_, root_key)| root_key));
        if ended {
            return Ok(all);
        }
    }
}

fn delete_all(
    change: &mut Change<'_, '_>,
    doomed: &[RootKey],
    retention: Retention,
    insistence: Insistence,
) -> Result<Effect<Vec<RootKeyId>>, Halt> {
    let mut happenings = Vec::new();
    for root_key in doomed {
        let gone =
            RootKey { deleted: Some(change.now), updated: change.now, etag: root_key.etag.next(), ..root_key.clone() };
        put(change.tx, Some(root_key), &gone, retention, change.now)?;
        keep_an_administrator(change, root_key, insistence)?;
        happenings.push(Happening::removed(EventName::ROOT_KEY_DELETE, target(root_key), root_key.facts()));
    }
    let ids = doomed.iter().map(|root_key| root_key.id).collect();
    let Some(last) = happenings.pop() else { return Ok(Effect::Unchanged(ids)) };
    for happening in happenings {
        change.record(happening)?;
    }
    Ok(Effect::Changed(ids, last))
}

/// A life that is over stays over, and that of a rotated-out root key is only ever cut.
fn refuse_longer_life(before: &RootKey, after: &RootKey, now: Timestamp) -> Result<(), Error> {
    if after.expiry == before.expiry {
        return Ok(());
    }
    if before.expiry.has_passed(now) {
        return Err(expired(before.id));
    }
    match before.rotated_to {
        Some(successor) if after.expiry.outlives(before.expiry) => Err(already_rotated(before.id, successor)),
        Some(_) | None => Ok(()),
    }
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
