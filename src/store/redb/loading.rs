//! Making a store out of rows that come all at once, and keeping others away from one meanwhile.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ::redb::backends::FileBackend;
use ::redb::{Builder, Database};

use super::super::Failure;
use super::file::{HEAD_ROW, ROWS, failure, initialise};

/// Bytes of keys and values that are written together.
const BATCH_BYTES: usize = 32 << 20;
/// Memory for pages while rows are written.
const CACHE_BYTES: usize = 64 << 20;

/// A store that is being made under a name of its own, where nobody looks for one.
pub struct Loading {
    database: Database,
    batch: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Loading {
    /// Begins one, for its owner's eyes only. What lies there already is what an earlier attempt has left.
    ///
    /// # Errors
    /// If the file can't be made, or another process is making it.
    pub fn begin(path: &Path, epoch: u64) -> Result<Self, Failure> {
        let unavailable = |why: &dyn std::fmt::Display| Failure::Unavailable(format!("{}: {why}", path.display()));
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = opened.map_err(|error| unavailable(&error))?;
        locked(&file, path)?;
        file.set_len(0).map_err(|error| unavailable(&error))?;
        let made = || -> Result<Database, ::redb::Error> {
            let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(FileBackend::new(file)?)?;
            initialise(&database, epoch)?;
            Ok(database)
        };
        Ok(Self { database: made().map_err(|error| unavailable(&error))?, batch: Vec::new(), bytes: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.bytes += key.len() + value.len();
        self.batch.push((key.to_vec(), value.to_vec()));
        if self.bytes < BATCH_BYTES { Ok(()) } else { self.write(None) }
    }

    /// Makes all of it durable, as the state after this commit.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(mut self, counter: u64) -> Result<(), Failure> {
        self.write(Some(counter))?;
        self.database.close().map_err(failure)
    }

    fn write(&mut self, head: Option<u64>) -> Result<(), Failure> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let written = || -> Result<(), ::redb::Error> {
            let mut transaction = self.database.begin_write()?;
            transaction.set_quick_repair(true);
            let mut rows = transaction.open_table(ROWS)?;
            for (key, value) in &batch {
                rows.insert(key.as_slice(), value.as_slice())?;
            }
            if let Some(counter) = head {
                rows.insert(HEAD_ROW, counter.to_be_bytes().as_slice())?;
            }
            drop(rows);
            Ok(transaction.commit()?)
        };
        written().map_err(failure)
    }
}

/// Keeps every other process from opening the store in a file, whatever state that is in, until it is dropped.
///
/// # Errors
/// `Unavailable` if another process has it open.
pub fn hold(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let file = opened.map_err(|error| Failure::Unavailable(format!("{}: {error}", path.display())))?;
    locked(&file, path)?;
    Ok(file)
}

/// redb takes this lock, besides one on a range of the file, whenever it opens one for writing.
fn locked(file: &File, path: &Path) -> Result<(), Failure> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::Unavailable(format!("another process has {} open", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(Failure::Unavailable(format!("{}: {error}", path.display()))),
    }
}
