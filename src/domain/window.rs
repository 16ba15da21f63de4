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
    /// It may, and so many more may follow at once.
    Admitted {
        /// How many.
        left: u64,
    },
    /// Not before this span has passed, if nothing else happens meanwhile.
    Refused {
        /// How long.
        retry_after: Duration,
    },
}

impl Window {
    /// A window in which this has happened, for a span of which this number is the current one.
    pub const fn new(number: u64, current: u64, previous: u64) -> Self {
        Self { number, current, previous }
    }

    /// Counts `cost` if it fits within `limit` in any span of this length; else nothing.
    ///
    /// The span is at least a millisecond long.
    pub fn admit(&mut self, now: Timestamp, span: Duration, limit: u64, cost: u64) -> Admission {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
        self.slide(now.millis() / span);
        let elapsed = now.millis() % span;
        let used = self.current.saturating_add(weighted(self.previous, span - elapsed, span));
        if used.saturating_add(cost) <= limit {
            self.current = self.current.saturating_add(cost);
            return Admission::Admitted { left: limit - used - cost };
        }
        let wait = self.wait(span, elapsed, limit, cost);
        Admission::Refused { retry_after: Duration::from_millis(wait) }
    }

    /// Moves on to the window of this number. One that lies behind leaves it as it is.
    fn slide(&mut self, number: u64) {
        if number == self.number + 1 {
            *self = Self { number, current: 0, previous: self.current };
        } else if number > self.number {
            *self = Self { number, current: 0, previous: 0 };
        }
    }

    /// Milliseconds until the cost fits, if nothing else happens meanwhile.
    fn wait(&self, span: u64, elapsed: u64, limit: u64, cost: u64) -> u64 {
        if cost > limit {
            // It never fits; what can be said is when the window is empty.
            return (span - elapsed).saturating_add(span);
        }
        let room = limit - cost;
        // Within this window the previous one fades; in the next one this one does.
        match room.checked_sub(self.current) {
            Some(room) => fading(self.previous, room, span).saturating_sub(elapsed),
            None => (span - elapsed).saturating_add(fading(self.current, room, span)),
        }
    }
}

/// `floor(count × part / whole)`.
fn weighted(count: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(count) * u128::from(part) / u128::from(whole)).unwrap_or(u64::MAX)
}

/// The first millisecond of a window at which no more than `room` of the previous one's `count` still counts.
fn fading(count: u64, room: u64, span: u64) -> u64 {
    if count <= room {
        return 0;
    }
    // The greatest part for which floor(count × part / span) ≤ room.
    let part = ((u128::from(room) + 1) * u128::from(span) - 1) / u128::from(count);
    span - u64::try_from(part).unwrap_or(span).min(span)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPAN: Duration = Duration::from_millis(1_000);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis_saturating(1_000_000 + millis)
    }

    fn asked(current: u64, previous: u64, elapsed: u64, cost: u64) -> Admission {
        Window::new(1_000, current, previous).admit(at(elapsed), SPAN, 10, cost)
    }

    #[test]
    fn the_limit_is_met_exactly() {
        assert_eq!(asked(9, 0, 0, 1), Admission::Admitted { left: 0 });
        assert_eq!(asked(10, 0, 0, 0), Admission::Admitted { left: 0 });
        assert!(matches!(asked(10, 0, 0, 1), Admission::Refused { .. }));
    }

    #[test]
    fn the_previous_window_counts_by_the_part_still_covered() {
        assert!(matches!(asked(5, 10, 500, 1), Admission::Refused { .. }));
        assert_eq!(asked(5, 10, 990, 1), Admission::Admitted { left: 4 });
    }

    #[test]
    fn windows_long_past_do_not_count() {
        let mut window = Window::new(10, 10, 10);
        assert_eq!(window.admit(at(0), SPAN, 10, 10), Admission::Admitted { left: 0 });
    }

    proptest! {
        #[test]
        fn what_is_refused_passes_after_the_wait_and_not_a_millisecond_before(
            current in 0u64..30, previous in 0u64..30, elapsed in 0u64..1_000, cost in 1u64..=10,
        ) {
            let window = Window::new(1_000, current, previous);
            if let Admission::Refused { retry_after } = window.clone().admit(at(elapsed), SPAN, 10, cost) {
                let wait = u64::try_from(retry_after.as_millis()).unwrap();
                prop_assert!(wait > 0);
                let then = |wait| window.clone().admit(at(elapsed + wait), SPAN, 10, cost);
                let passes = matches!(then(wait), Admission::Admitted { .. });
                let passed_before = matches!(then(wait - 1), Admission::Admitted { .. });
                prop_assert!(passes, "after {wait} ms");
                prop_assert!(!passed_before, "already after {} ms", wait - 1);
            }
        }
    }
}
