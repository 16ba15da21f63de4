//! A tenant: everything belongs to exactly one, and nothing crosses it.

use super::cut::Cut;
use super::etag::Etag;
use super::id::WorkspaceId;
use super::import::Algorithm;
use super::key::{Key, Presence};
use super::name::Name;
use super::time::Timestamp;
use super::value::{Facts, Value};

/// What a workspace is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The one made at the first start, from which the others are managed. It can't be disabled or deleted.
    Operator,
    /// Any other.
    Tenant,
}

/// A number that no quota needs to exceed, and that every client's number type can hold.
pub const QUOTA_MAX: u64 = 1 << 53;

/// How much a workspace may have and do; none means any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// API keys that are not deleted.
    pub keys: Option<u64>,
    /// Root keys that are neither deleted nor rotated.
    pub root_keys: Option<u64>,
    /// Calls in any second.
    pub calls_per_second: Option<u64>,
}

/// Which quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// API keys.
    Keys,
    /// Root keys.
    RootKeys,
    /// Calls.
    CallsPerSecond,
}

impl Quota {
    /// Its name as a field.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Keys => "max_keys",
            Self::RootKeys => "max_root_keys",
            Self::CallsPerSecond => "calls_per_second",
        }
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name; need not be unique.
    pub name: Name,
    /// Whether it is the operator's.
    pub purpose: Purpose,
    /// While disabled, none of its root keys is recognised.
    pub enabled: bool,
    /// How much it may have and do.
    pub quotas: Quotas,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
    /// When it was deleted, for good.
    pub deleted: Option<Timestamp>,
    /// Revocations by filter whose keys have not all been marked yet, the oldest first.
    pub cuts: Vec<Cut>,
    /// How digests were made that have ever been imported, so that secrets of other shapes are looked for.
    pub imported: Vec<Algorithm>,
}

impl Workspace {
    /// A key as it is, of which only the record is at hand: revoked, if a cut takes it that it has not been marked with
    /// yet. The first cut that does is the one that did it.
    #[must_use]
    pub fn settled(&self, key: Key) -> Key {
        let deleted = match key.presence {
            Presence::Gone(_) | Presence::Revoked { .. } => return key,
            Presence::Here => None,
            Presence::Deleted(at) => Some(at),
        };
        match self.cuts.iter().find(|cut| cut.takes(key.traces())) {
            Some(&Cut { revision, at, filter: _ }) => {
                let presence = Presence::Revoked { at, by: revision, deleted };
                Key { presence, updated: at, etag: key.etag.next(), ..key }
            }
            None => key,
        }
    }

    /// What the audit log says of it.
    pub fn facts(&self) -> Facts {
        let mut facts =
            Facts::from([("name".into(), self.name.as_str().into()), ("enabled".into(), self.enabled.into())]);
        let Quotas { keys, root_keys, calls_per_second } = self.quotas;
        let quotas = [(Quota::Keys, keys), (Quota::RootKeys, root_keys), (Quota::CallsPerSecond, calls_per_second)];
        for (quota, most) in quotas {
            // Exact: no quota exceeds 2^53.
            facts.extend(most.map(|most| (quota.field().to_owned(), Value::Number(most as f64))));
        }
        facts
    }
}
