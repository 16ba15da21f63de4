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
use crate::service::verify::Verification;

use super::questions::LastQuery;
use super::wording::Wording;
use super::{Answer, Asked, Item, TOGETHER, in_time, shown};

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
    let (caller, pb::BatchVerifyKeysRequest { mut requests }) = admitted(request)?;
    let result = |answer| {
        let outcome = match answer {
            Ok(answer) => Outcome::Verdict(Box::new(shown(answer))),
            Err(error) => Outcome::Error(status::as_data(&error, &caller.call.request_id)),
        };
        pb::BatchVerifyKeysResult { result: Some(outcome) }
    };
    let wordings = requests.iter_mut().map(Wording::of);
    let Done { answer: results, revision } = all_verified(desk, &caller, wordings, result).await?;
    Ok(Response::new(pb::BatchVerifyKeysResponse { meta: meta(&caller, revision), results }))
}

/// What is said of a call that has too many questions, or none.
pub(super) fn too_many() -> Error {
    Error::field("requests", format!("must have 1 to {REQUESTS_MAX} entries"))
}

/// What `put` makes of the answers to all questions, in their order, and the newest state that any of them saw. It is
/// given each as soon as that is there.
///
/// Unknown keys among them count, but the others do not wait for them.
pub(super) async fn all_verified<T>(
    desk: &Desk,
    caller: &Caller,
    mut wordings: impl ExactSizeIterator<Item = Wording<'_>>,
    mut put: impl FnMut(Result<Verification, Error>) -> T,
) -> Result<Done<Vec<T>>, Error> {
    if !(1..=REQUESTS_MAX).contains(&wordings.len()) {
        return Err(too_many());
    }
    let mut newest = desk.ostiary.head();
    let mut put = |answer: Result<Item, Error>| match answer {
        Ok(Item { answer, revision, held: _ }) => {
            if revision.counter > newest.counter {
                newest = revision;
            }
            put(Ok(answer))
        }
        Err(error) => put(Err(error)),
    };
    let mut answers: Vec<Option<T>> = Vec::with_capacity(wordings.len());
    let mut pending = Vec::new();
    let (mut last, mut bill) = (LastQuery::default(), Bill::of(caller));
    while wordings.len() > 0 {
        if answers.len() % BETWEEN_YIELDS == BETWEEN_YIELDS - TOGETHER {
            tokio::task::yield_now().await;
        }
        let some = wordings.by_ref().take(TOGETHER);
        let some: Vec<Result<Asked, Error>> = some.map(|wording| Asked::read(wording, &mut last)).collect();
        let questions = some.iter().flatten().map(|asked| (caller, &asked.question));
        let (remembered, now) = desk.ostiary.remembered(questions);
        let mut remembered = remembered.iter();
        for asked in some {
            let answer = match asked {
                Ok(asked) => asked.answer(desk, &mut bill, remembered.next(), now),
                Err(error) => Answer::Ready(Err(error)),
            };
            match answer {
                Answer::Ready(answer) => answers.push(Some(put(answer))),
                Answer::Pending(asked) => {
                    pending.push((answers.len(), asked));
                    answers.push(None);
                }
            }
        }
    }
    drop(bill);
    let rest = stream::iter(pending).map(async |(index, asked)| (index, in_time(desk, caller, asked).await));
    let rest: Vec<_> = rest.buffer_unordered(AT_ONCE).collect().await;
    for (index, answer) in rest {
        answers[index] = Some(put(answer));
    }
    Ok(Done { answer: answers.into_iter().flatten().collect(), revision: newest })
}
