//! `KeyService.BatchVerifyKeys`: many questions in one call, each answered for itself.

use futures::{StreamExt, stream};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::pb::v1 as pb;
use crate::pb::v1::batch_verify_keys_result::Result as Outcome;
use crate::rpc::{Desk, admitted, meta, status};
use crate::service::Revision;
use crate::service::caller::Caller;

use super::{Item, item};

/// Questions in one call.
const REQUESTS_MAX: usize = 1_000;
/// Questions of one call that are looked at together.
const AT_ONCE: usize = 64;

pub(in crate::rpc) async fn batch_verify_keys(
    desk: &Desk,
    request: Request<pb::BatchVerifyKeysRequest>,
) -> Result<Response<pb::BatchVerifyKeysResponse>, Status> {
    let (caller, pb::BatchVerifyKeysRequest { requests }) = admitted(request)?;
    if !(1..=REQUESTS_MAX).contains(&requests.len()) {
        return Err(Error::field("requests", format!("must have 1 to {REQUESTS_MAX} entries")).into());
    }
    let head = desk.ostiary.head();
    let answers: Vec<_> =
        stream::iter(requests).map(|request| item(desk, &caller, request)).buffered(AT_ONCE).collect().await;
    let mut newest = head;
    let results = answers.into_iter().map(|answer| result(&caller, answer, &mut newest)).collect();
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
