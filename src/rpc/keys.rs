//! `KeyService`: messages in and out. Verifying stands in `verify.rs`.

use futures::StreamExt as _;
use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::id::{ApiId, KeyId, RootKeyId};
use crate::domain::key::{DescribedKey, IssuedKey, Presence, RoleRef, State};
use crate::domain::limit::Limits;
use crate::domain::name::{KEY_NAME, Name};
use crate::domain::network::AllowList;
use crate::domain::secret::Secret;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::value::Metadata;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::service::keys::{Deletion, KeyFilter, KeyPatch, Shown};
use crate::service::listing::Page;
use crate::service::{Assignment, Done, PermissionAssignment, RoleAssignment};

use super::convert::{expire_time, metadata, moment, networks};
use super::fields::{Fields, list};
use super::limits::{shown_credits, shown_limits};
use super::page::page;
use super::root_keys::{flat, plaintext};
use super::streams::admitted_stream;
use super::verify::questions::LastQuery;
use super::verify::stream::{Answers, Messages, Said, stream_verify_keys};
use super::{Clock, Desk, admitted, answer, clock, run};

mod drafts;
mod importing;
mod rerolling;
mod revoking;

/// Characters of a presented key at most.
pub(super) const KEY_LENGTH_MAX: usize = 512;

/// One of the six methods that put roles or permissions on a key or take them off: they differ in name only.
macro_rules! assignment {
    ($desk:ident, $request:ident, $how:expr, roles, $request_type:ident, $response:ident) => {{
        let (caller, request) = admitted($request)?;
        let pb::$request_type { key_id, roles, etag, validate_only } = request;
        let mut fields = Fields::default();
        let key = fields.id("key_id", &key_id, KeyId::parse);
        let roles = named(&mut fields, $how, "roles", &roles, Fields::roles);
        let (key, roles) = fields.finish(key.zip(roles))?;
        let assignment = RoleAssignment { key, how: $how, roles, etag };
        let done = $desk.ostiary.assign_roles(&caller, assignment, run(validate_only)).await?;
        answer(&caller, done, |meta, key| pb::$response { meta, roles: key_roles(key.roles) })
    }};
    ($desk:ident, $request:ident, $how:expr, permissions, $request_type:ident, $response:ident) => {{
        let (caller, request) = admitted($request)?;
        let pb::$request_type { key_id, permissions, etag, validate_only } = request;
        let mut fields = Fields::default();
        let key = fields.id("key_id", &key_id, KeyId::parse);
        let permissions = named(&mut fields, $how, "permissions", &permissions, Fields::permissions);
        let (key, permissions) = fields.finish(key.zip(permissions))?;
        let assignment = PermissionAssignment { key, how: $how, permissions, etag };
        let done = $desk.ostiary.assign_permissions(&caller, assignment, run(validate_only)).await?;
        answer(&caller, done, |meta, key| pb::$response {
            meta,
            permissions: key.permissions.iter().map(ToString::to_string).collect(),
        })
    }};
}

#[tonic::async_trait]
impl pb::key_service_server::KeyService for Desk {
    async fn create_key(
        &self,
        request: Request<pb::CreateKeyRequest>,
    ) -> Result<Response<pb::CreateKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let run = run(request.validate_only);
        let mut fields = Fields::default();
        let draft = drafts::draft(&mut fields, request, clock(self, &caller));
        let draft = fields.finish(draft)?;
        let Done { answer: IssuedKey { key, secret }, revision } = self.ostiary.create_key(&caller, draft, run).await?;
        let now = self.ostiary.world().now();
        answer(&caller, Done { answer: key, revision }, |meta, key| pb::CreateKeyResponse {
            meta,
            key: Some(shown(key, now)),
            secret: plaintext(secret),
        })
    }

    async fn get_key(&self, request: Request<pb::GetKeyRequest>) -> Result<Response<pb::GetKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::GetKeyRequest { key_id, min_revision } = request;
        let mut fields = Fields::default();
        let id = fields.id("key_id", &key_id, KeyId::parse);
        let min_revision = fields.min_revision(&min_revision);
        let (id, min_revision) = fields.finish(id.zip(min_revision))?;
        let done = self.ostiary.key(&caller, id, min_revision).await?;
        let now = self.ostiary.world().now();
        answer(&caller, done, |meta, key| pb::GetKeyResponse { meta, key: Some(shown(key, now)) })
    }

    async fn list_keys(&self, request: Request<pb::ListKeysRequest>) -> Result<Response<pb::ListKeysResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListKeysRequest { page_size, page_token, filter, show_deleted, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        // What deleted keys are shown is as much part of the filter as the rest.
        let rows = pb::ListKeysRequest { filter: Some(filter.clone()), show_deleted, ..Default::default() };
        let page = page(&mut fields, "ListKeys", &rows, (page_size, page_token));
        let filter = to_filter(&mut fields, filter, if show_deleted { Shown::Yes } else { Shown::No });
        let min_revision = fields.min_revision(&min_revision);
        let (filter, page, min_revision) = fields.finish(filter.zip(page).zip(min_revision).map(flat))?;
        let done = self.ostiary.list_keys(&caller, filter, page, min_revision).await?;
        let now = self.ostiary.world().now();
        answer(&caller, done, |meta, Page { items, next }| pb::ListKeysResponse {
            meta,
            keys: items.into_iter().map(|key| shown(key, now)).collect(),
            next_page_token: next,
        })
    }

    async fn update_key(
        &self,
        request: Request<pb::UpdateKeyRequest>,
    ) -> Result<Response<pb::UpdateKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let run = run(request.validate_only);
        let etag = request.etag.clone();
        let (id, patch) = patch(request, clock(self, &caller))?;
        let done = self.ostiary.update_key(&caller, id, patch, etag, run).await?;
        let now = self.ostiary.world().now();
        answer(&caller, done, |meta, key| pb::UpdateKeyResponse { meta, key: Some(shown(key, now)) })
    }

    async fn delete_key(
        &self,
        request: Request<pb::DeleteKeyRequest>,
    ) -> Result<Response<pb::DeleteKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::DeleteKeyRequest { key_id, permanent, etag, validate_only } = request;
        let mut fields = Fields::default();
        let id = fields.id("key_id", &key_id, KeyId::parse);
        let id = fields.finish(id)?;
        let deletion = if permanent { Deletion::Permanent } else { Deletion::Restorable };
        let done = self.ostiary.delete_key(&caller, id, deletion, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, ()| pb::DeleteKeyResponse { meta })
    }

    async fn undelete_key(
        &self,
        request: Request<pb::UndeleteKeyRequest>,
    ) -> Result<Response<pb::UndeleteKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::UndeleteKeyRequest { key_id, etag, validate_only } = request;
        let mut fields = Fields::default();
        let id = fields.id("key_id", &key_id, KeyId::parse);
        let id = fields.finish(id)?;
        let done = self.ostiary.undelete_key(&caller, id, etag, run(validate_only)).await?;
        let now = self.ostiary.world().now();
        answer(&caller, done, |meta, key| pb::UndeleteKeyResponse { meta, key: Some(shown(key, now)) })
    }

    async fn lookup_key(
        &self,
        request: Request<pb::LookupKeyRequest>,
    ) -> Result<Response<pb::LookupKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::LookupKeyRequest { secret, min_revision } = request;
        let mut fields = Fields::default();
        let secret = presented(&mut fields, "secret", secret);
        let min_revision = fields.min_revision(&min_revision);
        let (secret, min_revision) = fields.finish(secret.zip(min_revision))?;
        let found = self.ostiary.look_up_key(&caller, secret, min_revision).await;
        if let Err(Error::NotFound { .. }) = found {
            self.hold_back(self.unknown(&caller, None)).await;
        }
        let done = found?;
        let now = self.ostiary.world().now();
        answer(&caller, done, |meta, key| pb::LookupKeyResponse { meta, key: Some(shown(key, now)) })
    }

    async fn add_key_roles(
        &self,
        request: Request<pb::AddKeyRolesRequest>,
    ) -> Result<Response<pb::AddKeyRolesResponse>, Status> {
        assignment!(self, request, Assignment::Add, roles, AddKeyRolesRequest, AddKeyRolesResponse)
    }

    async fn remove_key_roles(
        &self,
        request: Request<pb::RemoveKeyRolesRequest>,
    ) -> Result<Response<pb::RemoveKeyRolesResponse>, Status> {
        assignment!(self, request, Assignment::Remove, roles, RemoveKeyRolesRequest, RemoveKeyRolesResponse)
    }

    async fn set_key_roles(
        &self,
        request: Request<pb::SetKeyRolesRequest>,
    ) -> Result<Response<pb::SetKeyRolesResponse>, Status> {
        assignment!(self, request, Assignment::Set, roles, SetKeyRolesRequest, SetKeyRolesResponse)
    }

    async fn add_key_permissions(
        &self,
        request: Request<pb::AddKeyPermissionsRequest>,
    ) -> Result<Response<pb::AddKeyPermissionsResponse>, Status> {
        assignment!(self, request, Assignment::Add, permissions, AddKeyPermissionsRequest, AddKeyPermissionsResponse)
    }

    async fn remove_key_permissions(
        &self,
        request: Request<pb::RemoveKeyPermissionsRequest>,
    ) -> Result<Response<pb::RemoveKeyPermissionsResponse>, Status> {
        assignment!(
            self,
            request,
            Assignment::Remove,
            permissions,
            RemoveKeyPermissionsRequest,
            RemoveKeyPermissionsResponse
        )
    }

    async fn set_key_permissions(
        &self,
        request: Request<pb::SetKeyPermissionsRequest>,
    ) -> Result<Response<pb::SetKeyPermissionsResponse>, Status> {
        assignment!(self, request, Assignment::Set, permissions, SetKeyPermissionsRequest, SetKeyPermissionsResponse)
    }

    async fn verify_key(
        &self,
        request: Request<pb::VerifyKeyRequest>,
    ) -> Result<Response<pb::VerifyKeyResponse>, Status> {
        super::verify::verify_key(self, request).await
    }

    async fn revoke_keys(
        &self,
        request: Request<pb::RevokeKeysRequest>,
    ) -> Result<Response<pb::RevokeKeysResponse>, Status> {
        revoking::revoke_keys(self, request).await
    }

    async fn reroll_key(
        &self,
        request: Request<pb::RerollKeyRequest>,
    ) -> Result<Response<pb::RerollKeyResponse>, Status> {
        rerolling::reroll_key(self, request).await
    }

    async fn adjust_credits(
        &self,
        request: Request<pb::AdjustCreditsRequest>,
    ) -> Result<Response<pb::AdjustCreditsResponse>, Status> {
        super::credits::adjust_credits(self, request).await
    }

    async fn batch_verify_keys(
        &self,
        request: Request<pb::BatchVerifyKeysRequest>,
    ) -> Result<Response<pb::BatchVerifyKeysResponse>, Status> {
        super::verify::batch::batch_verify_keys(self, request).await
    }

    type ImportKeysStream = importing::Answers;

    async fn import_keys(
        &self,
        request: Request<tonic::Streaming<pb::ImportKeysRequest>>,
    ) -> Result<Response<Self::ImportKeysStream>, Status> {
        importing::import_keys(self, request)
    }

    type StreamVerifyKeysStream = Answers<pb::StreamVerifyKeysResponse>;

    async fn stream_verify_keys(
        &self,
        request: Request<tonic::Streaming<pb::StreamVerifyKeysRequest>>,
    ) -> Result<Response<Self::StreamVerifyKeysStream>, Status> {
        let (caller, messages) = admitted_stream(request)?;
        let mut last = LastQuery::default();
        let said = messages.map(move |message| message.map(|message| Said::of(message, &mut last)));
        Ok(stream_verify_keys::<Messages>(self, caller, said))
    }
}

/// What an assignment names: at least one thing, unless it replaces all.
fn named<T>(
    fields: &mut Fields,
    how: Assignment,
    field: &str,
    texts: &[String],
    read: impl FnOnce(&mut Fields, &str, &[String]) -> Option<T>,
) -> Option<T> {
    match how {
        Assignment::Add | Assignment::Remove if texts.is_empty() => {
            fields.refuse(field, Flaw::new("must name at least one"));
            None
        }
        Assignment::Add | Assignment::Remove | Assignment::Set => read(fields, field, texts),
    }
}

/// A secret as somebody presents it. The flaw says nothing of it.
pub(super) fn presented(fields: &mut Fields, field: &str, text: String) -> Option<Secret> {
    if !text.is_empty() && (text.len() <= KEY_LENGTH_MAX || text.chars().nth(KEY_LENGTH_MAX).is_none()) {
        Some(Secret::presented(text))
    } else {
        fields.refuse(field, Flaw::new(format!("must be 1 to {KEY_LENGTH_MAX} characters")));
        None
    }
}

fn patch(request: pb::UpdateKeyRequest, clock: Clock) -> Result<(KeyId, KeyPatch), Error> {
    let pb::UpdateKeyRequest {
        key_id,
        name,
        metadata,
        enabled,
        expire_time,
        allowed_cidrs,
        roles,
        permissions,
        update_mask,
        etag: _,
        validate_only: _,
        external_id,
        credits,
        rate_limits,
    } = request;
    let mut fields = Fields::default();
    let id = fields.id("key_id", &key_id, KeyId::parse);
    let known = [
        "name",
        "metadata",
        "enabled",
        "expire_time",
        "allowed_cidrs",
        "roles",
        "permissions",
        "external_id",
        "credits",
        "credits.remaining",
        "credits.refill",
        "rate_limits",
    ];
    let mask = fields.mask(update_mask, &known, &["api_id", "prefix"]);
    let name =
        fields.patched_or(&mask, "name", name, Name::default(), |fields, name| fields.name("name", &name, KEY_NAME));
    let metadata = fields.patched_or(&mask, "metadata", metadata, Metadata::default(), |fields, data| {
        fields.metadata("metadata", Some(data))
    });
    let enabled = fields.patched_or(&mask, "enabled", enabled, false, |_, enabled| Some(enabled));
    let expiry = fields.patched_or(&mask, "expire_time", expire_time, Expiry::Never, |fields, moment| {
        fields.expire_time("expire_time", Some(moment), clock.ahead_of).flatten()
    });
    let allowed =
        fields.patched_or(&mask, "allowed_cidrs", list(allowed_cidrs), AllowList::anyone(), |fields, texts| {
            fields.networks("allowed_cidrs", &texts)
        });
    let roles =
        fields.patched_or(&mask, "roles", list(roles), Vec::new(), |fields, texts| fields.roles("roles", &texts));
    let permissions = fields.patched_or(&mask, "permissions", list(permissions), Vec::new(), |fields, texts| {
        fields.permissions("permissions", &texts)
    });
    let external_id = fields.patched_or(&mask, "external_id", external_id, None, |fields, text| {
        fields.external_id("external_id", &text).map(Some)
    });
    let credits = fields.credits_patch(&mask, credits);
    let rate_limits = (!rate_limits.is_empty()).then_some(rate_limits);
    let limits = fields.patched_or(&mask, "rate_limits", rate_limits, Limits::default(), |fields, limits| {
        fields.limits("rate_limits", limits)
    });
    let patch = || {
        Some((
            id?,
            KeyPatch {
                name: name?,
                metadata: metadata?,
                enabled: enabled?,
                expiry: expiry?,
                allowed: allowed?,
                roles: roles?,
                permissions: permissions?,
                external_id: external_id?,
                credits: credits?,
                limits: limits?,
            },
        ))
    };
    fields.finish(patch())
}

fn to_filter(fields: &mut Fields, filter: pb::ListKeysFilter, deleted: Shown) -> Option<KeyFilter> {
    let pb::ListKeysFilter {
        api_id,
        role,
        permission,
        state,
        name_contains,
        start,
        created_by,
        expire_before,
        last_used_before,
        identity,
    } = filter;
    let api = fields.optional_id("filter.api_id", api_id.as_deref(), ApiId::parse);
    let role = role.map_or(Some(None), |text| fields.role("filter.role", &text).map(Some));
    let permission = permission.map_or(Some(None), |text| fields.permission("filter.permission", &text).map(Some));
    let state = match state.map(pb::KeyState::try_from) {
        None => Some(None),
        Some(Ok(pb::KeyState::Active)) => Some(Some(State::Active)),
        Some(Ok(pb::KeyState::Disabled)) => Some(Some(State::Disabled)),
        Some(Ok(pb::KeyState::Expired)) => Some(Some(State::Expired)),
        Some(Ok(pb::KeyState::Deleted)) => Some(Some(State::Deleted)),
        Some(Ok(pb::KeyState::RotatedOut)) => Some(Some(State::RotatedOut)),
        Some(Ok(pb::KeyState::Revoked)) => Some(Some(State::Revoked)),
        Some(Ok(pb::KeyState::Unspecified) | Err(_)) => {
            fields.refuse("filter.state", Flaw::new("must be a KeyState other than UNSPECIFIED"));
            None
        }
    };
    let name_contains = fields.search("filter.name_contains", name_contains);
    let start = fields.search("filter.start", start);
    let created_by = fields.optional_id("filter.created_by", created_by.as_deref(), RootKeyId::parse);
    let expire_before = fields.moment("filter.expire_before", expire_before);
    let last_used_before = fields.moment("filter.last_used_before", last_used_before);
    let identity = identity.map_or(Some(None), |text| fields.identity("filter.identity", &text).map(Some));
    Some(KeyFilter {
        api: api?,
        identity: identity?,
        role: role?,
        permission: permission?,
        state: state?,
        name_contains: name_contains?,
        start: start?,
        created_by: created_by?,
        expire_before: expire_before?,
        last_used_before: last_used_before?,
        deleted,
    })
}

pub(super) fn key_roles(roles: Vec<RoleRef>) -> Vec<pb::KeyRole> {
    roles
        .into_iter()
        .map(|RoleRef { id, name }| pb::KeyRole { role_id: id.to_string(), name: name.to_string() })
        .collect()
}

fn shown(described: DescribedKey, now: Timestamp) -> pb::Key {
    let DescribedKey { key, roles, permissions, external_id, credits, last_used } = described;
    let state = match key.state(now) {
        State::Active => pb::KeyState::Active,
        State::Disabled => pb::KeyState::Disabled,
        State::Expired => pb::KeyState::Expired,
        State::Deleted => pb::KeyState::Deleted,
        State::RotatedOut => pb::KeyState::RotatedOut,
        State::Revoked => pb::KeyState::Revoked,
    };
    pb::Key {
        key_id: key.id.to_string(),
        api_id: key.api.to_string(),
        name: key.name.to_string(),
        start: key.start,
        prefix: key.prefix.as_ref().map(ToString::to_string).unwrap_or_default(),
        metadata: metadata(&key.metadata),
        roles: key_roles(roles),
        permissions: permissions.iter().map(ToString::to_string).collect(),
        enabled: key.enabled,
        state: state.into(),
        create_time: Some(moment(key.created)),
        update_time: Some(moment(key.updated)),
        expire_time: expire_time(key.expiry),
        delete_time: match key.presence {
            Presence::Here => None,
            Presence::Deleted(at) | Presence::Gone(at) | Presence::Revoked { at, .. } => Some(moment(at)),
        },
        last_used_time: last_used.map(moment),
        allowed_cidrs: networks(&key.allowed),
        created_by: key.created_by.to_string(),
        etag: key.etag.to_string(),
        // An identity that has been deleted is nobody's.
        identity_id: key.identity.filter(|_| external_id.is_some()).map(|id| id.to_string()),
        external_id: external_id.map(|id| id.to_string()),
        credits: credits.map(shown_credits),
        rate_limits: shown_limits(&key.limits),
        rotated_from: key.rotated_from.map(|id| id.to_string()),
        rotated_to: key.rotated_to.map(|id| id.to_string()),
    }
}
