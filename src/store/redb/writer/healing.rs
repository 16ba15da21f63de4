//! What the writer does when nothing can be written: it sees to it that reading goes on, and waits until writing does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use ::redb::Database;

use super::super::super::{Failure, Revision};
use super::super::source::Purpose;
use super::super::{Open, Readable};
use super::{State, Writer, refusal, why};

/// How long to wait before the second attempt to write; the first one is made at once.
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
/// How long to wait at most between two attempts. One process looks at one file, so there is nobody to keep out of step
/// with.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// The same for a file that is damaged: looking at it means reading all of it, and it rarely mends itself.
const BACK_OFF_DAMAGED: Duration = Duration::from_secs(60);

impl Writer {
    /// Refuses everything until it can be written again, however long that takes.
    pub(super) fn heal(&mut self, failure: Failure) {
        self.refuse(&failure);
        let store = self.opener.name();
        let mut told = why(&failure);
        tracing::error!(store, "nothing is written for now, and it is tried again by itself: {told}");
        // Failing once more without having written anything is no reason to hurry.
        if !self.patience.is_zero() && self.rest(&failure) {
            return;
        }
        while let Err(failure) = self.try_to_write() {
            self.refuse(&failure);
            if why(&failure) != told {
                told = why(&failure);
                tracing::error!(store, "nothing is written for now, and it is tried again by itself: {told}");
            }
            self.keep_readable(&failure);
            if self.rest(&failure) {
                return;
            }
        }
        self.shared.queue.resume();
        tracing::info!(store, "changes are written again");
    }

    pub(super) fn refuse(&self, failure: &Failure) {
        self.shared.queue.refuse(&refusal(failure));
    }

    /// Waits a little, each time longer, or until closed. Whether it is closed.
    fn rest(&mut self, failure: &Failure) -> bool {
        let most = if matches!(failure, Failure::Corrupt(_)) { BACK_OFF_DAMAGED } else { BACK_OFF_MAX };
        self.patience = (self.patience * 2).clamp(BACK_OFF_FIRST, most);
        let closed = self.shared.queue.pause(self.patience);
        if self.shared.queue.has_failed(self.opening) {
            self.state = State::Broken;
        }
        closed
    }

    fn try_to_write(&mut self) -> Result<(), Failure> {
        if self.state == State::Broken {
            self.close();
        }
        self.opener.probe()?;
        match self.state {
            State::Sound => Ok(()),
            State::ReadOnly | State::Broken => self.reopen(Purpose::GoOn),
        }
    }

    /// If it can't be read either, at least that is made possible again, unless it is damaged.
    fn keep_readable(&mut self, failure: &Failure) {
        let damaged = matches!(failure, Failure::Corrupt(_));
        if self.state == State::Broken && (damaged || self.reopen(Purpose::Read).is_err()) {
            // Why not has been told as the reason why nothing can be written.
            self.shared.readable.send_replace(Readable::No);
        }
    }

    fn reopen(&mut self, purpose: Purpose) -> Result<(), Failure> {
        self.close();
        let opened = self.opener.open(purpose)?;
        let Revision { epoch, counter } = opened.head;
        if epoch != self.shared.epoch {
            return Err(self.opener.exchanged());
        }
        if counter < self.durable {
            return Err(self.opener.damaged("commits that were durable are gone"));
        }
        // The commit that failed is there, or it is not; its numbers are spent either way.
        self.durable = counter;
        self.issued = self.issued.max(counter);
        self.opening += 1;
        self.state = match purpose {
            Purpose::Begin | Purpose::GoOn => State::Sound,
            Purpose::Read => State::ReadOnly,
        };
        let database = Arc::new(opened.database);
        self.database = Some(Arc::clone(&database));
        self.shared.feed.restart(counter);
        // Nothing that was read before counts without a look at what the store is now.
        self.shared.marks.raise_all(counter);
        self.shared.marks.reach(counter);
        *self.shared.open.write() = Some(Open { database, opening: self.opening });
        self.shared.readable.send_replace(Readable::Yes(self.opening));
        Ok(())
    }

    /// Closes the file. Readers hold the database only under the lock, so this closes it on this thread.
    pub(super) fn close(&mut self) {
        self.state = State::Broken;
        self.shared.readable.send_replace(Readable::Soon);
        self.shared.open.write().take();
        let database = self.database.take().and_then(Arc::into_inner);
        // After an I/O error closing reports that error once more, and redb may panic on a damaged page.
        let _ = catch_unwind(AssertUnwindSafe(|| database.map(Database::close)));
    }
}
