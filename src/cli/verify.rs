//! `ostiary verify`: whether a key is good.

use std::path::PathBuf;

use clap::Args;

use crate::pb::v1 as pb;

use super::Surroundings;
use super::calling::Calling;
use super::failure::Failure;
use super::{limits, prompt};

/// A verification.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 the key is good; 7 it is not, and `code` and `reason` tell why; others as `ostiary --help` says.

Example:
  ostiary verify --api API_ID --permissions 'documents.read AND documents.write' < customer.key")]
pub struct Verify {
    #[command(flatten)]
    calling: Calling,

    /// A file whose first line is the key. Without it, standard input, which on a terminal shows nothing of it.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// The API that it must belong to, `api_…`. Without it, any.
    #[arg(long, value_name = "API_ID")]
    api: Option<String>,

    /// What it must be allowed to do: permissions joined by AND and OR, with parentheses.
    #[arg(long, value_name = "QUERY")]
    permissions: Option<String>,

    /// How many of its credits that costs, 0 to 2^53. Without it, 1.
    #[arg(long, value_name = "NUMBER")]
    cost: Option<i64>,

    /// A rate limit to apply besides: name=NAME, with ,cost=NUMBER if not 1, and with ,limit=NUMBER,duration=DURATION one
    /// that it need not have. May be given more than once, at most 20.
    #[arg(long = "rate-limit", value_name = "LIMIT", value_parser = limits::named)]
    rate_limits: Vec<pb::VerifyRateLimit>,

    /// The address of the customer, for keys and APIs with allow-lists.
    #[arg(long, value_name = "ADDRESS")]
    client_ip: Option<String>,

    /// Also show its name, metadata, permissions, roles and identity.
    #[arg(long)]
    full: bool,

    /// Only ask: nothing is consumed, and it does not count as a use of the key.
    #[arg(long)]
    dry_run: bool,
}

impl Verify {
    /// Does it.
    pub async fn run(self, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
        let Self { calling, key_file, api, permissions, cost, rate_limits, client_ip, full, dry_run } = self;
        let output = calling.output();
        let secret = prompt::secret(key_file.as_deref())?;
        let client = calling.client(surroundings).await?;
        let view = if full { pb::VerificationView::Full } else { pb::VerificationView::Basic };
        let request = pb::VerifyKeyRequest {
            key: secret.expose().to_owned(),
            api_id: api,
            permissions,
            client_ip,
            view: view.into(),
            dry_run,
            min_revision: String::new(),
            cost,
            rate_limits,
            tags: Vec::new(),
        };
        // A second attempt could consume a second time.
        let answer = client.once(request, async |request| client.keys().verify_key(request).await).await?;
        output.object(&answer, "verdict")?;
        if answer.verdict.is_some_and(|verdict| verdict.valid) { Ok(()) } else { Err(Failure::NotGood) }
    }
}
