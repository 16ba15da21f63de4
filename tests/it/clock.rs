//! A clock that is far ahead of the last run: ends are kept to, nothing is removed for good before it is trusted, and
//! putting it back revives nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ostiary::pb::v1 as pb;
use ostiary::store::redb::{RedbEngine, RedbOptions};
use ostiary::store::{Engine, tables};

use crate::harness::{House, START, span};
use crate::process::{Place, set_mode};

const DAY: u64 = 24 * 3_600 * 1_000;
const WARNING: &str = "the clock is far ahead of when ostiary last ran";

/// What lies in a store that nobody serves.
struct Stored {
    keys: Vec<String>,
    /// How many calls may be repeated.
    remembered: usize,
    /// No run begins before it.
    instant: u64,
    /// Up to when the clock was trusted, if it is in doubt.
    doubted: Option<u64>,
}

async fn stored(file: &Path) -> Stored {
    let engine = Arc::new(RedbEngine::open(RedbOptions::new(file.to_owned(), 1)).unwrap());
    let view = engine.view().await.unwrap();
    let keys = tables::KEYS.list(view.as_ref(), &(), None, 10).await.unwrap();
    let instant = tables::CLOCK.read(view.as_ref(), &()).await.unwrap().unwrap();
    let doubted = tables::CLOCK_DOUBT.read(view.as_ref(), &()).await.unwrap();
    let remembered = tables::REMEMBERED.list(view.as_ref(), &(), None, 10).await.unwrap().len();
    Stored { keys: keys.into_iter().map(|((_, key), _)| key.to_string()).collect(), remembered, instant, doubted }
}

/// A place with the store of a house that was left at the beginning of its time: one key that is deleted, one that has a
/// day to live, and a call that may be repeated. With the root key and the id of the deleted key.
async fn left_behind() -> (Place, String, String) {
    let mut house = House::unswept().await;
    let client = house.operator().await;
    let api = client.once("once").api("documents").await;
    let deleted = client.plain_key(&api, "deleted").await.0;
    let request = pb::DeleteKeyRequest { key_id: deleted.key_id.clone(), ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let expiration = Some(pb::create_key_request::Expiration::Ttl(span(DAY)));
    client.key(pb::CreateKeyRequest { api_id: api.api_id, expiration, ..Default::default() }).await;
    drop(client);
    house.halt().await;
    (store_of(&house), house.first.clone(), deleted.key_id)
}

/// A place with the store of a house that has been left.
fn store_of(house: &House) -> Place {
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    set_mode(&place.data(), 0o700);
    let file = place.data().join("ostiary.redb");
    std::fs::copy(house.file(), &file).unwrap();
    set_mode(&file, 0o600);
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_a_clock_that_is_behind_goes_on_from_where_the_last_run_was() {
    let mut house = House::unswept().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    // Ahead of whatever clock this is run by.
    house.pass(100 * 365 * DAY);
    let expiration = Some(pb::create_key_request::Expiration::Ttl(span(DAY)));
    let (_, ended) =
        client.key(pb::CreateKeyRequest { api_id: api.api_id.clone(), expiration, ..Default::default() }).await;
    let expiration = Some(pb::create_key_request::Expiration::Ttl(span(3 * DAY)));
    let (_, lives) = client.key(pb::CreateKeyRequest { api_id: api.api_id, expiration, ..Default::default() }).await;
    house.pass(2 * DAY);
    drop(client);
    house.halt().await;
    let place = store_of(&house);
    let before = stored(&place.data().join("ostiary.redb")).await.instant;
    let server = place.serve(&[]);
    let client = server.client(&house.first).await;
    let told = client.maintenance().get_server_info(pb::GetServerInfoRequest {}).await.unwrap().into_inner();
    let time = told.server.unwrap().time.unwrap();
    assert!(u64::try_from(time.seconds).unwrap() >= before / 1_000, "{time:?}");
    assert_eq!(client.verdict(&ended, None).await.code(), pb::VerificationCode::Expired, "it stays so");
    assert!(client.verdict(&lives, None).await.valid);
    assert_eq!(server.stop().code, Some(0));
}

/// Runs the server until it has recorded the one end of a life, and for `longer` after that. Returns what it said.
async fn run(place: &Place, secret: &str, flags: &[&str], longer: Duration) -> String {
    let server = place.serve(flags);
    let client = server.client(secret).await;
    let filter = Some(pb::ListAuditEventsFilter { event: Some("key.expire".to_owned()), ..Default::default() });
    let request = pb::ListAuditEventsRequest { filter, ..Default::default() };
    loop {
        let listed = client.audit().list_audit_events(request.clone()).await.unwrap().into_inner();
        if listed.events.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(longer).await;
    drop(client);
    let ended = server.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stderr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_far_ahead_removes_nothing_however_often_until_the_clock_is_trusted() {
    let (place, secret, deleted) = left_behind().await;
    let file = place.data().join("ostiary.redb");
    for _ in 0..2 {
        let said = run(&place, &secret, &[], Duration::ZERO).await;
        assert!(said.contains(WARNING), "{said}");
        let Stored { keys, remembered, instant, doubted } = stored(&file).await;
        assert_eq!((keys.len(), remembered), (2, 1));
        assert_eq!(doubted, Some(START), "the next start doubts it as well");
        assert!(instant > START, "and does not begin before this");
    }
    // A run may end before it has come to all of it, on a slow disk before it has come to anything.
    for attempt in 1..100 {
        let longer = Duration::from_millis(20) * attempt;
        let said = run(&place, &secret, &["--trust-clock"], longer).await;
        assert!(!said.contains(WARNING), "{said}");
        let Stored { keys, remembered, doubted, .. } = stored(&file).await;
        if !keys.contains(&deleted) && remembered == 0 && doubted.is_none() {
            return;
        }
    }
    panic!("the deleted key is still there");
}
