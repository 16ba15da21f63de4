//! Permissions of keys: made, described, deleted for good.

use ostiary::pb::v1 as pb;
use pb::VerificationCode as Code;
use tonic::Code as Grpc;

use crate::harness::{Client, House, START, at, but_for, fields, mask, refusal, texts};

fn not_found() -> (Grpc, String) {
    (Grpc::NotFound, "PERMISSION_NOT_FOUND".to_owned())
}

async fn create(client: &Client, slug: &str) -> Result<tonic::Response<pb::Permission>, tonic::Status> {
    let request = pb::CreatePermissionRequest { slug: slug.into(), ..Default::default() };
    let answer = client.permissions().create_permission(request).await;
    answer.map(|response| response.map(|response| response.permission.unwrap()))
}

async fn get(client: &Client, permission: &str) -> Result<tonic::Response<pb::Permission>, tonic::Status> {
    let request = pb::GetPermissionRequest { permission: permission.into(), ..Default::default() };
    let answer = client.permissions().get_permission(request).await;
    answer.map(|response| response.map(|response| response.permission.unwrap()))
}

async fn delete(client: &Client, permission: &str) -> Result<(), (Grpc, String)> {
    let request = pb::DeletePermissionRequest { permission: permission.into(), ..Default::default() };
    let answer = client.permissions().delete_permission(request).await;
    if answer.is_ok() { Ok(()) } else { Err(refusal(answer)) }
}

#[tokio::test]
async fn a_permission_is_made_as_it_was_asked_for_and_found_by_id_and_by_slug() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreatePermissionRequest {
        slug: "documents.Read".into(),
        name: "Read documents".into(),
        description: "all\nof them".into(),
        validate_only: false,
    };
    let made = client.permissions().create_permission(request).await.unwrap().into_inner().permission.unwrap();
    let expected = pb::Permission {
        permission_id: made.permission_id.clone(),
        slug: "documents.Read".into(),
        name: "Read documents".into(),
        description: "all\nof them".into(),
        create_time: Some(at(START)),
        update_time: Some(at(START)),
        etag: made.etag.clone(),
    };
    assert_eq!(made, expected);
    for reference in [made.permission_id.as_str(), "documents.Read"] {
        assert_eq!(get(&client, reference).await.unwrap().into_inner(), made);
    }
    assert_eq!(refusal(get(&client, "documents.read").await), not_found(), "found only as it is spelled");
    let request = pb::CreatePermissionRequest { slug: "new".into(), validate_only: true, ..Default::default() };
    client.permissions().create_permission(request).await.unwrap();
    assert_eq!(refusal(get(&client, "new").await), not_found(), "it was only tried");
}

#[tokio::test]
async fn slugs_are_unique_ignoring_case_and_never_of_an_ids_shape() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let shape = format!("perm_{}", "0".repeat(26));
    for bad in
        ["", " ", "a b", "a\0", "(a)", "caf\u{e9}", "a+b", &"x".repeat(129), &shape, &shape.replace("perm", "role")]
    {
        let status = create(&client, bad).await.expect_err(bad);
        assert_eq!((status.code(), fields(&status)), (Grpc::InvalidArgument, texts(&["slug"])), "{bad:?}");
    }
    let almost = [shape.to_uppercase(), shape.replace("perm", "perms"), format!("{shape}0")];
    for good in ["a", "*", ".", "a.b:c/d-e_f*", "AND", &"x".repeat(128), &almost[0], &almost[1], &almost[2]] {
        assert_eq!(create(&client, good).await.unwrap().into_inner().slug, good);
    }
    create(&client, "Documents.read").await.unwrap();
    for same in ["Documents.read", "documents.read", "DOCUMENTS.READ"] {
        let taken = (Grpc::AlreadyExists, "PERMISSION_ALREADY_EXISTS".to_owned());
        assert_eq!(refusal(create(&client, same).await), taken, "{same}");
    }
}

#[tokio::test]
async fn descriptions_change_and_slugs_never_do() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreatePermissionRequest { slug: "a".into(), name: "A".into(), ..Default::default() };
    let made = client.permissions().create_permission(request).await.unwrap().into_inner().permission.unwrap();
    house.pass(1_000);
    let update = async |request: pb::UpdatePermissionRequest| {
        let request = pb::UpdatePermissionRequest { permission: "a".into(), ..request };
        client.permissions().update_permission(request).await.map(|answer| answer.into_inner().permission.unwrap())
    };
    let events = client.events().await;
    let same = pb::UpdatePermissionRequest { name: Some("A".into()), ..Default::default() };
    assert_eq!(update(same).await.unwrap(), made);
    let rehearsed = pb::UpdatePermissionRequest { name: Some("B".into()), validate_only: true, ..Default::default() };
    assert_eq!(update(rehearsed).await.unwrap().name, "B");
    assert_eq!(client.events().await, events);
    let request = pb::UpdatePermissionRequest {
        description: Some("first letter".into()),
        update_mask: mask(&["name", "description"]),
        etag: made.etag.clone(),
        ..Default::default()
    };
    let now = update(request.clone()).await.unwrap();
    let expected = pb::Permission {
        name: String::new(),
        description: "first letter".into(),
        update_time: Some(at(START + 1_000)),
        etag: now.etag.clone(),
        ..made.clone()
    };
    assert_eq!(now, expected);
    assert_eq!(update(request).await.unwrap_err().code(), Grpc::Aborted);
    for path in ["slug", "permission_id", "x"] {
        let request = pb::UpdatePermissionRequest { update_mask: mask(&[path]), ..Default::default() };
        assert_eq!(fields(&update(request).await.unwrap_err()), ["update_mask.paths[0]"], "{path}");
    }
}

#[tokio::test]
async fn a_deleted_permission_counts_nowhere_at_once_and_a_new_one_is_another() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["a", "b"]).await;
    let request = pb::CreateKeyRequest {
        api_id: api.api_id.clone(),
        permissions: texts(&["a", "b"]),
        roles: texts(&["reader"]),
        ..Default::default()
    };
    let (key, secret) = client.key(request).await;
    let (gone, _) =
        client.key(pb::CreateKeyRequest { api_id: api.api_id, permissions: texts(&["a"]), ..Default::default() }).await;
    let request = pb::DeleteKeyRequest { key_id: gone.key_id, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let request = pb::DeletePermissionRequest { permission: "a".into(), validate_only: true, ..Default::default() };
    let rehearsed = client.permissions().delete_permission(request).await.unwrap().into_inner();
    assert_eq!((rehearsed.affected_key_count, rehearsed.affected_role_count), (Some(1), Some(1)));
    let old = get(&client, "a").await.unwrap().into_inner();
    let request = pb::DeletePermissionRequest { permission: old.permission_id.clone(), ..Default::default() };
    let answer = client.permissions().delete_permission(request).await.unwrap().into_inner();
    assert_eq!(answer, pb::DeletePermissionResponse { meta: answer.meta.clone(), ..Default::default() }, "only meta");
    let role = async || {
        let request = pb::GetRoleRequest { role: "reader".into(), ..Default::default() };
        client.roles().get_role(request).await.unwrap().into_inner().role.unwrap()
    };
    let holds_no_more = async || {
        assert_eq!(client.verdict(&secret, Some("a")).await.code(), Code::InsufficientPermissions);
        assert_eq!(client.get_key(&key.key_id).await.unwrap().permissions, ["b"]);
        assert_eq!(role().await.permissions, ["b"]);
        assert_eq!(refusal(get(&client, &old.permission_id).await), not_found());
    };
    holds_no_more().await;
    let new = create(&client, "A").await.unwrap().into_inner();
    assert_ne!(new.permission_id, old.permission_id);
    assert_eq!(delete(&client, "A").await, Ok(()));
    create(&client, "a").await.unwrap();
    holds_no_more().await;
    house.pass(91 * 24 * 3_600_000);
    house.sweep().await;
    holds_no_more().await;
    // What is left of the old one stands in nobody's way.
    let request =
        pb::AddKeyPermissionsRequest { key_id: key.key_id.clone(), permissions: texts(&["a"]), ..Default::default() };
    let now = client.keys().add_key_permissions(request).await.unwrap().into_inner().permissions;
    assert_eq!(now, ["a", "b"]);
    assert_eq!(client.verdict(&secret, Some("a")).await.code(), Code::Valid);
}

#[tokio::test]
async fn what_is_not_there_or_not_for_the_caller_is_answered_alike() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let mine = create(&client, "s.mine").await.unwrap().into_inner();
    let neighbour = client.neighbour("neighbour").await;
    create(&neighbour, "s.other").await.unwrap();
    let actions = ["read_permission", "update_permission", "delete_permission"];
    let grants: Vec<String> = actions.iter().map(|action| format!("rbac.another.{action}")).collect();
    let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    let limited = client.limited(&grants).await.named("same");
    macro_rules! alike {
        ($($method:ident $request:ident;)*) => {$(
            let answer = async |permission: &str| {
                let request = pb::$request { permission: permission.into(), ..Default::default() };
                but_for(limited.permissions().$method(request).await, permission)
            };
            assert_eq!(answer("s.mine").await, answer("s.none").await, stringify!($method));
            let missing = "perm_00000000000000000000000000";
            assert_eq!(answer(&mine.permission_id).await, answer(missing).await, stringify!($method));
            assert_eq!(answer(missing).await.0, Grpc::NotFound, stringify!($method));
        )*};
    }
    alike! {
        get_permission GetPermissionRequest;
        update_permission UpdatePermissionRequest;
        delete_permission DeletePermissionRequest;
    }
    assert_eq!(refusal(get(&client, "s.other").await), not_found());
    for bad in ["", "a b", &"x".repeat(129)] {
        assert_eq!(fields(&get(&client, bad).await.unwrap_err()), ["permission"], "{bad}");
        assert_eq!(delete(&client, bad).await, Err((Grpc::InvalidArgument, "FIELD_INVALID".into())), "{bad}");
    }
    let powerless = client.limited(&["rbac.*.read_role"]).await;
    for permission in ["s.mine", "s.none", ""] {
        assert_eq!(get(&powerless, permission).await.unwrap_err().code(), Grpc::PermissionDenied, "{permission}");
    }
}

#[tokio::test]
async fn lists_show_what_the_caller_may_read_and_what_is_searched_for() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let mut ids = Vec::new();
    for (slug, name, description) in
        [("a.read", "", "Looking"), ("b.write", "Look", ""), ("c", "", ""), ("Look", "", "")]
    {
        house.pass(1);
        let request = pb::CreatePermissionRequest {
            slug: slug.into(),
            name: name.into(),
            description: description.into(),
            validate_only: false,
        };
        ids.push(
            client
                .permissions()
                .create_permission(request)
                .await
                .unwrap()
                .into_inner()
                .permission
                .unwrap()
                .permission_id,
        );
    }
    delete(&client, "c").await.unwrap();
    let list = async |client: &Client, search: Option<&str>| {
        let filter = Some(pb::ListPermissionsFilter { search: search.map(Into::into) });
        let request = pb::ListPermissionsRequest { filter, ..Default::default() };
        let permissions = client.permissions().list_permissions(request).await.unwrap().into_inner().permissions;
        permissions.into_iter().map(|permission| permission.slug).collect::<Vec<_>>()
    };
    assert_eq!(list(&client, None).await, ["a.read", "b.write", "Look"]);
    assert_eq!(list(&client, Some("lOOK")).await, ["a.read", "b.write", "Look"]);
    assert_eq!(list(&client, Some(".")).await, ["a.read", "b.write"]);
    let limited = client.limited(&[&format!("rbac.{}.read_permission", ids[1])]).await;
    assert_eq!(list(&limited, None).await, ["b.write"]);
    assert_eq!(list(&client.neighbour("neighbour").await, None).await, Vec::<String>::new());
    let request = pb::ListPermissionsRequest { page_size: -1, ..Default::default() };
    assert_eq!(fields(&client.permissions().list_permissions(request).await.unwrap_err()), ["page_size"]);
}
