//! Revoking keys by filter: at once, for good, however many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ostiary::pb::v1 as pb;
use ostiary::server::Sweeping;
use tonic::Code as Grpc;

use crate::harness::{Client, House, Kept, at, but_for, fields, refusal, span, texts};

const DAY: u64 = 24 * 3_600_000;

fn in_api(api: &pb::Api) -> pb::RevokeKeysFilter {
    pb::RevokeKeysFilter { api_id: Some(api.api_id.clone()), ..Default::default() }
}

fn holding(role: &str) -> pb::RevokeKeysFilter {
    pb::RevokeKeysFilter { role: Some(role.into()), ..Default::default() }
}

async fn revoke(client: &Client, filter: pb::RevokeKeysFilter) -> i64 {
    let request = pb::RevokeKeysRequest { filter: Some(filter), ..Default::default() };
    client.keys().revoke_keys(request).await.unwrap().into_inner().revoked_count
}

async fn rehearse(client: &Client, filter: pb::RevokeKeysFilter) -> i64 {
    let request = pb::RevokeKeysRequest { filter: Some(filter), validate_only: true };
    client.keys().revoke_keys(request).await.unwrap().into_inner().revoked_count
}

async fn refused(client: &Client, filter: Option<pb::RevokeKeysFilter>) -> tonic::Status {
    let request = pb::RevokeKeysRequest { filter, ..Default::default() };
    client.keys().revoke_keys(request).await.unwrap_err()
}

async fn code(client: &Client, secret: &str) -> pb::VerificationCode {
    client.verdict(secret, None).await.code()
}

async fn passes(client: &Client, secret: &str) -> bool {
    match code(client, secret).await {
        pb::VerificationCode::Valid => true,
        pb::VerificationCode::NotFound => false,
        other => panic!("{other:?}"),
    }
}

async fn holder(client: &Client, api: &pb::Api, roles: &[&str]) -> (pb::Key, String) {
    client.key(pb::CreateKeyRequest { api_id: api.api_id.clone(), roles: texts(roles), ..Default::default() }).await
}

async fn delete(client: &Client, key: &pb::Key) {
    let request = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
}

async fn listed(client: &Client, show_deleted: bool) -> Vec<pb::Key> {
    let request = pb::ListKeysRequest { show_deleted, ..Default::default() };
    client.keys().list_keys(request).await.unwrap().into_inner().keys
}

fn ids(keys: &[pb::Key]) -> Vec<&String> {
    keys.iter().map(|key| &key.key_id).collect()
}

fn revoked() -> (Grpc, String) {
    (Grpc::FailedPrecondition, "KEY_REVOKED".to_owned())
}

/// Every change of a key, and how it is refused.
async fn changes(client: &Client, key: &pb::Key) -> Vec<(Grpc, String)> {
    let key_id = key.key_id.clone();
    let id = || key_id.clone();
    vec![
        refusal(
            client
                .keys()
                .update_key(pb::UpdateKeyRequest { key_id: id(), name: Some("Eve".into()), ..Default::default() })
                .await,
        ),
        refusal(client.keys().undelete_key(pb::UndeleteKeyRequest { key_id: id(), ..Default::default() }).await),
        refusal(client.keys().reroll_key(pb::RerollKeyRequest { key_id: id(), ..Default::default() }).await),
        refusal(client.keys().delete_key(pb::DeleteKeyRequest { key_id: id(), ..Default::default() }).await),
        refusal(client.keys().set_key_roles(pb::SetKeyRolesRequest { key_id: id(), ..Default::default() }).await),
        refusal(
            client
                .keys()
                .set_key_permissions(pb::SetKeyPermissionsRequest { key_id: id(), ..Default::default() })
                .await,
        ),
    ]
}

#[tokio::test]
async fn what_fits_is_revoked_for_good_whether_or_not_it_has_been_marked() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &[]).await;
    let (key, secret) = holder(&client, &api, &["reader"]).await;
    let (other, other_secret) = holder(&client, &api, &[]).await;
    let (gone, gone_secret) = holder(&client, &api, &["reader"]).await;
    delete(&client, &gone).await;
    house.pass(1_000);
    assert_eq!(rehearse(&client, holding("reader")).await, 1);
    assert!(passes(&client, &secret).await);
    assert_eq!(revoke(&client, holding("reader")).await, 1);
    let mut seen = Vec::new();
    for _ in 0..2 {
        assert!(!passes(&client, &secret).await && !passes(&client, &gone_secret).await);
        assert!(passes(&client, &other_secret).await);
        let shown = client.get_key(&key.key_id).await.unwrap();
        let expected = pb::Key {
            state: pb::KeyState::Revoked.into(),
            delete_time: Some(at(house.now())),
            update_time: Some(at(house.now())),
            etag: shown.etag.clone(),
            last_used_time: shown.last_used_time,
            ..key.clone()
        };
        assert_eq!(shown, expected);
        assert_eq!(ids(&listed(&client, false).await), [&other.key_id]);
        assert_eq!(listed(&client, true).await.len(), 3);
        assert_eq!(changes(&client, &key).await, vec![revoked(); 6]);
        assert_eq!(changes(&client, &gone).await, vec![revoked(); 6]);
        let request = pb::LookupKeyRequest { secret: secret.clone(), ..Default::default() };
        let absent = (Grpc::NotFound, "KEY_NOT_FOUND".to_owned());
        assert_eq!(refusal(client.keys().lookup_key(request).await), absent);
        assert_eq!(rehearse(&client, holding("reader")).await, 0);
        seen.push(shown);
        house.sweep().await;
    }
    assert_eq!(seen[0], seen[1]);
    let request = pb::GetApiRequest { api_id: api.api_id.clone(), ..Default::default() };
    assert_eq!(client.apis().get_api(request).await.unwrap().into_inner().api.unwrap().key_count, 1);
    assert_eq!(client.events().await.iter().filter(|event| *event == "keys.revoke").count(), 1);
    house.pass(90 * DAY);
    house.sweep().await;
    assert_eq!(client.get_key(&key.key_id).await.unwrap_err().code(), Grpc::NotFound);
    assert_eq!(ids(&listed(&client, true).await), [&other.key_id]);
}

#[tokio::test]
async fn later_keys_and_later_fits_live() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &[]).await;
    let (later, later_secret) = holder(&client, &api, &[]).await;
    let (_, secret) = holder(&client, &api, &["reader"]).await;
    assert_eq!(revoke(&client, holding("reader")).await, 1);
    let (_, new_secret) = holder(&client, &api, &["reader"]).await;
    let request =
        pb::AddKeyRolesRequest { key_id: later.key_id.clone(), roles: texts(&["reader"]), ..Default::default() };
    client.keys().add_key_roles(request).await.unwrap();
    for _ in 0..2 {
        assert!(!passes(&client, &secret).await);
        assert!(passes(&client, &new_secret).await && passes(&client, &later_secret).await);
        house.sweep().await;
    }
    assert_eq!(revoke(&client, holding("reader")).await, 2);
    assert!(!passes(&client, &new_secret).await && !passes(&client, &later_secret).await);
}

#[tokio::test]
async fn a_role_deleted_after_the_cut_saves_no_key() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &[]).await;
    let (key, secret) = holder(&client, &api, &["reader"]).await;
    assert_eq!(revoke(&client, holding("reader")).await, 1);
    client.roles().delete_role(pb::DeleteRoleRequest { role: "reader".into(), ..Default::default() }).await.unwrap();
    for _ in 0..2 {
        assert!(!passes(&client, &secret).await);
        assert_eq!(client.get_key(&key.key_id).await.unwrap().state(), pb::KeyState::Revoked);
        house.sweep().await;
    }
}

#[tokio::test]
async fn the_parts_of_a_filter_are_all_to_hold() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (one, two) = (client.api("one").await, client.api("two").await);
    client.role("reader", &[]).await;
    let (_, elsewhere) = holder(&client, &two, &["reader"]).await;
    let (_, without) = holder(&client, &one, &[]).await;
    let (_, early) = holder(&client, &one, &["reader"]).await;
    house.pass(1_000);
    let (_, within) = holder(&client, &one, &["reader"]).await;
    house.pass(1_000);
    let (_, late) = holder(&client, &one, &["reader"]).await;
    let filter = pb::RevokeKeysFilter {
        role: Some("reader".into()),
        create_after: Some(at(house.now() - 1_000)),
        create_before: Some(at(house.now())),
        ..in_api(&one)
    };
    assert_eq!((rehearse(&client, filter.clone()).await, revoke(&client, filter).await), (1, 1));
    for secret in [&elsewhere, &without, &early, &late] {
        assert!(passes(&client, secret).await);
    }
    assert!(!passes(&client, &within).await);
    assert_eq!(revoke(&client, in_api(&one)).await, 3);
    let since = pb::RevokeKeysFilter { create_after: Some(at(0)), ..Default::default() };
    assert_eq!(revoke(&client, since).await, 1);
    assert!(!passes(&client, &elsewhere).await);
}

#[tokio::test]
async fn what_names_nothing_fits_nothing_and_leaves_no_trace() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &[]).await;
    let (_, secret) = holder(&client, &api, &["reader"]).await;
    client.roles().delete_role(pb::DeleteRoleRequest { role: "reader".into(), ..Default::default() }).await.unwrap();
    let events = client.log().await.len();
    for filter in
        [holding("reader"), holding("writer"), pb::RevokeKeysFilter { identity: Some("nobody".into()), ..in_api(&api) }]
    {
        assert_eq!((rehearse(&client, filter.clone()).await, revoke(&client, filter).await), (0, 0));
    }
    assert_eq!(client.log().await.len(), events);
    assert!(passes(&client, &secret).await);
    for filter in [None, Some(pb::RevokeKeysFilter::default())] {
        assert_eq!(fields(&refused(&client, filter).await), ["filter"]);
    }
}

#[tokio::test]
async fn it_takes_the_right_to_delete_all_that_it_may_take() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (one, two) = (client.api("one").await, client.api("two").await);
    let (_, secret) = client.plain_key(&one, "").await;
    client.plain_key(&two, "").await;
    client.role("reader", &[]).await;
    let limited = client.limited(&[&format!("apis.{}.delete_key", one.api_id)]).await.named("same");
    let denied = refused(&limited, Some(holding("reader"))).await;
    assert_eq!(refusal::<()>(Err(denied)), (Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    let missing = "api_00000000000000000000000000";
    let mut answers = Vec::new();
    for id in [two.api_id.as_str(), missing] {
        let filter = pb::RevokeKeysFilter { api_id: Some(id.into()), ..Default::default() };
        let request = pb::RevokeKeysRequest { filter: Some(filter), ..Default::default() };
        answers.push(but_for(limited.keys().revoke_keys(request).await, id));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].0, Grpc::NotFound);
    assert_eq!(revoke(&limited, in_api(&one)).await, 1);
    assert!(!passes(&client, &secret).await);
    let all = client.limited(&["apis.*.delete_key"]).await;
    let everything = pb::RevokeKeysFilter { create_after: Some(at(0)), ..Default::default() };
    assert_eq!(revoke(&all, everything).await, 1);
    let reader = client.limited(&["apis.*.read_key"]).await;
    let denied = refused(&reader, Some(in_api(&one))).await;
    assert_eq!(refusal::<()>(Err(denied)), (Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned()));
}

#[tokio::test]
async fn what_a_root_key_and_its_successors_made_is_revoked_whichever_end_is_left() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (first, mut secret) = client.root_key("backend", &["apis.*.*"]).await;
    let (_, own) = client.plain_key(&api, "own").await;
    let mut made = Vec::new();
    let mut root_key_id = first.root_key_id.clone();
    for _ in 0..3 {
        made.push(client.with(&secret).plain_key(&api, "").await.1);
        let request = pb::RotateRootKeyRequest {
            root_key_id: root_key_id.clone(),
            grace_period: Some(span(60_000)),
            ..Default::default()
        };
        let rotated = client.root_keys().rotate_root_key(request).await.unwrap().into_inner();
        root_key_id = rotated.root_key.unwrap().root_key_id;
        secret = rotated.secret;
    }
    made.push(client.with(&secret).plain_key(&api, "").await.1);
    let by = |id: &str| pb::RevokeKeysFilter { created_by: Some(id.into()), ..Default::default() };
    assert_eq!(rehearse(&client, by(&root_key_id)).await, 1);
    assert_eq!(revoke(&client, by(&first.root_key_id)).await, 4);
    for secret in &made {
        assert!(!passes(&client, secret).await);
    }
    assert!(passes(&client, &own).await);
}

#[tokio::test]
async fn a_rerolled_key_counts_as_long_as_it_is_there_and_a_deleted_one_does_not() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (old, old_secret) = client.plain_key(&api, "").await;
    let request =
        pb::RerollKeyRequest { key_id: old.key_id.clone(), grace_period: Some(span(DAY)), ..Default::default() };
    let next = client.keys().reroll_key(request).await.unwrap().into_inner().secret;
    let (gone, _) = client.plain_key(&api, "").await;
    delete(&client, &gone).await;
    let (_, one) = client.plain_key(&api, "").await;
    assert_eq!(rehearse(&client, in_api(&api)).await, 3);
    assert_eq!(revoke(&client, in_api(&api)).await, 3);
    assert!(!passes(&client, &one).await);
    house.sweep().await;
    // Nothing is left of them, so the count tells again.
    client.plain_key(&api, "").await;
    assert_eq!(rehearse(&client, in_api(&api)).await, 1);
    assert_eq!((revoke(&client, in_api(&api)).await, revoke(&client, in_api(&api)).await), (1, 0));
    assert!(!passes(&client, &old_secret).await && !passes(&client, &next).await);
}

#[tokio::test]
async fn a_key_that_could_no_longer_be_restored_does_not_come_back_to_be_shown() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (gone, _) = client.plain_key(&api, "").await;
    delete(&client, &gone).await;
    house.pass(30 * DAY);
    assert_eq!(revoke(&client, in_api(&api)).await, 0);
    for _ in 0..2 {
        assert_eq!(client.get_key(&gone.key_id).await.unwrap_err().code(), Grpc::NotFound);
        assert_eq!(listed(&client, true).await, []);
        house.sweep().await;
    }
}

#[tokio::test]
async fn keys_of_a_deleted_api_neither_count_nor_upset_the_counts() {
    let house = House::in_memory().await;
    let operator = house.operator().await;
    let request = pb::CreateWorkspaceRequest {
        name: "tenant".into(),
        quotas: Some(pb::WorkspaceQuotas { max_keys: Some(3), ..Default::default() }),
        ..Default::default()
    };
    let secret = operator.workspaces().create_workspace(request).await.unwrap().into_inner().secret;
    let client = operator.with(&secret);
    let (one, two) = (client.api("one").await, client.api("two").await);
    for api in [&one, &one, &two] {
        client.plain_key(api, "").await;
    }
    client.apis().delete_api(pb::DeleteApiRequest { api_id: one.api_id.clone(), ..Default::default() }).await.unwrap();
    client.plain_key(&two, "").await;
    let everything = pb::RevokeKeysFilter { create_after: Some(at(0)), ..Default::default() };
    assert_eq!(revoke(&client, everything).await, 2);
    house.sweep().await;
    for _ in 0..3 {
        client.plain_key(&two, "").await;
    }
    let request = pb::CreateKeyRequest { api_id: two.api_id.clone(), ..Default::default() };
    assert_eq!(refusal(client.keys().create_key(request).await).1, "QUOTA_EXCEEDED");
}

#[tokio::test]
async fn a_repeat_answers_the_same_number_whatever_has_become_of_the_keys() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    for _ in 0..3 {
        client.plain_key(&api, "").await;
    }
    let once = client.once("revoke");
    assert_eq!(revoke(&once, in_api(&api)).await, 3);
    let (_, survivor) = client.plain_key(&api, "").await;
    assert_eq!(revoke(&once, in_api(&api)).await, 3);
    house.sweep().await;
    assert_eq!(revoke(&once, in_api(&api)).await, 3);
    assert!(passes(&client, &survivor).await);
}

#[tokio::test]
async fn what_is_taken_is_counted_once_however_many_revocations_wait() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (one, two, three) = (client.api("one").await, client.api("two").await, client.api("three").await);
    client.role("reader", &[]).await;
    for (api, number) in [(&one, 2), (&two, 3), (&three, 4)] {
        for _ in 0..number {
            holder(&client, api, &["reader"]).await;
        }
    }
    assert_eq!(revoke(&client, in_api(&one)).await, 2);
    // Of another API, which none of those that wait can have taken; of the same one; and across them.
    assert_eq!((rehearse(&client, in_api(&two)).await, revoke(&client, in_api(&two)).await), (3, 3));
    assert_eq!(revoke(&client, in_api(&one)).await, 0);
    assert_eq!(revoke(&client, holding("reader")).await, 4);
    assert_eq!(revoke(&client, in_api(&three)).await, 0);
    house.sweep().await;
    assert!(listed(&client, false).await.is_empty());
}

#[tokio::test]
async fn so_many_revocations_wait_at_most() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    for _ in 0..32 {
        revoke(&client, in_api(&api)).await;
    }
    let status = refused(&client, Some(in_api(&api))).await;
    assert_eq!(refusal::<()>(Err(status)), (Grpc::Unavailable, "OVERLOADED".to_owned()));
    house.sweep().await;
    revoke(&client, in_api(&api)).await;
}

#[tokio::test]
async fn many_keys_with_many_roles_are_marked() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let names: Vec<String> = (0..50).map(|number| format!("role {number}")).collect();
    for name in &names {
        client.role(name, &[]).await;
    }
    let mut secrets = Vec::new();
    for number in 0..150 {
        let roles = if number % 10 == 0 { names.clone() } else { Vec::new() };
        let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), roles, ..Default::default() };
        secrets.push(client.key(request).await.1);
    }
    assert_eq!(revoke(&client, in_api(&api)).await, 150);
    house.sweep().await;
    for secret in &secrets {
        assert!(!passes(&client, secret).await);
    }
    let request = pb::GetRoleRequest { role: "role 7".into(), ..Default::default() };
    assert_eq!(client.roles().get_role(request).await.unwrap().into_inner().role.unwrap().key_count, 0);
}

#[tokio::test]
async fn what_was_revoked_stays_so_over_a_restart() {
    let mut house = House::unswept().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, secret) = client.plain_key(&api, "").await;
    assert_eq!(revoke(&client, in_api(&api)).await, 1);
    let (_, survivor) = client.plain_key(&api, "").await;
    house.restart().await;
    let client = house.operator().await;
    for _ in 0..2 {
        assert!(!passes(&client, &secret).await && passes(&client, &survivor).await);
        assert_eq!(client.get_key(&key.key_id).await.unwrap().state(), pb::KeyState::Revoked);
        house.sweep().await;
    }
    house.restart().await;
    let client = house.operator().await;
    assert!(!passes(&client, &secret).await && passes(&client, &survivor).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_verification_that_begins_after_the_acknowledgement_passes() {
    for sweeping in [Sweeping::InBackground, Sweeping::ByHand] {
        let house = House::build(Kept::OnDisk, sweeping, 1).await;
        let client = house.operator().await;
        let api = client.api("documents").await;
        let mut secrets = Vec::new();
        for _ in 0..64 {
            secrets.push(client.plain_key(&api, "").await.1);
        }
        let acknowledged = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = secrets
            .into_iter()
            .map(|secret| {
                let (client, acknowledged) = (client.clone(), Arc::clone(&acknowledged));
                tokio::spawn(async move {
                    let mut after = 0;
                    while after < 5 {
                        let late = acknowledged.load(Ordering::SeqCst);
                        let passed = passes(&client, &secret).await;
                        assert!(!(late && passed), "a revoked key passes");
                        after += u32::from(late);
                    }
                })
            })
            .collect();
        assert_eq!(revoke(&client, in_api(&api)).await, 64);
        acknowledged.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test]
async fn marking_what_was_revoked_uses_the_pages_of_the_file_again() {
    let house = House::build(Kept::OnDisk, Sweeping::ByHand, 31).await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let making = (0..1_500).map(|_| {
        let (client, api) = (client.clone(), api.clone());
        tokio::spawn(async move { client.plain_key(&api, "").await })
    });
    for made in making.collect::<Vec<_>>() {
        made.await.unwrap();
    }
    let before = house.file_size();
    assert_eq!(revoke(&client, in_api(&api)).await, 1_500);
    house.sweep().await;
    // The store gives room back at times.
    let grown = house.file_size().saturating_sub(before);
    assert!(grown < before / 2, "{before} bytes and then {grown} more");
}
