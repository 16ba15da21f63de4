//! Verifying keys: every refusal, in its order, and what each caller may learn.

use ostiary::pb::v1 as pb;
use pb::VerificationCode as Code;
use tonic::Code as Grpc;

use crate::harness::{Client, House, fields, mask, refusal, texts};

mod addresses;
mod currency;
pub mod limits;
mod many;
mod powers;
mod streamed;

/// What can be wrong with a key, in the order of the table.
const CAUSES: [Code; 7] = [
    Code::NotFound,
    Code::Disabled,
    Code::Expired,
    Code::Forbidden,
    Code::InsufficientPermissions,
    Code::RateLimited,
    Code::UsageExceeded,
];

/// A question about a key and nothing else.
fn about(secret: &str) -> pb::VerifyKeyRequest {
    pb::VerifyKeyRequest { key: secret.to_owned(), ..Default::default() }
}

fn no_such_key() -> pb::Verdict {
    pb::Verdict { code: Code::NotFound.into(), reason: "there is no such key".into(), ..Default::default() }
}

#[tokio::test]
async fn of_every_combination_of_causes_the_earliest_in_the_table_decides() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api, other) = (client.api("documents").await, client.api("billing").await);
    let mut cases = Vec::new();
    for combination in 0..1 << CAUSES.len() {
        let causes: Vec<Code> =
            (0..CAUSES.len()).filter(|bit| combination >> bit & 1 == 1).map(|bit| CAUSES[bit]).collect();
        let has = |cause| causes.contains(&cause);
        let expiration =
            has(Code::Expired).then(|| pb::create_key_request::Expiration::Ttl(crate::harness::span(1_000)));
        let request = pb::CreateKeyRequest {
            api_id: api.api_id.clone(),
            enabled: Some(!has(Code::Disabled)),
            expiration,
            allowed_cidrs: if has(Code::Forbidden) { texts(&["10.0.0.0/8"]) } else { Vec::new() },
            permissions: texts(&["documents.read"]),
            credits: Some(pb::Credits { remaining: Some(1), refill: None }),
            rate_limits: vec![limits::limit("calls", 1, 60_000, true)],
            ..Default::default()
        };
        let (_, secret) = client.key(request).await;
        let question = pb::VerifyKeyRequest {
            api_id: Some(if has(Code::NotFound) { other.api_id.clone() } else { api.api_id.clone() }),
            client_ip: Some("11.0.0.1".into()),
            permissions: has(Code::InsufficientPermissions).then(|| "documents.write".into()),
            rate_limits: if has(Code::RateLimited) { vec![limits::named("calls", 2)] } else { Vec::new() },
            cost: has(Code::UsageExceeded).then_some(2),
            ..about(&secret)
        };
        cases.push((causes, question));
    }
    house.pass(1_000);
    for (causes, question) in cases {
        let verdict = client.verify(question).await;
        let expected = causes.first().copied().unwrap_or(Code::Valid);
        assert_eq!(verdict.code(), expected, "{causes:?}");
        assert_eq!(verdict.valid, expected == Code::Valid, "{causes:?}");
        let reason = match expected {
            Code::NotFound => "there is no such key",
            Code::Disabled => "the key is disabled",
            Code::Expired => "the key has expired",
            Code::Forbidden => "the key may not be used from this address",
            Code::InsufficientPermissions => "the key lacks documents.write",
            Code::Valid | Code::Unspecified => "",
            Code::RateLimited => "the key is used too often: calls",
            Code::UsageExceeded => "the key has too few credits left",
        };
        assert_eq!(verdict.reason, reason, "{causes:?}");
        assert_eq!(verdict.key_id.is_some(), expected != Code::NotFound, "{causes:?}");
    }
}

#[tokio::test]
async fn a_malformed_request_is_refused_whatever_is_wrong_with_the_key() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let request = pb::CreateKeyRequest {
        api_id: api.api_id,
        enabled: Some(false),
        expiration: Some(pb::create_key_request::Expiration::Ttl(crate::harness::span(1_000))),
        ..Default::default()
    };
    let (_, secret) = client.key(request).await;
    house.pass(1_000);
    let cases = [
        ("", "0"),
        ("documents.read AND", "18"),
        ("a b", "2"),
        ("a\0", "1"),
        ("\0", "0"),
        ("a AND (b OR c", "13"),
        ("a)", "1"),
        ("a AND \u{e9}", "6"),
        ("AND", "0"),
        ("a OR OR b", "5"),
    ];
    for (query, position) in cases {
        for key in [secret.as_str(), "no such key"] {
            let question = pb::VerifyKeyRequest { permissions: Some(query.into()), ..about(key) };
            let status = client.keys().verify_key(question).await.unwrap_err();
            assert_eq!(status.code(), Grpc::InvalidArgument, "{query:?}");
            let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
            assert_eq!(info.reason, "PERMISSION_QUERY_SYNTAX", "{query:?}");
            assert_eq!(info.metadata.get("position").map(String::as_str), Some(position), "{query:?}");
            assert_eq!(fields(&status), ["permissions"], "{query:?}");
        }
    }
}

#[tokio::test]
async fn every_malformed_field_is_told_at_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let question = pb::VerifyKeyRequest {
        key: "x".repeat(513),
        api_id: Some("documents".into()),
        permissions: Some("(".into()),
        client_ip: Some("10.0.0.0/8".into()),
        view: 7,
        dry_run: false,
        min_revision: "7".into(),
        ..Default::default()
    };
    let status = client.keys().verify_key(question).await.unwrap_err();
    assert_eq!(status.code(), Grpc::InvalidArgument);
    assert_eq!(fields(&status), ["key", "api_id", "client_ip", "view", "min_revision", "permissions"]);
    let status = client.keys().verify_key(about("")).await.unwrap_err();
    assert_eq!(fields(&status), ["key"]);
    for key in ["x", &"x".repeat(512), &"\u{1f511}".repeat(512)] {
        assert_eq!(client.verify(about(key)).await, no_such_key());
    }
}

#[tokio::test]
async fn queries_are_bounded_and_everything_within_the_bounds_is_answered() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (_, secret) = client.plain_key(&api, "").await;
    let many = |number: usize| vec!["a"; number].join(" or ");
    let deep = |levels: usize| format!("{}a{}", "(".repeat(levels), ")".repeat(levels));
    let good = [many(100), deep(32), "x".repeat(128), format!("a{}", " ".repeat(999)), "android OR oracle".into()];
    for query in good {
        let verdict = client.verdict(&secret, Some(&query)).await;
        assert_eq!(verdict.code(), Code::InsufficientPermissions, "{query}");
    }
    for query in [many(101), deep(33), "x".repeat(129), format!("a{}", " ".repeat(1_000))] {
        let question = pb::VerifyKeyRequest { permissions: Some(query.clone()), ..about(&secret) };
        let refused = refusal(client.keys().verify_key(question).await);
        assert_eq!(refused, (Grpc::InvalidArgument, "PERMISSION_QUERY_SYNTAX".to_owned()), "{query}");
    }
}

#[tokio::test]
async fn keys_that_a_caller_may_not_know_of_are_all_answered_like_one_that_never_was() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api, other) = (client.api("documents").await, client.api("billing").await);
    let (key, secret) = client.plain_key(&api, "").await;
    let (_, elsewhere) = client.plain_key(&other, "").await;
    let (deleted, deleted_secret) = client.plain_key(&other, "").await;
    let request = pb::DeleteKeyRequest { key_id: deleted.key_id, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let (gone, gone_secret) = client.plain_key(&other, "").await;
    let request = pb::DeleteKeyRequest { key_id: gone.key_id, permanent: true, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let doomed = client.api("doomed").await;
    let (_, of_doomed) = client.plain_key(&doomed, "").await;
    let request = pb::DeleteApiRequest { api_id: doomed.api_id.clone(), ..Default::default() };
    client.apis().delete_api(request).await.unwrap();
    let neighbour = client.neighbour("neighbour").await;
    let foreign_api = neighbour.api("documents").await;
    let (_, foreign) = neighbour.plain_key(&foreign_api, "").await;
    let elsewhere_only = client.limited(&[&format!("apis.{}.verify_key", other.api_id)]).await;
    let of_doomed_only = client.limited(&[&format!("apis.{}.verify_key", doomed.api_id)]).await;
    let mut flipped = secret.clone();
    let last = if flipped.pop() == Some('0') { '1' } else { '0' };
    flipped.push(last);

    let full = |secret: &str| pb::VerifyKeyRequest { view: pb::VerificationView::Full.into(), ..about(secret) };
    let of_api = |secret: &str, api_id: &str| pb::VerifyKeyRequest { api_id: Some(api_id.into()), ..full(secret) };
    let cases = [
        ("unknown", &client, full("key_000000000000000000000000000000000000000")),
        ("no secret at all", &client, full("hello")),
        ("a wrong checksum", &client, full(&flipped)),
        ("a root key", &client, full(&house.first)),
        ("deleted", &client, full(&deleted_secret)),
        ("deleted for good", &client, full(&gone_secret)),
        ("of a deleted API", &client, full(&of_doomed)),
        ("of a deleted API that the caller named", &client, of_api(&of_doomed, &doomed.api_id)),
        ("of a deleted API and a grant for it", &of_doomed_only, full(&of_doomed)),
        ("of another workspace", &client, full(&foreign)),
        ("of another workspace, its API named", &client, of_api(&foreign, &foreign_api.api_id)),
        ("asked by another workspace", &neighbour, full(&secret)),
        ("of an API that the caller's grant does not name", &elsewhere_only, full(&secret)),
        ("of another API than asked for", &client, of_api(&secret, &other.api_id)),
        ("of an API that never was", &client, of_api(&secret, "api_00000000000000000000000000")),
    ];
    for (case, caller, question) in cases {
        let with_query = pb::VerifyKeyRequest { permissions: Some("documents.read".into()), ..question.clone() };
        assert_eq!(caller.verify(question).await, no_such_key(), "{case}");
        assert_eq!(caller.verify(with_query).await, no_such_key(), "{case}");
    }
    assert_eq!(elsewhere_only.verify(about(&elsewhere)).await.code(), Code::Valid);
    assert_eq!(client.verify(of_api(&secret, &key.api_id)).await.code(), Code::Valid);
}

#[tokio::test]
async fn a_caller_without_any_verify_grant_is_denied_before_the_question_is_looked_at() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (_, secret) = client.plain_key(&api, "").await;
    let limited = client.limited(&["apis.*.read_key", "apis.*.create_key"]).await;
    for question in [about(&secret), about("unknown"), about("")] {
        let refused = refusal(limited.keys().verify_key(question).await);
        assert_eq!(refused, (Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    }
}

#[tokio::test]
async fn basic_says_which_key_it_is_and_full_says_all_about_it_even_if_it_is_refused() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let role = client.role("reader", &["documents.read", "documents.list"]).await;
    let metadata = prost_types::Struct {
        fields: [(
            "plan".to_owned(),
            prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("pro".into())) },
        )]
        .into(),
    };
    let request = pb::CreateKeyRequest {
        api_id: api.api_id.clone(),
        name: "Ada".into(),
        metadata: Some(metadata.clone()),
        roles: texts(&["reader"]),
        permissions: texts(&["documents.write", "documents.read"]),
        expiration: Some(pb::create_key_request::Expiration::ExpireTime(crate::harness::at(house.now() + 5_000))),
        ..Default::default()
    };
    let (key, secret) = client.key(request).await;
    let basic = pb::Verdict {
        valid: true,
        code: Code::Valid.into(),
        key_id: Some(key.key_id.clone()),
        api_id: Some(api.api_id.clone()),
        expire_time: key.expire_time,
        ..Default::default()
    };
    let full = pb::Verdict {
        name: Some("Ada".into()),
        metadata: Some(metadata),
        enabled: Some(true),
        permissions: texts(&["documents.list", "documents.read", "documents.write"]),
        roles: vec![pb::KeyRole { role_id: role.role_id, name: "reader".into() }],
        ..basic.clone()
    };
    let asked = |view: pb::VerificationView| pb::VerifyKeyRequest { view: view.into(), ..about(&secret) };
    assert_eq!(client.verify(asked(pb::VerificationView::Unspecified)).await, basic);
    assert_eq!(client.verify(asked(pb::VerificationView::Basic)).await, basic);
    assert_eq!(client.verify(asked(pb::VerificationView::Full)).await, full);
    house.pass(5_000);
    let request = pb::UpdateKeyRequest {
        key_id: key.key_id,
        enabled: Some(false),
        update_mask: mask(&["enabled"]),
        ..Default::default()
    };
    client.keys().update_key(request).await.unwrap();
    let refused = pb::Verdict {
        valid: false,
        code: Code::Disabled.into(),
        reason: "the key is disabled".into(),
        enabled: Some(false),
        ..full
    };
    assert_eq!(client.verify(asked(pb::VerificationView::Full)).await, refused);
}

#[tokio::test]
async fn only_a_good_verification_that_is_no_dry_run_counts_as_use() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, secret) = client.plain_key(&api, "").await;
    let last_used = async |client: &Client| client.get_key(&key.key_id).await.unwrap().last_used_time;
    let dry = pb::VerifyKeyRequest { dry_run: true, ..about(&secret) };
    assert_eq!(client.verify(dry.clone()).await.code(), Code::Valid);
    assert_eq!(last_used(&client).await, None);
    let lacking = pb::VerifyKeyRequest { permissions: Some("a".into()), ..about(&secret) };
    assert_eq!(client.verify(lacking).await.code(), Code::InsufficientPermissions);
    assert_eq!(last_used(&client).await, None);
    let request = pb::LookupKeyRequest { secret: secret.clone(), ..Default::default() };
    client.keys().lookup_key(request).await.unwrap();
    assert_eq!(last_used(&client).await, None);
    house.pass(10);
    let used = house.now();
    client.verify(about(&secret)).await;
    house.pass(10);
    client.verify(dry).await;
    assert_eq!(last_used(&client).await, Some(crate::harness::at(used)));
    let now = client.get_key(&key.key_id).await.unwrap();
    assert_eq!((now.etag, now.update_time), (key.etag, key.update_time), "use is not a change");
}
