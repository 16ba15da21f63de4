//! The keys that a cut may have taken, found by the index that says most about its filter.

use crate::domain::cut::CutFilter;
use crate::domain::id::{ApiId, IdentityId, KeyId, RoleId, WorkspaceId};
use crate::domain::key::Key;
use crate::error::Error;
use crate::service::Reading;
use crate::service::listing::of;
use crate::store::tables;

/// Rows fetched at a time.
const CHUNK: usize = 128;

/// Where keys are looked for.
#[derive(Debug, Clone, Copy)]
enum Index {
    Identity(IdentityId),
    Role(RoleId),
    Api(ApiId),
    All,
}

/// A walk over all keys that a filter may fit, and others, as they are stored.
///
/// It may be long, so each step of it looks for itself: a view that is kept keeps the store from using the pages again
/// that are given up meanwhile, and the file grows by everything that is written.
pub(in crate::service) struct Candidates {
    workspace: WorkspaceId,
    index: Index,
    last: Option<KeyId>,
    ended: bool,
}

impl Candidates {
    /// The index of a deleted role or identity may be half cleared away, so it is not asked.
    pub async fn of(reading: &Reading, workspace: WorkspaceId, filter: &CutFilter) -> Result<Self, Error> {
        let mut index = filter.api.map_or(Index::All, Index::Api);
        if let Some(role) = filter.role {
            let living = tables::ROLES.read(reading.view(), &(workspace, role)).await?;
            if living.is_some_and(|role| role.deleted.is_none()) {
                index = Index::Role(role);
            }
        }
        if let Some(identity) = reading.living_identity(workspace, filter.identity).await? {
            index = Index::Identity(identity.id);
        }
        Ok(Self { workspace, index, last: None, ended: false })
    }

    /// Some more of them, in the order of their ids; none at the end.
    pub async fn next(&mut self, reading: &Reading) -> Result<Option<Vec<Key>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let (view, workspace) = (reading.view(), self.workspace);
        let ids: Vec<KeyId> = match self.index {
            Index::All => {
                let after = self.last.map(|last| (workspace, last));
                let rows = tables::KEYS.list(view, &of(workspace), after.as_ref(), CHUNK).await?;
                let keys: Vec<Key> = rows.into_iter().map(|(_, key)| key).collect();
                self.passed(keys.iter().map(|key| key.id));
                return Ok(Some(keys));
            }
            Index::Api(api) => {
                let after = self.last.map(|last| (workspace, api, last));
                let rows = tables::API_KEYS.list(view, &(workspace, api), after.as_ref(), CHUNK).await?;
                rows.into_iter().map(|((.., key), ())| key).collect()
            }
            Index::Role(role) => {
                let after = self.last.map(|last| (workspace, role, last));
                let rows = tables::ROLE_KEYS.list(view, &(workspace, role), after.as_ref(), CHUNK).await?;
                rows.into_iter().map(|((.., key), ())| key).collect()
            }
            Index::Identity(identity) => {
                let after = self.last.map(|last| (workspace, identity, last));
                let rows = tables::IDENTITY_KEYS.list(view, &(workspace, identity), after.as_ref(), CHUNK).await?;
                rows.into_iter().map(|((.., key), ())| key).collect()
            }
        };
        let mut keys = Vec::with_capacity(ids.len());
        for id in &ids {
            keys.extend(tables::KEYS.read(view, &(workspace, *id)).await?);
        }
        self.passed(ids.into_iter());
        Ok(Some(keys))
    }

    fn passed(&mut self, ids: impl ExactSizeIterator<Item = KeyId>) {
        self.ended = ids.len() < CHUNK;
        self.last = ids.last().or(self.last);
    }
}
