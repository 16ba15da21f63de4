//! A role: a named set of permissions that API keys can hold.

use super::etag::Etag;
use super::id::{PermissionId, RoleId, WorkspaceId};
use super::name::{Description, Name};
use super::permission::Slug;
use super::time::Timestamp;
use super::value::Facts;

/// How many permissions a role, or a key directly, can hold.
pub const PERMISSIONS_MAX: usize = 1_000;
/// How many permissions one call can make on the way.
pub const NEW_PERMISSIONS_MAX: usize = 20;

/// A permission as a role or key holds it.
///
/// The id decides: a permission that has been deleted stays deleted, even if its slug is made anew. The slug is kept
/// beside it because it never changes, so that a query can be answered without looking up every permission held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// Which permission.
    pub id: PermissionId,
    /// What it covers.
    pub slug: Slug,
}

/// A set of permissions.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// Its id.
    pub id: RoleId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// Its name; unique in the workspace, ignoring ASCII case.
    pub name: Name,
    /// What it is for.
    pub description: Description,
    /// What it gives, ordered by slug. Some of them may have been deleted since.
    pub permissions: Vec<Held>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
    /// When it was deleted, for good.
    pub deleted: Option<Timestamp>,
}

impl Role {
    /// What the audit log says of it.
    pub fn facts(&self) -> Facts {
        Facts::from([
            ("name".into(), self.name.as_str().into()),
            ("description".into(), self.description.as_str().into()),
            ("permissions".into(), self.permissions.iter().map(|held| held.slug.as_str()).collect()),
        ])
    }
}
