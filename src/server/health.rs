//! What the standard health service reports.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::systemd;
use crate::service::Ostiary;

/// How often health looks whether anything has changed.
const HEALTH_EVERY: Duration = Duration::from_millis(200);
/// The services whose health can be asked: everything, verifying, and managing.
const HEALTH_ALL: &str = "";
const HEALTH_VERIFY: &str = "ostiary.v1.verify";
const HEALTH_MANAGE: &str = "ostiary.v1.manage";

/// Tells whoever asks what works; once told to stop, that nothing does, and a pause after that lets the server close.
pub async fn report(
    reporter: HealthReporter,
    ostiary: Arc<Ostiary>,
    pause: Duration,
    stop: CancellationToken,
    closing: CancellationToken,
) {
    // Dropped at the end, however that comes.
    let _closing = closing.drop_guard();
    let say = async |all: bool, verify: bool, manage: bool| {
        for (service, works) in [(HEALTH_ALL, all), (HEALTH_VERIFY, verify), (HEALTH_MANAGE, manage)] {
            let status = if works { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status(service, status).await;
        }
    };
    let mut known = None;
    let mut looks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(HEALTH_EVERY));
    while stop.run_until_cancelled(looks.next()).await.is_some() {
        let now = (ostiary.readable().await, ostiary.writable());
        if known != Some(now) {
            let (readable, writable) = now;
            say(readable, readable, writable).await;
            known = Some(now);
        }
    }
    say(false, false, false).await;
    systemd::stopping();
    tokio::time::sleep(pause).await;
}
