//! `RoleService`.

use tonic::{Request, Response, Status};

use crate::domain::name::Description;
use crate::pb::v1 as pb;
use crate::service::listing::Page;
use crate::service::roles::{CountedRole, RoleDraft, RoleLoss, RolePatch};

use super::convert::{count, moment};
use super::fields::Fields;
use super::page::page;
use super::root_keys::flat;
use super::{Desk, admitted, answer, run};

#[tonic::async_trait]
impl pb::role_service_server::RoleService for Desk {
    async fn create_role(
        &self,
        request: Request<pb::CreateRoleRequest>,
    ) -> Result<Response<pb::CreateRoleResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::CreateRoleRequest { name, description, permissions, validate_only } = request;
        let mut fields = Fields::default();
        let name = fields.role_name("name", &name);
        let description = fields.description("description", &description);
        let permissions = fields.permissions("permissions", &permissions);
        let draft = name.zip(description).zip(permissions).map(flat);
        let (name, description, permissions) = fields.finish(draft)?;
        let draft = RoleDraft { name, description, permissions };
        let done = self.ostiary.create_role(&caller, draft, run(validate_only)).await?;
        answer(&caller, done, |meta, role| pb::CreateRoleResponse { meta, role: Some(role.into()) })
    }

    async fn get_role(&self, request: Request<pb::GetRoleRequest>) -> Result<Response<pb::GetRoleResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::GetRoleRequest { role, min_revision } = request;
        let mut fields = Fields::default();
        let role = fields.role("role", &role);
        let min_revision = fields.min_revision(&min_revision);
        let (role, min_revision) = fields.finish(role.zip(min_revision))?;
        let done = self.ostiary.role(&caller, role, min_revision).await?;
        answer(&caller, done, |meta, role| pb::GetRoleResponse { meta, role: Some(role.into()) })
    }

    async fn list_roles(
        &self,
        request: Request<pb::ListRolesRequest>,
    ) -> Result<Response<pb::ListRolesResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListRolesRequest { page_size, page_token, filter, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        let page = page(&mut fields, "ListRoles", &filter, (page_size, page_token));
        let pb::ListRolesFilter { search } = filter;
        let search = fields.search("filter.search", search);
        let min_revision = fields.min_revision(&min_revision);
        let (search, page, min_revision) = fields.finish(search.zip(page).zip(min_revision).map(flat))?;
        let done = self.ostiary.list_roles(&caller, search, page, min_revision).await?;
        answer(&caller, done, |meta, Page { items, next }| pb::ListRolesResponse {
            meta,
            roles: items.into_iter().map(Into::into).collect(),
            next_page_token: next,
        })
    }

    async fn update_role(
        &self,
        request: Request<pb::UpdateRoleRequest>,
    ) -> Result<Response<pb::UpdateRoleResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::UpdateRoleRequest { role, name, description, update_mask, etag, validate_only } = request;
        let mut fields = Fields::default();
        let role = fields.role("role", &role);
        let mask = fields.mask(update_mask, &["name", "description"], &[]);
        let name = fields.patched(&mask, "name", name, |fields, name| fields.role_name("name", &name));
        let description =
            fields.patched_or(&mask, "description", description, Description::default(), |fields, description| {
                fields.description("description", &description)
            });
        let patch = name.zip(description).map(|(name, description)| RolePatch { name, description });
        let (role, patch) = fields.finish(role.zip(patch))?;
        let done = self.ostiary.update_role(&caller, role, patch, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, role| pb::UpdateRoleResponse { meta, role: Some(role.into()) })
    }

    async fn set_role_permissions(
        &self,
        request: Request<pb::SetRolePermissionsRequest>,
    ) -> Result<Response<pb::SetRolePermissionsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::SetRolePermissionsRequest { role, permissions, etag, validate_only } = request;
        let mut fields = Fields::default();
        let role = fields.role("role", &role);
        let permissions = fields.permissions("permissions", &permissions);
        let (role, permissions) = fields.finish(role.zip(permissions))?;
        let done = self.ostiary.set_role_permissions(&caller, role, permissions, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, role| pb::SetRolePermissionsResponse { meta, role: Some(role.into()) })
    }

    async fn delete_role(
        &self,
        request: Request<pb::DeleteRoleRequest>,
    ) -> Result<Response<pb::DeleteRoleResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::DeleteRoleRequest { role, etag, validate_only } = request;
        let mut fields = Fields::default();
        let role = fields.role("role", &role);
        let role = fields.finish(role)?;
        let done = self.ostiary.delete_role(&caller, role, etag, run(validate_only)).await?;
        answer(&caller, done, |meta, loss: Option<RoleLoss>| pb::DeleteRoleResponse {
            meta,
            affected_key_count: loss.as_ref().map(|loss| count(loss.keys)),
            lost_permissions: loss
                .map(|loss| loss.permissions.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
        })
    }
}

impl From<CountedRole> for pb::Role {
    fn from(counted: CountedRole) -> Self {
        let CountedRole { role, permissions, key_count } = counted;
        Self {
            role_id: role.id.to_string(),
            name: role.name.to_string(),
            description: role.description.to_string(),
            permissions: permissions.iter().map(ToString::to_string).collect(),
            key_count: count(key_count),
            create_time: Some(moment(role.created)),
            update_time: Some(moment(role.updated)),
            etag: role.etag.to_string(),
        }
    }
}
