//! Identities: whose keys they are, and what follows from it.

use ostiary::pb::v1 as pb;
use pb::VerificationCode as Code;
use tonic::Code as Grpc;

use crate::harness::{Client, House, START, at, but_for, fields, mask, refusal, span, texts};

fn not_found() -> (Grpc, String) {
    (Grpc::NotFound, "IDENTITY_NOT_FOUND".to_owned())
}

fn data(field: &str, text: &str) -> prost_types::Struct {
    let value = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.into())) };
    prost_types::Struct { fields: [(field.to_owned(), value)].into() }
}

fn limit(name: &str) -> pb::RateLimit {
    pb::RateLimit { name: name.into(), limit: 10, duration: Some(span(60_000)), auto_apply: true }
}

async fn create(client: &Client, external_id: &str) -> pb::Identity {
    let request = pb::CreateIdentityRequest { external_id: external_id.into(), ..Default::default() };
    client.identities().create_identity(request).await.unwrap().into_inner().identity.unwrap()
}

async fn get(client: &Client, identity: &str) -> Result<pb::Identity, tonic::Status> {
    let request = pb::GetIdentityRequest { identity: identity.into(), ..Default::default() };
    client.identities().get_identity(request).await.map(|response| response.into_inner().identity.unwrap())
}

async fn delete(client: &Client, identity: &str) {
    let request = pb::DeleteIdentityRequest { identity: identity.into(), ..Default::default() };
    let answer = client.identities().delete_identity(request).await.unwrap().into_inner();
    assert_eq!(answer.key_count, None);
}

async fn list(client: &Client, part: Option<&str>) -> Vec<String> {
    let filter = Some(pb::ListIdentitiesFilter { external_id_contains: part.map(Into::into) });
    let request = pb::ListIdentitiesRequest { filter, ..Default::default() };
    let answer = client.identities().list_identities(request).await.unwrap().into_inner();
    answer.identities.into_iter().map(|identity| identity.external_id).collect()
}

/// A request for a key of this identity.
fn of(api: &pb::Api, external_id: &str) -> pb::CreateKeyRequest {
    pb::CreateKeyRequest { api_id: api.api_id.clone(), external_id: Some(external_id.into()), ..Default::default() }
}

async fn keys_of(client: &Client, identity: &str) -> Vec<String> {
    let filter = Some(pb::ListKeysFilter { identity: Some(identity.into()), ..Default::default() });
    let request = pb::ListKeysRequest { filter, ..Default::default() };
    let answer = client.keys().list_keys(request).await.unwrap().into_inner();
    assert_eq!(answer.next_page_token, "");
    answer.keys.into_iter().map(|key| key.key_id).collect()
}

async fn give(client: &Client, key: &pb::Key, external_id: Option<&str>) -> Result<pb::Key, tonic::Status> {
    let request = pb::UpdateKeyRequest {
        key_id: key.key_id.clone(),
        external_id: external_id.map(Into::into),
        update_mask: mask(&["external_id"]),
        ..Default::default()
    };
    client.keys().update_key(request).await.map(|response| response.into_inner().key.unwrap())
}

#[tokio::test]
async fn an_identity_is_made_as_it_was_asked_for_and_found_by_id_and_by_external_id() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreateIdentityRequest {
        external_id: "user-4711".into(),
        metadata: Some(data("plan", "pro")),
        rate_limits: vec![limit("requests")],
        validate_only: false,
    };
    let made = client.identities().create_identity(request).await.unwrap().into_inner().identity.unwrap();
    let expected = pb::Identity {
        identity_id: made.identity_id.clone(),
        external_id: "user-4711".into(),
        metadata: Some(data("plan", "pro")),
        rate_limits: vec![limit("requests")],
        key_count: 0,
        create_time: Some(at(START)),
        update_time: Some(at(START)),
        etag: made.etag.clone(),
    };
    assert_eq!(made, expected);
    assert!(made.identity_id.starts_with("id_"));
    for reference in [made.identity_id.as_str(), "user-4711"] {
        assert_eq!(get(&client, reference).await.unwrap(), made);
    }
    assert_eq!(client.events().await.last().unwrap(), "identity.create");
    let events = client.log().await;
    assert!(!format!("{:?}", events.last().unwrap()).contains("pro"), "metadata may be personal");
}

#[tokio::test]
async fn external_ids_are_1_to_255_characters_unique_in_their_case_and_never_of_an_ids_shape() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let make = async |external_id: &str| {
        let request = pb::CreateIdentityRequest { external_id: external_id.into(), ..Default::default() };
        client.identities().create_identity(request).await
    };
    let shape = format!("id_{}", "0".repeat(26));
    for bad in ["", &"x".repeat(256), "a\0b", &shape, &shape.replace("id", "key")] {
        let status = make(bad).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Grpc::InvalidArgument, texts(&["external_id"])), "{bad:?}");
    }
    let user = make("User").await.unwrap().into_inner().identity.unwrap();
    let other = make("user").await.unwrap().into_inner().identity.unwrap();
    assert_ne!(user.identity_id, other.identity_id);
    let taken = (Grpc::AlreadyExists, "IDENTITY_ALREADY_EXISTS".to_owned());
    assert_eq!(refusal(make("User").await), taken);
    assert_eq!(get(&client, "USER").await.unwrap_err().code(), Grpc::NotFound, "found only as it is spelled");
    make(&"x".repeat(255)).await.unwrap();
}

#[tokio::test]
async fn lists_are_in_the_order_of_creation_and_narrowed_by_a_part_in_any_case() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    for external_id in ["user-2", "org-1", "User-1"] {
        create(&client, external_id).await;
        house.pass(1_000);
    }
    assert_eq!(list(&client, None).await, ["user-2", "org-1", "User-1"]);
    assert_eq!(list(&client, Some("USER")).await, ["user-2", "User-1"]);
    assert_eq!(list(&client, Some("nobody")).await, texts(&[]));
    let own = get(&client, "org-1").await.unwrap();
    let narrow = client.limited(&[&format!("identities.{}.read_identity", own.identity_id)]).await;
    assert_eq!(list(&narrow, None).await, ["org-1"]);
    assert_eq!(get(&narrow, "org-1").await.unwrap(), own);
    let narrow = narrow.named("call");
    let ask = async |external_id: &str| {
        let request = pb::GetIdentityRequest { identity: external_id.into(), ..Default::default() };
        but_for(narrow.identities().get_identity(request).await, external_id)
    };
    assert_eq!(ask("user-2").await, ask("user-3").await);
}

#[tokio::test]
async fn an_update_changes_what_is_named_and_one_that_changes_nothing_writes_nothing() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let made = create(&client, "user").await;
    house.pass(1_000);
    let update = async |request: pb::UpdateIdentityRequest| {
        let request = pb::UpdateIdentityRequest { identity: "user".into(), ..request };
        client.identities().update_identity(request).await.map(|response| response.into_inner().identity.unwrap())
    };
    let events = client.events().await;
    assert_eq!(update(pb::UpdateIdentityRequest::default()).await.unwrap(), made);
    let plan = pb::UpdateIdentityRequest { metadata: Some(data("plan", "pro")), ..Default::default() };
    let rehearsed = update(pb::UpdateIdentityRequest { validate_only: true, ..plan.clone() }).await.unwrap();
    assert_eq!(rehearsed.metadata, Some(data("plan", "pro")));
    assert_eq!((get(&client, "user").await.unwrap(), client.events().await), (made.clone(), events));

    let after = update(plan.clone()).await.unwrap();
    assert_eq!((after.metadata.clone(), after.update_time), (Some(data("plan", "pro")), Some(at(START + 1_000))));
    assert_ne!(after.etag, made.etag);
    let told = format!("{:?}", client.log().await.last().unwrap());
    assert!(told.contains("identity.update") && told.contains("plan") && !told.contains("pro\""), "{told}");
    let stale = pb::UpdateIdentityRequest { etag: made.etag, rate_limits: vec![limit("a")], ..Default::default() };
    assert_eq!(update(stale).await.unwrap_err().code(), Grpc::Aborted);
    let limited = pb::UpdateIdentityRequest { rate_limits: vec![limit("a")], etag: after.etag, ..Default::default() };
    let limited = update(limited).await.unwrap();
    assert_eq!((limited.rate_limits, limited.metadata), (vec![limit("a")], Some(data("plan", "pro"))));
    let cleared = pb::UpdateIdentityRequest { update_mask: mask(&["metadata", "rate_limits"]), ..Default::default() };
    let cleared = update(cleared).await.unwrap();
    assert_eq!((cleared.rate_limits, cleared.metadata), (vec![], None));
    let renamed = pb::UpdateIdentityRequest { update_mask: mask(&["external_id"]), ..Default::default() };
    assert_eq!(update(renamed).await.unwrap_err().code(), Grpc::InvalidArgument);
}

#[tokio::test]
async fn a_key_of_a_known_identity_is_linked_and_an_unknown_one_is_made_on_the_way() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, secret) = client.key(of(&api, "user")).await;
    let events = client.events().await;
    assert_eq!(events[events.len() - 2..], texts(&["identity.create", "key.create"]));
    let user = get(&client, "user").await.unwrap();
    assert_eq!((key.external_id.as_deref(), key.identity_id.as_ref()), (Some("user"), Some(&user.identity_id)));
    assert_eq!(user.key_count, 1);
    assert_eq!(client.get_key(&key.key_id).await.unwrap(), key);
    let (second, _) = client.key(of(&api, "user")).await;
    assert_eq!(second.identity_id, key.identity_id);
    assert_eq!(client.events().await.len(), events.len() + 1, "nothing but the key was made");
    let (alone, _) = client.plain_key(&api, "alone").await;
    assert_eq!((alone.external_id, alone.identity_id), (None, None));

    let verdict = client.verdict(&secret, None).await;
    assert_eq!((verdict.external_id.as_deref(), verdict.identity), (Some("user"), None));
    let full = pb::VerifyKeyRequest { key: secret, view: pb::VerificationView::Full.into(), ..Default::default() };
    let verdict = client.verify(full).await;
    assert_eq!(
        (verdict.external_id.as_deref(), verdict.identity),
        (Some("user"), get(&client, "user").await.ok().map(Box::new))
    );
}

#[tokio::test]
async fn only_who_may_make_identities_makes_one_on_the_way() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    create(&client, "user").await;
    let narrow = client.limited(&["apis.*.create_key", "apis.*.update_key", "apis.*.read_key"]).await;
    let (key, _) = narrow.key(of(&api, "user")).await;
    assert_eq!(key.external_id.as_deref(), Some("user"));
    let missing = (Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned());
    let count = client.events().await.len();
    let refused = narrow.keys().create_key(of(&api, "nobody")).await;
    assert!(refused.as_ref().unwrap_err().message().contains("identities.*.create_identity"));
    assert_eq!(refusal(refused), missing);
    assert_eq!(give(&narrow, &key, Some("nobody")).await.unwrap_err().code(), Grpc::PermissionDenied);
    assert_eq!(client.events().await.len(), count);
    assert_eq!(list(&client, None).await, ["user"]);
    // What is only tried makes nobody.
    client.keys().create_key(pb::CreateKeyRequest { validate_only: true, ..of(&api, "nobody") }).await.unwrap();
    assert_eq!(list(&client, None).await, ["user"]);
}

#[tokio::test]
async fn a_key_can_be_given_to_another_identity_and_to_none() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, secret) = client.key(of(&api, "one")).await;
    let counts = async || {
        let one = get(&client, "one").await.unwrap().key_count;
        (one, get(&client, "two").await.map(|two| two.key_count).unwrap_or_default())
    };
    assert_eq!(counts().await, (1, 0));
    let moved = give(&client, &key, Some("two")).await.unwrap();
    assert_eq!(moved.external_id.as_deref(), Some("two"));
    assert_ne!(moved.etag, key.etag);
    assert_eq!(counts().await, (0, 1));
    let events = client.events().await;
    assert_eq!(events[events.len() - 2..], texts(&["identity.create", "key.update"]));
    assert_eq!(keys_of(&client, "one").await, texts(&[]));
    assert_eq!(keys_of(&client, "two").await, std::slice::from_ref(&key.key_id));
    assert_eq!(give(&client, &moved, Some("two")).await.unwrap(), moved, "it is theirs already");
    let freed = give(&client, &moved, None).await.unwrap();
    assert_eq!((freed.external_id, freed.identity_id), (None, None));
    assert_eq!(counts().await, (0, 0));
    assert_eq!(client.verdict(&secret, None).await.external_id, None);
}

#[tokio::test]
async fn keys_are_listed_by_identity_and_counted_while_they_are_there() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (documents, papers) = (client.api("documents").await, client.api("papers").await);
    let mut made = Vec::new();
    for (api, external_id) in [(&documents, "one"), (&documents, "two"), (&papers, "one")] {
        made.push(client.key(of(api, external_id)).await.0);
        house.pass(1_000);
    }
    let one = get(&client, "one").await.unwrap();
    let of_one = [made[0].key_id.clone(), made[2].key_id.clone()];
    for reference in ["one", one.identity_id.as_str()] {
        assert_eq!(keys_of(&client, reference).await, of_one);
    }
    assert_eq!(keys_of(&client, "nobody").await, texts(&[]));
    let narrow = client.limited(&[&format!("apis.{}.read_key", papers.api_id)]).await;
    assert_eq!(keys_of(&narrow, "one").await, of_one[1..]);
    let filter = pb::ListKeysFilter { identity: Some("one".into()), ..Default::default() };
    let request = pb::ListKeysRequest { page_size: 1, filter: Some(filter), ..Default::default() };
    let first = client.keys().list_keys(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.keys[0].key_id, of_one[0]);
    let next = pb::ListKeysRequest { page_token: first.next_page_token, ..request };
    assert_eq!(client.keys().list_keys(next).await.unwrap().into_inner().keys[0].key_id, of_one[1]);

    let request = pb::DeleteKeyRequest { key_id: of_one[0].clone(), ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    assert_eq!(get(&client, "one").await.unwrap().key_count, 1);
    assert_eq!(keys_of(&client, "one").await, of_one[1..]);
    let request = pb::UndeleteKeyRequest { key_id: of_one[0].clone(), ..Default::default() };
    client.keys().undelete_key(request).await.unwrap();
    assert_eq!(get(&client, "one").await.unwrap().key_count, 2);
}

#[tokio::test]
async fn keys_of_a_deleted_identity_work_on_as_nobodys_and_a_namesake_is_another() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, secret) = client.key(of(&api, "user")).await;
    let user = get(&client, "user").await.unwrap();
    let rehearsed = pb::DeleteIdentityRequest { identity: "user".into(), validate_only: true, ..Default::default() };
    let answer = client.identities().delete_identity(rehearsed).await.unwrap().into_inner();
    assert_eq!(answer.key_count, Some(1));
    let stale = pb::DeleteIdentityRequest { identity: "user".into(), etag: "x".into(), ..Default::default() };
    assert_eq!(client.identities().delete_identity(stale).await.unwrap_err().code(), Grpc::Aborted);
    delete(&client, "user").await;
    assert_eq!(client.events().await.last().unwrap(), "identity.delete");

    let again = create(&client, "user").await;
    for swept in [false, true] {
        if swept {
            house.sweep().await;
        }
        let full = pb::VerificationView::Full.into();
        let verdict = client.verify(pb::VerifyKeyRequest { key: secret.clone(), view: full, ..Default::default() });
        let verdict = verdict.await;
        assert_eq!((verdict.code(), verdict.external_id, verdict.identity), (Code::Valid, None, None));
        let read = client.get_key(&key.key_id).await.unwrap();
        assert_eq!((&read.external_id, &read.identity_id, &read.etag), (&None, &None, &key.etag));
        assert_eq!(give(&client, &read, None).await.unwrap(), read, "it is nobody's already");
        let request = pb::GetIdentityRequest { identity: user.identity_id.clone(), ..Default::default() };
        assert_eq!(refusal(client.identities().get_identity(request).await), not_found());
        assert_eq!(list(&client, None).await, ["user"]);
        assert_eq!(keys_of(&client, &user.identity_id).await, texts(&[]));
        assert_eq!((keys_of(&client, "user").await, again.key_count), (texts(&[]), 0));
    }
    let request = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let request = pb::UndeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    let restored = client.keys().undelete_key(request).await.unwrap().into_inner().key.unwrap();
    assert_eq!((restored.external_id, restored.identity_id), (None, None));
    let back = give(&client, &key, Some("user")).await.unwrap();
    assert_eq!(back.identity_id, Some(again.identity_id));
    assert_eq!(get(&client, "user").await.unwrap().key_count, 1);
}

#[tokio::test]
async fn a_workspace_has_its_own_identities() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    create(&client, "user").await;
    let neighbour = client.neighbour("neighbour").await;
    assert_eq!(list(&neighbour, None).await, texts(&[]));
    let request = pb::GetIdentityRequest { identity: "user".into(), ..Default::default() };
    assert_eq!(refusal(neighbour.identities().get_identity(request).await), not_found());
    create(&neighbour, "user").await;
    assert_eq!(list(&neighbour, None).await, ["user"]);
}
