//! Whether a change holds for everything that starts after it was acknowledged.
//!
//! Each kind of change is made over and over by a caller of its own, on a key of its own, while many other calls verify
//! those keys. Each key has a history of the codes that it must answer. A verification that starts when the change to one
//! of them has been acknowledged must answer that one, or one whose change has begun before the answer came.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ostiary::pb::v1::{self as pb, VerificationCode};

use crate::Failed;
use crate::answers::{code, codes};
use crate::bench::Bench;
use crate::figures::{Summary, one_of};
use crate::load::{CONNECTIONS, IN_FLIGHT};
use crate::ostiary::Ostiary;
use crate::population::question;
use crate::report::{Bound, Report};
use crate::wire::{BATCH_VERIFY_KEYS, VERIFY_KEY, Wire, framed};

mod changes;

use changes::{Changer, KINDS};

/// Verifications.
const NUMBER: usize = 1_000_000;
/// Every so many calls, one is a batch of so many keys.
const BATCH_EVERY: usize = 16;
const BATCH: usize = 10;
/// The least changes of each kind.
const CHANGES_MIN: usize = 4;

/// A key, and what it must answer.
struct Subject {
    secret: String,
    key_id: String,
    /// Codes, each from the beginning of its change on.
    codes: RefCell<Vec<VerificationCode>>,
    /// The place of the last code whose change has been acknowledged.
    acknowledged: Cell<usize>,
}

impl Subject {
    /// A key that is good.
    fn new(secret: String, key_id: String) -> Rc<Self> {
        let codes = RefCell::new(vec![VerificationCode::Valid]);
        Rc::new(Self { secret, key_id, codes, acknowledged: Cell::new(0) })
    }

    /// Makes a change, after which the key answers this code.
    async fn change(
        &self,
        code: VerificationCode,
        change: impl Future<Output = Result<(), Failed>>,
    ) -> Result<(), Failed> {
        let place = self.codes.borrow().len();
        self.codes.borrow_mut().push(code);
        change.await?;
        self.acknowledged.set(place);
        Ok(())
    }
}

/// All keys that have ever been changed, and what has been found.
struct Watched {
    subjects: RefCell<Vec<Rc<Subject>>>,
    /// Of each kind of change, the key that it is made to, and how many have been acknowledged.
    busy: Vec<(RefCell<Rc<Subject>>, Cell<usize>)>,
    verified: Cell<usize>,
    stale: Cell<usize>,
}

impl Watched {
    /// Half of the time one that is being changed.
    fn any(&self, number: usize) -> Rc<Subject> {
        if number.is_multiple_of(2) {
            Rc::clone(&self.busy[one_of(self.busy.len(), 3, number)].0.borrow())
        } else {
            let subjects = self.subjects.borrow();
            Rc::clone(&subjects[one_of(subjects.len(), 4, number)])
        }
    }

    /// Counts a change of this kind, and goes on with the same key or another.
    fn changed(&self, kind: usize, subject: &Rc<Subject>) {
        let (busy, changes) = &self.busy[kind];
        changes.set(changes.get() + 1);
        if !Rc::ptr_eq(&busy.borrow(), subject) {
            self.subjects.borrow_mut().push(Rc::clone(subject));
            busy.replace(Rc::clone(subject));
        }
    }

    /// Compares an answer with what may be answered by a call that started at that place of the history.
    fn judge(&self, subject: &Subject, since: usize, code: VerificationCode) -> Result<(), Failed> {
        self.verified.set(self.verified.get() + 1);
        let codes = subject.codes.borrow();
        match (codes[since..].contains(&code), code) {
            (true, _) => Ok(()),
            (false, VerificationCode::Valid) => {
                self.stale.set(self.stale.get() + 1);
                Ok(())
            }
            (false, wrong) => Err(format!("{wrong:?} where one of {:?} was right", &codes[since..]).into()),
        }
    }

    fn done(&self, number: usize) -> bool {
        self.verified.get() >= number && self.busy.iter().all(|(_, changes)| changes.get() >= CHANGES_MIN)
    }
}

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let number = bench.options.size(NUMBER, 2_000);
    let ostiary = Ostiary::start()?;
    let wires = ostiary.wires(CONNECTIONS).await?;
    let changer = Changer::new(ostiary.client().await?).await?;
    let mut subjects = Vec::new();
    for kind in KINDS {
        subjects.push(changer.subject(kind, 0).await?);
    }
    let busy = subjects.iter().map(|subject| (RefCell::new(Rc::clone(subject)), Cell::new(0))).collect();
    let watched = Watched { subjects: RefCell::new(subjects), busy, verified: Cell::new(0), stale: Cell::new(0) };
    let changing = (0..KINDS.len()).map(|kind| changer.keep_changing(kind, &watched));
    tokio::select! {
        verified = keep_verifying(&wires, &watched, number) => verified?,
        changed = futures::future::try_join_all(changing) => changed.map(drop)?,
    }
    if bench.options.small && watched.stale.get() > 0 {
        return Err(format!("{} stale accepts", watched.stale.get()).into());
    }
    Ok(tell(&watched))
}

fn tell(watched: &Watched) -> Report {
    let mut report = Report::default();
    report.bar("stale accepts", Bound::AtMost(0.0), Summary::exactly(watched.stale.get() as f64));
    report.figure("verified while keys change", "keys", Summary::exactly(watched.verified.get() as f64));
    for (kind, (_, changes)) in KINDS.iter().zip(&watched.busy) {
        report.figure(kind.name(), "changes", Summary::exactly(changes.get() as f64));
    }
    report.note(format!(
        "One caller for each kind of change, {IN_FLIGHT} calls that verify over {CONNECTIONS} connections; of {BATCH_EVERY} \
         of those one is a batch of {BATCH} keys."
    ));
    report
}

/// Verifies the keys until that has been done so often.
async fn keep_verifying(wires: &[Wire], watched: &Watched, number: usize) -> Result<(), Failed> {
    let next = Cell::new(0usize);
    let workers = (0..IN_FLIGHT).map(|worker| {
        let (wire, next) = (&wires[worker % wires.len()], &next);
        async move {
            while !watched.done(number) {
                let call = next.replace(next.get() + 1);
                if call.is_multiple_of(BATCH_EVERY) {
                    verify_batch(wire, watched, call).await?;
                } else {
                    verify_one(wire, watched, call).await?;
                }
            }
            Ok::<(), Failed>(())
        }
    });
    futures::future::try_join_all(workers).await.map(drop)
}

async fn verify_one(wire: &Wire, watched: &Watched, call: usize) -> Result<(), Failed> {
    let subject = watched.any(call);
    let since = subject.acknowledged.get();
    let answer = wire.unary(VERIFY_KEY, framed(&question(&subject.secret))).await?;
    watched.judge(&subject, since, code(answer)?)
}

async fn verify_batch(wire: &Wire, watched: &Watched, call: usize) -> Result<(), Failed> {
    let subjects: Vec<_> = (0..BATCH).map(|place| watched.any(call * BATCH + place)).collect();
    let since: Vec<_> = subjects.iter().map(|subject| subject.acknowledged.get()).collect();
    let requests = subjects.iter().map(|subject| question(&subject.secret)).collect();
    let answer = wire.unary(BATCH_VERIFY_KEYS, framed(&pb::BatchVerifyKeysRequest { requests })).await?;
    let codes = codes(answer)?;
    if codes.len() != BATCH {
        return Err("not as many answers as questions".into());
    }
    let mut judged = subjects.iter().zip(since).zip(codes);
    judged.try_for_each(|((subject, since), code)| watched.judge(subject, since, code))
}
