//! Where bytes are kept: the waist between the typed tables above and the engines below.
//!
//! Keys and values are bytes here; nothing in this file knows what they mean. An engine runs small transactions
//! one after another, makes each durable before answering, and tells what changed. Transactions read points, only
//! views scan, so any engine that can compare and set can serve.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::watch;

pub mod bringing;
pub mod cache;
pub mod marks;
pub mod memory;
pub mod records;
pub mod redb;
pub mod shelf;
mod sync;
pub mod tables;
pub mod txn;

pub use self::redb::FORMAT_VERSION;
pub use marks::Marks;
pub use txn::Txn;

/// The first byte of the keys that engines keep for themselves. No table may use it as its tag.
pub const RESERVED_TAG: u8 = 0x00;
/// Rows that one scan may ask for.
pub const SCAN_LIMIT_MAX: usize = 16_384;
/// Recent commits held for those who follow the changes.
pub const COMMITS_KEPT_MAX: usize = 4_096;
/// Bytes of keys and values in those commits.
pub const COMMITS_KEPT_BYTES_MAX: usize = 16 << 20;

/// Keeps rows, and runs transactions on them.
pub trait Engine: Send + Sync + 'static {
    /// Everything committed before the call; nothing committed later shows in it.
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>, Failure>>;

    /// Runs `body` on the newest state and makes its writes durable, all or none, before answering.
    ///
    /// May run `body` more than once; only the last run counts. Answers the revision of the commit, or the newest
    /// one that the body saw if it wrote nothing. A call dropped before its turn may never run.
    fn transact(&self, priority: Priority, body: Body) -> BoxFuture<'_, Result<Revision, Failure>>;

    /// Every commit after `after`, whole, in order, once, as soon as it is durable.
    ///
    /// Ends only after a failure: `Compacted` when commits in between are no longer at hand (read everything again),
    /// `Closed` when the engine was closed.
    fn changes(&self, after: Revision) -> BoxStream<'static, Result<Arc<Commit>, Failure>>;

    /// Finishes what was queued, then refuses everything. Calling it again only waits for the same end.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// The marks that every commit raises for those rows that it changes whose records are remembered, before it can be
    /// seen; and the newest revision that can be.
    fn marks(&self) -> &Arc<Marks>;

    /// Whether writes are taken; not while the store recovers from a failed one, and not after closing.
    fn writable(&self) -> bool;

    /// What has been done since it was opened and what waits. An engine that does everything at once says nothing.
    fn work(&self) -> Work {
        Work::default()
    }
}

/// What an engine has done and has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Times that it made something durable.
    pub commits: u64,
    /// Transactions that became durable, many of them together.
    pub transactions: u64,
    /// Interactive transactions that wait.
    pub interactive: usize,
    /// Background transactions that wait.
    pub background: usize,
}

/// One moment of the store, unmoved by later commits.
pub trait View: Send + Sync {
    /// The last commit that this view shows, read from the same snapshot.
    fn revision(&self) -> Revision;

    /// The value of one row. The engine's own rows show in no view.
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, Failure>>;

    /// The first `limit` rows of the range, in ascending order of their keys.
    ///
    /// A limit past [`SCAN_LIMIT_MAX`] is refused rather than cut, so that fewer rows than asked for always mean the end.
    fn scan(&self, range: Range<Vec<u8>>, limit: usize) -> BoxFuture<'_, Result<Vec<Row>, Failure>>;
}

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// A decision on the newest state: pure, quick, safe to repeat. Time and chance are drawn before it and moved in.
pub type Body = Box<dyn FnMut(&mut Txn<'_>) -> Result<Decision, Stop> + Send>;

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody is waiting.
    Interactive,
    /// Somebody is waiting, and many others are likely to come with as little to write: where there are, it waits some
    /// milliseconds for them, since all of them together cost hardly more than one.
    Patient,
    /// Housekeeping, in small pieces, when nobody waits.
    Background,
}

/// What becomes of the writes of a body that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// All of them are made durable.
    Commit,
    /// None of them happened.
    Discard,
}

/// Why a body did not run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The engine fetches a point that it has not got at hand, and runs the body anew.
    Again,
    /// The transaction leaves nothing behind and answers this.
    Fail(Failure),
}

/// A point is not at hand yet. Only engines say so; a body hands it on with `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again;

impl From<Again> for Stop {
    fn from(Again: Again) -> Self {
        Self::Again
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Fail(failure)
    }
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was written and nothing will be; later it may work.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The write failed while it was being made durable: it may be on disk, or not.
    #[error("whether the write is on disk is unknown: {0}")]
    Unknown(String),
    /// As many transactions as may wait are waiting.
    #[error("too many transactions are waiting")]
    Overloaded,
    /// A transaction or a scan went past its bounds.
    #[error("too many {what}: at most {limit}")]
    TooLarge {
        /// What there was too much of, in the plural.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// The stored bytes are not what was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The body panicked; only its own transaction is lost.
    #[error("the transaction panicked")]
    Panicked,
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// The commits asked for are no longer at hand. Only changes say so.
    #[error("older changes are no longer at hand")]
    Compacted,
}

/// The number of a commit. Counters of different epochs can't be compared.
///
/// As text `<16 lower-case hexadecimal digits>.<decimal counter>`, in exactly one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Drawn when the store was first made.
    pub epoch: u64,
    /// Grows by one with each commit; numbers are skipped only by commits that failed.
    pub counter: u64,
}

/// The text is not a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 16 lower-case hexadecimal digits, a full stop and a number")]
pub struct NotARevision;

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.epoch, self.counter)
    }
}

impl FromStr for Revision {
    type Err = NotARevision;

    fn from_str(text: &str) -> Result<Self, NotARevision> {
        let (epoch, counter) = text.split_once('.').ok_or(NotARevision)?;
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| NotARevision)?;
        let counter = counter.parse().map_err(|_| NotARevision)?;
        let revision = Self { epoch, counter };
        // Parsing takes signs, capitals and leading zeros; writing it out again leaves one spelling.
        if revision.to_string() == text { Ok(revision) } else { Err(NotARevision) }
    }
}

/// What one transaction changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its number.
    pub revision: Revision,
    /// The rows it wrote, in the order of their keys; a row without a value is gone.
    pub rows: Vec<(Bytes, Option<Bytes>)>,
}

impl Commit {
    fn size(&self) -> usize {
        self.rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }
}

/// The recent commits of an engine, and those who wait for the next one.
struct Feed {
    epoch: u64,
    ring: Mutex<Ring>,
    news: watch::Sender<()>,
}

struct Ring {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    /// Every commit after this one is in the ring.
    floor: u64,
    /// No view can show a commit after this one.
    coming: u64,
    /// How often the followers had to be sent away.
    restarts: u64,
    closed: bool,
}

/// Somebody who has seen everything up to a revision.
struct Follower {
    feed: Arc<Feed>,
    news: watch::Receiver<()>,
    seen: Revision,
    restarts: u64,
}

enum Step {
    Next(Arc<Commit>),
    Wait,
    End(Failure),
}

impl Feed {
    fn new(head: Revision) -> Arc<Self> {
        let Revision { epoch, counter } = head;
        let ring =
            Ring { commits: VecDeque::new(), bytes: 0, floor: counter, coming: counter, restarts: 0, closed: false };
        Arc::new(Self { epoch, ring: Mutex::new(ring), news: watch::Sender::new(()) })
    }

    /// Says that views may show commits up to this one from now on.
    fn expect(&self, counter: u64) {
        self.ring.lock().coming = counter;
    }

    /// Tells of durable commits.
    fn publish(&self, commits: impl IntoIterator<Item = Commit>) {
        let mut ring = self.ring.lock();
        for commit in commits {
            ring.coming = ring.coming.max(commit.revision.counter);
            ring.bytes += commit.size();
            ring.commits.push_back(Arc::new(commit));
        }
        while ring.commits.len() > COMMITS_KEPT_MAX || ring.bytes > COMMITS_KEPT_BYTES_MAX {
            let Some(oldest) = ring.commits.pop_front() else { break };
            ring.bytes -= oldest.size();
            ring.floor = oldest.revision.counter;
        }
        drop(ring);
        self.news.send_replace(());
    }

    /// Starts over from a head that was read back: whoever followed can't know what became of the last commits.
    fn restart(&self, counter: u64) {
        let mut ring = self.ring.lock();
        let restarts = ring.restarts + 1;
        *ring = Ring { commits: VecDeque::new(), bytes: 0, floor: counter, coming: counter, restarts, closed: false };
        drop(ring);
        self.news.send_replace(());
    }

    fn close(&self) {
        self.ring.lock().closed = true;
        self.news.send_replace(());
    }

    fn follow(self: &Arc<Self>, after: Revision) -> BoxStream<'static, Result<Arc<Commit>, Failure>> {
        let restarts = self.ring.lock().restarts;
        let follower = Follower { feed: Arc::clone(self), news: self.news.subscribe(), seen: after, restarts };
        Box::pin(stream::unfold(Some(follower), |follower| async move {
            let mut follower = follower?;
            let next = follower.next().await;
            let rest = next.is_ok().then_some(follower);
            Some((next, rest))
        }))
    }
}

impl Follower {
    async fn next(&mut self) -> Result<Arc<Commit>, Failure> {
        loop {
            self.news.borrow_and_update();
            match self.step() {
                Step::Next(commit) => {
                    self.seen = commit.revision;
                    return Ok(commit);
                }
                Step::End(failure) => return Err(failure),
                Step::Wait => self.news.changed().await.map_err(|_| Failure::Closed)?,
            }
        }
    }

    fn step(&self) -> Step {
        let ring = self.feed.ring.lock();
        let Revision { epoch, counter } = self.seen;
        let known = epoch == self.feed.epoch && (ring.floor..=ring.coming).contains(&counter);
        if !known || ring.restarts != self.restarts {
            return Step::End(Failure::Compacted);
        }
        let next = ring.commits.partition_point(|commit| commit.revision.counter <= counter);
        match ring.commits.get(next) {
            Some(commit) => Step::Next(Arc::clone(commit)),
            None if ring.closed => Step::End(Failure::Closed),
            None => Step::Wait,
        }
    }
}

/// The part of a range that views may show, or nothing if it is empty.
fn shown(range: Range<Vec<u8>>, limit: usize) -> Result<Option<Range<Vec<u8>>>, Failure> {
    if limit > SCAN_LIMIT_MAX {
        return Err(Failure::TooLarge { what: "rows asked of a scan", limit: SCAN_LIMIT_MAX });
    }
    let start = range.start.max(vec![RESERVED_TAG + 1]);
    Ok((limit > 0 && start < range.end).then_some(start..range.end))
}

/// Whether a key is one of the engine's own, or none at all.
fn reserved(key: &[u8]) -> bool {
    key.first().is_none_or(|&tag| tag == RESERVED_TAG)
}
