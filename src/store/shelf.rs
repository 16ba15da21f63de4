//! Records of one kind that are asked for by the million, within bounded memory.
//!
//! Like a [`Cache`](super::cache::Cache), but a record is found by looking at one place in an open table and then at the
//! record itself, and both can be asked for beforehand: whoever wants many does not wait for main memory once for each step
//! of each. No library's map tells where it is going to look.
//!
//! Whether a record still counts is for the [`Marks`] to say, each time.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use parking_lot::{Mutex, MutexGuard};

use super::bringing::bring;
use super::cache::{Entry, Place};
use super::marks::Marks;

/// Parts with a lock of their own.
const SHARDS: usize = 256;
/// What a record costs besides its own size: on average its share of the table, which is three eighths to three quarters
/// full, the counts of those who hold on to it, and what the allocator rounds up.
const OVERHEAD: usize = 64;
/// Places that a part has at first.
const AT_FIRST: usize = 16;
/// Weights are counted in pieces of so many bytes.
const PIECE: usize = 16;

/// A record that knows where it is remembered.
pub trait Placed {
    /// Whether it is remembered at this place.
    fn is_at(&self, place: &Place) -> bool;

    /// [Brings](bring) all of it from memory.
    fn bring(&self);
}

/// Remembered records.
pub struct Shelf<R> {
    marks: Arc<Marks>,
    /// Seeded: whoever chooses what is remembered does not choose where it comes to lie.
    hasher: RandomState,
    shards: Box<[Mutex<Shard<R>>]>,
    /// What those of one part may weigh, in pieces.
    most: AtomicUsize,
}

/// What is looked for.
pub struct Sought {
    place: Place,
    hash: u64,
}

struct Shard<R> {
    /// A record lies at the place that its hash names, or behind it with no gap between. As many as a power of two.
    slots: Vec<Option<Slot<R>>>,
    taken: usize,
    weight: usize,
    /// Who is looked at next when somebody has to go.
    hand: usize,
}

struct Slot<R> {
    hash: u32,
    weight: u16,
    /// Whether it has been asked for since the hand came by.
    asked: bool,
    entry: Arc<Entry<R>>,
}

/// What those of one part may weigh if all together may take so many bytes.
fn of_one_part(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX) / SHARDS / PIECE
}

impl<R> Default for Shard<R> {
    fn default() -> Self {
        Self { slots: Vec::new(), taken: 0, weight: 0, hand: 0 }
    }
}

impl<R: Placed> Shelf<R> {
    /// An empty one that takes at most so many bytes.
    pub fn new(marks: Arc<Marks>, bytes: u64) -> Self {
        Self {
            marks,
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most: AtomicUsize::new(of_one_part(bytes)),
        }
    }

    /// It takes at most so many bytes from now on.
    pub fn set_capacity(&self, bytes: u64) {
        let most = of_one_part(bytes);
        self.most.store(most, Ordering::Relaxed);
        for shard in &self.shards {
            let gone = shard.lock().make_room(0, most);
            drop(gone);
        }
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> u64 {
        self.shards.iter().map(|shard| (PIECE * shard.lock().weight) as u64).sum()
    }

    /// Begins to look for the record of a place.
    pub fn seek(&self, place: Place) -> Sought {
        Sought { hash: self.hasher.hash_one(place), place }
    }

    /// Asks for the part of the table where it would be.
    pub fn bring_slot(&self, sought: &Sought) {
        let shard = self.shard(sought);
        if let Some(slot) = shard.slots.get(shard.home(sought.short())) {
            bring(slot);
        }
    }

    /// Asks for the record itself.
    pub fn bring_entry(&self, sought: &Sought) {
        let shard = self.shard(sought);
        shard.alike(sought.short()).for_each(|(_, slot)| slot.bring());
    }

    /// The record, if it is remembered, whether or not it still counts, and asks for its mark, which says so.
    pub fn take(&self, sought: &Sought) -> Option<Arc<Entry<R>>> {
        let mut shard = self.shard(sought);
        let at = shard.position(sought)?;
        let slot = shard.slots[at].as_mut()?;
        slot.asked = true;
        self.marks.bring(slot.entry.spot);
        Some(Arc::clone(&slot.entry))
    }

    /// The record, if it is remembered and still counts.
    pub fn get(&self, sought: &Sought) -> Option<Arc<Entry<R>>> {
        let mut shard = self.shard(sought);
        let at = shard.position(sought)?;
        let slot = shard.slots[at].as_mut()?;
        // What counts no longer is nobody's to keep.
        let holds = slot.entry.holds(&self.marks);
        slot.asked |= holds;
        holds.then(|| Arc::clone(&slot.entry))
    }

    /// Forgets a record that no longer counts.
    pub fn let_go(&self, sought: &Sought, entry: &Arc<Entry<R>>) {
        let mut shard = self.shard(sought);
        let at = shard.position(sought);
        let it = at.filter(|at| shard.slots[*at].as_ref().is_some_and(|slot| Arc::ptr_eq(&slot.entry, entry)));
        let gone = it.and_then(|at| shard.take(at));
        drop(shard);
        drop(gone);
    }

    /// Remembers a record that has so many bytes besides its own size. Whether it still counts is seen when it is asked
    /// for.
    pub fn put(&self, sought: &Sought, entry: Entry<R>, heap: usize) -> Arc<Entry<R>> {
        let pieces = (OVERHEAD + size_of::<Entry<R>>() + heap).div_ceil(PIECE);
        let entry = Arc::new(entry);
        let Ok(weight) = u16::try_from(pieces) else { return entry };
        let slot = Slot { hash: sought.short(), weight, asked: false, entry: Arc::clone(&entry) };
        let most = self.most.load(Ordering::Relaxed);
        if pieces > most {
            return entry;
        }
        let mut shard = self.shard(sought);
        let before = shard.position(sought).and_then(|at| shard.take(at));
        let gone = shard.make_room(pieces, most);
        shard.add(slot);
        // They are let go of once nobody waits for it.
        drop(shard);
        drop((before, gone));
        entry
    }

    fn shard(&self, sought: &Sought) -> MutexGuard<'_, Shard<R>> {
        let number = usize::from(sought.hash.to_be_bytes()[0]);
        self.shards[number % SHARDS].lock()
    }
}

impl<R: Placed> Slot<R> {
    fn bring(&self) {
        bring(&self.entry.revision);
        self.entry.record.bring();
    }
}

impl Sought {
    /// What is kept of the hash. The part of the table is not chosen by these bits.
    fn short(&self) -> u32 {
        let [.., a, b, c, d] = self.hash.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

impl<R> Shard<R> {
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    /// Where a record with this hash would lie if it were alone.
    fn home(&self, hash: u32) -> usize {
        hash as usize & self.mask()
    }

    /// Those that may be meant, with where they lie.
    fn alike(&self, hash: u32) -> impl Iterator<Item = (usize, &Slot<R>)> {
        let (home, mask) = (self.home(hash), self.mask());
        (0..self.slots.len())
            .map(move |step| (home + step) & mask)
            .map_while(|at| Some((at, self.slots[at].as_ref()?)))
            .filter(move |(_, slot)| slot.hash == hash)
    }

    fn position(&self, sought: &Sought) -> Option<usize>
    where
        R: Placed,
    {
        let is_it = |slot: &Slot<R>| {
            slot.bring();
            slot.entry.record.is_at(&sought.place)
        };
        self.alike(sought.short()).find(|(_, slot)| is_it(slot)).map(|(at, _)| at)
    }

    /// Who has not been asked for the longest, roughly.
    fn least_wanted(&mut self) -> Option<usize> {
        if self.taken == 0 {
            return None;
        }
        loop {
            let at = self.hand & self.mask();
            match &mut self.slots[at] {
                Some(slot) if !slot.asked => return Some(at),
                Some(slot) => slot.asked = false,
                None => {}
            }
            self.hand = at + 1;
        }
    }

    /// Takes out as many as it takes for so much more to be no more than the most.
    fn make_room(&mut self, more: usize, most: usize) -> Vec<Slot<R>> {
        let mut gone = Vec::new();
        while self.weight + more > most
            && let Some(least) = self.least_wanted()
        {
            gone.extend(self.take(least));
        }
        gone
    }

    fn add(&mut self, slot: Slot<R>) {
        if (self.taken + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.taken += 1;
        self.weight += usize::from(slot.weight);
        self.lay(slot);
    }

    fn lay(&mut self, slot: Slot<R>) {
        let mask = self.mask();
        let mut at = self.home(slot.hash);
        while self.slots[at].is_some() {
            at = (at + 1) & mask;
        }
        self.slots[at] = Some(slot);
    }

    fn grow(&mut self) {
        let room = AT_FIRST.max(2 * self.slots.len());
        let before = std::mem::replace(&mut self.slots, std::iter::repeat_with(|| None).take(room).collect());
        before.into_iter().flatten().for_each(|slot| self.lay(slot));
    }

    /// Takes one out and closes the gap.
    fn take(&mut self, at: usize) -> Option<Slot<R>> {
        let mask = self.mask();
        let taken = self.slots[at].take()?;
        self.taken -= 1;
        self.weight -= usize::from(taken.weight);
        let (mut gap, mut next) = (at, (at + 1) & mask);
        while let Some(slot) = &self.slots[next] {
            let from_home = next.wrapping_sub(self.home(slot.hash)) & mask;
            let from_gap = next.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                self.slots.swap(gap, next);
                gap = next;
            }
            next = (next + 1) & mask;
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::marks::MARKS;
    use super::*;

    #[derive(Debug)]
    struct Note {
        place: Place,
        text: u64,
    }

    impl Placed for Note {
        fn is_at(&self, place: &Place) -> bool {
            self.place == *place
        }

        fn bring(&self) {
            bring(self);
        }
    }

    fn place(number: u64) -> Place {
        Place::new(|room| bytes::BufMut::put_u64(room, number)).0
    }

    fn shelf(bytes: u64) -> Shelf<Note> {
        Shelf::new(Arc::new(Marks::new(0, MARKS)), bytes)
    }

    fn put(shelf: &Shelf<Note>, number: u64, text: u64, revision: u64) {
        let spot = shelf.marks.spot(b"row");
        let record = Note { place: place(number), text };
        shelf.put(&shelf.seek(place(number)), Entry { record, spot, revision }, 0);
    }

    fn get(shelf: &Shelf<Note>, number: u64) -> Option<u64> {
        shelf.get(&shelf.seek(place(number))).map(|entry| entry.record.text)
    }

    #[test]
    fn however_much_is_remembered_it_stays_within_its_bytes() {
        let shelf = shelf(1_000_000);
        for number in 0..50_000 {
            put(&shelf, number, number, 0);
        }
        assert!(shelf.weight() <= 1_000_000);
        let kept = (0..50_000).filter(|number| get(&shelf, *number) == Some(*number)).count();
        assert!((5_000..10_000).contains(&kept), "{kept}");
        let taken: usize = shelf.shards.iter().map(|shard| shard.lock().taken).sum();
        assert_eq!(taken, kept);
    }

    #[test]
    fn what_is_asked_for_stays_while_others_come_and_go() {
        let shelf = shelf(1_000_000);
        for number in 0..100 {
            put(&shelf, number, number, 0);
        }
        for number in 100..50_000 {
            put(&shelf, number, number, 0);
            assert_eq!(get(&shelf, number % 100), Some(number % 100));
        }
    }

    #[test]
    fn a_record_counts_until_its_mark_is_above_it() {
        let shelf = shelf(1_000_000);
        put(&shelf, 1, 10, 4);
        let spot = shelf.marks.spot(b"row");
        shelf.marks.raise(spot, 4);
        assert_eq!(get(&shelf, 1), Some(10));
        shelf.marks.raise(spot, 5);
        assert_eq!(get(&shelf, 1), None);
        put(&shelf, 1, 11, 5);
        assert_eq!(get(&shelf, 1), Some(11), "the later one has replaced it");
        assert_eq!(get(&shelf, 2), None);
    }

    #[test]
    fn a_record_is_taken_whether_or_not_it_counts_and_let_go_unless_another_has_replaced_it() {
        let shelf = shelf(1_000_000);
        let sought = shelf.seek(place(1));
        assert!(shelf.take(&sought).is_none());
        put(&shelf, 1, 10, 4);
        shelf.marks.raise(shelf.marks.spot(b"row"), 5);
        let stale = shelf.take(&sought).unwrap();
        assert_eq!((stale.record.text, stale.holds(&shelf.marks)), (10, false));
        put(&shelf, 1, 11, 5);
        shelf.let_go(&sought, &stale);
        assert_eq!(get(&shelf, 1), Some(11));
        let newer = shelf.take(&sought).unwrap();
        shelf.let_go(&sought, &newer);
        assert!(shelf.take(&sought).is_none());
        assert_eq!(shelf.weight(), 0);
    }

    #[test]
    fn less_room_is_kept_to_at_once() {
        let shelf = shelf(1_000_000);
        for number in 0..50_000 {
            put(&shelf, number, number, 0);
        }
        shelf.set_capacity(500_000);
        assert!((300_000..=500_000).contains(&shelf.weight()), "{}", shelf.weight());
        for number in 50_000..60_000 {
            put(&shelf, number, number, 0);
            assert_eq!(get(&shelf, number), Some(number));
        }
        assert!((300_000..=500_000).contains(&shelf.weight()), "{}", shelf.weight());
    }

    #[test]
    fn what_is_too_heavy_is_not_remembered() {
        let shelf = shelf(10_000);
        put(&shelf, 1, 1, 0);
        assert_eq!((get(&shelf, 1), shelf.weight()), (None, 0));
        let spot = shelf.marks.spot(b"row");
        let entry = Entry { record: Note { place: place(1), text: 1 }, spot, revision: 0 };
        let kept = shelf.put(&shelf.seek(place(1)), entry, usize::MAX / 2);
        assert_eq!((kept.record.text, shelf.weight()), (1, 0));
    }

    proptest! {
        /// With few different hashes, so that records lie far from where they belong, and around the end.
        #[test]
        fn a_part_finds_what_was_put_into_it_whatever_was_taken_out(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..40), 1..200),
        ) {
            let mut shard: Shard<Note> = Shard::default();
            let mut model = HashMap::new();
            let marks = Marks::new(0, MARKS);
            let sought = |number: u64| Sought { place: place(number), hash: number % 7 + 12 };
            for (step, (add, number)) in steps.into_iter().enumerate() {
                let known = shard.position(&sought(number));
                prop_assert_eq!(known.is_some(), model.contains_key(&number));
                if let Some(at) = known {
                    let slot = shard.take(at);
                    let text = slot.map(|slot| slot.entry.record.text);
                    prop_assert_eq!(text, model.remove(&number));
                }
                if add {
                    let record = Note { place: place(number), text: step as u64 };
                    let entry = Arc::new(Entry { record, spot: marks.spot(b"row"), revision: 0 });
                    shard.add(Slot { hash: sought(number).short(), weight: 1, asked: false, entry });
                    model.insert(number, step as u64);
                }
                prop_assert_eq!((shard.taken, shard.weight), (model.len(), model.len()));
            }
            for number in model.keys() {
                prop_assert!(shard.position(&sought(*number)).is_some());
            }
        }
    }
}
