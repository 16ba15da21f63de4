//! Records that have been read before, decoded, within bounded memory.
//!
//! Only records: what they add up to is worked out for every question anew. Whether one still counts is for the
//! [`Marks`] to say, each time.

use std::any::Any;
use std::sync::Arc;

use bytes::BufMut;
use quick_cache::Weighter;

use crate::domain::id::WorkspaceId;
use crate::domain::secret::Digest;
use crate::metrics::Counters;

use super::marks::{Marks, Spot};
use super::tables;

/// Bytes of the longest key under which a record is remembered: a tag, then a workspace and an id, or a digest.
const PLACE_LENGTH: usize = 1 + 32;
/// What a record costs besides its own size: its place, the entry, and their share of the tables.
const OVERHEAD: usize = 136;
/// What a record is taken to weigh when the tables are first laid out.
const TYPICAL_WEIGHT: u64 = 300;

/// The key of a row, as a value of fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place([u8; PLACE_LENGTH]);

impl Place {
    /// The place of a row whose key has at most so many bytes. `write` puts them there.
    pub(super) fn new(write: impl FnOnce(&mut &mut [u8])) -> (Self, usize) {
        let mut bytes = [0; PLACE_LENGTH];
        let mut room = bytes.as_mut_slice();
        write(&mut room);
        let left = room.len();
        (Self(bytes), PLACE_LENGTH - left)
    }

    /// Of the key that secrets of this digest lead to. Half of it will do: nobody meets 128 bits on purpose.
    pub fn of_key(home: WorkspaceId, digest: Digest) -> Self {
        let write = |room: &mut &mut [u8]| {
            room.put_u8(tables::KEY_DIGESTS.tag());
            room.put_slice(&home.bytes());
            room.put_slice(&digest.bytes()[..16]);
        };
        Self::new(write).0
    }

    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        &self.0[..length]
    }
}

/// A record and the state that it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Entry<R> {
    /// The record.
    pub record: R,
    /// Where the mark of its row is.
    pub spot: Spot,
    /// The revision of the view that it was read from, or of the commit that left it so.
    pub revision: u64,
}

impl<R> Entry<R> {
    /// Whether it still counts.
    pub fn holds(&self, marks: &Marks) -> bool {
        marks.holds(self.spot, self.revision)
    }
}

/// Remembered records of all kinds.
pub struct Cache {
    marks: Arc<Marks>,
    entries: quick_cache::sync::Cache<Place, Kept, ByWeight>,
    /// Hits and misses.
    asked: Counters<2>,
}

#[derive(Clone)]
struct Kept {
    entry: Arc<dyn Any + Send + Sync>,
    weight: u32,
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<Place, Kept> for ByWeight {
    fn weight(&self, _: &Place, kept: &Kept) -> u64 {
        u64::from(kept.weight)
    }
}

impl Cache {
    /// An empty one that takes at most so many bytes.
    pub fn new(marks: Arc<Marks>, bytes: u64) -> Self {
        let items = usize::try_from(bytes / TYPICAL_WEIGHT).unwrap_or(usize::MAX);
        let entries = quick_cache::sync::Cache::with_weighter(items, bytes, ByWeight);
        Self { marks, entries, asked: Counters::default() }
    }

    /// The record of a row, if it is remembered and still counts.
    pub fn get<R: Send + Sync + 'static>(&self, place: &Place) -> Option<Arc<Entry<R>>> {
        let found = self.entries.get(place).and_then(|kept| kept.entry.downcast::<Entry<R>>().ok());
        found.filter(|entry| entry.holds(&self.marks))
    }

    /// Remembers a record that has so many bytes besides its own size. Whether it still counts is seen when it is asked
    /// for.
    pub fn put<R: Send + Sync + 'static>(&self, place: Place, entry: Entry<R>, heap: usize) -> Arc<Entry<R>> {
        let weight = u32::try_from(OVERHEAD + size_of::<Entry<R>>() + heap).unwrap_or(u32::MAX);
        let entry = Arc::new(entry);
        self.entries.insert(place, Kept { entry: Arc::<Entry<R>>::clone(&entry), weight });
        entry
    }

    /// It takes at most so many bytes from now on, or a little more or less.
    pub fn set_capacity(&self, bytes: u64) {
        // Each time it forgets some of what it knew of those that it has let go of.
        if bytes.abs_diff(self.entries.capacity()) > bytes / 64 {
            self.entries.set_capacity(bytes);
        }
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> u64 {
        self.entries.weight()
    }

    /// The marks that decide what counts.
    pub fn marks(&self) -> &Arc<Marks> {
        &self.marks
    }

    /// Counts how many records somebody asked for were remembered, and how many had to be read.
    pub fn count(&self, hits: u64, misses: u64) {
        self.asked.add(0, hits);
        self.asked.add(1, misses);
    }

    /// How many there have been of both.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        self.asked.read().into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::marks::MARKS;
    use super::*;

    fn place(number: u64) -> Place {
        Place::new(|room| bytes::BufMut::put_u64(room, number)).0
    }

    fn cache(bytes: u64) -> Cache {
        Cache::new(Arc::new(Marks::new(0, MARKS)), bytes)
    }

    #[test]
    fn however_much_is_remembered_it_stays_within_its_bytes() {
        let cache = cache(100_000);
        let spot = cache.marks().spot(b"row");
        for number in 0..10_000_u64 {
            cache.put(place(number), Entry { record: number, spot, revision: 0 }, 100);
            assert!(cache.entries.weight() <= 100_000);
        }
        let kept = (0..10_000).filter(|number| cache.get::<u64>(&place(*number)).is_some()).count();
        assert!((100..1_000).contains(&kept), "{kept}");
    }

    #[test]
    fn a_record_counts_until_its_mark_is_above_it() {
        let cache = cache(100_000);
        let spot = cache.marks().spot(b"row");
        cache.put(place(1), Entry { record: "old", spot, revision: 4 }, 0);
        cache.marks().raise(spot, 4);
        assert_eq!(cache.get::<&str>(&place(1)).map(|entry| entry.record), Some("old"));
        cache.marks().raise(spot, 5);
        assert!(cache.get::<&str>(&place(1)).is_none());
        cache.put(place(1), Entry { record: "new", spot, revision: 5 }, 0);
        assert_eq!(cache.get::<&str>(&place(1)).map(|entry| entry.record), Some("new"));
        assert!(cache.get::<u64>(&place(1)).is_none(), "a record of another kind is none");
    }
}
