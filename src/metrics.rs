//! Numbers that are counted while calls are answered, for whoever watches the server. They know nothing of what they
//! count.
//!
//! What every call counts is kept apart by thread: each adds in cache lines of its own, so that no core waits for another,
//! and whoever reads adds them up. What is read is at most a moment old and never counts anything twice.

use std::array;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Sets of cells for each core. More than threads that count often, so that hardly ever two of them share one.
const SETS_PER_CORE: usize = 4;
/// Sets of cells at most.
const SETS_MAX: usize = 256;

/// How many durations are told apart, those that are longer than all bounds included.
pub const BUCKETS: usize = BOUNDS.len() + 1;
/// Up to where durations are told apart: those of verifications at the beginning, those of commits on slow disks at the
/// end.
pub const BOUNDS: [Duration; 14] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// Threads that have counted anything.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which of them this one is, once it is one.
    static THREAD: Cell<Option<usize>> = const { Cell::new(None) };
}

fn thread_number() -> usize {
    THREAD.get().unwrap_or_else(|| {
        let number = THREADS.fetch_add(1, Ordering::Relaxed);
        THREAD.set(Some(number));
        number
    })
}

/// One for each thread that counts.
struct PerThread<T>(Box<[Apart<T>]>);

/// Alone in its cache lines.
#[repr(align(128))]
struct Apart<T>(T);

impl<T> PerThread<T> {
    fn new(make: impl Fn() -> T) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let sets = (cores * SETS_PER_CORE).next_power_of_two().min(SETS_MAX);
        Self((0..sets).map(|_| Apart(make())).collect())
    }

    /// That of the thread that asks.
    fn own(&self) -> &T {
        &self.0[thread_number() & (self.0.len() - 1)].0
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|apart| &apart.0)
    }
}

/// So many counters of things that happen again and again.
pub struct Counters<const N: usize>(PerThread<[AtomicU64; N]>);

impl<const N: usize> Counters<N> {
    /// Counts one of them on by so many.
    pub fn add(&self, counter: usize, more: u64) {
        if more > 0 {
            self.0.own()[counter].fetch_add(more, Ordering::Relaxed);
        }
    }

    /// How far each of them is.
    pub fn read(&self) -> [u64; N] {
        array::from_fn(|counter| self.0.all().map(|cells| cells[counter].load(Ordering::Relaxed)).sum())
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(PerThread::new(|| array::from_fn(|_| AtomicU64::new(0))))
    }
}

/// How long things take, of so many kinds. A kind takes memory once it has happened.
pub struct Durations {
    kinds: usize,
    cells: PerThread<OnceLock<Kinds>>,
}

/// The cells of each kind that has happened.
type Kinds = Box<[OnceLock<Box<Cells>>]>;

/// How often something took how long. Two cache lines.
#[repr(align(128))]
#[derive(Default)]
struct Cells {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

/// How often something took how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distribution {
    /// How often not longer than each of [`BOUNDS`] and longer than the one before; then how often longer than the last.
    pub buckets: [u64; BUCKETS],
    /// All together.
    pub total: Duration,
}

impl Durations {
    /// Of so many kinds.
    pub fn new(kinds: usize) -> Self {
        Self { kinds, cells: PerThread::new(OnceLock::new) }
    }

    /// Counts something of a kind that took so long.
    pub fn add(&self, kind: usize, took: Duration) {
        let kinds = self.cells.own().get_or_init(|| (0..self.kinds).map(|_| OnceLock::new()).collect());
        let Some(cells) = kinds.get(kind) else { return };
        let cells = cells.get_or_init(Box::default);
        let bucket = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        cells.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        cells.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Those kinds that have happened.
    pub fn read(&self) -> Vec<(usize, Distribution)> {
        (0..self.kinds).filter_map(|kind| Some((kind, self.of(kind)?))).collect()
    }

    fn of(&self, kind: usize) -> Option<Distribution> {
        let mut sum: Option<Distribution> = None;
        for cells in self.cells.all().filter_map(|kinds| kinds.get()?[kind].get()) {
            let sum = sum.get_or_insert(Distribution { buckets: [0; BUCKETS], total: Duration::ZERO });
            for (sum, cell) in sum.buckets.iter_mut().zip(&cells.buckets) {
                *sum += cell.load(Ordering::Relaxed);
            }
            sum.total += Duration::from_nanos(cells.nanos.load(Ordering::Relaxed));
        }
        sum
    }
}

impl Distribution {
    /// How often it happened.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_at_once_is_all_counted() {
        let (counters, durations) = (Counters::<2>::default(), Durations::new(3));
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        counters.add(1, 2);
                        durations.add(2, Duration::from_micros(3));
                    }
                });
            }
        });
        assert_eq!(counters.read(), [0, 40_000]);
        let [(kind, distribution)] = durations.read()[..] else { panic!("one kind has happened") };
        assert_eq!((kind, distribution.count(), distribution.total), (2, 20_000, Duration::from_millis(60)));
    }

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_pass() {
        let durations = Durations::new(1);
        for (took, bucket) in [
            (Duration::ZERO, 0),
            (BOUNDS[0], 0),
            (BOUNDS[0] + Duration::from_nanos(1), 1),
            (BOUNDS[13], 13),
            (BOUNDS[13] * 2, BOUNDS.len()),
        ] {
            let before = durations.of(0).map_or(0, |distribution| distribution.buckets[bucket]);
            durations.add(0, took);
            assert_eq!(durations.of(0).unwrap().buckets[bucket], before + 1, "{took:?}");
        }
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn a_kind_that_there_is_not_is_not_counted() {
        let durations = Durations::new(1);
        durations.add(1, Duration::ZERO);
        assert_eq!(durations.read(), []);
    }
}
