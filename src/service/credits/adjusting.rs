//! Changing a balance, and how it is filled up.

use crate::domain::audit::{EventName, Happening};
use crate::domain::capability::Capability;
use crate::domain::credits::{Credits, Meter, Refill, Uses};
use crate::domain::id::KeyId;
use crate::domain::key::Key;
use crate::domain::limit::AMOUNT_MAX;
use crate::domain::value::{Facts, Value};
use crate::error::{Error, Obstacle};
use crate::service::caller::Caller;
use crate::service::change::{Change, Effect, Halt};
use crate::service::keys::{find, put, target};
use crate::service::{Done, Ostiary, Run};
use crate::store::{Stop, tables};

/// What is to be different about the credits of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CreditsPatch {
    /// How much is left.
    pub uses: Option<Uses>,
    /// How that is filled up.
    pub refill: Option<Option<Refill>>,
}

/// What is done with a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjustment {
    /// It becomes this. Unlimited, it loses its refill.
    Set(Uses),
    /// So much is added.
    Increment(u64),
    /// So much is taken away, at most all.
    Decrement(u64),
}

/// What is left to use, as the audit log says it.
fn credit_facts(credits: Option<Credits>) -> Facts {
    let remaining = match credits {
        // Exact: no balance exceeds 2^53.
        Some(credits) => Value::Number(credits.remaining as f64),
        None => "unlimited".into(),
    };
    let refill = credits.and_then(|credits| credits.refill).map(|refill| {
        let interval = match refill.interval() {
            crate::domain::credits::Interval::Daily => "daily".to_owned(),
            crate::domain::credits::Interval::Monthly(day) => format!("monthly on day {day}"),
        };
        ("credits_refill".to_owned(), Value::Text(format!("to {} {interval}", refill.amount())))
    });
    [("credits_remaining".to_owned(), remaining)].into_iter().chain(refill).collect()
}

/// The meter of a key as it is now; all of the balance is on disk.
fn meter_of(change: &mut Change<'_, '_>, key: &Key) -> Result<Meter, Stop> {
    let stored = match key.meter {
        Some(lineage) => tables::METERS.get(change.tx, &(key.workspace, lineage))?,
        None => None,
    };
    Ok(stored.unwrap_or_else(|| Meter::starting(None, change.now)).settle(0, change.now))
}

/// Gives a key that is being made its meter, if it is to have a balance.
pub(in crate::service) fn open(
    change: &mut Change<'_, '_>,
    key: KeyId,
    credits: Option<Credits>,
) -> Result<Option<KeyId>, Stop> {
    if credits.is_none() {
        return Ok(None);
    }
    let row = (change.workspace(), key);
    tables::METERS.put(change.tx, &row, &Meter::starting(credits, change.now))?;
    Ok(Some(key))
}

/// Changes the credits of a key as an update wants. If they are different then, what the log says of before and after.
pub(in crate::service) fn patched(
    change: &mut Change<'_, '_>,
    key: &mut Key,
    patch: CreditsPatch,
) -> Result<Option<(Facts, Facts)>, Halt> {
    let meter = meter_of(change, key)?;
    let before = meter.credits(0);
    let CreditsPatch { uses, refill } = patch;
    let after = match (uses, before) {
        (Some(Uses::Unlimited), _) => None,
        (Some(Uses::Left(remaining)), _) => {
            Some(Credits { remaining, refill: refill.unwrap_or(before.and_then(|before| before.refill)) })
        }
        (None, Some(before)) => Some(Credits { refill: refill.unwrap_or(before.refill), ..before }),
        (None, None) if matches!(refill, Some(Some(_))) => return Err(unlimited(key.id).into()),
        (None, None) => None,
    };
    if after == before {
        return Ok(None);
    }
    write(change, key, &meter.replaced(after, change.now))?;
    Ok(Some((credit_facts(before), credit_facts(after))))
}

/// Writes the meter of a key; one that had none shares it with nobody.
fn write(change: &mut Change<'_, '_>, key: &mut Key, meter: &Meter) -> Result<(), Stop> {
    key.meter = Some(key.lineage());
    tables::METERS.put(change.tx, &(key.workspace, key.lineage()), meter)
}

fn unlimited(key: KeyId) -> Error {
    Error::Precondition {
        obstacle: Obstacle::CreditsUnlimited,
        subject: key.to_string(),
        description: "the key may be used without limit; set its credits first".to_owned(),
    }
}

impl Adjustment {
    /// What the meter is to show then.
    fn of(self, meter: Meter, key: KeyId) -> Result<Option<Credits>, Error> {
        let credits = meter.credits(0);
        let refill = credits.and_then(|credits| credits.refill);
        let held = || credits.map(|credits| credits.remaining).ok_or_else(|| unlimited(key));
        let remaining = match self {
            Self::Set(Uses::Unlimited) => return Ok(None),
            Self::Set(Uses::Left(remaining)) => remaining,
            Self::Increment(amount) => {
                let has = held()?;
                let sum = has.checked_add(amount).filter(|sum| *sum <= AMOUNT_MAX);
                sum.ok_or_else(|| Error::field("amount", format!("must be at most {} here", AMOUNT_MAX - has)))?
            }
            Self::Decrement(amount) => held()?.saturating_sub(amount),
        };
        Ok(Some(Credits { remaining, refill }))
    }
}

impl Ostiary {
    /// Changes a key's balance, which it shares with all that it was rerolled from and to, and answers what is left.
    /// Neither its etag nor its time of update moves.
    pub async fn adjust_credits(
        &self,
        caller: &Caller,
        id: KeyId,
        adjustment: Adjustment,
        run: Run,
    ) -> Result<Done<Uses>, Error> {
        let permit = caller.permit(Capability::UpdateKey)?;
        let retention = self.retention;
        let _held = self.hold_credits_of(caller, id).await?;
        let changed = self
            .change(permit, run, move |change| {
                let key = find(change, Capability::UpdateKey, id, retention)?;
                let meter = meter_of(change, &key)?;
                let before = meter.credits(0);
                let after = adjustment.of(meter, id)?;
                let uses = after.map_or(Uses::Unlimited, |credits| Uses::Left(credits.remaining));
                if after == before {
                    return Ok(Effect::Unchanged(uses));
                }
                let mut metered = key.clone();
                write(change, &mut metered, &meter.replaced(after, change.now))?;
                if metered != key {
                    put(change.tx, Some(&key), &metered, retention, change.now)?;
                }
                let (before, after) = (credit_facts(before), credit_facts(after));
                let happening = Happening::changed(EventName::KEY_ADJUST_CREDITS, target(&key), before, after);
                Ok(Effect::Changed(uses, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// Takes the balance of a key out of everybody's hands while it is being changed, if there is such a key.
    pub(in crate::service) async fn hold_credits_of(
        &self,
        caller: &Caller,
        id: KeyId,
    ) -> Result<Option<super::Held>, Error> {
        let row = (caller.workspace_id(), id);
        let key = tables::KEYS.read(self.read(None).await?.view(), &row).await?;
        // Only what the caller may change keeps others waiting.
        match key.filter(|key| caller.may(Capability::UpdateKey, key.api)) {
            Some(key) => self.hold_all((key.workspace, key.lineage())).await.map(Some),
            None => Ok(None),
        }
    }
}
