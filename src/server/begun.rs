//! Connections that have begun as HTTP/2 does, or not in time.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// What a client of HTTP/2 says first.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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

/// Whether the other end begins as HTTP/2 does. What it says stays where it is.
///
/// # Errors
/// If the connection breaks.
pub async fn begins(wire: &impl Wire) -> io::Result<bool> {
    loop {
        let ready = wire.readable().await?;
        match wire.try_read(|| peek(wire)) {
            // Nothing more will come.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            begun => return begun,
        }
    }
}

/// Whether it has begun well, once that can be told.
fn peek(wire: &impl AsFd) -> io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    let (_, length) = recv(wire, bytes.as_mut_slice(), RecvFlags::PEEK)?;
    if length == 0 || !PREFACE.starts_with(&bytes[..length]) {
        return Ok(false);
    }
    if length == PREFACE.len() { Ok(true) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// An encrypted connection that has begun. What it began with is read once more by whoever speaks HTTP/2 on it.
pub struct Begun {
    stream: TlsStream<TcpStream>,
    /// What of the beginning has not been read once more yet.
    left: &'static [u8],
}

impl Begun {
    /// None if it begins in another way.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn with(mut stream: TlsStream<TcpStream>) -> io::Result<Option<Self>> {
        let mut bytes = [0; PREFACE.len()];
        stream.read_exact(&mut bytes).await?;
        Ok((bytes == PREFACE).then_some(Self { stream, left: &PREFACE }))
    }
}

impl AsyncRead for Begun {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let (now, later) = self.left.split_at(self.left.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
