//! Everything that is stored, on one page; and how a typed row becomes bytes.
//!
//! A row's key is its table's tag, then a fixed-width big-endian tuple; a text in a key comes last. Its value is a
//! checksum over key and value, then a message of `ostiary.storage.v1` or a plain number. A tag once given is never
//! used for something else. Tag 0 belongs to the engine.
//!
//! The rows of new keys arrive in order, or in order for each role and identity: a key is found by the start of its id,
//! which its secret has in it. Only importing one touches a randomly ordered table, [`KEY_DIGESTS`].

use std::marker::PhantomData;
use std::ops::Range;

use bytes::BufMut;

use crate::domain::api::Api;
use crate::domain::audit::Event;
use crate::domain::credits::Meter;
use crate::domain::id::{
    ApiId, IdentityId, KeyId, NamespaceId, OverrideId, PermissionId, RoleId, RootKeyId, WorkspaceId,
};
use crate::domain::identity::Identity;
use crate::domain::key::Key;
use crate::domain::namespace::{Namespace, Override};
use crate::domain::permission::Permission;
use crate::domain::role::Role;
use crate::domain::root_key::RootKey;
use crate::domain::time::Timestamp;
use crate::domain::workspace::Workspace;
use crate::pb::storage::Remembered;

use super::cache::Place;
use super::marks::{Marks, Spot};
use super::records::{ChainHead, LastUses, Record, SavedWindows, Usage};
use super::{Failure, Row, Stop, Txn, View};

mod parts;
mod sealing;

pub use parts::Part;

use sealing::{seal, unseal};

/// A table: rows of `R` by keys `K`.
pub struct Table<K, R> {
    tag: u8,
    name: &'static str,
    of: PhantomData<fn(K) -> R>,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $constant:ident = $tag:literal, $name:literal, $key:ty => $record:ty;)*) => {
        $($(#[$doc])* pub static $constant: Table<$key, $record> = Table { tag: $tag, name: $name, of: PhantomData };)*
        /// The names of all tables by their tags.
        pub const NAMES: &[(u8, &str)] = &[$(($tag, $name)),*];

        /// Whether these are a row of some table, as it was written.
        ///
        /// # Errors
        /// [`Failure::Corrupt`] with the name of the table.
        pub fn examine(key: &[u8], value: &[u8]) -> Result<(), Failure> {
            match key.first() {
                $(Some(&$tag) => $constant.examine(key, value),)*
                Some(_) | None => Err(Failure::Corrupt("a row of no table".to_owned())),
            }
        }
    };
}

tables! {
    /// The highest instant that has been shown, saved each minute. Kept by the sweep.
    CLOCK = 0x01, "clock", () => u64;
    /// The key that authenticates page tokens. Made with the store.
    PAGE_KEY = 0x02, "page_key", () => [u8; 32];
    /// Which workspace is the operator's. Made with the store.
    OPERATOR = 0x03, "operator", () => WorkspaceId;
    /// Up to when the clock was trusted, while it is far ahead of that. Kept by the sweep.
    CLOCK_DOUBT = 0x04, "clock_doubt", () => u64;

    /// Tenants. Kept by `service/workspaces.rs`.
    WORKSPACES = 0x10, "workspaces", (WorkspaceId,) => Workspace;
    /// How many there are of something. Kept by whoever keeps the thing.
    COUNTS = 0x11, "counts", (WorkspaceId, Counted, [u8; 16]) => u64;

    /// Root keys. Kept by `service/root_keys.rs`.
    ROOT_KEYS = 0x20, "root_keys", (WorkspaceId, RootKeyId) => RootKey;
    /// Root keys by what they hash to.
    ROOT_KEY_DIGESTS = 0x21, "root_key_digests", ([u8; 32],) => (WorkspaceId, RootKeyId);
    /// How root keys and their permissions have been used. Kept by `service/usage.rs`.
    ROOT_KEY_USAGE = 0x22, "root_key_usage", (WorkspaceId, RootKeyId) => Usage;

    /// APIs. Kept by `service/apis.rs`.
    APIS = 0x30, "apis", (WorkspaceId, ApiId) => Api;

    /// API keys. Kept by `service/keys.rs`.
    KEYS = 0x40, "keys", (WorkspaceId, KeyId) => Key;
    /// Imported API keys by what their secrets hash to.
    KEY_DIGESTS = 0x41, "key_digests", (WorkspaceId, [u8; 32]) => KeyId;
    /// API keys by their API, deleted ones included.
    API_KEYS = 0x42, "api_keys", (WorkspaceId, ApiId, KeyId) => ();
    /// API keys by the roles they hold, deleted keys included.
    ROLE_KEYS = 0x43, "role_keys", (WorkspaceId, RoleId, KeyId) => ();
    /// When keys were last used, by the last bits of their ids. Kept by `service/usage.rs`.
    KEY_USAGE = 0x44, "key_usage", (u16,) => LastUses;
    /// API keys by whose they are, deleted keys included.
    IDENTITY_KEYS = 0x45, "identity_keys", (WorkspaceId, IdentityId, KeyId) => ();
    /// What is left to use, of keys that have a balance or were rerolled, by the first of their line. Kept by
    /// `service/credits.rs`.
    METERS = 0x46, "meters", (WorkspaceId, KeyId) => Meter;

    /// Roles. Kept by `service/roles.rs`.
    ROLES = 0x50, "roles", (WorkspaceId, RoleId) => Role;
    /// Roles by name, in lower case.
    ROLE_NAMES = 0x51, "role_names", (WorkspaceId, String) => RoleId;
    /// Permissions of API keys. Kept by `service/permissions.rs`.
    PERMISSIONS = 0x52, "permissions", (WorkspaceId, PermissionId) => Permission;
    /// Permissions by slug, in lower case.
    PERMISSION_SLUGS = 0x53, "permission_slugs", (WorkspaceId, String) => PermissionId;

    /// What is to be done when, in the order of time. Kept by whoever gives a thing a time; worked off by the sweep.
    DUE = 0x60, "due", (Timestamp, Task, WorkspaceId, [u8; 16]) => ();
    /// What calls with idempotency keys did. Kept by `service/change.rs`.
    REMEMBERED = 0x61, "remembered", (WorkspaceId, RootKeyId, [u8; 32]) => Remembered;
    /// Remembered calls in the order in which they may be forgotten.
    FORGETTABLE = 0x62, "forgettable", (Timestamp, WorkspaceId, RootKeyId, [u8; 32]) => ();

    /// Whose keys they are. Kept by `service/identities.rs`.
    IDENTITIES = 0x80, "identities", (WorkspaceId, IdentityId) => Identity;
    /// Identities by external id.
    IDENTITY_EXTERNAL_IDS = 0x81, "identity_external_ids", (WorkspaceId, String) => IdentityId;

    /// Namespaces of rate limits. Kept by `service/namespaces.rs`.
    NAMESPACES = 0x90, "namespaces", (WorkspaceId, NamespaceId) => Namespace;
    /// Namespaces by name, in lower case.
    NAMESPACE_NAMES = 0x91, "namespace_names", (WorkspaceId, String) => NamespaceId;
    /// Exceptions from rate limits. Kept by `service/overrides.rs`.
    OVERRIDES = 0x92, "overrides", (WorkspaceId, NamespaceId, OverrideId) => Override;
    /// Exceptions by what they are about, in the spelling that all its spellings have in common.
    OVERRIDE_IDENTIFIERS = 0x93, "override_identifiers", (WorkspaceId, NamespaceId, String) => OverrideId;
    /// What has happened in the longer windows of rate limits: in buckets, by the start that has saved them. Kept by
    /// `service/windows.rs`.
    WINDOWS = 0x94, "windows", (u64, u16) => SavedWindows;

    /// What happened, in the order of commits. Kept by `service/change.rs`.
    AUDIT = 0x70, "audit", (WorkspaceId, u64, u16) => Event;
    /// The head of the one chain through all events.
    AUDIT_CHAIN = 0x71, "audit_chain", () => ChainHead;
}

/// The tables whose records are remembered, and so whose changes raise marks. What is written often and never remembered
/// stays out, so that it does not push others' marks up.
const MARKED: [u8; 7] = [WORKSPACES.tag, ROOT_KEYS.tag, APIS.tag, KEYS.tag, ROLES.tag, PERMISSIONS.tag, IDENTITIES.tag];

/// The same for those that change with each use.
const MARKED_OFTEN: [u8; 1] = [METERS.tag];

/// Where the row with this key has the mark that a change of it raises; nowhere if its record is never remembered.
pub(super) fn spot(marks: &Marks, key: &[u8]) -> Option<Spot> {
    match key.first() {
        Some(tag) if MARKED_OFTEN.contains(tag) => Some(marks.spot_of_many_changes(key)),
        Some(tag) if MARKED.contains(tag) => Some(marks.spot(key)),
        _ => None,
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Root keys of a workspace that are administrators; the id is zero.
    Administrators,
    /// Keys of an API that are neither deleted nor rerolled.
    KeysOfApi,
    /// Keys that hold a role and are neither deleted nor rerolled.
    KeysOfRole,
    /// Keys of a workspace that are neither deleted nor rerolled; the id is zero.
    Keys,
    /// Root keys of a workspace that are neither deleted nor rotated; the id is zero.
    RootKeys,
    /// Keys of an identity that are neither deleted nor rerolled.
    KeysOfIdentity,
    /// Exceptions in a namespace.
    OverridesOfNamespace,
    /// Keys of a workspace that are rerolled and not deleted; the id is zero.
    RerolledKeys,
    /// APIs of a workspace that are deleted and have not been cleared away yet; the id is zero.
    ApisToClear,
    /// Keys that a root key has made and that are neither deleted nor rerolled.
    KeysOfCreator,
}

/// Whose windows they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A key's, in all its generations, by the id of the first.
    Key(KeyId),
    /// An identity's, over all its keys.
    Identity(IdentityId),
    /// Those of an identifier in a namespace: the beginning of their common digest.
    Identifier([u8; 16]),
}

/// What the sweep does at a due moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Record that a root key has expired.
    ExpireRootKey,
    /// Record that a key has expired.
    ExpireKey,
    /// Remove what is left of a root key.
    PurgeRootKey,
    /// Remove what is left of a key.
    PurgeKey,
    /// Remove the keys of a deleted API, then the API.
    ClearApi,
    /// Remove the index of a deleted role, then the role.
    ClearRole,
    /// Remove a deleted permission.
    PurgePermission,
    /// Remove everything in a deleted workspace, then the workspace.
    ClearWorkspace,
    /// Mark the keys that the cuts of a workspace take; the id is zero.
    SettleCuts,
    /// Remove the index of a deleted identity, then the identity.
    ClearIdentity,
    /// Remove the exceptions in a deleted namespace, then the namespace.
    ClearNamespace,
}

impl<K: Part, R: Record<K>> Table<K, R> {
    /// What it is called.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What the keys of its rows begin with.
    pub const fn tag(&self) -> u8 {
        self.tag
    }

    fn key(&self, key: &impl Part) -> Vec<u8> {
        let mut bytes = vec![self.tag];
        key.write(&mut bytes);
        bytes
    }

    /// Where the record is remembered, and where the mark of its row is.
    ///
    /// Only for keys of at most a workspace and a digest.
    pub fn place(&self, marks: &Marks, key: &K) -> (Place, Spot) {
        let (place, length) = Place::new(|mut room| {
            room.put_u8(self.tag);
            key.write(&mut room);
        });
        let key = place.bytes(length);
        let spot = if MARKED_OFTEN.contains(&self.tag) { marks.spot_of_many_changes(key) } else { marks.spot(key) };
        (place, spot)
    }

    fn corrupt(&self) -> Failure {
        Failure::Corrupt(format!("a row of the table {}", self.name))
    }

    fn open(&self, key: &K, key_bytes: &[u8], stored: &[u8]) -> Result<R, Failure> {
        let value = unseal(key_bytes, stored).ok_or_else(|| self.corrupt())?;
        R::decode(key, value).ok_or_else(|| self.corrupt())
    }

    /// The row inside a transaction, its own writes included.
    pub fn get(&self, tx: &mut Txn<'_>, key: &K) -> Result<Option<R>, Stop> {
        let bytes = self.key(key);
        let Some(stored) = tx.get(&bytes)? else { return Ok(None) };
        self.open(key, &bytes, &stored).map(Some).map_err(Stop::Fail)
    }

    /// Writes the row.
    pub fn put(&self, tx: &mut Txn<'_>, key: &K, record: &R) -> Result<(), Stop> {
        let bytes = self.key(key);
        let value = seal(&bytes, &record.encode());
        tx.put(bytes, value)
    }

    /// Removes the row.
    pub fn remove(&self, tx: &mut Txn<'_>, key: &K) -> Result<(), Stop> {
        tx.delete(self.key(key))
    }

    /// The row in a view.
    pub async fn read(&self, view: &dyn View, key: &K) -> Result<Option<R>, Failure> {
        let bytes = self.key(key);
        view.get(&bytes).await?.map(|stored| self.open(key, &bytes, &stored)).transpose()
    }

    /// The row in a view, and how many bytes it has there.
    pub async fn read_with_length(&self, view: &dyn View, key: &K) -> Result<Option<(R, usize)>, Failure> {
        let bytes = self.key(key);
        let Some(stored) = view.get(&bytes).await? else { return Ok(None) };
        self.open(key, &bytes, &stored).map(|record| Some((record, stored.len())))
    }

    /// Up to `limit` rows whose keys begin with `prefix`, in order, each with how many bytes it has.
    ///
    /// For prefixes that few rows have.
    pub async fn read_beginning_with(
        &self,
        view: &dyn View,
        prefix: &impl Part,
        limit: usize,
    ) -> Result<Vec<(K, R, usize)>, Failure> {
        let rows = view.scan(self.range(prefix, None), limit).await?;
        let opened = rows.into_iter().map(|(key_bytes, stored)| {
            let key = self.key_of(&key_bytes).ok_or_else(|| self.corrupt())?;
            let record = self.open(&key, &key_bytes, &stored)?;
            Ok((key, record, stored.len()))
        });
        opened.collect()
    }

    /// Up to `limit` rows whose keys begin with `prefix`, in order, from after the key `after` on.
    pub async fn list(
        &self,
        view: &dyn View,
        prefix: &impl Part,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, R)>, Failure> {
        // Long walks take many steps, none of which waits for anything: let others in between them.
        tokio::task::yield_now().await;
        let rows = view.scan(self.range(prefix, after), limit).await?;
        rows.into_iter()
            .map(|(key_bytes, stored)| {
                let mut rest = key_bytes.get(1..).ok_or_else(|| self.corrupt())?;
                let key = K::read(&mut rest).filter(|_| rest.is_empty()).ok_or_else(|| self.corrupt())?;
                let record = self.open(&key, &key_bytes, &stored)?;
                Ok((key, record))
            })
            .collect()
    }

    fn examine(&self, key_bytes: &[u8], stored: &[u8]) -> Result<(), Failure> {
        let key = self.key_of(key_bytes).ok_or_else(|| self.corrupt())?;
        self.open(&key, key_bytes, stored).map(|_| ())
    }

    /// Whether a row with these key bytes is one of this table.
    pub fn holds(&self, key_bytes: &[u8]) -> bool {
        key_bytes.first() == Some(&self.tag)
    }

    /// The key that these bytes stand for.
    pub fn key_of(&self, key_bytes: &[u8]) -> Option<K> {
        let mut rest = key_bytes.strip_prefix(&[self.tag])?;
        K::read(&mut rest).filter(|_| rest.is_empty())
    }

    fn range(&self, prefix: &impl Part, after: Option<&K>) -> Range<Vec<u8>> {
        let begin = self.key(prefix);
        let end = successor(&begin);
        match after {
            None => begin..end,
            Some(after) => {
                let mut next = self.key(after);
                next.push(0);
                next.max(begin)..end
            }
        }
    }
}

/// Up to `limit` rows of all tables, in the order of their keys, from after the key `after` on.
pub async fn rows(view: &dyn View, after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Failure> {
    let begin = after.map_or_else(Vec::new, |after| [after, &[0]].concat());
    view.scan(begin..vec![u8::MAX], limit).await
}

/// The first key that does not begin with the prefix and lies after those that do.
fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Tags are small, so a table's prefix always has a successor.
    vec![u8::MAX]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_own_tag_and_none_the_engines() {
        let mut tags: Vec<u8> = NAMES.iter().map(|(tag, _)| *tag).collect();
        tags.dedup();
        assert_eq!(tags.len(), NAMES.len());
        assert!(tags.iter().all(|tag| (1..0xff).contains(tag)));
    }

    #[test]
    fn a_row_that_changes_with_each_use_shares_no_mark_with_one_that_does_not() {
        let marks = Marks::new(0, 8);
        for n in 0..100 {
            let key = (WorkspaceId::from_bytes([n; 16]), KeyId::from_bytes([n; 16]));
            let (meter, spot) = METERS.place(&marks, &key);
            assert_eq!(super::spot(&marks, meter.bytes(33)), Some(spot));
            marks.raise(spot, 1);
        }
        for n in 0..100 {
            let key = (WorkspaceId::from_bytes([n; 16]), KeyId::from_bytes([n; 16]));
            let (row, spot) = KEYS.place(&marks, &key);
            assert_eq!(super::spot(&marks, row.bytes(33)), Some(spot));
            assert!(marks.holds(spot, 0));
        }
        assert_eq!(super::spot(&marks, &[AUDIT.tag]), None, "never remembered");
    }

    #[test]
    fn the_rows_of_a_prefix_end_before_the_next_prefix() {
        assert_eq!(successor(&[1, 2]), [1, 3]);
        assert_eq!(successor(&[1, 0xff, 0xff]), [2]);
    }
}
