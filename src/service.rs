//! What ostiary does: every verb of the product, once.
//!
//! The only layer that writes, and only through `Ostiary::change`, which takes a [`Permit`](caller::Permit)
//! and leaves an audit event, or through `Ostiary::settle`, with which ostiary keeps house. What is done to a store that
//! no server serves, [`unserved`] does.
//! It knows nothing of gRPC and nothing of where bytes are kept.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::id::WorkspaceId;
use crate::domain::key::Verdict;
use crate::domain::time::Timestamp;
use crate::error::{Error, Obstacle};
use crate::metrics::Counters;
use crate::store::{Engine, Failure, View, Work, tables};
use crate::world::World;

use pace::Pace;

pub mod apis;
mod assignments;
pub mod audit;
pub mod backups;
pub mod caller;
pub mod change;
mod counts;
pub mod credits;
mod deliveries;
mod described;
pub mod due;
pub mod founding;
mod housekeeping;
pub mod identities;
pub mod keys;
pub mod limiting;
pub mod listing;
pub mod namespaces;
mod outcome;
pub mod overrides;
pub mod pace;
pub mod permissions;
mod quotas;
pub mod roles;
pub mod root_keys;
mod sight;
pub mod survey;
pub mod unserved;
pub mod usage;
pub mod verify;
pub mod windows;
pub mod workspaces;

pub use crate::store::Revision;
pub use crate::world::Stopwatch;
pub use assignments::{Assignment, PermissionAssignment, RoleAssignment};
pub use sight::Memory;
pub use usage::RootKeyUsage;

/// How long records stay after they have stopped being good.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Expired keys and root keys, and deleted root keys.
    pub expired: Duration,
    /// Deleted keys, which can be restored meanwhile.
    pub deleted_keys: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self { expired: 90 * DAY, deleted_keys: 30 * DAY }
    }
}

/// How much memory may be taken by what is not in the store.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Bytes for records that are remembered.
    pub cache_bytes: u64,
    /// Windows of rate limits that are counted at a time.
    pub windows: usize,
}

/// Whether the sweep may remove records for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purging {
    /// It may.
    Allowed,
    /// Not before an operator says that the clock, which jumped while ostiary was not running, is right.
    Suspended,
}

/// The product: a store, a world, and what is remembered between calls.
pub struct Ostiary {
    engine: Arc<dyn Engine>,
    world: Arc<World>,
    started: Timestamp,
    retention: Retention,
    purging: Purging,
    operator: WorkspaceId,
    page_key: [u8; 32],
    usage: usage::Ledger,
    deliveries: deliveries::Deliveries,
    meters: quotas::Meters,
    credits: credits::Purses,
    windows: windows::Registry,
    memory: Memory,
    /// Answers to verifications, by what they came to.
    verdicts: Counters<{ Verdict::NAMES.len() }>,
}

/// An answer, and the state that it reflects.
#[derive(Debug, Clone)]
pub struct Done<T> {
    /// The answer.
    pub answer: T,
    /// The revision of the state, for a write that of its own commit.
    pub revision: Revision,
}

/// Whether a change is made or only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Make it.
    Apply,
    /// Run all checks, say what would happen, change nothing.
    Rehearse,
}

/// A consistent look at the store, at one moment.
pub struct Reading {
    view: Box<dyn View>,
    /// The moment.
    pub now: Timestamp,
}

impl Reading {
    fn done<T>(&self, answer: T) -> Done<T> {
        Done { answer, revision: self.view.revision() }
    }

    fn view(&self) -> &dyn View {
        self.view.as_ref()
    }
}

impl Ostiary {
    /// The world it lives in.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Since when there is this instance.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Whether changes can be made.
    pub fn writable(&self) -> bool {
        self.engine.writable()
    }

    /// Whether verifications can be answered: the store can be read.
    pub async fn readable(&self) -> bool {
        match self.read(None).await {
            Ok(reading) => tables::OPERATOR.read(reading.view(), &()).await.is_ok(),
            Err(_) => false,
        }
    }

    /// The newest revision there is.
    pub fn head(&self) -> Revision {
        self.memory.head()
    }

    /// How often verifications have come to what, in the order of [`Verdict::NAMES`].
    pub fn verdicts(&self) -> [u64; Verdict::NAMES.len()] {
        self.verdicts.read()
    }

    /// What the store has done and has to do.
    pub fn work(&self) -> Work {
        self.engine.work()
    }

    /// How many windows of rate limits are counted, and how often one more was refused for want of room.
    pub fn windows(&self) -> (usize, u64) {
        self.windows.taken_and_refused()
    }

    /// What is remembered of the store between calls.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Looks at a state at least as new as `min_revision`.
    ///
    /// Every commit is made by this instance, so its newest state is the newest there is, and a revision beyond it
    /// was never issued.
    async fn read(&self, min_revision: Option<Revision>) -> Result<Reading, Error> {
        let reading = Reading { view: self.engine.view().await?, now: self.world.now() };
        let head = reading.view.revision();
        match min_revision {
            Some(wanted) if wanted.epoch != head.epoch || wanted.counter > head.counter => Err(Error::Precondition {
                obstacle: Obstacle::RevisionUnknown,
                subject: wanted.to_string(),
                description: "min_revision: this store has never issued that revision".to_owned(),
            }),
            Some(_) | None => Ok(reading),
        }
    }

    /// Finishes what is queued, saves what is remembered, and refuses everything from then on.
    pub async fn close(&self) {
        if let Err(failure) = self.save_time().await {
            tracing::warn!(?failure, "the time could not be saved");
        }
        if let Err(failure) = self.return_all_credits().await {
            tracing::warn!(?failure, "credits that were reserved and not spent could not be given back");
        }
        if let Err(failure) = self.flush_windows(Pace::AtOnce).await {
            tracing::warn!(?failure, "what rate limits have counted lately could not be saved");
        }
        if let Err(failure) = self.flush_usage(Pace::AtOnce).await {
            tracing::warn!(?failure, "the latest usage could not be saved");
        }
        self.engine.close().await;
    }
}

impl From<Failure> for change::Halt {
    fn from(failure: Failure) -> Self {
        Self::Stop(failure.into())
    }
}
