//! The windows of rate limits: counted in memory, exactly; the longer ones saved every few seconds and at a clean stop.
//!
//! Windows shorter than a minute are not worth a write: a restart takes about as long as they matter. A crash loses what
//! was counted since the last saving. Live windows are never given up for others: where there are too many, new ones are
//! refused. A workspace never has more of them than are still free, so that none takes the room of all.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
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
pub const WINDOWS_MAX: usize = 1_000_000;
/// The shortest windows that outlive a restart.
const SAVED_FROM: Duration = Duration::from_secs(60);
/// Rows saved in one transaction.
const SAVED_AT_ONCE: usize = 50;
/// Rows of one subject that are read at a time.
const CHUNK: usize = 500;
/// Spans of different lengths in which one identifier is counted at a time.
pub const SPANS_MAX: usize = 32;
/// How long to wait where there are too many windows.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whose windows they are, and where.
pub(super) type Place = (WorkspaceId, Subject);
/// The key of a window's row.
pub(super) type Row = (WorkspaceId, Subject, u64, String);

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

/// How a limit stands to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether the call would exceed it.
    pub exceeded: bool,
    /// How much it lets through.
    pub limit: u64,
    /// How much of that is left.
    pub left: u64,
    /// If exceeded, when the call would pass, unless it never would; else when the whole limit is free again.
    pub reset: Option<Timestamp>,
    /// How long until it would pass.
    pub retry_after: Option<Duration>,
}

impl Standing {
    /// How a limit stands that was asked at a moment.
    pub(super) fn new(limit: u64, admission: Admission, now: Timestamp) -> Self {
        match admission {
            Admission::Admitted { left, whole_after } => {
                Self { exceeded: false, limit, left, reset: Some(now.after(whole_after)), retry_after: None }
            }
            Admission::Refused { left, retry_after } => {
                let reset = retry_after.map(|wait| now.after(wait));
                Self { exceeded: true, limit, left, reset, retry_after }
            }
        }
    }
}

/// A window in memory.
struct Slot {
    name: Box<str>,
    span: Duration,
    window: Window,
    /// Whether it has counted something since it was saved.
    dirty: bool,
}

/// Why a window can't be counted that is not counted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// There are too many.
    Windows,
    /// This ask's identifier is counted in too many spans.
    Spans(usize),
}

impl Full {
    /// What is to be told to whoever asked, and how their request leads to each ask.
    pub fn error(self, paths: impl Fn(usize) -> String) -> Error {
        match self {
            Self::Windows => Error::Overloaded { retry_after: RETRY_AFTER },
            Self::Spans(index) => {
                let flaw = format!("must be one of at most {SPANS_MAX} in which an identifier is counted at a time");
                Error::field(format!("{}duration", paths(index)), flaw)
            }
        }
    }
}

/// All windows that are counted.
#[derive(Default)]
pub struct Registry {
    memory: Mutex<Memory>,
    /// Held while rows are written or removed by what was seen before, so that nothing forgotten comes back.
    saving: tokio::sync::Mutex<()>,
    /// Where the search for rows that are over goes on.
    cursor: Mutex<Option<Row>>,
}

/// The windows by whose they are. A place that is there has been read from the disk.
#[derive(Default)]
struct Memory {
    places: HashMap<Place, Vec<Slot>>,
    /// How many windows there are, and how many each workspace has of them.
    windows: usize,
    of_workspace: HashMap<WorkspaceId, usize>,
    /// Places that have been forgotten since what is to be saved was last looked at.
    forgotten: HashSet<Place>,
    /// How often any place has been forgotten.
    forgettings: u64,
}

/// What is being saved. What is left of it when the saving ends, for whatever reason, is still to be saved.
struct Unsaved<'a> {
    registry: &'a Registry,
    rows: Vec<(Row, Window)>,
}

impl Drop for Unsaved<'_> {
    fn drop(&mut self) {
        self.registry.still_dirty(&self.rows);
    }
}

impl Ask<'_> {
    fn place(&self) -> Place {
        (self.workspace, self.subject)
    }

    fn is_about(&self, slot: &Slot) -> bool {
        slot.span == self.rate.span() && *slot.name == *self.name
    }

    fn is_about_the_same(&self, other: &Ask<'_>) -> bool {
        self.place() == other.place() && self.rate.span() == other.rate.span() && self.name == other.name
    }
}

impl Memory {
    fn window(&self, ask: &Ask<'_>) -> Window {
        let slots = self.places.get(&ask.place());
        slots.and_then(|slots| slots.iter().find(|slot| ask.is_about(slot))).map(|slot| slot.window).unwrap_or_default()
    }

    /// What the limits say one after the other, where those that are about the same window add up.
    fn admissions(&self, asks: &[Ask<'_>], now: Timestamp) -> Vec<Admission> {
        let mut tried: Vec<(&Ask<'_>, Window)> = Vec::with_capacity(asks.len());
        let mut admissions = Vec::with_capacity(asks.len());
        for ask in asks {
            let known = tried.iter().position(|(other, _)| other.is_about_the_same(ask));
            let index = known.unwrap_or_else(|| {
                tried.push((ask, self.window(ask)));
                tried.len() - 1
            });
            admissions.push(tried[index].1.admit(now, ask.rate.span(), ask.rate.limit(), ask.cost));
        }
        admissions
    }

    /// The window that is asked about, a new one where there is none.
    fn slot(&mut self, index: usize, ask: &Ask<'_>) -> Result<&mut Slot, Full> {
        let of_workspace = self.of_workspace.entry(ask.workspace).or_default();
        let slots = self.places.entry(ask.place()).or_default();
        let at = match slots.iter().position(|slot| ask.is_about(slot)) {
            Some(at) => at,
            None if *of_workspace >= WINDOWS_MAX.saturating_sub(self.windows) => return Err(Full::Windows),
            None if matches!(ask.subject, Subject::Identifier(_)) && slots.len() >= SPANS_MAX => {
                return Err(Full::Spans(index));
            }
            None => {
                self.windows += 1;
                *of_workspace += 1;
                let (name, span) = (ask.name.into(), ask.rate.span());
                slots.push(Slot { name, span, window: Window::default(), dirty: false });
                slots.len() - 1
            }
        };
        Ok(&mut slots[at])
    }

    /// Changes how many windows a workspace has.
    fn counted(&mut self, workspace: WorkspaceId, more: usize, fewer: usize) {
        self.windows = (self.windows + more).saturating_sub(fewer);
        let of_workspace = self.of_workspace.entry(workspace).or_default();
        *of_workspace = (*of_workspace + more).saturating_sub(fewer);
        if *of_workspace == 0 {
            self.of_workspace.remove(&workspace);
        }
    }

    /// Forgets windows in which nothing counts any more.
    fn tidy(&mut self, now: Timestamp) {
        let mut over = Vec::new();
        self.places.retain(|(workspace, _), slots| {
            let before = slots.len();
            slots.retain(|slot| !slot.window.is_over(now, slot.span));
            if slots.len() < before {
                over.push((*workspace, before - slots.len()));
            }
            !slots.is_empty()
        });
        for (workspace, fewer) in over {
            self.counted(workspace, 0, fewer);
        }
    }
}

impl Registry {
    /// What the limits would say. Nothing is counted.
    pub fn peek(&self, asks: &[Ask<'_>], now: Timestamp) -> Vec<Admission> {
        self.memory.lock().admissions(asks, now)
    }

    /// Counts all or nothing: all if every limit admits and `then` says yes, which is asked last and only in that case.
    /// Asks about the same window add up.
    ///
    /// # Errors
    /// If a window would have to be made and there is no room for it.
    pub fn admit_if(
        &self,
        asks: &[Ask<'_>],
        now: Timestamp,
        then: impl FnOnce() -> bool,
    ) -> Result<Vec<Admission>, Full> {
        let mut memory = self.memory.lock();
        let admissions = memory.admissions(asks, now);
        if admissions.iter().any(|admission| matches!(admission, Admission::Refused { .. })) {
            return Ok(admissions);
        }
        let counting = || asks.iter().enumerate().filter(|(_, ask)| ask.cost > 0);
        for (index, ask) in counting() {
            memory.slot(index, ask)?;
        }
        if then() {
            for (index, ask) in counting() {
                let slot = memory.slot(index, ask)?;
                slot.window.count(now, slot.span, ask.cost);
                slot.dirty = true;
            }
        }
        Ok(admissions)
    }

    /// Takes back what was admitted at that moment, as far as it still counts.
    pub fn take_back(&self, asks: &[Ask<'_>], counted_at: Timestamp) {
        let mut memory = self.memory.lock();
        for ask in asks {
            let slots = memory.places.get_mut(&ask.place()).into_iter().flatten();
            for slot in slots.filter(|slot| ask.is_about(slot)) {
                slot.window.uncount(counted_at, slot.span, ask.cost);
                slot.dirty = true;
            }
        }
    }

    /// Forgets everything that was counted at a place. Its rows must be gone, and nobody may be saving.
    fn forget(&self, place: Place) {
        let mut memory = self.memory.lock();
        // The place stays, so that nobody reads it again before what they have read of it is known to be old.
        let fewer = memory.places.insert(place, Vec::new()).map_or(0, |slots| slots.len());
        memory.counted(place.0, 0, fewer);
        memory.forgotten.insert(place);
        memory.forgettings += 1;
    }

    /// What is to be saved. It counts as saved from now on.
    fn dirty(&self) -> Vec<(Row, Window)> {
        let mut memory = self.memory.lock();
        memory.forgotten.clear();
        let mut dirty = Vec::new();
        for ((workspace, subject), slots) in &mut memory.places {
            for slot in slots.iter_mut().filter(|slot| slot.dirty && slot.span >= SAVED_FROM) {
                slot.dirty = false;
                dirty.push(((*workspace, *subject, millis(slot.span), slot.name.to_string()), slot.window));
            }
        }
        dirty
    }

    /// Those whose places have not been forgotten since.
    fn not_forgotten(&self, rows: &[(Row, Window)]) -> Vec<(Row, Window)> {
        let memory = self.memory.lock();
        let keeps =
            |((workspace, subject, ..), _): &&(Row, Window)| !memory.forgotten.contains(&(*workspace, *subject));
        rows.iter().filter(keeps).cloned().collect()
    }

    /// If the place has not been read: how often any has been forgotten so far.
    fn lacks(&self, place: Place) -> Option<u64> {
        let memory = self.memory.lock();
        (!memory.places.contains_key(&place)).then_some(memory.forgettings)
    }

    /// Fills a place with what was read, unless something has been forgotten since, or somebody else has filled it and
    /// counted.
    fn fill(&self, place: Place, slots: Vec<Slot>, forgettings: u64) {
        let mut memory = self.memory.lock();
        if memory.forgettings != forgettings {
            return;
        }
        let number = slots.len();
        if let Entry::Vacant(vacant) = memory.places.entry(place) {
            vacant.insert(slots);
            memory.counted(place.0, number, 0);
        }
    }

    /// What could not be saved after all.
    fn still_dirty(&self, rows: &[(Row, Window)]) {
        if rows.is_empty() {
            return;
        }
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
            while let Some(forgettings) = self.windows.lacks(ask.place()) {
                let slots = self.saved_windows(ask.place()).await?;
                self.windows.fill(ask.place(), slots, forgettings);
            }
        }
        Ok(())
    }

    /// The windows of a place that have been saved and are not over.
    async fn saved_windows(&self, place: Place) -> Result<Vec<Slot>, Error> {
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
                return Ok(slots);
            }
        }
    }

    /// Saves the windows that have counted something, forgets those that are over, and removes some rows that are.
    ///
    /// # Errors
    /// What can't be saved now is saved the next time.
    pub async fn flush_windows(&self) -> Result<(), Error> {
        let saved = self.windows.dirty();
        // Where many rows are written, as many are looked at, so that those that are over don't pile up.
        let budget = 2 * saved.len();
        let mut unsaved = Unsaved { registry: &self.windows, rows: saved };
        while !unsaved.rows.is_empty() {
            let _saving = self.windows.saving.lock().await;
            let left = unsaved.rows.len().saturating_sub(SAVED_AT_ONCE);
            let rows = self.windows.not_forgotten(&unsaved.rows[left..]);
            self.settle(move |tx, _| rows.iter().try_for_each(|(row, window)| tables::WINDOWS.put(tx, row, window)))
                .await?;
            unsaved.rows.truncate(left);
        }
        self.windows.memory.lock().tidy(self.world.now());
        for _ in 0..=budget / CHUNK {
            self.remove_rows_that_are_over().await?;
        }
        Ok(())
    }

    /// Forgets what was counted for an identifier, once `forgetting`, which removes the rows that it is given, has
    /// succeeded and says that this is to be.
    pub(super) async fn forget_windows<T, F>(
        &self,
        (workspace, subject): Place,
        forgetting: impl FnOnce(Vec<Row>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(T, bool), Error>>,
    {
        let _saving = self.windows.saving.lock().await;
        let reading = self.read(None).await?;
        let rows = tables::WINDOWS.list(reading.view(), &(workspace, subject), None, CHUNK).await?;
        let (live, over): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(row, window)| !is_over(row, *window, reading.now));
        self.remove_rows(over.into_iter().map(|(row, _)| row).collect()).await?;
        let (answer, forgotten) = forgetting(live.into_iter().map(|(row, _)| row).collect()).await?;
        if forgotten {
            self.windows.forget((workspace, subject));
        }
        Ok(answer)
    }

    /// Looks at some rows, another part of the table each time.
    async fn remove_rows_that_are_over(&self) -> Result<(), Error> {
        let reading = self.read(None).await?;
        let after = self.windows.cursor.lock().clone();
        let rows = tables::WINDOWS.list(reading.view(), &(), after.as_ref(), CHUNK).await?;
        *self.windows.cursor.lock() = rows.last().filter(|_| rows.len() == CHUNK).map(|(row, _)| row.clone());
        let over: Vec<Row> =
            rows.into_iter().filter(|(row, window)| is_over(row, *window, reading.now)).map(|(row, _)| row).collect();
        self.remove_rows(over).await
    }

    /// Removes the rows that are over.
    async fn remove_rows(&self, over: Vec<Row>) -> Result<(), Error> {
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
