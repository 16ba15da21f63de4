//! What verifications of keys in use wait while many others are imported.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use ostiary::pb::v1 as pb;
use prost::Message as _;
use tokio::sync::mpsc::unbounded_channel;

use crate::Failed;
use crate::answers::{code, valid};
use crate::bench::Bench;
use crate::figures::{Summary, percentile};
use crate::load::{CONNECTIONS, Took, pace};
use crate::ostiary::{Ostiary, Store, row};
use crate::population::{Population, question, taken};
use crate::process::Address;
use crate::report::{Bound, Report};
use crate::wire::{IMPORT_KEYS, VERIFY_KEY, Wire, framed};

/// Keys in use.
const HOT: usize = 10_000;
/// Keys imported, over all rounds.
const IMPORTED: usize = 1_000_000;
/// Rows in a message of an import, and messages under way.
const CHUNK: usize = 1_000;
const AHEAD: usize = 4;
/// Verifications a second.
const RATE: f64 = 2_000.0;
/// How long nothing is imported, and how long the load goes on at a time while something is.
const CALM: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(1);

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let rounds = bench.options.rounds();
    let (hot, each) = (bench.options.size(HOT, 100), bench.options.size(IMPORTED, 2_000) / rounds);
    let rate = if bench.options.small { 200.0 } else { RATE };
    let (calm_span, window) =
        if bench.options.small { (Duration::from_millis(300), Duration::from_millis(300)) } else { (CALM, WINDOW) };
    let ostiary = Store::new()?.serve_with_metrics()?;
    let population = Population::drawn(hot, 61);
    let api_id = ostiary.furnish(&population).await?;
    let wires = ostiary.wires(CONNECTIONS).await?;
    let ask =
        async |wire: &Wire, call| valid(code(wire.unary(VERIFY_KEY, framed(&question(population.any(call)))).await?)?);
    // Whatever is remembered of keys in use is remembered from here on.
    pace(&wires, rate, calm_span, ask).await?;
    let (mut calm, mut busy, mut rates, mut rate_of_hits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let messages = messages(&api_id, each, 62 + round as u64);
        calm.push(p99(&pace(&wires, rate, calm_span, ask).await?)?);
        let hits = hits(&ostiary).await?;
        let (address, bearer) = (ostiary.process.address.clone(), ostiary.bearer().clone());
        let import = std::thread::spawn(move || import(&address, &bearer, messages));
        let began = std::time::Instant::now();
        let mut took = Vec::new();
        while !import.is_finished() || took.is_empty() {
            took.extend(pace(&wires, rate, window, ask).await?);
        }
        import.join().map_err(|_| "the import panicked")??;
        rates.push(each as f64 / began.elapsed().as_secs_f64());
        busy.push(p99(&took)?);
        rate_of_hits.push(rate_of_hits_since(hits, self::hits(&ostiary).await?));
    }
    let mut report = Report::default();
    let ratio = Summary::of_ratios(&busy, &calm);
    report.bar("p99 of VerifyKey during an import, beside undisturbed", Bound::AtMost(2.0), ratio);
    report.figure("VerifyKey undisturbed, p99", "ms", Summary::of(calm));
    report.figure("VerifyKey during an import, p99", "ms", Summary::of(busy));
    report.figure("ImportKeys meanwhile", "keys/s", Summary::of(rates));
    report.bar(
        "records asked for during an import that were remembered",
        Bound::AtLeast(0.99),
        Summary::of(rate_of_hits),
    );
    report.note(format!(
        "{hot} keys in use, {rate} calls a second, open loop; {each} keys imported a round over one stream by another thread."
    ));
    Ok(report)
}

fn p99(took: &[Took]) -> Result<f64, Failed> {
    percentile(took.iter().map(|took| took.latency.as_secs_f64() * 1e3), 0.99)
}

/// What the server counts of its cache of records.
#[derive(Debug, Clone, Copy)]
struct Hits {
    hits: u64,
    misses: u64,
}

/// Reads that from the metrics.
async fn hits(ostiary: &Ostiary) -> Result<Hits, Failed> {
    let [hits, misses] = ["hit", "miss"].map(|result| format!("ostiary_cache_reads_total{{result=\"{result}\"}}"));
    Ok(Hits { hits: ostiary.metric(&hits).await? as u64, misses: ostiary.metric(&misses).await? as u64 })
}

fn rate_of_hits_since(before: Hits, after: Hits) -> f64 {
    let (hits, misses) = (after.hits - before.hits, after.misses - before.misses);
    hits as f64 / (hits + misses).max(1) as f64
}

/// The messages of an import, made beforehand.
fn messages(api_id: &str, number: usize, seed: u64) -> Vec<Bytes> {
    let population = Population::drawn(number, seed);
    let chunk = |first: usize| {
        let rows = (first..number.min(first + CHUNK)).map(|place| row(api_id, population.secret(place))).collect();
        framed(&pb::ImportKeysRequest { rows })
    };
    (0..number).step_by(CHUNK).map(chunk).collect()
}

/// Imports them, on a thread of its own so that the load need not wait for it.
fn import(address: &Address, bearer: &HeaderValue, messages: Vec<Bytes>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let wire = Wire::connect(address, bearer).await?;
        let (send, stream) = unbounded_channel();
        let (number, mut rest) = (messages.len(), messages.into_iter());
        for message in rest.by_ref().take(AHEAD) {
            send.send(message)?;
        }
        let mut answers = wire.stream(IMPORT_KEYS, stream).await?;
        let mut answered = 0;
        while answered < number {
            for answer in answers.next().await?.ok_or("the import ended early")? {
                taken(&pb::ImportKeysResponse::decode(answer)?)?;
                answered += 1;
                if let Some(message) = rest.next() {
                    send.send(message)?;
                }
            }
        }
        drop(send);
        match answers.next().await? {
            None => Ok(()),
            Some(_) => Err("answers after the last message".into()),
        }
    })
}
