//! Who shares an installation: objects that a caller has, objects that it must not learn of, objects that never were.

use std::collections::BTreeMap;

use ostiary::domain::capability::{Capability, Resource};
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::pb::v1 as pb;
use ostiary::server::Sweeping;

use super::walk::{Kind, Object};
use crate::harness::{Client, House, Kept, span, texts};

pub type Objects = BTreeMap<Kind, Object>;

/// An operator workspace with two sets of objects, a tenant with its own, and a set that doesn't exist.
pub struct Neighbours {
    pub house: House,
    /// The administrator of the operator workspace.
    pub operator: Client,
    /// Somebody of another one who may do everything but make permissions and namespaces, so that naming one never
    /// makes it.
    pub tenant: Client,
    /// What callers of the operator workspace have.
    pub own: Objects,
    /// What is there besides.
    pub hidden: Objects,
    /// What the tenant has.
    pub tenants: Objects,
    /// What nobody has.
    pub missing: Objects,
}

impl Neighbours {
    pub async fn new() -> Self {
        let house = House::build(Kept::InMemory, Sweeping::ByHand, 1).await;
        let operator = house.operator().await;
        let request = pb::CreateWorkspaceRequest { name: "tenant".into(), ..Default::default() };
        let made = operator.workspaces().create_workspace(request).await.unwrap().into_inner();
        let founder = house.client(&made.secret).await;
        let own = objects(&operator, "ours", Some(&operator)).await;
        let hidden = objects(&operator, "hide", Some(&operator)).await;
        let mut tenants = objects(&founder, "them", None).await;
        let everything = |capability: &Capability| {
            let makes_by_naming = [Capability::CreatePermission, Capability::CreateNamespace].contains(capability);
            capability.resource() != Resource::Workspaces && !makes_by_naming
        };
        let grants: Vec<String> = Capability::ALL.iter().filter(|c| everything(c)).map(ToString::to_string).collect();
        let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
        let tenant = founder.with(&founder.root_key("tenant", &grants).await.1);
        tenants.insert(Kind::Workspace, Object::of_id(made.workspace.unwrap().workspace_id));
        let missing = missing(&hidden);
        Self { house, operator, tenant, own, hidden, tenants, missing }
    }

    /// A caller of the operator workspace that holds everything, but for that kind only what names its own object.
    pub async fn narrow(&self, kind: Kind) -> Client {
        let own = &self.own[&kind.granted_by()].id;
        let grants = grants(|named| (named == Some(kind.granted_by())).then(|| own.clone()).or(Some("*".into())));
        self.caller(&grants).await
    }

    /// A caller of the operator workspace that holds everything but for that kind.
    pub async fn without(&self, kind: Kind) -> Client {
        let grants = grants(|named| (named != Some(kind.granted_by())).then(|| "*".into()));
        self.caller(&grants).await
    }

    /// A caller of the operator workspace with these grants.
    pub async fn caller(&self, grants: &[String]) -> Client {
        let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
        let (_, secret) = self.operator.root_key("some caller", &grants).await;
        self.operator.with(&secret)
    }
}

/// A grant of every capability, with the id that `id` says for the kind that it names; none leaves it out.
fn grants(id: impl Fn(Option<Kind>) -> Option<String>) -> Vec<String> {
    let grant = |capability: &Capability| {
        Some(format!("{}.{}.{}", capability.resource().name(), id(named_by(*capability))?, capability.action()))
    };
    Capability::ALL.iter().filter_map(grant).collect()
}

/// What the id in a grant of it is; none where it has none, or where nothing of that kind can be made yet.
fn named_by(capability: Capability) -> Option<Kind> {
    let of_role = ["read_role", "update_role", "delete_role", "add_role_to_key", "remove_role_from_key"];
    match capability.resource() {
        _ if capability.whole_only() => None,
        Resource::Apis => Some(Kind::Api),
        Resource::Rbac if of_role.contains(&capability.action()) => Some(Kind::Role),
        Resource::Rbac => Some(Kind::Permission),
        Resource::RootKeys => Some(Kind::RootKey),
        Resource::Workspaces => Some(Kind::Workspace),
        Resource::Identities => Some(Kind::Identity),
        Resource::Ratelimits => Some(Kind::Namespace),
        Resource::Audit | Resource::Leaks => None,
    }
}

async fn objects(client: &Client, name: &str, operator: Option<&Client>) -> Objects {
    let api = client.api(name).await;
    let role = client.role(name, &[]).await;
    let slug = format!("{name}.permission");
    let request = pb::CreatePermissionRequest { slug: slug.clone(), ..Default::default() };
    let permission = client.permissions().create_permission(request).await.unwrap().into_inner().permission.unwrap();
    let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), permissions: texts(&[]), ..Default::default() };
    let (key, secret) = client.key(request).await;
    let request = pb::CreateIdentityRequest { external_id: format!("{name}-1"), ..Default::default() };
    let identity = client.identities().create_identity(request).await.unwrap().into_inner().identity.unwrap();
    let request = pb::CreateNamespaceRequest { name: format!("{name}-2"), ..Default::default() };
    let namespace = client.rate_limits().create_namespace(request).await.unwrap().into_inner().namespace.unwrap();
    // The first is the one that bodies name.
    for identifier in ["a name", "another name"] {
        let request = pb::SetOverrideRequest {
            namespace: namespace.namespace_id.clone(),
            identifier: identifier.into(),
            limit: Some(1),
            duration: Some(span(60_000)),
            ..Default::default()
        };
        client.rate_limits().set_override(request).await.unwrap();
    }
    let (root_key, _) = client.root_key(name, &["apis.*.read_api"]).await;
    let mut objects = BTreeMap::from([
        (Kind::Api, Object::of_id(api.api_id)),
        (Kind::Key, Object::of_id(key.key_id)),
        (Kind::Secret, Object::of_id(secret)),
        (Kind::Role, Object { id: role.role_id, name: Some(role.name) }),
        (Kind::Permission, Object { id: permission.permission_id, name: Some(slug) }),
        (Kind::RootKey, Object::of_id(root_key.root_key_id)),
        (Kind::Identity, Object { id: identity.identity_id, name: Some(identity.external_id) }),
        (Kind::Namespace, Object { id: namespace.namespace_id, name: Some(namespace.name) }),
    ]);
    if let Some(operator) = operator {
        let request = pb::CreateWorkspaceRequest { name: name.into(), ..Default::default() };
        let made = operator.workspaces().create_workspace(request).await.unwrap().into_inner();
        objects.insert(Kind::Workspace, Object::of_id(made.workspace.unwrap().workspace_id));
    }
    objects
}

/// Names of the same shape and length that nothing bears.
fn missing(objects: &Objects) -> Objects {
    let never = |kind: Kind, object: &Object| match kind {
        Kind::Secret => Object::of_id(Secret::issue(&Prefix::default(), [9; 24]).expose()),
        _ => {
            let prefix = object.id.split('_').next().unwrap();
            let name = object.name.as_ref().map(|name| name.replace("hide", "none"));
            Object { id: format!("{prefix}_{}", "7".repeat(26)), name }
        }
    };
    let missing: Objects = objects.iter().map(|(kind, object)| (*kind, never(*kind, object))).collect();
    assert_eq!(missing.len(), Kind::ALL.len());
    for (kind, object) in &missing {
        assert_eq!(object.id.len(), objects[kind].id.len(), "{kind:?}");
    }
    missing
}
