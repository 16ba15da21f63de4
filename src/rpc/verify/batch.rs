//! `KeyService.BatchVerifyKeys`: many questions in one call, each answered for itself.

use futures::{StreamExt, stream};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::pb::v1 as pb;
use crate::pb::v1::batch_verify_keys_result::Result as Outcome;
use crate::rpc::{Desk, admitted, meta, status};
use crate::service::Revision;
use crate::service::caller::Caller;

use super::{Answer, Item, LastQuery, at_once, in_time};

/// Questions in one call.
const REQUESTS_MAX: usize = 1_000;
/// Questions of one call that are waited for together.
const AT_ONCE: usize = 64;
/// Questions after which others have their turn.
const BETWEEN_YIELDS: usize = 128;

pub(in crate::rpc) async fn batch_verify_keys(
    desk: &Desk,
    request: Request<pb::BatchVerifyKeysRequest>,
) -> Result<Response<pb::BatchVerifyKeysResponse>, Status> {
    let (caller, pb::BatchVerifyKeysRequest { requests }) = admitted(request)?;
    if !(1..=REQUESTS_MAX).contains(&requests.len()) {
        return Err(Error::field("requests", format!("must have 1 to {REQUESTS_MAX} entries")).into());
    }
    let mut newest = desk.ostiary.head();
    let mut answers: Vec<Option<Result<Item, Error>>> = Vec::with_capacity(requests.len());
    let mut pending = Vec::new();
    let mut last = LastQuery::default();
    for (index, request) in requests.into_iter().enumerate() {
        if index % BETWEEN_YIELDS == BETWEEN_YIELDS - 1 {
            tokio::task::yield_now().await;
        }
        match at_once(desk, &caller, request, &mut last) {
            Answer::Ready(answer) => answers.push(Some(answer)),
            Answer::Pending(asked) => {
                answers.push(None);
                pending.push((index, asked));
            }
        }
    }
    let rest = stream::iter(pending).map(async |(index, asked)| (index, in_time(desk, &caller, asked).await));
    let rest: Vec<_> = rest.buffer_unordered(AT_ONCE).collect().await;
    for (index, answer) in rest {
        answers[index] = Some(answer);
    }
    let results = answers.into_iter().flatten().map(|answer| result(&caller, answer, &mut newest)).collect();
    Ok(Response::new(pb::BatchVerifyKeysResponse { meta: meta(&caller, newest), results }))
}

fn result(caller: &Caller, answer: Result<Item, Error>, newest: &mut Revision) -> pb::BatchVerifyKeysResult {
    let outcome = match answer {
        // Unknown keys among others count, but the others do not wait for them.
        Ok(Item { verdict, revision, held: _ }) => {
            if revision.counter > newest.counter {
                *newest = revision;
            }
            Outcome::Verdict(verdict)
        }
        Err(error) => Outcome::Error(status::as_data(&error, &caller.call.request_id)),
    };
    pb::BatchVerifyKeysResult { result: Some(outcome) }
}
