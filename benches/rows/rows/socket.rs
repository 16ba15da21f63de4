//! What one caller waits who asks one thing after another over a Unix socket.

use std::time::Instant;

use bytes::Bytes;

use crate::Failed;
use crate::answers::{code, valid};
use crate::bench::{Bench, Echo};
use crate::figures::{Summary, percentile};
use crate::fixture::Fixture;
use crate::population::{Population, question};
use crate::report::{Bound, Report};
use crate::wire::{VERIFY_KEY, Wire, framed};

/// Calls to either server in a round.
const CALLS: usize = 20_000;

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let calls = bench.options.size(CALLS, 200);
    let population = Population::drawn(bench.options.size(1_000, 30), 1);
    let fixture = Fixture::plain(bench, &population).await?;
    // A path of a socket may not be long.
    let place = tempfile::tempdir()?;
    let at = |name: &str| format!("unix:{}", place.path().join(name).display());
    let ostiary = fixture.store.copied()?.serve_at(&at("ostiary"))?;
    let own = ostiary.wires(1).await?.remove(0);
    let answer = own.unary(VERIFY_KEY, framed(&question(population.secret(0)))).await?;
    let echo = bench.echo_at(Echo::Tuned, &answer, &at("echo")).await?;
    let other = ostiary.wires_to(&echo, 1).await?.remove(0);
    let requests: Vec<Bytes> = (0..calls).map(|call| framed(&question(population.any(call)))).collect();
    let (mut halves, mut lasts) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..=bench.options.rounds() {
        for (side, wire) in [&other, &own].into_iter().enumerate() {
            let took = one_by_one(wire, &requests).await?;
            if round > 0 {
                halves[side].push(percentile(took.iter().copied(), 0.5)?);
                lasts[side].push(percentile(took, 0.99)?);
            }
        }
    }
    let mut report = Report::default();
    let what = "over a Unix socket, beside the tuned echo";
    report.bar(&format!("p50 {what}"), Bound::AtMost(1.15), Summary::of_ratios(&halves[1], &halves[0]));
    report.bar(&format!("p99 {what}"), Bound::AtMost(1.3), Summary::of_ratios(&lasts[1], &lasts[0]));
    for (side, name) in ["tuned echo", "VerifyKey"].into_iter().enumerate() {
        report.figure(&format!("{name}, p50"), "µs", Summary::of(halves[side].iter().copied()));
        report.figure(&format!("{name}, p99"), "µs", Summary::of(lasts[side].iter().copied()));
    }
    report.note(format!("{} keys, one caller, one call at a time, {calls} a round.", population.number()));
    Ok(report)
}

/// Asks one thing after another and tells how many microseconds each took.
async fn one_by_one(wire: &Wire, requests: &[Bytes]) -> Result<Vec<f64>, Failed> {
    let mut took = Vec::with_capacity(requests.len());
    for request in requests {
        let began = Instant::now();
        let answer = wire.unary(VERIFY_KEY, request.clone()).await?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
        valid(code(answer)?)?;
    }
    Ok(took)
}
