//! A transaction: points read, writes held back until the body has decided.
//!
//! Written once for all engines, so that reading one's own writes, the bounds and the roll-back are the same everywhere.
//! What a body does after it was told to stop does not count, even if it swallows the refusal.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::{Body, Decision, Failure, Revision, Stop, reserved};

/// Distinct points that a transaction may read from the store: exchanging 50 roles of a key for 50 others, given by
/// name, and making 20 permissions on the way looks at 276.
pub const POINTS_READ_MAX: usize = 320;
/// Distinct rows that a transaction may write: the same touches 200 rows of indexes and counters, 40 of permissions and
/// 21 of the audit log.
pub const ROWS_WRITTEN_MAX: usize = 320;
/// Bytes of keys and values that a transaction may write, well below what is kept for those who follow the changes.
pub const BYTES_WRITTEN_MAX: usize = 8 << 20;
/// Bytes of a key: a role's name of 255 characters of 4 bytes each stands in one, after its workspace.
pub const KEY_BYTES_MAX: usize = 2 << 10;
/// Bytes of a value.
pub const VALUE_BYTES_MAX: usize = 2 << 20;

/// Rows and their new values; a row without one is deleted.
pub(super) type Writes = BTreeMap<Bytes, Option<Bytes>>;

/// How an engine reads one point of its newest state.
pub(super) type Read<'a> = dyn FnMut(&[u8]) -> Result<Option<Bytes>, Stop> + 'a;

/// What a body reads from and writes to.
///
/// Keys must not be empty nor start with [`RESERVED_TAG`](super::RESERVED_TAG): such a key is a fault of the program
/// and panics, which loses this transaction and nothing else.
pub struct Txn<'a> {
    revision: Revision,
    read: &'a mut Read<'a>,
    points: BTreeMap<Bytes, Option<Bytes>>,
    writes: Writes,
    bytes: usize,
    stopped: Option<Stop>,
}

impl Txn<'_> {
    /// The revision that this transaction will have if it commits.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The value of a row, as this transaction has left it so far.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, Stop> {
        self.admit(key)?;
        if let Some(value) = self.writes.get(key).or_else(|| self.points.get(key)) {
            return Ok(value.clone());
        }
        if self.points.len() == POINTS_READ_MAX {
            return Err(self.refuse("points read in a transaction", POINTS_READ_MAX));
        }
        match (self.read)(key) {
            Ok(value) => {
                self.points.insert(Bytes::copy_from_slice(key), value.clone());
                Ok(value)
            }
            Err(stop) => Err(self.stop(stop)),
        }
    }

    /// Gives a row a value.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), Stop> {
        let value = value.into();
        if value.len() > VALUE_BYTES_MAX {
            return Err(self.refuse("bytes in a value", VALUE_BYTES_MAX));
        }
        self.write(key.into(), Some(value))
    }

    /// Takes a row away; one that is not there stays so.
    pub fn delete(&mut self, key: impl Into<Bytes>) -> Result<(), Stop> {
        self.write(key.into(), None)
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), Stop> {
        self.admit(&key)?;
        let replaced = self.writes.get(&key);
        if replaced.is_none() && self.writes.len() == ROWS_WRITTEN_MAX {
            return Err(self.refuse("rows written in a transaction", ROWS_WRITTEN_MAX));
        }
        let freed = replaced.map_or(0, |value| size(&key, value.as_ref()));
        let bytes = self.bytes - freed + size(&key, value.as_ref());
        if bytes > BYTES_WRITTEN_MAX {
            return Err(self.refuse("bytes written in a transaction", BYTES_WRITTEN_MAX));
        }
        self.bytes = bytes;
        self.writes.insert(key, value);
        Ok(())
    }

    fn admit(&mut self, key: &[u8]) -> Result<(), Stop> {
        assert!(!reserved(key), "a key must not be empty nor start with the engine's own tag");
        if let Some(stop) = &self.stopped {
            return Err(stop.clone());
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(self.refuse("bytes in a key", KEY_BYTES_MAX));
        }
        Ok(())
    }

    fn refuse(&mut self, what: &'static str, limit: usize) -> Stop {
        self.stop(Stop::Fail(Failure::TooLarge { what, limit }))
    }

    fn stop(&mut self, stop: Stop) -> Stop {
        self.stopped.get_or_insert(stop).clone()
    }
}

fn size(key: &Bytes, value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, Bytes::len)
}

/// Runs a body once. Answers what it leaves behind, which is nothing if it discards.
pub(super) fn run(body: &mut Body, revision: Revision, read: &mut Read<'_>) -> Result<(Decision, Writes), Stop> {
    let mut read = |key: &[u8]| read(key);
    let mut txn =
        Txn { revision, read: &mut read, points: BTreeMap::new(), writes: Writes::new(), bytes: 0, stopped: None };
    // Nothing that the body touched is looked at again after a panic, except what it captured itself.
    let ended = catch_unwind(AssertUnwindSafe(|| body(&mut txn))).map_err(|_| Failure::Panicked)?;
    if let Some(stop) = txn.stopped {
        return Err(stop);
    }
    match ended? {
        Decision::Commit => Ok((Decision::Commit, txn.writes)),
        Decision::Discard => Ok((Decision::Discard, Writes::new())),
    }
}
