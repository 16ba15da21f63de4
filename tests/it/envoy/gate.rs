//! Who may ask: a root key that may verify, as for `VerifyKey`; and the real program from end to end.

use ostiary::domain::capability::Capability;
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::pb::v1 as pb;
use prost::Message as _;
use tonic::Code;
use tonic::metadata::MetadataMap;

use super::{CHECK, about, ask, bearer, denied, documents, limit, passes};
use crate::harness::{House, Kept, reason, refusal, span};
use crate::process::Place;
use ostiary::server::Sweeping;

#[tokio::test]
async fn nobody_asks_without_a_root_key_that_is_good() {
    let house = House::in_memory().await;
    let operator = house.operator().await;
    let (api_id, request) = documents(&operator).await;
    let (_, secret) = operator.key(request).await;
    let request = about(&[("authorization", &bearer(&secret))], &[("api_id", &api_id)]);
    let (_, expired) = {
        let expiration = Some(pb::create_root_key_request::Expiration::Ttl(span(60_000)));
        let request = crate::harness::root_key("short-lived", &["apis.*.verify_key"]);
        let request = pb::CreateRootKeyRequest { expiration, ..request };
        let made = operator.root_keys().create_root_key(request).await.unwrap().into_inner();
        (made.root_key, made.secret)
    };
    let (deleted_key, deleted) = operator.root_key("deleted", &["apis.*.verify_key"]).await;
    let delete = pb::DeleteRootKeyRequest { root_key_id: deleted_key.root_key_id, ..Default::default() };
    operator.root_keys().delete_root_key(delete).await.unwrap();
    house.pass(60_000);
    let unknown = Secret::issue(&Prefix::root_key(), [3; 24]).expose().to_owned();
    let cases = [
        (None, "ROOT_KEY_MISSING"),
        (Some(unknown), "ROOT_KEY_INVALID"),
        (Some(secret), "ROOT_KEY_INVALID"),
        (Some(deleted), "ROOT_KEY_INVALID"),
        (Some(expired), "ROOT_KEY_EXPIRED"),
    ];
    for (root_key, why) in cases {
        let mut client = house.stranger().await;
        client.headers.secret = root_key;
        assert_eq!(refusal(ask(&client, request.clone()).await), (Code::Unauthenticated, why.to_owned()));
        let garbage = client.raw(CHECK, vec![0xff; 4], MetadataMap::new()).await.unwrap_err();
        assert_eq!(reason(&garbage), why, "before the message is looked at");
    }
}

#[tokio::test]
async fn a_root_key_that_leaked_asks_about_no_more_than_it_may_verify() {
    let house = House::build(Kept::InMemory, Sweeping::ByHand, 1).await;
    let operator = house.operator().await;
    let (api_id, request) = documents(&operator).await;
    let (_, secret) = operator.key(request).await;
    let request = about(&[("authorization", &bearer(&secret))], &[("api_id", &api_id)]);
    let all_else = |capability: &&Capability| **capability != Capability::VerifyKey;
    let all_else: Vec<String> = Capability::ALL.iter().filter(all_else).map(ToString::to_string).collect();
    let all_else: Vec<&str> = all_else.iter().map(String::as_str).collect();
    let weak = operator.limited(&all_else).await;
    for message in [request.encode_to_vec(), Vec::new(), vec![0xff; 4]] {
        let status = weak.raw(CHECK, message, MetadataMap::new()).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "PERMISSION_MISSING"));
    }
    let other = operator.api("billing").await.api_id;
    let elsewhere = operator.limited(&[&format!("apis.{other}.verify_key")]).await;
    let neighbour = operator.neighbour("neighbours").await;
    for client in [elsewhere, neighbour] {
        let answer = denied(&client, request.clone()).await;
        assert_eq!((answer.status, answer.code()), (401, "NOT_FOUND"), "as if there were no such key");
    }
    passes(&operator.limited(&[&format!("apis.{api_id}.verify_key")]).await, request).await;
}

#[tokio::test]
async fn the_real_program_answers_envoy_and_its_log_has_no_key() {
    let place = Place::new();
    let server = place.serve(&["--log-level", "trace", "--log-format", "json"]);
    let root_key = place.first_root_key();
    let client = server.client(&root_key).await;
    let (api_id, request) = documents(&client).await;
    let (key, secret) = client.key(request).await;
    let here = [("api_id", api_id.as_str())];
    let spoofed = [("authorization", &*bearer(&secret)), ("x-ostiary-identity", "somebody else")];
    let passed = passes(&client, about(&spoofed, &here)).await;
    assert_eq!(passed.set["x-ostiary-key-id"], key.key_id);
    assert!(passed.removed.contains(&"x-ostiary-identity".to_owned()));
    assert_eq!(denied(&client, about(&[], &here)).await.status, 401);
    let unknown = Secret::issue(&Prefix::default(), [9; 24]).expose().to_owned();
    assert_eq!(denied(&client, about(&[("authorization", &bearer(&unknown))], &here)).await.status, 401);
    let writing = [("api_id", api_id.as_str()), ("permissions", "documents.write")];
    assert_eq!(denied(&client, about(&[("authorization", &bearer(&secret))], &writing)).await.status, 403);
    let rate_limits = vec![limit("calls", 1, 60_000, false)];
    let limited = pb::CreateKeyRequest { api_id: api_id.clone(), rate_limits, ..Default::default() };
    let limited = client.key(limited).await.1;
    let counting = [("api_id", api_id.as_str()), ("rate_limits", "calls")];
    let key_header = [("key_header", "x-api-key"), counting[0], counting[1]];
    passes(&client, about(&[("x-api-key", limited.as_str())], &key_header)).await;
    let refused = denied(&client, about(&[("x-api-key", limited.as_str())], &key_header)).await;
    assert_eq!(refused.status, 429);
    assert!((1..=60).contains(&refused.headers["retry-after"].parse::<u64>().unwrap()));
    assert_eq!(
        denied(&client, about(&[("x-api-key", limited.as_str())], &counting)).await.status,
        401,
        "another header than the one that is named"
    );
    let mut stranger = client.clone();
    stranger.headers.secret = None;
    let request = about(&[("authorization", &bearer(&secret))], &here);
    assert_eq!(refusal(ask(&stranger, request).await).1, "ROOT_KEY_MISSING");
    let log = server.stop().stderr;
    assert!(log.contains("Authorization/Check"), "{log}");
    for hidden in [&secret, &limited, &root_key, &unknown] {
        assert!(!log.contains(hidden.as_str()));
    }
}

#[test]
fn what_envoy_asks_prints_no_header() {
    let request = about(&[("authorization", "Bearer key_secret")], &[("api_id", "api_1")]);
    let printed = format!("{request:?}");
    assert!(printed.contains("api_1") && !printed.contains("secret"), "{printed}");
}
