//! Keys made and durable, beside redb alone with the same rows.

use std::cell::RefCell;
use std::time::Instant;

use ostiary::pb::v1 as pb;
use prost::Message as _;

use crate::Failed;
use crate::answers::{code, valid};
use crate::bench::Bench;
use crate::figures::Summary;
use crate::fixture::{Fixture, Loader};
use crate::load::{CONNECTIONS, Cost, IN_FLIGHT, saturate};
use crate::ostiary::{Ostiary, calls};
use crate::population::{Population, question};
use crate::raw::{GROUP_MAX, Raw, Rows};
use crate::report::{Bound, Report};
use crate::rows::verify;
use crate::wire::{CREATE_KEY, VERIFY_KEY, Wire, framed};

/// Keys made in a round, together and one at a time.
const KEYS: usize = 50_000;
const KEYS_SINGLY: usize = 1_000;

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let (keys, singly) = (bench.options.size(KEYS, 200), bench.options.size(KEYS_SINGLY, 20));
    let population = Population::drawn(bench.options.keys(1_000_000), 1);
    let fixture = Fixture::plain(bench, &population).await?;
    // The copies hold the same, and one key more, from which the rows are taken.
    let copy = fixture.store.copied()?;
    let loader = Loader::open(&copy, &fixture.api_id).await?;
    let template = loader.template();
    loader.close().await;
    let raw_copy = copy.copied()?;
    let mut raw = Raw::start(&raw_copy.file(), &template)?;
    let ostiary = copy.serve()?;
    let wires = ostiary.wires(CONNECTIONS).await?;
    let made = RefCell::new(Vec::new());
    let [mut whole, mut grouped, mut single, mut indexed] =
        [(); 4].map(|()| Cost { cpu: Vec::new(), rate: Vec::new() });
    for round in 0..=bench.options.rounds() {
        let before = ostiary.process.clock().read()?;
        let began = Instant::now();
        saturate(&wires, IN_FLIGHT, keys, async |wire, _| {
            let secret = create(wire, &fixture.api_id).await?;
            made.borrow_mut().push(secret);
            Ok(())
        })
        .await?;
        let rate = keys as f64 / began.elapsed().as_secs_f64();
        let spent = ostiary.process.clock().read()?.since(&before);
        let (together, one) = (raw.round(keys, GROUP_MAX, Rows::All)?, raw.round(singly, 1, Rows::All)?);
        let with = raw.round(keys, GROUP_MAX, Rows::WithDigest)?;
        if round > 0 {
            whole.rate.push(rate);
            whole.cpu.push(spent.as_secs_f64() * 1e6 / keys as f64);
            for (cost, round) in [(&mut grouped, together), (&mut single, one), (&mut indexed, with)] {
                cost.rate.push(round.rate);
                cost.cpu.push(round.cpu);
            }
        }
    }
    let ostiary = ostiary.kill().serve()?;
    check(&ostiary, &made.into_inner()).await?;
    let mut report = Report::default();
    let times = |other: &Cost| Summary::of_ratios(&whole.rate, &other.rate);
    report.bar("creates a second, beside redb with the same rows in groups", Bound::AtLeast(0.7), times(&grouped));
    report.bar("creates a second, beside redb with one commit for each", Bound::AtLeast(10.0), times(&single));
    report.figure("creates per CPU second, beside redb in groups", "times", whole.beside(&grouped));
    verify::tell(&mut report, "CreateKey", "create", &whole);
    verify::tell(&mut report, "redb in groups", "create", &grouped);
    verify::tell(&mut report, "redb in groups, with a row of the digest besides", "create", &indexed);
    verify::tell(&mut report, "redb, one commit for each", "create", &single);
    report.note(format!(
        "{} keys at first, {keys} created a round by {IN_FLIGHT} callers, {singly} with one commit for each; {} rows each; \
         redb writes them to a copy of the same file, with ostiary's options.",
        population.number(),
        template.rows.len()
    ));
    Ok(report)
}

/// Makes a key and tells its secret.
pub async fn create(wire: &Wire, api_id: &str) -> Result<String, Failed> {
    let request = pb::CreateKeyRequest {
        api_id: api_id.to_owned(),
        roles: vec!["reader".to_owned()],
        rate_limits: vec![calls()],
        ..Default::default()
    };
    let answer = pb::CreateKeyResponse::decode(wire.unary(CREATE_KEY, framed(&request)).await?)?;
    if answer.secret.is_empty() { Err("a key without a secret".into()) } else { Ok(answer.secret) }
}

/// That the keys made last outlived the server.
async fn check(ostiary: &Ostiary, secrets: &[String]) -> Result<(), Failed> {
    let wires = ostiary.wires(1).await?;
    for secret in secrets.iter().rev().take(100) {
        valid(code(wires[0].unary(VERIFY_KEY, framed(&question(secret))).await?)?)?;
    }
    Ok(())
}
