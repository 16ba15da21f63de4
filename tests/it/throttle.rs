//! Guessing root keys costs the guesser, and nobody else.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ostiary::domain::secret::{Prefix, Secret};
use ostiary::pb::v1 as pb;
use ostiary::rpc::throttle::{FAILURES_AT_ONCE, FAILURES_PER_SECOND};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Client, Headers, House, at, reason, root_key};

/// Milliseconds until one more failure is answered.
const ONE_MORE: u64 = 1_000 / FAILURES_PER_SECOND as u64;

async fn who_am_i(client: &Client) -> Result<(), Status> {
    client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.map(|_| ())
}

async fn guess(client: &Client) -> Status {
    who_am_i(client).await.expect_err("a guess does not get in")
}

fn unknown() -> String {
    Secret::issue(&Prefix::root_key(), [5; 24]).expose().to_owned()
}

/// Fails until one more failure is one too many.
async fn exhaust(house: &House) -> Client {
    let guesser = house.client(&unknown()).await;
    for _ in 0..FAILURES_AT_ONCE {
        assert_eq!(reason(&guess(&guesser).await), "ROOT_KEY_INVALID");
    }
    guesser
}

#[tokio::test]
async fn after_too_many_failures_of_whatever_kind_an_address_is_told_to_wait_and_for_how_long() {
    let house = House::unswept().await;
    let stranger = house.stranger().await;
    let kinds = [
        (stranger.clone(), "ROOT_KEY_MISSING"),
        (stranger.with("two words"), "ROOT_KEY_MALFORMED"),
        (stranger.with(&unknown()), "ROOT_KEY_INVALID"),
    ];
    for n in 0..FAILURES_AT_ONCE as usize {
        let (client, expected) = &kinds[n % kinds.len()];
        assert_eq!(reason(&guess(client).await), *expected);
    }
    for (client, _) in &kinds {
        let status = guess(client).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "AUTH_ATTEMPTS_LIMITED"));
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_millis(ONE_MORE)));
        assert!(status.get_details_request_info().is_some());
    }
}

#[tokio::test]
async fn a_good_root_key_is_never_refused_however_many_guesses_come_from_its_address() {
    let house = House::unswept().await;
    let good = house.operator().await;
    let guesser = exhaust(&house).await;
    for _ in 0..50 {
        assert_eq!(reason(&guess(&guesser).await), "AUTH_ATTEMPTS_LIMITED");
        who_am_i(&good).await.unwrap();
        // On the guesser's own connection as well.
        who_am_i(&guesser.with(&house.first)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_known_and_refused_is_told_why_and_counts_as_no_guess() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let request = pb::CreateRootKeyRequest {
        expiration: Some(pb::create_root_key_request::Expiration::ExpireTime(at(house.now() + 1_000))),
        ..root_key("brief", &["apis.*.read_api"])
    };
    let brief = operator.root_keys().create_root_key(request).await.unwrap().into_inner().secret;
    let narrow = operator.with(&operator.root_key("narrow", &["apis.*.read_api"]).await.1);
    house.pass(1_000);
    let brief = operator.with(&brief);
    for _ in 0..=FAILURES_AT_ONCE {
        assert_eq!(reason(&guess(&brief).await), "ROOT_KEY_EXPIRED");
        let denied = narrow.root_keys().list_root_keys(pb::ListRootKeysRequest::default()).await.unwrap_err();
        assert_eq!(reason(&denied), "PERMISSION_MISSING");
    }
    let guesser = exhaust(&house).await;
    assert_eq!(reason(&guess(&guesser).await), "AUTH_ATTEMPTS_LIMITED");
    assert_eq!(reason(&guess(&brief).await), "ROOT_KEY_EXPIRED");
}

#[tokio::test]
async fn an_address_recovers_with_time_one_failure_after_the_other() {
    let house = House::unswept().await;
    let guesser = exhaust(&house).await;
    house.pass(ONE_MORE - 1);
    let status = guess(&guesser).await;
    assert_eq!(reason(&status), "AUTH_ATTEMPTS_LIMITED");
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_millis(1)));
    house.pass(1);
    assert_eq!(reason(&guess(&guesser).await), "ROOT_KEY_INVALID");
    assert_eq!(reason(&guess(&guesser).await), "AUTH_ATTEMPTS_LIMITED");
    house.pass(u64::from(FAILURES_AT_ONCE) * ONE_MORE);
    exhaust(&house).await;
    assert_eq!(reason(&guess(&guesser).await), "AUTH_ATTEMPTS_LIMITED");
}

#[tokio::test]
async fn a_new_connection_does_not_help_and_another_address_does_not_suffer() {
    let house = House::unswept().await;
    exhaust(&house).await;
    let again = house.client(&unknown()).await;
    assert_eq!(reason(&guess(&again).await), "AUTH_ATTEMPTS_LIMITED");
    let endpoint = Endpoint::from_shared(format!("http://{}", house.address)).unwrap();
    let elsewhere = endpoint.local_address(Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)))).connect().await.unwrap();
    let elsewhere = Client { channel: elsewhere, headers: Headers { secret: Some(unknown()), ..Headers::default() } };
    assert_eq!(reason(&guess(&elsewhere).await), "ROOT_KEY_INVALID");
}

#[tokio::test]
async fn what_needs_no_root_key_is_neither_counted_nor_limited() {
    let house = House::unswept().await;
    let stranger = house.stranger().await;
    let health = async || stranger.raw("/grpc.health.v1.Health/Check", Vec::new(), Default::default()).await;
    for _ in 0..=FAILURES_AT_ONCE {
        health().await.unwrap();
        let nowhere = stranger.raw("/ostiary.v1.Nowhere/Go", Vec::new(), Default::default()).await.unwrap_err();
        assert_eq!(nowhere.code(), Code::Unimplemented);
    }
    exhaust(&house).await;
    assert_eq!(reason(&guess(&stranger).await), "AUTH_ATTEMPTS_LIMITED");
    health().await.unwrap();
}
