//! The file of the store, held from the first opening to the end, whatever happens in between.
//!
//! It is locked all that time, so that no other process gets at it while it is opened again after an error. And it is
//! remembered what every page of it is: one that has become another on the disk is an error, not an answer.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::redb::StorageBackend;

use super::sums::Sums;

/// What must be free on the disk before anything is written: two of the largest commits.
const ROOM_MIN: u64 = 32 << 20;
/// By how much the file is made longer to see whether it can be.
const GROWTH: usize = 1 << 20;
/// There is less room than [`ROOM_MIN`].
const FULL: &str = "less than 32 MiB are free on its disk";
/// The path leads elsewhere, or nowhere.
const GONE: &str = "it was removed or replaced while it was open";

/// A file that no other process can open as a store.
#[derive(Debug)]
pub(super) struct Held {
    file: File,
    path: PathBuf,
    sums: Sums,
    /// The number of the last opening; what an earlier one asks for is refused.
    turn: AtomicU64,
}

/// One opening of the file.
#[derive(Debug)]
pub(super) struct Turn {
    held: Arc<Held>,
    number: u64,
}

impl Held {
    /// Takes the file, unless another process has it.
    pub(super) fn take(path: &Path) -> Result<Arc<Self>, ::redb::Error> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(::redb::Error::DatabaseAlreadyOpen),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let held = Self { file, path: path.to_owned(), sums: Sums::default(), turn: AtomicU64::new(0) };
        Ok(Arc::new(held))
    }

    /// Begins the next opening, for which all that earlier ones remember of the file is forgotten.
    pub(super) fn turn(self: &Arc<Self>) -> io::Result<Turn> {
        let turn = self.next_turn();
        if turn.number > 1 {
            forget_cached(&self.file)?;
        }
        self.sums.clear();
        Ok(turn)
    }

    /// Begins the next opening, for which all that the last one remembers of the file still holds.
    pub(super) fn next_turn(self: &Arc<Self>) -> Turn {
        let number = self.turn.fetch_add(1, Ordering::SeqCst) + 1;
        Turn { held: Arc::clone(self), number }
    }

    /// Whether what is written now would be found at the next start, and has room. Costs next to nothing.
    pub(super) fn look(&self) -> io::Result<()> {
        let held = self.file.metadata()?;
        let gone = match self.path.metadata() {
            Ok(named) => (named.dev(), named.ino()) != (held.dev(), held.ino()),
            // Where nobody may look any more it can still be written.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if gone {
            return Err(io::Error::new(io::ErrorKind::NotFound, GONE));
        }
        let disk = rustix::fs::fstatvfs(&self.file)?;
        // Some file systems don't know how large they are.
        if disk.f_blocks > 0 && disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_MIN {
            return Err(io::Error::new(io::ErrorKind::StorageFull, FULL));
        }
        Ok(())
    }

    /// Whether the file can be written and grow. Only for the thread that writes.
    ///
    /// Its first byte is written as it is, and more is written behind its end and cut off again.
    pub(super) fn probe(&self) -> io::Result<()> {
        let mut first = [0];
        self.file.read_exact_at(&mut first, 0)?;
        self.file.write_all_at(&first, 0)?;
        let length = self.file.metadata()?.len();
        let grown = self.file.write_all_at(&vec![0; GROWTH], length).and_then(|()| self.file.sync_all());
        self.file.set_len(length)?;
        grown
    }

    /// Lets others have it.
    pub(super) fn let_go(&self) -> io::Result<()> {
        self.turn.fetch_add(1, Ordering::SeqCst);
        self.file.unlock()
    }
}

impl Turn {
    /// Fails if the file has been opened again since.
    fn current(&self) -> io::Result<()> {
        if self.held.turn.load(Ordering::SeqCst) == self.number {
            Ok(())
        } else {
            Err(io::Error::other("the file has been opened again"))
        }
    }
}

impl StorageBackend for Turn {
    fn len(&self) -> io::Result<u64> {
        Ok(self.held.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.held.file.read_exact_at(out, offset)?;
        // Asked afterwards: whoever opens the file after this one writes only after that.
        self.current()?;
        self.held.sums.check(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.current()?;
        self.held.sums.cut(len);
        self.held.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.current()?;
        self.held.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.current()?;
        self.held.sums.forget(offset, data.len());
        self.held.file.write_all_at(data, offset)?;
        self.held.sums.note(offset, data);
        Ok(())
    }
}

/// Drops what the kernel remembers of the file. After a failed sync it may show pages that never reached the disk
/// and never will, because it takes them for clean.
#[cfg(target_os = "linux")]
fn forget_cached(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

#[cfg(not(target_os = "linux"))]
fn forget_cached(_: &File) -> io::Result<()> {
    Ok(())
}
