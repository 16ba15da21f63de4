//! `PermissionService`.

use tonic::{Request, Response, Status};

use crate::domain::name::{Description, Name, PERMISSION_NAME};
use crate::domain::permission::Permission;
use crate::pb::v1 as pb;
use crate::service::listing::Page;
use crate::service::permissions::{PermissionDraft, PermissionHolders, PermissionPatch};

use super::convert::{count, moment};
use super::fields::Fields;
use super::page::page;
use super::root_keys::flat;
use super::{Desk, admitted, answer, run};

#[tonic::async_trait]
impl pb::permission_service_server::PermissionService for Desk {
    async fn create_permission(
        &self,
        request: Request<pb::CreatePermissionRequest>,
    ) -> Result<Response<pb::CreatePermissionResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::CreatePermissionRequest { slug, name, description, validate_only } = request;
        let mut fields = Fields::default();
        let slug = fields.new_slug("slug", &slug);
        let name = fields.name("name", &name, PERMISSION_NAME);
        let description = fields.description("description", &description);
        let (slug, name, description) = fields.finish(slug.zip(name).zip(description).map(flat))?;
        let draft = PermissionDraft { slug, name, description };
        let done = self.ostiary.create_permission(&caller, draft, run(validate_only)).await?;
        answer(&caller, done, |meta, permission| pb::CreatePermissionResponse {
            meta,
            permission: Some(permission.into()),
        })
    }

    async fn get_permission(
        &self,
        request: Request<pb::GetPermissionRequest>,
    ) -> Result<Response<pb::GetPermissionResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::GetPermissionRequest { permission, min_revision } = request;
        let mut fields = Fields::default();
        let permission = fields.permission("permission", &permission);
        let min_revision = fields.min_revision(&min_revision);
        let (permission, min_revision) = fields.finish(permission.zip(min_revision))?;
        let done = self.ostiary.permission(&caller, permission, min_revision).await?;
        answer(&caller, done, |meta, permission| pb::GetPermissionResponse {
            meta,
            permission: Some(permission.into()),
        })
    }

    async fn list_permissions(
        &self,
        request: Request<pb::ListPermissionsRequest>,
    ) -> Result<Response<pb::ListPermissionsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListPermissionsRequest { page_size, page_token, filter, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        let page = page(&mut fields, "ListPermissions", &filter, (page_size, page_token));
        let pb::ListPermissionsFilter { search } = filter;
        let search = fields.search("filter.search", search);
        let min_revision = fields.min_revision(&min_revision);
        let (search, page, min_revision) = fields.finish(search.zip(page).zip(min_revision).map(flat))?;
        let done = self.ostiary.list_permissions(&caller, search, page, min_revision).await?;
        answer(&caller, done, |meta, Page { items, next }| pb::ListPermissionsResponse {
            meta,
            permissions: items.into_iter().map(Into::into).collect(),
            next_page_token: next,
        })
    }

    async fn update_permission(
        &self,
        request: Request<pb::UpdatePermissionRequest>,
    ) -> Result<Response<pb::UpdatePermissionResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::UpdatePermissionRequest { permission, name, description, update_mask, etag, validate_only } = request;
        let mut fields = Fields::default();
        let permission = fields.permission("permission", &permission);
        let mask = fields.mask(update_mask, &["name", "description"], &["slug"]);
        let name = fields.patched_or(&mask, "name", name, Name::default(), |fields, name| {
            fields.name("name", &name, PERMISSION_NAME)
        });
        let description =
            fields.patched_or(&mask, "description", description, Description::default(), |fields, description| {
                fields.description("description", &description)
            });
        let patch = name.zip(description).map(|(name, description)| PermissionPatch { name, description });
        let (permission, patch) = fields.finish(permission.zip(patch))?;
        let done = self.ostiary.update_permission(&caller, permission, patch, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, permission| pb::UpdatePermissionResponse {
            meta,
            permission: Some(permission.into()),
        })
    }

    async fn delete_permission(
        &self,
        request: Request<pb::DeletePermissionRequest>,
    ) -> Result<Response<pb::DeletePermissionResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::DeletePermissionRequest { permission, etag, validate_only } = request;
        let mut fields = Fields::default();
        let permission = fields.permission("permission", &permission);
        let permission = fields.finish(permission)?;
        let done = self.ostiary.delete_permission(&caller, permission, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, holders: Option<PermissionHolders>| pb::DeletePermissionResponse {
            meta,
            affected_key_count: holders.map(|holders| count(holders.keys)),
            affected_role_count: holders.map(|holders| count(holders.roles)),
        })
    }
}

impl From<Permission> for pb::Permission {
    fn from(permission: Permission) -> Self {
        let Permission { id, workspace: _, slug, name, description, created, updated, etag, deleted: _ } = permission;
        Self {
            permission_id: id.to_string(),
            slug: slug.to_string(),
            name: name.to_string(),
            description: description.to_string(),
            create_time: Some(moment(created)),
            update_time: Some(moment(updated)),
            etag: etag.to_string(),
        }
    }
}
