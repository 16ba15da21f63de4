//! Verifying a key: the call that everything else exists for.
//!
//! It gathers what the verdict needs, as it is at one moment, and lets [`Card::verdict`] say what it comes to. No answer is kept:
//! each call looks at the state as it is.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::domain::capability::Capability;
use crate::domain::card::Card;
use crate::domain::credits::{Meter, Uses};
use crate::domain::id::{ApiId, KeyId, PermissionId};
use crate::domain::identity::Identity;
use crate::domain::key::{Key, Question, RoleRef, Surroundings, Verdict};
use crate::domain::limit::{self, Applied, Named, NoSuchLimit};
use crate::domain::name::Name;
use crate::domain::permission::Slug;
use crate::domain::query::Query;
use crate::domain::secret::Secret;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::window::Admission;
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::store::tables::{self, Subject};

use super::caller::Caller;
use super::counts::keys_of_identity_in;
use super::credits::{Account, Payment, Reservation};
use super::identities::CountedIdentity;
use super::sight::{AtHand, Holder, Seen, Setting, Sight};
use super::usage::Bill;
use super::windows::{Admissions, Ask, Standing};
use super::{Done, Ostiary, Reading, Revision};

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

/// A key with what its verdict depends on.
struct Gathered {
    holder: Seen<Holder>,
    setting: Arc<Setting>,
    identity: Option<Seen<Identity>>,
    meter: Option<Seen<Meter>>,
    whole: Option<Box<WholeKey>>,
}

/// The same as it is looked at. What many calls share is not claimed by each of them: counting the claims would cost
/// more than the look.
#[derive(Clone, Copy)]
struct Facts<'a> {
    home: &'a Workspace,
    holder: &'a Holder,
    setting: &'a Setting,
    identity: Option<&'a Identity>,
    meter: Option<&'a Meter>,
}

impl Sight<'_> {
    async fn gather(&mut self, home: &Workspace, question: &VerifyQuestion) -> Result<Option<Gathered>, Error> {
        let workspace = home.id;
        let Some(holder) = self.holder(home, &question.secret).await? else { return Ok(None) };
        let setting = self.setting(&holder.record, question.query.as_deref()).await?;
        let card = &holder.record.card;
        let identity = match card.identity {
            Some(id) => self.record(&tables::IDENTITIES, &(workspace, id)).await?,
            None => None,
        };
        let meter = match card.meter {
            Some(lineage) => {
                let meter = self.record(&tables::METERS, &(workspace, lineage)).await?;
                // Without it the key would be good for ever.
                Some(meter.ok_or_else(|| Error::Internal(format!("the meter {lineage} is missing")))?)
            }
            None => None,
        };
        let mut gathered = Gathered { holder, setting, identity, meter, whole: None };
        if question.detail == Detail::Full {
            gathered.whole = self.whole(gathered.facts(home)).await?.map(Box::new);
        }
        Ok(Some(gathered))
    }

    async fn whole(&mut self, facts: Facts<'_>) -> Result<Option<WholeKey>, Error> {
        let workspace = facts.home.id;
        let card = &facts.holder.card;
        let roles = &facts.setting.roles;
        let through_roles = roles.iter().flat_map(|role| &role.record.permissions);
        let held: HashMap<PermissionId, &Slug> =
            card.traits.permissions.iter().chain(through_roles).map(|held| (held.id, &held.slug)).collect();
        let mut permissions = BTreeSet::new();
        for (id, slug) in held {
            if self.lives(workspace, id).await? {
                permissions.insert(slug.clone());
            }
        }
        let roles = roles.iter().map(|role| RoleRef { id: role.record.id, name: role.record.name.clone() }).collect();
        let view = self.view().await?;
        let identity = match facts.identity {
            Some(identity) => {
                let identity = identity.clone();
                let key_count = keys_of_identity_in(view, workspace, identity.id).await?;
                Some(CountedIdentity { identity, key_count })
            }
            None => None,
        };
        let key = tables::KEYS.read(view, &(workspace, card.id)).await?;
        let permissions = permissions.into_iter().collect();
        Ok(key.map(|key| WholeKey { key, roles, permissions, identity }))
    }
}

impl Gathered {
    fn facts<'a>(&'a self, home: &'a Workspace) -> Facts<'a> {
        let Self { holder, setting, identity, meter, whole: _ } = self;
        Facts::new(home, holder, setting, identity.as_ref(), meter.as_ref())
    }
}

impl<'a> Facts<'a> {
    fn new(
        home: &'a Workspace,
        holder: &'a Seen<Holder>,
        setting: &'a Setting,
        identity: Option<&'a Seen<Identity>>,
        meter: Option<&'a Seen<Meter>>,
    ) -> Self {
        // An identity that has been deleted is none.
        let identity = identity.map(|identity| &identity.record).filter(|identity| identity.deleted.is_none());
        Self { home, holder: &holder.record, setting, identity, meter: meter.map(|meter| &meter.record) }
    }

    fn card(self) -> &'a Card {
        &self.holder.card
    }

    fn account(self) -> Account {
        (self.home.id, self.card().lineage())
    }

    /// With whom a limit counts.
    fn subject(self, counting: limit::Counting) -> Subject {
        match (counting, self.identity) {
            (limit::Counting::Identity, Some(identity)) => Subject::Identity(identity.id),
            (limit::Counting::Identity | limit::Counting::Key, _) => Subject::Key(self.card().lineage()),
        }
    }
}

/// What looking at a key came to.
enum Judged {
    /// This.
    Answer(Verification),
    /// All is well, but what the call costs must be reserved first.
    Short(Account),
    /// What is left to use must be asked for first.
    Unclear(Account),
}

/// What is known of the balance besides what is in memory.
#[derive(Clone, Copy)]
enum Balance {
    Unknown,
    /// This is left, which is too little.
    Short(Uses),
    /// This is left.
    Asked(Uses),
}

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
            let Some(gathered) = gathered else { return Ok(Done { answer: unknown(), revision }) };
            let bill = &mut Bill::of(caller);
            balance = match self.judge(bill, gathered.facts(&home.record), question, balance)? {
                Judged::Answer(mut answer) => {
                    if let Some(key) = &mut answer.key {
                        key.whole = gathered.whole;
                    }
                    return Ok(Done { answer, revision });
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
        let caller = bill.caller();
        if let Err(error) = caller.permit(Capability::VerifyKey) {
            return Some(Err(error));
        }
        if question.detail == Detail::Full || !self.has_reached(min_revision) {
            return None;
        }
        let home = &caller.workspace;
        let at_hand = self.memory.at_hand(home, &question.secret)?;
        let AtHand { holder, setting, identity, meter, revision } = &at_hand;
        let facts = Facts::new(&home.record, holder, setting.as_ref()?, identity.as_ref(), meter.as_ref());
        let revision = *revision;
        match self.judge(bill, facts, question, Balance::Unknown) {
            Ok(Judged::Answer(answer)) => Some(Ok(Done { answer, revision })),
            Ok(Judged::Short(_) | Judged::Unclear(_)) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn has_reached(&self, min_revision: Option<Revision>) -> bool {
        let head = self.memory.head();
        min_revision.is_none_or(|least| least.epoch == head.epoch && least.counter <= head.counter)
    }

    /// The key that is asked about, with what its verdict depends on, as all of it was at one moment.
    async fn gathered(
        &self,
        caller: &Caller,
        question: &VerifyQuestion,
        min_revision: Option<Revision>,
    ) -> Result<(Seen<Workspace>, Option<Gathered>, Revision), Error> {
        if self.has_reached(min_revision) && question.detail == Detail::Basic {
            let mut sight = Sight::remembering(self);
            let home = &caller.workspace;
            sight.include(home);
            let gathered = sight.gather(&home.record, question).await?;
            if let Some(revision) = sight.holds_at() {
                return Ok((Arc::clone(home), gathered, revision));
            }
        }
        let Reading { view, .. } = self.read(min_revision).await?;
        let revision = view.revision();
        let mut sight = Sight::anew(self, view);
        let home = sight.record(&tables::WORKSPACES, &(caller.workspace_id(),)).await?;
        let home = home.ok_or_else(|| Error::Internal("a recognised caller has no workspace".to_owned()))?;
        let gathered = sight.gather(&home.record, question).await?;
        Ok((home, gathered, revision))
    }

    /// Says what a key is good for, and consumes that, all or nothing.
    fn judge(
        &self,
        bill: &mut Bill<'_>,
        facts: Facts<'_>,
        question: &VerifyQuestion,
        balance: Balance,
    ) -> Result<Judged, Error> {
        let VerifyQuestion { secret: _, audience, client, query, cost, limits: named, detail: _, counting } = question;
        let now = self.world.now();
        let (card, traits) = (facts.card(), &facts.card().traits);
        let grant = bill.caller().allowing_object(Capability::VerifyKey, traits.api);
        let asked = Question { now, audience: *audience, client: *client, query: query.as_deref(), cost: *cost };
        let verdict = |exceeded: &[Name], uses| {
            let around = Surroundings {
                caller_may_verify: grant.is_some(),
                home: facts.home,
                api: facts.setting.api.as_ref().map(|api| &api.record),
                permissions: &facts.setting.permissions,
                exceeded,
                uses,
            };
            card.verdict(asked, around)
        };
        let at_first = verdict(&[], Uses::Unlimited);
        if at_first == Verdict::NotFound {
            return Ok(Judged::Answer(unknown()));
        }
        let identity_limits = facts.identity.map(|identity| &identity.limits);
        let applied = limit::applied(&traits.limits, identity_limits, named).map_err(|NoSuchLimit(index)| {
            Error::field(format!("rate_limits[{index}].name"), "must be a limit of the key or of its identity")
        })?;
        let consumed = if at_first == Verdict::Valid {
            match self.consume(facts, &applied, (*cost, *counting), balance, now)? {
                Consumption::Done(consumed) => consumed,
                Consumption::Short => return Ok(Judged::Short(facts.account())),
                Consumption::Unclear => return Ok(Judged::Unclear(facts.account())),
            }
        } else {
            Consumed { limits: Outcomes::new(), uses: self.uses_in_view(facts, now), paid: false }
        };
        let Consumed { limits, uses, paid } = consumed;
        let exceeded: Vec<Name> =
            limits.iter().filter(|outcome| outcome.standing.exceeded).map(|outcome| outcome.name.clone()).collect();
        // What has been paid for is not asked for again.
        let verdict = if paid { Verdict::Valid } else { verdict(&exceeded, uses) };
        if let Some(grant) = grant {
            bill.note(grant, now);
        }
        if verdict == Verdict::Valid && *counting == Counting::Use {
            self.usage.key_used(card.id, &facts.holder.last_use, now);
        }
        let key = VerifiedKey {
            id: card.id,
            api: traits.api,
            expiry: card.expiry,
            external_id: facts.identity.map(|identity| identity.external_id.clone()),
            uses,
            limits,
            whole: None,
        };
        Ok(Judged::Answer(Verification { verdict, key: Some(key) }))
    }

    /// Counts the call against its limits and pays for it, or neither.
    fn consume(
        &self,
        facts: Facts<'_>,
        applied: &[Applied<'_>],
        (cost, counting): (u64, Counting),
        balance: Balance,
        now: Timestamp,
    ) -> Result<Consumption, Error> {
        let workspace = facts.home.id;
        let asks: SmallVec<[Ask<'_>; 1]> = applied
            .iter()
            .map(|applied| Ask {
                workspace,
                subject: facts.subject(applied.counting),
                name: applied.name.as_str(),
                rate: applied.rate,
                cost: applied.cost,
            })
            .collect();
        let refused = |admission: &Admission| matches!(admission, Admission::Refused { .. });
        let mut uses = Uses::Unlimited;
        let (admissions, counted) = match (counting, balance) {
            (Counting::DryRun, Balance::Unknown | Balance::Short(_)) if facts.meter.is_some() => {
                return Ok(Consumption::Unclear);
            }
            (Counting::DryRun, Balance::Asked(left)) | (Counting::Use, Balance::Short(left)) => {
                uses = left;
                (self.windows.peek(&asks, now), false)
            }
            (Counting::DryRun, Balance::Unknown | Balance::Short(_)) => (self.windows.peek(&asks, now), false),
            (Counting::Use, Balance::Unknown | Balance::Asked(_)) => {
                let mut short = false;
                let pay = || {
                    let Some(meter) = facts.meter else { return true };
                    match self.credits.pay(facts.account(), meter, cost, now) {
                        Payment::Paid(left) => uses = left,
                        Payment::Short => short = true,
                    }
                    !short
                };
                // Paths matter to identifiers of namespaces only.
                let admissions =
                    self.windows.admit_if(&asks, now, pay).map_err(|full| full.error(|_| String::new()))?;
                if short {
                    return Ok(Consumption::Short);
                }
                let counted = !admissions.iter().any(refused);
                if !counted {
                    uses = self.uses_in_view(facts, now);
                }
                (admissions, counted)
            }
        };
        // What was not counted is shown as it stands, without the call.
        let standing = if counted {
            Admissions::new()
        } else {
            let free: SmallVec<[Ask<'_>; 1]> = asks.iter().map(|ask| Ask { cost: 0, ..*ask }).collect();
            self.windows.peek(&free, now)
        };
        let mut limits = Outcomes::with_capacity(applied.len());
        for (index, (applied, admission)) in applied.iter().zip(admissions).enumerate() {
            let stands = standing.get(index).copied().filter(|_| !refused(&admission));
            let admission = stands.unwrap_or(admission);
            let standing = Standing::new(applied.rate.limit(), admission, now);
            limits.push(LimitOutcome { name: applied.name.clone(), standing });
        }
        Ok(Consumption::Done(Consumed { limits, uses, paid: counted }))
    }

    /// What is left to use, as far as can be told without waiting.
    fn uses_in_view(&self, facts: Facts<'_>, now: Timestamp) -> Uses {
        let credits = facts.meter.and_then(|meter| self.credits.reserved(facts.account()).shown(meter, now));
        credits.map_or(Uses::Unlimited, |credits| Uses::Left(credits.remaining))
    }
}

/// The answer about a key that there isn't, as far as the caller may know.
fn unknown() -> Verification {
    Verification { verdict: Verdict::NotFound, key: None }
}

/// Whether a call could be paid for.
enum Consumption {
    /// It was, or will not be.
    Done(Consumed),
    /// What it costs must be reserved first.
    Short,
    /// What is left must be asked for first.
    Unclear,
}

/// What a call has taken, or would take.
struct Consumed {
    limits: Outcomes,
    /// What is left.
    uses: Uses,
    /// Whether it has been taken.
    paid: bool,
}
