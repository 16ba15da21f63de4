//! What happens too often to be told each time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::domain::time::Timestamp;

/// How often it is told.
const EVERY: Duration = Duration::from_secs(10);

/// Counts something, and says now and then how often it has happened.
#[derive(Default)]
pub struct Seldom {
    untold: AtomicU64,
    /// The millisecond until which nothing is told.
    quiet_until: AtomicU64,
}

impl Seldom {
    /// Counts once more. Now and then it answers how often it has happened since it last did.
    pub fn count(&self, now: Timestamp) -> Option<u64> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let quiet_until = self.quiet_until.load(Ordering::Relaxed);
        if now.millis() < quiet_until {
            return None;
        }
        let next = now.after(EVERY).millis();
        // Of several at once, one tells.
        self.quiet_until.compare_exchange(quiet_until, next, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(self.untold.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let seldom = Seldom::default();
        let at = |seconds: u64| Timestamp::from_millis_saturating(1_000 * seconds);
        assert_eq!(seldom.count(at(100)), Some(1));
        assert_eq!(seldom.count(at(101)), None);
        assert_eq!(seldom.count(at(109)), None);
        assert_eq!(seldom.count(at(110)), Some(3));
        assert_eq!(seldom.count(at(111)), None);
    }
}
