//! What the number of keys adds: to the cost of those in use, and to memory.

use ostiary::pb::v1 as pb;

use crate::Failed;
use crate::answers::{code, valid};
use crate::bench::Bench;
use crate::figures::Summary;
use crate::fixture::Fixture;
use crate::load::{CONNECTIONS, IN_FLIGHT, interleave, saturate};
use crate::ostiary::Furnished;
use crate::population::{Population, question};
use crate::report::{Bound, Report};
use crate::rows::verify;
use crate::wire::{VERIFY_KEY, Wire, framed};

/// Keys in the large store, and in the small one, which has those in use.
pub const MANY: usize = 10_000_000;
const FEW: usize = 1_000;
const CALLS: usize = 100_000;
/// Calls with keys from all, so that whatever is remembered has filled up.
const TOUCHES: usize = 1_500_000;
/// What the server may have: its caches at the default, and the rest, for the keys in use alone.
const RESIDENT_MIB: f64 = 512.0 + 128.0;

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let calls = bench.options.size(CALLS, 500);
    let many = Population::drawn(bench.options.keys(MANY), 1);
    // The same secrets, as they are drawn first.
    let few = || Population::drawn(bench.options.size(FEW, 30), 1);
    let large = Fixture::plain(bench, &many).await?;
    let small = Fixture::plain(bench, &few()).await?;
    let mut servers = Vec::new();
    for Fixture { store, .. } in [small, large] {
        servers.push(Furnished { ostiary: store.serve()?, population: few() });
    }
    let sides = servers.iter().map(|server| verify::side(server, &server.ostiary.process, calls));
    let sides = futures::future::try_join_all(sides).await?;
    let costs = interleave(&sides, bench.options.rounds(), verify::settle(bench)).await?;
    let [small, large] = &costs[..] else { return Err("two sides have two costs".into()) };
    drop(sides);
    let process = &servers[1].ostiary.process;
    let wires = servers[1].ostiary.wires(CONNECTIONS).await?;
    let touches = bench.options.size(TOUCHES, 500);
    let tried = async |wire: &Wire, call| {
        let question = pb::VerifyKeyRequest { dry_run: true, ..question(many.any(call)) };
        valid(code(wire.unary(VERIFY_KEY, framed(&question)).await?)?)
    };
    saturate(&wires, IN_FLIGHT, touches, tried).await?;
    let resident = || -> Result<f64, Failed> { Ok(process.clock().resident()? as f64 / f64::from(1 << 20)) };
    let remembering = resident()?;
    let used = async |wire: &Wire, call| valid(code(wire.unary(VERIFY_KEY, framed(&question(many.any(call)))).await?)?);
    saturate(&wires, IN_FLIGHT, touches, used).await?;
    let counting = resident()?;
    let mut report = Report::default();
    let ratio = small.beside(large);
    report.bar(
        &format!("CPU a call with {} keys, beside {}", many.number(), few().number()),
        Bound::AtMost(1.2),
        ratio,
    );
    report.bar("resident memory, MiB", Bound::AtMost(RESIDENT_MIB), Summary::exactly(remembering));
    report.figure("resident memory once all limits are counted that were used", "MiB", Summary::exactly(counting));
    verify::tell(&mut report, "few keys", "call", small);
    verify::tell(&mut report, "many keys", "call", large);
    report.note(format!(
        "The same {} keys are verified in both stores, {calls} calls a round, {IN_FLIGHT} under way over {CONNECTIONS} \
         connections. Memory is that of the large one after another {touches} dry runs with keys drawn from all, which fill \
         whatever is remembered; and after as many verifications, each of a key with a limit of an hour that is counted from \
         then on, and whose last use is to be saved.",
        few().number()
    ));
    Ok(report)
}
