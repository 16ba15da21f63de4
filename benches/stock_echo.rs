//! The stock echo: tonic's server as it comes, on tokio's runtime as it comes, with the system's allocator.

#[path = "echo/service.rs"]
mod service;

use tokio::net::{TcpListener, UnixListener};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use service::{Failed, Listen};

fn main() -> Result<(), Failed> {
    let Some((echo, listen)) = service::asked()? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let server = Server::builder().add_service(echo);
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                eprintln!("serving address={}", listener.local_addr()?);
                server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await?;
            }
            Listen::Unix(path) => {
                let listener = UnixListener::bind(&path)?;
                eprintln!("serving address=unix:{}", path.display());
                let taken = async |listener: UnixListener| {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    Some((accepted, listener))
                };
                server.serve_with_incoming(futures::stream::unfold(listener, taken)).await?;
            }
        }
        Ok(())
    })
}
