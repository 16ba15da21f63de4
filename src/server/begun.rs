//! Connections that have begun as HTTP/2 does, or not in time.

use std::io;
use std::os::fd::AsFd;

use bytes::Bytes;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt as _, Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::turns::Turns;

/// What a client of HTTP/2 says first.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is spoken on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// Nothing else.
    Http2,
    /// HTTP/1.1 as well, for gRPC-Web.
    WithHttp1,
}

impl Protocols {
    /// What clients that encrypt are offered, best first.
    pub fn names(self) -> impl Iterator<Item = &'static [u8]> {
        let names: &'static [&'static [u8]] = match self {
            Self::Http2 => &[b"h2"],
            Self::WithHttp1 => &[b"h2", b"http/1.1"],
        };
        names.iter().copied()
    }

    /// What is spoken with a client that begins like this; nothing if it is something else.
    pub fn answer(self, began: Began) -> Option<Tongue> {
        match (began, self) {
            (Began::AsHttp2, _) => Some(Tongue::Http2),
            (Began::Otherwise, Self::WithHttp1) => Some(Tongue::Http1),
            (Began::Otherwise, Self::Http2) => None,
        }
    }
}

/// What is spoken on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tongue {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http1,
}

/// How a client begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Began {
    /// As HTTP/2 does.
    AsHttp2,
    /// In another way.
    Otherwise,
}

/// A stream whose bytes can be looked at before they are taken.
pub trait Wire: AsFd + Sync {
    /// Waits until there may be something to read.
    fn readable(&self) -> impl Future<Output = io::Result<Ready>> + Send;
    /// Tries to read.
    fn try_read<R>(&self, read: impl FnOnce() -> io::Result<R>) -> io::Result<R>;
}

impl Wire for TcpStream {
    async fn readable(&self) -> io::Result<Ready> {
        self.ready(Interest::READABLE).await
    }

    fn try_read<R>(&self, read: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(Interest::READABLE, read)
    }
}

impl Wire for UnixStream {
    async fn readable(&self) -> io::Result<Ready> {
        self.ready(Interest::READABLE).await
    }

    fn try_read<R>(&self, read: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(Interest::READABLE, read)
    }
}

/// How the other end begins. What it says stays where it is.
///
/// # Errors
/// If the connection breaks.
pub async fn begins(wire: &impl Wire) -> io::Result<Began> {
    loop {
        let ready = wire.readable().await?;
        match wire.try_read(|| peek(wire)) {
            // Nothing more will come.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => {
                return Ok(Began::Otherwise);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            begun => return begun,
        }
    }
}

/// How it begins, once that can be told.
fn peek(wire: &impl AsFd) -> io::Result<Began> {
    let mut bytes = [0; PREFACE.len()];
    let (_, length) = recv(wire, bytes.as_mut_slice(), RecvFlags::PEEK)?;
    if length == 0 || !PREFACE.starts_with(&bytes[..length]) {
        return Ok(Began::Otherwise);
    }
    if length == PREFACE.len() { Ok(Began::AsHttp2) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// How an encrypted connection begins, and the connection, on which that is read once more by whoever speaks on it. No
/// call is shorter than what is waited for.
///
/// # Errors
/// If the connection breaks.
pub async fn begins_encrypted(mut stream: TlsStream<TcpStream>) -> io::Result<(Began, Turns<TlsStream<TcpStream>>)> {
    let mut bytes = [0; PREFACE.len()];
    stream.read_exact(&mut bytes).await?;
    let began = if bytes == PREFACE { Began::AsHttp2 } else { Began::Otherwise };
    Ok((began, Turns::after(Bytes::copy_from_slice(&bytes), stream)))
}
