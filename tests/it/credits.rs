//! Credits: never overspent, filled up on the day, kept over a restart.

use ostiary::pb::v1 as pb;
use ostiary::server::Sweeping;
use pb::{CreditOperation as Operation, VerificationCode as Code};
use tokio::task::JoinSet;
use tonic::Code as Grpc;

use crate::harness::{Client, House, Kept, START, fields, mask, reason, span};

const DAY: u64 = 24 * 3_600 * 1_000;

fn credits(remaining: i64) -> Option<pb::Credits> {
    Some(pb::Credits { remaining: Some(remaining), refill: None })
}

fn refilled(remaining: i64, interval: pb::RefillInterval, amount: i64, day: Option<i32>) -> Option<pb::Credits> {
    let refill = pb::CreditRefill { interval: interval.into(), amount, day };
    Some(pb::Credits { remaining: Some(remaining), refill: Some(refill) })
}

impl Client {
    async fn metered(&self, credits: Option<pb::Credits>) -> (pb::Key, String) {
        let api = self.api("documents").await;
        self.key(pb::CreateKeyRequest { api_id: api.api_id, credits, ..Default::default() }).await
    }

    /// Verifies at a cost: the code, and what is left then.
    async fn spend(&self, secret: &str, cost: i64) -> (Code, Option<i64>) {
        let verdict =
            self.verify(pb::VerifyKeyRequest { key: secret.to_owned(), cost: Some(cost), ..Default::default() }).await;
        (verdict.code(), verdict.remaining_credits)
    }

    async fn adjust(
        &self,
        key: &pb::Key,
        operation: Operation,
        amount: Option<i64>,
    ) -> Result<Option<i64>, tonic::Status> {
        let request = pb::AdjustCreditsRequest {
            key_id: key.key_id.clone(),
            operation: operation.into(),
            amount,
            ..Default::default()
        };
        self.keys().adjust_credits(request).await.map(|response| response.into_inner().remaining)
    }

    async fn balance(&self, key: &pb::Key) -> Option<i64> {
        self.get_key(&key.key_id).await.unwrap().credits.and_then(|credits| credits.remaining)
    }
}

#[tokio::test]
async fn a_verification_costs_what_it_says_and_a_refused_one_costs_nothing() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, secret) = client.metered(credits(10)).await;
    assert_eq!(client.spend(&secret, 1).await, (Code::Valid, Some(9)));
    assert_eq!(client.spend(&secret, 4).await, (Code::Valid, Some(5)));
    assert_eq!(client.spend(&secret, 6).await, (Code::UsageExceeded, Some(5)));
    assert_eq!(client.spend(&secret, 5).await, (Code::Valid, Some(0)));
    assert_eq!(client.spend(&secret, 1).await, (Code::UsageExceeded, Some(0)));
    assert_eq!(client.spend(&secret, 0).await, (Code::Valid, Some(0)));
    assert_eq!(client.balance(&key).await, Some(0));
    let unasked = client.verdict(&secret, None).await;
    assert_eq!((unasked.code(), unasked.reason.as_str()), (Code::UsageExceeded, "the key has too few credits left"));
}

#[tokio::test]
async fn a_large_balance_is_told_exactly_though_it_is_spent_in_blocks() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, secret) = client.metered(credits(1_000_000)).await;
    for spent in 1..=50 {
        assert_eq!(client.spend(&secret, 1).await, (Code::Valid, Some(1_000_000 - spent)));
        assert_eq!(client.balance(&key).await, Some(1_000_000 - spent));
    }
}

#[tokio::test]
async fn a_dry_run_costs_nothing_and_tells_what_a_real_one_would() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (_, secret) = client.metered(credits(1)).await;
    let try_out =
        |cost| pb::VerifyKeyRequest { key: secret.clone(), cost: Some(cost), dry_run: true, ..Default::default() };
    for (cost, code) in [(1, Code::Valid), (2, Code::UsageExceeded), (1, Code::Valid)] {
        let verdict = client.verify(try_out(cost)).await;
        assert_eq!((verdict.code(), verdict.remaining_credits), (code, Some(1)));
    }
    assert_eq!(client.spend(&secret, 1).await, (Code::Valid, Some(0)));
}

#[tokio::test]
async fn a_key_without_credits_is_good_as_often_as_one_likes() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, secret) = client.metered(None).await;
    assert_eq!(client.spend(&secret, 1 << 53).await, (Code::Valid, None));
    assert_eq!(key.credits, None);
}

#[tokio::test]
async fn a_balance_is_filled_up_on_the_millisecond_and_replaced_rather_than_added_to() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, secret) = client.metered(refilled(3, pb::RefillInterval::Daily, 5, None)).await;
    assert_eq!(client.spend(&secret, 3).await, (Code::Valid, Some(0)));
    let midnight = DAY - START % DAY;
    house.pass(midnight - 1);
    assert_eq!(client.spend(&secret, 1).await, (Code::UsageExceeded, Some(0)));
    house.pass(1);
    assert_eq!(client.balance(&key).await, Some(5));
    assert_eq!(client.spend(&secret, 1).await, (Code::Valid, Some(4)));
    house.pass(10 * DAY);
    assert_eq!(client.spend(&secret, 1).await, (Code::Valid, Some(4)));
    client.adjust(&key, Operation::Set, Some(100)).await.unwrap();
    house.pass(DAY);
    assert_eq!(client.balance(&key).await, Some(100));
}

#[tokio::test]
async fn credits_are_set_added_and_taken_away() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, secret) = client.metered(credits(1_000)).await;
    client.spend(&secret, 1).await;
    assert_eq!(client.adjust(&key, Operation::Increment, Some(1)).await.unwrap(), Some(1_000));
    assert_eq!(client.adjust(&key, Operation::Decrement, Some(400)).await.unwrap(), Some(600));
    assert_eq!(client.adjust(&key, Operation::Decrement, Some(601)).await.unwrap(), Some(0));
    assert_eq!(client.spend(&secret, 1).await, (Code::UsageExceeded, Some(0)));
    assert_eq!(client.adjust(&key, Operation::Set, Some(2)).await.unwrap(), Some(2));
    assert_eq!(client.spend(&secret, 1).await, (Code::Valid, Some(1)));
    let etag = client.get_key(&key.key_id).await.unwrap().etag;
    assert_eq!(etag, key.etag);
    assert_eq!(client.adjust(&key, Operation::Set, None).await.unwrap(), None);
    assert_eq!(client.spend(&secret, 7).await, (Code::Valid, None));
    for operation in [Operation::Increment, Operation::Decrement] {
        let status = client.adjust(&key, operation, Some(1)).await.unwrap_err();
        assert_eq!((status.code(), reason(&status)), (Grpc::FailedPrecondition, "CREDITS_UNLIMITED".into()));
    }
    let events = client.events().await;
    assert_eq!(events.iter().filter(|event| *event == "key.adjust_credits").count(), 5);
}

#[tokio::test]
async fn amounts_that_can_not_be_are_refused_with_their_bound() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, secret) = client.metered(credits(1)).await;
    for (operation, amount, field) in [
        (Operation::Set, Some(-1), "amount"),
        (Operation::Set, Some((1 << 53) + 1), "amount"),
        (Operation::Increment, Some(1 << 53), "amount"),
        (Operation::Increment, None, "amount"),
        (Operation::Unspecified, Some(1), "operation"),
    ] {
        let status = client.adjust(&key, operation, amount).await.unwrap_err();
        assert_eq!(fields(&status), [field], "{operation:?} {amount:?}");
        assert!(operation == Operation::Unspecified || amount.is_none() || status.message().contains("90071992547409"));
    }
    for cost in [-1, (1 << 53) + 1] {
        let question = pb::VerifyKeyRequest { key: secret.clone(), cost: Some(cost), ..Default::default() };
        assert_eq!(fields(&client.keys().verify_key(question).await.unwrap_err()), ["cost"]);
    }
    let api = client.api("others").await;
    for (unfit, field) in [
        (pb::Credits { remaining: None, refill: None }, "credits.remaining"),
        (pb::Credits { remaining: Some(-1), refill: None }, "credits.remaining"),
        (refilled(1, pb::RefillInterval::Daily, 0, None).unwrap(), "credits.refill.amount"),
        (refilled(1, pb::RefillInterval::Daily, 1, Some(1)).unwrap(), "credits.refill.day"),
        (refilled(1, pb::RefillInterval::Monthly, 1, Some(32)).unwrap(), "credits.refill.day"),
        (refilled(1, pb::RefillInterval::Unspecified, 1, None).unwrap(), "credits.refill.interval"),
    ] {
        let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), credits: Some(unfit), ..Default::default() };
        assert_eq!(fields(&client.keys().create_key(request).await.unwrap_err()), [field]);
    }
    assert_eq!(client.balance(&key).await, Some(1));
}

#[tokio::test]
async fn an_update_replaces_credits_or_one_of_their_two_parts() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, secret) = client.metered(refilled(50, pb::RefillInterval::Monthly, 100, None)).await;
    assert_eq!(key.credits, refilled(50, pb::RefillInterval::Monthly, 100, Some(1)));
    let update = async |paths: &[&str], credits| {
        let request = pb::UpdateKeyRequest {
            key_id: key.key_id.clone(),
            credits,
            update_mask: mask(paths),
            ..Default::default()
        };
        client.keys().update_key(request).await.map(|response| response.into_inner().key.unwrap())
    };
    client.spend(&secret, 20).await;
    let updated = update(&["credits.refill"], None).await.unwrap();
    assert_eq!(updated.credits, credits(30));
    assert_ne!(updated.etag, key.etag);
    let daily = refilled(0, pb::RefillInterval::Daily, 7, None);
    assert_eq!(
        update(&["credits.refill"], daily).await.unwrap().credits,
        refilled(30, pb::RefillInterval::Daily, 7, None)
    );
    assert_eq!(
        update(&["credits.remaining"], credits(5)).await.unwrap().credits,
        refilled(5, pb::RefillInterval::Daily, 7, None)
    );
    assert_eq!(update(&["credits"], None).await.unwrap().credits, None);
    let status = update(&["credits.refill"], daily).await.unwrap_err();
    assert_eq!(reason(&status), "CREDITS_UNLIMITED");
    assert_eq!(update(&[], credits(9)).await.unwrap().credits, credits(9));
    assert_eq!(client.spend(&secret, 9).await, (Code::Valid, Some(0)));
}

#[tokio::test]
async fn a_clean_restart_loses_nothing() {
    let mut house = House::build(Kept::OnDisk, Sweeping::ByHand, 5).await;
    let client = house.operator().await;
    let (key, secret) = client.metered(credits(1_000_000)).await;
    for _ in 0..7 {
        client.spend(&secret, 1).await;
    }
    house.restart().await;
    let client = house.operator().await;
    assert_eq!(client.balance(&key).await, Some(999_993));
    assert_eq!(client.spend(&secret, 1).await, (Code::Valid, Some(999_992)));
}

#[tokio::test]
async fn what_is_in_memory_is_filled_up_before_it_is_spent() {
    let mut house = House::build(Kept::OnDisk, Sweeping::ByHand, 6).await;
    let client = house.operator().await;
    let (key, secret) = client.metered(credits(100_000)).await;
    let commits = |house: &House| house.engine.work().commits;
    assert_eq!(client.spend(&secret, 1).await, (Code::Valid, Some(99_999)));
    let reserved = commits(&house);
    // 999 are in memory. Nothing is wanted until two thirds of them are gone.
    house.ostiary.top_up_credits().await.unwrap();
    assert_eq!(client.spend(&secret, 700).await, (Code::Valid, Some(99_299)));
    assert_eq!(commits(&house), reserved, "paid from memory");
    house.ostiary.top_up_credits().await.unwrap();
    house.ostiary.top_up_credits().await.unwrap();
    assert_eq!(commits(&house), reserved + 1, "filled up once");
    assert_eq!(client.balance(&key).await, Some(99_299));
    assert_eq!(client.spend(&secret, 992).await, (Code::Valid, Some(98_307)));
    assert_eq!(commits(&house), reserved + 1, "a hundredth of what was left was in memory");
    assert_eq!(client.spend(&secret, 1).await, (Code::Valid, Some(98_306)));
    assert_eq!(commits(&house), reserved + 2, "and no more");
    // What was reserved of a balance that has been replaced is not filled up.
    client.spend(&secret, 900).await;
    client.adjust(&key, Operation::Set, Some(50)).await.unwrap();
    house.ostiary.top_up_credits().await.unwrap();
    assert_eq!(client.spend(&secret, 51).await, (Code::UsageExceeded, Some(50)));
    house.restart().await;
    assert_eq!(house.operator().await.balance(&key).await, Some(50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_race_no_more_is_spent_than_there_is_and_no_less() {
    for (kept, sweeping) in [
        (Kept::InMemory, Sweeping::ByHand),
        (Kept::OnDisk, Sweeping::ByHand),
        (Kept::InMemory, Sweeping::InBackground),
        (Kept::OnDisk, Sweeping::InBackground),
    ] {
        let house = House::build(kept, sweeping, 7).await;
        let client = house.operator().await;
        for (balance, cost) in [(100, 1), (1_000, 3), (5, 2), (5_000, 1)] {
            let (key, secret) = client.metered(credits(balance)).await;
            let mut tasks = JoinSet::new();
            for _ in 0..64 {
                let (client, secret) = (client.clone(), secret.clone());
                tasks.spawn(async move {
                    let mut spent = 0;
                    while client.spend(&secret, cost).await.0 == Code::Valid {
                        spent += cost;
                    }
                    spent
                });
            }
            let spent: i64 = tasks.join_all().await.into_iter().sum();
            assert_eq!(spent, balance - balance % cost);
            assert_eq!(client.balance(&key).await, Some(balance % cost));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_a_balance_and_spending_at_the_same_time_add_up() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, secret) = client.metered(credits(10_000)).await;
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let (client, secret, key) = (client.clone(), secret.clone(), key.clone());
        tasks.spawn(async move {
            let mut change = 0;
            for _ in 0..20 {
                assert_eq!(client.spend(&secret, 3).await.0, Code::Valid);
                client.adjust(&key, Operation::Increment, Some(5)).await.unwrap();
                client.adjust(&key, Operation::Decrement, Some(1)).await.unwrap();
                change += 1;
            }
            change
        });
    }
    let net: i64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(client.balance(&key).await, Some(10_000 + net));
}

#[tokio::test]
async fn credits_and_limits_are_consumed_together_or_not_at_all() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (_, secret) = client.metered(credits(3)).await;
    let ask = |limit, cost| pb::VerifyKeyRequest {
        key: secret.clone(),
        cost: Some(cost),
        rate_limits: vec![pb::VerifyRateLimit {
            name: "calls".into(),
            cost: None,
            limit: Some(limit),
            duration: Some(span(60_000)),
        }],
        ..Default::default()
    };
    let outcome = async |limit, cost| {
        let verdict = client.verify(ask(limit, cost)).await;
        (verdict.code(), verdict.remaining_credits, verdict.rate_limits[0].remaining)
    };
    assert_eq!(outcome(2, 1).await, (Code::Valid, Some(2), 1));
    assert_eq!(outcome(2, 3).await, (Code::UsageExceeded, Some(2), 1));
    assert_eq!(outcome(2, 1).await, (Code::Valid, Some(1), 0));
    assert_eq!(outcome(2, 1).await, (Code::RateLimited, Some(1), 0));
    assert_eq!(outcome(9, 1).await, (Code::Valid, Some(0), 6));
}
