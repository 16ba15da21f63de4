//! Limiting whatever callers name, in namespaces, with exceptions.

use ostiary::pb::v1 as pb;
use ostiary::server::Sweeping;
use tonic::{Code, Status};

use crate::harness::{Client, House, Kept, at, fields, refusal, span, texts};

mod namespaces;
mod overrides;

const MINUTE: u64 = 60_000;

/// 10 a minute for Ada in `sign-in`.
fn sign_in(cost: Option<i64>) -> pb::LimitRequest {
    limit("sign-in", "ada", 10, MINUTE, cost)
}

fn limit(namespace: &str, identifier: &str, limit: i64, millis: u64, cost: Option<i64>) -> pb::LimitRequest {
    let (namespace, identifier) = (namespace.into(), identifier.into());
    pb::LimitRequest { namespace, identifier, limit, duration: Some(span(millis)), cost }
}

fn item(identifier: &str, limit: i64, millis: u64, cost: i64) -> pb::BatchLimitItem {
    let (namespace, identifier) = ("sign-in".into(), identifier.into());
    pb::BatchLimitItem { namespace, identifier, limit, duration: Some(span(millis)), cost: Some(cost) }
}

impl Client {
    async fn try_limit(&self, request: pb::LimitRequest) -> Result<pb::LimitResponse, Status> {
        self.rate_limits().limit(request).await.map(tonic::Response::into_inner)
    }

    /// Whether it passed, and what is left then.
    async fn limit(&self, request: pb::LimitRequest) -> (bool, i64) {
        let answer = self.try_limit(request).await.unwrap();
        (answer.success, answer.remaining)
    }

    async fn limit_all(&self, items: Vec<pb::BatchLimitItem>) -> Result<pb::BatchLimitResponse, Status> {
        self.rate_limits().batch_limit(pb::BatchLimitRequest { items }).await.map(tonic::Response::into_inner)
    }

    async fn reset(&self, identifier: &str, validate_only: bool) -> Result<pb::ResetIdentifierResponse, Status> {
        let (namespace, identifier) = ("sign-in".into(), identifier.into());
        let request = pb::ResetIdentifierRequest { namespace, identifier, validate_only };
        self.rate_limits().reset_identifier(request).await.map(tonic::Response::into_inner)
    }
}

#[tokio::test]
async fn a_limit_is_met_exactly_and_says_when_the_next_call_passes() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    // A span begins here.
    house.pass(MINUTE - house.now() % MINUTE);
    for left in (0..10).rev() {
        assert_eq!(client.limit(sign_in(None)).await, (true, left));
    }
    assert_eq!(client.limit(sign_in(Some(0))).await, (true, 0));
    let refused = client.try_limit(sign_in(None)).await.unwrap();
    assert_eq!((refused.success, refused.limit, refused.remaining), (false, 10, 0));
    assert_eq!(refused.override_id, None);
    // In the next span the ten fade: from a tenth of it on, one of them no longer counts.
    let wait = refused.retry_after.unwrap();
    let wait = u64::try_from(wait.seconds).unwrap() * 1_000 + u64::try_from(wait.nanos).unwrap() / 1_000_000;
    assert_eq!(refused.reset_time, Some(at(house.now() + wait)));
    house.pass(wait - 1);
    assert!(!client.limit(sign_in(None)).await.0);
    house.pass(1);
    assert_eq!(client.limit(sign_in(None)).await, (true, 0));
    assert_eq!(wait, MINUTE + 1);
}

#[tokio::test]
async fn half_way_through_a_span_half_of_the_one_before_counts() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    house.pass(MINUTE - house.now() % MINUTE);
    assert_eq!(client.limit(sign_in(Some(10))).await, (true, 0));
    house.pass(MINUTE + MINUTE / 2);
    assert_eq!(client.limit(sign_in(Some(5))).await, (true, 0));
    assert_eq!(client.limit(sign_in(Some(1))).await, (false, 0), "5 now, 10 before, half-way");
    house.pass(MINUTE * 49 / 100);
    assert_eq!(client.limit(sign_in(Some(1))).await, (true, 4), "5 now, 10 before, at 99 %");
}

#[tokio::test]
async fn what_costs_more_than_the_limit_never_passes_and_says_so() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let refused = client.try_limit(sign_in(Some(11))).await.unwrap();
    assert_eq!((refused.success, refused.remaining), (false, 10));
    assert_eq!((refused.reset_time, refused.retry_after), (None, None));
    assert_eq!(client.limit(sign_in(Some(10))).await, (true, 0));
}

#[tokio::test]
async fn identifiers_namespaces_durations_and_workspaces_count_apart() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    assert_eq!(client.limit(sign_in(Some(10))).await, (true, 0));
    for other in [
        limit("sign-in", "bob", 10, MINUTE, None),
        limit("sign-in", "Ada", 10, MINUTE, None),
        limit("sign-in", "ada", 10, 2 * MINUTE, None),
        limit("sign-up", "ada", 10, MINUTE, None),
    ] {
        assert_eq!(client.limit(other).await, (true, 9));
    }
    // Another limit on the same window sees what has been counted.
    assert_eq!(client.limit(limit("sign-in", "ada", 12, MINUTE, None)).await, (true, 1));
    let neighbour = client.neighbour("neighbour").await;
    assert_eq!(neighbour.limit(sign_in(None)).await, (true, 9));
}

#[tokio::test]
async fn a_batch_lets_everything_through_or_nothing() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let batch = client.limit_all(vec![item("ada", 10, MINUTE, 4), item("bob", 10, MINUTE, 1)]).await.unwrap();
    assert!(batch.success);
    assert_eq!(batch.results.iter().map(|result| result.remaining).collect::<Vec<_>>(), [6, 9]);
    let batch = client.limit_all(vec![item("ada", 10, MINUTE, 7), item("bob", 10, MINUTE, 1)]).await.unwrap();
    assert!(!batch.success);
    let told: Vec<(bool, i64)> = batch.results.iter().map(|result| (result.success, result.remaining)).collect();
    assert_eq!(told, [(false, 6), (true, 9)]);
    assert!(batch.results[0].retry_after.is_some());
    assert_eq!(client.limit(sign_in(Some(0))).await, (true, 6));
    assert_eq!(client.limit(limit("sign-in", "bob", 10, MINUTE, Some(0))).await, (true, 9));
}

#[tokio::test]
async fn entries_of_a_batch_that_count_in_the_same_window_add_up() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let fitting = client.limit_all(vec![item("ada", 10, MINUTE, 5), item("ada", 10, MINUTE, 5)]).await.unwrap();
    assert_eq!(fitting.results.iter().map(|result| result.remaining).collect::<Vec<_>>(), [5, 0]);
    assert!(fitting.success);
    let beyond = client.limit_all(vec![item("bob", 10, MINUTE, 5), item("bob", 10, MINUTE, 6)]).await.unwrap();
    let told: Vec<(bool, i64)> = beyond.results.iter().map(|result| (result.success, result.remaining)).collect();
    assert_eq!((beyond.success, told), (false, vec![(true, 10), (false, 5)]));
    assert_eq!(client.limit(limit("sign-in", "bob", 10, MINUTE, Some(0))).await, (true, 10));
}

#[tokio::test]
async fn as_many_pass_as_may_however_many_race() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    client.limit(limit("sign-in", "ada", 100, 3_600_000, Some(0))).await;
    let racing = (0..64).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut passed = 0;
            for _ in 0..4 {
                passed += u32::from(client.limit(limit("sign-in", "ada", 100, 3_600_000, None)).await.0);
            }
            passed
        })
    });
    let mut passed = 0;
    for racer in racing.collect::<Vec<_>>() {
        passed += racer.await.unwrap();
    }
    assert_eq!(passed, 100);
}

#[tokio::test]
async fn a_call_under_an_idempotency_key_counts_once_and_is_answered_alike() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let once = client.once("one-attempt");
    let first = once.try_limit(sign_in(Some(3))).await.unwrap();
    assert_eq!((first.success, first.remaining), (true, 7));
    assert_eq!(client.limit(sign_in(Some(2))).await, (true, 5));
    house.pass(1_000);
    let again = once.try_limit(sign_in(Some(3))).await.unwrap();
    assert_eq!((again.remaining, again.reset_time), (7, first.reset_time));
    assert_eq!(client.limit(sign_in(Some(0))).await, (true, 5));
    assert_eq!(refusal(once.rate_limits().limit(sign_in(Some(4))).await).1, "IDEMPOTENCY_KEY_REUSED");
    // One that was refused stays refused.
    let refused = client.once("too-much").try_limit(sign_in(Some(6))).await.unwrap();
    assert!(!refused.success);
    house.pass(2 * MINUTE);
    let still = client.once("too-much").try_limit(sign_in(Some(6))).await.unwrap();
    assert_eq!((still.success, still.retry_after), (false, refused.retry_after));
    assert_eq!(client.limit(sign_in(Some(0))).await, (true, 10));
}

#[tokio::test]
async fn calls_under_one_idempotency_key_that_race_count_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    client.limit(sign_in(Some(0))).await;
    let once = client.once("raced");
    let racing: Vec<_> = (0..32)
        .map(|_| {
            let once = once.clone();
            tokio::spawn(async move { once.limit(sign_in(Some(1))).await })
        })
        .collect();
    for racer in racing {
        assert!(racer.await.unwrap().0);
    }
    assert_eq!(client.limit(sign_in(Some(0))).await, (true, 9));
}

#[tokio::test]
async fn windows_of_a_minute_and_longer_outlive_a_restart_and_shorter_ones_begin_anew() {
    let mut house = House::build(Kept::OnDisk, Sweeping::ByHand, 5).await;
    let client = house.operator().await;
    assert_eq!(client.limit(sign_in(Some(4))).await, (true, 6));
    assert_eq!(client.limit(limit("sign-in", "ada", 10, MINUTE - 1_000, Some(4))).await, (true, 6));
    house.restart().await;
    let client = house.operator().await;
    assert_eq!(client.limit(sign_in(Some(0))).await, (true, 6));
    assert_eq!(client.limit(limit("sign-in", "ada", 10, MINUTE - 1_000, Some(0))).await, (true, 10));
}

#[tokio::test]
async fn what_was_counted_for_an_identifier_is_forgotten_at_once_and_for_good() {
    let mut house = House::build(Kept::OnDisk, Sweeping::ByHand, 6).await;
    let client = house.operator().await;
    for millis in [MINUTE, 2 * MINUTE] {
        assert_eq!(client.limit(limit("sign-in", "ada", 10, millis, Some(10))).await, (true, 0));
        assert_eq!(client.limit(limit("sign-in", "bob", 10, millis, Some(10))).await, (true, 0));
    }
    // What is on disk goes as what is in memory.
    house.restart().await;
    let client = house.operator().await;
    client.reset("ada", true).await.unwrap();
    assert_eq!(client.limit(sign_in(Some(0))).await, (true, 0), "that was only tried");
    client.reset("ada", false).await.unwrap();
    for millis in [MINUTE, 2 * MINUTE] {
        assert_eq!(client.limit(limit("sign-in", "ada", 10, millis, Some(0))).await, (true, 10));
        assert_eq!(client.limit(limit("sign-in", "bob", 10, millis, Some(0))).await, (true, 0));
    }
    house.restart().await;
    let client = house.operator().await;
    assert_eq!(client.limit(sign_in(Some(0))).await, (true, 10));
    client.reset("nobody", false).await.unwrap();
    let event = client.log().await.into_iter().rev().find(|event| event.event == "namespace.reset_identifier");
    assert_eq!(event.unwrap().targets[0].name, "sign-in");
    // A repeat forgets nothing that was counted since.
    let once = client.once("reset");
    once.reset("ada", false).await.unwrap();
    assert_eq!(client.limit(sign_in(Some(1))).await, (true, 9));
    once.reset("ada", false).await.unwrap();
    assert_eq!(client.limit(sign_in(Some(0))).await, (true, 9));
}

#[tokio::test]
async fn an_identifier_is_counted_in_32_different_spans_at_most() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    for seconds in 1..=32 {
        assert!(client.limit(limit("sign-in", "ada", 10, (100 + seconds) * 1_000, None)).await.0);
    }
    let status = client.try_limit(limit("sign-in", "ada", 10, 99_000, None)).await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, texts(&["duration"])));
    let items = vec![item("bob", 10, MINUTE, 1), item("ada", 10, 99_000, 1)];
    let status = client.limit_all(items).await.unwrap_err();
    assert_eq!(fields(&status), ["items[1].duration"]);
    assert_eq!(client.limit(limit("sign-in", "bob", 10, MINUTE, Some(0))).await, (true, 10));
    // Those that are known go on.
    assert_eq!(client.limit(limit("sign-in", "ada", 10, 101_000, None)).await, (true, 8));
}

#[tokio::test]
async fn nonsense_is_refused_by_field_and_bound() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let cases: [(pb::LimitRequest, &str, &str); 9] = [
        (limit("", "ada", 1, 1_000, None), "namespace", "1 to 255"),
        (limit("key_01j9zq4x6v7c2m8n5p3r1s0t4w", "ada", 1, 1_000, None), "namespace", "namespace's id or name"),
        (limit("a", "", 1, 1_000, None), "identifier", "1 to 255"),
        (limit("a", &"x".repeat(256), 1, 1_000, None), "identifier", "1 to 255"),
        (limit("a", "ada", 0, 1_000, None), "limit", "1 to 9007199254740992"),
        (limit("a", "ada", i64::MAX, 1_000, None), "limit", "1 to 9007199254740992"),
        (limit("a", "ada", 1, 999, None), "duration", "1 "),
        (limit("a", "ada", 1, 31 * 24 * 3_600_000 + 1, None), "duration", "2678400"),
        (limit("a", "ada", 1, 1_000, Some(-1)), "cost", "0 to 9007199254740992"),
    ];
    for (request, field, bound) in cases {
        let status = client.try_limit(request.clone()).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, texts(&[field])), "{request:?}");
        assert!(status.message().contains(bound), "{}: {bound}", status.message());
    }
    for items in [vec![], vec![item("ada", 1, MINUTE, 1); 101]] {
        let status = client.limit_all(items).await.unwrap_err();
        assert_eq!(fields(&status), ["items"]);
        assert!(status.message().contains("1 to 100"));
    }
    let status = client.limit_all(vec![item("ada", 1, MINUTE, 1), item("ada", 0, MINUTE, -1)]).await.unwrap_err();
    assert_eq!(fields(&status), ["items[1].limit", "items[1].cost"]);
    // None of it made a namespace.
    let list = client.rate_limits().list_namespaces(pb::ListNamespacesRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.namespaces, []);
}

#[tokio::test]
async fn names_may_be_as_long_as_they_may_be_in_any_script() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let (namespace, identifier) = ("\u{1f511}".repeat(255), r"\*".repeat(127) + "\u{fc}");
    assert_eq!(client.limit(limit(&namespace, &identifier, 5, MINUTE, None)).await, (true, 4));
    let set = |limit| pb::SetOverrideRequest {
        namespace: namespace.clone(),
        identifier: identifier.clone(),
        limit: Some(limit),
        duration: Some(span(MINUTE)),
        ..Default::default()
    };
    // As a pattern it stands for 127 stars and a letter.
    client.rate_limits().set_override(set(3)).await.unwrap();
    let stars = "*".repeat(127) + "\u{fc}";
    let answer = client.try_limit(limit(&namespace, &stars, 5, MINUTE, None)).await.unwrap();
    assert_eq!((answer.limit, answer.remaining), (3, 2));
    assert_eq!(client.limit(limit(&namespace, &identifier, 5, MINUTE, Some(0))).await, (true, 4));
}
