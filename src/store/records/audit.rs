//! The audit log on disk.

use prost::Message;

use crate::domain::audit::{Actor, ChainHash, Event, EventName, Happening, Target};
use crate::domain::id::{EventId, RootKeyId, WorkspaceId};
use crate::domain::kind::Kind;
use crate::pb::{self, storage};

use super::{ChainHead, Stored, id, millis, moment};

impl Stored<()> for ChainHead {
    type Message = storage::ChainHead;

    fn to_message(&self) -> storage::ChainHead {
        let Self { length, hash } = self;
        storage::ChainHead { length: *length, hash: hash.0.to_vec() }
    }

    fn from_message((): &(), message: storage::ChainHead) -> Option<Self> {
        let storage::ChainHead { length, hash } = message;
        Some(Self { length, hash: ChainHash(hash.try_into().ok()?) })
    }
}

/// The bytes of an event that its hash covers: all but the hash, and the row's key.
pub fn event_payload(event: &Event) -> Vec<u8> {
    let message = storage::Event { hash: Vec::new(), ..event.to_message() };
    let mut bytes = message.encode_to_vec();
    crate::store::tables::Part::write(&(event.workspace, event.revision, event.position), &mut bytes);
    bytes
}

impl Stored<(WorkspaceId, u64, u16)> for Event {
    type Message = storage::Event;

    fn to_message(&self) -> storage::Event {
        let Self {
            id,
            workspace: _,
            revision: _,
            position: _,
            time,
            actor,
            happening: Happening { event, targets, before, after },
            remote,
            user_agent,
            request_id,
            hash,
        } = self;
        storage::Event {
            id: id.bytes().to_vec(),
            time: millis(*time),
            event: event.as_str().to_owned(),
            actor: Some(match actor {
                Actor::RootKey { id, name } => storage::event::Actor::RootKey(storage::RootKeyActor {
                    id: id.bytes().to_vec(),
                    name: name.clone(),
                }),
                Actor::System => storage::event::Actor::System(true),
                Actor::Operator => storage::event::Actor::Operator(true),
            }),
            targets: targets
                .iter()
                .map(|Target { kind, id, name }| storage::Target {
                    kind: kind.snake().to_owned(),
                    id: id.clone(),
                    name: name.clone(),
                })
                .collect(),
            before: before.as_ref().map(pb::from_facts),
            after: after.as_ref().map(pb::from_facts),
            remote: remote.map(|address| address.to_string()).unwrap_or_default(),
            user_agent: user_agent.clone(),
            request_id: request_id.clone(),
            hash: hash.0.to_vec(),
        }
    }

    fn from_message(key: &(WorkspaceId, u64, u16), message: storage::Event) -> Option<Self> {
        let &(workspace, revision, position) = key;
        let storage::Event {
            id: event_id,
            time,
            event,
            actor,
            targets,
            before,
            after,
            remote,
            user_agent,
            request_id,
            hash,
        } = message;
        let targets = targets
            .into_iter()
            .map(|storage::Target { kind, id, name }| Some(Target { kind: Kind::parse(&kind)?, id, name }));
        Some(Self {
            id: id(&event_id, EventId::from_bytes)?,
            workspace,
            revision,
            position,
            time: moment(time)?,
            actor: match actor? {
                storage::event::Actor::RootKey(storage::RootKeyActor { id: bytes, name }) => {
                    Actor::RootKey { id: id(&bytes, RootKeyId::from_bytes)?, name }
                }
                storage::event::Actor::System(_) => Actor::System,
                storage::event::Actor::Operator(_) => Actor::Operator,
            },
            happening: Happening {
                event: EventName::parse(&event)?,
                targets: targets.collect::<Option<_>>()?,
                before: before.map(pb::to_facts),
                after: after.map(pb::to_facts),
            },
            remote: if remote.is_empty() { None } else { Some(remote.parse().ok()?) },
            user_agent,
            request_id,
            hash: ChainHash(hash.try_into().ok()?),
        })
    }
}
