//! `VerifyKey` and `BatchVerifyKeys` without detours: one message in, one message out.
//!
//! What a stream needs (buffers that grow, boxes around bodies, messages looked for in the middle of frames) costs a call
//! of one small message more than answering it. Whatever does not consist of one plain message goes the way of all
//! methods, unread.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::future::poll_fn;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use prost::Message as _;
use tonic::body::Body;

use crate::error::Error;
use crate::pb::v1 as pb;
use crate::rpc::{Desk, MESSAGE_BYTES_MAX, status};
use crate::service::Done;
use crate::service::caller::Caller;

use super::batch::all_verified;
use super::wire::{nested, put_message, put_meta, put_verdict};
use super::{Item, verified};

/// The methods that are answered here.
#[derive(Clone, Copy)]
pub(in crate::rpc) enum Method {
    /// `VerifyKey`.
    One,
    /// `BatchVerifyKeys`.
    Many,
}

impl Method {
    /// The method of this path, if it is one of them.
    pub(in crate::rpc) fn of(path: &str) -> Option<Self> {
        match path.strip_prefix(crate::rpc::KEY_SERVICE)? {
            "VerifyKey" => Some(Self::One),
            "BatchVerifyKeys" => Some(Self::Many),
            _ => None,
        }
    }
}

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Bytes that the answer about one key has, rarely more.
const ONE_LENGTH: usize = 320;
const ENCODING: &str = "grpc-encoding";
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// What became of a call.
pub(in crate::rpc) enum Outcome<B: http_body::Body> {
    /// It was answered.
    Answered(Response<Body>),
    /// It does not consist of one plain message. This is what has come of it.
    Otherwise(Request<Begun<B>>),
}

/// Answers a call that consists of one plain message.
pub(in crate::rpc) async fn answer<B>(
    desk: &Desk,
    caller: &Caller,
    method: Method,
    request: Request<B>,
) -> Result<Outcome<B>, Error>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let (head, mut body) = request.into_parts();
    let mut begun = VecDeque::new();
    let message = match head.headers.contains_key(ENCODING) {
        true => None,
        false => only_message(&mut body, &mut begun).await,
    };
    let answer = match (message, method) {
        (Some(message), Method::One) => match pb::VerifyKeyRequest::decode(message) {
            Ok(request) => Some(one(desk, caller, request).await?),
            Err(_) => None,
        },
        (Some(message), Method::Many) => match pb::BatchVerifyKeysRequest::decode(message) {
            Ok(request) => Some(Box::pin(many(desk, caller, request)).await?),
            Err(_) => None,
        },
        (None, _) => None,
    };
    let Some(mut answer) = answer else {
        return Ok(Outcome::Otherwise(Request::from_parts(head, Begun { begun, rest: body })));
    };
    let length = u32::try_from(answer.len() - PREFIX).map_err(|_| Error::Internal("an answer of 4 GiB".to_owned()))?;
    answer[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    let mut response = Response::new(Body::new(Whole { message: Some(answer.into()), ended: false }));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    Ok(Outcome::Answered(response))
}

/// Room for the prefix and what follows.
fn room(bytes: usize) -> Vec<u8> {
    let mut room = Vec::with_capacity(PREFIX + bytes);
    room.resize(PREFIX, 0);
    room
}

async fn one(desk: &Desk, caller: &Caller, request: pb::VerifyKeyRequest) -> Result<Vec<u8>, Error> {
    let Done { answer, revision } = verified(desk, caller, request).await?;
    let mut message = room(ONE_LENGTH);
    put_meta(&mut message, &caller.call.request_id, revision);
    put_verdict(&mut message, 2, answer);
    Ok(message)
}

async fn many(desk: &Desk, caller: &Caller, request: pb::BatchVerifyKeysRequest) -> Result<Vec<u8>, Error> {
    let Done { answer, revision } = all_verified(desk, caller, request).await?;
    let request_id = &caller.call.request_id;
    let mut message = room(ONE_LENGTH * answer.len());
    put_meta(&mut message, request_id, revision);
    for answer in answer {
        nested(&mut message, 2, |message| match answer {
            Ok(Item { answer, .. }) => put_verdict(message, 1, answer),
            Err(error) => put_message(message, 2, &status::as_data(&error, request_id)),
        });
    }
    Ok(message)
}

/// The one message of a body, if there is no more and no less in it. All frames that were looked at are in `begun`.
async fn only_message<B>(body: &mut B, begun: &mut VecDeque<Result<Frame<Bytes>, B::Error>>) -> Option<Bytes>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut message = Bytes::new();
    // What came before the last frame, if there is more than one.
    let mut earlier = BytesMut::new();
    while !body.is_end_stream() {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else { break };
        let data = frame.as_ref().ok().and_then(|frame| frame.data_ref()).cloned();
        // Frames without anything in them can be many, and say nothing.
        if data.as_ref().is_none_or(|data| !data.is_empty()) {
            begun.push_back(frame);
            let data = data?;
            earlier.extend_from_slice(&message);
            message = data;
        }
        if earlier.len() + message.len() > PREFIX + MESSAGE_BYTES_MAX {
            return None;
        }
    }
    if !earlier.is_empty() {
        earlier.extend_from_slice(&message);
        message = earlier.freeze();
    }
    whole(&message)
}

/// The message, if this is one whole message that is not compressed.
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
