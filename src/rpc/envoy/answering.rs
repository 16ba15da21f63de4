//! What Envoy is answered: what a request that may pass goes on with, and what a client is told whose request may not.

use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderName;
use tonic::Code;

use crate::domain::credits::Uses;
use crate::domain::key::Verdict;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::service::auth::v3 as pb;
use crate::pb::envoy::service::auth::v3::check_response::HttpResponse;
use crate::pb::envoy::r#type::v3::{HttpStatus, StatusCode};
use crate::rpc::probing::HELD_FOR;
use crate::service::verify::{Outcomes, VerifiedKey, WholeKey};

use super::asking::Unclear;

/// What the names of all headers begin with that ostiary answers for.
pub(super) const OURS: &str = "x-ostiary-";
/// What a request that may pass can carry. What is not said of this one is taken away.
const STATEMENTS: [&str; 9] = [
    "x-ostiary-key-id",
    "x-ostiary-api-id",
    "x-ostiary-identity",
    "x-ostiary-remaining-credits",
    "x-ostiary-key-name",
    "x-ostiary-permissions",
    "x-ostiary-roles",
    "x-ostiary-omitted",
    "x-ostiary-request-id",
];
/// Bytes of a list in a header. Servers take 8 KiB of headers and more.
const LIST_LENGTH_MAX: usize = 4_096;

/// Why a request may not pass.
pub(super) enum Refusal {
    /// There is no key in it, or none that is clear.
    Unclear(Unclear),
    /// Its client asks for many keys that there aren't.
    Probing,
    /// Its key has no limit of a name that the route counts by.
    Unlimited,
    /// This is said of its key, and this by the limits of that.
    Verdict(Verdict, Option<Outcomes>),
}

impl Refusal {
    /// The word for programs.
    fn code(&self) -> &'static str {
        match self {
            Self::Unclear(Unclear::Missing) => "KEY_MISSING",
            Self::Unclear(Unclear::Malformed) => "KEY_MALFORMED",
            Self::Probing => Verdict::NAMES[Verdict::NotFound.place()],
            Self::Unlimited => "RATE_LIMIT_MISSING",
            Self::Verdict(verdict, _) => Verdict::NAMES[verdict.place()],
        }
    }

    /// What HTTP and gRPC call it.
    fn status(&self) -> (StatusCode, Code) {
        match self {
            Self::Unclear(_) => (StatusCode::Unauthorized, Code::Unauthenticated),
            Self::Probing => (StatusCode::TooManyRequests, Code::ResourceExhausted),
            Self::Unlimited => (StatusCode::Forbidden, Code::PermissionDenied),
            Self::Verdict(verdict, _) => match verdict {
                Verdict::NotFound | Verdict::Disabled | Verdict::Expired => {
                    (StatusCode::Unauthorized, Code::Unauthenticated)
                }
                Verdict::RateLimited(_) | Verdict::UsageExceeded => {
                    (StatusCode::TooManyRequests, Code::ResourceExhausted)
                }
                // A good key that nothing is known of can't be: then nothing may pass.
                Verdict::Forbidden | Verdict::InsufficientPermissions(_) | Verdict::Valid => {
                    (StatusCode::Forbidden, Code::PermissionDenied)
                }
            },
        }
    }

    /// When it is worth trying again, if that is known.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Probing => Some(HELD_FOR),
            Self::Verdict(Verdict::RateLimited(_), Some(limits)) => {
                let exceeded = limits.iter().map(|outcome| &outcome.standing).filter(|standing| standing.exceeded);
                // If one of them never lets it pass, no waiting helps.
                exceeded.map(|standing| standing.retry_after).max_by_key(|wait| wait.unwrap_or(Duration::MAX)).flatten()
            }
            Self::Unclear(_) | Self::Unlimited | Self::Verdict(_, _) => None,
        }
    }
}

/// The answer about a request that may not pass.
pub(super) fn denied(refusal: Refusal, key_header: &HeaderName, request_id: &str) -> pb::CheckResponse {
    let (status, grpc) = refusal.status();
    let code = refusal.code();
    let mut headers = vec![
        set("content-type", "application/json"),
        set("x-ostiary-code", code),
        set("x-ostiary-request-id", request_id),
    ];
    if status == StatusCode::Unauthorized {
        let challenge = if *key_header == http::header::AUTHORIZATION {
            "Bearer".to_owned()
        } else {
            format!("ApiKey header=\"{key_header}\"")
        };
        headers.push(set("www-authenticate", challenge));
    }
    if let Some(wait) = refusal.retry_after() {
        headers.push(set("retry-after", wait.as_millis().div_ceil(1_000).max(1).to_string()));
    }
    let body = format!("{{\"code\":\"{code}\"}}\n");
    let response = pb::DeniedHttpResponse { status: Some(HttpStatus { code: status.into() }), headers, body };
    answered(grpc, code, HttpResponse::DeniedResponse(response))
}

/// The answer about a request that may pass, with what is known of its key and without the key.
pub(super) fn allowed(
    key: VerifiedKey,
    key_header: &HeaderName,
    received: &[String],
    request_id: &str,
) -> pb::CheckResponse {
    let headers: Vec<_> = statements(key, request_id).into_iter().map(|(name, value)| set(name, value)).collect();
    let is_said = |name: &str| headers.iter().filter_map(|said| said.header.as_ref()).any(|said| said.key == name);
    let unsaid = STATEMENTS.into_iter().filter(|name| !is_said(name)).map(HeaderName::from_static);
    let claimed = received.iter().filter(|name| claims_to_be_ours(name));
    let claimed = claimed.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
    let mut taken: Vec<String> = unsaid
        .chain(claimed)
        .chain([key_header.clone()])
        .map(|name| name.as_str().to_owned())
        // Envoy takes away last.
        .filter(|name| !is_said(name))
        .collect();
    taken.sort_unstable();
    taken.dedup();
    let response = pb::OkHttpResponse { headers, headers_to_remove: taken };
    answered(Code::Ok, "", HttpResponse::OkResponse(response))
}

/// Whether a server could take a header for one of ostiary's. Some don't tell `_` from `-`.
fn claims_to_be_ours(name: &str) -> bool {
    name.to_ascii_lowercase().replace('_', "-").starts_with(OURS)
}

/// What is said of a key, in the order of the names.
fn statements(key: VerifiedKey, request_id: &str) -> Vec<(&'static str, String)> {
    let VerifiedKey { id, api, expiry: _, external_id, uses, limits: _, whole } = key;
    let mut said = vec![("x-ostiary-key-id", id.text()), ("x-ostiary-api-id", api.text())];
    if let Some(external_id) = external_id {
        said.push(("x-ostiary-identity", encoded(external_id.as_str())));
    }
    if let Uses::Left(left) = uses {
        said.push(("x-ostiary-remaining-credits", left.to_string()));
    }
    if let Some(WholeKey { key, roles, permissions, identity: _ }) = whole.map(|whole| *whole) {
        let permissions: Vec<&str> = permissions.iter().map(|slug| slug.as_str()).collect();
        let roles: Vec<String> = roles.iter().map(|role| encoded(role.name.as_str())).collect();
        let lists = [("x-ostiary-permissions", permissions.join(",")), ("x-ostiary-roles", roles.join(","))];
        let (fit, omitted): (Vec<_>, Vec<_>) = lists.into_iter().partition(|(_, list)| list.len() <= LIST_LENGTH_MAX);
        let omitted: Vec<&str> = omitted.iter().map(|(name, _)| &name[OURS.len()..]).collect();
        said.push(("x-ostiary-key-name", encoded(key.name.as_str())));
        said.extend(fit);
        said.push(("x-ostiary-omitted", omitted.join(",")));
    }
    said.push(("x-ostiary-request-id", request_id.to_owned()));
    said.retain(|(_, value)| !value.is_empty());
    said
}

/// Text in visible ASCII, percent-encoded where it is anything else, or would end an entry of a list.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b',') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A header that takes the place of any of its name. Said in both ways: which one counts depends on Envoy's version.
#[expect(deprecated, reason = "older versions of Envoy know nothing else")]
fn set(name: &str, value: impl Into<String>) -> core::HeaderValueOption {
    core::HeaderValueOption {
        header: Some(core::HeaderValue { key: name.to_owned(), value: value.into(), raw_value: Vec::new() }),
        append: Some(false),
        append_action: core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

fn answered(code: Code, message: &str, response: HttpResponse) -> pb::CheckResponse {
    let status = tonic_types::pb::Status { code: code.into(), message: message.to_owned(), details: Vec::new() };
    pb::CheckResponse { status: Some(status), http_response: Some(response) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_in_a_header_is_visible_ascii_whatever_it_was() {
        assert_eq!(encoded("acme/42"), "acme/42");
        assert_eq!(encoded("Zoë & co, 100 %"), "Zo%C3%AB%20&%20co%2C%20100%20%25");
        assert_eq!(encoded("a\r\nx-evil: 1"), "a%0D%0Ax-evil:%201");
    }

    #[test]
    fn a_header_claims_to_be_ours_however_it_is_spelled() {
        for name in ["x-ostiary-key-id", "X-Ostiary-Key-Id", "x_ostiary_key_id", "x-ostiary-anything"] {
            assert!(claims_to_be_ours(name), "{name}");
        }
        assert!(!claims_to_be_ours("x-ostiaryx") && !claims_to_be_ours("ostiary-key-id"));
    }
}
