//! What an update changes, and what it leaves alone.

use ostiary::pb::v1 as pb;

use crate::harness::{Client, House, at, span, texts};

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: texts(paths) })
}

fn facts(name: &str) -> prost_types::Struct {
    let kind = Some(prost_types::value::Kind::StringValue(name.to_owned()));
    prost_types::Struct { fields: [("team".to_owned(), prost_types::Value { kind })].into() }
}

/// A key with every field set.
async fn full_key(client: &Client, house: &House) -> pb::Key {
    let api_id = client.api("documents").await.api_id;
    client.role("reader", &["documents.read"]).await;
    client.role("writer", &["documents.write"]).await;
    let request = pb::CreateKeyRequest {
        api_id,
        name: "a key".into(),
        metadata: Some(facts("red")),
        roles: texts(&["reader", "writer"]),
        permissions: texts(&["a.b", "c.d"]),
        expiration: Some(pb::create_key_request::Expiration::ExpireTime(at(house.now() + 60_000))),
        allowed_cidrs: texts(&["10.0.0.0/8", "192.0.2.0/24"]),
        ..Default::default()
    };
    client.key(request).await.0
}

async fn update(client: &Client, request: pb::UpdateKeyRequest) -> pb::Key {
    client.keys().update_key(request).await.unwrap().into_inner().key.unwrap()
}

#[tokio::test]
async fn without_a_mask_exactly_the_fields_that_are_set_are_changed() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let before = full_key(&client, &house).await;
    house.pass(1_000);
    let request =
        pb::UpdateKeyRequest { key_id: before.key_id.clone(), name: Some("renamed".into()), ..Default::default() };
    let after = update(&client, request).await;
    let now = Some(at(house.now()));
    let expected = pb::Key { name: "renamed".into(), update_time: now, etag: after.etag.clone(), ..before.clone() };
    assert_eq!(after, expected);
    assert_ne!(after.etag, before.etag);
    let request = pb::UpdateKeyRequest {
        key_id: before.key_id.clone(),
        name: Some(String::new()),
        enabled: Some(false),
        roles: texts(&["writer"]),
        permissions: texts(&["e.f"]),
        allowed_cidrs: texts(&["10.1.0.0/16"]),
        metadata: Some(prost_types::Struct::default()),
        update_mask: mask(&[]),
        ..Default::default()
    };
    let after = update(&client, request).await;
    assert_eq!((after.name.as_str(), after.enabled, after.metadata), ("", false, None));
    let roles: Vec<&str> = after.roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(roles, ["writer"], "lists are replaced whole");
    assert_eq!((after.permissions, after.allowed_cidrs), (texts(&["e.f"]), texts(&["10.1.0.0/16"])));
    assert_eq!(after.expire_time, before.expire_time);
}

#[tokio::test]
async fn with_a_mask_what_it_names_and_is_unset_is_cleared_and_what_it_does_not_name_is_ignored() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let before = full_key(&client, &house).await;
    let request = pb::UpdateKeyRequest {
        key_id: before.key_id.clone(),
        name: Some("not named by the mask".into()),
        roles: texts(&["no such role"]),
        update_mask: mask(&["metadata", "permissions", "permissions"]),
        ..Default::default()
    };
    let after = update(&client, request).await;
    let expected = pb::Key { metadata: None, permissions: Vec::new(), etag: after.etag.clone(), ..before.clone() };
    assert_eq!(after, expected);
    let all = ["name", "metadata", "enabled", "expire_time", "allowed_cidrs", "roles", "permissions"];
    let request = pb::UpdateKeyRequest { key_id: before.key_id.clone(), update_mask: mask(&all), ..Default::default() };
    let after = update(&client, request).await;
    assert_eq!((after.name.as_str(), after.enabled, after.metadata, after.expire_time), ("", false, None, None));
    assert_eq!((after.allowed_cidrs.len(), after.roles.len(), after.permissions.len()), (0, 0, 0));
}

#[tokio::test]
async fn what_may_be_cleared_falls_back_to_what_the_proto_says() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let request = pb::CreateApiRequest {
        name: "documents".into(),
        default_prefix: Some("acme".into()),
        default_ttl: Some(span(60_000)),
        delete_protection: true,
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        ..Default::default()
    };
    let api = client.apis().create_api(request).await.unwrap().into_inner().api.unwrap();
    let paths = ["default_prefix", "default_ttl", "delete_protection", "allowed_cidrs"];
    let request = pb::UpdateApiRequest { api_id: api.api_id.clone(), update_mask: mask(&paths), ..Default::default() };
    let cleared = client.apis().update_api(request).await.unwrap().into_inner().api.unwrap();
    let expected = pb::Api {
        default_prefix: None,
        default_ttl: None,
        delete_protection: false,
        allowed_cidrs: Vec::new(),
        etag: cleared.etag.clone(),
        ..api
    };
    assert_eq!(cleared, expected);
    let (root_key, _) = client.root_key("cleared", &["apis.*.read_api"]).await;
    let request = pb::UpdateRootKeyRequest {
        root_key_id: root_key.root_key_id,
        update_mask: mask(&["enabled", "expire_time", "allowed_cidrs"]),
        ..Default::default()
    };
    let cleared = client.root_keys().update_root_key(request).await.unwrap().into_inner().root_key.unwrap();
    assert_eq!((cleared.enabled, cleared.state()), (false, pb::RootKeyState::Disabled));
    let request = pb::CreateWorkspaceRequest { name: "cleared".into(), ..Default::default() };
    let workspace_id = client.workspaces().create_workspace(request).await.unwrap().into_inner().workspace.unwrap();
    let workspace_id = workspace_id.workspace_id;
    let request = pb::UpdateWorkspaceRequest { workspace_id, update_mask: mask(&["enabled"]), ..Default::default() };
    let cleared = client.workspaces().update_workspace(request).await.unwrap().into_inner().workspace.unwrap();
    assert!(!cleared.enabled);
    let request = pb::CreatePermissionRequest {
        slug: "documents.read".into(),
        name: "Read".into(),
        description: "Reads documents.".into(),
        ..Default::default()
    };
    client.permissions().create_permission(request).await.unwrap();
    let request = pb::UpdatePermissionRequest {
        permission: "documents.read".into(),
        update_mask: mask(&["name", "description"]),
        ..Default::default()
    };
    let cleared = client.permissions().update_permission(request).await.unwrap().into_inner().permission.unwrap();
    assert_eq!((cleared.name.as_str(), cleared.description.as_str()), ("", ""));
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing_and_keeps_the_etag() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let key = full_key(&client, &house).await;
    let role = client.role("idle", &["a.b", "c.d"]).await;
    let (root_key, _) = client.root_key("idle", &["apis.*.read_api", "rbac.*.read_role"]).await;
    let (events, revision) = (client.events().await, revision(&client).await);
    house.pass(5_000);

    let request = pb::UpdateKeyRequest {
        key_id: key.key_id.clone(),
        name: Some(key.name.clone()),
        metadata: key.metadata.clone(),
        enabled: Some(true),
        expire_time: key.expire_time,
        allowed_cidrs: key.allowed_cidrs.clone(),
        roles: texts(&["writer", "reader", "writer"]),
        permissions: texts(&["c.d", "a.b"]),
        ..Default::default()
    };
    assert_eq!(update(&client, request).await, key);
    let request = pb::UpdateKeyRequest { key_id: key.key_id.clone(), etag: key.etag.clone(), ..Default::default() };
    assert_eq!(update(&client, request).await, key);
    let request =
        pb::AddKeyRolesRequest { key_id: key.key_id.clone(), roles: texts(&["reader"]), ..Default::default() };
    client.keys().add_key_roles(request).await.unwrap();
    let request = pb::SetKeyPermissionsRequest {
        key_id: key.key_id.clone(),
        permissions: texts(&["c.d", "a.b", "a.b"]),
        ..Default::default()
    };
    client.keys().set_key_permissions(request).await.unwrap();
    let request =
        pb::RemoveKeyRolesRequest { key_id: key.key_id.clone(), roles: texts(&["idle"]), ..Default::default() };
    client.keys().remove_key_roles(request).await.unwrap();
    let request = pb::SetRolePermissionsRequest {
        role: "idle".into(),
        permissions: texts(&["c.d", "a.b"]),
        ..Default::default()
    };
    assert_eq!(client.roles().set_role_permissions(request).await.unwrap().into_inner().role.unwrap(), role);
    let request = pb::UpdateRoleRequest { role: "idle".into(), name: Some("idle".into()), ..Default::default() };
    assert_eq!(client.roles().update_role(request).await.unwrap().into_inner().role.unwrap(), role);
    let request = pb::UpdateRootKeyRequest {
        root_key_id: root_key.root_key_id.clone(),
        name: Some("idle".into()),
        permissions: texts(&["rbac.*.read_role", "api.*.read_api", "apis.*.read_api"]),
        enabled: Some(true),
        ..Default::default()
    };
    let same = client.root_keys().update_root_key(request).await.unwrap().into_inner().root_key.unwrap();
    assert_eq!((same.etag, same.update_time), (root_key.etag, root_key.update_time));

    assert_eq!(client.events().await, events);
    assert_eq!(self::revision(&client).await, revision);
}

async fn revision(client: &Client) -> String {
    let response = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner();
    response.meta.unwrap().revision
}

#[tokio::test]
async fn use_and_counts_move_neither_etag_nor_update_time() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let role = client.role("reader", &["documents.read"]).await;
    let request =
        pb::CreateKeyRequest { api_id: api.api_id.clone(), roles: vec![role.role_id.clone()], ..Default::default() };
    let (key, secret) = client.key(request).await;
    house.pass(60_000);
    assert!(client.verdict(&secret, None).await.valid);
    let request = pb::GetKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    let used = client.keys().get_key(request).await.unwrap().into_inner().key.unwrap();
    assert_eq!(used, pb::Key { last_used_time: Some(at(house.now())), ..key });
    let request = pb::GetApiRequest { api_id: api.api_id.clone(), ..Default::default() };
    let counted = client.apis().get_api(request).await.unwrap().into_inner().api.unwrap();
    assert_eq!(counted, pb::Api { key_count: 1, ..api });
    let request = pb::GetRoleRequest { role: role.role_id.clone(), ..Default::default() };
    let counted = client.roles().get_role(request).await.unwrap().into_inner().role.unwrap();
    assert_eq!(counted, pb::Role { key_count: 1, ..role });
}

#[tokio::test]
async fn the_etag_that_was_read_lets_one_of_two_changes_through() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let rename = async |name: &str| {
        let request = pb::UpdateApiRequest {
            api_id: api.api_id.clone(),
            name: Some(name.into()),
            etag: api.etag.clone(),
            ..Default::default()
        };
        client.apis().update_api(request).await
    };
    let renamed = rename("first").await.unwrap().into_inner().api.unwrap();
    assert_ne!(renamed.etag, api.etag);
    let expected = (tonic::Code::Aborted, "ETAG_MISMATCH".to_owned());
    assert_eq!(crate::harness::refusal(rename("second").await), expected);
    let request = pb::DeleteApiRequest { api_id: api.api_id.clone(), etag: renamed.etag, ..Default::default() };
    client.apis().delete_api(request).await.unwrap();
}
