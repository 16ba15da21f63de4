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

/// Gives the bytes of one store, again and again.
pub(super) trait Source: Send {
    /// Opens the database in them.
    fn open(&mut self, builder: &Builder, purpose: Purpose) -> Result<Database, ::redb::Error>;

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
    fn open(&mut self, builder: &Builder, purpose: Purpose) -> Result<Database, ::redb::Error> {
        if purpose == Purpose::Begin && !self.path.try_exists()? {
            make(builder, &self.path, self.epoch_if_new)?;
        }
        let held = match self.held.take() {
            Some(held) => held,
            None => Held::take(&self.path)?,
        };
        let turn = self.held.insert(held).turn()?;
        if turn.len()? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty").into());
        }
        open(builder, turn, purpose)
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
    fn open(&mut self, builder: &Builder, purpose: Purpose) -> Result<Database, ::redb::Error> {
        open(builder, (self.0)()?, purpose)
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

fn open(builder: &Builder, backend: impl StorageBackend, purpose: Purpose) -> Result<Database, ::redb::Error> {
    Ok(match purpose {
        Purpose::Begin | Purpose::GoOn => builder.create_with_backend(backend)?,
        Purpose::Read => builder.create_with_backend(Shadow::over(backend)?)?,
    })
}

/// A new file, before it is anybody's store.
pub(super) fn unheld(builder: &Builder, file: std::fs::File) -> Result<Database, ::redb::Error> {
    Ok(builder.create_with_backend(FileBackend::new(file)?)?)
}
