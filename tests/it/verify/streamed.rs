//! Streams of questions as bytes: many in a frame, and what can't be read among them.

use std::collections::BTreeSet;

use ostiary::pb::v1 as pb;
use pb::VerificationCode as Code;
use pb::stream_verify_keys_response::Result as Answer;
use prost::Message;
use tonic::Status;

use super::about;
use crate::errors::wire::in_pieces;
use crate::harness::{Client, House, reason};

const STREAM: &str = "/ostiary.v1.KeyService/StreamVerifyKeys";

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], u32::try_from(message.len()).unwrap().to_be_bytes().as_slice(), message].concat()
}

fn question(correlation_id: &str, secret: &str) -> Vec<u8> {
    let request = Some(about(secret));
    framed(&pb::StreamVerifyKeysRequest { correlation_id: correlation_id.to_owned(), request }.encode_to_vec())
}

/// The answers to a stream of one piece, each by what joins it to its question, and its end.
async fn answers(house: &House, piece: Vec<u8>) -> (Vec<(String, Answer)>, Status) {
    let (bytes, status) = in_pieces(house, STREAM, &[], vec![piece]).await;
    let mut left = bytes.as_slice();
    let mut answers = Vec::new();
    while let Some((prefix, rest)) = left.split_first_chunk::<5>() {
        let [compressed, length @ ..] = *prefix;
        assert_eq!(compressed, 0);
        let (message, rest) = rest.split_at(u32::from_be_bytes(length).try_into().unwrap());
        let answer = pb::StreamVerifyKeysResponse::decode(message).unwrap();
        assert!(answer.meta.is_some_and(|meta| !meta.revision.is_empty()));
        answers.push((answer.correlation_id, answer.result.unwrap()));
        left = rest;
    }
    assert!(left.is_empty());
    (answers, status)
}

/// A key with so many credits.
async fn key_with_credits(client: &Client, credits: i64) -> String {
    let api_id = client.api("documents").await.api_id;
    let credits = Some(pb::Credits { remaining: Some(credits), refill: None });
    client.key(pb::CreateKeyRequest { api_id, credits, ..Default::default() }).await.1
}

fn code(answer: &Answer) -> Code {
    match answer {
        Answer::Verdict(verdict) => verdict.code(),
        Answer::Error(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn questions_that_come_in_one_frame_are_answered_each_once_and_the_end_is_good() {
    const QUESTIONS: usize = 700;
    let house = House::in_memory().await;
    let client = house.operator().await;
    let secret = key_with_credits(&client, 600).await;
    let frames: Vec<Vec<u8>> = (0..QUESTIONS).map(|number| question(&number.to_string(), &secret)).collect();
    let (answers, status) = answers(&house, frames.concat()).await;
    assert_eq!(status.code(), tonic::Code::Ok, "{status:?}");
    let different: BTreeSet<&String> = answers.iter().map(|(correlation_id, _)| correlation_id).collect();
    assert_eq!((answers.len(), different.len()), (QUESTIONS, QUESTIONS));
    let of = |wanted| answers.iter().filter(|(_, answer)| code(answer) == wanted).count();
    assert_eq!((of(Code::Valid), of(Code::UsageExceeded)), (600, 100));
}

#[tokio::test]
async fn a_message_that_can_not_be_read_ends_the_stream_and_nothing_within_or_behind_it_is_a_question() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let secret = key_with_credits(&client, 100).await;
    let hidden = question("hidden", &secret);
    let too_large = [&[0, 0xff, 0xff, 0xff, 0xff], hidden.as_slice()].concat();
    let compressed = [&[1, 0, 0, 0, 9], hidden.as_slice()].concat();
    let no_flag = [&[7], hidden.as_slice()].concat();
    // A text that is longer than its message, and a message of too many fields, which begin with a good question.
    let cut_short = framed(&[&[0x0a, 0x7f], hidden.as_slice()].concat());
    let too_much = framed(&[&[0x0a, 0].repeat(20_000), hidden.as_slice()].concat());
    let unreadable = [
        (too_large, "MESSAGE_TOO_LARGE"),
        (compressed, "FIELD_INVALID"),
        (no_flag, "FIELD_INVALID"),
        (cut_short, "FIELD_INVALID"),
        (too_much, "FIELD_INVALID"),
    ];
    for (number, (unreadable, expected)) in unreadable.into_iter().enumerate() {
        let piece = [question("before", &secret), unreadable, question("behind", &secret)].concat();
        let (answers, status) = answers(&house, piece).await;
        let told: Vec<_> = answers.iter().map(|(correlation_id, answer)| (&**correlation_id, code(answer))).collect();
        assert_eq!(told, [("before", Code::Valid)], "{number}");
        assert_eq!(reason(&status), expected, "{number}: {status:?}");
        let left = client.verdict(&secret, None).await.remaining_credits;
        assert_eq!(left, Some(100 - 2 * (i64::try_from(number).unwrap() + 1)), "{number}");
    }
}
