//! Where to listen, as it is written on a command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What the address of a Unix socket begins with.
const UNIX: &str = "unix:";
/// What stands for the sockets that systemd passes.
const SYSTEMD: &str = "systemd";

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On a network address.
    Tcp(SocketAddr),
    /// On a socket in the file system.
    Unix(PathBuf),
    /// On the sockets that systemd passes, whatever they are.
    Systemd,
}

impl Address {
    /// Whether other machines can get there.
    pub fn is_reachable_from_outside(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Systemd => f.write_str(SYSTEMD),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == SYSTEMD {
            return Ok(Self::Systemd);
        }
        match text.strip_prefix(UNIX) {
            Some("") => Err(format!("{UNIX} must be followed by the path of a socket")),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| format!("must be ADDRESS:PORT, {UNIX}PATH or {SYSTEMD}")),
        }
    }
}
