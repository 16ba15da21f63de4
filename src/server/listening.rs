//! Taking connections, over TCP or a Unix socket.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::address::Address;

/// Who may use a Unix socket: its owner and their group.
const SOCKET_MODE: u32 = 0o660;

/// Where connections come in.
pub enum Listener {
    /// From the network.
    Tcp(TcpListener),
    /// From the same machine. What this process has put there it takes away.
    Unix(UnixListener, Option<Unlinked>),
}

/// Where another process listens already, on behalf of this one.
pub enum Handed {
    /// To the network.
    Tcp(std::net::TcpListener),
    /// To the same machine.
    Unix(std::os::unix::net::UnixListener),
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
                Ok((Self::Unix(listener, Some(unlinked)), Address::Unix(path.clone())))
            }
            Address::Systemd => Err(io::Error::other("passes its sockets itself")),
        }
    }

    /// Goes on where another process has begun.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn go_on(handed: Handed) -> io::Result<(Self, Address)> {
        let address = handed.address()?;
        let listener = match handed {
            Handed::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(TcpListener::from_std(listener)?)
            }
            Handed::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener)?, None)
            }
        };
        Ok((listener, address))
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

impl Handed {
    /// Where it listens.
    ///
    /// # Errors
    /// If it does not listen anywhere.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?)),
            Self::Unix(listener) => {
                let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
                Ok(Address::Unix(path.unwrap_or_default()))
            }
        }
    }
}

impl Socket {
    /// The address of the other end, if it has one.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => Some(*peer),
            Self::Unix(_) => None,
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
