//! What connections are encrypted with.

use std::path::PathBuf;

use clap::Args;

use super::Misfit;

/// What may be said of TLS.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsFlags {
    /// A file with the certificate that clients are shown, in PEM: the server's own first, then those that signed it.
    ///
    /// With it, everything that comes over the network is encrypted, by TLS 1.2 or 1.3; Unix sockets stay as they are.
    /// All three files are read again at SIGHUP, and when they change; connections that are open stay open.
    #[arg(long, env = "OSTIARY_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// A file with the private key of that certificate, in PEM. It must not be readable by everybody.
    #[arg(long, env = "OSTIARY_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// A file with the certificates, in PEM, one of which must have signed a client's; others are not let in.
    ///
    /// They need a root key besides.
    #[arg(long, env = "OSTIARY_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
}

/// Where what TLS needs lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that signed it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Those whose clients are let in; everybody's without.
    pub client_ca: Option<PathBuf>,
}

impl TlsFlags {
    /// The files, or none if connections are not to be encrypted.
    ///
    /// # Errors
    /// If one flag was given and not the other that it needs.
    pub fn files(&self) -> Result<Option<TlsFiles>, Misfit> {
        let lacking = |key, why: &str| Err(Misfit { key, why: why.to_owned() });
        match self.clone() {
            Self { tls_cert: None, tls_key: None, tls_client_ca: None } => Ok(None),
            Self { tls_cert: Some(cert), tls_key: Some(key), tls_client_ca: client_ca } => {
                Ok(Some(TlsFiles { cert, key, client_ca }))
            }
            Self { tls_cert: Some(_), tls_key: None, .. } => lacking("tls-cert", "needs --tls-key besides"),
            Self { tls_cert: None, tls_key: Some(_), .. } => lacking("tls-key", "needs --tls-cert besides"),
            Self { tls_cert: None, tls_key: None, tls_client_ca: Some(_) } => {
                lacking("tls-client-ca", "needs --tls-cert and --tls-key besides")
            }
        }
    }
}
