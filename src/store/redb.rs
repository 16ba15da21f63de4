//! The engine that keeps everything in one redb file.
//!
//! One thread writes: it runs the bodies that wait one after another and syncs once for all of them. Views read their
//! own snapshot on the thread that asks.
//!
//! Where the disk has too little room nothing is written until it has more. After an I/O error redb refuses all further
//! use, so the writer closes the file, opens it again and checks it. While it can't be written it is opened only to be
//! read: views are given, and what would have been written is refused.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ::redb::{Database, StorageBackend};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};

use self::file::Opener;
use self::queue::{Answerable, Job, Queue};
use self::source::Purpose;
use self::view::RedbView;
use self::writer::Writer;
use super::marks::MARKS;
use super::{Body, Commit, Engine, Failure, Feed, Marks, Priority, Revision, View, Work};

mod file;
mod held;
mod loading;
mod queue;
mod shadow;
mod source;
mod sums;
mod view;
mod writer;

pub use file::FORMAT_VERSION;
pub use loading::{Loading, hold};
pub use queue::{BACKGROUND_QUEUED_MAX, INTERACTIVE_QUEUED_MAX};

/// How long a view that is asked for waits while the file is being opened again.
const OPENING_WAITED_FOR: Duration = Duration::from_secs(1);

/// How to open a store.
#[derive(Debug, Clone)]
pub struct RedbOptions {
    /// The file. It is made, for its owner's eyes only, if it is not there.
    pub path: PathBuf,
    /// Memory for pages of the file.
    pub cache_bytes: usize,
    /// Verify the checksum of every page on opening. Without it damage may be answered as if it were data.
    pub check_integrity: bool,
    /// The epoch of the store's revisions, if this opening makes it: 64 random bits.
    pub epoch_if_new: u64,
}

impl RedbOptions {
    /// Checked on opening, with 256 MiB of cache.
    pub fn new(path: impl Into<PathBuf>, epoch_if_new: u64) -> Self {
        Self { path: path.into(), cache_bytes: 256 << 20, check_integrity: true, epoch_if_new }
    }
}

/// Rows in a redb file.
///
/// Dropping it lets the file go only some time later; `close` it to know when.
pub struct RedbEngine {
    shared: Arc<Shared>,
}

/// What the writer and those who read have in common.
struct Shared {
    epoch: u64,
    queue: Queue,
    feed: Arc<Feed>,
    marks: Arc<Marks>,
    /// Readers only look at it under the lock, so that the writer can take it out whole.
    open: RwLock<Option<Open>>,
    readable: watch::Sender<Readable>,
    /// Commits that are durable.
    commits: AtomicU64,
    /// Transactions in them.
    transactions: AtomicU64,
    ended: watch::Sender<bool>,
}

/// The file, while it is open.
struct Open {
    database: Arc<Database>,
    /// Tells a view's file from those opened after it.
    opening: u64,
}

/// Whether views are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readable {
    /// They are, of this opening of the file.
    Yes(u64),
    /// It is being opened at the moment.
    Soon,
    /// It could not be opened, or is closed.
    No,
}

impl RedbEngine {
    /// Opens the file, or makes it. Blocks while it is being checked: about a second for each gigabyte.
    ///
    /// Fails with `Unavailable` if the file can't be reached, is open elsewhere, or was written by a newer version,
    /// and with `Corrupt` if it is damaged.
    pub fn open(options: RedbOptions) -> Result<Self, Failure> {
        Self::start(Opener::path(options))
    }

    /// Opens what the backends stand for. Asked for a new one, of the same bytes, each time the store is opened, again
    /// after an I/O error, and twice each time if it is checked; `options.path` only names it in messages.
    pub fn with_backend<B: StorageBackend>(
        options: RedbOptions,
        backends: impl Fn() -> io::Result<B> + Send + 'static,
    ) -> Result<Self, Failure> {
        Self::start(Opener::backends(options, backends))
    }

    fn start(mut opener: Opener) -> Result<Self, Failure> {
        let opened = opener.open(Purpose::Begin)?;
        let database = Arc::new(opened.database);
        let shared = Arc::new(Shared {
            epoch: opened.head.epoch,
            queue: Queue::default(),
            feed: Feed::new(opened.head),
            marks: Arc::new(Marks::new(opened.head.counter, MARKS)),
            open: RwLock::new(Some(Open { database: Arc::clone(&database), opening: 0 })),
            readable: watch::Sender::new(Readable::Yes(0)),
            commits: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            ended: watch::Sender::new(false),
        });
        let writer = Writer::new(opener, Arc::clone(&shared), database, opened.head.counter);
        let thread = thread::Builder::new().name("ostiary-writer".to_owned()).spawn(move || writer.run());
        thread.map_err(|error| Failure::Unavailable(format!("the writer could not be started: {error}")))?;
        Ok(Self { shared })
    }
}

impl Engine for RedbEngine {
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>, Failure>> {
        Box::pin(async move {
            let view = match RedbView::new(&self.shared) {
                Ok(view) => view,
                Err(_) => self.shared.view_later().await?,
            };
            Ok(Box::new(view) as Box<dyn View>)
        })
    }

    fn transact(&self, priority: Priority, body: Body) -> BoxFuture<'_, Result<Revision, Failure>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.shared.queue.push(Job { priority, body, answer: Answerable::here(answer) })?;
            answered.await.unwrap_or_else(|_| Err(Failure::Unknown("the writer ended without an answer".to_owned())))
        })
    }

    fn changes(&self, after: Revision) -> BoxStream<'static, Result<Arc<Commit>, Failure>> {
        self.shared.feed.follow(after)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.queue.close();
            // An error means that the sender is gone, and this engine holds it.
            let _ = self.shared.ended.subscribe().wait_for(|&ended| ended).await;
        })
    }

    fn marks(&self) -> &Arc<Marks> {
        &self.shared.marks
    }

    fn writable(&self) -> bool {
        self.shared.queue.takes()
    }

    fn work(&self) -> Work {
        let (interactive, background) = self.shared.queue.lengths();
        let commits = self.shared.commits.load(Ordering::Relaxed);
        Work { commits, transactions: self.shared.transactions.load(Ordering::Relaxed), interactive, background }
    }
}

impl Drop for RedbEngine {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}
