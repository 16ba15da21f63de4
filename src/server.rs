//! Puts the product together, serves it, and takes it apart again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::config::Config;
use crate::config::address::Address;
use crate::error::Error;
use crate::rpc::front::Front;
use crate::rpc::proxies::TrustedProxies;
use crate::rpc::{self, Health};
use crate::service::{Ostiary, Purging, Retention, founding};
use crate::store::redb::{RedbEngine, RedbOptions};
use crate::store::{Engine, Failure};
use crate::sweep;
use crate::world::World;

pub mod crew;
pub mod first_root_key;
pub mod listening;

use crew::Crew;
use listening::{Listener, converse};

/// The store's file in the data directory.
const STORE: &str = "ostiary.redb";
/// How often health looks whether anything has changed.
const HEALTH_EVERY: Duration = Duration::from_millis(200);
/// A start this long after the last one does not remove anything until an operator says that the clock is right.
const GAP_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The services whose health can be asked: everything, verifying, and managing.
const HEALTH_ALL: &str = "";
const HEALTH_VERIFY: &str = "ostiary.v1.verify";
const HEALTH_MANAGE: &str = "ostiary.v1.manage";

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory can't be used.
    #[error("{path}: {why}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The store can't be opened.
    #[error("the store can't be opened: {0}")]
    Store(#[from] Failure),
    /// The product can't be opened.
    #[error("the store can't be used: {0:?}")]
    Product(Error),
    /// The threads that serve can't be started.
    #[error("no threads could be started: {0}")]
    Threads(io::Error),
    /// The address can't be listened on.
    #[error("--listen {address}: {error}")]
    Listen {
        /// Which.
        address: Address,
        /// Why not.
        error: io::Error,
    },
    /// The signals that stop the server can't be received.
    #[error("signals can't be received: {0}")]
    Signals(io::Error),
}

impl From<Error> for ServeError {
    fn from(error: Error) -> Self {
        Self::Product(error)
    }
}

/// A server that is serving.
pub struct Running {
    /// Where it listens.
    pub addresses: Vec<Address>,
    ostiary: Arc<Ostiary>,
    serving: JoinHandle<()>,
}

impl Running {
    /// The product that is served.
    pub fn ostiary(&self) -> &Arc<Ostiary> {
        &self.ostiary
    }

    /// Returns once the server has been stopped and everything is saved.
    ///
    /// # Errors
    /// None today; a server that has started ends by being stopped.
    pub async fn finished(self) -> Result<(), ServeError> {
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the server ended by itself");
        }
        Ok(())
    }
}

/// Starts the server as configured, on the machine's own clock and disk.
///
/// # Errors
/// What can't be used, with the remedy.
pub async fn start(config: Config, stop: CancellationToken) -> Result<Running, ServeError> {
    let directory = config.data_dir.clone();
    first_root_key::prepare_directory(&directory)?;
    let memory = Memory::split(config.cache_mib);
    let engine = open_store(&directory, memory.pages).await?;
    let stored = founding::stored_instant(engine.as_ref()).await?;
    let world = Arc::new(World::real(stored));
    if founding::is_empty(engine.as_ref()).await? {
        let secret = first_root_key::obtain(&directory, config.first_root_key_file.as_deref(), &world)?;
        founding::found(engine.as_ref(), &world, secret).await?;
        tracing::info!(
            workspace = "default",
            "a new store was made, with an operator workspace and its first root key"
        );
    }
    let gap = stored.map_or(Duration::ZERO, |stored| world.ahead_of(stored));
    let purging = if gap > GAP_MAX && !config.trust_clock {
        tracing::warn!(
            days = gap.as_secs() / (24 * 3_600),
            "the clock is far ahead of when ostiary last ran; nothing is removed for good until it is started once \
             with --trust-clock"
        );
        Purging::Suspended
    } else {
        Purging::Allowed
    };
    let retention = Retention { expired: config.retention, ..Retention::default() };
    let ostiary = Arc::new(Ostiary::open(engine, world, retention, purging, memory.records).await?);
    let proxies = TrustedProxies::new(config.trusted_proxies.unwrap_or_default());
    let crew = Crew::on_every_core().map_err(ServeError::Threads)?;
    let (addresses, drain) = (config.listen, config.drain);
    let serving = Serving { addresses, proxies, drain, sweeping: Sweeping::InBackground, crew };
    let running = serve(ostiary, serving, stop).await?;
    first_root_key::remind(&directory, &running.addresses);
    Ok(running)
}

/// How the memory for what has been read before is used, in bytes.
struct Memory {
    /// For records, decoded.
    records: u64,
    /// For pages of the store, which a record is found in that is not remembered.
    pages: u64,
}

impl Memory {
    fn split(mib: u32) -> Self {
        let bytes = u64::from(mib) << 20;
        let pages = bytes / 3;
        Self { records: bytes - pages, pages }
    }
}

async fn open_store(directory: &Path, page_bytes: u64) -> Result<Arc<dyn Engine>, ServeError> {
    let epoch = u64::from_be_bytes(World::real(None).random());
    let mut options = RedbOptions::new(directory.join(STORE), epoch);
    options.cache_bytes = usize::try_from(page_bytes).unwrap_or(usize::MAX);
    // Opening checks the whole file.
    let opened = tokio::task::spawn_blocking(move || RedbEngine::open(options)).await;
    let engine = opened.map_err(|_| Failure::Panicked)??;
    Ok(Arc::new(engine))
}

/// Who looks at the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweeping {
    /// A task in the background, when something is due.
    InBackground,
    /// Whoever holds the product, for tests that must know whether it has happened.
    ByHand,
}

/// How a product is served.
pub struct Serving {
    /// Where to listen.
    pub addresses: Vec<Address>,
    /// Whose word on callers' addresses counts.
    pub proxies: TrustedProxies,
    /// How long calls under way may take once it is told to stop.
    pub drain: Duration,
    /// Who looks at the schedule.
    pub sweeping: Sweeping,
    /// Who serves connections.
    pub crew: Crew,
}

/// Serves a product until told to stop.
///
/// # Errors
/// If the address can't be listened on.
pub async fn serve(ostiary: Arc<Ostiary>, serving: Serving, stop: CancellationToken) -> Result<Running, ServeError> {
    let Serving { addresses, proxies, drain, sweeping, crew } = serving;
    let mut listeners = Vec::new();
    for address in addresses {
        let bound = Listener::bind(&address).await.map_err(|error| ServeError::Listen { address, error })?;
        listeners.push(bound);
    }
    let (listeners, addresses): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
    let (reporter, health) = tonic_health::server::health_reporter();
    let closing = CancellationToken::new();
    let front = front(&ostiary, health, proxies, &closing);
    for address in &addresses {
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving");
    }

    let background = TaskTracker::new();
    let quiet = CancellationToken::new();
    if sweeping == Sweeping::InBackground {
        background.spawn(sweep::run(Arc::clone(&ostiary), quiet.clone()));
        background.spawn(sweep::save(Arc::clone(&ostiary), quiet.clone()));
    }
    background.spawn(report_health(reporter, Arc::clone(&ostiary), stop, closing.clone()));
    background.close();

    let product = Arc::clone(&ostiary);
    let serving = tokio::spawn(async move {
        let connections = TaskTracker::new();
        let taken = listeners.into_iter().map(|listener| accept(listener, &front, &crew, &connections, &closing));
        futures::future::join_all(taken).await;
        tracing::info!("stopping: calls under way are finished, new ones are refused");
        connections.close();
        if tokio::time::timeout(drain, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "some connections did not end in time and are cut");
        }
        quiet.cancel();
        background.wait().await;
        product.close().await;
        tracing::info!("stopped");
    });
    Ok(Running { addresses, ostiary, serving })
}

fn front(
    ostiary: &Arc<Ostiary>,
    health: tonic_health::pb::health_server::HealthServer<impl Health>,
    proxies: TrustedProxies,
    closing: &CancellationToken,
) -> Front {
    Front::new(rpc::services(ostiary, health, closing), Arc::clone(ostiary), proxies)
}

/// Takes connections until the server closes.
async fn accept(
    listener: Listener,
    front: &Front,
    crew: &Crew,
    connections: &TaskTracker,
    closing: &CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        match accepted {
            Ok(socket) => {
                let (front, closing) = (front.clone(), closing.clone());
                crew.give(connections, || converse(socket, move |peer| front.facing(peer), closing));
            }
            Err(error) => {
                // Out of descriptors, or the peer is gone already: neither ends the server.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Tells whoever asks what works; once told to stop, that nothing does, and only then lets the server close.
async fn report_health(
    reporter: HealthReporter,
    ostiary: Arc<Ostiary>,
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
}

/// Stops the server at SIGTERM or SIGINT.
///
/// # Errors
/// If the signals can't be received.
pub fn stop_on_signals(stop: CancellationToken) -> Result<JoinHandle<()>, ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    }))
}

/// Keeps secrets that are being handled out of core dumps and from other processes of the same user.
pub fn keep_out_of_core_dumps() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}
