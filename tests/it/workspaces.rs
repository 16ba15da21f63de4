//! Workspaces: made by the operator, closed to everybody else.

use ostiary::domain::id::WorkspaceId;
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::domain::time::Timestamp;
use ostiary::pb::v1 as pb;
use ostiary::service::caller::Call;
use ostiary::service::pace::Pace;
use ostiary::service::{Ostiary, Purging, Retention, Run, founding};
use ostiary::store::memory::MemoryEngine;
use ostiary::store::{Engine, Row};
use ostiary::world::World;
use std::sync::Arc;
use tonic::{Code, Status};

use crate::harness::{Client, House, START, fields, root_key, texts};
use crate::root_keys::calls::{changing, denied, only, precondition, unauthenticated, why};

/// The table of audit events, which alone remembers a deleted workspace.
const AUDIT: u8 = 0x70;

async fn get(client: &Client, id: &str) -> Result<pb::Workspace, Status> {
    let request = pb::GetWorkspaceRequest { workspace_id: id.into(), ..Default::default() };
    Ok(client.workspaces().get_workspace(request).await?.into_inner().workspace.unwrap())
}

async fn switch(client: &Client, id: &str, enabled: bool) -> Result<pb::Workspace, Status> {
    let request = pb::UpdateWorkspaceRequest { workspace_id: id.into(), enabled: Some(enabled), ..Default::default() };
    Ok(client.workspaces().update_workspace(request).await?.into_inner().workspace.unwrap())
}

async fn delete(client: &Client, id: &str, validate_only: bool) -> Result<pb::DeleteWorkspaceResponse, Status> {
    let request = pb::DeleteWorkspaceRequest { workspace_id: id.into(), validate_only, ..Default::default() };
    Ok(client.workspaces().delete_workspace(request).await?.into_inner())
}

async fn names(client: &Client, part: Option<&str>) -> Vec<String> {
    let filter = part.map(|part| pb::ListWorkspacesFilter { name_contains: Some(part.into()) });
    let request = pb::ListWorkspacesRequest { filter, ..Default::default() };
    let workspaces = client.workspaces().list_workspaces(request).await.unwrap().into_inner().workspaces;
    let mut names: Vec<String> = workspaces.into_iter().map(|workspace| workspace.name).collect();
    names.sort();
    names
}

fn missing() -> (Code, String) {
    (Code::NotFound, "WORKSPACE_NOT_FOUND".into())
}

#[tokio::test]
async fn a_new_workspace_comes_with_a_root_key_that_administers_it() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let request = pb::CreateWorkspaceRequest { name: "tenant".into(), ..Default::default() };
    let answer = operator.workspaces().create_workspace(request).await.unwrap().into_inner();
    let (workspace, first) = (answer.workspace.unwrap(), answer.root_key.unwrap());
    assert_eq!((workspace.name.as_str(), workspace.enabled), ("tenant", true));
    assert_eq!(first.permissions, ["*.*.*"]);
    assert_eq!((first.expire_time, &first.created_by), (None, &None));
    assert_eq!(first.workspace_id, workspace.workspace_id);
    let tenant = operator.with(&answer.secret);
    let me = tenant.me().await.unwrap();
    assert_eq!(me.root_key_id, first.root_key_id);
    tenant.api("documents").await;
    let (_, colleague) = tenant.colleague("colleague", &["*.*.*"]).await;
    assert_eq!(colleague.me().await.unwrap().workspace_id, workspace.workspace_id);
    assert_eq!(tenant.events().await, ["root_key.create", "api.create", "root_key.create"]);
    assert_eq!(operator.recorded("workspace.create").await[1..], [workspace.workspace_id]);
}

#[tokio::test]
async fn nothing_crosses_from_one_workspace_to_another() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (_, tenant) = operator.tenant("tenant").await;
    let api = operator.api("documents").await;
    let role = operator.role("reader", &["documents.read"]).await;
    let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), ..Default::default() };
    let (key, secret) = operator.key(request.clone()).await;
    let me = operator.me().await.unwrap();

    assert_eq!(tenant.verdict(&secret, None).await.code(), pb::VerificationCode::NotFound);
    assert_eq!(why(tenant.keys().create_key(request).await).1, "API_NOT_FOUND");
    let get_key = pb::GetKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    assert_eq!(why(tenant.keys().get_key(get_key).await).1, "KEY_NOT_FOUND");
    let get_api = pb::GetApiRequest { api_id: api.api_id.clone(), ..Default::default() };
    assert_eq!(why(tenant.apis().get_api(get_api).await).1, "API_NOT_FOUND");
    for role in [role.role_id, "reader".into()] {
        let delete_role = pb::DeleteRoleRequest { role, ..Default::default() };
        assert_eq!(why(tenant.roles().delete_role(delete_role).await).1, "ROLE_NOT_FOUND");
    }
    assert_eq!(why(tenant.look(&me.root_key_id).await).1, "ROOT_KEY_NOT_FOUND");
    assert_eq!(why(tenant.rotate(&me.root_key_id, 0).await).1, "ROOT_KEY_NOT_FOUND");
    assert_eq!(why(tenant.remove(&me.root_key_id).await).1, "ROOT_KEY_NOT_FOUND");
    let theirs = tenant.me().await.unwrap().root_key_id;
    assert_eq!(why(operator.look(&theirs).await).1, "ROOT_KEY_NOT_FOUND");
    assert_eq!(tenant.names(pb::ListRootKeysFilter::default()).await, ["first root key"]);
    let apis = tenant.apis().list_apis(pb::ListApisRequest::default()).await.unwrap().into_inner().apis;
    assert_eq!(apis.len(), 0);
    tenant.role("reader", &["documents.read"]).await;
}

#[tokio::test]
async fn the_workspaces_resource_is_out_of_reach_outside_the_operators_workspace() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (workspace, tenant) = operator.tenant("tenant").await;
    let id = workspace.workspace_id.as_str();
    let request = pb::CreateWorkspaceRequest { name: "mine".into(), ..Default::default() };
    assert_eq!(why(tenant.workspaces().create_workspace(request).await), denied("PERMISSION_MISSING"));
    assert_eq!(why(get(&tenant, id).await), denied("PERMISSION_MISSING"));
    assert_eq!(why(switch(&tenant, id, false).await), denied("PERMISSION_MISSING"));
    assert_eq!(why(delete(&tenant, id, false).await), denied("PERMISSION_MISSING"));
    let list = tenant.workspaces().list_workspaces(pb::ListWorkspacesRequest::default()).await;
    assert_eq!(why(list), denied("PERMISSION_MISSING"));
    for grant in ["workspaces.*.*", "workspaces.*.create_workspace", "workspaces.*.read_workspace"] {
        assert_eq!(why(tenant.make(root_key("more", &[grant])).await), denied("GRANT_EXCEEDS_OWN"));
        let widened =
            pb::UpdateRootKeyRequest { permissions: texts(&["*.*.*", grant]), ..changing(&tenant.me().await.unwrap()) };
        assert_eq!(why(tenant.change(widened).await), denied("GRANT_EXCEEDS_OWN"));
    }
    // Nor does the wildcard cover it inside.
    let (_, administrator) = operator.colleague("administrator", &["*.*.*"]).await;
    assert_eq!(why(get(&administrator, id).await), denied("PERMISSION_MISSING"));
    assert_eq!(why(administrator.make(root_key("more", &["workspaces.*.*"])).await), denied("GRANT_EXCEEDS_OWN"));
}

#[tokio::test]
async fn workspaces_are_read_listed_and_renamed_as_far_as_the_grants_go() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (one, _) = operator.tenant("One").await;
    let (two, _) = operator.tenant("two").await;
    assert_eq!(get(&operator, &one.workspace_id).await.unwrap(), one);
    assert_eq!(names(&operator, None).await, ["One", "default", "two"]);
    assert_eq!(names(&operator, Some("ONE")).await, ["One"]);
    let grants =
        ["read_workspace", "update_workspace"].map(|action| format!("workspaces.{}.{action}", one.workspace_id));
    let (_, client) = operator.colleague("narrow", &grants.each_ref().map(String::as_str)).await;
    assert_eq!(names(&client, None).await, ["One"]);
    assert_eq!(why(get(&client, &two.workspace_id).await), missing());
    assert_eq!(why(switch(&client, &two.workspace_id, false).await), missing());
    assert_eq!(why(delete(&client, &one.workspace_id, false).await), denied("PERMISSION_MISSING"));
    house.pass(1);
    let request = pb::UpdateWorkspaceRequest {
        workspace_id: one.workspace_id.clone(),
        name: Some("Uno".into()),
        etag: one.etag.clone(),
        ..Default::default()
    };
    let renamed = client.workspaces().update_workspace(request.clone()).await.unwrap().into_inner().workspace.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.enabled), ("Uno", true));
    assert_ne!((&renamed.etag, renamed.update_time), (&one.etag, one.update_time));
    assert_eq!(why(client.workspaces().update_workspace(request).await).1, "ETAG_MISMATCH");
    let before = operator.events().await;
    assert_eq!(switch(&operator, &one.workspace_id, true).await.unwrap(), renamed);
    assert_eq!(operator.events().await, before);
    let request = pb::UpdateWorkspaceRequest {
        workspace_id: two.workspace_id,
        update_mask: only(&["name", "quota"]),
        ..Default::default()
    };
    let status = operator.workspaces().update_workspace(request).await.unwrap_err();
    assert_eq!(fields(&status), ["update_mask.paths[1]", "name"]);
}

#[tokio::test]
async fn disabling_a_workspace_stops_all_its_root_keys_at_once_and_enabling_it_brings_them_back() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (workspace, tenant) = operator.tenant("tenant").await;
    let (disabled, off) = tenant.colleague("off", &["*.*.*"]).await;
    let (_, expired) = tenant.mortal("expired", &["*.*.*"], 1_000).await;
    tenant.change(pb::UpdateRootKeyRequest { enabled: Some(false), ..changing(&disabled) }).await.unwrap();
    house.pass(1_000);
    let id = workspace.workspace_id.as_str();
    let cleared =
        pb::UpdateWorkspaceRequest { workspace_id: id.into(), update_mask: only(&["enabled"]), ..Default::default() };
    let answer = operator.workspaces().update_workspace(cleared).await.unwrap().into_inner();
    assert!(!answer.workspace.unwrap().enabled);
    for client in [&tenant, &off, &expired] {
        assert_eq!(why(client.me().await), unauthenticated("WORKSPACE_DISABLED"));
    }
    operator.me().await.unwrap();
    switch(&operator, id, true).await.unwrap();
    tenant.me().await.unwrap();
    assert_eq!(why(off.me().await), unauthenticated("ROOT_KEY_DISABLED"));
    assert_eq!(why(expired.me().await), unauthenticated("ROOT_KEY_EXPIRED"));
    let updates = tenant.recorded("workspace.update").await;
    assert_eq!(updates, [id, id]);
}

#[tokio::test]
async fn a_deleted_workspace_is_gone_from_that_very_call_on() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (workspace, tenant) = operator.tenant("tenant").await;
    let id = workspace.workspace_id.as_str();
    let api = tenant.api("documents").await;
    for _ in 0..3 {
        tenant.key(pb::CreateKeyRequest { api_id: api.api_id.clone(), ..Default::default() }).await;
    }
    let (gone, _) = tenant.colleague("gone", &["apis.*.*"]).await;
    tenant.remove(&gone.root_key_id).await.unwrap();
    tenant.colleague("colleague", &["apis.*.*"]).await;
    let foreseen = delete(&operator, id, true).await.unwrap();
    assert_eq!((foreseen.affected_key_count, foreseen.affected_root_key_count), (Some(3), Some(2)));
    tenant.me().await.unwrap();
    let request = pb::DeleteWorkspaceRequest { workspace_id: id.into(), etag: "stale".into(), ..Default::default() };
    assert_eq!(why(operator.workspaces().delete_workspace(request).await).1, "ETAG_MISMATCH");

    let done = delete(&operator, id, false).await.unwrap();
    assert_eq!((done.affected_key_count, done.affected_root_key_count), (None, None));
    for swept in [false, true] {
        if swept {
            house.sweep().await;
        }
        assert_eq!(why(tenant.me().await), unauthenticated("ROOT_KEY_INVALID"));
        assert_eq!(why(get(&operator, id).await), missing());
        assert_eq!(why(switch(&operator, id, true).await), missing());
        assert_eq!(why(delete(&operator, id, false).await), missing());
        assert_eq!(names(&operator, None).await, ["default"]);
    }
    assert_eq!(operator.recorded("workspace.delete").await, [id]);
}

#[tokio::test]
async fn the_operators_workspace_is_neither_disabled_nor_deleted() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let id = operator.me().await.unwrap().workspace_id;
    assert_eq!(why(switch(&operator, &id, false).await), precondition("OPERATOR_WORKSPACE"));
    assert_eq!(why(delete(&operator, &id, false).await), precondition("OPERATOR_WORKSPACE"));
    assert_eq!(why(delete(&operator, &id, true).await), precondition("OPERATOR_WORKSPACE"));
    let request =
        pb::UpdateWorkspaceRequest { workspace_id: id.clone(), name: Some("ours".into()), ..Default::default() };
    operator.workspaces().update_workspace(request).await.unwrap();
    assert_eq!(get(&operator, &id).await.unwrap().name, "ours");
}

#[tokio::test]
async fn a_rehearsed_workspace_is_not_made_and_an_unfit_name_is_refused() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let request = pb::CreateWorkspaceRequest { name: "rehearsed".into(), validate_only: true, ..Default::default() };
    let answer = operator.workspaces().create_workspace(request).await.unwrap().into_inner();
    assert_eq!(answer.secret, "");
    assert_eq!(names(&operator, None).await, ["default"]);
    for name in [String::new(), "x".repeat(256), " padded".into()] {
        let request = pb::CreateWorkspaceRequest { name, ..Default::default() };
        let status = operator.workspaces().create_workspace(request).await.unwrap_err();
        assert_eq!(fields(&status), ["name"]);
    }
}

async fn rows(engine: &MemoryEngine) -> Vec<Row> {
    let view = engine.view().await.unwrap();
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let start = rows.last().map_or(vec![1], |(key, _)| [key, &[0][..]].concat());
        let more = view.scan(start..vec![u8::MAX], 1_000).await.unwrap();
        if more.is_empty() {
            return rows;
        }
        rows.extend(more);
    }
}

#[tokio::test]
async fn the_sweep_leaves_no_row_of_a_deleted_workspace_but_its_part_of_the_log() {
    let world = Arc::new(World::made_up(Timestamp::from_millis(START).unwrap(), 1));
    let engine = Arc::new(MemoryEngine::new(1));
    let first = Secret::issue(&Prefix::root_key(), world.random());
    founding::found(engine.as_ref(), &world, first.clone()).await.unwrap();
    let product = Arc::clone(&engine);
    let ostiary =
        Ostiary::open(product, Arc::clone(&world), Retention::default(), Purging::Allowed, crate::harness::CAPACITY)
            .await
            .unwrap();
    let ostiary = Arc::new(ostiary);
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = crate::harness::serving(ostiary::server::Sweeping::ByHand);
    let running = ostiary::server::serve(Arc::clone(&ostiary), serving, stop.clone()).await.unwrap();
    let operator = Client::connect(crate::harness::tcp(&running), Some(first.expose().to_owned())).await;
    let (workspace, tenant) = operator.tenant("tenant").await;
    let api = tenant.once("remembered").api("documents").await;
    let other = tenant.api("other").await;
    for api in [&api, &other] {
        tenant.role(&format!("reader of {}", api.name), &["documents.read", "documents.list"]).await;
        for life in [1, 2_000_000_000] {
            let request = pb::CreateKeyRequest {
                api_id: api.api_id.clone(),
                roles: vec![format!("reader of {}", api.name)],
                permissions: texts(&["direct"]),
                external_id: Some(format!("user of {}", api.name)),
                expiration: Some(pb::create_key_request::Expiration::Ttl(crate::harness::span(1_000 * life))),
                ..Default::default()
            };
            let (_, secret) = tenant.key(request).await;
            tenant.verdict(&secret, None).await;
        }
    }
    let (gone, _) = tenant.mortal("gone", &["apis.*.*"], 1_000).await;
    tenant.mortal("mortal", &["apis.*.*"], 1_000).await;
    tenant.remove(&gone.root_key_id).await.unwrap();
    let request = pb::DeleteApiRequest { api_id: other.api_id, ..Default::default() };
    tenant.apis().delete_api(request).await.unwrap();
    let request = pb::DeleteRoleRequest { role: "reader of documents".into(), ..Default::default() };
    tenant.roles().delete_role(request).await.unwrap();
    let request = pb::DeleteIdentityRequest { identity: "user of documents".into(), ..Default::default() };
    tenant.identities().delete_identity(request).await.unwrap();
    for name in ["sign-in", "sign-up"] {
        for identifier in ["ada", "a*"] {
            let request = pb::LimitRequest {
                namespace: name.into(),
                identifier: identifier.into(),
                limit: 10,
                duration: Some(crate::harness::span(3_600_000)),
                cost: None,
            };
            tenant.rate_limits().limit(request).await.unwrap();
            let request = pb::SetOverrideRequest {
                namespace: name.into(),
                identifier: identifier.into(),
                limit: Some(5),
                duration: Some(crate::harness::span(3_600_000)),
                ..Default::default()
            };
            tenant.rate_limits().set_override(request).await.unwrap();
        }
    }
    let request = pb::DeleteNamespaceRequest { namespace: "sign-up".into(), ..Default::default() };
    tenant.rate_limits().delete_namespace(request).await.unwrap();
    ostiary.flush_usage(Pace::AtOnce).await.unwrap();
    ostiary.flush_windows(Pace::AtOnce).await.unwrap();

    let id = WorkspaceId::parse(&workspace.workspace_id).unwrap();
    let caller = ostiary.authenticate(&first, Call::default()).await.unwrap();
    ostiary.delete_workspace(&caller, id, String::new(), Run::Apply).await.unwrap();
    // What is still on the schedule finds nothing and goes when it is due; calls are remembered for a day.
    let mut left = Vec::new();
    for days in [0, 1, 1, 90, 40_000] {
        world.advance(std::time::Duration::from_secs(days * 24 * 3_600));
        ostiary.sweep_due().await.unwrap();
        ostiary.sweep_due().await.unwrap();
        ostiary.flush_windows(Pace::AtOnce).await.unwrap();
        let theirs = |(key, _): &&Row| key.windows(16).any(|part| part == id.bytes());
        left = rows(&engine).await.iter().filter(theirs).map(|(key, _)| key[0]).collect();
    }
    left.retain(|tag| *tag != AUDIT);
    assert_eq!(left, Vec::<u8>::new());
    stop.cancel();
    running.finished().await.unwrap();
}
