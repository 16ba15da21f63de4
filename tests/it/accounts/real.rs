//! The same steps, done for real over the wire, by somebody who may do everything.

use futures::StreamExt as _;
use ostiary::pb::v1 as pb;
use sha2::{Digest as _, Sha256};
use tonic::{Response, Status};

use super::naive::Answer;
use super::steps::{Asked, Deposit, Lim, Refill, Step, Wanted};
use crate::harness::{Client, at, mask, reason, span, texts};

/// What was made: id and secret.
pub type Made = (String, String);

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap()
}

fn limits(limits: &[Lim]) -> Vec<pb::RateLimit> {
    let limit = |limit: &Lim| pb::RateLimit {
        name: limit.name.into(),
        limit: whole(limit.limit),
        duration: Some(span(limit.span)),
        auto_apply: limit.auto,
    };
    limits.iter().map(limit).collect()
}

fn credits((left, refill): (u64, Option<Refill>)) -> pb::Credits {
    let refill = refill.map(|Refill { amount, day }| pb::CreditRefill {
        interval: if day.is_some() { pb::RefillInterval::Monthly } else { pb::RefillInterval::Daily }.into(),
        amount: whole(amount),
        day: day.map(|day| i32::try_from(day).unwrap()),
    });
    pb::Credits { remaining: Some(whole(left)), refill }
}

fn question(asked: &Asked) -> pb::VerifyKeyRequest {
    let named = |(name, cost, inline): &super::steps::Named| pb::VerifyRateLimit {
        name: (*name).to_owned(),
        cost: Some(whole(*cost)),
        limit: inline.map(|(limit, _)| whole(limit)),
        duration: inline.map(|(_, millis)| span(millis)),
    };
    pb::VerifyKeyRequest {
        key: asked.secret.clone(),
        cost: Some(whole(asked.cost)),
        rate_limits: asked.named.iter().map(named).collect(),
        dry_run: asked.dry,
        ..Default::default()
    }
}

/// The code, what is left, and what each limit said.
fn verdict(verdict: &pb::Verdict) -> String {
    // Of the limits of one name the one with the shorter span comes first.
    let told: Vec<(&str, bool, i64, i64)> = verdict
        .rate_limits
        .iter()
        .map(|limit| (limit.name.as_str(), limit.exceeded, limit.limit, limit.remaining))
        .collect();
    format!("{:?} {:?} {told:?}", verdict.code(), verdict.remaining_credits)
}

fn nothing<T>(answer: Result<Response<T>, Status>) -> Result<String, Status> {
    answer.map(|_| String::new())
}

impl Client {
    /// Takes a step; what it answers, and what it made.
    pub async fn take(&self, step: &Step) -> (Answer, Made) {
        let mut made = Made::default();
        let answer = self.taken(step, &mut made).await;
        (answer.map_err(|status| reason(&status)), made)
    }

    async fn taken(&self, step: &Step, made: &mut Made) -> Result<String, Status> {
        match step {
            Step::Pass(_) | Step::Sweep | Step::Restart => Ok(String::new()),
            Step::CreateApi { ttl } => {
                let default_ttl = ttl.map(span);
                let request = pb::CreateApiRequest { name: "some API".into(), default_ttl, ..Default::default() };
                made.0 = self.apis().create_api(request).await?.into_inner().api.unwrap().api_id;
                Ok(String::new())
            }
            Step::DeleteApi { api } => {
                let request = pb::DeleteApiRequest { api_id: api.clone(), ..Default::default() };
                nothing(self.apis().delete_api(request).await)
            }
            Step::Create { api, wanted, imported: None } => {
                let answer = self.keys().create_key(create(api, wanted)).await?.into_inner();
                *made = (answer.key.unwrap().key_id, answer.secret);
                Ok(String::new())
            }
            Step::Create { api, wanted, imported: Some(secret) } => {
                let rows = vec![import(api, wanted, secret)];
                let request = futures::stream::iter([pb::ImportKeysRequest { rows }]);
                let answer = self.keys().import_keys(request).await?.into_inner().next().await.unwrap()?;
                if let Some(failure) = answer.failures.into_iter().next() {
                    let error = failure.error.unwrap();
                    let details = prost::Message::encode_to_vec(&error);
                    return Err(Status::with_details(error.code.into(), error.message, details.into()));
                }
                *made = (answer.key_ids[0].clone(), (*secret).to_owned());
                Ok(String::new())
            }
            Step::Update { key, enabled, end, owner, limits: wanted } => {
                let mut paths = Vec::new();
                paths.extend(enabled.map(|_| "enabled"));
                paths.extend(end.map(|_| "expire_time"));
                paths.extend(owner.map(|_| "external_id"));
                paths.extend(wanted.as_ref().map(|_| "rate_limits"));
                if paths.is_empty() {
                    paths.push("name");
                }
                let request = pb::UpdateKeyRequest {
                    key_id: key.clone(),
                    enabled: *enabled,
                    expire_time: end.flatten().map(at),
                    external_id: owner.flatten().map(Into::into),
                    rate_limits: wanted.as_deref().map(limits).unwrap_or_default(),
                    update_mask: mask(&paths),
                    ..Default::default()
                };
                nothing(self.keys().update_key(request).await)
            }
            Step::SetCredits { key, credits: wanted } => {
                let request = pb::UpdateKeyRequest {
                    key_id: key.clone(),
                    credits: wanted.map(credits),
                    update_mask: mask(&["credits"]),
                    ..Default::default()
                };
                let key = self.keys().update_key(request).await?.into_inner().key.unwrap();
                Ok(format!("{:?}", key.credits.map(|credits| credits.remaining.unwrap())))
            }
            Step::Adjust { key, deposit } => {
                let (operation, amount) = match *deposit {
                    Deposit::Set(amount) => (pb::CreditOperation::Set, amount),
                    Deposit::Add(amount) => (pb::CreditOperation::Increment, Some(amount)),
                    Deposit::Take(amount) => (pb::CreditOperation::Decrement, Some(amount)),
                };
                let request = pb::AdjustCreditsRequest {
                    key_id: key.clone(),
                    operation: operation.into(),
                    amount: amount.map(whole),
                    ..Default::default()
                };
                Ok(format!("{:?}", self.keys().adjust_credits(request).await?.into_inner().remaining))
            }
            Step::Verify(asked) => {
                let answer = self.keys().verify_key(question(asked)).await?.into_inner();
                Ok(verdict(&answer.verdict.unwrap()))
            }
            Step::Batch(all) => {
                let requests = all.iter().map(question).collect();
                let answer = self.keys().batch_verify_keys(pb::BatchVerifyKeysRequest { requests }).await?.into_inner();
                let told: Vec<Answer> = answer
                    .results
                    .into_iter()
                    .map(|result| match result.result.unwrap() {
                        pb::batch_verify_keys_result::Result::Verdict(told) => Ok(verdict(&told)),
                        pb::batch_verify_keys_result::Result::Error(error) => {
                            let details = prost::Message::encode_to_vec(&error);
                            Err(reason(&Status::with_details(error.code.into(), error.message, details.into())))
                        }
                    })
                    .collect();
                Ok(format!("{told:?}"))
            }
            Step::Stream(asked) => {
                let request = pb::StreamVerifyKeysRequest { request: Some(question(asked)), ..Default::default() };
                let answers = self.keys().stream_verify_keys(futures::stream::iter([request])).await?;
                let told = match answers.into_inner().next().await.unwrap()?.result.unwrap() {
                    pb::stream_verify_keys_response::Result::Verdict(told) => Ok(verdict(&told)),
                    pb::stream_verify_keys_response::Result::Error(error) => {
                        let details = prost::Message::encode_to_vec(&error);
                        Err(reason(&Status::with_details(error.code.into(), error.message, details.into())))
                    }
                };
                Ok(format!("{told:?}"))
            }
            Step::Reroll { key, grace } => {
                let request = pb::RerollKeyRequest {
                    key_id: key.clone(),
                    grace_period: Some(span(*grace)),
                    ..Default::default()
                };
                let answer = self.keys().reroll_key(request).await?.into_inner();
                *made = (answer.key.unwrap().key_id, answer.secret);
                Ok(String::new())
            }
            Step::Revoke { api, owner, holder, since, before, rehearse } => {
                let filter = pb::RevokeKeysFilter {
                    api_id: api.clone(),
                    identity: owner.map(Into::into),
                    role: holder.then(|| "reader".into()),
                    create_after: since.map(at),
                    create_before: before.map(at),
                    ..Default::default()
                };
                let request = pb::RevokeKeysRequest { filter: Some(filter), validate_only: *rehearse };
                Ok(self.keys().revoke_keys(request).await?.into_inner().revoked_count.to_string())
            }
            Step::Delete { key } => {
                let request = pb::DeleteKeyRequest { key_id: key.clone(), ..Default::default() };
                nothing(self.keys().delete_key(request).await)
            }
            Step::Undelete { key } => {
                let request = pb::UndeleteKeyRequest { key_id: key.clone(), ..Default::default() };
                nothing(self.keys().undelete_key(request).await)
            }
            Step::CreateIdentity { name, limits: wanted } => {
                let (external_id, rate_limits) = ((*name).to_owned(), limits(wanted));
                let request = pb::CreateIdentityRequest { external_id, rate_limits, ..Default::default() };
                nothing(self.identities().create_identity(request).await)
            }
            Step::UpdateIdentity { name, limits: wanted } => {
                let request = pb::UpdateIdentityRequest {
                    identity: (*name).to_owned(),
                    rate_limits: limits(wanted),
                    update_mask: mask(&["rate_limits"]),
                    ..Default::default()
                };
                nothing(self.identities().update_identity(request).await)
            }
            Step::DeleteIdentity { name } => {
                let request = pb::DeleteIdentityRequest { identity: (*name).to_owned(), ..Default::default() };
                nothing(self.identities().delete_identity(request).await)
            }
            Step::Limit { namespace, items } => self.limited_all(namespace, items).await,
            Step::SetOverride { namespace, pattern, limit, span: millis } => {
                let request = pb::SetOverrideRequest {
                    namespace: (*namespace).to_owned(),
                    identifier: (*pattern).to_owned(),
                    limit: Some(whole(*limit)),
                    duration: Some(span(*millis)),
                    ..Default::default()
                };
                nothing(self.rate_limits().set_override(request).await)
            }
            Step::DeleteOverride { namespace, pattern } => {
                let (namespace, identifier) = ((*namespace).to_owned(), (*pattern).to_owned());
                let request = pb::DeleteOverrideRequest { namespace, identifier, ..Default::default() };
                nothing(self.rate_limits().delete_override(request).await)
            }
            Step::Reset { namespace, identifier } => {
                let (namespace, identifier) = ((*namespace).to_owned(), (*identifier).to_owned());
                let request = pb::ResetIdentifierRequest { namespace, identifier, validate_only: false };
                nothing(self.rate_limits().reset_identifier(request).await)
            }
            Step::CreateNamespace { namespace } => {
                let request = pb::CreateNamespaceRequest { name: (*namespace).to_owned(), ..Default::default() };
                nothing(self.rate_limits().create_namespace(request).await)
            }
            Step::RenameNamespace { namespace, to } => {
                let (namespace, name) = ((*namespace).to_owned(), Some((*to).to_owned()));
                let request = pb::UpdateNamespaceRequest { namespace, name, ..Default::default() };
                nothing(self.rate_limits().update_namespace(request).await)
            }
            Step::DeleteNamespace { namespace } => {
                let request = pb::DeleteNamespaceRequest { namespace: (*namespace).to_owned(), ..Default::default() };
                nothing(self.rate_limits().delete_namespace(request).await)
            }
        }
    }

    /// One by `Limit`, several by `BatchLimit`.
    async fn limited_all(&self, namespace: &str, items: &[(&'static str, u64, u64, u64)]) -> Result<String, Status> {
        let item = |(identifier, limit, millis, cost): &(&str, u64, u64, u64)| pb::BatchLimitItem {
            namespace: namespace.to_owned(),
            identifier: (*identifier).to_owned(),
            limit: whole(*limit),
            duration: Some(span(*millis)),
            cost: Some(whole(*cost)),
        };
        let mut items: Vec<pb::BatchLimitItem> = items.iter().map(item).collect();
        if items.len() > 1 {
            let answer = self.rate_limits().batch_limit(pb::BatchLimitRequest { items }).await?.into_inner();
            let told: Vec<(bool, i64, i64)> =
                answer.results.iter().map(|result| (result.success, result.limit, result.remaining)).collect();
            return Ok(format!("{} {told:?}", answer.success));
        }
        let pb::BatchLimitItem { namespace, identifier, limit, duration, cost } = items.remove(0);
        let request = pb::LimitRequest { namespace, identifier, limit, duration, cost };
        let answer = self.rate_limits().limit(request).await?.into_inner();
        Ok(format!("{} {:?}", answer.success, [(answer.success, answer.limit, answer.remaining)]))
    }
}

fn create(api: &str, wanted: &Wanted) -> pb::CreateKeyRequest {
    pb::CreateKeyRequest {
        api_id: api.to_owned(),
        credits: wanted.credits.map(credits),
        rate_limits: limits(&wanted.limits),
        external_id: wanted.owner.map(Into::into),
        expiration: wanted.end.map(|end| pb::create_key_request::Expiration::ExpireTime(at(end))),
        roles: if wanted.holds { texts(&["reader"]) } else { Vec::new() },
        ..Default::default()
    }
}

fn import(api: &str, wanted: &Wanted, secret: &str) -> pb::ImportKeysRow {
    pb::ImportKeysRow {
        hash: Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect(),
        algorithm: pb::HashAlgorithm::Sha256Hex.into(),
        api_id: api.to_owned(),
        credits: wanted.credits.map(credits),
        rate_limits: limits(&wanted.limits),
        external_id: wanted.owner.map(Into::into),
        expiration: wanted.end.map(|end| pb::import_keys_row::Expiration::ExpireTime(at(end))),
        roles: if wanted.holds { texts(&["reader"]) } else { Vec::new() },
        ..Default::default()
    }
}
