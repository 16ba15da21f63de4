//! Credits: spent from memory, backed by reservations on disk.
//!
//! Every acknowledged spend is covered by a durable reservation: a block is taken off the balance in one commit and spent
//! from memory. A clean stop gives the rest back, a crash forfeits at most the block. Nothing is ever overspent.
//!
//! Whoever moves credits between disk and memory holds the purse meanwhile, so that nobody counts them twice; and does it
//! in a task of its own, so that a caller who goes away leaves nothing half done.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::domain::credits::{Credits, Meter, Uses};
use crate::domain::id::{KeyId, WorkspaceId};
use crate::domain::key::Key;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::{Engine, Failure, Stop, Txn, tables};

use super::housekeeping::settle_now;
use super::pace::Pace;
use super::sight::Sight;
use super::{Ostiary, Reading, Revision};

mod adjusting;

pub use adjusting::{Adjustment, CreditsPatch};
pub(super) use adjusting::{open, patched};

/// Balances of which something may be in memory at a time; beyond, each spend is a commit of its own.
const PURSES_MAX: usize = 100_000;
/// From how many on room is made sooner.
const PURSES_MANY: usize = PURSES_MAX / 2;
/// Locks that those balances share.
const SHARDS: usize = 64;
/// Looks in a row at which nothing was spent, after which what is in memory goes back to the disk: a minute or little
/// more. A key that is used every few seconds does not cost two commits each time.
const IDLE_LOOKS: u32 = 12;
/// The same where there are many.
const IDLE_LOOKS_OF_MANY: u32 = 1;

/// Whose balance: the workspace, and the first key of the line.
pub type Account = (WorkspaceId, KeyId);

/// What of a balance is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved {
    generation: u64,
    /// What can be spent.
    left: u64,
    /// What was left on disk when it was reserved.
    behind: u64,
}

impl Reserved {
    /// What of it still belongs to the meter as it is.
    fn of(self, meter: &Meter) -> u64 {
        if self.generation == meter.generation { self.left } else { 0 }
    }

    /// What a caller sees of the meter, with what is in memory and every refill taken into account.
    pub fn shown(self, meter: &Meter, now: Timestamp) -> Option<Credits> {
        meter.settle(self.of(meter), now).credits(0)
    }
}

/// Whether something could be paid from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payment {
    /// It was, or costs nothing. This is left.
    Paid(Uses),
    /// There is not enough in memory, or a refill is due: see what the disk has.
    Short,
}

/// What the disk had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// Enough; try to pay again.
    Made,
    /// Too little: only so much is left.
    Refused(Uses),
}

/// What has been reserved and not spent yet.
pub struct Purses {
    hasher: RandomState,
    shards: Box<[Shard]>,
}

type Shard = Mutex<HashMap<Account, Arc<Purse>, RandomState>>;

#[derive(Default)]
struct Purse {
    reserved: Mutex<Reserved>,
    /// Looks in a row since it was spent from.
    idle_looks: AtomicU32,
    /// Held by whoever moves credits between disk and memory.
    moving: Arc<tokio::sync::Mutex<()>>,
}

impl Default for Purses {
    fn default() -> Self {
        Self { hasher: RandomState::default(), shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl Purses {
    fn shard(&self, account: Account) -> &Shard {
        let place = self.hasher.hash_one(account) % SHARDS as u64;
        &self.shards[usize::try_from(place).unwrap_or(0)]
    }

    fn number(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// What is in memory of a balance.
    pub fn reserved(&self, account: Account) -> Reserved {
        self.shard(account).lock().get(&account).map(|purse| *purse.reserved.lock()).unwrap_or_default()
    }

    /// Pays from memory, if that is possible at once. It takes no longer than a lock.
    pub fn pay(&self, account: Account, meter: &Meter, cost: u64, now: Timestamp) -> Payment {
        if meter.uses == Uses::Unlimited {
            return Payment::Paid(Uses::Unlimited);
        }
        let purses = self.shard(account).lock();
        let Some(purse) = purses.get(&account) else { return Payment::free(cost, Reserved::default(), meter, now) };
        let mut reserved = purse.reserved.lock();
        // A meter that was looked at before the reservation is older than it.
        let void = reserved.generation < meter.generation;
        let refill_due = meter.refill_due(now) && reserved.generation <= meter.generation;
        if cost == 0 || void || refill_due || reserved.left < cost {
            return Payment::free(cost, *reserved, meter, now);
        }
        reserved.left -= cost;
        purse.idle_looks.store(0, Ordering::Relaxed);
        Payment::Paid(Uses::Left(reserved.left + reserved.behind))
    }

    fn purse(&self, account: Account) -> Arc<Purse> {
        Arc::clone(self.shard(account).lock().entry(account).or_default())
    }

    fn is_full(&self) -> bool {
        self.number() > PURSES_MAX
    }

    /// Forgets a purse that is empty and that nobody else holds.
    fn forget(&self, account: Account) {
        let mut purses = self.shard(account).lock();
        let idle = |purse: &Arc<Purse>| Arc::strong_count(purse) == 1 && purse.reserved.lock().left == 0;
        if purses.get(&account).is_some_and(idle) {
            purses.remove(&account);
        }
    }

    fn accounts(&self) -> Vec<Account> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().copied().collect::<Vec<_>>()).collect()
    }
}

impl Payment {
    /// What costs nothing is paid even where nothing is left.
    fn free(cost: u64, reserved: Reserved, meter: &Meter, now: Timestamp) -> Self {
        if cost > 0 {
            return Self::Short;
        }
        Self::Paid(reserved.shown(meter, now).map_or(Uses::Unlimited, |credits| Uses::Left(credits.remaining)))
    }
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

/// A purse in the hands of somebody who moves credits in or out of it.
pub(super) struct Held {
    account: Account,
    purse: Arc<Purse>,
    _moving: OwnedMutexGuard<()>,
}

/// Moves what is in memory back to the disk and, if the balance affords a cost, a new reservation to memory.
///
/// What was in memory is nobody's meanwhile. If the commit fails for certain it is put back; if that is not known it is
/// forfeited, since it may have reached the disk.
async fn exchange(engine: Arc<dyn Engine>, held: Held, wanted: Wanted, now: Timestamp) -> Result<Exchanged, Failure> {
    let account = held.account;
    let taken = std::mem::take(&mut *held.purse.reserved.lock());
    let moved = settle_now(engine.as_ref(), move |tx| {
        let Some(meter) = tables::METERS.get(tx, &account)? else {
            return Ok((Reserved::default(), Reservation::Made, None));
        };
        let settled = meter.settle(taken.of(&meter), now);
        let amount = match wanted {
            Wanted::Nothing => None,
            Wanted::Exactly(cost) => settled.uses.affords(cost).then_some(cost),
            Wanted::WithBlock(cost) => settled.reservation(cost),
        };
        let (after, reserved, reservation) = match (settled.uses, amount) {
            (Uses::Left(left), Some(amount)) => {
                let behind = left - amount;
                let reserved = Reserved { generation: settled.generation, left: amount, behind };
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
            *held.purse.reserved.lock() = reserved;
            Ok(Exchanged { held, reservation, written: written.map(|meter| (meter, revision)) })
        }
        Err(Failure::Unknown(why)) => Err(Failure::Unknown(why)),
        Err(failure) => {
            *held.purse.reserved.lock() = taken;
            Err(failure)
        }
    }
}

/// What has come of an exchange.
struct Exchanged {
    held: Held,
    reservation: Reservation,
    /// The meter, if it was written, and the revision that did.
    written: Option<(Meter, Revision)>,
}

/// What is to be in memory after an exchange.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// Nothing.
    Nothing,
    /// What this costs.
    Exactly(u64),
    /// What this costs, and a block for those who come next.
    WithBlock(u64),
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
        let Some(meter) = Sight::remembering(self).record(&tables::METERS, &account).await? else {
            return Ok(Reservation::Made);
        };
        let meter = &meter.record;
        let reserved = *held.purse.reserved.lock();
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

    /// What is left to use just now, for whoever only asks.
    pub(super) async fn uses_of(&self, account: Account) -> Result<Uses, Error> {
        // While credits are being moved they are in nobody's sight.
        let held = self.hold(account).await;
        let reading = self.read(None).await?;
        let meter = tables::METERS.read(reading.view(), &account).await?;
        let reserved = *held.purse.reserved.lock();
        drop(held);
        self.credits.forget(account);
        let credits = meter.and_then(|meter| reserved.shown(&meter, reading.now));
        Ok(credits.map_or(Uses::Unlimited, |credits| Uses::Left(credits.remaining)))
    }

    /// Takes a balance out of everybody's hands, with all of it on disk.
    pub(super) async fn hold_all(&self, account: Account) -> Result<Held, Error> {
        let held = self.hold(account).await;
        if held.purse.reserved.lock().left == 0 {
            return Ok(held);
        }
        let now = self.world.now();
        self.exchange(held, Wanted::Nothing, now).await.map(|(held, _)| held)
    }

    async fn hold(&self, account: Account) -> Held {
        let purse = self.credits.purse(account);
        let moving = Arc::clone(&purse.moving).lock_owned().await;
        Held { account, purse, _moving: moving }
    }

    async fn exchange(&self, held: Held, wanted: Wanted, now: Timestamp) -> Result<(Held, Reservation), Error> {
        let engine = Arc::clone(&self.engine);
        let done = tokio::spawn(exchange(engine, held, wanted, now)).await;
        let done = done.map_err(|_| Error::Internal("credits were being moved when that panicked".to_owned()))?;
        let Exchanged { held, reservation, written } = done?;
        if let Some((meter, revision)) = written {
            // It is asked for next, by whoever has waited for this.
            self.memory.learn(&tables::METERS, &held.account, meter, revision);
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
