//! What the first verification of a key waits: its record is not remembered, the file is in the kernel's memory.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::Failed;
use crate::answers::{code, valid};
use crate::bench::Bench;
use crate::figures::{Summary, percentile};
use crate::fixture::Fixture;
use crate::load::{CONNECTIONS, IN_FLIGHT, pace, saturate};
use crate::population::{Population, question};
use crate::report::{Bound, Report};
use crate::wire::{VERIFY_KEY, Wire, framed};

/// Calls that show how many the server can take.
const CALLS: usize = 50_000;
/// How long each round is.
const ROUND: Duration = Duration::from_secs(2);
/// A prime: so many places on, again and again, every place is come by once.
const STEP: usize = 7_368_787;

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let population = Population::drawn(bench.options.keys(1_000_000), 1);
    let fixture = Fixture::plain(bench, &population).await?;
    let ostiary = fixture.store.copied()?.serve()?;
    let wires = ostiary.wires(CONNECTIONS).await?;
    let touched = Cell::new(0usize);
    let ask = async |wire: &Wire, _| {
        let number = touched.replace(touched.get() + 1);
        if number >= population.number() && !bench.options.small {
            return Err("every key has been touched".into());
        }
        let place = number.wrapping_mul(STEP) % population.number();
        valid(code(wire.unary(VERIFY_KEY, framed(&question(population.secret(place)))).await?)?)
    };
    let calls = bench.options.size(CALLS, 100).min(population.number() / 4);
    let began = Instant::now();
    saturate(&wires, IN_FLIGHT, calls, ask).await?;
    let most = calls as f64 / began.elapsed().as_secs_f64();
    let (rate, span) = if bench.options.small { (100.0, Duration::from_millis(500)) } else { (most / 2.0, ROUND) };
    let (mut half, mut last) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds() {
        let took = pace(&wires, rate, span, ask).await?;
        let of = |share| percentile(took.iter().map(|took| took.latency.as_secs_f64() * 1e3), share);
        half.push(of(0.5)?);
        last.push(of(0.99)?);
    }
    let mut report = Report::default();
    report.bar("p99 of VerifyKey of a key for the first time at half load, ms", Bound::AtMost(1.0), Summary::of(last));
    report.figure("p50", "ms", Summary::of(half));
    report.figure("calls that the server can take, keys for the first time", "calls/s", Summary::exactly(most));
    report.note(format!(
        "{} keys, of which each is verified once; {rate:.0} calls a second, open loop, over {CONNECTIONS} connections. The load \
         shares the cores with the server.",
        population.number()
    ));
    Ok(report)
}
