//! What happened: the events of the audit log, and the chain that makes a missing or altered one show.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::id::{EventId, RootKeyId, WorkspaceId};
use super::kind::Kind;
use super::time::Timestamp;
use super::value::Facts;

/// The events, as they are named in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventName(&'static str);

macro_rules! events {
    ($($constant:ident $name:literal,)*) => {
        impl EventName {
            $(#[doc = concat!("`", $name, "`")] pub const $constant: Self = Self($name);)*
            /// Every event that can be written.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];
        }
    };
}

events! {
    WORKSPACE_CREATE "workspace.create",
    WORKSPACE_UPDATE "workspace.update",
    WORKSPACE_DELETE "workspace.delete",
    ROOT_KEY_CREATE "root_key.create",
    ROOT_KEY_UPDATE "root_key.update",
    ROOT_KEY_DELETE "root_key.delete",
    ROOT_KEY_ROTATE "root_key.rotate",
    ROOT_KEY_EXPIRE "root_key.expire",
    API_CREATE "api.create",
    API_UPDATE "api.update",
    API_DELETE "api.delete",
    KEY_CREATE "key.create",
    KEY_UPDATE "key.update",
    KEY_DELETE "key.delete",
    KEY_UNDELETE "key.undelete",
    KEY_EXPIRE "key.expire",
    KEY_REROLL "key.reroll",
    KEY_IMPORT "key.import",
    KEY_ADJUST_CREDITS "key.adjust_credits",
    KEYS_REVOKE "keys.revoke",
    ROLE_CREATE "role.create",
    ROLE_UPDATE "role.update",
    ROLE_DELETE "role.delete",
    PERMISSION_CREATE "permission.create",
    PERMISSION_UPDATE "permission.update",
    PERMISSION_DELETE "permission.delete",
    IDENTITY_CREATE "identity.create",
    IDENTITY_UPDATE "identity.update",
    IDENTITY_DELETE "identity.delete",
    NAMESPACE_CREATE "namespace.create",
    NAMESPACE_UPDATE "namespace.update",
    NAMESPACE_DELETE "namespace.delete",
    NAMESPACE_RESET_IDENTIFIER "namespace.reset_identifier",
    OVERRIDE_SET "override.set",
    OVERRIDE_DELETE "override.delete",
    STORE_BACKUP "store.backup",
    STORE_RESTORE "store.restore",
    ROOT_KEY_RECOVER "root_key.recover",
}

impl EventName {
    /// The name as text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Finds the event of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|event| event.0 == text)
    }
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A caller.
    RootKey {
        /// Its id.
        id: RootKeyId,
        /// Its name at the time.
        name: String,
    },
    /// ostiary itself, because the time had come.
    System,
    /// Whoever starts the process.
    Operator,
}

/// What it was done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What kind of thing.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Its name at the time.
    pub name: String,
}

impl Target {
    /// A thing by kind, id and name.
    pub fn new(kind: Kind, id: impl std::fmt::Display, name: impl std::fmt::Display) -> Self {
        Self { kind, id: id.to_string(), name: name.to_string() }
    }
}

/// What happened, before it is known when and as which entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// The event.
    pub event: EventName,
    /// What it was done to; the object itself comes first.
    pub targets: Vec<Target>,
    /// What was so before, of what changed.
    pub before: Option<Facts>,
    /// What is so now, of what changed.
    pub after: Option<Facts>,
}

impl Happening {
    /// Something was made.
    pub fn made(event: EventName, target: Target, after: Facts) -> Self {
        Self { event, targets: vec![target], before: None, after: Some(after) }
    }

    /// Something was changed: only what differs is recorded.
    pub fn changed(event: EventName, target: Target, mut before: Facts, mut after: Facts) -> Self {
        before.retain(|name, was| match after.get(name) {
            Some(is) if is == was => {
                after.remove(name);
                false
            }
            Some(_) | None => true,
        });
        Self { event, targets: vec![target], before: Some(before), after: Some(after) }
    }

    /// Something was removed.
    pub fn removed(event: EventName, target: Target, before: Facts) -> Self {
        Self { event, targets: vec![target], before: Some(before), after: None }
    }

    /// The same, with another thing that it concerned.
    #[must_use]
    pub fn concerning(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Where it happened.
    pub workspace: WorkspaceId,
    /// The commit that it is part of; with `position`, its place in the log.
    pub revision: u64,
    /// Its place among the events of that commit.
    pub position: u16,
    /// When.
    pub time: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    pub happening: Happening,
    /// From where.
    pub remote: Option<IpAddr>,
    /// With what, in the caller's own words.
    pub user_agent: String,
    /// In which call.
    pub request_id: String,
    /// The head of the chain after this event.
    pub hash: ChainHash,
}

/// The head of a chain of events: the digest of the head before it and of the event's own digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// The head of an empty chain.
    pub const START: Self = Self([0; 32]);

    /// The head after one more event, of which `payload` is everything that is stored but the hash itself.
    ///
    /// It covers the payload's digest rather than the payload, so that personal data in an event can be erased one
    /// day while its digest keeps the chain whole.
    #[must_use]
    pub fn extend(self, payload: &[u8]) -> Self {
        let digest = Sha256::digest(payload);
        Self(Sha256::new().chain_update(self.0).chain_update(digest).finalize().into())
    }
}

impl std::fmt::Display for ChainHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
