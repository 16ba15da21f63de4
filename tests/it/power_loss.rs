//! What a disk may do to a store: lose power, tear writes, fail, lie and rot. And what the store answers then.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use ostiary::store::redb::{RedbEngine, RedbOptions};
use ostiary::store::txn::Txn;
use ostiary::store::{Body, Decision, Engine, Failure, Priority, Revision, Row, SCAN_LIMIT_MAX, Stop};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;

/// Images of a disk that lost power, each opened again.
const IMAGES: usize = 2_000;
/// Callers that write at the same time, and how often each does.
const CALLERS: usize = 4;
const WRITES_EACH: usize = 40;
/// Faults are injected into every Nth operation, for each N up to this one.
const EVERY_MAX: usize = 60;
/// Damaged copies of a file, each opened.
const DAMAGES: usize = 150;
/// What a disk writes whole.
const SECTOR: usize = 512;

// --- a disk ------------------------------------------------------------------------------------------------------

/// A disk, what is on it and what only its cache holds.
#[derive(Debug, Clone)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    /// What reads see.
    cache: Vec<u8>,
    /// What survives.
    durable: Vec<u8>,
    /// What a sync has yet to carry over.
    dirty: Vec<Op>,
    log: Vec<Event>,
    fault: Fault,
    operations: usize,
    random: StdRng,
}

#[derive(Debug, Clone)]
enum Op {
    Write(usize, Arc<[u8]>),
    Length(usize),
}

#[derive(Debug, Clone)]
enum Event {
    Op(Op),
    Sync,
    Acknowledged(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Every Nth write, sync or change of length fails; what a failed sync should have carried over may be lost for good.
    Every(usize),
    /// Every sync loses things in the same way, and says that it did not.
    Secret,
    /// Nothing can be read.
    Reads,
}

impl Op {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                bytes.resize(bytes.len().max(offset + data.len()), 0);
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }

    /// Some of its sectors and not the others.
    fn tear(&self, bytes: &mut Vec<u8>, random: &mut StdRng) {
        let Self::Write(offset, data) = self else { return };
        for (n, sector) in data.chunks(SECTOR).enumerate() {
            if random.random() {
                Self::Write(offset + n * SECTOR, sector.into()).apply(bytes);
            }
        }
    }
}

impl Disk {
    fn new(durable: Vec<u8>) -> Self {
        let (cache, random) = (durable.clone(), StdRng::seed_from_u64(1));
        let platter = Platter { cache, durable, dirty: vec![], log: vec![], fault: Fault::None, operations: 0, random };
        Self(Arc::new(Mutex::new(platter)))
    }

    fn open(&self, check_integrity: bool) -> Result<RedbEngine, Failure> {
        let disk = self.clone();
        let options = RedbOptions { cache_bytes: 1 << 20, check_integrity, ..RedbOptions::new("the disk", 7) };
        RedbEngine::with_backend(options, move || {
            // Opening anew reads what is there, not what a cache takes for clean.
            let platter = &mut *disk.0.lock();
            platter.cache.clone_from(&platter.durable);
            platter.dirty.iter().for_each(|op| op.apply(&mut platter.cache));
            Ok(disk.clone())
        })
    }

    fn durable(&self) -> Vec<u8> {
        self.0.lock().durable.clone()
    }

    fn set(&self, fault: Fault) {
        self.0.lock().fault = fault;
    }

    fn acknowledge(&self, revision: Revision) {
        self.0.lock().log.push(Event::Acknowledged(revision.counter));
    }
}

impl Platter {
    fn due(&mut self, every: usize) -> bool {
        self.operations += 1;
        self.operations.is_multiple_of(every)
    }

    fn take(&mut self, op: Op) -> io::Result<()> {
        if let Fault::Every(every) = self.fault
            && self.due(every)
        {
            op.tear(&mut self.cache, &mut self.random);
            return Err(io::Error::other("injected"));
        }
        op.apply(&mut self.cache);
        self.dirty.push(op.clone());
        self.log.push(Event::Op(op));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let due = match self.fault {
            Fault::None | Fault::Reads => false,
            Fault::Every(every) => self.due(every),
            Fault::Secret => true,
        };
        for op in self.dirty.drain(..) {
            if !due || self.random.random() {
                op.apply(&mut self.durable);
            }
        }
        if due && matches!(self.fault, Fault::Every(_)) {
            return Err(io::Error::other("injected"));
        }
        self.log.push(Event::Sync);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock();
        if platter.fault == Fault::Reads {
            return Err(io::Error::other("injected"));
        }
        let bytes = platter.cache.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().take(Op::Length(length as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().take(Op::Write(offset as usize, data.into()))
    }
}

// --- what is written, and what must be found ---------------------------------------------------------------------

type Rows = BTreeMap<Bytes, Option<Bytes>>;

/// The rows that the transaction of this revision writes: a few of many, of many sizes, over and over.
fn writes(counter: u64) -> Rows {
    let mut random = StdRng::seed_from_u64(counter);
    let mut rows = Rows::from([(Bytes::from("head"), Some(Bytes::from(counter.to_string())))]);
    for _ in 0..5 {
        let key = Bytes::from(format!("row {:03}", random.random_range(0..200)));
        let length = if random.random_ratio(1, 20) { 20_000 } else { random.random_range(1..400) };
        let kept = random.random_ratio(4, 5);
        rows.insert(key, kept.then(|| Bytes::from(counter.to_string().repeat(length / 3 + 1))));
    }
    rows
}

/// All rows after each number of transactions.
fn states() -> &'static [Vec<Row>] {
    static STATES: LazyLock<Vec<Vec<Row>>> = LazyLock::new(|| {
        let mut rows = Rows::new();
        let states = (0..=(CALLERS * WRITES_EACH) as u64).map(|counter| {
            rows.extend(if counter == 0 { Rows::new() } else { writes(counter) });
            rows.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect()
        });
        states.collect()
    });
    &STATES
}

fn write() -> Body {
    Box::new(|tx: &mut Txn<'_>| -> Result<Decision, Stop> {
        for (key, value) in writes(tx.revision().counter) {
            match value {
                Some(value) => tx.put(key, value)?,
                None => tx.delete(key)?,
            }
        }
        Ok(Decision::Commit)
    })
}

/// Everything that happens to a disk with a new store while several callers write.
async fn recorded() -> Vec<Event> {
    let disk = Disk::new(new().await);
    let engine = disk.open(true).unwrap();
    let callers = (0..CALLERS).map(async |_| {
        for _ in 0..WRITES_EACH {
            disk.acknowledge(engine.transact(Priority::Interactive, write()).await.unwrap());
        }
    });
    join_all(callers).await;
    engine.close().await;
    let log = disk.0.lock().log.clone();
    assert!(log.len() > 1_000, "only {} events", log.len());
    log
}

/// A new store. Making one is not exposed to losing power: a file is made out of sight first.
async fn new() -> Vec<u8> {
    let disk = Disk::new(vec![]);
    disk.open(true).unwrap().close().await;
    disk.durable()
}

#[derive(Debug, PartialEq)]
enum Found {
    Right,
    /// What was acknowledged is not there.
    Lost,
    /// Neither the state after one transaction nor after another.
    Wrong,
    Refused(Failure),
}

async fn found(image: Vec<u8>, acknowledged: u64, check_integrity: bool) -> Found {
    let engine = match Disk::new(image).open(check_integrity) {
        Ok(engine) => engine,
        Err(failure) => return Found::Refused(failure),
    };
    let view = match engine.view().await {
        Ok(view) => view,
        Err(failure) => return Found::Refused(failure),
    };
    let Revision { counter, .. } = view.revision();
    let found = match view.scan(vec![]..vec![0xff], SCAN_LIMIT_MAX).await {
        Err(failure) => Found::Refused(failure),
        Ok(_) if counter < acknowledged => Found::Lost,
        Ok(rows) if states().get(counter as usize) != Some(&rows) => Found::Wrong,
        Ok(_) => Found::Right,
    };
    drop(view);
    engine.close().await;
    found
}

/// Moments of the log in ascending order.
fn moments(log: &[Event], random: &mut StdRng) -> Vec<usize> {
    let mut moments: Vec<usize> = (0..IMAGES).map(|_| random.random_range(0..=log.len())).collect();
    moments.sort_unstable();
    moments
}

fn acknowledged(log: &[Event]) -> u64 {
    log.iter()
        .filter_map(|event| if let Event::Acknowledged(counter) = event { Some(*counter) } else { None })
        .max()
        .unwrap_or(0)
}

/// What may be on a disk of which only the synced part is certain.
fn torn(durable: &[u8], dirty: &[Op], random: &mut StdRng) -> Vec<u8> {
    let mut image = durable.to_vec();
    let (kept, torn) = (random.random_range(0..=4), random.random_range(0..=2));
    for op in dirty {
        match random.random_range(0..4) {
            chance if chance < kept => op.apply(&mut image),
            _ if random.random_range(0..2) < torn => op.tear(&mut image, random),
            _ => {}
        }
    }
    image
}

#[tokio::test]
async fn a_disk_that_forgets_and_tears_unsynced_writes_loses_nothing_acknowledged_and_halves_nothing() {
    let log = recorded().await;
    let mut random = StdRng::seed_from_u64(2);
    let (mut durable, mut dirty, mut past) = (new().await, vec![], 0);
    for moment in moments(&log, &mut random) {
        for event in &log[past..moment] {
            match event {
                Event::Op(op) => dirty.push(op.clone()),
                Event::Sync => dirty.drain(..).for_each(|op| op.apply(&mut durable)),
                Event::Acknowledged(_) => {}
            }
        }
        past = moment;
        let image = torn(&durable, &dirty, &mut random);
        let found = found(image, acknowledged(&log[..moment]), random.random()).await;
        assert_eq!(found, Found::Right, "power lost after {moment} of {} events", log.len());
    }
}

#[tokio::test]
async fn a_disk_whose_syncs_are_lies_is_caught_losing_what_was_acknowledged() {
    let log = recorded().await;
    let mut random = StdRng::seed_from_u64(3);
    let (made, mut lost) = (new().await, 0);
    for moment in moments(&log, &mut random).into_iter().step_by(20) {
        // It writes in order, but may be this far behind.
        let behind = moment.saturating_sub(random.random_range(0..200));
        let mut image = made.clone();
        for event in &log[..behind] {
            if let Event::Op(op) = event {
                op.apply(&mut image);
            }
        }
        let found = found(image, acknowledged(&log[..moment]), true).await;
        lost += usize::from(found == Found::Lost);
    }
    assert!(lost > 10, "caught {lost} times");
}

// --- a disk that fails -------------------------------------------------------------------------------------------

/// A transaction with three rows of its own, and what it was answered.
type Outcome = (usize, Result<Revision, Failure>);

fn own(n: usize) -> Body {
    Box::new(move |tx: &mut Txn<'_>| {
        let revision = tx.revision().to_string();
        for part in ["a", "b", "c"] {
            tx.put(format!("{n:04}{part}"), revision.clone())?;
        }
        Ok(Decision::Commit)
    })
}

/// Several callers write to a faulty disk, and give it a moment to heal after each failure.
async fn outcomes(engine: &RedbEngine) -> Vec<Outcome> {
    let callers = (0..CALLERS).map(async |caller| {
        let mut outcomes = vec![];
        for n in (caller..CALLERS * 8).step_by(CALLERS) {
            outcomes.push((n, engine.transact(Priority::Interactive, own(n)).await));
            for _ in 0..10 {
                if !engine.writable() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        outcomes
    });
    join_all(callers).await.concat()
}

/// Whether every outcome is what the store shows: acknowledged means there, unavailable means absent, never a part.
async fn verify(engine: &RedbEngine, outcomes: &[Outcome]) -> Result<(), String> {
    let view = engine.view().await.map_err(|failure| failure.to_string())?;
    for (n, outcome) in outcomes {
        let mut rows = vec![];
        for part in ["a", "b", "c"] {
            rows.push(view.get(format!("{n:04}{part}").as_bytes()).await.map_err(|failure| failure.to_string())?);
        }
        let there = rows[0].is_some();
        let right = match outcome {
            Ok(revision) => rows[0] == Some(Bytes::from(revision.to_string())),
            Err(Failure::Unknown(_)) => true,
            Err(Failure::Unavailable(_)) => !there,
            Err(_) => false,
        };
        if !right || rows.iter().any(|row| *row != rows[0]) {
            return Err(format!("{n}: {outcome:?}, but {rows:?}"));
        }
    }
    Ok(())
}

async fn healed(engine: &RedbEngine) {
    let healed = async {
        while !engine.writable() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), healed).await.expect("the fault is lifted, so the store heals");
}

#[tokio::test]
async fn a_failing_disk_acknowledges_nothing_falsely_and_the_store_heals_when_it_is_whole_again() {
    let made = new().await;
    let (mut done, mut unknown, mut unavailable) = (0, 0, 0);
    for every in 1..=EVERY_MAX {
        let disk = Disk::new(made.clone());
        let engine = disk.open(true).unwrap();
        disk.set(Fault::Every(every));
        let mut outcomes = outcomes(&engine).await;
        for (_, outcome) in &outcomes {
            match outcome {
                Ok(_) => done += 1,
                Err(Failure::Unknown(_)) => unknown += 1,
                Err(_) => unavailable += 1,
            }
        }
        disk.set(Fault::None);
        healed(&engine).await;
        outcomes.push((999, engine.transact(Priority::Interactive, own(999)).await));
        assert!(outcomes.last().unwrap().1.is_ok(), "every {every}: {outcomes:?}");
        verify(&engine, &outcomes).await.unwrap_or_else(|why| panic!("every {every}: {why}"));
        let after_power_loss = Disk::new(disk.durable()).open(false).unwrap();
        verify(&after_power_loss, &outcomes).await.unwrap_or_else(|why| panic!("every {every}, later: {why}"));
        engine.close().await;
    }
    assert!(
        done > 100 && unknown > 10 && unavailable > 10,
        "{done} done, {unknown} unknown, {unavailable} unavailable"
    );
}

#[tokio::test]
async fn a_disk_that_hides_its_failures_is_caught() {
    let made = new().await;
    let mut caught = 0;
    for seed in 0..10 {
        let disk = Disk::new(made.clone());
        disk.0.lock().random = StdRng::seed_from_u64(seed);
        let engine = disk.open(true).unwrap();
        disk.set(Fault::Secret);
        let outcomes = outcomes(&engine).await;
        let held = match Disk::new(disk.durable()).open(true) {
            Ok(engine) => verify(&engine, &outcomes).await,
            Err(failure) => Err(failure.to_string()),
        };
        caught += usize::from(held.is_err());
        engine.close().await;
    }
    assert!(caught > 5, "caught {caught} times");
}

#[tokio::test]
async fn a_number_that_failed_is_never_given_again_and_followers_are_told_to_read_again() {
    let disk = Disk::new(new().await);
    let engine = disk.open(true).unwrap();
    let mut changes = engine.changes(engine.view().await.unwrap().revision());
    let first = engine.transact(Priority::Interactive, own(0)).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().revision, first);
    disk.set(Fault::Every(1));
    let seen = Arc::new(Mutex::new(0));
    let tell = Arc::clone(&seen);
    let failing: Body = Box::new(move |tx: &mut Txn<'_>| {
        *tell.lock() = tx.revision().counter;
        own(1)(tx)
    });
    assert!(engine.transact(Priority::Interactive, failing).await.is_err());
    disk.set(Fault::None);
    healed(&engine).await;
    let told = tokio::time::timeout(Duration::from_secs(30), changes.next()).await;
    assert_eq!(told.expect("not left waiting"), Some(Err(Failure::Compacted)));

    let head = engine.view().await.unwrap().revision();
    let nothing: Body = Box::new(|_: &mut Txn<'_>| Ok(Decision::Discard));
    assert_eq!(engine.transact(Priority::Interactive, nothing).await, Ok(head), "not a number that was skipped");
    let mut changes = engine.changes(head);
    let second = engine.transact(Priority::Interactive, own(2)).await.unwrap();
    assert!(second.counter > *seen.lock(), "{second} after {}", seen.lock());
    assert_eq!(changes.next().await.unwrap().unwrap().revision, second);
}

#[tokio::test]
async fn a_store_that_comes_back_without_durable_commits_is_not_taken_back() {
    let disk = Disk::new(new().await);
    let engine = disk.open(true).unwrap();
    let older = disk.durable();
    engine.transact(Priority::Interactive, own(0)).await.unwrap();
    disk.set(Fault::Every(1));
    assert!(engine.transact(Priority::Interactive, own(1)).await.is_err());
    disk.0.lock().durable = older;
    disk.set(Fault::None);
    let gone = async {
        loop {
            match engine.transact(Priority::Interactive, own(2)).await {
                Err(Failure::Corrupt(why)) => break why,
                answer => assert!(matches!(answer, Err(Failure::Unavailable(_))), "{answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let why = tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    assert!(why.contains("commits that were durable are gone"), "{why}");
    assert!(engine.view().await.is_err());
    engine.close().await;
}

#[tokio::test]
async fn a_reader_that_meets_an_error_has_the_store_opened_again() {
    let disk = Disk::new(new().await);
    let engine = disk.open(true).unwrap();
    let more_than_the_cache = 0..20_u8;
    for n in more_than_the_cache.clone() {
        let put: Body =
            Box::new(move |tx: &mut Txn<'_>| tx.put(vec![n + 1], vec![n; 400_000]).map(|()| Decision::Commit));
        engine.transact(Priority::Interactive, put).await.unwrap();
    }
    let read = async || -> Result<(), Failure> {
        let view = engine.view().await?;
        for n in more_than_the_cache.clone() {
            assert_eq!(view.get(&[n + 1]).await?, Some(Bytes::from(vec![n; 400_000])));
        }
        Ok(())
    };
    disk.set(Fault::Reads);
    let failed = read().await;
    assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
    disk.set(Fault::None);
    let heals = async {
        while read().await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), heals).await.expect("without anybody writing");
    assert_eq!(read().await, Ok(()));
}

// --- a disk that rots --------------------------------------------------------------------------------------------

/// Flips a bit, blanks a sector, or overwrites a run.
fn damage(image: &mut [u8], random: &mut StdRng) {
    // The first page holds the roots of everything, so it gets more than its share.
    let within = if random.random_ratio(1, 5) { 4_096 } else { image.len() };
    let at = random.random_range(0..within);
    match random.random_range(0..3) {
        0 => image[at] ^= 1 << random.random_range(0..8),
        1 => image[at / SECTOR * SECTOR..][..SECTOR].fill(0),
        _ => image[at..].iter_mut().take(random.random_range(1..300)).for_each(|byte| *byte = random.random()),
    }
}

/// What damaged copies of a store are found to be, and how often.
async fn rotten(check_integrity: bool) -> Vec<Found> {
    let disk = Disk::new(new().await);
    let engine = disk.open(true).unwrap();
    for _ in 0..CALLERS * WRITES_EACH {
        engine.transact(Priority::Interactive, write()).await.unwrap();
    }
    engine.close().await;
    let whole = disk.durable();
    let mut random = StdRng::seed_from_u64(5);
    let mut all = vec![];
    for _ in 0..DAMAGES {
        let mut image = whole.clone();
        damage(&mut image, &mut random);
        all.push(found(image, (CALLERS * WRITES_EACH) as u64, check_integrity).await);
    }
    all
}

#[tokio::test]
async fn a_damaged_store_refuses_to_open_or_answers_exactly_right() {
    let found = rotten(true).await;
    for found in &found {
        match found {
            Found::Right => {}
            Found::Refused(Failure::Corrupt(why)) => assert!(why.starts_with("the disk is damaged: "), "{why}"),
            Found::Lost | Found::Wrong | Found::Refused(_) => panic!("{found:?}"),
        }
    }
    let refused = found.iter().filter(|found| matches!(found, Found::Refused(_))).count();
    assert!(refused > DAMAGES / 10, "only {refused} did any harm");
}

#[tokio::test]
async fn without_the_check_damage_is_answered_as_if_it_were_data() {
    let found = rotten(false).await;
    assert!(found.iter().any(|found| matches!(found, Found::Lost | Found::Wrong)), "{found:?}");
}
