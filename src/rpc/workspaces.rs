//! `WorkspaceService`.

use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::id::WorkspaceId;
use crate::domain::name::WORKSPACE_NAME;
use crate::domain::root_key::IssuedRootKey;
use crate::domain::workspace::{QUOTA_MAX, Quota, Quotas, Workspace};
use crate::pb::v1 as pb;
use crate::service::Done;
use crate::service::listing::Page;
use crate::service::workspaces::{FoundedWorkspace, WorkspaceContents, WorkspacePatch};

use super::convert::{count, moment};
use super::fields::Fields;
use super::page::page;
use super::root_keys::{flat, plaintext};
use super::{Desk, admitted, answer, run};

#[tonic::async_trait]
impl pb::workspace_service_server::WorkspaceService for Desk {
    async fn create_workspace(
        &self,
        request: Request<pb::CreateWorkspaceRequest>,
    ) -> Result<Response<pb::CreateWorkspaceResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::CreateWorkspaceRequest { name, validate_only, quotas } = request;
        let mut fields = Fields::default();
        let name = fields.name("name", &name, WORKSPACE_NAME);
        let quotas = to_quotas(&mut fields, quotas.unwrap_or_default());
        let (name, quotas) = fields.finish(name.zip(quotas))?;
        let Done { answer: founded, revision } =
            self.ostiary.create_workspace(&caller, name, quotas, run(validate_only)).await?;
        let FoundedWorkspace { workspace, issued: IssuedRootKey { root_key, secret } } = founded;
        let root_key = self.ostiary.describe_root_key(root_key).await?;
        answer(&caller, Done { answer: (workspace, root_key), revision }, |meta, (workspace, root_key)| {
            pb::CreateWorkspaceResponse {
                meta,
                workspace: Some(workspace.into()),
                root_key: Some(root_key.into()),
                secret: plaintext(secret),
            }
        })
    }

    async fn get_workspace(
        &self,
        request: Request<pb::GetWorkspaceRequest>,
    ) -> Result<Response<pb::GetWorkspaceResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::GetWorkspaceRequest { workspace_id, min_revision } = request;
        let mut fields = Fields::default();
        let id = fields.id("workspace_id", &workspace_id, WorkspaceId::parse);
        let min_revision = fields.min_revision(&min_revision);
        let (id, min_revision) = fields.finish(id.zip(min_revision))?;
        let done = self.ostiary.workspace(&caller, id, min_revision).await?;
        answer(&caller, done, |meta, workspace| pb::GetWorkspaceResponse { meta, workspace: Some(workspace.into()) })
    }

    async fn list_workspaces(
        &self,
        request: Request<pb::ListWorkspacesRequest>,
    ) -> Result<Response<pb::ListWorkspacesResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListWorkspacesRequest { page_size, page_token, filter, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        let page = page(&mut fields, "ListWorkspaces", &filter, (page_size, page_token));
        let pb::ListWorkspacesFilter { name_contains } = filter;
        let name_contains = fields.search("filter.name_contains", name_contains);
        let min_revision = fields.min_revision(&min_revision);
        let (name_contains, page, min_revision) = fields.finish(name_contains.zip(page).zip(min_revision).map(flat))?;
        let done = self.ostiary.list_workspaces(&caller, name_contains, page, min_revision).await?;
        answer(&caller, done, |meta, Page { items, next }| pb::ListWorkspacesResponse {
            meta,
            workspaces: items.into_iter().map(Into::into).collect(),
            next_page_token: next,
        })
    }

    async fn update_workspace(
        &self,
        request: Request<pb::UpdateWorkspaceRequest>,
    ) -> Result<Response<pb::UpdateWorkspaceResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::UpdateWorkspaceRequest { workspace_id, name, enabled, update_mask, etag, validate_only, quotas } =
            request;
        let mut fields = Fields::default();
        let id = fields.id("workspace_id", &workspace_id, WorkspaceId::parse);
        let mask = fields.mask(update_mask, &["name", "enabled", "quotas"], &[]);
        let name = fields.patched(&mask, "name", name, |fields, name| fields.name("name", &name, WORKSPACE_NAME));
        let enabled = fields.patched_or(&mask, "enabled", enabled, false, |_, enabled| Some(enabled));
        let quotas = fields.patched_or(&mask, "quotas", quotas, Quotas::default(), to_quotas);
        let patch = name.zip(enabled).zip(quotas).map(flat);
        let patch = patch.map(|(name, enabled, quotas)| WorkspacePatch { name, enabled, quotas });
        let (id, patch) = fields.finish(id.zip(patch))?;
        let done = self.ostiary.update_workspace(&caller, id, patch, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, workspace| pb::UpdateWorkspaceResponse { meta, workspace: Some(workspace.into()) })
    }

    async fn delete_workspace(
        &self,
        request: Request<pb::DeleteWorkspaceRequest>,
    ) -> Result<Response<pb::DeleteWorkspaceResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::DeleteWorkspaceRequest { workspace_id, etag, validate_only } = request;
        let mut fields = Fields::default();
        let id = fields.id("workspace_id", &workspace_id, WorkspaceId::parse);
        let id = fields.finish(id)?;
        let done = self.ostiary.delete_workspace(&caller, id, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, contents: Option<WorkspaceContents>| pb::DeleteWorkspaceResponse {
            meta,
            affected_key_count: contents.map(|contents| count(contents.keys)),
            affected_root_key_count: contents.map(|contents| count(contents.root_keys)),
        })
    }
}

fn to_quotas(fields: &mut Fields, quotas: pb::WorkspaceQuotas) -> Option<Quotas> {
    let pb::WorkspaceQuotas { max_keys, max_root_keys, calls_per_second } = quotas;
    let mut read = |quota: Quota, least: u64, most: Option<i64>| match most.map(u64::try_from) {
        None => Some(None),
        Some(Ok(most)) if (least..=QUOTA_MAX).contains(&most) => Some(Some(most)),
        Some(_) => {
            let field = format!("quotas.{}", quota.field());
            fields.refuse(field, Flaw::new(format!("must be {least} to {QUOTA_MAX}")));
            None
        }
    };
    let keys = read(Quota::Keys, 0, max_keys);
    let root_keys = read(Quota::RootKeys, 1, max_root_keys);
    let calls_per_second = read(Quota::CallsPerSecond, 1, calls_per_second);
    Some(Quotas { keys: keys?, root_keys: root_keys?, calls_per_second: calls_per_second? })
}

impl From<Workspace> for pb::Workspace {
    fn from(workspace: Workspace) -> Self {
        let Workspace {
            id,
            name,
            purpose: _,
            enabled,
            quotas,
            created,
            updated,
            etag,
            deleted: _,
            cuts: _,
            imported: _,
        } = workspace;
        let Quotas { keys, root_keys, calls_per_second } = quotas;
        let quotas = pb::WorkspaceQuotas {
            max_keys: keys.map(count),
            max_root_keys: root_keys.map(count),
            calls_per_second: calls_per_second.map(count),
        };
        Self {
            workspace_id: id.to_string(),
            name: name.to_string(),
            enabled,
            create_time: Some(moment(created)),
            update_time: Some(moment(updated)),
            etag: etag.to_string(),
            quotas: (quotas != pb::WorkspaceQuotas::default()).then_some(quotas),
        }
    }
}
