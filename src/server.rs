//! Puts the product together, serves it, and takes it apart again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::server::HealthReporter;

use crate::config::Config;
use crate::config::address::Address;
use crate::config::bounds::Bounds;
use crate::rpc;
use crate::rpc::front::Front;
use crate::rpc::proxies::TrustedProxies;
use crate::rpc::seldom::Seldom;
use crate::rpc::traces::Spans;
use crate::rpc::web::Web;
use crate::service::{Capacity, Ostiary, Purging, Retention, founding};
use crate::store::redb::{RedbEngine, RedbOptions};
use crate::store::{Engine, Failure};
use crate::sweep;
use crate::world::World;

mod admin;
mod begun;
mod caps;
mod conversing;
pub mod crew;
pub(crate) mod data_directory;
mod descriptors;
mod entrance;
mod error;
pub mod first_root_key;
mod health;
pub mod listening;
mod renewal;
mod systemd;
pub mod tls;
#[cfg(feature = "otlp")]
mod traces;
mod turns;

pub use error::ServeError;

use admin::Admin;
use begun::Protocols;
use caps::Caps;
use conversing::Terms;
use crew::Crew;
use entrance::Entrance;
use listening::{Handed, Listener};
use renewal::Renewal;
use tls::Tls;

/// The store's file in the data directory.
pub(crate) const STORE: &str = "ostiary.redb";
/// A start this long after the last one does not remove anything until an operator says that the clock is right.
const GAP_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A server that is serving.
pub struct Running {
    /// Where it listens.
    pub addresses: Vec<Address>,
    ostiary: Arc<Ostiary>,
    front: Front,
    caps: Arc<Caps>,
    serving: JoinHandle<()>,
    /// Cancelled when it is to end.
    stop: CancellationToken,
    background: TaskTracker,
    /// Ends what goes on in the background.
    quiet: CancellationToken,
}

impl Running {
    /// The product that is served.
    pub fn ostiary(&self) -> &Arc<Ostiary> {
        &self.ostiary
    }

    /// Returns once the server has been stopped and everything is saved.
    ///
    /// # Errors
    /// If it has ended without being told to.
    pub async fn finished(self) -> Result<(), ServeError> {
        match self.serving.await {
            Ok(()) if self.stop.is_cancelled() => Ok(()),
            Ok(()) => Err(ServeError::Ended("what reports its health has failed".to_owned())),
            Err(error) => Err(ServeError::Ended(error.to_string())),
        }
    }
}

/// Starts the server as configured, on the machine's own clock and disk.
///
/// # Errors
/// What can't be used, with the remedy.
pub async fn start(config: Config, stop: CancellationToken) -> Result<Running, ServeError> {
    let handed = systemd::take(&config.listen)?;
    let addresses = handed.iter().map(Handed::address).collect::<io::Result<Vec<_>>>();
    let addresses = addresses.map_err(|error| ServeError::Systemd { why: error.to_string() })?;
    config.check_exposure(&addresses).map_err(|misfit| ServeError::Systemd { why: misfit.why })?;
    read_certificate(&config)?;
    let directory = config.data_dir.clone();
    data_directory::prepare(&directory)?;
    outlive(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    outlive(SignalKind::hangup())?;
    let (ostiary, world) = stop.run_until_cancelled(open(&config)).await.ok_or(ServeError::Stopped)??;
    // It may have been replaced meanwhile.
    let tls = read_certificate(&config)?;
    descriptors::raise(config.bounds.max_connections);
    let renewal = Renewal::prepare(tls.clone(), world)?;
    let web = web(&config);
    let admin = match config.admin_listen {
        Some(address) => Some(Admin::bind(address).await?),
        None => None,
    };
    let (encrypted, shown) = (tls.is_some(), tls.clone());
    #[cfg(feature = "otlp")]
    let (spans, sending) = traces::send_to(config.otlp_endpoint.as_deref())?;
    #[cfg(not(feature = "otlp"))]
    let spans = Spans::default();
    let serving = Serving {
        addresses: config.listen.into_iter().filter(|address| *address != Address::Systemd).collect(),
        handed,
        tls,
        proxies: TrustedProxies::new(config.trusted_proxies.unwrap_or_default()),
        bounds: config.bounds,
        sweeping: Sweeping::InBackground,
        crew: Crew::on_every_core().map_err(ServeError::Threads)?,
        web,
        spans,
    };
    let running = serve(ostiary, serving, stop).await?;
    #[cfg(feature = "otlp")]
    running.background.spawn(sending.until(running.quiet.clone()));
    running.background.spawn(renewal.run(running.quiet.clone()));
    running.background.spawn(systemd::watched(running.quiet.clone()));
    if let Some(admin) = admin {
        admin.tell(&running, directory.join(STORE), shown);
    }
    first_root_key::remind(&directory, &running.addresses, encrypted);
    systemd::ready();
    Ok(running)
}

/// Looks at what the configuration names, and touches nothing.
///
/// # Errors
/// What can't be used, with the remedy.
pub fn rehearse(config: &Config) -> Result<(), ServeError> {
    read_certificate(config)?;
    if config.data_dir.exists() {
        data_directory::examine(&config.data_dir)?;
    } else {
        data_directory::rehearse(&config.data_dir)?;
    }
    // Only an empty store begins with it.
    let begins = !config.data_dir.join(STORE).exists();
    config.first_root_key_file.as_deref().filter(|_| begins).map_or(Ok(()), first_root_key::examine)
}

/// Which pages may call, if any call may come by gRPC-Web. The configuration refuses that where it was not built in.
fn web(config: &Config) -> Option<Web> {
    #[cfg(feature = "grpc-web")]
    return config.grpc_web.then(|| {
        let origins = config.grpc_web_origins.iter().map(|origin| origin.header().clone());
        Web::new(origins.collect())
    });
    #[cfg(not(feature = "grpc-web"))]
    {
        let _ = config;
        None
    }
}

/// What connections are to be encrypted with, if they are.
///
/// # Errors
/// What can't be used, with the remedy.
fn read_certificate(config: &Config) -> Result<Option<Arc<Tls>>, ServeError> {
    match config.tls.files().map_err(|misfit| ServeError::Misfit { key: misfit.key, why: misfit.why })? {
        Some(files) => {
            let protocols = if config.grpc_web { Protocols::WithHttp1 } else { Protocols::Http2 };
            Ok(Some(Arc::new(Tls::load(files, protocols, World::real(None).now())?)))
        }
        None => Ok(None),
    }
}

/// Opens the product in the data directory, a new one if it is empty.
async fn open(config: &Config) -> Result<(Arc<Ostiary>, Arc<World>), ServeError> {
    let memory = Memory::split(config.cache_mib);
    let engine = open_store(&config.data_dir, memory.pages).await?;
    let stored = founding::stored_instant(engine.as_ref()).await?;
    let world = Arc::new(World::real(stored));
    if founding::is_empty(engine.as_ref()).await? {
        let secret = first_root_key::obtain(&config.data_dir, config.first_root_key_file.as_deref(), &world)?;
        founding::found(engine.as_ref(), &world, secret).await?;
        tracing::info!(
            workspace = "default",
            "a new store was made, with an operator workspace and its first root key"
        );
    }
    let trusted = founding::trusted_instant(engine.as_ref()).await?;
    let gap = trusted.map_or(Duration::ZERO, |trusted| world.ahead_of(trusted));
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
    let windows = usize::try_from(config.bounds.max_rate_limit_windows).unwrap_or(usize::MAX);
    let capacity = Capacity { cache_bytes: memory.records, windows };
    let retention = Retention { expired: config.retention, ..Retention::default() };
    let ostiary = Ostiary::open(engine, Arc::clone(&world), retention, purging, capacity).await?;
    Ok((Arc::new(ostiary), world))
}

/// How the memory for what has been read before is used, in bytes.
struct Memory {
    /// For records, decoded.
    records: u64,
    /// For pages of the store, which a record is found in that is not remembered, besides what the allocator rounds up.
    pages: u64,
}

impl Memory {
    fn split(mib: u32) -> Self {
        let bytes = u64::from(mib) << 20;
        let for_pages = bytes / 3;
        // A page of 4 KiB and what stands before it takes 5 KiB of the allocator's.
        Self { records: bytes - for_pages, pages: for_pages / 5 * 4 }
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
    /// Where somebody else listens already on its behalf.
    pub handed: Vec<Handed>,
    /// What connections over the network are encrypted with.
    pub tls: Option<Arc<Tls>>,
    /// Whose word on callers' addresses counts.
    pub proxies: TrustedProxies,
    /// How much is served at a time, and for how long.
    pub bounds: Bounds,
    /// Who looks at the schedule.
    pub sweeping: Sweeping,
    /// Who serves connections.
    pub crew: Crew,
    /// Which pages may call by gRPC-Web; if none, nobody may.
    pub web: Option<Web>,
    /// Who gets a span of each call.
    pub spans: Spans,
}

/// Serves a product until told to stop.
///
/// # Errors
/// If the address can't be listened on.
pub async fn serve(ostiary: Arc<Ostiary>, serving: Serving, stop: CancellationToken) -> Result<Running, ServeError> {
    let Serving { addresses, handed, tls, proxies, bounds, sweeping, crew, web, spans } = serving;
    let (listeners, addresses) = listen(addresses, handed).await?;
    let reporter = HealthReporter::new();
    let closing = CancellationToken::new();
    let services = rpc::services(&ostiary, rpc::health::service(reporter.clone(), closing.clone()), &closing);
    let front = Front::new(services, Arc::clone(&ostiary), proxies, bounds.max_calls, spans);
    let caps = Caps::new(&bounds);
    let entrance = Entrance {
        world: Arc::clone(ostiary.world()),
        front: front.clone(),
        crew,
        caps: Arc::clone(&caps),
        age: bounds.max_connection_age,
        terms: Terms {
            tls,
            protocols: if web.is_some() { Protocols::WithHttp1 } else { Protocols::Http2 },
            age: None,
            closing: closing.clone(),
        },
        web,
        failed: Seldom::default(),
    };
    for address in &addresses {
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving");
    }

    let background = TaskTracker::new();
    let quiet = CancellationToken::new();
    if sweeping == Sweeping::InBackground {
        background.spawn(sweep::run(Arc::clone(&ostiary), quiet.clone()));
        background.spawn(sweep::save(Arc::clone(&ostiary), quiet.clone()));
        background.spawn(sweep::top_up(Arc::clone(&ostiary), quiet.clone()));
    }
    background.spawn(health::report(reporter, Arc::clone(&ostiary), bounds.drain_pause, stop.clone(), closing));
    background.close();

    let (product, tasks, hush) = (Arc::clone(&ostiary), background.clone(), quiet.clone());
    let serving = tokio::spawn(async move {
        let connections = TaskTracker::new();
        let taken = listeners.into_iter().map(|listener| entrance.take(listener, &connections));
        futures::future::join_all(taken).await;
        tracing::info!("stopping: calls under way are finished, new ones are refused");
        connections.close();
        if tokio::time::timeout(bounds.drain, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "some connections did not end in time and are cut");
        }
        hush.cancel();
        tasks.wait().await;
        product.close().await;
        tracing::info!("stopped");
    });
    Ok(Running { addresses, ostiary, front, caps, serving, stop, background, quiet })
}

/// Listens everywhere, and says where that is.
async fn listen(addresses: Vec<Address>, handed: Vec<Handed>) -> Result<(Vec<Listener>, Vec<Address>), ServeError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let bound = Listener::bind(&address).await.map_err(|error| ServeError::Listen { address, error })?;
        listeners.push(bound);
    }
    for handed in handed {
        let bound = Listener::go_on(handed).map_err(|error| ServeError::Systemd { why: error.to_string() })?;
        listeners.push(bound);
    }
    Ok(listeners.into_iter().unzip())
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

/// From now on this signal does not end the process. That of a file that may not grow any more is an error like others.
fn outlive(kind: SignalKind) -> Result<(), ServeError> {
    signal(kind).map(drop).map_err(ServeError::Signals)
}

/// Keeps secrets that are being handled out of core dumps and from other processes of the same user.
pub fn keep_out_of_core_dumps() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}
