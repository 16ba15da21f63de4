//! Too much at once: what can wait is refused first, so that verifications go on, and health always answers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::metrics::Counters;

use super::policy::{Effect, Policy};
use super::seldom::Seldom;

/// When a refused caller should try again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Counts the calls under way.
pub struct Load {
    under_way: Counter,
    most: u32,
    most_of_others: u32,
    refused: Seldom,
    shed: Counters<1>,
}

/// Alone in its cache lines: every call of every core writes it twice.
#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU32);

/// A call that counts for as long as it is under way.
pub struct UnderWay<'a>(&'a AtomicU32);

impl Load {
    /// At most so many calls at a time, half of them if they are neither verifications nor countings.
    pub fn new(most: u32) -> Self {
        Self {
            under_way: Counter::default(),
            most,
            most_of_others: most / 2,
            refused: Seldom::default(),
            shed: Counters::default(),
        }
    }

    /// Counts a call in, or refuses it.
    pub fn enter(&self, policy: Policy, now: impl FnOnce() -> Timestamp) -> Result<UnderWay<'_>, Error> {
        let most = match policy.effect {
            Effect::Verify | Effect::Count => self.most,
            Effect::Read | Effect::Change => self.most_of_others,
        };
        let before = self.under_way.0.fetch_add(1, Ordering::Relaxed);
        let entered = UnderWay(&self.under_way.0);
        if before < most {
            return Ok(entered);
        }
        self.shed.add(0, 1);
        if let Some(refused) = self.refused.count(now()) {
            tracing::warn!(refused, under_way = before, most, "too many calls at a time; some are refused");
        }
        Err(Error::Overloaded { retry_after: RETRY_AFTER })
    }

    /// How many calls are under way.
    pub fn under_way(&self) -> u32 {
        self.under_way.0.load(Ordering::Relaxed)
    }

    /// How many have been refused.
    pub fn shed(&self) -> u64 {
        let [shed] = self.shed.read();
        shed
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Door, door};
    use super::*;

    fn policy(path: &str) -> Policy {
        match door(path) {
            Door::Guarded(policy) => policy,
            Door::Open | Door::Missing => panic!("{path} has no policy"),
        }
    }

    #[test]
    fn others_are_refused_at_half_of_what_verifications_are() {
        let load = Load::new(4);
        let enter = |path: &str| load.enter(policy(path), || Timestamp::EPOCH);
        let (verify, limit) = ("/ostiary.v1.KeyService/VerifyKey", "/ostiary.v1.RateLimitService/Limit");
        let (create, list) = ("/ostiary.v1.KeyService/CreateKey", "/ostiary.v1.KeyService/ListKeys");
        let first = enter(create).unwrap();
        let _second = enter(list).unwrap();
        assert!(enter(create).is_err() && enter(list).is_err());
        let _third = enter(verify).unwrap();
        let _fourth = enter(limit).unwrap();
        assert!(enter(verify).is_err() && enter(limit).is_err());
        drop(first);
        assert!(enter(create).is_err(), "three are under way");
        assert!(enter(verify).is_ok(), "what was refused does not count");
    }
}
