//! The windows of rate limits: counted in memory, exactly; the longer ones saved every few seconds and at a clean stop.
//!
//! Windows shorter than a minute are not worth a write: a restart takes about as long as they matter. A crash loses what
//! was counted since the last saving. Live windows are never given up for others: where there are too many, new ones are
//! refused.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::id::WorkspaceId;
use crate::domain::limit::Rate;
use crate::domain::time::Timestamp;
use crate::domain::window::{Admission, Window};
use crate::error::Error;
use crate::store::tables::{self, Subject};

use super::Ostiary;

/// Windows that are counted at a time.
const WINDOWS_MAX: usize = 1_000_000;
/// The shortest windows that outlive a restart.
const SAVED_FROM: Duration = Duration::from_secs(60);
/// Rows saved in one transaction.
const SAVED_AT_ONCE: usize = 50;
/// Rows of one subject that are read at a time.
const CHUNK: usize = 500;
/// How long to wait where there are too many windows.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whose windows they are, and where.
type Place = (WorkspaceId, Subject);
/// The key of a window's row.
type Row = (WorkspaceId, Subject, u64, String);

/// May so much happen?
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where.
    pub workspace: WorkspaceId,
    /// With whom it counts.
    pub subject: Subject,
    /// By which limit.
    pub name: &'a str,
    /// How much may happen in all.
    pub rate: Rate,
    /// How much is to happen now.
    pub cost: u64,
}

/// A window in memory.
struct Slot {
    name: Box<str>,
    span: Duration,
    window: Window,
    /// Whether it has counted something since it was saved.
    dirty: bool,
}

/// All windows that are counted.
#[derive(Default)]
pub struct Registry {
    memory: Mutex<Memory>,
    /// Where the search for rows that are over goes on.
    cursor: Mutex<Option<Row>>,
}

/// The windows by whose they are. A place that is there has been read from the disk.
#[derive(Default)]
struct Memory {
    places: HashMap<Place, Vec<Slot>>,
    windows: usize,
}

impl Ask<'_> {
    fn place(&self) -> Place {
        (self.workspace, self.subject)
    }

    fn is_about(&self, slot: &Slot) -> bool {
        slot.span == self.rate.span() && *slot.name == *self.name
    }
}

impl Memory {
    fn admission(&self, ask: &Ask<'_>, now: Timestamp) -> Admission {
        let slots = self.places.get(&ask.place());
        let slot = slots.and_then(|slots| slots.iter().find(|slot| ask.is_about(slot)));
        let window = slot.map(|slot| slot.window).unwrap_or_default();
        window.admission(now, ask.rate.span(), ask.rate.limit(), ask.cost)
    }

    /// The window that is asked about, a new one where there is none; none if there are too many.
    fn slot(&mut self, ask: &Ask<'_>) -> Option<&mut Slot> {
        let slots = self.places.entry(ask.place()).or_default();
        let found = slots.iter().position(|slot| ask.is_about(slot));
        let index = match found {
            Some(index) => index,
            None if self.windows >= WINDOWS_MAX => return None,
            None => {
                self.windows += 1;
                let (name, span) = (ask.name.into(), ask.rate.span());
                slots.push(Slot { name, span, window: Window::default(), dirty: false });
                slots.len() - 1
            }
        };
        slots.get_mut(index)
    }

    /// Forgets windows in which nothing counts any more.
    fn forget(&mut self, now: Timestamp) {
        let mut left = 0;
        self.places.retain(|_, slots| {
            slots.retain(|slot| !slot.window.is_over(now, slot.span));
            left += slots.len();
            !slots.is_empty()
        });
        self.windows = left;
    }
}

impl Registry {
    /// What the limits would say. Nothing is counted.
    pub fn peek(&self, asks: &[Ask<'_>], now: Timestamp) -> Vec<Admission> {
        let memory = self.memory.lock();
        asks.iter().map(|ask| memory.admission(ask, now)).collect()
    }

    /// Counts all or nothing: all if every limit admits and `then` says yes, which is asked last and only in that case.
    /// Every ask is about another window.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if a window would have to be made and there are too many.
    pub fn admit_if(
        &self,
        asks: &[Ask<'_>],
        now: Timestamp,
        then: impl FnOnce() -> bool,
    ) -> Result<Vec<Admission>, Error> {
        let mut memory = self.memory.lock();
        for ask in asks {
            memory.slot(ask).ok_or(Error::Overloaded { retry_after: RETRY_AFTER })?;
        }
        let admissions: Vec<Admission> = asks.iter().map(|ask| memory.admission(ask, now)).collect();
        let admitted = admissions.iter().all(|admission| matches!(admission, Admission::Admitted { .. }));
        if admitted && then() {
            for ask in asks {
                if let Some(slot) = memory.slot(ask) {
                    slot.window.count(now, slot.span, ask.cost);
                    slot.dirty = true;
                }
            }
        }
        Ok(admissions)
    }

    /// What is to be saved. It counts as saved from now on.
    fn dirty(&self) -> Vec<(Row, Window)> {
        let mut memory = self.memory.lock();
        let mut dirty = Vec::new();
        for ((workspace, subject), slots) in &mut memory.places {
            for slot in slots.iter_mut().filter(|slot| slot.dirty && slot.span >= SAVED_FROM) {
                slot.dirty = false;
                dirty.push(((*workspace, *subject, millis(slot.span), slot.name.to_string()), slot.window));
            }
        }
        dirty
    }

    /// What could not be saved after all.
    fn still_dirty(&self, rows: &[(Row, Window)]) {
        let mut memory = self.memory.lock();
        for ((workspace, subject, span, name), _) in rows {
            let slots = memory.places.get_mut(&(*workspace, *subject)).into_iter().flatten();
            for slot in slots.filter(|slot| millis(slot.span) == *span && *slot.name == **name) {
                slot.dirty = true;
            }
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn is_over((_, _, span, _): &Row, window: Window, now: Timestamp) -> bool {
    window.is_over(now, Duration::from_millis(*span))
}

impl Ostiary {
    /// Reads the windows of those who are asked about, unless they are in memory.
    pub(super) async fn load_windows(&self, asks: &[Ask<'_>]) -> Result<(), Error> {
        for ask in asks {
            let place = ask.place();
            if self.windows.memory.lock().places.contains_key(&place) {
                continue;
            }
            let reading = self.read(None).await?;
            let mut slots = Vec::new();
            let mut after: Option<Row> = None;
            loop {
                let rows = tables::WINDOWS.list(reading.view(), &place, after.as_ref(), CHUNK).await?;
                let last = rows.len() < CHUNK;
                after = rows.last().map(|(row, _)| row.clone());
                let live = rows.into_iter().filter(|(row, window)| !is_over(row, *window, reading.now));
                slots.extend(live.map(|((_, _, span, name), window)| Slot {
                    name: name.into(),
                    span: Duration::from_millis(span),
                    window,
                    dirty: false,
                }));
                if last {
                    break;
                }
            }
            let mut memory = self.windows.memory.lock();
            let number = slots.len();
            // Somebody may have read them meanwhile, and counted.
            if let std::collections::hash_map::Entry::Vacant(vacant) = memory.places.entry(place) {
                vacant.insert(slots);
                memory.windows += number;
            }
        }
        Ok(())
    }

    /// Saves the windows that have counted something, forgets those that are over, and removes some rows that are.
    ///
    /// # Errors
    /// What can't be saved now is saved the next time.
    pub async fn flush_windows(&self) -> Result<(), Error> {
        let dirty = self.windows.dirty();
        for (done, some) in dirty.chunks(SAVED_AT_ONCE).enumerate() {
            let rows = some.to_vec();
            let saved = self
                .settle(move |tx, _| rows.iter().try_for_each(|(row, window)| tables::WINDOWS.put(tx, row, window)))
                .await;
            if let Err(error) = saved {
                self.windows.still_dirty(&dirty[done * SAVED_AT_ONCE..]);
                return Err(error);
            }
        }
        self.windows.memory.lock().forget(self.world.now());
        self.remove_rows_that_are_over().await
    }

    /// Looks at some rows, another part of the table each time.
    async fn remove_rows_that_are_over(&self) -> Result<(), Error> {
        let reading = self.read(None).await?;
        let after = self.windows.cursor.lock().clone();
        let rows = tables::WINDOWS.list(reading.view(), &(), after.as_ref(), CHUNK).await?;
        *self.windows.cursor.lock() = rows.last().filter(|_| rows.len() == CHUNK).map(|(row, _)| row.clone());
        let over: Vec<Row> =
            rows.into_iter().filter(|(row, window)| is_over(row, *window, reading.now)).map(|(row, _)| row).collect();
        for some in over.chunks(SAVED_AT_ONCE) {
            let some = some.to_vec();
            self.settle(move |tx, drawn| {
                for row in &some {
                    let window = tables::WINDOWS.get(tx, row)?;
                    if window.is_some_and(|window| is_over(row, window, drawn.now)) {
                        tables::WINDOWS.remove(tx, row)?;
                    }
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
