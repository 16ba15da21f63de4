//! Probing for keys: it costs the prober, and nobody else.

use ostiary::domain::secret::{Prefix, Secret};
use ostiary::pb::v1 as pb;
use ostiary::rpc::probing::UNKNOWN_AT_ONCE;
use pb::VerificationCode as Code;
use tokio::task::JoinHandle;

use crate::harness::{Client, House};

/// An unknown key, well formed or not, asked for by a client at this address.
fn probe(number: u32, address: Option<&str>) -> pb::VerifyKeyRequest {
    pb::VerifyKeyRequest { key: format!("unknown {number}"), client_ip: address.map(Into::into), ..Default::default() }
}

/// Asks for as many unknown keys as may be asked for at once.
async fn exhaust(client: &Client, address: Option<&str>) {
    for first in (0..UNKNOWN_AT_ONCE).step_by(500) {
        let requests = (first..first + 500).map(|number| probe(number, address)).collect();
        let request = pb::BatchVerifyKeysRequest { requests };
        client.keys().batch_verify_keys(request).await.unwrap();
    }
}

fn ask(client: &Client, request: pb::VerifyKeyRequest) -> JoinHandle<Code> {
    let client = client.clone();
    tokio::spawn(async move { client.verify(request).await.code() })
}

#[tokio::test]
async fn a_prober_waits_while_good_keys_and_other_clients_are_answered_at_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (_, good) = client.plain_key(&api, "good").await;
    exhaust(&client, Some("192.0.2.7")).await;
    let waiting: Vec<JoinHandle<Code>> = (0..40).map(|number| ask(&client, probe(number, Some("192.0.2.7")))).collect();
    let lookup = pb::LookupKeyRequest { secret: good.clone(), ..Default::default() };
    client.keys().lookup_key(lookup).await.unwrap();
    for address in ["192.0.2.7", "203.0.113.9"] {
        let request = pb::VerifyKeyRequest { key: good.clone(), client_ip: Some(address.into()), ..Default::default() };
        assert_eq!(client.verify(request).await.code(), Code::Valid, "{address}");
    }
    assert_eq!(client.verify(probe(0, Some("203.0.113.9"))).await.code(), Code::NotFound);
    assert_eq!(client.verify(probe(0, None)).await.code(), Code::NotFound);
    // Unknown keys in a batch don't hold up the good ones in it.
    let requests = vec![probe(0, Some("192.0.2.7")), pb::VerifyKeyRequest { key: good.clone(), ..Default::default() }];
    client.keys().batch_verify_keys(pb::BatchVerifyKeysRequest { requests }).await.unwrap();
    assert!(waiting.iter().all(|answer| !answer.is_finished()));
    house.pass(1_000);
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_key_that_is_made_while_its_answer_is_held_back_is_good_at_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    exhaust(&client, None).await;
    let api = client.api("documents").await;
    let (_, secret) = client.plain_key(&api, "new").await;
    assert_eq!(client.verdict(&secret, None).await.code(), Code::Valid);
}

#[tokio::test]
async fn the_end_of_the_server_is_not_held_up_by_answers_that_are() {
    let mut house = House::in_memory().await;
    let client = house.operator().await;
    exhaust(&client, None).await;
    let waiting = ask(&client, probe(0, None));
    // Calls of one connection are taken in order: once this one is answered, the other is under way.
    client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    house.halt().await;
    assert_eq!(waiting.await.unwrap(), Code::NotFound);
}

#[tokio::test]
async fn knowing_where_the_record_of_a_key_lies_helps_nobody() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (_, issued) = client.plain_key(&api, "theirs").await;
    let handle = Secret::presented(issued.clone()).handle().unwrap();
    for guess in [[0; 16], [0xff; 16]] {
        let made_up = Secret::issue_with(&Prefix::default(), handle, guess);
        let request = pb::VerifyKeyRequest { key: made_up.expose().to_owned(), ..Default::default() };
        assert_eq!(client.verify(request).await.code(), Code::NotFound);
    }
    let request = pb::VerifyKeyRequest { key: issued, ..Default::default() };
    assert_eq!(client.verify(request).await.code(), Code::Valid);
}
