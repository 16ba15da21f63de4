//! What the model or a look with hostile eyes once found, each in its smallest form.

use std::sync::Arc;
use std::time::Duration;

use ostiary::pb::v1 as pb;
use ostiary::server::Sweeping;
use ostiary::service::{Ostiary, Purging, Retention};
use ostiary::store::Engine;
use ostiary::world::World;
use tonic::Status;
use tonic_types::StatusExt;

use super::real::Rig;
use super::steps::{Call, KeyChange, Life, Sent, Verb};
use crate::harness::{Client, House, Kept, START, at, texts};

const DAY: u64 = 86_400_000;

async fn house() -> (House, Client) {
    let house = House::build(Kept::InMemory, Sweeping::ByHand, 1).await;
    let client = house.operator().await;
    (house, client)
}

fn create_key(api: &pb::Api) -> pb::CreateKeyRequest {
    pb::CreateKeyRequest { api_id: api.api_id.clone(), ..Default::default() }
}

/// The message and the reason of a refusal.
fn words(status: &Status) -> (String, String) {
    (status.message().to_owned(), status.get_details_error_info().unwrap().reason)
}

#[tokio::test]
async fn a_deleted_key_is_gone_after_thirty_days_whether_or_not_the_sweep_has_run() {
    let (house, client) = house().await;
    let api = client.api("documents").await;
    let (key, _) = client.key(create_key(&api)).await;
    let delete = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().delete_key(delete).await.unwrap();
    let undelete =
        |dry: bool| pb::UndeleteKeyRequest { key_id: key.key_id.clone(), validate_only: dry, ..Default::default() };
    house.pass(30 * DAY - 1);
    client.keys().undelete_key(undelete(true)).await.unwrap();
    house.pass(1);
    let refused = client.keys().undelete_key(undelete(false)).await.unwrap_err();
    assert_eq!(words(&refused).1, "KEY_NOT_FOUND");
}

#[tokio::test]
async fn the_end_of_a_life_is_logged_once_though_the_key_was_deleted_and_restored_since() {
    let (house, client) = house().await;
    let api = client.api("documents").await;
    let expiration = Some(pb::create_key_request::Expiration::ExpireTime(at(house.now() + 1_000)));
    let (key, _) = client.key(pb::CreateKeyRequest { expiration, ..create_key(&api) }).await;
    house.pass(1_000);
    house.sweep().await;
    let delete = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().delete_key(delete).await.unwrap();
    let undelete = pb::UndeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().undelete_key(undelete).await.unwrap();
    house.sweep().await;
    let told = client.events().await.into_iter().filter(|event| event == "key.expire").count();
    assert_eq!(told, 1);
    // And it is still removed when its time has come.
    house.pass(90 * DAY);
    house.sweep().await;
    let get = pb::GetKeyRequest { key_id: key.key_id, ..Default::default() };
    assert_eq!(words(&client.keys().get_key(get).await.unwrap_err()).1, "KEY_NOT_FOUND");
}

/// An ostiary on this engine that keeps what has expired for so many days.
async fn keeping(engine: &Arc<dyn Engine>, world: &Arc<World>, days: u64) -> Ostiary {
    let retention = Retention { expired: Duration::from_millis(days * DAY), ..Retention::default() };
    Ostiary::open(Arc::clone(engine), Arc::clone(world), retention, Purging::Allowed, crate::harness::CAPACITY)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_renewed_key_stays_though_the_retention_was_changed_before_it_was_renewed() {
    let mut rig = Rig::new(Kept::InMemory, 1).await;
    let secret = rig.first.clone();
    let call =
        |verb| Call { secret: secret.clone(), from: 0, etag: Sent::Nothing, rehearse: false, twice: false, verb };
    let api = Verb::CreateApi { name: "documents".into(), ttl: None, protect: false, net: 0 };
    let api = rig.call(&call(api), "", None).await.unwrap().answer.id;
    let (roles, permissions) = (Vec::new(), Vec::new());
    let life = Life::Until(START + 1_000);
    let create = Verb::CreateKey { api, roles, permissions, enabled: true, life, net: 0 };
    let id = rig.call(&call(create), "", None).await.unwrap().answer.id;
    let update =
        call(Verb::UpdateKey { id: id.clone(), patch: KeyChange { expire: Some(None), ..Default::default() } });
    let get = call(Verb::GetKey { id });
    rig.world.advance(Duration::from_secs(1));
    rig.ostiary.sweep_due().await.unwrap();
    rig.ostiary = keeping(&rig.engine, &rig.world, 120).await;
    rig.call(&update, "", None).await.unwrap();
    rig.world.advance(Duration::from_millis(91 * DAY));
    rig.ostiary.sweep_due().await.unwrap();
    rig.call(&get, "", None).await.unwrap();
}

#[tokio::test]
async fn a_permission_that_may_not_be_removed_is_refused_like_one_that_is_not_there() {
    let (_house, client) = house().await;
    let api = client.api("documents").await;
    let (key, _) = client.key(create_key(&api)).await;
    let made = pb::CreatePermissionRequest { slug: "top.secret".into(), ..Default::default() };
    let secret = client.permissions().create_permission(made).await.unwrap().into_inner().permission.unwrap();
    let nobody = "perm_00000000000000000000000000";
    let (_, narrow) =
        client.root_key("narrow", &["apis.*.update_key", &format!("rbac.{nobody}.remove_permission_from_key")]).await;
    let narrow = client.with(&narrow);
    let remove = |id: &str| pb::RemoveKeyPermissionsRequest {
        key_id: key.key_id.clone(),
        permissions: texts(&[id]),
        ..Default::default()
    };
    let hidden = narrow.keys().remove_key_permissions(remove(&secret.permission_id)).await.unwrap_err();
    let absent = narrow.keys().remove_key_permissions(remove(nobody)).await.unwrap_err();
    assert_eq!(words(&hidden).0.replace(&secret.permission_id, nobody), words(&absent).0);
    assert_eq!(words(&hidden).1, words(&absent).1);
}

#[tokio::test]
async fn nobody_learns_which_permissions_exist_by_naming_many_at_once() {
    let (_house, client) = house().await;
    let api = client.api("documents").await;
    let made = pb::CreatePermissionRequest { slug: "top.secret".into(), ..Default::default() };
    client.permissions().create_permission(made).await.unwrap();
    let (_, narrow) = client.root_key("narrow", &["apis.*.create_key"]).await;
    let narrow = client.with(&narrow);
    let twenty: Vec<String> = (0..20).map(|number| format!("missing.{number}")).collect();
    let mut answers = Vec::new();
    for probe in ["top.secret", "top.guess"] {
        let permissions = [twenty.clone(), texts(&[probe])].concat();
        let request = pb::CreateKeyRequest { permissions, ..create_key(&api) };
        answers.push(words(&narrow.keys().create_key(request).await.unwrap_err()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].1, "PERMISSION_MISSING");
}

#[tokio::test]
async fn a_key_can_exchange_all_it_may_hold_in_one_call() {
    let (_house, client) = house().await;
    let api = client.api("documents").await;
    let mut names = Vec::new();
    for number in 0..100 {
        let name = format!("role {number}");
        client.role(&name, &[]).await;
        names.push(name);
    }
    let (old, new) = names.split_at(50);
    let (key, _) = client.key(pb::CreateKeyRequest { roles: old.to_vec(), ..create_key(&api) }).await;
    let permissions: Vec<String> = (0..20).map(|number| format!("made.on.the.way.{number}")).collect();
    let update = pb::UpdateKeyRequest {
        key_id: key.key_id.clone(),
        roles: new.to_vec(),
        permissions: permissions.clone(),
        expire_time: Some(at(START + DAY)),
        ..Default::default()
    };
    let key = client.once("all-at-once").keys().update_key(update).await.unwrap().into_inner().key.unwrap();
    assert_eq!((key.roles.len(), key.permissions.len()), (50, 20));
    // More than a key can hold is the caller's fault, not ostiary's.
    for request in [
        pb::AddKeyRolesRequest { key_id: key.key_id.clone(), roles: names.clone(), ..Default::default() },
        pb::AddKeyRolesRequest { key_id: key.key_id.clone(), roles: names[..51].to_vec(), ..Default::default() },
    ] {
        assert_eq!(words(&client.keys().add_key_roles(request).await.unwrap_err()).1, "FIELD_INVALID");
    }
}

#[tokio::test]
async fn a_repeated_change_of_a_role_names_the_permissions_that_the_first_answer_named() {
    let (_house, client) = house().await;
    let role = client.role("reader", &["documents.read", "documents.write"]).await;
    let delete = pb::DeletePermissionRequest { permission: "documents.write".into(), ..Default::default() };
    client.permissions().delete_permission(delete).await.unwrap();
    let rename = pb::UpdateRoleRequest { role: role.role_id, name: Some("writer".into()), ..Default::default() };
    let once = client.once("rename");
    let first = once.roles().update_role(rename.clone()).await.unwrap().into_inner().role.unwrap();
    let again = once.roles().update_role(rename).await.unwrap().into_inner().role.unwrap();
    assert_eq!(first.permissions, ["documents.read"]);
    assert_eq!(again, first);
}

#[tokio::test]
async fn a_repeated_cascade_deletes_nothing_that_came_later() {
    let (_house, client) = house().await;
    let (parent, parents) = client.root_key("parent", &["root_keys.*.*"]).await;
    let parents = client.with(&parents);
    // Wider than the deputy at first, so that it is spared.
    let (child, _) = parents.root_key("child", &["root_keys.*.read_root_key", "root_keys.*.create_root_key"]).await;
    let (_, deputy) = client.root_key("deputy", &["root_keys.*.delete_root_key", "root_keys.*.read_root_key"]).await;
    let deputy = client.with(&deputy).once("clear-up");
    let delete =
        pb::DeleteRootKeyRequest { root_key_id: parent.root_key_id.clone(), cascade: true, ..Default::default() };
    let first = deputy.root_keys().delete_root_key(delete.clone()).await.unwrap().into_inner();
    let narrow = pb::UpdateRootKeyRequest {
        root_key_id: child.root_key_id.clone(),
        permissions: texts(&["root_keys.*.read_root_key"]),
        ..Default::default()
    };
    client.root_keys().update_root_key(narrow).await.unwrap();
    let again = deputy.root_keys().delete_root_key(delete).await.unwrap().into_inner();
    assert_eq!(again.deleted_root_key_ids, first.deleted_root_key_ids);
    let get = pb::GetRootKeyRequest { root_key_id: child.root_key_id, ..Default::default() };
    client.root_keys().get_root_key(get).await.unwrap();
}

#[tokio::test]
async fn a_changed_key_is_answered_with_when_it_was_last_used() {
    let (house, client) = house().await;
    let api = client.api("documents").await;
    let (key, secret) = client.key(create_key(&api)).await;
    house.pass(5);
    client.verdict(&secret, None).await;
    let used = Some(at(house.now()));
    let update =
        pb::UpdateKeyRequest { key_id: key.key_id.clone(), name: Some("renamed".into()), ..Default::default() };
    let renamed = client.keys().update_key(update).await.unwrap().into_inner().key.unwrap();
    assert_eq!(renamed.last_used_time, used);
    let delete = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().delete_key(delete).await.unwrap();
    let undelete = pb::UndeleteKeyRequest { key_id: key.key_id, ..Default::default() };
    let restored = client.keys().undelete_key(undelete).await.unwrap().into_inner().key.unwrap();
    assert_eq!(restored.last_used_time, used);
}
