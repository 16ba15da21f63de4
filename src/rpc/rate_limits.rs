//! `RateLimitService`.

use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::namespace::Override;
use crate::pb::v1 as pb;
use crate::service::limiting::{Charge, Charged};
use crate::service::listing::Page;
use crate::service::namespaces::CountedNamespace;
use crate::service::windows::Standing;

use super::convert::{count, moment, span};
use super::fields::Fields;
use super::page::page;
use super::root_keys::flat;
use super::{Desk, admitted, answer, run};

/// Entries that one call can charge.
pub const ITEMS_MAX: usize = 100;

#[tonic::async_trait]
impl pb::rate_limit_service_server::RateLimitService for Desk {
    async fn limit(&self, request: Request<pb::LimitRequest>) -> Result<Response<pb::LimitResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::LimitRequest { namespace, identifier, limit, duration, cost } = request;
        let item = pb::BatchLimitItem { namespace, identifier, limit, duration, cost };
        let mut fields = Fields::default();
        let charge = fields.charge(String::new(), item);
        let charge = fields.finish(charge)?;
        let done = self.ostiary.limit(&caller, vec![charge]).await?;
        answer(&caller, done, |meta, charged| {
            // One charge, one answer.
            let result = charged.into_iter().next().map(pb::BatchLimitResult::from).unwrap_or_default();
            let pb::BatchLimitResult { success, limit, remaining, reset_time, retry_after, override_id } = result;
            pb::LimitResponse { meta, success, limit, remaining, reset_time, retry_after, override_id }
        })
    }

    async fn batch_limit(
        &self,
        request: Request<pb::BatchLimitRequest>,
    ) -> Result<Response<pb::BatchLimitResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::BatchLimitRequest { items } = request;
        let mut fields = Fields::default();
        let charges = fields.charges("items", items);
        let charges = fields.finish(charges)?;
        let done = self.ostiary.limit(&caller, charges).await?;
        answer(&caller, done, |meta, charged| pb::BatchLimitResponse {
            meta,
            success: charged.iter().all(|charged| !charged.standing.exceeded),
            results: charged.into_iter().map(Into::into).collect(),
        })
    }

    async fn reset_identifier(
        &self,
        request: Request<pb::ResetIdentifierRequest>,
    ) -> Result<Response<pb::ResetIdentifierResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ResetIdentifierRequest { namespace, identifier, validate_only } = request;
        let mut fields = Fields::default();
        let namespace = fields.namespace("namespace", &namespace);
        let identifier = fields.identifier("identifier", &identifier);
        let (namespace, identifier) = fields.finish(namespace.zip(identifier))?;
        let done = self.ostiary.reset_identifier(&caller, namespace, identifier, run(validate_only)).await?;
        answer(&caller, done, |meta, ()| pb::ResetIdentifierResponse { meta })
    }

    async fn create_namespace(
        &self,
        request: Request<pb::CreateNamespaceRequest>,
    ) -> Result<Response<pb::CreateNamespaceResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::CreateNamespaceRequest { name, validate_only } = request;
        let mut fields = Fields::default();
        let name = fields.namespace_name("name", &name);
        let name = fields.finish(name)?;
        let done = self.ostiary.create_namespace(&caller, name, run(validate_only)).await?;
        answer(&caller, done, |meta, made| pb::CreateNamespaceResponse { meta, namespace: Some(made.into()) })
    }

    async fn get_namespace(
        &self,
        request: Request<pb::GetNamespaceRequest>,
    ) -> Result<Response<pb::GetNamespaceResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::GetNamespaceRequest { namespace, min_revision } = request;
        let mut fields = Fields::default();
        let namespace = fields.namespace("namespace", &namespace);
        let min_revision = fields.min_revision(&min_revision);
        let (namespace, min_revision) = fields.finish(namespace.zip(min_revision))?;
        let done = self.ostiary.namespace(&caller, namespace, min_revision).await?;
        answer(&caller, done, |meta, found| pb::GetNamespaceResponse { meta, namespace: Some(found.into()) })
    }

    async fn list_namespaces(
        &self,
        request: Request<pb::ListNamespacesRequest>,
    ) -> Result<Response<pb::ListNamespacesResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListNamespacesRequest { page_size, page_token, filter, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        let page = page(&mut fields, "ListNamespaces", &filter, (page_size, page_token));
        let pb::ListNamespacesFilter { name_contains } = filter;
        let part = fields.search("filter.name_contains", name_contains);
        let min_revision = fields.min_revision(&min_revision);
        let (part, page, min_revision) = fields.finish(part.zip(page).zip(min_revision).map(flat))?;
        let done = self.ostiary.list_namespaces(&caller, part, page, min_revision).await?;
        answer(&caller, done, |meta, Page { items, next }| pb::ListNamespacesResponse {
            meta,
            namespaces: items.into_iter().map(Into::into).collect(),
            next_page_token: next,
        })
    }

    async fn update_namespace(
        &self,
        request: Request<pb::UpdateNamespaceRequest>,
    ) -> Result<Response<pb::UpdateNamespaceResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::UpdateNamespaceRequest { namespace, name, update_mask, etag, validate_only } = request;
        let mut fields = Fields::default();
        let namespace = fields.namespace("namespace", &namespace);
        let mask = fields.mask(update_mask, &["name"], &[]);
        let name = fields.patched(&mask, "name", name, |fields, name| fields.namespace_name("name", &name));
        let (namespace, name) = fields.finish(namespace.zip(name))?;
        let done = self.ostiary.update_namespace(&caller, namespace, name, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, changed| pb::UpdateNamespaceResponse { meta, namespace: Some(changed.into()) })
    }

    async fn delete_namespace(
        &self,
        request: Request<pb::DeleteNamespaceRequest>,
    ) -> Result<Response<pb::DeleteNamespaceResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::DeleteNamespaceRequest { namespace, etag, validate_only } = request;
        let mut fields = Fields::default();
        let namespace = fields.namespace("namespace", &namespace);
        let namespace = fields.finish(namespace)?;
        let done = self.ostiary.delete_namespace(&caller, namespace, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, lost| pb::DeleteNamespaceResponse { meta, override_count: lost.map(count) })
    }

    async fn set_override(
        &self,
        request: Request<pb::SetOverrideRequest>,
    ) -> Result<Response<pb::SetOverrideResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::SetOverrideRequest { namespace, identifier, limit, duration, etag, validate_only } = request;
        let mut fields = Fields::default();
        let namespace = fields.namespace("namespace", &namespace);
        let pattern = fields.pattern("identifier", &identifier);
        let rate = fields.rate_or_block("", limit, duration);
        let (namespace, wanted) = fields.finish(namespace.zip(pattern.zip(rate)))?;
        let done = self.ostiary.set_override(&caller, namespace, wanted, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, set| pb::SetOverrideResponse { meta, r#override: Some(set.into()) })
    }

    async fn get_override(
        &self,
        request: Request<pb::GetOverrideRequest>,
    ) -> Result<Response<pb::GetOverrideResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::GetOverrideRequest { namespace, identifier, min_revision } = request;
        let mut fields = Fields::default();
        let namespace = fields.namespace("namespace", &namespace);
        let pattern = fields.pattern("identifier", &identifier);
        let min_revision = fields.min_revision(&min_revision);
        let (namespace, pattern, min_revision) = fields.finish(namespace.zip(pattern).zip(min_revision).map(flat))?;
        let done = self.ostiary.exception(&caller, namespace, pattern, min_revision).await?;
        answer(&caller, done, |meta, found| pb::GetOverrideResponse { meta, r#override: Some(found.into()) })
    }

    async fn list_overrides(
        &self,
        request: Request<pb::ListOverridesRequest>,
    ) -> Result<Response<pb::ListOverridesResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListOverridesRequest { namespace, page_size, page_token, filter, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        let page = page(&mut fields, "ListOverrides", &filter, (page_size, page_token));
        let namespace = fields.namespace("namespace", &namespace);
        let pb::ListOverridesFilter { identifier_contains } = filter;
        let part = fields.search("filter.identifier_contains", identifier_contains);
        let min_revision = fields.min_revision(&min_revision);
        let (namespace, (part, page, min_revision)) =
            fields.finish(namespace.zip(part.zip(page).zip(min_revision).map(flat)))?;
        let done = self.ostiary.list_overrides(&caller, namespace, part, page, min_revision).await?;
        answer(&caller, done, |meta, Page { items, next }| pb::ListOverridesResponse {
            meta,
            overrides: items.into_iter().map(Into::into).collect(),
            next_page_token: next,
        })
    }

    async fn delete_override(
        &self,
        request: Request<pb::DeleteOverrideRequest>,
    ) -> Result<Response<pb::DeleteOverrideResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::DeleteOverrideRequest { namespace, identifier, etag, validate_only } = request;
        let mut fields = Fields::default();
        let namespace = fields.namespace("namespace", &namespace);
        let pattern = fields.pattern("identifier", &identifier);
        let (namespace, pattern) = fields.finish(namespace.zip(pattern))?;
        let done = self.ostiary.delete_override(&caller, namespace, pattern, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, ()| pb::DeleteOverrideResponse { meta })
    }
}

impl Fields {
    /// What is charged, with the way to its fields.
    fn charge(&mut self, path: String, item: pb::BatchLimitItem) -> Option<Charge> {
        let pb::BatchLimitItem { namespace, identifier, limit, duration, cost } = item;
        let namespace = self.namespace(&format!("{path}namespace"), &namespace);
        let identifier = self.identifier(&format!("{path}identifier"), &identifier);
        let rate = self.rate(&path, limit, duration, 1);
        let cost = self.cost(&format!("{path}cost"), cost);
        Some(Charge { namespace: namespace?, identifier: identifier?, rate: rate?, cost: cost?, path })
    }

    fn charges(&mut self, field: &str, items: Vec<pb::BatchLimitItem>) -> Option<Vec<Charge>> {
        if !(1..=ITEMS_MAX).contains(&items.len()) {
            self.refuse(field, Flaw::new(format!("must have 1 to {ITEMS_MAX} entries")));
            return None;
        }
        let read: Vec<Option<Charge>> = items
            .into_iter()
            .enumerate()
            .map(|(index, item)| self.charge(format!("{field}[{index}]."), item))
            .collect();
        read.into_iter().collect()
    }
}

impl From<Charged> for pb::BatchLimitResult {
    fn from(charged: Charged) -> Self {
        let Charged { standing: Standing { exceeded, limit, left, reset, retry_after }, exception } = charged;
        Self {
            success: !exceeded,
            limit: count(limit),
            remaining: count(left),
            reset_time: reset.map(moment),
            retry_after: retry_after.map(span),
            override_id: exception.map(|id| id.to_string()),
        }
    }
}

impl From<CountedNamespace> for pb::Namespace {
    fn from(counted: CountedNamespace) -> Self {
        let CountedNamespace { namespace, override_count } = counted;
        Self {
            namespace_id: namespace.id.to_string(),
            name: namespace.name.to_string(),
            override_count: count(override_count),
            create_time: Some(moment(namespace.created)),
            update_time: Some(moment(namespace.updated)),
            etag: namespace.etag.to_string(),
        }
    }
}

impl From<Override> for pb::Override {
    fn from(exception: Override) -> Self {
        let Override { id, workspace: _, namespace, pattern, rate, created, updated, etag } = exception;
        Self {
            override_id: id.to_string(),
            namespace_id: namespace.to_string(),
            identifier: pattern.text().to_string(),
            limit: count(rate.limit()),
            duration: Some(span(rate.span())),
            create_time: Some(moment(created)),
            update_time: Some(moment(updated)),
            etag: etag.to_string(),
        }
    }
}
