//! Namespaces: made, on first use too, found, renamed, deleted.

use super::*;
use crate::harness::{mask, reason};

async fn create(client: &Client, name: &str) -> Result<pb::Namespace, Status> {
    let request = pb::CreateNamespaceRequest { name: name.into(), ..Default::default() };
    client.rate_limits().create_namespace(request).await.map(|response| response.into_inner().namespace.unwrap())
}

async fn get(client: &Client, namespace: &str) -> Result<pb::Namespace, Status> {
    let request = pb::GetNamespaceRequest { namespace: namespace.into(), ..Default::default() };
    client.rate_limits().get_namespace(request).await.map(|response| response.into_inner().namespace.unwrap())
}

async fn names(client: &Client, part: Option<&str>) -> Vec<String> {
    let filter = Some(pb::ListNamespacesFilter { name_contains: part.map(Into::into) });
    let request = pb::ListNamespacesRequest { filter, ..Default::default() };
    let list = client.rate_limits().list_namespaces(request).await.unwrap().into_inner();
    list.namespaces.into_iter().map(|namespace| namespace.name).collect()
}

async fn rename(client: &Client, namespace: &str, name: &str, etag: &str) -> Result<pb::Namespace, Status> {
    let request = pb::UpdateNamespaceRequest {
        namespace: namespace.into(),
        name: Some(name.into()),
        etag: etag.into(),
        ..Default::default()
    };
    client.rate_limits().update_namespace(request).await.map(|response| response.into_inner().namespace.unwrap())
}

async fn delete(client: &Client, namespace: &str, validate_only: bool) -> Result<Option<i64>, Status> {
    let request = pb::DeleteNamespaceRequest { namespace: namespace.into(), validate_only, ..Default::default() };
    client.rate_limits().delete_namespace(request).await.map(|response| response.into_inner().override_count)
}

#[tokio::test]
async fn a_namespace_is_made_found_renamed_and_listed() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let made = create(&client, "sign-in").await.unwrap();
    assert!(made.namespace_id.starts_with("rlns_"));
    assert_eq!((made.name.as_str(), made.override_count), ("sign-in", 0));
    assert_eq!(get(&client, "sign-in").await.unwrap(), made);
    assert_eq!(get(&client, &made.namespace_id).await.unwrap(), made);
    assert_eq!(reason(&create(&client, "SIGN-in").await.unwrap_err()), "NAMESPACE_ALREADY_EXISTS");
    create(&client, "sign-up").await.unwrap();
    assert_eq!(reason(&rename(&client, "sign-in", "Sign-Up", "").await.unwrap_err()), "NAMESPACE_ALREADY_EXISTS");
    assert_eq!(client.limit(sign_in(Some(4))).await, (true, 6));
    house.pass(1);
    let renamed = rename(&client, "sign-in", "Sign-In", &made.etag).await.unwrap();
    assert_ne!(renamed.etag, made.etag);
    assert_eq!(renamed.update_time, Some(at(house.now())));
    assert_eq!(reason(&rename(&client, "Sign-In", "x", &made.etag).await.unwrap_err()), "ETAG_MISMATCH");
    // What was counted in it stays.
    assert_eq!(client.limit(limit("Sign-In", "ada", 10, MINUTE, Some(0))).await, (true, 6));
    assert_eq!(names(&client, None).await, ["Sign-In", "sign-up"]);
    assert_eq!(names(&client, Some("-IN")).await, ["Sign-In"]);
    let cleared =
        pb::UpdateNamespaceRequest { namespace: "sign-up".into(), update_mask: mask(&["name"]), ..Default::default() };
    assert_eq!(fields(&client.rate_limits().update_namespace(cleared).await.unwrap_err()), ["name"]);
}

#[tokio::test]
async fn limiting_makes_a_namespace_on_first_use_for_who_may_make_it_and_for_nobody_else() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let may = client.limited(&["ratelimits.*.limit", "ratelimits.*.create_namespace"]).await;
    let may_not = client.limited(&["ratelimits.*.limit"]).await;
    let not_found = (Code::NotFound, "NAMESPACE_NOT_FOUND".to_owned());
    assert_eq!(refusal(may_not.rate_limits().limit(sign_in(None)).await), not_found);
    assert_eq!(may.limit(sign_in(None)).await, (true, 9));
    assert_eq!(may_not.limit(sign_in(None)).await, (true, 8));
    let events: Vec<String> = client.events().await;
    assert_eq!(events.iter().filter(|event| *event == "namespace.create").count(), 1);
    assert!(!events.iter().any(|event| event.contains("limit")), "counting is no event");
    // Another spelling is another name, and it is taken.
    let spelled = limit("Sign-in", "ada", 10, MINUTE, None);
    assert_eq!(refusal(may.rate_limits().limit(spelled.clone()).await).1, "NAMESPACE_ALREADY_EXISTS");
    assert_eq!(refusal(may_not.rate_limits().limit(spelled).await), not_found);
    // An id is never made.
    let id = format!("rlns_{}", "7".repeat(26));
    assert_eq!(refusal(may.rate_limits().limit(limit(&id, "ada", 1, MINUTE, None)).await), not_found);
    // A batch makes all that it needs.
    let mut items = vec![item("ada", 10, MINUTE, 1); 3];
    items[1].namespace = "uploads".into();
    items[2].namespace = "downloads".into();
    assert!(may.limit_all(items).await.unwrap().success);
    assert_eq!(names(&client, None).await, ["sign-in", "uploads", "downloads"]);
}

#[tokio::test]
async fn a_grant_for_one_namespace_reaches_no_other_and_sees_no_other() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let own = create(&client, "own").await.unwrap().namespace_id;
    create(&client, "other").await.unwrap();
    let grant = |action: &str| format!("ratelimits.{own}.{action}");
    let grants = ["limit", "read_namespace", "update_namespace", "set_override", "read_override"].map(grant);
    let narrow = client.limited(&grants.each_ref().map(String::as_str)).await;
    assert_eq!(narrow.limit(limit("own", "ada", 10, MINUTE, None)).await, (true, 9));
    assert_eq!(names(&narrow, None).await, ["own"]);
    let not_found = (Code::NotFound, "NAMESPACE_NOT_FOUND".to_owned());
    for name in ["other", "none"] {
        assert_eq!(refusal(narrow.rate_limits().limit(limit(name, "ada", 10, MINUTE, None)).await), not_found);
    }
    let mut items = vec![item("ada", 10, MINUTE, 1); 2];
    items[0].namespace = "own".into();
    items[1].namespace = "other".into();
    assert_eq!(narrow.limit_all(items).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(narrow.limit(limit("own", "ada", 10, MINUTE, Some(0))).await, (true, 9), "all or nothing");
}

#[tokio::test]
async fn a_deleted_namespace_is_gone_at_once_and_one_made_anew_begins_with_nothing() {
    let house = House::build(Kept::InMemory, Sweeping::ByHand, 8).await;
    let client = house.operator().await;
    client.limit(sign_in(Some(10))).await;
    let request = pb::SetOverrideRequest {
        namespace: "sign-in".into(),
        identifier: "a*".into(),
        limit: Some(0),
        duration: Some(span(MINUTE)),
        ..Default::default()
    };
    client.rate_limits().set_override(request).await.unwrap();
    let old = get(&client, "sign-in").await.unwrap();
    assert_eq!(old.override_count, 1);
    assert_eq!(delete(&client, "sign-in", true).await.unwrap(), Some(1));
    assert_eq!(delete(&client, "sign-in", false).await.unwrap(), None);
    for name in ["sign-in", &old.namespace_id] {
        assert_eq!(reason(&get(&client, name).await.unwrap_err()), "NAMESPACE_NOT_FOUND");
        assert_eq!(reason(&delete(&client, name, false).await.unwrap_err()), "NAMESPACE_NOT_FOUND");
    }
    assert_eq!(names(&client, None).await, Vec::<String>::new());
    assert_eq!(client.limit(sign_in(None)).await, (true, 9));
    let new = get(&client, "sign-in").await.unwrap();
    assert_ne!(new.namespace_id, old.namespace_id);
    house.sweep().await;
    assert_eq!(get(&client, "sign-in").await.unwrap(), new);
    assert_eq!(client.limit(sign_in(None)).await, (true, 8));
}
