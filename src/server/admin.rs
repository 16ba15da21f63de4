//! Metrics over HTTP, for whoever watches the server: apart from the API, and not there unless asked for.
//!
//! Whoever gets here sees figures of the whole and nothing of any workspace. Looking costs little however often it is
//! done: what takes long is looked up in the background, and what does not is not looked up all the time.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::listening::{Listener, Socket};
use super::tls::Tls;
use super::{Running, ServeError};
use crate::config::address::Address;

mod figures;
mod watch;

use watch::Watch;

/// Where metrics are.
const PATH: &str = "/metrics";
/// The text format, as OpenMetrics 1.0 defines it.
const TEXT: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// Connections at a time; further ones wait.
const CONNECTIONS_MAX: usize = 16;
/// How long one may last: it is there for one answer.
const CONNECTION_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request.
const REQUEST_MAX: usize = 16 << 10;
/// How long to wait before the next connection: a hundred a second are more than anybody needs to watch, and so few that
/// nobody else is kept waiting.
const PAUSE: Duration = Duration::from_millis(10);

/// A listener for those who watch.
pub struct Admin {
    listener: Listener,
    address: Address,
}

impl Admin {
    /// Listens there.
    ///
    /// # Errors
    /// If that is not possible.
    pub async fn bind(address: Address) -> Result<Self, ServeError> {
        match Listener::bind(&address).await {
            Ok((listener, address)) => Ok(Self { listener, address }),
            Err(error) => Err(ServeError::AdminListen { address, error }),
        }
    }

    /// Tells how a server is that keeps its store in this file and encrypts with this, until nothing of it is left to
    /// tell.
    pub fn tell(self, running: &Running, store: PathBuf, tls: Option<Arc<Tls>>) {
        let Self { listener, address } = self;
        tracing::info!(%address, "metrics are told");
        let watch = Arc::new(Watch::over(running, store, tls));
        let (quiet, looking) = (running.quiet.clone(), Arc::clone(&watch));
        running.background.spawn(async move {
            let both = async { tokio::join!(take(&listener, &watch), looking.look_again_and_again()) };
            quiet.run_until_cancelled(both).await;
        });
    }
}

/// Takes connections. What is under way ends with it.
async fn take(listener: &Listener, watch: &Arc<Watch>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() == CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok(socket) => {
                connections.spawn(converse(socket, Arc::clone(watch)));
            }
            Err(error) => tracing::debug!(%error, "a connection for metrics could not be taken"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn converse(socket: Socket, watch: Arc<Watch>) {
    match socket {
        Socket::Tcp(stream, _) => {
            if let Ok(stream) = TcpStream::from_std(stream) {
                exchange(stream, watch).await;
            }
        }
        Socket::Unix(stream) => {
            if let Ok(stream) = UnixStream::from_std(stream) {
                exchange(stream, watch).await;
            }
        }
    }
}

/// One request, one answer.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, watch: Arc<Watch>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let watch = Arc::clone(&watch);
        async move { Ok::<_, Infallible>(answer(&request, &watch).await) }
    });
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).keep_alive(false).max_buf_size(REQUEST_MAX);
    let connection = protocol.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_WITHIN, connection).await {
        tracing::debug!(%error, "a connection for metrics ended badly");
    }
}

async fn answer(request: &Request<Incoming>, watch: &Watch) -> Response<Full<Bytes>> {
    if request.method() != Method::GET || request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    match watch.figures().await.text() {
        Ok(text) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
            response
        }
        Err(std::fmt::Error) => plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
