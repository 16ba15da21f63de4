//! Deleting keys, for a while or for good, and bringing them back.

use super::*;

const DAY: u64 = 24 * 3_600_000;

async fn delete(client: &Client, key_id: &str, permanent: bool) -> Outcome {
    let request = pb::DeleteKeyRequest { key_id: key_id.into(), permanent, ..Default::default() };
    let answer = client.keys().delete_key(request).await;
    if answer.is_ok() { Ok(()) } else { Err(refusal(answer)) }
}

async fn undelete(client: &Client, key_id: &str) -> Result<pb::Key, (Grpc, String)> {
    let request = pb::UndeleteKeyRequest { key_id: key_id.into(), ..Default::default() };
    match client.keys().undelete_key(request).await {
        Ok(response) => Ok(response.into_inner().key.unwrap()),
        refused => Err(refusal(refused)),
    }
}

#[tokio::test]
async fn a_deleted_key_can_be_read_and_restored_and_nothing_else() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["documents.read"]).await;
    let request = pb::CreateKeyRequest {
        name: "Ada".into(),
        roles: texts(&["reader"]),
        permissions: texts(&["a"]),
        enabled: Some(false),
        ..of(&api)
    };
    let (key, secret) = client.key(request).await;
    house.pass(1_000);
    assert_eq!(delete(&client, &key.key_id, false).await, Ok(()));
    let deleted = client.get_key(&key.key_id).await.unwrap();
    let expected = pb::Key {
        state: pb::KeyState::Deleted.into(),
        delete_time: Some(at(START + 1_000)),
        update_time: Some(at(START + 1_000)),
        etag: deleted.etag.clone(),
        ..key.clone()
    };
    assert_eq!(deleted, expected);
    assert_eq!(delete(&client, &key.key_id, false).await, Err(not_found("KEY")));
    let (key_id, roles) = (key.key_id.clone(), texts(&["reader"]));
    let request = pb::UpdateKeyRequest { key_id: key_id.clone(), name: Some("Eve".into()), ..Default::default() };
    assert_eq!(refusal(client.keys().update_key(request).await), not_found("KEY"));
    let request = pb::AddKeyRolesRequest { key_id: key_id.clone(), roles, ..Default::default() };
    assert_eq!(refusal(client.keys().add_key_roles(request).await), not_found("KEY"));
    let request = pb::SetKeyPermissionsRequest { key_id: key_id.clone(), ..Default::default() };
    assert_eq!(refusal(client.keys().set_key_permissions(request).await), not_found("KEY"));
    let request = pb::LookupKeyRequest { secret: secret.clone(), ..Default::default() };
    assert_eq!(refusal(client.keys().lookup_key(request).await), not_found("KEY"));

    house.pass(1_000);
    let restored = undelete(&client, &key_id).await.unwrap();
    let etag = key.etag.clone();
    let expected = pb::Key { update_time: Some(at(START + 2_000)), etag: restored.etag.clone(), ..key };
    assert_eq!(restored, expected);
    assert!(restored.etag != deleted.etag && restored.etag != etag, "no version comes back");
    let already = (Grpc::AlreadyExists, "KEY_ALREADY_EXISTS".to_owned());
    assert_eq!(undelete(&client, &key_id).await, Err(already));
    assert_eq!(client.verdict(&secret, None).await.code(), pb::VerificationCode::Disabled);
}

#[tokio::test]
async fn a_key_can_be_restored_until_30_days_have_passed_whether_or_not_the_sweep_has_run() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    for swept in [false, true] {
        let (key, secret) = client.plain_key(&api, "").await;
        delete(&client, &key.key_id, false).await.unwrap();
        house.pass(30 * DAY - 1);
        house.sweep().await;
        undelete(&client, &key.key_id).await.unwrap();
        assert_eq!(client.verdict(&secret, None).await.code(), pb::VerificationCode::Valid);
        delete(&client, &key.key_id, false).await.unwrap();
        house.pass(30 * DAY);
        if swept {
            house.sweep().await;
        }
        assert_eq!(undelete(&client, &key.key_id).await, Err(not_found("KEY")), "swept: {swept}");
        assert_eq!(client.get_key(&key.key_id).await.unwrap_err().code(), Grpc::NotFound, "swept: {swept}");
        assert_eq!(delete(&client, &key.key_id, true).await, Err(not_found("KEY")), "swept: {swept}");
        let request = pb::ListKeysRequest { show_deleted: true, ..Default::default() };
        assert_eq!(client.keys().list_keys(request).await.unwrap().into_inner().keys, [], "swept: {swept}");
    }
}

#[tokio::test]
async fn a_key_deleted_for_good_is_gone_at_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (one, secret) = client.plain_key(&api, "").await;
    let (two, _) = client.plain_key(&api, "").await;
    let request =
        pb::DeleteKeyRequest { key_id: one.key_id.clone(), permanent: true, validate_only: true, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    assert_eq!(client.verdict(&secret, None).await.code(), pb::VerificationCode::Valid, "it was only tried");
    assert_eq!(delete(&client, &one.key_id, true).await, Ok(()));
    assert_eq!(delete(&client, &two.key_id, false).await, Ok(()));
    assert_eq!(delete(&client, &two.key_id, true).await, Ok(()), "a deleted one too");
    for key in [&one, &two] {
        for swept in [false, true] {
            assert_eq!(client.get_key(&key.key_id).await.unwrap_err().code(), Grpc::NotFound, "{swept}");
            assert_eq!(undelete(&client, &key.key_id).await, Err(not_found("KEY")), "{swept}");
            assert_eq!(delete(&client, &key.key_id, true).await, Err(not_found("KEY")), "{swept}");
            house.sweep().await;
        }
    }
    assert_eq!(client.verdict(&secret, None).await.code(), pb::VerificationCode::NotFound);
}

#[tokio::test]
async fn what_was_deleted_meanwhile_does_not_come_back_with_a_key() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["documents.read"]).await;
    let writer = client.role("writer", &["documents.write"]).await;
    let request = pb::CreateKeyRequest {
        roles: texts(&["reader", "writer"]),
        permissions: texts(&["a", "b"]),
        expiration: Some(Expiration::Ttl(span(60_000))),
        ..of(&api)
    };
    let (key, secret) = client.key(request).await;
    delete(&client, &key.key_id, false).await.unwrap();
    let request = pb::DeleteRoleRequest { role: "reader".into(), ..Default::default() };
    client.roles().delete_role(request).await.unwrap();
    let request = pb::DeletePermissionRequest { permission: "a".into(), ..Default::default() };
    client.permissions().delete_permission(request).await.unwrap();
    client.role("reader", &["a"]).await;
    house.pass(60_000);
    house.sweep().await;
    let restored = undelete(&client, &key.key_id).await.unwrap();
    let writer = pb::KeyRole { role_id: writer.role_id, name: "writer".into() };
    assert_eq!((restored.state(), restored.expire_time), (pb::KeyState::Expired, key.expire_time));
    assert_eq!((restored.roles, restored.permissions), (vec![writer], texts(&["b"])));
    assert_eq!(client.verdict(&secret, Some("a")).await.code(), pb::VerificationCode::Expired);
    // It was restored after its end, which is still recorded, once.
    house.sweep().await;
    house.sweep().await;
    let expired = client.events().await.iter().filter(|event| *event == "key.expire").count();
    assert_eq!(expired, 1);
}

#[tokio::test]
async fn keys_of_a_deleted_api_can_neither_be_read_nor_restored() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (one, _) = client.plain_key(&api, "").await;
    let (two, _) = client.plain_key(&api, "").await;
    delete(&client, &two.key_id, false).await.unwrap();
    let request = pb::DeleteApiRequest { api_id: api.api_id.clone(), ..Default::default() };
    client.apis().delete_api(request).await.unwrap();
    for swept in [false, true] {
        for key in [&one, &two] {
            assert_eq!(client.get_key(&key.key_id).await.unwrap_err().code(), Grpc::NotFound, "{swept}");
            assert_eq!(delete(&client, &key.key_id, true).await, Err(not_found("KEY")), "{swept}");
            assert_eq!(undelete(&client, &key.key_id).await, Err(not_found("KEY")), "{swept}");
        }
        assert_eq!(refusal(client.keys().create_key(of(&api)).await), not_found("API"), "{swept}");
        house.sweep().await;
    }
}
