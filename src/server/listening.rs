//! Taking connections, over TCP or a Unix socket, and speaking HTTP/2 on them.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::config::address::Address;

/// Calls under way on one connection.
const STREAMS_MAX: u32 = 256;
/// Bytes of the headers of one call.
const HEADERS_MAX: u32 = 16 * 1024;
/// How long a connection may stay silent before its first byte.
const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(5);
/// How often a silent peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(20);
/// Who may use a Unix socket: its owner and their group.
const SOCKET_MODE: u32 = 0o660;
/// Where connections come in.
pub enum Listener {
    /// From the network.
    Tcp(TcpListener),
    /// From the same machine.
    Unix(UnixListener, Unlinked),
}

/// Takes a socket out of the file system when it is no longer listened on.
pub struct Unlinked(PathBuf);

impl Drop for Unlinked {
    fn drop(&mut self) {
        // Somebody else may have tidied up.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection that does not belong to a runtime yet.
pub enum Socket {
    /// Over the network, from this address.
    Tcp(std::net::TcpStream, IpAddr),
    /// From the same machine.
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    /// Listens there. A socket that nobody listens on any more is replaced, nothing else ever is.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn bind(address: &Address) -> io::Result<(Self, Address)> {
        match address {
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let address = listener.local_addr()?;
                Ok((Self::Tcp(listener), Address::Tcp(address)))
            }
            Address::Unix(path) => {
                remove_if_dead(path).await?;
                let listener = UnixListener::bind(path)?;
                let unlinked = Unlinked(path.clone());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
                Ok((Self::Unix(listener, unlinked), Address::Unix(path.clone())))
            }
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// If one could not be taken; the next one may be.
    pub async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream.into_std()?, peer.ip()))
            }
            Self::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

async fn remove_if_dead(path: &Path) -> io::Result<()> {
    let there = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if there
        && matches!(UnixStream::connect(path).await, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Serves a connection by the service that `front` makes for the address of its other end. Once `closing` is cancelled it
/// finishes what is under way.
pub async fn converse<S>(socket: Socket, front: impl FnOnce(Option<IpAddr>) -> S, closing: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let ended = match socket {
        Socket::Tcp(stream, peer) => match TcpStream::from_std(stream) {
            Ok(stream) if speaks(stream.async_io(Interest::READABLE, || peek(&stream)), &closing).await => {
                exchange(stream, front(Some(peer)), closing).await
            }
            Ok(_) | Err(_) => return,
        },
        Socket::Unix(stream) => match UnixStream::from_std(stream) {
            Ok(stream) if speaks(stream.async_io(Interest::READABLE, || peek(&stream)), &closing).await => {
                exchange(stream, front(None), closing).await
            }
            Ok(_) | Err(_) => return,
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// How many bytes have come, one at most. It stays where it is.
fn peek(stream: &impl AsFd) -> io::Result<usize> {
    let mut byte = [0; 1];
    let (_, length) = recv(stream, byte.as_mut_slice(), RecvFlags::PEEK)?;
    Ok(length)
}

/// Whether a byte comes in time.
async fn speaks(first_byte: impl Future<Output = io::Result<usize>>, closing: &CancellationToken) -> bool {
    let within = tokio::time::timeout(FIRST_BYTE_WITHIN, first_byte);
    matches!(closing.run_until_cancelled(within).await, Some(Ok(Ok(1))))
}

async fn exchange<I, S>(stream: I, service: S, closing: CancellationToken) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_WITHIN);
    let connection = protocol.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
