//! Rows in memory, gone when the process ends: for tests, which it serves strictly.
//!
//! It says `Again` at the first touch of each point and runs every body twice on the same input, so that a body which
//! draws time or chance, or counts its own runs, fails the first test that reaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use futures::stream::BoxStream;
use parking_lot::Mutex;

use super::marks::MARKS;
use super::txn::{self, Writes};
use super::{
    Again, Body, Commit, Decision, Engine, Failure, Feed, Marks, Priority, Revision, Row, Stop, View, reserved, shown,
    tables,
};

type Rows = BTreeMap<Bytes, Bytes>;

/// An engine without a disk.
pub struct MemoryEngine {
    state: Mutex<State>,
    feed: Arc<Feed>,
    marks: Arc<Marks>,
}

/// Views share the rows; a commit copies them only while some view still looks at them.
struct State {
    rows: Arc<Rows>,
    head: Revision,
    closed: bool,
}

struct MemoryView {
    rows: Arc<Rows>,
    revision: Revision,
}

impl MemoryEngine {
    /// An empty store of this epoch.
    pub fn new(epoch: u64) -> Self {
        let head = Revision { epoch, counter: 0 };
        Self {
            state: Mutex::new(State { rows: Arc::default(), head, closed: false }),
            feed: Feed::new(head),
            marks: Arc::new(Marks::new(0, MARKS)),
        }
    }

    fn run(&self, mut body: Body) -> Result<Revision, Failure> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Failure::Closed);
        }
        let next = Revision { counter: state.head.counter + 1, ..state.head };
        let (_, writes) = twice(&mut body, next, &state.rows)?;
        if writes.is_empty() {
            return Ok(state.head);
        }
        let there = writes.keys().filter(|key| state.rows.contains_key(*key));
        for spot in there.filter_map(|key| tables::spot(&self.marks, key)) {
            self.marks.raise(spot, next.counter);
        }
        let rows = Arc::make_mut(&mut state.rows);
        for (key, value) in &writes {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        state.head = next;
        self.marks.reach(next.counter);
        self.feed.publish([Commit { revision: next, rows: writes.into_iter().collect() }]);
        Ok(next)
    }
}

/// Runs a body until every point it reads is at hand, and then once more.
fn twice(body: &mut Body, revision: Revision, rows: &Rows) -> Result<(Decision, Writes), Failure> {
    let mut at_hand = BTreeSet::new();
    let mut once = |at_hand: &mut BTreeSet<Bytes>| {
        txn::run(body, revision, &mut |key| {
            let fetched = at_hand.insert(Bytes::copy_from_slice(key));
            if fetched { Err(Again.into()) } else { Ok(rows.get(key).cloned()) }
        })
    };
    let first = loop {
        let known = at_hand.len();
        match once(&mut at_hand) {
            Err(Stop::Again) => assert!(at_hand.len() > known, "impure body: it said Again of its own accord"),
            ended => break ended,
        }
    };
    let second = once(&mut at_hand);
    assert!(first == second, "impure body: two runs on the same input left {first:?} and {second:?}");
    first.map_err(|stop| match stop {
        Stop::Fail(failure) => failure,
        Stop::Again => unreachable!("the loop above ends with every point at hand"),
    })
}

impl Engine for MemoryEngine {
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>, Failure>> {
        let state = self.state.lock();
        let view = MemoryView { rows: Arc::clone(&state.rows), revision: state.head };
        let closed = state.closed;
        Box::pin(ready(if closed { Err(Failure::Closed) } else { Ok(Box::new(view) as Box<dyn View>) }))
    }

    fn transact(&self, _: Priority, body: Body) -> BoxFuture<'_, Result<Revision, Failure>> {
        Box::pin(async move { self.run(body) })
    }

    fn changes(&self, after: Revision) -> BoxStream<'static, Result<Arc<Commit>, Failure>> {
        self.feed.follow(after)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.state.lock().closed = true;
        self.feed.close();
        Box::pin(ready(()))
    }

    fn marks(&self) -> &Arc<Marks> {
        &self.marks
    }

    fn writable(&self) -> bool {
        !self.state.lock().closed
    }
}

impl View for MemoryView {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, Failure>> {
        Box::pin(ready(Ok(if reserved(key) { None } else { self.rows.get(key).cloned() })))
    }

    fn scan(&self, range: Range<Vec<u8>>, limit: usize) -> BoxFuture<'_, Result<Vec<Row>, Failure>> {
        let rows = shown(range, limit).map(|range| match range {
            Some(Range { start, end }) => {
                let rows = self.rows.range(Bytes::from(start)..Bytes::from(end)).take(limit);
                rows.map(|(key, value)| (key.clone(), value.clone())).collect()
            }
            None => Vec::new(),
        });
        Box::pin(ready(rows))
    }
}
