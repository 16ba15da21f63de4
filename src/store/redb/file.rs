//! Opening the file: made if new, checked, locked, and of a format that this version knows.
//!
//! A new file is made whole under another name and then given its own, so that losing power while it is being made
//! leaves no file that can't be opened.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableHandle};

use super::super::{Failure, Revision};
use super::RedbOptions;
use super::source::{Backends, OneFile, Opening, Purpose, Source, unheld};

/// The arrangement of rows in the file. A file with a higher number is refused.
pub const FORMAT_VERSION: u64 = 1;

/// Every row there is.
pub(super) const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
/// The counter of the last commit, written with it.
pub(super) const HEAD_ROW: &[u8] = b"\0head";
const FORMAT_ROW: &[u8] = b"\0format";
const EPOCH_ROW: &[u8] = b"\0epoch";

/// Opens the same store again and again.
pub(super) struct Opener {
    options: RedbOptions,
    source: Box<dyn Source>,
}

/// An open store.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) head: Revision,
}

impl Opener {
    pub(super) fn path(options: RedbOptions) -> Self {
        let source = Box::new(OneFile::new(&options.path, options.epoch_if_new));
        Self { options, source }
    }

    pub(super) fn backends<B: StorageBackend>(
        options: RedbOptions,
        backends: impl Fn() -> io::Result<B> + Send + 'static,
    ) -> Self {
        Self { options, source: Box::new(Backends(backends)) }
    }

    /// Opens and checks the store.
    pub(super) fn open(&mut self, purpose: Purpose) -> Result<Opened, Failure> {
        // redb trusts its pages in places and panics where they make no sense; that is damage like any other.
        let opened = catch_unwind(AssertUnwindSafe(|| self.open_trusting(purpose)));
        opened.unwrap_or_else(|_| Err(self.damaged("its pages make no sense")))
    }

    fn open_trusting(&mut self, purpose: Purpose) -> Result<Opened, Failure> {
        let RedbOptions { cache_bytes, check_integrity, .. } = self.options;
        let opening = Opening { purpose, cache_bytes, check_integrity };
        let database = self.source.open(opening).map_err(|error| self.failure(error))?;
        if purpose == Purpose::Begin && self.is_new(&database)? {
            initialise(&database, self.options.epoch_if_new).map_err(|error| self.failure(error))?;
        }
        let head = self.head(&database)?;
        Ok(Opened { database, head })
    }

    /// Whether what is written now would last and has room, as far as that can be told at once.
    pub(super) fn look(&self) -> Result<(), Failure> {
        self.source.look().map_err(|error| self.failure(error.into()))
    }

    /// Whether the store can be written again.
    pub(super) fn probe(&self) -> Result<(), Failure> {
        self.source.probe().map_err(|error| self.failure(error.into()))
    }

    /// Lets others have the store. Nothing is opened after that.
    pub(super) fn let_go(&mut self) {
        // What can't be unlocked now is unlocked when this process ends.
        let _ = self.source.let_go();
    }

    fn is_new(&self, database: &Database) -> Result<bool, Failure> {
        let tables = || -> Result<Vec<String>, ::redb::Error> {
            let txn = database.begin_read()?;
            Ok(txn.list_tables()?.map(|table| table.name().to_owned()).collect())
        };
        let tables = tables().map_err(|error| self.failure(error))?;
        if let Some(other) = tables.iter().find(|name| *name != ROWS.name()) {
            return Err(Failure::Unavailable(format!("{} holds something else: the table {other}", self.name())));
        }
        Ok(tables.is_empty())
    }

    fn head(&self, database: &Database) -> Result<Revision, Failure> {
        let numbers = || -> Result<[Option<u64>; 3], ::redb::Error> {
            let rows = database.begin_read()?.open_table(ROWS)?;
            Ok([number(&rows, FORMAT_ROW)?, number(&rows, EPOCH_ROW)?, number(&rows, HEAD_ROW)?])
        };
        match numbers().map_err(|error| self.failure(error))? {
            [Some(format), _, _] if format > FORMAT_VERSION => Err(Failure::Unavailable(format!(
                "{} has format {format}, and this version reads up to format {FORMAT_VERSION}: use a newer version",
                self.name()
            ))),
            [Some(FORMAT_VERSION), Some(epoch), Some(counter)] => Ok(Revision { epoch, counter }),
            [..] => Err(self.damaged("the rows that describe it make no sense")),
        }
    }

    /// Says that the store is not what was written.
    pub(super) fn damaged(&self, how: &str) -> Failure {
        let directory = directory(&self.options.path).display();
        Failure::Corrupt(format!(
            "{} is damaged: {how}; restore a backup: ostiary restore FILE --replace --data-dir {directory}",
            self.name()
        ))
    }

    /// Says that the store now open is not the one that was open before.
    pub(super) fn exchanged(&self) -> Failure {
        Failure::Unavailable(format!("{} was exchanged for another store while it was open", self.name()))
    }

    fn failure(&self, error: ::redb::Error) -> Failure {
        match error {
            ::redb::Error::DatabaseAlreadyOpen | ::redb::Error::LockProtocolMismatch => {
                Failure::Unavailable(format!("another process has {} open", self.name()))
            }
            ::redb::Error::Io(error) if is_damage(&error) => self.damaged(&error.to_string()),
            ::redb::Error::Io(error) => Failure::Unavailable(format!("{}: {error}; {}", self.name(), remedy(&error))),
            error => match failure(error) {
                Failure::Corrupt(how) => self.damaged(&how),
                other => Failure::Unavailable(format!("{}: {other}", self.name())),
            },
        }
    }

    /// What messages call the store.
    pub(super) fn name(&self) -> String {
        self.options.path.display().to_string()
    }
}

/// Makes a store whole, out of sight, and then gives it its name.
pub(super) fn make(builder: &Builder, path: &Path, epoch: u64) -> Result<(), ::redb::Error> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{epoch:016x}.new"));
    let hidden = PathBuf::from(hidden);
    let made = make_hidden(builder, &hidden, epoch);
    // Linking never replaces a store that another process made in the meantime.
    let named = made.and_then(|()| match std::fs::hard_link(&hidden, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    });
    let removed = std::fs::remove_file(&hidden);
    named?;
    removed?;
    Ok(File::open(directory(path))?.sync_all()?)
}

fn make_hidden(builder: &Builder, hidden: &Path, epoch: u64) -> Result<(), ::redb::Error> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(hidden)?;
    let database = unheld(builder, file)?;
    initialise(&database, epoch)?;
    Ok(database.close()?)
}

pub(super) fn initialise(database: &Database, epoch: u64) -> Result<(), ::redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let mut rows = transaction.open_table(ROWS)?;
    for (key, number) in [(FORMAT_ROW, FORMAT_VERSION), (EPOCH_ROW, epoch), (HEAD_ROW, 0)] {
        rows.insert(key, number.to_be_bytes().as_slice())?;
    }
    drop(rows);
    Ok(transaction.commit()?)
}

/// What an error of redb means to whoever asked for a row.
pub(super) fn failure(error: impl Into<::redb::Error>) -> Failure {
    use ::redb::Error::{Corrupted, Io, TableDoesNotExist, TableIsMultimap, TableTypeMismatch, UpgradeRequired};
    match error.into() {
        Corrupted(how) => Failure::Corrupt(how),
        Io(error) if is_damage(&error) => Failure::Corrupt(error.to_string()),
        Io(error) => Failure::Unavailable(format!("{error}; {}", remedy(&error))),
        error @ (TableDoesNotExist(_) | TableIsMultimap(_) | TableTypeMismatch { .. } | UpgradeRequired(_)) => {
            Failure::Corrupt(error.to_string())
        }
        error => Failure::Unavailable(error.to_string()),
    }
}

/// The eight bytes of one of the engine's own rows.
pub(super) fn number(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<u64>, ::redb::StorageError> {
    Ok(rows.get(key)?.and_then(|value| value.value().try_into().ok()).map(u64::from_be_bytes))
}

/// What helps against an error of the disk.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "make room there",
        io::ErrorKind::QuotaExceeded => "raise the quota of the user that runs ostiary, or make room within it",
        io::ErrorKind::FileTooLarge => "raise the limit on the size of files (ulimit -f; LimitFSIZE= of systemd)",
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing; the kernel's log says why it is not",
        io::ErrorKind::PermissionDenied => "give it to the user that runs ostiary, who must read and write it",
        io::ErrorKind::NotFound => "stop ostiary, put the file back, and start it again",
        _ => "the kernel's log may say more; if the disk fails, move the data directory to another",
    }
}

/// The directory that a file is in.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// redb reports a file that is no database, and one that ends too soon, as these.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
