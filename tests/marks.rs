//! The marks under every interleaving: whoever begins after a change was acknowledged never believes what was before.
//!
//! The source of the marks is compiled here once more, with the atomics of a model checker in place of the real ones.

#[path = "../src/store/marks.rs"]
#[allow(dead_code, missing_docs)]
mod marks;

/// Of memory that is brought nothing can be seen.
mod bringing {
    pub fn bring<T>(_: &T) {}
}

mod sync {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}

use loom::sync::{Arc, Mutex};
use loom::thread;
use marks::Marks;

/// A store of two rows that always change together, and what is remembered of them.
struct House {
    marks: Marks,
    /// The revision that views show, and with it the value of both rows.
    shown: Mutex<u64>,
    /// Per row what is remembered: the value, and the revision of the view that it was read from.
    remembered: [Mutex<Option<(u64, u64)>>; 2],
}

const KEYS: [&[u8]; 2] = [b"one", b"other"];

/// In which order a commit goes about it.
#[derive(Clone, Copy)]
enum Order {
    MarksFirst,
    /// Wrong: for a moment the change can be seen while what is remembered still counts.
    MarksLast,
}

impl House {
    fn new() -> Self {
        Self { marks: Marks::new(0, 8), shown: Mutex::new(0), remembered: [Mutex::new(None), Mutex::new(None)] }
    }

    /// Commits revision `to`: from its return on it is acknowledged.
    fn commit(&self, to: u64, order: Order) {
        let raise = || KEYS.iter().for_each(|key| self.marks.raise(self.marks.spot(key), to));
        let show = || *self.shown.lock().unwrap() = to;
        match order {
            Order::MarksFirst => {
                raise();
                show();
            }
            Order::MarksLast => {
                show();
                raise();
            }
        }
        self.marks.reach(to);
    }

    /// Both rows, as `service::sight` looks at them: remembered ones first, the marks once more at the end, and a single
    /// view if they moved.
    fn look(&self) -> [u64; 2] {
        let mut seen = Vec::new();
        for (row, key) in KEYS.iter().enumerate() {
            let spot = self.marks.spot(key);
            let remembered = *self.remembered[row].lock().unwrap();
            let (value, revision) = match remembered.filter(|(_, revision)| self.marks.holds(spot, *revision)) {
                Some(entry) => entry,
                None => {
                    let shown = *self.shown.lock().unwrap();
                    *self.remembered[row].lock().unwrap() = Some((shown, shown));
                    (shown, shown)
                }
            };
            seen.push((value, spot, revision));
        }
        if seen.iter().all(|(_, spot, revision)| self.marks.holds(*spot, *revision)) {
            return [seen[0].0, seen[1].0];
        }
        let shown = *self.shown.lock().unwrap();
        [shown, shown]
    }
}

/// Two who look race one who commits. Says whether anybody saw something stale or torn.
fn race(order: Order) {
    loom::model(move || {
        let house = Arc::new(House::new());
        // Somebody has looked before: the one is remembered, the other not any more.
        assert_eq!(house.look(), [0, 0]);
        *house.remembered[1].lock().unwrap() = None;
        let acknowledged = Arc::new(Mutex::new(0));
        let committer = {
            let (house, acknowledged) = (Arc::clone(&house), Arc::clone(&acknowledged));
            thread::spawn(move || {
                house.commit(1, order);
                *acknowledged.lock().unwrap() = 1;
            })
        };
        let looker = {
            let (house, acknowledged) = (Arc::clone(&house), Arc::clone(&acknowledged));
            thread::spawn(move || {
                let least = *acknowledged.lock().unwrap();
                let [one, other] = house.look();
                assert_eq!(one, other, "torn");
                assert!(one >= least, "stale");
            })
        };
        committer.join().unwrap();
        looker.join().unwrap();
        assert_eq!(house.look(), [1, 1], "stale at the end");
    });
}

#[test]
fn nobody_sees_two_states_at_once_or_one_from_before_an_acknowledgement() {
    race(Order::MarksFirst);
}

#[test]
#[should_panic(expected = "torn")]
fn marks_that_are_raised_too_late_are_found_out() {
    race(Order::MarksLast);
}
