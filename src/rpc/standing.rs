//! What a connection has shown of itself: one over which no good root key has come is the first to go where there is no
//! room for others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::time::Timestamp;

/// How long a connection has to show a good root key before its place may be given to another.
pub const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// How a connection stands.
#[derive(Debug)]
pub struct Standing {
    since: Timestamp,
    proven: AtomicBool,
    unwanted: CancellationToken,
}

impl Standing {
    /// That of a connection over which nothing has come yet.
    pub fn new(since: Timestamp) -> Self {
        Self { since, proven: AtomicBool::new(false), unwanted: CancellationToken::new() }
    }

    /// Since when there is the connection.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// A good root key has come over it.
    pub fn prove(&self) {
        if !self.is_proven() {
            self.proven.store(true, Ordering::Relaxed);
        }
    }

    /// Whether one has.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Gives its place to another.
    pub fn give_up(&self) {
        self.unwanted.cancel();
    }

    /// Holds the connection until it ends, or its place is given to another.
    pub async fn hold(&self, conversation: impl Future<Output = ()>) {
        // Dropped, which closes it.
        let _ = self.unwanted.run_until_cancelled(conversation).await;
    }
}
