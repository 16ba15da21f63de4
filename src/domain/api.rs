//! An API: a named set of keys, with what those keys have in common.

use std::time::Duration;

use super::etag::Etag;
use super::id::{ApiId, WorkspaceId};
use super::name::Name;
use super::network::AllowList;
use super::secret::Prefix;
use super::time::Timestamp;
use super::value::Facts;

/// The shortest life a key can be given.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// The longest life that can be given as a span: 100 years.
pub const TTL_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A set of API keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// Its id.
    pub id: ApiId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// Its name; need not be unique.
    pub name: Name,
    /// The prefix of keys created without one.
    pub default_prefix: Option<Prefix>,
    /// The life of keys created without one.
    pub default_ttl: Option<Duration>,
    /// While set, it can't be deleted.
    pub delete_protection: bool,
    /// From where its keys may be used.
    pub allowed: AllowList,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
    /// When it was deleted, for good.
    pub deleted: Option<Timestamp>,
}

impl Api {
    /// What the audit log says of it.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::from([
            ("name".into(), self.name.as_str().into()),
            ("delete_protection".into(), self.delete_protection.into()),
            ("allowed_cidrs".into(), self.allowed.iter().map(|network| network.to_string()).collect()),
        ]);
        facts.extend(self.default_prefix.as_ref().map(|prefix| ("default_prefix".into(), prefix.as_str().into())));
        facts.extend(
            self.default_ttl.map(|ttl| ("default_ttl".into(), humantime::format_duration(ttl).to_string().into())),
        );
        facts
    }
}
