//! A disk that takes nothing more, for a while.

use std::process::Command;

use super::*;
use crate::metrics::{admin, scrape};

const STOPPED: &str = "nothing is written for now, and it is tried again by itself: ";
const GOES_ON: &str = "changes are written again";

/// A shell that makes a disk of 64 MiB which only it and its children see, and becomes the server on it. As long as a
/// file `full` lies beside the disk, it is filled up.
const ON_SMALL_DISK: &str = r#"
set -eu
mount -t tmpfs -o size=64m,mode=700 tmpfs data
(
  while [ -d "$PWD" ]; do
    if [ -e full ] && [ ! -e filled ]; then cat /dev/zero > data/filling 2>&1 || true; : > filled; fi
    if [ ! -e full ] && [ -e filled ]; then rm -f data/filling filled; fi
    sleep 0.05
  done
) > /dev/null 2>&1 < /dev/null &
exec "$@"
"#;

/// The command in a world of mounts of its own; none where this machine does not allow that to anybody like us.
fn with_own_mounts() -> Option<Command> {
    let shell = |flag| {
        let mut command = Command::new("unshare");
        command.args(["--mount", flag, "sh", "-c"]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    };
    // The first is for the superuser, the second for everybody, where the system lets them.
    ["--propagation=private", "--map-root-user"].into_iter().find_map(|flag| {
        let tried = shell(flag).arg("mount -t tmpfs tmpfs /mnt").output();
        tried.is_ok_and(|tried| tried.status.success()).then(|| shell(flag))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_grow_stops_changes_and_nothing_else_until_it_may() {
    let place = Place::new();
    let mut story = Story::begin(place.serve(&["--admin-listen", "127.0.0.1:0"]), &place).await;
    let writable = |story: &Story| scrape(admin(&story.server)).figure("ostiary_store_writable", &[]);
    assert_eq!(writable(&story), Some(1.0));
    story.verifies_all().await;
    limit_files(&story.server.process, Some(store(&place).metadata().unwrap().len()));
    let refused = story.create_until_refused().await;
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    await_health(&story.client, READ_ONLY).await;
    assert_eq!(writable(&story), Some(0.0));
    story.refuses_changes().await;
    story.verifies_all().await;
    story.await_log(STOPPED);
    story.await_log("File too large (os error 27); raise the limit on the size of files (ulimit -f; LimitFSIZE= of");
    assert_eq!(health(&story.client).await, READ_ONLY);

    limit_files(&story.server.process, None);
    await_health(&story.client, ALL_WELL).await;
    assert_eq!(writable(&story), Some(1.0));
    story.await_log(GOES_ON);
    story.create(60).await.unwrap();
    story.holds().await;
    let log = story.server.process.log();
    assert_eq!(log.matches(GOES_ON).count(), 1, "{log}");
    assert!(log.matches(STOPPED).count() <= 2, "once for the error, once for what keeps it from going on: {log}");
    let mut story = story.restart(&place).await;
    story.holds().await;
    story.create(1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nothing_at_all_can_be_written_keys_are_verified_that_nobody_has_asked_for_before() {
    let place = Place::new();
    let mut story = Story::begin(place.serve(&[]), &place).await;
    for _ in 0..20 {
        story.create(10).await.unwrap();
    }
    limit_files(&story.server.process, Some(0));
    let refused = story.create(1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    await_health(&story.client, READ_ONLY).await;
    story.verifies_all().await;
    story.refuses_changes().await;
    limit_files(&story.server.process, None);
    await_health(&story.client, ALL_WELL).await;
    story.create(1).await.unwrap();
    story.holds().await;
    story.restart(&place).await.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_while_nothing_can_be_written_ends_and_has_lost_nothing() {
    let place = Place::new();
    let mut story = Story::begin(place.serve(&[]), &place).await;
    limit_files(&story.server.process, Some(0));
    story.create(1).await.unwrap_err();
    await_health(&story.client, READ_ONLY).await;
    story.restart(&place).await.holds().await;
}

/// The same, or why a test that needs it does nothing. Where everything is to be tested, that is a failure.
#[expect(clippy::disallowed_methods, reason = "this is how whoever runs the tests says so")]
fn own_mounts() -> Option<Command> {
    let command = with_own_mounts();
    if command.is_none() {
        assert!(std::env::var_os("OSTIARY_TEST_ALL").is_none(), "nobody may mount anything here");
        eprintln!("NOT TESTED: nobody may mount anything here, so there is no small disk");
    }
    command
}

/// A shell that makes a small disk which only it and its children see, and which can only be read once the command runs.
const ON_READ_ONLY_DISK: &str = r#"
set -eu
mount -t tmpfs -o size=4m,mode=700 tmpfs data
mount -o remount,ro data
exec "$@"
"#;

/// A shell that makes a small disk, runs a command, and tells what is left on the disk.
const WHAT_IS_LEFT: &str = r#"
set -eu
mount -t tmpfs -o size=4m,mode=700 tmpfs data
code=0
"$@" || code=$?
ls -A data
exit $code
"#;

#[test]
fn a_disk_that_can_only_be_read_is_told_with_what_to_do() {
    let Some(mut command) = own_mounts() else { return };
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    let server = env!("CARGO_BIN_EXE_ostiary");
    command.args([ON_READ_ONLY_DISK, "sh", server, "serve", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    command.current_dir(place.path(""));
    let refused = complaint(&Process::spawn(command).ended());
    assert!(refused.contains("Read-only file system") && refused.contains("; mount it for writing, or "), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_disk_keeps_from_being_restored_or_backed_up_leaves_nothing_behind() {
    let Some(mut restore) = own_mounts() else { return };
    let Some(mut backup) = own_mounts() else { return };
    let place = Place::new();
    let mut story = Story::begin(place.serve(&[]), &place).await;
    for _ in 0..100 {
        story.create(60).await.unwrap();
    }
    let program = env!("CARGO_BIN_EXE_ostiary");
    let address = format!("http://{}", story.server.address);
    let root_key = place.first_root_key();
    let mut whole = place.command(&["backup", "whole.backup", "--server", &address]);
    whole.env("OSTIARY_ROOT_KEY", &root_key);
    let whole = Process::spawn(whole).ended();
    assert_eq!(whole.code, Some(0), "{whole:?}");

    // In the shell's own world what lies in the data directory is a small disk.
    backup.args([WHAT_IS_LEFT, "sh", program, "backup", "data/some.backup", "--server", &address]);
    backup.env("OSTIARY_ROOT_KEY", &root_key).current_dir(place.path(""));
    let backup = Process::spawn(backup).ended();
    assert_eq!((backup.code, backup.stdout.as_str()), (Some(1), ""), "{backup:?}");
    assert!(backup.stderr.contains("No space left on device"), "{backup:?}");
    restore
        .args([WHAT_IS_LEFT, "sh", program, "restore", "whole.backup", "--data-dir", "data"])
        .current_dir(place.path(""));
    let restore = Process::spawn(restore).ended();
    assert_eq!((restore.code, restore.stdout.as_str()), (Some(1), ""), "{restore:?}");
    assert!(restore.stderr.contains("No space left on device"), "{restore:?}");
    story.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_not_filled_to_the_brim_and_changes_go_on_when_there_is_room() {
    let Some(mut command) = own_mounts() else { return };
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    let server = env!("CARGO_BIN_EXE_ostiary");
    command.args([ON_SMALL_DISK, "sh", server, "serve", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    let key = place.write("root-key", &place.run(&["generate-root-key"]).stdout);
    command.args(["--first-root-key-file", key.to_str().unwrap()]).current_dir(place.path(""));
    let server = Server::await_serving(Process::spawn(command));
    let client = server.client(std::fs::read_to_string(&key).unwrap().trim_end()).await;
    let api = client.api("documents").await;
    let mut story = Story { server, client, api, made: BTreeMap::new(), unknown: 0 };
    story.create(1).await.unwrap();

    place.write("full", "");
    await_some("full disk", || place.path("filled").exists().then_some(()));
    let refused = story.create(1).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
    await_health(&story.client, READ_ONLY).await;
    story.refuses_changes().await;
    story.await_log("less than 32 MiB are free on its disk; make room there");
    story.verifies_all().await;

    std::fs::remove_file(place.path("full")).unwrap();
    await_health(&story.client, ALL_WELL).await;
    story.create(1).await.unwrap();
    story.holds().await;
    assert_eq!(story.unknown, 0, "nothing was begun that could not be finished");
    let log = story.server.stop().stderr;
    assert_eq!((log.matches(STOPPED).count(), log.matches(GOES_ON).count()), (1, 1), "{log}");
}

/// A shell that makes a small disk which only it and its children see, puts on it what is `kept`, fills it to the brim,
/// and becomes the server on it.
const ON_FULL_DISK: &str = r#"
set -eu
mount -t tmpfs -o size=16m,mode=700 tmpfs data
cp -p kept/* data/
cat /dev/zero > data/filling 2> /dev/null || true
exec "$@"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_after_a_crash_serves_what_is_there() {
    let Some(mut command) = own_mounts() else { return };
    let place = Place::new();
    let mut story = Story::begin(place.serve(&[]), &place).await;
    for _ in 0..20 {
        story.create(20).await.unwrap();
    }
    let root_key = place.first_root_key();
    let Story { server, api, made, unknown, .. } = story;
    server.kill();
    std::fs::rename(place.data(), place.path("kept")).unwrap();
    std::fs::create_dir(place.data()).unwrap();
    let program = env!("CARGO_BIN_EXE_ostiary");
    command.args([ON_FULL_DISK, "sh", program, "serve", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    command.current_dir(place.path(""));
    let server = Server::await_serving(Process::spawn(command));
    let client = server.client(&root_key).await;
    let mut story = Story { server, client, api, made, unknown };
    story.holds().await;
    story.refuses_changes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_to_a_store_that_the_next_start_would_not_find() {
    let place = Place::new();
    let mut story = Story::begin(place.serve(&[]), &place).await;
    let elsewhere = place.path("elsewhere");
    std::fs::rename(store(&place), &elsewhere).unwrap();
    let refused = story.create(1).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
    await_health(&story.client, READ_ONLY).await;
    story
        .await_log("it was removed or replaced while it was open; stop ostiary, put the file back, and start it again");
    story.verifies_all().await;
    std::fs::rename(&elsewhere, store(&place)).unwrap();
    await_health(&story.client, ALL_WELL).await;
    story.create(1).await.unwrap();
    story.restart(&place).await.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_process_gets_at_the_store_while_it_can_not_be_written() {
    let place = Place::new();
    let mut story = Story::begin(place.serve(&[]), &place).await;
    limit_files(&story.server.process, Some(0));
    story.create(1).await.unwrap_err();
    for _ in 0..3 {
        let refused = complaint(&place.serve_in_vain(&[]));
        assert!(refused.contains("another process has "), "{refused}");
        assert!(refused.ends_with("; stop that one first, or name another directory with --data-dir"), "{refused}");
    }
    limit_files(&story.server.process, None);
    await_health(&story.client, ALL_WELL).await;
    story.restart(&place).await.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_behind_by_a_look_whether_the_file_can_grow_does_no_harm() {
    let place = Place::new();
    let mut story = Story::begin(place.serve(&[]), &place).await;
    story.create(60).await.unwrap();
    let Story { server, api, made, unknown, .. } = story;
    server.kill();
    let file = std::fs::OpenOptions::new().write(true).open(store(&place)).unwrap();
    file.set_len(file.metadata().unwrap().len() + (1 << 20)).unwrap();
    let server = place.serve(&[]);
    let client = server.client(&place.first_root_key()).await;
    let mut story = Story { server, client, api, made, unknown };
    story.create(60).await.unwrap();
    story.holds().await;
    story.restart(&place).await.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_verification_fails_because_an_error_of_the_disk_comes_or_goes() {
    let place = Place::new();
    let mut story = Story::begin(place.serve(&[]), &place).await;
    let secrets: Vec<String> = story.made.values().cloned().collect();
    let stop = tokio_util::sync::CancellationToken::new();
    let verifying = (0..4).map(|_| {
        let (client, secrets, stop) = (story.client.clone(), secrets.clone(), stop.clone());
        tokio::spawn(async move {
            let mut answered = 0_u64;
            while !stop.is_cancelled() {
                for secret in &secrets {
                    assert!(client.verdict(secret, None).await.valid, "after {answered}");
                    answered += 1;
                }
            }
            answered
        })
    });
    let verifying: Vec<_> = verifying.collect();
    for _ in 0..5 {
        limit_files(&story.server.process, Some(0));
        story.create(1).await.unwrap_err();
        await_health(&story.client, READ_ONLY).await;
        limit_files(&story.server.process, None);
        await_health(&story.client, ALL_WELL).await;
        story.create(1).await.unwrap();
    }
    stop.cancel();
    for answered in futures::future::join_all(verifying).await {
        assert!(answered.unwrap() > 100);
    }
    story.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_is_spent_to_its_end_across_errors_of_the_disk_and_never_beyond() {
    const CREDITS: u64 = 60;
    let place = Place::new();
    let mut story = Story::begin(place.serve(&[]), &place).await;
    let credits = Some(pb::Credits { remaining: Some(CREDITS.cast_signed()), refill: None });
    let api_id = story.api.api_id.clone();
    let (_, secret) = story.client.key(pb::CreateKeyRequest { api_id, credits, ..Default::default() }).await;
    let spend = async || {
        let request = pb::VerifyKeyRequest { key: secret.clone(), ..Default::default() };
        story.client.keys().verify_key(request).await.map(|answer| answer.into_inner().verdict.unwrap())
    };
    let (mut good, mut unknown) = (0, 0);
    for round in 0.. {
        if round % 2 == 0 {
            limit_files(&story.server.process, Some(0));
        } else {
            limit_files(&story.server.process, None);
            await_health(&story.client, ALL_WELL).await;
        }
        for _ in 0..5 {
            match spend().await {
                Ok(verdict) if verdict.valid => good += 1,
                Ok(verdict) => {
                    assert_eq!(verdict.code(), pb::VerificationCode::UsageExceeded);
                    // What was reserved when the disk failed may be forfeited, 1 credit each time.
                    assert!(good <= CREDITS && good + unknown >= CREDITS, "{good} were good, {unknown} are unknown");
                    assert!(good > CREDITS / 2, "{good}");
                    limit_files(&story.server.process, None);
                    await_health(&story.client, ALL_WELL).await;
                    story.create(1).await.unwrap();
                    return;
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    unknown += u64::from(reason(&status) == "OUTCOME_UNKNOWN");
                }
            }
        }
    }
}
