//! Keys: how they are made, found, changed, deleted and restored, and who may do it.

use ostiary::pb::v1 as pb;
use pb::create_key_request::Expiration;
use tonic::Code as Grpc;

use crate::harness::{Client, House, START, at, but_for, fields, mask, refusal, span, texts};

mod assignments;
mod bounds;
mod deleting;
mod listing;
mod needs;
mod updating;

/// A request for a key of this API and nothing else.
fn of(api: &pb::Api) -> pb::CreateKeyRequest {
    pb::CreateKeyRequest { api_id: api.api_id.clone(), ..Default::default() }
}

/// The fields that making this key is refused for.
async fn flaws(client: &Client, request: pb::CreateKeyRequest) -> Vec<String> {
    let status = client.keys().create_key(request).await.expect_err("it was to be refused");
    assert_eq!(status.code(), Grpc::InvalidArgument, "{status:?}");
    fields(&status)
}

/// What came of a call: its refusal, if it was refused.
type Outcome = Result<(), (Grpc, String)>;
/// Texts of a table.
type Texts = &'static [&'static str];

fn not_found(what: &str) -> (Grpc, String) {
    (Grpc::NotFound, format!("{what}_NOT_FOUND"))
}

fn denied() -> (Grpc, String) {
    (Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned())
}

#[tokio::test]
async fn a_key_is_made_as_it_was_asked_for_and_its_secret_is_shown_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let role = client.role("reader", &["documents.read"]).await;
    let request = pb::CreateKeyRequest {
        name: "Ada".into(),
        prefix: Some("acme_live".into()),
        roles: texts(&["reader", &role.role_id, "reader"]),
        permissions: texts(&["b", "a", "b"]),
        enabled: Some(false),
        expiration: Some(Expiration::Ttl(span(60_000))),
        allowed_cidrs: texts(&["10.1.2.3/8", "10.0.0.0/8"]),
        ..of(&api)
    };
    let (key, secret) = client.key(request).await;
    let (whoami, _) = (client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner(), ());
    let expected = pb::Key {
        key_id: key.key_id.clone(),
        api_id: api.api_id.clone(),
        name: "Ada".into(),
        start: secret[..14].to_owned(),
        prefix: "acme_live".into(),
        metadata: None,
        roles: vec![pb::KeyRole { role_id: role.role_id, name: "reader".into() }],
        permissions: texts(&["a", "b"]),
        enabled: false,
        state: pb::KeyState::Disabled.into(),
        create_time: Some(at(START)),
        update_time: Some(at(START)),
        expire_time: Some(at(START + 60_000)),
        delete_time: None,
        last_used_time: None,
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        created_by: whoami.root_key.unwrap().root_key_id,
        etag: key.etag.clone(),
        external_id: None,
        identity_id: None,
        credits: None,
        rate_limits: Vec::new(),
        rotated_from: None,
        rotated_to: None,
    };
    assert_eq!(key, expected);
    assert!(secret.starts_with("acme_live_") && secret.len() == "acme_live_".len() + 39, "{secret}");
    assert_eq!(client.get_key(&key.key_id).await.unwrap(), key);
    let (other, _) = client.plain_key(&api, "").await;
    assert_eq!((other.prefix.as_str(), other.enabled, other.expire_time), ("key", true, None));
    assert_ne!(other.etag, "");
}

#[tokio::test]
async fn a_prefix_is_the_requests_else_the_apis_else_key() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreateApiRequest {
        name: "documents".into(),
        default_prefix: Some("docs".into()),
        default_ttl: Some(span(3_600_000)),
        ..Default::default()
    };
    let api = client.apis().create_api(request).await.unwrap().into_inner().api.unwrap();
    let prefix = async |prefix: Option<&str>| {
        let (key, secret) = client.key(pb::CreateKeyRequest { prefix: prefix.map(Into::into), ..of(&api) }).await;
        assert!(secret.starts_with(&format!("{}_", key.prefix)));
        assert_eq!(key.start, secret[..key.prefix.len() + 5]);
        assert_eq!(key.expire_time, Some(at(START + 3_600_000)), "the API's default life");
        key.prefix
    };
    assert_eq!(prefix(None).await, "docs");
    assert_eq!(prefix(Some("live")).await, "live");
    let longest = "a1_".repeat(5);
    for good in ["a", "A_b", "_a", "key", "Ostiary", "ostiary_", &longest].map(|text| text.trim_end_matches('_')) {
        if good != "ostiary" {
            assert_eq!(prefix(Some(good)).await, good);
        }
    }
    for bad in ["", "_", "a_", "a-b", "a b", "\u{e9}", "a\0", "ostiary", &"a".repeat(16)] {
        let request = pb::CreateKeyRequest { prefix: Some(bad.into()), ..of(&api) };
        assert_eq!(flaws(&client, request).await, ["prefix"], "{bad:?}");
    }
    let request = pb::UpdateApiRequest {
        api_id: api.api_id.clone(),
        update_mask: mask(&["default_prefix", "default_ttl"]),
        ..Default::default()
    };
    client.apis().update_api(request).await.unwrap();
    let (key, _) = client.key(of(&api)).await;
    assert_eq!((key.prefix.as_str(), key.expire_time), ("key", None));
}

#[tokio::test]
async fn a_life_asked_for_goes_before_the_apis_and_must_lie_ahead() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request =
        pb::CreateApiRequest { name: "documents".into(), default_ttl: Some(span(1_000)), ..Default::default() };
    let api = client.apis().create_api(request).await.unwrap().into_inner().api.unwrap();
    let end = async |expiration| {
        client.key(pb::CreateKeyRequest { expiration: Some(expiration), ..of(&api) }).await.0.expire_time
    };
    assert_eq!(end(Expiration::ExpireTime(at(START + 1))).await, Some(at(START + 1)));
    assert_eq!(end(Expiration::Ttl(span(2_007))).await, Some(at(START + 2_007)));
    let precise = prost_types::Timestamp { nanos: 999_999_999, ..at(START) };
    assert_eq!(end(Expiration::ExpireTime(precise)).await, Some(at(START + 999)), "to the millisecond");
    let nonsense = prost_types::Timestamp { seconds: -1, nanos: 0 };
    for moment in [at(START), at(START - 1), at(0), nonsense] {
        let request = pb::CreateKeyRequest { expiration: Some(Expiration::ExpireTime(moment)), ..of(&api) };
        assert_eq!(flaws(&client, request).await, ["expire_time"], "{moment:?}");
    }
    let negative = prost_types::Duration { seconds: -1, nanos: 0 };
    let tiny = prost_types::Duration { seconds: 0, nanos: 999_999 };
    for ttl in [span(0), negative, tiny, prost_types::Duration { seconds: i64::MAX, nanos: 0 }] {
        let request = pb::CreateKeyRequest { expiration: Some(Expiration::Ttl(ttl)), ..of(&api) };
        assert_eq!(flaws(&client, request).await, ["ttl"], "{ttl:?}");
    }
}

#[tokio::test]
async fn every_flaw_of_a_request_is_told_at_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreateKeyRequest {
        api_id: "documents".into(),
        name: "x".repeat(256),
        prefix: Some("-".into()),
        roles: texts(&["reader", "no", ""]),
        permissions: texts(&["a b", "a", ""]),
        expiration: Some(Expiration::Ttl(span(0))),
        allowed_cidrs: texts(&["10.0.0.0/8", "here"]),
        ..Default::default()
    };
    let expected = [
        "api_id",
        "name",
        "prefix",
        "roles[1]",
        "roles[2]",
        "permissions[0]",
        "permissions[2]",
        "ttl",
        "allowed_cidrs[1]",
    ];
    assert_eq!(flaws(&client, request).await, expected);
}

#[tokio::test]
async fn a_rehearsal_makes_nothing_and_shows_no_secret() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let events = client.events().await;
    let request = pb::CreateKeyRequest { permissions: texts(&["new"]), validate_only: true, ..of(&api) };
    let (key, secret) = client.key(request.clone()).await;
    assert_eq!((secret.as_str(), key.permissions.as_slice()), ("", texts(&["new"]).as_slice()));
    assert_eq!(client.get_key(&key.key_id).await.unwrap_err().code(), Grpc::NotFound);
    assert_eq!(client.events().await, events);
    let request = pb::GetPermissionRequest { permission: "new".into(), ..Default::default() };
    assert_eq!(refusal(client.permissions().get_permission(request).await), not_found("PERMISSION"));
    let request = pb::CreateKeyRequest { roles: texts(&["nobody"]), validate_only: true, ..of(&api) };
    assert_eq!(refusal(client.keys().create_key(request).await), not_found("ROLE"));
}

#[tokio::test]
async fn a_secret_leads_to_its_key_and_no_answer_repeats_it() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api, other) = (client.api("documents").await, client.api("billing").await);
    let (key, secret) = client.plain_key(&api, "Ada").await;
    let look_up = async |client: &Client, secret: &str| {
        let request = pb::LookupKeyRequest { secret: secret.into(), ..Default::default() };
        client.keys().lookup_key(request).await
    };
    let found = look_up(&client, &secret).await.unwrap().into_inner();
    assert_eq!(found.key.as_ref(), Some(&key));
    assert!(!format!("{found:?}").contains(&secret[key.start.len()..]));
    let elsewhere = client.limited(&[&format!("apis.{}.read_key", other.api_id)]).await.named("same");
    let neighbour = client.neighbour("neighbour").await.named("same");
    let (deleted, deleted_secret) = client.plain_key(&api, "").await;
    let request = pb::DeleteKeyRequest { key_id: deleted.key_id, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let unknown = "key_000000000000000000000000000000000000000";
    let missing = but_for(look_up(&client.named("same"), unknown).await, "?");
    let cases = [
        (&elsewhere, secret.as_str()),
        (&neighbour, &secret),
        (&client.named("same"), &deleted_secret),
        (&elsewhere, "x"),
    ];
    for (caller, presented) in cases {
        let answer = look_up(caller, presented).await;
        let status = answer.as_ref().unwrap_err();
        assert!(!format!("{status:?}").contains(presented.get(5..).filter(|rest| !rest.is_empty()).unwrap_or("\0")));
        assert_eq!(but_for(answer, "?"), missing, "{presented}");
    }
    for bad in [String::new(), "x".repeat(513)] {
        let status = look_up(&client, &bad).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Grpc::InvalidArgument, texts(&["secret"])));
        assert!(!format!("{status:?}").contains("xxxx"));
    }
}

#[tokio::test]
async fn keys_are_counted_where_they_are_and_nowhere_else() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &[]).await;
    client.role("writer", &[]).await;
    let counts = async || {
        let request = pb::GetApiRequest { api_id: api.api_id.clone(), ..Default::default() };
        let of_api = client.apis().get_api(request).await.unwrap().into_inner().api.unwrap().key_count;
        let mut counts = vec![of_api];
        for role in ["reader", "writer"] {
            let request = pb::GetRoleRequest { role: role.into(), ..Default::default() };
            counts.push(client.roles().get_role(request).await.unwrap().into_inner().role.unwrap().key_count);
        }
        counts
    };
    assert_eq!(counts().await, [0, 0, 0]);
    let (key, _) = client.key(pb::CreateKeyRequest { roles: texts(&["reader"]), ..of(&api) }).await;
    client.plain_key(&api, "").await;
    assert_eq!(counts().await, [2, 1, 0]);
    let set = |roles: &[&str]| pb::SetKeyRolesRequest {
        key_id: key.key_id.clone(),
        roles: texts(roles),
        ..Default::default()
    };
    client.keys().set_key_roles(set(&["reader", "writer"])).await.unwrap();
    client.keys().set_key_roles(set(&["writer", "reader"])).await.unwrap();
    assert_eq!(counts().await, [2, 1, 1]);
    client.keys().set_key_roles(set(&["writer"])).await.unwrap();
    assert_eq!(counts().await, [2, 0, 1]);
    let delete = |permanent| pb::DeleteKeyRequest { key_id: key.key_id.clone(), permanent, ..Default::default() };
    client.keys().delete_key(delete(false)).await.unwrap();
    assert_eq!(counts().await, [1, 0, 0]);
    let request = pb::UndeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().undelete_key(request).await.unwrap();
    assert_eq!(counts().await, [2, 0, 1]);
    client.keys().delete_key(delete(false)).await.unwrap();
    client.keys().delete_key(delete(true)).await.unwrap();
    assert_eq!(counts().await, [1, 0, 0]);
    house.sweep().await;
    assert_eq!(counts().await, [1, 0, 0]);
}
