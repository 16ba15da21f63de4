//! `ostiary override`: other limits for some of those who are counted in a namespace.

use clap::{Args, Subcommand};

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::flags::{self, Removal, Terms};
use super::output::Column;
use super::paging::{Page, Wanted};

/// What a list of overrides shows.
const COLUMNS: [Column; 5] = [
    ("ID", "override_id"),
    ("IDENTIFIER", "identifier"),
    ("LIMIT", "limit"),
    ("DURATION", "duration"),
    ("CREATED", "create_time"),
];

/// Overrides.
pub type Overrides = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an override, or replace it.
    Set {
        #[command(flatten)]
        whom: Whom,

        /// How much may be consumed in each duration; 0 blocks everything.
        #[arg(long, value_name = "NUMBER")]
        limit: i64,

        /// How long the window is, 1s to 31d.
        #[arg(long, value_name = "DURATION", value_parser = flags::span)]
        duration: prost_types::Duration,

        #[command(flatten)]
        terms: Terms,
    },
    /// List the overrides of a namespace.
    List {
        /// The namespace's id, `rlns_…`, or its name.
        namespace: String,

        #[command(flatten)]
        wanted: Wanted,

        /// Those whose identifier contains this, in upper or lower case.
        #[arg(long, value_name = "TEXT")]
        identifier_contains: Option<String>,
    },
    /// Show an override.
    Show {
        #[command(flatten)]
        whom: Whom,
    },
    /// Delete an override, at once and for good.
    Delete {
        #[command(flatten)]
        whom: Whom,

        #[command(flatten)]
        removal: Removal,
    },
}

/// Where it is, and for whom.
#[derive(Debug, Args)]
pub struct Whom {
    /// The namespace's id, `rlns_…`, or its name.
    namespace: String,

    /// Whom it is for, as it was set: an identifier, or a pattern such as 'premium:*'.
    identifier: String,
}

impl Deed for Command {
    fn ask(&self) -> Result<(), Failure> {
        let Self::Delete { whom, removal } = self else { return Ok(()) };
        removal.ask(&format!("Delete the override for {}?", whom.identifier))
    }

    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let limits = || acting.client.rate_limits();
        match self {
            Self::Set { whom: Whom { namespace, identifier }, limit, duration, terms: Terms { etag, trial } } => {
                let (limit, duration, validate_only) = (Some(limit), Some(duration), trial.dry_run);
                let request = pb::SetOverrideRequest { namespace, identifier, limit, duration, etag, validate_only };
                acting.change("override", trial, request, async |request| limits().set_override(request).await).await
            }
            Self::List { namespace, wanted, identifier_contains } => {
                list(namespace, wanted, identifier_contains, acting).await
            }
            Self::Show { whom: Whom { namespace, identifier } } => {
                let request = pb::GetOverrideRequest { namespace, identifier, min_revision: String::new() };
                acting.show("override", request, async |request| limits().get_override(request).await).await
            }
            Self::Delete { whom, removal: Removal { terms: Terms { etag, trial }, .. } } => {
                let Whom { namespace, identifier } = whom;
                let done = format!("deleted the override for {identifier}");
                let request = pb::DeleteOverrideRequest { namespace, identifier, etag, validate_only: trial.dry_run };
                let call = async |request| limits().delete_override(request).await;
                acting.finish(&done, trial, request, call).await
            }
        }
    }
}

async fn list(
    namespace: String,
    wanted: Wanted,
    identifier_contains: Option<String>,
    acting: &Acting<'_>,
) -> Result<(), Failure> {
    let request = |Page { size, token }| pb::ListOverridesRequest {
        namespace: namespace.clone(),
        page_size: size,
        page_token: token,
        filter: Some(pb::ListOverridesFilter { identifier_contains: identifier_contains.clone() }),
        min_revision: String::new(),
    };
    let call = async |request| acting.client.rate_limits().list_overrides(request).await;
    acting.list(("overrides", &COLUMNS), wanted, request, call).await
}
