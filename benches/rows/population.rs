//! The keys of a store, known by their secrets.

use bytes::Bytes;
use ostiary::domain::id::KeyId;
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::pb::v1 as pb;

use crate::Failed;
use crate::figures::{drawn, one_of};
use crate::wire::framed;

/// Characters of a secret with the prefix `key`.
const SECRET_LENGTH: usize = 43;

/// When the first key of a population was made, in milliseconds: before everything else in a store.
const FIRST_MADE: u64 = 1_600_000_000_000;

/// Secrets as ostiary issues them to keys made one right after the other, in the order that they lie in.
pub struct Population {
    seed: u64,
    secrets: Vec<[u8; SECRET_LENGTH]>,
}

impl Population {
    /// So many; the same in every run, and others with another seed.
    pub fn drawn(number: usize, seed: u64) -> Self {
        let prefix = Prefix::default();
        let issue = |place: usize| {
            let mut random = [0; 16];
            for (part, bytes) in random.chunks_mut(8).enumerate() {
                bytes.copy_from_slice(&drawn(seed, place as u64 * 2 + part as u64).to_be_bytes());
            }
            let secret = Secret::issue_with(&prefix, id(seed, place).handle(), random);
            let mut text = [0; SECRET_LENGTH];
            text.copy_from_slice(secret.expose().as_bytes());
            text
        };
        Self { seed, secrets: (0..number).map(issue).collect() }
    }

    /// The id of the key in this place, where it was not imported.
    pub fn id(&self, place: usize) -> KeyId {
        id(self.seed, place)
    }

    /// How many.
    pub fn number(&self) -> usize {
        self.secrets.len()
    }

    /// The secret in this place.
    pub fn secret(&self, place: usize) -> &str {
        std::str::from_utf8(&self.secrets[place]).unwrap_or_default()
    }

    /// One of all, at random by the number of a call.
    pub fn any(&self, number: usize) -> &str {
        self.secret(one_of(self.number(), 2, number))
    }
}

/// Ids follow on each other. Those of another seed begin hours later, so that a store can have several populations.
fn id(seed: u64, place: usize) -> KeyId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&((FIRST_MADE << 16) + (seed << 40) + place as u64).to_be_bytes());
    bytes[8..].copy_from_slice(&drawn(11, place as u64).to_be_bytes());
    KeyId::from_bytes(bytes)
}

/// What is asked about a key: whether it is good for one permission, which its role gives it.
pub fn question(secret: &str) -> pb::VerifyKeyRequest {
    pb::VerifyKeyRequest {
        key: secret.to_owned(),
        permissions: Some("documents.read".to_owned()),
        ..Default::default()
    }
}

/// The same, about so many keys that are drawn anew for every call, framed.
pub fn batch(population: &Population, first: usize, keys: usize) -> Bytes {
    questions((first..first + keys).map(|number| population.any(number)))
}

/// The same about each of these, framed.
pub fn questions<'a>(secrets: impl Iterator<Item = &'a str>) -> Bytes {
    framed(&pb::BatchVerifyKeysRequest { requests: secrets.map(question).collect() })
}

/// The digest of a secret, as an import wants it.
pub fn hash(secret: &str) -> String {
    let digest = Secret::presented(secret.to_owned()).digest().bytes();
    digest.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

/// That all rows of an import were taken.
pub fn taken(answer: &pb::ImportKeysResponse) -> Result<(), Failed> {
    match answer.failures.first() {
        None => Ok(()),
        Some(failure) => Err(format!("a row failed: {failure:?}").into()),
    }
}
