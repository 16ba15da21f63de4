//! What those who watch look at, and what is looked up for them in the background.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::figures::Figures;
use crate::rpc::front::Front;
use crate::server::Running;
use crate::server::caps::Caps;
use crate::server::tls::Tls;
use crate::service::Ostiary;
use crate::service::survey::Survey;

/// How long to wait between two looks through the store, at least.
const LOOK_EVERY_MIN: Duration = Duration::from_secs(60);
/// How long to wait at most.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(3_600);
/// Looking may take this part of the time. Where there is much to look through it is done less often.
const LOOKING_PART: u32 = 50;

/// A server that is watched.
pub struct Watch {
    ostiary: Arc<Ostiary>,
    front: Front,
    caps: Arc<Caps>,
    store: PathBuf,
    tls: Option<Arc<Tls>>,
    /// What the last look through the store has found; nothing if that could not be read.
    survey: Mutex<Option<Survey>>,
}

impl Watch {
    /// Over this server, which keeps its store in this file and encrypts with this.
    pub fn over(running: &Running, store: PathBuf, tls: Option<Arc<Tls>>) -> Self {
        let Running { ostiary, front, caps, .. } = running;
        let (ostiary, front, caps) = (Arc::clone(ostiary), front.clone(), Arc::clone(caps));
        Self { ostiary, front, caps, store, tls, survey: Mutex::default() }
    }

    /// Looks through the store now and then, for ever.
    pub async fn look_again_and_again(&self) {
        loop {
            let stopwatch = self.ostiary.world().stopwatch();
            let survey = self.ostiary.survey().await;
            if let Err(error) = &survey {
                tracing::warn!(?error, "the store could not be looked through for metrics; it is tried again");
            }
            *self.survey.lock() = survey.ok();
            let pause = (stopwatch.elapsed() * LOOKING_PART).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
            tokio::time::sleep(pause).await;
        }
    }

    /// Everything, as it is now.
    pub async fn figures(&self) -> Figures {
        let (hits, misses) = self.ostiary.memory().hits_and_misses();
        let (windows, windows_refused) = self.ostiary.windows();
        Figures {
            timings: self.front.timings().read(),
            under_way: self.front.load().under_way(),
            shed: self.front.load().shed(),
            connections: self.caps.open(),
            verdicts: self.ostiary.verdicts(),
            hits,
            misses,
            windows,
            windows_refused,
            work: self.ostiary.work(),
            writable: self.ostiary.writable(),
            store_bytes: std::fs::metadata(&self.store).ok().map(|metadata| metadata.len()),
            behind: self.ostiary.behind().await.ok(),
            survey: *self.survey.lock(),
            certificate_until: self.tls.as_ref().map(|tls| tls.validity().until),
            now: self.ostiary.world().now(),
            started: self.ostiary.started(),
        }
    }
}
