//! What creators wait while the sweep records that many keys have expired.

use std::time::{Duration, SystemTime};

use ostiary::domain::time::{Expiry, Timestamp};
use ostiary::pb::v1::{self as pb, VerificationCode};

use crate::Failed;
use crate::answers::code;
use crate::bench::Bench;
use crate::figures::Summary;
use crate::fixture::{Fixture, Loader};
use crate::load::{CONNECTIONS, pace, within};
use crate::ostiary::Ostiary;
use crate::population::{Population, question};
use crate::report::{Bound, Report};
use crate::rows::create::create;
use crate::wire::{VERIFY_KEY, Wire, framed};

/// Keys that expire in the same instant of a round.
const DUE: usize = 100_000;
/// Creates a second.
const RATE: f64 = 300.0;
/// How long creators are watched before something is due.
const BEFORE: Duration = Duration::from_secs(10);
/// How long creators are watched while it is swept, at most, in seconds.
const SWEPT: f64 = 20.0;
/// From one round to the next. A sweep must be over by then.
const APART: Duration = Duration::from_secs(240);
/// What loading a key takes at most, to know from when on nothing is being loaded.
const LOADED_WITHIN: Duration = Duration::from_micros(400);

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let (rounds, due) = (bench.options.rounds(), bench.options.size(DUE, 40));
    let small = bench.options.small;
    let (before, apart, most) =
        if small { (Duration::from_millis(300), Duration::from_secs(2), 1.0) } else { (BEFORE, APART, SWEPT) };
    let population = Population::drawn(bench.options.keys(1_000_000), 1);
    let fixture = Fixture::plain(bench, &population).await?;
    let store = fixture.store.copied()?;
    let expiring = Population::drawn(due * rounds, 41);
    let ready = if small { Duration::from_secs(2) } else { LOADED_WITHIN * expiring.number() as u32 + 2 * before };
    let first = now() + ready;
    let loader = Loader::open(&store, &fixture.api_id).await?;
    let moment = |round: usize| first + apart * round as u32;
    let vary = |place: usize, key: &mut ostiary::domain::key::Key| {
        // The rounds take turns, so that those of one do not lie next to each other.
        key.expiry = Expiry::At(Timestamp::from_millis_saturating(moment(place % rounds).as_millis() as u64));
    };
    loader.load(&expiring, vary).await?;
    loader.close().await;
    let ostiary = store.serve_with_metrics()?;
    let wires = ostiary.wires(CONNECTIONS).await?;
    let ask = async |wire: &Wire, _| create(wire, &fixture.api_id).await.map(drop);
    let (mut calm, mut swept, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let until = (moment(round) - before).checked_sub(now()).ok_or("a round has begun too late")?;
        tokio::time::sleep(until).await;
        if lag(&ostiary).await? > 0.0 {
            return Err("the sweep of an earlier round is not over".into());
        }
        let took = pace(&wires, RATE, before.saturating_sub(Duration::from_millis(50)), ask).await?;
        calm.push(within(&took, Duration::ZERO..before, 0.99)?);
        tokio::time::sleep(moment(round).saturating_sub(now())).await;
        // In windows, until nothing is due any more; what is left then is swept while nobody creates.
        let (mut disturbed, mut length) = (Vec::new(), 0.0);
        let window = Duration::from_millis(500);
        while length < most && (length == 0.0 || lag(&ostiary).await? > 0.0) {
            disturbed.extend(pace(&wires, RATE, window, ask).await?);
            length += window.as_secs_f64();
        }
        swept.push(within(&disturbed, Duration::ZERO..window, 0.99)?);
        while lag(&ostiary).await? > 0.0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        lengths.push(now().saturating_sub(moment(round)).as_secs_f64());
    }
    check(bench, &ostiary, &population, &expiring).await?;
    let mut report = Report::default();
    let ratio = Summary::of_ratios(&swept, &calm);
    report.bar("p99 of CreateKey while a sweep runs, beside undisturbed", Bound::AtMost(3.0), ratio);
    report.figure("CreateKey undisturbed, p99", "ms", Summary::of(calm));
    report.figure("CreateKey while a sweep runs, p99", "ms", Summary::of(swept));
    report.figure("until the sweep was over", "s", Summary::of(lengths));
    report.note(format!(
        "{} keys of which {due} expire in one instant of each round; {RATE} creates a second, open loop, over {CONNECTIONS} \
         connections, for the first {SWEPT} seconds of each sweep.",
        population.number() + expiring.number()
    ));
    Ok(report)
}

/// For how many seconds something has been due.
async fn lag(ostiary: &Ostiary) -> Result<f64, Failed> {
    ostiary.metric("ostiary_sweep_lag_seconds").await
}

/// The time since the epoch.
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// That the right keys have expired, and when there are few, that the sweep has recorded all of them.
async fn check(bench: &Bench, ostiary: &Ostiary, staying: &Population, expiring: &Population) -> Result<(), Failed> {
    let wire = ostiary.wires(1).await?.remove(0);
    for (population, expected) in [(staying, VerificationCode::Valid), (expiring, VerificationCode::Expired)] {
        for number in 0..100 {
            let answer = code(wire.unary(VERIFY_KEY, framed(&question(population.any(number)))).await?)?;
            if answer != expected {
                return Err(format!("{answer:?} instead of {expected:?}").into());
            }
        }
    }
    if bench.options.small {
        let filter = pb::ListAuditEventsFilter { event: Some("key.expire".to_owned()), ..Default::default() };
        let request = pb::ListAuditEventsRequest { page_size: 1_000, filter: Some(filter), ..Default::default() };
        let events = ostiary.client().await?.audit().list_audit_events(request).await?.into_inner().events;
        if events.len() != expiring.number() {
            return Err(format!("{} of {} keys are recorded as expired", events.len(), expiring.number()).into());
        }
    }
    Ok(())
}
