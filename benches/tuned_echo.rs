//! The tuned echo: ostiary's allocator, runtimes and HTTP/2, with no work behind them.

#[path = "echo/service.rs"]
mod service;

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::service::Routes;

use service::{Failed, Listen};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A connection that has been taken and not yet been given to a runtime.
enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// A thread with a runtime of its own, and how many connections it has.
struct Core {
    sockets: UnboundedSender<Socket>,
    open: Arc<AtomicUsize>,
}

fn main() -> Result<(), Failed> {
    let Some((echo, listen)) = service::asked()? else { return Ok(()) };
    serve(&Routes::new(echo).prepare(), listen)?;
    Ok(())
}

/// Takes connections the way ostiary does, and gives each to the core that has the fewest.
fn serve(routes: &Routes, listen: Listen) -> io::Result<()> {
    let cores: Vec<Core> = (0..std::thread::available_parallelism()?.get()).map(|_| core(routes.clone())).collect();
    let give = |socket| {
        if let Some(core) = cores.iter().min_by_key(|core| core.open.load(Ordering::Relaxed)) {
            core.open.fetch_add(1, Ordering::Relaxed);
            // Its thread lives as long as the process.
            let _ = core.sockets.send(socket);
        }
    };
    match listen {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            eprintln!("serving address={}", listener.local_addr()?);
            loop {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                give(Socket::Tcp(stream));
            }
        }
        Listen::Unix(path) => {
            let listener = UnixListener::bind(&path)?;
            eprintln!("serving address=unix:{}", path.display());
            loop {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                give(Socket::Unix(stream));
            }
        }
    }
}

fn core(routes: Routes) -> Core {
    let (sockets, taken) = unbounded_channel();
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(hand_out(taken, routes, counted))
    });
    Core { sockets, open }
}

async fn hand_out(mut taken: UnboundedReceiver<Socket>, routes: Routes, open: Arc<AtomicUsize>) -> io::Result<()> {
    while let Some(socket) = taken.recv().await {
        let (routes, open) = (routes.clone(), Arc::clone(&open));
        match socket {
            Socket::Tcp(stream) => {
                let stream = tokio::net::TcpStream::from_std(stream)?;
                tokio::spawn(async move {
                    converse(stream, routes).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Socket::Unix(stream) => {
                let stream = tokio::net::UnixStream::from_std(stream)?;
                tokio::spawn(async move {
                    converse(stream, routes).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }
    Ok(())
}

/// Serves one connection, with the settings of `ostiary::server`.
async fn converse(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, routes: Routes) {
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    // A load that goes away is no news.
    let _ = protocol.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await;
}
