//! Time and randomness: the only file that may ask for either.
//!
//! Everything else gets a [`World`] and so can be run in a made-up one, where a test holds the clock
//! and draws are repeatable.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, TryRng, rngs::StdRng, rngs::SysRng};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::domain::time::Timestamp;

/// A difference between the wall clock and the time shown that is reported rather than followed.
const STEP_MIN: Duration = Duration::from_secs(1);
/// How fast the time shown may approach the wall clock: parts per million of the time passed.
const SLEW_PPM: i64 = 500;
/// The longest sleep at a stretch, so that a clock that is slewed is looked at again.
const NAP: Duration = Duration::from_secs(30);

const NANOS_PER_MILLI: i64 = 1_000_000;

/// Where the time and the random bits come from.
pub struct World {
    source: Source,
    /// The last id drawn, so that the next one comes after it even within the same millisecond.
    last: Mutex<u128>,
}

enum Source {
    Real(Glance),
    MadeUp { now: watch::Sender<Timestamp>, rng: Box<Mutex<StdRng>> },
}

impl World {
    /// The machine's own clock and randomness. The time shown never lies before `floor`, the highest
    /// instant that a former run stored.
    pub fn real(floor: Option<Timestamp>) -> Self {
        Self::of(Source::Real(Glance::new(Clock::start(Reading::take(), floor))))
    }

    /// A world in which time passes only through [`World::advance`] and draws depend on `seed` alone.
    pub fn made_up(start: Timestamp, seed: u64) -> Self {
        let (now, _) = watch::channel(start);
        Self::of(Source::MadeUp { now, rng: Box::new(Mutex::new(StdRng::seed_from_u64(seed))) })
    }

    fn of(source: Source) -> Self {
        Self { source, last: Mutex::new(0) }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::Real(glance) => glance.now(),
            Source::MadeUp { now, .. } => *now.borrow(),
        }
    }

    /// Fresh random bytes from the operating system, good enough for secrets.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.source {
            Source::Real(_) => {
                SysRng.try_fill_bytes(&mut bytes).expect("the operating system has random bytes once it has booted");
            }
            Source::MadeUp { rng, .. } => rng.lock().fill_bytes(&mut bytes),
        }
        bytes
    }

    /// The bytes of the id of a request that began with this measurement: as [`World::ulid`], but neither in order nor
    /// hard to guess, and so quicker.
    pub fn request(&self, began: &Stopwatch) -> [u8; 16] {
        match &self.source {
            Source::Real(glance) => {
                let mut bytes = [0; 16];
                bytes[..6].copy_from_slice(&glance.at(began.0).millis().to_be_bytes()[2..]);
                #[expect(clippy::disallowed_methods, reason = "this is the file that may")]
                rand::rng().fill_bytes(&mut bytes[6..]);
                bytes
            }
            Source::MadeUp { .. } => self.ulid(),
        }
    }

    /// The bytes of a new id: 48 bits of time, 80 random ones. It comes after all ids drawn before it: within a
    /// millisecond the first 16 of the random ones count on, so that no two ids have the first 64 bits in common.
    pub fn ulid(&self) -> [u8; 16] {
        self.ulids(1)
    }

    /// The bytes of the first of so many new ids, each one more than the one before. They have their first 64 bits in
    /// common, which ids of keys may not.
    pub fn ulids(&self, number: u32) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&self.now().millis().to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&self.random::<10>());
        let drawn = u128::from_be_bytes(bytes);
        let mut last = self.last.lock();
        let counted_on = (*last >> 64).wrapping_add(1) << 64 | u128::from(drawn as u64);
        let first = if drawn >> 80 > *last >> 80 { drawn } else { counted_on };
        *last = first.wrapping_add(u128::from(number.saturating_sub(1)));
        first.to_be_bytes()
    }

    /// Returns once the moment has come.
    pub async fn wait_until(&self, moment: Timestamp) {
        match &self.source {
            Source::Real(_) => loop {
                let left = moment.since(self.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(NAP)).await;
            },
            Source::MadeUp { now, .. } => {
                let reached = now.subscribe().wait_for(|now| *now >= moment).await.is_ok();
                debug_assert!(reached, "the sender lives as long as the world");
            }
        }
    }

    /// Lets that much time pass in a made-up world.
    ///
    /// # Panics
    /// In the real one: time can't be made to pass there.
    pub fn advance(&self, span: Duration) {
        match &self.source {
            Source::Real(_) => panic!("time passes by itself in the real world"),
            Source::MadeUp { now, .. } => now.send_modify(|now| *now = now.after(span)),
        }
    }

    /// Starts measuring how long something takes.
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch(nanos(ClockId::Boottime))
    }

    /// How far ahead of a stored instant the wall clock is, for the decision whether to trust it.
    pub fn ahead_of(&self, stored: Timestamp) -> Duration {
        self.now().since(stored)
    }
}

/// A measurement under way: the boot time at which it began, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(i64);

impl Stopwatch {
    /// How long it has been running.
    pub fn elapsed(&self) -> Duration {
        let passed = nanos(ClockId::Boottime).saturating_sub(self.0);
        Duration::from_nanos(u64::try_from(passed).unwrap_or(0))
    }

    /// So much after it began.
    pub fn deadline(self, within: Duration) -> Deadline {
        Deadline { began: self, within }
    }
}

/// When somebody stops waiting.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    began: Stopwatch,
    within: Duration,
}

impl Deadline {
    /// How long until then.
    pub fn left(self) -> Duration {
        self.within.saturating_sub(self.began.elapsed())
    }
}

/// How often the wall clock is looked at.
const GLANCE_NANOS: i64 = 20 * NANOS_PER_MILLI;

/// A clock that is looked at closely only every so often: in between, time passes as the machine counts it.
struct Glance {
    clock: Mutex<Clock>,
    /// What is added to the boot time.
    offset: AtomicI64,
    /// No time before this is shown: it has been shown already.
    floor: AtomicI64,
    /// The boot time from which on the clock is looked at again.
    again: AtomicI64,
}

impl Glance {
    fn new(clock: Clock) -> Self {
        let (offset, floor) = (AtomicI64::new(clock.offset), AtomicI64::new(clock.shown));
        // Whoever asks first looks closely.
        Self { clock: Mutex::new(clock), offset, floor, again: AtomicI64::new(i64::MIN) }
    }

    fn now(&self) -> Timestamp {
        self.at(nanos(ClockId::Boottime))
    }

    /// The time at a boot time that has just been read.
    fn at(&self, boot: i64) -> Timestamp {
        let again = self.again.load(Ordering::Acquire);
        if boot < again {
            let shown = boot.saturating_add(self.offset.load(Ordering::Acquire));
            return at_nanos(shown.max(self.floor.load(Ordering::Acquire)));
        }
        let mut clock = self.clock.lock();
        // Others have been showing the time up to this moment.
        clock.shown = clock.shown.max(boot.saturating_add(clock.offset));
        let (now, step) = clock.show(Reading::take());
        self.floor.store(clock.shown, Ordering::Release);
        self.offset.store(clock.offset, Ordering::Release);
        self.again.store(boot.saturating_add(GLANCE_NANOS), Ordering::Release);
        drop(clock);
        if let Some(step) = step {
            tracing::warn!(
                seconds = step as f64 / 1e9,
                "the wall clock was set; ostiary keeps its own time: if the clock is right now, start ostiary again"
            );
        }
        now
    }
}

fn nanos(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

fn at_nanos(nanos: i64) -> Timestamp {
    Timestamp::from_millis_saturating(u64::try_from(nanos / NANOS_PER_MILLI).unwrap_or(0))
}

/// What both of the machine's clocks say, in nanoseconds.
#[derive(Clone, Copy)]
struct Reading {
    /// Since 1970, as somebody has set it.
    wall: i64,
    /// Since the machine started, sleep included; nobody can set it.
    boot: i64,
}

impl Reading {
    fn take() -> Self {
        Self { wall: nanos(ClockId::Realtime), boot: nanos(ClockId::Boottime) }
    }
}

/// A clock that follows the wall clock's drift but not its being set.
///
/// The time shown is boot time plus an offset. The offset moves towards the wall clock by at most
/// [`SLEW_PPM`]; a jump of more than [`STEP_MIN`] is remembered and left out until the next start.
/// So setting the clock back revives nothing, and setting it forward kills nothing.
struct Clock {
    offset: i64,
    ignored: i64,
    adjusted_at: i64,
    shown: i64,
}

impl Clock {
    fn start(reading: Reading, floor: Option<Timestamp>) -> Self {
        let floor =
            floor.map_or(0, |floor| i64::try_from(floor.millis()).unwrap_or(i64::MAX).saturating_mul(NANOS_PER_MILLI));
        let begin = reading.wall.max(floor);
        Self {
            offset: begin.saturating_sub(reading.boot),
            ignored: begin.saturating_sub(reading.wall),
            adjusted_at: reading.boot,
            shown: begin,
        }
    }

    /// The time to show, and by how many nanoseconds the wall clock was set, if it just was.
    fn show(&mut self, reading: Reading) -> (Timestamp, Option<i64>) {
        let target = reading.wall.saturating_add(self.ignored).saturating_sub(reading.boot);
        let error = target.saturating_sub(self.offset);
        let step = (error.unsigned_abs() > STEP_MIN.as_nanos() as u64).then_some(error);
        if let Some(step) = step {
            self.ignored = self.ignored.saturating_sub(step);
        } else {
            let passed = reading.boot.saturating_sub(self.adjusted_at).max(0);
            let most = passed / 1_000_000 * SLEW_PPM;
            // A slice too short to slew in is kept for the next look.
            if most > 0 {
                self.offset = self.offset.saturating_add(error.clamp(-most, most));
                self.adjusted_at = reading.boot;
            }
        }
        self.shown = self.shown.max(reading.boot.saturating_add(self.offset));
        (at_nanos(self.shown), step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3_600 * SECOND;
    const START: i64 = 1_800_000_000 * SECOND;

    fn clock() -> Clock {
        Clock::start(Reading { wall: START, boot: 0 }, None)
    }

    fn millis(nanos: i64) -> Timestamp {
        Timestamp::from_millis_saturating((nanos / NANOS_PER_MILLI) as u64)
    }

    #[test]
    fn a_clock_set_back_or_ahead_is_reported_once_and_not_followed() {
        for jump in [-HOUR, HOUR, 10 * 365 * 24 * HOUR, -START] {
            let mut clock = clock();
            let (now, step) = clock.show(Reading { wall: START + 5 * SECOND + jump, boot: 5 * SECOND });
            assert_eq!((now, step), (millis(START + 5 * SECOND), Some(jump)));
            let (now, step) = clock.show(Reading { wall: START + 6 * SECOND + jump, boot: 6 * SECOND });
            assert_eq!((now, step), (millis(START + 6 * SECOND), None));
        }
    }

    #[test]
    fn drift_is_followed_at_most_500_parts_per_million() {
        let mut clock = clock();
        // The wall clock gains half a second in an instant: under the size of a step, so it is slewed.
        let (now, _) = clock.show(Reading { wall: START + 100 * SECOND + SECOND / 2, boot: 100 * SECOND });
        assert_eq!(now, millis(START + 100 * SECOND + 50 * NANOS_PER_MILLI));
        let (now, _) = clock.show(Reading { wall: START + 10_000 * SECOND + SECOND / 2, boot: 10_000 * SECOND });
        assert_eq!(now, millis(START + 10_000 * SECOND + SECOND / 2));
    }

    #[test]
    fn time_never_starts_before_the_highest_instant_stored() {
        let floor = millis(START + HOUR);
        let mut clock = Clock::start(Reading { wall: START, boot: 0 }, Some(floor));
        assert_eq!(clock.show(Reading { wall: START, boot: 0 }), (floor, None));
        assert_eq!(clock.show(Reading { wall: START + SECOND, boot: SECOND }).0, millis(START + HOUR + SECOND));
    }

    #[test]
    fn looking_often_does_not_stop_the_slewing() {
        let mut clock = clock();
        let mut now = millis(START);
        for boot in (0..2_000_000).map(|step| step * 100_000) {
            now = clock.show(Reading { wall: START + boot + SECOND / 10, boot }).0;
        }
        assert_eq!(now, millis(START + 200 * SECOND - 100_000 + SECOND / 10));
    }

    #[test]
    fn ids_come_one_after_the_other_even_within_a_millisecond() {
        let world = World::made_up(millis(START), 1);
        let mut ids: Vec<_> = (0..1_000).map(|_| world.ulid()).collect();
        world.advance(Duration::from_millis(1));
        ids.push(world.ulid());
        assert!(ids.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn extreme_clocks_do_not_overflow() {
        for wall in [i64::MIN, -1, 0, i64::MAX] {
            let mut clock = clock();
            clock.show(Reading { wall, boot: i64::MAX });
            clock.show(Reading { wall, boot: 0 });
        }
    }
}
