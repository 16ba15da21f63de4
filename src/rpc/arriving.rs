//! Messages on their way in: each arrives in time, and all that are not whole yet have so much room and no more.
//!
//! Whoever sends the beginning of a message and then nothing, on as many calls as there may be, holds neither the room
//! of those calls for long nor all of the memory. No root key takes more than its share of the room, so that none keeps
//! others from sending large messages; whoever shows none sends small ones only.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use crate::service::usage::Tally;

/// How long a message may take to arrive, and all of a request that is one.
pub const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a message that take nobody's room.
pub const SMALL: usize = 16 << 10;
/// Bytes of messages that are not whole, beyond what is small of each.
pub const ROOM: usize = 256 << 20;
/// Which part of that one root key may take.
pub const SHARE: usize = 4;
/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What the beginnings of messages take together.
#[derive(Debug)]
pub struct Room {
    most: usize,
    taken: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self { most: ROOM, taken: AtomicUsize::new(0) }
    }
}

/// What a request consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// One, after which it ends.
    One,
    /// Any number. What lies between two of them is up to the caller.
    Many,
}

/// The body of a request.
#[derive(Debug)]
pub struct Arriving<B> {
    body: B,
    room: Arc<Room>,
    messages: Messages,
    /// Bytes that are there of a prefix, and the prefix.
    prefix: (usize, [u8; PREFIX]),
    /// Bytes that are missing from the message.
    missing: usize,
    /// Bytes that are there of it.
    there: usize,
    /// Whether all of an only message is there.
    complete: bool,
    /// What it takes of the room.
    taken: usize,
    /// How the root key is used whose message it is.
    tally: Option<Arc<Tally>>,
    /// Set when something is waited for and has not come.
    late: Option<Pin<Box<Sleep>>>,
    /// The end of an only message, until it is sure that nothing comes after it: whoever reads a message waits for nothing
    /// more, and holds it for no longer than it takes to answer or refuse it.
    held: Option<Frame<Bytes>>,
}

impl<B> Arriving<B> {
    /// A body of which nothing has come.
    pub fn new(body: B, messages: Messages, room: Arc<Room>) -> Self {
        let prefix = (0, [0; PREFIX]);
        Self {
            body,
            room,
            messages,
            prefix,
            missing: 0,
            there: 0,
            complete: false,
            taken: 0,
            tally: None,
            late: None,
            held: None,
        }
    }

    /// From now on it is a message of this root key's.
    pub fn of(&mut self, tally: &Arc<Tally>) {
        self.tally = Some(Arc::clone(tally));
    }

    /// Takes note of bytes that have come.
    fn note(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while data.has_remaining() {
            if self.complete {
                return Err(Status::internal("protocol error: there is more than one message"));
            }
            let (length, prefix) = &mut self.prefix;
            if *length < PREFIX {
                let some = data.remaining().min(PREFIX - *length);
                data.copy_to_slice(&mut prefix[*length..*length + some]);
                *length += some;
                if *length < PREFIX {
                    break;
                }
                let [_, length @ ..] = *prefix;
                self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            }
            let some = data.remaining().min(self.missing);
            data.advance(some);
            self.missing -= some;
            self.there += some;
            if self.missing > 0 || self.messages == Messages::One {
                self.take()?;
            }
            if self.missing == 0 {
                self.whole();
            }
        }
        Ok(())
    }

    /// All of a message is there. If it is the only one, it is waited for until no more is to come.
    fn whole(&mut self) {
        self.prefix.0 = 0;
        match self.messages {
            Messages::One => self.complete = true,
            Messages::Many => {
                self.give_back();
                (self.there, self.late) = (0, None);
            }
        }
    }

    fn take(&mut self) -> Result<(), Status> {
        let more = self.there.saturating_sub(SMALL + self.taken);
        if more == 0 {
            return Ok(());
        }
        let Some(tally) = &self.tally else {
            return Err(Status::resource_exhausted("the message is too large for a call without a root key"));
        };
        self.taken += more;
        let own = tally.arriving().fetch_add(more, Ordering::Relaxed) + more;
        let all = self.room.taken.fetch_add(more, Ordering::Relaxed) + more;
        if all > self.room.most || own > self.room.most / SHARE {
            return Err(Status::unavailable("too many large messages are on their way"));
        }
        Ok(())
    }

    fn give_back(&mut self) {
        if self.taken > 0 {
            self.room.taken.fetch_sub(self.taken, Ordering::Relaxed);
            if let Some(tally) = &self.tally {
                tally.arriving().fetch_sub(self.taken, Ordering::Relaxed);
            }
            self.taken = 0;
        }
    }

    /// Fails once what is waited for should have come.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.messages == Messages::Many && self.prefix.0 == 0 {
            return Poll::Pending;
        }
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(ARRIVES_WITHIN)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Status::deadline_exceeded("the message has not arrived in time"))
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return self.wait(cx).map(|late| Some(Err(late.into()))),
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => return Poll::Ready(self.held.take().map(Ok)),
            };
            let frame = match frame.into_data() {
                Ok(data) => match self.note(&data) {
                    Ok(()) => Frame::data(data),
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                },
                // Those of a request say nothing.
                Err(trailers) => return Poll::Ready(Some(Ok(self.held.take().unwrap_or(trailers)))),
            };
            // What comes after an only message is empty.
            let frame = self.held.take().unwrap_or(frame);
            if !self.complete || self.body.is_end_stream() {
                return Poll::Ready(Some(Ok(frame)));
            }
            self.held = Some(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.held {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}

impl<B> Drop for Arriving<B> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    type Failed = Box<dyn StdError + Send + Sync>;

    fn framed(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; PREFIX + length];
        bytes[1..PREFIX].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        bytes
    }

    /// A body of these pieces, after which nothing comes, nor an end.
    fn arriving(
        pieces: Vec<Vec<u8>>,
        messages: Messages,
        room: &Arc<Room>,
        of: Option<&Arc<Tally>>,
    ) -> impl Body<Data = Bytes, Error = Failed> + Unpin {
        let frames = stream::iter(pieces).map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
        let mut body = Arriving::new(StreamBody::new(frames.chain(stream::pending())), messages, Arc::clone(room));
        if let Some(tally) = of {
            body.of(tally);
        }
        body
    }

    async fn frames(body: &mut (impl Body<Data = Bytes, Error = Failed> + Unpin), number: usize) {
        for _ in 0..number {
            body.frame().await.unwrap().unwrap();
        }
    }

    async fn refusal(body: &mut (impl Body<Data = Bytes, Error = Failed> + Unpin)) -> Code {
        let error = body.frame().await.unwrap().unwrap_err();
        error.downcast::<Status>().unwrap().code()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_arrive_ends_its_call() {
        let room = Arc::new(Room::default());
        let (begun, half, whole) = (framed(9)[..3].to_vec(), framed(9)[..8].to_vec(), framed(9));
        // One that is whole is kept until it is the only one for sure.
        for (pieces, number) in [(vec![], 0), (vec![begun], 1), (vec![half], 1), (vec![whole], 0)] {
            let mut body = arriving(pieces, Messages::One, &room, None);
            frames(&mut body, number).await;
            assert_eq!(refusal(&mut body).await, Code::DeadlineExceeded);
        }
        let mut body = arriving(vec![framed(9), framed(9)[..8].to_vec()], Messages::Many, &room, None);
        frames(&mut body, 2).await;
        assert_eq!(refusal(&mut body).await, Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn an_only_message_is_handed_over_once_nothing_comes_after_it() {
        let room = Arc::new(Room::default());
        let body = |frames: Vec<Frame<Bytes>>| {
            let frames = stream::iter(frames).map(Ok::<_, Status>);
            Arriving::new(StreamBody::new(frames), Messages::One, Arc::clone(&room))
        };
        let data = |bytes: &[u8]| Frame::data(Bytes::copy_from_slice(bytes));
        let (whole, none) = (framed(9), framed(0));
        let trailers = || Frame::trailers(http::HeaderMap::new());
        for frames in [
            vec![data(&whole)],
            vec![data(&whole), data(&[])],
            vec![data(&whole), trailers()],
            vec![data(&whole[..8]), data(&whole[8..]), data(&[]), trailers()],
        ] {
            assert_eq!(body(frames).collect().await.unwrap().to_bytes(), whole);
        }
        assert_eq!(body(vec![data(&none), data(&[])]).collect().await.unwrap().to_bytes(), none);
        for more in [&[0][..], &whole] {
            for frames in [vec![data(&whole), data(more)], vec![data(&[&whole, more].concat())]] {
                assert_eq!(refusal(&mut body(frames)).await, Code::Internal);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_messages_there_may_be_any_time() {
        let room = Arc::new(Room::default());
        let pieces = vec![framed(0), framed(3), [framed(7), framed(9)].concat()];
        for pieces in [vec![], pieces] {
            let number = pieces.len();
            let mut body = arriving(pieces, Messages::Many, &room, None);
            frames(&mut body, number).await;
            assert!(tokio::time::timeout(10 * ARRIVES_WITHIN, body.frame()).await.is_err());
        }
    }

    #[tokio::test]
    async fn what_is_not_whole_takes_room_until_it_is_or_is_given_up() {
        let most = 8 * SMALL;
        let room = Arc::new(Room { most, taken: AtomicUsize::new(0) });
        let tallies: Vec<_> = (0..=SHARE).map(|_| Arc::<Tally>::default()).collect();
        let taken = || room.taken.load(Ordering::Relaxed);
        let own = |of: usize| tallies[of].arriving().load(Ordering::Relaxed);
        let (large, share) = (framed(SMALL + 1_000), framed(most));
        let (begin, end) = large.split_at(PREFIX + SMALL + 500);
        let pieces = vec![begin.to_vec(), [end, begin].concat()];
        let mut body = arriving(pieces, Messages::Many, &room, Some(&tallies[0]));
        frames(&mut body, 1).await;
        assert_eq!((taken(), own(0)), (500, 500));
        frames(&mut body, 1).await;
        assert_eq!((taken(), own(0)), (500, 500), "the second of two");
        drop(body);
        // Each takes all of its share.
        let mut all = Vec::new();
        for tally in &tallies[..SHARE] {
            let whole_share = share[..PREFIX + SMALL + most / SHARE].to_vec();
            let mut body = arriving(vec![whole_share], Messages::One, &room, Some(tally));
            frames(&mut body, 1).await;
            all.push(body);
        }
        assert_eq!((taken(), own(0)), (most, most / SHARE));
        let one_more = || vec![share[..PREFIX + SMALL + 1].to_vec()];
        let mut late = arriving(one_more(), Messages::One, &room, Some(&tallies[SHARE]));
        assert_eq!(refusal(&mut late).await, Code::Unavailable, "there is no room");
        drop(all.pop());
        let mut greedy = arriving(one_more(), Messages::One, &room, Some(&tallies[0]));
        assert_eq!(refusal(&mut greedy).await, Code::Unavailable, "it has its share");
        let mut other = arriving(one_more(), Messages::One, &room, Some(&tallies[SHARE]));
        frames(&mut other, 1).await;
        drop((all, late, greedy, other));
        assert_eq!(taken(), 0);
        assert!((0..=SHARE).all(|of| own(of) == 0));
    }

    #[tokio::test]
    async fn whoever_shows_no_root_key_sends_small_messages() {
        let room = Arc::new(Room::default());
        let mut small = arriving(vec![framed(SMALL + 1)[..PREFIX + SMALL].to_vec()], Messages::One, &room, None);
        frames(&mut small, 1).await;
        let mut large = arriving(vec![framed(SMALL + 1)], Messages::One, &room, None);
        assert_eq!(refusal(&mut large).await, Code::ResourceExhausted);
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }
}
