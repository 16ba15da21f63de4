//! Calls of gRPC with messages as bytes: what a client does, and nothing more, so that the load leaves the cores to the
//! servers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::Failed;
use crate::process::Address;

pub const VERIFY_KEY: &str = "/ostiary.v1.KeyService/VerifyKey";
pub const CREATE_KEY: &str = "/ostiary.v1.KeyService/CreateKey";
pub const IMPORT_KEYS: &str = "/ostiary.v1.KeyService/ImportKeys";
pub const BATCH_VERIFY_KEYS: &str = "/ostiary.v1.KeyService/BatchVerifyKeys";
pub const STREAM_VERIFY_KEYS: &str = "/ostiary.v1.KeyService/StreamVerifyKeys";

/// Bytes before each message: whether it is compressed, and how long it is.
const PREFIX_LENGTH: usize = 5;

/// A connection.
#[derive(Clone)]
pub struct Wire {
    send: SendRequest<Payload>,
    authority: Authority,
    headers: HeaderMap,
}

impl Wire {
    /// Connects, to present this root key with every call.
    pub async fn connect(address: &Address, bearer: &HeaderValue) -> Result<Self, Failed> {
        let (send, authority) = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                (handshake(stream).await?, address.to_string().parse()?)
            }
            Address::Unix(path) => {
                (handshake(UnixStream::connect(path).await?).await?, Authority::from_static("localhost"))
            }
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("rows"));
        headers.insert(header::AUTHORIZATION, bearer.clone());
        Ok(Self { send, authority, headers })
    }

    /// One message there, one back. The message is framed already; the answer is without its frame.
    pub async fn unary(&self, path: &'static str, message: Bytes) -> Result<Bytes, Failed> {
        let mut body = self.send(path, Payload::Whole(Some(message))).await?.into_body();
        let mut answer = Bytes::new();
        while let Some(frame) = body.frame().await {
            let frame = frame?;
            if let Some(trailers) = frame.trailers_ref() {
                check(trailers)?;
                return Ok(answer.split_off(PREFIX_LENGTH.min(answer.len())));
            }
            let data = frame.into_data().unwrap_or_default();
            answer = if answer.is_empty() { data } else { [answer, data].concat().into() };
        }
        Err("a call without a status".into())
    }

    /// Messages there, framed, as they come; messages back.
    pub async fn stream(&self, path: &'static str, messages: UnboundedReceiver<Bytes>) -> Result<Answers, Failed> {
        let body = self.send(path, Payload::Parts(messages)).await?.into_body();
        Ok(Answers { body, pending: BytesMut::new() })
    }

    async fn send(&self, path: &'static str, payload: Payload) -> Result<Response<Incoming>, Failed> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        let mut request = Request::new(payload);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.headers_mut() = self.headers.clone();
        let response = self.send.clone().send_request(request).await?;
        if response.headers().contains_key("grpc-status") {
            check(response.headers())?;
        }
        Ok(response)
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Payload>, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // That it ended is told to every call on it.
    tokio::spawn(async { drop(connection.await) });
    Ok(send)
}

/// The answers of a stream.
pub struct Answers {
    body: Incoming,
    pending: BytesMut,
}

impl Answers {
    /// What has come, one or more, without their frames. `None`: the stream has ended well.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Failed> {
        loop {
            let frame = self.body.frame().await.ok_or("a stream without a status")??;
            if let Some(trailers) = frame.trailers_ref() {
                return check(trailers).map(|()| None);
            }
            self.pending.extend_from_slice(&frame.into_data().unwrap_or_default());
            let mut messages = Vec::new();
            while let Some(message) = self.split() {
                messages.push(message);
            }
            if !messages.is_empty() {
                return Ok(Some(messages));
            }
        }
    }

    /// The first message that is whole.
    fn split(&mut self) -> Option<Bytes> {
        let mut prefix = self.pending.get(1..PREFIX_LENGTH)?;
        let length = usize::try_from(prefix.get_u32()).ok()?;
        if self.pending.len() < PREFIX_LENGTH + length {
            return None;
        }
        self.pending.advance(PREFIX_LENGTH);
        Some(self.pending.split_to(length).freeze())
    }
}

/// A message in its frame.
pub fn framed(message: &impl prost::Message) -> Bytes {
    let mut buffer = BytesMut::with_capacity(PREFIX_LENGTH + message.encoded_len());
    frame(message, &mut buffer);
    buffer.freeze()
}

/// Appends a message in its frame.
pub fn frame(message: &impl prost::Message, buffer: &mut BytesMut) {
    buffer.put_u8(0);
    // No message of a load is that large.
    buffer.put_u32(message.encoded_len() as u32);
    message.encode_raw(buffer);
}

/// That the call ended well.
fn check(trailers: &HeaderMap) -> Result<(), Failed> {
    match trailers.get("grpc-status") {
        Some(status) if status == "0" => Ok(()),
        status => Err(format!("status {status:?}: {:?}", trailers.get("grpc-message")).into()),
    }
}

/// The body of a request.
enum Payload {
    Whole(Option<Bytes>),
    Parts(UnboundedReceiver<Bytes>),
}

impl http_body::Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = match self.get_mut() {
            Self::Whole(message) => Poll::Ready(message.take()),
            Self::Parts(messages) => messages.poll_recv(cx),
        };
        next.map(|data| data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
}
