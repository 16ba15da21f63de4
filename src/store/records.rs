//! How each stored thing becomes the bytes of its row, and back.
//!
//! Encoding destructures the domain's structs, so a new field does not compile until it is stored. Decoding goes
//! through the constructors that check input, so a bad row is an error and never a strange key.

use prost::Message;

use crate::domain::api::Api;
use crate::domain::audit::{ChainHash, Event};
use crate::domain::capability::Grant;
use crate::domain::credits::Meter;
use crate::domain::id::{
    ApiId, IdentityId, KeyId, NamespaceId, OverrideId, PermissionId, RoleId, RootKeyId, WorkspaceId,
};
use crate::domain::identity::Identity;
use crate::domain::key::Key;
use crate::domain::namespace::{Namespace, Override};
use crate::domain::network::AllowList;
use crate::domain::permission::{Permission, Slug};
use crate::domain::role::{Held, Role};
use crate::domain::root_key::RootKey;
use crate::domain::secret::Digest;
use crate::domain::time::Timestamp;
use crate::domain::workspace::Workspace;
use crate::pb::storage;

mod apis;
mod audit;
mod identities;
mod keys;
mod limits;
mod meters;
mod namespaces;
mod permissions;
mod roles;
mod root_keys;
mod workspaces;

pub use audit::event_payload;
pub use keys::LastUses;
pub use limits::{SavedWindow, SavedWindows, span_millis};
pub use meters::{credits_message, to_credits};
pub use workspaces::{cut_message, to_cut};

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
key_records!(
    WorkspaceId,
    KeyId,
    RoleId,
    PermissionId,
    IdentityId,
    NamespaceId,
    OverrideId,
    (WorkspaceId, RootKeyId),
    (u64, u16)
);

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
    Identity, (WorkspaceId, IdentityId);
    Meter, (WorkspaceId, KeyId);
    Namespace, (WorkspaceId, NamespaceId);
    Override, (WorkspaceId, NamespaceId, OverrideId);
    SavedWindows, (u64, u16);
    LastUses, (u16,);
}
