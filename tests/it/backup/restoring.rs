//! Restoring one, with the real program on both ends.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ostiary::pb::v1 as pb;
use tonic::Code;

use super::{counter, read};
use crate::harness::{Client, refusal};
use crate::process::{Ended, Place, Server, mode};

/// Takes a backup with the program.
pub fn back_up(place: &Place, server: &Server, root_key: &str, arguments: &[&str]) -> Ended {
    let mut command = place.command(&[&["backup"], arguments].concat());
    command.env("OSTIARY_SERVER", format!("http://{}", server.address)).env("OSTIARY_ROOT_KEY", root_key);
    crate::process::Process::spawn(command).ended()
}

/// Restores into the data directory of the place.
pub fn restore(place: &Place, arguments: &[&str]) -> Ended {
    let data = place.data();
    place.run(&[&["restore", "--data-dir", data.to_str().unwrap()], arguments].concat())
}

/// The store in a data directory.
pub fn store(place: &Place) -> PathBuf {
    place.data().join("ostiary.redb")
}

/// The names of what lies in a data directory.
pub fn files(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// All keys there are: their ids, in order.
async fn keys(client: &Client) -> Vec<String> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListKeysRequest { page_size: 1_000, page_token, ..Default::default() };
        let answer = client.keys().list_keys(request).await.unwrap().into_inner();
        ids.extend(answer.keys.into_iter().map(|key| key.key_id));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return ids;
        }
    }
}

/// Roles, APIs and events, as they are told, up to a revision.
async fn told(client: &Client, up_to: u64) -> String {
    let roles = client.roles().list_roles(pb::ListRolesRequest::default()).await.unwrap().into_inner().roles;
    let apis = client.apis().list_apis(pb::ListApisRequest::default()).await.unwrap().into_inner().apis;
    let roles: Vec<_> = roles.into_iter().map(|role| pb::Role { key_count: 0, ..role }).collect();
    let apis: Vec<_> = apis.into_iter().map(|api| pb::Api { key_count: 0, ..api }).collect();
    let request = pb::ListAuditEventsRequest { page_size: 1_000, ..Default::default() };
    let events = client.audit().list_audit_events(request).await.unwrap().into_inner().events;
    let events: Vec<_> = events
        .into_iter()
        .filter(|event| counter(&event.revision) <= up_to)
        .map(|event| pb::AuditEvent { revision: String::new(), ..event })
        .collect();
    format!("{roles:#?}\n{apis:#?}\n{events:#?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_beside_a_writer_answers_as_the_server_did_at_its_revision() {
    let place = Place::new();
    let server = place.serve(&[]);
    let root_key = place.first_root_key();
    let operator = server.client(&root_key).await;
    let api = operator.api("documents").await;
    operator.role("editor", &["documents.read"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (operator, stop, api) = (operator.clone(), Arc::clone(&stop), api.clone());
        tokio::spawn(async move {
            let mut made = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let roles = vec!["editor".to_owned()];
                let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), roles, ..Default::default() };
                let answer = operator.keys().create_key(request).await.unwrap().into_inner();
                made.push((counter(&answer.meta.unwrap().revision), answer.key.unwrap().key_id, answer.secret));
            }
            made
        })
    };
    let mut taken = Vec::new();
    for number in 0..3 {
        let name = format!("{number}.backup");
        let place_of = &place;
        let ended = tokio::task::block_in_place(|| back_up(place_of, &server, &root_key, &[&name]));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        taken.push(name);
    }
    stop.store(true, Ordering::Relaxed);
    let made = writer.await.unwrap();
    for name in taken {
        let path = place.path(&name);
        assert_eq!(mode(&path), 0o600);
        let header = read(&std::fs::read(&path).unwrap()).unwrap().header;
        let before = told(&operator, header.counter).await;
        let other = Place::new();
        let ended = restore(&other, &[path.to_str().unwrap()]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let knows = format!("{:016x}.{}", header.epoch, header.counter);
        assert!(ended.stdout.contains(&format!("up to revision {knows} of {}", header.time)), "{ended:?}");
        assert!(ended.stderr.contains("good again"), "{ended:?}");
        assert_eq!(files(&other.data()), ["ostiary.redb"], "no first root key, and nothing left over");
        assert_eq!((mode(&other.data()), mode(&store(&other))), (0o700, 0o600));

        let restored = other.serve(&[]);
        let client = restored.client(&root_key).await;
        let there: Vec<_> = made.iter().filter(|(revision, ..)| *revision <= header.counter).collect();
        assert_eq!(keys(&client).await, there.iter().map(|(_, id, _)| id.clone()).collect::<Vec<_>>());
        assert!(told(&client, header.counter).await == before, "it tells something else");
        let apis = client.apis().list_apis(pb::ListApisRequest::default()).await.unwrap().into_inner().apis;
        assert_eq!(apis[0].key_count, there.len() as i64);
        for (revision, _, secret) in &made {
            let expected = if *revision <= header.counter { "VALID" } else { "NOT_FOUND" };
            let verdict = client.verdict(secret, None).await;
            assert_eq!(verdict.code().as_str_name(), format!("VERIFICATION_CODE_{expected}"));
        }
        // It goes on in an epoch of its own: what was promised of revisions before holds for none of them now.
        let request = pb::WhoAmIRequest::default();
        let now = client.root_keys().who_am_i(request).await.unwrap().into_inner().meta.unwrap().revision;
        assert!(counter(&now) > header.counter && now.split_once('.').unwrap().0 != knows.split_once('.').unwrap().0);
        let request = pb::ListKeysRequest { min_revision: knows, ..Default::default() };
        let refused = refusal(client.keys().list_keys(request).await);
        assert_eq!(refused, (Code::FailedPrecondition, "REVISION_UNKNOWN".to_owned()));
        let event = restore_event(&client).await;
        assert_eq!(event.actor.unwrap().r#type(), pb::AuditActorType::Operator);
        assert_eq!(restored.stop().code, Some(0));
        assert_eq!(check(&other).code, Some(0));
    }
    assert!(made.len() > 3);
}

/// What the log says of the restoring.
async fn restore_event(client: &Client) -> pb::AuditEvent {
    let filter = pb::ListAuditEventsFilter { event: Some("store.restore".into()), ..Default::default() };
    let request = pb::ListAuditEventsRequest { filter: Some(filter), ..Default::default() };
    let mut events = client.audit().list_audit_events(request).await.unwrap().into_inner().events;
    assert_eq!(events.len(), 1);
    events.remove(0)
}

/// Checks the store of the place.
pub fn check(place: &Place) -> Ended {
    let data = place.data();
    place.run(&["check", "--data-dir", data.to_str().unwrap()])
}

/// A place with a store of its own, stopped, and a backup of it.
async fn backed_up() -> (Place, String) {
    let place = Place::new();
    let server = place.serve(&[]);
    let root_key = place.first_root_key();
    let operator = server.client(&root_key).await;
    operator.plain_key(&operator.api("documents").await, "customer").await;
    let ended = back_up(&place, &server, &root_key, &["a.backup"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    operator.api("made later").await;
    assert_eq!(server.stop().code, Some(0));
    (place, root_key)
}

/// The names of all APIs that a server on the place knows.
async fn apis(place: &Place, root_key: &str) -> Vec<String> {
    let server = place.serve(&[]);
    let client = server.client(root_key).await;
    let apis = client.apis().list_apis(pb::ListApisRequest::default()).await.unwrap().into_inner().apis;
    assert_eq!(server.stop().code, Some(0));
    apis.into_iter().map(|api| api.name).collect()
}

#[tokio::test]
async fn a_store_that_is_there_is_replaced_only_when_told_to_and_kept_beside() {
    let (place, root_key) = backed_up().await;
    let before = std::fs::read(store(&place)).unwrap();
    let refused = restore(&place, &["a.backup"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("say --replace"), "{refused:?}");
    assert!(std::fs::read(store(&place)).unwrap() == before);

    let ended = restore(&place, &["a.backup", "--replace"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (_, kept) = ended.stdout.split_once("the store that was there before: ").unwrap();
    let kept = kept.lines().next().unwrap();
    assert!(std::fs::read(kept).unwrap() == before);
    assert_eq!(mode(Path::new(kept)), 0o600);
    assert_eq!(apis(&place, &root_key).await, ["documents"]);
    // There is a way back.
    std::fs::rename(kept, store(&place)).unwrap();
    assert_eq!(apis(&place, &root_key).await, ["documents", "made later"]);
}

#[tokio::test]
async fn a_damaged_backup_is_neither_good_nor_restored() {
    let (place, root_key) = backed_up().await;
    let before = std::fs::read(store(&place)).unwrap();
    let good = place.run(&["check", "--backup", "a.backup"]);
    assert_eq!(good.code, Some(0), "{good:?}");
    let mut bytes = std::fs::read(place.path("a.backup")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    place.write("damaged.backup", "");
    std::fs::write(place.path("damaged.backup"), &bytes).unwrap();
    for arguments in [&["damaged.backup"][..], &["damaged.backup", "--replace"]] {
        let refused = restore(&place, arguments);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(std::fs::read(store(&place)).unwrap() == before);
    }
    let damaged = place.run(&["check", "--backup", "damaged.backup"]);
    assert!(damaged.code == Some(1) && damaged.stderr.contains("damaged"), "{damaged:?}");
    assert_eq!(apis(&place, &root_key).await, ["documents", "made later"]);
}

#[tokio::test]
async fn nothing_is_restored_over_a_store_that_a_server_has_open() {
    let (place, root_key) = backed_up().await;
    let server = place.serve(&[]);
    for arguments in [&["a.backup", "--replace"][..], &["a.backup", "--replace", "--revoke", "changed"]] {
        let refused = restore(&place, arguments);
        let told = refused.stderr.contains("another process has") && refused.stderr.contains("stop that one first");
        assert!(refused.code == Some(1) && told, "{refused:?}");
    }
    assert_eq!(files(&place.data()), ["first-root-key", "ostiary.redb"]);
    let client = server.client(&root_key).await;
    client.api("still served").await;
    assert_eq!(server.stop().code, Some(0));
    assert_eq!(apis(&place, &root_key).await, ["documents", "made later", "still served"]);
}

#[tokio::test]
async fn a_restoring_that_is_killed_leaves_the_store_as_it_was_and_does_not_keep_the_next_one() {
    let (place, root_key) = backed_up().await;
    let (bytes, before) = (std::fs::read(place.path("a.backup")).unwrap(), std::fs::read(store(&place)).unwrap());
    for part in [0, bytes.len() / 2, bytes.len()] {
        let data = place.data();
        let hidden = data.join("ostiary.redb.restoring");
        if hidden.exists() {
            // So that it shows when the next one begins. That of the last one stays.
            std::fs::remove_file(&hidden).unwrap();
        }
        let arguments = ["restore", "-", "--replace", "--data-dir", data.to_str().unwrap()];
        let mut child = place.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&bytes[..part]).unwrap();
        input.flush().unwrap();
        // It waits for more, and holds the store meanwhile: no server gets in.
        crate::process::await_some("store in the making", || hidden.metadata().ok().filter(|made| made.len() > 0));
        let refused = place.serve_in_vain(&[]);
        assert!(refused.code == Some(1) && refused.stderr.contains("another process has"), "{refused:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(std::fs::read(store(&place)).unwrap() == before);
    }
    assert_eq!(apis(&place, &root_key).await, ["documents", "made later"]);
    assert_eq!(restore(&place, &["a.backup", "--replace"]).code, Some(0));
    assert!(!files(&place.data()).contains(&"ostiary.redb.restoring".to_owned()));
    assert_eq!(apis(&place, &root_key).await, ["documents"]);
}

#[tokio::test]
async fn a_backup_goes_through_a_pipe_both_ways() {
    let place = Place::new();
    let server = place.serve(&[]);
    let root_key = place.first_root_key();
    let mut command = place.command(&["backup", "-"]);
    command.env("OSTIARY_SERVER", format!("http://{}", server.address)).env("OSTIARY_ROOT_KEY", &root_key);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    let taken = read(&output.stdout).unwrap();
    assert!(told.contains(&taken.contents.digest_text()), "{told}");

    let data = place.path("other");
    let arguments = ["restore", "-", "--data-dir", data.to_str().unwrap()];
    let mut child = place.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&output.stdout).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(files(&data), ["ostiary.redb"]);
}

#[tokio::test]
async fn a_file_that_is_there_is_replaced_only_when_told_to_and_nothing_is_left_of_what_fails() {
    let place = Place::new();
    let server = place.serve(&[]);
    let root_key = place.first_root_key();
    place.write("a.backup", "precious");
    let refused = back_up(&place, &server, &root_key, &["a.backup"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("--force"), "{refused:?}");
    let unknown = back_up(&place, &server, "ostiary_0000", &["a.backup", "--force"]);
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    assert_eq!(std::fs::read_to_string(place.path("a.backup")).unwrap(), "precious");
    let nowhere = back_up(&place, &server, &root_key, &["no/such/directory/a.backup"]);
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");

    let done = back_up(&place, &server, &root_key, &["a.backup", "--force", "--output", "json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let told: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let bytes = std::fs::read(place.path("a.backup")).unwrap();
    let taken = read(&bytes).unwrap();
    assert_eq!(
        (told["bytes"].as_u64(), told["rows"].as_u64()),
        (Some(bytes.len() as u64), Some(taken.contents.rows()))
    );
    assert_eq!(told["sha256"].as_str(), Some(&*taken.contents.digest_text()));
    assert_eq!(files(&place.path(".")), ["a.backup", "data"]);
}
