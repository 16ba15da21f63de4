//! What can only be known by looking through the store, for whoever watches the server.

use std::time::Duration;

use crate::domain::id::{RootKeyId, WorkspaceId};
use crate::domain::time::{Expiry, Timestamp};
use crate::error::Error;
use crate::store::tables::{self, Task};

use super::Ostiary;

/// How far ahead ends of lives are counted.
pub const AHEAD: Duration = Duration::from_secs(24 * 3_600);
/// Entries of the schedule that are looked at for that at most.
pub const ENTRIES_MAX: usize = 1_000_000;
/// Rows looked at at a time.
const CHUNK: usize = 500;

/// What a look through the store has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// When the oldest root key was made that is enabled and has not expired.
    pub oldest_root_key: Option<Timestamp>,
    /// What ends soon.
    pub ending: Ending,
}

/// Lives that end within [`AHEAD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// Those of keys.
    pub keys: u64,
    /// Those of root keys.
    pub root_keys: u64,
}

impl Ostiary {
    /// How long the first thing on the schedule has been due.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn behind(&self) -> Result<Duration, Error> {
        let reading = self.read(None).await?;
        let first = tables::DUE.list(reading.view(), &(), None, 1).await?;
        Ok(first.first().map_or(Duration::ZERO, |((moment, ..), ())| reading.now.since(*moment)))
    }

    /// Looks through all root keys, and through what is due soon, [`ENTRIES_MAX`] of that at most. It takes the longer
    /// the more there is.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn survey(&self) -> Result<Survey, Error> {
        Ok(Survey { oldest_root_key: self.oldest_root_key().await?, ending: self.ending().await? })
    }

    async fn oldest_root_key(&self) -> Result<Option<Timestamp>, Error> {
        let mut oldest: Option<Timestamp> = None;
        let mut after: Option<(WorkspaceId, RootKeyId)> = None;
        loop {
            // A view that were kept for all of them would keep the store from using given-up pages again.
            let reading = self.read(None).await?;
            let rows = tables::ROOT_KEYS.list(reading.view(), &(), after.as_ref(), CHUNK).await?;
            let good = rows.iter().map(|(_, root_key)| root_key).filter(|root_key| {
                root_key.deleted.is_none() && root_key.enabled && !root_key.expiry.has_passed(reading.now)
            });
            oldest = good.map(|root_key| root_key.created).chain(oldest).min();
            if rows.len() < CHUNK {
                return Ok(oldest);
            }
            after = rows.last().map(|(row, _)| *row);
        }
    }

    async fn ending(&self) -> Result<Ending, Error> {
        let mut ending = Ending::default();
        let begin = self.world.now();
        let end = Expiry::At(begin.after(AHEAD));
        let mut looked_at = 0;
        let mut after = Some((begin, Task::ExpireRootKey, WorkspaceId::FIRST, [0; 16]));
        loop {
            let reading = self.read(None).await?;
            let rows = tables::DUE.list(reading.view(), &(), after.as_ref(), CHUNK).await?;
            for ((moment, task, ..), ()) in &rows {
                match task {
                    _ if Expiry::At(*moment).outlives(end) => return Ok(ending),
                    Task::ExpireKey => ending.keys += 1,
                    Task::ExpireRootKey => ending.root_keys += 1,
                    Task::PurgeRootKey
                    | Task::PurgeKey
                    | Task::ClearApi
                    | Task::ClearRole
                    | Task::PurgePermission
                    | Task::ClearWorkspace
                    | Task::SettleCuts
                    | Task::ClearIdentity
                    | Task::ClearNamespace => {}
                }
            }
            looked_at += rows.len();
            if rows.len() < CHUNK || looked_at >= ENTRIES_MAX {
                return Ok(ending);
            }
            after = rows.last().map(|(entry, ())| *entry);
        }
    }
}
