//! Credits: spent from memory, backed by reservations on disk.
//!
//! Every acknowledged spend is covered by a durable reservation: a block is taken off the balance in one commit and spent
//! from memory. A clean stop gives the rest back, a crash forfeits at most the block. Nothing is ever overspent. Before a
//! block is spent it is filled up in the background, together with others, so that hardly anybody waits for the disk.
//!
//! Whoever moves credits between disk and memory holds the purse meanwhile, so that nobody counts them twice; and does it
//! in a task of its own, so that a caller who goes away leaves nothing half done.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::domain::credits::{Credits, Meter, Uses};
use crate::domain::id::{KeyId, WorkspaceId};
use crate::domain::key::Key;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::{Stop, Txn, tables};

use super::pace::Pace;
use super::sight::Sight;
use super::{Ostiary, Reading};

mod adjusting;
mod moving;
mod purses;
mod topping;

pub use adjusting::{Adjustment, CreditsPatch};
pub(super) use adjusting::{open, patched};
pub(super) use purses::Held;
pub use purses::{Payment, Purses, Reserved};

use moving::{Exchanged, Wanted, exchange};
use purses::{Contents, PURSES_MANY};

/// Looks in a row at which nothing was spent, after which what is in memory goes back to the disk: a minute or little
/// more. A key that is used every few seconds does not cost two commits each time.
const IDLE_LOOKS: u32 = 12;
/// The same where there are many.
const IDLE_LOOKS_OF_MANY: u32 = 1;

/// Whose balance: the workspace, and the first key of the line.
pub type Account = (WorkspaceId, KeyId);

/// What the disk had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// Enough; try to pay again.
    Made,
    /// Too little: only so much is left.
    Refused(Uses),
}

/// One key fewer shares a meter; with the last one it goes.
pub(super) fn let_go(tx: &mut Txn<'_>, account: Account) -> Result<(), Stop> {
    match tables::METERS.get(tx, &account)? {
        Some(meter) if meter.holders > 1 => {
            tables::METERS.put(tx, &account, &Meter { holders: meter.holders - 1, ..meter })
        }
        Some(_) => tables::METERS.remove(tx, &account),
        None => Ok(()),
    }
}

impl Ostiary {
    /// What is left to use of a key.
    pub(super) async fn credits_of(&self, reading: &Reading, key: &Key) -> Result<Option<Credits>, Error> {
        let Some(lineage) = key.meter else { return Ok(None) };
        let account = (key.workspace, lineage);
        let meter = tables::METERS.read(reading.view(), &account).await?;
        Ok(meter.and_then(|meter| self.credits.reserved(account).shown(&meter, reading.now)))
    }

    /// Reserves what something costs, or learns that the balance does not afford it.
    ///
    /// Where it is clear from what is at hand that it does not, nothing is written: whoever asks again and again with an
    /// empty balance costs no commits.
    pub(super) async fn reserve(&self, account: Account, cost: u64) -> Result<Reservation, Error> {
        let wanted = if self.credits.is_full() { Wanted::Exactly(cost) } else { Wanted::WithBlock(cost) };
        let held = self.hold(account).await;
        let now = self.world.now();
        let Some(meter) = Sight::remembering(self).meter(account).await? else {
            return Ok(Reservation::Made);
        };
        let meter = &meter.record;
        let reserved = held.purse.contents.lock().reserved;
        let refill_due = meter.refill_due(now);
        let at_hand = reserved.of(meter);
        if !refill_due && at_hand >= cost {
            return Ok(Reservation::Made);
        }
        let whole = meter.settle(at_hand, now);
        if !refill_due && !whole.uses.affords(cost) {
            drop(held);
            self.credits.forget(account);
            return Ok(Reservation::Refused(whole.uses));
        }
        self.exchange(held, wanted, now).await.map(|(_, reservation)| reservation)
    }

    /// What is left of a balance that does not afford a cost, where that can be told without waiting.
    pub(super) fn too_little_at_hand(&self, account: Account, cost: u64, now: Timestamp) -> Option<Uses> {
        self.credits.at_rest(account, |Contents { reserved, meter }| {
            // Whoever changes it on disk holds its purse.
            let meter = self.memory.meter_in_force(account, meter)?.record;
            let whole = meter.settle(reserved.of(&meter), now);
            (!meter.refill_due(now) && !whole.uses.affords(cost)).then_some(whole.uses)
        })
    }

    /// What is left to use just now, for whoever only asks.
    pub(super) async fn uses_of(&self, account: Account) -> Result<Uses, Error> {
        // While credits are being moved they are in nobody's sight.
        let held = self.hold(account).await;
        let reading = self.read(None).await?;
        let meter = tables::METERS.read(reading.view(), &account).await?;
        let reserved = held.purse.contents.lock().reserved;
        drop(held);
        self.credits.forget(account);
        let credits = meter.and_then(|meter| reserved.shown(&meter, reading.now));
        Ok(credits.map_or(Uses::Unlimited, |credits| Uses::Left(credits.remaining)))
    }

    /// Takes a balance out of everybody's hands, with all of it on disk.
    pub(super) async fn hold_all(&self, account: Account) -> Result<Held, Error> {
        let held = self.hold(account).await;
        if held.purse.contents.lock().reserved.left == 0 {
            return Ok(held);
        }
        let now = self.world.now();
        self.exchange(held, Wanted::Nothing, now).await.map(|(held, _)| held)
    }

    async fn hold(&self, account: Account) -> Held {
        Held::of(&self.credits, account).await
    }

    async fn exchange(&self, held: Held, wanted: Wanted, now: Timestamp) -> Result<(Held, Reservation), Error> {
        let engine = Arc::clone(&self.engine);
        let done = tokio::spawn(exchange(engine, held, wanted, now)).await;
        let done = done.map_err(|_| Error::Internal("credits were being moved when that panicked".to_owned()))?;
        let Exchanged { held, reservation, written } = done?;
        if let Some((meter, revision)) = written {
            // It is asked for next, by whoever has waited for this.
            held.purse.contents.lock().meter = Some(self.memory.meter_as_left(held.account, meter, revision));
        }
        Ok((held, reservation))
    }

    /// Gives back what has been reserved and was not spent from for some looks.
    ///
    /// # Errors
    /// What can't be given back stays where it is.
    pub async fn return_idle_credits(&self, pace: Pace) -> Result<(), Error> {
        let mut paced = pace.begin(&self.world);
        let accounts = self.credits.accounts();
        let most = if accounts.len() > PURSES_MANY { IDLE_LOOKS_OF_MANY } else { IDLE_LOOKS };
        for account in accounts {
            if self.credits.purse(account).idle_looks.fetch_add(1, Ordering::Relaxed) >= most {
                drop(self.hold_all(account).await?);
                self.credits.forget(account);
                paced.rest().await;
            }
        }
        Ok(())
    }

    /// Gives back everything that has been reserved.
    pub(super) async fn return_all_credits(&self) -> Result<(), Error> {
        for account in self.credits.accounts() {
            drop(self.hold_all(account).await?);
            self.credits.forget(account);
        }
        Ok(())
    }
}
