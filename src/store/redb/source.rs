//! Where the bytes of a store are, and what can be done with them besides opening it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::backends::FileBackend;
use ::redb::{Builder, Database, StorageBackend};

use super::file::make;
use super::held::Held;
use super::shadow::Shadow;

/// Why a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To begin; it is made if it is not there.
    Begin,
    /// To go on after an error. A missing or empty one is lost, not new.
    GoOn,
    /// Only to be read, because it can't be written.
    Read,
}

/// Bytes of pages that are kept while a store is checked. Each is read once or twice, far apart: to keep them and to
/// forget them again took half of the time.
const KEPT_WHILE_CHECKED: usize = 1 << 20;

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) purpose: Purpose,
    /// Bytes of pages that are kept in memory.
    pub(super) cache_bytes: usize,
    /// Whether every page is read and compared with its checksum.
    pub(super) check_integrity: bool,
}

impl Opening {
    fn builder(self) -> Builder {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes).set_check_integrity_on_open(self.check_integrity);
        builder
    }

    /// Opens the database in these bytes, which `again` gives once more.
    fn open<B: StorageBackend>(
        self,
        bytes: B,
        again: impl FnOnce() -> io::Result<B>,
    ) -> Result<Database, ::redb::Error> {
        match self.purpose {
            // What opening writes is kept in memory: it must be open from then on.
            Purpose::Read => Ok(self.builder().create_with_backend(Shadow::over(bytes)?)?),
            Purpose::Begin | Purpose::GoOn if !self.check_integrity => Ok(self.builder().create_with_backend(bytes)?),
            Purpose::Begin | Purpose::GoOn => {
                let checking = Self { cache_bytes: KEPT_WHILE_CHECKED, ..self };
                checking.builder().create_with_backend(bytes)?.close()?;
                let checked = Self { check_integrity: false, ..self };
                Ok(checked.builder().create_with_backend(again()?)?)
            }
        }
    }
}

/// Gives the bytes of one store, again and again.
pub(super) trait Source: Send {
    /// Opens the database in them.
    fn open(&mut self, opening: Opening) -> Result<Database, ::redb::Error>;

    /// Whether what is written now would last and has room, as far as that can be told at once.
    fn look(&self) -> io::Result<()>;

    /// Whether something can be written, by writing something that changes nothing.
    fn probe(&self) -> io::Result<()>;

    /// Lets others have them.
    fn let_go(&mut self) -> io::Result<()>;
}

/// A file, made if it is new.
pub(super) struct OneFile {
    path: PathBuf,
    epoch_if_new: u64,
    held: Option<Arc<Held>>,
}

impl OneFile {
    pub(super) fn new(path: &Path, epoch_if_new: u64) -> Self {
        Self { path: path.to_owned(), epoch_if_new, held: None }
    }

    fn held(&self) -> io::Result<&Arc<Held>> {
        self.held.as_ref().ok_or_else(|| io::Error::other("it is not open"))
    }
}

impl Source for OneFile {
    fn open(&mut self, opening: Opening) -> Result<Database, ::redb::Error> {
        if opening.purpose == Purpose::Begin && !self.path.try_exists()? {
            make(&opening.builder(), &self.path, self.epoch_if_new)?;
        }
        let held = match self.held.take() {
            Some(held) => held,
            None => Held::take(&self.path)?,
        };
        let held = self.held.insert(held);
        let turn = held.turn()?;
        if turn.len()? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty").into());
        }
        opening.open(turn, || Ok(held.next_turn()))
    }

    fn look(&self) -> io::Result<()> {
        self.held()?.look()
    }

    fn probe(&self) -> io::Result<()> {
        let held = self.held()?;
        held.look()?;
        held.probe()
    }

    fn let_go(&mut self) -> io::Result<()> {
        self.held.take().map_or(Ok(()), |held| held.let_go())
    }
}

/// A new backend for every opening.
pub(super) struct Backends<F>(pub(super) F);

impl<B: StorageBackend, F: Fn() -> io::Result<B> + Send> Source for Backends<F> {
    fn open(&mut self, opening: Opening) -> Result<Database, ::redb::Error> {
        opening.open((self.0)()?, &self.0)
    }

    fn look(&self) -> io::Result<()> {
        Ok(())
    }

    fn probe(&self) -> io::Result<()> {
        let backend = (self.0)()?;
        let mut first = [0];
        backend.read(0, &mut first)?;
        backend.write(0, &first)?;
        backend.sync_data()
    }

    fn let_go(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A new file, before it is anybody's store.
pub(super) fn unheld(builder: &Builder, file: std::fs::File) -> Result<Database, ::redb::Error> {
    Ok(builder.create_with_backend(FileBackend::new(file)?)?)
}
