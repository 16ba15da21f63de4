//! APIs on disk.

use std::time::Duration;

use crate::domain::api::Api;
use crate::domain::etag::Etag;
use crate::domain::id::{ApiId, WorkspaceId};
use crate::domain::name::{API_NAME, Name};
use crate::domain::secret::Prefix;
use crate::pb::storage;

use super::{Stored, allow_list, millis, moment, networks, optional_moment};

impl Stored<(WorkspaceId, ApiId)> for Api {
    type Message = storage::Api;

    fn to_message(&self) -> storage::Api {
        let Self {
            id: _,
            workspace: _,
            name,
            default_prefix,
            default_ttl,
            delete_protection,
            allowed,
            created,
            updated,
            etag,
            deleted,
        } = self;
        storage::Api {
            name: name.to_string(),
            default_prefix: default_prefix.as_ref().map(ToString::to_string),
            default_ttl: default_ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            delete_protection: *delete_protection,
            allowed: networks(allowed),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
        }
    }

    fn from_message(&(workspace, id): &(WorkspaceId, ApiId), message: storage::Api) -> Option<Self> {
        let storage::Api {
            name,
            default_prefix,
            default_ttl,
            delete_protection,
            allowed,
            created,
            updated,
            etag,
            deleted,
        } = message;
        Some(Self {
            id,
            workspace,
            name: Name::new(&name, API_NAME).ok()?,
            default_prefix: default_prefix.map(|prefix| Prefix::new(&prefix)).transpose().ok()?,
            default_ttl: default_ttl.map(Duration::from_millis),
            delete_protection,
            allowed: allow_list(&allowed)?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}
