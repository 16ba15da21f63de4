//! What a connection has shown of itself, and what it may do for that.
//!
//! One over which no good root key has come is the first to go where there is no room for others. One over which none
//! has come for long is next: whoever once had a good one does not hold places for good. One that does not take its
//! answers goes as well: nothing that its calls wait for would ever come to an end.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::domain::time::Timestamp;

/// How long a connection has to show a good root key before its place may be given to another.
pub const SHOWN_WITHIN: Duration = Duration::from_secs(5);
/// Calls of a connection at a time that need no root key and go on for long: watching health, and reflection.
pub const OPEN_MAX: u32 = 8;
/// How often it is looked whether answers are taken.
pub const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Looks between which nothing of an answer is taken, after which its connection ends: after a minute or little more.
const LOOKS_MAX: u32 = 5;
/// Looks between which no good root key comes and no answer is told, after which what a connection has shown counts no
/// more: after ten minutes.
pub const IDLE_LOOKS_MAX: u32 = 40;
/// Instead of such looks: none has ever come.
const NEVER: u32 = u32::MAX;
/// Answers that are told at a time on one connection, rarely more.
const ANSWERS: usize = 512;

/// How a connection stands.
#[derive(Debug)]
pub struct Standing {
    since: Timestamp,
    /// Looks since a good root key has come.
    idle_looks: AtomicU32,
    unwanted: CancellationToken,
    open: AtomicU32,
    telling: Mutex<Vec<Weak<Progress>>>,
}

/// Why a connection may have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No good root key has ever come over it.
    Unproven,
    /// None has come for long.
    Idle,
}

/// How the telling of an answer goes on.
#[derive(Debug)]
pub struct Progress {
    /// Whether it is told to somebody with a good root key.
    guarded: bool,
    /// It is the client's turn: some of the answer was handed over, or there is one, and nobody has asked for more.
    handed_over: AtomicBool,
    /// Looks at it since.
    looks: AtomicU32,
}

impl Standing {
    /// That of a connection over which nothing has come yet.
    pub fn new(since: Timestamp) -> Self {
        Self {
            since,
            idle_looks: AtomicU32::new(NEVER),
            unwanted: CancellationToken::new(),
            open: AtomicU32::new(0),
            telling: Mutex::default(),
        }
    }

    /// Since when there is the connection.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// A good root key has come over it.
    pub fn prove(&self) {
        // Every call comes here, few change anything.
        if self.idle_looks.load(Ordering::Relaxed) != 0 {
            self.idle_looks.store(0, Ordering::Relaxed);
        }
    }

    /// Whether its place could be given to another, and why.
    pub fn gives_way(&self) -> Option<Reason> {
        if self.unwanted.is_cancelled() {
            return None;
        }
        match self.idle_looks.load(Ordering::Relaxed) {
            NEVER => Some(Reason::Unproven),
            IDLE_LOOKS_MAX.. => Some(Reason::Idle),
            _ => None,
        }
    }

    /// Calls under way that need no root key and go on for long.
    pub fn open(&self) -> &AtomicU32 {
        &self.open
    }

    /// Keeps in mind an answer that is being told, to somebody with a good root key or not, for as long as that is.
    pub fn telling(&self, guarded: bool) -> Arc<Progress> {
        // Nobody asks for it before the client has room for a first byte.
        let progress = Progress { guarded, handed_over: AtomicBool::new(true), looks: AtomicU32::new(0) };
        let progress = Arc::new(progress);
        let mut telling = self.telling.lock();
        if telling.len() >= ANSWERS {
            telling.retain(|known| known.strong_count() > 0);
        }
        telling.push(Arc::downgrade(&progress));
        progress
    }

    /// Gives its place to another.
    pub fn give_up(&self) {
        self.unwanted.cancel();
    }

    /// Holds the connection until it ends, its place is given to another, or an answer is not taken.
    pub async fn hold(&self, conversation: impl Future<Output = ()>) {
        let conversation = pin!(conversation);
        tokio::select! {
            () = conversation => {}
            // It is dropped, which closes it.
            () = self.unwanted.cancelled() => {}
            // Whoever does not take answers could have any number of lines.
            () = self.watched() => tracing::debug!("a connection is closed on which an answer was not taken for a minute"),
        }
    }

    /// Looks at it now and then. Returns once an answer has not been taken for too long.
    async fn watched(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut telling = self.telling.lock();
            telling.retain(|known| known.strong_count() > 0);
            let told: Vec<_> = telling.iter().filter_map(Weak::upgrade).collect();
            drop(telling);
            if told.iter().any(|progress| progress.look()) {
                return;
            }
            let busy = told.iter().any(|progress| progress.guarded);
            let seen = self.idle_looks.load(Ordering::Relaxed);
            if seen < IDLE_LOOKS_MAX {
                // What comes meanwhile counts.
                let next = if busy { 0 } else { seen + 1 };
                let _ = self.idle_looks.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

impl Progress {
    /// Somebody asks for more of the answer, and gets some of it or has to wait.
    pub fn asked(&self, handed_over: bool) {
        self.looks.store(0, Ordering::Relaxed);
        self.handed_over.store(handed_over, Ordering::Relaxed);
    }

    /// Whether it has been looked at too often since.
    fn look(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed) && self.looks.fetch_add(1, Ordering::Relaxed) + 1 >= LOOKS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_take_its_answers_ends_and_one_that_waits_for_them_does_not() {
        let standing = Standing::new(Timestamp::EPOCH);
        let (told, waiting) = (standing.telling(true), standing.telling(true));
        waiting.asked(false);
        told.asked(true);
        drop(told);
        let held = |within| tokio::time::timeout(within, standing.hold(std::future::pending()));
        assert!(held(10 * LOOKS_MAX * LOOK_EVERY).await.is_err());
        let untaken = standing.telling(false);
        assert!(held((LOOKS_MAX - 1) * LOOK_EVERY + LOOK_EVERY / 2).await.is_err());
        untaken.asked(true);
        assert!(held((LOOKS_MAX - 1) * LOOK_EVERY + LOOK_EVERY / 2).await.is_err(), "some of it was taken meanwhile");
        assert!(held(LOOKS_MAX * LOOK_EVERY).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_connection_has_shown_counts_until_it_has_been_idle_for_long() {
        let standing = Standing::new(Timestamp::EPOCH);
        let pass = |looks: u32| {
            let time = looks * LOOK_EVERY + LOOK_EVERY / 2;
            tokio::time::timeout(time, standing.hold(std::future::pending()))
        };
        assert_eq!(standing.gives_way(), Some(Reason::Unproven));
        assert!(pass(2 * IDLE_LOOKS_MAX).await.is_err());
        assert_eq!(standing.gives_way(), Some(Reason::Unproven), "it has shown nothing");
        standing.prove();
        assert!(pass(IDLE_LOOKS_MAX - 1).await.is_err() && standing.gives_way().is_none());
        standing.prove();
        assert!(pass(IDLE_LOOKS_MAX - 1).await.is_err() && standing.gives_way().is_none());
        assert!(pass(1).await.is_err());
        assert_eq!(standing.gives_way(), Some(Reason::Idle));
        standing.prove();
        let told = standing.telling(true);
        told.asked(false);
        assert!(pass(2 * IDLE_LOOKS_MAX).await.is_err() && standing.gives_way().is_none(), "a stream is under way");
        drop(told);
        // What anybody may ask for shows nothing.
        let watching = standing.telling(false);
        watching.asked(false);
        assert!(pass(IDLE_LOOKS_MAX).await.is_err());
        assert_eq!(standing.gives_way(), Some(Reason::Idle));
    }
}
