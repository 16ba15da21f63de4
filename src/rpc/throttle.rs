//! Guessing costs the guesser.
//!
//! Each address may fail to present a root key so many times; then its failures are answered with `RESOURCE_EXHAUSTED`
//! for a while. Only calls that fail anyway are ever counted or refused, so nobody who holds a good root key notices,
//! not even from the same address.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::time::Timestamp;

/// Failures that an address may make at once.
pub const FAILURES_AT_ONCE: u32 = 300;
/// Failures that an address may make per second in the long run.
pub const FAILURES_PER_SECOND: u32 = 5;
/// How many parties are told apart. More share: memory is bounded, whoever floods.
const PARTIES: usize = 16_384;

/// Counts failures by who makes them.
pub struct Throttle {
    at_once: u64,
    /// Milliseconds after which one more failure is allowed.
    refill: u64,
    hasher: RandomState,
    /// Per party the millisecond until which its failures are paid off.
    debts: Mutex<Box<[u64]>>,
}

impl Default for Throttle {
    /// For root keys, by address.
    fn default() -> Self {
        Self::new(FAILURES_AT_ONCE, FAILURES_PER_SECOND)
    }
}

impl Throttle {
    /// Lets so many failures pass at once and so many per second in the long run.
    pub fn new(at_once: u32, per_second: u32) -> Self {
        let debts = Mutex::new(vec![0; PARTIES].into_boxed_slice());
        Self { at_once: at_once.into(), refill: u64::from(1_000 / per_second), hasher: RandomState::new(), debts }
    }

    /// Counts a failure. If there were too many, says when the next one will be answered again.
    pub fn failed(&self, party: impl Hash, now: Timestamp) -> Result<(), Duration> {
        let place = usize::try_from(self.hasher.hash_one(party)).unwrap_or(0) % PARTIES;
        let now = now.millis();
        let mut debts = self.debts.lock();
        let debt = &mut debts[place];
        let paid_off = (*debt).max(now);
        let most = now + self.refill * self.at_once;
        if paid_off + self.refill > most {
            return Err(Duration::from_millis(paid_off + self.refill - most));
        }
        *debt = paid_off + self.refill;
        Ok(())
    }
}

/// What one party controls: a v4 address, or the /64 that a v6 address lies in.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis_saturating(millis)
    }

    #[test]
    fn an_address_may_fail_so_often_and_then_again_after_a_while() {
        let throttle = Throttle::default();
        let guesser = "192.0.2.1".parse::<IpAddr>().unwrap();
        for _ in 0..FAILURES_AT_ONCE {
            assert_eq!(throttle.failed(guesser, at(1_000_000)), Ok(()));
        }
        let wait = throttle.failed(guesser, at(1_000_000)).unwrap_err();
        assert_eq!(wait, Duration::from_millis(1_000 / u64::from(FAILURES_PER_SECOND)));
        let later = at(1_000_000).after(wait);
        assert_eq!(throttle.failed(guesser, later), Ok(()));
        assert!(throttle.failed(guesser, later).is_err());
    }

    #[test]
    fn a_v6_network_counts_as_one_address() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
