//! Secrets that may be delivered once more, because a caller's connection broke before the answer arrived.
//!
//! Kept in memory only and for ten minutes, sealed under a key that is derived from the caller's own secret and its
//! idempotency key. ostiary keeps neither, so what lies here opens for nobody but the caller who repeats the call.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use parking_lot::Mutex;

use crate::domain::id::RootKeyId;
use crate::domain::kind::Kind;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::error::Error;

use super::caller::{Caller, Idempotency};
use super::{Ostiary, Run};

/// How long a secret can be delivered again.
const REDELIVERY: Duration = Duration::from_secs(10 * 60);
/// How many are kept; beyond, the oldest goes.
const SEALED_MAX: usize = 16_384;

/// Which secret: the caller, its idempotency key, and what was made. Two calls under one idempotency key may both have
/// drawn a secret, of which only one came to be.
type Address = (RootKeyId, [u8; 32], [u8; 16]);

struct Sealed {
    until: Timestamp,
    nonce: [u8; 12],
    text: Vec<u8>,
}

/// The sealed secrets.
#[derive(Default)]
pub struct Deliveries(Mutex<Shelf>);

#[derive(Default)]
struct Shelf {
    sealed: HashMap<Address, Sealed>,
    oldest_first: VecDeque<Address>,
}

impl Deliveries {
    /// Seals a secret that is about to be made.
    pub fn seal(
        &self,
        (caller, made): (RootKeyId, [u8; 16]),
        idempotency: &Idempotency,
        secret: &Secret,
        nonce: [u8; 12],
        now: Timestamp,
    ) {
        let cipher = ChaCha20Poly1305::new((&**idempotency.seal).into());
        let text = cipher
            .encrypt(&Nonce::from(nonce), secret.expose().as_bytes())
            .expect("a secret is far shorter than what one nonce can seal");
        let address = (caller, idempotency.key, made);
        let mut shelf = self.0.lock();
        shelf.clear_until(now);
        shelf.sealed.insert(address, Sealed { until: now.after(REDELIVERY), nonce, text });
        shelf.oldest_first.push_back(address);
        while shelf.sealed.len() > SEALED_MAX {
            shelf.drop_oldest();
        }
    }

    /// Opens it again for the caller who repeats the call.
    pub fn open(
        &self,
        (caller, made): (RootKeyId, [u8; 16]),
        idempotency: &Idempotency,
        now: Timestamp,
    ) -> Option<Secret> {
        let mut shelf = self.0.lock();
        shelf.clear_until(now);
        let sealed = shelf.sealed.get(&(caller, idempotency.key, made))?;
        let cipher = ChaCha20Poly1305::new((&**idempotency.seal).into());
        let text = cipher.decrypt(&Nonce::from(sealed.nonce), sealed.text.as_slice()).ok()?;
        String::from_utf8(text).ok().map(Secret::presented)
    }
}

impl Ostiary {
    /// Seals the secret of what is about to be made, if the call may be repeated.
    pub(super) fn prepare_delivery(&self, caller: &Caller, made: [u8; 16], secret: &Secret) {
        if let Some(idempotency) = &caller.call.idempotency {
            let address = (caller.root_key().id, made);
            self.deliveries.seal(address, idempotency, secret, self.world.random(), self.world.now());
        }
    }

    /// The secret of what was made: fresh at the first call, opened again at a repeat, none at a rehearsal.
    ///
    /// # Errors
    /// [`Error::SecretAlreadyDelivered`] if a repeat comes too late for that.
    pub(super) fn deliver(
        &self,
        caller: &Caller,
        run: Run,
        fresh: Option<Secret>,
        (kind, made, id): (Kind, [u8; 16], &impl std::fmt::Display),
    ) -> Result<Option<Secret>, Error> {
        if run == Run::Rehearse {
            return Ok(None);
        }
        let again = || {
            let idempotency = caller.call.idempotency.as_ref()?;
            self.deliveries.open((caller.root_key().id, made), idempotency, self.world.now())
        };
        match fresh.or_else(again) {
            Some(secret) => Ok(Some(secret)),
            None => Err(Error::SecretAlreadyDelivered { kind, id: id.to_string() }),
        }
    }
}

impl Shelf {
    /// Drops what can't be delivered any more. All stay equally long, so the oldest goes first.
    fn clear_until(&mut self, now: Timestamp) {
        while let Some(address) = self.oldest_first.front() {
            if self.sealed.get(address).is_some_and(|sealed| now < sealed.until) {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(address) = self.oldest_first.pop_front() {
            self.sealed.remove(&address);
        }
    }
}
