//! Verifying a key: the call that everything else exists for.
//!
//! It gathers what the verdict needs, as it is at one moment, and lets
//! [`Card::verdict`](crate::domain::card::Card::verdict) say what it comes to. No answer is kept: each call looks at the
//! state as it is.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::domain::capability::Capability;
use crate::domain::credits::Uses;
use crate::domain::id::{ApiId, KeyId};
use crate::domain::key::{Key, RoleRef, Verdict};
use crate::domain::limit::Named;
use crate::domain::name::Name;
use crate::domain::permission::Slug;
use crate::domain::query::Query;
use crate::domain::secret::Secret;
use crate::domain::time::{Expiry, Timestamp};
use crate::error::Error;

use super::caller::Caller;
use super::credits::Reservation;
use super::identities::CountedIdentity;
use super::sight::{AtHand, Holder, Seen};
use super::usage::Bill;
use super::windows::Standing;
use super::{Done, Ostiary, Revision};

mod gathering;
mod judging;

use gathering::Facts;
use judging::{Balance, Judged};

/// How much the answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Enough to decide.
    Basic,
    /// All about the key.
    Full,
}

/// Whether the verification counts as a use of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// It does.
    Use,
    /// It is only tried.
    DryRun,
}

/// What a caller asks about a key.
#[derive(Debug, Clone)]
pub struct VerifyQuestion {
    /// What was presented.
    pub secret: Secret,
    /// The API that it should be a key of.
    pub audience: Option<ApiId>,
    /// Where its holder called from.
    pub client: Option<IpAddr>,
    /// What it should be allowed to do.
    pub query: Option<Arc<Query>>,
    /// How many credits it costs.
    pub cost: u64,
    /// The limits that it names.
    pub limits: Vec<Named>,
    /// How much to say.
    pub detail: Detail,
    /// Whether it counts.
    pub counting: Counting,
}

/// The answer about a key.
#[derive(Debug, Clone)]
pub struct Verification {
    /// What it comes to.
    pub verdict: Verdict,
    /// The key, unless it was not found.
    pub key: Option<VerifiedKey>,
}

/// A key as a verification tells of it.
#[derive(Debug, Clone)]
pub struct VerifiedKey {
    /// Its id.
    pub id: KeyId,
    /// The set that it is part of.
    pub api: ApiId,
    /// How long it lives.
    pub expiry: Expiry,
    /// What the developer calls its identity.
    pub external_id: Option<Name>,
    /// What is left to use.
    pub uses: Uses,
    /// What the limits that applied say, if it got that far.
    pub limits: Outcomes,
    /// All about it, if the caller asked for that.
    pub whole: Option<Box<WholeKey>>,
}

/// What a limit says to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitOutcome {
    /// Which.
    pub name: Name,
    /// What it says.
    pub standing: Standing,
}

/// What the limits say that applied, one nearly always.
pub type Outcomes = SmallVec<[LimitOutcome; 1]>;

/// All about a key.
#[derive(Debug, Clone)]
pub struct WholeKey {
    /// The record.
    pub key: Key,
    /// Its roles that exist.
    pub roles: Vec<RoleRef>,
    /// Everything that it may do, directly or through a role.
    pub permissions: Vec<Slug>,
    /// Whose it is.
    pub identity: Option<CountedIdentity>,
}

/// What is remembered of the key that a question is about, if anything is. Whether it still counts is seen when the
/// question is answered.
pub struct Remembered(Option<Seen<Holder>>);

impl Ostiary {
    /// Whether a key is good for what is asked.
    ///
    /// # Errors
    /// Only for the caller's own faults and ostiary's: what is wrong with the key is the answer.
    pub async fn verify_key(
        &self,
        caller: &Caller,
        question: &VerifyQuestion,
        min_revision: Option<Revision>,
    ) -> Result<Done<Verification>, Error> {
        match self.verify_at_hand(&mut Bill::of(caller), question, min_revision) {
            Some(done) => done,
            // In memory of its own, so that whoever does not need it does not carry it around.
            None => Box::pin(self.verify_in_time(caller, question, min_revision)).await,
        }
    }

    async fn verify_in_time(
        &self,
        caller: &Caller,
        question: &VerifyQuestion,
        min_revision: Option<Revision>,
    ) -> Result<Done<Verification>, Error> {
        let mut balance = Balance::Unknown;
        loop {
            let (home, gathered, revision) = self.gathered(caller, question, min_revision).await?;
            let Some(gathered) = gathered else { return Ok(self.told(unknown(), revision)) };
            let bill = &mut Bill::of(caller);
            balance = match self.judge(bill, gathered.facts(&home.record), question, balance, self.world.now())? {
                Judged::Answer(mut answer) => {
                    if let Some(key) = &mut answer.key {
                        key.whole = gathered.whole;
                    }
                    return Ok(self.told(answer, revision));
                }
                // Nothing has been consumed. Reserving takes a commit, in which everything may have changed: look again.
                Judged::Short(account) => match self.reserve(account, question.cost).await? {
                    Reservation::Made => Balance::Unknown,
                    Reservation::Refused(uses) => Balance::Short(uses),
                },
                Judged::Unclear(account) => Balance::Asked(self.uses_of(account).await?),
            };
        }
    }

    /// The same, if it can be told at once: nothing has to be read, reserved or waited for. Otherwise nothing has
    /// happened.
    pub fn verify_at_hand(
        &self,
        bill: &mut Bill<'_>,
        question: &VerifyQuestion,
        min_revision: Option<Revision>,
    ) -> Option<Result<Done<Verification>, Error>> {
        let secret = &question.secret;
        let remembered = Remembered(self.memory.remembered_one(&bill.caller().workspace.record, secret));
        self.verify_remembered(bill, question, Some(&remembered), self.world.now(), min_revision)
    }

    /// What is remembered of the keys that several questions are about: it is brought from memory together, so there
    /// should be tens of them rather than hundreds. Tells the moment as well of which to tell.
    pub fn remembered<'q>(
        &self,
        questions: impl Iterator<Item = (&'q Caller, &'q VerifyQuestion)>,
    ) -> (Vec<Remembered>, Timestamp) {
        let sought = questions.map(|(caller, question)| (&caller.workspace.record, &question.secret));
        let remembered = self.memory.remembered(sought);
        (remembered.into_iter().map(Remembered).collect(), self.world.now())
    }

    /// The same as [`verify_at_hand`](Self::verify_at_hand), what is remembered of the key and the moment being known.
    pub fn verify_remembered(
        &self,
        bill: &mut Bill<'_>,
        question: &VerifyQuestion,
        remembered: Option<&Remembered>,
        now: Timestamp,
        min_revision: Option<Revision>,
    ) -> Option<Result<Done<Verification>, Error>> {
        let caller = bill.caller();
        if let Err(error) = caller.permit(Capability::VerifyKey) {
            return Some(Err(error));
        }
        if question.detail == Detail::Full || !self.has_reached(min_revision) {
            return None;
        }
        let home = &caller.workspace;
        let at_hand = self.memory.at_hand(&self.credits, home, remembered?.0.as_ref()?)?;
        let AtHand { holder, setting, identity, meter, revision } = &at_hand;
        let facts = Facts::new(&home.record, holder, setting.as_ref()?, identity.as_ref(), meter.as_ref());
        let revision = *revision;
        let mut balance = Balance::Unknown;
        loop {
            balance = match self.judge(bill, facts, question, balance, now) {
                Ok(Judged::Answer(answer)) => return Some(Ok(self.told(answer, revision))),
                // Whoever asks again and again with too little is told so at once.
                Ok(Judged::Short(account)) => Balance::Short(self.too_little_at_hand(account, question.cost, now)?),
                Ok(Judged::Unclear(_)) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// An answer, which counts.
    fn told(&self, answer: Verification, revision: Revision) -> Done<Verification> {
        self.verdicts.add(answer.verdict.place(), 1);
        Done { answer, revision }
    }

    fn has_reached(&self, min_revision: Option<Revision>) -> bool {
        let head = self.memory.head();
        min_revision.is_none_or(|least| least.epoch == head.epoch && least.counter <= head.counter)
    }
}

/// The answer about a key that there isn't, as far as the caller may know.
fn unknown() -> Verification {
    Verification { verdict: Verdict::NotFound, key: None }
}
