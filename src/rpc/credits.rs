//! `KeyService.AdjustCredits`.

use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::credits::Uses;
use crate::domain::id::KeyId;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::service::credits::Adjustment;

use super::convert::count;
use super::fields::Fields;
use super::{Desk, admitted, answer, run};

pub(super) async fn adjust_credits(
    desk: &Desk,
    request: Request<pb::AdjustCreditsRequest>,
) -> Result<Response<pb::AdjustCreditsResponse>, Status> {
    let (caller, request) = admitted(request)?;
    let run = run(request.validate_only);
    let (key, adjustment) = adjustment(request)?;
    let done = desk.ostiary.adjust_credits(&caller, key, adjustment, run).await?;
    answer(&caller, done, |meta, uses| pb::AdjustCreditsResponse { meta, remaining: remaining(uses) })
}

/// What is left on the wire; absent if there is no balance.
pub(super) fn remaining(uses: Uses) -> Option<i64> {
    match uses {
        Uses::Unlimited => None,
        Uses::Left(left) => Some(count(left)),
    }
}

fn adjustment(request: pb::AdjustCreditsRequest) -> Result<(KeyId, Adjustment), Error> {
    let pb::AdjustCreditsRequest { key_id, operation, amount, validate_only: _ } = request;
    let mut fields = Fields::default();
    let key = fields.id("key_id", &key_id, KeyId::parse);
    let amount = amount.map_or(Some(None), |amount| fields.amount("amount", amount, 0).map(Some));
    let adjustment = match (pb::CreditOperation::try_from(operation), amount) {
        (Ok(pb::CreditOperation::Unspecified) | Err(_), _) => {
            fields.refuse("operation", Flaw::new("must be SET, INCREMENT or DECREMENT"));
            None
        }
        (Ok(_), None) => None,
        (Ok(pb::CreditOperation::Set), Some(amount)) => {
            Some(Adjustment::Set(amount.map_or(Uses::Unlimited, Uses::Left)))
        }
        (Ok(pb::CreditOperation::Increment), Some(Some(amount))) => Some(Adjustment::Increment(amount)),
        (Ok(pb::CreditOperation::Decrement), Some(Some(amount))) => Some(Adjustment::Decrement(amount)),
        (Ok(pb::CreditOperation::Increment | pb::CreditOperation::Decrement), Some(None)) => {
            fields.refuse("amount", Flaw::new("must be given unless a balance is set to unlimited"));
            None
        }
    };
    fields.finish(key.zip(adjustment))
}
