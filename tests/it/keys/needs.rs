//! What a caller needs, and that refusals tell nothing of what it may not see.

use super::*;
use tonic::{Response, Status};

/// A house with a key that holds the role `held` and the permission `held`, and others of both that it does not.
struct Scene {
    _house: House,
    client: Client,
    api: pb::Api,
    key: pb::Key,
    held: pb::Role,
    other: pb::Role,
    slug_held: pb::Permission,
    slug_other: pb::Permission,
}

impl Scene {
    async fn new() -> Self {
        let house = House::in_memory().await;
        let client = house.operator().await;
        let api = client.api("documents").await;
        let (held, other) = (client.role("held", &[]).await, client.role("other", &[]).await);
        let permission = async |slug: &str| {
            let request = pb::CreatePermissionRequest { slug: slug.into(), ..Default::default() };
            client.permissions().create_permission(request).await.unwrap().into_inner().permission.unwrap()
        };
        let (slug_held, slug_other) = (permission("s.held").await, permission("s.other").await);
        let request = pb::CreateKeyRequest { roles: texts(&["held"]), permissions: texts(&["s.held"]), ..of(&api) };
        let (key, _) = client.key(request).await;
        Self { _house: house, client, api, key, held, other, slug_held, slug_other }
    }

    async fn update(&self, caller: &Client, request: pb::UpdateKeyRequest) -> Outcome {
        let request = pb::UpdateKeyRequest { key_id: self.key.key_id.clone(), validate_only: true, ..request };
        outcome(caller.keys().update_key(request).await)
    }

    async fn set_roles(&self, caller: &Client, roles: &[&str]) -> Outcome {
        let one = self.update(
            caller,
            pb::UpdateKeyRequest { roles: texts(roles), update_mask: mask(&["roles"]), ..Default::default() },
        );
        let one = one.await;
        let request = pb::SetKeyRolesRequest {
            key_id: self.key.key_id.clone(),
            roles: texts(roles),
            validate_only: true,
            ..Default::default()
        };
        assert_eq!(outcome(caller.keys().set_key_roles(request).await), one, "both ways alike");
        one
    }

    async fn set_permissions(&self, caller: &Client, slugs: &[&str]) -> Outcome {
        let update_mask = mask(&["permissions"]);
        let one =
            self.update(caller, pb::UpdateKeyRequest { permissions: texts(slugs), update_mask, ..Default::default() });
        let one = one.await;
        let request = pb::SetKeyPermissionsRequest {
            key_id: self.key.key_id.clone(),
            permissions: texts(slugs),
            validate_only: true,
            ..Default::default()
        };
        assert_eq!(outcome(caller.keys().set_key_permissions(request).await), one, "both ways alike");
        one
    }
}

fn outcome<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) -> Outcome {
    if answer.is_ok() { Ok(()) } else { Err(refusal(answer)) }
}

#[tokio::test]
async fn putting_roles_on_a_key_needs_the_right_to_add_and_taking_them_off_that_to_remove() {
    let scene = Scene::new().await;
    let Scene { client, held, other, .. } = &scene;
    let update = "apis.*.update_key";
    let (add, remove) = ("rbac.*.add_role_to_key", "rbac.*.remove_role_from_key");
    let (add_other, add_held) =
        (format!("rbac.{}.add_role_to_key", other.role_id), format!("rbac.{}.add_role_to_key", held.role_id));
    let remove_other = format!("rbac.{}.remove_role_from_key", other.role_id);
    let cases: [(&[&str], Texts, Outcome); 14] = [
        (&[update], &["held"], Ok(())),
        (&[update], &["held", "other"], Err(denied())),
        (&[update], &["held", "nobody"], Err(denied())),
        (&[update], &[], Err(denied())),
        (&[update, remove], &["held", "other"], Err(denied())),
        (&[update, remove], &[], Ok(())),
        (&[update, add], &["held", "other"], Ok(())),
        (&[update, add], &["held", "nobody"], Err(not_found("ROLE"))),
        (&[update, add], &["other"], Err(denied())),
        (&[update, add, remove], &["other"], Ok(())),
        (&[update, &add_other], &["held", "other"], Ok(())),
        (&[update, &add_held], &["held", "other"], Err(not_found("ROLE"))),
        (&[update, &remove_other], &[], Err(not_found("ROLE"))),
        (&[add, remove], &["other"], Err(denied())),
    ];
    for (grants, roles, expected) in cases {
        let caller = client.limited(grants).await;
        assert_eq!(scene.set_roles(&caller, roles).await, expected, "{grants:?} {roles:?}");
    }
}

#[tokio::test]
async fn putting_permissions_on_a_key_needs_the_right_to_add_to_remove_and_for_new_ones_to_create() {
    let scene = Scene::new().await;
    let Scene { client, slug_held, slug_other, .. } = &scene;
    let update = "apis.*.update_key";
    let (add, remove) = ("rbac.*.add_permission_to_key", "rbac.*.remove_permission_from_key");
    let create = "rbac.*.create_permission";
    let of = |permission: &pb::Permission, action: &str| format!("rbac.{}.{action}", permission.permission_id);
    let (add_other, add_held) = (of(slug_other, "add_permission_to_key"), of(slug_held, "add_permission_to_key"));
    let remove_other = of(slug_other, "remove_permission_from_key");
    let cases: [(&[&str], Texts, Outcome); 17] = [
        (&[update], &["s.held"], Ok(())),
        (&[update], &["s.held", "s.other"], Err(denied())),
        (&[update], &["s.held", "s.new"], Err(denied())),
        (&[update], &[], Err(denied())),
        (&[update, remove], &["s.held", "s.other"], Err(denied())),
        (&[update, remove], &[], Ok(())),
        (&[update, add], &["s.held", "s.other"], Ok(())),
        (&[update, add], &["s.other"], Err(denied())),
        (&[update, add], &["s.held", "s.new"], Err(not_found("PERMISSION"))),
        (&[update, create], &["s.held", "s.new"], Err(denied())),
        (&[update, add, create], &["s.held", "s.new"], Ok(())),
        (&[update, add, remove], &["s.other"], Ok(())),
        (&[update, &add_other], &["s.held", "s.other"], Ok(())),
        (&[update, &add_held], &["s.held", "s.other"], Err(not_found("PERMISSION"))),
        (&[update, &add_held, create], &["s.held", "s.new"], Err(not_found("PERMISSION"))),
        (&[update, &remove_other], &[], Err(not_found("PERMISSION"))),
        (&[add, remove, create], &["s.other"], Err(denied())),
    ];
    for (grants, slugs, expected) in cases {
        let caller = client.limited(grants).await;
        assert_eq!(scene.set_permissions(&caller, slugs).await, expected, "{grants:?} {slugs:?}");
    }
}

#[tokio::test]
async fn a_key_is_made_only_with_what_its_maker_may_put_on_keys() {
    let scene = Scene::new().await;
    let Scene { client, api, other, .. } = &scene;
    let create = format!("apis.{}.create_key", api.api_id);
    let add_other = format!("rbac.{}.add_role_to_key", other.role_id);
    let add = "rbac.*.add_permission_to_key";
    let cases: [(&[&str], Texts, Texts, Outcome); 9] = [
        (&[&create], &[], &[], Ok(())),
        (&[&create], &["other"], &[], Err(denied())),
        (&[&create], &["nobody"], &[], Err(denied())),
        (&[&create, &add_other], &["other"], &[], Ok(())),
        (&[&create, &add_other], &["held"], &[], Err(not_found("ROLE"))),
        (&[&create], &[], &["s.held"], Err(denied())),
        (&[&create, add], &[], &["s.held"], Ok(())),
        (&[&create, add], &[], &["s.new"], Err(not_found("PERMISSION"))),
        (&[&create, add, "rbac.*.create_permission"], &[], &["s.new"], Ok(())),
    ];
    for (grants, roles, permissions, expected) in cases {
        let caller = client.limited(grants).await;
        let request = pb::CreateKeyRequest {
            roles: texts(roles),
            permissions: texts(permissions),
            validate_only: true,
            ..of(api)
        };
        assert_eq!(outcome(caller.keys().create_key(request).await), expected, "{grants:?} {roles:?} {permissions:?}");
    }
}

#[tokio::test]
async fn restoring_a_key_needs_all_that_making_it_anew_would() {
    let scene = Scene::new().await;
    let Scene { client, api, key, held, slug_held, .. } = &scene;
    let request = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let on_api = |action: &str| format!("apis.{}.{action}", api.api_id);
    let needs = [
        on_api("delete_key"),
        on_api("create_key"),
        on_api("update_key"),
        format!("rbac.{}.add_role_to_key", held.role_id),
        format!("rbac.{}.add_permission_to_key", slug_held.permission_id),
    ];
    let restore = async |caller: Client| {
        let request = pb::UndeleteKeyRequest { key_id: key.key_id.clone(), validate_only: true, ..Default::default() };
        outcome(caller.keys().undelete_key(request).await)
    };
    let kinds = ["KEY", "KEY", "KEY", "ROLE", "PERMISSION"];
    for (lacking, kind) in kinds.into_iter().enumerate() {
        let mut grants: Vec<&str> = needs.iter().map(String::as_str).collect();
        let lost = grants.remove(lacking);
        assert_eq!(restore(client.limited(&grants).await).await, Err(denied()), "without {lost}");
        let action = lost.rsplit('.').next().unwrap();
        let resource = lost.split('.').next().unwrap();
        let another = format!("{resource}.another_one.{action}");
        grants.push(&another);
        assert_eq!(restore(client.limited(&grants).await).await, Err(not_found(kind)), "another than {lost}");
    }
    let grants: Vec<&str> = needs.iter().map(String::as_str).collect();
    assert_eq!(restore(client.limited(&grants).await).await, Ok(()));
}

#[tokio::test]
async fn a_key_that_a_caller_may_not_touch_is_answered_byte_for_byte_like_a_missing_one() {
    let scene = Scene::new().await;
    let Scene { client, key, .. } = &scene;
    let actions = ["read_key", "create_key", "update_key", "delete_key"];
    let grants: Vec<String> = actions.iter().map(|action| format!("apis.another_one.{action}")).collect();
    let mut grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    grants.push("rbac.*.*");
    let stranger = client.limited(&grants).await.named("same");
    let neighbour = client.neighbour("neighbour").await.named("same");
    let (exists, missing) = (key.key_id.as_str(), "key_00000000000000000000000000");
    let (roles, permissions) = (texts(&["held"]), texts(&["s.held"]));
    for caller in [&stranger, &neighbour] {
        macro_rules! alike {
            ($($method:ident $request:ident { $($field:ident),* };)*) => {$(
                let answer = async |id: &str| {
                    let request = pb::$request { key_id: id.into(), $($field: $field.clone(),)* ..Default::default() };
                    let answer = but_for(caller.keys().$method(request).await, id);
                    assert_eq!((answer.0, answer.1.as_str()), (Grpc::NotFound, "key ? not found"));
                    answer
                };
                assert_eq!(answer(exists).await, answer(missing).await, stringify!($method));
            )*};
        }
        alike! {
            get_key GetKeyRequest {};
            update_key UpdateKeyRequest { roles, permissions };
            delete_key DeleteKeyRequest {};
            undelete_key UndeleteKeyRequest {};
            add_key_roles AddKeyRolesRequest { roles };
            remove_key_roles RemoveKeyRolesRequest { roles };
            set_key_roles SetKeyRolesRequest { roles };
            add_key_permissions AddKeyPermissionsRequest { permissions };
            remove_key_permissions RemoveKeyPermissionsRequest { permissions };
            set_key_permissions SetKeyPermissionsRequest { permissions };
        }
    }
    let api = async |api_id: &str| {
        let request = pb::CreateKeyRequest { api_id: api_id.into(), ..Default::default() };
        but_for(stranger.keys().create_key(request).await, api_id)
    };
    assert_eq!(api(&scene.api.api_id).await, api("api_00000000000000000000000000").await);
    assert_eq!(client.events().await.iter().filter(|event| event.starts_with("key.")).count(), 1);
}

#[tokio::test]
async fn a_role_or_permission_that_a_caller_may_not_use_is_answered_byte_for_byte_like_a_missing_one() {
    let scene = Scene::new().await;
    let Scene { client, key, held, other, slug_held, slug_other, .. } = &scene;
    let of_role = |action: &str| format!("rbac.{}.{action}", held.role_id);
    let of_permission = |action: &str| format!("rbac.{}.{action}", slug_held.permission_id);
    let grants = [
        "apis.*.update_key".to_owned(),
        of_role("add_role_to_key"),
        of_role("remove_role_from_key"),
        of_permission("add_permission_to_key"),
        of_permission("remove_permission_from_key"),
    ];
    let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    let caller = client.limited(&grants).await.named("same");
    macro_rules! alike {
        ($($method:ident $request:ident { $field:ident: $exists:expr, $missing:expr };)*) => {$(
            let answer = async |name: &str| {
                let request = pb::$request { key_id: key.key_id.clone(), $field: texts(&[name]), ..Default::default() };
                but_for(caller.keys().$method(request).await, name)
            };
            let exists = answer($exists).await;
            assert_eq!(exists.0, Grpc::NotFound, stringify!($method));
            assert_eq!(exists, answer($missing).await, stringify!($method));
        )*};
    }
    let (no_role, no_permission) = ("role_00000000000000000000000000", "perm_00000000000000000000000000");
    alike! {
        add_key_roles AddKeyRolesRequest { roles: "other", "nobdy" };
        add_key_roles AddKeyRolesRequest { roles: &other.role_id, no_role };
        remove_key_roles RemoveKeyRolesRequest { roles: "other", "nobdy" };
        remove_key_roles RemoveKeyRolesRequest { roles: &other.role_id, no_role };
        set_key_roles SetKeyRolesRequest { roles: "other", "nobdy" };
        update_key UpdateKeyRequest { roles: "other", "nobdy" };
        add_key_permissions AddKeyPermissionsRequest { permissions: "s.other", "s.nobdy" };
        add_key_permissions AddKeyPermissionsRequest { permissions: &slug_other.permission_id, no_permission };
        remove_key_permissions RemoveKeyPermissionsRequest { permissions: "s.other", "s.nobdy" };
        set_key_permissions SetKeyPermissionsRequest { permissions: "s.other", "s.nobdy" };
        update_key UpdateKeyRequest { permissions: &slug_other.permission_id, no_permission };
    }
}
