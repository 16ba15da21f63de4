//! Who gets in: the root key is read and recognised before the message is decoded, and the header is gone after.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest, Sha256};

use crate::domain::secret::Secret;
use crate::error::{Error, Unrecognised};
use crate::service::Ostiary;
use crate::service::caller::{Call, Caller, Idempotency};

use super::policy::{Effect, Need, Policy};
use super::throttle::{Throttle, neighbourhood};

/// The header of a call that is to take effect once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Characters of an idempotency key.
const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 255;
/// Characters that are kept of what a caller says it is.
const USER_AGENT_LENGTH_MAX: usize = 256;
/// Characters that a presented root key may have before it is not looked at.
const BEARER_LENGTH_MAX: usize = 512;

/// Recognises the caller, or says why not. Failures that may be guesses are counted against the caller's address.
pub async fn recognise(
    ostiary: &Arc<Ostiary>,
    throttle: &Throttle,
    remote: Option<IpAddr>,
    policy: Policy,
    request_id: &str,
    headers: &HeaderMap,
) -> Result<Caller, Error> {
    // It is for the audit log, in which verifications are not.
    let told = headers.get(header::USER_AGENT).filter(|_| policy.effect != Effect::Verify);
    let user_agent = told.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let user_agent = user_agent.chars().take(USER_AGENT_LENGTH_MAX).collect();
    let mut call = Call { request_id: request_id.to_owned(), remote, user_agent, idempotency: None, deadline: None };
    let recognised = match presented(headers) {
        Err(why) => Err(Error::Unauthenticated(why)),
        Ok(secret) => {
            if let Some(Ok(key)) = idempotency_key(headers, policy) {
                call.idempotency = Some(Idempotency::new(&key, &secret, policy.path));
            }
            ostiary.authenticate(&secret, call).await
        }
    };
    recognised.map_err(|error| match error {
        // What is known and refused has proven itself; only what may be a guess is counted.
        Error::Unauthenticated(why) if !why.is_known() => {
            match throttle.failed(remote.map(neighbourhood), ostiary.world().now()) {
                Ok(()) => error,
                Err(retry_after) => Error::AttemptsLimited { retry_after },
            }
        }
        other => other,
    })
}

/// Whether the caller may call the method at all and just now, and says nothing unfit in the headers.
pub fn check(ostiary: &Ostiary, caller: &Caller, policy: Policy, headers: &HeaderMap) -> Result<(), Error> {
    ostiary.count_call(caller)?;
    if let Need::Capability(capability) = policy.need {
        caller.permit(capability)?;
    }
    idempotency_key(headers, policy).transpose().map(|_| ())
}

/// Takes the root key out of the headers, so that nothing later can log it.
pub fn forget_secrets(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
}

/// Leaves of the headers only what a message is read by: whoever shows no root key takes no memory by what else there is
/// for as long as the message does not come.
pub fn keep_needed(headers: &mut HeaderMap) {
    let given = std::mem::take(headers);
    for name in [header::CONTENT_TYPE, HeaderName::from_static("grpc-encoding"), header::TE] {
        if let Some(value) = given.get(&name) {
            // A value is part of the block that all headers came in.
            let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) else { continue };
            headers.insert(name, value);
        }
    }
}

/// The one root key that the headers present.
fn presented(headers: &HeaderMap) -> Result<Secret, Unrecognised> {
    let mut entries = headers.get_all(header::AUTHORIZATION).iter();
    let entry = entries.next().ok_or(Unrecognised::Missing)?;
    if entries.next().is_some() {
        return Err(Unrecognised::Malformed);
    }
    let text = entry.to_str().map_err(|_| Unrecognised::Malformed)?;
    let (scheme, secret) = text.split_once(' ').ok_or(Unrecognised::Malformed)?;
    let fit = (1..=BEARER_LENGTH_MAX).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic());
    if scheme.eq_ignore_ascii_case("bearer") && fit {
        Ok(Secret::presented(secret.to_owned()))
    } else {
        Err(Unrecognised::Malformed)
    }
}

/// The caller's idempotency key, if the method changes anything, there is one, and it is fit to be one.
fn idempotency_key(headers: &HeaderMap, policy: Policy) -> Option<Result<String, Error>> {
    if !matches!(policy.effect, Effect::Change | Effect::Count) {
        return None;
    }
    let mut entries = headers.get_all(IDEMPOTENCY_KEY).iter();
    let entry = entries.next()?;
    let text = entry.to_str().ok().filter(|_| entries.next().is_none());
    let fit = |text: &&str| {
        (1..=IDEMPOTENCY_KEY_LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    Some(text.filter(fit).map(str::to_owned).ok_or_else(|| {
        Error::field(
            IDEMPOTENCY_KEY,
            format!("must be one entry of 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} visible ASCII characters"),
        )
    }))
}

/// The digest of something that must come back unchanged.
pub fn digest_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}
