//! Lists of keys: filters, deleted ones, pages.

use super::*;

async fn list(client: &Client, filter: pb::ListKeysFilter) -> Vec<String> {
    named(client, pb::ListKeysRequest { filter: Some(filter), ..Default::default() }).await
}

/// The names of the keys listed, in alphabetical order.
async fn named(client: &Client, request: pb::ListKeysRequest) -> Vec<String> {
    let keys = client.keys().list_keys(request).await.unwrap().into_inner().keys;
    let mut names: Vec<String> = keys.into_iter().map(|key| key.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn every_filter_narrows_the_list_and_all_of_them_must_hold() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api, other) = (client.api("documents").await, client.api("billing").await);
    let reader = client.role("reader", &["documents.read"]).await;
    let (maker, secret) = client.root_key("maker", &["apis.*.create_key", "apis.*.read_key"]).await;
    let request = pb::CreateKeyRequest {
        name: "Ada".into(),
        roles: texts(&["reader"]),
        permissions: texts(&["documents.read", "Upper"]),
        ..of(&api)
    };
    let (ada, ada_secret) = client.key(request).await;
    let request = pb::CreateKeyRequest { name: "Bob".into(), enabled: Some(false), ..of(&other) };
    client.with(&secret).key(request).await;
    let request =
        pb::CreateKeyRequest { name: "Eve".into(), expiration: Some(Expiration::Ttl(span(1_000))), ..of(&api) };
    client.key(request).await;
    let (gone, _) =
        client.key(pb::CreateKeyRequest { name: "Gone".into(), roles: texts(&["reader"]), ..of(&api) }).await;
    let request = pb::DeleteKeyRequest { key_id: gone.key_id, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    house.pass(1_000);
    client.verdict(&ada_secret, None).await;
    let none = pb::ListKeysFilter::default;
    let state = |state: pb::KeyState| pb::ListKeysFilter { state: Some(state.into()), ..none() };
    let permission = |text: &str| pb::ListKeysFilter { permission: Some(text.into()), ..none() };
    let role = |text: &str| pb::ListKeysFilter { role: Some(text.into()), ..none() };
    let cases: [(pb::ListKeysFilter, &[&str]); 26] = [
        (none(), &["Ada", "Bob", "Eve"]),
        (pb::ListKeysFilter { api_id: Some(api.api_id.clone()), ..none() }, &["Ada", "Eve"]),
        (pb::ListKeysFilter { api_id: Some("api_00000000000000000000000000".into()), ..none() }, &[]),
        (role("reader"), &["Ada"]),
        (role(&reader.role_id), &["Ada"]),
        (role("nobody"), &[]),
        (role("role_00000000000000000000000000"), &[]),
        (permission("documents.read"), &["Ada"]),
        (permission("Upper"), &["Ada"]),
        (permission("upper"), &[]),
        (permission("documents.*"), &[]),
        (state(pb::KeyState::Active), &["Ada"]),
        (state(pb::KeyState::Disabled), &["Bob"]),
        (state(pb::KeyState::Expired), &["Eve"]),
        (state(pb::KeyState::Deleted), &[]),
        (pb::ListKeysFilter { name_contains: Some("A".into()), ..none() }, &["Ada"]),
        (pb::ListKeysFilter { name_contains: Some("v".into()), ..none() }, &["Eve"]),
        (pb::ListKeysFilter { start: Some(ada.start.clone()), ..none() }, &["Ada"]),
        (pb::ListKeysFilter { start: Some("key".into()), ..none() }, &[]),
        (pb::ListKeysFilter { created_by: Some(maker.root_key_id.clone()), ..none() }, &["Bob"]),
        (pb::ListKeysFilter { expire_before: Some(at(START + 1_000)), ..none() }, &[]),
        (pb::ListKeysFilter { expire_before: Some(at(START + 1_001)), ..none() }, &["Eve"]),
        (pb::ListKeysFilter { last_used_before: Some(at(START + 1_000)), ..none() }, &["Bob", "Eve"]),
        (pb::ListKeysFilter { last_used_before: Some(at(START + 1_001)), ..none() }, &["Ada", "Bob", "Eve"]),
        (pb::ListKeysFilter { name_contains: Some("e".into()), ..state(pb::KeyState::Expired) }, &["Eve"]),
        (pb::ListKeysFilter { name_contains: Some("bob".into()), ..state(pb::KeyState::Expired) }, &[]),
    ];
    for (filter, expected) in cases {
        assert_eq!(list(&client, filter.clone()).await, expected, "{filter:?}");
    }
    let deleted = |filter| pb::ListKeysRequest { filter: Some(filter), show_deleted: true, ..Default::default() };
    assert_eq!(named(&client, deleted(none())).await, ["Ada", "Bob", "Eve", "Gone"]);
    assert_eq!(named(&client, deleted(state(pb::KeyState::Deleted))).await, ["Gone"]);
    assert_eq!(named(&client, deleted(role("reader"))).await, ["Ada", "Gone"]);
    let of_other = client.limited(&[&format!("apis.{}.read_key", other.api_id)]).await;
    assert_eq!(list(&of_other, none()).await, ["Bob"]);
    assert_eq!(list(&of_other, role("reader")).await, Vec::<String>::new());
    let of_api = pb::ListKeysFilter { api_id: Some(api.api_id), ..none() };
    assert_eq!(list(&of_other, of_api).await, Vec::<String>::new());
    assert_eq!(list(&client.neighbour("neighbour").await, none()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_filter_that_can_not_be_is_refused_field_by_field() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let nonsense = prost_types::Timestamp { seconds: -1, nanos: 0 };
    let filter = pb::ListKeysFilter {
        api_id: Some("documents".into()),
        role: Some("no".into()),
        permission: Some(String::new()),
        state: Some(0),
        name_contains: Some(String::new()),
        start: Some("x".repeat(256)),
        created_by: Some("me".into()),
        expire_before: Some(nonsense),
        last_used_before: Some(nonsense),
        identity: None,
    };
    let request = pb::ListKeysRequest { page_size: -1, filter: Some(filter), ..Default::default() };
    let status = client.keys().list_keys(request).await.unwrap_err();
    let names = ["api_id", "role", "permission", "state", "name_contains", "start", "created_by", "expire_before"];
    let mut expected = vec!["page_size".to_owned()];
    expected.extend(names.map(|name| format!("filter.{name}")));
    expected.push("filter.last_used_before".to_owned());
    assert_eq!(fields(&status), expected);
}

#[tokio::test]
async fn pages_show_every_key_once_though_others_come_and_go_between_them() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &[]).await;
    let mut expected = Vec::new();
    for n in 0..7 {
        house.pass(1);
        let request = pb::CreateKeyRequest { name: format!("{n}"), roles: texts(&["reader"]), ..of(&api) };
        expected.push(client.key(request).await.0.key_id);
    }
    let by_api = pb::ListKeysFilter { api_id: Some(api.api_id.clone()), ..Default::default() };
    let by_role = pb::ListKeysFilter { role: Some("reader".into()), ..Default::default() };
    for filter in [pb::ListKeysFilter::default(), by_api, by_role] {
        let mut request = pb::ListKeysRequest { page_size: 3, filter: Some(filter.clone()), ..Default::default() };
        let mut seen = Vec::new();
        loop {
            let page = client.keys().list_keys(request.clone()).await.unwrap().into_inner();
            assert!(page.keys.len() <= 3);
            seen.extend(page.keys.into_iter().map(|key| key.key_id));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
            // One that comes after is shown, one that goes is not missed by the rest.
            if seen.len() == 3 {
                let request = pb::DeleteKeyRequest { key_id: seen[0].clone(), ..Default::default() };
                client.keys().delete_key(request).await.unwrap();
            }
        }
        assert_eq!(seen, expected, "{filter:?}");
        let request = pb::UndeleteKeyRequest { key_id: expected[0].clone(), ..Default::default() };
        client.keys().undelete_key(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_page_of_heavy_keys_is_cut_to_what_a_client_takes_and_the_rest_follows() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("heavy").await;
    let text = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("x".repeat(60_000))) };
    let metadata = prost_types::Struct { fields: [("weight".to_owned(), text)].into() };
    for _ in 0..80 {
        let metadata = Some(metadata.clone());
        client.key(pb::CreateKeyRequest { api_id: api.api_id.clone(), metadata, ..Default::default() }).await;
    }
    let (mut seen, mut page_token, mut pages) = (0, String::new(), 0);
    loop {
        let request = pb::ListKeysRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = client.keys().list_keys(request).await.unwrap().into_inner();
        assert!(prost::Message::encoded_len(&page) < 4 << 20);
        (seen, page_token, pages) = (seen + page.keys.len(), page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (80, 3));
}
