//! `KeyService.StreamVerifyKeys`: any number of questions over one stream, answered as soon as each is.
//!
//! Those that have come already are looked at together.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{Stream, StreamExt};
use tonic::{Response, Status};

use crate::domain::capability::Capability;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::pb::v1::stream_verify_keys_response::Result as Outcome;
use crate::rpc::streams::{Together, admissions_together, answers};
use crate::rpc::{Desk, meta, status};
use crate::service::Revision;
use crate::service::caller::Caller;
use crate::service::usage::Bill;
use crate::service::verify::Verification;

use super::questions::LastQuery;
use super::wording::Wording;
use super::{Answer, Asked, Item, TOGETHER, in_time, shown};

/// Questions of one stream that are waited for together; further ones are read once some of them are answered.
const AT_ONCE: usize = 256;
/// Characters of what joins an answer to its question.
const CORRELATION_LENGTH_MAX: usize = 255;

/// The answers to a stream.
pub(in crate::rpc) type Answers<M> = BoxStream<'static, Result<M, Status>>;

/// Answers the questions of a stream, as `T` tells them.
pub(in crate::rpc) fn stream_verify_keys<T: Telling>(
    desk: &Desk,
    caller: Caller,
    messages: impl Stream<Item = Result<Said, Status>> + Send + Unpin + 'static,
) -> Response<Answers<T::Piece>> {
    let admitted = admissions_together(desk, caller.clone(), Capability::VerifyKey, messages, TOGETHER).boxed();
    let conversation = Conversation {
        desk: desk.clone(),
        admitted: Some(admitted),
        told: T::default(),
        waiting: FuturesUnordered::new(),
        end: None,
    };
    answers(&caller, conversation)
}

/// A question of a stream, as far as it could be read.
pub(in crate::rpc) struct Said {
    correlation_id: String,
    /// What is wrong with the message comes before its question is counted, what is wrong with the question after.
    asked: Result<Result<Asked, Error>, Error>,
}

impl Said {
    /// The question in a message.
    pub(in crate::rpc) fn of(message: pb::StreamVerifyKeysRequest, last: &mut LastQuery) -> Self {
        let pb::StreamVerifyKeysRequest { correlation_id, mut request } = message;
        Self::read(&correlation_id, request.as_mut().map(Wording::of), last)
    }

    pub(super) fn read(correlation_id: &str, wording: Option<Wording<'_>>, last: &mut LastQuery) -> Self {
        // A text of so many bytes has no more characters.
        if correlation_id.len() > CORRELATION_LENGTH_MAX
            && let Some((end, _)) = correlation_id.char_indices().nth(CORRELATION_LENGTH_MAX)
        {
            let flaw = format!("must be at most {CORRELATION_LENGTH_MAX} characters");
            let asked = Err(Error::field("correlation_id", flaw));
            return Self { correlation_id: correlation_id[..end].to_owned(), asked };
        }
        let wording = wording.ok_or_else(|| Error::field("request", "must be given"));
        let asked = wording.map(|wording| Asked::read(wording, last));
        Self { correlation_id: correlation_id.to_owned(), asked }
    }
}

/// An answer that is ready to be told.
pub(in crate::rpc) struct Answered {
    pub(super) correlation_id: String,
    pub(super) answer: Result<Verification, Error>,
    /// The state that it was given in.
    pub(super) revision: Revision,
}

/// Answers as they are told.
pub(in crate::rpc) trait Telling: Default + Send + Unpin + 'static {
    /// What is told at a time.
    type Piece: Send + 'static;

    /// Adds an answer to what is to be told.
    fn put(&mut self, caller: &Caller, answered: Answered);

    /// Whether there is enough for a piece.
    fn is_enough(&self) -> bool;

    /// What is to be told next, if there is anything.
    fn take(&mut self) -> Option<Self::Piece>;
}

/// As the generated messages.
#[derive(Default)]
pub(in crate::rpc) struct Messages(VecDeque<pb::StreamVerifyKeysResponse>);

impl Telling for Messages {
    type Piece = pb::StreamVerifyKeysResponse;

    fn put(&mut self, caller: &Caller, answered: Answered) {
        let Answered { correlation_id, answer, revision } = answered;
        let outcome = match answer {
            Ok(answer) => Outcome::Verdict(Box::new(shown(answer))),
            Err(error) => Outcome::Error(status::as_data(&error, &caller.call.request_id)),
        };
        let meta = meta(caller, revision);
        self.0.push_back(pb::StreamVerifyKeysResponse { meta, correlation_id, result: Some(outcome) });
    }

    fn is_enough(&self) -> bool {
        !self.0.is_empty()
    }

    fn take(&mut self) -> Option<Self::Piece> {
        self.0.pop_front()
    }
}

/// Questions that come in, and those that are not answered yet.
struct Conversation<T> {
    desk: Desk,
    /// None once it has ended.
    admitted: Option<BoxStream<'static, Result<Together<Said>, Error>>>,
    /// Answers that are there.
    told: T,
    waiting: FuturesUnordered<BoxFuture<'static, (Arc<Caller>, Answered)>>,
    /// What ended it, if it ended badly. What came before is answered first: it may have been paid for.
    end: Option<Error>,
}

impl<T: Telling> Stream for Conversation<T> {
    type Item = Result<T::Piece, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.told.is_enough() {
            // Those that have just begun are polled for the first time here.
            if let Poll::Ready(Some((caller, answered))) = this.waiting.poll_next_unpin(cx) {
                this.told.put(&caller, answered);
            } else if let Some((caller, come)) = this.come(cx) {
                this.begin(&caller, come);
            } else {
                break;
            }
        }
        match this.told.take() {
            Some(piece) => Poll::Ready(Some(Ok(piece))),
            None if this.admitted.is_some() || !this.waiting.is_empty() => Poll::Pending,
            None => Poll::Ready(this.end.take().map(Err)),
        }
    }
}

impl<T: Telling> Conversation<T> {
    /// Questions that have come, if as many as are looked at together may be waited for.
    fn come(&mut self, cx: &mut Context<'_>) -> Option<Together<Said>> {
        if self.waiting.len() + TOGETHER > AT_ONCE {
            return None;
        }
        match self.admitted.as_mut()?.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(admitted))) => Some(admitted),
            Poll::Ready(Some(Err(error))) => {
                self.close(Some(error));
                None
            }
            Poll::Ready(None) => {
                self.close(None);
                None
            }
            Poll::Pending => None,
        }
    }

    /// No more questions come.
    fn close(&mut self, end: Option<Error>) {
        (self.end, self.admitted) = (end, None);
    }

    /// Answers questions at once, or puts them with those that wait.
    fn begin(&mut self, caller: &Arc<Caller>, come: Vec<Result<Said, Status>>) {
        let mut questions = Vec::with_capacity(come.len());
        for said in come {
            match said {
                Ok(Said { correlation_id, asked }) => {
                    let counted = asked.and_then(|asked| self.desk.ostiary.count_call(caller).and(asked));
                    questions.push((correlation_id, counted));
                }
                Err(status) => self.close(Some(status::of_foreign(&status))),
            }
        }
        let asked = questions.iter().filter_map(|(_, asked)| Some((&**caller, &asked.as_ref().ok()?.question)));
        let (remembered, now) = self.desk.ostiary.remembered(asked);
        let (mut remembered, mut bill) = (remembered.iter(), Bill::of(caller));
        for (correlation_id, asked) in questions {
            let answer = match asked {
                Ok(asked) => asked.answer(&self.desk, &mut bill, remembered.next(), now),
                Err(error) => Answer::Ready(Err(error)),
            };
            self.tell(caller, correlation_id, answer);
        }
    }

    fn tell(&mut self, caller: &Arc<Caller>, correlation_id: String, answer: Answer) {
        match answer {
            Answer::Ready(Ok(Item { held: Some(held), answer, revision })) => {
                let (desk, caller) = (self.desk.clone(), Arc::clone(caller));
                self.waiting.push(Box::pin(async move {
                    desk.hold_back(Some(held)).await;
                    (caller, Answered { correlation_id, answer: Ok(answer), revision })
                }));
            }
            Answer::Ready(answer) => self.told.put(caller, answered(&self.desk, correlation_id, answer)),
            Answer::Pending(asked) => {
                let (desk, caller) = (self.desk.clone(), Arc::clone(caller));
                self.waiting.push(Box::pin(async move {
                    let mut answer = in_time(&desk, &caller, asked).await;
                    if let Ok(item) = &mut answer {
                        desk.hold_back(item.held.take()).await;
                    }
                    let answered = answered(&desk, correlation_id, answer);
                    (caller, answered)
                }));
            }
        }
    }
}

fn answered(desk: &Desk, correlation_id: String, answer: Result<Item, Error>) -> Answered {
    match answer {
        Ok(Item { answer, revision, held: _ }) => Answered { correlation_id, answer: Ok(answer), revision },
        Err(error) => Answered { correlation_id, answer: Err(error), revision: desk.ostiary.head() },
    }
}
