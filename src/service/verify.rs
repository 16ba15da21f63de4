//! Verifying a key: the call that everything else exists for.
//!
//! It gathers what the verdict needs from one view and lets [`Key::verdict`] say what it comes to. No answer is kept:
//! each call looks at the state as it is.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::domain::api::Api;
use crate::domain::capability::Capability;
use crate::domain::credits::{Meter, Uses};
use crate::domain::id::{ApiId, PermissionId, WorkspaceId};
use crate::domain::identity::Identity;
use crate::domain::key::{Key, Question, RoleRef, Surroundings, Verdict};
use crate::domain::limit::{self, Applied, Named, NoSuchLimit};
use crate::domain::name::Name;
use crate::domain::permission::Slug;
use crate::domain::query::Query;
use crate::domain::role::{Held, Role};
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::domain::window::Admission;
use crate::error::Error;
use crate::store::tables::{self, Subject};

use super::caller::Caller;
use super::credits::{Account, Payment, Reservation};
use super::described::references;
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
    /// The record.
    pub key: Key,
    /// Whose it is.
    pub identity: Option<Identity>,
    /// What is left to use.
    pub uses: Uses,
    /// What the limits that applied say, if it got that far.
    pub limits: Vec<LimitOutcome>,
    /// What it may do and through which roles, if the caller asked for all.
    pub powers: Option<Powers>,
}

/// What a limit says to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitOutcome {
    /// Which.
    pub name: Name,
    /// What it says.
    pub standing: Standing,
}

/// What a key may do and through which roles.
#[derive(Debug, Clone)]
pub struct Powers {
    /// Its roles that exist.
    pub roles: Vec<RoleRef>,
    /// Everything that it may do, directly or through a role.
    pub permissions: Vec<Slug>,
    /// How many keys its identity has.
    pub key_count: u64,
}

/// A key with what its verdict depends on.
struct Gathered {
    key: Key,
    api: Option<Api>,
    roles: Vec<Role>,
    identity: Option<Identity>,
    meter: Option<Meter>,
}

impl Reading {
    async fn gather(&self, workspace: WorkspaceId, secret: &Secret) -> Result<Option<Gathered>, Error> {
        let home = self.home(workspace).await?;
        let Some(key) = self.key_of_secret(&home, secret).await? else { return Ok(None) };
        let api = tables::APIS.read(self.view(), &(workspace, key.api)).await?;
        let roles = self.living_roles(workspace, &key.roles).await?;
        let identity = self.living_identity(workspace, key.identity).await?;
        let meter = match key.meter {
            Some(lineage) => {
                let meter = tables::METERS.read(self.view(), &(workspace, lineage)).await?;
                // Without it the key would be good for ever.
                Some(meter.ok_or_else(|| Error::Internal(format!("the meter {lineage} is missing")))?)
            }
            None => None,
        };
        Ok(Some(Gathered { key, api, roles, identity, meter }))
    }

    /// Those of the permissions that exist and that anybody asks for.
    async fn effective(
        &self,
        workspace: WorkspaceId,
        held: impl Iterator<Item = &Held>,
        asked_for: impl Fn(&Slug) -> bool,
    ) -> Result<Vec<Slug>, Error> {
        let candidates: HashMap<PermissionId, &Slug> =
            held.filter(|held| asked_for(&held.slug)).map(|held| (held.id, &held.slug)).collect();
        let mut living = BTreeSet::new();
        for (id, slug) in candidates {
            if self.lives(workspace, id).await? {
                living.insert(slug.clone());
            }
        }
        Ok(living.into_iter().collect())
    }
}

impl Gathered {
    /// Everything that the key holds, directly or through a role. Some of it may have been deleted since.
    fn held(&self) -> impl Iterator<Item = &Held> {
        self.key.permissions.iter().chain(self.roles.iter().flat_map(|role| &role.permissions))
    }

    fn account(&self) -> Account {
        (self.key.workspace, self.key.lineage())
    }

    /// With whom a limit counts.
    fn subject(&self, counting: limit::Counting) -> Subject {
        match (counting, &self.identity) {
            (limit::Counting::Identity, Some(identity)) => Subject::Identity(identity.id),
            (limit::Counting::Identity | limit::Counting::Key, _) => Subject::Key(self.key.lineage()),
        }
    }
}

/// What looking at a key came to.
enum Judged {
    /// This.
    Answer(Box<Verification>),
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
            let reading = self.read(min_revision).await?;
            let account = match self.judge(caller, &reading, &question, refused).await? {
                Judged::Answer(verification) => return Ok(reading.done(*verification)),
                Judged::Short(account) => account,
            };
            // Nothing has been consumed. Reserving takes a commit, in which everything may have changed: look again.
            match self.reserve(account, question.cost).await? {
                Reservation::Made => {}
                Reservation::Refused(uses) => refused = Some(uses),
            }
        }
    }

    /// Looks at a key once. Between the limits and the credits nothing waits, so that both are consumed or neither.
    async fn judge(
        &self,
        caller: &Caller,
        reading: &Reading,
        question: &VerifyQuestion,
        refused: Option<Uses>,
    ) -> Result<Judged, Error> {
        let VerifyQuestion { secret, audience, client, query, cost, limits: named, detail, counting } = question;
        let (workspace, now) = (caller.workspace_id(), reading.now);
        let unknown = || Judged::Answer(Box::new(Verification { verdict: Verdict::NotFound, key: None }));
        let Some(gathered) = reading.gather(workspace, secret).await? else { return Ok(unknown()) };
        let grant = caller.allowing(Capability::VerifyKey, &gathered.key.api.to_string());
        let permissions = match query {
            None => Vec::new(),
            Some(query) => {
                let asked_for = |slug: &Slug| query.permissions().any(|asked| slug.covers(asked));
                reading.effective(workspace, gathered.held(), asked_for).await?
            }
        };
        let asked = Question { now, audience: *audience, client: *client, query: query.as_ref(), cost: *cost };
        let verdict = |exceeded: &[Name], uses| {
            let around = Surroundings {
                caller_may_verify: grant.is_some(),
                api: gathered.api.as_ref(),
                permissions: &permissions,
                exceeded,
                uses,
            };
            gathered.key.verdict(asked, around)
        };
        let at_first = verdict(&[], Uses::Unlimited);
        if at_first == Verdict::NotFound {
            return Ok(unknown());
        }
        let identity_limits = gathered.identity.as_ref().map(|identity| &identity.limits);
        let applied = limit::applied(&gathered.key.limits, identity_limits, named).map_err(|NoSuchLimit(index)| {
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
            self.allowed_by((workspace, caller.root_key().id), grant, now);
        }
        if verdict == Verdict::Valid && *counting == Counting::Use {
            self.usage.key_used((workspace, gathered.key.id), now);
        }
        let powers = match detail {
            Detail::Basic => None,
            Detail::Full => Some(Powers {
                roles: references(&gathered.roles),
                permissions: reading.effective(workspace, gathered.held(), |_| true).await?,
                key_count: match &gathered.identity {
                    Some(identity) => reading.keys_of_identity(workspace, identity.id).await?,
                    None => 0,
                },
            }),
        };
        let Gathered { key, identity, .. } = gathered;
        let key = VerifiedKey { key, identity, uses, limits, powers };
        Ok(Judged::Answer(Box::new(Verification { verdict, key: Some(key) })))
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
        let workspace = gathered.key.workspace;
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

/// What a call has taken, or would take.
struct Consumed {
    limits: Vec<LimitOutcome>,
    /// What is left.
    uses: Uses,
}
