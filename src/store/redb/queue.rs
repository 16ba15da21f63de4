//! The transactions that wait for the writer.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
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

/// A transaction and whom to tell.
pub(super) struct Job {
    pub(super) body: Body,
    pub(super) answer: oneshot::Sender<Result<Revision, Failure>>,
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
        drop(waiting);
        self.bell.notify_one();
        Ok(())
    }

    /// Waits for something to do.
    pub(super) fn next(&self) -> Next {
        let mut waiting = self.waiting.lock();
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
            // Whoever asked may have left.
            let _ = job.answer.send(Err(failure.clone()));
        }
    }

    /// Takes transactions again.
    pub(super) fn resume(&self) {
        let mut waiting = self.waiting.lock();
        waiting.refusing = None;
        waiting.reopen = None;
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
        // Until the time is over; a ring for something else ends the pause early, which does no harm.
        if !waiting.closed {
            self.bell.wait_for(&mut waiting, length);
        }
        waiting.closed
    }
}

impl Waiting {
    fn group(&mut self) -> Option<VecDeque<Job>> {
        if self.interactive.is_empty() {
            self.passed_over = 0;
            return self.background.pop_front().map(|job| VecDeque::from([job]));
        }
        let most = self.interactive.len().min(GROUP_TRANSACTIONS_MAX);
        let mut group: VecDeque<Job> = self.interactive.drain(..most).collect();
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
