//! `KeyService.ImportKeys`: keys that were issued elsewhere, any number over one stream, each for itself.

use std::pin::pin;

use futures::{StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use crate::domain::capability::Capability;
use crate::domain::id::KeyId;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::rpc::fields::Fields;
use crate::rpc::streams::{admissions, admitted_stream, answers};
use crate::rpc::{Desk, clock, meta, status};
use crate::service::caller::Caller;
use crate::service::{Done, Revision};

use super::drafts::import_draft;

/// Rows in one message.
const ROWS_MAX: usize = 1_000;
/// Rows of a message that are imported together: they share a commit.
const AT_ONCE: usize = 128;
/// Rows that are begun before whoever else waits for this thread gets a turn.
const TURN: usize = 8;

/// The answers to a stream.
pub(in crate::rpc) type Answers = stream::BoxStream<'static, Result<pb::ImportKeysResponse, Status>>;

pub(in crate::rpc) fn import_keys(
    desk: &Desk,
    request: Request<Streaming<pb::ImportKeysRequest>>,
) -> Result<Response<Answers>, Status> {
    let (caller, messages) = admitted_stream(request)?;
    let admitted = admissions(desk, caller.clone(), Capability::CreateKey, messages);
    let desk = desk.clone();
    // One message after the other: the next one is read once this one is answered, so a stream of any length takes
    // the room of one message.
    let answered = admitted.then(move |admitted| {
        let desk = desk.clone();
        async move {
            let (caller, message) = admitted?;
            desk.ostiary.count_call(&caller)?;
            rows(&desk, &caller, message).await
        }
    });
    Ok(answers(&caller, answered))
}

async fn rows(desk: &Desk, caller: &Caller, message: pb::ImportKeysRequest) -> Result<pb::ImportKeysResponse, Error> {
    let pb::ImportKeysRequest { rows } = message;
    if !(1..=ROWS_MAX).contains(&rows.len()) {
        return Err(Error::field("rows", format!("must have 1 to {ROWS_MAX} entries")));
    }
    let mut newest = desk.ostiary.head();
    let mut response = pb::ImportKeysResponse::default();
    let in_turns = stream::iter(rows).enumerate().then(async |(place, row)| {
        if place % TURN == 0 {
            tokio::task::yield_now().await;
        }
        row
    });
    let mut outcomes = pin!(in_turns.map(|row| one(desk, caller, row)).buffered(AT_ONCE));
    while let Some(outcome) = outcomes.next().await {
        note(caller, &mut response, &mut newest, outcome);
    }
    response.meta = meta(caller, newest);
    Ok(response)
}

async fn one(desk: &Desk, caller: &Caller, row: pb::ImportKeysRow) -> Result<Done<KeyId>, Error> {
    let mut fields = Fields::default();
    let draft = import_draft(&mut fields, row, clock(desk, caller));
    let draft = fields.finish(draft)?;
    desk.ostiary.import_key(caller, draft).await
}

/// Notes what became of the next row.
fn note(
    caller: &Caller,
    response: &mut pb::ImportKeysResponse,
    newest: &mut Revision,
    outcome: Result<Done<KeyId>, Error>,
) {
    match outcome {
        Ok(Done { answer, revision }) => {
            response.imported_count += 1;
            response.key_ids.push(answer.to_string());
            if revision.counter > newest.counter {
                *newest = revision;
            }
        }
        Err(error) => {
            let index = i32::try_from(response.key_ids.len()).unwrap_or(i32::MAX);
            response.key_ids.push(String::new());
            let error = Some(status::as_data(&error, &caller.call.request_id));
            response.failures.push(pb::ImportKeysFailure { index, error });
        }
    }
}
