//! Verifying a key: the call that everything else exists for.
//!
//! It gathers what the verdict needs, as it is at one moment, and lets [`Card::verdict`] say what it comes to. No answer is kept:
//! each call looks at the state as it is.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::domain::api::Api;
use crate::domain::capability::Capability;
use crate::domain::card::Card;
use crate::domain::credits::{Meter, Uses};
use crate::domain::id::{ApiId, KeyId, PermissionId, WorkspaceId};
use crate::domain::identity::Identity;
use crate::domain::key::{Key, Question, RoleRef, Surroundings, Verdict};
use crate::domain::limit::{self, Applied, Named, NoSuchLimit};
use crate::domain::name::Name;
use crate::domain::permission::Slug;
use crate::domain::query::Query;
use crate::domain::role::{Held, Role};
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
use super::sight::{Seen, Sight};
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
    pub query: Option<Query>,
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
    card: Seen<Card>,
    home: Seen<Workspace>,
    api: Option<Seen<Api>>,
    roles: Vec<Seen<Role>>,
    identity: Option<Seen<Identity>>,
    meter: Option<Meter>,
    /// Those of the permissions that it holds and that the caller asks for which exist.
    living: Vec<PermissionId>,
    whole: Option<Box<WholeKey>>,
}

impl Sight<'_> {
    async fn gather(&mut self, home: Seen<Workspace>, question: &VerifyQuestion) -> Result<Option<Gathered>, Error> {
        let workspace = home.record.id;
        let Some(card) = self.card(&home.record, &question.secret).await? else { return Ok(None) };
        let traits = &card.record.traits;
        let api = self.record(&tables::APIS, &(workspace, traits.api)).await?;
        let mut roles = Vec::with_capacity(traits.roles.len());
        for id in &traits.roles {
            let role = self.record(&tables::ROLES, &(workspace, *id)).await?;
            roles.extend(role.filter(|role| role.record.deleted.is_none()));
        }
        let identity = match card.record.identity {
            Some(id) => self.record(&tables::IDENTITIES, &(workspace, id)).await?,
            None => None,
        };
        let meter = match card.record.meter {
            Some(lineage) => {
                let meter = self.record(&tables::METERS, &(workspace, lineage)).await?;
                // Without it the key would be good for ever.
                Some(meter.ok_or_else(|| Error::Internal(format!("the meter {lineage} is missing")))?.record)
            }
            None => None,
        };
        let identity = identity.filter(|identity| identity.record.deleted.is_none());
        let mut gathered = Gathered { card, home, api, roles, identity, meter, living: Vec::new(), whole: None };
        if let Some(query) = &question.query {
            let asked_for = |held: &Held| query.permissions().any(|asked| held.slug.covers(asked));
            gathered.living = self.living(workspace, gathered.held().filter(|held| asked_for(held))).await?;
        }
        if question.detail == Detail::Full {
            gathered.whole = self.whole(&gathered).await?.map(Box::new);
        }
        Ok(Some(gathered))
    }

    /// Those of the permissions that exist.
    async fn living(
        &mut self,
        workspace: WorkspaceId,
        held: impl Iterator<Item = &Held>,
    ) -> Result<Vec<PermissionId>, Error> {
        let mut living = Vec::new();
        for held in held {
            let permission = self.record(&tables::PERMISSIONS, &(workspace, held.id)).await?;
            if permission.is_some_and(|permission| permission.record.deleted.is_none()) {
                living.push(held.id);
            }
        }
        Ok(living)
    }

    async fn whole(&mut self, gathered: &Gathered) -> Result<Option<WholeKey>, Error> {
        let workspace = gathered.home.record.id;
        let living = self.living(workspace, gathered.held()).await?;
        let living: HashSet<PermissionId> = living.into_iter().collect();
        let slugs = gathered.held().filter(|held| living.contains(&held.id)).map(|held| held.slug.clone());
        let permissions: BTreeSet<Slug> = slugs.collect();
        let roles = gathered.roles.iter();
        let roles = roles.map(|role| RoleRef { id: role.record.id, name: role.record.name.clone() }).collect();
        let view = self.view().await?;
        let identity = match &gathered.identity {
            Some(identity) => {
                let identity = identity.record.clone();
                let key_count = keys_of_identity_in(view, workspace, identity.id).await?;
                Some(CountedIdentity { identity, key_count })
            }
            None => None,
        };
        let key = tables::KEYS.read(view, &(workspace, gathered.card.record.id)).await?;
        let permissions = permissions.into_iter().collect();
        Ok(key.map(|key| WholeKey { key, roles, permissions, identity }))
    }
}

impl Gathered {
    /// Everything that the key holds, directly or through a role. Some of it may have been deleted since.
    fn held(&self) -> impl Iterator<Item = &Held> {
        let direct = self.card.record.traits.permissions.iter();
        direct.chain(self.roles.iter().flat_map(|role| &role.record.permissions))
    }

    fn account(&self) -> Account {
        (self.home.record.id, self.card.record.lineage())
    }

    /// With whom a limit counts.
    fn subject(&self, counting: limit::Counting) -> Subject {
        match (counting, &self.identity) {
            (limit::Counting::Identity, Some(identity)) => Subject::Identity(identity.record.id),
            (limit::Counting::Identity | limit::Counting::Key, _) => Subject::Key(self.card.record.lineage()),
        }
    }
}

/// What looking at a key came to.
enum Judged {
    /// This.
    Answer(Verification),
    /// All is well, but what the call costs must be reserved first.
    Short(Account),
}

impl Ostiary {
    /// Whether a key is good for what is asked.
    ///
    /// # Errors
    /// Only for the caller's own faults and ostiary's: what is wrong with the key is the answer.
    pub async fn verify_key(
        &self,
        caller: &Caller,
        question: VerifyQuestion,
        min_revision: Option<Revision>,
    ) -> Result<Done<Verification>, Error> {
        caller.permit(Capability::VerifyKey)?;
        let mut refused = None;
        loop {
            let (gathered, revision) = self.gathered(caller, &question, min_revision).await?;
            let Some(gathered) = gathered else { return Ok(Done { answer: unknown(), revision }) };
            let account = match self.judge(caller, gathered, &question, refused).await? {
                Judged::Answer(answer) => return Ok(Done { answer, revision }),
                Judged::Short(account) => account,
            };
            // Nothing has been consumed. Reserving takes a commit, in which everything may have changed: look again.
            match self.reserve(account, question.cost).await? {
                Reservation::Made => {}
                Reservation::Refused(uses) => refused = Some(uses),
            }
        }
    }

    /// The key that is asked about, with what its verdict depends on, as all of it was at one moment.
    async fn gathered(
        &self,
        caller: &Caller,
        question: &VerifyQuestion,
        min_revision: Option<Revision>,
    ) -> Result<(Option<Gathered>, Revision), Error> {
        let head = self.memory.head();
        let reached = min_revision.is_none_or(|least| least.epoch == head.epoch && least.counter <= head.counter);
        if reached && question.detail == Detail::Basic {
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

    /// Says what a key is good for. Between the limits and the credits nothing waits, so that both are consumed or
    /// neither.
    async fn judge(
        &self,
        caller: &Caller,
        gathered: Gathered,
        question: &VerifyQuestion,
        refused: Option<Uses>,
    ) -> Result<Judged, Error> {
        let VerifyQuestion { secret: _, audience, client, query, cost, limits: named, detail: _, counting } = question;
        let now = self.world.now();
        let (card, traits) = (&gathered.card.record, &gathered.card.record.traits);
        let grant = caller.allowing(Capability::VerifyKey, &traits.api.to_string());
        let permissions: Vec<&Slug> =
            gathered.held().filter(|held| gathered.living.contains(&held.id)).map(|held| &held.slug).collect();
        let asked = Question { now, audience: *audience, client: *client, query: query.as_ref(), cost: *cost };
        let verdict = |exceeded: &[Name], uses| {
            let around = Surroundings {
                caller_may_verify: grant.is_some(),
                home: &gathered.home.record,
                api: gathered.api.as_ref().map(|api| &api.record),
                permissions: &permissions,
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
            match self.consume(&gathered, &applied, (*cost, *counting), refused, now).await? {
                Some(consumed) => consumed,
                None => return Ok(Judged::Short(gathered.account())),
            }
        } else {
            Consumed { limits: Vec::new(), uses: self.uses_in_view(&gathered, now) }
        };
        let Consumed { limits, uses } = consumed;
        let exceeded: Vec<Name> =
            limits.iter().filter(|outcome| outcome.standing.exceeded).map(|outcome| outcome.name.clone()).collect();
        // What has been paid for is not asked for again.
        let paid = counting == &Counting::Use && refused.is_none() && exceeded.is_empty();
        let verdict = verdict(&exceeded, if paid { Uses::Unlimited } else { uses });
        if let Some(grant) = grant {
            self.allowed_by(caller.row(), grant, now);
        }
        if verdict == Verdict::Valid && *counting == Counting::Use {
            self.usage.key_used((traits.workspace, card.id), now);
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

    /// Counts the call against its limits and pays for it, or neither. None if what it costs must be reserved first.
    async fn consume(
        &self,
        gathered: &Gathered,
        applied: &[Applied],
        (cost, counting): (u64, Counting),
        refused_credits: Option<Uses>,
        now: Timestamp,
    ) -> Result<Option<Consumed>, Error> {
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
        self.load_windows(&asks).await?;
        let mut uses = Uses::Unlimited;
        let admissions = match (counting, refused_credits) {
            (Counting::DryRun, _) => {
                if gathered.meter.is_some() {
                    uses = self.uses_of(gathered.account()).await?;
                }
                self.windows.peek(&asks, now)
            }
            (Counting::Use, Some(left)) => {
                uses = left;
                self.windows.peek(&asks, now)
            }
            (Counting::Use, None) => {
                let mut short = false;
                let admissions = self.windows.admit_if(&asks, now, || {
                    let Some(meter) = &gathered.meter else { return true };
                    match self.credits.pay(gathered.account(), meter, cost, now) {
                        Payment::Paid(left) => uses = left,
                        Payment::Short => short = true,
                    }
                    !short
                });
                // Paths matter to identifiers of namespaces only.
                let admissions = admissions.map_err(|full| full.error(|_| String::new()))?;
                if short {
                    return Ok(None);
                }
                if admissions.iter().any(|admission| matches!(admission, Admission::Refused { .. })) {
                    uses = self.uses_in_view(gathered, now);
                }
                admissions
            }
        };
        let refused = |admission: &Admission| matches!(admission, Admission::Refused { .. });
        let counted = counting == Counting::Use && refused_credits.is_none() && !admissions.iter().any(refused);
        // What was not counted is shown as it stands, without the call.
        let free: Vec<Ask<'_>> = asks.iter().map(|ask| Ask { cost: 0, ..*ask }).collect();
        let standing = if counted { Vec::new() } else { self.windows.peek(&free, now) };
        let mut limits = Vec::with_capacity(applied.len());
        for (index, (applied, admission)) in applied.iter().zip(admissions).enumerate() {
            let stands = standing.get(index).copied().filter(|_| !refused(&admission));
            let admission = stands.unwrap_or(admission);
            let standing = Standing::new(applied.rate.limit(), admission, now);
            limits.push(LimitOutcome { name: applied.name.clone(), standing });
        }
        Ok(Some(Consumed { limits, uses }))
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

/// What a call has taken, or would take.
struct Consumed {
    limits: Vec<LimitOutcome>,
    /// What is left.
    uses: Uses,
}
