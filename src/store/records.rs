//! How each stored thing becomes the bytes of its row, and back.
//!
//! Encoding destructures the domain's structs, so a new field does not compile until it is stored. Decoding goes
//! through the constructors that check input, so a bad row is an error and never a strange key.

use std::time::Duration;

use prost::Message;

use crate::domain::api::Api;
use crate::domain::audit::{Actor, ChainHash, Event, EventName, Happening, Target};
use crate::domain::capability::{Grant, Grants};
use crate::domain::etag::Etag;
use crate::domain::id::{ApiId, EventId, KeyId, PermissionId, RoleId, RootKeyId, WorkspaceId};
use crate::domain::key::{Key, Presence};
use crate::domain::kind::Kind;
use crate::domain::name::{
    API_NAME, DESCRIPTION, Description, KEY_NAME, Name, PERMISSION_NAME, ROLE_NAME, ROOT_KEY_NAME, WORKSPACE_NAME,
};
use crate::domain::network::AllowList;
use crate::domain::permission::{Permission, Slug};
use crate::domain::role::{Held, Role};
use crate::domain::root_key::RootKey;
use crate::domain::secret::{Digest, Prefix};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::value::Metadata;
use crate::domain::workspace::{Purpose, Workspace};
use crate::pb::{self, storage};

/// Something that can be the value of a row whose key is `K`.
pub trait Record<K>: Sized {
    /// Its bytes; what the key says is not said again.
    fn encode(&self) -> Vec<u8>;
    /// What the bytes under this key stand for; none if nothing right.
    fn decode(key: &K, bytes: &[u8]) -> Option<Self>;
}

/// The head of the chain through all audit events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// How many events it has.
    pub length: u64,
    /// What it ends in.
    pub hash: ChainHash,
}

/// How a root key has been used.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// When last.
    pub last: Option<Timestamp>,
    /// How often each of its permissions was what allowed a call.
    pub grants: Vec<GrantUsage>,
}

/// How often a permission of a root key was what allowed a call.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantUsage {
    /// Which.
    pub grant: Grant,
    /// How often.
    pub count: u64,
    /// When last.
    pub last: Timestamp,
}

fn millis(moment: Timestamp) -> u64 {
    moment.millis()
}

fn moment(millis: u64) -> Option<Timestamp> {
    Timestamp::from_millis(millis).ok()
}

/// An absent moment stays absent; one that can't be is an error.
fn optional_moment(millis: Option<u64>) -> Option<Option<Timestamp>> {
    millis.map_or(Some(None), |millis| moment(millis).map(Some))
}

/// The 16 bytes of an id, as the type of id that the place calls for.
fn id<T>(bytes: &[u8], make: fn([u8; 16]) -> T) -> Option<T> {
    bytes.try_into().ok().map(make)
}

fn optional_id<T>(bytes: Option<&[u8]>, make: fn([u8; 16]) -> T) -> Option<Option<T>> {
    bytes.map_or(Some(None), |bytes| id(bytes, make).map(Some))
}

fn digest(bytes: &[u8]) -> Option<Digest> {
    bytes.try_into().ok().map(Digest::from_bytes)
}

fn networks(allowed: &AllowList) -> Vec<String> {
    allowed.iter().map(|network| network.to_string()).collect()
}

fn allow_list(networks: &[String]) -> Option<AllowList> {
    AllowList::parse(networks.iter().map(String::as_str)).ok()
}

fn held(permissions: &[Held]) -> Vec<storage::Held> {
    permissions
        .iter()
        .map(|Held { id, slug }| storage::Held { id: id.bytes().to_vec(), slug: slug.to_string() })
        .collect()
}

fn to_held(permissions: &[storage::Held]) -> Option<Vec<Held>> {
    permissions
        .iter()
        .map(|storage::Held { id: bytes, slug }| {
            Some(Held { id: id(bytes, PermissionId::from_bytes)?, slug: Slug::new(slug).ok()? })
        })
        .collect()
}

impl<K> Record<K> for () {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
    fn decode(_: &K, bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

impl<K> Record<K> for u64 {
    fn encode(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn decode(_: &K, bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl<K, const N: usize> Record<K> for [u8; N] {
    fn encode(&self) -> Vec<u8> {
        self.to_vec()
    }
    fn decode(_: &K, bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

/// Records that are nothing but the parts of another row's key.
macro_rules! key_records {
    ($($record:ty),*) => {$(
        impl<K> Record<K> for $record {
            fn encode(&self) -> Vec<u8> {
                let mut bytes = Vec::new();
                super::tables::Part::write(self, &mut bytes);
                bytes
            }
            fn decode(_: &K, mut bytes: &[u8]) -> Option<Self> {
                super::tables::Part::read(&mut bytes).filter(|_| bytes.is_empty())
            }
        }
    )*};
}
key_records!(WorkspaceId, KeyId, RoleId, PermissionId, (WorkspaceId, RootKeyId), (u64, u16));

impl<K> Record<K> for storage::Remembered {
    fn encode(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
    fn decode(_: &K, bytes: &[u8]) -> Option<Self> {
        <Self as Message>::decode(bytes).ok()
    }
}

/// What a thing is on disk, apart from what its row's key says: the message, and back.
pub trait Stored<K>: Sized {
    /// The message that holds it.
    type Message: Message + Default;
    /// As a message.
    fn to_message(&self) -> Self::Message;
    /// From a message under this key.
    fn from_message(key: &K, message: Self::Message) -> Option<Self>;
}

macro_rules! message_records {
    ($($record:ty, $key:ty;)*) => {$(
        impl Record<$key> for $record {
            fn encode(&self) -> Vec<u8> {
                self.to_message().encode_to_vec()
            }
            fn decode(key: &$key, bytes: &[u8]) -> Option<Self> {
                Self::from_message(key, Message::decode(bytes).ok()?)
            }
        }
    )*};
}
message_records! {
    Workspace, (WorkspaceId,);
    RootKey, (WorkspaceId, RootKeyId);
    Api, (WorkspaceId, ApiId);
    Key, (WorkspaceId, KeyId);
    Role, (WorkspaceId, RoleId);
    Permission, (WorkspaceId, PermissionId);
    Usage, (WorkspaceId, RootKeyId);
    Event, (WorkspaceId, u64, u16);
    ChainHead, ();
}

impl Stored<(WorkspaceId,)> for Workspace {
    type Message = storage::Workspace;

    fn to_message(&self) -> storage::Workspace {
        let Self { id: _, name, purpose, enabled, created, updated, etag, deleted } = self;
        storage::Workspace {
            name: name.to_string(),
            operator: *purpose == Purpose::Operator,
            enabled: *enabled,
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
        }
    }

    fn from_message(key: &(WorkspaceId,), message: storage::Workspace) -> Option<Self> {
        let storage::Workspace { name, operator, enabled, created, updated, etag, deleted } = message;
        Some(Self {
            id: key.0,
            name: Name::new(&name, WORKSPACE_NAME).ok()?,
            purpose: if operator { Purpose::Operator } else { Purpose::Tenant },
            enabled,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}

impl Stored<(WorkspaceId, RootKeyId)> for RootKey {
    type Message = storage::RootKey;

    fn to_message(&self) -> storage::RootKey {
        let Self {
            id: _,
            workspace: _,
            name,
            grants,
            digest,
            start,
            enabled,
            expiry,
            allowed,
            rotated_from,
            rotated_to,
            created_by,
            created,
            updated,
            etag,
            deleted,
        } = self;
        let id = |id: &RootKeyId| id.bytes().to_vec();
        storage::RootKey {
            name: name.to_string(),
            grants: grants.iter().map(ToString::to_string).collect(),
            digest: digest.bytes().to_vec(),
            start: start.clone(),
            enabled: *enabled,
            expires: expiry.moment().map(millis),
            allowed: networks(allowed),
            rotated_from: rotated_from.as_ref().map(id),
            rotated_to: rotated_to.as_ref().map(id),
            created_by: created_by.as_ref().map(id),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
        }
    }

    fn from_message(&(workspace, id): &(WorkspaceId, RootKeyId), message: storage::RootKey) -> Option<Self> {
        let storage::RootKey {
            name,
            grants,
            digest: digest_bytes,
            start,
            enabled,
            expires,
            allowed,
            rotated_from,
            rotated_to,
            created_by,
            created,
            updated,
            etag,
            deleted,
        } = message;
        let root_key = |bytes: Option<Vec<u8>>| optional_id(bytes.as_deref(), RootKeyId::from_bytes);
        Some(Self {
            id,
            workspace,
            name: Name::new(&name, ROOT_KEY_NAME).ok()?,
            grants: to_grants(&grants)?,
            digest: digest(&digest_bytes)?,
            start,
            enabled,
            expiry: optional_moment(expires)?.into(),
            allowed: allow_list(&allowed)?,
            rotated_from: root_key(rotated_from)?,
            rotated_to: root_key(rotated_to)?,
            created_by: root_key(created_by)?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}

fn to_grants(texts: &[String]) -> Option<Grants> {
    let grants: Option<Vec<Grant>> = texts.iter().map(|text| Grant::parse(text).ok()).collect();
    Grants::collect(grants?).ok()
}

impl Stored<(WorkspaceId, ApiId)> for Api {
    type Message = storage::Api;

    fn to_message(&self) -> storage::Api {
        let Self {
            id: _,
            workspace: _,
            name,
            default_prefix,
            default_ttl,
            delete_protection,
            allowed,
            created,
            updated,
            etag,
            deleted,
        } = self;
        storage::Api {
            name: name.to_string(),
            default_prefix: default_prefix.as_ref().map(ToString::to_string),
            default_ttl: default_ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            delete_protection: *delete_protection,
            allowed: networks(allowed),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
        }
    }

    fn from_message(&(workspace, id): &(WorkspaceId, ApiId), message: storage::Api) -> Option<Self> {
        let storage::Api {
            name,
            default_prefix,
            default_ttl,
            delete_protection,
            allowed,
            created,
            updated,
            etag,
            deleted,
        } = message;
        Some(Self {
            id,
            workspace,
            name: Name::new(&name, API_NAME).ok()?,
            default_prefix: default_prefix.map(|prefix| Prefix::new(&prefix)).transpose().ok()?,
            default_ttl: default_ttl.map(Duration::from_millis),
            delete_protection,
            allowed: allow_list(&allowed)?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}

impl Stored<(WorkspaceId, KeyId)> for Key {
    type Message = storage::Key;

    fn to_message(&self) -> storage::Key {
        let Self {
            id: _,
            workspace: _,
            api,
            name,
            prefix,
            start,
            digest,
            metadata,
            roles,
            permissions,
            enabled,
            expiry,
            allowed,
            created_by,
            created,
            updated,
            etag,
            presence,
        } = self;
        storage::Key {
            api: api.bytes().to_vec(),
            name: name.to_string(),
            prefix: prefix.to_string(),
            start: start.clone(),
            digest: digest.bytes().to_vec(),
            metadata: (!metadata.facts().is_empty()).then(|| pb::from_facts(metadata.facts())),
            roles: roles.iter().map(|role| role.bytes().to_vec()).collect(),
            permissions: held(permissions),
            enabled: *enabled,
            expires: expiry.moment().map(millis),
            allowed: networks(allowed),
            created_by: created_by.bytes().to_vec(),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            absence: match presence {
                Presence::Here => None,
                Presence::Deleted(at) => Some(storage::key::Absence::Deleted(millis(*at))),
                Presence::Gone(at) => Some(storage::key::Absence::Gone(millis(*at))),
            },
        }
    }

    fn from_message(&(workspace, key): &(WorkspaceId, KeyId), message: storage::Key) -> Option<Self> {
        let storage::Key {
            api,
            name,
            prefix,
            start,
            digest: digest_bytes,
            metadata,
            roles,
            permissions,
            enabled,
            expires,
            allowed,
            created_by,
            created,
            updated,
            etag,
            absence,
        } = message;
        Some(Self {
            id: key,
            workspace,
            api: id(&api, ApiId::from_bytes)?,
            name: Name::new(&name, KEY_NAME).ok()?,
            prefix: Prefix::new(&prefix).ok()?,
            start,
            digest: digest(&digest_bytes)?,
            metadata: Metadata::new(metadata.map(pb::to_facts).unwrap_or_default()).ok()?,
            roles: roles.iter().map(|role| id(role, RoleId::from_bytes)).collect::<Option<_>>()?,
            permissions: to_held(&permissions)?,
            enabled,
            expiry: Expiry::from(optional_moment(expires)?),
            allowed: allow_list(&allowed)?,
            created_by: id(&created_by, RootKeyId::from_bytes)?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            presence: match absence {
                None => Presence::Here,
                Some(storage::key::Absence::Deleted(at)) => Presence::Deleted(moment(at)?),
                Some(storage::key::Absence::Gone(at)) => Presence::Gone(moment(at)?),
            },
        })
    }
}

impl Stored<(WorkspaceId, RoleId)> for Role {
    type Message = storage::Role;

    fn to_message(&self) -> storage::Role {
        let Self { id: _, workspace: _, name, description, permissions, created, updated, etag, deleted } = self;
        storage::Role {
            name: name.to_string(),
            description: description.to_string(),
            permissions: held(permissions),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
        }
    }

    fn from_message(&(workspace, id): &(WorkspaceId, RoleId), message: storage::Role) -> Option<Self> {
        let storage::Role { name, description, permissions, created, updated, etag, deleted } = message;
        Some(Self {
            id,
            workspace,
            name: Name::new(&name, ROLE_NAME).ok()?,
            description: Description::new(&description, DESCRIPTION).ok()?,
            permissions: to_held(&permissions)?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}

impl Stored<(WorkspaceId, PermissionId)> for Permission {
    type Message = storage::Permission;

    fn to_message(&self) -> storage::Permission {
        let Self { id: _, workspace: _, slug, name, description, created, updated, etag, deleted } = self;
        storage::Permission {
            slug: slug.to_string(),
            name: name.to_string(),
            description: description.to_string(),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
        }
    }

    fn from_message(&(workspace, id): &(WorkspaceId, PermissionId), message: storage::Permission) -> Option<Self> {
        let storage::Permission { slug, name, description, created, updated, etag, deleted } = message;
        Some(Self {
            id,
            workspace,
            slug: Slug::new(&slug).ok()?,
            name: Name::new(&name, PERMISSION_NAME).ok()?,
            description: Description::new(&description, DESCRIPTION).ok()?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}

impl Stored<(WorkspaceId, RootKeyId)> for Usage {
    type Message = storage::Usage;

    fn to_message(&self) -> storage::Usage {
        let Self { last, grants } = self;
        let grants = grants.iter().map(|GrantUsage { grant, count, last }| storage::GrantUsage {
            grant: grant.to_string(),
            count: *count,
            last: millis(*last),
        });
        storage::Usage { last: last.map_or(0, millis), grants: grants.collect() }
    }

    fn from_message(_: &(WorkspaceId, RootKeyId), message: storage::Usage) -> Option<Self> {
        let storage::Usage { last, grants } = message;
        let grants = grants.into_iter().map(|storage::GrantUsage { grant, count, last }| {
            Some(GrantUsage { grant: Grant::parse(&grant).ok()?, count, last: moment(last)? })
        });
        Some(Self { last: if last == 0 { None } else { Some(moment(last)?) }, grants: grants.collect::<Option<_>>()? })
    }
}

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
    super::tables::Part::write(&(event.workspace, event.revision, event.position), &mut bytes);
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
