//! Credits: spent from memory, backed by reservations on disk.
//!
//! Every acknowledged spend is covered by a durable reservation: a block is taken off the balance in one commit and spent
//! from memory. A clean stop gives the rest back, a crash forfeits at most the block. Nothing is ever overspent.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::credits::{Credits, Meter};
use crate::domain::id::{KeyId, WorkspaceId};
use crate::domain::key::Key;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::{Stop, Txn, tables};

use super::{Ostiary, Reading};

/// Whose balance: the workspace, and the first key of the line.
pub type Account = (WorkspaceId, KeyId);

/// What of a balance is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved {
    generation: u64,
    left: u64,
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

/// What has been reserved and not spent yet.
#[derive(Default)]
pub struct Purses(Mutex<HashMap<Account, Arc<Purse>>>);

#[derive(Default)]
struct Purse {
    reserved: Mutex<Reserved>,
}

impl Purses {
    /// What is in memory of a balance.
    pub fn reserved(&self, account: Account) -> Reserved {
        self.0.lock().get(&account).map(|purse| *purse.reserved.lock()).unwrap_or_default()
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

impl Ostiary {
    /// What is left to use of a key.
    pub(super) async fn credits_of(&self, reading: &Reading, key: &Key) -> Result<Option<Credits>, Error> {
        let Some(lineage) = key.meter else { return Ok(None) };
        let account = (key.workspace, lineage);
        let meter = tables::METERS.read(reading.view(), &account).await?;
        Ok(meter.and_then(|meter| self.credits.reserved(account).shown(&meter, reading.now)))
    }
}
