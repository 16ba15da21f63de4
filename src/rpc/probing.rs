//! Probing for API keys costs the prober.
//!
//! An unknown key is answered with `NOT_FOUND`, whoever asks and however often: it is data, not an error. Who asks for
//! many of them waits for that answer. Nothing else ever waits, and no good key is touched: whether a key is unknown is
//! known before anybody is made to wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::id::RootKeyId;
use crate::domain::time::Timestamp;
use crate::service::caller::Caller;

use super::Desk;
use super::throttle::{Throttle, neighbourhood};

/// Unknown keys that a prober may ask for at once.
pub const UNKNOWN_AT_ONCE: u32 = 1_000;
/// Unknown keys that a prober may ask for per second in the long run.
pub const UNKNOWN_PER_SECOND: u32 = 20;
/// How long the answer about one key more takes.
pub const HELD_FOR: Duration = Duration::from_secs(1);
/// Answers of one root key that are held back at a time; the others are given at once. A connection carries more calls
/// than this, so that a prober among an app server's clients does not take the place of all others.
const HELD_MAX: usize = 64;
/// Root keys whose unknown keys are counted for the log.
const CALLERS_MAX: usize = 4_096;
/// How often the log tells of a root key that asks for too many.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Counts unknown keys by who asks for them: the client that the caller names, else the caller.
pub struct Probes {
    throttle: Throttle,
    callers: Mutex<HashMap<RootKeyId, Probing>>,
}

/// What a root key has asked for lately.
struct Probing {
    /// When the log last told of it, or counting began.
    since: Timestamp,
    /// Unknown keys beyond the measure since then.
    beyond: u64,
    /// Answers that are held back just now.
    held: usize,
}

impl Default for Probes {
    fn default() -> Self {
        Self { throttle: Throttle::new(UNKNOWN_AT_ONCE, UNKNOWN_PER_SECOND), callers: Mutex::default() }
    }
}

impl Probes {
    /// Counts an unknown key. If there were too many, the answer is to be held back while what is returned is kept.
    pub fn unknown(self: &Arc<Self>, root_key: RootKeyId, client: Option<IpAddr>, now: Timestamp) -> Option<Held> {
        self.throttle.failed((root_key, client.map(neighbourhood)), now).err()?;
        let mut callers = self.callers.lock();
        if callers.len() >= CALLERS_MAX && !callers.contains_key(&root_key) {
            callers.retain(|_, probing| probing.held > 0 || now < probing.since.after(TOLD_EVERY));
            if callers.len() >= CALLERS_MAX {
                return None;
            }
        }
        let probing = callers.entry(root_key).or_insert(Probing { since: now, beyond: 0, held: 0 });
        probing.beyond += 1;
        if now >= probing.since.after(TOLD_EVERY) {
            let (unknown, root_key) = (probing.beyond, root_key.to_string());
            tracing::warn!(root_key, unknown, "somebody asks for many unknown keys; the answers are held back");
            (probing.since, probing.beyond) = (now, 0);
        }
        if probing.held >= HELD_MAX {
            return None;
        }
        probing.held += 1;
        Some(Held { probes: Arc::clone(self), root_key })
    }
}

/// An answer that is held back, until this is dropped.
pub struct Held {
    probes: Arc<Probes>,
    root_key: RootKeyId,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(probing) = self.probes.callers.lock().get_mut(&self.root_key) {
            probing.held -= 1;
        }
    }
}

impl Desk {
    /// Counts a key that the caller was found to know nothing of; what is returned says to hold the answer back.
    pub(super) fn unknown(&self, caller: &Caller, client: Option<IpAddr>) -> Option<Held> {
        self.probes.unknown(caller.root_key().id, client, self.ostiary.world().now())
    }

    /// Holds an answer back, unless the server closes.
    pub(super) async fn hold_back(&self, held: Option<Held>) {
        let Some(_held) = held else { return };
        let world = self.ostiary.world();
        self.closing.run_until_cancelled(world.wait_until(world.now().after(HELD_FOR))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis_saturating(millis)
    }

    fn root_key(number: u8) -> RootKeyId {
        RootKeyId::from_bytes([number; 16])
    }

    /// Probes of which this one has used up what it may.
    fn exhausted(client: Option<IpAddr>) -> Arc<Probes> {
        let probes = Arc::new(Probes::default());
        for _ in 0..UNKNOWN_AT_ONCE {
            assert!(probes.unknown(root_key(1), client, at(NOW)).is_none());
        }
        probes
    }

    #[test]
    fn one_unknown_key_too_many_is_answered_late_and_after_a_while_at_once_again() {
        let probes = exhausted(None);
        assert!(probes.unknown(root_key(1), None, at(NOW)).is_some());
        let later = at(NOW + 1_000 / u64::from(UNKNOWN_PER_SECOND));
        assert!(probes.unknown(root_key(1), None, later).is_none());
        assert!(probes.unknown(root_key(1), None, later).is_some());
    }

    #[test]
    fn another_root_key_and_another_client_of_the_same_are_not_held_back() {
        let prober = Some("2001:db8::1".parse().unwrap());
        let probes = exhausted(prober);
        assert!(probes.unknown(root_key(2), prober, at(NOW)).is_none());
        assert!(probes.unknown(root_key(1), Some("192.0.2.1".parse().unwrap()), at(NOW)).is_none());
        assert!(probes.unknown(root_key(1), None, at(NOW)).is_none());
        // The same party has many addresses.
        assert!(probes.unknown(root_key(1), Some("2001:db8::ffff".parse().unwrap()), at(NOW)).is_some());
    }

    #[test]
    fn so_many_are_held_back_at_a_time_and_no_more() {
        let probes = exhausted(None);
        let held: Vec<Held> = (0..HELD_MAX).filter_map(|_| probes.unknown(root_key(1), None, at(NOW))).collect();
        assert_eq!(held.len(), HELD_MAX);
        assert!(probes.unknown(root_key(1), None, at(NOW)).is_none());
        drop(held);
        assert!(probes.unknown(root_key(1), None, at(NOW)).is_some());
    }
}
