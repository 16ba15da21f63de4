//! `IdentityService`.

use tonic::{Request, Response, Status};

use crate::domain::limit::Limits;
use crate::domain::value::Metadata;
use crate::pb::v1 as pb;
use crate::service::identities::{CountedIdentity, IdentityDraft, IdentityPatch};
use crate::service::listing::Page;

use super::convert::{count, metadata, moment};
use super::fields::Fields;
use super::limits::shown_limits;
use super::page::page;
use super::root_keys::flat;
use super::{Desk, admitted, answer, run};

#[tonic::async_trait]
impl pb::identity_service_server::IdentityService for Desk {
    async fn create_identity(
        &self,
        request: Request<pb::CreateIdentityRequest>,
    ) -> Result<Response<pb::CreateIdentityResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::CreateIdentityRequest { external_id, metadata, rate_limits, validate_only } = request;
        let mut fields = Fields::default();
        let external_id = fields.external_id("external_id", &external_id);
        let metadata = fields.metadata("metadata", metadata);
        let limits = fields.limits("rate_limits", rate_limits);
        let (external_id, metadata, limits) = fields.finish(external_id.zip(metadata).zip(limits).map(flat))?;
        let draft = IdentityDraft { external_id, metadata, limits };
        let done = self.ostiary.create_identity(&caller, draft, run(validate_only)).await?;
        answer(&caller, done, |meta, identity| pb::CreateIdentityResponse { meta, identity: Some(identity.into()) })
    }

    async fn get_identity(
        &self,
        request: Request<pb::GetIdentityRequest>,
    ) -> Result<Response<pb::GetIdentityResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::GetIdentityRequest { identity, min_revision } = request;
        let mut fields = Fields::default();
        let identity = fields.identity("identity", &identity);
        let min_revision = fields.min_revision(&min_revision);
        let (identity, min_revision) = fields.finish(identity.zip(min_revision))?;
        let done = self.ostiary.identity(&caller, identity, min_revision).await?;
        answer(&caller, done, |meta, identity| pb::GetIdentityResponse { meta, identity: Some(identity.into()) })
    }

    async fn list_identities(
        &self,
        request: Request<pb::ListIdentitiesRequest>,
    ) -> Result<Response<pb::ListIdentitiesResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListIdentitiesRequest { page_size, page_token, filter, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        let page = page(&mut fields, "ListIdentities", &filter, (page_size, page_token));
        let pb::ListIdentitiesFilter { external_id_contains } = filter;
        let part = fields.search("filter.external_id_contains", external_id_contains);
        let min_revision = fields.min_revision(&min_revision);
        let (part, page, min_revision) = fields.finish(part.zip(page).zip(min_revision).map(flat))?;
        let done = self.ostiary.list_identities(&caller, part, page, min_revision).await?;
        answer(&caller, done, |meta, Page { items, next }| pb::ListIdentitiesResponse {
            meta,
            identities: items.into_iter().map(Into::into).collect(),
            next_page_token: next,
        })
    }

    async fn update_identity(
        &self,
        request: Request<pb::UpdateIdentityRequest>,
    ) -> Result<Response<pb::UpdateIdentityResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::UpdateIdentityRequest { identity, metadata, rate_limits, update_mask, etag, validate_only } = request;
        let mut fields = Fields::default();
        let identity = fields.identity("identity", &identity);
        let mask = fields.mask(update_mask, &["metadata", "rate_limits"], &["external_id"]);
        let metadata = fields.patched_or(&mask, "metadata", metadata, Metadata::default(), |fields, data| {
            fields.metadata("metadata", Some(data))
        });
        let rate_limits = (!rate_limits.is_empty()).then_some(rate_limits);
        let limits = fields.patched_or(&mask, "rate_limits", rate_limits, Limits::default(), |fields, limits| {
            fields.limits("rate_limits", limits)
        });
        let patch = metadata.zip(limits).map(|(metadata, limits)| IdentityPatch { metadata, limits });
        let (identity, patch) = fields.finish(identity.zip(patch))?;
        let done = self.ostiary.update_identity(&caller, identity, patch, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, identity| pb::UpdateIdentityResponse { meta, identity: Some(identity.into()) })
    }

    async fn delete_identity(
        &self,
        request: Request<pb::DeleteIdentityRequest>,
    ) -> Result<Response<pb::DeleteIdentityResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::DeleteIdentityRequest { identity, etag, validate_only } = request;
        let mut fields = Fields::default();
        let identity = fields.identity("identity", &identity);
        let identity = fields.finish(identity)?;
        let done = self.ostiary.delete_identity(&caller, identity, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, keys| pb::DeleteIdentityResponse { meta, key_count: keys.map(count) })
    }
}

impl From<CountedIdentity> for pb::Identity {
    fn from(counted: CountedIdentity) -> Self {
        let CountedIdentity { identity, key_count } = counted;
        Self {
            identity_id: identity.id.to_string(),
            external_id: identity.external_id.to_string(),
            metadata: metadata(&identity.metadata),
            rate_limits: shown_limits(&identity.limits),
            key_count: count(key_count),
            create_time: Some(moment(identity.created)),
            update_time: Some(moment(identity.updated)),
            etag: identity.etag.to_string(),
        }
    }
}
