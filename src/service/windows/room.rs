//! How many windows there may be, and whose.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::domain::id::WorkspaceId;

/// A workspace has at most so many times the windows that are still free: alone eight ninths of all, beside others less,
/// and never all.
const SHARE: usize = 8;

/// How many windows there are.
pub(super) struct Room {
    /// And may be.
    most: usize,
    all: AtomicUsize,
    /// How often one more was refused, and how many of these times the log knows of.
    refused: AtomicU64,
    told: AtomicU64,
    of_workspace: Mutex<HashMap<WorkspaceId, usize>>,
}

impl Room {
    /// Room for so many, all of it free.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            all: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            told: AtomicU64::new(0),
            of_workspace: Mutex::default(),
        }
    }

    /// Takes room for one more window, if the workspace may have it.
    pub(super) fn take(&self, workspace: WorkspaceId) -> bool {
        let mut of_workspace = self.of_workspace.lock();
        let own = of_workspace.get(&workspace).copied().unwrap_or(0);
        let free = self.most.saturating_sub(self.all.load(Ordering::Relaxed));
        let fits = own < SHARE.saturating_mul(free);
        if fits {
            of_workspace.insert(workspace, own + 1);
            self.all.fetch_add(1, Ordering::Relaxed);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Gives back the room of so many windows.
    pub(super) fn give_back(&self, workspace: WorkspaceId, number: usize) {
        let mut of_workspace = self.of_workspace.lock();
        let own = of_workspace.entry(workspace).or_default();
        *own = own.saturating_sub(number);
        self.all.fetch_sub(number, Ordering::Relaxed);
        if *own == 0 {
            of_workspace.remove(&workspace);
        }
    }

    /// How many windows there are, and how often one more was refused.
    pub(super) fn taken_and_refused(&self) -> (usize, u64) {
        (self.all.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// How often one more was refused since this was last asked.
    pub(super) fn newly_refused(&self) -> u64 {
        let refused = self.refused.load(Ordering::Relaxed);
        refused.saturating_sub(self.told.swap(refused, Ordering::Relaxed))
    }
}
