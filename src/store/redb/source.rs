//! Where the bytes of a store are, and what can be done with them besides opening it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::backends::FileBackend;
use ::redb::{Builder, Database, StorageBackend};

use super::file::make;
use super::held::Held;
use super::shadow::Shadow;

/// Bytes of pages that are kept while a store is checked. Each is read once or twice, far apart: to keep them and to
/// forget them again took half of the time.
const KEPT_WHILE_CHECKED: usize = 1 << 20;

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

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) purpose: Purpose,
    /// Bytes of pages that are kept in memory.
    pub(super) cache_bytes: usize,
    /// Whether every page is read and compared with its checksum.
    pub(super) check_integrity: bool,
}

/// What is known of the bytes of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// They have been checked, and nothing has failed since.
    Checked,
    /// Nothing: what was written last may not have reached them.
    Unknown,
}

impl Opening {
    fn builder(self) -> Builder {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes).set_check_integrity_on_open(self.check_integrity);
        builder
    }

    /// Opens the database in these bytes, which `again` gives once more: all that was found out of them still holds if
    /// they were `Checked`.
    fn open<B: StorageBackend>(
        self,
        bytes: B,
        again: impl FnOnce(Standing) -> io::Result<B>,
    ) -> Result<Database, ::redb::Error> {
        match self.purpose {
            // What opening writes is kept in memory: it must be open from then on.
            Purpose::Read => Ok(self.builder().create_with_backend(Shadow::over(bytes)?)?),
            Purpose::Begin | Purpose::GoOn if !self.check_integrity => Ok(self.builder().create_with_backend(bytes)?),
            Purpose::Begin | Purpose::GoOn => {
                let checking = Self { cache_bytes: KEPT_WHILE_CHECKED, ..self };
                match checking.builder().create_with_backend(bytes)?.close() {
                    Ok(()) => {
                        let checked = Self { check_integrity: false, ..self };
                        Ok(checked.builder().create_with_backend(again(Standing::Checked)?)?)
                    }
                    // To close takes room on the disk, to stay open takes none.
                    Err(_) => Ok(self.builder().create_with_backend(again(Standing::Unknown)?)?),
                }
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
        opening.open(turn, |standing| match standing {
            Standing::Checked => Ok(held.next_turn()),
            Standing::Unknown => held.turn(),
        })
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
        opening.open((self.0)()?, |_| (self.0)())
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ::redb::ReadableDatabase as _;
    use ::redb::backends::InMemoryBackend;

    use super::super::file::{ROWS, initialise};
    use super::*;

    /// A disk that refuses one write, as if there were no room for it at that moment.
    #[derive(Debug, Clone)]
    struct Narrow {
        bytes: Arc<InMemoryBackend>,
        written: Arc<AtomicUsize>,
        refused: usize,
    }

    impl Narrow {
        fn refusing(refused: usize) -> Self {
            Self { bytes: Arc::default(), written: Arc::default(), refused }
        }

        fn written(&self) -> usize {
            self.written.load(Ordering::SeqCst)
        }
    }

    impl StorageBackend for Narrow {
        fn len(&self) -> io::Result<u64> {
            self.bytes.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.bytes.read(offset, out)
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            self.bytes.set_len(length)
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            if self.written.fetch_add(1, Ordering::SeqCst) + 1 == self.refused {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.write(offset, data)
        }
    }

    /// A store that was left without being closed.
    fn left(refused: usize) -> Narrow {
        let first = Narrow::refusing(usize::MAX);
        let database = Builder::new().create_with_backend(first.clone()).unwrap();
        initialise(&database, 7).unwrap();
        let left = Narrow::refusing(refused);
        let mut bytes = vec![0; usize::try_from(first.len().unwrap()).unwrap()];
        first.read(0, &mut bytes).unwrap();
        left.bytes.set_len(bytes.len() as u64).unwrap();
        left.bytes.write(0, &bytes).unwrap();
        left
    }

    #[test]
    fn a_store_that_is_sound_is_opened_though_there_is_no_room_to_close_it_after_the_check() {
        let opening = Opening { purpose: Purpose::Begin, cache_bytes: 1 << 20, check_integrity: true };
        let disk = left(usize::MAX);
        let checking = opening.builder().create_with_backend(disk.clone()).unwrap();
        let to_open = disk.written();
        checking.close().unwrap();
        let to_close = disk.written();
        assert!(to_open < to_close, "closing writes");
        for refused in to_open + 1..=to_close {
            let disk = left(refused);
            let mut standings = Vec::new();
            let again = |standing| {
                standings.push(standing);
                Ok(disk.clone())
            };
            let database = opening.open(disk.clone(), again).unwrap();
            assert_eq!(standings, [Standing::Unknown], "{refused} of {to_open} and {to_close}");
            let rows = database.begin_read().unwrap().open_table(ROWS).unwrap();
            assert!(::redb::ReadableTable::get(&rows, b"\0epoch".as_slice()).unwrap().is_some());
        }
    }
}
