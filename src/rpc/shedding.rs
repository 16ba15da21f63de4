//! Too much at once: what can wait is refused first, so that verifications go on, and whether there is health is always
//! answered.
//!
//! A call counts until all of its answer is told, so open streams count as well. No root key has more than some times
//! the calls that are still free, so that none takes the place of all others, least of all of the one that deletes it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::metrics::Counters;
use crate::service::caller::Caller;
use crate::service::usage::Tally;

use super::policy::{Door, Effect};
use super::seldom::Seldom;

/// When a refused caller should try again.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How many times as many calls one root key may have as are still free.
pub const SHARE: u32 = 8;
/// Calls at a time that need no root key and go on for long: those who watch health, and reflection.
pub const OPEN_MAX: u32 = 1_024;

/// Counts the calls under way.
pub struct Load {
    under_way: Counter,
    open: AtomicU32,
    most: u32,
    refused: Seldom,
    shed: Counters<1>,
}

/// Alone in its cache lines: every call of every core writes it twice.
#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU32);

/// A call that counts for as long as it is under way.
pub struct UnderWay {
    load: Arc<Load>,
    counts: Counts,
    /// How much of `counts` there may be.
    most: u32,
    /// How its root key is used.
    tally: Option<Arc<Tally>>,
}

/// As what a call counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// Nothing.
    Not,
    /// One that needs no root key.
    Open,
    /// One of a root key.
    Guarded,
}

impl Load {
    /// At most so many calls at a time, half of them if they are neither verifications nor countings.
    pub fn new(most: u32) -> Arc<Self> {
        let (refused, shed) = (Seldom::default(), Counters::default());
        Arc::new(Self { under_way: Counter::default(), open: AtomicU32::new(0), most, refused, shed })
    }

    /// Counts a call in, or refuses it.
    ///
    /// # Errors
    /// If there are too many.
    pub fn enter(self: &Arc<Self>, door: Door, now: impl FnOnce() -> Timestamp) -> Result<UnderWay, Error> {
        let (counts, most) = match door {
            Door::Guarded(policy) => match policy.effect {
                Effect::Verify | Effect::Count => (Counts::Guarded, self.most),
                Effect::Read | Effect::Change => (Counts::Guarded, self.most / 2),
            },
            Door::Open { lasts: true, .. } => (Counts::Open, OPEN_MAX),
            Door::Open { lasts: false, .. } | Door::Missing => (Counts::Not, 0),
        };
        let load = Arc::clone(self);
        let Some(counter) = self.counter(counts) else { return Ok(UnderWay { load, counts, most, tally: None }) };
        let before = counter.fetch_add(1, Ordering::Relaxed);
        let entered = UnderWay { load, counts, most, tally: None };
        if before < most { Ok(entered) } else { Err(self.refuse(before, most, now())) }
    }

    fn refuse(&self, under_way: u32, most: u32, now: Timestamp) -> Error {
        self.shed.add(0, 1);
        if let Some(refused) = self.refused.count(now) {
            tracing::warn!(refused, under_way, most, "too many calls at a time; some are refused");
        }
        Error::Overloaded { retry_after: RETRY_AFTER }
    }

    fn counter(&self, counts: Counts) -> Option<&AtomicU32> {
        match counts {
            Counts::Not => None,
            Counts::Open => Some(&self.open),
            Counts::Guarded => Some(&self.under_way.0),
        }
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

impl UnderWay {
    /// Counts it among those of the caller's root key, or refuses it.
    ///
    /// # Errors
    /// If that has too many.
    pub fn of(&mut self, caller: &Caller, now: impl FnOnce() -> Timestamp) -> Result<(), Error> {
        let tally = caller.tally();
        let own = tally.under_way().fetch_add(1, Ordering::Relaxed) + 1;
        self.tally = Some(Arc::clone(tally));
        let all = self.load.under_way();
        // This one counts already.
        let free = (self.most + 1).saturating_sub(all);
        if own <= free.saturating_mul(SHARE) { Ok(()) } else { Err(self.load.refuse(all, self.most, now())) }
    }

    /// An answer that is under way until all of it is told, or nobody wants it any more.
    pub fn until_told(self, answer: Body) -> Body {
        Body::new(Lasting { answer, _under_way: self })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(counter) = self.load.counter(self.counts) {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(tally) = &self.tally {
            tally.under_way().fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An answer that goes on.
struct Lasting {
    answer: Body,
    _under_way: UnderWay,
}

impl http_body::Body for Lasting {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.answer).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::door;
    use super::*;

    fn enter(load: &Arc<Load>, path: &str) -> Result<UnderWay, Error> {
        load.enter(door(path), || Timestamp::EPOCH)
    }

    #[test]
    fn others_are_refused_at_half_of_what_verifications_are() {
        let load = Load::new(4);
        let enter = |path: &str| enter(&load, path);
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

    #[test]
    fn whoever_watches_health_is_refused_beyond_a_bound_and_whoever_asks_for_it_never() {
        let load = Load::new(1);
        let watches: Vec<_> = (0..OPEN_MAX).map(|_| enter(&load, "/grpc.health.v1.Health/Watch").unwrap()).collect();
        assert!(enter(&load, "/grpc.health.v1.Health/Watch").is_err());
        assert!(enter(&load, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").is_err());
        assert!(enter(&load, "/grpc.health.v1.Health/Check").is_ok());
        assert!(enter(&load, "/ostiary.v1.KeyService/VerifyKey").is_ok());
        drop(watches);
        assert!(enter(&load, "/grpc.health.v1.Health/Watch").is_ok());
    }
}
