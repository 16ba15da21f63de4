//! `KeyService.StreamVerifyKeys`: any number of questions over one stream, answered as soon as each is.

use futures::future::Either;
use futures::{FutureExt, StreamExt, future};
use tonic::{Request, Response, Status, Streaming};

use crate::domain::capability::Capability;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::pb::v1::stream_verify_keys_response::Result as Outcome;
use crate::rpc::streams::{admissions, admitted_stream, answers};
use crate::rpc::{Desk, meta, status};
use crate::service::caller::Caller;

use super::{Answer, Item, LastQuery, at_once, in_time};

/// Questions of one stream that are looked at together; the next one is read once one of them is answered.
const AT_ONCE: usize = 256;
/// Characters of what joins an answer to its question.
const CORRELATION_LENGTH_MAX: usize = 255;

/// The answers to a stream.
pub(in crate::rpc) type Answers = futures::stream::BoxStream<'static, Result<pb::StreamVerifyKeysResponse, Status>>;

pub(in crate::rpc) fn stream_verify_keys(
    desk: &Desk,
    request: Request<Streaming<pb::StreamVerifyKeysRequest>>,
) -> Result<Response<Answers>, Status> {
    let (caller, messages) = admitted_stream(request)?;
    let admitted = admissions(desk, caller.clone(), Capability::VerifyKey, messages);
    let desk = desk.clone();
    // What has come in before the stream ends badly is answered first: it may have been paid for.
    let questions = admitted.map(move |admitted| match admitted {
        Ok((caller, message)) => Either::Left(one(desk.clone(), caller, message).map(Ok)),
        Err(error) => Either::Right(future::err(error)),
    });
    Ok(answers(&caller, ending_last(questions.buffer_unordered(AT_ONCE))))
}

/// The same answers, with what ends them after all others.
fn ending_last<M: Send + 'static>(
    answers: impl futures::Stream<Item = Result<M, Error>> + Send + 'static,
) -> impl futures::Stream<Item = Result<M, Error>> + Send + 'static {
    let answers = answers.map(Some).chain(futures::stream::iter([None]));
    let kept = answers.scan(None, |end, answer| {
        let told = match answer {
            Some(Ok(answer)) => Some(Ok(answer)),
            Some(Err(error)) => {
                end.get_or_insert(error);
                None
            }
            None => end.take().map(Err),
        };
        future::ready(Some(told))
    });
    kept.filter_map(future::ready)
}

async fn one(desk: Desk, caller: Caller, message: pb::StreamVerifyKeysRequest) -> pb::StreamVerifyKeysResponse {
    let pb::StreamVerifyKeysRequest { correlation_id, request } = message;
    let answer = match begin(&desk, &caller, &correlation_id, request) {
        Ok(Answer::Ready(answer)) => answer,
        Ok(Answer::Pending(asked)) => in_time(&desk, &caller, asked).await,
        Err(error) => Err(error),
    };
    let (outcome, revision) = match answer {
        Ok(Item { verdict, revision, held }) => {
            desk.hold_back(held).await;
            (Outcome::Verdict(verdict), revision)
        }
        Err(error) => (Outcome::Error(status::as_data(&error, &caller.call.request_id)), desk.ostiary.head()),
    };
    let mut correlation_id = correlation_id;
    if let Some((end, _)) = correlation_id.char_indices().nth(CORRELATION_LENGTH_MAX) {
        correlation_id.truncate(end);
    }
    pb::StreamVerifyKeysResponse { meta: meta(&caller, revision), correlation_id, result: Some(outcome) }
}

fn begin(
    desk: &Desk,
    caller: &Caller,
    correlation_id: &str,
    request: Option<pb::VerifyKeyRequest>,
) -> Result<Answer, Error> {
    if correlation_id.chars().nth(CORRELATION_LENGTH_MAX).is_some() {
        let flaw = format!("must be at most {CORRELATION_LENGTH_MAX} characters");
        return Err(Error::field("correlation_id", flaw));
    }
    let request = request.ok_or_else(|| Error::field("request", "must be given"))?;
    desk.ostiary.count_call(caller)?;
    Ok(at_once(desk, caller, request, &mut LastQuery::default()))
}
