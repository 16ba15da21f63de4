//! Connections that take turns: whoever sends much at once is read on once the others of the same thread have been.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read in one turn. Calls of a busy client are a few hundred bytes each; working through as many bytes
/// of the smallest frames takes a fraction of a millisecond.
const TURN: usize = 32 << 10;

/// A stream that is read in turns.
pub struct Turns<S> {
    stream: S,
    /// What was read of it before, and has not been read once more yet.
    left: Bytes,
    /// Bytes that were read in this turn.
    read: usize,
}

impl<S> Turns<S> {
    /// Of this stream.
    pub fn of(stream: S) -> Self {
        Self::after(Bytes::new(), stream)
    }

    /// Of this stream, of which so much was read before and is read once more.
    pub fn after(left: Bytes, stream: S) -> Self {
        Self { stream, left, read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.left.is_empty() {
            let now = self.left.len().min(buffer.remaining());
            buffer.put_slice(&self.left.split_to(now));
            return Poll::Ready(Ok(()));
        }
        if self.read >= TURN {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match read {
            Poll::Ready(_) => self.read += buffer.filled().len() - before,
            Poll::Pending => self.read = 0,
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_sends_without_end_lets_others_in_between_and_loses_nothing() {
        let mut turns = Turns::of(tokio::io::repeat(7));
        let (mut buffer, mut read) = (vec![0; TURN / 4], 0);
        loop {
            let one = std::pin::pin!(turns.read(&mut buffer));
            let Some(length) = futures::FutureExt::now_or_never(one) else { break };
            read += length.unwrap();
        }
        assert_eq!(read, TURN);
        let mut rest = vec![0; 3 * TURN];
        assert_eq!(turns.read_exact(&mut rest).await.unwrap(), rest.len(), "it is woken by itself");
        assert!(rest.iter().all(|byte| *byte == 7));
    }
}
