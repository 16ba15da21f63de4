//! What is done to a store that no server serves: restoring it, checking it, making a new administrator.
//!
//! Whoever may write the store's file may do this. A store that a server has open is refused.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::server::{STORE, ServeError};
use crate::service::founding;
use crate::service::unserved::Unsound;
use crate::store::redb::{RedbEngine, RedbOptions};
use crate::store::{Engine, Failure};
use crate::world::World;

mod check;
mod recover;
mod restore;
mod source;

pub use check::check;
pub use recover::recover;
pub use restore::{Restored, restore};

/// Memory for pages of a store.
const CACHE_BYTES: usize = 64 << 20;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The data directory or the store in it can't be used.
    #[error(transparent)]
    Unusable(#[from] ServeError),
    /// There is no store.
    #[error("{0}: there is no store; name the data directory with --data-dir")]
    NoStore(PathBuf),
    /// There is a store, and nobody said what is to become of it.
    #[error("{0}: there is a store already; say --replace to put another in its place, or name another directory")]
    StoreThere(PathBuf),
    /// The backup is none, or is not whole.
    #[error("{backup}: {why}")]
    Damaged {
        /// How the backup was named.
        backup: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store or the backup is not what was written.
    #[error("{what}: {why}")]
    Unsound {
        /// Which.
        what: String,
        /// What is wrong with it.
        why: Unsound,
    },
    /// A file can't be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// What is wanted makes no sense together.
    #[error("{0}")]
    Misfit(&'static str),
}

impl Refusal {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { path, error }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Unusable(failure.into())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Unusable(error.into())
    }
}

/// Opens the store in a data directory, which must be there. All of it is checked.
fn open(directory: &Path) -> Result<RedbEngine, Refusal> {
    let path = directory.join(STORE);
    if !path.try_exists().map_err(Refusal::file(&path))? {
        return Err(Refusal::NoStore(path));
    }
    open_file(path)
}

fn open_file(path: PathBuf) -> Result<RedbEngine, Refusal> {
    // It is there, so it has an epoch.
    let options = RedbOptions { cache_bytes: CACHE_BYTES, ..RedbOptions::new(path, 0) };
    Ok(RedbEngine::open(options)?)
}

/// The world, in which no time is before what the store has seen.
async fn world(engine: &dyn Engine) -> Result<World, Refusal> {
    Ok(World::real(founding::stored_instant(engine).await?))
}

fn sync_directory(directory: &Path) -> Result<(), Refusal> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(Refusal::file(directory))
}
