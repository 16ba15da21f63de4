//! Too much at once: what can wait is refused first, so that verifications go on, and whether there is health is always
//! answered.
//!
//! A call counts until all of its answer is told, so open streams count as well. Verifications have room of their own, and
//! all others too: neither kind takes that of the other. No root key has more calls of a kind than some times those that
//! are still free, so that none takes the place of all others, least of all of the one that deletes it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::metrics::Counters;
use crate::service::caller::Caller;
use crate::service::usage::Tally;

use super::policy::{Door, Effect, Policy};
use super::seldom::Seldom;
use super::standing::{OPEN_MAX, Progress, Standing};

/// When a refused caller should try again.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How many times as many calls one root key may have as are still free.
pub const SHARE: u32 = 8;

/// Bytes of an answer that are handed over at a time.
const PIECE: usize = 16 << 10;

/// Counts the calls under way.
pub struct Load {
    /// By their kind.
    under_way: [Counter; 2],
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
    /// How many there may be of those.
    most: u32,
    /// How its root key is used.
    tally: Option<Arc<Tally>>,
    /// Whether there was no room for it.
    refused: bool,
}

/// As what a call counts.
enum Counts {
    /// Nothing.
    Not,
    /// One of its connection that needs no root key.
    Open(Arc<Standing>),
    /// One of all of its kind.
    Guarded(Kind),
}

/// The kinds of calls that have room of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Verifications and countings.
    Verification,
    /// All others that need a root key. There may be half as many.
    Other,
}

impl Load {
    /// At most so many verifications and countings at a time, and half as many others.
    pub fn new(most: u32) -> Arc<Self> {
        let (refused, shed) = (Seldom::default(), Counters::default());
        Arc::new(Self { under_way: Default::default(), most, refused, shed })
    }

    /// Counts a call in, or refuses it.
    ///
    /// # Errors
    /// If there are too many.
    pub fn enter(
        self: &Arc<Self>,
        door: Door,
        standing: Option<&Arc<Standing>>,
        now: impl FnOnce() -> Timestamp,
    ) -> Result<UnderWay, Error> {
        let (counts, most) = match (door, standing) {
            (Door::Guarded(Policy { effect: Effect::Verify | Effect::Count, .. }), _) => {
                (Counts::Guarded(Kind::Verification), self.most)
            }
            (Door::Guarded(_), _) => (Counts::Guarded(Kind::Other), self.most / 2),
            (Door::Open { lasts: true, .. }, Some(standing)) => (Counts::Open(Arc::clone(standing)), OPEN_MAX),
            (Door::Open { .. } | Door::Missing, _) => (Counts::Not, 0),
        };
        let entered = UnderWay { load: Arc::clone(self), counts, most, tally: None, refused: false };
        let Some(counter) = entered.counter() else { return Ok(entered) };
        let before = counter.fetch_add(1, Ordering::Relaxed);
        if before < most { Ok(entered) } else { Err(self.refuse(before, most, now())) }
    }

    fn refuse(&self, under_way: u32, most: u32, now: Timestamp) -> Error {
        self.shed.add(0, 1);
        if let Some(refused) = self.refused.count(now) {
            tracing::warn!(refused, under_way, most, "too many calls at a time; some are refused");
        }
        Error::Overloaded { retry_after: RETRY_AFTER }
    }

    /// How many calls are under way, of both kinds.
    pub fn under_way(&self) -> u32 {
        self.under_way.iter().map(|kind| kind.0.load(Ordering::Relaxed)).sum()
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
        let Counts::Guarded(kind) = self.counts else { return Ok(()) };
        let tally = caller.tally();
        let own = tally.under_way()[kind as usize].fetch_add(1, Ordering::Relaxed) + 1;
        self.tally = Some(Arc::clone(tally));
        let all = self.load.under_way[kind as usize].0.load(Ordering::Relaxed);
        // This one counts already.
        let free = (self.most + 1).saturating_sub(all);
        self.refused = own > free.saturating_mul(SHARE);
        if self.refused { Err(self.load.refuse(all, self.most, now())) } else { Ok(()) }
    }

    /// Whether it was refused because of its root key.
    pub fn was_refused(&self) -> bool {
        self.refused
    }

    /// An answer that is under way until all of it is told, or nobody wants it any more.
    pub fn until_told(self, answer: Body, standing: Option<&Arc<Standing>>) -> Body {
        let guarded = matches!(self.counts, Counts::Guarded(_));
        let progress = standing.map(|standing| standing.telling(guarded));
        Body::new(Lasting { answer, rest: Bytes::new(), progress, _under_way: self })
    }

    fn counter(&self) -> Option<&AtomicU32> {
        match &self.counts {
            Counts::Not => None,
            Counts::Open(standing) => Some(standing.open()),
            Counts::Guarded(kind) => Some(&self.load.under_way[*kind as usize].0),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(counter) = self.counter() {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
        if let (Some(tally), Counts::Guarded(kind)) = (&self.tally, &self.counts) {
            tally.under_way()[*kind as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An answer that goes on. It is handed over in small pieces, so that what nobody takes stays here, where it counts.
struct Lasting {
    answer: Body,
    /// What has come of it and was not handed over.
    rest: Bytes,
    progress: Option<Arc<Progress>>,
    _under_way: UnderWay,
}

impl http_body::Body for Lasting {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = match self.rest.is_empty() {
            true => Pin::new(&mut self.answer).poll_frame(cx),
            false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest))))),
        };
        if let Some(progress) = &self.progress {
            progress.asked(matches!(next, Poll::Ready(Some(_))));
        }
        next.map_ok(|frame| match frame.into_data() {
            Ok(mut data) => {
                let piece = data.split_to(data.len().min(PIECE));
                self.rest = data;
                Frame::data(piece)
            }
            Err(trailers) => trailers,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.answer.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::door;
    use super::*;

    fn enter(load: &Arc<Load>, path: &str) -> Result<UnderWay, Error> {
        load.enter(door(path), None, || Timestamp::EPOCH)
    }

    #[test]
    fn there_may_be_half_as_many_others_as_verifications_and_neither_takes_the_room_of_the_other() {
        let load = Load::new(4);
        let enter = |path: &str| enter(&load, path);
        let (verify, limit) = ("/ostiary.v1.KeyService/VerifyKey", "/ostiary.v1.RateLimitService/Limit");
        let (create, list) = ("/ostiary.v1.KeyService/CreateKey", "/ostiary.v1.KeyService/ListKeys");
        let first = enter(create).unwrap();
        let _second = enter(list).unwrap();
        assert!(enter(create).is_err() && enter(list).is_err());
        let verifications = [verify, limit, verify, limit].map(|path| enter(path).unwrap());
        assert!(enter(verify).is_err() && enter(limit).is_err());
        assert_eq!(load.under_way(), 6, "what was refused does not count");
        drop(first);
        assert!(enter(create).is_ok(), "whatever verifications are under way");
        drop(verifications);
        assert!(enter(verify).is_ok());
    }

    #[tokio::test]
    async fn an_answer_is_handed_over_in_pieces_and_counts_until_its_end() {
        use http_body_util::{BodyExt as _, Full};
        let load = Load::new(1);
        let bytes: Bytes = (0..2 * PIECE + 9).map(|n| (n % 251) as u8).collect();
        let answer = Body::new(Full::new(bytes.clone()).map_err(|never| match never {}));
        let mut told = enter(&load, "/ostiary.v1.KeyService/VerifyKey").unwrap().until_told(answer, None);
        let mut pieces = Vec::new();
        while let Some(frame) = told.frame().await {
            assert_eq!(load.under_way(), 1);
            pieces.push(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE, PIECE, 9]);
        assert_eq!(pieces.concat(), bytes);
        drop(told);
        assert_eq!(load.under_way(), 0);
    }

    #[test]
    fn whoever_watches_health_is_refused_beyond_a_bound_and_whoever_asks_for_it_never() {
        let load = Load::new(1);
        let (one, other) = (Arc::new(Standing::new(Timestamp::EPOCH)), Arc::new(Standing::new(Timestamp::EPOCH)));
        let enter = |path: &str, standing| load.enter(door(path), Some(standing), || Timestamp::EPOCH);
        let watch = "/grpc.health.v1.Health/Watch";
        let watches: Vec<_> = (0..OPEN_MAX).map(|_| enter(watch, &one).unwrap()).collect();
        assert!(enter(watch, &one).is_err());
        assert!(enter("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &one).is_err());
        assert!(enter("/grpc.health.v1.Health/Check", &one).is_ok());
        assert!(enter("/ostiary.v1.KeyService/VerifyKey", &one).is_ok());
        assert!(enter(watch, &other).is_ok(), "another connection");
        drop(watches);
        assert!(enter(watch, &one).is_ok());
    }
}
