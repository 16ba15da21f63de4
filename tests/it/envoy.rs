//! Envoy asks about requests: which pass, with what, and what their clients are told otherwise.

use std::collections::HashMap;

use ostiary::pb::envoy::config::core::v3 as core;
use ostiary::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request as Attributes};
use ostiary::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use ostiary::pb::envoy::service::auth::v3::check_response::HttpResponse;
use ostiary::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse, OkHttpResponse};
use ostiary::pb::v1 as pb;
use tonic::{Code, Response, Status};

use crate::harness::{Client, House, span, texts};
use crate::verify::limits::limit;

mod configuration;
mod gate;
mod headers;

/// Names with values: headers, or what the configuration of a route says.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// The path of the method.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Asks as Envoy does.
async fn ask(client: &Client, request: CheckRequest) -> Result<Response<CheckResponse>, Status> {
    AuthorizationClient::with_interceptor(client.channel.clone(), client.headers.clone()).check(request).await
}

/// A question about a request with these headers, under this configuration of its route.
fn about(headers: Pairs<'_>, extensions: Pairs<'_>) -> CheckRequest {
    let map = |pairs: Pairs<'_>| -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let http = HttpRequest { headers: map(headers), header_map: None };
    let attributes = AttributeContext {
        source: None,
        request: Some(Attributes { http: Some(http) }),
        context_extensions: map(extensions),
    };
    CheckRequest { attributes: Some(attributes) }
}

/// The same, from that address.
fn from(mut request: CheckRequest, address: &str) -> CheckRequest {
    let address = core::address::Address::SocketAddress(core::SocketAddress { address: address.to_owned() });
    let address = Some(core::Address { address: Some(address) });
    request.attributes.as_mut().unwrap().source = Some(Peer { address });
    request
}

/// What a request goes on with.
#[derive(Debug)]
struct Passed {
    set: HashMap<String, String>,
    removed: Vec<String>,
}

async fn passes(client: &Client, request: CheckRequest) -> Passed {
    let answer = ask(client, request).await.unwrap().into_inner();
    assert_eq!(answer.status.as_ref().unwrap().code, 0, "{answer:?}");
    let Some(HttpResponse::OkResponse(OkHttpResponse { headers, headers_to_remove })) = answer.http_response else {
        panic!("it was denied: {answer:?}");
    };
    Passed { set: told(headers), removed: headers_to_remove }
}

/// What a client is told.
#[derive(Debug)]
struct Denied {
    status: i32,
    headers: HashMap<String, String>,
    body: String,
}

impl Denied {
    fn code(&self) -> &str {
        &self.headers["x-ostiary-code"]
    }
}

async fn denied(client: &Client, request: CheckRequest) -> Denied {
    let answer = ask(client, request).await.unwrap().into_inner();
    assert_ne!(answer.status.as_ref().unwrap().code, 0, "{answer:?}");
    let Some(HttpResponse::DeniedResponse(response)) = answer.http_response else {
        panic!("it was not denied: {answer:?}");
    };
    Denied { status: response.status.unwrap().code, headers: told(response.headers), body: response.body }
}

/// Headers by name; all of them take the place of others, in every version of Envoy.
#[expect(deprecated, reason = "older versions of Envoy know nothing else")]
fn told(headers: Vec<core::HeaderValueOption>) -> HashMap<String, String> {
    let overwrite = core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd;
    let pairs = headers.into_iter().map(|set| {
        assert_eq!((set.append, set.append_action()), (Some(false), overwrite));
        let header = set.header.unwrap();
        (header.key, header.value)
    });
    pairs.collect()
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

/// An API with a request for a key of it.
async fn documents(client: &Client) -> (String, pb::CreateKeyRequest) {
    let api_id = client.api("documents").await.api_id;
    let request = pb::CreateKeyRequest { api_id: api_id.clone(), ..Default::default() };
    (api_id, request)
}

#[tokio::test]
async fn a_request_with_a_good_key_passes_with_what_is_known_of_the_key_and_without_the_key() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let request = pb::CreateKeyRequest {
        external_id: Some("acme".into()),
        permissions: texts(&["documents.read"]),
        credits: Some(pb::Credits { remaining: Some(10), refill: None }),
        ..request
    };
    let (key, secret) = client.key(request).await;
    let extensions = [("api_id", api_id.as_str()), ("permissions", "documents.read")];
    let passed = passes(&client, about(&[("authorization", &bearer(&secret))], &extensions)).await;
    assert_eq!(passed.set["x-ostiary-key-id"], key.key_id);
    assert_eq!(passed.set["x-ostiary-api-id"], api_id);
    assert_eq!(passed.set["x-ostiary-identity"], "acme");
    assert_eq!(passed.set["x-ostiary-remaining-credits"], "9");
    assert!(passed.set["x-ostiary-request-id"].starts_with("req_"));
    assert_eq!(passed.set.len(), 5, "{passed:?}");
    assert!(passed.removed.contains(&"authorization".to_owned()), "{passed:?}");
    assert!(!format!("{passed:?}").contains(&secret));
}

#[tokio::test]
async fn asked_for_all_it_also_says_the_name_the_permissions_and_the_roles() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    client.role("editor, chief", &["documents.write"]).await;
    let request = pb::CreateKeyRequest {
        name: "Zoë's key".into(),
        permissions: texts(&["documents.read"]),
        roles: texts(&["editor, chief"]),
        ..request
    };
    let (_, secret) = client.key(request).await;
    let extensions = [("api_id", api_id.as_str()), ("view", "FULL")];
    let passed = passes(&client, about(&[("authorization", &bearer(&secret))], &extensions)).await;
    assert_eq!(passed.set["x-ostiary-key-name"], "Zo%C3%AB's%20key");
    assert_eq!(passed.set["x-ostiary-permissions"], "documents.read,documents.write");
    assert_eq!(passed.set["x-ostiary-roles"], "editor%2C%20chief");
    assert!(!passed.set.contains_key("x-ostiary-omitted"));
}

#[tokio::test]
async fn a_list_that_no_server_would_take_is_left_out_and_that_is_said() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let slugs: Vec<String> = (0..20).map(|n| format!("{n:02}.{}", "x".repeat(125))).collect();
    let (first, second) = (slugs.clone(), slugs.iter().map(|slug| slug.replace('x', "y")).collect());
    let role = pb::CreateRoleRequest { name: "many".into(), permissions: second, ..Default::default() };
    client.roles().create_role(role).await.unwrap();
    let request = pb::CreateKeyRequest { permissions: first, roles: texts(&["many"]), ..request };
    let (_, secret) = client.key(request).await;
    let extensions = [("api_id", api_id.as_str()), ("view", "FULL")];
    let passed = passes(&client, about(&[("authorization", &bearer(&secret))], &extensions)).await;
    assert_eq!(passed.set["x-ostiary-omitted"], "permissions");
    assert_eq!(passed.set["x-ostiary-roles"], "many");
    assert!(passed.removed.contains(&"x-ostiary-permissions".to_owned()));
}

#[tokio::test]
async fn every_verdict_on_a_key_is_an_answer_of_its_own() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let other = client.api("billing").await.api_id;
    let key = async |change: fn(&mut pb::CreateKeyRequest)| {
        let mut request = request.clone();
        change(&mut request);
        client.key(request).await.1
    };
    let good = key(|_| ()).await;
    let disabled = key(|key| key.enabled = Some(false)).await;
    let ttl = Some(pb::create_key_request::Expiration::Ttl(span(1_000)));
    let expired = client.key(pb::CreateKeyRequest { expiration: ttl, ..request.clone() }).await.1;
    let elsewhere = key(|key| key.allowed_cidrs = texts(&["10.0.0.0/8"])).await;
    let spent = key(|key| key.credits = Some(pb::Credits { remaining: Some(0), refill: None })).await;
    house.pass(1_000);
    let flipped = if good.ends_with('0') { "1" } else { "0" };
    let unknown = format!("{}{flipped}", &good[..good.len() - 1]);
    let (here, there) = ([("api_id", api_id.as_str())], [("api_id", other.as_str())]);
    let writing = [("api_id", api_id.as_str()), ("permissions", "documents.write")];
    let cases: [(&str, Pairs<'_>, i32, &str); 9] = [
        (&unknown, &here, 401, "NOT_FOUND"),
        (&house.first, &here, 401, "NOT_FOUND"),
        (&good, &there, 401, "NOT_FOUND"),
        (&disabled, &here, 401, "DISABLED"),
        (&expired, &here, 401, "EXPIRED"),
        (&elsewhere, &here, 403, "FORBIDDEN"),
        (&good, &writing, 403, "INSUFFICIENT_PERMISSIONS"),
        (&spent, &here, 429, "USAGE_EXCEEDED"),
        (&unknown, &writing, 401, "NOT_FOUND"),
    ];
    for (secret, extensions, status, code) in cases {
        let request = from(about(&[("authorization", &bearer(secret))], extensions), "192.0.2.7");
        let answer = denied(&client, request).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert_eq!(answer.body, format!("{{\"code\":\"{code}\"}}\n"));
        assert_eq!(answer.headers.get("www-authenticate").map(String::as_str), (status == 401).then_some("Bearer"));
        assert!(!answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    let request = from(about(&[("authorization", &bearer(&elsewhere))], &here), "10.1.2.3");
    passes(&client, request).await;
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_again() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let rate_limits = vec![limit("exports", 1, 60_000, false), limit("uploads", 1, 1_000, false)];
    let (_, secret) = client.key(pb::CreateKeyRequest { rate_limits, ..request }).await;
    let extensions = [("api_id", api_id.as_str()), ("rate_limits", "exports, uploads")];
    let request = about(&[("authorization", &bearer(&secret))], &extensions);
    passes(&client, request.clone()).await;
    house.pass(500);
    let answer = denied(&client, request.clone()).await;
    assert_eq!((answer.status, answer.code()), (429, "RATE_LIMITED"));
    let wait: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!((60..=120).contains(&wait), "the longer one counts, in whole seconds: {wait}");
    house.pass(wait * 1_000);
    passes(&client, request).await;
    passes(&client, about(&[("authorization", &bearer(&secret))], &[("api_id", &api_id)])).await;
}

#[tokio::test]
async fn a_key_without_the_limit_that_a_route_counts_by_is_refused_and_does_not_fail_the_call() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let (_, secret) = client.key(request).await;
    let extensions = [("api_id", api_id.as_str()), ("rate_limits", "exports")];
    let answer = denied(&client, about(&[("authorization", &bearer(&secret))], &extensions)).await;
    assert_eq!((answer.status, answer.code()), (403, "RATE_LIMIT_MISSING"));
    let answer = denied(&client, about(&[("authorization", "Bearer nonsense")], &extensions)).await;
    assert_eq!((answer.status, answer.code()), (401, "NOT_FOUND"));
}

#[tokio::test]
async fn a_prober_is_told_to_wait_at_once_and_good_keys_pass_meanwhile() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let (_, good) = client.key(request).await;
    let here = [("api_id", api_id.as_str())];
    let unknown = from(about(&[("authorization", "Bearer nonsense")], &here), "192.0.2.7");
    for _ in 0..ostiary::rpc::probing::UNKNOWN_AT_ONCE {
        assert_eq!(denied(&client, unknown.clone()).await.status, 401);
    }
    // Time stands still here: an answer that is held back would never come.
    let answer = denied(&client, unknown).await;
    assert_eq!((answer.status, answer.code(), answer.headers["retry-after"].as_str()), (429, "NOT_FOUND", "1"));
    passes(&client, from(about(&[("authorization", &bearer(&good))], &here), "192.0.2.7")).await;
}

#[tokio::test]
async fn a_check_is_a_verification_in_the_counts_and_leaves_nothing_in_the_audit_log() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let (_, secret) = client.key(request).await;
    let before = client.events().await;
    passes(&client, about(&[("authorization", &bearer(&secret))], &[("api_id", &api_id)])).await;
    assert_eq!(client.events().await, before);
    let unimplemented = client.raw(&CHECK.replace("Check", "Nope"), Vec::new(), Default::default()).await;
    assert_eq!(unimplemented.unwrap_err().code(), Code::Unimplemented);
}
