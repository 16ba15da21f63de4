//! What Envoy asks: the key from a header, all else from the configuration of the route.

use std::collections::HashMap;
use std::net::IpAddr;

use http::HeaderName;

use crate::domain::Flaw;
use crate::domain::secret::Secret;
use crate::error::{Error, Violation};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::service::auth::v3::CheckRequest;
use crate::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use crate::pb::v1 as pb;
use crate::rpc::keys::KEY_LENGTH_MAX;

use super::answering::OURS;
use super::in_extensions;

/// What the configuration of a route may say.
const NAMES: [&str; 7] = ["api_id", "permissions", "rate_limits", "cost", "view", "key_header", "client_ip_header"];
/// The header that a key is in, unless the configuration names another.
const KEY_HEADER: HeaderName = http::header::AUTHORIZATION;

/// A question about a request.
pub(super) struct Asked {
    /// The names of the headers that came.
    pub received: Vec<String>,
    /// The header that the key is in.
    pub key_header: HeaderName,
    /// The key, or why there is none to ask about.
    pub presented: Result<Secret, Unclear>,
    /// What to ask about it.
    pub question: Question,
}

/// A question that lacks only the key.
pub(super) struct Question(pb::VerifyKeyRequest);

impl Question {
    /// The question about a key.
    pub(super) fn about(self, key: Secret) -> pb::VerifyKeyRequest {
        pb::VerifyKeyRequest { key: key.expose().to_owned(), ..self.0 }
    }
}

/// Reads the question. An error is Envoy's configuration's fault.
pub(super) fn read(request: CheckRequest) -> Result<Asked, Error> {
    let CheckRequest { attributes } = request;
    let attributes = attributes.unwrap_or_default();
    let http = attributes.request.and_then(|request| request.http);
    let Some(HttpRequest { headers, header_map }) = http else {
        return Err(Error::field("attributes.request.http", "must be given: only HTTP requests can be judged"));
    };
    let Some(headers) = Headers::new(headers, header_map) else {
        return Err(Error::field("attributes.request.http.headers", "must not be given with header_map"));
    };
    let Route { key_header, client_ip_header, question } = route(attributes.context_extensions)?;
    let client = match client_ip_header {
        None => attributes.source.and_then(|source| source.address).and_then(address_of),
        Some(name) => headers.only(&name).ok().and_then(|value| value.trim().parse().ok()),
    };
    let client_ip = client.map(|client: IpAddr| client.to_string());
    let presented = presented(&headers, &key_header);
    let question = Question(pb::VerifyKeyRequest { client_ip, ..question });
    Ok(Asked { received: headers.names(), key_header, presented, question })
}

/// What the configuration of a route says.
struct Route {
    key_header: HeaderName,
    client_ip_header: Option<HeaderName>,
    /// Without the key and the client.
    question: pb::VerifyKeyRequest,
}

/// Reads the configuration of a route. What it doesn't know it refuses: a misspelled `permissions` would ask for none.
fn route(mut extensions: HashMap<String, String>) -> Result<Route, Error> {
    let mut violations = Vec::new();
    let mut refuse = |name: &str, flaw: String| violations.push(in_extensions(name, Flaw::new(flaw)));
    let mut take = |name: &str| extensions.remove(name);
    let api_id = take("api_id");
    if api_id.is_none() {
        refuse("api_id", "must be given".to_owned());
    }
    let mut header = |name: &str| {
        let read = take(name).map(|text| header_name(&text));
        let flaw = || format!("must be the name of a header, but not host or one that begins with {OURS}");
        read.transpose().unwrap_or_else(|()| {
            refuse(name, flaw());
            None
        })
    };
    let (key_header, client_ip_header) = (header("key_header"), header("client_ip_header"));
    let cost = take("cost").map(|text| text.parse()).transpose().unwrap_or_else(|_| {
        refuse("cost", "must be a whole number".to_owned());
        None
    });
    let view = match take("view").as_deref() {
        None | Some("BASIC") => pb::VerificationView::Basic,
        Some("FULL") => pb::VerificationView::Full,
        Some(_) => {
            refuse("view", "must be BASIC or FULL".to_owned());
            pb::VerificationView::Basic
        }
    };
    let permissions = take("permissions");
    let limits = take("rate_limits").unwrap_or_default();
    let limits = limits.split(',').map(str::trim).filter(|_| !limits.is_empty());
    let rate_limits = limits.map(|name| pb::VerifyRateLimit { name: name.to_owned(), ..Default::default() }).collect();
    let question = pb::VerifyKeyRequest {
        api_id,
        permissions,
        rate_limits,
        cost,
        view: view.into(),
        key: String::new(),
        client_ip: None,
        dry_run: false,
        min_revision: String::new(),
        tags: Vec::new(),
    };
    let mut unknown: Vec<String> = extensions.into_keys().collect();
    unknown.sort_unstable();
    violations.extend(unknown.into_iter().map(|name| unknown_name(&name)));
    if violations.is_empty() {
        Ok(Route { key_header: key_header.unwrap_or(KEY_HEADER), client_ip_header, question })
    } else {
        Err(Error::Invalid(violations))
    }
}

/// Characters of a name that are told.
const NAME_LENGTH_MAX: usize = 64;

fn unknown_name(name: &str) -> Violation {
    let shown: String = name.chars().take(NAME_LENGTH_MAX).collect();
    in_extensions(&shown, Flaw::new(format!("is unknown; there are {}", NAMES.join(", "))))
}

/// A header that a client sends and that can be taken away.
fn header_name(text: &str) -> Result<HeaderName, ()> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| ())?;
    if name == http::header::HOST || name.as_str().starts_with(OURS) { Err(()) } else { Ok(name) }
}

fn address_of(address: core::Address) -> Option<IpAddr> {
    let core::address::Address::SocketAddress(core::SocketAddress { address }) = address.address?;
    address.parse().ok()
}

/// The headers of a request, in whichever form they came.
enum Headers {
    Merged(HashMap<String, String>),
    Raw(Vec<core::HeaderValue>),
}

/// Why there is nothing to go by in a header.
#[derive(Clone, Copy)]
pub(super) enum Unclear {
    /// It did not come.
    Missing,
    /// It came more than once, or is nothing of what was looked for.
    Malformed,
}

impl Headers {
    /// None if they came in both forms.
    fn new(merged: HashMap<String, String>, raw: Option<core::HeaderMap>) -> Option<Self> {
        match raw {
            None => Some(Self::Merged(merged)),
            Some(core::HeaderMap { headers }) if merged.is_empty() => Some(Self::Raw(headers)),
            Some(_) => None,
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Merged(headers) => headers.keys().cloned().collect(),
            Self::Raw(headers) => headers.iter().map(|header| header.key.clone()).collect(),
        }
    }

    /// The value of a header that came once. Of one that came twice Envoy makes a list, with a comma.
    fn only(&self, name: &HeaderName) -> Result<&str, Unclear> {
        let is_it = |key: &str| key.eq_ignore_ascii_case(name.as_str());
        let mut values: Vec<Option<&str>> = match self {
            Self::Merged(headers) => {
                headers.iter().filter(|(key, _)| is_it(key)).map(|(_, value)| Some(value.as_str())).collect()
            }
            Self::Raw(headers) => headers.iter().filter(|header| is_it(&header.key)).map(value_of).collect(),
        };
        match (values.pop(), values.is_empty()) {
            (None, _) => Err(Unclear::Missing),
            (Some(Some(value)), true) if !value.contains(',') => Ok(value),
            (Some(_), _) => Err(Unclear::Malformed),
        }
    }
}

/// The value, unless there are two or it is no text.
fn value_of(header: &core::HeaderValue) -> Option<&str> {
    let core::HeaderValue { key: _, value, raw_value } = header;
    match (value.is_empty(), raw_value.is_empty()) {
        (_, true) => Some(value),
        (true, false) => std::str::from_utf8(raw_value).ok(),
        (false, false) => None,
    }
}

/// The key in a header: after `Bearer` in `authorization`, alone in any other.
fn presented(headers: &Headers, name: &HeaderName) -> Result<Secret, Unclear> {
    let value = headers.only(name)?;
    let key = if *name == http::header::AUTHORIZATION {
        let (scheme, key) = value.split_once(' ').ok_or(Unclear::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Unclear::Malformed);
        }
        key
    } else {
        value
    };
    let fit = (1..=KEY_LENGTH_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fit { Ok(Secret::presented(key.to_owned())) } else { Err(Unclear::Malformed) }
}
