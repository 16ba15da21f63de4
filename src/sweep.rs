//! The background tasks: loops around verbs of the service. Correctness never depends on their having run.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::service::Ostiary;
use crate::service::pace::Pace;

/// How long to wait after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// The longest time between two looks at the schedule.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often the instant is stored before which no later run begins.
const SAVE_TIME_EVERY: Duration = Duration::from_secs(60);
/// How long to wait between two savings of usage.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Does what is due when it is due: it sleeps until the next moment on the schedule and wakes early if an earlier one
/// is put there.
pub async fn run(ostiary: Arc<Ostiary>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            // Followed from before the look at the schedule, so that nothing falls between the two.
            let scheduled = ostiary.scheduled().await;
            let next = match (scheduled, ostiary.sweep_due().await) {
                (Ok(scheduled), Ok(next)) => Ok((scheduled, next)),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            let now = ostiary.world().now();
            match next {
                Ok((mut scheduled, next)) => {
                    let wake = next.unwrap_or(Timestamp::LAST).min(now.after(LOOK_EVERY));
                    tokio::select! {
                        () = ostiary.world().wait_until(wake) => {}
                        () = earlier(&mut scheduled, wake) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(?error, "the sweep could not go on; it tries again");
                    ostiary.world().wait_until(now.after(AFTER_FAILURE)).await;
                }
            }
        }
    })
    .await;
}

/// Returns once something is to be done before `wake`, or when that can't be known.
async fn earlier(scheduled: &mut (impl futures::Stream<Item = Timestamp> + Unpin), wake: Timestamp) {
    while let Some(moment) = scheduled.next().await {
        if moment < wake {
            return;
        }
    }
}

/// Saves the time and the usage every so often.
pub async fn save(ostiary: Arc<Ostiary>, stop: CancellationToken) {
    let time = async {
        loop {
            if let Err(error) = ostiary.save_time().await {
                tracing::warn!(?error, "the time could not be saved; it is tried again");
            }
            ostiary.world().wait_until(ostiary.world().now().after(SAVE_TIME_EVERY)).await;
        }
    };
    let usage = at_leisure(&ostiary, "usage", |ostiary| ostiary.flush_usage(Pace::AtLeisure).boxed());
    let windows =
        at_leisure(&ostiary, "what rate limits have counted", |ostiary| ostiary.flush_windows(Pace::AtLeisure).boxed());
    let credits = at_leisure(&ostiary, "credits that nobody uses", |ostiary| {
        ostiary.return_idle_credits(Pace::AtLeisure).boxed()
    });
    stop.run_until_cancelled(async { tokio::join!(time, usage, windows, credits) }).await;
}

/// Fills up what is in memory of balances before it is spent.
pub async fn top_up(ostiary: Arc<Ostiary>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            ostiary.credits_run_low().await;
            if let Err(error) = ostiary.top_up_credits().await {
                tracing::warn!(?error, "what is left of some credits could not be reserved; it is tried again");
                ostiary.world().wait_until(ostiary.world().now().after(AFTER_FAILURE)).await;
            }
        }
    })
    .await;
}

/// Saves something again and again, each time for as long as it takes.
async fn at_leisure(ostiary: &Ostiary, what: &str, save: impl Fn(&Ostiary) -> BoxFuture<'_, Result<(), Error>>) {
    loop {
        ostiary.world().wait_until(ostiary.world().now().after(SAVE_EVERY)).await;
        if let Err(error) = save(ostiary).await {
            tracing::warn!(?error, "{what} could not be saved; it is tried again");
        }
    }
}
