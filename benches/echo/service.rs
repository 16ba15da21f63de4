//! What both echoes serve: a unary method that answers the same bytes whatever it is asked.
//!
//! ```text
//! ECHO --answer HEX [--listen 127.0.0.1:0|unix:PATH]
//! ```
//!
//! It answers under the name of ostiary's own service, so that the load sends both the very same bytes. Messages pass as
//! they are, so it costs less than a method with types.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};

pub type Failed = Box<dyn Error + Send + Sync>;

/// Where to listen.
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Reads the command line. Without an answer there is nothing to do, as when all benches are run.
pub fn asked() -> Result<Option<(Echo, Listen)>, Failed> {
    let (mut answer, mut listen) = (None, Listen::Tcp(([127, 0, 0, 1], 0).into()));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--answer", Some(hex)) => answer = Some(Echo(bytes_of(&hex)?)),
            ("--listen", Some(place)) => {
                listen = match place.strip_prefix("unix:") {
                    Some(path) => Listen::Unix(path.into()),
                    None => Listen::Tcp(place.parse()?),
                }
            }
            _ => {}
        }
    }
    Ok(answer.map(|echo| (echo, listen)))
}

fn bytes_of(hex: &str) -> Result<Bytes, Failed> {
    let pairs = hex.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| Ok::<u8, Failed>(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    bytes.collect()
}

/// Answers everything with the same bytes.
#[derive(Clone)]
pub struct Echo(Bytes);

impl NamedService for Echo {
    const NAME: &'static str = "ostiary.v1.KeyService";
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.clone())))
    }
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move { Ok(Grpc::new(Plain).unary(echo, request).await) })
    }
}

/// Messages as the bytes that they are.
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
