//! What of a key can be changed at once.

use clap::Args;
use prost_types::Struct;

use crate::cli::acting::Acting;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, ChangedLife, ChangedNetworks, Mask, Terms};
use crate::cli::limits;
use crate::pb::v1 as pb;
use crate::world::World;

#[derive(Debug, Args)]
pub struct Update {
    /// The key's id, `key_…`.
    key_id: String,

    /// The new name, at most 255 characters.
    #[arg(long)]
    name: Option<String>,

    /// Whose it is, by your own name for them, 1 to 255 printable characters; made if it is new.
    #[arg(long, value_name = "EXTERNAL_ID")]
    external_id: Option<String>,

    /// It belongs to no identity.
    #[arg(long, conflicts_with = "external_id")]
    no_identity: bool,

    /// Whether it can be used.
    #[arg(long, value_name = "true|false")]
    enabled: Option<bool>,

    #[command(flatten)]
    life: ChangedLife,

    #[command(flatten)]
    networks: ChangedNetworks,

    #[command(flatten)]
    credits: ChangedCredits,

    /// A rate limit of its own: name=NAME,limit=NUMBER,duration=DURATION, with ,auto-apply one that counts every
    /// verification. May be given more than once; all that it is to have must be given.
    #[arg(long = "rate-limit", value_name = "LIMIT", value_parser = limits::stored)]
    rate_limits: Vec<pb::RateLimit>,

    /// It has no rate limits of its own.
    #[arg(long, conflicts_with = "rate_limits")]
    no_rate_limits: bool,

    /// The new metadata, as a whole: a JSON object, or `@` and the path of a file that holds one.
    #[arg(long, value_name = "JSON", value_parser = flags::metadata)]
    metadata: Option<Struct>,

    #[command(flatten)]
    terms: Terms,
}

/// What of credits is to be new.
#[derive(Debug, Args)]
struct ChangedCredits {
    /// How many verifications it is still good for.
    #[arg(long, value_name = "NUMBER")]
    credits: Option<i64>,

    /// It is good for any number of verifications, and has no refill.
    #[arg(long, conflicts_with_all = ["credits", "refill", "no_refill"])]
    unlimited: bool,

    /// How its credits are filled up, at 00:00 UTC: daily:AMOUNT, monthly:AMOUNT or monthly:AMOUNT:DAY.
    #[arg(long, value_name = "REFILL", value_parser = limits::refill)]
    refill: Option<pb::CreditRefill>,

    /// Its credits are not filled up.
    #[arg(long, conflicts_with = "refill")]
    no_refill: bool,
}

impl ChangedCredits {
    fn change(self, mask: &mut Mask) -> Option<pb::Credits> {
        let Self { credits, unlimited, refill, no_refill } = self;
        mask.add("credits", unlimited);
        mask.add("credits.remaining", credits.is_some());
        mask.add("credits.refill", refill.is_some() || no_refill);
        (credits.is_some() || refill.is_some()).then_some(pb::Credits { remaining: credits, refill })
    }
}

impl Update {
    pub async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let trial = self.terms.trial;
        let request = self.request(acting.client.world())?;
        acting.change("key", trial, request, async |request| acting.client.keys().update_key(request).await).await
    }

    fn request(self, world: &World) -> Result<pb::UpdateKeyRequest, Failure> {
        let Self {
            key_id,
            name,
            external_id,
            no_identity,
            enabled,
            life,
            networks,
            credits,
            rate_limits,
            no_rate_limits,
            metadata,
            terms: Terms { etag, trial },
        } = self;
        let mut mask = Mask::default();
        mask.add("name", name.is_some());
        mask.add("external_id", external_id.is_some() || no_identity);
        mask.add("enabled", enabled.is_some());
        let expire_time = life.change(&mut mask, world)?;
        let allowed_cidrs = networks.change(&mut mask);
        let credits = credits.change(&mut mask);
        mask.add("rate_limits", no_rate_limits || !rate_limits.is_empty());
        mask.add("metadata", metadata.is_some());
        Ok(pb::UpdateKeyRequest {
            key_id,
            name,
            metadata,
            enabled,
            expire_time,
            allowed_cidrs,
            roles: Vec::new(),
            permissions: Vec::new(),
            update_mask: mask.named()?,
            etag,
            validate_only: trial.dry_run,
            external_id,
            credits,
            rate_limits,
        })
    }
}
