//! Saving what windows have counted, and reading it at the start.

use std::sync::atomic::Ordering;

use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::service::Ostiary;
use crate::service::pace::{Pace, Paced};
use crate::store::records::{SavedWindow, SavedWindows};
use crate::store::{Stop, Txn, tables};

use super::{Place, Registry, Row, Slot, Tab};

/// Rows saved in one transaction.
const SAVED_AT_ONCE: usize = 12;
/// Rows of an earlier start that are read or removed at a time.
const CHUNK: usize = 64;

impl Registry {
    /// Takes in what an earlier start has saved.
    fn fill(&self, saved: SavedWindows, now: Timestamp) {
        for SavedWindow { workspace, subject, span, name, window } in saved.0 {
            if window.is_over(now, span) {
                continue;
            }
            let bucket = &self.buckets[self.bucket_of((workspace, subject))];
            bucket.dirty.store(true, Ordering::SeqCst);
            let mut places = bucket.places.lock();
            let Tab(counted) = places.entry((workspace, subject)).or_default();
            let slots = &mut counted.lock().slots;
            match slots.iter_mut().find(|slot| slot.span == span && slot.name == name) {
                // Saved by two starts, of which the second was cut short: the later one counts.
                Some(slot) if slot.window.parts() < window.parts() => slot.window = window,
                Some(_) => {}
                None if self.room.take(workspace) => slots.push(Slot { name, span, window }),
                None => {}
            }
        }
    }

    /// What is to be saved of a bucket, if anything. It counts as saved from now on.
    pub(super) fn dirty(&self, index: usize, now: Timestamp) -> Option<SavedWindows> {
        let bucket = &self.buckets[index];
        bucket.tidy(now, &self.room);
        // Whoever counts from here on says so again, unless it is seen below.
        bucket.dirty.swap(false, Ordering::SeqCst).then(|| bucket.saved(None))
    }

    fn tell_of_refusals(&self) {
        let calls = self.room.newly_refused();
        if calls > 0 {
            tracing::warn!(
                calls,
                "calls were refused because too many windows of rate limits are counted at a time: \
                 --max-rate-limit-windows sets how many there may be"
            );
        }
    }

    fn row(&self, index: usize) -> Row {
        (self.start.load(Ordering::Relaxed), u16::try_from(index).unwrap_or(u16::MAX))
    }
}

/// Buckets that are being saved. What is left of them when the saving ends, for whatever reason, is still to be saved.
struct Unsaved<'a> {
    registry: &'a Registry,
    indexes: Vec<usize>,
}

impl Drop for Unsaved<'_> {
    fn drop(&mut self) {
        for index in &self.indexes {
            self.registry.buckets[*index].dirty.store(true, Ordering::SeqCst);
        }
    }
}

impl Ostiary {
    /// Reads what was saved before this start.
    pub(in crate::service) async fn load_windows(&self) -> Result<(), Error> {
        let head = self.read(None).await?;
        // Rows are written under the revision at which their start began, which no other start shares: its own rows, if
        // nothing else, have moved the head on.
        let (start, now) = (head.view().revision().counter, head.now);
        self.windows.start.store(start, Ordering::Relaxed);
        let mut after: Option<Row> = None;
        loop {
            let rows = tables::WINDOWS.list(head.view(), &(), after.as_ref(), CHUNK).await?;
            let last = rows.len() < CHUNK;
            after = rows.last().map(|(row, _)| *row);
            self.windows.earlier.fetch_or(!rows.is_empty(), Ordering::Relaxed);
            for (_, saved) in rows {
                self.windows.fill(saved, now);
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Saves the windows that have counted something and forgets those that are over.
    ///
    /// # Errors
    /// What can't be saved now is saved the next time.
    pub async fn flush_windows(&self, pace: Pace) -> Result<(), Error> {
        let mut paced = pace.begin(&self.world);
        self.windows.tell_of_refusals();
        let mut next = 0;
        while next < self.windows.buckets.len() {
            let saving = self.windows.saving.lock().await;
            let mut unsaved = Unsaved { registry: &self.windows, indexes: Vec::new() };
            let mut rows: Vec<(Row, SavedWindows)> = Vec::new();
            while next < self.windows.buckets.len() && rows.len() < SAVED_AT_ONCE {
                if let Some(saved) = self.windows.dirty(next, self.world.now()) {
                    unsaved.indexes.push(next);
                    rows.push((self.windows.row(next), saved));
                }
                next += 1;
            }
            if !rows.is_empty() {
                self.settle(move |tx, _| rows.iter().try_for_each(|(row, saved)| save(tx, row, saved))).await?;
            }
            unsaved.indexes.clear();
            drop((unsaved, saving));
            tokio::task::yield_now().await;
            paced.rest().await;
        }
        if self.windows.earlier.load(Ordering::Relaxed) {
            self.remove_earlier_windows(&mut paced).await?;
        }
        Ok(())
    }

    /// Removes the rows of earlier starts, once all that they held has been saved anew.
    async fn remove_earlier_windows(&self, paced: &mut Paced<'_>) -> Result<(), Error> {
        let start = self.windows.start.load(Ordering::Relaxed);
        loop {
            let reading = self.read(None).await?;
            let rows = tables::WINDOWS.list(reading.view(), &(), None, CHUNK).await?;
            drop(reading);
            let earlier: Vec<Row> = rows.into_iter().map(|(row, _)| row).filter(|(by, _)| *by < start).collect();
            if earlier.is_empty() {
                self.windows.earlier.store(false, Ordering::Relaxed);
                return Ok(());
            }
            self.settle(move |tx, _| earlier.iter().try_for_each(|row| tables::WINDOWS.remove(tx, row))).await?;
            paced.rest().await;
        }
    }

    /// Forgets what was counted for an identifier, once `forgetting`, which saves the row that it is given, has succeeded
    /// and says that this is to be.
    pub(in crate::service) async fn forget_windows<T, F>(
        &self,
        place: Place,
        forgetting: impl FnOnce(Remainder) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(T, bool), Error>>,
    {
        if self.windows.earlier.load(Ordering::Relaxed) {
            // A row of an earlier start would bring it back.
            self.flush_windows(Pace::AtOnce).await?;
        }
        let _saving = self.windows.saving.lock().await;
        let index = self.windows.bucket_of(place);
        let saved = self.windows.buckets[index].saved(Some(place));
        let (answer, forgotten) = forgetting(Remainder { row: self.windows.row(index), saved }).await?;
        if forgotten {
            self.windows.forget(place);
        }
        Ok(answer)
    }
}

/// What is left of a row when one place is forgotten.
pub(in crate::service) struct Remainder {
    row: Row,
    saved: SavedWindows,
}

impl Remainder {
    pub fn save(&self, tx: &mut Txn<'_>) -> Result<(), Stop> {
        save(tx, &self.row, &self.saved)
    }
}

/// A bucket with nothing in it has no row.
fn save(tx: &mut Txn<'_>, row: &Row, saved: &SavedWindows) -> Result<(), Stop> {
    if saved.0.is_empty() { tables::WINDOWS.remove(tx, row) } else { tables::WINDOWS.put(tx, row, saved) }
}
