//! Lists, a page at a time: complete, in order, and with tokens that open nothing else.

use ostiary::pb::v1 as pb;
use prost_reflect::{DynamicMessage, Value};
use tonic::Code;

use super::call;
use crate::coverage::neighbours::{Neighbours, Objects};
use crate::coverage::walk::{self, Kind, Method, Object, body, methods, text};
use crate::harness::{Client, House, reason, texts};

async fn page(client: &Client, size: i32, token: &str) -> (Vec<String>, String) {
    let request = pb::ListRolesRequest { page_size: size, page_token: token.into(), ..Default::default() };
    let response = client.roles().list_roles(request).await.unwrap().into_inner();
    (response.roles.into_iter().map(|role| role.name).collect(), response.next_page_token)
}

async fn roles(client: &Client, names: &[&str]) {
    for name in names {
        client.role(name, &[]).await;
    }
}

#[tokio::test]
async fn pages_together_are_the_list_in_the_order_of_creation() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let names: Vec<String> = (0..7).map(|n| format!("role {n}")).collect();
    for name in names.iter().rev() {
        house.pass(1);
        client.role(name, &[]).await;
    }
    let expected: Vec<String> = names.into_iter().rev().collect();
    for size in 1..=8 {
        let (mut all, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let (found, next) = page(&client, size, &token).await;
            assert!(found.len() <= usize::try_from(size).unwrap());
            all.extend(found);
            pages += 1;
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(all, expected, "pages of {size}");
        assert!(pages <= 7 / size + 1, "{pages} pages of {size}");
    }
}

#[tokio::test]
async fn inserts_and_deletes_between_two_pages_neither_repeat_nor_skip_what_was_there_all_the_time() {
    let house = House::unswept().await;
    let client = house.operator().await;
    for name in ["one", "two", "three", "four", "five"] {
        house.pass(1);
        client.role(name, &[]).await;
    }
    let (first, token) = page(&client, 2, "").await;
    assert_eq!(first, ["one", "two"]);
    // The very row that the token names, one before it, and the next one go; one comes.
    for role in ["one", "two", "three"] {
        client.roles().delete_role(pb::DeleteRoleRequest { role: role.into(), ..Default::default() }).await.unwrap();
    }
    house.pass(1);
    client.role("six", &[]).await;
    let (second, token) = page(&client, 2, &token).await;
    assert_eq!(second, ["four", "five"]);
    assert_eq!(page(&client, 2, &token).await, (vec!["six".to_owned()], String::new()));
}

#[tokio::test]
async fn a_page_holds_50_unless_asked_otherwise_and_1000_at_most() {
    let house = House::unswept().await;
    let client = house.operator().await;
    for group in 0..51 {
        let slugs: Vec<String> = (0..20).map(|n| format!("many.{group}.{n}")).collect();
        let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
        client.role(&format!("group {group}"), &slugs).await;
    }
    for (asked, given) in [(0, 50), (1, 1), (999, 999), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
        let request = pb::ListPermissionsRequest { page_size: asked, ..Default::default() };
        let response = client.permissions().list_permissions(request).await.unwrap().into_inner();
        assert_eq!(response.permissions.len(), given, "{asked}");
        assert!(!response.next_page_token.is_empty());
    }
    for asked in [-1, i32::MIN] {
        let request = pb::ListPermissionsRequest { page_size: asked, ..Default::default() };
        let error = client.permissions().list_permissions(request).await.unwrap_err();
        assert_eq!(crate::harness::fields(&error), ["page_size"]);
    }
}

#[tokio::test]
async fn a_token_with_one_character_changed_opens_nothing() {
    let house = House::unswept().await;
    let client = house.operator().await;
    roles(&client, &["one", "two", "three"]).await;
    let (_, token) = page(&client, 1, "").await;
    let refused = async |token: String| {
        let request = pb::ListRolesRequest { page_token: token.clone(), ..Default::default() };
        let error = client.roles().list_roles(request).await.expect_err(&token);
        assert_eq!((error.code(), reason(&error).as_str()), (Code::InvalidArgument, "PAGE_TOKEN_INVALID"), "{token}");
    };
    for at in 0..token.len() {
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        refused(format!("{}{other}{}", &token[..at], &token[at + 1..])).await;
        refused(token[..at].to_owned() + " " + &token[at..]).await;
        if at > 0 {
            refused(token[..at].to_owned()).await;
        }
    }
    for other in ["A", "AAAA", "=", "\0", "é", "-", &"A".repeat(10_000)] {
        refused(format!("{token}{other}")).await;
        refused(other.to_owned()).await;
    }
}

fn next(method: &Method, answer: &[u8]) -> String {
    let answer = DynamicMessage::decode(method.output.clone(), answer).unwrap();
    answer.get_field_by_name("next_page_token").unwrap().as_str().unwrap().to_owned()
}

fn lists() -> Vec<Method> {
    methods().into_iter().filter(|method| method.path.contains("/List")).collect()
}

fn small(method: &Method, token: &str) -> DynamicMessage {
    let within = Objects::from([(Kind::Namespace, Object::of_id("ours-2"))]);
    let small = walk::with(&body(&method.input, &within), "page_size", Value::I32(1)).unwrap();
    walk::with(&small, "page_token", text(token)).unwrap()
}

#[tokio::test]
async fn the_token_of_every_list_is_good_for_that_list_only_and_in_its_workspace_only() {
    let there = Neighbours::new().await;
    let mut tokens = Vec::new();
    for method in lists() {
        let first = call(&there.operator, &method, &small(&method, "")).await.unwrap();
        let token = next(&method, first.get_ref());
        assert!(!token.is_empty(), "{}", method.path);
        let second = call(&there.operator, &method, &small(&method, &token)).await.unwrap();
        assert_ne!(first.get_ref(), second.get_ref(), "{}", method.path);
        tokens.push((method, token));
    }
    for (of, token) in &tokens {
        for method in lists() {
            if method.path != of.path {
                let error = call(&there.operator, &method, &small(&method, token)).await.expect_err(&method.path);
                assert_eq!(reason(&error), "PAGE_TOKEN_INVALID", "{} with one of {}", method.path, of.path);
            }
        }
        // Workspaces are listed from the operator's alone, and exceptions within a namespace of one's own.
        if !of.path.ends_with("/ListWorkspaces") && !of.path.ends_with("/ListOverrides") {
            let error = call(&there.tenant, of, &small(of, token)).await.expect_err(&of.path);
            assert_eq!(reason(&error), "PAGE_TOKEN_INVALID", "{} elsewhere", of.path);
        }
    }
}

#[tokio::test]
async fn a_token_is_bound_to_the_filter_and_to_whether_deleted_rows_are_shown_but_not_to_the_size() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let api_id = client.api("documents").await.api_id;
    client.role("reader", &[]).await;
    for _ in 0..3 {
        let roles = texts(&["reader"]);
        client.key(pb::CreateKeyRequest { api_id: api_id.clone(), roles, ..Default::default() }).await;
    }
    let list = async |filter: Option<pb::ListKeysFilter>, show_deleted: bool, size: i32, token: &str| {
        let (page_size, page_token) = (size, token.to_owned());
        let request = pb::ListKeysRequest { page_size, page_token, filter, show_deleted, ..Default::default() };
        client.keys().list_keys(request).await.map(tonic::Response::into_inner)
    };
    let filters = [
        None,
        Some(pb::ListKeysFilter { api_id: Some(api_id.clone()), ..Default::default() }),
        Some(pb::ListKeysFilter { role: Some("reader".into()), ..Default::default() }),
        Some(pb::ListKeysFilter { state: Some(pb::KeyState::Active.into()), ..Default::default() }),
        Some(pb::ListKeysFilter { api_id: Some(api_id.clone()), role: Some("reader".into()), ..Default::default() }),
    ];
    for (index, filter) in filters.iter().enumerate() {
        let token = list(filter.clone(), false, 1, "").await.unwrap().next_page_token;
        for size in [1, 2, 1_000] {
            let expected = usize::try_from(size).unwrap().min(2);
            assert_eq!(list(filter.clone(), false, size, &token).await.unwrap().keys.len(), expected);
        }
        for (other, filter) in filters.iter().enumerate() {
            for show_deleted in [false, true] {
                let answer = list(filter.clone(), show_deleted, 1, &token).await;
                match answer {
                    Ok(_) => assert!(index == other && !show_deleted, "{index} opened {other}"),
                    Err(error) => assert_eq!(reason(&error), "PAGE_TOKEN_INVALID"),
                }
            }
        }
    }
    // An empty filter is none.
    let token = list(None, false, 1, "").await.unwrap().next_page_token;
    list(Some(pb::ListKeysFilter::default()), false, 1, &token).await.unwrap();
}

#[tokio::test]
async fn a_list_shows_what_the_grants_cover_page_by_page_and_nothing_of_the_rest() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let mut visible = Vec::new();
    for n in 0..9 {
        house.pass(1);
        let api = client.api(&format!("api {n}")).await;
        if n % 3 == 1 {
            visible.push(api.api_id);
        }
    }
    let grants: Vec<String> = visible.iter().map(|id| format!("apis.{id}.read_api")).collect();
    let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    let narrow = client.with(&client.root_key("narrow", &grants).await.1);
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListApisRequest { page_size: 2, page_token: token.clone(), ..Default::default() };
        let response = narrow.apis().list_apis(request).await.unwrap().into_inner();
        seen.extend(response.apis.into_iter().map(|api| api.api_id));
        token = response.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, visible);
}
