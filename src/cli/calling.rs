//! Which server to call, how to get there, and how long to wait.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tower::service_fn;

use crate::domain::secret::Secret;
use crate::world::World;

use super::client::Client;
use super::failure::{Failure, cause};
use super::output::{Format, Output};
use super::{Surroundings, flags, root_key};

/// What the address of a socket begins with.
const UNIX: &str = "unix:";
/// What calls over a socket are addressed to.
const AUTHORITY_OF_SOCKETS: &str = "http://localhost";
/// What a certificate begins with.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";
/// How often a server is asked whether it is still there, while a call is under way.
const ALIVE_EVERY: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const ALIVE_WITHIN: Duration = Duration::from_secs(20);
/// What these flags stand under in the help.
const HEADING: &str = "Calling the server";
/// How the program names itself to servers.
const USER_AGENT: &str = concat!("ostiary-cli/", env!("CARGO_PKG_VERSION"));

/// How to call a server.
#[derive(Debug, Clone, Args)]
pub struct Calling {
    /// The server: http://HOST:PORT, https://HOST:PORT, or `unix:` and the path of its socket.
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "OSTIARY_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_name = "ADDRESS"
    )]
    server: Address,

    /// Certificates, as PEM, of the authorities that the server's certificate may come from. Without it, those of this
    /// machine.
    #[arg(long, global = true, help_heading = HEADING, env = "OSTIARY_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The certificate, as PEM, to show to a server that asks for one.
    #[arg(long, global = true, help_heading = HEADING, env = "OSTIARY_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// The private key, as PEM, of that certificate.
    #[arg(long, global = true, help_heading = HEADING, env = "OSTIARY_CLIENT_KEY", value_name = "FILE")]
    client_key: Option<PathBuf>,

    /// Send the root key without encryption to a server on another machine.
    ///
    /// It crosses the network readable by everybody on the way: only for a network that you trust.
    #[arg(long, global = true, help_heading = HEADING)]
    allow_plaintext: bool,

    /// How long to wait for an answer, and for a connection.
    #[arg(long, global = true, help_heading = HEADING, default_value = "10s", value_name = "DURATION", value_parser = flags::patience)]
    timeout: Duration,

    /// How answers are written to standard output.
    #[arg(long, short, global = true, help_heading = HEADING, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    /// At a host and a port, encrypted or not.
    Network(Uri),
    /// At a socket in the file system.
    Socket(PathBuf),
}

impl Calling {
    /// How answers are printed.
    pub fn output(&self) -> Output {
        Output::new(self.output)
    }

    /// How long to wait for one answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A client with the root key of the environment, connected.
    pub async fn client<'a>(&self, surroundings: &Surroundings<'a>) -> Result<Client<'a>, Failure> {
        let root_key = root_key::find(surroundings.variable)?;
        self.check_privacy()?;
        self.client_with(surroundings.world, &root_key).await
    }

    async fn client_with<'a>(&self, world: &'a World, root_key: &Secret) -> Result<Client<'a>, Failure> {
        Client::new(self.connect().await?, root_key, self.timeout, world)
    }

    /// Refuses to send secrets where others can read them on the way.
    fn check_privacy(&self) -> Result<(), Failure> {
        if self.server.is_private() || self.allow_plaintext {
            return Ok(());
        }
        Err(Failure::Misused(format!(
            "--server {}: the root key would leave this machine without encryption; use https://, or set \
             --allow-plaintext if the network is trusted",
            self.server
        )))
    }

    /// A connection, without a word about who is calling.
    pub async fn connect(&self) -> Result<Channel, Failure> {
        let connecting = async {
            match &self.server {
                Address::Network(uri) => self.endpoint(uri)?.connect().await.map_err(|error| self.away(&cause(&error))),
                Address::Socket(path) => self.over(path).await,
            }
        };
        let in_time = tokio::time::timeout(self.timeout, connecting).await;
        in_time.unwrap_or_else(|_| Err(self.away(&format!("none in {}", humantime::format_duration(self.timeout)))))
    }

    fn endpoint(&self, uri: &Uri) -> Result<Endpoint, Failure> {
        let endpoint = named(Endpoint::from(uri.clone()))?;
        if uri.scheme_str() != Some("https") {
            if self.ca.is_some() || self.client_cert.is_some() || self.client_key.is_some() {
                return Err(Failure::Misused(
                    "--ca, --client-cert and --client-key are for a --server that begins with https://".to_owned(),
                ));
            }
            return Ok(endpoint);
        }
        let tls = match &self.ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        let tls = match (&self.client_cert, &self.client_key) {
            (None, None) => tls,
            (Some(certificate), Some(key)) => {
                tls.identity(Identity::from_pem(pem("--client-cert", certificate)?, pem("--client-key", key)?))
            }
            _ => return Err(Failure::Misused("--client-cert and --client-key: give both or neither".to_owned())),
        };
        endpoint.tls_config(tls).map_err(|error| Failure::Misused(format!("certificates: {}", cause(&error))))
    }

    async fn over(&self, path: &Path) -> Result<Channel, Failure> {
        let endpoint = named(Endpoint::from_static(AUTHORITY_OF_SOCKETS))?;
        let path = path.to_owned();
        let connector = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector(connector).await.map_err(|error| self.away(&cause(&error)))
    }

    fn away(&self, why: &str) -> Failure {
        Failure::Away(format!("no connection to {}: {why}", self.server))
    }
}

fn named(endpoint: Endpoint) -> Result<Endpoint, Failure> {
    let endpoint = endpoint.http2_keep_alive_interval(ALIVE_EVERY).keep_alive_timeout(ALIVE_WITHIN);
    endpoint.user_agent(USER_AGENT).map_err(|error| Failure::Broken(cause(&error)))
}

fn authorities(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = pem("--ca", path)?;
    if text.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE) {
        return Ok(text);
    }
    Err(Failure::Misused(format!("--ca {}: holds no certificate as PEM", path.display())))
}

fn pem(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Misused(format!("{flag} {}: {error}", path.display())))
}

impl Address {
    /// Whether nobody on the way can read what is sent there.
    fn is_private(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Network(uri) if uri.scheme_str() == Some("https") => true,
            Self::Network(uri) => {
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
                host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return if path.is_empty() {
                Err(format!("{UNIX} must be followed by the path of a socket"))
            } else {
                Ok(Self::Socket(path.into()))
            };
        }
        let fit = |uri: &Uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.path() == "/"
                && uri.query().is_none()
        };
        match text.parse::<Uri>() {
            Ok(uri) if fit(&uri) => Ok(Self::Network(uri)),
            _ => Err(format!("must be http://HOST:PORT, https://HOST:PORT or {UNIX}PATH")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(uri) => f.write_str(uri.to_string().trim_end_matches('/')),
            Self::Socket(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_or_sockets() {
        for text in ["http://127.0.0.1:50051", "https://keys.example", "unix:/run/ostiary/socket", "http://[::1]:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "127.0.0.1:50051", "ftp://a", "http://", "http://a/b", "http://user:word@a", "http://a?b"] {
            assert!(text.parse::<Address>().unwrap_err().contains("http://HOST:PORT"), "{text}");
        }
        assert!("unix:".parse::<Address>().unwrap_err().contains("path of a socket"));
    }

    #[test]
    fn what_leaves_the_machine_without_encryption_is_not_private() {
        for (text, private) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("https://keys.example", true),
            ("unix:socket", true),
            ("http://10.0.0.1:1", false),
            ("http://keys.example", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_private(), private, "{text}");
        }
    }
}
