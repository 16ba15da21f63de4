//! Every answer reflects every change that was answered before, on whichever connection.

use super::*;
use crate::harness::at;

#[tokio::test]
async fn the_very_next_verification_on_another_connection_sees_every_change() {
    let house = House::new().await;
    let (changer, verifier) = (house.operator().await, house.operator().await);
    let api = changer.api("documents").await;
    changer.role("reader", &["documents.read"]).await;
    let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), permissions: texts(&["a"]), ..Default::default() };
    let (key, secret) = changer.key(request).await;
    let update = |request: pb::UpdateKeyRequest| {
        let changer = changer.clone();
        let request = pb::UpdateKeyRequest { key_id: key.key_id.clone(), ..request };
        async move { changer.keys().update_key(request).await.unwrap().into_inner().key.unwrap() }
    };
    let code = async |query: Option<&str>| verifier.verdict(&secret, query).await.code();
    let (key_id, reader) = (key.key_id.clone(), texts(&["reader"]));

    assert_eq!(code(None).await, Code::Valid);
    update(pb::UpdateKeyRequest { enabled: Some(false), ..Default::default() }).await;
    assert_eq!(code(None).await, Code::Disabled);
    update(pb::UpdateKeyRequest { enabled: Some(true), ..Default::default() }).await;
    assert_eq!(code(None).await, Code::Valid);

    assert_eq!(code(Some("documents.read")).await, Code::InsufficientPermissions);
    let request = pb::AddKeyRolesRequest { key_id: key_id.clone(), roles: reader.clone(), ..Default::default() };
    changer.keys().add_key_roles(request).await.unwrap();
    assert_eq!(code(Some("documents.read")).await, Code::Valid);
    let set = |slugs: &[&str]| pb::SetRolePermissionsRequest {
        role: "reader".into(),
        permissions: texts(slugs),
        ..Default::default()
    };
    changer.roles().set_role_permissions(set(&["documents.list"])).await.unwrap();
    assert_eq!(code(Some("documents.read")).await, Code::InsufficientPermissions);
    assert_eq!(code(Some("documents.list")).await, Code::Valid);
    let request = pb::RemoveKeyRolesRequest { key_id: key_id.clone(), roles: reader, ..Default::default() };
    changer.keys().remove_key_roles(request).await.unwrap();
    assert_eq!(code(Some("documents.list")).await, Code::InsufficientPermissions);
    update(pb::UpdateKeyRequest { roles: texts(&["reader"]), ..Default::default() }).await;
    assert_eq!(code(Some("documents.list")).await, Code::Valid);
    let request = pb::DeleteRoleRequest { role: "reader".into(), ..Default::default() };
    changer.roles().delete_role(request).await.unwrap();
    assert_eq!(code(Some("documents.list")).await, Code::InsufficientPermissions);

    assert_eq!(code(Some("a")).await, Code::Valid);
    let request = pb::DeletePermissionRequest { permission: "a".into(), ..Default::default() };
    changer.permissions().delete_permission(request).await.unwrap();
    assert_eq!(code(Some("a")).await, Code::InsufficientPermissions);
    let request =
        pb::AddKeyPermissionsRequest { key_id: key_id.clone(), permissions: texts(&["b"]), ..Default::default() };
    changer.keys().add_key_permissions(request).await.unwrap();
    assert_eq!(code(Some("b")).await, Code::Valid);
    let request = pb::SetKeyPermissionsRequest { key_id: key_id.clone(), ..Default::default() };
    changer.keys().set_key_permissions(request).await.unwrap();
    assert_eq!(code(Some("b")).await, Code::InsufficientPermissions);

    let soon = house.now() + 1_000;
    update(pb::UpdateKeyRequest { expire_time: Some(at(soon)), ..Default::default() }).await;
    house.pass(999);
    assert_eq!(code(None).await, Code::Valid);
    house.pass(1);
    assert_eq!(code(None).await, Code::Expired);
    update(pb::UpdateKeyRequest { update_mask: mask(&["expire_time"]), ..Default::default() }).await;
    assert_eq!(code(None).await, Code::Valid);

    update(pb::UpdateKeyRequest { allowed_cidrs: texts(&["10.0.0.0/8"]), ..Default::default() }).await;
    assert_eq!(code(None).await, Code::Forbidden);
    update(pb::UpdateKeyRequest { update_mask: mask(&["allowed_cidrs"]), ..Default::default() }).await;
    assert_eq!(code(None).await, Code::Valid);
    let of_api = |request| pb::UpdateApiRequest { api_id: api.api_id.clone(), ..request };
    let request = of_api(pb::UpdateApiRequest { allowed_cidrs: texts(&["10.0.0.0/8"]), ..Default::default() });
    changer.apis().update_api(request).await.unwrap();
    assert_eq!(code(None).await, Code::Forbidden);
    let request = of_api(pb::UpdateApiRequest { update_mask: mask(&["allowed_cidrs"]), ..Default::default() });
    changer.apis().update_api(request).await.unwrap();
    assert_eq!(code(None).await, Code::Valid);

    let request = pb::DeleteKeyRequest { key_id: key_id.clone(), ..Default::default() };
    changer.keys().delete_key(request).await.unwrap();
    assert_eq!(code(None).await, Code::NotFound);
    let request = pb::UndeleteKeyRequest { key_id: key_id.clone(), ..Default::default() };
    changer.keys().undelete_key(request).await.unwrap();
    assert_eq!(code(None).await, Code::Valid);
    let request = pb::DeleteApiRequest { api_id: api.api_id.clone(), ..Default::default() };
    changer.apis().delete_api(request).await.unwrap();
    assert_eq!(code(None).await, Code::NotFound);
}

#[tokio::test]
async fn a_verification_may_ask_for_a_state_at_least_as_new_as_any_that_was_issued() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let request = pb::CreateKeyRequest { api_id: api.api_id, ..Default::default() };
    let response = client.keys().create_key(request).await.unwrap().into_inner();
    let revision = response.meta.unwrap().revision;
    let (epoch, counter) = revision.split_once('.').unwrap();
    let counter: u64 = counter.parse().unwrap();
    let secret = response.secret;
    let asked = |min_revision: String| {
        let question = pb::VerifyKeyRequest { min_revision, ..about(&secret) };
        let client = client.clone();
        async move { client.keys().verify_key(question).await }
    };
    for known in [revision.clone(), format!("{epoch}.{}", counter - 1), format!("{epoch}.0"), String::new()] {
        let response = asked(known.clone()).await.unwrap().into_inner();
        assert_eq!(response.verdict.unwrap().code(), Code::Valid, "{known}");
        assert_eq!(response.meta.unwrap().revision, revision, "{known}");
    }
    for unknown in [format!("{epoch}.{}", counter + 1), format!("0000000000000000.{counter}")] {
        let refused = refusal(asked(unknown.clone()).await);
        assert_eq!(refused, (Grpc::FailedPrecondition, "REVISION_UNKNOWN".to_owned()), "{unknown}");
    }
    for nonsense in ["7", ".", "latest", &format!("{epoch}.-1"), &format!("{epoch}.007")] {
        let status = asked(nonsense.to_owned()).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Grpc::InvalidArgument, texts(&["min_revision"])), "{nonsense}");
    }
}
