//! Many questions at once: in one call, and over one stream.

use std::collections::BTreeMap;

use futures::StreamExt;
use ostiary::pb::v1 as pb;
use pb::VerificationCode as Code;
use pb::batch_verify_keys_result::Result as Outcome;
use pb::stream_verify_keys_response::Result as Answer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code as Grpc;

use super::about;
use crate::harness::{Client, House, fields, refusal};

impl Client {
    async fn batch(&self, requests: Vec<pb::VerifyKeyRequest>) -> Vec<Outcome> {
        let request = pb::BatchVerifyKeysRequest { requests };
        let response = self.keys().batch_verify_keys(request).await.unwrap().into_inner();
        assert!(response.meta.is_some());
        response.results.into_iter().map(|result| result.result.unwrap()).collect()
    }

    /// A stream of questions, and its answers.
    async fn conversation(
        &self,
    ) -> (mpsc::Sender<pb::StreamVerifyKeysRequest>, tonic::Streaming<pb::StreamVerifyKeysResponse>) {
        let (questions, receiver) = mpsc::channel(300);
        let answers = self.keys().stream_verify_keys(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        (questions, answers)
    }
}

fn code(outcome: &Outcome) -> Code {
    match outcome {
        Outcome::Verdict(verdict) => verdict.code(),
        Outcome::Error(error) => panic!("{error:?}"),
    }
}

fn asked(correlation_id: &str, request: pb::VerifyKeyRequest) -> pb::StreamVerifyKeysRequest {
    pb::StreamVerifyKeysRequest { correlation_id: correlation_id.into(), request: Some(request) }
}

#[tokio::test]
async fn a_batch_is_answered_in_order_each_question_for_itself() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (_, good) = client.plain_key(&api, "good").await;
    let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), enabled: Some(false), ..Default::default() };
    let (_, disabled) = client.key(request).await;
    let malformed = pb::VerifyKeyRequest { permissions: Some("(".into()), ..about(&good) };
    let full = pb::VerifyKeyRequest { view: pb::VerificationView::Full.into(), ..about(&good) };
    let results =
        client.batch(vec![about(&good), about("unknown"), malformed, about(&disabled), full, about(&good)]).await;
    assert_eq!((code(&results[0]), code(&results[1])), (Code::Valid, Code::NotFound));
    assert_eq!((code(&results[3]), code(&results[5])), (Code::Disabled, Code::Valid));
    for (place, words) in [(2, "permissions"), (4, "view")] {
        let Outcome::Error(error) = &results[place] else { panic!("{place}") };
        assert_eq!(error.code, Grpc::InvalidArgument as i32);
        assert!(error.message.starts_with(words) && !error.details.is_empty(), "{error:?}");
    }
}

#[tokio::test]
async fn each_answer_is_about_the_key_that_was_asked_about_however_many_are_looked_at_together() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let mut keys = Vec::new();
    for number in 0..40 {
        let (key, secret) = client.plain_key(&api, &number.to_string()).await;
        keys.push((key.key_id, secret));
    }
    // Of the first round nothing is remembered; of the second all is, and some questions can't be read.
    for (round, faulty) in [(0, 7), (1, 3), (2, 1_000)] {
        let question = |(place, (_, secret)): (usize, &(String, String))| {
            let permissions = (place % faulty == 1).then(|| "(".to_owned());
            pb::VerifyKeyRequest { permissions, ..about(secret) }
        };
        let asked = keys.iter().chain(keys.iter().rev()).enumerate();
        let expected: Vec<_> = keys.iter().chain(keys.iter().rev()).map(|(id, _)| id.clone()).collect();
        let results = client.batch(asked.map(question).collect()).await;
        for (place, (result, id)) in results.iter().zip(&expected).enumerate() {
            match result {
                Outcome::Verdict(verdict) => assert_eq!(verdict.key_id.as_ref(), Some(id), "{place} of round {round}"),
                Outcome::Error(_) => assert_eq!(place % faulty, 1, "{place} of round {round}"),
            }
        }
        assert_eq!(results.len(), 80);
    }
}

#[tokio::test]
async fn a_batch_has_1_to_1000_questions() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    for number in [0, 1_001] {
        let request = pb::BatchVerifyKeysRequest { requests: vec![about("x"); number] };
        assert_eq!(fields(&client.keys().batch_verify_keys(request).await.unwrap_err()), ["requests"]);
    }
    assert!(client.batch(vec![about("x"); 1_000]).await.iter().all(|result| code(result) == Code::NotFound));
}

#[tokio::test]
async fn a_batch_spends_no_more_than_there_is() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let credits = Some(pb::Credits { remaining: Some(150), refill: None });
    let (_, secret) = client.key(pb::CreateKeyRequest { api_id: api.api_id, credits, ..Default::default() }).await;
    let results = client.batch(vec![about(&secret); 200]).await;
    assert_eq!(results.iter().filter(|result| code(result) == Code::Valid).count(), 150);
    assert_eq!(results.iter().filter(|result| code(result) == Code::UsageExceeded).count(), 50);
}

#[tokio::test]
async fn a_stream_answers_every_question_and_ends_when_the_caller_does() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (_, good) = client.plain_key(&api, "good").await;
    let (questions, answers) = client.conversation().await;
    for number in 0..300 {
        let secret = if number % 2 == 0 { good.as_str() } else { "unknown" };
        questions.send(asked(&number.to_string(), about(secret))).await.unwrap();
    }
    questions.send(asked(&"x".repeat(256), about(&good))).await.unwrap();
    questions.send(pb::StreamVerifyKeysRequest { correlation_id: "empty".into(), request: None }).await.unwrap();
    drop(questions);
    let answers: BTreeMap<String, Answer> = answers
        .map(|answer| answer.unwrap())
        .inspect(|answer| assert!(answer.meta.is_some()))
        .map(|answer| (answer.correlation_id, answer.result.unwrap()))
        .collect()
        .await;
    assert_eq!(answers.len(), 302);
    for number in 0..300 {
        let Answer::Verdict(verdict) = &answers[&number.to_string()] else { panic!("{number}") };
        assert_eq!(verdict.code(), if number % 2 == 0 { Code::Valid } else { Code::NotFound });
    }
    for (correlation_id, field) in [("x".repeat(255), "correlation_id"), ("empty".into(), "request")] {
        let Answer::Error(error) = &answers[&correlation_id] else { panic!("{correlation_id}") };
        assert!(error.message.starts_with(field), "{error:?}");
    }
}

#[tokio::test]
async fn a_stream_ends_with_what_a_new_call_would_get_once_its_root_key_is_deleted() {
    let house = House::in_memory().await;
    let operator = house.operator().await;
    for silent in [false, true] {
        let (root_key, secret) = operator.root_key("backend", &["apis.*.verify_key"]).await;
        let client = house.client(&secret).await;
        let (questions, mut answers) = client.conversation().await;
        questions.send(asked("1", about("x"))).await.unwrap();
        assert!(answers.next().await.unwrap().is_ok());
        let request = pb::DeleteRootKeyRequest { root_key_id: root_key.root_key_id, ..Default::default() };
        operator.root_keys().delete_root_key(request).await.unwrap();
        if silent {
            house.pass(1_000);
        } else {
            questions.send(asked("2", about("x"))).await.unwrap();
        }
        let ended = answers.next().await.unwrap().unwrap_err();
        let new = client.keys().verify_key(about("x")).await;
        assert_eq!((ended.code(), crate::harness::reason(&ended)), refusal(new));
        assert!(answers.next().await.is_none());
    }
}
