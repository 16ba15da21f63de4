//! `KeyService.VerifyKey`: the question in, the verdict out.

use tonic::{Request, Response, Status};

use crate::domain::key::Verdict;
use crate::domain::name::Name;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::service::caller::Caller;
use crate::service::usage::Bill;
use crate::service::verify::{Detail, LimitOutcome, Remembered, Verification, VerifiedKey, VerifyQuestion, WholeKey};
use crate::service::windows::Standing;
use crate::service::{Done, Revision};

use super::convert::{count, expire_time, metadata, moment, span};
use super::credits::remaining;
use super::keys::key_roles;
use super::probing::Held;
use super::{Desk, admitted, meta};

pub(super) mod batch;
pub(super) mod direct;
pub(super) mod plain;
pub(super) mod questions;
pub(super) mod stream;
pub(super) mod whole;
mod wire;
pub(super) mod wording;

use questions::{LastQuery, question};
use wording::Wording;

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
async fn verified(
    desk: &Desk,
    caller: &Caller,
    mut request: pb::VerifyKeyRequest,
) -> Result<Done<Verification>, Error> {
    let (question, min_revision) = question(Wording::of(&mut request), &mut LastQuery::default())?;
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
    fn read(wording: Wording<'_>, last: &mut LastQuery) -> Result<Self, Error> {
        let (question, min_revision) = question(wording, last)?;
        if question.detail == Detail::Full {
            return Err(Error::field("view", "must be BASIC where many are asked about"));
        }
        Ok(Self { question, min_revision })
    }

    /// The answer of that moment, if what is remembered is enough for one.
    fn answer(self, desk: &Desk, bill: &mut Bill<'_>, remembered: Option<&Remembered>, now: Timestamp) -> Answer {
        match desk.ostiary.verify_remembered(bill, &self.question, remembered, now, self.min_revision) {
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
