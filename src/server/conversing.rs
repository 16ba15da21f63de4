//! Speaking HTTP/2 on a connection, or HTTP/1.1 for gRPC-Web, encrypted or not, from its first byte to its last.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::begun::{Protocols, Tongue, Wire, begins, begins_encrypted};
use super::listening::Socket;
use super::tls::Tls;
use super::turns::Turns;

/// Calls under way on one connection.
const STREAMS_MAX: u32 = 256;
/// Bytes of the headers of one call. h2 gives up on a client whose headers go on in more frames than that can need.
const HEADERS_MAX: u32 = 16 * 1024;
/// Calls taken back before they were looked at, above which a client is hung up on.
const TAKEN_BACK_MAX: usize = 20;
/// Calls that had to be broken off for what a client did wrong, above which it is hung up on.
const BROKEN_OFF_MAX: usize = 256;
/// Bytes of one answer that wait to be sent; more is not asked for.
const UNSENT_MAX: usize = 64 << 10;
/// Bytes of messages that a connection may send before they are read. At a tenth of a second there and back that is
/// 2.5 MiB a second, enough for the largest message in the time that it has.
const UNREAD_MAX: u32 = 256 << 10;
/// How long a connection may take to begin: to agree on encryption, if there is any, and on HTTP/2.
const BEGUN_WITHIN: Duration = Duration::from_secs(5);
/// How often a silent peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(20);

/// Bytes of the head of a request over HTTP/1.1.
const HEAD_MAX: usize = 16 << 10;
/// How long such a head may take to come, and how long the connection may lie idle.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection of HTTP/1.1 lasts at most: nothing there tells whether its client is still there.
const HTTP1_AGE: Duration = Duration::from_secs(10 * 60);
/// How long what is under way then may take.
const HTTP1_GRACE: Duration = Duration::from_secs(60);

/// How connections are held.
#[derive(Clone)]
pub struct Terms {
    /// What those over the network are encrypted with.
    pub tls: Option<Arc<Tls>>,
    /// What is spoken.
    pub protocols: Protocols,
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
            (Ok(stream), None) => match tongue(&stream, &terms).await {
                Some(tongue) => exchange(tongue, Turns::of(stream), front(Some(peer)), terms).await,
                None => return,
            },
            // What encryption needs does not weigh on those that have none.
            (Ok(stream), Some(tls)) => match terms.in_time(Box::pin(encrypt(stream, tls, terms.protocols))).await {
                Ok(Some((tongue, stream))) => Box::pin(exchange(tongue, stream, front(Some(peer)), terms)).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, %peer, "a connection could not be encrypted");
                    return;
                }
            },
            (Err(_), _) => return,
        },
        Socket::Unix(stream) => {
            let Ok(stream) = UnixStream::from_std(stream) else { return };
            match tongue(&stream, &terms).await {
                Some(tongue) => exchange(tongue, Turns::of(stream), front(None), terms).await,
                None => return,
            }
        }
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

/// What is spoken with the other end, if it begins in time and with something that is spoken here.
async fn tongue(stream: &impl Wire, terms: &Terms) -> Option<Tongue> {
    terms.protocols.answer(terms.in_time(begins(stream)).await.ok()?)
}

/// Agrees on encryption, then on what is spoken.
async fn encrypt(
    stream: TcpStream,
    tls: &Tls,
    protocols: Protocols,
) -> io::Result<Option<(Tongue, Turns<TlsStream<TcpStream>>)>> {
    let (began, stream) = begins_encrypted(tls.acceptor().accept(stream).await?).await?;
    Ok(protocols.answer(began).map(|tongue| (tongue, stream)))
}

async fn exchange<I, S>(tongue: Tongue, stream: Turns<I>, service: S, terms: Terms) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    match tongue {
        Tongue::Http2 => by_http2(stream, service, terms).await,
        Tongue::Http1 => Box::pin(by_http1(stream, service, terms)).await,
    }
}

async fn by_http2<I, S>(stream: I, service: S, terms: Terms) -> hyper::Result<()>
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
        .max_send_buf_size(UNSENT_MAX)
        .initial_stream_window_size(UNREAD_MAX)
        .initial_connection_window_size(UNREAD_MAX)
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

async fn by_http1<I, S>(stream: I, service: S, terms: Terms) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD_MAX);
    let connection = protocol.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        _ = tokio::time::timeout(HTTP1_AGE, terms.over()) => {
            connection.as_mut().graceful_shutdown();
            // Cut if it takes too long.
            tokio::time::timeout(HTTP1_GRACE, connection).await.unwrap_or(Ok(()))
        }
    }
}
