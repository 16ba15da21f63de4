//! Root keys: made, read, listed, changed, deleted; `root_keys/` holds rotation, cascades and usage.

pub mod calls;
mod cascade;
mod rotation;
mod usage;

use ostiary::pb::v1 as pb;
use tonic_types::StatusExt;

use crate::harness::{House, at, fields, root_key, span, texts};
use calls::{changing, denied, invalid, not_found, only, precondition, unauthenticated, why};

type Expiration = pb::create_root_key_request::Expiration;

#[tokio::test]
async fn a_root_key_is_made_as_asked_and_its_secret_is_shown_once() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let me = operator.me().await.unwrap();
    let request = pb::CreateRootKeyRequest {
        expiration: Some(Expiration::ExpireTime(at(house.now() + 5_000))),
        allowed_cidrs: texts(&["127.0.0.1", "10.1.2.3/8"]),
        ..root_key("billing", &["apis.*.verify_key"])
    };
    let (made, secret) = operator.make(request).await.unwrap();
    assert!(secret.starts_with("ostiary_") && made.start == secret[.."ostiary_".len() + 4]);
    let etag = made.etag.clone();
    let expected = pb::RootKey {
        root_key_id: made.root_key_id.clone(),
        workspace_id: me.workspace_id.clone(),
        name: "billing".into(),
        permissions: texts(&["apis.*.verify_key"]),
        start: made.start.clone(),
        enabled: true,
        state: pb::RootKeyState::Active.into(),
        create_time: Some(at(house.now())),
        update_time: Some(at(house.now())),
        expire_time: Some(at(house.now() + 5_000)),
        created_by: Some(me.root_key_id.clone()),
        allowed_cidrs: texts(&["127.0.0.1/32", "10.0.0.0/8"]),
        etag,
        ..Default::default()
    };
    assert_eq!(made, expected);
    let seen = operator.look(&made.root_key_id).await.unwrap();
    assert_eq!(seen, pb::RootKey { unused_permissions: texts(&["apis.*.verify_key"]), ..expected });
    assert!(!format!("{seen:?}").contains(&secret));
}

#[tokio::test]
async fn who_am_i_tells_the_root_key_and_its_workspace_to_any_root_key() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, client) = operator.colleague("reader", &["audit.*.read_audit_log"]).await;
    let answer = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner();
    let (me, workspace) = (answer.root_key.unwrap(), answer.workspace.unwrap());
    assert_eq!((me.root_key_id, workspace.workspace_id), (made.root_key_id, made.workspace_id));
    assert_eq!(me.last_used_time, Some(at(house.now())));
}

#[tokio::test]
async fn permissions_that_are_not_three_lower_case_segments_are_refused_by_place() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let permissions = [
        "apis.read_api",
        "apis.*.READ_API",
        "Apis.*.read_api",
        "apis.*.read_api",
        "apis.*.read_ap",
        "apis.a*.read_api",
        "apis.api_1.create_api",
        "root_key.*.read_root_key",
        "*.*.create_workspace",
        "",
    ];
    let status = operator.make(root_key("odd", &permissions)).await.unwrap_err();
    let expected: Vec<String> = [0, 1, 2, 4, 5, 6, 7, 8, 9].iter().map(|n| format!("permissions[{n}]")).collect();
    assert_eq!(fields(&status), expected);
    let nearest = &status.get_details_bad_request().unwrap().field_violations[1].description;
    assert!(nearest.ends_with("the nearest valid spelling is apis.*.read_api"), "{nearest}");
}

#[tokio::test]
async fn singular_resources_are_stored_as_plurals_and_duplicates_collapse() {
    let house = House::unswept().await;
    let permissions =
        ["identity.*.read_identity", "api.*.read_api", "apis.*.read_api", "ratelimit.*.limit", "api.*.read_api"];
    let (made, _) = house.operator().await.root_key("singular", &permissions).await;
    assert_eq!(made.permissions, texts(&["apis.*.read_api", "identities.*.read_identity", "ratelimits.*.limit"]));
}

#[tokio::test]
async fn two_hundred_permissions_are_the_most_and_none_is_too_few() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let grants: Vec<String> = (0..201).map(|n| format!("apis.api_{n:03}.read_api")).collect();
    let mut grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    assert_eq!(why(operator.make(root_key("201", &grants)).await), invalid());
    grants.pop();
    grants.push("api.api_000.read_api");
    let (made, _) = operator.make(root_key("200", &grants)).await.unwrap();
    assert_eq!(made.permissions.len(), 200);
    assert_eq!(fields(&operator.make(root_key("0", &[])).await.unwrap_err()), ["permissions"]);
    let cleared = pb::UpdateRootKeyRequest { update_mask: only(&["permissions"]), ..changing(&made) };
    assert_eq!(fields(&operator.change(cleared).await.unwrap_err()), ["permissions"]);
}

#[tokio::test]
async fn every_flaw_of_a_new_root_key_is_told_at_once() {
    let house = House::unswept().await;
    let request = pb::CreateRootKeyRequest {
        expiration: Some(Expiration::ExpireTime(at(house.now()))),
        allowed_cidrs: texts(&["10.0.0.0/8", "here"]),
        ..root_key("", &["apis.*.read"])
    };
    let status = house.operator().await.make(request).await.unwrap_err();
    assert_eq!(fields(&status), ["name", "permissions[0]", "expire_time", "allowed_cidrs[1]"]);
}

#[tokio::test]
async fn validate_only_makes_changes_and_deletes_nothing() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, _) = operator.colleague("kept", &["apis.*.read_api"]).await;
    let before = operator.events().await;
    let request = pb::CreateRootKeyRequest { validate_only: true, ..root_key("not made", &["apis.*.read_api"]) };
    let (example, secret) = operator.make(request).await.unwrap();
    assert_eq!((example.name.as_str(), secret.as_str()), ("not made", ""));
    assert_eq!(why(operator.look(&example.root_key_id).await), not_found());
    let request = pb::UpdateRootKeyRequest { name: Some("new".into()), validate_only: true, ..changing(&made) };
    assert_eq!(operator.change(request).await.unwrap().name, "new");
    let id = made.root_key_id.clone();
    let request = pb::RotateRootKeyRequest { root_key_id: id.clone(), validate_only: true, ..Default::default() };
    let rotated = operator.rotate_as(request).await.unwrap();
    assert_eq!((rotated.secret.as_str(), rotated.previous.expire_time), ("", Some(at(house.now()))));
    let request = pb::DeleteRootKeyRequest { root_key_id: id.clone(), validate_only: true, ..Default::default() };
    assert_eq!(operator.remove_as(request).await.unwrap(), std::slice::from_ref(&id));
    assert_eq!(operator.look(&id).await.unwrap().etag, made.etag);
    assert_eq!(operator.events().await, before);
}

#[tokio::test]
async fn each_filter_of_the_list_shows_what_it_says_and_all_of_them_must_agree() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let begin = house.now();
    house.pass(1_000);
    let (rotated, _) = operator.colleague("Rotated", &["apis.*.read_api"]).await;
    let (disabled, _) = operator.colleague("disabled", &["rbac.*.delete_role"]).await;
    house.pass(1_000);
    operator.mortal("expired", &["apis.*.verify_key"], 1_000).await;
    operator.mortal("mortal", &["apis.*.delete_api"], 100_000).await;
    house.pass(1_000);
    operator.rotate(&rotated.root_key_id, 60_000).await.unwrap();
    operator.change(pb::UpdateRootKeyRequest { enabled: Some(false), ..changing(&disabled) }).await.unwrap();
    let none = pb::ListRootKeysFilter::default;
    let all = ["Rotated", "Rotated", "disabled", "expired", "first root key", "mortal"];
    assert_eq!(operator.names(none()).await, all);
    let part = |part: &str| pb::ListRootKeysFilter { name_contains: Some(part.into()), ..none() };
    assert_eq!(operator.names(part("ROTATED")).await, ["Rotated", "Rotated"]);
    let part = |part: &str| pb::ListRootKeysFilter { permission_contains: Some(part.into()), ..none() };
    assert_eq!(operator.names(part(".delete_")).await, ["disabled", "mortal"]);
    let state = |state: pb::RootKeyState| pb::ListRootKeysFilter { state: Some(state.into()), ..none() };
    assert_eq!(operator.names(state(pb::RootKeyState::Active)).await, ["Rotated", "first root key", "mortal"]);
    assert_eq!(operator.names(state(pb::RootKeyState::RotatedOut)).await, ["Rotated"]);
    assert_eq!(operator.names(state(pb::RootKeyState::Disabled)).await, ["disabled"]);
    assert_eq!(operator.names(state(pb::RootKeyState::Expired)).await, ["expired"]);
    let after = |millis| pb::ListRootKeysFilter { create_after: Some(at(begin + millis)), ..none() };
    assert_eq!(operator.names(after(2_000)).await, ["Rotated", "expired", "mortal"]);
    let before = |millis| pb::ListRootKeysFilter { create_before: Some(at(begin + millis)), ..none() };
    assert_eq!(operator.names(before(1_000)).await, ["first root key"]);
    let expire = |millis| pb::ListRootKeysFilter { expire_before: Some(at(begin + millis)), ..none() };
    assert_eq!(operator.names(expire(3_000)).await, Vec::<String>::new());
    assert_eq!(operator.names(expire(3_001)).await, ["expired"]);
    let unused = pb::ListRootKeysFilter { last_used_before: Some(at(begin + 3_000)), ..none() };
    assert_eq!(operator.names(unused).await, ["Rotated", "Rotated", "disabled", "expired", "mortal"]);
    let both = pb::ListRootKeysFilter {
        create_after: Some(at(begin + 2_000)),
        expire_before: Some(at(begin + 9_000)),
        ..none()
    };
    assert_eq!(operator.names(both).await, ["expired"]);
    let request = pb::ListRootKeysRequest { filter: Some(state(pb::RootKeyState::Unspecified)), ..Default::default() };
    assert_eq!(fields(&operator.root_keys().list_root_keys(request).await.unwrap_err()), ["filter.state"]);
}

#[tokio::test]
async fn a_list_shows_what_the_callers_grants_cover_and_nothing_else_tells() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (one, _) = operator.colleague("one", &["apis.*.read_api"]).await;
    let (other, _) = operator.colleague("other", &["apis.*.read_api"]).await;
    let grant = format!("root_keys.{}.read_root_key", one.root_key_id);
    let (_, client) = operator.colleague("reader", &[&grant]).await;
    assert_eq!(client.names(pb::ListRootKeysFilter::default()).await, ["one"]);
    let hidden = client.look(&other.root_key_id).await.unwrap_err();
    operator.remove(&other.root_key_id).await.unwrap();
    let missing = client.look(&other.root_key_id).await.unwrap_err();
    assert_eq!((hidden.code(), hidden.message()), (missing.code(), missing.message()));
    let (_, client) = operator.colleague("nobody", &["apis.*.read_api"]).await;
    let list = client.root_keys().list_root_keys(pb::ListRootKeysRequest::default()).await;
    assert_eq!(why(list), denied("PERMISSION_MISSING"));
    assert_eq!(why(client.look("not an id").await), denied("PERMISSION_MISSING"));
}

#[tokio::test]
async fn a_change_that_changes_nothing_leaves_etag_time_and_log_alone() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, _) = operator.colleague("same", &["apis.*.read_api", "rbac.*.read_role"]).await;
    let before = operator.events().await;
    house.pass(1_000);
    let same = pb::UpdateRootKeyRequest {
        name: Some("same".into()),
        permissions: texts(&["rbac.*.read_role", "api.*.read_api", "apis.*.read_api"]),
        enabled: Some(true),
        update_mask: only(&["name", "permissions", "enabled", "expire_time", "allowed_cidrs"]),
        etag: made.etag.clone(),
        ..changing(&made)
    };
    assert_eq!(operator.change(same).await.unwrap(), made);
    assert_eq!(operator.events().await, before);
    let changed = pb::UpdateRootKeyRequest { name: Some("other".into()), ..changing(&made) };
    let after = operator.change(changed).await.unwrap();
    assert_ne!(after.etag, made.etag);
    assert_eq!(after.update_time, Some(at(house.now())));
    let late = pb::UpdateRootKeyRequest { etag: made.etag.clone(), name: Some("x".into()), ..changing(&made) };
    assert_eq!(why(operator.change(late).await).1, "ETAG_MISMATCH");
}

#[tokio::test]
async fn a_change_counts_from_the_very_next_call() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, client) = operator.colleague("worker", &["apis.*.create_api", "apis.*.read_api"]).await;
    client.api("first").await;
    let narrowed = pb::UpdateRootKeyRequest { permissions: texts(&["apis.*.read_api"]), ..changing(&made) };
    operator.change(narrowed).await.unwrap();
    let request = pb::CreateApiRequest { name: "second".into(), ..Default::default() };
    assert_eq!(why(client.apis().create_api(request).await), denied("PERMISSION_MISSING"));
    let off = pb::UpdateRootKeyRequest { update_mask: only(&["enabled"]), ..changing(&made) };
    assert_eq!(operator.change(off).await.unwrap().state(), pb::RootKeyState::Disabled);
    assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_DISABLED"));
    operator.change(pb::UpdateRootKeyRequest { enabled: Some(true), ..changing(&made) }).await.unwrap();
    assert_eq!(client.me().await.unwrap().name, "worker");
}

#[tokio::test]
async fn expired_is_final() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, client) = operator.mortal("mortal", &["apis.*.read_api"], 1_000).await;
    house.pass(1_000);
    for expire_time in [None, Some(at(house.now() + 1))] {
        let renewal = pb::UpdateRootKeyRequest { expire_time, update_mask: only(&["expire_time"]), ..changing(&made) };
        assert_eq!(why(operator.change(renewal).await), precondition("ROOT_KEY_EXPIRED"));
    }
    for enabled in [false, true] {
        let switch = pb::UpdateRootKeyRequest { enabled: Some(enabled), ..changing(&made) };
        assert_eq!(operator.change(switch).await.unwrap().state(), pb::RootKeyState::Expired);
    }
    assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_EXPIRED"));
}

#[tokio::test]
async fn a_root_key_works_only_from_the_addresses_that_it_allows() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let from = |networks: &[&str]| pb::CreateRootKeyRequest {
        allowed_cidrs: texts(networks),
        ..root_key("bound", &["apis.*.read_api"])
    };
    for networks in [&["10.0.0.0/8", "::/0"][..], &["127.0.0.2"], &["::1"]] {
        let (_, secret) = operator.make(from(networks)).await.unwrap();
        assert_eq!(why(operator.with(&secret).me().await), unauthenticated("ROOT_KEY_ADDRESS"), "{networks:?}");
    }
    for networks in [&["127.0.0.0/8"][..], &["::ffff:127.0.0.1"], &["10.0.0.0/8", "127.0.0.1"], &[]] {
        let (made, secret) = operator.make(from(networks)).await.unwrap();
        assert_eq!(operator.with(&secret).me().await.unwrap().root_key_id, made.root_key_id, "{networks:?}");
    }
}

#[tokio::test]
async fn a_deleted_root_key_is_unknown_at_once_and_for_good() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, client) = operator.colleague("gone", &["*.*.*"]).await;
    let id = &made.root_key_id;
    let stale = pb::DeleteRootKeyRequest { root_key_id: id.clone(), etag: "stale".into(), ..Default::default() };
    assert_eq!(why(operator.remove_as(stale).await).1, "ETAG_MISMATCH");
    assert_eq!(operator.remove(id).await.unwrap(), std::slice::from_ref(id));
    assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_INVALID"));
    assert_eq!(why(operator.look(id).await), not_found());
    assert_eq!(why(operator.remove(id).await), not_found());
    assert_eq!(why(operator.rotate(id, 0).await), not_found());
    let renamed = pb::UpdateRootKeyRequest { name: Some("back".into()), ..changing(&made) };
    assert_eq!(why(operator.change(renamed).await), not_found());
    assert_eq!(operator.names(pb::ListRootKeysFilter::default()).await, ["first root key"]);
}

#[tokio::test]
async fn a_batch_deletes_all_or_none_and_names_all_that_are_unknown() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (a, _) = operator.colleague("a", &["apis.*.read_api"]).await;
    let (b, b_client) = operator.colleague("b", &["apis.*.read_api"]).await;
    let (gone, _) = operator.colleague("gone", &["apis.*.read_api"]).await;
    operator.remove(&gone.root_key_id).await.unwrap();
    let never = "rk_00000000000000000000000000";
    let status = operator.remove_all(&[&a.root_key_id, &gone.root_key_id, &b.root_key_id, never]).await.unwrap_err();
    assert_eq!(status.get_details_resource_info().unwrap().resource_name, format!("{}, {never}", gone.root_key_id));
    b_client.me().await.unwrap();
    let mut expected = [a.root_key_id.clone(), b.root_key_id.clone()];
    expected.sort();
    let twice = [&*b.root_key_id, &a.root_key_id, &b.root_key_id];
    assert_eq!(operator.remove_all(&twice).await.unwrap(), expected);
    assert_eq!(why(b_client.me().await), unauthenticated("ROOT_KEY_INVALID"));
    assert_eq!(operator.recorded("root_key.delete").await.len(), 3);
    assert_eq!(fields(&operator.remove_all(&[]).await.unwrap_err()), ["root_key_ids"]);
    assert_eq!(fields(&operator.remove_all(&["a"; 21]).await.unwrap_err()), ["root_key_ids"]);
    assert_eq!(
        fields(&operator.remove_all(&[never, "a", "b"]).await.unwrap_err()),
        ["root_key_ids[1]", "root_key_ids[2]"]
    );
}

#[tokio::test]
async fn a_life_may_be_given_as_a_span_and_may_be_cut_and_extended_while_it_lasts() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, _) = operator.mortal("mortal", &["apis.*.read_api"], 5_000).await;
    assert_eq!(calls::end(&made), Some(house.now() + 5_000));
    for end in [house.now() + 1, house.now() + 90_000] {
        let moved = pb::UpdateRootKeyRequest { expire_time: Some(at(end)), ..changing(&made) };
        assert_eq!(calls::end(&operator.change(moved).await.unwrap()), Some(end));
    }
    let cleared = pb::UpdateRootKeyRequest { update_mask: only(&["expire_time"]), ..changing(&made) };
    assert_eq!(operator.change(cleared).await.unwrap().expire_time, None);
    for span in [span(0), prost_types::Duration { seconds: -1, nanos: 0 }] {
        let expiration = Some(Expiration::Ttl(span));
        let request = pb::CreateRootKeyRequest { expiration, ..root_key("stillborn", &["apis.*.read_api"]) };
        assert_eq!(fields(&operator.make(request).await.unwrap_err()), ["ttl"]);
    }
}
