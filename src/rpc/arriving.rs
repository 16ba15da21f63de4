//! Messages on their way in: each arrives in time, and all that are not whole yet have so much room and no more.
//!
//! Whoever sends the beginning of a message and then nothing, on as many calls as there may be, holds neither the room
//! of those calls for long nor all of the memory.

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

/// How long a message may take to arrive, and all of a request that is one.
pub const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a message that take nobody's room.
const SMALL: usize = 16 << 10;
/// Bytes of messages that are not whole, beyond what is small of each.
const ROOM: usize = 256 << 20;
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
    /// What it takes of the room.
    taken: usize,
    /// Set when something is waited for and has not come.
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Arriving<B> {
    /// A body of which nothing has come.
    pub fn new(body: B, messages: Messages, room: Arc<Room>) -> Self {
        Self { body, room, messages, prefix: (0, [0; PREFIX]), missing: 0, there: 0, taken: 0, late: None }
    }

    /// Takes note of bytes that have come.
    fn note(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while data.has_remaining() {
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
        if self.messages == Messages::Many {
            self.give_back();
            (self.there, self.late) = (0, None);
        }
    }

    fn take(&mut self) -> Result<(), Status> {
        let more = self.there.saturating_sub(SMALL + self.taken);
        if more > 0 {
            self.taken += more;
            if self.room.taken.fetch_add(more, Ordering::Relaxed) + more > self.room.most {
                return Err(Status::unavailable("too many large messages are on their way"));
            }
        }
        Ok(())
    }

    fn give_back(&mut self) {
        if self.taken > 0 {
            self.room.taken.fetch_sub(self.taken, Ordering::Relaxed);
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
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => self.wait(cx).map(|late| Some(Err(late.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                let noted = frame.data_ref().map_or(Ok(()), |data| self.note(data));
                Poll::Ready(Some(noted.map(|()| frame).map_err(Into::into)))
            }
            Poll::Ready(end) => Poll::Ready(end.map(|end| end.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
    ) -> impl Body<Data = Bytes, Error = Failed> + Unpin {
        let frames = stream::iter(pieces).map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
        Arriving::new(StreamBody::new(frames.chain(stream::pending())), messages, Arc::clone(room))
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
        for pieces in [vec![], vec![begun], vec![half], vec![whole]] {
            let number = pieces.len();
            let mut body = arriving(pieces, Messages::One, &room);
            frames(&mut body, number).await;
            assert_eq!(refusal(&mut body).await, Code::DeadlineExceeded);
        }
        let mut body = arriving(vec![framed(9), framed(9)[..8].to_vec()], Messages::Many, &room);
        frames(&mut body, 2).await;
        assert_eq!(refusal(&mut body).await, Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_messages_there_may_be_any_time() {
        let room = Arc::new(Room::default());
        let pieces = vec![framed(0), framed(3), [framed(7), framed(9)].concat()];
        for pieces in [vec![], pieces] {
            let number = pieces.len();
            let mut body = arriving(pieces, Messages::Many, &room);
            frames(&mut body, number).await;
            assert!(tokio::time::timeout(10 * ARRIVES_WITHIN, body.frame()).await.is_err());
        }
    }

    #[tokio::test]
    async fn what_is_not_whole_takes_room_until_it_is_or_is_given_up() {
        let most = 8 * SMALL;
        let room = Arc::new(Room { most, taken: AtomicUsize::new(0) });
        let taken = || room.taken.load(Ordering::Relaxed);
        let (large, all) = (framed(SMALL + 1_000), framed(most + 2 * SMALL));
        let (begin, end) = large.split_at(PREFIX + SMALL + 500);
        let mut body = arriving(vec![begin.to_vec(), [end, begin].concat()], Messages::Many, &room);
        frames(&mut body, 1).await;
        assert_eq!(taken(), 500);
        frames(&mut body, 1).await;
        assert_eq!(taken(), 500, "the second of two");
        let mut other = arriving(vec![all[..most].to_vec()], Messages::One, &room);
        frames(&mut other, 1).await;
        drop(body);
        assert_eq!(taken(), most - SMALL - PREFIX);
        let mut third = arriving(vec![all[..3 * SMALL].to_vec()], Messages::One, &room);
        assert_eq!(refusal(&mut third).await, Code::Unavailable);
        drop((other, third));
        assert_eq!(taken(), 0);
    }
}
