//! The transactions that wait for the writer.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::super::{Body, Failure, Priority, Revision};

/// Interactive transactions that may wait.
pub const INTERACTIVE_QUEUED_MAX: usize = 4_096;
/// Background transactions that may wait.
pub const BACKGROUND_QUEUED_MAX: usize = 64;
/// Transactions handed to the writer at once.
const GROUP_TRANSACTIONS_MAX: usize = 512;
/// Groups that may go before a waiting background transaction; it then joins the next one. Without an end to its
/// patience a store that is never idle would never store what was counted, and never be swept.
const PATIENCE_GROUPS: u32 = 32;

/// How long the writer waits, at most, for those to come back whom it has just answered.
///
/// A commit costs about the same for one transaction as for sixty. Callers who have been answered together ask again
/// shortly after one another; without the wait the first of them would get a commit of their own, and all others another.
const GATHERING_MAX: Duration = Duration::from_millis(1);

/// A transaction and whom to tell.
pub(super) struct Job {
    pub(super) body: Body,
    pub(super) answer: Answerable,
}

/// Whoever waits for an answer.
pub(super) struct Answerable {
    answer: oneshot::Sender<Result<Revision, Failure>>,
    /// Where they wait.
    runtime: Option<Handle>,
}

impl Answerable {
    /// For whoever waits on this thread's runtime.
    pub(super) fn here(answer: oneshot::Sender<Result<Revision, Failure>>) -> Self {
        Self { answer, runtime: Handle::try_current().ok() }
    }

    /// Whether they have left.
    pub(super) fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }

    pub(super) fn tell(self, answer: Result<Revision, Failure>) {
        // They may have left meanwhile.
        let _ = self.answer.send(answer);
    }
}

/// Tells everybody. Waking somebody on another thread costs a system call, so each runtime is woken once, and wakes all
/// who wait there by itself.
pub(super) fn tell_all(answers: Vec<(Answerable, Result<Revision, Failure>)>) {
    type Told = Vec<(Answerable, Result<Revision, Failure>)>;
    let mut by_runtime: Vec<(Handle, Told)> = Vec::new();
    for (whom, answer) in answers {
        let Some(runtime) = &whom.runtime else {
            whom.tell(answer);
            continue;
        };
        match by_runtime.iter_mut().find(|(known, _)| known.id() == runtime.id()) {
            Some((_, told)) => told.push((whom, answer)),
            None => by_runtime.push((runtime.clone(), vec![(whom, answer)])),
        }
    }
    for (runtime, told) in by_runtime {
        let tell = move || told.into_iter().for_each(|(whom, answer)| whom.tell(answer));
        runtime.spawn(async move { tell() });
    }
}

/// What the writer does next.
pub(super) enum Next {
    /// Run these, in this order.
    Group(VecDeque<Job>),
    /// A reader of this opening of the file met an error: open the file again.
    Reopen(u64, Failure),
    /// Everything is done and nothing will come.
    End,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    interactive: VecDeque<Job>,
    background: VecDeque<Job>,
    /// Groups that went before the oldest background transaction.
    passed_over: u32,
    /// Interactive transactions of the last group: as many are likely to come again.
    last_group: usize,
    /// From how many interactive ones on the bell is rung.
    ring_from: usize,
    reopen: Option<(u64, Failure)>,
    /// Why writes are refused for the time being.
    refusing: Option<Failure>,
    closed: bool,
}

impl Queue {
    /// Takes a transaction in, or says at once why not.
    pub(super) fn push(&self, priority: Priority, job: Job) -> Result<(), Failure> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Failure::Closed);
        }
        if let Some(failure) = &waiting.refusing {
            return Err(failure.clone());
        }
        let (line, most) = match priority {
            Priority::Interactive => (&mut waiting.interactive, INTERACTIVE_QUEUED_MAX),
            Priority::Background => (&mut waiting.background, BACKGROUND_QUEUED_MAX),
        };
        if line.len() == most {
            return Err(Failure::Overloaded);
        }
        line.push_back(job);
        let rings = priority == Priority::Background || waiting.interactive.len() >= waiting.ring_from;
        drop(waiting);
        if rings {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Waits for something to do.
    pub(super) fn next(&self) -> Next {
        let mut waiting = self.waiting.lock();
        self.gather(&mut waiting);
        loop {
            if let Some((opening, failure)) = waiting.reopen.take() {
                return Next::Reopen(opening, failure);
            }
            if let Some(group) = waiting.group() {
                return Next::Group(group);
            }
            if waiting.closed {
                return Next::End;
            }
            self.bell.wait(&mut waiting);
        }
    }

    /// Waits a little until most of those are back who were answered last. With one caller nobody waits.
    fn gather(&self, waiting: &mut MutexGuard<'_, Waiting>) {
        let expected = waiting.last_group * 3 / 4;
        if expected > 1 && waiting.interactive.len() < expected && !waiting.closed && waiting.reopen.is_none() {
            waiting.ring_from = expected;
            self.bell.wait_while_for(
                waiting,
                |waiting| waiting.interactive.len() < expected && !waiting.closed && waiting.reopen.is_none(),
                GATHERING_MAX,
            );
            waiting.ring_from = 0;
        }
    }

    /// Asks the writer to open the file again, unless it has done so since this opening.
    pub(super) fn reopen(&self, opening: u64, failure: &Failure) {
        self.waiting.lock().reopen = Some((opening, failure.clone()));
        self.bell.notify_one();
    }

    /// Refuses everything from now on with this failure, what waits included.
    pub(super) fn refuse(&self, failure: &Failure) {
        let mut waiting = self.waiting.lock();
        waiting.refusing = Some(failure.clone());
        let Waiting { interactive, background, .. } = &mut *waiting;
        let refused: Vec<Job> = interactive.drain(..).chain(background.drain(..)).collect();
        drop(waiting);
        for job in refused {
            job.answer.tell(Err(failure.clone()));
        }
    }

    /// Takes transactions again.
    pub(super) fn resume(&self) {
        let mut waiting = self.waiting.lock();
        waiting.refusing = None;
        waiting.reopen = None;
    }

    /// How many transactions wait, interactive ones and those of the background.
    pub(super) fn lengths(&self) -> (usize, usize) {
        let waiting = self.waiting.lock();
        (waiting.interactive.len(), waiting.background.len())
    }

    /// Whether transactions are taken.
    pub(super) fn takes(&self) -> bool {
        let waiting = self.waiting.lock();
        !waiting.closed && waiting.refusing.is_none()
    }

    /// Takes no more transactions; those that wait are still handed out.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.bell.notify_all();
    }

    /// Waits that long, or until closed. Whether it is closed.
    pub(super) fn pause(&self, length: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        self.bell.wait_while_for(&mut waiting, |waiting| !waiting.closed, length);
        waiting.closed
    }

    /// Whether a reader of this opening of the file has met an error.
    pub(super) fn has_failed(&self, opening: u64) -> bool {
        self.waiting.lock().reopen.take_if(|(failed, _)| *failed == opening).is_some()
    }
}

impl Waiting {
    fn group(&mut self) -> Option<VecDeque<Job>> {
        if self.interactive.is_empty() {
            self.passed_over = 0;
            self.last_group = 0;
            return self.background.pop_front().map(|job| VecDeque::from([job]));
        }
        let most = self.interactive.len().min(GROUP_TRANSACTIONS_MAX);
        let mut group: VecDeque<Job> = self.interactive.drain(..most).collect();
        self.last_group = group.len();
        if self.background.is_empty() {
            self.passed_over = 0;
        } else if self.passed_over < PATIENCE_GROUPS {
            self.passed_over += 1;
        } else {
            self.passed_over = 0;
            group.extend(self.background.pop_front());
        }
        Some(group)
    }
}
