//! One suite of claims over every engine, and what only a file can be asked.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, join_all, poll_immediate};
use ostiary::domain::credits::Meter;
use ostiary::domain::id::{KeyId, WorkspaceId};
use ostiary::domain::time::Timestamp;
use ostiary::store::memory::MemoryEngine;
use ostiary::store::redb::{BACKGROUND_QUEUED_MAX, INTERACTIVE_QUEUED_MAX, RedbEngine, RedbOptions};
use ostiary::store::txn::{BYTES_WRITTEN_MAX, KEY_BYTES_MAX, POINTS_READ_MAX, ROWS_WRITTEN_MAX, Txn, VALUE_BYTES_MAX};
use ostiary::store::{
    Body, COMMITS_KEPT_MAX, Commit, Decision, Engine, Failure, Priority, Revision, Row, SCAN_LIMIT_MAX, Stop, View,
    tables,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::oneshot;

const EPOCH: u64 = 0x0123_4567_89ab_cdef;

/// An engine, and the directory of its file if it has one.
struct Store {
    engine: Arc<dyn Engine>,
    _directory: Option<TempDir>,
}

impl Store {
    fn memory() -> Self {
        Self { engine: Arc::new(MemoryEngine::new(EPOCH)), _directory: None }
    }

    fn redb() -> Self {
        let directory = TempDir::new().unwrap();
        let engine = Arc::new(open(&directory).unwrap());
        Self { engine, _directory: Some(directory) }
    }
}

fn options(directory: &TempDir) -> RedbOptions {
    RedbOptions { cache_bytes: 4 << 20, ..RedbOptions::new(directory.path().join("store"), EPOCH) }
}

fn open(directory: &TempDir) -> Result<RedbEngine, Failure> {
    RedbEngine::open(options(directory))
}

/// Runs each claim on each engine.
macro_rules! claims {
    ($($claim:ident)*) => {$(
        mod $claim {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_memory() {
                super::$claim(super::Store::memory()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_a_file() {
                super::$claim(super::Store::redb()).await;
            }
        }
    )*};
}

claims! {
    a_transaction_reads_its_own_writes
    a_body_that_discards_fails_or_panics_leaves_nothing_behind
    a_refusal_that_the_body_swallows_still_counts
    a_transaction_keeps_within_its_bounds
    a_key_of_the_engine_is_refused_and_shows_nowhere
    a_view_stays_as_it_was_while_others_write
    a_scan_is_ascending_and_limited
    only_a_commit_that_wrote_makes_a_revision
    a_body_knows_the_revision_it_will_have
    sixty_four_tasks_count_exactly
    a_follower_sees_every_commit_once_whole_and_in_order
    a_follower_waits_for_what_is_to_come
    a_follower_left_behind_is_told_to_read_again
    a_follower_of_another_epoch_or_of_the_future_is_told_to_read_again
    a_closed_engine_refuses_and_says_so_twice
}

// --- asking for things briefly -----------------------------------------------------------------------------------

fn body(body: impl FnMut(&mut Txn<'_>) -> Result<Decision, Stop> + Send + 'static) -> Body {
    Box::new(body)
}

fn put(key: &str, value: &str) -> Body {
    let (key, value) = (key.to_owned(), value.to_owned());
    body(move |tx| {
        tx.put(key.clone(), value.clone())?;
        Ok(Decision::Commit)
    })
}

async fn run(engine: &dyn Engine, body: Body) -> Result<Revision, Failure> {
    engine.transact(Priority::Interactive, body).await
}

async fn value(engine: &dyn Engine, key: &str) -> Option<Bytes> {
    engine.view().await.unwrap().get(key.as_bytes()).await.unwrap()
}

async fn all(view: &dyn View) -> Vec<Row> {
    view.scan(vec![]..vec![0xff; 8], SCAN_LIMIT_MAX).await.unwrap()
}

fn number(value: Option<Bytes>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap()))
}

fn count(key: &'static str) -> Body {
    body(move |tx| {
        let next = number(tx.get(key.as_bytes())?) + 1;
        tx.put(key, next.to_be_bytes().to_vec())?;
        Ok(Decision::Commit)
    })
}

fn counter(revision: Revision) -> u64 {
    assert_eq!(revision.epoch, EPOCH);
    revision.counter
}

fn at(counter: u64) -> Revision {
    Revision { epoch: EPOCH, counter }
}

// --- transactions ------------------------------------------------------------------------------------------------

async fn a_transaction_reads_its_own_writes(store: Store) {
    run(&*store.engine, put("kept", "old")).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&seen);
    let ask = body(move |tx| {
        let before = tx.get(b"kept")?;
        tx.put("kept", "new")?;
        tx.put("made", "1")?;
        let between = (tx.get(b"kept")?, tx.get(b"made")?);
        tx.delete("made")?;
        *tell.lock() = vec![before, between.0, between.1, tx.get(b"made")?, tx.get(b"never")?];
        Ok(Decision::Commit)
    });
    run(&*store.engine, ask).await.unwrap();
    let text = |text: &'static str| Some(Bytes::from(text));
    assert_eq!(*seen.lock(), [text("old"), text("new"), text("1"), None, None]);
    assert_eq!(value(&*store.engine, "kept").await, text("new"));
    assert_eq!(value(&*store.engine, "made").await, None);
}

async fn a_body_that_discards_fails_or_panics_leaves_nothing_behind(store: Store) {
    let engine = &*store.engine;
    let before = run(engine, put("kept", "1")).await.unwrap();
    let ended = |end: fn() -> Result<Decision, Stop>| {
        body(move |tx| {
            tx.put("kept", "2")?;
            tx.put("made", "2")?;
            tx.delete("kept")?;
            end()
        })
    };
    let failure = Failure::Corrupt("a row".to_owned());
    assert_eq!(run(engine, ended(|| Ok(Decision::Discard))).await, Ok(before));
    assert_eq!(run(engine, ended(|| Err(Stop::Fail(Failure::Corrupt("a row".to_owned()))))).await, Err(failure));
    // Together with others, so that it could take some of them along.
    let others = (0..20).map(|_| run(engine, count("others")));
    let (panicked, others) = futures::join!(run(engine, ended(|| panic!("as the test wants it"))), join_all(others));
    assert_eq!(panicked, Err(Failure::Panicked));
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    let rows = all(&*engine.view().await.unwrap()).await;
    assert_eq!(rows, [row("kept", "1"), (Bytes::from("others"), Bytes::from(20_u64.to_be_bytes().to_vec()))]);
}

fn row(key: &'static str, value: &'static str) -> Row {
    (Bytes::from(key), Bytes::from(value))
}

async fn a_refusal_that_the_body_swallows_still_counts(store: Store) {
    let swallow = body(|tx| {
        tx.put("made", "1")?;
        let refused = tx.put("big", vec![0; VALUE_BYTES_MAX + 1]);
        assert!(refused.is_err());
        assert!(tx.put("after", "1").is_err(), "nothing more after a refusal");
        Ok(Decision::Commit)
    });
    assert!(matches!(run(&*store.engine, swallow).await, Err(Failure::TooLarge { .. })));
    assert_eq!(value(&*store.engine, "made").await, None);
}

async fn a_transaction_keeps_within_its_bounds(store: Store) {
    let engine = &*store.engine;
    let key = |length: usize, n: usize| format!("{n:0>length$}").into_bytes();
    let reads = |most: usize| {
        body(move |tx| {
            for n in (0..most).chain(0..most) {
                tx.get(&key(5, n))?;
            }
            Ok(Decision::Commit)
        })
    };
    let writes = |rows: usize, key_bytes: usize, value_bytes: usize| {
        body(move |tx| {
            for n in (0..rows).chain(0..rows) {
                tx.put(key(key_bytes, n), vec![0; value_bytes])?;
            }
            Ok(Decision::Commit)
        })
    };
    let largest = (BYTES_WRITTEN_MAX / 4) - KEY_BYTES_MAX;
    for within in [
        reads(POINTS_READ_MAX),
        writes(ROWS_WRITTEN_MAX, 5, 1),
        writes(1, KEY_BYTES_MAX, 1),
        writes(1, 5, VALUE_BYTES_MAX),
        writes(4, KEY_BYTES_MAX, largest),
    ] {
        assert_eq!(run(engine, within).await.map(drop), Ok(()));
    }
    for (past, bound) in [
        (reads(POINTS_READ_MAX + 1), POINTS_READ_MAX),
        (writes(ROWS_WRITTEN_MAX + 1, 5, 1), ROWS_WRITTEN_MAX),
        (writes(1, KEY_BYTES_MAX + 1, 1), KEY_BYTES_MAX),
        (writes(1, 5, VALUE_BYTES_MAX + 1), VALUE_BYTES_MAX),
        (writes(4, KEY_BYTES_MAX, largest + 1), BYTES_WRITTEN_MAX),
    ] {
        let refused = run(engine, past).await;
        assert!(matches!(refused, Err(Failure::TooLarge { limit, .. }) if limit == bound), "{refused:?} not {bound}");
    }
}

async fn a_key_of_the_engine_is_refused_and_shows_nowhere(store: Store) {
    let engine = &*store.engine;
    run(engine, put("\u{1}first", "1")).await.unwrap();
    for own in ["\0head", "\0", ""] {
        assert_eq!(run(engine, put(own, "x")).await, Err(Failure::Panicked));
        assert_eq!(
            run(engine, body(move |tx| tx.get(own.as_bytes()).map(|_| Decision::Commit))).await,
            Err(Failure::Panicked)
        );
        assert_eq!(value(engine, own).await, None);
    }
    assert_eq!(all(&*engine.view().await.unwrap()).await, [row("\u{1}first", "1")]);
}

async fn only_a_commit_that_wrote_makes_a_revision(store: Store) {
    let engine = &*store.engine;
    let start = counter(engine.view().await.unwrap().revision());
    assert_eq!(counter(run(engine, put("a", "1")).await.unwrap()), start + 1);
    assert_eq!(counter(run(engine, body(|tx| tx.get(b"a").map(|_| Decision::Commit))).await.unwrap()), start + 1);
    assert_eq!(counter(run(engine, body(|_| Ok(Decision::Discard))).await.unwrap()), start + 1);
    assert_eq!(counter(run(engine, put("a", "2")).await.unwrap()), start + 2);
    assert_eq!(counter(engine.view().await.unwrap().revision()), start + 2);
}

async fn a_body_knows_the_revision_it_will_have(store: Store) {
    let note = |n: u32| {
        body(move |tx| {
            let revision = tx.revision().to_string();
            tx.put(format!("{n:03}"), revision)?;
            Ok(Decision::Commit)
        })
    };
    let revisions = join_all((0..100).map(|n| run(&*store.engine, note(n)))).await;
    let view = store.engine.view().await.unwrap();
    for (n, revision) in revisions.into_iter().enumerate() {
        let noted = view.get(format!("{n:03}").as_bytes()).await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&noted).unwrap().parse(), Ok(revision.unwrap()));
    }
    assert_eq!(counter(view.revision()), 100, "one revision each, none skipped");
}

async fn sixty_four_tasks_count_exactly(store: Store) {
    const TASKS: u64 = 64;
    const TIMES: u64 = 25;
    let tasks = (0..TASKS).map(|task| {
        let engine = Arc::clone(&store.engine);
        tokio::spawn(async move {
            let priority = if task % 4 == 0 { Priority::Background } else { Priority::Interactive };
            for _ in 0..TIMES {
                engine.transact(priority, count("counter")).await.unwrap();
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
    assert_eq!(number(value(&*store.engine, "counter").await), TASKS * TIMES);
    assert_eq!(counter(store.engine.view().await.unwrap().revision()), TASKS * TIMES);
}

// --- views -------------------------------------------------------------------------------------------------------

async fn a_view_stays_as_it_was_while_others_write(store: Store) {
    let engine = &*store.engine;
    let mut views = Vec::new();
    for n in 0..20_u64 {
        views.push(engine.view().await.unwrap());
        assert_eq!(counter(run(engine, count("n")).await.unwrap()), n + 1);
        run(engine, body(|tx| tx.get(b"n").map(|_| Decision::Discard))).await.unwrap();
    }
    for (n, view) in views.iter().enumerate() {
        assert_eq!(counter(view.revision()), n as u64);
        assert_eq!(number(view.get(b"n").await.unwrap()), n as u64);
        assert_eq!(all(&**view).await.len(), n.min(1));
    }
}

async fn a_scan_is_ascending_and_limited(store: Store) {
    let engine = &*store.engine;
    for n in [5, 1, 4, 0, 3, 2] {
        run(engine, put(&format!("k{n}"), "")).await.unwrap();
    }
    let view = engine.view().await.unwrap();
    let cases = [
        ("k1", "k4", 10, "k1 k2 k3"),
        ("k1", "k4", 2, "k1 k2"),
        ("k1", "k4", 0, ""),
        ("k4", "k1", 10, ""),
        ("k1", "k1", 10, ""),
        ("", "z", 10, "k0 k1 k2 k3 k4 k5"),
        ("k33", "k9", 1, "k4"),
    ];
    for (start, end, limit, expected) in cases {
        let rows = view.scan(start.into()..end.into(), limit).await.unwrap();
        let keys: Vec<&str> = rows.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect();
        assert_eq!(keys.join(" "), expected, "{start}..{end} limit {limit}");
    }
    let refused = view.scan(vec![]..vec![0xff], SCAN_LIMIT_MAX + 1).await;
    assert!(matches!(refused, Err(Failure::TooLarge { limit: SCAN_LIMIT_MAX, .. })));
}

// --- changes -----------------------------------------------------------------------------------------------------

async fn a_follower_sees_every_commit_once_whole_and_in_order(store: Store) {
    let engine = &*store.engine;
    let write = |n: u64| {
        body(move |tx| {
            let revision = tx.revision().counter.to_be_bytes().to_vec();
            tx.put(n.to_be_bytes().iter().map(|byte| byte + 1).collect::<Vec<u8>>(), revision.clone())?;
            tx.put("shared", revision)?;
            tx.delete("z")?;
            Ok(Decision::Commit)
        })
    };
    let early = engine.changes(at(0));
    let revisions = join_all((0..200).map(|n| run(engine, write(n)))).await;
    let late = engine.changes(at(100));
    assert!(revisions.iter().all(Result::is_ok));
    let early: Vec<Arc<Commit>> = early.take(200).map(Result::unwrap).collect().await;
    let late: Vec<Arc<Commit>> = late.take(100).map(Result::unwrap).collect().await;
    assert_eq!(late, early[100..]);
    for (commit, counter) in early.iter().zip(1_u64..) {
        assert_eq!(commit.revision, at(counter));
        let [(_, Some(first)), (_, Some(second)), (last, None)] = commit.rows.as_slice() else {
            panic!("not whole: {commit:?}");
        };
        assert_eq!(
            (&first[..], &second[..], &last[..]),
            (&counter.to_be_bytes()[..], &counter.to_be_bytes()[..], &b"z"[..])
        );
    }
}

async fn a_follower_waits_for_what_is_to_come(store: Store) {
    let engine = &*store.engine;
    run(engine, put("a", "1")).await.unwrap();
    let mut changes = engine.changes(at(1));
    assert!(poll_immediate(changes.next()).await.is_none(), "nothing yet");
    let (seen, written) = futures::join!(changes.next(), run(engine, put("b", "2")));
    assert_eq!(seen.unwrap().unwrap().revision, written.unwrap());
    assert!(poll_immediate(changes.next()).await.is_none(), "once only");
    engine.close().await;
    assert_eq!(changes.next().await, Some(Err(Failure::Closed)));
    assert_eq!(changes.next().await, None);
}

async fn a_follower_left_behind_is_told_to_read_again(store: Store) {
    let engine = &*store.engine;
    let mut slow = engine.changes(at(0));
    let written = join_all((0..=COMMITS_KEPT_MAX).map(|_| run(engine, count("n"))).take(2_000)).await;
    assert!(written.iter().all(Result::is_ok));
    assert_eq!(slow.next().await.unwrap().unwrap().revision, at(1), "still at hand");
    join_all((0..COMMITS_KEPT_MAX - 1_000).map(|_| run(engine, count("n")))).await;
    assert_eq!(slow.next().await, Some(Err(Failure::Compacted)));
    assert_eq!(slow.next().await, None);
    // And by bytes, with few commits.
    let mut heavy = engine.changes(at(COMMITS_KEPT_MAX as u64 + 1_000));
    for _ in 0..9 {
        run(engine, body(|tx| tx.put("big", vec![0; VALUE_BYTES_MAX]).map(|()| Decision::Commit))).await.unwrap();
    }
    assert_eq!(heavy.next().await, Some(Err(Failure::Compacted)));
}

async fn a_follower_of_another_epoch_or_of_the_future_is_told_to_read_again(store: Store) {
    run(&*store.engine, put("a", "1")).await.unwrap();
    for elsewhere in [Revision { epoch: EPOCH + 1, counter: 1 }, at(2)] {
        let items: Vec<_> = store.engine.changes(elsewhere).collect().await;
        assert_eq!(items, [Err(Failure::Compacted)], "{elsewhere}");
    }
}

// --- closing -----------------------------------------------------------------------------------------------------

async fn a_closed_engine_refuses_and_says_so_twice(store: Store) {
    let engine = &*store.engine;
    run(engine, put("a", "1")).await.unwrap();
    assert!(engine.writable());
    engine.close().await;
    engine.close().await;
    assert!(!engine.writable());
    assert_eq!(run(engine, put("a", "2")).await, Err(Failure::Closed));
    assert!(matches!(engine.view().await, Err(Failure::Closed)));
}

// --- what only an engine with a queue and a file can be asked ----------------------------------------------------

type Answer<'a> = BoxFuture<'a, Result<Revision, Failure>>;

/// Puts a transaction in the queue without waiting for its answer.
async fn queued(engine: &RedbEngine, priority: Priority, body: Body) -> Answer<'_> {
    let mut answer = engine.transact(priority, body);
    assert_eq!(poll_immediate(&mut answer).await, None, "answered before its turn");
    answer
}

/// A body that says when it runs, and then holds the writer until told to go on or forgotten.
fn holding() -> (Body, oneshot::Receiver<()>, mpsc::Sender<()>) {
    let (tell, runs) = oneshot::channel();
    let (go, wait) = mpsc::channel();
    let mut tell = Some(tell);
    let body = body(move |_| {
        tell.take().map(|tell| tell.send(()));
        let _ = wait.recv();
        Ok(Decision::Discard)
    });
    (body, runs, go)
}

#[tokio::test]
async fn interactive_transactions_go_before_background_ones() {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory).unwrap();
    let (hold, runs, go) = holding();
    let mut answers = vec![queued(&engine, Priority::Interactive, hold).await];
    runs.await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for n in 0..10 {
        let priority = if n % 2 == 0 { Priority::Background } else { Priority::Interactive };
        let order = Arc::clone(&order);
        let note = body(move |_| {
            order.lock().push(n);
            Ok(Decision::Discard)
        });
        answers.push(queued(&engine, priority, note).await);
    }
    go.send(()).unwrap();
    assert!(join_all(answers).await.iter().all(Result::is_ok));
    assert_eq!(*order.lock(), [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]);
}

#[tokio::test]
async fn patient_transactions_go_with_interactive_ones_and_share_their_commit() {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory).unwrap();
    let (hold, runs, go) = holding();
    let mut answers = vec![queued(&engine, Priority::Interactive, hold).await];
    runs.await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for (n, priority) in
        [Priority::Patient, Priority::Background, Priority::Interactive, Priority::Patient].into_iter().enumerate()
    {
        let order = Arc::clone(&order);
        let note = body(move |tx| {
            order.lock().push(n);
            tx.put(format!("row {n}"), b"1".to_vec())?;
            Ok(Decision::Commit)
        });
        answers.push(queued(&engine, priority, note).await);
    }
    go.send(()).unwrap();
    assert!(join_all(answers).await.iter().all(Result::is_ok));
    assert_eq!(*order.lock(), [2, 0, 3, 1]);
    assert_eq!(engine.work().commits, 2, "one for those that somebody waits for, one for the background");
}

#[tokio::test]
async fn what_a_transaction_has_left_counts_though_others_share_its_commit() {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory).unwrap();
    let accounts = [1, 2].map(|n| (WorkspaceId::from_bytes([n; 16]), KeyId::from_bytes([n; 16])));
    let write = |account, holders| {
        body(move |tx| {
            let meter = Meter { holders, ..Meter::starting(None, Timestamp::EPOCH) };
            tables::METERS.put(tx, &account, &meter)?;
            Ok(Decision::Commit)
        })
    };
    for account in accounts {
        run(&engine, write(account, 1)).await.unwrap();
    }
    let before = engine.work().commits;
    let (hold, runs, go) = holding();
    let holder = queued(&engine, Priority::Interactive, hold).await;
    runs.await.unwrap();
    let answers = [
        queued(&engine, Priority::Patient, write(accounts[0], 2)).await,
        queued(&engine, Priority::Patient, write(accounts[1], 2)).await,
    ];
    go.send(()).unwrap();
    holder.await.unwrap();
    let [first, second] = <[_; 2]>::try_from(join_all(answers).await).unwrap().map(|answer| counter(answer.unwrap()));
    assert_eq!((second, engine.work().commits), (first + 1, before + 1));
    let marks = engine.marks();
    let [of_first, of_second] = accounts.map(|account| tables::METERS.place(marks, &account).1);
    let holds = [(of_first, first - 1), (of_first, first), (of_second, first), (of_second, second)]
        .map(|(spot, revision)| marks.holds(spot, revision));
    assert_eq!(holds, [false, true, false, true]);
}

#[tokio::test]
async fn patient_transactions_alone_are_done_one_after_another_too() {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory).unwrap();
    for n in 1..=20 {
        assert_eq!(engine.transact(Priority::Patient, count("n")).await, Ok(at(n)));
    }
    let many = (0..200).map(|_| engine.transact(Priority::Patient, count("n")));
    assert!(join_all(many).await.iter().all(Result::is_ok));
    assert_eq!(number(value(&engine, "n").await), 220);
}

#[tokio::test]
async fn a_background_transaction_gets_its_turn_in_a_store_that_is_never_idle() {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory).unwrap();
    let (hold, mut runs, mut go) = holding();
    let mut holder = queued(&engine, Priority::Interactive, hold).await;
    runs.await.unwrap();
    let mut background = queued(&engine, Priority::Background, count("n")).await;
    for _ in 0..100 {
        let (hold, next_runs, next_go) = holding();
        let next = queued(&engine, Priority::Interactive, hold).await;
        go.send(()).unwrap();
        holder.await.unwrap();
        (holder, runs, go) = (next, next_runs, next_go);
        runs.await.unwrap();
        if let Some(answer) = poll_immediate(&mut background).await {
            return assert_eq!(answer, Ok(at(1)));
        }
    }
    panic!("it waited for 100 others");
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory).unwrap();
    let (hold, runs, go) = holding();
    let mut answers = vec![queued(&engine, Priority::Interactive, hold).await];
    runs.await.unwrap();
    for (priority, most) in [
        (Priority::Interactive, INTERACTIVE_QUEUED_MAX),
        (Priority::Patient, INTERACTIVE_QUEUED_MAX),
        (Priority::Background, BACKGROUND_QUEUED_MAX),
    ] {
        for _ in 0..most {
            answers.push(queued(&engine, priority, count("n")).await);
        }
        let refused = poll_immediate(engine.transact(priority, count("n"))).await;
        assert_eq!(refused, Some(Err(Failure::Overloaded)));
    }
    go.send(()).unwrap();
    assert!(join_all(answers).await.iter().all(Result::is_ok));
    assert_eq!(number(value(&engine, "n").await), (2 * INTERACTIVE_QUEUED_MAX + BACKGROUND_QUEUED_MAX) as u64);
}

#[tokio::test]
async fn closing_finishes_what_was_queued_and_reopening_finds_it() {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory).unwrap();
    let view = engine.view().await.unwrap();
    let (hold, runs, go) = holding();
    let mut answers = vec![queued(&engine, Priority::Interactive, hold).await];
    runs.await.unwrap();
    for _ in 0..10 {
        answers.push(queued(&engine, Priority::Background, count("n")).await);
    }
    let mut closing = engine.close();
    assert!(poll_immediate(&mut closing).await.is_none());
    assert_eq!(run(&engine, count("n")).await, Err(Failure::Closed));
    go.send(()).unwrap();
    closing.await;
    assert!(join_all(answers).await.iter().all(Result::is_ok));
    assert!(matches!(engine.view().await, Err(Failure::Closed)));
    assert_eq!(number(view.get(b"n").await.unwrap_or_default()), 0, "an old view may end, but shows nothing else");

    let other_epoch = RedbOptions { epoch_if_new: EPOCH + 1, ..options(&directory) };
    let engine = RedbEngine::open(other_epoch).unwrap();
    assert_eq!(number(value(&engine, "n").await), 10);
    assert_eq!(engine.view().await.unwrap().revision(), at(10), "the epoch is the one it was made with");
    assert_eq!(run(&engine, count("n")).await, Ok(at(11)));
    let items: Vec<_> = engine.changes(at(9)).collect().await;
    assert_eq!(items, [Err(Failure::Compacted)], "what was committed before opening is not at hand");
}

#[tokio::test]
async fn a_call_dropped_before_its_turn_does_not_run() {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory).unwrap();
    let (hold, runs, go) = holding();
    let holder = queued(&engine, Priority::Interactive, hold).await;
    runs.await.unwrap();
    drop(queued(&engine, Priority::Interactive, put("dropped", "1")).await);
    go.send(()).unwrap();
    holder.await.unwrap();
    run(&engine, put("kept", "1")).await.unwrap();
    assert_eq!(value(&engine, "dropped").await, None);
}

#[tokio::test]
async fn a_file_is_for_its_owner_and_for_one_process_at_a_time() {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory).unwrap();
    let mode = std::fs::metadata(options(&directory).path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing is left of making it");
    let Err(Failure::Unavailable(why)) = open(&directory) else { panic!("opened twice") };
    assert!(why.starts_with("another process has ") && why.ends_with("/store open"), "{why}");
    engine.close().await;
    open(&directory).unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    open(&directory).unwrap().close().await;
    let rows = redb::TableDefinition::<&[u8], &[u8]>::new("rows");
    let database = redb::Database::open(options(&directory).path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(rows).unwrap().insert(&b"\0format"[..], &2_u64.to_be_bytes()[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let Err(Failure::Unavailable(why)) = open(&directory) else { panic!("opened a newer format") };
    assert!(why.contains("format 2") && why.contains("up to format 1"), "{why}");
}

#[test]
fn an_emptied_or_foreign_file_is_refused_rather_than_taken_for_a_new_store() {
    let directory = TempDir::new().unwrap();
    let path = options(&directory).path;
    for bytes in [&b""[..], &[0; 8_192], b"something else, as long as it likes to be"] {
        std::fs::write(&path, bytes).unwrap();
        let Err(Failure::Corrupt(why)) = open(&directory) else { panic!("opened {} bytes", bytes.len()) };
        let remedy =
            format!("; restore a backup: ostiary restore FILE --replace --data-dir {}", directory.path().display());
        assert!(why.contains("/store is damaged: ") && why.ends_with(&remedy), "{why}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "left as it was");
    }
}

#[test]
fn a_revision_has_one_spelling() {
    assert_eq!(at(7).to_string(), "0123456789abcdef.7");
    assert_eq!("0123456789abcdef.7".parse(), Ok(at(7)));
    let others = [
        "",
        ".",
        "0123456789abcdef",
        "123456789abcdef.7",
        "0123456789ABCDEF.7",
        "0123456789abcdef.07",
        "0123456789abcdef.+7",
        "0123456789abcdef.7 ",
    ];
    for other in others {
        assert!(other.parse::<Revision>().is_err(), "{other}");
    }
}

#[tokio::test]
#[should_panic(expected = "impure body")]
async fn the_engine_in_memory_catches_a_body_that_counts_its_own_runs() {
    let mut runs = 0_u64;
    let impure = body(move |tx| {
        runs += 1;
        tx.put("runs", runs.to_be_bytes().to_vec())?;
        Ok(Decision::Commit)
    });
    let _ = run(&MemoryEngine::new(EPOCH), impure).await;
}
