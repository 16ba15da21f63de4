//! Permissions on disk.

use crate::domain::etag::Etag;
use crate::domain::id::{PermissionId, WorkspaceId};
use crate::domain::name::{DESCRIPTION, Description, Name, PERMISSION_NAME};
use crate::domain::permission::{Permission, Slug};
use crate::pb::storage;

use super::{Stored, millis, moment, optional_moment};

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
