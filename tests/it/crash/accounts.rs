//! Killed while keys are being used up, revoked and rerolled.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ostiary::pb::v1 as pb;
use pb::VerificationCode as Code;
use tokio::task::JoinSet;

use super::killed;
use crate::harness::{Client, span, texts};
use crate::process::Place;

/// What a key may be used in all.
const GRANTED: i64 = 20_000;
/// A crash forfeits at most what is reserved: 1 % of the balance.
const BLOCK: i64 = GRANTED / 100;
/// How often the process is killed while credits are spent.
const KILLS: i64 = 12;
/// Callers who spend at the same time.
const SPENDERS: usize = 8;
/// After how many answers the process is killed, more or less.
const ANSWERS: i64 = 400;

/// Waits until it is so, within reason.
async fn patiently(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..60_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it took more than a minute");
}

fn verify(secret: &str, cost: i64) -> pb::VerifyKeyRequest {
    pb::VerifyKeyRequest { key: secret.to_owned(), cost: Some(cost), ..Default::default() }
}

/// Spends one credit after another until the process is gone; counts what was answered.
async fn spend(client: Client, secret: String, paid: Arc<AtomicI64>) {
    loop {
        match client.keys().verify_key(verify(&secret, 1)).await {
            Ok(answer) => match answer.into_inner().verdict.unwrap().code() {
                Code::Valid => paid.fetch_add(1, Ordering::Relaxed),
                other => panic!("{other:?}"),
            },
            Err(status) => {
                killed(&status);
                return;
            }
        };
    }
}

async fn balance(client: &Client, key_id: &str) -> i64 {
    client.get_key(key_id).await.unwrap().credits.unwrap().remaining.unwrap()
}

#[tokio::test]
async fn no_credit_is_spent_twice_however_often_it_is_killed_and_each_kill_forfeits_a_block_at_most() {
    let place = Place::new();
    let mut server = place.serve(&[]);
    let first = place.first_root_key();
    let client = server.client(&first).await;
    let api = client.api("documents").await;
    let credits = Some(pb::Credits { remaining: Some(GRANTED), refill: None });
    let request = pb::CreateKeyRequest { api_id: api.api_id, credits, ..Default::default() };
    let (key, secret) = client.key(request).await;
    let (key_id, mut added) = (key.key_id, 0);
    let paid = Arc::new(AtomicI64::new(0));
    for kill in 1..=KILLS {
        let client = server.client(&first).await;
        // Balances are moved under the spenders too.
        let request = pb::AdjustCreditsRequest {
            key_id: key_id.clone(),
            operation: pb::CreditOperation::Increment.into(),
            amount: Some(100),
            ..Default::default()
        };
        let mut spenders = JoinSet::new();
        for _ in 0..SPENDERS {
            spenders.spawn(spend(client.clone(), secret.clone(), Arc::clone(&paid)));
        }
        patiently(async || paid.load(Ordering::Relaxed) >= kill * ANSWERS / 2).await;
        client.keys().adjust_credits(request).await.unwrap();
        added += 100;
        patiently(async || paid.load(Ordering::Relaxed) >= kill * ANSWERS).await;
        server.kill();
        while let Some(ended) = spenders.join_next().await {
            ended.unwrap();
        }
        server = place.serve(&[]);
        let client = server.client(&first).await;
        let (left, paid) = (balance(&client, &key_id).await, paid.load(Ordering::Relaxed));
        let granted = GRANTED + added;
        assert!(left + paid <= granted, "{left} left and {paid} answered of {granted}");
        // Calls that were not answered may have been paid for.
        let forfeited = granted - left - paid;
        let most = kill * (BLOCK + i64::try_from(SPENDERS).unwrap());
        assert!(forfeited <= most, "{forfeited} forfeited by {kill} kills");
    }
    // A clean stop forfeits nothing.
    let client = server.client(&first).await;
    let before = balance(&client, &key_id).await;
    assert_eq!(client.verify(verify(&secret, 7)).await.code(), Code::Valid);
    server.stop();
    let server = place.serve(&[]);
    let client = server.client(&first).await;
    assert_eq!(balance(&client, &key_id).await, before - 7);
    assert_eq!(client.verify(verify(&secret, before - 7)).await.code(), Code::Valid);
    assert_eq!(client.verify(verify(&secret, 1)).await.code(), Code::UsageExceeded);
}

async fn make_keys(client: &Client, api: &pb::Api, roles: &[&str], number: usize) -> Vec<String> {
    let making = (0..number).map(|_| {
        let client = client.clone();
        let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), roles: texts(roles), ..Default::default() };
        tokio::spawn(async move { client.key(request).await.1 })
    });
    let mut secrets = Vec::new();
    for made in making.collect::<Vec<_>>() {
        secrets.push(made.await.unwrap());
    }
    secrets
}

/// How many of these are good.
async fn good(client: &Client, secrets: &[String]) -> usize {
    let mut good = 0;
    for some in secrets.chunks(1_000) {
        let requests = some.iter().map(|secret| verify(secret, 1)).collect();
        let answer = client.keys().batch_verify_keys(pb::BatchVerifyKeysRequest { requests }).await.unwrap();
        good += answer
            .into_inner()
            .results
            .into_iter()
            .filter(|result| match &result.result {
                Some(pb::batch_verify_keys_result::Result::Verdict(verdict)) => verdict.valid,
                other => panic!("{other:?}"),
            })
            .count();
    }
    good
}

#[tokio::test]
async fn what_was_revoked_stays_revoked_though_it_is_killed_before_the_keys_are_marked() {
    let place = Place::new();
    let server = place.serve(&[]);
    let first = place.first_root_key();
    let client = server.client(&first).await;
    let api = client.api("documents").await;
    client.role("reader", &[]).await;
    let doomed = make_keys(&client, &api, &["reader"], 2_000).await;
    let others = make_keys(&client, &api, &[], 50).await;
    assert_eq!((good(&client, &doomed).await, good(&client, &others).await), (2_000, 50));
    let filter = Some(pb::RevokeKeysFilter { role: Some("reader".into()), ..Default::default() });
    let request = pb::RevokeKeysRequest { filter, ..Default::default() };
    let revoked = client.keys().revoke_keys(request).await.unwrap().into_inner().revoked_count;
    server.kill();
    assert_eq!(revoked, 2_000);
    // Marking is begun again by each start, and cut off.
    for _ in 0..3 {
        let server = place.serve(&[]);
        let client = server.client(&first).await;
        assert_eq!((good(&client, &doomed).await, good(&client, &others).await), (0, 50));
        server.kill();
    }
    let server = place.serve(&[]);
    let client = server.client(&first).await;
    // Once all are marked the counts say so.
    patiently(async || {
        let request = pb::GetApiRequest { api_id: api.api_id.clone(), ..Default::default() };
        let found = client.apis().get_api(request).await.unwrap().into_inner().api.unwrap();
        found.key_count == 50
    })
    .await;
    assert_eq!((good(&client, &doomed).await, good(&client, &others).await), (0, 50));
}

#[tokio::test]
async fn exactly_one_of_a_line_is_good_though_it_is_killed_with_the_answer() {
    let place = Place::new();
    let mut server = place.serve(&[]);
    let first = place.first_root_key();
    let client = server.client(&first).await;
    let api = client.api("documents").await;
    let (mut key, mut secret) = client.plain_key(&api, "Ada").await;
    for _ in 0..5 {
        let client = server.client(&first).await;
        let request =
            pb::RerollKeyRequest { key_id: key.key_id.clone(), grace_period: Some(span(0)), ..Default::default() };
        let answer = client.keys().reroll_key(request).await.unwrap().into_inner();
        server.kill();
        server = place.serve(&[]);
        let client = server.client(&first).await;
        assert_eq!(client.verdict(&secret, None).await.code(), Code::Expired);
        (key, secret) = (answer.key.unwrap(), answer.secret);
        assert_eq!(client.verdict(&secret, None).await.code(), Code::Valid);
    }
}
