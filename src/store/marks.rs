//! What keeps remembered records honest: for each row, the last revision that may have changed it.
//!
//! A commit raises the mark of every row that it changes to its own revision **before** it can be seen, and the mark stays
//! up if the commit fails. Whoever remembers a record remembers with it the revision of the view that it was read from; it
//! counts only while that is not below the mark. So a slow reader who raced a change holds a record that is stale when it
//! lands: there is no window in between, and no lock.
//!
//! Rows share marks by the checksum of their keys. Sharing costs a needless look at the store now and then, and is never
//! wrong; rows that change with each use have marks of their own, so that what is changed seldom need not be read anew for
//! them. A row that did not exist before raises no mark, because that something is absent is never remembered.

use super::bringing::bring;
use super::sync::{AtomicU64, Ordering};

/// How many marks there are for rows that change seldom, and as many for those that change often: two megabytes each.
pub const MARKS: u32 = 1 << 18;

/// The marks of a store, and the newest revision that anybody may be told of.
pub struct Marks {
    head: AtomicU64,
    /// Those of rows that change seldom, then those of the others.
    marks: Box<[AtomicU64]>,
    of_either: u32,
}

/// Which mark a row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot(u32);

impl Marks {
    /// So many marks for rows of either kind, all down, for a store whose newest commit is this one.
    pub fn new(head: u64, of_either: u32) -> Self {
        let marks = (0..2 * u64::from(of_either)).map(|_| AtomicU64::new(0)).collect();
        Self { head: AtomicU64::new(head), marks, of_either }
    }

    /// Where the row with this key has its mark, if it changes seldom.
    pub fn spot(&self, key: &[u8]) -> Spot {
        Spot(crc32fast::hash(key) % self.of_either)
    }

    /// The same for a row that changes often.
    pub fn spot_of_many_changes(&self, key: &[u8]) -> Spot {
        Spot(self.of_either + crc32fast::hash(key) % self.of_either)
    }

    /// Says that the commit of this revision, which nobody can see yet, changes the row.
    pub fn raise(&self, spot: Spot, revision: u64) {
        self.mark(spot).fetch_max(revision, Ordering::SeqCst);
    }

    /// Says that anything may have changed up to this revision.
    pub fn raise_all(&self, revision: u64) {
        for mark in &self.marks {
            mark.fetch_max(revision, Ordering::SeqCst);
        }
    }

    /// Whether what a view of this revision showed of the row is what every commit up to the head has left of it.
    pub fn holds(&self, spot: Spot, revision: u64) -> bool {
        revision >= self.mark(spot).load(Ordering::SeqCst)
    }

    /// Brings the mark at a spot from memory.
    pub fn bring(&self, spot: Spot) {
        bring(self.mark(spot));
    }

    /// Says that everything up to this revision is durable and can be seen.
    pub fn reach(&self, revision: u64) {
        self.head.fetch_max(revision, Ordering::SeqCst);
    }

    /// The newest revision that is durable and can be seen.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    fn mark(&self, spot: Spot) -> &AtomicU64 {
        &self.marks[spot.0 as usize]
    }
}
