//! Speaking HTTP/2 on a connection, encrypted or not, from its first byte to its last.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::begun::{Begun, Wire, begins};
use super::listening::Socket;
use super::tls::Tls;

/// Calls under way on one connection.
const STREAMS_MAX: u32 = 256;
/// Bytes of the headers of one call. h2 gives up on a client whose headers go on in more frames than that can need.
const HEADERS_MAX: u32 = 16 * 1024;
/// Calls taken back before they were looked at, above which a client is hung up on.
const TAKEN_BACK_MAX: usize = 20;
/// Calls that had to be broken off for what a client did wrong, above which it is hung up on.
const BROKEN_OFF_MAX: usize = 256;
/// How long a connection may take to begin: to agree on encryption, if there is any, and on HTTP/2.
const BEGUN_WITHIN: Duration = Duration::from_secs(5);
/// How often a silent peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(20);

/// How connections are held.
#[derive(Clone)]
pub struct Terms {
    /// What those over the network are encrypted with.
    pub tls: Option<Arc<Tls>>,
    /// How long this one may last.
    pub age: Option<Duration>,
    /// Cancelled when the server closes: what is under way is finished.
    pub closing: CancellationToken,
}

/// Serves a connection by the service that `front` makes for the address of its other end.
pub async fn converse<S>(socket: Socket, front: impl FnOnce(Option<IpAddr>) -> S, terms: Terms)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let ended = match socket {
        Socket::Tcp(stream, peer) => match (TcpStream::from_std(stream), &terms.tls) {
            (Ok(stream), None) if speaks(&stream, &terms).await => exchange(stream, front(Some(peer)), terms).await,
            // What encryption needs does not weigh on those that have none.
            (Ok(stream), Some(tls)) => match terms.in_time(Box::pin(encrypt(stream, tls))).await {
                Ok(Some(stream)) => Box::pin(exchange(stream, front(Some(peer)), terms)).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, %peer, "a connection could not be encrypted");
                    return;
                }
            },
            (Ok(_) | Err(_), _) => return,
        },
        Socket::Unix(stream) => match UnixStream::from_std(stream) {
            Ok(stream) if speaks(&stream, &terms).await => exchange(stream, front(None), terms).await,
            Ok(_) | Err(_) => return,
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

impl Terms {
    /// What comes of a beginning, unless the time for it is over or the server closes.
    async fn in_time<T>(&self, beginning: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let within = tokio::time::timeout(BEGUN_WITHIN, beginning);
        match self.closing.run_until_cancelled(within).await {
            Some(Ok(begun)) => begun,
            Some(Err(_)) => Err(io::ErrorKind::TimedOut.into()),
            None => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Returns when what is under way should be finished.
    async fn over(&self) {
        match self.age {
            None => self.closing.cancelled().await,
            Some(age) => {
                // Whichever comes first.
                let _ = tokio::time::timeout(age, self.closing.cancelled()).await;
            }
        }
    }
}

/// Whether the other end begins in time as HTTP/2 does.
async fn speaks(stream: &impl Wire, terms: &Terms) -> bool {
    terms.in_time(begins(stream)).await.unwrap_or(false)
}

/// Agrees on encryption, then on HTTP/2.
async fn encrypt(stream: TcpStream, tls: &Tls) -> io::Result<Option<Begun>> {
    Begun::with(tls.acceptor().accept(stream).await?).await
}

async fn exchange<I, S>(stream: I, service: S, terms: Terms) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_MAX)
        .max_pending_accept_reset_streams(TAKEN_BACK_MAX)
        .max_local_error_reset_streams(BROKEN_OFF_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_WITHIN);
    let connection = protocol.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = terms.over() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
