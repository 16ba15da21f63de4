//! A sliding window: how often something may happen in any span of a given length.
//!
//! Two neighbouring windows stand for the sliding one. What happened in the previous one counts by the part of it that
//! the sliding window still covers: `current + floor(previous × (1 − elapsed)) + cost ≤ limit`.

use std::time::Duration;

use super::time::Timestamp;

/// What has happened, in the window that began last and in the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// The number of the current window, counted from 1970.
    number: u64,
    current: u64,
    previous: u64,
}

/// The answer to whether something may happen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Admitted {
        /// How much more may follow at once.
        left: u64,
        /// How long until all of the limit is free again, if nothing else happens meanwhile.
        whole_after: Duration,
    },
    /// It may not.
    Refused {
        /// How much would fit instead.
        left: u64,
        /// How long until it fits, if nothing else happens meanwhile; none if it is more than the limit ever lets
        /// through.
        retry_after: Option<Duration>,
    },
}

impl Window {
    /// A window in which this has happened, for a span of which this number is the current one.
    pub const fn new(number: u64, current: u64, previous: u64) -> Self {
        Self { number, current, previous }
    }

    /// Its number, what has happened in it, and what happened in the one before.
    pub const fn parts(self) -> (u64, u64, u64) {
        (self.number, self.current, self.previous)
    }

    /// Counts `cost` if it fits within `limit` in any span of this length; else nothing.
    ///
    /// The span is at least a millisecond long.
    pub fn admit(&mut self, now: Timestamp, span: Duration, limit: u64, cost: u64) -> Admission {
        let admission = self.admission(now, span, limit, cost);
        if matches!(admission, Admission::Admitted { .. }) {
            self.count(now, span, cost);
        }
        admission
    }

    /// Whether `cost` fits within `limit` in any span of this length. Counts nothing.
    pub fn admission(mut self, now: Timestamp, span: Duration, limit: u64, cost: u64) -> Admission {
        let span = millis(span);
        self.slide(now.millis() / span);
        let elapsed = now.millis() % span;
        let used = self.current.saturating_add(weighted(self.previous, span - elapsed, span));
        // A limit of nothing blocks everything, even what costs nothing.
        if limit > 0 && used.saturating_add(cost) <= limit {
            self.current = self.current.saturating_add(cost);
            let whole = self.wait(span, elapsed, 0, 0);
            return Admission::Admitted { left: limit - used - cost, whole_after: Duration::from_millis(whole) };
        }
        let retry_after =
            (limit > 0 && cost <= limit).then(|| Duration::from_millis(self.wait(span, elapsed, limit, cost)));
        Admission::Refused { left: limit.saturating_sub(used), retry_after }
    }

    /// Counts `cost`, whether or not it fits.
    pub fn count(&mut self, now: Timestamp, span: Duration, cost: u64) {
        self.slide(now.millis() / millis(span));
        self.current = self.current.saturating_add(cost);
    }

    /// Takes back what was counted at that moment, as far as it still counts.
    pub fn uncount(&mut self, counted_at: Timestamp, span: Duration, cost: u64) {
        match self.number.checked_sub(counted_at.millis() / millis(span)) {
            Some(0) => self.current = self.current.saturating_sub(cost),
            Some(1) => self.previous = self.previous.saturating_sub(cost),
            Some(_) | None => {}
        }
    }

    /// Whether nothing that happened in it counts any more.
    pub fn is_over(self, now: Timestamp, span: Duration) -> bool {
        let Self { number, current, previous } = self;
        let passed = (now.millis() / millis(span)).saturating_sub(number);
        passed > 1 || (passed == 1 && current == 0) || (current == 0 && previous == 0)
    }

    /// Moves on to the window of this number. One that lies behind leaves it as it is.
    fn slide(&mut self, number: u64) {
        if number == self.number + 1 {
            *self = Self { number, current: 0, previous: self.current };
        } else if number > self.number {
            *self = Self { number, current: 0, previous: 0 };
        }
    }

    /// Milliseconds until the cost, which is at most the limit, fits, if nothing else happens meanwhile.
    fn wait(&self, span: u64, elapsed: u64, limit: u64, cost: u64) -> u64 {
        let room = limit.saturating_sub(cost);
        // Within this window the previous one fades; in the next one this one does.
        match room.checked_sub(self.current) {
            Some(room) => fading(self.previous, room, span).saturating_sub(elapsed),
            None => (span - elapsed).saturating_add(fading(self.current, room, span)),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// `floor(count × part / whole)`.
fn weighted(count: u64, part: u64, whole: u64) -> u64 {
    match count.checked_mul(part) {
        // Nearly always, and dividing 128 bits takes several times as long.
        Some(product) => product / whole,
        None => u64::try_from(u128::from(count) * u128::from(part) / u128::from(whole)).unwrap_or(u64::MAX),
    }
}

/// The first millisecond of a window at which no more than `room` of the previous one's `count` still counts.
fn fading(count: u64, room: u64, span: u64) -> u64 {
    if count <= room {
        return 0;
    }
    // The greatest part for which floor(count × part / span) ≤ room.
    let part = match room.checked_add(1).and_then(|more| more.checked_mul(span)) {
        Some(product) => (product - 1) / count,
        None => u64::try_from(((u128::from(room) + 1) * u128::from(span) - 1) / u128::from(count)).unwrap_or(span),
    };
    span - part.min(span)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers on both sides of what two of them can be to be multiplied in 64 bits.
    fn any_size() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift)
    }

    proptest! {
        #[test]
        fn large_numbers_are_divided_like_small_ones(
            (count, part, whole, room) in (any_size(), any_size(), any_size(), any_size()),
        ) {
            let (whole, wide) = (whole.max(1), |number: u64| u128::from(number));
            let expected = wide(count) * wide(part) / wide(whole);
            prop_assert_eq!(weighted(count, part, whole), u64::try_from(expected).unwrap_or(u64::MAX));
            if count > room {
                let part = ((wide(room) + 1) * wide(whole) - 1) / wide(count);
                prop_assert_eq!(wide(fading(count, room, whole)), wide(whole) - part.min(wide(whole)));
            }
        }
    }

    const SPAN: Duration = Duration::from_millis(1_000);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis_saturating(1_000_000 + millis)
    }

    /// How much is left if the cost fits within 10.
    fn asked(current: u64, previous: u64, elapsed: u64, cost: u64) -> Option<u64> {
        match Window::new(1_000, current, previous).admit(at(elapsed), SPAN, 10, cost) {
            Admission::Admitted { left, .. } => Some(left),
            Admission::Refused { .. } => None,
        }
    }

    #[test]
    fn the_limit_is_met_exactly() {
        assert_eq!(asked(9, 0, 0, 1), Some(0));
        assert_eq!(asked(10, 0, 0, 0), Some(0));
        assert_eq!(asked(10, 0, 0, 1), None);
    }

    #[test]
    fn the_previous_window_counts_by_the_part_still_covered() {
        assert_eq!(asked(5, 10, 500, 1), None);
        assert_eq!(asked(5, 10, 990, 1), Some(4));
    }

    #[test]
    fn windows_long_past_do_not_count() {
        let mut window = Window::new(10, 10, 10);
        assert!(window.is_over(at(0), SPAN));
        assert!(matches!(window.admit(at(0), SPAN, 10, 10), Admission::Admitted { left: 0, .. }));
        assert!(!window.is_over(at(1_999), SPAN));
        assert!(window.is_over(at(2_000), SPAN));
    }

    #[test]
    fn a_limit_of_nothing_blocks_what_costs_nothing_too() {
        for cost in [0, 1] {
            let refused = Window::default().admission(at(0), SPAN, 0, cost);
            assert_eq!(refused, Admission::Refused { left: 0, retry_after: None });
        }
    }

    #[test]
    fn what_is_taken_back_is_taken_from_the_window_that_it_was_counted_in() {
        let counted = |cost| {
            let mut window = Window::default();
            window.count(at(500), SPAN, cost);
            window
        };
        let mut window = counted(3);
        window.uncount(at(500), SPAN, 3);
        assert_eq!(window.parts(), (1_000, 0, 0));
        let mut window = counted(3);
        window.count(at(1_500), SPAN, 2);
        window.uncount(at(500), SPAN, 3);
        assert_eq!(window.parts(), (1_001, 2, 0));
        let mut window = counted(3);
        window.count(at(2_500), SPAN, 2);
        window.uncount(at(500), SPAN, 3);
        assert_eq!(window.parts(), (1_002, 2, 0));
    }

    #[test]
    fn what_is_more_than_the_limit_never_passes_and_says_so() {
        let refused = Window::new(1_000, 3, 0).admission(at(0), SPAN, 10, 11);
        assert_eq!(refused, Admission::Refused { left: 7, retry_after: None });
    }

    proptest! {
        #[test]
        fn what_is_refused_passes_after_the_wait_and_not_a_millisecond_before(
            current in 0u64..30, previous in 0u64..30, elapsed in 0u64..1_000, cost in 1u64..=10,
        ) {
            let window = Window::new(1_000, current, previous);
            if let Admission::Refused { retry_after, .. } = window.admission(at(elapsed), SPAN, 10, cost) {
                let wait = u64::try_from(retry_after.unwrap().as_millis()).unwrap();
                prop_assert!(wait > 0);
                let then = |wait| window.admission(at(elapsed + wait), SPAN, 10, cost);
                let passes = matches!(then(wait), Admission::Admitted { .. });
                let passed_before = matches!(then(wait - 1), Admission::Admitted { .. });
                prop_assert!(passes, "after {wait} ms");
                prop_assert!(!passed_before, "already after {} ms", wait - 1);
            }
        }

        #[test]
        fn the_limit_is_whole_again_when_it_says_and_not_a_millisecond_before(
            current in 0u64..30, previous in 0u64..30, elapsed in 0u64..1_000, cost in 0u64..=10,
        ) {
            let mut window = Window::new(1_000, current, previous);
            if let Admission::Admitted { whole_after, .. } = window.admit(at(elapsed), SPAN, 100, cost) {
                let wait = u64::try_from(whole_after.as_millis()).unwrap();
                let whole = |wait| matches!(
                    window.admission(at(elapsed + wait), SPAN, 100, 0),
                    Admission::Admitted { left: 100, .. }
                );
                prop_assert!(whole(wait), "after {wait} ms");
                prop_assert!(wait == 0 || !whole(wait - 1), "already after {} ms", wait - 1);
            }
        }
    }
}
