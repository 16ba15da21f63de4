//! The directory in which everything lies, for its owner alone.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::ServeError;

/// The permission bits of group and others, none of which may be set.
pub const OTHERS: u32 = 0o077;

/// What can't be used, and why.
pub fn refused(path: &Path, why: impl Into<String>) -> ServeError {
    ServeError::Directory { path: path.to_owned(), why: why.into() }
}

/// What can't be used, for what the system says.
pub fn failed(path: &Path, doing: &str, error: &io::Error) -> ServeError {
    refused(path, format!("{doing}: {error}"))
}

/// Makes the data directory if it is missing, and refuses one that can't be used.
///
/// # Errors
/// What is wrong and what to do.
pub fn prepare(directory: &Path) -> Result<(), ServeError> {
    if !directory.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| can_not_be_made(directory, &error))?;
    }
    examine(directory)
}

/// Refuses a data directory that is missing and could not be made. Nothing is.
///
/// # Errors
/// What is wrong and what to do.
pub fn rehearse(directory: &Path) -> Result<(), ServeError> {
    // Of a relative path with one name the nearest that is there is where the process is.
    let mut above =
        directory.ancestors().skip(1).map(|above| if above == Path::new("") { Path::new(".") } else { above });
    let nearest = above.find(|above| above.exists()).unwrap_or(Path::new("/"));
    let can_be_made = match nearest.is_dir() {
        true => access(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from),
        false => Err(io::ErrorKind::NotADirectory.into()),
    };
    can_be_made.map_err(|error| can_not_be_made(directory, &error))
}

fn can_not_be_made(directory: &Path, error: &io::Error) -> ServeError {
    let why = format!(
        "the data directory can't be made: {error}; make it for this user alone, or name another with --data-dir"
    );
    refused(directory, why)
}

/// Refuses a data directory that others can look into, or that nothing can be written to.
///
/// # Errors
/// What is wrong and what to do.
pub fn examine(directory: &Path) -> Result<(), ServeError> {
    let metadata = directory.metadata().map_err(|error| failed(directory, "can't be looked at", &error))?;
    if !metadata.is_dir() {
        return Err(refused(directory, "the data directory is not a directory; name another with --data-dir"));
    }
    if metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & 0o777;
        let why = format!(
            "other users can get into the data directory (mode {mode:04o}); run: chmod 700 {}",
            directory.display()
        );
        return Err(refused(directory, why));
    }
    access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        let remedy = match error {
            Errno::ROFS => "mount it for writing",
            _ => "give it to the user that runs ostiary",
        };
        let why = format!("the data directory can't be written to: {error}; {remedy}, or name another with --data-dir");
        refused(directory, why)
    })
}
