//! `ostiary identity`: your users or organisations, whose keys share rate limits.

use clap::{Args, Subcommand};
use prost_types::Struct;

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::flags::{self, Mask, Removal, Terms, Trial};
use super::limits;
use super::output::Column;
use super::paging::{Page, Wanted};

/// What a list of identities shows.
const COLUMNS: [Column; 5] = [
    ("ID", "identity_id"),
    ("EXTERNAL ID", "external_id"),
    ("KEYS", "key_count"),
    ("LIMITS", "rate_limits.name"),
    ("CREATED", "create_time"),
];

/// Identities.
pub type Identities = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an identity.
    Create {
        /// What you call it yourself, 1 to 255 printable characters, such as user-4711; it never changes.
        external_id: String,

        /// Whatever you want to know about it: a JSON object, or `@` and the path of a file that holds one.
        #[arg(long, value_name = "JSON", value_parser = flags::metadata)]
        metadata: Option<Struct>,

        /// A rate limit that all its keys share: name=NAME,limit=NUMBER,duration=DURATION, with ,auto-apply one that
        /// counts every verification. May be given more than once, at most 20.
        #[arg(long = "rate-limit", value_name = "LIMIT", value_parser = limits::stored)]
        rate_limits: Vec<pb::RateLimit>,

        #[command(flatten)]
        trial: Trial,
    },
    /// List identities.
    List {
        #[command(flatten)]
        wanted: Wanted,

        /// Those whose external id contains this, in upper or lower case.
        #[arg(long, value_name = "TEXT")]
        external_id_contains: Option<String>,
    },
    /// Show an identity.
    Show {
        /// The identity's id, `id_…`, or its external id.
        identity: String,
    },
    /// Change the metadata or the rate limits of an identity.
    Update(Update),
    /// Delete an identity, at once and for good. Its keys work on, without its rate limits.
    Delete {
        /// The identity's id, `id_…`, or its external id.
        identity: String,

        #[command(flatten)]
        removal: Removal,
    },
}

#[derive(Debug, Args)]
pub struct Update {
    /// The identity's id, `id_…`, or its external id.
    identity: String,

    /// The new metadata, as a whole: a JSON object, or `@` and the path of a file that holds one.
    #[arg(long, value_name = "JSON", value_parser = flags::metadata)]
    metadata: Option<Struct>,

    /// A rate limit that all its keys share: name=NAME,limit=NUMBER,duration=DURATION, with ,auto-apply one that counts
    /// every verification. May be given more than once; all that it is to have must be given.
    #[arg(long = "rate-limit", value_name = "LIMIT", value_parser = limits::stored)]
    rate_limits: Vec<pb::RateLimit>,

    /// It has no rate limits.
    #[arg(long, conflicts_with = "rate_limits")]
    no_rate_limits: bool,

    #[command(flatten)]
    terms: Terms,
}

impl Deed for Command {
    fn ask(&self) -> Result<(), Failure> {
        let Self::Delete { identity, removal } = self else { return Ok(()) };
        removal.ask(&format!("Delete the identity {identity}?"))
    }

    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let identities = || acting.client.identities();
        match self {
            Self::Create { external_id, metadata, rate_limits, trial } => {
                let validate_only = trial.dry_run;
                let request = pb::CreateIdentityRequest { external_id, metadata, rate_limits, validate_only };
                let call = async |request| identities().create_identity(request).await;
                acting.change("identity", trial, request, call).await
            }
            Self::List { wanted, external_id_contains } => list(wanted, external_id_contains, acting).await,
            Self::Show { identity } => {
                let request = pb::GetIdentityRequest { identity, min_revision: String::new() };
                acting.show("identity", request, async |request| identities().get_identity(request).await).await
            }
            Self::Update(update) => {
                let trial = update.terms.trial;
                let call = async |request| identities().update_identity(request).await;
                acting.change("identity", trial, update.request()?, call).await
            }
            Self::Delete { identity, removal: Removal { terms: Terms { etag, trial }, .. } } => {
                let done = format!("deleted the identity {identity}");
                let request = pb::DeleteIdentityRequest { identity, etag, validate_only: trial.dry_run };
                let call = async |request| identities().delete_identity(request).await;
                acting.finish(&done, trial, request, call).await
            }
        }
    }
}

async fn list(wanted: Wanted, external_id_contains: Option<String>, acting: &Acting<'_>) -> Result<(), Failure> {
    let request = |Page { size, token }| pb::ListIdentitiesRequest {
        page_size: size,
        page_token: token,
        filter: Some(pb::ListIdentitiesFilter { external_id_contains: external_id_contains.clone() }),
        min_revision: String::new(),
    };
    let call = async |request| acting.client.identities().list_identities(request).await;
    acting.list(("identities", &COLUMNS), wanted, request, call).await
}

impl Update {
    fn request(self) -> Result<pb::UpdateIdentityRequest, Failure> {
        let Self { identity, metadata, rate_limits, no_rate_limits, terms: Terms { etag, trial } } = self;
        let mut mask = Mask::default();
        mask.add("metadata", metadata.is_some());
        mask.add("rate_limits", no_rate_limits || !rate_limits.is_empty());
        let (update_mask, validate_only) = (mask.named()?, trial.dry_run);
        Ok(pb::UpdateIdentityRequest { identity, metadata, rate_limits, update_mask, etag, validate_only })
    }
}
