//! What systemd passes, and what it is told. Where there is no systemd, nothing of it happens.

use std::io;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use super::listening::Handed;
use crate::config::address::Address;

/// Takes the sockets that were passed, if they are asked for.
///
/// # Errors
/// If they are asked for and there are none, if there are some that nobody asked for, or if they are of another kind.
pub fn take(listen: &[Address]) -> Result<Vec<Handed>, ServeError> {
    let mut passed = ListenFd::from_env();
    let asked = listen.contains(&Address::Systemd);
    let refused = |why: String| ServeError::Systemd { why };
    match (asked, passed.len()) {
        (false, 0) => Ok(Vec::new()),
        (true, 0) => Err(refused("no sockets were passed; start it by a socket unit, or listen elsewhere".to_owned())),
        (false, passed) => Err(refused(format!("{passed} sockets were passed; take them with --listen systemd"))),
        (true, number) => (0..number)
            .map(|index| one(&mut passed, index).map_err(|error| refused(format!("socket {index}: {error}"))))
            .collect(),
    }
}

fn one(passed: &mut ListenFd, index: usize) -> io::Result<Handed> {
    // What is of the other kind is left at its place.
    if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
        return Ok(Handed::Tcp(listener));
    }
    match passed.take_unix_listener(index)? {
        Some(listener) => Ok(Handed::Unix(listener)),
        None => Err(io::Error::other("was passed twice")),
    }
}

/// Tells that calls are answered.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that no more calls are taken.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells that the certificate is read again; [`ready`] tells when that is over.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd could not be told"),
    }
}

/// Tells again and again that there is still life, if systemd wants to know, until `quiet` is cancelled.
///
/// What is wrong with a store is for health to tell: starting again would not mend it, and end what still works.
pub async fn watched(quiet: CancellationToken) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    while quiet.run_until_cancelled(tokio::time::sleep(within / 2)).await.is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
