//! Workspaces on disk.

use crate::domain::cut::{Cut, CutFilter};
use crate::domain::etag::Etag;
use crate::domain::id::{ApiId, IdentityId, RoleId, RootKeyId, WorkspaceId};
use crate::domain::import::Algorithm;
use crate::domain::name::{Name, WORKSPACE_NAME};
use crate::domain::workspace::{Purpose, Quotas, Workspace};
use crate::pb::storage;

use super::{Stored, id, millis, moment, optional_id, optional_moment};

impl Stored<(WorkspaceId,)> for Workspace {
    type Message = storage::Workspace;

    fn to_message(&self) -> storage::Workspace {
        let Self { id: _, name, purpose, enabled, quotas, created, updated, etag, deleted, cuts, imported } = self;
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
            cuts: cuts.iter().map(cut_message).collect(),
            imported: imported.iter().map(|algorithm| algorithm_message(*algorithm).into()).collect(),
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
            cuts,
            imported,
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
            cuts: cuts.into_iter().map(to_cut).collect::<Option<_>>()?,
            imported: imported.into_iter().map(to_algorithm).collect::<Option<_>>()?,
        })
    }
}

/// A cut as it is stored.
pub fn cut_message(cut: &Cut) -> storage::Cut {
    let Cut { revision, at, filter } = cut;
    let CutFilter { api, identity, role, created_by, created_from, created_before } = filter;
    storage::Cut {
        revision: *revision,
        at: millis(*at),
        api: api.map(|id| id.bytes().to_vec()),
        identity: identity.map(|id| id.bytes().to_vec()),
        role: role.map(|id| id.bytes().to_vec()),
        created_by: created_by.iter().map(|id| id.bytes().to_vec()).collect(),
        created_from: created_from.map(millis),
        created_before: created_before.map(millis),
    }
}

/// A cut as it was stored.
pub fn to_cut(message: storage::Cut) -> Option<Cut> {
    let storage::Cut { revision, at, api, identity, role, created_by, created_from, created_before } = message;
    let filter = CutFilter {
        api: optional_id(api.as_deref(), ApiId::from_bytes)?,
        identity: optional_id(identity.as_deref(), IdentityId::from_bytes)?,
        role: optional_id(role.as_deref(), RoleId::from_bytes)?,
        created_by: created_by.iter().map(|bytes| id(bytes, RootKeyId::from_bytes)).collect::<Option<_>>()?,
        created_from: optional_moment(created_from)?,
        created_before: optional_moment(created_before)?,
    };
    Some(Cut { revision, at: moment(at)?, filter })
}

fn algorithm_message(algorithm: Algorithm) -> storage::Algorithm {
    match algorithm {
        Algorithm::Sha256 => storage::Algorithm::Sha256,
        Algorithm::Sha512 => storage::Algorithm::Sha512,
        Algorithm::LongToken => storage::Algorithm::LongToken,
    }
}

fn to_algorithm(message: i32) -> Option<Algorithm> {
    match storage::Algorithm::try_from(message).ok()? {
        storage::Algorithm::Unspecified => None,
        storage::Algorithm::Sha256 => Some(Algorithm::Sha256),
        storage::Algorithm::Sha512 => Some(Algorithm::Sha512),
        storage::Algorithm::LongToken => Some(Algorithm::LongToken),
    }
}
