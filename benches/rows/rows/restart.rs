//! How long after a crash the first key is verified.

use std::time::Instant;

use crate::Failed;
use crate::answers::{code, valid};
use crate::bench::Bench;
use crate::figures::Summary;
use crate::fixture::Fixture;
use crate::load::{CONNECTIONS, IN_FLIGHT, saturate};
use crate::population::{Population, question};
use crate::report::{Bound, Report};
use crate::rows::create::create;
use crate::rows::ten_million::MANY;
use crate::wire::{VERIFY_KEY, framed};

/// Keys made before each crash.
const MADE: usize = 1_000;
/// What the check of the file must read in a second.
const CHECKED: f64 = (1u64 << 30) as f64;

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let population = Population::drawn(bench.options.keys(MANY), 1);
    let Fixture { mut store, api_id } = Fixture::plain(bench, &population).await?;
    let made = bench.options.size(MADE, 50);
    let (mut whole, mut beyond, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=bench.options.rounds() {
        let began = Instant::now();
        let bytes = std::fs::metadata(store.file())?.len() as f64;
        let ostiary = store.serve()?;
        let wires = ostiary.wires(1).await?;
        valid(code(wires[0].unary(VERIFY_KEY, framed(&question(population.any(round)))).await?)?)?;
        let seconds = began.elapsed().as_secs_f64();
        // The first start comes after no crash.
        if round > 0 {
            whole.push(seconds);
            beyond.push(seconds - bytes / CHECKED);
            sizes.push(bytes / CHECKED);
        }
        let wires = ostiary.wires(CONNECTIONS).await?;
        saturate(&wires, IN_FLIGHT, made, async |wire, _| create(wire, &api_id).await.map(drop)).await?;
        store = ostiary.kill();
    }
    let mut report = Report::default();
    report.bar(
        "seconds until the first VALID answer, beyond those for the file at 1 GiB/s",
        Bound::AtMost(1.0),
        Summary::of(beyond),
    );
    report.figure("until the first VALID answer", "s", Summary::of(whole));
    report.figure("the file", "GiB", Summary::of(sizes));
    report.note(format!(
        "{} keys; the server is killed after it has made {made} more, and started again; the file is in the kernel's memory.",
        population.number()
    ));
    Ok(report)
}
