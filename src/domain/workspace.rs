//! A tenant: everything belongs to exactly one, and nothing crosses it.

use super::etag::Etag;
use super::id::WorkspaceId;
use super::name::Name;
use super::time::Timestamp;
use super::value::Facts;

/// What a workspace is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The one made at the first start, from which the others are managed. It can't be disabled or deleted.
    Operator,
    /// Any other.
    Tenant,
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
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
    /// When it was deleted, for good.
    pub deleted: Option<Timestamp>,
}

impl Workspace {
    /// What the audit log says of it.
    pub fn facts(&self) -> Facts {
        Facts::from([("name".into(), self.name.as_str().into()), ("enabled".into(), self.enabled.into())])
    }
}
