//! What ostiary writes for itself: no caller asked for it, so there is no permit, and its own name stands in the log.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::id::EventId;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::{Body, Decision, Engine, Failure, Priority, Stop, Txn};

use super::audit::EVENTS_MAX;
use super::{Ostiary, Revision};

/// How long the house rests after a transaction that nobody waits for, in parts of what that took.
const REST_PARTS: u32 = 2;
/// The shortest rest that a timer can give.
const REST_MIN: Duration = Duration::from_millis(1);
/// The longest, so that a slow disk does not make the house idle.
const REST_MAX: Duration = Duration::from_millis(50);

/// What a transaction of the house was drawn with.
#[derive(Debug, Clone, Copy)]
pub struct Drawn {
    /// The moment.
    pub now: Timestamp,
    /// Where the ids of its events begin.
    pub first_event: EventId,
}

/// Makes a change of the house durable that a caller waits for, and tells the revision that it is in.
pub(super) async fn settle_now<T, F>(
    engine: &dyn Engine,
    priority: Priority,
    mut decide: F,
) -> Result<(T, Revision), Failure>
where
    T: Send + 'static,
    F: FnMut(&mut Txn<'_>) -> Result<T, Stop> + Send + 'static,
{
    let slot = Arc::new(Mutex::new(None));
    let body: Body = {
        let slot = Arc::clone(&slot);
        Box::new(move |tx| {
            let answer = decide(tx)?;
            *slot.lock() = Some(answer);
            Ok(Decision::Commit)
        })
    };
    let revision = engine.transact(priority, body).await?;
    let answer = slot.lock().take().ok_or(Failure::Panicked)?;
    Ok((answer, revision))
}

impl Ostiary {
    /// Makes a background change durable. It waits behind what callers do, so it must be small.
    pub(super) async fn settle<T, F>(&self, mut decide: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&mut Txn<'_>, Drawn) -> Result<T, Stop> + Send + 'static,
    {
        let drawn = Drawn { now: self.world.now(), first_event: EventId::from_bytes(self.world.ulids(EVENTS_MAX)) };
        let slot = Arc::new(Mutex::new(None));
        let body: Body = {
            let slot = Arc::clone(&slot);
            Box::new(move |tx| {
                let answer = decide(tx, drawn)?;
                *slot.lock() = Some(answer);
                Ok(Decision::Commit)
            })
        };
        self.engine.transact(Priority::Background, body).await?;
        slot.lock().take().ok_or_else(|| Error::Internal("a transaction did not decide".to_owned()))
    }

    /// The same, and a rest afterwards in proportion: what has piled up is worked off without taking the machine away
    /// from those who ask.
    pub(super) async fn settle_at_leisure<T, F>(&self, decide: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&mut Txn<'_>, Drawn) -> Result<T, Stop> + Send + 'static,
    {
        let stopwatch = self.world.stopwatch();
        let settled = self.settle(decide).await;
        let rest = stopwatch.elapsed() * REST_PARTS;
        if rest >= REST_MIN {
            tokio::time::sleep(rest.min(REST_MAX)).await;
        }
        settled
    }
}
