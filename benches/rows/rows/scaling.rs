//! How what a verification costs depends on the number of keys, of connections, and of keys in a call.

use crate::Failed;
use crate::bench::Bench;
use crate::figures::Summary;
use crate::fixture::Fixture;
use crate::load::{IN_FLIGHT, Side, alternate, interleave};
use crate::ostiary::Furnished;
use crate::population::Population;
use crate::report::{Plot, Report};
use crate::rows::{batch, verify};

const KEYS: [usize; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
const KEYS_SMALL: [usize; 2] = [10, 100];
const CONNECTIONS: [usize; 5] = [1, 4, 16, 64, 256];
const BATCHES: [usize; 4] = [1, 10, 100, 1_000];
/// Calls, or keys in batches, of a round.
const CALLS: usize = 50_000;

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let mut report = Report::default();
    report.plots.push(by_keys(bench).await?);
    let furnished = bench.furnished().await?;
    let calls = bench.options.size(CALLS, 300);
    let process = &furnished.ostiary.process;
    let mut sides = Vec::new();
    for connections in CONNECTIONS {
        sides.push(verify::side_over(furnished, process, calls, connections).await?);
    }
    report.plots.push(plot("connections", "connections", &CONNECTIONS, one_server(bench, &sides).await?));
    let mut sides = Vec::new();
    for keys in BATCHES {
        sides.push(batch::side(furnished, keys, calls.div_ceil(keys)).await?);
    }
    report.plots.push(plot("batch", "keys in a call", &BATCHES, one_server(bench, &sides).await?));
    report.note(format!(
        "Keys drawn from all; {calls} of them a round and point, {IN_FLIGHT} calls under way, or one for each connection; {} \
         keys where their number does not vary. Ten million keys only if a store of them is kept.",
        furnished.population.number()
    ));
    Ok(report)
}

/// One server after the other, each with a store of its own.
async fn by_keys(bench: &Bench) -> Result<Plot, Failed> {
    let kept = bench.options.fixture.is_some();
    let sizes: Vec<usize> = if bench.options.small {
        KEYS_SMALL.to_vec()
    } else {
        KEYS.into_iter().filter(|keys| kept || *keys <= 1_000_000).collect()
    };
    let mut servers = Vec::new();
    for keys in &sizes {
        let population = Population::drawn(*keys, 1);
        let Fixture { store, .. } = Fixture::plain(bench, &population).await?;
        servers.push(Furnished { ostiary: store.serve()?, population });
    }
    let calls = bench.options.size(CALLS, 300);
    let sides = servers.iter().map(|server| verify::side(server, &server.ostiary.process, calls));
    let sides = futures::future::try_join_all(sides).await?;
    let costs = interleave(&sides, bench.options.rounds(), verify::settle(bench)).await?;
    Ok(plot("keys", "keys", &sizes, costs.into_iter().map(|cost| Summary::of(cost.cpu)).collect()))
}

async fn one_server(bench: &Bench, sides: &[Side<'_>]) -> Result<Vec<Summary>, Failed> {
    let costs = alternate(sides, bench.options.rounds(), verify::settle(bench)).await?;
    Ok(costs.into_iter().map(|cost| Summary::of(cost.cpu)).collect())
}

fn plot(name: &str, along: &str, places: &[usize], costs: Vec<Summary>) -> Plot {
    let points = places.iter().map(|place| *place as f64).zip(costs).collect();
    Plot { name: name.to_owned(), along: along.to_owned(), up: "µs of CPU a key".to_owned(), points }
}
