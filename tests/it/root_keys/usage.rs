//! What the full view tells of how a root key and its permissions are used.

use ostiary::pb::v1 as pb;

use crate::harness::{House, at, texts};

fn used(permission: &str, use_count: i64, last: u64) -> pb::PermissionUsage {
    pb::PermissionUsage { permission: permission.into(), use_count, last_used_time: Some(at(last)) }
}

#[tokio::test]
async fn each_permission_counts_the_calls_that_it_allowed_and_the_rest_is_listed_as_unused() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let grants = ["apis.*.create_api", "apis.*.read_api", "root_keys.*.*"];
    let (made, client) = operator.colleague("counted", &grants).await;
    let look = async || operator.look(&made.root_key_id).await.unwrap();
    let fresh = look().await;
    assert_eq!((fresh.last_used_time, fresh.permission_usage.len()), (None, 0));
    assert_eq!(fresh.unused_permissions, texts(&grants));

    let begin = house.now();
    client.api("one").await;
    house.pass(1_000);
    client.api("two").await;
    client.look(&made.root_key_id).await.unwrap();
    let expected = [used("apis.*.create_api", 2, begin + 1_000), used("root_keys.*.*", 1, begin + 1_000)];
    let seen = look().await;
    assert_eq!(seen.permission_usage, expected);
    assert_eq!(seen.unused_permissions, ["apis.*.read_api"]);
    assert_eq!(seen.last_used_time, Some(at(begin + 1_000)));

    house.pass(1_000);
    client.api("three").await;
    let refused = pb::CreateApiRequest { name: "x".into(), ..Default::default() };
    client.apis().create_api(refused).await.unwrap_err();
    client.workspaces().list_workspaces(pb::ListWorkspacesRequest::default()).await.unwrap_err();
    let seen = look().await;
    assert_eq!(seen.permission_usage[0], used("apis.*.create_api", 3, begin + 2_000));
    assert_eq!(seen.last_used_time, Some(at(begin + 2_000)));
}

#[tokio::test]
async fn a_call_counts_once_however_many_things_its_permission_allowed_in_it() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, client) = operator.colleague("admin", &["*.*.*"]).await;
    let api = client.api("api").await;
    client.role("reader", &["documents.read", "documents.list"]).await;
    let request = pb::CreateKeyRequest {
        api_id: api.api_id,
        roles: vec!["reader".into()],
        permissions: texts(&["a.b", "c.d"]),
        ..Default::default()
    };
    client.key(request).await;
    let seen = operator.look(&made.root_key_id).await.unwrap();
    assert_eq!(seen.permission_usage, [used("*.*.*", 3, house.now())]);
}

#[tokio::test]
async fn listing_uses_the_permission_that_lets_the_caller_see_the_list() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let one = operator.api("one").await.api_id;
    operator.api("two").await;
    let narrow = format!("apis.{one}.read_api");
    let (made, client) = operator.colleague("lister", &[&narrow, "rbac.*.*", "root_keys.*.read_root_key"]).await;
    client.apis().list_apis(pb::ListApisRequest::default()).await.unwrap();
    client.roles().list_roles(pb::ListRolesRequest::default()).await.unwrap();
    client.permissions().list_permissions(pb::ListPermissionsRequest::default()).await.unwrap();
    client.names(pb::ListRootKeysFilter::default()).await;
    let seen = operator.look(&made.root_key_id).await.unwrap();
    let now = house.now();
    assert_eq!(
        seen.permission_usage,
        [used(&narrow, 1, now), used("rbac.*.*", 2, now), used("root_keys.*.read_root_key", 1, now)]
    );
    assert_eq!(seen.unused_permissions, Vec::<String>::new());
}

#[tokio::test]
async fn usage_outlives_a_restart_and_moves_neither_etag_nor_update_time() {
    let mut house = House::unswept().await;
    let (made, client) = house.operator().await.colleague("counted", &["apis.*.create_api"]).await;
    let secret = client.headers.secret.clone().unwrap();
    client.api("one").await;
    let before = house.now();
    house.pass(1_000);
    house.restart().await;
    let seen = house.operator().await.look(&made.root_key_id).await.unwrap();
    assert_eq!(seen.permission_usage, [used("apis.*.create_api", 1, before)]);
    assert_eq!((&seen.etag, seen.update_time), (&made.etag, made.update_time));
    house.client(&secret).await.api("two").await;
    let seen = house.operator().await.look(&made.root_key_id).await.unwrap();
    assert_eq!(seen.permission_usage, [used("apis.*.create_api", 2, house.now())]);
}

#[tokio::test]
async fn a_permission_taken_away_is_not_shown_as_used() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, client) = operator.colleague("narrowed", &["apis.*.create_api", "apis.*.read_api"]).await;
    client.api("one").await;
    let narrowed =
        pb::UpdateRootKeyRequest { permissions: texts(&["apis.*.read_api"]), ..super::calls::changing(&made) };
    operator.change(narrowed).await.unwrap();
    let seen = operator.look(&made.root_key_id).await.unwrap();
    assert_eq!((seen.permission_usage.len(), seen.unused_permissions), (0, texts(&["apis.*.read_api"])));
}
