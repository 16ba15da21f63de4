//! A file that is not what was written.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use redb::ReadableDatabase as _;

use super::*;

/// Overwrites everything but the first page.
fn ruin(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    file.write_all_at(&vec![0xa5; length - 4_096], 4_096).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_not_started_with_and_not_touched() {
    let place = Place::new();
    let story = Story::begin(place.serve(&[]), &place).await;
    assert_eq!(story.server.stop().code, Some(0));
    ruin(&store(&place));
    let before = std::fs::read(store(&place)).unwrap();
    let refused = complaint(&place.serve_in_vain(&[]));
    let file = store(&place);
    assert!(refused.contains(&format!("{} is damaged: ", file.display())), "{refused}");
    let remedy = format!("; restore a backup: ostiary restore FILE --replace --data-dir {}", place.data().display());
    assert!(refused.ends_with(&remedy), "{refused}");
    let data = place.data();
    let checked = place.run(&["check", "--data-dir", data.to_str().unwrap()]);
    assert!(checked.code == Some(1) && checked.stderr.contains(" is damaged: "), "{checked:?}");
    assert!(std::fs::read(&file).unwrap() == before, "it can still be examined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_a_newer_version_is_refused_and_stays_one() {
    let place = Place::new();
    let story = Story::begin(place.serve(&[]), &place).await;
    assert_eq!(story.server.stop().code, Some(0));
    let rows = redb::TableDefinition::<&[u8], &[u8]>::new("rows");
    let database = redb::Database::open(store(&place)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(rows).unwrap().insert(&b"\0format"[..], &2_u64.to_be_bytes()[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refused = complaint(&place.serve_in_vain(&[]));
    assert!(refused.contains("format 2") && refused.contains("up to format 1"), "{refused}");
    let database = redb::Database::open(store(&place)).unwrap();
    let there = database.begin_read().unwrap().open_table(rows).unwrap();
    assert_eq!(there.get(&b"\0format"[..]).unwrap().unwrap().value(), 2_u64.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_damaged_while_serving_is_never_answered_from() {
    let place = Place::new();
    let mut story = Story::begin(place.serve(&["--cache-mib", "16"]), &place).await;
    let (known, _) = story.made.pop_first().unwrap();
    let secret = story.made.values().next().unwrap().clone();
    assert!(story.client.verdict(&secret, None).await.valid);
    // More than fits into memory.
    for _ in 0..200 {
        story.create(60).await.unwrap();
    }
    assert!(story.client.verdict(&secret, None).await.valid);
    ruin(&store(&place));
    let mut failed = 0;
    for secret in story.made.values() {
        let request = pb::VerifyKeyRequest { key: secret.clone(), ..Default::default() };
        match story.client.keys().verify_key(request).await {
            Ok(answer) => assert!(answer.into_inner().verdict.unwrap().valid, "right if at all"),
            Err(status) => {
                assert!(matches!(status.code(), Code::Unavailable | Code::Internal), "{status:?}");
                failed += 1;
            }
        }
        if failed == 3 {
            break;
        }
    }
    assert!(failed > 0, "all was in memory");
    story.await_log(" is damaged: ");
    story.await_log("; restore a backup: ostiary restore FILE --replace --data-dir ");
    await_health(&story.client, [false; 3]).await;
    assert!(story.client.verdict(&secret, None).await.valid, "what is remembered was read before");
    let delete = pb::DeleteKeyRequest { key_id: known, ..Default::default() };
    story.client.keys().delete_key(delete).await.unwrap_err();
    let log = story.server.stop().stderr;
    assert!(!log.contains(&secret));
    complaint(&place.serve_in_vain(&[]));
}
