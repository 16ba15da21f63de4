//! The record of everything: writing it with each change, and reading it.

use crate::domain::audit::{Actor, ChainHash, Event, Happening};
use crate::domain::capability::Capability;
use crate::domain::id::{EventId, WorkspaceId};
use crate::domain::root_key::RootKey;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::records::{ChainHead, event_payload};
use crate::store::{Stop, Txn, tables};

use super::caller::{Call, Caller};
use super::housekeeping::Drawn;
use super::listing::{Page, PageRequest};
use super::{Done, Ostiary, Revision};

pub mod following;

/// Events that one transaction can leave: as many ids are drawn before it.
pub const EVENTS_MAX: u32 = 1 << 16;

/// Who and where from, as every event of one change says it.
#[derive(Debug, Clone)]
pub struct Signature {
    actor: Actor,
    call: Call,
}

impl Signature {
    /// A caller's.
    pub fn of_caller(root_key: &RootKey, call: &Call) -> Self {
        Self { actor: Actor::RootKey { id: root_key.id, name: root_key.name.to_string() }, call: call.clone() }
    }

    /// ostiary's own, for what the passing of time does.
    pub fn of_system() -> Self {
        Self { actor: Actor::System, call: Call::default() }
    }

    /// That of whoever starts the process.
    pub fn of_operator() -> Self {
        Self { actor: Actor::Operator, call: Call::default() }
    }
}

/// The log, open for the events of one transaction.
#[derive(Debug)]
pub struct Log {
    workspace: WorkspaceId,
    signature: Signature,
    now: Timestamp,
    first: EventId,
    position: u16,
}

impl Log {
    /// Opens it. The ids of the events count up from `first`, which was drawn before the transaction.
    pub fn open(workspace: WorkspaceId, signature: Signature, now: Timestamp, first: EventId) -> Self {
        Self { workspace, signature, now, first, position: 0 }
    }

    /// Opens it again in a transaction of the house that has written `number` events already.
    pub fn resume(workspace: WorkspaceId, signature: Signature, drawn: Drawn, number: u16) -> Self {
        Self { position: number, ..Self::open(workspace, signature, drawn.now, drawn.first_event) }
    }

    /// Adds an event.
    pub fn record(&mut self, tx: &mut Txn<'_>, happening: Happening) -> Result<(), Stop> {
        let actor = self.signature.actor.clone();
        self.append(tx, self.workspace, actor, happening)
    }

    /// Adds an event to the log of another workspace, where it was the operator who did it.
    pub fn record_as_operator(
        &mut self,
        tx: &mut Txn<'_>,
        workspace: WorkspaceId,
        happening: Happening,
    ) -> Result<(), Stop> {
        self.append(tx, workspace, Actor::Operator, happening)
    }

    fn append(
        &mut self,
        tx: &mut Txn<'_>,
        workspace: WorkspaceId,
        actor: Actor,
        happening: Happening,
    ) -> Result<(), Stop> {
        let head = tables::AUDIT_CHAIN.get(tx, &())?.unwrap_or(ChainHead { length: 0, hash: ChainHash::START });
        let revision = tx.revision().counter;
        let mut event = Event {
            id: nth(self.first, self.position),
            workspace,
            revision,
            position: self.position,
            time: self.now,
            actor,
            happening,
            remote: self.signature.call.remote,
            user_agent: self.signature.call.user_agent.clone(),
            request_id: self.signature.call.request_id.clone(),
            hash: head.hash,
        };
        event.hash = head.hash.extend(&event_payload(&event));
        tables::AUDIT.put(tx, &(workspace, revision, self.position), &event)?;
        tables::AUDIT_CHAIN.put(tx, &(), &ChainHead { length: head.length + 1, hash: event.hash })?;
        self.position += 1;
        Ok(())
    }
}

/// The id that lies so many after the first.
fn nth(first: EventId, position: u16) -> EventId {
    EventId::from_bytes(u128::from_be_bytes(first.bytes()).wrapping_add(u128::from(position)).to_be_bytes())
}

/// Which events to show. Everything that is set must agree.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Done by the root key of this id.
    pub actor: Option<String>,
    /// Of this name.
    pub event: Option<String>,
    /// Done to the thing of this id.
    pub target: Option<String>,
    /// At this moment or later.
    pub after: Option<Timestamp>,
    /// Before this moment.
    pub before: Option<Timestamp>,
}

impl EventFilter {
    fn admits(&self, event: &Event) -> bool {
        let Self { actor, event: name, target, after, before } = self;
        let is_actor = |wanted: &String| match &event.actor {
            Actor::RootKey { id, name: _ } => id.to_string() == *wanted,
            Actor::System | Actor::Operator => false,
        };
        actor.as_ref().is_none_or(is_actor)
            && name.as_ref().is_none_or(|wanted| event.happening.event.as_str() == wanted)
            && target.as_ref().is_none_or(|wanted| event.happening.targets.iter().any(|target| target.id == *wanted))
            && after.is_none_or(|after| event.time >= after)
            && before.is_none_or(|before| event.time < before)
    }
}

impl Ostiary {
    /// The events of the caller's workspace, in the order in which they were committed.
    pub async fn list_audit_events(
        &self,
        caller: &Caller,
        filter: EventFilter,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<Event>>, Error> {
        let permit = caller.permit(Capability::ReadAuditLog)?;
        let grant = caller.allowing_whole(Capability::ReadAuditLog);
        let grant = grant.ok_or(Error::PermissionMissing(Capability::ReadAuditLog))?;
        let reading = self.read(min_revision).await?;
        self.allowed_by((caller.workspace_id(), permit.caller.root_key().id), grant, reading.now);
        let mut walk = self.walk(&tables::AUDIT, (caller.workspace_id(),), &page)?;
        let mut events = Vec::new();
        while let Some((_, event)) = walk.next(&reading).await? {
            if filter.admits(&event) {
                let bytes = event_payload(&event).len();
                events.push(event);
                if walk.took(bytes) {
                    break;
                }
            }
        }
        Ok(reading.done(walk.page(&reading, events).await?))
    }
}
