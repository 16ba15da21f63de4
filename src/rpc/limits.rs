//! Rate limits and credits on the wire: as keys and identities carry them.

use std::ops::RangeInclusive;

use crate::domain::Flaw;
use crate::domain::credits::{Credits, Interval, Refill, Uses};
use crate::domain::id::{IdentityId, NamespaceId, Reference, is_shape_of_any};
use crate::domain::limit::{AMOUNT_MAX, Application, LIMITS_MAX, Limit, Limits, Rate, SPAN_MAX, SPAN_MIN};
use crate::domain::name::{EXTERNAL_ID, IDENTIFIER, LIMIT_NAME, NAMESPACE_NAME, Name};
use crate::domain::namespace::Pattern;
use crate::pb::v1 as pb;
use crate::service::credits::CreditsPatch;

use super::convert::{count, span};
use super::fields::{Fields, Mask, Wish};

impl Fields {
    /// A number of things or credits.
    pub fn amount(&mut self, field: &str, amount: i64, least: u64) -> Option<u64> {
        let bounds: RangeInclusive<u64> = least..=AMOUNT_MAX;
        let amount = u64::try_from(amount).ok().filter(|amount| bounds.contains(amount));
        self.take(field, amount.ok_or_else(|| Flaw::new(format!("must be {least} to {AMOUNT_MAX}"))))
    }

    /// A cost; 1 if none is given.
    pub fn cost(&mut self, field: &str, cost: Option<i64>) -> Option<u64> {
        cost.map_or(Some(1), |cost| self.amount(field, cost, 0))
    }

    /// How much in which span; both must be given.
    pub fn rate(
        &mut self,
        path: &str,
        limit: i64,
        duration: Option<prost_types::Duration>,
        least: u64,
    ) -> Option<Rate> {
        let limit = self.amount(&format!("{path}limit"), limit, least);
        let field = format!("{path}duration");
        let span = match duration {
            None => {
                self.refuse(field.as_str(), Flaw::new("must be given"));
                None
            }
            Some(duration) => self.span(&field, Some(duration), SPAN_MIN..=SPAN_MAX).flatten(),
        };
        let (limit, span) = limit.zip(span)?;
        self.take(field, Rate::or_block(limit, span))
    }

    /// How much in which span, where nothing at all is a choice that must be made.
    pub fn rate_or_block(
        &mut self,
        path: &str,
        limit: Option<i64>,
        duration: Option<prost_types::Duration>,
    ) -> Option<Rate> {
        if limit.is_none() {
            self.refuse(format!("{path}limit"), Flaw::new("must be given"));
        }
        // What is read of the rest tells what else is wrong.
        let rate = self.rate(path, limit.unwrap_or(0), duration, 0);
        rate.filter(|_| limit.is_some())
    }

    /// The limits of a key or an identity.
    pub fn limits(&mut self, field: &str, limits: Vec<pb::RateLimit>) -> Option<Limits> {
        if limits.len() > LIMITS_MAX {
            self.refuse(field, Flaw::new(format!("must have at most {LIMITS_MAX} entries")));
            return None;
        }
        let mut read = Vec::with_capacity(limits.len());
        for (index, limit) in limits.into_iter().enumerate() {
            let pb::RateLimit { name, limit, duration, auto_apply } = limit;
            let path = format!("{field}[{index}].");
            let name = self.name(&format!("{path}name"), &name, LIMIT_NAME);
            let rate = self.rate(&path, limit, duration, 1);
            let application = if auto_apply { Application::Always } else { Application::WhenNamed };
            read.push(name.zip(rate).map(|(name, rate)| Limit { name, rate, application }));
        }
        let limits: Option<Vec<Limit>> = read.into_iter().collect();
        self.take(field, Limits::collect(limits?))
    }

    /// How much may be used, if that is limited.
    pub fn credits(&mut self, field: &str, credits: Option<pb::Credits>) -> Option<Option<Credits>> {
        let Some(pb::Credits { remaining, refill }) = credits else { return Some(None) };
        let path = format!("{field}.remaining");
        let remaining = match remaining {
            None => {
                self.refuse(path, Flaw::new("must be given"));
                None
            }
            Some(remaining) => self.amount(&path, remaining, 0),
        };
        let refill = refill.map_or(Some(None), |refill| self.refill(&format!("{field}.refill"), refill).map(Some));
        Some(Some(Credits { remaining: remaining?, refill: refill? }))
    }

    fn refill(&mut self, field: &str, refill: pb::CreditRefill) -> Option<Refill> {
        let pb::CreditRefill { interval, amount, day } = refill;
        let amount = self.amount(&format!("{field}.amount"), amount, 1);
        let at = format!("{field}.day");
        let interval = match (pb::RefillInterval::try_from(interval), day) {
            (Ok(pb::RefillInterval::Daily), None) => Some(Interval::Daily),
            (Ok(pb::RefillInterval::Daily), Some(_)) => {
                self.refuse(at.as_str(), Flaw::new("must not be given for a daily refill"));
                None
            }
            (Ok(pb::RefillInterval::Monthly), day) => {
                let day = u8::try_from(day.unwrap_or(1)).ok().filter(|day| (1..=31).contains(day));
                self.take(at.as_str(), day.ok_or_else(|| Flaw::new("must be 1 to 31"))).map(Interval::Monthly)
            }
            (Ok(pb::RefillInterval::Unspecified) | Err(_), _) => {
                self.refuse(format!("{field}.interval"), Flaw::new("must be DAILY or MONTHLY"));
                None
            }
        };
        let (interval, amount) = interval.zip(amount)?;
        self.take(field, Refill::new(interval, amount))
    }

    /// What an update wants of the credits of a key: all of them, or what is left, or the refill.
    pub fn credits_patch(&mut self, mask: &Mask, credits: Option<pb::Credits>) -> Option<CreditsPatch> {
        if let Wish::Clear = mask.wish("credits", credits.as_ref()) {
            return Some(CreditsPatch { uses: Some(Uses::Unlimited), refill: Some(None) });
        }
        if let Wish::Set(credits) = mask.wish("credits", credits) {
            let credits = self.credits("credits", Some(credits))??;
            return Some(CreditsPatch { uses: Some(Uses::Left(credits.remaining)), refill: Some(credits.refill) });
        }
        let pb::Credits { remaining, refill } = credits.unwrap_or_default();
        let uses = match mask.part("credits.remaining", remaining) {
            Wish::Keep => Some(None),
            Wish::Set(remaining) => {
                self.amount("credits.remaining", remaining, 0).map(|remaining| Some(Uses::Left(remaining)))
            }
            Wish::Clear => Some(Some(Uses::Unlimited)),
        };
        let refill = match mask.part("credits.refill", refill) {
            Wish::Keep => Some(None),
            Wish::Set(refill) => self.refill("credits.refill", refill).map(|refill| Some(Some(refill))),
            Wish::Clear => Some(Some(None)),
        };
        Some(CreditsPatch { uses: uses?, refill: refill? })
    }

    /// What a developer calls an identity.
    pub fn external_id(&mut self, field: &str, text: &str) -> Option<Name> {
        self.unshaped(field, text, EXTERNAL_ID)
    }

    /// The name of a namespace.
    pub fn namespace_name(&mut self, field: &str, text: &str) -> Option<Name> {
        self.unshaped(field, text, NAMESPACE_NAME)
    }

    /// What is limited, or a pattern of it.
    pub fn identifier(&mut self, field: &str, text: &str) -> Option<Name> {
        self.name(field, text, IDENTIFIER)
    }

    /// Whom an exception concerns.
    pub fn pattern(&mut self, field: &str, text: &str) -> Option<Pattern> {
        let text = self.identifier(field, text)?;
        self.take(field, Pattern::new(text))
    }

    /// An identity by id or external id.
    pub fn identity(&mut self, field: &str, text: &str) -> Option<Reference<IdentityId>> {
        if let Ok(id) = IdentityId::parse(text) {
            return Some(Reference::Id(id));
        }
        if is_shape_of_any(text) {
            self.refuse(field, Flaw::new("must be an identity's id or external id, not the id of something else"));
            return None;
        }
        self.name(field, text, EXTERNAL_ID).map(|name| Reference::Name(name.to_string()))
    }

    /// A namespace by id or name.
    pub fn namespace(&mut self, field: &str, text: &str) -> Option<Reference<NamespaceId>> {
        if let Ok(id) = NamespaceId::parse(text) {
            return Some(Reference::Id(id));
        }
        if is_shape_of_any(text) {
            self.refuse(field, Flaw::new("must be a namespace's id or name, not the id of something else"));
            return None;
        }
        self.name(field, text, NAMESPACE_NAME).map(|name| Reference::Name(name.to_string()))
    }

    fn unshaped(&mut self, field: &str, text: &str, bounds: RangeInclusive<usize>) -> Option<Name> {
        if is_shape_of_any(text) {
            self.refuse(field, Flaw::new("must not have the form of an id"));
            return None;
        }
        self.name(field, text, bounds)
    }
}

/// Limits on the wire.
pub fn shown_limits(limits: &Limits) -> Vec<pb::RateLimit> {
    limits
        .iter()
        .map(|Limit { name, rate, application }| pb::RateLimit {
            name: name.to_string(),
            limit: count(rate.limit()),
            duration: Some(span(rate.span())),
            auto_apply: *application == Application::Always,
        })
        .collect()
}

/// Credits on the wire.
pub fn shown_credits(credits: Credits) -> pb::Credits {
    let Credits { remaining, refill } = credits;
    pb::Credits {
        remaining: Some(count(remaining)),
        refill: refill.map(|refill| {
            let (interval, day) = match refill.interval() {
                Interval::Daily => (pb::RefillInterval::Daily, None),
                Interval::Monthly(day) => (pb::RefillInterval::Monthly, Some(day.into())),
            };
            pb::CreditRefill { interval: interval.into(), amount: count(refill.amount()), day }
        }),
    }
}
