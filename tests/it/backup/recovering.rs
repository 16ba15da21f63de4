//! A new administrator for a store whose administrators are lost.

use ostiary::pb::v1 as pb;

use super::restoring::check;
use crate::harness::texts;
use crate::process::{Ended, Place};

fn recover(place: &Place, arguments: &[&str]) -> Ended {
    let data = place.data();
    place.run(&[&["recover", "--data-dir", data.to_str().unwrap()], arguments].concat())
}

#[tokio::test]
async fn whoever_can_write_the_store_gets_an_administrator_though_all_are_gone_and_the_log_says_so() {
    let place = Place::new();
    let server = place.serve(&[]);
    let operator = server.client(&place.first_root_key()).await;
    let me = operator.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner();
    let (workspace, first) = (me.workspace.unwrap(), me.root_key.unwrap());
    // No room for another root key, and then no root key.
    let quotas = Some(pb::WorkspaceQuotas { max_root_keys: Some(1), ..Default::default() });
    let update_mask = Some(prost_types::FieldMask { paths: texts(&["quotas"]) });
    let workspace_id = workspace.workspace_id.clone();
    let request = pb::UpdateWorkspaceRequest { workspace_id, quotas, update_mask, ..Default::default() };
    operator.workspaces().update_workspace(request).await.unwrap();
    let request = pb::DeleteRootKeyRequest { root_key_id: first.root_key_id, force: true, ..Default::default() };
    operator.root_keys().delete_root_key(request).await.unwrap();

    let refused = recover(&place, &[]);
    let told = refused.stderr.contains("another process has") && refused.stderr.contains("stop that one first");
    assert!(refused.code == Some(1) && told && refused.stdout.is_empty(), "{refused:?}");
    assert_eq!(server.stop().code, Some(0));

    let mut secrets = Vec::new();
    for arguments in [&[][..], &["--name", "glass breaker"]] {
        let recovered = recover(&place, arguments);
        assert_eq!(recovered.code, Some(0), "{recovered:?}");
        let secret = recovered.stdout.strip_suffix('\n').unwrap().to_owned();
        assert!(secret.starts_with("ostiary_") && !secret.contains('\n'), "the secret is alone");
        assert!(!recovered.stderr.contains(&secret) && recovered.stderr.contains("rk_"), "{recovered:?}");
        secrets.push(secret);
    }
    assert_eq!(check(&place).code, Some(0));

    let server = place.serve(&[]);
    let mut names = Vec::new();
    for secret in &secrets {
        let client = server.client(secret).await;
        let me = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner();
        assert_eq!(me.workspace.unwrap().workspace_id, workspace.workspace_id);
        names.push(me.root_key.unwrap().name);
        client.neighbour(&format!("made by {secret}")[..20]).await;
    }
    assert_eq!(names, ["recovered administrator", "glass breaker"]);
    let client = server.client(&secrets[0]).await;
    let filter = pb::ListAuditEventsFilter { event: Some("root_key.recover".into()), ..Default::default() };
    let request = pb::ListAuditEventsRequest { filter: Some(filter), ..Default::default() };
    let events = client.audit().list_audit_events(request).await.unwrap().into_inner().events;
    assert_eq!(events.len(), 2);
    for (event, name) in events.iter().zip(&names) {
        assert_eq!(event.actor.as_ref().unwrap().r#type(), pb::AuditActorType::Operator);
        assert_eq!((event.targets[0].kind.as_str(), &event.targets[0].name), ("root_key", name));
    }
    let log = server.stop();
    assert!(secrets.iter().all(|secret| !log.stderr.contains(secret)));
}

#[test]
fn a_name_that_is_none_and_a_directory_without_a_store_are_refused() {
    let place = Place::new();
    assert_eq!(recover(&place, &["--name", ""]).code, Some(2));
    let refused = recover(&place, &[]);
    assert!(refused.code == Some(1) && refused.stderr.contains("there is no store"), "{refused:?}");
    assert!(!place.data().exists());
}
