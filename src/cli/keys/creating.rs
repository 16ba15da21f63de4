//! New keys, and new secrets for old ones.

use clap::Args;
use prost_types::Struct;

use crate::cli::acting::Acting;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, NewLife, Terms, Trial};
use crate::cli::limits;
use crate::pb::v1 as pb;

#[derive(Debug, Args)]
pub struct Create {
    /// The API that it is for, `api_…`.
    #[arg(long, value_name = "API_ID")]
    api: String,

    /// What it is called, at most 255 characters, such as `customer 42`.
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,

    /// What its secret begins with: 1 to 15 characters of A-Z, a-z, 0-9 and _. Without it, as the API says.
    #[arg(long)]
    prefix: Option<String>,

    /// Whose it is, by your own name for them, 1 to 255 printable characters; made if it is new.
    #[arg(long, value_name = "EXTERNAL_ID")]
    external_id: Option<String>,

    /// A role that it holds, an id or a name. May be given more than once, at most 50.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,

    /// A permission that it has directly, an id or a slug; made if it is new. May be given more than once, at most 1000.
    #[arg(long = "permission", value_name = "PERMISSION")]
    permissions: Vec<String>,

    /// Whether it can be used. Without it, true.
    #[arg(long, value_name = "true|false")]
    enabled: Option<bool>,

    #[command(flatten)]
    life: NewLife,

    /// A network or address from which it may be used, such as 192.0.2.0/24. May be given more than once, at most 100.
    /// Without it, from anywhere that the API allows.
    #[arg(long = "allowed-cidr", value_name = "NETWORK")]
    allowed_cidrs: Vec<String>,

    /// How many verifications it is good for. Without it, any number.
    #[arg(long, value_name = "NUMBER")]
    credits: Option<i64>,

    /// How its credits are filled up, at 00:00 UTC: daily:AMOUNT, monthly:AMOUNT or monthly:AMOUNT:DAY.
    #[arg(long, value_name = "REFILL", value_parser = limits::refill, requires = "credits")]
    refill: Option<pb::CreditRefill>,

    /// A rate limit of its own: name=NAME,limit=NUMBER,duration=DURATION, with ,auto-apply one that counts every
    /// verification. May be given more than once, at most 20.
    #[arg(long = "rate-limit", value_name = "LIMIT", value_parser = limits::stored)]
    rate_limits: Vec<pb::RateLimit>,

    /// Whatever you want to know about it: a JSON object, or `@` and the path of a file that holds one.
    #[arg(long, value_name = "JSON", value_parser = flags::metadata)]
    metadata: Option<Struct>,

    #[command(flatten)]
    trial: Trial,
}

#[derive(Debug, Args)]
pub struct Reroll {
    /// The key's id, `key_…`.
    key_id: String,

    /// How long the old secret works on, from 0 to 30d. Usual are 0, 1m, 15m, 1h, 6h and 24h; with 0 it stops at once.
    #[arg(long, value_name = "DURATION", value_parser = flags::span)]
    grace: prost_types::Duration,

    #[command(flatten)]
    terms: Terms,
}

impl Create {
    pub async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let trial = self.trial;
        let call = async |request| acting.client.keys().create_key(request).await;
        let answer = acting.answer(trial, self.request(), call).await?;
        acting.output.secret(&answer, "key", &answer.secret)
    }

    fn request(self) -> pb::CreateKeyRequest {
        use pb::create_key_request::Expiration;
        let Self {
            api,
            name,
            prefix,
            external_id,
            roles,
            permissions,
            enabled,
            life: NewLife { expires_in, expires_at },
            allowed_cidrs,
            credits,
            refill,
            rate_limits,
            metadata,
            trial,
        } = self;
        pb::CreateKeyRequest {
            api_id: api,
            name,
            prefix,
            metadata,
            roles,
            permissions,
            enabled,
            expiration: expires_in.map(Expiration::Ttl).or(expires_at.map(Expiration::ExpireTime)),
            allowed_cidrs,
            validate_only: trial.dry_run,
            external_id,
            credits: credits.map(|remaining| pb::Credits { remaining: Some(remaining), refill }),
            rate_limits,
        }
    }
}

impl Reroll {
    pub async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let Self { key_id, grace, terms: Terms { etag, trial } } = self;
        let request = pb::RerollKeyRequest { key_id, grace_period: Some(grace), etag, validate_only: trial.dry_run };
        let call = async |request| acting.client.keys().reroll_key(request).await;
        let answer = acting.answer(trial, request, call).await?;
        if let Some(pb::Key { key_id, expire_time: Some(end), .. }) = &answer.previous {
            acting.output.note(&format!("the secret of {key_id} works until {end}"));
        }
        acting.output.secret(&answer, "key", &answer.secret)
    }
}
