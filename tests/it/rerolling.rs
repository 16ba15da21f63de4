//! Rerolling a key: a successor that is alike, and an end for the one it replaces.

use ostiary::pb::v1 as pb;
use tonic::Code as Grpc;
use tonic_types::StatusExt;

use crate::harness::{Client, House, at, fields, mask, reason, refusal, span, texts};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

async fn reroll(client: &Client, key_id: &str, grace: u64) -> Result<pb::RerollKeyResponse, tonic::Status> {
    let request = pb::RerollKeyRequest { key_id: key_id.into(), grace_period: Some(span(grace)), ..Default::default() };
    client.keys().reroll_key(request).await.map(tonic::Response::into_inner)
}

fn why(result: Result<pb::RerollKeyResponse, tonic::Status>) -> (Grpc, String) {
    let status = result.expect_err("it was to be refused");
    (status.code(), reason(&status))
}

fn precondition(reason: &str) -> (Grpc, String) {
    (Grpc::FailedPrecondition, reason.to_owned())
}

fn not_found(kind: &str) -> (Grpc, String) {
    (Grpc::NotFound, format!("{kind}_NOT_FOUND"))
}

async fn code(client: &Client, secret: &str) -> pb::VerificationCode {
    client.verdict(secret, None).await.code()
}

/// A key with something of everything.
async fn rich_key(client: &Client, api: &pb::Api) -> (pb::Key, String) {
    client.role("reader", &["documents.read"]).await;
    client
        .key(pb::CreateKeyRequest {
            api_id: api.api_id.clone(),
            name: "Ada".into(),
            prefix: Some("acme".into()),
            roles: texts(&["reader"]),
            permissions: texts(&["documents.write"]),
            allowed_cidrs: texts(&["10.0.0.0/8"]),
            ..Default::default()
        })
        .await
}

#[tokio::test]
async fn the_successor_is_alike_and_both_secrets_work_until_the_grace_is_over() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (old, secret) = rich_key(&client, &api).await;
    house.pass(5);
    let rerolled = reroll(&client, &old.key_id, MINUTE).await.unwrap();
    let (next, previous) = (rerolled.key.unwrap(), rerolled.previous.unwrap());
    assert!(rerolled.secret.starts_with("acme_") && rerolled.secret.starts_with(&next.start));
    let expected = pb::Key {
        key_id: next.key_id.clone(),
        start: next.start.clone(),
        etag: next.etag.clone(),
        create_time: Some(at(house.now())),
        update_time: Some(at(house.now())),
        rotated_from: Some(old.key_id.clone()),
        ..old.clone()
    };
    assert_eq!(next, expected);
    let expected = pb::Key {
        state: pb::KeyState::RotatedOut.into(),
        update_time: Some(at(house.now())),
        expire_time: Some(at(house.now() + MINUTE)),
        rotated_to: Some(next.key_id.clone()),
        etag: previous.etag.clone(),
        ..old.clone()
    };
    assert_eq!(previous, expected);
    assert_ne!(previous.etag, old.etag);
    assert_eq!(client.get_key(&old.key_id).await.unwrap(), previous);
    assert_eq!(client.get_key(&next.key_id).await.unwrap(), next);
    let ask = |secret: &str| pb::VerifyKeyRequest {
        key: secret.into(),
        permissions: Some("documents.read AND documents.write".into()),
        client_ip: Some("10.1.2.3".into()),
        ..Default::default()
    };
    house.pass(MINUTE - 1);
    for secret in [&secret, &rerolled.secret] {
        assert_eq!(client.verify(ask(secret)).await.code(), pb::VerificationCode::Valid);
    }
    house.pass(1);
    assert_eq!(client.verify(ask(&secret)).await.code(), pb::VerificationCode::Expired);
    assert_eq!(client.verify(ask(&rerolled.secret)).await.code(), pb::VerificationCode::Valid);
    let event = client.log().await.into_iter().find(|event| event.event == "key.reroll").unwrap();
    let ids: Vec<String> = event.targets.into_iter().map(|target| target.id).collect();
    assert_eq!(ids, [old.key_id, next.key_id]);
}

#[tokio::test]
async fn without_grace_the_old_secret_stops_in_the_same_instant() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    for grace_period in [None, Some(span(0))] {
        let (old, secret) = client.plain_key(&api, "").await;
        let request = pb::RerollKeyRequest { key_id: old.key_id.clone(), grace_period, ..Default::default() };
        let rerolled = client.keys().reroll_key(request).await.unwrap().into_inner();
        assert_eq!(rerolled.previous.unwrap().state(), pb::KeyState::Expired);
        assert_eq!(code(&client, &secret).await, pb::VerificationCode::Expired);
        assert_eq!(code(&client, &rerolled.secret).await, pb::VerificationCode::Valid);
    }
}

#[tokio::test]
async fn grace_is_bounded_and_never_extends_a_life() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let request = pb::CreateKeyRequest {
        api_id: api.api_id.clone(),
        expiration: Some(pb::create_key_request::Expiration::Ttl(span(MINUTE))),
        ..Default::default()
    };
    let (old, _) = client.key(request).await;
    for grace_period in [span(30 * DAY + 1), prost_types::Duration { seconds: -1, nanos: 0 }] {
        let request =
            pb::RerollKeyRequest { key_id: old.key_id.clone(), grace_period: Some(grace_period), ..Default::default() };
        assert_eq!(fields(&client.keys().reroll_key(request).await.unwrap_err()), ["grace_period"]);
    }
    let rerolled = reroll(&client, &old.key_id, 30 * DAY).await.unwrap();
    assert_eq!(rerolled.previous.unwrap().expire_time, old.expire_time);
    assert_eq!(rerolled.key.unwrap().expire_time, old.expire_time);
}

#[tokio::test]
async fn a_key_is_rerolled_once_and_the_refusal_names_its_successor_even_after_its_end() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    for grace in [0, MINUTE] {
        let (old, _) = client.plain_key(&api, "").await;
        let next = reroll(&client, &old.key_id, grace).await.unwrap().key.unwrap();
        let status = reroll(&client, &old.key_id, MINUTE).await.unwrap_err();
        let violation = &status.get_details_precondition_failure().unwrap().violations[0];
        assert_eq!((violation.r#type.as_str(), &violation.subject), ("ALREADY_ROTATED", &old.key_id));
        assert!(violation.description.contains(&next.key_id));
        reroll(&client, &next.key_id, MINUTE).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_over_is_not_rerolled() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let request = pb::CreateKeyRequest {
        api_id: api.api_id.clone(),
        expiration: Some(pb::create_key_request::Expiration::Ttl(span(MINUTE))),
        ..Default::default()
    };
    let (expired, _) = client.key(request).await;
    let (deleted, _) = client.plain_key(&api, "").await;
    client
        .keys()
        .delete_key(pb::DeleteKeyRequest { key_id: deleted.key_id.clone(), ..Default::default() })
        .await
        .unwrap();
    house.pass(MINUTE);
    for _ in 0..2 {
        assert_eq!(why(reroll(&client, &expired.key_id, 0).await), precondition("KEY_EXPIRED"));
        assert_eq!(why(reroll(&client, &deleted.key_id, 0).await), not_found("KEY"));
        house.sweep().await;
    }
    let (key, _) = client.plain_key(&api, "").await;
    let stale = pb::RerollKeyRequest { key_id: key.key_id.clone(), etag: "stale".into(), ..Default::default() };
    assert_eq!(refusal(client.keys().reroll_key(stale).await), (Grpc::Aborted, "ETAG_MISMATCH".to_owned()));
    let tried = pb::RerollKeyRequest { key_id: key.key_id.clone(), validate_only: true, ..Default::default() };
    let tried = client.keys().reroll_key(tried).await.unwrap().into_inner();
    assert_eq!(tried.secret, "");
    assert_eq!(client.get_key(&key.key_id).await.unwrap(), key);
}

#[tokio::test]
async fn the_life_of_a_rotated_out_key_is_cut_and_never_extended() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (old, secret) = client.plain_key(&api, "").await;
    reroll(&client, &old.key_id, MINUTE).await.unwrap();
    let until = |end: Option<u64>| pb::UpdateKeyRequest {
        key_id: old.key_id.clone(),
        expire_time: end.map(at),
        update_mask: mask(&["expire_time"]),
        ..Default::default()
    };
    let now = house.now();
    for end in [None, Some(now + MINUTE + 1)] {
        assert_eq!(refusal(client.keys().update_key(until(end)).await), precondition("ALREADY_ROTATED"));
    }
    client.keys().update_key(until(Some(now + 10))).await.unwrap();
    assert_eq!(refusal(client.keys().update_key(until(Some(now + 11))).await), precondition("ALREADY_ROTATED"));
    house.pass(10);
    assert_eq!(code(&client, &secret).await, pb::VerificationCode::Expired);
    assert_eq!(refusal(client.keys().update_key(until(Some(now + MINUTE))).await), precondition("ALREADY_ROTATED"));
    let renamed = pb::UpdateKeyRequest { key_id: old.key_id.clone(), name: Some("old".into()), ..Default::default() };
    client.keys().update_key(renamed).await.unwrap();
}

#[tokio::test]
async fn rerolling_needs_all_that_making_the_new_key_needs() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, _) = rich_key(&client, &api).await;
    let all = ["apis.*.update_key", "apis.*.create_key", "rbac.*.add_role_to_key", "rbac.*.add_permission_to_key"];
    for missing in 0..all.len() {
        let rest: Vec<&str> = all.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, one)| *one).collect();
        let limited = client.limited(&rest).await;
        let refused = why(reroll(&limited, &key.key_id, 0).await);
        assert_eq!(refused, (Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned()), "{}", all[missing]);
    }
    for (elsewhere, kind) in [("apis.other.update_key", "KEY"), ("apis.other.create_key", "KEY")] {
        let own: Vec<&str> =
            all.iter().filter(|one| one.rsplit('.').next() != elsewhere.rsplit('.').next()).copied().collect();
        let limited = client.limited(&[&own[..], &[elsewhere]].concat()).await;
        assert_eq!(why(reroll(&limited, &key.key_id, 0).await), not_found(kind));
    }
    reroll(&client.limited(&all).await, &key.key_id, 0).await.unwrap();
}

#[tokio::test]
async fn the_secret_is_delivered_to_a_repeat_and_there_is_one_successor() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (old, _) = client.plain_key(&api, "").await;
    let once = client.once("reroll");
    let first = reroll(&once, &old.key_id, MINUTE).await.unwrap();
    let again = reroll(&once, &old.key_id, MINUTE).await.unwrap();
    assert_eq!((&again.key, &again.secret, &again.previous), (&first.key, &first.secret, &first.previous));
    house.pass(11 * MINUTE);
    let late = why(reroll(&once, &old.key_id, MINUTE).await);
    assert_eq!(late, (Grpc::AlreadyExists, "SECRET_ALREADY_DELIVERED".to_owned()));
}

#[tokio::test]
async fn of_two_rerolls_at_the_same_time_one_succeeds() {
    let house = House::new().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    for _ in 0..8 {
        let (old, _) = client.plain_key(&api, "").await;
        let all = (0..8).map(|_| reroll(&client, &old.key_id, MINUTE));
        let all = futures::future::join_all(all).await;
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1);
        for lost in all.into_iter().filter(Result::is_err) {
            assert_eq!(why(lost), precondition("ALREADY_ROTATED"));
        }
    }
    let api = client.apis().get_api(pb::GetApiRequest { api_id: api.api_id, ..Default::default() }).await;
    assert_eq!(api.unwrap().into_inner().api.unwrap().key_count, 8);
}

#[tokio::test]
async fn a_full_workspace_can_reroll() {
    let house = House::in_memory().await;
    let operator = house.operator().await;
    let request = pb::CreateWorkspaceRequest {
        name: "tenant".into(),
        quotas: Some(pb::WorkspaceQuotas { max_keys: Some(1), ..Default::default() }),
        ..Default::default()
    };
    let secret = operator.workspaces().create_workspace(request).await.unwrap().into_inner().secret;
    let client = operator.with(&secret);
    let api = client.api("documents").await;
    let (mut key, _) = client.plain_key(&api, "").await;
    for _ in 0..3 {
        key = reroll(&client, &key.key_id, MINUTE).await.unwrap().key.unwrap();
    }
    let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), ..Default::default() };
    assert_eq!(refusal(client.keys().create_key(request).await).1, "QUOTA_EXCEEDED");
}
