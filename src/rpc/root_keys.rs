//! `RootKeyService`.

use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::id::RootKeyId;
use crate::domain::name::ROOT_KEY_NAME;
use crate::domain::network::AllowList;
use crate::domain::root_key::{IssuedRootKey, State};
use crate::domain::rotation::GRACE_MAX;
use crate::domain::secret::Secret;
use crate::domain::time::Expiry;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::service::Done;
use crate::service::listing::Page;
use crate::service::root_keys::{
    DescribedRootKey, Insistence, Reach, RootKeyDraft, RootKeyFilter, RootKeyPatch, Rotation,
};

use super::convert::{expire_time, moment, networks};
use super::fields::{Fields, list};
use super::page::page;
use super::{Clock, Desk, admitted, answer, clock, run};

/// Root keys that one call may delete.
const BATCH_MAX: usize = 20;

#[tonic::async_trait]
impl pb::root_key_service_server::RootKeyService for Desk {
    async fn create_root_key(
        &self,
        request: Request<pb::CreateRootKeyRequest>,
    ) -> Result<Response<pb::CreateRootKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let run = run(request.validate_only);
        let draft = draft(request, clock(self, &caller))?;
        let Done { answer: issued, revision } = self.ostiary.create_root_key(&caller, draft, run).await?;
        let IssuedRootKey { root_key, secret } = issued;
        let described = self.ostiary.describe_root_key(root_key).await?;
        answer(&caller, Done { answer: (described, secret), revision }, |meta, (root_key, secret)| {
            pb::CreateRootKeyResponse { meta, root_key: Some(root_key.into()), secret: plaintext(secret) }
        })
    }

    async fn get_root_key(
        &self,
        request: Request<pb::GetRootKeyRequest>,
    ) -> Result<Response<pb::GetRootKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::GetRootKeyRequest { root_key_id, view, min_revision } = request;
        let mut fields = Fields::default();
        let id = fields.id("root_key_id", &root_key_id, RootKeyId::parse);
        let detail = detail(&mut fields, view);
        let min_revision = fields.min_revision(&min_revision);
        let (id, detail, min_revision) = fields.finish(id.zip(detail).zip(min_revision).map(flat))?;
        let done = self.ostiary.root_key(&caller, id, min_revision).await?;
        answer(&caller, done, |meta, root_key| pb::GetRootKeyResponse { meta, root_key: Some(shown(root_key, detail)) })
    }

    async fn list_root_keys(
        &self,
        request: Request<pb::ListRootKeysRequest>,
    ) -> Result<Response<pb::ListRootKeysResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListRootKeysRequest { page_size, page_token, filter, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        let page = page(&mut fields, "ListRootKeys", &filter, (page_size, page_token));
        let filter = to_filter(&mut fields, filter);
        let min_revision = fields.min_revision(&min_revision);
        let (filter, page, min_revision) = fields.finish(filter.zip(page).zip(min_revision).map(flat))?;
        let done = self.ostiary.list_root_keys(&caller, filter, page, min_revision).await?;
        answer(&caller, done, |meta, Page { items, next }| pb::ListRootKeysResponse {
            meta,
            root_keys: items.into_iter().map(Into::into).collect(),
            next_page_token: next,
        })
    }

    async fn update_root_key(
        &self,
        request: Request<pb::UpdateRootKeyRequest>,
    ) -> Result<Response<pb::UpdateRootKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let run = run(request.validate_only);
        let insistence = insistence(request.force);
        let etag = request.etag.clone();
        let (id, patch) = patch(request, clock(self, &caller))?;
        let Done { answer: root_key, revision } =
            self.ostiary.update_root_key(&caller, id, patch, etag, insistence, run).await?;
        let described = self.ostiary.describe_root_key(root_key).await?;
        answer(&caller, Done { answer: described, revision }, |meta, root_key| pb::UpdateRootKeyResponse {
            meta,
            root_key: Some(root_key.into()),
        })
    }

    async fn delete_root_key(
        &self,
        request: Request<pb::DeleteRootKeyRequest>,
    ) -> Result<Response<pb::DeleteRootKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::DeleteRootKeyRequest { root_key_id, etag, cascade, force, validate_only } = request;
        let mut fields = Fields::default();
        let id = fields.id("root_key_id", &root_key_id, RootKeyId::parse);
        let id = fields.finish(id)?;
        let reach = if cascade { Reach::Descendants } else { Reach::Alone };
        let done =
            self.ostiary.delete_root_key(&caller, id, etag, reach, insistence(force), run(validate_only)).await?;
        answer(&caller, done, |meta, ids| pb::DeleteRootKeyResponse { meta, deleted_root_key_ids: texts(&ids) })
    }

    async fn batch_delete_root_keys(
        &self,
        request: Request<pb::BatchDeleteRootKeysRequest>,
    ) -> Result<Response<pb::BatchDeleteRootKeysResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::BatchDeleteRootKeysRequest { root_key_ids, force, validate_only } = request;
        let ids = batch(&root_key_ids)?;
        let done = self.ostiary.batch_delete_root_keys(&caller, ids, insistence(force), run(validate_only)).await?;
        answer(&caller, done, |meta, ids| pb::BatchDeleteRootKeysResponse { meta, deleted_root_key_ids: texts(&ids) })
    }

    async fn rotate_root_key(
        &self,
        request: Request<pb::RotateRootKeyRequest>,
    ) -> Result<Response<pb::RotateRootKeyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::RotateRootKeyRequest { root_key_id, grace_period, etag, force, validate_only } = request;
        let mut fields = Fields::default();
        let id = fields.id("root_key_id", &root_key_id, RootKeyId::parse);
        let grace = fields.span("grace_period", grace_period, Duration::ZERO..=GRACE_MAX);
        let (id, grace) = fields.finish(id.zip(grace))?;
        let grace = grace.unwrap_or(Duration::ZERO);
        let done =
            self.ostiary.rotate_root_key(&caller, id, grace, etag, insistence(force), run(validate_only)).await?;
        let Done { answer: Rotation { issued: IssuedRootKey { root_key, secret }, previous }, revision } = done;
        let next = self.ostiary.describe_root_key(root_key).await?;
        let previous = self.ostiary.describe_root_key(previous).await?;
        answer(&caller, Done { answer: (next, previous), revision }, |meta, (next, previous)| {
            pb::RotateRootKeyResponse {
                meta,
                root_key: Some(next.into()),
                secret: plaintext(secret),
                previous: Some(previous.into()),
            }
        })
    }

    async fn who_am_i(&self, request: Request<pb::WhoAmIRequest>) -> Result<Response<pb::WhoAmIResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let mut fields = Fields::default();
        let min_revision = fields.min_revision(&request.min_revision);
        let min_revision = fields.finish(min_revision)?;
        let done = self.ostiary.who_am_i(&caller, min_revision).await?;
        answer(&caller, done, |meta, (root_key, workspace)| pb::WhoAmIResponse {
            meta,
            root_key: Some(root_key.into()),
            workspace: Some(workspace.into()),
        })
    }
}

/// How much of a root key is shown.
#[derive(Clone, Copy)]
enum Detail {
    Basic,
    WithUsage,
}

fn detail(fields: &mut Fields, view: i32) -> Option<Detail> {
    match pb::RootKeyView::try_from(view) {
        Ok(pb::RootKeyView::Unspecified | pb::RootKeyView::Basic) => Some(Detail::Basic),
        Ok(pb::RootKeyView::Full) => Some(Detail::WithUsage),
        Err(_) => {
            fields.refuse("view", Flaw::new("must be a RootKeyView"));
            None
        }
    }
}

fn insistence(force: bool) -> Insistence {
    if force { Insistence::Forced } else { Insistence::No }
}

pub(super) fn plaintext(secret: Option<Secret>) -> String {
    secret.map(|secret| secret.expose().to_owned()).unwrap_or_default()
}

/// As lists go: in ascending order.
fn texts(ids: &[RootKeyId]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.iter().map(ToString::to_string).collect()
}

/// Unpacks nested pairs.
pub(super) fn flat<A, B, C>(((a, b), c): ((A, B), C)) -> (A, B, C) {
    (a, b, c)
}

fn batch(texts: &[String]) -> Result<Vec<RootKeyId>, Error> {
    if !(1..=BATCH_MAX).contains(&texts.len()) {
        return Err(Error::field("root_key_ids", format!("must name 1 to {BATCH_MAX} root keys")));
    }
    let mut fields = Fields::default();
    let ids: Vec<Option<RootKeyId>> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| fields.id(&format!("root_key_ids[{index}]"), text, RootKeyId::parse))
        .collect();
    let mut ids: Vec<RootKeyId> = fields.finish(ids.into_iter().collect())?;
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

fn draft(request: pb::CreateRootKeyRequest, clock: Clock) -> Result<RootKeyDraft, Error> {
    use pb::create_root_key_request::Expiration;
    let pb::CreateRootKeyRequest { name, permissions, expiration, allowed_cidrs, validate_only: _ } = request;
    let mut fields = Fields::default();
    let name = fields.name("name", &name, ROOT_KEY_NAME);
    let grants = fields.grants("permissions", &permissions);
    let expiry = match expiration {
        None => Some(None),
        Some(Expiration::ExpireTime(moment)) => fields.expire_time("expire_time", Some(moment), clock.ahead_of),
        Some(Expiration::Ttl(ttl)) => {
            fields.ttl("ttl", Some(ttl)).map(|ttl| ttl.map(|ttl| Expiry::At(clock.now.after(ttl))))
        }
    };
    let allowed = fields.networks("allowed_cidrs", &allowed_cidrs);
    let draft = || {
        Some(RootKeyDraft { name: name?, grants: grants?, expiry: expiry?.unwrap_or(Expiry::Never), allowed: allowed? })
    };
    fields.finish(draft())
}

fn patch(request: pb::UpdateRootKeyRequest, clock: Clock) -> Result<(RootKeyId, RootKeyPatch), Error> {
    let pb::UpdateRootKeyRequest {
        root_key_id,
        name,
        permissions,
        enabled,
        expire_time,
        allowed_cidrs,
        update_mask,
        etag: _,
        force: _,
        validate_only: _,
    } = request;
    let mut fields = Fields::default();
    let id = fields.id("root_key_id", &root_key_id, RootKeyId::parse);
    let known = ["name", "permissions", "enabled", "expire_time", "allowed_cidrs"];
    let mask = fields.mask(update_mask, &known, &[]);
    let name = fields.patched(&mask, "name", name, |fields, name| fields.name("name", &name, ROOT_KEY_NAME));
    let grants =
        fields.patched(&mask, "permissions", list(permissions), |fields, texts| fields.grants("permissions", &texts));
    let enabled = fields.patched_or(&mask, "enabled", enabled, false, |_, enabled| Some(enabled));
    let expiry = fields.patched_or(&mask, "expire_time", expire_time, Expiry::Never, |fields, moment| {
        fields.expire_time("expire_time", Some(moment), clock.ahead_of).flatten()
    });
    let allowed =
        fields.patched_or(&mask, "allowed_cidrs", list(allowed_cidrs), AllowList::anyone(), |fields, texts| {
            fields.networks("allowed_cidrs", &texts)
        });
    let patch = || {
        Some((
            id?,
            RootKeyPatch { name: name?, grants: grants?, enabled: enabled?, expiry: expiry?, allowed: allowed? },
        ))
    };
    fields.finish(patch())
}

fn to_filter(fields: &mut Fields, filter: pb::ListRootKeysFilter) -> Option<RootKeyFilter> {
    let pb::ListRootKeysFilter {
        name_contains,
        permission_contains,
        state,
        create_after,
        create_before,
        expire_before,
        last_used_before,
    } = filter;
    let name_contains = fields.search("filter.name_contains", name_contains);
    let permission_contains = fields.search("filter.permission_contains", permission_contains);
    let state = match state.map(pb::RootKeyState::try_from) {
        None => Some(None),
        Some(Ok(pb::RootKeyState::Active)) => Some(Some(State::Active)),
        Some(Ok(pb::RootKeyState::RotatedOut)) => Some(Some(State::RotatedOut)),
        Some(Ok(pb::RootKeyState::Disabled)) => Some(Some(State::Disabled)),
        Some(Ok(pb::RootKeyState::Expired)) => Some(Some(State::Expired)),
        Some(Ok(pb::RootKeyState::Unspecified) | Err(_)) => {
            fields.refuse("filter.state", Flaw::new("must be a RootKeyState other than UNSPECIFIED"));
            None
        }
    };
    let create_after = fields.moment("filter.create_after", create_after);
    let create_before = fields.moment("filter.create_before", create_before);
    let expire_before = fields.moment("filter.expire_before", expire_before);
    let last_used_before = fields.moment("filter.last_used_before", last_used_before);
    Some(RootKeyFilter {
        name_contains: name_contains?,
        permission_contains: permission_contains?,
        state: state?,
        create_after: create_after?,
        create_before: create_before?,
        expire_before: expire_before?,
        last_used_before: last_used_before?,
    })
}

fn shown(described: DescribedRootKey, detail: Detail) -> pb::RootKey {
    let usage = described.usage.clone();
    let root_key: pb::RootKey = described.into();
    match detail {
        Detail::Basic => root_key,
        Detail::WithUsage => pb::RootKey {
            permission_usage: usage
                .used
                .into_iter()
                .map(|used| pb::PermissionUsage {
                    permission: used.grant.to_string(),
                    use_count: super::convert::count(used.count),
                    last_used_time: Some(moment(used.last)),
                })
                .collect(),
            unused_permissions: usage.unused.iter().map(ToString::to_string).collect(),
            ..root_key
        },
    }
}

impl From<DescribedRootKey> for pb::RootKey {
    fn from(described: DescribedRootKey) -> Self {
        let DescribedRootKey { root_key, state, usage } = described;
        let text = |id: Option<RootKeyId>| id.map(|id| id.to_string());
        Self {
            root_key_id: root_key.id.to_string(),
            workspace_id: root_key.workspace.to_string(),
            name: root_key.name.to_string(),
            permissions: root_key.grants.iter().map(ToString::to_string).collect(),
            start: root_key.start,
            enabled: root_key.enabled,
            state: match state {
                State::Active => pb::RootKeyState::Active,
                State::RotatedOut => pb::RootKeyState::RotatedOut,
                State::Disabled => pb::RootKeyState::Disabled,
                State::Expired => pb::RootKeyState::Expired,
            }
            .into(),
            create_time: Some(moment(root_key.created)),
            update_time: Some(moment(root_key.updated)),
            expire_time: expire_time(root_key.expiry),
            last_used_time: usage.last.map(moment),
            rotated_from: text(root_key.rotated_from),
            rotated_to: text(root_key.rotated_to),
            created_by: text(root_key.created_by),
            allowed_cidrs: networks(&root_key.allowed),
            permission_usage: Vec::new(),
            unused_permissions: Vec::new(),
            etag: root_key.etag.to_string(),
        }
    }
}
