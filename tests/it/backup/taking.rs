//! Taking one: who may, what is in it, and how it ends early.

use std::time::Duration;

use ostiary::domain::secret::{Prefix, Secret};
use ostiary::pb::v1 as pb;
use ostiary::store::tables;
use tonic::{Code, Status, Streaming};

use super::{counter, read};
use crate::harness::{Client, House, reason, refusal};

/// Keys with metadata that make a backup too large to be on its way as a whole.
const LARGE: usize = 200;

/// An API with so much in it that a backup of it takes many pieces.
async fn fill(client: &Client) -> pb::Api {
    let api = client.api("large").await;
    for _ in 0..LARGE {
        let text = prost_types::value::Kind::StringValue("x".repeat(60 << 10));
        let fields = [("text".to_owned(), prost_types::Value { kind: Some(text) })].into();
        let metadata = Some(prost_types::Struct { fields });
        client.key(pb::CreateKeyRequest { api_id: api.api_id.clone(), metadata, ..Default::default() }).await;
    }
    api
}

/// The first pieces of a backup, of which there are many more.
async fn begun(client: &Client) -> Streaming<pb::BackupResponse> {
    let mut pieces = client.begin_backup().await.unwrap();
    pieces.message().await.unwrap().unwrap();
    pieces
}

/// How a backup ends from here on, and whether it is whole.
async fn end(mut pieces: Streaming<pb::BackupResponse>) -> Result<(), Status> {
    while pieces.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn a_backup_is_one_moment_however_much_is_written_while_it_is_taken() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let api = fill(&operator).await;
    let mut pieces = operator.begin_backup().await.unwrap();
    let first = pieces.message().await.unwrap().unwrap();
    let revision = first.meta.unwrap().revision;
    for _ in 0..20 {
        operator.plain_key(&api, "customer").await;
    }
    operator.apis().delete_api(pb::DeleteApiRequest { api_id: api.api_id, ..Default::default() }).await.unwrap();
    let mut bytes = first.data;
    while let Some(piece) = pieces.message().await.unwrap() {
        assert_eq!(piece.meta.unwrap().revision, revision, "it is the same state all along");
        bytes.extend(piece.data);
    }
    let taken = read(&bytes).unwrap();
    assert_eq!(format!("{:016x}.{}", taken.header.epoch, taken.header.counter), revision);
    assert_eq!(taken.contents.tables[&tables::KEYS.tag()], LARGE as u64);
    for (key, value) in &taken.rows {
        tables::examine(key, value).unwrap();
    }
    // Its own event is the last one in it.
    let events = taken.rows.keys().filter_map(|key| tables::AUDIT.key_of(key));
    assert_eq!(events.map(|(_, revision, _)| revision).max(), Some(counter(&revision)));
    assert!(operator.events().await.contains(&"store.backup".to_owned()));
}

#[tokio::test]
async fn no_secret_is_in_a_backup() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (_, secret) = operator.plain_key(&operator.api("documents").await, "customer").await;
    let (_, root_key) = operator.root_key("server", &["apis.*.verify_key"]).await;
    let bytes = operator.backup().await;
    for secret in [&house.first, &secret, &root_key] {
        let (_, tail) = secret.rsplit_once('_').unwrap();
        let tail = &tail.as_bytes()[8..];
        assert!(!bytes.windows(tail.len()).any(|window| window == tail));
    }
}

#[tokio::test]
async fn only_root_keys_of_the_operator_that_may_take_a_backup_take_one_and_it_is_logged_under_their_name() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let tenant = operator.neighbour("tenant").await;
    for client in
        [&tenant, &operator.limited(&["*.*.*"]).await, &operator.limited(&["workspaces.*.read_workspace"]).await]
    {
        let refused = client.maintenance().backup(pb::BackupRequest::default()).await;
        assert_eq!(refusal(refused), (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    }
    assert!(!operator.events().await.contains(&"store.backup".to_owned()));
    let (root_key, secret) = operator.root_key("backups", &["workspaces.*.backup"]).await;
    let bytes = operator.with(&secret).backup().await;
    assert!(read(&bytes).is_ok());
    let events = operator.audit().list_audit_events(pb::ListAuditEventsRequest::default()).await.unwrap().into_inner();
    let event = events.events.last().unwrap();
    assert_eq!(
        (event.event.as_str(), event.actor.as_ref().unwrap().id.as_str()),
        ("store.backup", &*root_key.root_key_id)
    );
    assert_eq!(event.targets[0].kind, "workspace");
}

#[tokio::test]
async fn a_backup_ends_with_the_root_key_that_takes_it() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    fill(&operator).await;
    let (root_key, secret) = operator.root_key("backups", &["workspaces.*.backup"]).await;
    let pieces = begun(&operator.with(&secret)).await;
    let request = pb::DeleteRootKeyRequest { root_key_id: root_key.root_key_id, ..Default::default() };
    operator.root_keys().delete_root_key(request).await.unwrap();
    let status = end(pieces).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "ROOT_KEY_INVALID"));
}

#[tokio::test]
async fn a_backup_ends_with_the_permission_to_take_it() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    fill(&operator).await;
    let (root_key, secret) = operator.root_key("backups", &["workspaces.*.backup"]).await;
    let pieces = begun(&operator.with(&secret)).await;
    let permissions = vec!["apis.*.read_api".to_owned()];
    let request = pb::UpdateRootKeyRequest { root_key_id: root_key.root_key_id, permissions, ..Default::default() };
    operator.root_keys().update_root_key(request).await.unwrap();
    let status = end(pieces).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "PERMISSION_MISSING"));
}

#[tokio::test]
async fn a_backup_under_way_ends_when_the_server_stops_and_does_not_hold_it_up() {
    let mut house = House::unswept().await;
    let operator = house.operator().await;
    fill(&operator).await;
    let pieces = begun(&operator).await;
    let ended = tokio::spawn(end(pieces));
    house.halt().await;
    let status = ended.await.unwrap().unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
}

#[tokio::test]
async fn two_are_taken_at_a_time() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    fill(&operator).await;
    let (first, second) = (begun(&operator).await, begun(&operator).await);
    let refused = operator.maintenance().backup(pb::BackupRequest::default()).await;
    assert_eq!(refusal(refused), (Code::Unavailable, "OVERLOADED".to_owned()));
    drop(first);
    end(second).await.unwrap();
    // The server learns that the first is not wanted any more when it is told.
    let again = loop {
        if let Ok(again) = operator.begin_backup().await {
            break again;
        }
    };
    end(again).await.unwrap();
}

#[tokio::test]
async fn a_backup_ends_at_its_deadline() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    fill(&operator).await;
    let mut request = tonic::Request::new(pb::BackupRequest::default());
    let within = Duration::from_secs(1);
    request.set_timeout(within);
    let pieces = operator.maintenance().backup(request).await.unwrap().into_inner();
    // Much of it is still to be read when the time is over.
    tokio::time::sleep(within).await;
    let status = end(pieces).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_nothing_behind() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let api = fill(&operator).await;
    for _ in 0..20 {
        drop(begun(&operator).await);
    }
    let in_time = tokio::time::timeout(Duration::from_secs(30), operator.plain_key(&api, "customer")).await;
    assert!(in_time.is_ok());
    // The pages that were given up meanwhile are used again: what is written over and over takes no more room.
    let key = operator.plain_key(&api, "customer").await.0;
    let mut sizes = Vec::new();
    for round in 0..60 {
        let request =
            pb::UpdateKeyRequest { key_id: key.key_id.clone(), name: Some(format!("{round}")), ..Default::default() };
        operator.keys().update_key(request).await.unwrap();
        sizes.push(house.file_size());
    }
    assert_eq!(sizes[30], sizes[59], "{sizes:?}");
}

#[tokio::test]
async fn an_unknown_root_key_takes_no_backup() {
    let house = House::unswept().await;
    let stranger = house.client(Secret::issue(&Prefix::root_key(), [9; 24]).expose()).await;
    let refused = stranger.maintenance().backup(pb::BackupRequest::default()).await;
    assert_eq!(refusal(refused), (Code::Unauthenticated, "ROOT_KEY_INVALID".to_owned()));
}
