//! Roles on disk.

use crate::domain::etag::Etag;
use crate::domain::id::{RoleId, WorkspaceId};
use crate::domain::name::{DESCRIPTION, Description, Name, ROLE_NAME};
use crate::domain::role::Role;
use crate::pb::storage;

use super::{Stored, held, millis, moment, optional_moment, to_held};

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
