//! Balances on disk.

use crate::domain::credits::{Credits, Interval, Meter, Refill, Uses};
use crate::domain::id::{KeyId, WorkspaceId};
use crate::pb::storage;

use super::{Stored, millis, moment};

impl Stored<(WorkspaceId, KeyId)> for Meter {
    type Message = storage::Meter;

    fn to_message(&self) -> storage::Meter {
        let Self { uses, refill, settled, generation, holders } = *self;
        let left = match uses {
            Uses::Unlimited => None,
            Uses::Left(left) => Some(left),
        };
        storage::Meter { left, refill: refill.map(refill_message), settled: millis(settled), generation, holders }
    }

    fn from_message(_: &(WorkspaceId, KeyId), message: storage::Meter) -> Option<Self> {
        let storage::Meter { left, refill, settled, generation, holders } = message;
        let uses = left.map_or(Uses::Unlimited, Uses::Left);
        Some(Self { uses, refill: optional_refill(refill)?, settled: moment(settled)?, generation, holders })
    }
}

/// What is left to use, as a call is remembered to have answered.
pub fn credits_message(credits: &Credits) -> storage::Credits {
    let Credits { remaining, refill } = *credits;
    storage::Credits { remaining, refill: refill.map(refill_message) }
}

/// The same, read back.
pub fn to_credits(message: storage::Credits) -> Option<Credits> {
    let storage::Credits { remaining, refill } = message;
    Some(Credits { remaining, refill: optional_refill(refill)? })
}

fn refill_message(refill: Refill) -> storage::Refill {
    let day = match refill.interval() {
        Interval::Daily => None,
        Interval::Monthly(day) => Some(day.into()),
    };
    storage::Refill { amount: refill.amount(), day }
}

fn optional_refill(message: Option<storage::Refill>) -> Option<Option<Refill>> {
    let Some(storage::Refill { amount, day }) = message else { return Some(None) };
    let interval = match day {
        None => Interval::Daily,
        Some(day) => Interval::Monthly(u8::try_from(day).ok()?),
    };
    Refill::new(interval, amount).ok().map(Some)
}
