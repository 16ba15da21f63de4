//! What a calm client waits, and how much the server grows, while another misuses HTTP/2.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Failed;
use crate::answers::{code, valid};
use crate::bench::Bench;
use crate::figures::{Summary, percentile};
use crate::frames::{self, Attacker, from};
use crate::load::{CONNECTIONS, pace};
use crate::ostiary::Ostiary;
use crate::population::{Population, question};
use crate::process::Address;
use crate::report::{Bound, Report};
use crate::wire::{VERIFY_KEY, Wire, framed};

/// Keys that the calm client verifies.
const KEYS: usize = 1_000;
/// Its calls a second.
const RATE: f64 = 500.0;
/// How long it is watched at a time.
const SPAN: Duration = Duration::from_secs(5);
/// From beginning an attack to watching, and from its end to the next.
const PAUSE: Duration = Duration::from_millis(500);
/// Another address than that of the calm client.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// Connections that say nothing, and how many an address opens.
const SILENT: u32 = 4_000;
const SILENT_OF_ONE: u32 = 900;
/// What the server may take more of memory than before all attacks, in MiB.
const GROWTH_MAX: f64 = 64.0;

/// One way to do harm.
struct Attack {
    what: &'static str,
    /// What is counted of it.
    unit: &'static str,
    /// Does it once, and counts.
    wave: fn(SocketAddr, &AtomicBool) -> io::Result<usize>,
}

const ATTACKS: [Attack; 4] = [
    Attack { what: "calls are taken back at once", unit: "calls", wave: resets },
    Attack { what: "headers do not end", unit: "frames", wave: headers },
    Attack { what: "pings and settings do not end", unit: "frames", wave: pings },
    Attack { what: "4000 connections say nothing", unit: "connections", wave: silence },
];

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let (rate, span) = if bench.options.small { (100.0, PAUSE) } else { (RATE, SPAN) };
    let population = Population::drawn(bench.options.size(KEYS, 100), 1);
    let ostiary = Ostiary::start()?;
    ostiary.furnish(&population).await?;
    let Address::Tcp(address) = ostiary.process.address else { return Err("it listens on a socket".into()) };
    let wires = ostiary.wires(CONNECTIONS).await?;
    let ask =
        async |wire: &Wire, call| valid(code(wire.unary(VERIFY_KEY, framed(&question(population.any(call)))).await?)?);
    let watch = async || -> Result<f64, Failed> {
        let took = pace(&wires, rate, span, ask).await?;
        percentile(took.iter().map(|took| took.latency.as_secs_f64() * 1e3), 0.99)
    };
    watch().await?;
    let before = ostiary.process.clock().resident()?;
    let (mut report, mut undisturbed) = (Report::default(), Vec::new());
    for attack in &ATTACKS {
        let (mut calm, mut busy, mut done) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..bench.options.rounds() {
            calm.push(watch().await?);
            let over = Arc::new(AtomicBool::new(false));
            let attacker = std::thread::spawn({
                let (wave, over) = (attack.wave, Arc::clone(&over));
                move || again_and_again(wave, address, &over)
            });
            tokio::time::sleep(PAUSE).await;
            let watched = watch().await;
            over.store(true, Ordering::Relaxed);
            busy.push(watched?);
            let count = attacker.join().map_err(|_| "the attacker panicked")??;
            done.push(count as f64 / (span + PAUSE).as_secs_f64());
            tokio::time::sleep(PAUSE).await;
        }
        let (what, ratio) = (attack.what, Summary::of_ratios(&busy, &calm));
        report.bar(&format!("p99 of VerifyKey while {what}, beside undisturbed"), Bound::AtMost(3.0), ratio);
        report.figure(&format!("VerifyKey while {what}, p99"), "ms", Summary::of(busy));
        report.figure(&format!("of the attack: {what}"), &format!("{}/s", attack.unit), Summary::of(done));
        undisturbed.extend(calm);
    }
    let growth = ostiary.process.clock().peak()?.saturating_sub(before) as f64 / f64::from(1 << 20);
    report.bar("growth of the resident memory at most, MiB", Bound::AtMost(GROWTH_MAX), Summary::exactly(growth));
    report.figure("VerifyKey undisturbed, p99", "ms", Summary::of(undisturbed));
    report.note(format!(
        "{rate} calls a second, open loop, over {CONNECTIONS} connections; the attacker is one thread that does what it can from \
         other addresses, and shares the cores with the server and the calm client."
    ));
    Ok(report)
}

/// Attacks until it is over, and counts.
fn again_and_again(
    wave: fn(SocketAddr, &AtomicBool) -> io::Result<usize>,
    address: SocketAddr,
    over: &AtomicBool,
) -> io::Result<usize> {
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        done += wave(address, over)?;
    }
    Ok(done)
}

/// A thousand calls, each with its end, in one piece.
fn resets(address: SocketAddr, _: &AtomicBool) -> io::Result<usize> {
    let calls = 1_000;
    let pair = |call: u32| [frames::call(2 * call + 1), frames::reset(2 * call + 1)].concat();
    let mut attacker = Attacker::connect(ATTACKER, address)?;
    attacker.send(&(0..calls).flat_map(pair).collect::<Vec<u8>>());
    if !attacker.is_hung_up_on() {
        return Err(io::Error::other("it is let go on"));
    }
    Ok(calls as usize)
}

/// Headers in as many frames as are taken.
fn headers(address: SocketAddr, over: &AtomicBool) -> io::Result<usize> {
    let mut attacker = Attacker::connect(ATTACKER, address)?;
    let more = frames::continuation(1, 16_000);
    let mut sent = usize::from(attacker.send(&frames::call_begun(1)));
    while attacker.send(&more) {
        sent += 1;
        if over.load(Ordering::Relaxed) {
            return Ok(sent);
        }
    }
    Ok(sent)
}

/// Questions whose answers are never read.
fn pings(address: SocketAddr, over: &AtomicBool) -> io::Result<usize> {
    let mut attacker = Attacker::connect(ATTACKER, address)?;
    let burst: Vec<u8> = (0..1_000).flat_map(|_| [frames::settings(), frames::ping()].concat()).collect();
    let mut sent = 0;
    for _ in 0..20 {
        if over.load(Ordering::Relaxed) || !attacker.send(&burst) {
            break;
        }
        sent += 2_000;
    }
    Ok(sent)
}

/// Connections that are held open until the server has closed them all.
fn silence(address: SocketAddr, over: &AtomicBool) -> io::Result<usize> {
    let [a, b, c, first] = ATTACKER.octets();
    let open = |number: u32| from(Ipv4Addr::new(a, b, c, first + (number / SILENT_OF_ONE) as u8), address);
    let mut held = (0..SILENT).map(open).collect::<io::Result<Vec<_>>>()?;
    held.iter().try_for_each(|silent| silent.set_nonblocking(true))?;
    while !held.is_empty() && !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        held.retain(is_open);
    }
    Ok(SILENT as usize)
}

fn is_open(silent: &TcpStream) -> bool {
    silent.peek(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
