//! Credits: how often a key may still be used, and when the balance is filled up again.
//!
//! A refill is computed from the time, not done by a job: whoever looks at a meter settles it first, so that whether the
//! sweep, or anything else, has run makes no difference.

use time::{Date, Month, OffsetDateTime, Time};

use super::Flaw;
use super::limit::AMOUNT_MAX;
use super::time::{Expiry, Timestamp};

/// How much of a balance may be reserved at once to be spent from memory: this part of it.
const BLOCK_PART: u64 = 100;
/// And never more than this.
pub const BLOCK_MAX: u64 = 1_000;

/// When a balance is filled up, at 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Every day.
    Daily,
    /// Every month, on this day of it, 1 to 31; a month that is shorter refills on its last day.
    Monthly(u8),
}

/// How a balance is filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refill {
    interval: Interval,
    amount: u64,
}

impl Refill {
    /// A refill to an amount.
    pub fn new(interval: Interval, amount: u64) -> Result<Self, Flaw> {
        if let Interval::Monthly(day) = interval
            && !(1..=31).contains(&day)
        {
            return Err(Flaw::new("must be 1 to 31"));
        }
        if !(1..=AMOUNT_MAX).contains(&amount) {
            return Err(Flaw::new(format!("must be 1 to {AMOUNT_MAX}")));
        }
        Ok(Self { interval, amount })
    }

    /// How often.
    pub const fn interval(self) -> Interval {
        self.interval
    }

    /// To how much.
    pub const fn amount(self) -> u64 {
        self.amount
    }

    /// The first refill after a moment; none past the year 9999.
    pub fn next_after(self, moment: Timestamp) -> Option<Timestamp> {
        let seconds = i64::try_from(moment.millis() / 1_000).ok()?;
        let date = OffsetDateTime::from_unix_timestamp(seconds).ok()?.date();
        match self.interval {
            Interval::Daily => midnight(date.next_day()?),
            Interval::Monthly(day) => {
                let this = on_day(date.year(), date.month(), day)?;
                if this > moment {
                    return Some(this);
                }
                let (year, month) = match date.month() {
                    Month::December => (date.year() + 1, Month::January),
                    other => (date.year(), other.next()),
                };
                on_day(year, month, day)
            }
        }
    }
}

/// The beginning of that day of a month, or of its last one.
fn on_day(year: i32, month: Month, day: u8) -> Option<Timestamp> {
    Date::from_calendar_date(year, month, day.min(month.length(year))).ok().and_then(midnight)
}

fn midnight(date: Date) -> Option<Timestamp> {
    let seconds = OffsetDateTime::new_utc(date, Time::MIDNIGHT).unix_timestamp();
    u64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_millis(seconds * 1_000).ok())
}

/// How often something may still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uses {
    /// As often as one likes.
    Unlimited,
    /// So many credits' worth.
    Left(u64),
}

impl Uses {
    /// Whether so much is left.
    pub const fn affords(self, cost: u64) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Left(left) => cost <= left,
        }
    }
}

/// What a key may still use and how that is filled up, as a caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credits {
    /// How much is left.
    pub remaining: u64,
    /// How it is filled up.
    pub refill: Option<Refill>,
}

/// The account of a key and of all that it was rerolled to.
///
/// Part of the balance may be reserved: taken off it, and spent from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    /// What is left, without what is reserved.
    pub uses: Uses,
    /// How it is filled up.
    pub refill: Option<Refill>,
    /// Up to when refills have been taken into account.
    pub settled: Timestamp,
    /// Grows when a balance is replaced: what was reserved of an older one is void.
    pub generation: u64,
    /// How many keys share it.
    pub holders: u64,
}

impl Meter {
    /// A meter that starts now.
    pub const fn starting(credits: Option<Credits>, now: Timestamp) -> Self {
        match credits {
            None => Self { uses: Uses::Unlimited, refill: None, settled: now, generation: 0, holders: 1 },
            Some(Credits { remaining, refill }) => {
                Self { uses: Uses::Left(remaining), refill, settled: now, generation: 0, holders: 1 }
            }
        }
    }

    /// Whether a refill has come due since it was last settled.
    pub fn refill_due(&self, now: Timestamp) -> bool {
        let next = self.refill.and_then(|refill| refill.next_after(self.settled));
        next.is_some_and(|next| Expiry::At(next).has_passed(now))
    }

    /// The meter with a reserved rest given back and every refill that has come due taken into account.
    ///
    /// A refill replaces a balance that is lower; it never adds to one, and never lowers one. Several that were missed
    /// count as one.
    #[must_use]
    pub fn settle(self, rest: u64, now: Timestamp) -> Self {
        let Uses::Left(left) = self.uses else { return self };
        let whole = left.saturating_add(rest).min(AMOUNT_MAX);
        match self.refill.filter(|_| self.refill_due(now)) {
            Some(refill) => Self {
                uses: Uses::Left(whole.max(refill.amount)),
                settled: now.max(self.settled),
                generation: self.generation + 1,
                ..self
            },
            None => Self { uses: Uses::Left(whole), ..self },
        }
    }

    /// The meter with another balance, which voids what is reserved of this one. Unlimited, it has no refill.
    #[must_use]
    pub fn replaced(self, credits: Option<Credits>, now: Timestamp) -> Self {
        Self { generation: self.generation + 1, holders: self.holders, ..Self::starting(credits, now) }
    }

    /// What a caller sees of it, with `rest` reserved; nothing if it is unlimited.
    pub fn credits(&self, rest: u64) -> Option<Credits> {
        match self.uses {
            Uses::Unlimited => None,
            Uses::Left(left) => Some(Credits { remaining: left.saturating_add(rest), refill: self.refill }),
        }
    }

    /// How much to reserve for something that costs so much: the cost and a block of at most a hundredth of what is left
    /// then and at most [`BLOCK_MAX`]. None if the balance does not afford it.
    pub fn reservation(&self, cost: u64) -> Option<u64> {
        match self.uses {
            Uses::Unlimited => Some(0),
            Uses::Left(left) => left.checked_sub(cost).map(|after| cost + block(after)),
        }
    }

    /// How much may be reserved in all, with `rest` reserved, while nothing is being paid. Never more than is left.
    pub fn block(&self, rest: u64) -> u64 {
        match self.uses {
            Uses::Unlimited => 0,
            Uses::Left(left) => block(left.saturating_add(rest)),
        }
    }
}

fn block(left: u64) -> u64 {
    (left / BLOCK_PART).min(BLOCK_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let since = humantime::parse_rfc3339(text).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap()).unwrap()
    }

    fn monthly(day: u8) -> Refill {
        Refill::new(Interval::Monthly(day), 100).unwrap()
    }

    #[test]
    fn a_day_begins_at_midnight_in_utc() {
        let daily = Refill::new(Interval::Daily, 1).unwrap();
        for (from, next) in [
            ("2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
            ("2026-02-28T23:59:59.999Z", "2026-03-01T00:00:00Z"),
            ("2028-02-28T12:00:00Z", "2028-02-29T00:00:00Z"),
            ("2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(daily.next_after(at(from)), Some(at(next)), "{from}");
        }
    }

    #[test]
    fn a_short_month_refills_on_its_last_day() {
        for (day, from, next) in [
            (1, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            (1, "2026-01-31T23:59:59.999Z", "2026-02-01T00:00:00Z"),
            (31, "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"),
            (31, "2026-02-27T23:59:59.999Z", "2026-02-28T00:00:00Z"),
            (31, "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"),
            (30, "2028-02-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            (29, "2100-02-01T00:00:00Z", "2100-02-28T00:00:00Z"),
            (15, "2026-12-15T00:00:00Z", "2027-01-15T00:00:00Z"),
        ] {
            assert_eq!(monthly(day).next_after(at(from)), Some(at(next)), "{day} {from}");
        }
    }

    #[test]
    fn time_ends_without_a_refill() {
        assert_eq!(monthly(1).next_after(Timestamp::LAST), None);
        assert_eq!(Refill::new(Interval::Daily, 1).unwrap().next_after(Timestamp::LAST), None);
    }

    #[test]
    fn a_refill_replaces_a_lower_balance_and_leaves_a_higher_one() {
        let start = at("2026-01-10T12:00:00Z");
        let meter = |remaining| Meter::starting(Some(Credits { remaining, refill: Some(monthly(1)) }), start);
        let after = at("2026-04-20T00:00:00Z");
        assert_eq!(meter(7).settle(0, after).uses, Uses::Left(100));
        assert_eq!(meter(7).settle(150, after).uses, Uses::Left(157));
        assert_eq!(meter(500).settle(0, after).uses, Uses::Left(500));
        let settled = meter(7).settle(0, after);
        assert_eq!((settled.settled, settled.generation), (after, 1));
        assert_eq!(settled.settle(0, after), settled);
    }

    #[test]
    fn a_refill_comes_on_its_very_millisecond() {
        let start = at("2026-01-10T12:00:00Z");
        let meter = Meter::starting(Some(Credits { remaining: 0, refill: Some(monthly(31)) }), start);
        assert!(!meter.refill_due(at("2026-01-30T23:59:59.999Z")));
        assert!(meter.refill_due(at("2026-01-31T00:00:00Z")));
    }

    #[test]
    fn a_block_is_at_most_a_hundredth_and_at_most_a_thousand() {
        let meter = |remaining| Meter::starting(Some(Credits { remaining, refill: None }), Timestamp::EPOCH);
        for (remaining, cost, reserved) in [
            (10, 1, Some(1)),
            (100, 1, Some(1)),
            (101, 1, Some(2)),
            (1_000, 1, Some(10)),
            (1_000_000, 1, Some(1_001)),
            (5, 5, Some(5)),
            (5, 6, None),
            (0, 0, Some(0)),
        ] {
            assert_eq!(meter(remaining).reservation(cost), reserved, "{remaining} {cost}");
        }
    }
}
