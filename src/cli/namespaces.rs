//! `ostiary namespace`: where you count what you name yourself.

use clap::Subcommand;

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::flags::{Mask, Removal, Terms, Trial};
use super::output::Column;
use super::paging::{Page, Wanted};

/// What a list of namespaces shows.
const COLUMNS: [Column; 4] =
    [("ID", "namespace_id"), ("NAME", "name"), ("OVERRIDES", "override_count"), ("CREATED", "create_time")];

/// Namespaces.
pub type Namespaces = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a namespace.
    Create {
        /// What it is called, 1 to 255 characters, unique in any case, such as sign-in.
        name: String,

        #[command(flatten)]
        trial: Trial,
    },
    /// List namespaces.
    List {
        #[command(flatten)]
        wanted: Wanted,

        /// Those whose name contains this, in upper or lower case.
        #[arg(long, value_name = "TEXT")]
        name_contains: Option<String>,
    },
    /// Show a namespace.
    Show {
        /// The namespace's id, `rlns_…`, or its name.
        namespace: String,
    },
    /// Change the name of a namespace.
    Update {
        /// The namespace's id, `rlns_…`, or its name.
        namespace: String,

        /// The new name, 1 to 255 characters.
        #[arg(long)]
        name: Option<String>,

        #[command(flatten)]
        terms: Terms,
    },
    /// Forget what was counted for an identifier, so that it may begin anew.
    Reset {
        /// The namespace's id, `rlns_…`, or its name.
        namespace: String,

        /// Whose counts to forget. Taken literally, never as a pattern.
        identifier: String,

        #[command(flatten)]
        trial: Trial,
    },
    /// Delete a namespace with its overrides and all that was counted, at once and for good.
    Delete {
        /// The namespace's id, `rlns_…`, or its name.
        namespace: String,

        #[command(flatten)]
        removal: Removal,
    },
}

impl Deed for Command {
    fn ask(&self) -> Result<(), Failure> {
        let Self::Delete { namespace, removal } = self else { return Ok(()) };
        removal.ask(&format!("Delete the namespace {namespace}?"))
    }

    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let limits = || acting.client.rate_limits();
        match self {
            Self::Create { name, trial } => {
                let request = pb::CreateNamespaceRequest { name, validate_only: trial.dry_run };
                let call = async |request| limits().create_namespace(request).await;
                acting.change("namespace", trial, request, call).await
            }
            Self::List { wanted, name_contains } => list(wanted, name_contains, acting).await,
            Self::Show { namespace } => {
                let request = pb::GetNamespaceRequest { namespace, min_revision: String::new() };
                acting.show("namespace", request, async |request| limits().get_namespace(request).await).await
            }
            Self::Update { namespace, name, terms: Terms { etag, trial } } => {
                let mut mask = Mask::default();
                mask.add("name", name.is_some());
                let (update_mask, validate_only) = (mask.named()?, trial.dry_run);
                let request = pb::UpdateNamespaceRequest { namespace, name, update_mask, etag, validate_only };
                let call = async |request| limits().update_namespace(request).await;
                acting.change("namespace", trial, request, call).await
            }
            Self::Reset { namespace, identifier, trial } => {
                let done = format!("forgot what was counted for {identifier}");
                let request = pb::ResetIdentifierRequest { namespace, identifier, validate_only: trial.dry_run };
                let call = async |request| limits().reset_identifier(request).await;
                acting.finish(&done, trial, request, call).await
            }
            Self::Delete { namespace, removal: Removal { terms: Terms { etag, trial }, .. } } => {
                let done = format!("deleted the namespace {namespace}");
                let request = pb::DeleteNamespaceRequest { namespace, etag, validate_only: trial.dry_run };
                let call = async |request| limits().delete_namespace(request).await;
                acting.finish(&done, trial, request, call).await
            }
        }
    }
}

async fn list(wanted: Wanted, name_contains: Option<String>, acting: &Acting<'_>) -> Result<(), Failure> {
    let request = |Page { size, token }| pb::ListNamespacesRequest {
        page_size: size,
        page_token: token,
        filter: Some(pb::ListNamespacesFilter { name_contains: name_contains.clone() }),
        min_revision: String::new(),
    };
    let call = async |request| acting.client.rate_limits().list_namespaces(request).await;
    acting.list(("namespaces", &COLUMNS), wanted, request, call).await
}
