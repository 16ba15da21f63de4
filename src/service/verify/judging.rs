//! From what is known of a key to what is said of it, consuming what that costs.

use smallvec::SmallVec;

use crate::domain::capability::Capability;
use crate::domain::credits::Uses;
use crate::domain::key::{Question, Surroundings, Verdict};
use crate::domain::limit::{self, Applied, NoSuchLimit};
use crate::domain::name::Name;
use crate::domain::time::Timestamp;
use crate::domain::window::Admission;
use crate::error::Error;
use crate::service::Ostiary;
use crate::service::credits::{Account, Payment};
use crate::service::usage::Bill;
use crate::service::windows::{Admissions, Ask, Standing};
use crate::store::tables::Subject;

use super::gathering::Facts;
use super::{Counting, LimitOutcome, Outcomes, Verification, VerifiedKey, VerifyQuestion, unknown};

/// What looking at a key came to.
pub(super) enum Judged {
    /// This.
    Answer(Verification),
    /// All is well, but what the call costs must be reserved first.
    Short(Account),
    /// What is left to use must be asked for first.
    Unclear(Account),
}

/// What is known of the balance besides what is in memory.
#[derive(Clone, Copy)]
pub(super) enum Balance {
    Unknown,
    /// This is left, which is too little.
    Short(Uses),
    /// This is left.
    Asked(Uses),
}

impl Ostiary {
    /// Says what a key is good for, and consumes that, all or nothing.
    pub(super) fn judge(
        &self,
        bill: &mut Bill<'_>,
        facts: Facts<'_>,
        question: &VerifyQuestion,
        balance: Balance,
        now: Timestamp,
    ) -> Result<Judged, Error> {
        let VerifyQuestion { secret: _, audience, client, query, cost, limits: named, detail: _, counting } = question;
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
                inline: applied.inline,
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
                let of_the_key = asks.iter().all(|ask| matches!(ask.subject, Subject::Key(_)));
                let tab = facts.holder.tab.get().filter(|_| of_the_key);
                // Paths matter to identifiers of namespaces only.
                let admissions =
                    self.windows.admit_if(&asks, tab, now, pay).map_err(|full| full.error(|_| String::new()))?;
                if of_the_key
                    && facts.holder.tab.get().is_none()
                    && let Some(counted) = asks.first().and_then(|ask| self.windows.tab(ask.place()))
                {
                    // Nobody has to look for it again.
                    let _ = facts.holder.tab.set(counted);
                }
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
