//! `ApiService`.

use tonic::{Request, Response, Status};

use crate::domain::id::ApiId;
use crate::domain::name::API_NAME;
use crate::domain::network::AllowList;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::service::apis::{ApiDraft, ApiPatch, CountedApi};
use crate::service::listing::Page;

use super::convert::{count, moment, networks, span};
use super::fields::{Fields, list};
use super::page::page;
use super::root_keys::flat;
use super::{Desk, admitted, answer, run};

#[tonic::async_trait]
impl pb::api_service_server::ApiService for Desk {
    async fn create_api(
        &self,
        request: Request<pb::CreateApiRequest>,
    ) -> Result<Response<pb::CreateApiResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let run = run(request.validate_only);
        let done = self.ostiary.create_api(&caller, draft(request)?, run).await?;
        answer(&caller, done, |meta, api| pb::CreateApiResponse { meta, api: Some(api.into()) })
    }

    async fn get_api(&self, request: Request<pb::GetApiRequest>) -> Result<Response<pb::GetApiResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::GetApiRequest { api_id, min_revision } = request;
        let mut fields = Fields::default();
        let id = fields.id("api_id", &api_id, ApiId::parse);
        let min_revision = fields.min_revision(&min_revision);
        let (id, min_revision) = fields.finish(id.zip(min_revision))?;
        let done = self.ostiary.api(&caller, id, min_revision).await?;
        answer(&caller, done, |meta, api| pb::GetApiResponse { meta, api: Some(api.into()) })
    }

    async fn list_apis(&self, request: Request<pb::ListApisRequest>) -> Result<Response<pb::ListApisResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListApisRequest { page_size, page_token, filter, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        let page = page(&mut fields, "ListApis", &filter, (page_size, page_token));
        let pb::ListApisFilter { name_contains } = filter;
        let name_contains = fields.search("filter.name_contains", name_contains);
        let min_revision = fields.min_revision(&min_revision);
        let (name_contains, page, min_revision) = fields.finish(name_contains.zip(page).zip(min_revision).map(flat))?;
        let done = self.ostiary.list_apis(&caller, name_contains, page, min_revision).await?;
        answer(&caller, done, |meta, Page { items, next }| pb::ListApisResponse {
            meta,
            apis: items.into_iter().map(Into::into).collect(),
            next_page_token: next,
        })
    }

    async fn update_api(
        &self,
        request: Request<pb::UpdateApiRequest>,
    ) -> Result<Response<pb::UpdateApiResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let run = run(request.validate_only);
        let etag = request.etag.clone();
        let (id, patch) = patch(request)?;
        let done = self.ostiary.update_api(&caller, id, patch, etag, run).await?;
        answer(&caller, done, |meta, api| pb::UpdateApiResponse { meta, api: Some(api.into()) })
    }

    async fn delete_api(
        &self,
        request: Request<pb::DeleteApiRequest>,
    ) -> Result<Response<pb::DeleteApiResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::DeleteApiRequest { api_id, etag, validate_only } = request;
        let mut fields = Fields::default();
        let id = fields.id("api_id", &api_id, ApiId::parse);
        let id = fields.finish(id)?;
        let done = self.ostiary.delete_api(&caller, id, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, keys| pb::DeleteApiResponse { meta, affected_key_count: keys.map(count) })
    }
}

fn draft(request: pb::CreateApiRequest) -> Result<ApiDraft, Error> {
    let pb::CreateApiRequest { name, default_prefix, default_ttl, delete_protection, allowed_cidrs, validate_only: _ } =
        request;
    let mut fields = Fields::default();
    let name = fields.name("name", &name, API_NAME);
    let default_prefix = fields.prefix("default_prefix", default_prefix.as_deref());
    let default_ttl = fields.ttl("default_ttl", default_ttl);
    let allowed = fields.networks("allowed_cidrs", &allowed_cidrs);
    let draft = || {
        Some(ApiDraft {
            name: name?,
            default_prefix: default_prefix?,
            default_ttl: default_ttl?,
            delete_protection,
            allowed: allowed?,
        })
    };
    fields.finish(draft())
}

fn patch(request: pb::UpdateApiRequest) -> Result<(ApiId, ApiPatch), Error> {
    let pb::UpdateApiRequest {
        api_id,
        name,
        default_prefix,
        default_ttl,
        delete_protection,
        allowed_cidrs,
        update_mask,
        etag: _,
        validate_only: _,
    } = request;
    let mut fields = Fields::default();
    let id = fields.id("api_id", &api_id, ApiId::parse);
    let known = ["name", "default_prefix", "default_ttl", "delete_protection", "allowed_cidrs"];
    let mask = fields.mask(update_mask, &known, &[]);
    let name = fields.patched(&mask, "name", name, |fields, name| fields.name("name", &name, API_NAME));
    let default_prefix = fields.patched_or(&mask, "default_prefix", default_prefix, None, |fields, prefix| {
        fields.prefix("default_prefix", Some(&prefix))
    });
    let default_ttl =
        fields.patched_or(&mask, "default_ttl", default_ttl, None, |fields, ttl| fields.ttl("default_ttl", Some(ttl)));
    let delete_protection =
        fields.patched_or(&mask, "delete_protection", delete_protection, false, |_, protected| Some(protected));
    let allowed =
        fields.patched_or(&mask, "allowed_cidrs", list(allowed_cidrs), AllowList::anyone(), |fields, texts| {
            fields.networks("allowed_cidrs", &texts)
        });
    let patch = || {
        Some((
            id?,
            ApiPatch {
                name: name?,
                default_prefix: default_prefix?,
                default_ttl: default_ttl?,
                delete_protection: delete_protection?,
                allowed: allowed?,
            },
        ))
    };
    fields.finish(patch())
}

impl From<CountedApi> for pb::Api {
    fn from(counted: CountedApi) -> Self {
        let CountedApi { api, key_count } = counted;
        Self {
            api_id: api.id.to_string(),
            name: api.name.to_string(),
            default_prefix: api.default_prefix.map(|prefix| prefix.to_string()),
            default_ttl: api.default_ttl.map(span),
            delete_protection: api.delete_protection,
            allowed_cidrs: networks(&api.allowed),
            key_count: count(key_count),
            create_time: Some(moment(api.created)),
            update_time: Some(moment(api.updated)),
            etag: api.etag.to_string(),
        }
    }
}
