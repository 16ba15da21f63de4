//! `KeyService.VerifyKey`: the question in, the verdict out.

use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::id::ApiId;
use crate::domain::key::Verdict;
use crate::domain::query::Query;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::service::Revision;
use crate::service::identities::CountedIdentity;
use crate::service::verify::{Counting, Detail, Verification, VerifiedKey, VerifyQuestion};

use super::convert::{expire_time, metadata};
use super::fields::Fields;
use super::keys::{key_roles, presented};
use super::{Desk, admitted, answer};

pub(super) async fn verify_key(
    desk: &Desk,
    request: Request<pb::VerifyKeyRequest>,
) -> Result<Response<pb::VerifyKeyResponse>, Status> {
    let (caller, request) = admitted(request)?;
    let (question, min_revision) = question(request)?;
    let detail = question.detail;
    let done = desk.ostiary.verify_key(&caller, question, min_revision).await?;
    answer(&caller, done, |meta, verification| pb::VerifyKeyResponse {
        meta,
        verdict: Some(shown(verification, detail)),
    })
}

/// The question, if every field is right. A query that is wrong is told by its own reason, once all else is right.
fn question(request: pb::VerifyKeyRequest) -> Result<(VerifyQuestion, Option<Revision>), Error> {
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
    let query = permissions.as_deref().map(Query::parse).transpose();
    let counting = if dry_run { Counting::DryRun } else { Counting::Use };
    let asked = || {
        let question = VerifyQuestion {
            secret: secret.clone()?,
            audience: audience?,
            client: client?,
            query: None,
            detail: detail?,
            counting,
        };
        Some((question, min_revision?))
    };
    if let Err(flaw) = &query
        && asked().is_none()
    {
        fields.refuse("permissions", Flaw::new(flaw.to_string()));
    }
    let (question, min_revision) = fields.finish(asked())?;
    let query = query.map_err(|flaw| Error::Query { field: "permissions", flaw })?;
    Ok((VerifyQuestion { query, ..question }, min_revision))
}

fn shown(verification: Verification, detail: Detail) -> pb::Verdict {
    let Verification { verdict, key } = verification;
    let code = match &verdict {
        Verdict::Valid => pb::VerificationCode::Valid,
        Verdict::NotFound => pb::VerificationCode::NotFound,
        Verdict::Disabled => pb::VerificationCode::Disabled,
        Verdict::Expired => pb::VerificationCode::Expired,
        Verdict::Forbidden => pb::VerificationCode::Forbidden,
        Verdict::InsufficientPermissions(_) => pb::VerificationCode::InsufficientPermissions,
        Verdict::RateLimited(_) => pb::VerificationCode::RateLimited,
        Verdict::UsageExceeded => pb::VerificationCode::UsageExceeded,
    };
    let bare = pb::Verdict {
        valid: verdict == Verdict::Valid,
        code: code.into(),
        reason: verdict.reason(),
        ..Default::default()
    };
    let Some(VerifiedKey { key, identity, powers }) = key else { return bare };
    let basic = pb::Verdict {
        key_id: Some(key.id.to_string()),
        api_id: Some(key.api.to_string()),
        expire_time: expire_time(key.expiry),
        external_id: identity.as_ref().map(|identity| identity.external_id.to_string()),
        ..bare
    };
    match (detail, powers) {
        (Detail::Full, Some(powers)) => pb::Verdict {
            name: Some(key.name.to_string()),
            metadata: metadata(&key.metadata),
            enabled: Some(key.enabled),
            permissions: powers.permissions.iter().map(ToString::to_string).collect(),
            roles: key_roles(powers.roles),
            identity: identity.map(|identity| CountedIdentity { identity, key_count: powers.key_count }.into()),
            ..basic
        },
        (Detail::Full, None) | (Detail::Basic, _) => basic,
    }
}
