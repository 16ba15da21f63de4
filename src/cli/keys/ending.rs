//! The end of keys, one by one or many at once.

use clap::Args;
use prost_types::Timestamp;

use crate::cli::acting::Acting;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, Trial};
use crate::cli::prompt::Consent;
use crate::pb::v1 as pb;

#[derive(Debug, Args)]
pub struct Revoke {
    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    trial: Trial,

    #[command(flatten)]
    consent: Consent,
}

/// Which keys. All that is given has to fit.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Filter {
    /// Those of this API, `api_…`.
    #[arg(long, value_name = "API_ID")]
    api: Option<String>,

    /// Those of this identity, an id or an external id.
    #[arg(long)]
    identity: Option<String>,

    /// Those that hold this role, an id or a name.
    #[arg(long)]
    role: Option<String>,

    /// Those that this root key created, `rk_…`, or one that came from it by rotation.
    #[arg(long, value_name = "ROOT_KEY_ID")]
    created_by: Option<String>,

    /// Those created at this time or later.
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    create_after: Option<Timestamp>,

    /// Those created before this time.
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    create_before: Option<Timestamp>,
}

impl Revoke {
    /// Asks, unless that was answered in advance or nothing is going to be revoked.
    pub fn ask(&self) -> Result<(), Failure> {
        if self.trial.dry_run { Ok(()) } else { self.consent.ask("Revoke all keys that fit? --dry-run counts them.") }
    }

    pub async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let Self { filter: Filter { api, identity, role, created_by, create_after, create_before }, trial, consent: _ } =
            self;
        let filter = pb::RevokeKeysFilter { api_id: api, identity, role, created_by, create_after, create_before };
        let request = pb::RevokeKeysRequest { filter: Some(filter), validate_only: trial.dry_run };
        let call = async |request| acting.client.keys().revoke_keys(request).await;
        let answer = acting.answer(trial, request, call).await?;
        acting.output.whole(&answer)
    }
}

pub async fn delete(request: pb::DeleteKeyRequest, trial: Trial, acting: &Acting<'_>) -> Result<(), Failure> {
    let key_id = request.key_id.clone();
    let done = format!("deleted {key_id}");
    acting.finish(&done, trial, request, async |request| acting.client.keys().delete_key(request).await).await
}

pub async fn undelete(request: pb::UndeleteKeyRequest, trial: Trial, acting: &Acting<'_>) -> Result<(), Failure> {
    acting.change("key", trial, request, async |request| acting.client.keys().undelete_key(request).await).await
}
