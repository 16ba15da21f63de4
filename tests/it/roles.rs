//! Roles: what keys gain and lose through them.

use ostiary::pb::v1 as pb;
use pb::VerificationCode as Code;
use tonic::Code as Grpc;

use crate::harness::{Client, House, START, at, but_for, fields, mask, refusal, texts};

/// What came of a call: its refusal, if it was refused.
type Outcome = Result<(), (Grpc, String)>;

fn not_found() -> (Grpc, String) {
    (Grpc::NotFound, "ROLE_NOT_FOUND".to_owned())
}

fn taken() -> (Grpc, String) {
    (Grpc::AlreadyExists, "ROLE_ALREADY_EXISTS".to_owned())
}

async fn get(client: &Client, role: &str) -> Result<pb::Role, tonic::Status> {
    let request = pb::GetRoleRequest { role: role.into(), ..Default::default() };
    client.roles().get_role(request).await.map(|response| response.into_inner().role.unwrap())
}

async fn delete(client: &Client, role: &str) -> Outcome {
    let request = pb::DeleteRoleRequest { role: role.into(), ..Default::default() };
    let answer = client.roles().delete_role(request).await;
    if answer.is_ok() { Ok(()) } else { Err(refusal(answer)) }
}

async fn create(client: &Client, name: &str) -> Result<tonic::Response<pb::CreateRoleResponse>, tonic::Status> {
    client.roles().create_role(pb::CreateRoleRequest { name: name.into(), ..Default::default() }).await
}

/// A key that holds the role.
async fn holder(client: &Client, role: &str) -> String {
    let api = client.api("documents").await;
    let request = pb::CreateKeyRequest { api_id: api.api_id, roles: texts(&[role]), ..Default::default() };
    client.key(request).await.1
}

#[tokio::test]
async fn a_role_deleted_by_name_counts_for_no_key_from_the_very_next_verification_on() {
    let house = House::new().await;
    let client = house.operator().await;
    client.role("reader", &["documents.read"]).await;
    let secret = holder(&client, "reader").await;
    assert_eq!(client.verdict(&secret, Some("documents.read")).await.code(), Code::Valid);
    assert_eq!(delete(&client, "reader").await, Ok(()));
    let verdict = client.verdict(&secret, Some("documents.read")).await;
    assert_eq!(verdict.code(), Code::InsufficientPermissions);
    assert_eq!(verdict.reason, "the key lacks documents.read");
}

#[tokio::test]
async fn a_role_is_made_as_it_was_asked_for_and_found_by_id_and_by_name() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreateRoleRequest {
        name: "Billing admin".into(),
        description: "two\nlines".into(),
        permissions: texts(&["b", "a", "b"]),
        validate_only: false,
    };
    let role = client.roles().create_role(request).await.unwrap().into_inner().role.unwrap();
    let expected = pb::Role {
        role_id: role.role_id.clone(),
        name: "Billing admin".into(),
        description: "two\nlines".into(),
        permissions: texts(&["a", "b"]),
        key_count: 0,
        create_time: Some(at(START)),
        update_time: Some(at(START)),
        etag: role.etag.clone(),
    };
    assert_eq!(role, expected);
    assert_ne!(role.etag, "");
    for reference in [role.role_id.as_str(), "Billing admin"] {
        assert_eq!(get(&client, reference).await.unwrap(), role);
    }
    assert_eq!(client.events().await.last().unwrap(), "role.create");
}

#[tokio::test]
async fn names_are_3_to_255_characters_unique_ignoring_case_and_never_of_an_ids_shape() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let shape = format!("role_{}", "0".repeat(26));
    let long = "\u{1f511}".repeat(256);
    for bad in ["", "ab", &long, " abc", "abc ", "a\0bc", &shape, &shape.replace("role", "key")] {
        let status = create(&client, bad).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Grpc::InvalidArgument, texts(&["name"])), "{bad:?}");
    }
    let almost = [shape.to_uppercase(), shape.replace("role", "roles"), format!("{shape}0")];
    for good in ["abc", &long[4..], "\u{e9}\u{e9}\u{e9}", &almost[0], &almost[1], &almost[2]] {
        create(&client, good).await.unwrap();
        assert_eq!(get(&client, good).await.unwrap().name, good);
    }
    create(&client, "Reader").await.unwrap();
    for same in ["Reader", "reader", "READER"] {
        assert_eq!(refusal(create(&client, same).await), taken(), "{same}");
    }
    create(&client, "r\u{e9}ader").await.unwrap();
    create(&client, "r\u{c9}ader").await.unwrap();
    let status = get(&client, "reader").await.unwrap_err();
    assert_eq!(status.code(), Grpc::NotFound, "found only as it is spelled");
}

#[tokio::test]
async fn a_rename_frees_the_old_name_and_takes_no_other_roles() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (reader, _) = (client.role("reader", &["a"]).await, client.role("writer", &[]).await);
    let rename = async |role: &str, name: &str| {
        let request = pb::UpdateRoleRequest { role: role.into(), name: Some(name.into()), ..Default::default() };
        client.roles().update_role(request).await.map(|response| response.map(|response| response.role.unwrap()))
    };
    assert_eq!(refusal(rename("reader", "WRITER").await), taken());
    assert_eq!(get(&client, "reader").await.unwrap(), reader, "nothing happened");
    assert_eq!(rename("reader", "Reader").await.unwrap().into_inner().name, "Reader", "its own name in other case");
    let renamed = rename("Reader", "lister").await.unwrap().into_inner();
    assert_eq!((&renamed.role_id, renamed.permissions.as_slice()), (&reader.role_id, texts(&["a"]).as_slice()));
    assert_eq!(get(&client, "Reader").await.unwrap_err().code(), Grpc::NotFound);
    assert_ne!(client.role("reader", &[]).await.role_id, reader.role_id);
    let shape = format!("role_{}", "0".repeat(26));
    for bad in ["ab", shape.as_str()] {
        assert_eq!(fields(&rename("lister", bad).await.unwrap_err()), ["name"]);
    }
}

#[tokio::test]
async fn an_update_changes_what_is_named_and_one_that_changes_nothing_writes_nothing() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreateRoleRequest { name: "reader".into(), description: "reads".into(), ..Default::default() };
    let role = client.roles().create_role(request).await.unwrap().into_inner().role.unwrap();
    house.pass(1_000);
    let update = async |request: pb::UpdateRoleRequest| {
        let request = pb::UpdateRoleRequest { role: role.role_id.clone(), ..request };
        client.roles().update_role(request).await.map(|response| response.into_inner().role.unwrap())
    };
    let events = client.events().await;
    let same = pb::UpdateRoleRequest { name: Some("reader".into()), ..Default::default() };
    assert_eq!(update(same).await.unwrap(), role);
    assert_eq!(update(pb::UpdateRoleRequest::default()).await.unwrap(), role);
    let rehearsed = pb::UpdateRoleRequest { name: Some("writer".into()), validate_only: true, ..Default::default() };
    assert_eq!(update(rehearsed).await.unwrap().name, "writer");
    assert_eq!((get(&client, "reader").await.unwrap(), client.events().await), (role.clone(), events));
    let masked = pb::UpdateRoleRequest {
        name: Some("writer".into()),
        update_mask: mask(&["description"]),
        etag: role.etag.clone(),
        ..Default::default()
    };
    let cleared = update(masked.clone()).await.unwrap();
    let expected = pb::Role {
        description: String::new(),
        update_time: Some(at(START + 1_000)),
        etag: cleared.etag.clone(),
        ..role.clone()
    };
    assert_eq!(cleared, expected);
    assert_ne!(cleared.etag, role.etag);
    assert_eq!(update(masked).await.unwrap_err().code(), Grpc::Aborted);
    let unnamed = pb::UpdateRoleRequest { update_mask: mask(&["name"]), ..Default::default() };
    assert_eq!(fields(&update(unnamed).await.unwrap_err()), ["name"]);
    for path in ["permissions", "role_id", "key_count", ""] {
        let request = pb::UpdateRoleRequest { update_mask: mask(&[path]), ..Default::default() };
        assert_eq!(fields(&update(request).await.unwrap_err()), ["update_mask.paths[0]"], "{path}");
    }
}

#[tokio::test]
async fn every_way_to_a_role_refuses_what_is_no_reference_and_misses_what_is_not_there() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let neighbour = client.neighbour("neighbour").await;
    let foreign = neighbour.role("foreign", &[]).await;
    let deleted = client.role("deleted", &[]).await;
    delete(&client, "deleted").await.unwrap();
    let long = "x".repeat(256);
    let longest = "x".repeat(255);
    for role in ["", "ab", &long] {
        let status = get(&client, role).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Grpc::InvalidArgument, texts(&["role"])), "{role}");
        assert_eq!(delete(&client, role).await, Err((Grpc::InvalidArgument, "FIELD_INVALID".into())), "{role}");
    }
    let missing = "role_00000000000000000000000000";
    for role in ["abc", &longest, missing, &foreign.role_id, "foreign", &deleted.role_id, "deleted"] {
        assert_eq!(get(&client, role).await.unwrap_err().code(), Grpc::NotFound, "{role}");
        assert_eq!(delete(&client, role).await, Err(not_found()), "{role}");
        let request = pb::UpdateRoleRequest { role: role.into(), name: Some("other".into()), ..Default::default() };
        assert_eq!(refusal(client.roles().update_role(request).await), not_found(), "{role}");
        let request = pb::SetRolePermissionsRequest { role: role.into(), ..Default::default() };
        assert_eq!(refusal(client.roles().set_role_permissions(request).await), not_found(), "{role}");
    }
    let same = client.named("same");
    let get = async |role: &str| {
        let request = pb::GetRoleRequest { role: role.into(), ..Default::default() };
        but_for(same.roles().get_role(request).await, role)
    };
    assert_eq!(get(&foreign.role_id).await, get(missing).await);
    assert!(neighbour.events().await.contains(&"role.create".to_owned()));
}

#[tokio::test]
async fn setting_permissions_reaches_every_holder_and_needs_the_rights_for_what_differs() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let role = client.role("reader", &["a", "b"]).await;
    let secret = holder(&client, "reader").await;
    let set = async |client: &Client, slugs: &[&str]| {
        let request =
            pb::SetRolePermissionsRequest { role: "reader".into(), permissions: texts(slugs), ..Default::default() };
        client.roles().set_role_permissions(request).await.map(|response| response.map(|body| body.role.unwrap()))
    };
    let events = client.events().await;
    let now = set(&client, &["b", "a", "a"]).await.unwrap().into_inner();
    assert_eq!(now, pb::Role { key_count: 1, ..role.clone() });
    assert_eq!(client.events().await, events, "the same set is no change");
    assert_eq!(set(&client, &["c", "b"]).await.unwrap().into_inner().permissions, ["b", "c"]);
    for (slug, code) in [("a", Code::InsufficientPermissions), ("b", Code::Valid), ("c", Code::Valid)] {
        assert_eq!(client.verdict(&secret, Some(slug)).await.code(), code, "{slug}");
    }
    let update = format!("rbac.{}.update_role", role.role_id);
    let (add, remove) = ("rbac.*.add_permission_to_role", "rbac.*.remove_permission_from_role");
    let denied = || Err((Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    let missing = || Err((Grpc::NotFound, "PERMISSION_NOT_FOUND".to_owned()));
    let cases: [(&[&str], &[&str], Outcome); 9] = [
        (&[&update], &["b", "c"], Ok(())),
        (&[&update], &["b", "c", "a"], denied()),
        (&[&update], &["b"], denied()),
        (&[&update, add], &["b"], denied()),
        (&[&update, add], &["b", "c", "new"], missing()),
        (&[&update, "rbac.another.add_permission_to_role"], &["b", "c", "a"], missing()),
        (&[&update, "rbac.another.remove_permission_from_role"], &["b"], missing()),
        (&["rbac.another.update_role", add, remove], &["b"], Err(not_found())),
        (&[&update, add, remove, "rbac.*.create_permission"], &["b", "new"], Ok(())),
    ];
    for (grants, slugs, expected) in cases {
        let answer = set(&client.limited(grants).await, slugs).await;
        let outcome = if answer.is_ok() { Ok(()) } else { Err(refusal(answer)) };
        assert_eq!(outcome, expected, "{grants:?} {slugs:?}");
    }
    assert_eq!(set(&client, &[]).await.unwrap().into_inner().permissions, Vec::<String>::new());
    let new: Vec<String> = (0..21).map(|n| format!("n.{n}")).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    assert_eq!(fields(&set(&client, &new).await.unwrap_err()), ["permissions"]);
    assert_eq!(set(&client, &new[..20]).await.unwrap().into_inner().permissions.len(), 20);
}

#[tokio::test]
async fn a_rehearsed_deletion_tells_who_would_lose_what_and_deletes_nothing() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    client.role("reader", &["b", "a", "c"]).await;
    let first = holder(&client, "reader").await;
    holder(&client, "reader").await;
    let request = pb::DeletePermissionRequest { permission: "c".into(), ..Default::default() };
    client.permissions().delete_permission(request).await.unwrap();
    let request = pb::DeleteRoleRequest { role: "reader".into(), validate_only: true, ..Default::default() };
    let answer = client.roles().delete_role(request).await.unwrap().into_inner();
    assert_eq!((answer.affected_key_count, answer.lost_permissions), (Some(2), texts(&["a", "b"])));
    assert_eq!(client.verdict(&first, Some("a AND b")).await.code(), Code::Valid);
    let request = pb::DeleteRoleRequest { role: "reader".into(), ..Default::default() };
    let answer = client.roles().delete_role(request).await.unwrap().into_inner();
    assert_eq!(answer, pb::DeleteRoleResponse { meta: answer.meta.clone(), ..Default::default() }, "only meta");
    assert_eq!(client.events().await.iter().filter(|event| *event == "role.delete").count(), 1);
}

#[tokio::test]
async fn a_role_made_anew_is_another_one_before_and_after_the_sweep() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let old = client.role("reader", &["a"]).await;
    let secret = holder(&client, "reader").await;
    assert_eq!(delete(&client, &old.role_id).await, Ok(()));
    let new = client.role("Reader", &["a"]).await;
    assert_ne!(new.role_id, old.role_id);
    for swept in [false, true] {
        assert_eq!(client.verdict(&secret, Some("a")).await.code(), Code::InsufficientPermissions, "{swept}");
        assert_eq!(get(&client, "Reader").await.unwrap().key_count, 0, "{swept}");
        assert_eq!(get(&client, &old.role_id).await.unwrap_err().code(), Grpc::NotFound, "{swept}");
        house.sweep().await;
    }
    let history = client.log().await;
    let mentions = history.iter().filter(|event| event.targets.iter().any(|target| target.id == old.role_id)).count();
    assert_eq!(mentions, 2, "its history stays");
}

#[tokio::test]
async fn lists_show_what_the_caller_may_read_and_what_is_searched_for() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let mut ids = Vec::new();
    for (name, description) in [("reader", "may Look"), ("writer", ""), ("Deleted", ""), ("lister", "looks too")] {
        house.pass(1);
        let request =
            pb::CreateRoleRequest { name: name.into(), description: description.into(), ..Default::default() };
        ids.push(client.roles().create_role(request).await.unwrap().into_inner().role.unwrap().role_id);
    }
    delete(&client, "Deleted").await.unwrap();
    let list = async |client: &Client, search: Option<&str>| {
        let filter = Some(pb::ListRolesFilter { search: search.map(Into::into) });
        let request = pb::ListRolesRequest { filter, ..Default::default() };
        let roles = client.roles().list_roles(request).await.unwrap().into_inner().roles;
        roles.into_iter().map(|role| role.name).collect::<Vec<_>>()
    };
    assert_eq!(list(&client, None).await, ["reader", "writer", "lister"]);
    assert_eq!(list(&client, Some("LOOK")).await, ["reader", "lister"]);
    assert_eq!(list(&client, Some("er")).await, ["reader", "writer", "lister"]);
    assert_eq!(list(&client, Some("x")).await, Vec::<String>::new());
    let limited = client.limited(&[&format!("rbac.{}.read_role", ids[1])]).await;
    assert_eq!(list(&limited, None).await, ["writer"]);
    assert_eq!(list(&client.neighbour("neighbour").await, None).await, Vec::<String>::new());
    for search in [String::new(), "x".repeat(256)] {
        let filter = Some(pb::ListRolesFilter { search: Some(search) });
        let request = pb::ListRolesRequest { filter, ..Default::default() };
        assert_eq!(fields(&client.roles().list_roles(request).await.unwrap_err()), ["filter.search"]);
    }
    let mut request = pb::ListRolesRequest { page_size: 2, ..Default::default() };
    let first = client.roles().list_roles(request.clone()).await.unwrap().into_inner();
    request.page_token = first.next_page_token;
    let second = client.roles().list_roles(request.clone()).await.unwrap().into_inner();
    let seen: Vec<String> = first.roles.into_iter().chain(second.roles).map(|role| role.role_id).collect();
    assert_eq!(seen, [&ids[0], &ids[1], &ids[3]].map(String::clone));
    request.filter = Some(pb::ListRolesFilter { search: Some("er".into()) });
    let refused = refusal(client.roles().list_roles(request).await);
    assert_eq!(refused, (Grpc::InvalidArgument, "PAGE_TOKEN_INVALID".to_owned()));
}
