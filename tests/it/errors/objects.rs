//! What is not there, and what is there already.

use super::*;

pub async fn not_found(operator: &Client) -> Vec<Case> {
    let id = |prefix: &str| format!("{prefix}_{}", "0".repeat(26));
    let resource = |kind, name: &str| Detail::Resource(kind, name.to_owned());
    let root_key_id = id("rk");
    let request = pb::GetRootKeyRequest { root_key_id: root_key_id.clone(), ..Default::default() };
    let root_key = failed(operator.root_keys().get_root_key(request).await);
    let request = pb::GetWorkspaceRequest { workspace_id: id("ws"), ..Default::default() };
    let workspace = failed(operator.workspaces().get_workspace(request).await);
    let api = failed(operator.apis().get_api(pb::GetApiRequest { api_id: id("api"), ..Default::default() }).await);
    let key = failed(operator.keys().get_key(pb::GetKeyRequest { key_id: id("key"), ..Default::default() }).await);
    let request = pb::GetRoleRequest { role: "nobody".into(), ..Default::default() };
    let role = failed(operator.roles().get_role(request).await);
    let request = pb::GetPermissionRequest { permission: "no.where".into(), ..Default::default() };
    let permission = failed(operator.permissions().get_permission(request).await);
    let request = pb::GetIdentityRequest { identity: "nobody".into(), ..Default::default() };
    let identity = failed(operator.identities().get_identity(request).await);
    let request = pb::GetNamespaceRequest { namespace: "nowhere".into(), ..Default::default() };
    let namespace = failed(operator.rate_limits().get_namespace(request).await);
    let request = pb::CreateNamespaceRequest { name: "somewhere".into(), ..Default::default() };
    operator.rate_limits().create_namespace(request).await.unwrap();
    let (at, identifier) = ("somewhere".into(), "nobody".into());
    let request = pb::GetOverrideRequest { namespace: at, identifier, ..Default::default() };
    let exception = failed(operator.rate_limits().get_override(request).await);
    vec![
        (namespace, Code::NotFound, "NAMESPACE_NOT_FOUND", resource("Namespace", "nowhere")),
        (exception, Code::NotFound, "OVERRIDE_NOT_FOUND", resource("Override", "nobody")),
        (root_key, Code::NotFound, "ROOT_KEY_NOT_FOUND", resource("RootKey", &root_key_id)),
        (workspace, Code::NotFound, "WORKSPACE_NOT_FOUND", resource("Workspace", &id("ws"))),
        (api, Code::NotFound, "API_NOT_FOUND", resource("Api", &id("api"))),
        (key, Code::NotFound, "KEY_NOT_FOUND", resource("Key", &id("key"))),
        (role, Code::NotFound, "ROLE_NOT_FOUND", resource("Role", "nobody")),
        (permission, Code::NotFound, "PERMISSION_NOT_FOUND", resource("Permission", "no.where")),
        (identity, Code::NotFound, "IDENTITY_NOT_FOUND", resource("Identity", "nobody")),
    ]
}

pub async fn already_exists(house: &House, operator: &Client) -> Vec<Case> {
    operator.role("reader", &["documents.read"]).await;
    let request = pb::CreateRoleRequest { name: "READER".into(), ..Default::default() };
    let role = failed(operator.roles().create_role(request).await);
    let request = pb::CreatePermissionRequest { slug: "Documents.Read".into(), ..Default::default() };
    let permission = failed(operator.permissions().create_permission(request).await);
    let request = pb::CreateIdentityRequest { external_id: "user".into(), ..Default::default() };
    operator.identities().create_identity(request.clone()).await.unwrap();
    let identity = failed(operator.identities().create_identity(request).await);
    let request = pb::CreateNamespaceRequest { name: "sign-in".into(), ..Default::default() };
    operator.rate_limits().create_namespace(request.clone()).await.unwrap();
    let namespace = failed(operator.rate_limits().create_namespace(request).await);
    let api = operator.api("living").await;
    let (key, _) = operator.key(pb::CreateKeyRequest { api_id: api.api_id, ..Default::default() }).await;
    let request = pb::UndeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    let living = failed(operator.keys().undelete_key(request).await);
    let once = operator.once("once");
    let made = once.root_key("once", &["apis.*.read_api"]).await.0;
    let other = failed(once.root_keys().create_root_key(root_key("other", &["apis.*.read_api"])).await);
    house.pass(10 * 60 * 1_000);
    let delivered = failed(once.root_keys().create_root_key(root_key("once", &["apis.*.read_api"])).await);
    let info = delivered.get_details_error_info().unwrap();
    assert_eq!(info.metadata["root_key_id"], made.root_key_id);
    let resource = |kind, name: &str| Detail::Resource(kind, name.to_owned());
    vec![
        (role, Code::AlreadyExists, "ROLE_ALREADY_EXISTS", resource("Role", "READER")),
        (permission, Code::AlreadyExists, "PERMISSION_ALREADY_EXISTS", resource("Permission", "Documents.Read")),
        (identity, Code::AlreadyExists, "IDENTITY_ALREADY_EXISTS", resource("Identity", "user")),
        (namespace, Code::AlreadyExists, "NAMESPACE_ALREADY_EXISTS", resource("Namespace", "sign-in")),
        (living, Code::AlreadyExists, "KEY_ALREADY_EXISTS", resource("Key", &key.key_id)),
        (delivered, Code::AlreadyExists, "SECRET_ALREADY_DELIVERED", resource("RootKey", &made.root_key_id)),
        (other, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED", Detail::Nothing),
    ]
}
