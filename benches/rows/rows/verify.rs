//! One key a call.

use std::time::Duration;

use crate::Failed;
use crate::answers::{code, valid};
use crate::bench::{Bench, Echo};
use crate::figures::Summary;
use crate::load::{CONNECTIONS, Cost, IN_FLIGHT, Made, Side, interleave, saturate};
use crate::ostiary::Furnished;
use crate::population::question;
use crate::process::Process;
use crate::report::{Bound, Report};
use crate::wire::{VERIFY_KEY, Wire, framed};

/// Calls to each server in a round.
const CALLS: usize = 100_000;
/// Long enough for what is counted to be saved.
const SETTLE: Duration = Duration::from_secs(6);

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let furnished = bench.furnished().await?;
    let answer = furnished.answer().await?;
    let calls = bench.options.size(CALLS, 1_000);
    let (stock, tuned) = (bench.echo(Echo::Stock, &answer).await?, bench.echo(Echo::Tuned, &answer).await?);
    let sides = [&stock, &tuned, &furnished.ostiary.process].map(|process| side(furnished, process, calls));
    let sides = futures::future::try_join_all(sides).await?;
    let costs = interleave(&sides, bench.options.rounds(), settle(bench)).await?;
    let [stock, tuned, ostiary] = &costs[..] else { return Err("three sides have three costs".into()) };
    let mut report = Report::default();
    report.bar("calls per CPU second, beside the stock echo", Bound::AtLeast(1.3), ostiary.beside(stock));
    report.bar("calls per CPU second, beside the tuned echo", Bound::AtLeast(0.9), ostiary.beside(tuned));
    for (what, cost) in [("stock echo", stock), ("tuned echo", tuned), ("VerifyKey", ostiary)] {
        tell(&mut report, what, "call", cost);
    }
    report.note(format!(
        "{} keys, {calls} calls a round, {IN_FLIGHT} under way over {CONNECTIONS} connections.",
        furnished.population.number()
    ));
    Ok(report)
}

/// How long a server is waited for after its last round.
pub fn settle(bench: &Bench) -> Duration {
    if bench.options.small { Duration::ZERO } else { SETTLE }
}

/// Puts what units cost among the figures.
pub fn tell(report: &mut Report, what: &str, unit: &str, cost: &Cost) {
    report.figure(&format!("{what}, CPU a {unit}"), "µs", Summary::of(cost.cpu.iter().copied()));
    report.figure(&format!("{what}, throughput"), &format!("{unit}s/s"), Summary::of(cost.rate.iter().copied()));
}

/// This load, for any server that answers as ostiary does.
pub async fn side<'a>(furnished: &'a Furnished, process: &'a Process, calls: usize) -> Result<Side<'a>, Failed> {
    side_over(furnished, process, calls, CONNECTIONS).await
}

/// The same over so many connections, each of which has something to do.
pub async fn side_over<'a>(
    furnished: &'a Furnished,
    process: &'a Process,
    calls: usize,
    connections: usize,
) -> Result<Side<'a>, Failed> {
    let wires = furnished.ostiary.wires_to(process, connections).await?;
    let make = move |first, number| -> Made<'a> {
        let wires = wires.clone();
        Box::pin(async move {
            let ask = async |wire: &Wire, call| {
                let request = framed(&question(furnished.population.any(first + call)));
                valid(code(wire.unary(VERIFY_KEY, request).await?)?)
            };
            saturate(&wires, IN_FLIGHT.max(wires.len()), number, ask).await
        })
    };
    Ok(Side { process, units: calls, make: Box::new(make) })
}
