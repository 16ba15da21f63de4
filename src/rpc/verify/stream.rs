//! `KeyService.StreamVerifyKeys`: any number of questions over one stream, answered as soon as each is.
//!
//! Those that have come already are looked at together.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::domain::capability::Capability;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::pb::v1::stream_verify_keys_response::Result as Outcome;
use crate::rpc::streams::{admissions, admitted_stream, answers};
use crate::rpc::{Desk, meta, status};
use crate::service::Revision;
use crate::service::caller::Caller;
use crate::service::usage::Bill;

use super::wire::{put_message, put_meta, put_text, put_verdict};
use super::{Answer, Asked, Item, LastQuery, TOGETHER, in_time, shown};

/// Questions of one stream that are waited for together; the next one is read once one of them is answered.
const AT_ONCE: usize = 256;
/// Characters of what joins an answer to its question.
const CORRELATION_LENGTH_MAX: usize = 255;
/// Bytes that an answer has, rarely more.
const ANSWER_LENGTH: usize = 384;

/// The answers to a stream.
pub(in crate::rpc) type Answers<M> = BoxStream<'static, Result<M, Status>>;

/// Answers the questions of a stream, each by the message that `write` makes of it.
pub(in crate::rpc) fn stream_verify_keys<M: Send + Unpin + 'static>(
    desk: &Desk,
    request: Request<Streaming<pb::StreamVerifyKeysRequest>>,
    write: fn(Answered) -> M,
) -> Result<Response<Answers<M>>, Status> {
    let (caller, messages) = admitted_stream(request)?;
    let admitted = admissions(desk, caller.clone(), Capability::VerifyKey, messages).boxed();
    let conversation = Conversation {
        desk: desk.clone(),
        admitted: Some(admitted),
        told: VecDeque::new(),
        waiting: FuturesUnordered::new(),
        end: None,
        last: LastQuery::default(),
    };
    Ok(answers(&caller, conversation.map(move |answered| answered.map(write))))
}

/// An answer that is ready to be told.
pub(in crate::rpc) struct Answered {
    caller: Arc<Caller>,
    correlation_id: String,
    answer: Result<Item, Error>,
    /// The state that it was given in.
    revision: Revision,
}

impl Answered {
    /// As a message.
    pub(in crate::rpc) fn message(self) -> pb::StreamVerifyKeysResponse {
        let Self { caller, correlation_id, answer, revision } = self;
        let outcome = match answer {
            Ok(Item { answer, .. }) => Outcome::Verdict(Box::new(shown(answer))),
            Err(error) => Outcome::Error(status::as_data(&error, &caller.call.request_id)),
        };
        pb::StreamVerifyKeysResponse { meta: meta(&caller, revision), correlation_id, result: Some(outcome) }
    }

    /// As the message's bytes.
    pub(in crate::rpc) fn bytes(self) -> Vec<u8> {
        let Self { caller, correlation_id, answer, revision } = self;
        let request_id = &caller.call.request_id;
        let mut message = Vec::with_capacity(ANSWER_LENGTH);
        put_meta(&mut message, request_id, revision);
        put_text(&mut message, 2, &correlation_id);
        match answer {
            Ok(Item { answer, .. }) => put_verdict(&mut message, 3, answer),
            Err(error) => put_message(&mut message, 4, &status::as_data(&error, request_id)),
        }
        message
    }
}

/// A question and who asks.
type Admitted = (Arc<Caller>, pb::StreamVerifyKeysRequest);

/// A question that has come, as far as it could be read.
struct Question {
    caller: Arc<Caller>,
    correlation_id: String,
    asked: Result<Asked, Error>,
}

/// Questions that come in, and those that are not answered yet.
struct Conversation {
    desk: Desk,
    /// None once it has ended.
    admitted: Option<BoxStream<'static, Result<Admitted, Error>>>,
    /// Answers that are there.
    told: VecDeque<Answered>,
    waiting: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// What ended it, if it ended badly. What came before is answered first: it may have been paid for.
    end: Option<Error>,
    last: LastQuery,
}

impl Stream for Conversation {
    type Item = Result<Answered, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(answered) = self.told.pop_front() {
            return Poll::Ready(Some(Ok(answered)));
        }
        if let Poll::Ready(Some(answered)) = self.waiting.poll_next_unpin(cx) {
            return Poll::Ready(Some(Ok(answered)));
        }
        loop {
            let come = self.come(cx);
            if come.is_empty() {
                break;
            }
            self.begin(come);
            if let Some(answered) = self.told.pop_front() {
                return Poll::Ready(Some(Ok(answered)));
            }
        }
        // Those that have just begun are polled for the first time here.
        match ready!(self.poll_waiting(cx)) {
            Some(answered) => Poll::Ready(Some(Ok(answered))),
            None if self.admitted.is_some() => Poll::Pending,
            None => Poll::Ready(self.end.take().map(Err)),
        }
    }
}

impl Conversation {
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answered>> {
        self.waiting.poll_next_unpin(cx)
    }

    /// Questions that have come, as many as are looked at together and may be waited for.
    fn come(&mut self, cx: &mut Context<'_>) -> Vec<Question> {
        let mut come = Vec::new();
        while come.len() < TOGETHER.min(AT_ONCE.saturating_sub(self.waiting.len()))
            && let Some(admitted) = &mut self.admitted
            && let Poll::Ready(next) = admitted.poll_next_unpin(cx)
        {
            match next {
                Some(Ok((caller, message))) => come.push(self.read(caller, message)),
                Some(Err(error)) => (self.end, self.admitted) = (Some(error), None),
                None => self.admitted = None,
            }
        }
        come
    }

    fn read(&mut self, caller: Arc<Caller>, message: pb::StreamVerifyKeysRequest) -> Question {
        let pb::StreamVerifyKeysRequest { mut correlation_id, request } = message;
        let asked = self.asked(&caller, &correlation_id, request);
        if let Some((end, _)) = correlation_id.char_indices().nth(CORRELATION_LENGTH_MAX) {
            correlation_id.truncate(end);
        }
        Question { caller, correlation_id, asked }
    }

    /// Answers questions at once, or puts them with those that wait.
    fn begin(&mut self, questions: Vec<Question>) {
        let asked =
            questions.iter().filter_map(|Question { caller, asked, .. }| Some((&**caller, asked.as_ref().ok()?)));
        let (sought, now) = self.desk.ostiary.approach(asked.map(|(caller, asked)| (caller, &asked.question)));
        let mut sought = sought.into_iter();
        for Question { caller, correlation_id, asked } in questions {
            match asked {
                Ok(asked) => {
                    let answer =
                        asked.answer(&self.desk, &mut Bill::of(&caller), sought.next().flatten().as_ref(), now);
                    self.tell(caller, correlation_id, answer);
                }
                Err(error) => self.tell(caller, correlation_id, Answer::Ready(Err(error))),
            }
        }
    }

    fn tell(&mut self, caller: Arc<Caller>, correlation_id: String, answer: Answer) {
        let desk = &self.desk;
        match answer {
            Answer::Ready(Ok(Item { held: Some(held), answer, revision })) => {
                let desk = desk.clone();
                self.waiting.push(Box::pin(async move {
                    desk.hold_back(Some(held)).await;
                    answered(&desk, caller, correlation_id, Ok(Item { answer, revision, held: None }))
                }));
            }
            Answer::Ready(answer) => self.told.push_back(answered(desk, caller, correlation_id, answer)),
            Answer::Pending(asked) => {
                let desk = desk.clone();
                self.waiting.push(Box::pin(async move {
                    let mut answer = in_time(&desk, &caller, asked).await;
                    if let Ok(item) = &mut answer {
                        desk.hold_back(item.held.take()).await;
                    }
                    answered(&desk, caller, correlation_id, answer)
                }));
            }
        }
    }

    fn asked(
        &mut self,
        caller: &Caller,
        correlation_id: &str,
        request: Option<pb::VerifyKeyRequest>,
    ) -> Result<Asked, Error> {
        // A text of so many bytes has no more characters.
        if correlation_id.len() > CORRELATION_LENGTH_MAX && correlation_id.chars().nth(CORRELATION_LENGTH_MAX).is_some()
        {
            let flaw = format!("must be at most {CORRELATION_LENGTH_MAX} characters");
            return Err(Error::field("correlation_id", flaw));
        }
        let request = request.ok_or_else(|| Error::field("request", "must be given"))?;
        self.desk.ostiary.count_call(caller)?;
        Asked::read(request, &mut self.last)
    }
}

fn answered(desk: &Desk, caller: Arc<Caller>, correlation_id: String, answer: Result<Item, Error>) -> Answered {
    let revision = answer.as_ref().map_or_else(|_| desk.ostiary.head(), |item| item.revision);
    Answered { caller, correlation_id, answer, revision }
}
