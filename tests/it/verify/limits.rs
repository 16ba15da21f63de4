//! Rate limits in a verification: several at once, stored and inline, all counted or none.

use ostiary::pb::v1 as pb;
use ostiary::service::pace::Pace;
use pb::VerificationCode as Code;
use tokio::task::JoinSet;

use super::about;
use crate::harness::{Client, House, fields, span};

const MINUTE: u64 = 60_000;
const MONTH: u64 = 31 * 24 * 60 * MINUTE;

pub fn limit(name: &str, limit: i64, millis: u64, auto_apply: bool) -> pb::RateLimit {
    pb::RateLimit { name: name.into(), limit, duration: Some(span(millis)), auto_apply }
}

pub fn named(name: &str, cost: i64) -> pb::VerifyRateLimit {
    pb::VerifyRateLimit { name: name.into(), cost: Some(cost), ..Default::default() }
}

fn inline(name: &str, limit: i64, millis: u64) -> pb::VerifyRateLimit {
    pb::VerifyRateLimit { name: name.into(), limit: Some(limit), duration: Some(span(millis)), ..Default::default() }
}

impl Client {
    async fn limited_key(&self, rate_limits: Vec<pb::RateLimit>) -> String {
        let api = self.api("documents").await;
        let request = pb::CreateKeyRequest { api_id: api.api_id, rate_limits, ..Default::default() };
        self.key(request).await.1
    }

    /// The code, and what each limit has left.
    async fn ask(&self, secret: &str, rate_limits: &[pb::VerifyRateLimit]) -> (Code, Vec<i64>) {
        let verdict = self.verify(pb::VerifyKeyRequest { rate_limits: rate_limits.to_vec(), ..about(secret) }).await;
        (verdict.code(), verdict.rate_limits.iter().map(|limit| limit.remaining).collect())
    }
}

#[tokio::test]
async fn of_two_limits_neither_counts_what_the_other_refuses() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let secret = client.limited_key(vec![limit("minute", 12, MINUTE, true), limit("month", 200, MONTH, true)]).await;
    for passed in 1..=12 {
        assert_eq!(client.ask(&secret, &[]).await, (Code::Valid, vec![12 - passed, 200 - passed]));
    }
    assert_eq!(client.ask(&secret, &[]).await, (Code::RateLimited, vec![0, 188]));
    let verdict = client.verify(about(&secret)).await;
    let [minute, month] = &verdict.rate_limits[..] else { panic!("{verdict:?}") };
    assert!(minute.exceeded && !month.exceeded);
    assert_eq!((minute.name.as_str(), minute.limit, month.name.as_str(), month.limit), ("minute", 12, "month", 200));
    let wait = minute.retry_after.unwrap();
    house.pass(u64::try_from(wait.seconds).unwrap() * 1_000 + u64::try_from(wait.nanos).unwrap() / 1_000_000);
    assert_eq!(minute.reset_time.unwrap(), crate::harness::at(house.now()));
    assert_eq!(client.ask(&secret, &[]).await.0, Code::Valid);
}

#[tokio::test]
async fn a_limit_that_does_not_apply_by_itself_applies_when_it_is_named() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let secret = client.limited_key(vec![limit("exports", 10, MINUTE, false), limit("calls", 5, MINUTE, true)]).await;
    assert_eq!(client.ask(&secret, &[]).await, (Code::Valid, vec![4]));
    assert_eq!(client.ask(&secret, &[named("exports", 9)]).await, (Code::Valid, vec![3, 1]));
    assert_eq!(client.ask(&secret, &[named("exports", 2)]).await, (Code::RateLimited, vec![3, 1]));
    assert_eq!(client.ask(&secret, &[named("calls", 3)]).await, (Code::Valid, vec![0]));
    assert_eq!(client.ask(&secret, &[named("calls", 0)]).await, (Code::Valid, vec![0]));
    let question = pb::VerifyKeyRequest { rate_limits: vec![named("imports", 1)], ..about(&secret) };
    let status = client.keys().verify_key(question.clone()).await.unwrap_err();
    assert_eq!(fields(&status), ["rate_limits[0].name"]);
    let unknown = pb::VerifyKeyRequest { key: "unknown".into(), ..question };
    assert_eq!(client.verify(unknown).await.code(), Code::NotFound);
}

#[tokio::test]
async fn an_inline_limit_tightens_a_stored_one_and_never_relaxes_it() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let secret = client.limited_key(vec![limit("calls", 3, MINUTE, false)]).await;
    assert_eq!(client.ask(&secret, &[inline("calls", 100, MINUTE)]).await, (Code::Valid, vec![2]));
    assert_eq!(client.ask(&secret, &[inline("calls", 1, MINUTE)]).await, (Code::RateLimited, vec![0]));
    assert_eq!(client.ask(&secret, &[inline("calls", 100, 1_000)]).await, (Code::Valid, vec![99, 1]));
    assert_eq!(client.ask(&secret, &[inline("others", 2, 1_000)]).await, (Code::Valid, vec![1]));
    assert_eq!(client.ask(&secret, &[named("calls", 1)]).await, (Code::Valid, vec![0]));
    assert_eq!(client.ask(&secret, &[inline("calls", 100, 1_000)]).await, (Code::RateLimited, vec![99, 0]));
}

#[tokio::test]
async fn a_refusal_for_another_reason_and_a_dry_run_count_nothing() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let secret = client.limited_key(vec![limit("calls", 2, MINUTE, true)]).await;
    for _ in 0..5 {
        let refused = client.verify(pb::VerifyKeyRequest { permissions: Some("x".into()), ..about(&secret) }).await;
        assert_eq!((refused.code(), refused.rate_limits.len()), (Code::InsufficientPermissions, 0));
        let dry = client.verify(pb::VerifyKeyRequest { dry_run: true, ..about(&secret) }).await;
        assert_eq!((dry.code(), dry.rate_limits[0].remaining), (Code::Valid, 2));
    }
    assert_eq!(client.ask(&secret, &[]).await, (Code::Valid, vec![1]));
}

#[tokio::test]
async fn a_cost_above_the_limit_never_passes_and_says_no_time() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let secret = client.limited_key(vec![limit("calls", 2, MINUTE, true)]).await;
    let question = pb::VerifyKeyRequest { rate_limits: vec![named("calls", 3)], ..about(&secret) };
    let verdict = client.verify(question).await;
    let outcome = &verdict.rate_limits[0];
    assert_eq!((verdict.code(), outcome.remaining), (Code::RateLimited, 2));
    assert_eq!((outcome.retry_after, outcome.reset_time), (None, None));
}

#[tokio::test]
async fn what_can_not_be_a_limit_is_refused_by_its_path() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    for (limits, path) in [
        (vec![inline("a", 0, 1_000)], "rate_limits[0].limit"),
        (vec![inline("a", 1, 999)], "rate_limits[0].duration"),
        (vec![inline("a", 1, MONTH + 1)], "rate_limits[0].duration"),
        (vec![pb::VerifyRateLimit { duration: None, ..inline("a", 1, 1_000) }], "rate_limits[0].duration"),
        (vec![pb::VerifyRateLimit { limit: None, ..inline("a", 1, 1_000) }], "rate_limits[0].limit"),
        (vec![named("a", -1)], "rate_limits[0].cost"),
        (vec![named("", 1)], "rate_limits[0].name"),
        (vec![named(&"a".repeat(129), 1)], "rate_limits[0].name"),
        (vec![named("a", 1), named("a", 1)], "rate_limits[1].name"),
        ((0..21).map(|number| named(&number.to_string(), 1)).collect(), "rate_limits"),
    ] {
        let question = pb::VerifyKeyRequest { rate_limits: limits, ..about("x") };
        assert_eq!(fields(&client.keys().verify_key(question).await.unwrap_err()), [path]);
    }
    for (tags, path) in
        [(vec!["x".repeat(513)], "tags[0]"), (vec![String::new()], "tags[0]"), (vec!["x".into(); 21], "tags")]
    {
        let question = pb::VerifyKeyRequest { tags, ..about("x") };
        assert_eq!(fields(&client.keys().verify_key(question).await.unwrap_err()), [path]);
    }
    let api = client.api("documents").await;
    for (limits, path) in [
        (vec![limit("a", 0, 1_000, true)], "rate_limits[0].limit"),
        (vec![limit("a", 1, 500, true)], "rate_limits[0].duration"),
        (vec![limit("a", 1, 1_000, true), limit("a", 2, 1_000, true)], "rate_limits"),
        ((0..21).map(|number| limit(&number.to_string(), 1, 1_000, true)).collect(), "rate_limits"),
    ] {
        let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), rate_limits: limits, ..Default::default() };
        assert_eq!(fields(&client.keys().create_key(request).await.unwrap_err()), [path]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_race_no_more_pass_than_the_limit_lets_through() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let secret = client.limited_key(vec![limit("calls", 100, MINUTE, true)]).await;
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let (client, secret) = (client.clone(), secret.clone());
        tasks.spawn(async move {
            let mut passed = 0;
            for _ in 0..5 {
                passed += usize::from(client.ask(&secret, &[]).await.0 == Code::Valid);
            }
            passed
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<usize>(), 100);
}

#[tokio::test]
async fn windows_of_a_minute_and_longer_outlive_a_restart() {
    let mut house = House::unswept().await;
    let client = house.operator().await;
    let secret = client.limited_key(vec![limit("minute", 3, MINUTE, true), limit("month", 5, MONTH, true)]).await;
    for left in [(2, 4), (1, 3)] {
        assert_eq!(client.ask(&secret, &[]).await, (Code::Valid, vec![left.0, left.1]));
    }
    house.restart().await;
    let client = house.operator().await;
    assert_eq!(client.ask(&secret, &[]).await, (Code::Valid, vec![0, 2]));
    assert_eq!(client.ask(&secret, &[]).await, (Code::RateLimited, vec![0, 2]));
    house.pass(2 * MINUTE);
    house.ostiary.flush_windows(Pace::AtOnce).await.unwrap();
    house.restart().await;
    let client = house.operator().await;
    assert_eq!(client.ask(&secret, &[]).await, (Code::Valid, vec![2, 1]));
}

#[tokio::test]
async fn the_keys_of_an_identity_share_its_limits_and_a_key_of_its_own_shadows_them() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let request = pb::CreateIdentityRequest {
        external_id: "acme".into(),
        rate_limits: vec![limit("calls", 3, MINUTE, true)],
        ..Default::default()
    };
    client.identities().create_identity(request).await.unwrap();
    let key = async |rate_limits: Vec<pb::RateLimit>| {
        let external_id = Some("acme".to_owned());
        let request =
            pb::CreateKeyRequest { api_id: api.api_id.clone(), external_id, rate_limits, ..Default::default() };
        client.key(request).await.1
    };
    let (one, two) = (key(Vec::new()).await, key(Vec::new()).await);
    let own = key(vec![limit("calls", 9, MINUTE, true)]).await;
    assert_eq!(client.ask(&one, &[]).await, (Code::Valid, vec![2]));
    assert_eq!(client.ask(&two, &[]).await, (Code::Valid, vec![1]));
    assert_eq!(client.ask(&own, &[]).await, (Code::Valid, vec![8]));
    assert_eq!(client.ask(&one, &[inline("calls", 2, MINUTE)]).await, (Code::RateLimited, vec![0]));
    assert_eq!(client.ask(&one, &[]).await, (Code::Valid, vec![0]));
    assert_eq!(client.ask(&two, &[]).await, (Code::RateLimited, vec![0]));
    let request = pb::DeleteIdentityRequest { identity: "acme".into(), ..Default::default() };
    client.identities().delete_identity(request).await.unwrap();
    assert_eq!(client.ask(&two, &[]).await, (Code::Valid, vec![]));
}

#[tokio::test]
async fn a_rerolled_key_and_its_successor_share_credits_and_counts() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let request = pb::CreateKeyRequest {
        api_id: api.api_id,
        credits: Some(pb::Credits { remaining: Some(1_000), refill: None }),
        rate_limits: vec![limit("calls", 10, MINUTE, true)],
        ..Default::default()
    };
    let (old, secret) = client.key(request).await;
    let spend = async |secret: &str| {
        let verdict = client.verify(about(secret)).await;
        (verdict.remaining_credits.unwrap(), verdict.rate_limits[0].remaining)
    };
    assert_eq!(spend(&secret).await, (999, 9));
    let request =
        pb::RerollKeyRequest { key_id: old.key_id.clone(), grace_period: Some(span(MINUTE)), ..Default::default() };
    let rerolled = client.keys().reroll_key(request).await.unwrap().into_inner();
    assert_eq!(spend(&rerolled.secret).await, (998, 8));
    assert_eq!(spend(&secret).await, (997, 7));
    let request = pb::AdjustCreditsRequest {
        key_id: old.key_id,
        operation: pb::CreditOperation::Set.into(),
        amount: Some(2),
        ..Default::default()
    };
    client.keys().adjust_credits(request).await.unwrap();
    assert_eq!(spend(&rerolled.secret).await, (1, 6));
}

#[tokio::test]
async fn calls_bring_along_limits_until_256_are_counted_and_those_of_the_key_go_on() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let secret = client.limited_key(vec![limit("calls", 5_000, MONTH, true)]).await;
    let brought = |number: usize| inline(&format!("brought-{number}"), 9, MONTH);
    for first in (0..255).step_by(15) {
        let some: Vec<_> = (first..first + 15).map(brought).collect();
        assert_eq!(client.ask(&secret, &some).await.0, Code::Valid);
    }
    let question = pb::VerifyKeyRequest { rate_limits: vec![brought(255)], ..about(&secret) };
    assert_eq!(fields(&client.keys().verify_key(question).await.unwrap_err()), ["rate_limits"]);
    assert_eq!(client.ask(&secret, &[brought(0)]).await.0, Code::Valid, "it is counted already");
    assert_eq!(client.ask(&secret, &[]).await.0, Code::Valid);
    let other = client.limited_key(Vec::new()).await;
    assert_eq!(client.ask(&other, &[brought(255)]).await.0, Code::Valid);
}

#[tokio::test]
async fn lists_that_no_question_may_have_are_refused_before_room_is_made_for_them() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let question = pb::VerifyKeyRequest { rate_limits: vec![pb::VerifyRateLimit::default(); 41], ..about("x") };
    assert_eq!(fields(&client.keys().verify_key(question.clone()).await.unwrap_err()), ["rate_limits"]);
    let batch = pb::BatchVerifyKeysRequest { requests: vec![question; 1_000] };
    assert_eq!(fields(&client.keys().batch_verify_keys(batch).await.unwrap_err()), ["rate_limits"]);
}
