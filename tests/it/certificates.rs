//! Certificates made on the spot.

use std::path::PathBuf;

use ostiary::world::World;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use time::OffsetDateTime;

use crate::process::Place;

/// A day, in seconds.
const DAY: i64 = 24 * 3_600;

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub pem: String,
}

/// A certificate and its key, in PEM.
pub struct Signed {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `localhost` that is good for a year.
    pub fn sign(&self) -> Signed {
        self.sign_for(-30, 335)
    }

    /// One that is good from so many days from now until so many.
    pub fn sign_for(&self, from: i64, until: i64) -> Signed {
        self.sign_between(from * DAY, until * DAY)
    }

    /// One that is good from so many seconds from now until so many.
    pub fn sign_between(&self, from: i64, until: i64) -> Signed {
        let now = i64::try_from(World::real(None).now().millis() / 1_000).unwrap();
        let moment = |seconds: i64| OffsetDateTime::from_unix_timestamp(now + seconds).unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = moment(from);
        params.not_after = moment(until);
        let key = KeyPair::generate().unwrap();
        Signed { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

impl Signed {
    /// Writes both where a server finds them: the certificate, the key.
    pub fn write(&self, place: &Place) -> (PathBuf, PathBuf) {
        (place.write("cert.pem", &self.cert), place.write("key.pem", &self.key))
    }
}
