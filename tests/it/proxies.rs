//! Proxies in between: whom a call comes from, and whose word on it counts.

use ostiary::pb::v1 as pb;
use ostiary::rpc::throttle::FAILURES_AT_ONCE;

use crate::harness::{Client, reason, root_key, texts};
use crate::process::Place;

async fn who_am_i(client: &Client) -> String {
    let answer = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await;
    answer.map_or_else(|status| reason(&status), |_| "let in".to_owned())
}

/// A root key that may be used from 192.0.2.0/24 only.
async fn bound(client: &Client) -> Client {
    let request =
        pb::CreateRootKeyRequest { allowed_cidrs: texts(&["192.0.2.0/24"]), ..root_key("bound", &["apis.*.*"]) };
    client.with(&client.root_keys().create_root_key(request).await.unwrap().into_inner().secret)
}

#[tokio::test]
async fn what_a_trusted_proxy_has_noted_is_where_the_call_comes_from() {
    let place = Place::new();
    let server = place.serve(&["--trusted-proxies", "127.0.0.0/8,10.0.0.0/8"]);
    let client = server.client(&place.first_root_key()).await;
    let bound = bound(&client).await;
    assert_eq!(who_am_i(&bound).await, "ROOT_KEY_ADDRESS", "the proxy itself");
    for (noted, expected) in [
        ("192.0.2.7", "let in"),
        ("192.0.2.7:4711, 10.1.2.3", "let in"),
        ("nonsense, 203.0.113.9, 192.0.2.7", "let in"),
        ("192.0.2.7, 203.0.113.9", "ROOT_KEY_ADDRESS"),
        ("unknown", "ROOT_KEY_ADDRESS"),
        ("192.0.2.7, unknown, 10.1.2.3", "ROOT_KEY_ADDRESS"),
    ] {
        assert_eq!(who_am_i(&bound.forwarded(noted)).await, expected, "{noted}");
        assert_eq!(who_am_i(&client.forwarded(noted)).await, "let in", "{noted}");
    }
    client.forwarded("198.51.100.1, 203.0.113.9").api("documents").await;
    let event = client.log().await.pop().unwrap();
    assert_eq!((event.event.as_str(), event.remote_address.as_str()), ("api.create", "203.0.113.9"));
}

#[tokio::test]
async fn without_trusted_proxies_the_header_is_never_believed() {
    let place = Place::new();
    let server = place.serve(&[]);
    let client = server.client(&place.first_root_key()).await;
    let bound = bound(&client).await;
    assert_eq!(who_am_i(&bound.forwarded("192.0.2.7")).await, "ROOT_KEY_ADDRESS");
    client.forwarded("192.0.2.7").api("documents").await;
    assert_eq!(client.log().await.pop().unwrap().remote_address, "127.0.0.1");
}

#[tokio::test]
async fn guesses_behind_a_proxy_count_against_whoever_makes_them() {
    let place = Place::new();
    let server = place.serve(&["--trusted-proxies", "127.0.0.1"]);
    let stranger = server.client("no root key").await;
    let guesser = stranger.forwarded("192.0.2.7");
    for _ in 0..FAILURES_AT_ONCE * 2 {
        who_am_i(&guesser).await;
    }
    assert_eq!(who_am_i(&guesser).await, "AUTH_ATTEMPTS_LIMITED");
    assert_eq!(who_am_i(&stranger.forwarded("203.0.113.9")).await, "ROOT_KEY_MALFORMED");
    assert_eq!(who_am_i(&stranger).await, "ROOT_KEY_MALFORMED");
}

#[test]
fn a_network_that_is_none_is_named_before_anything_starts() {
    let place = Place::new();
    let ended = place.serve_in_vain(&["--trusted-proxies", "10.0.0.0/8,somewhere"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("somewhere") && ended.stderr.contains("must be a network"), "{}", ended.stderr);
    assert!(!place.data().exists());
}
