//! `StreamVerifyKeys` as it is served: questions read where they lie, answers written as they are found.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use tonic::body::Body;
use tonic::codec::{Codec as _, DecodeBuf, Decoder};
use tonic::{Code, Status, Streaming};

use crate::pb::counted::{Counted, CountedDecoder, FIELDS_MAX, too_many_fields};
use crate::pb::v1 as pb;
use crate::rpc::streams::admitted_stream;
use crate::rpc::{Desk, MESSAGE_BYTES_MAX, status};
use crate::service::caller::Caller;

use super::direct::entries;
use super::questions::LastQuery;
use super::stream::{Answered, Answers, Said, Telling, stream_verify_keys};
use super::whole::{CONTENT_TYPE, good_end};
use super::wire::{put_framed, put_message, put_meta, put_text, put_verdict};
use super::wording::Wording;

type Question = pb::StreamVerifyKeysRequest;

/// The path of the method.
pub(in crate::rpc) const PATH: &str = "/ostiary.v1.KeyService/StreamVerifyKeys";

/// The field that has what is asked.
const REQUEST: u32 = 2;
/// Bytes of answers that are told at a time, if there are so many.
const PIECE_LENGTH: usize = 16 << 10;

/// Answers a call whose caller is among its extensions and whose messages are not compressed.
pub(in crate::rpc) fn answer<B>(desk: &Desk, request: http::Request<B>) -> Result<http::Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync,
{
    let read = |body| Streaming::new_request(Questions::default(), body, None, Some(MESSAGE_BYTES_MAX));
    let (caller, messages) = admitted_stream(tonic::Request::from_http(request.map(read)))?;
    let answers = stream_verify_keys::<Pieces>(desk, caller, messages).into_inner();
    let mut response = http::Response::new(Body::new(Told { answers, ended: false }));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    Ok(response)
}

/// Reads questions, unless they list more than any may.
struct Questions {
    last: LastQuery,
    generated: CountedDecoder<Question>,
}

impl Default for Questions {
    fn default() -> Self {
        Self { last: LastQuery::default(), generated: Counted::<Question, Question>::default().decoder() }
    }
}

impl Decoder for Questions {
    type Item = Said;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Said>, Status> {
        let message = bytes.chunk();
        let length = message.len();
        if length == bytes.remaining()
            && let Some((correlation_id, wording)) = Wording::plain_of_stream(message)
        {
            let said = Said::read(correlation_id, wording, &mut self.last);
            bytes.advance(length);
            return Ok(Some(said));
        }
        if entries(message, REQUEST).listed > FIELDS_MAX {
            return Err(too_many_fields());
        }
        let message = self.generated.decode(bytes)?;
        Ok(message.map(|message| Said::of(message, &mut self.last)))
    }
}

/// Answers as the bytes that they are, several in a piece.
#[derive(Default)]
struct Pieces(Vec<u8>);

impl Telling for Pieces {
    type Piece = Bytes;

    fn put(&mut self, caller: &Caller, answered: Answered) {
        let Answered { correlation_id, answer, revision } = answered;
        let request_id = &caller.call.request_id;
        let buffer = &mut self.0;
        put_framed(buffer, |buffer| {
            put_meta(buffer, request_id, revision);
            put_text(buffer, 2, &correlation_id);
            match answer {
                Ok(answer) => put_verdict(buffer, 3, answer),
                Err(error) => put_message(buffer, 4, &status::as_data(&error, request_id)),
            }
        });
    }

    fn is_enough(&self) -> bool {
        self.0.len() >= PIECE_LENGTH
    }

    fn take(&mut self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| std::mem::take(&mut self.0).into())
    }
}

/// The answers to a stream, and its end.
struct Told {
    answers: Answers<Bytes>,
    ended: bool,
}

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.answers.as_mut().poll_next(cx)) {
            Some(Ok(piece)) => Frame::data(piece),
            Some(Err(status)) => Frame::trailers(bad_end(&status)),
            None => Frame::trailers(good_end()),
        };
        self.ended = frame.is_trailers();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// The trailers of a call that failed.
fn bad_end(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(Code::Internal as i32));
    }
    trailers
}
