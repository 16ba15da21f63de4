//! Keys that may be used only so often, beside keys that may be used without limit.

use std::cell::Cell;

use ostiary::pb::v1::{self as pb, VerificationCode};

use crate::Failed;
use crate::answers::code;
use crate::bench::Bench;
use crate::figures::one_of;
use crate::load::{CONNECTIONS, IN_FLIGHT, Made, Side, alternate, saturate};
use crate::ostiary::{Ostiary, row};
use crate::population::{Population, question};
use crate::report::{Bound, Report};
use crate::rows::verify;
use crate::wire::{VERIFY_KEY, Wire, framed};

/// What keys may be used, in turn.
const BALANCES: [u64; 3] = [10, 1_000, 1_000_000];
/// Keys of either kind.
const KEYS: usize = 30_000;
/// Calls to either kind in a round.
const CALLS: usize = 100_000;

/// What came of a key.
#[derive(Default)]
struct Count {
    asked: Cell<u64>,
    valid: Cell<u64>,
}

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let number = bench.options.size(KEYS, 30);
    let calls = bench.options.size(CALLS, 500);
    let ostiary = Ostiary::start()?;
    let api_id = ostiary.prepare().await?;
    let [free, counted] = [21, 22].map(|seed| Population::drawn(number, seed));
    let client = ostiary.client().await?;
    client.import(number, |place| row(&api_id, free.secret(place))).await?;
    let with_credits = |place| {
        let credits = Some(pb::Credits { remaining: Some(balance(place) as i64), ..Default::default() });
        pb::ImportKeysRow { credits, ..row(&api_id, counted.secret(place)) }
    };
    client.import(number, with_credits).await?;
    let counts: [Vec<Count>; 2] = [(); 2].map(|()| (0..number).map(|_| Count::default()).collect());
    let sides = [side(&ostiary, &free, &counts[0], calls).await?, side(&ostiary, &counted, &counts[1], calls).await?];
    let costs = alternate(&sides, bench.options.rounds(), verify::settle(bench)).await?;
    drop(sides);
    for count in &counts[0] {
        if count.valid != count.asked {
            return Err("a key without credits was refused".into());
        }
    }
    let mut exceeded = 0;
    for (place, Count { asked, valid }) in counts[1].iter().enumerate() {
        let right = asked.get().min(balance(place));
        if valid.get() != right {
            let (valid, asked, balance) = (valid.get(), asked.get(), balance(place));
            return Err(format!("{valid} of {asked} uses of a key with {balance} credits").into());
        }
        exceeded += asked.get() - right;
    }
    let [without, with] = &costs[..] else { return Err("two sides have two costs".into()) };
    let mut report = Report::default();
    report.bar("CPU a call with credits, beside without", Bound::AtMost(1.15), without.beside(with));
    verify::tell(&mut report, "without credits", "call", without);
    verify::tell(&mut report, "with credits", "call", with);
    report.note(format!(
        "{number} keys of either kind in one server, balances of {BALANCES:?} in turn; {calls} calls to either kind a round, \
         {IN_FLIGHT} under way over {CONNECTIONS} connections; {exceeded} answers were USAGE_EXCEEDED. Each key was VALID \
         exactly as often as it was asked for or had credits."
    ));
    Ok(report)
}

fn balance(place: usize) -> u64 {
    BALANCES[place % BALANCES.len()]
}

async fn side<'a>(
    ostiary: &'a Ostiary,
    population: &'a Population,
    counts: &'a [Count],
    calls: usize,
) -> Result<Side<'a>, Failed> {
    let wires = ostiary.wires(CONNECTIONS).await?;
    let make = move |first, number| -> Made<'a> {
        let wires = wires.clone();
        Box::pin(async move {
            let ask = async |wire: &Wire, call| {
                let place = one_of(population.number(), 2, first + call);
                let Count { asked, valid } = &counts[place];
                asked.set(asked.get() + 1);
                match code(wire.unary(VERIFY_KEY, framed(&question(population.secret(place)))).await?)? {
                    VerificationCode::Valid => valid.set(valid.get() + 1),
                    VerificationCode::UsageExceeded => {}
                    wrong => return Err(format!("{wrong:?}").into()),
                }
                Ok(())
            };
            saturate(&wires, IN_FLIGHT, number, ask).await
        })
    };
    Ok(Side { process: &ostiary.process, units: calls, make: Box::new(make) })
}
