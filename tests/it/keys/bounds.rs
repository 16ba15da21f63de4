//! How much a key can hold, and that all of it at once is not too much.

use std::collections::BTreeMap;

use super::*;
use prost::Message as _;
use prost_types::value::Kind;

fn value(kind: Kind) -> prost_types::Value {
    prost_types::Value { kind: Some(kind) }
}

fn holding(name: &str, kind: Kind) -> prost_types::Struct {
    prost_types::Struct { fields: BTreeMap::from([(name.to_owned(), value(kind))]) }
}

/// Metadata of so many levels, nested as maps.
fn maps(levels: usize) -> prost_types::Struct {
    (1..levels).fold(prost_types::Struct::default(), |inner, _| holding("a", Kind::StructValue(inner)))
}

/// Metadata of so many levels, nested as lists below the first.
fn lists(levels: usize) -> prost_types::Struct {
    let list = |values| Kind::ListValue(prost_types::ListValue { values });
    holding("a", (2..levels).fold(list(Vec::new()), |inner, _| list(vec![value(inner)])))
}

/// Metadata of exactly so many bytes encoded.
fn bytes(length: usize) -> prost_types::Struct {
    let of = |characters: usize| holding("a", Kind::StringValue("x".repeat(characters)));
    let data = of(length - (of(length).encoded_len() - length));
    assert_eq!(data.encoded_len(), length);
    data
}

/// So many roles, by name.
async fn roles(client: &Client, kind: &str, number: usize) -> Vec<String> {
    let mut names = Vec::new();
    for n in 0..number {
        names.push(client.role(&format!("{kind}-{n:03}"), &[]).await.name);
    }
    names
}

/// The names of roles, in their own order.
fn names_of(roles: Vec<pb::KeyRole>) -> Vec<String> {
    let mut names: Vec<String> = roles.into_iter().map(|role| role.name).collect();
    names.sort();
    names
}

/// So many permissions with slugs as long as can be.
async fn permissions(client: &Client, kind: &str, number: usize) -> Vec<String> {
    let slugs: Vec<String> = (0..number).map(|n| format!("{kind}.{n:04}.{}", "x".repeat(122 - kind.len()))).collect();
    for slug in &slugs {
        let request = pb::CreatePermissionRequest { slug: slug.clone(), ..Default::default() };
        client.permissions().create_permission(request).await.unwrap();
    }
    slugs
}

#[tokio::test]
async fn metadata_nests_32_levels_and_comes_back_as_it_was_even_to_a_repeat() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    for (name, data) in [("maps", maps(32)), ("lists", lists(32))] {
        let request = pb::CreateKeyRequest { metadata: Some(data.clone()), ..of(&api) };
        let once = client.once(name);
        let (key, secret) = once.key(request.clone()).await;
        assert_eq!(key.metadata, Some(data.clone()), "{name}");
        assert_eq!(client.get_key(&key.key_id).await.unwrap(), key, "{name}");
        assert_eq!(once.key(request).await, (key.clone(), secret.clone()), "{name}");
        let question =
            pb::VerifyKeyRequest { key: secret, view: pb::VerificationView::Full.into(), ..Default::default() };
        assert_eq!(client.verify(question).await.metadata, Some(data), "{name}");
        let request = pb::UpdateKeyRequest { key_id: key.key_id, name: Some("Ada".into()), ..Default::default() };
        let updated = once.keys().update_key(request).await;
        assert_eq!(refusal(updated), (Grpc::InvalidArgument, "IDEMPOTENCY_KEY_REUSED".to_owned()));
    }
}

#[tokio::test]
async fn metadata_that_nests_deeper_is_refused_by_its_field() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    for levels in [33, 34, 40, 100, 500] {
        for data in [maps(levels), lists(levels)] {
            let request = pb::CreateKeyRequest { metadata: Some(data.clone()), ..of(&api) };
            assert_eq!(flaws(&client, request).await, ["metadata"], "{levels}");
        }
    }
}

#[tokio::test]
async fn metadata_holds_64_kib_and_not_a_byte_more() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, _) = client.key(pb::CreateKeyRequest { metadata: Some(bytes(65_536)), ..of(&api) }).await;
    assert_eq!(client.get_key(&key.key_id).await.unwrap().metadata, Some(bytes(65_536)));
    let request = pb::CreateKeyRequest { metadata: Some(bytes(65_537)), ..of(&api) };
    assert_eq!(flaws(&client, request).await, ["metadata"]);
    for number in [f64::NAN, f64::INFINITY] {
        let request = pb::CreateKeyRequest { metadata: Some(holding("a", Kind::NumberValue(number))), ..of(&api) };
        assert_eq!(flaws(&client, request).await, ["metadata"]);
    }
    let all_kinds = prost_types::Struct {
        fields: BTreeMap::from([
            ("null".to_owned(), value(Kind::NullValue(0))),
            ("truth".to_owned(), value(Kind::BoolValue(true))),
            ("number".to_owned(), value(Kind::NumberValue(-0.5))),
            ("text".to_owned(), value(Kind::StringValue("\u{1f511}\0".into()))),
            (String::new(), value(Kind::StructValue(prost_types::Struct::default()))),
        ]),
    };
    let (key, _) = client.key(pb::CreateKeyRequest { metadata: Some(all_kinds.clone()), ..of(&api) }).await;
    assert_eq!(client.get_key(&key.key_id).await.unwrap().metadata, Some(all_kinds));
}

#[tokio::test]
async fn a_key_holds_50_roles_and_one_more_is_refused_however_it_is_asked_for() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let names = roles(&client, "role", 130).await;
    let (key, _) = client.key(pb::CreateKeyRequest { roles: names[..50].to_vec(), ..of(&api) }).await;
    assert_eq!(key.roles.len(), 50);
    for number in [51, 130] {
        let request = pb::CreateKeyRequest { roles: names[..number].to_vec(), ..of(&api) };
        assert_eq!(flaws(&client, request).await, ["roles"], "{number}");
        let (key_id, roles) = (key.key_id.clone(), names[..number].to_vec());
        let request = pb::SetKeyRolesRequest { key_id: key_id.clone(), roles: roles.clone(), ..Default::default() };
        assert_eq!(fields(&client.keys().set_key_roles(request).await.unwrap_err()), ["roles"], "{number}");
        let request = pb::AddKeyRolesRequest { key_id: key_id.clone(), roles: roles.clone(), ..Default::default() };
        assert_eq!(fields(&client.keys().add_key_roles(request).await.unwrap_err()), ["roles"], "{number}");
        let request = pb::RemoveKeyRolesRequest { key_id: key_id.clone(), roles: roles.clone(), ..Default::default() };
        assert_eq!(fields(&client.keys().remove_key_roles(request).await.unwrap_err()), ["roles"], "{number}");
        let request = pb::UpdateKeyRequest { key_id, roles, ..Default::default() };
        assert_eq!(fields(&client.keys().update_key(request).await.unwrap_err()), ["roles"], "{number}");
    }
    let request =
        pb::AddKeyRolesRequest { key_id: key.key_id.clone(), roles: names[50..51].to_vec(), ..Default::default() };
    assert_eq!(fields(&client.keys().add_key_roles(request).await.unwrap_err()), ["roles"]);
    let repeated: Vec<String> = names[..50].iter().chain(&names[..50]).cloned().collect();
    let (key, _) = client.key(pb::CreateKeyRequest { roles: repeated, ..of(&api) }).await;
    assert_eq!(key.roles.len(), 50, "duplicates count once");
}

#[tokio::test]
async fn all_50_roles_are_exchanged_for_others_and_20_permissions_made_in_one_call() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (old, new) = (roles(&client, "old", 50).await, roles(&client, "new", 50).await);
    let (key, _) = client.key(pb::CreateKeyRequest { roles: old.clone(), ..of(&api) }).await;
    let set = |roles: &[String]| pb::SetKeyRolesRequest {
        key_id: key.key_id.clone(),
        roles: roles.to_vec(),
        ..Default::default()
    };
    let now = client.once("exchange").keys().set_key_roles(set(&new)).await.unwrap().into_inner().roles;
    assert_eq!(names_of(now), new);
    let slugs: Vec<String> = (0..20).map(|n| format!("new.{n:02}")).collect();
    let request = pb::UpdateKeyRequest {
        key_id: key.key_id.clone(),
        roles: old.clone(),
        permissions: slugs.clone(),
        name: Some("exchanged".into()),
        ..Default::default()
    };
    let updated = client.once("both").keys().update_key(request).await.unwrap().into_inner().key.unwrap();
    assert_eq!(names_of(updated.roles), old);
    assert_eq!(updated.permissions, slugs);
}

#[tokio::test]
async fn a_key_with_all_that_it_can_hold_is_made_changed_deleted_and_restored() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let names = roles(&client, "role", 50).await;
    let slugs = permissions(&client, "many", 1_000).await;
    let networks: Vec<String> = (0..100).map(|n| format!("2001:db8:{n:x}::/48")).collect();
    let request = pb::CreateKeyRequest {
        name: "\u{1f511}".repeat(255),
        roles: names.clone(),
        permissions: slugs.clone(),
        metadata: Some(bytes(65_536)),
        allowed_cidrs: networks,
        ..of(&api)
    };
    let once = client.once("a lot".replace(' ', "-").as_str());
    let (key, secret) = once.key(request.clone()).await;
    assert_eq!((key.roles.len(), key.permissions.len()), (50, 1_000));
    assert_eq!(once.key(request).await, (key.clone(), secret));
    let (key_id, others) = (key.key_id.clone(), permissions(&client, "other", 1_000).await);
    let request =
        pb::SetKeyPermissionsRequest { key_id: key_id.clone(), permissions: others.clone(), ..Default::default() };
    let set = client.once("set").keys().set_key_permissions(request).await.unwrap().into_inner();
    assert_eq!(set.permissions, others);
    let one_more = |slug: &str| pb::AddKeyPermissionsRequest {
        key_id: key_id.clone(),
        permissions: texts(&[slug]),
        ..Default::default()
    };
    let status = client.keys().add_key_permissions(one_more(&slugs[0])).await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Grpc::InvalidArgument, texts(&["permissions"])));
    client.keys().add_key_permissions(one_more(&others[0])).await.unwrap();
    let request = pb::DeleteKeyRequest { key_id: key_id.clone(), ..Default::default() };
    client.once("delete").keys().delete_key(request).await.unwrap();
    let request = pb::UndeleteKeyRequest { key_id: key_id.clone(), ..Default::default() };
    let restored = client.once("undelete").keys().undelete_key(request).await.unwrap().into_inner().key.unwrap();
    assert_eq!((restored.roles.len(), restored.permissions), (50, others));
}

#[tokio::test]
async fn a_call_names_1000_permissions_of_which_20_may_be_new() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let new = |from: usize, number: usize| -> Vec<String> { (from..from + number).map(|n| format!("p.{n}")).collect() };
    let (key, _) = client.key(pb::CreateKeyRequest { permissions: new(0, 20), ..of(&api) }).await;
    assert_eq!(key.permissions.len(), 20);
    let request = pb::CreateKeyRequest { permissions: new(20, 21), ..of(&api) };
    assert_eq!(flaws(&client, request).await, ["permissions"]);
    let request = pb::CreateKeyRequest { permissions: new(0, 40), ..of(&api) };
    assert_eq!(client.key(request).await.0.permissions.len(), 40, "20 of them there already");
    let request = pb::CreateKeyRequest { permissions: vec!["p.0".to_owned(); 1_001], ..of(&api) };
    assert_eq!(flaws(&client, request).await, ["permissions"]);
    let key_id = key.key_id;
    let permissions = new(100, 21);
    let request = pb::AddKeyPermissionsRequest { key_id: key_id.clone(), permissions, ..Default::default() };
    assert_eq!(fields(&client.keys().add_key_permissions(request).await.unwrap_err()), ["permissions"]);
    let request = pb::SetKeyPermissionsRequest { key_id, permissions: new(100, 20), ..Default::default() };
    let set = client.keys().set_key_permissions(request).await.unwrap().into_inner();
    assert_eq!(set.permissions.len(), 20);
}
