//! The credits of a key.

use clap::Args;

use crate::cli::acting::Acting;
use crate::cli::failure::Failure;
use crate::cli::flags::Trial;
use crate::pb::v1 as pb;

#[derive(Debug, Args)]
pub struct Adjust {
    /// The key's id, `key_…`.
    key_id: String,

    #[command(flatten)]
    operation: Operation,

    #[command(flatten)]
    trial: Trial,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Operation {
    /// How many it has from now on, 0 to 2^53.
    #[arg(long, value_name = "NUMBER")]
    set: Option<i64>,

    /// How many more it has.
    #[arg(long, value_name = "NUMBER")]
    add: Option<i64>,

    /// How many fewer it has, down to 0 at most.
    #[arg(long, value_name = "NUMBER")]
    take: Option<i64>,

    /// It has any number of them, and no refill.
    #[arg(long)]
    unlimited: bool,
}

impl Adjust {
    pub async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        use pb::CreditOperation::{Decrement, Increment, Set};
        let Self { key_id, operation, trial } = self;
        let (operation, amount) = match operation {
            Operation { add: Some(amount), .. } => (Increment, Some(amount)),
            Operation { take: Some(amount), .. } => (Decrement, Some(amount)),
            Operation { set, add: None, take: None, unlimited: _ } => (Set, set),
        };
        let operation = operation.into();
        let request = pb::AdjustCreditsRequest { key_id, operation, amount, validate_only: trial.dry_run };
        let call = async |request| acting.client.keys().adjust_credits(request).await;
        let answer = acting.answer(trial, request, call).await?;
        if answer.remaining.is_none() {
            acting.output.note("unlimited");
        }
        acting.output.whole(&answer)
    }
}
