//! `VerifyKey` without detours: one frame in, one message out.
//!
//! What a stream needs (buffers that grow, boxes around bodies, messages looked for in the middle of frames) costs a call
//! of one small message more than answering it. Nearly all calls consist of a single frame; whatever else comes goes the
//! way of all methods, unread.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::poll_fn;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use prost::Message as _;
use tonic::body::Body;

use crate::error::Error;
use crate::pb::v1 as pb;
use crate::rpc::{Desk, MESSAGE_BYTES_MAX};
use crate::service::caller::Caller;

use super::verified;

/// The path of the method.
pub(in crate::rpc) const PATH: &str = "/ostiary.v1.KeyService/VerifyKey";
/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
const ENCODING: &str = "grpc-encoding";
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// What became of a call.
pub(in crate::rpc) enum Outcome<B: http_body::Body> {
    /// It was answered.
    Answered(Response<Body>),
    /// It does not consist of a single frame. This is what has come of it.
    Otherwise(Request<Begun<B>>),
}

/// Answers a call that consists of a single frame.
pub(in crate::rpc) async fn answer<B>(desk: &Desk, caller: &Caller, request: Request<B>) -> Result<Outcome<B>, Error>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let (head, mut body) = request.into_parts();
    let mut begun = VecDeque::new();
    let message = match head.headers.contains_key(ENCODING) {
        true => None,
        false => only_message(&mut body, &mut begun).await,
    };
    let Some(message) = message.and_then(|message| pb::VerifyKeyRequest::decode(message).ok()) else {
        return Ok(Outcome::Otherwise(Request::from_parts(head, Begun { begun, rest: body })));
    };
    let answer = verified(desk, caller, message).await?;
    let mut bytes = BytesMut::with_capacity(PREFIX + answer.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(answer.encoded_len()).unwrap_or(u32::MAX));
    answer.encode_raw(&mut bytes);
    let mut response = Response::new(Body::new(Whole { message: Some(bytes.freeze()), ended: false }));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    Ok(Outcome::Answered(response))
}

/// The one message of a body of a single frame, which empty ones may follow. All frames that were looked at are in
/// `begun`.
async fn only_message<B>(body: &mut B, begun: &mut VecDeque<Result<Frame<Bytes>, B::Error>>) -> Option<Bytes>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let first = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    let message = first.as_ref().ok().and_then(|frame| frame.data_ref()).and_then(whole);
    begun.push_back(first);
    while message.is_some() && !body.is_end_stream() {
        let Some(more) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else { break };
        let empty = more.as_ref().is_ok_and(|frame| frame.data_ref().is_some_and(Bytes::is_empty));
        begun.push_back(more);
        if !empty {
            return None;
        }
    }
    message
}

/// The message, if the frame is one whole message that is not compressed.
fn whole(frame: &Bytes) -> Option<Bytes> {
    let (prefix, message) = frame.split_first_chunk::<PREFIX>()?;
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let fits = compressed == 0 && length == message.len() && length <= MESSAGE_BYTES_MAX;
    fits.then(|| frame.slice(PREFIX..))
}

/// A message and a good end.
struct Whole {
    message: Option<Bytes>,
    ended: bool,
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
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Some(Frame::trailers(trailers))
            }
        };
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// A body of which the first frames have been looked at.
pub(in crate::rpc) struct Begun<B: http_body::Body> {
    begun: VecDeque<Result<Frame<Bytes>, B::Error>>,
    rest: B,
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
