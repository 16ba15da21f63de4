//! Rotation: a successor that is alike, and an end for the one it replaces.

use ostiary::pb::v1 as pb;
use tonic_types::StatusExt;

use super::calls::{changing, denied, end, invalid, only, precondition, unauthenticated, why};
use crate::harness::{House, at, fields, root_key, span, texts};

const MINUTE: u64 = 60_000;

#[tokio::test]
async fn the_successor_is_alike_and_both_secrets_work_until_the_grace_is_over() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let me = operator.me().await.unwrap();
    let request = pb::CreateRootKeyRequest {
        allowed_cidrs: texts(&["127.0.0.0/8"]),
        ..root_key("backend", &["apis.*.read_api", "rbac.*.read_role"])
    };
    let (old, secret) = operator.make(request).await.unwrap();
    house.pass(5);
    let rotated = operator.rotate(&old.root_key_id, MINUTE).await.unwrap();
    let expected = pb::RootKey {
        root_key_id: rotated.next.root_key_id.clone(),
        start: rotated.next.start.clone(),
        etag: rotated.next.etag.clone(),
        create_time: Some(at(house.now())),
        update_time: Some(at(house.now())),
        rotated_from: Some(old.root_key_id.clone()),
        created_by: Some(me.root_key_id),
        ..old.clone()
    };
    assert_eq!(rotated.next, expected);
    let expected = pb::RootKey {
        state: pb::RootKeyState::RotatedOut.into(),
        update_time: Some(at(house.now())),
        expire_time: Some(at(house.now() + MINUTE)),
        rotated_to: Some(rotated.next.root_key_id.clone()),
        etag: rotated.previous.etag.clone(),
        ..old.clone()
    };
    assert_eq!(rotated.previous, expected);
    assert_ne!(rotated.previous.etag, old.etag);
    let (before, after) = (operator.with(&secret), operator.with(&rotated.secret));
    house.pass(MINUTE - 1);
    assert_eq!(before.me().await.unwrap().root_key_id, old.root_key_id);
    assert_eq!(after.me().await.unwrap().root_key_id, rotated.next.root_key_id);
    house.pass(1);
    assert_eq!(why(before.me().await), unauthenticated("ROOT_KEY_EXPIRED"));
    assert_eq!(after.me().await.unwrap().expire_time, None);
}

#[tokio::test]
async fn without_grace_the_old_secret_stops_in_the_same_instant() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    for grace_period in [None, Some(span(0))] {
        let (old, client) = operator.colleague("backend", &["apis.*.read_api"]).await;
        let request =
            pb::RotateRootKeyRequest { root_key_id: old.root_key_id.clone(), grace_period, ..Default::default() };
        let rotated = operator.rotate_as(request).await.unwrap();
        assert_eq!(end(&rotated.previous), Some(house.now()));
        assert_eq!(rotated.previous.state(), pb::RootKeyState::Expired);
        assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_EXPIRED"));
        operator.with(&rotated.secret).me().await.unwrap();
    }
}

#[tokio::test]
async fn grace_never_extends_a_life_and_the_successor_inherits_the_end() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (old, client) = operator.mortal("backend", &["apis.*.read_api"], 30_000).await;
    let rotated = operator.rotate(&old.root_key_id, 30 * 24 * 60 * MINUTE).await.unwrap();
    assert_eq!((end(&rotated.previous), end(&rotated.next)), (end(&old), end(&old)));
    house.pass(30_000);
    assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_EXPIRED"));
    assert_eq!(why(client.with(&rotated.secret).me().await), unauthenticated("ROOT_KEY_EXPIRED"));
}

#[tokio::test]
async fn grace_is_at_most_thirty_days_and_never_negative() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (old, _) = operator.colleague("backend", &["apis.*.read_api"]).await;
    let thirty_days = 30 * 24 * 3_600;
    for (seconds, nanos) in [(-1, 0), (thirty_days, 1_000_000), (0, -1)] {
        let request = pb::RotateRootKeyRequest {
            root_key_id: old.root_key_id.clone(),
            grace_period: Some(prost_types::Duration { seconds, nanos }),
            ..Default::default()
        };
        assert_eq!(fields(&operator.rotate_as(request).await.unwrap_err()), ["grace_period"]);
    }
    operator.rotate(&old.root_key_id, thirty_days as u64 * 1_000).await.unwrap();
}

#[tokio::test]
async fn an_expired_root_key_is_not_rotated() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (old, _) = operator.mortal("backend", &["apis.*.read_api"], 1_000).await;
    house.pass(1_000);
    assert_eq!(why(operator.rotate(&old.root_key_id, MINUTE).await), precondition("ROOT_KEY_EXPIRED"));
    house.sweep().await;
    assert_eq!(why(operator.rotate(&old.root_key_id, MINUTE).await), precondition("ROOT_KEY_EXPIRED"));
}

#[tokio::test]
async fn a_root_key_is_rotated_once_and_the_refusal_names_its_successor_even_after_its_end() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    for grace in [0, MINUTE] {
        let (old, _) = operator.colleague("backend", &["apis.*.read_api"]).await;
        let rotated = operator.rotate(&old.root_key_id, grace).await.unwrap();
        let status = operator.rotate(&old.root_key_id, MINUTE).await.unwrap_err();
        let violation = &status.get_details_precondition_failure().unwrap().violations[0];
        assert_eq!((violation.r#type.as_str(), &violation.subject), ("ALREADY_ROTATED", &old.root_key_id));
        assert!(violation.description.contains(&rotated.next.root_key_id));
        operator.rotate(&rotated.next.root_key_id, MINUTE).await.unwrap();
    }
}

#[tokio::test]
async fn the_successor_of_a_disabled_root_key_is_disabled_too() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (old, _) = operator.colleague("backend", &["apis.*.read_api"]).await;
    operator.change(pb::UpdateRootKeyRequest { enabled: Some(false), ..changing(&old) }).await.unwrap();
    let rotated = operator.rotate(&old.root_key_id, MINUTE).await.unwrap();
    assert_eq!((rotated.next.enabled, rotated.next.state()), (false, pb::RootKeyState::Disabled));
    let client = operator.with(&rotated.secret);
    assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_DISABLED"));
    operator.change(pb::UpdateRootKeyRequest { enabled: Some(true), ..changing(&rotated.next) }).await.unwrap();
    client.me().await.unwrap();
}

#[tokio::test]
async fn a_root_key_that_rotates_itself_leaves_itself_a_minute_unless_it_insists() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (old, client) = operator.colleague("backend", &["root_keys.*.rotate_root_key"]).await;
    assert_eq!(why(client.rotate(&old.root_key_id, MINUTE - 1).await), invalid());
    let rotated = client.rotate(&old.root_key_id, MINUTE).await.unwrap();
    assert_eq!(client.me().await.unwrap().state(), pb::RootKeyState::RotatedOut);
    let next = client.with(&rotated.secret);
    let request = pb::RotateRootKeyRequest { root_key_id: rotated.next.root_key_id, force: true, ..Default::default() };
    let last = next.rotate_as(request).await.unwrap();
    assert_eq!(why(next.me().await), unauthenticated("ROOT_KEY_EXPIRED"));
    assert_eq!(next.with(&last.secret).me().await.unwrap().created_by, last.next.rotated_from);
}

#[tokio::test]
async fn the_life_of_a_rotated_out_root_key_is_cut_and_never_extended() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (old, client) = operator.colleague("backend", &["apis.*.read_api"]).await;
    operator.rotate(&old.root_key_id, MINUTE).await.unwrap();
    let until = |end: Option<u64>| pb::UpdateRootKeyRequest {
        expire_time: end.map(at),
        update_mask: only(&["expire_time"]),
        ..changing(&old)
    };
    for end in [None, Some(house.now() + MINUTE + 1)] {
        assert_eq!(why(operator.change(until(end)).await), precondition("ALREADY_ROTATED"));
    }
    operator.change(until(Some(house.now() + 10))).await.unwrap();
    assert_eq!(why(operator.change(until(Some(house.now() + 11))).await), precondition("ALREADY_ROTATED"));
    let renamed = pb::UpdateRootKeyRequest { name: Some("old backend".into()), ..changing(&old) };
    assert_eq!(operator.change(renamed).await.unwrap().name, "old backend");
    house.pass(9);
    client.me().await.unwrap();
    house.pass(1);
    assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_EXPIRED"));
}

#[tokio::test]
async fn whoever_rotates_must_cover_what_they_rotate() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let grants = ["root_keys.*.rotate_root_key", "apis.*.read_api"];
    let (wider, _) = operator.colleague("wider", &["apis.*.*"]).await;
    let (longer, _) = operator.colleague("longer", &["apis.*.read_api"]).await;
    let (_, client) = operator.colleague("rotator", &grants).await;
    assert_eq!(why(client.rotate(&wider.root_key_id, MINUTE).await), denied("GRANT_EXCEEDS_OWN"));
    let (_, mortal) = operator.mortal("mortal", &grants, 10 * MINUTE).await;
    assert_eq!(why(mortal.rotate(&longer.root_key_id, MINUTE).await), denied("GRANT_EXCEEDS_OWN"));
    let bound = pb::CreateRootKeyRequest { allowed_cidrs: texts(&["127.0.0.1"]), ..root_key("bound", &grants) };
    let (_, secret) = operator.make(bound).await.unwrap();
    assert_eq!(why(operator.with(&secret).rotate(&longer.root_key_id, 0).await), denied("GRANT_EXCEEDS_OWN"));
    client.rotate(&longer.root_key_id, MINUTE).await.unwrap();
}
