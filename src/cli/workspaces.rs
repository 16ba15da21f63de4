//! `ostiary workspace`: the tenants of an installation, for its operator.

use clap::{Args, Subcommand};

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::flags::{Mask, Removal, Terms, Trial};
use super::output::Column;
use super::paging::{Page, Wanted};

/// What a list of workspaces shows.
const COLUMNS: [Column; 7] = [
    ("ID", "workspace_id"),
    ("NAME", "name"),
    ("ENABLED", "enabled"),
    ("KEYS AT MOST", "quotas.max_keys"),
    ("ROOT KEYS", "quotas.max_root_keys"),
    ("CALLS A SECOND", "quotas.calls_per_second"),
    ("CREATED", "create_time"),
];

/// Workspaces.
pub type Workspaces = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a workspace. The secret of its first root key, which administers it, is shown this once.
    Create {
        /// What it is called, 1 to 255 characters.
        #[arg(long)]
        name: String,

        #[command(flatten)]
        quotas: Quotas,

        #[command(flatten)]
        trial: Trial,
    },
    /// List workspaces.
    List {
        #[command(flatten)]
        wanted: Wanted,

        /// Those whose name contains this, in upper or lower case.
        #[arg(long, value_name = "TEXT")]
        name_contains: Option<String>,
    },
    /// Show a workspace.
    Show {
        /// The workspace's id, `ws_…`.
        workspace_id: String,
    },
    /// Change a workspace.
    Update(Update),
    /// Delete a workspace with all that is in it, at once and for good.
    Delete {
        /// The workspace's id, `ws_…`.
        workspace_id: String,

        #[command(flatten)]
        removal: Removal,
    },
}

/// How much a workspace may have and do.
#[derive(Debug, Args)]
pub struct Quotas {
    /// How many keys it may have.
    #[arg(long, value_name = "NUMBER")]
    max_keys: Option<i64>,

    /// How many root keys it may have.
    #[arg(long, value_name = "NUMBER")]
    max_root_keys: Option<i64>,

    /// How many calls its root keys may make in any second.
    #[arg(long, value_name = "NUMBER")]
    calls_per_second: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Update {
    /// The workspace's id, `ws_…`.
    workspace_id: String,

    /// The new name, 1 to 255 characters.
    #[arg(long)]
    name: Option<String>,

    /// Whether it can be used. While it can't, none of its root keys and keys is good.
    #[arg(long, value_name = "true|false")]
    enabled: Option<bool>,

    /// The quotas that it is to have; those that are not given it has no longer.
    #[command(flatten)]
    quotas: Quotas,

    /// It may have and do as much as it likes.
    #[arg(long, conflicts_with_all = ["max_keys", "max_root_keys", "calls_per_second"])]
    no_quotas: bool,

    #[command(flatten)]
    terms: Terms,
}

impl Quotas {
    /// Nothing if none is given.
    fn given(self) -> Option<pb::WorkspaceQuotas> {
        let Self { max_keys, max_root_keys, calls_per_second } = self;
        let quotas = pb::WorkspaceQuotas { max_keys, max_root_keys, calls_per_second };
        (quotas != pb::WorkspaceQuotas::default()).then_some(quotas)
    }
}

impl Deed for Command {
    fn ask(&self) -> Result<(), Failure> {
        let Self::Delete { workspace_id, removal } = self else { return Ok(()) };
        removal.ask(&format!("Delete the workspace {workspace_id} with all that is in it?"))
    }

    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let workspaces = || acting.client.workspaces();
        match self {
            Self::Create { name, quotas, trial } => {
                let validate_only = trial.dry_run;
                let request = pb::CreateWorkspaceRequest { name, quotas: quotas.given(), validate_only };
                let call = async |request| workspaces().create_workspace(request).await;
                let answer = acting.answer(trial, request, call).await?;
                acting.output.secret(&answer, "workspace", &answer.secret)
            }
            Self::List { wanted, name_contains } => list(wanted, name_contains, acting).await,
            Self::Show { workspace_id } => {
                let request = pb::GetWorkspaceRequest { workspace_id, min_revision: String::new() };
                acting.show("workspace", request, async |request| workspaces().get_workspace(request).await).await
            }
            Self::Update(update) => {
                let trial = update.terms.trial;
                let call = async |request| workspaces().update_workspace(request).await;
                acting.change("workspace", trial, update.request()?, call).await
            }
            Self::Delete { workspace_id, removal: Removal { terms: Terms { etag, trial }, .. } } => {
                let done = format!("deleted the workspace {workspace_id}");
                let request = pb::DeleteWorkspaceRequest { workspace_id, etag, validate_only: trial.dry_run };
                let call = async |request| workspaces().delete_workspace(request).await;
                acting.finish(&done, trial, request, call).await
            }
        }
    }
}

async fn list(wanted: Wanted, name_contains: Option<String>, acting: &Acting<'_>) -> Result<(), Failure> {
    let request = |Page { size, token }| pb::ListWorkspacesRequest {
        page_size: size,
        page_token: token,
        filter: Some(pb::ListWorkspacesFilter { name_contains: name_contains.clone() }),
        min_revision: String::new(),
    };
    let call = async |request| acting.client.workspaces().list_workspaces(request).await;
    acting.list(("workspaces", &COLUMNS), wanted, request, call).await
}

impl Update {
    fn request(self) -> Result<pb::UpdateWorkspaceRequest, Failure> {
        let Self { workspace_id, name, enabled, quotas, no_quotas, terms: Terms { etag, trial } } = self;
        let quotas = quotas.given();
        let mut mask = Mask::default();
        mask.add("name", name.is_some());
        mask.add("enabled", enabled.is_some());
        mask.add("quotas", no_quotas || quotas.is_some());
        Ok(pb::UpdateWorkspaceRequest {
            workspace_id,
            name,
            enabled,
            quotas,
            update_mask: mask.named()?,
            etag,
            validate_only: trial.dry_run,
        })
    }
}
