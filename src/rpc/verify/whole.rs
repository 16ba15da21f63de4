//! Bodies of one plain message, and what they end with.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::future::poll_fn;
use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};

use crate::rpc::MESSAGE_BYTES_MAX;

use super::wire::PREFIX;

const ENCODING: &str = "grpc-encoding";
pub(super) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Whether messages may be compressed.
pub(in crate::rpc) fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_some_and(|encoding| encoding != "identity")
}

/// The one message of a body, if there is no more and no less in it, and what has come.
pub(super) async fn only_message<B>(mut body: B) -> (Option<Bytes>, Begun<B>)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    // From the second frame on there is one buffer: a peer may send as many frames as bytes.
    let mut joined = BytesMut::new();
    let mut end = None;
    while end.is_none() && !body.is_end_stream() && wanted(if joined.is_empty() { &first } else { &joined }) {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else { break };
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) if first.is_empty() => first = data,
            Ok(Ok(data)) => {
                if joined.is_empty() {
                    joined.extend_from_slice(&first);
                }
                joined.extend_from_slice(&data);
            }
            Ok(Err(trailers)) => end = Some(Ok(trailers)),
            Err(error) => end = Some(Err(error)),
        }
    }
    let come = if joined.is_empty() { first } else { joined.freeze() };
    let message = whole(&come).filter(|_| end.is_none() && body.is_end_stream());
    let data = (!come.is_empty()).then(|| Ok(Frame::data(come)));
    (message, Begun { begun: data.into_iter().chain(end).collect(), rest: body })
}

/// Whether what has come can be the beginning of one message that is answered here, or all of it.
fn wanted(come: &[u8]) -> bool {
    let Some(([compressed, length @ ..], message)) = come.split_first_chunk::<PREFIX>() else { return true };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    *compressed == 0 && length <= MESSAGE_BYTES_MAX && message.len() <= length
}

/// The message, if this is one whole message that is not compressed.
fn whole(frame: &Bytes) -> Option<Bytes> {
    let (prefix, message) = frame.split_first_chunk::<PREFIX>()?;
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let fits = compressed == 0 && length == message.len() && length <= MESSAGE_BYTES_MAX;
    fits.then(|| frame.slice(PREFIX..))
}

/// The trailers of a call that went well.
pub(super) fn good_end() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// A message and a good end.
pub(super) struct Whole {
    message: Option<Bytes>,
    ended: bool,
}

impl Whole {
    /// The message as it is sent, with what stands before it.
    pub(super) fn of(message: Bytes) -> Self {
        Self { message: Some(message), ended: false }
    }
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let next = match self.message.take() {
            Some(message) => Some(Frame::data(message)),
            None if self.ended => None,
            None => {
                self.ended = true;
                Some(Frame::trailers(good_end()))
            }
        };
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    /// At most: gRPC-Web adds what comes after it, so that this is no length of the whole.
    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_upper(self.message.as_ref().map_or(0, |message| message.len() as u64));
        hint
    }
}

/// A body of which the first frames have been looked at.
pub(in crate::rpc) struct Begun<B: http_body::Body> {
    begun: VecDeque<Result<Frame<Bytes>, B::Error>>,
    rest: B,
}

impl<B: http_body::Body> Begun<B> {
    /// One that nobody has looked at.
    pub(super) fn not_yet(rest: B) -> Self {
        Self { begun: VecDeque::new(), rest }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Begun<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.begun.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};
    use http_body::Body as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, std::convert::Infallible>>;

    /// These bytes in frames of so many.
    fn frames(bytes: &[u8], each: usize) -> Frames {
        bytes.chunks(each).map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect()
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], u32::try_from(message.len()).unwrap().to_be_bytes().as_slice(), message].concat()
    }

    #[tokio::test]
    async fn a_message_is_found_in_however_many_frames_it_comes_and_what_is_kept_of_them_is_one() {
        let message = vec![7; 10_000];
        for each in [1, 5, 9_999, 20_000] {
            let body = StreamBody::new(stream::iter(frames(&framed(&message), each)));
            let (found, begun) = only_message(body).await;
            assert_eq!(begun.begun.len(), 1, "{each}");
            // A stream does not say beforehand that it has ended: then it is left to whoever reads it again.
            assert!(found.is_none_or(|found| found == message));
            assert_eq!(begun.collect().await.unwrap().to_bytes(), framed(&message));
        }
    }

    #[tokio::test]
    async fn a_body_that_can_be_no_plain_message_is_not_read_on() {
        let compressed = [1, 0, 0, 0, 9];
        let too_long = [0, 0xff, 0xff, 0xff, 0xff];
        let trailing = [0, 0, 0, 0, 1, 7, 7];
        for start in [&compressed[..], &too_long, &trailing] {
            let endless = stream::iter(frames(start, 1)).chain(stream::iter(frames(&[0; 100], 1)));
            let (found, begun) = only_message(StreamBody::new(endless)).await;
            assert_eq!(found, None);
            assert_eq!(begun.begun.len(), 1);
            let come = begun.begun[0].as_ref().unwrap().data_ref().unwrap();
            assert_eq!(come.as_ref(), start, "no more than it takes to know");
            assert!(!begun.is_end_stream());
        }
    }
}
