//! Replacing keys.

use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::domain::id::KeyId;
use crate::domain::key::IssuedKey;
use crate::domain::rotation::GRACE_MAX;
use crate::pb::v1 as pb;
use crate::rpc::fields::Fields;
use crate::rpc::root_keys::plaintext;
use crate::rpc::{Desk, admitted, answer, run};
use crate::service::Done;
use crate::service::keys::Reroll;

use super::shown;

pub(super) async fn reroll_key(
    desk: &Desk,
    request: Request<pb::RerollKeyRequest>,
) -> Result<Response<pb::RerollKeyResponse>, Status> {
    let (caller, request) = admitted(request)?;
    let pb::RerollKeyRequest { key_id, grace_period, etag, validate_only } = request;
    let mut fields = Fields::default();
    let id = fields.id("key_id", &key_id, KeyId::parse);
    let grace = fields.span("grace_period", grace_period, Duration::ZERO..=GRACE_MAX);
    let (id, grace) = fields.finish(id.zip(grace))?;
    let grace = grace.unwrap_or(Duration::ZERO);
    let done = desk.ostiary.reroll_key(&caller, id, grace, etag, run(validate_only)).await?;
    let Done { answer: Reroll { issued: IssuedKey { key, secret }, previous }, revision } = done;
    let now = desk.ostiary.world().now();
    answer(&caller, Done { answer: (key, previous), revision }, |meta, (key, previous)| pb::RerollKeyResponse {
        meta,
        key: Some(shown(key, now)),
        secret: plaintext(secret),
        previous: Some(shown(previous, now)),
    })
}
