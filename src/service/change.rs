//! The only way to change anything.
//!
//! Every change runs in one transaction: the caller is recognised anew and its permission proven anew, a call that was
//! made before under the same idempotency key is answered as it was then, the change itself is decided, and its audit
//! events and the memory of the call are written with it. Forgetting to authorise or to log does not compile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::audit::Happening;
use crate::domain::capability::{Capability, Grant};
use crate::domain::id::{EventId, RootKeyId, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::root_key::RootKey;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::workspace::{Quotas, Workspace};
use crate::error::Error;
use crate::pb::storage;
use crate::store::{Body, Decision, Priority, Revision, Stop, Txn, tables};

use super::audit::{EVENTS_MAX, Log, Signature};
use super::caller::{Call, Caller, Idempotency, Permit, allowing, holds_any, recognise};
use super::outcome::Outcome;
use super::{Done, Ostiary, Run};

/// How long a call under an idempotency key is remembered.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

/// How often a change is tried anew because what it looked at beforehand has moved meanwhile.
pub(super) const TRIES: usize = 4;

/// Tries a change that looks at something beforehand until nothing has moved in between.
///
/// Ends with [`Error::Conflict`] if it kept moving.
macro_rules! trying {
    ($attempt:expr) => {{
        let mut tries = 1;
        loop {
            match $attempt.await {
                Err($crate::error::Error::Conflict) if tries < $crate::service::change::TRIES => tries += 1,
                outcome => break outcome.map(|changed| changed.done),
            }
        }
    }};
}
pub(super) use trying;

/// Why a decision was not reached.
#[derive(Debug)]
pub enum Halt {
    /// The engine must do something first, or can't.
    Stop(Stop),
    /// The answer is no.
    Refuse(Error),
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Refuse(error)
    }
}

/// What a decision comes to.
pub enum Effect<T> {
    /// Nothing is different; nothing is written.
    Unchanged(T),
    /// Something is, and this is what the log says of it.
    Changed(T, Happening),
}

/// A change being decided: the transaction, and who decides.
pub struct Change<'a, 'tx> {
    /// The rows.
    pub tx: &'a mut Txn<'tx>,
    /// The caller's root key as it is in this transaction.
    pub caller: &'a RootKey,
    /// The moment of the change.
    pub now: Timestamp,
    home: &'a Workspace,
    log: Log,
    needed: BTreeSet<Need>,
}

/// A permission that the change turned out to need: the capability, and the object's id unless it is for the whole.
type Need = (Capability, Option<String>);

impl Change<'_, '_> {
    /// The one workspace that the change can reach.
    pub fn workspace(&self) -> WorkspaceId {
        self.home.id
    }

    /// The workspace, as it is in this transaction.
    pub fn home(&self) -> &Workspace {
        self.home
    }

    /// How much the workspace may have, as it is in this transaction.
    pub fn quotas(&self) -> Quotas {
        self.home.quotas
    }

    /// Whether the caller may do this to the object of that id. What is asked here is asked again of a repeat.
    pub fn may(&mut self, capability: Capability, id: impl std::fmt::Display) -> bool {
        let id = id.to_string();
        let may = allowing(self.caller, self.home, capability, Some(&id)).is_some();
        if may {
            self.needed.insert((capability, Some(id)));
        }
        may
    }

    /// Whether the caller may do this to every object, those to come included.
    pub fn may_all(&mut self, capability: Capability) -> bool {
        let may = allowing(self.caller, self.home, capability, None).is_some();
        if may {
            self.needed.insert((capability, None));
        }
        may
    }

    /// Demands the capability for that object; without it the answer is that of an object that isn't there.
    pub fn insist(
        &mut self,
        capability: Capability,
        id: impl std::fmt::Display,
        (kind, name): (Kind, &str),
    ) -> Result<(), Error> {
        if self.may(capability, id) { Ok(()) } else { Err(Error::not_found(kind, name)) }
    }

    /// Demands the capability for an object that the caller has not named and may not even know of: without it the
    /// answer is that of an object that isn't there, and does not name it.
    pub fn insist_unnamed(
        &mut self,
        capability: Capability,
        id: impl std::fmt::Display,
        kind: Kind,
    ) -> Result<(), Error> {
        self.insist_any(capability)?;
        self.insist(capability, id, (kind, "among those it holds"))
    }

    /// Demands the capability as such.
    pub fn insist_all(&mut self, capability: Capability) -> Result<(), Error> {
        if self.may_all(capability) { Ok(()) } else { Err(Error::PermissionMissing(capability)) }
    }

    /// Demands that the caller holds the capability for something at least, as for the method itself.
    pub fn insist_any(&self, capability: Capability) -> Result<(), Error> {
        if holds_any(self.caller, self.home, capability) { Ok(()) } else { Err(Error::PermissionMissing(capability)) }
    }

    /// Refuses to give anything a life that is over already.
    pub fn insist_ahead(&self, expiry: Expiry) -> Result<(), Error> {
        if expiry.has_passed(self.now) { Err(Error::field("expire_time", "must lie in the future")) } else { Ok(()) }
    }

    /// Logs something that happened on the way, before the change itself.
    pub fn record(&mut self, happening: Happening) -> Result<(), Stop> {
        self.log.record(self.tx, happening)
    }

    /// Logs what happened in another workspace, where it was the operator who did it.
    pub fn record_as_operator(&mut self, workspace: WorkspaceId, happening: Happening) -> Result<(), Stop> {
        self.log.record_as_operator(self.tx, workspace, happening)
    }
}

/// What a run of the body leaves for the caller.
struct Settled<T> {
    answer: T,
    /// Present where the call had been made before: the revision of the first answer.
    first: Option<Revision>,
    /// The permissions that allowed it.
    grants: BTreeSet<Grant>,
}

/// An answer, and whether it is that of an earlier call under the same idempotency key.
pub struct Changed<T> {
    /// The answer and its revision.
    pub done: Done<T>,
    /// Whether the change had been made before.
    pub repeated: bool,
}

/// What one transaction is tried with: drawn before it, so that it can run again.
#[derive(Clone)]
struct Attempt {
    workspace: WorkspaceId,
    root_key: RootKeyId,
    call: Arc<Call>,
    need: Option<Capability>,
    run: Run,
    now: Timestamp,
    first_event: EventId,
}

impl Ostiary {
    /// Whether this call is known to have been made before under its idempotency key. What it then was is told, and
    /// authorised, by the change that repeats it.
    pub(super) async fn is_remembered(&self, caller: &Caller) -> Result<bool, Error> {
        let Some(idempotency) = &caller.call.idempotency else { return Ok(false) };
        let key = (caller.workspace_id(), caller.root_key().id, idempotency.key);
        let reading = self.read(None).await?;
        let remembered = tables::REMEMBERED.read(reading.view(), &key).await?;
        let until =
            |remembered: storage::Remembered| Timestamp::from_millis_saturating(remembered.time).after(REMEMBERED_FOR);
        Ok(remembered.map(until).is_some_and(|until| reading.now < until))
    }

    /// Decides a change and makes it durable before answering.
    ///
    /// `decide` may run more than once and must only depend on the change that it is given and on what it owns.
    pub(super) async fn change<T, F>(&self, permit: Permit<'_>, run: Run, mut decide: F) -> Result<Changed<T>, Error>
    where
        T: Outcome + Send + 'static,
        F: FnMut(&mut Change<'_, '_>) -> Result<Effect<T>, Halt> + Send + 'static,
    {
        let Permit { caller, need } = permit;
        let now = self.world.now();
        let attempt = Attempt {
            workspace: caller.workspace_id(),
            root_key: caller.root_key().id,
            call: Arc::clone(&caller.call),
            need,
            run,
            now,
            first_event: EventId::from_bytes(self.world.ulids(EVENTS_MAX)),
        };
        let slot = Arc::new(Mutex::new(None));
        let body: Body = {
            let (slot, attempt) = (Arc::clone(&slot), attempt.clone());
            Box::new(move |tx| {
                let (result, decision) = match decided(tx, &attempt, &mut decide) {
                    Ok((settled, decision)) => (Ok(settled), decision),
                    Err(Halt::Refuse(error)) => (Err(error), Decision::Discard),
                    Err(Halt::Stop(stop)) => return Err(stop),
                };
                *slot.lock() = Some(result);
                Ok(decision)
            })
        };
        let revision = self.engine.transact(Priority::Interactive, body).await?;
        let settled =
            slot.lock().take().ok_or_else(|| Error::Internal("a transaction did not decide".to_owned()))??;
        for grant in &settled.grants {
            self.allowed_by((attempt.workspace, attempt.root_key), grant, now);
        }
        let Settled { answer, first, grants: _ } = settled;
        let repeated = first.is_some();
        Ok(Changed { done: Done { answer, revision: first.unwrap_or(revision) }, repeated })
    }
}

fn decided<T: Outcome>(
    tx: &mut Txn<'_>,
    attempt: &Attempt,
    decide: &mut impl FnMut(&mut Change<'_, '_>) -> Result<Effect<T>, Halt>,
) -> Result<(Settled<T>, Decision), Halt> {
    let Attempt { workspace, root_key, ref call, need, run, now, first_event } = *attempt;
    let caller = tables::ROOT_KEYS.get(tx, &(workspace, root_key))?;
    let home = tables::WORKSPACES.get(tx, &(workspace,))?;
    // The call may have been drawn before a change of its root key that was committed before it: a life that was ended
    // at that moment has ended for the call too.
    let now_at_least = caller.as_ref().map_or(now, |caller| now.max(caller.updated));
    recognise(caller.as_ref(), home.as_ref(), call.remote, now_at_least).map_err(Error::Unauthenticated)?;
    let (Some(caller), Some(home)) = (caller, home) else {
        return Err(Error::Internal("a caller was recognised that isn't there".to_owned()).into());
    };
    if let Some(capability) = need.filter(|capability| !holds_any(&caller, &home, *capability)) {
        return Err(Error::PermissionMissing(capability).into());
    }
    let idempotency = call.idempotency.as_ref().filter(|_| run == Run::Apply);
    if let Some(idempotency) = idempotency
        && let Some(settled) = repeated(tx, idempotency, (&caller, &home), now)?
    {
        return Ok((settled, Decision::Discard));
    }

    let signature = Signature::of_caller(&caller, call);
    let log = Log::open(workspace, signature, now, first_event);
    let mut change = Change { tx, caller: &caller, now, home: &home, log, needed: BTreeSet::new() };
    let effect = decide(&mut change)?;
    let Change { tx, mut log, needed, .. } = change;
    let (answer, mut decision) = match effect {
        Effect::Unchanged(answer) => (answer, Decision::Discard),
        Effect::Changed(answer, happening) => {
            log.record(tx, happening)?;
            (answer, Decision::Commit)
        }
    };
    let grants = needed
        .iter()
        .filter_map(|(capability, id)| allowing(&caller, &home, *capability, id.as_deref()).cloned())
        .collect();
    if let Some(idempotency) = idempotency {
        remember(tx, idempotency, (workspace, root_key), now, &needed, &answer)?;
        decision = Decision::Commit;
    }
    if run == Run::Rehearse {
        decision = Decision::Discard;
    }
    Ok((Settled { answer, first: None, grants }, decision))
}

/// The answer of the first call under this idempotency key, if there was one; authorised anew.
fn repeated<T: Outcome>(
    tx: &mut Txn<'_>,
    idempotency: &Idempotency,
    (caller, home): (&RootKey, &Workspace),
    now: Timestamp,
) -> Result<Option<Settled<T>>, Halt> {
    let key = (home.id, caller.id, idempotency.key);
    let Some(remembered) = tables::REMEMBERED.get(tx, &key)? else { return Ok(None) };
    let storage::Remembered { method, request, revision, time, needed, outcome } = remembered;
    if now >= Timestamp::from_millis_saturating(time).after(REMEMBERED_FOR) {
        return Ok(None);
    }
    if method != idempotency.method || request != idempotency.request {
        return Err(Error::IdempotencyKeyReused.into());
    }
    let mut grants = BTreeSet::new();
    for text in needed {
        // Written by `remember`: a capability's own grant, with the object's id in the middle.
        let (capability, id) =
            parse_need(&text).ok_or_else(|| Error::Internal(format!("a remembered need: {text}")))?;
        let grant = allowing(caller, home, capability, id).ok_or(Error::PermissionMissing(capability))?;
        grants.insert(grant.clone());
    }
    let answer = outcome
        .and_then(|outcome| T::from_outcome(outcome))
        .ok_or_else(|| Error::Internal("a remembered outcome is not of its method".to_owned()))?;
    let first = Revision { counter: revision, ..tx.revision() };
    Ok(Some(Settled { answer, first: Some(first), grants }))
}

fn remember<T: Outcome>(
    tx: &mut Txn<'_>,
    idempotency: &Idempotency,
    (workspace, root_key): (WorkspaceId, RootKeyId),
    now: Timestamp,
    needed: &BTreeSet<Need>,
    answer: &T,
) -> Result<(), Stop> {
    let remembered = storage::Remembered {
        method: idempotency.method.clone(),
        request: idempotency.request.to_vec(),
        revision: tx.revision().counter,
        time: now.millis(),
        needed: needed.iter().map(print_need).collect(),
        outcome: Some(answer.to_outcome()),
    };
    tables::REMEMBERED.put(tx, &(workspace, root_key, idempotency.key), &remembered)?;
    tables::FORGETTABLE.put(tx, &(now.after(REMEMBERED_FOR), workspace, root_key, idempotency.key), &())
}

fn print_need((capability, id): &Need) -> String {
    format!("{}.{}.{}", capability.resource().name(), id.as_deref().unwrap_or("*"), capability.action())
}

fn parse_need(text: &str) -> Option<(Capability, Option<&str>)> {
    let mut segments = text.splitn(3, '.');
    let (resource, id, action) = (segments.next()?, segments.next()?, segments.next()?);
    let capability = Capability::ALL
        .iter()
        .copied()
        .find(|capability| capability.resource().name() == resource && capability.action() == action)?;
    Some((capability, (id != "*").then_some(id)))
}
