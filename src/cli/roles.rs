//! `ostiary role`: named sets of permissions that keys hold.

use clap::Subcommand;

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::flags::{Mask, Removal, Terms, Trial};
use super::output::Column;
use super::paging::{Page, Wanted};

/// What a list of roles shows.
const COLUMNS: [Column; 6] = [
    ("ID", "role_id"),
    ("NAME", "name"),
    ("KEYS", "key_count"),
    ("PERMISSIONS", "permissions"),
    ("DESCRIPTION", "description"),
    ("CREATED", "create_time"),
];

/// Roles.
pub type Roles = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a role.
    Create {
        /// What it is called, 3 to 255 characters, unique in any case, such as billing-admin.
        #[arg(long)]
        name: String,

        /// What it is for, at most 512 characters.
        #[arg(long, default_value = "", hide_default_value = true)]
        description: String,

        /// A permission that it gives, an id or a slug such as documents.read; made if it is new. May be given more than
        /// once, at most 1000.
        #[arg(long = "permission", value_name = "PERMISSION")]
        permissions: Vec<String>,

        #[command(flatten)]
        trial: Trial,
    },
    /// List roles.
    List {
        #[command(flatten)]
        wanted: Wanted,

        /// Those whose name or description contains this, in upper or lower case.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Show a role.
    Show {
        /// The role's id, `role_…`, or its name.
        role: String,
    },
    /// Change the name or the description of a role.
    Update {
        /// The role's id, `role_…`, or its name.
        role: String,

        /// The new name, 3 to 255 characters.
        #[arg(long)]
        name: Option<String>,

        /// What it is for, at most 512 characters.
        #[arg(long)]
        description: Option<String>,

        #[command(flatten)]
        terms: Terms,
    },
    /// Give a role exactly these permissions; without any, none.
    SetPermissions {
        /// The role's id, `role_…`, or its name.
        role: String,

        /// All that it is to give, each an id or a slug, at most 1000; made if it is new.
        permissions: Vec<String>,

        #[command(flatten)]
        terms: Terms,
    },
    /// Delete a role, at once and for good. The next verification of a key that holds it already sees that.
    Delete {
        /// The role's id, `role_…`, or its name.
        role: String,

        #[command(flatten)]
        removal: Removal,
    },
}

impl Deed for Command {
    fn ask(&self) -> Result<(), Failure> {
        let Self::Delete { role, removal } = self else { return Ok(()) };
        removal.ask(&format!("Delete the role {role}?"))
    }

    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let roles = || acting.client.roles();
        match self {
            Self::Create { name, description, permissions, trial } => {
                let request = pb::CreateRoleRequest { name, description, permissions, validate_only: trial.dry_run };
                acting.change("role", trial, request, async |request| roles().create_role(request).await).await
            }
            Self::List { wanted, search } => list(wanted, search, acting).await,
            Self::Show { role } => {
                let request = pb::GetRoleRequest { role, min_revision: String::new() };
                acting.show("role", request, async |request| roles().get_role(request).await).await
            }
            Self::Update { role, name, description, terms: Terms { etag, trial } } => {
                let mut mask = Mask::default();
                mask.add("name", name.is_some());
                mask.add("description", description.is_some());
                let (update_mask, validate_only) = (mask.named()?, trial.dry_run);
                let request = pb::UpdateRoleRequest { role, name, description, update_mask, etag, validate_only };
                acting.change("role", trial, request, async |request| roles().update_role(request).await).await
            }
            Self::SetPermissions { role, permissions, terms: Terms { etag, trial } } => {
                let validate_only = trial.dry_run;
                let request = pb::SetRolePermissionsRequest { role, permissions, etag, validate_only };
                acting.change("role", trial, request, async |request| roles().set_role_permissions(request).await).await
            }
            Self::Delete { role, removal: Removal { terms, .. } } => delete(role, terms, acting).await,
        }
    }
}

async fn list(wanted: Wanted, search: Option<String>, acting: &Acting<'_>) -> Result<(), Failure> {
    let request = |Page { size, token }| pb::ListRolesRequest {
        page_size: size,
        page_token: token,
        filter: Some(pb::ListRolesFilter { search: search.clone() }),
        min_revision: String::new(),
    };
    let call = async |request| acting.client.roles().list_roles(request).await;
    acting.list(("roles", &COLUMNS), wanted, request, call).await
}

async fn delete(role: String, terms: Terms, acting: &Acting<'_>) -> Result<(), Failure> {
    let Terms { etag, trial } = terms;
    let Acting { client, output } = acting;
    let request = pb::DeleteRoleRequest { role: role.clone(), etag, validate_only: trial.dry_run };
    let answer = client.change(request, async |request| client.roles().delete_role(request).await).await?;
    // What would be lost is told of a dry run only.
    if output.is_json() || trial.dry_run {
        output.whole(&answer)?;
    }
    trial.tell(*output, &format!("deleted the role {role}"));
    Ok(())
}
