//! Random sequences of all that spends, counts, rerolls, revokes and limits, against a model that keeps every use and
//! adds them up.
//!
//! Who may do what is the business of `model.rs`; here somebody does who may do everything. The clock moves, to midnights
//! above all; the store is swept now and then, and on disk the server is stopped and started again.
//!
//! `OSTIARY_MODEL_SEQUENCES`, `OSTIARY_MODEL_SEED` and `OSTIARY_MODEL_SHRINK` are as in `model.rs`.

use ostiary::pb::v1 as pb;
use ostiary::server::Sweeping;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::harness::{Client, House, Kept, at};
use crate::model::{number, rows};

mod naive;
mod real;
mod steps;

use naive::{Fault, Model};
use steps::{Asked, Raw, Step};

/// Sequences in memory; on disk a quarter as many.
const SEQUENCES: u32 = 96;
const STEPS: std::ops::RangeInclusive<usize> = 40..=80;
/// Steps between two comparisons of everything.
const LOOK_EVERY: usize = 16;

/// Both worlds side by side.
struct Pair {
    house: House,
    client: Client,
    model: Model,
    kept: Kept,
    steps: Vec<String>,
}

fn same(what: &str, is: impl std::fmt::Debug, should: impl std::fmt::Debug) -> Result<(), String> {
    let (is, should) = (format!("{is:?}"), format!("{should:?}"));
    if is == should { Ok(()) } else { Err(format!("{what}\n  is     {is}\n  should {should}")) }
}

impl Pair {
    async fn new(kept: Kept, fault: Option<Fault>) -> Self {
        let house = House::build(kept, Sweeping::ByHand, 11).await;
        let client = house.operator().await;
        client.role("reader", &[]).await;
        let mut pair = Self { house, client, model: Model::with(fault), kept, steps: Vec::new() };
        for _ in 0..2 {
            pair.step(Step::CreateApi { ttl: None }).await.unwrap();
        }
        pair
    }

    async fn step(&mut self, step: Step) -> Result<(), String> {
        self.steps.push(format!("{} {step:?}", self.house.now()));
        match step {
            Step::Pass(millis) => self.house.pass(millis),
            Step::Sweep => self.sweep().await,
            // What is kept in memory does not outlive its process.
            Step::Restart if self.kept == Kept::InMemory => return Ok(()),
            Step::Restart => {
                self.house.restart().await;
                self.client = self.house.operator().await;
            }
            _ => {}
        }
        let now = self.house.now();
        let (is, made) = self.client.take(&step).await;
        self.model.told = made;
        let mut after = self.model.clone();
        let should = after.take(&step, now);
        if should.is_ok() {
            self.model = after;
        }
        same("answer", is, should)?;
        if matches!(step, Step::DeleteApi { .. }) {
            self.sweep().await;
            self.model.sweep(now);
        }
        Ok(())
    }

    async fn sweep(&self) {
        // What expires in the first may be removed in the second.
        self.house.sweep().await;
        self.house.sweep().await;
    }

    /// Compares all that can be seen, once what was put off has been done.
    async fn look(&mut self) -> Result<(), String> {
        self.step(Step::Sweep).await?;
        let now = self.house.now();
        let request = pb::ListKeysRequest { page_size: 1_000, show_deleted: true, ..Default::default() };
        let listed = self.client.keys().list_keys(request).await.unwrap().into_inner().keys;
        let is: Vec<_> = listed
            .iter()
            .map(|key| {
                let left = key.credits.as_ref().map(|credits| credits.remaining.unwrap());
                let (owner, to) = (key.external_id.as_deref(), key.rotated_to.as_deref());
                (key.key_id.clone(), format!("{:?}", key.state()), key.expire_time, left, owner, to)
            })
            .collect();
        let mut should: Vec<_> = self
            .model
            .visible(now)
            .map(|key| {
                let left = self.model.left(&key.line, now);
                let (owner, to) = (self.model.owner(key).map(|one| one.name), key.to.as_deref());
                (key.id.clone(), self.model.state(key, now).to_owned(), key.end.map(at), left, owner, to)
            })
            .collect();
        should.sort_by(|one, other| one.0.cmp(&other.0));
        same("keys", is, should)?;
        let listed = self.client.identities().list_identities(pb::ListIdentitiesRequest::default()).await.unwrap();
        let is: Vec<(String, i64)> =
            listed.into_inner().identities.into_iter().map(|one| (one.external_id, one.key_count)).collect();
        let living = self.model.identities.iter().enumerate().filter(|(_, one)| !one.deleted);
        let should: Vec<(&str, usize)> = living.map(|(place, one)| (one.name, self.model.keys_of(place))).collect();
        same("identities", is, should)?;
        let view = self.house.engine.view().await.unwrap();
        rows::agree_with_themselves(view.as_ref(), now).await?;
        drop(view);
        for key in self.model.keys.clone() {
            let asked = Asked { secret: key.secret.clone(), cost: 1, named: Vec::new(), dry: true };
            let (is, _) = self.client.take(&Step::Verify(asked.clone())).await;
            same(&key.id, is, self.model.clone().verify(&asked, now))?;
        }
        Ok(())
    }
}

/// Takes all steps in both worlds; tells where they part.
async fn sequence(kept: Kept, raws: &[Raw], fault: Option<Fault>) -> Result<(), String> {
    let mut pair = Pair::new(kept, fault).await;
    let mut outcome = Ok(());
    for (number, raw) in raws.iter().enumerate() {
        let step = steps::read(*raw, &pair.model, pair.house.now());
        outcome = pair.step(step).await;
        if outcome.is_ok() && (number % LOOK_EVERY == LOOK_EVERY - 1 || number + 1 == raws.len()) {
            outcome = pair.look().await;
        }
        if outcome.is_err() {
            break;
        }
    }
    outcome.map_err(|why| format!("{}\n{why}", pair.steps.join("\n")))
}

/// Runs so many sequences; tells of the smallest that fails, if one does.
fn explore(kept: Kept, cases: u32, fault: Option<Fault>) -> Result<(), String> {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number("OSTIARY_MODEL_SEED", 1).to_be_bytes());
    // A planted fault need not be made small.
    let max_shrink_iters = if fault.is_some() { 0 } else { number("OSTIARY_MODEL_SHRINK", 256) };
    let config = Config { cases, failure_persistence: None, max_shrink_iters, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runner.run(&vec(any::<Raw>(), STEPS), |raws| {
        runtime.block_on(sequence(kept, &raws, fault)).map_err(TestCaseError::fail)
    });
    outcome.map_err(|failure| match failure {
        TestError::Fail(why, raws) => format!("{why}\nfrom {raws:?}"),
        TestError::Abort(why) => why.to_string(),
    })
}

#[test]
fn whatever_is_spent_and_counted_in_memory_adds_up() {
    explore(Kept::InMemory, number("OSTIARY_MODEL_SEQUENCES", SEQUENCES), None).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn whatever_is_spent_and_counted_on_disk_and_across_restarts_adds_up() {
    explore(Kept::OnDisk, number("OSTIARY_MODEL_SEQUENCES", SEQUENCES / 4), None).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn a_model_with_a_fault_is_found_out() {
    for fault in [
        Fault::ForgetsTheWindowBefore,
        Fault::AddsRefills,
        Fault::CountsGenerationsApart,
        Fault::RevokesNoDeletedKeys,
        Fault::LetsNamedLimitsRelax,
    ] {
        assert!(explore(Kept::InMemory, SEQUENCES, Some(fault)).is_err(), "{fault:?}");
    }
}
