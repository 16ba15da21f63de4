//! What of balances is in memory, and paying from it.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::domain::credits::{Credits, Meter, Uses};
use crate::domain::time::Timestamp;
use crate::store::cache::Entry;

use super::Account;

/// Balances of which something may be in memory at a time; beyond, each spend is a commit of its own.
const PURSES_MAX: usize = 100_000;
/// From how many on room is made sooner.
pub(super) const PURSES_MANY: usize = PURSES_MAX / 2;
/// Locks that those balances share.
const SHARDS: usize = 64;
/// A block of which no more than this part is left runs low.
const LOW_PARTS: u64 = 3;

/// What of a balance is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved {
    pub(super) generation: u64,
    /// What can be spent.
    pub(super) left: u64,
    /// What was left on disk when it was reserved.
    pub(super) behind: u64,
    /// How much there was for those who come next when it was reserved.
    pub(super) block: u64,
}

impl Reserved {
    /// What of it still belongs to the meter as it is.
    pub(super) fn of(self, meter: &Meter) -> u64 {
        if self.generation == meter.generation { self.left } else { 0 }
    }

    /// What a caller sees of the meter, with what is in memory and every refill taken into account.
    pub fn shown(self, meter: &Meter, now: Timestamp) -> Option<Credits> {
        meter.settle(self.of(meter), now).credits(0)
    }

    /// Whether so little of a block is left that there should be more before it is spent.
    const fn runs_low(self) -> bool {
        self.block > 0 && self.left.saturating_mul(LOW_PARTS) <= self.block
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

/// What has been reserved and not spent yet.
pub struct Purses {
    hasher: RandomState,
    shards: Box<[Shard]>,
    /// How many there are.
    number: AtomicUsize,
    /// Those that run low.
    low: Mutex<Vec<Account>>,
    /// Rung when one does and none did.
    bell: Notify,
}

type Shard = Mutex<HashMap<Account, Arc<Purse>, RandomState>>;

#[derive(Default)]
pub(super) struct Purse {
    pub(super) contents: Mutex<Contents>,
    /// Looks in a row since it was spent from.
    pub(super) idle_looks: AtomicU32,
    /// Whether it is among those that run low.
    is_low: AtomicBool,
    /// Held by whoever moves credits between disk and memory.
    pub(super) moving: Arc<tokio::sync::Mutex<()>>,
}

/// What is in a purse.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Contents {
    pub(super) reserved: Reserved,
    /// The meter as it was when something was last moved. Whether it still counts is for the marks to say.
    pub(super) meter: Option<Entry<Meter>>,
}

impl Default for Purses {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            number: AtomicUsize::new(0),
            low: Mutex::default(),
            bell: Notify::new(),
        }
    }
}

impl Purses {
    fn shard(&self, account: Account) -> &Shard {
        let place = self.hasher.hash_one(account) % SHARDS as u64;
        &self.shards[usize::try_from(place).unwrap_or(0)]
    }

    /// What is in memory of a balance.
    pub fn reserved(&self, account: Account) -> Reserved {
        self.shard(account).lock().get(&account).map(|purse| purse.contents.lock().reserved).unwrap_or_default()
    }

    /// The meter as the last who moved credits have left it.
    pub(in crate::service) fn meter(&self, account: Account) -> Option<Entry<Meter>> {
        self.shard(account).lock().get(&account).and_then(|purse| purse.contents.lock().meter)
    }

    /// Pays from memory, if that is possible at once. It takes no longer than a lock.
    pub fn pay(&self, account: Account, meter: &Meter, cost: u64, now: Timestamp) -> Payment {
        if meter.uses == Uses::Unlimited {
            return Payment::Paid(Uses::Unlimited);
        }
        let purses = self.shard(account).lock();
        let Some(purse) = purses.get(&account) else { return Payment::free(cost, Reserved::default(), meter, now) };
        let reserved = &mut purse.contents.lock().reserved;
        // A meter that was looked at before the reservation is older than it.
        let void = reserved.generation < meter.generation;
        let refill_due = meter.refill_due(now) && reserved.generation <= meter.generation;
        if cost == 0 || void || refill_due || reserved.left < cost {
            return Payment::free(cost, *reserved, meter, now);
        }
        reserved.left -= cost;
        purse.idle_looks.store(0, Ordering::Relaxed);
        if reserved.runs_low() && !purse.is_low.swap(true, Ordering::Relaxed) {
            self.runs_low(account);
        }
        Payment::Paid(Uses::Left(reserved.left + reserved.behind))
    }

    /// Looks at what is in memory of a balance that nobody moves credits in or out of, nor will before the look has
    /// ended. Nothing if somebody does.
    pub(super) fn at_rest<R>(&self, account: Account, look: impl FnOnce(Contents) -> Option<R>) -> Option<R> {
        let purses = self.shard(account).lock();
        match purses.get(&account) {
            Some(purse) => {
                let _moving = purse.moving.try_lock().ok()?;
                look(*purse.contents.lock())
            }
            // Whoever wants to begin needs one first.
            None => look(Contents::default()),
        }
    }

    fn runs_low(&self, account: Account) {
        let mut low = self.low.lock();
        low.push(account);
        if low.len() == 1 {
            self.bell.notify_one();
        }
    }

    /// Waits until a purse runs low. Some may still do since filling up others failed.
    pub(super) async fn one_runs_low(&self) {
        if !self.some_are_low() {
            self.bell.notified().await;
        }
    }

    /// Those that have run low, at most so many of them, in the hands of the caller; without those that are being filled
    /// already.
    pub(super) fn take_low(&self, most: usize) -> Vec<Held> {
        let mut low = self.low.lock();
        let first = low.len().saturating_sub(most);
        let accounts = low.split_off(first);
        drop(low);
        let take = |account: Account| {
            let purse = self.shard(account).lock().get(&account).cloned()?;
            purse.is_low.store(false, Ordering::Relaxed);
            let moving = Arc::clone(&purse.moving).try_lock_owned().ok()?;
            Some(Held { account, purse, _moving: moving })
        };
        accounts.into_iter().filter_map(take).collect()
    }

    /// Whether any has run low.
    pub(super) fn some_are_low(&self) -> bool {
        !self.low.lock().is_empty()
    }

    pub(super) fn purse(&self, account: Account) -> Arc<Purse> {
        let new = || {
            self.number.fetch_add(1, Ordering::Relaxed);
            Arc::default()
        };
        Arc::clone(self.shard(account).lock().entry(account).or_insert_with(new))
    }

    pub(super) fn is_full(&self) -> bool {
        self.number.load(Ordering::Relaxed) > PURSES_MAX
    }

    /// Forgets a purse that is empty and that nobody else holds.
    pub(super) fn forget(&self, account: Account) {
        let mut purses = self.shard(account).lock();
        let idle = |purse: &Arc<Purse>| Arc::strong_count(purse) == 1 && purse.contents.lock().reserved.left == 0;
        if purses.get(&account).is_some_and(idle) {
            purses.remove(&account);
            self.number.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn accounts(&self) -> Vec<Account> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().copied().collect::<Vec<_>>()).collect()
    }
}

/// A purse in the hands of somebody who moves credits in or out of it.
pub(in crate::service) struct Held {
    pub(super) account: Account,
    pub(super) purse: Arc<Purse>,
    _moving: OwnedMutexGuard<()>,
}

impl Held {
    /// Waits until nobody else moves credits.
    pub(super) async fn of(purses: &Purses, account: Account) -> Self {
        let purse = purses.purse(account);
        let moving = Arc::clone(&purse.moving).lock_owned().await;
        Self { account, purse, _moving: moving }
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::domain::id::{KeyId, WorkspaceId};

    #[test]
    fn those_that_run_low_are_told_of_until_all_have_been_taken() {
        let purses = Purses::default();
        let accounts = [1, 2, 3].map(|n| (WorkspaceId::from_bytes([n; 16]), KeyId::from_bytes([n; 16])));
        assert!(purses.one_runs_low().now_or_never().is_none());
        for account in accounts {
            purses.purse(account);
            purses.runs_low(account);
        }
        for _ in accounts {
            assert!(purses.one_runs_low().now_or_never().is_some());
            assert_eq!(purses.take_low(1).len(), 1);
        }
        // The bell has been rung once more than somebody waited for it.
        let _ = purses.one_runs_low().now_or_never();
        assert!(purses.one_runs_low().now_or_never().is_none());
    }

    #[test]
    fn a_purse_in_somebodys_hands_is_neither_taken_nor_at_rest_nor_forgotten() {
        let purses = Purses::default();
        let account = (WorkspaceId::from_bytes([1; 16]), KeyId::from_bytes([1; 16]));
        assert_eq!(purses.at_rest(account, |contents| Some(contents.reserved)), Some(Reserved::default()));
        let held = Held::of(&purses, account).now_or_never().unwrap();
        assert_eq!(purses.at_rest(account, |contents| Some(contents.reserved)), None);
        purses.runs_low(account);
        assert!(purses.take_low(1).is_empty());
        purses.forget(account);
        assert_eq!(purses.accounts(), [account]);
        drop(held);
        purses.forget(account);
        assert!(purses.accounts().is_empty());
    }
}
