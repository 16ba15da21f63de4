//! Filling up what is in memory before it is spent.
//!
//! Many purses are filled in one commit, and meanwhile spent from: whoever pays waits for the disk only where a block is
//! spent sooner than that.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::credits::{Meter, Uses};
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::service::Ostiary;
use crate::service::housekeeping::settle_now;
use crate::store::{Failure, Priority, tables};

use super::purses::{Contents, Held, Reserved};

/// How long purses that run low are gathered.
const GATHERED_FOR: Duration = Duration::from_millis(25);
/// Purses that are filled up in one transaction.
const AT_ONCE: usize = 256;

/// What filling up a purse comes to.
#[derive(Clone)]
struct Topped {
    /// The meter as it is then.
    meter: Meter,
    /// What was taken off it.
    extra: u64,
}

impl Topped {
    /// Takes off a balance what a purse lacks. Nothing if it lacks nothing, or if there is something else to be seen to
    /// first.
    fn of(meter: Meter, reserved: Reserved, now: Timestamp) -> Option<Self> {
        let Uses::Left(left) = meter.uses else { return None };
        if reserved.generation != meter.generation || meter.refill_due(now) {
            return None;
        }
        let extra = meter.block(reserved.left).saturating_sub(reserved.left);
        (extra > 0).then(|| Self { meter: Meter { uses: Uses::Left(left - extra), ..meter }, extra })
    }
}

impl Ostiary {
    /// Waits until what is in memory of some balance runs low, and a moment for others.
    pub async fn credits_run_low(&self) {
        self.credits.one_runs_low().await;
        tokio::time::sleep(GATHERED_FOR).await;
    }

    /// Fills up what is in memory of those balances that run low.
    ///
    /// # Errors
    /// Of those that could not be filled nothing is lost: whoever pays from them reserves for himself.
    pub async fn top_up_credits(self: &Arc<Self>) -> Result<(), Error> {
        while self.credits.some_are_low() {
            let low = self.credits.take_low(AT_ONCE);
            // In a task of its own: what has been taken off a balance arrives, whoever goes away.
            let ostiary = Arc::clone(self);
            let done = tokio::spawn(async move { ostiary.top_up(low).await }).await;
            done.map_err(|_| Error::Internal("credits were being moved when that panicked".to_owned()))??;
        }
        Ok(())
    }

    async fn top_up(&self, low: Vec<Held>) -> Result<(), Failure> {
        let now = self.world.now();
        // While they are held they can only become less.
        let wanted: Vec<_> = low.iter().map(|held| (held.account, held.purse.contents.lock().reserved)).collect();
        let settled = settle_now(self.engine.as_ref(), Priority::Patient, move |tx| {
            let mut topped = Vec::with_capacity(wanted.len());
            for (account, reserved) in &wanted {
                let meter = tables::METERS.get(tx, account)?;
                let filled = meter.and_then(|meter| Topped::of(meter, *reserved, now));
                if let Some(Topped { meter, .. }) = &filled {
                    tables::METERS.put(tx, account, meter)?;
                }
                topped.push(filled);
            }
            Ok(topped)
        });
        let (topped, revision) = settled.await?;
        for (held, topped) in low.iter().zip(topped) {
            let Some(Topped { meter, extra }) = topped else { continue };
            let Contents { reserved, meter: known } = &mut *held.purse.contents.lock();
            *known = Some(self.memory.meter_as_left(held.account, meter, revision));
            reserved.left += extra;
            reserved.block = reserved.left;
            if let Uses::Left(left) = meter.uses {
                reserved.behind = left;
            }
        }
        Ok(())
    }
}
