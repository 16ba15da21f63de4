//! Why the server does not run, in words that say what to do.

use std::io;
use std::path::PathBuf;

use super::tls::Unusable;
use crate::config::address::Address;
use crate::error::Error;
use crate::store::Failure;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory can't be used.
    #[error("{path}: {why}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The store can't be opened.
    #[error("the store can't be opened: {failure}{}", other_process(.0), failure = .0)]
    Store(#[from] Failure),
    /// The product can't be opened.
    #[error("the store can't be used: {0:?}")]
    Product(Error),
    /// The threads that serve can't be started.
    #[error("no threads could be started: {0}")]
    Threads(io::Error),
    /// The address can't be listened on.
    #[error("--listen {address}: {error}{}", remedy(error))]
    Listen {
        /// Which.
        address: Address,
        /// Why not.
        error: io::Error,
    },
    /// The address for metrics can't be listened on.
    #[error("--admin-listen {address}: {error}{}", remedy(error))]
    AdminListen {
        /// Which.
        address: Address,
        /// Why not.
        error: io::Error,
    },
    /// The sockets that systemd passes can't be used.
    #[error("--listen systemd: {why}")]
    Systemd {
        /// Why not, and what to do.
        why: String,
    },
    /// Values of the configuration don't go together.
    #[error("--{key} {why}")]
    Misfit {
        /// The flag of one.
        key: &'static str,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The certificate can't be used.
    #[error(transparent)]
    Certificate(#[from] Unusable),
    /// It was told to stop before it served.
    #[error("it was told to stop before it served")]
    Stopped,
    /// It has ended without being told to.
    #[error("the server has ended by itself: {0}")]
    Ended(String),
    /// The signals that stop the server can't be received.
    #[error("signals can't be received: {0}")]
    Signals(io::Error),
}

/// What helps if the store belongs to another process.
fn other_process(failure: &Failure) -> &'static str {
    match failure {
        Failure::Unavailable(why) if why.starts_with("another process has ") => {
            "; stop that one first, or name another directory with --data-dir"
        }
        Failure::Unavailable(_)
        | Failure::Unknown(_)
        | Failure::Overloaded
        | Failure::Closed
        | Failure::TooLarge { .. }
        | Failure::Corrupt(_)
        | Failure::Panicked
        | Failure::Compacted => "",
    }
}

/// What helps against it.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; something listens there already: stop it, or listen elsewhere",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address: listen on one that it has",
        io::ErrorKind::PermissionDenied => "; this user may not listen there: choose a port above 1023 or another path",
        io::ErrorKind::NotFound => "; the directory of the socket is missing: make it",
        _ => "",
    }
}

impl From<Error> for ServeError {
    fn from(error: Error) -> Self {
        Self::Product(error)
    }
}
