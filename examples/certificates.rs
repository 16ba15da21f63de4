//! Makes certificates to try encryption with: of an authority, of a server on this machine, and of a client.
//!
//! ```sh
//! cargo run --example certificates -- DIRECTORY
//! ostiary serve --tls-cert DIRECTORY/cert.pem --tls-key DIRECTORY/key.pem --tls-client-ca DIRECTORY/ca.pem
//! grpcurl -cacert DIRECTORY/ca.pem -cert DIRECTORY/client.pem -key DIRECTORY/client-key.pem localhost:50051 list
//! ```
//!
//! They are good for 30 days. The authority's own key is not kept, so nothing more can be signed with it.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ostiary::world::World;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

/// How long they are good for.
const LIFE: Duration = Duration::days(30);

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from).ok_or("name a directory to write them to")?;
    std::fs::create_dir_all(&directory)?;
    let mut params = good(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    write(&directory, "ca.pem", &params.self_signed(&key)?.pem())?;
    let authority = Issuer::new(params, key);
    for (name, cert, key) in [("localhost", "cert.pem", "key.pem"), ("client", "client.pem", "client-key.pem")] {
        let own = KeyPair::generate()?;
        let signed = good(vec![name.to_owned()])?.signed_by(&own, &authority)?;
        write(&directory, cert, &signed.pem())?;
        write(&directory, key, &own.serialize_pem())?;
    }
    Ok(())
}

/// What all of them have in common.
fn good(names: Vec<String>) -> Result<CertificateParams, Box<dyn Error>> {
    let seconds = World::real(None).now().millis() / 1_000;
    let now = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds)?)?;
    let mut params = CertificateParams::new(names)?;
    params.not_before = now - Duration::HOUR;
    params.not_after = now + LIFE;
    Ok(params)
}

/// Writes a new file for its owner's eyes only.
fn write(directory: &Path, name: &str, pem: &str) -> std::io::Result<()> {
    let path = directory.join(name);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(pem.as_bytes())
}
