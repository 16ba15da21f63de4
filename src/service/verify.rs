//! Verifying a key: the call that everything else exists for.
//!
//! It gathers what the verdict needs, as it is at one moment, and lets [`Card::verdict`] say what it comes to. No answer is kept:
//! each call looks at the state as it is.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

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
use super::windows::{Ask, Standing};
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
    pub limits: Vec<LimitOutcome>,
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
    home: Seen<Workspace>,
    setting: Arc<Setting>,
    identity: Option<Seen<Identity>>,
    meter: Option<Meter>,
    whole: Option<Box<WholeKey>>,
}

impl Sight<'_> {
    async fn gather(&mut self, home: Seen<Workspace>, question: &VerifyQuestion) -> Result<Option<Gathered>, Error> {
        let workspace = home.record.id;
        let Some(holder) = self.holder(&home.record, &question.secret).await? else { return Ok(None) };
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
                Some(meter.ok_or_else(|| Error::Internal(format!("the meter {lineage} is missing")))?.record)
            }
            None => None,
        };
        let mut gathered = Gathered { holder, home, setting, identity: living(identity), meter, whole: None };
        if question.detail == Detail::Full {
            gathered.whole = self.whole(&gathered).await?.map(Box::new);
        }
        Ok(Some(gathered))
    }

    async fn whole(&mut self, gathered: &Gathered) -> Result<Option<WholeKey>, Error> {
        let workspace = gathered.home.record.id;
        let card = &gathered.holder.record.card;
        let roles = &gathered.setting.roles;
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
        let identity = match &gathered.identity {
            Some(identity) => {
                let identity = identity.record.clone();
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

/// The identity, unless it has been deleted.
fn living(identity: Option<Seen<Identity>>) -> Option<Seen<Identity>> {
    identity.filter(|identity| identity.record.deleted.is_none())
}

impl Gathered {
    fn card(&self) -> &Card {
        &self.holder.record.card
    }

    fn account(&self) -> Account {
        (self.home.record.id, self.card().lineage())
    }

    /// With whom a limit counts.
    fn subject(&self, counting: limit::Counting) -> Subject {
        match (counting, &self.identity) {
            (limit::Counting::Identity, Some(identity)) => Subject::Identity(identity.record.id),
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
        match self.verify_at_hand(caller, question, min_revision) {
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
            let (gathered, revision) = self.gathered(caller, question, min_revision).await?;
            let Some(gathered) = gathered else { return Ok(Done { answer: unknown(), revision }) };
            balance = match self.judge(caller, gathered, question, balance)? {
                Judged::Answer(answer) => return Ok(Done { answer, revision }),
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
        caller: &Caller,
        question: &VerifyQuestion,
        min_revision: Option<Revision>,
    ) -> Option<Result<Done<Verification>, Error>> {
        if let Err(error) = caller.permit(Capability::VerifyKey) {
            return Some(Err(error));
        }
        if question.detail == Detail::Full || !self.has_reached(min_revision) {
            return None;
        }
        let home = &caller.workspace;
        let AtHand { holder, setting, identity, meter, revision } = self.memory.at_hand(home, &question.secret)?;
        let (home, meter) = (Arc::clone(home), meter.map(|meter| meter.record));
        let gathered = Gathered { holder, home, setting, identity: living(identity), meter, whole: None };
        match self.judge(caller, gathered, question, Balance::Unknown) {
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
    ) -> Result<(Option<Gathered>, Revision), Error> {
        if self.has_reached(min_revision) && question.detail == Detail::Basic {
            let mut sight = Sight::remembering(self);
            sight.include(&caller.workspace);
            let gathered = sight.gather(Arc::clone(&caller.workspace), question).await?;
            if let Some(revision) = sight.holds_at() {
                return Ok((gathered, revision));
            }
        }
        let Reading { view, .. } = self.read(min_revision).await?;
        let revision = view.revision();
        let mut sight = Sight::anew(self, view);
        let home = sight.record(&tables::WORKSPACES, &(caller.workspace_id(),)).await?;
        let home = home.ok_or_else(|| Error::Internal("a recognised caller has no workspace".to_owned()))?;
        Ok((sight.gather(home, question).await?, revision))
    }

    /// Says what a key is good for, and consumes that, all or nothing.
    fn judge(
        &self,
        caller: &Caller,
        gathered: Gathered,
        question: &VerifyQuestion,
        balance: Balance,
    ) -> Result<Judged, Error> {
        let VerifyQuestion { secret: _, audience, client, query, cost, limits: named, detail: _, counting } = question;
        let now = self.world.now();
        let (card, traits) = (gathered.card(), &gathered.card().traits);
        let grant = caller.allowing_object(Capability::VerifyKey, traits.api);
        let asked = Question { now, audience: *audience, client: *client, query: query.as_deref(), cost: *cost };
        let verdict = |exceeded: &[Name], uses| {
            let around = Surroundings {
                caller_may_verify: grant.is_some(),
                home: &gathered.home.record,
                api: gathered.setting.api.as_ref().map(|api| &api.record),
                permissions: &gathered.setting.permissions,
                exceeded,
                uses,
            };
            card.verdict(asked, around)
        };
        let at_first = verdict(&[], Uses::Unlimited);
        if at_first == Verdict::NotFound {
            return Ok(Judged::Answer(unknown()));
        }
        let identity_limits = gathered.identity.as_ref().map(|identity| &identity.record.limits);
        let applied = limit::applied(&traits.limits, identity_limits, named).map_err(|NoSuchLimit(index)| {
            Error::field(format!("rate_limits[{index}].name"), "must be a limit of the key or of its identity")
        })?;
        let consumed = if at_first == Verdict::Valid {
            match self.consume(&gathered, &applied, (*cost, *counting), balance, now)? {
                Consumption::Done(consumed) => consumed,
                Consumption::Short => return Ok(Judged::Short(gathered.account())),
                Consumption::Unclear => return Ok(Judged::Unclear(gathered.account())),
            }
        } else {
            Consumed { limits: Vec::new(), uses: self.uses_in_view(&gathered, now), paid: false }
        };
        let Consumed { limits, uses, paid } = consumed;
        let exceeded: Vec<Name> =
            limits.iter().filter(|outcome| outcome.standing.exceeded).map(|outcome| outcome.name.clone()).collect();
        // What has been paid for is not asked for again.
        let verdict = if paid { Verdict::Valid } else { verdict(&exceeded, uses) };
        if let Some(grant) = grant {
            caller.tally().grant_used(grant, now);
        }
        if verdict == Verdict::Valid && *counting == Counting::Use {
            self.usage.key_used(card.id, &gathered.holder.record.last_use, now);
        }
        let key = VerifiedKey {
            id: card.id,
            api: traits.api,
            expiry: card.expiry,
            external_id: gathered.identity.as_ref().map(|identity| identity.record.external_id.clone()),
            uses,
            limits,
            whole: gathered.whole,
        };
        Ok(Judged::Answer(Verification { verdict, key: Some(key) }))
    }

    /// Counts the call against its limits and pays for it, or neither.
    fn consume(
        &self,
        gathered: &Gathered,
        applied: &[Applied<'_>],
        (cost, counting): (u64, Counting),
        balance: Balance,
        now: Timestamp,
    ) -> Result<Consumption, Error> {
        let workspace = gathered.home.record.id;
        let asks: Vec<Ask<'_>> = applied
            .iter()
            .map(|applied| Ask {
                workspace,
                subject: gathered.subject(applied.counting),
                name: applied.name.as_str(),
                rate: applied.rate,
                cost: applied.cost,
            })
            .collect();
        let refused = |admission: &Admission| matches!(admission, Admission::Refused { .. });
        let mut uses = Uses::Unlimited;
        let (admissions, counted) = match (counting, balance) {
            (Counting::DryRun, Balance::Unknown | Balance::Short(_)) if gathered.meter.is_some() => {
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
                    let Some(meter) = &gathered.meter else { return true };
                    match self.credits.pay(gathered.account(), meter, cost, now) {
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
                    uses = self.uses_in_view(gathered, now);
                }
                (admissions, counted)
            }
        };
        // What was not counted is shown as it stands, without the call.
        let standing = if counted {
            Vec::new()
        } else {
            let free: Vec<Ask<'_>> = asks.iter().map(|ask| Ask { cost: 0, ..*ask }).collect();
            self.windows.peek(&free, now)
        };
        let mut limits = Vec::with_capacity(applied.len());
        for (index, (applied, admission)) in applied.iter().zip(admissions).enumerate() {
            let stands = standing.get(index).copied().filter(|_| !refused(&admission));
            let admission = stands.unwrap_or(admission);
            let standing = Standing::new(applied.rate.limit(), admission, now);
            limits.push(LimitOutcome { name: applied.name.clone(), standing });
        }
        Ok(Consumption::Done(Consumed { limits, uses, paid: counted }))
    }

    /// What is left to use, as far as can be told without waiting.
    fn uses_in_view(&self, gathered: &Gathered, now: Timestamp) -> Uses {
        let credits = gathered.meter.and_then(|meter| self.credits.reserved(gathered.account()).shown(&meter, now));
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
    limits: Vec<LimitOutcome>,
    /// What is left.
    uses: Uses,
    /// Whether it has been taken.
    paid: bool,
}
