//! Questions, and what is wrong with them.

use std::sync::Arc;

use crate::domain::Flaw;
use crate::domain::id::ApiId;
use crate::domain::limit::{LIMITS_MAX, Named};
use crate::domain::name::LIMIT_NAME;
use crate::domain::query::{Query, QueryFlaw};
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::rpc::fields::Fields;
use crate::rpc::keys::presented;
use crate::service::Revision;
use crate::service::verify::{Counting, Detail, VerifyQuestion};

use super::wording::Wording;

/// How many things a call can be said to be about.
pub(super) const TAGS_MAX: usize = 20;
/// Characters of each.
const TAG_LENGTH_MAX: usize = 512;

/// The query that was read last. Many questions in a row tend to ask for the same.
#[derive(Default)]
pub(in crate::rpc) struct LastQuery(Option<Arc<Query>>);

impl LastQuery {
    fn parse(&mut self, text: &str) -> Result<Arc<Query>, QueryFlaw> {
        match &self.0 {
            Some(last) if last.text() == text => Ok(Arc::clone(last)),
            Some(_) | None => {
                let query = Arc::new(Query::parse(text)?);
                self.0 = Some(Arc::clone(&query));
                Ok(query)
            }
        }
    }
}

/// The question, if every field is right. A query that is wrong is told by its own reason, once all else is right.
pub(in crate::rpc) fn question(
    wording: Wording<'_>,
    last: &mut LastQuery,
) -> Result<(VerifyQuestion, Option<Revision>), Error> {
    let Wording { key, api_id, permissions, client_ip, view, dry_run, min_revision, cost, rate_limits, tags } = wording;
    let mut fields = Fields::default();
    let secret = presented(&mut fields, "key", key.into_owned());
    let audience = fields.optional_id("api_id", api_id, ApiId::parse);
    let client = fields.address("client_ip", client_ip);
    let detail = match pb::VerificationView::try_from(view) {
        Ok(pb::VerificationView::Unspecified | pb::VerificationView::Basic) => Some(Detail::Basic),
        Ok(pb::VerificationView::Full) => Some(Detail::Full),
        Err(_) => {
            fields.refuse("view", Flaw::new("must be a VerificationView"));
            None
        }
    };
    let min_revision = fields.min_revision(min_revision);
    let cost = fields.cost("cost", cost);
    let limits = named_limits(&mut fields, rate_limits);
    let tags = check_tags(&mut fields, tags);
    let query = permissions.map(|text| last.parse(text)).transpose();
    let counting = if dry_run { Counting::DryRun } else { Counting::Use };
    let asked = || {
        let (secret, audience, client, detail) = (secret?, audience?, client?, detail?);
        let (cost, limits, min_revision) = (cost?, limits?, min_revision?);
        tags?;
        let question = VerifyQuestion { secret, audience, client, query: None, detail, counting, cost, limits };
        Some((question, min_revision))
    };
    let asked = asked();
    if let Err(flaw) = &query
        && asked.is_none()
    {
        fields.refuse("permissions", Flaw::new(flaw.to_string()));
    }
    let (question, min_revision) = fields.finish(asked)?;
    let query = query.map_err(|flaw| Error::Query { field: "permissions", flaw })?;
    Ok((VerifyQuestion { query, ..question }, min_revision))
}

/// The limits that the call names, each once; with a rate of its own or without.
fn named_limits(fields: &mut Fields, limits: &[pb::VerifyRateLimit]) -> Option<Vec<Named>> {
    if limits.len() > LIMITS_MAX {
        fields.refuse("rate_limits", Flaw::new(format!("must have at most {LIMITS_MAX} entries")));
        return None;
    }
    let mut read: Vec<Option<Named>> = Vec::with_capacity(limits.len());
    for (index, pb::VerifyRateLimit { name, cost, limit, duration }) in limits.iter().enumerate() {
        let path = format!("rate_limits[{index}].");
        let name = fields.name(&format!("{path}name"), name, LIMIT_NAME);
        let cost = fields.cost(&format!("{path}cost"), *cost);
        let inline = match (limit, duration) {
            (None, None) => Some(None),
            (Some(limit), duration) => fields.rate(&path, *limit, *duration, 1).map(Some),
            (None, Some(_)) => {
                fields.refuse(format!("{path}limit"), Flaw::new("must be given with duration"));
                None
            }
        };
        let named = name.zip(cost).zip(inline).map(|((name, cost), inline)| Named { name, cost, inline });
        let twice = named.as_ref().is_some_and(|named| read.iter().flatten().any(|known| known.name == named.name));
        if twice {
            fields.refuse(format!("{path}name"), Flaw::new("must not be named twice"));
        }
        read.push(named);
    }
    read.into_iter().collect()
}

/// What the call is about. Nothing is done with it but to check it.
fn check_tags(fields: &mut Fields, tags: &[String]) -> Option<()> {
    if tags.len() > TAGS_MAX {
        fields.refuse("tags", Flaw::new(format!("must have at most {TAGS_MAX} entries")));
        return None;
    }
    let mut fit = true;
    for (index, tag) in tags.iter().enumerate() {
        if !(1..=TAG_LENGTH_MAX).contains(&tag.chars().count()) {
            fields.refuse(format!("tags[{index}]"), Flaw::new(format!("must be 1 to {TAG_LENGTH_MAX} characters")));
            fit = false;
        }
    }
    fit.then_some(())
}
