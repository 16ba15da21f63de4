//! Clients that mean harm: whatever they do, others are answered, and the server neither grows nor falls over.

pub mod frames;

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ostiary::pb::v1 as pb;
use tokio::task::JoinHandle;

use crate::certificates::Authority;
use crate::harness::Client;
use crate::process::{Place, Server};
use frames::{Attacker, from};

/// Where harm comes from: another address than that of whoever calls in good faith.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// How much the server may grow, in KiB.
const GROWTH_MAX: u64 = 64 << 10;
/// Verifications that must be answered at least while the attack lasts.
const CALM_CALLS: usize = 50;

/// A server under attack, and somebody who verifies a key all the while.
struct Siege {
    place: Place,
    server: Server,
    authority: Option<Authority>,
    before: u64,
    over: Arc<AtomicBool>,
    calm: JoinHandle<usize>,
}

impl Siege {
    async fn begin(flags: &[&str]) -> Self {
        Self::around(None, flags).await
    }

    /// With a certificate of this authority, if there is one.
    async fn around(authority: Option<Authority>, flags: &[&str]) -> Self {
        let place = Place::new();
        let server = match &authority {
            None => place.serve(flags),
            Some(authority) => {
                authority.sign().write(&place);
                place.serve(&[&crate::tls::CERTIFIED, flags].concat())
            }
        };
        let client = client(&server, authority.as_ref(), &place.first_root_key()).await;
        let api = client.api("documents").await;
        let secret = client.plain_key(&api, "customer").await.1;
        for _ in 0..CALM_CALLS {
            assert!(client.verdict(&secret, None).await.valid);
        }
        let before = resident(&server);
        let over = Arc::new(AtomicBool::new(false));
        let calm = tokio::spawn(verify(client, secret, Arc::clone(&over)));
        Self { place, server, authority, before, over, calm }
    }

    fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Somebody who comes anew is served as well, all verifications were answered, and the server is well.
    async fn end(self) {
        let Self { place, server, authority, before, over, calm } = self;
        let newcomer = client(&server, authority.as_ref(), &place.first_root_key()).await;
        newcomer.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
        over.store(true, Ordering::Relaxed);
        assert!(calm.await.unwrap() >= CALM_CALLS);
        let growth = resident(&server).saturating_sub(before);
        assert!(growth < GROWTH_MAX, "{growth} KiB");
        drop(newcomer);
        let ended = server.stop();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
}

async fn client(server: &Server, authority: Option<&Authority>, secret: &str) -> Client {
    match authority {
        None => server.client(secret).await,
        Some(authority) => crate::tls::encrypted(server.address, authority, None, secret).await.unwrap(),
    }
}

/// Verifies a key, again and again, until the attack is over, and as often as must be.
async fn verify(client: Client, secret: String, over: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    while !over.load(Ordering::Relaxed) || answered < CALM_CALLS {
        assert!(client.verdict(&secret, None).await.valid);
        answered += 1;
    }
    answered
}

/// The most memory that a server has taken, in KiB.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs what blocks beside what does not.
async fn beside<T: Send + 'static>(attack: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(attack).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_taken_back_at_once_by_the_thousand() {
    let siege = Siege::begin(&[]).await;
    let address = siege.address();
    let hung_up_on = beside(move || {
        let attacks = (0..50).map(|_| {
            let mut attacker = Attacker::connect(ATTACKER, address).unwrap();
            // Sent in one piece, so that the server sees each call together with its end.
            let mut burst = Vec::new();
            for stream in 0..1_000 {
                burst.extend(frames::call(2 * stream + 1));
                burst.extend(frames::reset(2 * stream + 1));
            }
            attacker.send(&burst);
            attacker.is_hung_up_on()
        });
        attacks.filter(|hung_up_on| *hung_up_on).count()
    })
    .await;
    assert_eq!(hung_up_on, 50, "none is let go on");
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_taken_back_one_by_one() {
    let siege = Siege::begin(&[]).await;
    let address = siege.address();
    beside(move || {
        for _ in 0..10 {
            let mut attacker = Attacker::connect(ATTACKER, address).unwrap();
            for stream in 0..500 {
                attacker.send(&frames::call(2 * stream + 1));
                attacker.send(&frames::reset(2 * stream + 1));
            }
        }
    })
    .await;
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_do_not_end() {
    let siege = Siege::begin(&[]).await;
    let address = siege.address();
    let hung_up_on = beside(move || {
        let attacks = (0..20).map(|number| {
            let mut attacker = Attacker::connect(ATTACKER, address).unwrap();
            attacker.send(&frames::call_begun(1));
            // Empty ones cost the attacker least; full ones the server most.
            let size = if number % 2 == 0 { 0 } else { 16_000 };
            for _ in 0..2_000 {
                if !attacker.send(&frames::continuation(1, size)) {
                    break;
                }
            }
            attacker.is_hung_up_on()
        });
        attacks.filter(|hung_up_on| *hung_up_on).count()
    })
    .await;
    assert_eq!(hung_up_on, 20, "none is let go on");
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_pings_without_end() {
    let siege = Siege::begin(&[]).await;
    let address = siege.address();
    beside(move || {
        for _ in 0..10 {
            let mut attacker = Attacker::connect(ATTACKER, address).unwrap();
            let burst: Vec<u8> = (0..1_000).flat_map(|_| [frames::settings(), frames::ping()].concat()).collect();
            // The answers are never read.
            for _ in 0..20 {
                if !attacker.send(&burst) {
                    break;
                }
            }
        }
    })
    .await;
    siege.end().await;
}

/// Opens so many connections that say nothing, and returns those that are still open.
fn silent(address: SocketAddr, number: u32) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for index in 0..number {
        // From several addresses, as many as each may have.
        let [a, b, c, _] = ATTACKER.octets();
        let own = Ipv4Addr::new(a, b, c, 66 + u8::try_from(index / 900).unwrap());
        open.push(from(own, address).unwrap());
    }
    open
}

/// As many connections as this process may have, at most 4,000; other tests of it need some as well.
fn many() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let descriptors = limit.current.unwrap_or(u64::MAX);
    u32::try_from(descriptors.saturating_sub(500).min(4_000)).unwrap().max(200)
}

/// Waits until all have been hung up on, and counts those that were told nothing before.
fn hung_up_on(open: Vec<TcpStream>) -> usize {
    let closed = open.into_iter().filter_map(|mut silent| {
        silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        silent.read(&mut [0; 1]).ok()
    });
    closed.filter(|read| *read == 0).count()
}

async fn besiege_in_silence(authority: Option<Authority>, number: u32) {
    let siege = Siege::around(authority, &[]).await;
    let address = siege.address();
    let open = beside(move || silent(address, number)).await;
    assert_eq!(open.len(), number as usize);
    assert_eq!(beside(move || hung_up_on(open)).await, number as usize);
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_connections_that_say_nothing_encrypted_or_not() {
    let half = many() / 2;
    tokio::join!(besiege_in_silence(None, half), besiege_in_silence(Some(Authority::new()), half));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_cannot_take_all_the_room() {
    let siege = Siege::begin(&["--max-connections", "300", "--max-connections-per-peer", "200"]).await;
    let address = siege.address();
    let open = beside(move || (0..400).map(|_| from(ATTACKER, address).unwrap()).collect::<Vec<_>>()).await;
    let newcomer = siege.server.client(&siege.place.first_root_key()).await;
    newcomer.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    drop((open, newcomer));
    siege.end().await;
}
