//! What connections are encrypted with: the certificate, its key, and whose clients are let in.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_cert::der::Decode;

use crate::config::tls::TlsFiles;
use crate::domain::time::Timestamp;

use super::begun::Protocols;

/// The flags, as messages name them.
const CERT_FLAG: &str = "--tls-cert";
const KEY_FLAG: &str = "--tls-key";
const CLIENT_CA_FLAG: &str = "--tls-client-ca";
/// More than any of the files has.
const BYTES_MAX: u64 = 1 << 20;
/// The permission to read of those who are neither the owner nor of their group.
const EVERYBODY: u32 = 0o004;
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {path}: {why}")]
pub struct Unusable {
    flag: &'static str,
    path: PathBuf,
    why: String,
}

/// When a certificate may be used: from the first until the last moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: Timestamp,
    /// Not after.
    pub until: Timestamp,
}

/// All that one reading of the files gave.
pub struct Papers {
    config: Arc<ServerConfig>,
    /// When the certificate may be used, and all that it comes with.
    pub validity: Validity,
}

/// What connections are encrypted with at the moment.
pub struct Tls {
    /// Where it comes from.
    pub files: TlsFiles,
    protocols: Protocols,
    papers: ArcSwap<Papers>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What can't be used, and the remedy.
    pub fn load(files: TlsFiles, protocols: Protocols, now: Timestamp) -> Result<Self, Unusable> {
        let papers = ArcSwap::from_pointee(Papers::read(&files, protocols, now)?);
        Ok(Self { files, protocols, papers })
    }

    /// Reads the files anew. If they can't be used, what has been in use stays.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn reload(&self, now: Timestamp) -> Result<(), Unusable> {
        self.papers.store(Arc::new(Papers::read(&self.files, self.protocols, now)?));
        Ok(())
    }

    /// When what is in use may be.
    pub fn validity(&self) -> Validity {
        self.papers.load().validity
    }

    /// Encrypts a connection by what is in use now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.papers.load().config))
    }
}

impl Papers {
    fn read(files: &TlsFiles, protocols: Protocols, now: Timestamp) -> Result<Self, Unusable> {
        let chain = certificates(CERT_FLAG, &files.cert)?;
        let validity = validity(&files.cert, &chain)?;
        validity.holds(now).map_err(|why| unusable(CERT_FLAG, &files.cert, why))?;
        let key = private_key(&files.key)?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(CERT_FLAG, &files.cert, error.to_string()))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let refused = |why: String| unusable(CLIENT_CA_FLAG, path, why);
                let mut roots = RootCertStore::empty();
                for certificate in certificates(CLIENT_CA_FLAG, path)? {
                    roots.add(certificate).map_err(|error| refused(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| refused(error.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| of_pair(files, &error))?;
        config.alpn_protocols = protocols.names().map(<[u8]>::to_vec).collect();
        Ok(Self { config: Arc::new(config), validity })
    }
}

impl Validity {
    /// Whether now is within it.
    ///
    /// # Errors
    /// Since when it is not, or from when on it is, and the remedy.
    pub fn holds(self, now: Timestamp) -> Result<(), String> {
        if now > self.until {
            let days = now.since(self.until).as_secs() / DAY.as_secs();
            return Err(format!("the certificate expired on {}, {days} days ago; renew it", day(self.until)));
        }
        if now < self.from {
            return Err(format!(
                "the certificate is not valid before {}; wait until then, or set this machine's clock right",
                day(self.from)
            ));
        }
        Ok(())
    }

    /// Whole days left.
    pub fn days_left(self, now: Timestamp) -> u64 {
        self.until.since(now).as_secs() / DAY.as_secs()
    }

    /// Whether it is about to end: less than a fifth of it is left, and at most 14 days.
    pub fn is_ending(self, now: Timestamp) -> bool {
        let early = (self.until.since(self.from) / 5).min(14 * DAY);
        self.until.since(now) < early
    }
}

fn unusable(flag: &'static str, path: &Path, why: impl Into<String>) -> Unusable {
    Unusable { flag, path: path.to_owned(), why: why.into() }
}

/// The moment, to the second, as people write it.
fn day(moment: Timestamp) -> String {
    let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(moment.millis());
    humantime::format_rfc3339_seconds(moment).to_string()
}

fn read(flag: &'static str, path: &Path) -> Result<(File, Vec<u8>), Unusable> {
    let unreadable = |error: io::Error| unusable(flag, path, format!("can't be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    (&file).take(BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok((file, bytes))
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let (_, bytes) = read(flag, path)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(unusable(flag, path, "holds no certificate in PEM")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(unusable(flag, path, format!("is not PEM: {error}"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Unusable> {
    let (file, bytes) = read(KEY_FLAG, path)?;
    let bytes = zeroize::Zeroizing::new(bytes);
    let metadata = file.metadata().map_err(|error| unusable(KEY_FLAG, path, format!("can't be read: {error}")))?;
    if metadata.mode() & EVERYBODY != 0 {
        let mode = metadata.mode() & 0o777;
        let why = format!("everybody can read this key (mode {mode:04o}); run: chmod o= {}", path.display());
        return Err(unusable(KEY_FLAG, path, why));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => unusable(KEY_FLAG, path, "holds no private key in PEM"),
        other => unusable(KEY_FLAG, path, format!("is not PEM: {other}")),
    })
}

/// When all of these certificates may be used.
fn validity(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Validity, Unusable> {
    let mut whole = Validity { from: Timestamp::EPOCH, until: Timestamp::from_millis_saturating(u64::MAX) };
    for certificate in chain {
        let certificate = x509_cert::Certificate::from_der(certificate)
            .map_err(|error| unusable(CERT_FLAG, path, format!("holds a certificate that can't be read: {error}")))?;
        let validity = certificate.tbs_certificate.validity;
        let moment = |time: x509_cert::time::Time| {
            let millis = time.to_unix_duration().as_millis();
            Timestamp::from_millis_saturating(u64::try_from(millis).unwrap_or(u64::MAX))
        };
        whole.from = whole.from.max(moment(validity.not_before));
        whole.until = whole.until.min(moment(validity.not_after));
    }
    Ok(whole)
}

/// What is wrong with a certificate and a key that can be read.
fn of_pair(files: &TlsFiles, error: &rustls::Error) -> Unusable {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let why = format!("is not the key of the first certificate in {}", files.cert.display());
            unusable(KEY_FLAG, &files.key, why)
        }
        rustls::Error::InvalidCertificate(_) => unusable(CERT_FLAG, &files.cert, error.to_string()),
        _ => unusable(KEY_FLAG, &files.key, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> Timestamp {
        Timestamp::from_millis_saturating(1_800_000_000_000).after(DAY * u32::try_from(days).unwrap())
    }

    #[test]
    fn a_certificate_holds_from_its_first_to_its_last_moment_and_says_why_not() {
        let validity = Validity { from: at(10), until: at(100) };
        assert!(validity.holds(at(9)).unwrap_err().contains("not valid before 2027-01-25T08:00:00Z"));
        assert_eq!(validity.holds(at(10)), Ok(()));
        assert_eq!(validity.holds(at(100)), Ok(()));
        assert!(validity.holds(at(103)).unwrap_err().contains("expired on 2027-04-25T08:00:00Z, 3 days ago"));
    }

    #[test]
    fn the_end_is_told_of_two_weeks_before_or_in_the_last_fifth_of_a_short_life() {
        let long = Validity { from: at(0), until: at(100) };
        assert!(!long.is_ending(at(85)));
        assert!(long.is_ending(at(87)));
        assert_eq!(long.days_left(at(87)), 13);
        let short = Validity { from: at(0), until: at(5) };
        assert!(!short.is_ending(at(3)));
        assert!(short.is_ending(at(4).after(Duration::from_secs(1))));
    }
}
