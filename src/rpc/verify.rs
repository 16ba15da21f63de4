//! `KeyService.VerifyKey`: the question in, the verdict out.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::id::ApiId;
use crate::domain::key::Verdict;
use crate::domain::limit::{LIMITS_MAX, Named};
use crate::domain::name::{LIMIT_NAME, Name};
use crate::domain::query::{Query, QueryFlaw};
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::service::caller::Caller;
use crate::service::usage::Bill;
use crate::service::verify::{
    Counting, Detail, LimitOutcome, Sought, Verification, VerifiedKey, VerifyQuestion, WholeKey,
};
use crate::service::windows::Standing;
use crate::service::{Done, Revision};

use super::convert::{count, expire_time, metadata, moment, span};
use super::credits::remaining;
use super::fields::Fields;
use super::keys::{key_roles, presented};
use super::probing::Held;
use super::{Desk, admitted, meta};

pub(super) mod batch;
pub(super) mod direct;
pub(super) mod plain;
pub(super) mod stream;
mod wire;

/// How many things a call can be said to be about.
const TAGS_MAX: usize = 20;
/// Characters of each.
const TAG_LENGTH_MAX: usize = 512;
/// Questions that are looked at together: what they take is brought from memory at once.
const TOGETHER: usize = 32;

pub(super) async fn verify_key(
    desk: &Desk,
    request: Request<pb::VerifyKeyRequest>,
) -> Result<Response<pb::VerifyKeyResponse>, Status> {
    let (caller, request) = admitted(request)?;
    let Done { answer, revision } = verified(desk, &caller, request).await?;
    Ok(Response::new(pb::VerifyKeyResponse { meta: meta(&caller, revision), verdict: Some(shown(answer)) }))
}

/// The answer to a question.
async fn verified(desk: &Desk, caller: &Caller, request: pb::VerifyKeyRequest) -> Result<Done<Verification>, Error> {
    let (question, min_revision) = question(request, &mut LastQuery::default())?;
    let done = desk.ostiary.verify_key(caller, &question, min_revision).await?;
    if done.answer.verdict == Verdict::NotFound {
        Box::pin(desk.hold_back(desk.unknown(caller, question.client))).await;
    }
    Ok(done)
}

/// The answer to one of many questions.
struct Item {
    answer: Verification,
    revision: Revision,
    /// Present if it is to be held back.
    held: Option<Held>,
}

/// One of many questions, of which an answer tells the verdict alone.
struct Asked {
    question: VerifyQuestion,
    min_revision: Option<Revision>,
}

/// One of many questions, as far as it could be answered at once.
enum Answer {
    Ready(Result<Item, Error>),
    Pending(Asked),
}

impl Asked {
    fn read(request: pb::VerifyKeyRequest, last: &mut LastQuery) -> Result<Self, Error> {
        let (question, min_revision) = question(request, last)?;
        if question.detail == Detail::Full {
            return Err(Error::field("view", "must be BASIC where many are asked about"));
        }
        Ok(Self { question, min_revision })
    }

    /// The answer of that moment, if it is at hand where it is to be sought.
    fn answer(self, desk: &Desk, bill: &mut Bill<'_>, sought: Option<&Sought>, now: Timestamp) -> Answer {
        match desk.ostiary.verify_sought(bill, &self.question, sought, now, self.min_revision) {
            Some(done) => Answer::Ready(done.map(|done| item(desk, bill.caller(), &self.question, done))),
            None => Answer::Pending(self),
        }
    }
}

/// Answers what could not be answered at once.
async fn in_time(desk: &Desk, caller: &Caller, asked: Asked) -> Result<Item, Error> {
    let Asked { question, min_revision } = asked;
    let done = desk.ostiary.verify_key(caller, &question, min_revision).await?;
    Ok(item(desk, caller, &question, done))
}

fn item(desk: &Desk, caller: &Caller, question: &VerifyQuestion, done: Done<Verification>) -> Item {
    let Done { answer, revision } = done;
    let unknown = answer.verdict == Verdict::NotFound;
    let held = if unknown { desk.unknown(caller, question.client) } else { None };
    Item { answer, revision, held }
}

/// The query that was read last. Many questions in a row tend to ask for the same.
#[derive(Default)]
pub(super) struct LastQuery(Option<Arc<Query>>);

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
pub(super) fn question(
    request: pb::VerifyKeyRequest,
    last: &mut LastQuery,
) -> Result<(VerifyQuestion, Option<Revision>), Error> {
    let pb::VerifyKeyRequest {
        key,
        api_id,
        permissions,
        client_ip,
        view,
        dry_run,
        min_revision,
        cost,
        rate_limits,
        tags,
    } = request;
    let mut fields = Fields::default();
    let secret = presented(&mut fields, "key", key);
    let audience = fields.optional_id("api_id", api_id.as_deref(), ApiId::parse);
    let client = fields.address("client_ip", client_ip.as_deref());
    let detail = match pb::VerificationView::try_from(view) {
        Ok(pb::VerificationView::Unspecified | pb::VerificationView::Basic) => Some(Detail::Basic),
        Ok(pb::VerificationView::Full) => Some(Detail::Full),
        Err(_) => {
            fields.refuse("view", Flaw::new("must be a VerificationView"));
            None
        }
    };
    let min_revision = fields.min_revision(&min_revision);
    let cost = fields.cost("cost", cost);
    let limits = named_limits(&mut fields, rate_limits);
    let tags = check_tags(&mut fields, &tags);
    let query = permissions.as_deref().map(|text| last.parse(text)).transpose();
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
fn named_limits(fields: &mut Fields, limits: Vec<pb::VerifyRateLimit>) -> Option<Vec<Named>> {
    if limits.len() > LIMITS_MAX {
        fields.refuse("rate_limits", Flaw::new(format!("must have at most {LIMITS_MAX} entries")));
        return None;
    }
    let mut read: Vec<Option<Named>> = Vec::with_capacity(limits.len());
    for (index, pb::VerifyRateLimit { name, cost, limit, duration }) in limits.into_iter().enumerate() {
        let path = format!("rate_limits[{index}].");
        let name = fields.name(&format!("{path}name"), &name, LIMIT_NAME);
        let cost = fields.cost(&format!("{path}cost"), cost);
        let inline = match (limit, duration) {
            (None, None) => Some(None),
            (Some(limit), duration) => fields.rate(&path, limit, duration, 1).map(Some),
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

fn shown_outcome(outcome: LimitOutcome) -> pb::RateLimitOutcome {
    let LimitOutcome { name, standing: Standing { exceeded, limit, left, reset, retry_after } } = outcome;
    pb::RateLimitOutcome {
        name: name.into_string(),
        exceeded,
        limit: count(limit),
        remaining: count(left),
        reset_time: reset.map(moment),
        retry_after: retry_after.map(span),
    }
}

fn code(verdict: &Verdict) -> pb::VerificationCode {
    match verdict {
        Verdict::Valid => pb::VerificationCode::Valid,
        Verdict::NotFound => pb::VerificationCode::NotFound,
        Verdict::Disabled => pb::VerificationCode::Disabled,
        Verdict::Expired => pb::VerificationCode::Expired,
        Verdict::Forbidden => pb::VerificationCode::Forbidden,
        Verdict::InsufficientPermissions(_) => pb::VerificationCode::InsufficientPermissions,
        Verdict::RateLimited(_) => pb::VerificationCode::RateLimited,
        Verdict::UsageExceeded => pb::VerificationCode::UsageExceeded,
    }
}

fn shown(verification: Verification) -> pb::Verdict {
    let Verification { verdict, key } = verification;
    let bare = pb::Verdict {
        valid: verdict == Verdict::Valid,
        code: code(&verdict).into(),
        reason: verdict.reason(),
        ..Default::default()
    };
    let Some(VerifiedKey { id, api, expiry, external_id, uses, limits, whole }) = key else { return bare };
    let basic = pb::Verdict {
        key_id: Some(id.text()),
        api_id: Some(api.text()),
        expire_time: expire_time(expiry),
        external_id: external_id.map(Name::into_string),
        remaining_credits: remaining(uses),
        rate_limits: limits.into_iter().map(shown_outcome).collect(),
        ..bare
    };
    let Some(WholeKey { key, roles, permissions, identity }) = whole.map(|whole| *whole) else { return basic };
    pb::Verdict {
        name: Some(key.name.to_string()),
        metadata: metadata(&key.metadata),
        enabled: Some(key.enabled),
        permissions: permissions.iter().map(ToString::to_string).collect(),
        roles: key_roles(roles),
        identity: identity.map(|identity| Box::new(identity.into())),
        ..basic
    }
}
