//! `KeyService.BatchVerifyKeys`: many questions in one call, each answered for itself.

use futures::{StreamExt, stream};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::pb::v1 as pb;
use crate::pb::v1::batch_verify_keys_result::Result as Outcome;
use crate::rpc::{Desk, admitted, meta, status};
use crate::service::Done;
use crate::service::caller::Caller;
use crate::service::usage::Bill;

use super::{Answer, Item, LastQuery, at_once, in_time, shown};

/// Questions in one call.
pub(super) const REQUESTS_MAX: usize = 1_000;
/// Questions of one call that are waited for together.
const AT_ONCE: usize = 64;
/// Questions after which others have their turn.
const BETWEEN_YIELDS: usize = 128;

pub(in crate::rpc) async fn batch_verify_keys(
    desk: &Desk,
    request: Request<pb::BatchVerifyKeysRequest>,
) -> Result<Response<pb::BatchVerifyKeysResponse>, Status> {
    let (caller, request) = admitted(request)?;
    let Done { answer, revision } = all_verified(desk, &caller, request).await?;
    let results = answer.into_iter().map(|answer| {
        let outcome = match answer {
            Ok(Item { answer, .. }) => Outcome::Verdict(Box::new(shown(answer))),
            Err(error) => Outcome::Error(status::as_data(&error, &caller.call.request_id)),
        };
        pb::BatchVerifyKeysResult { result: Some(outcome) }
    });
    Ok(Response::new(pb::BatchVerifyKeysResponse { meta: meta(&caller, revision), results: results.collect() }))
}

/// What is said of a call that has too many questions, or none.
pub(super) fn too_many() -> Error {
    Error::field("requests", format!("must have 1 to {REQUESTS_MAX} entries"))
}

/// The answers to all questions, in their order, and the newest state that any of them saw.
///
/// Unknown keys among them count, but the others do not wait for them.
pub(super) async fn all_verified(
    desk: &Desk,
    caller: &Caller,
    request: pb::BatchVerifyKeysRequest,
) -> Result<Done<Vec<Result<Item, Error>>>, Error> {
    let pb::BatchVerifyKeysRequest { requests } = request;
    if !(1..=REQUESTS_MAX).contains(&requests.len()) {
        return Err(too_many());
    }
    let head = desk.ostiary.head();
    let mut answers: Vec<Option<Result<Item, Error>>> = Vec::with_capacity(requests.len());
    let mut pending = Vec::new();
    let (mut last, mut bill) = (LastQuery::default(), Bill::of(caller));
    for (index, request) in requests.into_iter().enumerate() {
        if index % BETWEEN_YIELDS == BETWEEN_YIELDS - 1 {
            tokio::task::yield_now().await;
        }
        match at_once(desk, &mut bill, request, &mut last) {
            Answer::Ready(answer) => answers.push(Some(answer)),
            Answer::Pending(asked) => {
                answers.push(None);
                pending.push((index, asked));
            }
        }
    }
    drop(bill);
    let rest = stream::iter(pending).map(async |(index, asked)| (index, in_time(desk, caller, asked).await));
    let rest: Vec<_> = rest.buffer_unordered(AT_ONCE).collect().await;
    for (index, answer) in rest {
        answers[index] = Some(answer);
    }
    let answer: Vec<Result<Item, Error>> = answers.into_iter().flatten().collect();
    let seen = answer.iter().flatten().map(|item| item.revision);
    let revision = seen.fold(head, |newest, seen| if seen.counter > newest.counter { seen } else { newest });
    Ok(Done { answer, revision })
}
