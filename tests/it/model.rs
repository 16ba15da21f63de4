//! Random verbs, pauses, sweeps and restarts, against a model that is too simple to be wrong in the same way.
//!
//! After each step the answers are compared (success, or code and reason) and the log: exactly one event per effective
//! change, and one per permission made on the way. Every few steps everything that anybody can see is compared, and the
//! rows are checked against each other. Mutations are now and then made again under an idempotency key, tried without
//! effect, or sent with the wrong etag. The engine in memory runs every body twice.
//!
//! `OSTIARY_MODEL_SEQUENCES` sets how many sequences each engine gets, `OSTIARY_MODEL_SEED` where they begin. A failure
//! is reduced by proptest to few small numbers and told with the steps that they stand for.

use ostiary::service::pace::Pace;
use ostiary::store::tables;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::harness::Kept;

mod compare;
mod found;
mod holdings;
mod naive;
mod real;
pub mod rows;
mod steps;
mod verbs;

use naive::{Event, Fault, Model, Told, Workspace};
use real::{Made, Rig};
use steps::{Call, Life, Raw, Sent, Step, Verb};

/// Sequences in memory, unless said otherwise. On disk there are a quarter as many, since each step is made durable.
const SEQUENCES: u32 = 192;
/// Random steps of a sequence, after those that furnish the house.
const STEPS: std::ops::RangeInclusive<usize> = 30..=60;
/// Steps between two comparisons of everything.
const LOOK_EVERY: usize = 12;

/// Both worlds side by side.
struct Pair {
    rig: Rig,
    model: Model,
    /// The last commit whose events have been compared.
    seen: u64,
    told: usize,
    steps: Vec<String>,
}

impl Pair {
    async fn new(kept: Kept, fault: Option<Fault>) -> Self {
        let rig = Rig::new(kept, 7).await;
        let view = rig.engine.view().await.unwrap();
        let (_, home) = rows::all(view.as_ref(), &tables::WORKSPACES).await.remove(0);
        let (_, key) = rows::all(view.as_ref(), &tables::ROOT_KEYS).await.remove(0);
        let (home, id) = (home.id.to_string(), key.id.to_string());
        let mut model = Model { fault, ..Model::default() };
        let name = "default".to_owned();
        let operator = Workspace { id: home.clone(), name, enabled: true, operator: true, deleted: false, version: 1 };
        model.workspaces.push(operator);
        model.root_keys.push(verbs::first_root_key(&home, &id, &rig.first, &["*.*.*", "workspaces.*.*"], rig.now()));
        let seen = view.revision().counter;
        Self { rig, model, seen, told: 0, steps: Vec::new() }
    }

    /// Takes a step in both, and compares what it answers and leaves in the log.
    async fn step(&mut self, step: Step) -> Result<(), String> {
        self.steps.push(format!("{} {step:?}", self.rig.now()));
        match step {
            Step::Pass(millis) => self.rig.world.advance(std::time::Duration::from_millis(millis)),
            Step::Sweep => {
                // What expires in the first may be removed in the second.
                self.rig.ostiary.sweep_due().await.unwrap();
                self.rig.ostiary.sweep_due().await.unwrap();
                self.model.sweep(self.rig.now());
            }
            Step::Save => {
                self.rig.ostiary.flush_usage(Pace::AtOnce).await.unwrap();
                self.rig.ostiary.save_time().await.unwrap();
            }
            Step::Restart => self.rig.restart().await,
            Step::Call(call) => {
                self.call(&call).await?;
            }
        }
        self.events().await
    }

    async fn call(&mut self, call: &Call) -> Result<Made, String> {
        let now = self.rig.now();
        let before = self.model.recognise(&call.secret, call.from, now);
        let etag = real::etag(call.etag, || self.model.version(&call.verb));
        let once = format!("call {}", self.steps.len());
        let once = (call.twice && real::is_mutation(&call.verb)).then_some(once.as_str());
        let is = self.rig.call(call, &etag, once).await;
        self.tell(is.as_ref().map(|done| &done.answer).ok()).await;
        let should = self.model.call(call, now);
        compare::same("answer", &is.as_ref().map(|done| done.answer.text.clone()).map_err(Clone::clone), &should)?;
        let Ok(done) = is else { return Ok(Made::default()) };
        // The same call once more has the same answer and no further effect, if the caller is who it was.
        if once.is_some() && !call.rehearse && before == self.model.recognise(&call.secret, call.from, now) {
            let again = self.rig.call(call, &etag, once).await;
            let words = |done: &ostiary::service::Done<Made>| (done.answer.clone(), done.revision);
            compare::same("repeat", &again.as_ref().map(words).map_err(Clone::clone), &Ok(words(&done)))?;
        }
        Ok(done.answer)
    }

    /// Tells the model the ids and secrets that it can't foresee.
    async fn tell(&mut self, made: Option<&Made>) {
        let view = self.rig.engine.view().await.unwrap();
        let living = rows::all(view.as_ref(), &tables::PERMISSIONS).await.into_iter();
        let living = living.filter(|(_, one)| one.deleted.is_none());
        let slugs =
            living.map(|((home, id), one)| ((home.to_string(), one.slug.to_string()), id.to_string())).collect();
        let made = made.cloned().unwrap_or_default();
        self.model.told = Told { id: made.id, secret: made.secret, root_key: made.root_key, slugs };
    }

    /// Compares the events of the last step.
    async fn events(&mut self) -> Result<(), String> {
        let view = self.rig.engine.view().await.unwrap();
        let events = rows::all(view.as_ref(), &tables::AUDIT).await.into_iter();
        let fresh = events.filter(|((_, revision, _), _)| *revision > self.seen).map(|((home, ..), event)| {
            (home.to_string(), event.happening.event.as_str(), event.happening.targets[0].id.clone())
        });
        let mut is: Vec<Event> = fresh.collect();
        let mut should: Vec<Event> = self.model.events[self.told..].to_vec();
        is.sort();
        should.sort();
        self.seen = view.revision().counter;
        self.told = self.model.events.len();
        compare::same("events", &is, &should)
    }

    async fn look(&self) -> Result<(), String> {
        compare::everything(&self.rig, &self.model).await?;
        let view = self.rig.engine.view().await.unwrap();
        rows::agree_with_themselves(view.as_ref(), self.rig.now()).await
    }

    /// Puts something in the house, so that the first random steps find it.
    async fn furnish(&mut self) -> Result<(), String> {
        let text = str::to_owned;
        let create_api = |name: &str| Verb::CreateApi { name: text(name), ttl: None, protect: false, net: 0 };
        let first = self.rig.first.clone();
        let one = self.does(&first, create_api("one")).await?.id;
        self.does(&first, create_api("two")).await?;
        let permissions = vec![text("documents.*"), text("a.b")];
        let role = self.does(&first, Verb::CreateRole { name: text("reader"), permissions }).await?.id;
        let tenant = self.does(&first, Verb::CreateWorkspace { name: text("tenant") }).await?.secret;
        let other = self.does(&tenant, create_api("three")).await?.id;
        let holds = || (Vec::new(), vec![text("documents.read")]);
        let plays = || (vec![role.clone()], Vec::new());
        for (who, api, (roles, permissions)) in
            [(&first, one.clone(), holds()), (&first, one.clone(), plays()), (&tenant, other, holds())]
        {
            let verb = Verb::CreateKey { api, roles, permissions, enabled: true, life: Life::Never, net: 0 };
            self.does(who, verb).await?;
        }
        let soon = self.rig.now() + 86_400_000;
        let narrow = [format!("apis.{one}.*"), format!("rbac.{role}.*"), text("root_keys.*.read_root_key")];
        for (grants, expire) in [
            (narrow.to_vec(), None),
            (vec![text("apis.*.*"), text("rbac.*.*")], Some(soon)),
            (vec![text("root_keys.*.*"), text("apis.*.read_key"), text("apis.*.update_key")], None),
        ] {
            self.does(&first, Verb::CreateRootKey { name: text("name 0"), grants, expire, net: 0 }).await?;
        }
        self.events().await?;
        self.look().await
    }

    /// Makes a plain call that succeeds.
    async fn does(&mut self, secret: &str, verb: Verb) -> Result<Made, String> {
        let secret = secret.to_owned();
        let call = Call { secret, from: 0, etag: Sent::Nothing, rehearse: false, twice: false, verb };
        self.call(&call).await
    }
}

/// Takes all steps in both worlds; tells where they part.
async fn sequence(kept: Kept, raws: &[Raw], fault: Option<Fault>) -> Result<(), String> {
    let mut pair = Pair::new(kept, fault).await;
    let mut outcome = pair.furnish().await;
    for (number, raw) in raws.iter().enumerate() {
        if outcome.is_err() {
            break;
        }
        let step = steps::read(*raw, &pair.model, pair.rig.now());
        outcome = pair.step(step).await;
        if outcome.is_ok() && (number % LOOK_EVERY == LOOK_EVERY - 1 || number + 1 == raws.len()) {
            outcome = pair.look().await;
        }
    }
    outcome.map_err(|why| format!("{}\n{why}", pair.steps.join("\n")))
}

#[expect(clippy::disallowed_methods, reason = "how much is tried is not part of what is tested")]
pub fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
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
fn whatever_is_done_in_memory_comes_to_what_the_model_says() {
    explore(Kept::InMemory, number("OSTIARY_MODEL_SEQUENCES", SEQUENCES), None).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn whatever_is_done_on_disk_and_across_restarts_comes_to_what_the_model_says() {
    explore(Kept::OnDisk, number("OSTIARY_MODEL_SEQUENCES", SEQUENCES / 4), None).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn a_model_with_a_fault_is_found_out() {
    for fault in [
        Fault::LivesOneMillisecondLonger,
        Fault::StarMatchesNothing,
        Fault::ForgetsToLogUpdates,
        Fault::HandsOnMoreThanItHolds,
        Fault::DeletedRolesStay,
        Fault::CountsDeletedKeys,
    ] {
        assert!(explore(Kept::InMemory, SEQUENCES, Some(fault)).is_err(), "{fault:?}");
    }
}
