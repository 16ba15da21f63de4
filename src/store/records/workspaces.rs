//! Workspaces on disk.

use crate::domain::etag::Etag;
use crate::domain::id::WorkspaceId;
use crate::domain::name::{Name, WORKSPACE_NAME};
use crate::domain::workspace::{Purpose, Quotas, Workspace};
use crate::pb::storage;

use super::{Stored, millis, moment, optional_moment};

impl Stored<(WorkspaceId,)> for Workspace {
    type Message = storage::Workspace;

    fn to_message(&self) -> storage::Workspace {
        let Self { id: _, name, purpose, enabled, quotas, created, updated, etag, deleted } = self;
        let Quotas { keys, root_keys, calls_per_second } = *quotas;
        storage::Workspace {
            name: name.to_string(),
            operator: *purpose == Purpose::Operator,
            enabled: *enabled,
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
            max_keys: keys,
            max_root_keys: root_keys,
            calls_per_second,
        }
    }

    fn from_message(key: &(WorkspaceId,), message: storage::Workspace) -> Option<Self> {
        let storage::Workspace {
            name,
            operator,
            enabled,
            created,
            updated,
            etag,
            deleted,
            max_keys,
            max_root_keys,
            calls_per_second,
        } = message;
        Some(Self {
            id: key.0,
            name: Name::new(&name, WORKSPACE_NAME).ok()?,
            purpose: if operator { Purpose::Operator } else { Purpose::Tenant },
            enabled,
            quotas: Quotas { keys: max_keys, root_keys: max_root_keys, calls_per_second },
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}
