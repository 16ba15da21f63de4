//! Identities on disk.

use crate::domain::etag::Etag;
use crate::domain::id::{IdentityId, WorkspaceId};
use crate::domain::identity::Identity;
use crate::domain::name::{EXTERNAL_ID, Name};
use crate::domain::value::Metadata;
use crate::pb::{self, storage};

use super::limits::{limit_messages, to_limits};
use super::{Stored, millis, moment, optional_moment};

impl Stored<(WorkspaceId, IdentityId)> for Identity {
    type Message = storage::Identity;

    fn to_message(&self) -> storage::Identity {
        let Self { id: _, workspace: _, external_id, metadata, limits, created, updated, etag, deleted } = self;
        storage::Identity {
            external_id: external_id.to_string(),
            metadata: (!metadata.facts().is_empty()).then(|| pb::from_facts(metadata.facts())),
            limits: limit_messages(limits),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
        }
    }

    fn from_message(&(workspace, id): &(WorkspaceId, IdentityId), message: storage::Identity) -> Option<Self> {
        let storage::Identity { external_id, metadata, limits, created, updated, etag, deleted } = message;
        Some(Self {
            id,
            workspace,
            external_id: Name::new(&external_id, EXTERNAL_ID).ok()?,
            metadata: Metadata::new(metadata.map(pb::to_facts).unwrap_or_default()).ok()?,
            limits: to_limits(limits)?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}
