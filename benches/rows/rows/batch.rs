//! Many keys a call.

use crate::Failed;
use crate::answers::{codes, valid};
use crate::bench::{Bench, Echo};
use crate::load::{CONNECTIONS, Made, Side, interleave, saturate};
use crate::ostiary::Furnished;
use crate::population::batch;
use crate::report::{Bound, Report};
use crate::rows::verify;
use crate::wire::{BATCH_VERIFY_KEYS, Wire};

/// Keys in a batch.
const KEYS: usize = 100;
/// Batches under way at a time.
const IN_FLIGHT: usize = 16;
/// Calls to the echo, and batches, in a round.
const CALLS: usize = 100_000;
const BATCHES: usize = 10_000;

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let furnished = bench.furnished().await?;
    let stock = bench.echo(Echo::Stock, &furnished.answer().await?).await?;
    let batches = bench.options.size(BATCHES, 20);
    let echoed = verify::side(furnished, &stock, bench.options.size(CALLS, 1_000)).await?;
    let sides = [echoed, side(furnished, KEYS, batches).await?];
    let costs = interleave(&sides, bench.options.rounds(), verify::settle(bench)).await?;
    let [stock, ostiary] = &costs[..] else { return Err("two sides have two costs".into()) };
    let mut report = Report::default();
    report.bar("keys per CPU second, beside calls of the stock echo", Bound::AtLeast(12.0), ostiary.beside(stock));
    verify::tell(&mut report, "stock echo", "call", stock);
    verify::tell(&mut report, "BatchVerifyKeys", "key", ostiary);
    report.note(format!(
        "{} keys, {batches} batches of {KEYS} a round, {IN_FLIGHT} under way over {CONNECTIONS} connections.",
        furnished.population.number()
    ));
    Ok(report)
}

/// Batches of so many keys, so many a round.
pub async fn side(furnished: &Furnished, keys: usize, batches: usize) -> Result<Side<'_>, Failed> {
    let wires = furnished.ostiary.wires(CONNECTIONS).await?;
    let make = move |first: usize, number: usize| -> Made<'_> {
        let wires = wires.clone();
        Box::pin(async move {
            let ask = async |wire: &Wire, call: usize| {
                let request = batch(&furnished.population, first + call * keys, keys);
                let codes = codes(wire.unary(BATCH_VERIFY_KEYS, request).await?)?;
                if codes.len() != keys {
                    return Err(format!("{} answers to {keys} questions", codes.len()).into());
                }
                codes.into_iter().try_for_each(valid)
            };
            saturate(&wires, IN_FLIGHT, number / keys, ask).await
        })
    };
    Ok(Side { process: &furnished.ostiary.process, units: batches * keys, make: Box::new(make) })
}
