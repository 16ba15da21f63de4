//! Many keys over one call.

use bytes::{Bytes, BytesMut};
use ostiary::pb::v1 as pb;
use tokio::sync::mpsc::unbounded_channel;

use crate::Failed;
use crate::answers::{correlated, valid};
use crate::bench::{Bench, Echo};
use crate::load::{Made, Side, interleave};
use crate::ostiary::Furnished;
use crate::population::question;
use crate::report::{Bound, Report};
use crate::rows::verify;
use crate::wire::{STREAM_VERIFY_KEYS, Wire, frame};

/// Keys under way at a time.
const IN_FLIGHT: usize = 256;
/// Calls to the echo, and keys, in a round.
const CALLS: usize = 100_000;
const KEYS: usize = 1_000_000;

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let furnished = bench.furnished().await?;
    let stock = bench.echo(Echo::Stock, &furnished.answer().await?).await?;
    let keys = bench.options.size(KEYS, 2_000);
    let echoed = verify::side(furnished, &stock, bench.options.size(CALLS, 1_000)).await?;
    let sides = [echoed, side(furnished, keys).await?];
    let costs = interleave(&sides, bench.options.rounds(), verify::settle(bench)).await?;
    let [stock, ostiary] = &costs[..] else { return Err("two sides have two costs".into()) };
    let mut report = Report::default();
    report.bar("keys per CPU second, beside calls of the stock echo", Bound::AtLeast(10.0), ostiary.beside(stock));
    verify::tell(&mut report, "stock echo", "call", stock);
    verify::tell(&mut report, "StreamVerifyKeys", "key", ostiary);
    report.note(format!(
        "{} keys, {keys} verified a round, {IN_FLIGHT} under way on one stream.",
        furnished.population.number()
    ));
    Ok(report)
}

async fn side(furnished: &Furnished, keys: usize) -> Result<Side<'_>, Failed> {
    let wire = furnished.ostiary.wires(1).await?.remove(0);
    let make = move |first, number| -> Made<'_> {
        let wire = wire.clone();
        Box::pin(async move { over_one_stream(furnished, &wire, first, number).await })
    };
    Ok(Side { process: &furnished.ostiary.process, units: keys, make: Box::new(make) })
}

/// Asks about so many keys. Every question goes by the number of the slot that its answer frees.
async fn over_one_stream(furnished: &Furnished, wire: &Wire, first: usize, number: usize) -> Result<(), Failed> {
    let (send, messages) = unbounded_channel();
    let mut free: Vec<usize> = (0..IN_FLIGHT).collect();
    let mut taken = [false; IN_FLIGHT];
    let (mut asked, mut answered) = (0, 0);
    let mut ask = |free: &mut Vec<usize>, taken: &mut [bool]| -> Result<(), Failed> {
        let mut buffer = BytesMut::new();
        while asked < number {
            let Some(slot) = free.pop() else { break };
            taken[slot] = true;
            let request = Some(question(furnished.population.any(first + asked)));
            frame(&pb::StreamVerifyKeysRequest { correlation_id: slot.to_string(), request }, &mut buffer);
            asked += 1;
        }
        if !buffer.is_empty() {
            send.send(buffer.freeze())?;
        }
        Ok(())
    };
    ask(&mut free, &mut taken)?;
    let mut answers = wire.stream(STREAM_VERIFY_KEYS, messages).await?;
    while answered < number {
        let messages = answers.next().await?.ok_or("the stream ended before all was answered")?;
        for message in messages {
            let slot = slot(message)?;
            if !std::mem::replace(taken.get_mut(slot).ok_or("an answer to no question")?, false) {
                return Err("a second answer to one question".into());
            }
            free.push(slot);
            answered += 1;
        }
        ask(&mut free, &mut taken)?;
    }
    drop(send);
    match answers.next().await? {
        None => Ok(()),
        Some(_) => Err("answers after the last question".into()),
    }
}

/// Which question is answered, with yes.
fn slot(message: Bytes) -> Result<usize, Failed> {
    let (id, code) = correlated(message)?;
    valid(code)?;
    Ok(std::str::from_utf8(&id)?.parse()?)
}
