//! The quick start of README.md once more, with a client of its own, against the real program in real time.
//!
//! `tests/story.sh` runs the commands of the page themselves; this needs nothing but Rust.

use crate::harness::{Client, refusal, root_key, span, texts};
use crate::process::Place;
use ostiary::pb::v1 as pb;
use tonic::Code;

async fn who_am_i(client: &Client) -> Result<pb::RootKey, (Code, String)> {
    match client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await {
        Ok(answer) => Ok(answer.into_inner().root_key.unwrap()),
        Err(status) => Err(refusal::<()>(Err(status))),
    }
}

#[tokio::test]
async fn keys_are_made_verified_stripped_of_a_role_and_rotated_and_the_audit_log_tells_it() {
    let place = Place::new();
    let server = place.serve(&[]);
    let admin = server.client(&place.first_root_key()).await;
    assert_eq!(who_am_i(&admin).await.unwrap().name, "first root key");
    std::fs::remove_file(place.first_root_key_file()).unwrap();

    let permissions = [
        "apis.*.create_api",
        "apis.*.create_key",
        "apis.*.verify_key",
        "rbac.*.add_permission_to_role",
        "rbac.*.add_role_to_key",
        "rbac.*.create_permission",
        "rbac.*.create_role",
        "rbac.*.delete_role",
    ];
    let request = root_key("documents service", &permissions);
    let made = admin.root_keys().create_root_key(request).await.unwrap().into_inner();
    let (dedicated, secret) = (made.root_key.unwrap(), made.secret);
    assert_eq!(dedicated.permissions, permissions);
    let service = admin.with(&secret);

    let api_id = service.api("documents").await.api_id;
    for slug in ["documents.read", "documents.write"] {
        let request = pb::CreatePermissionRequest { slug: slug.into(), ..Default::default() };
        service.permissions().create_permission(request).await.unwrap();
    }
    let role = service.role("editor", &["documents.read", "documents.write"]).await;
    let request = pb::CreateKeyRequest {
        api_id,
        name: "customer 42".into(),
        prefix: Some("docs".into()),
        roles: texts(&["editor"]),
        ..Default::default()
    };
    let (key, key_secret) = service.key(request).await;
    assert!(key_secret.starts_with("docs_"));

    let query = Some("documents.read AND documents.write");
    let verdict = service.verdict(&key_secret, query).await;
    assert_eq!((verdict.valid, verdict.code()), (true, pb::VerificationCode::Valid));
    let request = pb::DeleteRoleRequest { role: "editor".into(), ..Default::default() };
    service.roles().delete_role(request).await.unwrap();
    let verdict = service.verdict(&key_secret, query).await;
    assert_eq!((verdict.valid, verdict.code()), (false, pb::VerificationCode::InsufficientPermissions));

    // What the dedicated root key was not given it can't do.
    let refused = refusal(service.root_keys().create_root_key(root_key("another", &["apis.*.verify_key"])).await);
    assert_eq!(refused, (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));

    let request = pb::RotateRootKeyRequest {
        root_key_id: dedicated.root_key_id.clone(),
        grace_period: Some(span(3_000)),
        ..Default::default()
    };
    let rotated = admin.root_keys().rotate_root_key(request).await.unwrap().into_inner();
    let successor = admin.with(&rotated.secret);
    assert_eq!(who_am_i(&service).await.unwrap().state(), pb::RootKeyState::RotatedOut);
    assert_eq!(who_am_i(&successor).await.unwrap().permissions, permissions);
    let refused = loop {
        match who_am_i(&service).await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, (Code::Unauthenticated, "ROOT_KEY_EXPIRED".to_owned()));
    assert_eq!(who_am_i(&successor).await.unwrap().state(), pb::RootKeyState::Active);

    let told = async || {
        let request = pb::ListAuditEventsRequest { page_size: 1_000, ..Default::default() };
        let events = admin.audit().list_audit_events(request).await.unwrap().into_inner().events;
        let told = events.into_iter().map(|event| (event.event, event.targets[0].id.clone(), event.actor.unwrap().id));
        told.collect::<Vec<_>>()
    };
    let mut events = told().await;
    // The sweep records the expiry in its own time.
    for _ in 0..500 {
        if events.iter().any(|(event, ..)| event == "root_key.expire") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        events = told().await;
    }
    let names: Vec<&str> = events.iter().map(|(event, ..)| event.as_str()).collect();
    let expected = [
        "workspace.create",
        "root_key.create",
        "root_key.create",
        "api.create",
        "permission.create",
        "permission.create",
        "role.create",
        "key.create",
        "role.delete",
        "root_key.rotate",
        "root_key.expire",
    ];
    assert_eq!(names, expected);
    assert_eq!(events[7].1, key.key_id);
    assert_eq!((&events[8].1, &events[8].2), (&role.role_id, &dedicated.root_key_id));
    assert_eq!((&events[10].1, events[10].2.as_str()), (&dedicated.root_key_id, ""));
    assert_eq!(server.stop().code, Some(0));
}

#[tokio::test]
async fn a_successor_and_its_predecessors_end_outlive_a_restart() {
    let place = Place::new();
    let server = place.serve(&[]);
    let admin_secret = place.first_root_key();
    let admin = server.client(&admin_secret).await;
    let (first, secret) = admin.root_key("service", &["apis.*.verify_key"]).await;
    let request = pb::RotateRootKeyRequest {
        root_key_id: first.root_key_id,
        grace_period: Some(span(2_000)),
        ..Default::default()
    };
    let rotated = admin.root_keys().rotate_root_key(request).await.unwrap().into_inner();
    drop(admin);
    server.kill();
    let server = place.serve(&[]);
    assert_eq!(who_am_i(&server.client(&rotated.secret).await).await.unwrap().state(), pb::RootKeyState::Active);
    let old = server.client(&secret).await;
    let refused = loop {
        match who_am_i(&old).await {
            Ok(root_key) => assert_eq!(root_key.state(), pb::RootKeyState::RotatedOut),
            Err(refused) => break refused,
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(refused, (Code::Unauthenticated, "ROOT_KEY_EXPIRED".to_owned()));
}
