//! Exchanging the certificate while serving, and telling in time that it must be.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{ServeError, systemd};
use crate::domain::time::Timestamp;
use crate::server::tls::Tls;
use crate::world::World;

/// How often the files are looked at. What has changed is read once it has stayed the same for one look more, so that
/// a certificate and its key that are replaced one after the other are read together.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a certificate that ends soon is complained of.
const COMPLAIN_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// What shows that a file is another one.
type Mark = Option<(u64, u64, i64, i64, u64)>;

/// What was complained of last.
#[derive(Debug, Clone, Copy)]
struct Complaint {
    at: Timestamp,
    /// That the certificate has ended, not that it will.
    of_end: bool,
}

/// Reads the certificate anew at SIGHUP and when its files change.
pub struct Renewal {
    hangup: Signal,
    tls: Option<Arc<Tls>>,
    world: Arc<World>,
}

impl Renewal {
    /// From now on SIGHUP does not end the process.
    ///
    /// # Errors
    /// If the signal can't be received.
    pub fn prepare(tls: Option<Arc<Tls>>, world: Arc<World>) -> Result<Self, ServeError> {
        let hangup = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
        Ok(Self { hangup, tls, world })
    }

    /// Goes on until `quiet` is cancelled.
    pub async fn run(mut self, quiet: CancellationToken) {
        let mut read = self.marks();
        let mut seen = read;
        let mut complained = None;
        loop {
            self.complain(&mut complained);
            let asked = tokio::select! {
                () = quiet.cancelled() => return,
                asked = self.hangup.recv() => asked.is_some(),
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let marks = self.marks();
            let settled = marks != read && marks == seen;
            seen = marks;
            if asked || settled {
                // Whatever comes of it: what can't be used is not read again until it changes.
                read = marks;
                complained = None;
                self.reload(asked).await;
            }
        }
    }

    async fn reload(&self, asked: bool) {
        if asked {
            systemd::reloading();
        }
        match &self.tls {
            None => tracing::info!("there is nothing to read again: no certificate is in use"),
            Some(tls) => {
                let (now, reading) = (self.world.now(), Arc::clone(tls));
                match tokio::task::spawn_blocking(move || reading.reload(now)).await {
                    Ok(Ok(())) => {
                        let days_left = tls.validity().days_left(now);
                        tracing::info!(days_left, "the certificate was read again; new connections get it");
                    }
                    Ok(Err(error)) => tracing::error!(%error, "the certificate that was in use stays in use"),
                    Err(error) => tracing::error!(%error, "the certificate could not be read again"),
                }
            }
        }
        if asked {
            systemd::ready();
        }
    }

    /// Says once a day that the certificate ends soon, and at once and then once a day that it has ended.
    fn complain(&self, complained: &mut Option<Complaint>) {
        let Some(tls) = &self.tls else { return };
        let now = self.world.now();
        let validity = tls.validity();
        let holds = validity.holds(now);
        let of_end = holds.is_err();
        let lately = |last: Complaint| last.of_end == of_end && now.since(last.at) < COMPLAIN_EVERY;
        if !validity.is_ending(now) || complained.is_some_and(lately) {
            return;
        }
        *complained = Some(Complaint { at: now, of_end });
        let certificate = tls.files.cert.display();
        match holds {
            Ok(()) => {
                let days_left = validity.days_left(now);
                tracing::warn!(%certificate, days_left, "the certificate expires soon; renew it");
            }
            Err(why) => tracing::error!(%certificate, "{why}: clients refuse it"),
        }
    }

    fn marks(&self) -> [Mark; 3] {
        let files = self.tls.as_ref().map(|tls| &tls.files);
        let mark = |path: Option<&Path>| path.and_then(mark);
        [
            mark(files.map(|files| files.cert.as_path())),
            mark(files.map(|files| files.key.as_path())),
            mark(files.and_then(|files| files.client_ca.as_deref())),
        ]
    }
}

/// None if it is not there.
fn mark(path: &Path) -> Mark {
    let metadata = path.metadata().ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
}
