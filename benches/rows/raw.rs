//! What redb itself takes for the rows that ostiary writes: a process of its own that commits them, and no more.
//!
//! ```text
//! rows raw-commits FILE TEMPLATE
//! ```
//!
//! The file is a copy of ostiary's, the rows are those of one `CreateKey` with other ids and digests, the options are
//! those of `ostiary::store::redb`. Callers hand rows over to one writer, which commits whatever waits.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use redb::{Builder, Database, Durability, ReadableTable as _, TableDefinition};
use tokio::sync::oneshot;

use crate::Failed;
use crate::clock::Clock;
use crate::figures::drawn;
use crate::load::IN_FLIGHT;

/// What this executable is asked for to be that process.
pub const COMMAND: &str = "raw-commits";
/// A third of what ostiary takes for its caches: the part for pages.
const CACHE_BYTES: usize = (512 << 20) / 3;
/// As in ostiary's queue.
pub const GROUP_MAX: usize = 512;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
const HEAD_ROW: &[u8] = b"\0head";
/// The table of audit events, whose keys have the number of the commit after the workspace.
const AUDIT_TAG: u8 = 0x70;
const AUDIT_NUMBER: std::ops::Range<usize> = 17..25;

/// The table of keys, and that of imported keys by their digests, whose rows come in random order.
const KEY_TAG: u8 = 0x40;
const DIGEST_TAG: u8 = 0x41;
/// Bytes before each value.
const CHECKSUM_BYTES: usize = 4;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Which rows of a key are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    All,
    /// All and one of its digest, as if its secret did not tell where to look for it.
    WithDigest,
}

/// The rows of one `CreateKey`.
#[derive(Clone)]
pub struct Template {
    pub id: [u8; 16],
    pub digest: [u8; 32],
    pub rows: Pairs,
}

impl Template {
    /// The rows of another one: the commit of this number, as the place of this process.
    fn another(&self, commit: u64, rows: Rows) -> Pairs {
        let mut digest = [0; 32];
        for (part, bytes) in digest.chunks_mut(8).enumerate() {
            bytes.copy_from_slice(&drawn(13, commit * 4 + part as u64).to_be_bytes());
        }
        let mut id = self.id;
        id[6..14].copy_from_slice(&commit.to_be_bytes());
        // After all keys that are there.
        id[5] = id[5].wrapping_add(1);
        if id[5] == 0 {
            id[4] = id[4].wrapping_add(1);
        }
        let change = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let (mut key, mut value) = (key.clone(), value.clone());
            for bytes in [&mut key, &mut value] {
                replace(bytes, &self.id, &id);
                replace(bytes, &self.digest, &digest);
            }
            if key.first() == Some(&AUDIT_TAG)
                && let Some(number) = key.get_mut(AUDIT_NUMBER)
            {
                number.copy_from_slice(&commit.to_be_bytes());
            }
            (key, value)
        };
        let by_digest = (rows == Rows::WithDigest).then(|| {
            let key = [&[DIGEST_TAG], self.workspace().as_slice(), &digest].concat();
            (key, [&[0; CHECKSUM_BYTES], id.as_slice()].concat())
        });
        self.rows.iter().map(change).chain(by_digest).collect()
    }

    /// The workspace that its row of the key begins with, after the tag.
    fn workspace(&self) -> Vec<u8> {
        let row = self.rows.iter().find(|(key, _)| key.first() == Some(&KEY_TAG));
        row.and_then(|(key, _)| key.get(1..17)).unwrap_or_default().to_vec()
    }

    fn write(&self, path: &Path) -> Result<(), Failed> {
        let mut text = String::new();
        let first = (self.id.to_vec(), self.digest.to_vec());
        for (one, other) in std::iter::once(&first).chain(&self.rows) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} {}", hex(one), hex(other));
        }
        Ok(std::fs::write(path, text)?)
    }

    fn read(path: &str) -> Result<Self, Failed> {
        let text = std::fs::read_to_string(path)?;
        let pair = |line: &str| -> Result<(Vec<u8>, Vec<u8>), Failed> {
            let (one, other) = line.split_once(' ').ok_or("no pair")?;
            Ok((bytes_of(one)?, bytes_of(other)?))
        };
        let mut pairs = text.lines().map(pair);
        let (id, digest) = pairs.next().ok_or("no rows")??;
        let (id, digest) = (id.try_into().map_err(|_| "no id")?, digest.try_into().map_err(|_| "no digest")?);
        Ok(Self { id, digest, rows: pairs.collect::<Result<_, _>>()? })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Result<Vec<u8>, Failed> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let places: Vec<_> = bytes.windows(old.len()).enumerate().filter(|(_, window)| *window == old).collect();
    let places: Vec<usize> = places.into_iter().map(|(place, _)| place).collect();
    for place in places {
        bytes[place..place + old.len()].copy_from_slice(new);
    }
}

/// The process, seen from the bench.
pub struct Raw {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What a round took.
pub struct Round {
    /// Microseconds of CPU for a commit.
    pub cpu: f64,
    /// Commits in a second.
    pub rate: f64,
}

impl Raw {
    /// Starts it on a copy of a store, which nothing else has open.
    pub fn start(file: &Path, template: &Template) -> Result<Self, Failed> {
        let described = file.with_extension("template");
        template.write(&described)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(COMMAND).arg(file).arg(described).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let asks = child.stdin.take().ok_or("its input is piped")?;
        let answers = BufReader::new(child.stdout.take().ok_or("its output is piped")?);
        Ok(Self { child, asks, answers })
    }

    /// Has it write the rows of so many keys, in groups of at most so many.
    pub fn round(&mut self, keys: usize, group: usize, rows: Rows) -> Result<Round, Failed> {
        let which = if rows == Rows::All { "all" } else { "more" };
        self.ask(&format!("prepare {keys} {group} {which}"))?;
        let clock = Clock::of(self.child.id());
        let before = clock.read()?;
        let seconds: f64 = self.ask("go")?.parse()?;
        let spent = clock.read()?.since(&before);
        Ok(Round { cpu: spent.as_secs_f64() * 1e6 / keys as f64, rate: keys as f64 / seconds })
    }

    fn ask(&mut self, what: &str) -> Result<String, Failed> {
        writeln!(self.asks, "{what}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.is_empty() { Err("the raw side ended".into()) } else { Ok(answer.trim_end().to_owned()) }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rows, and whom to tell that they are durable.
type Job = (Pairs, oneshot::Sender<()>);

/// Is that process.
pub fn serve(mut arguments: impl Iterator<Item = String>) -> Result<(), Failed> {
    let (file, template) = arguments.next().zip(arguments.next()).ok_or("a file and a template are missing")?;
    let template = Template::read(&template)?;
    let database = Builder::new().set_cache_size(CACHE_BYTES).create(file)?;
    let mut commit = head(&database)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (mut prepared, mut group) = (Vec::new(), GROUP_MAX);
    for line in std::io::stdin().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["prepare", keys, most, which] => {
                let rows = if which == "all" { Rows::All } else { Rows::WithDigest };
                let keys: u64 = keys.parse()?;
                group = most.parse()?;
                prepared = (1..=keys).map(|key| template.another(commit + key, rows)).collect();
                commit += keys;
                println!("prepared");
            }
            _ => {
                let began = Instant::now();
                let number = commit - prepared.len() as u64;
                run(&runtime, &database, std::mem::take(&mut prepared), group, number)?;
                println!("{}", began.elapsed().as_secs_f64());
            }
        }
    }
    Ok(())
}

fn head(database: &Database) -> Result<u64, Failed> {
    let transaction = database.begin_write()?;
    let rows = transaction.open_table(ROWS)?;
    let head = rows.get(HEAD_ROW)?.and_then(|value| value.value().try_into().ok()).map(u64::from_be_bytes);
    head.ok_or_else(|| "not a store".into())
}

/// Has callers hand in rows, each the next as soon as what it handed in is durable.
fn run(
    runtime: &tokio::runtime::Runtime,
    database: &Database,
    prepared: Vec<Pairs>,
    group: usize,
    number: u64,
) -> Result<(), Failed> {
    let (jobs, waiting) = channel();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || write(database, &waiting, group, number));
        let callers = async {
            let prepared = Cell::new(prepared.into_iter());
            let callers = (0..IN_FLIGHT).map(|_| hand_in(&prepared, &jobs));
            futures::future::try_join_all(callers).await
        };
        let handed_in = runtime.block_on(callers);
        drop(jobs);
        writer.join().map_err(|_| "the writer panicked")??;
        handed_in.map(drop)
    })
}

async fn hand_in(prepared: &Cell<std::vec::IntoIter<Pairs>>, jobs: &Sender<Job>) -> Result<(), Failed> {
    loop {
        let mut rest = prepared.take();
        let next = rest.next();
        prepared.set(rest);
        let Some(rows) = next else { return Ok(()) };
        let (done, durable) = oneshot::channel();
        jobs.send((rows, done)).map_err(|_| "the writer has ended")?;
        durable.await?;
    }
}

/// Commits whatever waits, at most so many at once.
fn write(database: &Database, waiting: &Receiver<Job>, group: usize, mut number: u64) -> Result<(), Failed> {
    while let Ok(first) = waiting.recv() {
        let jobs: Vec<Job> = std::iter::once(first).chain(waiting.try_iter().take(group - 1)).collect();
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        let mut table = transaction.open_table(ROWS)?;
        for (rows, _) in &jobs {
            for (key, value) in rows {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        number += jobs.len() as u64;
        table.insert(HEAD_ROW, number.to_be_bytes().as_slice())?;
        drop(table);
        transaction.commit()?;
        for (_, done) in jobs {
            // Whoever asked may have left.
            let _ = done.send(());
        }
    }
    Ok(())
}
