//! Every method that changes something, called more than once.

use super::*;

/// Makes a call three times: the same answer, one effect.
macro_rules! once {
    ($house:expr, $client:expr, $events:expr, $service:ident . $method:ident ( $request:expr )) => {{
        let client = $client.once(stringify!($method));
        let before = $client.log().await.len();
        let first = client.$service().$method($request).await.unwrap().into_inner();
        assert_eq!($client.log().await.len(), before + $events, "{}", stringify!($method));
        for _ in 0..2 {
            let again = client.$service().$method($request).await.unwrap().into_inner();
            assert_eq!(again.clone().but_for_the_call(), first.clone().but_for_the_call(), "{}", stringify!($method));
            assert_ne!(again.meta.unwrap().request_id, first.meta.as_ref().unwrap().request_id);
        }
        assert_eq!($client.log().await.len(), before + $events, "{}", stringify!($method));
        $house.pass(1_000);
        first
    }};
}

#[tokio::test]
async fn every_change_is_made_once_and_answered_alike_however_often_it_is_called() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = once!(
        house,
        client,
        1,
        apis.create_api(pb::CreateApiRequest { name: "documents".into(), ..Default::default() })
    );
    let api_id = api.api.unwrap().api_id;
    once!(
        house,
        client,
        1,
        permissions.create_permission(pb::CreatePermissionRequest { slug: "a".into(), ..Default::default() })
    );
    once!(
        house,
        client,
        2,
        roles.create_role(pb::CreateRoleRequest {
            name: "reader".into(),
            permissions: texts(&["a", "b"]),
            ..Default::default()
        })
    );
    let made = once!(
        house,
        client,
        2,
        keys.create_key(pb::CreateKeyRequest {
            api_id: api_id.clone(),
            roles: texts(&["reader"]),
            permissions: texts(&["c"]),
            ..Default::default()
        })
    );
    let (key_id, secret) = (made.key.unwrap().key_id, made.secret);
    assert_eq!(client.verdict(&secret, None).await.code(), pb::VerificationCode::Valid);
    once!(
        house,
        client,
        1,
        identities.create_identity(pb::CreateIdentityRequest { external_id: "user".into(), ..Default::default() })
    );
    once!(
        house,
        client,
        1,
        identities.update_identity(pb::UpdateIdentityRequest {
            identity: "user".into(),
            metadata: Some(prost_types::Struct::default()),
            rate_limits: vec![pb::RateLimit {
                name: "a".into(),
                limit: 1,
                duration: Some(span(1_000)),
                auto_apply: false
            }],
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        identities.delete_identity(pb::DeleteIdentityRequest { identity: "user".into(), ..Default::default() })
    );
    client.role("writer", &[]).await;
    let id = || key_id.clone();
    once!(
        house,
        client,
        1,
        keys.add_key_roles(pb::AddKeyRolesRequest { key_id: id(), roles: texts(&["writer"]), ..Default::default() })
    );
    once!(
        house,
        client,
        1,
        keys.remove_key_roles(pb::RemoveKeyRolesRequest {
            key_id: id(),
            roles: texts(&["writer"]),
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        keys.set_key_roles(pb::SetKeyRolesRequest { key_id: id(), roles: texts(&["writer"]), ..Default::default() })
    );
    once!(
        house,
        client,
        2,
        keys.add_key_permissions(pb::AddKeyPermissionsRequest {
            key_id: id(),
            permissions: texts(&["d"]),
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        keys.remove_key_permissions(pb::RemoveKeyPermissionsRequest {
            key_id: id(),
            permissions: texts(&["d"]),
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        keys.set_key_permissions(pb::SetKeyPermissionsRequest {
            key_id: id(),
            permissions: texts(&["d"]),
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        2,
        keys.update_key(pb::UpdateKeyRequest {
            key_id: id(),
            name: Some("Ada".into()),
            external_id: Some("organisation".into()),
            ..Default::default()
        })
    );
    once!(house, client, 1, keys.delete_key(pb::DeleteKeyRequest { key_id: id(), ..Default::default() }));
    once!(house, client, 1, keys.undelete_key(pb::UndeleteKeyRequest { key_id: id(), ..Default::default() }));
    let grace_period = Some(span(60_000));
    once!(house, client, 1, keys.reroll_key(pb::RerollKeyRequest { key_id: id(), grace_period, ..Default::default() }));
    let filter = pb::RevokeKeysFilter { api_id: Some(api_id.clone()), ..Default::default() };
    let revoked = once!(
        house,
        client,
        1,
        keys.revoke_keys(pb::RevokeKeysRequest { filter: Some(filter.clone()), ..Default::default() })
    );
    assert_eq!(revoked.revoked_count, 2);
    once!(
        house,
        client,
        1,
        apis.update_api(pb::UpdateApiRequest {
            api_id: api_id.clone(),
            name: Some("papers".into()),
            ..Default::default()
        })
    );
    once!(house, client, 1, apis.delete_api(pb::DeleteApiRequest { api_id: api_id.clone(), ..Default::default() }));
    once!(
        house,
        client,
        1,
        permissions.update_permission(pb::UpdatePermissionRequest {
            permission: "a".into(),
            name: Some("A".into()),
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        permissions.delete_permission(pb::DeletePermissionRequest { permission: "a".into(), ..Default::default() })
    );
    // The role has lost a permission since; the answers tell what it had at the time.
    once!(
        house,
        client,
        1,
        roles.update_role(pb::UpdateRoleRequest {
            role: "reader".into(),
            description: Some("reads".into()),
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        roles.set_role_permissions(pb::SetRolePermissionsRequest {
            role: "reader".into(),
            permissions: texts(&["c"]),
            ..Default::default()
        })
    );
    once!(house, client, 1, roles.delete_role(pb::DeleteRoleRequest { role: "reader".into(), ..Default::default() }));
}

#[tokio::test]
async fn what_is_limited_is_counted_and_namespaces_are_kept_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let namespace = || "sign-in".to_owned();
    let identifier = || "ada".to_owned();
    let (limit, duration) = (10, Some(span(3_600_000)));
    once!(
        house,
        client,
        1,
        rate_limits.create_namespace(pb::CreateNamespaceRequest { name: namespace(), ..Default::default() })
    );
    once!(
        house,
        client,
        0,
        rate_limits.limit(pb::LimitRequest {
            namespace: namespace(),
            identifier: identifier(),
            limit,
            duration,
            cost: Some(2)
        })
    );
    let item =
        || pb::BatchLimitItem { namespace: namespace(), identifier: identifier(), limit, duration, cost: Some(3) };
    let batch = once!(house, client, 0, rate_limits.batch_limit(pb::BatchLimitRequest { items: vec![item(), item()] }));
    assert_eq!(batch.results.iter().map(|result| result.remaining).collect::<Vec<_>>(), [5, 2]);
    once!(
        house,
        client,
        1,
        rate_limits.reset_identifier(pb::ResetIdentifierRequest {
            namespace: namespace(),
            identifier: identifier(),
            validate_only: false
        })
    );
    once!(
        house,
        client,
        1,
        rate_limits.set_override(pb::SetOverrideRequest {
            namespace: namespace(),
            identifier: "a*".into(),
            limit: Some(limit),
            duration,
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        rate_limits.delete_override(pb::DeleteOverrideRequest {
            namespace: namespace(),
            identifier: "a*".into(),
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        rate_limits.update_namespace(pb::UpdateNamespaceRequest {
            namespace: namespace(),
            name: Some("entry".into()),
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        rate_limits.delete_namespace(pb::DeleteNamespaceRequest { namespace: "entry".into(), ..Default::default() })
    );
}

#[tokio::test]
async fn root_keys_and_workspaces_are_made_changed_and_deleted_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let made = once!(house, client, 1, root_keys.create_root_key(crate::harness::root_key("server", &["apis.*.*"])));
    let id = made.root_key.unwrap().root_key_id;
    once!(
        house,
        client,
        1,
        root_keys.update_root_key(pb::UpdateRootKeyRequest {
            root_key_id: id.clone(),
            name: Some("api".into()),
            ..Default::default()
        })
    );
    let rotated = once!(
        house,
        client,
        1,
        root_keys.rotate_root_key(pb::RotateRootKeyRequest {
            root_key_id: id.clone(),
            grace_period: Some(span(60_000)),
            ..Default::default()
        })
    );
    let next = rotated.root_key.unwrap().root_key_id;
    once!(
        house,
        client,
        1,
        root_keys.delete_root_key(pb::DeleteRootKeyRequest { root_key_id: id.clone(), ..Default::default() })
    );
    once!(
        house,
        client,
        1,
        root_keys.batch_delete_root_keys(pb::BatchDeleteRootKeysRequest {
            root_key_ids: vec![next.clone()],
            ..Default::default()
        })
    );
    let made = once!(
        house,
        client,
        1,
        workspaces.create_workspace(pb::CreateWorkspaceRequest { name: "acme".into(), ..Default::default() })
    );
    let id = made.workspace.unwrap().workspace_id;
    once!(
        house,
        client,
        1,
        workspaces.update_workspace(pb::UpdateWorkspaceRequest {
            workspace_id: id.clone(),
            name: Some("Acme".into()),
            ..Default::default()
        })
    );
    once!(
        house,
        client,
        1,
        workspaces.delete_workspace(pb::DeleteWorkspaceRequest { workspace_id: id.clone(), ..Default::default() })
    );
}
