//! `StreamVerifyKeys` as it is served: questions read as ever, answers written as they are found.

use bytes::{Buf as _, BufMut as _};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use crate::pb::counted::{Counted, CountedDecoder, FIELDS_MAX, too_many_fields};
use crate::pb::v1 as pb;
use crate::rpc::{Desk, MESSAGE_BYTES_MAX};

use super::direct::entries;
use super::stream::{Answered, Answers, stream_verify_keys};

/// The path of the method.
pub(in crate::rpc) const PATH: &str = "/ostiary.v1.KeyService/StreamVerifyKeys";

type Question = pb::StreamVerifyKeysRequest;

/// The field that has what is asked.
const REQUEST: u32 = 2;

/// Answers a call whose caller is among its extensions.
pub(in crate::rpc) async fn answer<B>(desk: &Desk, request: http::Request<B>) -> http::Response<Body>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync,
{
    let mut grpc = Grpc::new(Plain).apply_max_message_size_config(Some(MESSAGE_BYTES_MAX), None);
    grpc.streaming(Method(desk.clone()), request).await
}

struct Method(Desk);

impl StreamingService<Question> for Method {
    type Response = Vec<u8>;
    type ResponseStream = Answers<Vec<u8>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Question>>) -> Self::Future {
        std::future::ready(stream_verify_keys(&self.0, request, Answered::bytes))
    }
}

/// Messages in as ever, messages out as the bytes that they are.
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Question;
    type Encoder = Self;
    type Decoder = Questions;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Questions {
        Questions(Counted::<Question, Question>::default().decoder())
    }
}

/// Reads questions, unless they list more than any may.
struct Questions(CountedDecoder<Question>);

impl Decoder for Questions {
    type Item = Question;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Question>, Status> {
        if entries(bytes.chunk(), REQUEST).listed > FIELDS_MAX {
            return Err(too_many_fields());
        }
        self.0.decode(bytes)
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}
