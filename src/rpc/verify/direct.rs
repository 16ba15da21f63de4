//! `VerifyKey` and `BatchVerifyKeys` without detours: one message in, one message out.
//!
//! What a stream needs (buffers that grow, boxes around bodies, messages looked for in the middle of frames) costs a call
//! of one small message more than answering it. Whatever does not consist of one plain message goes the way of all
//! methods, unread.

use bytes::Bytes;
use http::{Request, Response, header};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::body::Body;

use crate::domain::key::Verdict;
use crate::domain::limit::LIMITS_MAX;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::rpc::probing::Held;
use crate::rpc::{Desk, status};
use crate::service::caller::Caller;
use crate::service::usage::Bill;
use crate::service::verify::{Verification, VerifyQuestion};
use crate::service::{Done, Revision};

use super::batch::{REQUESTS_MAX, all_verified, too_many};
use super::questions::{LastQuery, TAGS_MAX, question};
use super::whole::{Begun, CONTENT_TYPE, Whole, is_compressed, only_message};
use super::wire::{PREFIX, nested_verdict, put_message, put_meta, put_verdict};
use super::wording::Wording;

/// The methods that are answered here.
#[derive(Clone, Copy)]
pub(in crate::rpc) enum Method {
    /// `VerifyKey`.
    One,
    /// `BatchVerifyKeys`.
    Many,
}

impl Method {
    /// The method of this path, if it is one of them.
    pub(in crate::rpc) fn of(path: &str) -> Option<Self> {
        match path.strip_prefix(crate::rpc::KEY_SERVICE)? {
            "VerifyKey" => Some(Self::One),
            "BatchVerifyKeys" => Some(Self::Many),
            _ => None,
        }
    }
}

/// Bytes that the answer about one key has, rarely more.
const ONE_LENGTH: usize = 320;
/// Bytes that stand before answers, rarely more.
const META_LENGTH: usize = 96;
/// Fields: the questions of a batch; the lists of a question.
const REQUESTS: u32 = 1;
const RATE_LIMITS: u32 = 9;
const TAGS: u32 = 10;
/// Entries of those lists.
const LISTED_MAX: usize = LIMITS_MAX + TAGS_MAX;

/// What became of a call.
pub(in crate::rpc) enum Outcome<B: http_body::Body> {
    /// It was answered.
    Answered(Response<Body>),
    /// It does not consist of one plain message. This is what has come of it.
    Otherwise(Request<Begun<B>>),
}

/// Answers a call that consists of one plain message.
pub(in crate::rpc) async fn answer<B>(
    desk: &Desk,
    caller: &Caller,
    method: Method,
    request: Request<B>,
) -> Result<Outcome<B>, Error>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let (head, body) = request.into_parts();
    let (message, begun) = match is_compressed(&head.headers) {
        false => only_message(body).await,
        true => (None, Begun::not_yet(body)),
    };
    let answer = match (message, method) {
        (Some(message), Method::One) => match told(desk, caller, message)? {
            Some(Told::Now(answer)) => Some(answer),
            Some(Told::Later(later)) => Some(Box::pin(one(desk, caller, later)).await?),
            None => None,
        },
        (Some(message), Method::Many) => match Wording::plain_batch(&message) {
            Some(wordings) => Some(Box::pin(many(desk, caller, wordings.into_iter())).await?),
            None => match decoded_batch(message.clone())? {
                Some(mut requests) => Some(Box::pin(many(desk, caller, requests.iter_mut().map(Wording::of))).await?),
                None => None,
            },
        },
        (None, _) => None,
    };
    let Some(mut answer) = answer else {
        return Ok(Outcome::Otherwise(Request::from_parts(head, begun)));
    };
    let length = u32::try_from(answer.len() - PREFIX).map_err(|_| Error::Internal("an answer of 4 GiB".to_owned()))?;
    answer[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    let mut response = Response::new(Body::new(Whole::of(answer.into())));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    Ok(Outcome::Answered(response))
}

/// Room for the prefix and what follows.
fn room(bytes: usize) -> Vec<u8> {
    let mut room = Vec::with_capacity(PREFIX + bytes);
    room.resize(PREFIX, 0);
    room
}

/// What can be told about one key.
enum Told {
    /// All of it. What is usual is told without a future of its own, which would be moved about with each call.
    Now(Vec<u8>),
    /// What takes waiting.
    Later(Box<Later>),
}

/// What is told about one key once that can be.
enum Later {
    /// The answer to this.
    Question(VerifyQuestion, Option<Revision>),
    /// What is known already, and held back.
    Held(Done<Verification>, Option<Held>),
}

/// What is told of the key that a message asks about. None if it can't be read.
fn told(desk: &Desk, caller: &Caller, message: Bytes) -> Result<Option<Told>, Error> {
    if let Some(wording) = Wording::plain(&message) {
        return one_at_hand(desk, caller, wording).map(Some);
    }
    if lists(&message) > LISTED_MAX {
        return Err(too_much_listed());
    }
    let Ok(mut request) = pb::VerifyKeyRequest::decode(message) else { return Ok(None) };
    one_at_hand(desk, caller, Wording::of(&mut request)).map(Some)
}

/// The questions of a message. None if it can't be read.
fn decoded_batch(message: Bytes) -> Result<Option<Vec<pb::VerifyKeyRequest>>, Error> {
    let Entries { questions, listed } = entries(&message, REQUESTS);
    if questions > REQUESTS_MAX {
        return Err(too_many());
    }
    if listed > REQUESTS_MAX * LISTED_MAX {
        return Err(too_much_listed());
    }
    let mut request = pb::BatchVerifyKeysRequest { requests: Vec::with_capacity(questions) };
    Ok(request.merge(message).is_ok().then_some(request.requests))
}

/// The answer about one key, as far as that can be told without waiting.
fn one_at_hand(desk: &Desk, caller: &Caller, wording: Wording<'_>) -> Result<Told, Error> {
    let (question, min_revision) = question(wording, &mut LastQuery::default())?;
    let Some(done) = desk.ostiary.verify_at_hand(&mut Bill::of(caller), &question, min_revision) else {
        return Ok(Told::Later(Box::new(Later::Question(question, min_revision))));
    };
    let done = done?;
    if done.answer.verdict == Verdict::NotFound {
        let held = desk.unknown(caller, question.client);
        return Ok(Told::Later(Box::new(Later::Held(done, held))));
    }
    Ok(Told::Now(about_one(caller, done)))
}

async fn one(desk: &Desk, caller: &Caller, later: Box<Later>) -> Result<Vec<u8>, Error> {
    let (done, held) = match *later {
        Later::Held(done, held) => (done, held),
        Later::Question(question, min_revision) => {
            let done = desk.ostiary.verify_key(caller, &question, min_revision).await?;
            let unknown = done.answer.verdict == Verdict::NotFound;
            (done, if unknown { desk.unknown(caller, question.client) } else { None })
        }
    };
    desk.hold_back(held).await;
    Ok(about_one(caller, done))
}

fn about_one(caller: &Caller, done: Done<Verification>) -> Vec<u8> {
    let Done { answer, revision } = done;
    let mut message = room(ONE_LENGTH);
    put_meta(&mut message, &caller.call.request_id, revision);
    put_verdict(&mut message, 2, answer);
    message
}

async fn many(
    desk: &Desk,
    caller: &Caller,
    wordings: impl ExactSizeIterator<Item = Wording<'_>>,
) -> Result<Vec<u8>, Error> {
    let request_id = &caller.call.request_id;
    // Answers are written as they come, which need not be their order; what stands before them is known last.
    let mut written = Vec::with_capacity(ONE_LENGTH * wordings.len());
    let put = |answer| {
        let start = written.len();
        nested_verdict(&mut written, 2, |written| match answer {
            Ok(answer) => put_verdict(written, 1, answer),
            Err(error) => put_message(written, 2, &status::as_data(&error, request_id)),
        });
        start..written.len()
    };
    let Done { answer: places, revision } = all_verified(desk, caller, wordings, put).await?;
    let mut message = room(META_LENGTH + written.len());
    put_meta(&mut message, request_id, revision);
    places.into_iter().for_each(|place| message.extend_from_slice(&written[place]));
    Ok(message)
}

/// Questions in a message. They are counted before room is made for them: a list of empty entries takes forty times as
/// much room as its bytes.
#[derive(Default)]
pub(super) struct Entries {
    questions: usize,
    /// The limits and tags of all questions.
    pub(super) listed: usize,
}

/// Counts the questions that a message has in this field. Where it can't be read it ends: whoever reads it will say so.
pub(super) fn entries(mut message: &[u8], questions: u32) -> Entries {
    let mut entries = Entries::default();
    while let Ok((field, kind)) = decode_key(&mut message) {
        if (field, kind) != (questions, WireType::LengthDelimited) {
            if skip_field(kind, field, &mut message, DecodeContext::default()).is_err() {
                break;
            }
            continue;
        }
        let length = decode_varint(&mut message).ok().and_then(|length| usize::try_from(length).ok());
        let Some((question, rest)) = length.and_then(|length| message.split_at_checked(length)) else { break };
        entries.questions += 1;
        entries.listed += lists(question);
        message = rest;
    }
    entries
}

/// How many limits and tags there are in a question.
fn lists(mut question: &[u8]) -> usize {
    let mut listed = 0;
    while let Ok((field, kind)) = decode_key(&mut question) {
        listed += usize::from([RATE_LIMITS, TAGS].contains(&field));
        if skip_field(kind, field, &mut question, DecodeContext::default()).is_err() {
            break;
        }
    }
    listed
}

/// The answer to lists that no question may have.
fn too_much_listed() -> Error {
    Error::field("rate_limits", format!("must have at most {LIMITS_MAX} entries, and tags at most {TAGS_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_before_room_is_made_for_them() {
        let counted = |batch: Vec<u8>| {
            let Entries { questions, listed } = entries(&batch, REQUESTS);
            (questions, listed)
        };
        assert_eq!(counted([0x0a, 0].repeat(1_001)), (1_001, 0));
        let limits = vec![pb::VerifyRateLimit::default(); 3];
        let question = pb::VerifyKeyRequest { rate_limits: limits, tags: vec![String::new(); 2], ..Default::default() };
        let batch = pb::BatchVerifyKeysRequest { requests: vec![question.clone(), question.clone()] };
        assert_eq!(counted(batch.encode_to_vec()), (2, 10));
        assert_eq!(lists(&question.encode_to_vec()), 5);
        assert_eq!(counted(vec![0x0a, 9]), (0, 0), "what can't be read is for others");
    }
}
