//! The threads that serve connections: one for each core, with a runtime of its own.
//!
//! A connection stays on the thread that it was given to, so that nothing of it ever moves between cores. Measured
//! beside one runtime that shares its threads, a call costs a third less (`docs/decisions.md`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Runtimes that connections are given to.
pub struct Crew {
    hands: Vec<Hand>,
    /// Ends the threads.
    _dismissed: Option<DropGuard>,
}

struct Hand {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// Counts a connection for as long as it is there.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crew {
    /// The runtime that asks, alone.
    pub fn here() -> Self {
        let hand = Hand { runtime: Handle::current(), connections: Arc::default() };
        Self { hands: vec![hand], _dismissed: None }
    }

    /// A thread for each core. They end when the crew is dropped.
    ///
    /// # Errors
    /// If there are no more threads to be had.
    pub fn on_every_core() -> io::Result<Self> {
        let dismissed = CancellationToken::new();
        let cores = thread::available_parallelism()?.get();
        let hands = (0..cores).map(|core| Hand::start(core, dismissed.clone())).collect::<io::Result<_>>()?;
        Ok(Self { hands, _dismissed: Some(dismissed.drop_guard()) })
    }

    /// Gives a connection to whoever has the fewest. It is made there, so that its socket belongs to that runtime.
    pub fn give<F>(&self, tracker: &TaskTracker, connection: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(hand) = self.hands.iter().min_by_key(|hand| hand.connections.load(Ordering::Relaxed)) else { return };
        hand.connections.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&hand.connections));
        let connection = async move {
            let _counted = counted;
            connection().await;
        };
        drop(tracker.spawn_on(connection, &hand.runtime));
    }
}

impl Hand {
    fn start(core: usize, dismissed: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let work = move || runtime.block_on(dismissed.cancelled());
        thread::Builder::new().name(format!("ostiary-serve-{core}")).spawn(work)?;
        Ok(Self { runtime: handle, connections: Arc::default() })
    }
}
