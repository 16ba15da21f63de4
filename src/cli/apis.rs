//! `ostiary api`: named sets of keys.

use clap::{Args, Subcommand};

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::flags::{self, ChangedNetworks, Mask, Removal, Terms, Trial};
use super::output::Column;
use super::paging::{Page, Wanted};

/// What a list of APIs shows.
const COLUMNS: [Column; 7] = [
    ("ID", "api_id"),
    ("NAME", "name"),
    ("PREFIX", "default_prefix"),
    ("TTL", "default_ttl"),
    ("KEYS", "key_count"),
    ("PROTECTED", "delete_protection"),
    ("CREATED", "create_time"),
];

/// APIs.
pub type Apis = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an API.
    Create(Create),
    /// List APIs.
    List(List),
    /// Show an API.
    Show {
        /// The API's id, `api_…`.
        api_id: String,
    },
    /// Change an API.
    Update(Update),
    /// Delete an API with all its keys, at once and for good.
    Delete {
        /// The API's id, `api_…`.
        api_id: String,

        #[command(flatten)]
        removal: Removal,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// What it is called, 3 to 255 characters.
    #[arg(long)]
    name: String,

    /// What the secrets of its keys begin with, unless they are created with another: 1 to 15 characters of A-Z, a-z, 0-9
    /// and _, such as acme_live. Without it, `key`.
    #[arg(long, value_name = "PREFIX")]
    default_prefix: Option<String>,

    /// How long its keys live, unless they are created with another end: 1s to 100 years. Without it, for ever.
    #[arg(long, value_name = "DURATION", value_parser = flags::span)]
    default_ttl: Option<prost_types::Duration>,

    /// Refuse to delete it.
    #[arg(long)]
    delete_protection: bool,

    /// A network or address from which its keys may be used, such as 192.0.2.0/24. May be given more than once, at most
    /// 100. Without it, from anywhere.
    #[arg(long = "allowed-cidr", value_name = "NETWORK")]
    allowed_cidrs: Vec<String>,

    #[command(flatten)]
    trial: Trial,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    wanted: Wanted,

    /// Those whose name contains this, in upper or lower case.
    #[arg(long, value_name = "TEXT")]
    name_contains: Option<String>,
}

#[derive(Debug, Args)]
pub struct Update {
    /// The API's id, `api_…`.
    api_id: String,

    /// The new name, 3 to 255 characters.
    #[arg(long)]
    name: Option<String>,

    /// What the secrets of new keys begin with, unless they are created with another.
    #[arg(long, value_name = "PREFIX")]
    default_prefix: Option<String>,

    /// How long new keys live, unless they are created with another end: 1s to 100 years.
    #[arg(long, value_name = "DURATION", value_parser = flags::span)]
    default_ttl: Option<prost_types::Duration>,

    /// New keys live for ever, unless they are created with an end.
    #[arg(long, conflicts_with = "default_ttl")]
    no_default_ttl: bool,

    /// Whether it is refused to delete it.
    #[arg(long, value_name = "true|false")]
    delete_protection: Option<bool>,

    #[command(flatten)]
    networks: ChangedNetworks,

    #[command(flatten)]
    terms: Terms,
}

impl Deed for Command {
    fn ask(&self) -> Result<(), Failure> {
        let Self::Delete { api_id, removal } = self else { return Ok(()) };
        removal.ask(&format!("Delete {api_id} with all its keys?"))
    }

    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let apis = || acting.client.apis();
        match self {
            Self::Create(create) => {
                let trial = create.trial;
                let request = create.request();
                acting.change("api", trial, request, async |request| apis().create_api(request).await).await
            }
            Self::List(list) => list.run(acting).await,
            Self::Show { api_id } => {
                let request = pb::GetApiRequest { api_id, min_revision: String::new() };
                acting.show("api", request, async |request| apis().get_api(request).await).await
            }
            Self::Update(update) => {
                let trial = update.terms.trial;
                let request = update.request()?;
                acting.change("api", trial, request, async |request| apis().update_api(request).await).await
            }
            Self::Delete { api_id, removal: Removal { terms: Terms { etag, trial }, .. } } => {
                let done = format!("deleted {api_id}");
                let request = pb::DeleteApiRequest { api_id, etag, validate_only: trial.dry_run };
                acting.finish(&done, trial, request, async |request| apis().delete_api(request).await).await
            }
        }
    }
}

impl Create {
    fn request(self) -> pb::CreateApiRequest {
        let Self { name, default_prefix, default_ttl, delete_protection, allowed_cidrs, trial } = self;
        let validate_only = trial.dry_run;
        pb::CreateApiRequest { name, default_prefix, default_ttl, delete_protection, allowed_cidrs, validate_only }
    }
}

impl List {
    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let Self { wanted, name_contains } = self;
        let request = |Page { size, token }| pb::ListApisRequest {
            page_size: size,
            page_token: token,
            filter: Some(pb::ListApisFilter { name_contains: name_contains.clone() }),
            min_revision: String::new(),
        };
        let call = async |request| acting.client.apis().list_apis(request).await;
        acting.list(("apis", &COLUMNS), wanted, request, call).await
    }
}

impl Update {
    fn request(self) -> Result<pb::UpdateApiRequest, Failure> {
        let Self { api_id, name, default_prefix, default_ttl, no_default_ttl, delete_protection, networks, terms } =
            self;
        let mut mask = Mask::default();
        mask.add("name", name.is_some());
        mask.add("default_prefix", default_prefix.is_some());
        mask.add("default_ttl", default_ttl.is_some() || no_default_ttl);
        mask.add("delete_protection", delete_protection.is_some());
        let allowed_cidrs = networks.change(&mut mask);
        let Terms { etag, trial } = terms;
        Ok(pb::UpdateApiRequest {
            api_id,
            name,
            default_prefix,
            default_ttl,
            delete_protection,
            allowed_cidrs,
            update_mask: mask.named()?,
            etag,
            validate_only: trial.dry_run,
        })
    }
}
