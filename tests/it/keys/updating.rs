//! Changing keys: masks, lists, renewal.

use super::*;

async fn update(client: &Client, request: pb::UpdateKeyRequest) -> pb::Key {
    client.keys().update_key(request).await.unwrap().into_inner().key.unwrap()
}

fn metadata(text: &str) -> Option<prost_types::Struct> {
    let kind = Some(prost_types::value::Kind::StringValue(text.into()));
    Some(prost_types::Struct { fields: [("plan".to_owned(), prost_types::Value { kind })].into() })
}

#[tokio::test]
async fn without_a_mask_what_is_set_changes_and_with_one_what_is_named() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let role = client.role("reader", &[]).await;
    let request = pb::CreateKeyRequest {
        name: "Ada".into(),
        metadata: metadata("pro"),
        roles: texts(&["reader"]),
        permissions: texts(&["a"]),
        expiration: Some(Expiration::Ttl(span(60_000))),
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        ..of(&api)
    };
    let (made, _) = client.key(request).await;
    house.pass(1_000);
    let of_key = || pb::UpdateKeyRequest { key_id: made.key_id.clone(), ..Default::default() };
    // A mask that does not name what is set leaves it.
    let request = pb::UpdateKeyRequest { name: Some("Eve".into()), update_mask: mask(&["enabled"]), ..of_key() };
    let off = update(&client, request).await;
    assert_eq!((off.name.as_str(), off.enabled), ("Ada", false), "named and not set, so it is cleared");
    update(&client, pb::UpdateKeyRequest { enabled: Some(true), ..of_key() }).await;
    let request = pb::UpdateKeyRequest {
        name: Some("Eve".into()),
        metadata: metadata("free"),
        update_mask: mask(&["metadata"]),
        ..of_key()
    };
    let one = update(&client, request).await;
    let expected = pb::Key {
        metadata: metadata("free"),
        update_time: Some(at(START + 1_000)),
        etag: one.etag.clone(),
        ..made.clone()
    };
    assert_eq!(one, expected);
    assert_ne!(one.etag, made.etag);
    let request = pb::UpdateKeyRequest { name: Some("Eve".into()), permissions: texts(&["b"]), ..of_key() };
    let two = update(&client, request).await;
    let expected = pb::Key { name: "Eve".into(), permissions: texts(&["b"]), etag: two.etag.clone(), ..one };
    assert_eq!(two, expected);
    let all = ["name", "metadata", "expire_time", "allowed_cidrs", "roles", "permissions"];
    let cleared = update(&client, pb::UpdateKeyRequest { update_mask: mask(&all), ..of_key() }).await;
    let expected = pb::Key {
        name: String::new(),
        metadata: None,
        expire_time: None,
        allowed_cidrs: Vec::new(),
        roles: Vec::new(),
        permissions: Vec::new(),
        etag: cleared.etag.clone(),
        ..two
    };
    assert_eq!(cleared, expected);
    let request = pb::UpdateKeyRequest { enabled: Some(false), roles: texts(&[&role.role_id]), ..of_key() };
    let last = update(&client, request).await;
    assert_eq!((last.enabled, last.state(), last.roles.len()), (false, pb::KeyState::Disabled, 1));
    assert_eq!(client.get_key(&made.key_id).await.unwrap(), last);
}

#[tokio::test]
async fn what_can_not_be_changed_is_refused_by_its_place_in_the_mask() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, _) = client.plain_key(&api, "").await;
    for path in ["api_id", "prefix", "key_id", "state", "etag", "metadata.plan", "", "*", "Name", "created_by"] {
        let request = pb::UpdateKeyRequest {
            key_id: key.key_id.clone(),
            update_mask: mask(&["name", path]),
            ..Default::default()
        };
        let status = client.keys().update_key(request).await.unwrap_err();
        assert_eq!(
            (status.code(), fields(&status)),
            (Grpc::InvalidArgument, texts(&["update_mask.paths[1]"])),
            "{path}"
        );
    }
    let request = pb::UpdateKeyRequest {
        key_id: "key".into(),
        name: Some("\n".into()),
        expire_time: Some(at(START)),
        allowed_cidrs: texts(&["x"]),
        roles: texts(&["no"]),
        permissions: texts(&[""]),
        ..Default::default()
    };
    let status = client.keys().update_key(request).await.unwrap_err();
    assert_eq!(fields(&status), ["key_id", "name", "expire_time", "allowed_cidrs[0]", "roles[0]", "permissions[0]"]);
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &[]).await;
    let request = pb::CreateKeyRequest {
        name: "Ada".into(),
        roles: texts(&["reader"]),
        permissions: texts(&["a", "b"]),
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        ..of(&api)
    };
    let (key, _) = client.key(request).await;
    let events = client.events().await;
    house.pass(1_000);
    let same = pb::UpdateKeyRequest {
        key_id: key.key_id.clone(),
        name: Some("Ada".into()),
        enabled: Some(true),
        roles: texts(&["reader", "reader"]),
        permissions: texts(&["b", "a"]),
        allowed_cidrs: texts(&["10.9.9.9/8"]),
        ..Default::default()
    };
    assert_eq!(update(&client, same).await, key);
    let nothing = pb::UpdateKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    assert_eq!(update(&client, nothing).await, key);
    let rehearsed = pb::UpdateKeyRequest {
        key_id: key.key_id.clone(),
        name: Some("Eve".into()),
        validate_only: true,
        ..Default::default()
    };
    assert_eq!(update(&client, rehearsed).await.name, "Eve");
    assert_eq!(client.get_key(&key.key_id).await.unwrap(), key);
    assert_eq!(client.events().await, events);
}

#[tokio::test]
async fn the_answer_to_an_update_tells_when_the_key_was_last_used() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, secret) = client.plain_key(&api, "").await;
    client.verdict(&secret, None).await;
    let of_key = || pb::UpdateKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    assert_eq!(update(&client, of_key()).await.last_used_time, Some(at(START)));
    let renamed = pb::UpdateKeyRequest { name: Some("Ada".into()), ..of_key() };
    assert_eq!(update(&client.once("a"), renamed.clone()).await.last_used_time, Some(at(START)));
    house.pass(5);
    client.verdict(&secret, None).await;
    assert_eq!(update(&client.once("a"), renamed).await.last_used_time, Some(at(START)), "as it was then");
    let request = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let request = pb::UndeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    let restored = client.keys().undelete_key(request).await.unwrap().into_inner().key.unwrap();
    assert_eq!(restored.last_used_time, Some(at(START + 5)));
}

#[tokio::test]
async fn an_expired_key_is_renewed_and_its_secret_works_again() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, secret) =
        client.key(pb::CreateKeyRequest { expiration: Some(Expiration::Ttl(span(1_000))), ..of(&api) }).await;
    house.pass(1_000);
    house.sweep().await;
    assert_eq!(client.get_key(&key.key_id).await.unwrap().state(), pb::KeyState::Expired);
    let of_key = |request| pb::UpdateKeyRequest { key_id: key.key_id.clone(), ..request };
    let renamed = of_key(pb::UpdateKeyRequest { name: Some("Ada".into()), ..Default::default() });
    assert_eq!(update(&client, renamed).await.state(), pb::KeyState::Expired);
    let renewed = of_key(pb::UpdateKeyRequest { expire_time: Some(at(START + 9_000)), ..Default::default() });
    let renewed = update(&client, renewed).await;
    assert_eq!((renewed.state(), renewed.expire_time), (pb::KeyState::Active, Some(at(START + 9_000))));
    assert_eq!(client.verdict(&secret, None).await.code(), pb::VerificationCode::Valid);
    // The end of the first life takes nothing away from the second.
    let day = 24 * 3_600_000;
    let forever = of_key(pb::UpdateKeyRequest { update_mask: mask(&["expire_time"]), ..Default::default() });
    update(&client, forever).await;
    house.pass(200 * day);
    house.sweep().await;
    assert_eq!(client.verdict(&secret, None).await.code(), pb::VerificationCode::Valid);
}

#[tokio::test]
async fn an_etag_that_is_not_the_newest_stops_every_change() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["a"]).await;
    let (key, _) = client.plain_key(&api, "").await;
    let (key_id, etag) = (key.key_id.clone(), key.etag.clone());
    let request = pb::UpdateKeyRequest {
        key_id: key_id.clone(),
        name: Some("Ada".into()),
        etag: etag.clone(),
        ..Default::default()
    };
    let newest = update(&client, request.clone()).await.etag;
    let stale = (Grpc::Aborted, "ETAG_MISMATCH".to_owned());
    let (roles, permissions) = (texts(&["reader"]), texts(&["a"]));
    let keys = || client.keys();
    assert_eq!(refusal(keys().update_key(request).await), stale);
    macro_rules! stale {
        ($($method:ident $request:ident { $($field:ident),* };)*) => {$(
            let request = pb::$request {
                key_id: key_id.clone(), etag: etag.clone(), $($field: $field.clone(),)* ..Default::default()
            };
            assert_eq!(refusal(keys().$method(request).await), stale, stringify!($method));
        )*};
    }
    stale! {
        add_key_roles AddKeyRolesRequest { roles };
        remove_key_roles RemoveKeyRolesRequest { roles };
        set_key_roles SetKeyRolesRequest { roles };
        add_key_permissions AddKeyPermissionsRequest { permissions };
        remove_key_permissions RemoveKeyPermissionsRequest { permissions };
        set_key_permissions SetKeyPermissionsRequest { permissions };
        delete_key DeleteKeyRequest {};
    }
    let request = pb::DeleteKeyRequest { key_id: key_id.clone(), etag: newest.clone(), ..Default::default() };
    keys().delete_key(request).await.unwrap();
    let request = pb::UndeleteKeyRequest { key_id, etag: newest, ..Default::default() };
    assert_eq!(refusal(keys().undelete_key(request).await), stale);
}
