//! Moving credits between disk and memory.

use std::sync::Arc;

use crate::domain::credits::{Meter, Uses};
use crate::domain::time::Timestamp;
use crate::service::Revision;
use crate::service::housekeeping::settle_now;
use crate::store::{Engine, Failure, Priority, tables};

use super::Reservation;
use super::purses::{Held, Reserved};

/// Moves what is in memory back to the disk and, if the balance affords a cost, a new reservation to memory.
///
/// What was in memory is nobody's meanwhile. If the commit fails for certain it is put back; if that is not known it is
/// forfeited, since it may have reached the disk.
pub(super) async fn exchange(
    engine: Arc<dyn Engine>,
    held: Held,
    wanted: Wanted,
    now: Timestamp,
) -> Result<Exchanged, Failure> {
    let account = held.account;
    let taken = std::mem::take(&mut held.purse.contents.lock().reserved);
    let moved = settle_now(engine.as_ref(), wanted.priority(), move |tx| {
        let Some(meter) = tables::METERS.get(tx, &account)? else {
            return Ok((Reserved::default(), Reservation::Made, None));
        };
        let settled = meter.settle(taken.of(&meter), now);
        let (amount, cost) = match wanted {
            Wanted::Nothing => (None, 0),
            Wanted::Exactly(cost) => (settled.uses.affords(cost).then_some(cost), cost),
            Wanted::WithBlock(cost) => (settled.reservation(cost), cost),
        };
        let (after, reserved, reservation) = match (settled.uses, amount) {
            (Uses::Left(left), Some(amount)) => {
                let behind = left - amount;
                let generation = settled.generation;
                let reserved = Reserved { generation, left: amount, behind, block: amount - cost };
                (Meter { uses: Uses::Left(behind), ..settled }, reserved, Reservation::Made)
            }
            (Uses::Unlimited, _) => (settled, Reserved::default(), Reservation::Made),
            (Uses::Left(_), None) => (settled, Reserved::default(), Reservation::Refused(settled.uses)),
        };
        if after == meter {
            return Ok((reserved, reservation, None));
        }
        tables::METERS.put(tx, &account, &after)?;
        Ok((reserved, reservation, Some(after)))
    })
    .await;
    match moved {
        Ok(((reserved, reservation, written), revision)) => {
            held.purse.contents.lock().reserved = reserved;
            Ok(Exchanged { held, reservation, written: written.map(|meter| (meter, revision)) })
        }
        Err(Failure::Unknown(why)) => Err(Failure::Unknown(why)),
        Err(failure) => {
            held.purse.contents.lock().reserved = taken;
            Err(failure)
        }
    }
}

/// What has come of an exchange.
pub(super) struct Exchanged {
    pub held: Held,
    pub reservation: Reservation,
    /// The meter, if it was written, and the revision that did.
    pub written: Option<(Meter, Revision)>,
}

/// What is to be in memory after an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    /// Nothing.
    Nothing,
    /// What this costs.
    Exactly(u64),
    /// What this costs, and a block for those who come next.
    WithBlock(u64),
}

impl Wanted {
    /// What is reserved is mostly small, and there may be very many that want it; whoever gives back wants to change the
    /// balance.
    const fn priority(self) -> Priority {
        match self {
            Self::Nothing => Priority::Interactive,
            Self::Exactly(_) | Self::WithBlock(_) => Priority::Patient,
        }
    }
}
