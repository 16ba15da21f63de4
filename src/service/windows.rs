//! The windows of rate limits: counted in memory, exactly; the longer ones saved every so often and at a clean stop, and
//! read at the start.
//!
//! Windows shorter than a minute are not worth a write: a restart takes about as long as they matter. A crash loses what
//! was counted since the last saving. Live windows are never given up for others: where there are too many, new ones are
//! refused. A workspace never has more than some times those that are still free, so that none takes the room of all.
//!
//! Windows lie in buckets, each with a lock of its own, and each bucket is saved as one row: a million windows take a
//! thousand rows instead of a million. Which bucket something lies in is drawn anew with every start, so nobody can fill
//! one on purpose; the rows of a start replace those of the one before.
//!
//! The windows of one place have a lock of their own too. Whoever remembers a key holds on to them ([`Tab`]) and counts a
//! further call in a window that there is without looking for its bucket. Windows begin and end under the lock of their
//! bucket alone, which is always taken before theirs, and those that no bucket knows are none: so whoever holds on to
//! windows that have been let go meanwhile finds nothing there, and looks in the bucket.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use compact_str::CompactString;
use foldhash::quality::RandomState;
use parking_lot::{ArcMutexGuard, Mutex, MutexGuard, RawMutex};
use smallvec::SmallVec;

use crate::domain::id::WorkspaceId;
use crate::domain::limit::Rate;
use crate::domain::time::Timestamp;
use crate::domain::window::{Admission, Window};
use crate::error::Error;
use crate::store::bringing::bring;
use crate::store::records::{SavedWindow, SavedWindows};
use crate::store::tables::Subject;

mod room;
mod saving;
#[cfg(test)]
mod tests;

use room::Room;
pub(super) use saving::Remainder;

/// Windows that are counted at a time, unless the operator says otherwise.
pub const WINDOWS_MAX: usize = 4_000_000;
/// The shortest windows that outlive a restart.
const SAVED_FROM: Duration = Duration::from_secs(60);
/// Windows that lie in a bucket on average, at most. With the longest names that is 0.6 MB of a row that may have 2 MB, so
/// that chance may add to it.
const IN_A_BUCKET: usize = 1_000;
/// Into how many parts they are divided.
const BUCKETS: RangeInclusive<usize> = 64..=1 << 16;
/// Spans of different lengths in which one identifier is counted at a time.
pub const SPANS_MAX: usize = 32;
/// Windows of one key or identity from which on calls bring no more rates along. It bounds what a call takes to look
/// through, and what is saved in one row.
pub const INLINE_MAX: usize = 256;
/// How long to wait where there are too many windows.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whose windows they are, and where.
pub(super) type Place = (WorkspaceId, Subject);
/// The key of a row: which start wrote it, and which bucket.
type Row = (u64, u16);

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
    /// Whether the rate is the call's own, so that anybody who may call can make up any number of them.
    pub inline: bool,
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

/// Why a window can't be counted that is not counted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// There are too many.
    Windows,
    /// This ask's identifier is counted in too many spans.
    Spans(usize),
    /// Too many rates of calls are counted where this one would be.
    Inline,
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
            Self::Inline => Error::field(
                "rate_limits",
                format!("must not bring more limits along: {INLINE_MAX} are counted for a key at a time"),
            ),
        }
    }
}

/// All windows that are counted.
pub struct Registry {
    /// Decides which bucket a place lies in.
    hasher: RandomState,
    buckets: Box<[Bucket]>,
    room: Room,
    /// Tells the rows of this start from those of others.
    start: AtomicU64,
    /// Whether rows of earlier starts are still there.
    earlier: AtomicBool,
    /// Held while rows are written by what was seen before, so that nothing forgotten comes back.
    saving: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Bucket {
    places: Mutex<Places>,
    /// Whether one of its longer windows has counted something since it was saved.
    dirty: AtomicBool,
}

type Places = HashMap<Place, Tab, foldhash::fast::RandomState>;

/// What each limit says to a call that one of them applies to, rarely more.
pub type Admissions = SmallVec<[Admission; 1]>;

/// The windows of one place: nearly always one.
type Slots = SmallVec<[Slot; 1]>;

/// The windows of one place, in the hands of whoever counts there often. There are none while no bucket has them.
#[derive(Clone, Default)]
pub struct Tab(Arc<Mutex<Counted>>);

/// What has been counted at a place.
#[derive(Default)]
struct Counted {
    slots: Slots,
    /// Whether its bucket knows that one of the longer windows has counted something since it was saved.
    told: bool,
}

/// A window in memory.
struct Slot {
    /// Where it lies itself, unless it is long.
    name: CompactString,
    span: Duration,
    window: Window,
}

impl Ask<'_> {
    pub(super) fn place(&self) -> Place {
        (self.workspace, self.subject)
    }

    fn is_about(&self, slot: &Slot) -> bool {
        slot.span == self.rate.span() && *slot.name == *self.name
    }

    fn is_about_the_same(&self, other: &Ask<'_>) -> bool {
        self.place() == other.place() && self.rate.span() == other.rate.span() && self.name == other.name
    }
}

impl Tab {
    /// Brings the windows from main memory.
    pub(super) fn bring(&self) {
        bring(&*self.0);
    }
}

impl Bucket {
    /// Forgets windows in which nothing counts any more.
    fn tidy(&self, now: Timestamp, room: &Room) {
        let mut places = self.places.lock();
        places.retain(|(workspace, _), Tab(counted)| {
            let mut counted = counted.lock();
            let before = counted.slots.len();
            counted.slots.retain(|slot| !slot.window.is_over(now, slot.span));
            if counted.slots.len() < before {
                room.give_back(*workspace, before - counted.slots.len());
            }
            let over = counted.slots.is_empty();
            if over {
                // Whoever holds on to it keeps no room for what there was, and what comes next has to be told anew.
                *counted = Counted::default();
            }
            !over
        });
        if places.capacity() > 64 && places.len() < places.capacity() / 4 {
            places.shrink_to_fit();
        }
    }

    /// The longer windows, except those of one place. What is counted from here on has to be told anew.
    fn saved(&self, without: Option<Place>) -> SavedWindows {
        let mut saved = Vec::new();
        for (place, Tab(counted)) in self.places.lock().iter().filter(|(place, _)| Some(**place) != without) {
            let (workspace, subject) = *place;
            let mut counted = counted.lock();
            counted.told = false;
            let long = counted.slots.iter().filter(|slot| slot.span >= SAVED_FROM);
            saved.extend(long.map(|slot| SavedWindow {
                workspace,
                subject,
                span: slot.span,
                name: slot.name.clone(),
                window: slot.window,
            }));
        }
        SavedWindows(saved)
    }
}

/// What a call that is about several windows, or about new ones, holds while it counts: the buckets in order, each once,
/// and the windows of the places that there are.
struct Held<'a> {
    buckets: SmallVec<[(usize, MutexGuard<'a, Places>); 2]>,
    places: SmallVec<[(Place, ArcMutexGuard<RawMutex, Counted>); 2]>,
}

impl Held<'_> {
    fn counted(&mut self, place: Place) -> Option<&mut Counted> {
        self.places.iter_mut().find(|(held, _)| *held == place).map(|(_, counted)| &mut **counted)
    }

    /// The window that is asked about, if there is one.
    fn known(&mut self, ask: &Ask<'_>) -> Option<(&mut Slot, &mut bool)> {
        let Counted { slots, told } = self.counted(ask.place())?;
        slots.iter_mut().find(|slot| ask.is_about(slot)).map(|slot| (slot, told))
    }

    /// What has been counted in the window that is asked about.
    fn window(&mut self, ask: &Ask<'_>) -> Window {
        self.known(ask).map(|(slot, _)| slot.window).unwrap_or_default()
    }

    /// The window that is asked about, a new one where there is none. Where nothing has been counted yet, that is
    /// counted in `tab` from now on.
    fn slot(
        &mut self,
        bucket: usize,
        index: usize,
        ask: &Ask<'_>,
        tab: Option<&Tab>,
        room: &Room,
    ) -> Result<&mut Slot, Full> {
        let place = ask.place();
        if self.counted(place).is_none() {
            let (_, places) = self.buckets.iter_mut().find(|(held, _)| *held == bucket).expect("it is held");
            let tab = tab.cloned().unwrap_or_default();
            self.places.push((place, Mutex::lock_arc(&tab.0)));
            places.insert(place, tab);
        }
        let slots = &mut self.counted(place).expect("it is there now").slots;
        let at = match slots.iter().position(|slot| ask.is_about(slot)) {
            Some(at) => at,
            None if matches!(ask.subject, Subject::Identifier(_)) && slots.len() >= SPANS_MAX => {
                return Err(Full::Spans(index));
            }
            None if ask.inline && slots.len() >= INLINE_MAX => return Err(Full::Inline),
            None if !room.take(ask.workspace) => return Err(Full::Windows),
            None => {
                slots.push(Slot { name: ask.name.into(), span: ask.rate.span(), window: Window::default() });
                slots.len() - 1
            }
        };
        Ok(&mut slots[at])
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(WINDOWS_MAX)
    }
}

impl Registry {
    /// Nothing counted yet, and room for so many windows.
    pub fn new(most: usize) -> Self {
        let buckets = (most / IN_A_BUCKET).next_power_of_two().clamp(*BUCKETS.start(), *BUCKETS.end());
        Self {
            hasher: RandomState::default(),
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            room: Room::new(most),
            start: AtomicU64::new(0),
            earlier: AtomicBool::new(false),
            saving: tokio::sync::Mutex::default(),
        }
    }

    /// How many windows there are, and how often one more was refused.
    pub fn taken_and_refused(&self) -> (usize, u64) {
        self.room.taken_and_refused()
    }

    fn bucket_of(&self, place: Place) -> usize {
        usize::try_from(self.hasher.hash_one(place) % self.buckets.len() as u64).unwrap_or(0)
    }

    /// The windows of a place, if anything is counted there.
    pub(super) fn tab(&self, place: Place) -> Option<Tab> {
        self.buckets[self.bucket_of(place)].places.lock().get(&place).cloned()
    }

    /// Holds all buckets that the asks are about, and their windows. Everybody takes them in the same order.
    fn hold(&self, asks: &[Ask<'_>]) -> Held<'_> {
        let mut indexes: SmallVec<[usize; 4]> = asks.iter().map(|ask| self.bucket_of(ask.place())).collect();
        indexes.sort_unstable();
        indexes.dedup();
        let buckets = indexes.into_iter().map(|index| (index, self.buckets[index].places.lock())).collect();
        let mut held = Held { buckets, places: SmallVec::new() };
        for ask in asks {
            let place = ask.place();
            let bucket = self.bucket_of(place);
            let known = held.places.iter().any(|(known, _)| *known == place);
            let (_, places) = held.buckets.iter().find(|(held, _)| *held == bucket).expect("all of them are held");
            if !known && let Some(Tab(counted)) = places.get(&place) {
                held.places.push((place, Mutex::lock_arc(counted)));
            }
        }
        held
    }

    /// What the limits say one after the other, where those that are about the same window add up.
    fn admissions(held: &mut Held<'_>, asks: &[Ask<'_>], now: Timestamp) -> Admissions {
        let mut tried: SmallVec<[(&Ask<'_>, Window); 4]> = SmallVec::new();
        let mut admissions = Admissions::new();
        for ask in asks {
            let known = tried.iter().position(|(other, _)| other.is_about_the_same(ask));
            let index = known.unwrap_or_else(|| {
                tried.push((ask, held.window(ask)));
                tried.len() - 1
            });
            admissions.push(tried[index].1.admit(now, ask.rate.span(), ask.rate.limit(), ask.cost));
        }
        admissions
    }

    /// What the limits would say. Nothing is counted.
    pub fn peek(&self, asks: &[Ask<'_>], now: Timestamp) -> Admissions {
        Self::admissions(&mut self.hold(asks), asks, now)
    }

    /// Counts all or nothing: all if every limit admits and `then` says yes, which is asked last and only in that case.
    /// Asks about the same window add up.
    ///
    /// `tab` is that of the place where they all count, if the caller has it at hand.
    ///
    /// # Errors
    /// If a window would have to be made and there is no room for it.
    pub fn admit_if(
        &self,
        asks: &[Ask<'_>],
        tab: Option<&Tab>,
        now: Timestamp,
        then: impl FnOnce() -> bool,
    ) -> Result<Admissions, Full> {
        let mut then = then;
        if let [ask] = asks {
            let found = if tab.is_none() { self.tab(ask.place()) } else { None };
            if let Some(tab) = tab.or(found.as_ref()) {
                match self.admit_known(ask, tab, now, then) {
                    Ok(admission) => return Ok(admission.into_iter().collect()),
                    Err(not_asked) => then = not_asked,
                }
            }
        }
        let mut held = self.hold(asks);
        let admissions = Self::admissions(&mut held, asks, now);
        if admissions.iter().any(|admission| matches!(admission, Admission::Refused { .. })) {
            return Ok(admissions);
        }
        let counting = || asks.iter().enumerate().filter(|(_, ask)| ask.cost > 0);
        for (index, ask) in counting() {
            held.slot(self.bucket_of(ask.place()), index, ask, tab, &self.room)?;
        }
        if then() {
            for (_, ask) in counting() {
                if let Some((slot, told)) = held.known(ask) {
                    slot.window.count(now, slot.span, ask.cost);
                    self.tell(ask, told);
                }
            }
        }
        Ok(admissions)
    }

    /// The same for a single ask about a window that there is already, which is the usual one. Otherwise nothing has
    /// happened, and `then` comes back.
    fn admit_known<F: FnOnce() -> bool>(
        &self,
        ask: &Ask<'_>,
        Tab(counted): &Tab,
        now: Timestamp,
        then: F,
    ) -> Result<[Admission; 1], F> {
        let Counted { slots, told } = &mut *counted.lock();
        let Some(slot) = slots.iter_mut().find(|slot| ask.is_about(slot)) else { return Err(then) };
        let admission = slot.window.admission(now, slot.span, ask.rate.limit(), ask.cost);
        if matches!(admission, Admission::Admitted { .. }) && then() && ask.cost > 0 {
            slot.window.count(now, slot.span, ask.cost);
            self.tell(ask, told);
        }
        Ok([admission])
    }

    /// Lets the bucket know, unless it does, that a window has counted something which is to be saved. The windows are
    /// held meanwhile: whoever saves them comes before or after that, not in between.
    fn tell(&self, ask: &Ask<'_>, told: &mut bool) {
        if !*told && ask.rate.span() >= SAVED_FROM {
            *told = true;
            self.buckets[self.bucket_of(ask.place())].dirty.store(true, Ordering::SeqCst);
        }
    }

    /// Takes back what was admitted at that moment, as far as it still counts.
    pub fn take_back(&self, asks: &[Ask<'_>], counted_at: Timestamp) {
        let mut held = self.hold(asks);
        for ask in asks {
            if let Some((slot, told)) = held.known(ask) {
                slot.window.uncount(counted_at, slot.span, ask.cost);
                self.tell(ask, told);
            }
        }
    }

    /// Forgets everything that was counted at a place.
    fn forget(&self, place: Place) {
        let mut places = self.buckets[self.bucket_of(place)].places.lock();
        if let Some(Tab(counted)) = places.remove(&place) {
            self.room.give_back(place.0, std::mem::take(&mut *counted.lock()).slots.len());
        }
    }
}
