//! What verifications wait in the second in which all keys expire.

use std::time::{Duration, Instant};

use ostiary::domain::time::{Expiry, Timestamp};
use ostiary::pb::v1::VerificationCode;

use crate::Failed;
use crate::answers::code;
use crate::bench::Bench;
use crate::figures::Summary;
use crate::fixture::{Loader, prepared};
use crate::load::{CONNECTIONS, pace, within};
use crate::ostiary::Store;
use crate::population::{Population, question};
use crate::report::{Bound, Report};
use crate::rows::sweep::now;
use crate::wire::{VERIFY_KEY, Wire, framed};

/// Verifications a second.
const RATE: f64 = 2_000.0;
const SECOND: Duration = Duration::from_secs(1);
/// Seconds before the one in question that nothing disturbs.
const CALM: u32 = 5;
/// Keys that never expire are loaded first, this share of the others, to know how long those will take.
const SHARE: usize = 20;
/// By how much the clocks of server and load may differ.
const SLACK: Duration = Duration::from_millis(20);

/// What was waited, in milliseconds at the 99th percentile.
struct Storm {
    calm: f64,
    storm: f64,
    after: f64,
}

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let population = Population::drawn(bench.options.keys(1_000_000), 51);
    let mut storms = Vec::new();
    for _ in 0..bench.options.rounds() {
        storms.push(storm(bench, &population).await?);
    }
    let figures = |of: fn(&Storm) -> f64| storms.iter().map(of).collect::<Vec<_>>();
    let (calm, storm) = (figures(|storm| storm.calm), figures(|storm| storm.storm));
    let mut report = Report::default();
    let ratio = Summary::of_ratios(&storm, &calm);
    report.bar(
        "p99 of VerifyKey in the second in which all keys expire, beside the seconds before",
        Bound::AtMost(1.5),
        ratio,
    );
    report.figure("VerifyKey before, p99", "ms", Summary::of(calm));
    report.figure("VerifyKey in that second, p99", "ms", Summary::of(storm));
    report.figure("VerifyKey in the seconds after it, p99", "ms", Summary::of(figures(|storm| storm.after)));
    report.note(format!(
        "{} keys that expire in the same millisecond, in a new server each round; {RATE} calls a second, open loop, keys drawn \
         from all; no key answered VALID after that millisecond nor EXPIRED before it.",
        population.number()
    ));
    Ok(report)
}

async fn storm(bench: &Bench, population: &Population) -> Result<Storm, Failed> {
    let (store, api_id) = prepared(Store::new()?).await?;
    let loader = Loader::open(&store, &api_id).await?;
    let began = Instant::now();
    loader.load(&Population::drawn(population.number().div_ceil(SHARE), 52), |_, _| {}).await?;
    // Half as much again as expected, the start of the server, and the calm before.
    let loading = began.elapsed() * SHARE as u32 * 3 / 2;
    let small = bench.options.small;
    let (second, rate) = if small { (SECOND / 4, 200.0) } else { (SECOND, RATE) };
    let calm = second * CALM;
    let moment = Duration::from_millis((now() + loading + calm + second * 10).as_millis() as u64);
    let expiry = Expiry::At(Timestamp::from_millis_saturating(moment.as_millis() as u64));
    loader.load(population, |_, key| key.expiry = expiry).await?;
    loader.close().await;
    let ostiary = store.serve()?;
    let wires = ostiary.wires(CONNECTIONS).await?;
    let wait = (moment - calm).checked_sub(now()).ok_or("the keys expire too early: loading them took too long")?;
    tokio::time::sleep(wait).await;
    let ask = async |wire: &Wire, call| {
        let asked = now();
        let code = code(wire.unary(VERIFY_KEY, framed(&question(population.any(call)))).await?)?;
        let right = match code {
            VerificationCode::Valid => asked < moment + SLACK,
            VerificationCode::Expired => now() + SLACK >= moment,
            _ => false,
        };
        if right { Ok(()) } else { Err(format!("{code:?} {:?} after the moment", asked.saturating_sub(moment)).into()) }
    };
    let begin = now();
    let took = pace(&wires, rate, calm + second * 3, ask).await?;
    let struck = moment.saturating_sub(begin);
    let seconds = (0..CALM - 1).map(|place| within(&took, second * place..second * (place + 1), 0.99));
    Ok(Storm {
        calm: Summary::of(seconds.collect::<Result<Vec<_>, _>>()?).median,
        storm: within(&took, struck..struck + second, 0.99)?,
        after: within(&took, struck + second..struck + second * 2, 0.99)?,
    })
}
