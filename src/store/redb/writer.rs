//! The one thread that writes.
//!
//! It runs the bodies that wait one after another, each on what those before it left, and syncs once for all of them.
//! Nobody is answered before that, not even those who wrote nothing: what they saw was not durable yet.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::redb::{Database, Durability, ReadableTable, Table};

use super::super::marks::Spot;
use super::super::txn::{self, Writes};
use super::super::{Commit, Failure, Revision, Stop, tables};
use super::file::{HEAD_ROW, Opener, ROWS, failure};
use super::queue::{Answerable, Job, Next, tell_all};
use super::view::copied;
use super::{Readable, Shared};

mod healing;

/// Rows after which a group is committed.
const GROUP_ROWS_MAX: usize = 16_384;
/// Bytes of keys and values after which a group is committed.
const GROUP_BYTES_MAX: usize = 16 << 20;

pub(super) struct Writer {
    opener: Opener,
    shared: Arc<Shared>,
    /// Nothing while the file can't even be read, and after the end of a healing that was cut short by closing.
    database: Option<Arc<Database>>,
    opening: u64,
    state: State,
    /// How long to wait before the next attempt to write; nothing once something was written.
    patience: Duration,
    /// The newest commit that is known to be durable.
    durable: u64,
    /// The highest counter that any body has seen; no other commit may ever have it.
    issued: u64,
}

/// Transactions that become durable together.
#[derive(Default)]
struct Group {
    answers: Vec<(Answerable, Answer)>,
    commits: Vec<Commit>,
    /// The marks of remembered rows that are not what they were, and the transactions that changed them.
    changed: Vec<(Spot, u64)>,
    rows: usize,
    bytes: usize,
    /// From here on a failure leaves it open whether anything is on disk.
    committing: bool,
}

/// What the database is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Reading and writing.
    Sound,
    /// Reading.
    ReadOnly,
    /// Nothing.
    Broken,
}

enum Answer {
    Wrote(Revision),
    Read(Revision),
    Failed(Failure),
}

impl Writer {
    pub(super) fn new(opener: Opener, shared: Arc<Shared>, database: Arc<Database>, head: u64) -> Self {
        let (state, patience) = (State::Sound, Duration::ZERO);
        Self { opener, shared, database: Some(database), opening: 0, state, patience, durable: head, issued: head }
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            match self.shared.queue.next() {
                Next::Group(jobs) => self.groups(jobs),
                Next::Reopen(opening, failure) if opening == self.opening => {
                    self.state = State::Broken;
                    self.heal(failure);
                }
                Next::Reopen(..) => {}
                Next::End => break,
            }
        }
    }

    fn groups(&mut self, mut jobs: VecDeque<Job>) {
        while !jobs.is_empty() {
            if let Err(failure) = self.group(&mut jobs) {
                // Whoever is told of the failure must find the store refusing.
                self.refuse(&failure);
                for Job { answer, .. } in jobs.drain(..) {
                    answer.tell(Err(refusal(&failure)));
                }
                self.heal(failure);
            }
        }
    }

    /// Runs as many transactions as fit into one commit. Fails if nothing can be written.
    fn group(&mut self, jobs: &mut VecDeque<Job>) -> Result<(), Failure> {
        let Some(database) = self.database.clone() else {
            return Err(Failure::Closed);
        };
        self.opener.look()?;
        let mut group = Group::default();
        let ended = catch_unwind(AssertUnwindSafe(|| self.commit(&database, jobs, &mut group)));
        let ended = ended.unwrap_or_else(|_| Err(Failure::Unavailable("the store panicked".to_owned())));
        match &ended {
            Ok(()) => {
                self.durable = group.head(self.durable);
                self.shared.marks.reach(self.durable);
                if !group.commits.is_empty() {
                    self.patience = Duration::ZERO;
                    self.shared.commits.fetch_add(1, Ordering::Relaxed);
                    self.shared.transactions.fetch_add(group.commits.len() as u64, Ordering::Relaxed);
                    self.shared.feed.publish(std::mem::take(&mut group.commits));
                }
                group.answer();
            }
            Err(failure) => {
                self.state = State::Broken;
                // Whoever is told of the failure must find the store refusing.
                self.refuse(failure);
                group.fail(failure);
            }
        }
        ended
    }

    fn commit(&mut self, database: &Database, jobs: &mut VecDeque<Job>, group: &mut Group) -> Result<(), Failure> {
        let mut transaction = database.begin_write().map_err(failure)?;
        transaction.set_durability(Durability::Immediate).map_err(failure)?;
        transaction.set_quick_repair(true);
        let mut rows = transaction.open_table(ROWS).map_err(failure)?;
        while group.rows < GROUP_ROWS_MAX && group.bytes < GROUP_BYTES_MAX {
            let Some(job) = jobs.pop_front() else { break };
            self.step(&mut rows, job, group)?;
        }
        if group.commits.is_empty() {
            drop(rows);
            return transaction.abort().map_err(failure);
        }
        rows.insert(HEAD_ROW, self.issued.to_be_bytes().as_slice()).map_err(failure)?;
        drop(rows);
        self.shared.feed.expect(self.issued);
        // Each to its own, so that what a transaction has left counts even if others came after it.
        for (spot, revision) in &group.changed {
            self.shared.marks.raise(*spot, *revision);
        }
        group.committing = true;
        transaction.commit().map_err(failure)
    }

    /// Runs one transaction on what those before it left. Fails only if the store does.
    fn step(&mut self, rows: &mut Rows<'_>, job: Job, group: &mut Group) -> Result<(), Failure> {
        let Job { mut body, answer, .. } = job;
        if answer.is_gone() {
            return Ok(());
        }
        let head = Revision { epoch: self.shared.epoch, counter: group.head(self.durable) };
        let next = Revision { counter: self.issued + 1, ..head };
        let mut broken = None;
        let ran = txn::run(&mut body, next, &mut |key| match point(rows, key) {
            Ok(value) => Ok(value),
            Err(failure) => Err(Stop::Fail(broken.insert(failure).clone())),
        });
        let (answered, writes) = match ran {
            Ok((_, writes)) if writes.is_empty() => (Answer::Read(head), writes),
            Ok((_, writes)) => (Answer::Wrote(next), writes),
            Err(Stop::Fail(failure)) => (Answer::Failed(failure), Writes::new()),
            // Every point is at hand here, so only a body that is broken itself can say so.
            Err(Stop::Again) => (Answer::Failed(Failure::Panicked), Writes::new()),
        };
        group.answers.push((answer, answered));
        if let Some(failure) = broken {
            return Err(failure);
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.issued = next.counter;
        self.apply(rows, &writes, next.counter, &mut group.changed)?;
        group.add(Commit { revision: next, rows: writes.into_iter().collect() });
        Ok(())
    }

    /// Writes the rows, and notes the marks of those that had been there.
    fn apply(
        &self,
        rows: &mut Rows<'_>,
        writes: &Writes,
        revision: u64,
        changed: &mut Vec<(Spot, u64)>,
    ) -> Result<(), Failure> {
        for (key, value) in writes {
            let before = match value {
                Some(value) => rows.insert(key.as_ref(), value.as_ref()).map_err(failure)?,
                None => rows.remove(key.as_ref()).map_err(failure)?,
            };
            if before.is_some() {
                changed.extend(tables::spot(&self.shared.marks, key).map(|spot| (spot, revision)));
            }
        }
        Ok(())
    }
}

impl Drop for Writer {
    /// However the writer came to its end, nobody waits for it in vain.
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.queue.refuse(&Failure::Closed);
        self.close();
        self.shared.readable.send_replace(Readable::No);
        self.opener.let_go();
        self.shared.feed.close();
        self.shared.ended.send_replace(true);
    }
}

type Rows<'a> = Table<'a, &'static [u8], &'static [u8]>;

fn point(rows: &Rows<'_>, key: &[u8]) -> Result<Option<bytes::Bytes>, Failure> {
    // A panic of the store must not be taken for one of the body.
    let read = catch_unwind(AssertUnwindSafe(|| rows.get(key).map(|row| row.map(|value| copied(value.value())))));
    let read = read.map_err(|_| Failure::Corrupt("a page makes no sense".to_owned()))?;
    read.map_err(failure)
}

impl Group {
    fn add(&mut self, commit: Commit) {
        self.rows += commit.rows.len();
        self.bytes += commit.size();
        self.commits.push(commit);
    }

    /// The newest commit that the next body sees.
    fn head(&self, durable: u64) -> u64 {
        self.commits.last().map_or(durable, |commit| commit.revision.counter)
    }

    fn answer(self) {
        let told = self.answers.into_iter().map(|(whom, answer)| match answer {
            Answer::Wrote(revision) | Answer::Read(revision) => (whom, Ok(revision)),
            Answer::Failed(failure) => (whom, Err(failure)),
        });
        tell_all(told.collect());
    }

    /// What those saw who wrote nothing may never have been, so they are told nothing of it.
    fn fail(self, failure: &Failure) {
        let told = self.answers.into_iter().map(|(whom, answer)| match answer {
            Answer::Wrote(_) if self.committing => (whom, Err(Failure::Unknown(why(failure)))),
            Answer::Wrote(_) | Answer::Read(_) | Answer::Failed(_) => (whom, Err(refusal(failure))),
        });
        tell_all(told.collect());
    }
}

/// The answer to those whom the failure of others keeps from writing: damage stays damage, the rest may pass.
fn refusal(failure: &Failure) -> Failure {
    match failure {
        Failure::Corrupt(_) | Failure::Closed => failure.clone(),
        Failure::Unavailable(_)
        | Failure::Unknown(_)
        | Failure::Overloaded
        | Failure::TooLarge { .. }
        | Failure::Panicked
        | Failure::Compacted => Failure::Unavailable(why(failure)),
    }
}

fn why(failure: &Failure) -> String {
    match failure {
        Failure::Unavailable(why) | Failure::Unknown(why) | Failure::Corrupt(why) => why.clone(),
        Failure::Closed | Failure::Overloaded | Failure::TooLarge { .. } | Failure::Panicked | Failure::Compacted => {
            failure.to_string()
        }
    }
}
