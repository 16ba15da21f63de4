//! Exceptions from limits: which one applies, and that they can be made, replaced, listed and deleted.

use super::*;
use crate::harness::reason;

fn exception(identifier: &str, limit: i64) -> pb::SetOverrideRequest {
    pb::SetOverrideRequest {
        namespace: "sign-in".into(),
        identifier: identifier.into(),
        limit: Some(limit),
        duration: Some(span(MINUTE)),
        ..Default::default()
    }
}

async fn set(client: &Client, identifier: &str, limit: i64) -> pb::Override {
    let answer = client.rate_limits().set_override(exception(identifier, limit)).await.unwrap().into_inner();
    answer.r#override.unwrap()
}

async fn get(client: &Client, identifier: &str) -> Result<pb::Override, Status> {
    let (namespace, identifier) = ("sign-in".into(), identifier.into());
    let request = pb::GetOverrideRequest { namespace, identifier, ..Default::default() };
    client.rate_limits().get_override(request).await.map(|response| response.into_inner().r#override.unwrap())
}

async fn delete(client: &Client, identifier: &str) -> Result<(), Status> {
    let (namespace, identifier) = ("sign-in".into(), identifier.into());
    let request = pb::DeleteOverrideRequest { namespace, identifier, ..Default::default() };
    client.rate_limits().delete_override(request).await.map(|_| ())
}

async fn listed(client: &Client, part: Option<&str>) -> Vec<String> {
    let filter = Some(pb::ListOverridesFilter { identifier_contains: part.map(Into::into) });
    let request = pb::ListOverridesRequest { namespace: "sign-in".into(), filter, ..Default::default() };
    let list = client.rate_limits().list_overrides(request).await.unwrap().into_inner();
    list.overrides.into_iter().map(|found| found.identifier).collect()
}

/// The limit that applies to an identifier, and which exception made it so.
async fn applied(client: &Client, identifier: &str) -> (i64, Option<String>) {
    let answer = client.try_limit(limit("sign-in", identifier, 10, MINUTE, Some(0))).await.unwrap();
    (answer.limit, answer.override_id)
}

async fn house() -> (House, Client) {
    let house = House::in_memory().await;
    let client = house.operator().await;
    client.limit(sign_in(Some(0))).await;
    (house, client)
}

#[tokio::test]
async fn the_exact_exception_wins_then_the_pattern_with_most_literal_characters_then_the_oldest() {
    let (_house, client) = house().await;
    let any = set(&client, "*", 1).await;
    let users = set(&client, "user:*", 2).await;
    let pairs = set(&client, "user:a*", 3).await;
    let younger = set(&client, "user:*a", 4).await;
    let exact = set(&client, "user:ada", 5).await;
    let id = |found: &pb::Override| Some(found.override_id.clone());
    assert_eq!(applied(&client, "user:ada").await, (5, id(&exact)));
    assert_eq!(applied(&client, "user:anna").await, (3, id(&pairs)), "of equals the oldest");
    assert_eq!(applied(&client, "user:eva").await, (4, id(&younger)));
    assert_eq!(applied(&client, "user:bob").await, (2, id(&users)));
    assert_eq!(applied(&client, "User:bob").await, (1, id(&any)));
    delete(&client, "*").await.unwrap();
    assert_eq!(applied(&client, "User:bob").await, (10, None));
}

#[tokio::test]
async fn patterns_are_about_whole_identifiers_and_characters_not_bytes() {
    let (_house, client) = house().await;
    set(&client, "gr\u{fc}n?", 1).await;
    assert_eq!(applied(&client, "gr\u{fc}n\u{1f511}").await.0, 1);
    assert_eq!(applied(&client, "gr\u{fc}n\u{1f511}x").await.0, 10);
    assert_eq!(applied(&client, "xgr\u{fc}n\u{1f511}").await.0, 10);
    // What is taken literally is exact.
    set(&client, r"5\*", 2).await;
    assert_eq!(applied(&client, "5*").await.0, 2);
    assert_eq!(applied(&client, "55").await.0, 10);
    // An identifier is never taken for a pattern.
    set(&client, r"\\x", 3).await;
    assert_eq!(applied(&client, r"\x").await.0, 3);
    assert_eq!(applied(&client, "x").await.0, 10);
}

#[tokio::test]
async fn a_limit_of_0_blocks_everything_even_what_costs_nothing() {
    let (_house, client) = house().await;
    set(&client, "ada", 0).await;
    for cost in [0, 1] {
        let answer = client.try_limit(sign_in(Some(cost))).await.unwrap();
        assert_eq!((answer.success, answer.limit, answer.remaining), (false, 0, 0));
        assert_eq!((answer.reset_time, answer.retry_after), (None, None));
    }
    let batch = client.limit_all(vec![item("bob", 10, MINUTE, 1), item("ada", 10, MINUTE, 0)]).await.unwrap();
    assert!(!batch.success);
    assert_eq!(client.limit(limit("sign-in", "bob", 10, MINUTE, Some(0))).await, (true, 10));
}

#[tokio::test]
async fn an_exception_replaces_the_duration_too() {
    let (house, client) = house().await;
    let request = pb::SetOverrideRequest { duration: Some(span(3_600_000)), ..exception("ada", 5) };
    client.rate_limits().set_override(request).await.unwrap();
    assert_eq!(client.limit(sign_in(Some(5))).await, (true, 0));
    house.pass(3 * MINUTE);
    assert!(!client.limit(sign_in(Some(5))).await.0);
}

#[tokio::test]
async fn an_exception_is_replaced_under_its_id_deleted_and_made_anew() {
    let (house, client) = house().await;
    let first = set(&client, "user:*", 5).await;
    assert!(first.override_id.starts_with("rlor_"));
    assert_eq!((first.limit, first.duration), (5, Some(span(MINUTE))));
    house.pass(1);
    let second = set(&client, "user:*", 6).await;
    assert_eq!((&second.override_id, second.create_time), (&first.override_id, first.create_time));
    assert_ne!(second.etag, first.etag);
    // The same again changes nothing.
    assert_eq!(set(&client, "user:*", 6).await, second);
    // A stale etag is told, and one for what is gone.
    let stale = pb::SetOverrideRequest { etag: first.etag.clone(), ..exception("user:*", 7) };
    assert_eq!(reason(&client.rate_limits().set_override(stale).await.unwrap_err()), "ETAG_MISMATCH");
    assert_eq!(get(&client, "user:*").await.unwrap(), second);
    // Another spelling of the same.
    assert_eq!(get(&client, "user:**").await.unwrap(), second);
    assert_eq!(set(&client, "user:**", 6).await, second);
    delete(&client, "user:*").await.unwrap();
    for result in [get(&client, "user:*").await.map(|_| ()), delete(&client, "user:*").await] {
        assert_eq!(reason(&result.unwrap_err()), "OVERRIDE_NOT_FOUND");
    }
    let gone = pb::SetOverrideRequest { etag: second.etag, ..exception("user:*", 7) };
    assert_eq!(reason(&client.rate_limits().set_override(gone).await.unwrap_err()), "ETAG_MISMATCH");
    let third = set(&client, "user:*", 8).await;
    assert_ne!(third.override_id, first.override_id);
    assert_eq!(applied(&client, "user:x").await, (8, Some(third.override_id)));
    let events = client.events().await;
    assert_eq!(events.iter().filter(|event| *event == "override.set").count(), 3);
    assert_eq!(events.iter().filter(|event| *event == "override.delete").count(), 1);
}

#[tokio::test]
async fn exceptions_are_listed_and_counted() {
    let (_house, client) = house().await;
    for identifier in ["user:*", "user:ada", "guest"] {
        set(&client, identifier, 5).await;
    }
    assert_eq!(listed(&client, None).await, ["user:*", "user:ada", "guest"]);
    assert_eq!(listed(&client, Some("USER")).await, ["user:*", "user:ada"]);
    delete(&client, "user:ada").await.unwrap();
    let request = pb::GetNamespaceRequest { namespace: "sign-in".into(), ..Default::default() };
    let found = client.rate_limits().get_namespace(request).await.unwrap().into_inner().namespace.unwrap();
    assert_eq!(found.override_count, 2);
}

#[tokio::test]
async fn a_namespace_has_100_patterns_at_most_and_any_number_of_exact_exceptions() {
    let (_house, client) = house().await;
    for n in 0..100 {
        set(&client, &format!("user:{n}:*"), 5).await;
    }
    let status = client.rate_limits().set_override(exception("one more *", 5)).await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, texts(&["identifier"])));
    assert!(status.message().contains("100"));
    set(&client, "user:7:*", 6).await;
    set(&client, "one more", 5).await;
    delete(&client, "user:7:*").await.unwrap();
    set(&client, "one more *", 5).await;
}

#[tokio::test]
async fn nonsense_in_an_exception_is_refused_by_field_and_bound() {
    let (_house, client) = house().await;
    let cases = [
        (exception("", 1), "identifier", "1 to 255"),
        (exception(r"a\", 1), "identifier", "single"),
        (exception("a", -1), "limit", "0 to 9007199254740992"),
        (pb::SetOverrideRequest { limit: None, ..exception("a", 1) }, "limit", "given"),
        (pb::SetOverrideRequest { duration: None, ..exception("a", 1) }, "duration", "given"),
        (pb::SetOverrideRequest { duration: Some(span(999)), ..exception("a", 1) }, "duration", "1 "),
    ];
    for (request, field, bound) in cases {
        let status = client.rate_limits().set_override(request).await.unwrap_err();
        assert_eq!(fields(&status), [field]);
        assert!(status.message().contains(bound), "{}", status.message());
    }
}
