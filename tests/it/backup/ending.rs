//! What a restoring ends: nothing, what has changed since, all keys, all root keys.

use ostiary::pb::v1 as pb;
use tonic::Code;

use super::restoring::{back_up, check, restore};
use crate::harness::{Client, refusal, texts};
use crate::process::{Ended, Place};

const VALID: &str = "VERIFICATION_CODE_VALID";
const NOT_FOUND: &str = "VERIFICATION_CODE_NOT_FOUND";
const INSUFFICIENT: &str = "VERIFICATION_CODE_INSUFFICIENT_PERMISSIONS";

/// An installation with a backup, after which much has changed; not served.
struct Scene {
    place: Place,
    first: String,
    /// Root keys by name.
    root_keys: Vec<(&'static str, String)>,
    /// Keys by name.
    keys: Vec<(&'static str, String)>,
    /// The administrator of another workspace, which has been disabled since.
    tenant: String,
}

impl Scene {
    async fn new() -> Self {
        let place = Place::new();
        let server = place.serve(&[]);
        let first = place.first_root_key();
        let operator = server.client(&first).await;
        let mut root_keys = Vec::new();
        for name in ["kept server", "revoked server"] {
            root_keys.push((name, operator.root_key(name, &["apis.*.verify_key"]).await.1));
        }
        let (api, gone, narrowed) =
            (operator.api("documents").await, operator.api("gone").await, operator.api("narrowed").await);
        operator.role("editor", &["documents.read"]).await;
        let mut keys = Vec::new();
        for (name, api) in [
            ("kept", &api),
            ("deleted", &api),
            ("revoked by filter", &api),
            ("disabled", &api),
            ("of the API that goes", &gone),
            ("of the API that is narrowed", &narrowed),
        ] {
            let external_id = (name == "revoked by filter").then(|| "user".to_owned());
            let roles = texts(&["editor"]);
            let api_id = api.api_id.clone();
            let request = pb::CreateKeyRequest { api_id, name: name.into(), roles, external_id, ..Default::default() };
            keys.push((name, operator.key(request).await.1));
        }
        let tenant = operator.neighbour("tenant").await.headers.secret.unwrap();
        let taken = back_up(&place, &server, &first, &["a.backup"]);
        assert_eq!(taken.code, Some(0), "{taken:?}");
        change_much(&operator, &[api, gone, narrowed]).await;
        assert_eq!(server.stop().code, Some(0));
        Self { place, first, root_keys, keys, tenant }
    }

    fn restore(&self, revoke: &[&str]) -> Ended {
        let revoke: Vec<&str> = revoke.iter().flat_map(|what| ["--revoke", what]).collect();
        let ended = restore(&self.place, &[&["a.backup", "--replace"], revoke.as_slice()].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(check(&self.place).code, Some(0));
        ended
    }

    /// What each key comes to, for what its role allows.
    async fn verdicts(&self, client: &Client) -> Vec<(&'static str, String)> {
        let mut verdicts = Vec::new();
        for (name, secret) in &self.keys {
            let verdict = client.verdict(secret, Some("documents.read")).await;
            verdicts.push((*name, verdict.code().as_str_name().to_owned()));
        }
        verdicts
    }
}

async fn change_much(operator: &Client, apis: &[pb::Api; 3]) {
    let [api, gone, narrowed] = apis;
    let listed = operator.keys().list_keys(pb::ListKeysRequest::default()).await.unwrap().into_inner().keys;
    let id = |name: &str| listed.iter().find(|key| key.name == name).unwrap().key_id.clone();
    let request = pb::DeleteKeyRequest { key_id: id("deleted"), ..Default::default() };
    operator.keys().delete_key(request).await.unwrap();
    let filter =
        pb::RevokeKeysFilter { api_id: Some(api.api_id.clone()), identity: Some("user".into()), ..Default::default() };
    let request = pb::RevokeKeysRequest { filter: Some(filter), ..Default::default() };
    assert_eq!(operator.keys().revoke_keys(request).await.unwrap().into_inner().revoked_count, 1);
    let request = pb::UpdateKeyRequest { key_id: id("disabled"), enabled: Some(false), ..Default::default() };
    operator.keys().update_key(request).await.unwrap();
    let request = pb::DeleteApiRequest { api_id: gone.api_id.clone(), ..Default::default() };
    operator.apis().delete_api(request).await.unwrap();
    let request = pb::UpdateApiRequest {
        api_id: narrowed.api_id.clone(),
        allowed_cidrs: texts(&["192.0.2.0/24"]),
        ..Default::default()
    };
    operator.apis().update_api(request).await.unwrap();
    let root_keys = operator.root_keys().list_root_keys(pb::ListRootKeysRequest::default()).await.unwrap().into_inner();
    let revoked = root_keys.root_keys.into_iter().find(|key| key.name == "revoked server").unwrap();
    let request = pb::DeleteRootKeyRequest { root_key_id: revoked.root_key_id, ..Default::default() };
    operator.root_keys().delete_root_key(request).await.unwrap();
    let request = pb::ListWorkspacesRequest::default();
    let workspaces = operator.workspaces().list_workspaces(request).await.unwrap().into_inner().workspaces;
    let tenant = workspaces.into_iter().find(|workspace| workspace.name == "tenant").unwrap();
    let request =
        pb::UpdateWorkspaceRequest { workspace_id: tenant.workspace_id, enabled: Some(false), ..Default::default() };
    operator.workspaces().update_workspace(request).await.unwrap();
    let request = pb::DeleteRoleRequest { role: "editor".into(), ..Default::default() };
    operator.roles().delete_role(request).await.unwrap();
}

async fn who(place: &Place, secret: &str) -> Result<(), (Code, String)> {
    let server = place.serve(&[]);
    let client = server.client(secret).await;
    let answer = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await;
    assert_eq!(server.stop().code, Some(0));
    answer.map(|_| ()).map_err(|status| refusal::<()>(Err(status)))
}

#[tokio::test]
async fn a_restored_store_knows_nothing_of_what_came_later_and_says_so() {
    let scene = Scene::new().await;
    let ended = scene.restore(&[]);
    assert!(ended.stderr.contains("warning: ") && ended.stderr.contains("good again"), "{ended:?}");
    let server = scene.place.serve(&[]);
    let operator = server.client(&scene.first).await;
    for (name, code) in scene.verdicts(&operator).await {
        assert_eq!(code, VALID, "{name}");
    }
    for (name, secret) in &scene.root_keys {
        let answer = server.client(secret).await.root_keys().who_am_i(pb::WhoAmIRequest::default()).await;
        assert!(answer.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn what_has_changed_since_is_ended_by_the_store_that_is_replaced_and_nothing_else_is() {
    let scene = Scene::new().await;
    let ended = scene.restore(&["changed"]);
    assert!(ended.stdout.contains("ended, changed: 3 keys, 1 root keys, 1 roles"), "{ended:?}");
    let server = scene.place.serve(&[]);
    let operator = server.client(&scene.first).await;
    let expected = [
        ("kept", INSUFFICIENT),
        ("deleted", NOT_FOUND),
        ("revoked by filter", NOT_FOUND),
        ("disabled", NOT_FOUND),
        ("of the API that goes", NOT_FOUND),
        ("of the API that is narrowed", NOT_FOUND),
    ];
    let verdicts = scene.verdicts(&operator).await;
    assert_eq!(verdicts, expected.map(|(name, code)| (name, code.to_owned())));
    for (name, secret) in &scene.root_keys {
        let answer = server.client(secret).await.root_keys().who_am_i(pb::WhoAmIRequest::default()).await;
        match *name {
            "kept server" => assert!(answer.is_ok()),
            _ => assert_eq!(refusal(answer), (Code::Unauthenticated, "ROOT_KEY_INVALID".to_owned())),
        }
    }
    let tenant = server.client(&scene.tenant).await.root_keys().who_am_i(pb::WhoAmIRequest::default()).await;
    assert_eq!(refusal(tenant), (Code::Unauthenticated, "WORKSPACE_DISABLED".to_owned()));
    // All of it is in the log, done by the operator.
    let request = pb::ListAuditEventsRequest { page_size: 1_000, ..Default::default() };
    let events = operator.audit().list_audit_events(request).await.unwrap().into_inner().events;
    let restored = events.iter().position(|event| event.event == "store.restore").unwrap();
    let after: Vec<_> = events[restored + 1..]
        .iter()
        .filter(|event| event.actor.as_ref().unwrap().r#type() == pb::AuditActorType::Operator)
        .map(|event| event.event.as_str())
        .collect();
    let expected =
        ["api.delete", "keys.revoke", "keys.revoke", "keys.revoke", "keys.revoke", "root_key.delete", "role.delete"];
    assert_eq!(after, expected);
}

#[tokio::test]
async fn all_keys_and_all_root_keys_can_be_ended_without_the_store_that_was_there() {
    let scene = Scene::new().await;
    std::fs::remove_file(super::restoring::store(&scene.place)).unwrap();
    let ended = restore(&scene.place, &["a.backup", "--revoke", "keys"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let server = scene.place.serve(&[]);
    let operator = server.client(&scene.first).await;
    for (name, code) in scene.verdicts(&operator).await {
        assert_eq!(code, NOT_FOUND, "{name}");
    }
    // What is made from now on is good.
    let (_, fresh) = operator.plain_key(&operator.api("fresh").await, "customer").await;
    assert_eq!(operator.verdict(&fresh, None).await.code().as_str_name(), VALID);
    assert_eq!(server.stop().code, Some(0));

    let ended = scene.restore(&["root-keys,keys"]);
    assert!(ended.stdout.contains("ended, root-keys: 0 keys, 4 root keys"), "{ended:?}");
    for secret in [&scene.first, &scene.tenant] {
        let invalid = (Code::Unauthenticated, "ROOT_KEY_INVALID".to_owned());
        assert_eq!(who(&scene.place, secret).await, Err(invalid));
    }
    let data = scene.place.data();
    let recovered = scene.place.run(&["recover", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    assert_eq!(who(&scene.place, recovered.stdout.trim()).await, Ok(()));
}

#[test]
fn comparing_needs_something_to_compare_with() {
    let place = Place::new();
    let refused = restore(&place, &["a.backup", "--revoke", "changed"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("--replace"), "{refused:?}");
    place.write("a.backup", "");
    let refused = restore(&place, &["a.backup", "--revoke", "changed", "--replace"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("there is no store"), "{refused:?}");
}

#[tokio::test]
async fn a_store_that_was_restored_from_an_older_backup_does_not_tell_what_has_changed_since_a_newer_one() {
    let place = Place::new();
    let server = place.serve(&[]);
    let first = place.first_root_key();
    let operator = server.client(&first).await;
    let api = operator.api("documents").await;
    assert_eq!(back_up(&place, &server, &first, &["older.backup"]).code, Some(0));
    let (key, _) = operator.plain_key(&api, "customer").await;
    assert_eq!(back_up(&place, &server, &first, &["newer.backup"]).code, Some(0));
    let request = pb::DeleteKeyRequest { key_id: key.key_id, ..Default::default() };
    operator.keys().delete_key(request).await.unwrap();
    assert_eq!(server.stop().code, Some(0));

    // What is there now has never heard of the key, nor of its end.
    assert_eq!(restore(&place, &["older.backup", "--replace"]).code, Some(0));
    let refused = restore(&place, &["newer.backup", "--replace", "--revoke", "changed"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("does not know all"), "{refused:?}");
    // Of the backup that it was made from it knows everything.
    let ended = restore(&place, &["older.backup", "--replace", "--revoke", "changed"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(check(&place).code, Some(0));
}
