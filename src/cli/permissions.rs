//! `ostiary permission`: what keys may do at your services.

use clap::Subcommand;

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::flags::{Mask, Removal, Terms, Trial};
use super::output::Column;
use super::paging::{Page, Wanted};

/// What a list of permissions shows.
const COLUMNS: [Column; 5] = [
    ("ID", "permission_id"),
    ("SLUG", "slug"),
    ("NAME", "name"),
    ("DESCRIPTION", "description"),
    ("CREATED", "create_time"),
];

/// Permissions.
pub type Permissions = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a permission.
    Create {
        /// Its slug, 1 to 128 characters of A-Z, a-z, 0-9 and ._:*/-, such as documents.read; it never changes.
        /// `documents.*` covers everything below documents.
        slug: String,

        /// What it is called, at most 255 characters.
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,

        /// What it is for, at most 512 characters.
        #[arg(long, default_value = "", hide_default_value = true)]
        description: String,

        #[command(flatten)]
        trial: Trial,
    },
    /// List permissions.
    List {
        #[command(flatten)]
        wanted: Wanted,

        /// Those whose slug, name or description contains this, in upper or lower case.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Show a permission.
    Show {
        /// The permission's id, `perm_…`, or its slug.
        permission: String,
    },
    /// Change the name or the description of a permission.
    Update {
        /// The permission's id, `perm_…`, or its slug.
        permission: String,

        /// The new name, at most 255 characters.
        #[arg(long)]
        name: Option<String>,

        /// What it is for, at most 512 characters.
        #[arg(long)]
        description: Option<String>,

        #[command(flatten)]
        terms: Terms,
    },
    /// Delete a permission, at once and for good. Roles and keys that have it lose it.
    Delete {
        /// The permission's id, `perm_…`, or its slug.
        permission: String,

        #[command(flatten)]
        removal: Removal,
    },
}

impl Deed for Command {
    fn ask(&self) -> Result<(), Failure> {
        let Self::Delete { permission, removal } = self else { return Ok(()) };
        removal.ask(&format!("Delete the permission {permission}?"))
    }

    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let permissions = || acting.client.permissions();
        match self {
            Self::Create { slug, name, description, trial } => {
                let request = pb::CreatePermissionRequest { slug, name, description, validate_only: trial.dry_run };
                let call = async |request| permissions().create_permission(request).await;
                acting.change("permission", trial, request, call).await
            }
            Self::List { wanted, search } => list(wanted, search, acting).await,
            Self::Show { permission } => {
                let request = pb::GetPermissionRequest { permission, min_revision: String::new() };
                acting.show("permission", request, async |request| permissions().get_permission(request).await).await
            }
            Self::Update { permission, name, description, terms: Terms { etag, trial } } => {
                let mut mask = Mask::default();
                mask.add("name", name.is_some());
                mask.add("description", description.is_some());
                let (update_mask, validate_only) = (mask.named()?, trial.dry_run);
                let request =
                    pb::UpdatePermissionRequest { permission, name, description, update_mask, etag, validate_only };
                let call = async |request| permissions().update_permission(request).await;
                acting.change("permission", trial, request, call).await
            }
            Self::Delete { permission, removal: Removal { terms: Terms { etag, trial }, .. } } => {
                let done = format!("deleted the permission {permission}");
                let request = pb::DeletePermissionRequest { permission, etag, validate_only: trial.dry_run };
                let call = async |request| permissions().delete_permission(request).await;
                acting.finish(&done, trial, request, call).await
            }
        }
    }
}

async fn list(wanted: Wanted, search: Option<String>, acting: &Acting<'_>) -> Result<(), Failure> {
    let request = |Page { size, token }| pb::ListPermissionsRequest {
        page_size: size,
        page_token: token,
        filter: Some(pb::ListPermissionsFilter { search: search.clone() }),
        min_revision: String::new(),
    };
    let call = async |request| acting.client.permissions().list_permissions(request).await;
    acting.list(("permissions", &COLUMNS), wanted, request, call).await
}
