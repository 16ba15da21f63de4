//! Calls of many messages: whoever has opened a stream is let in anew with each message, and looked at while silent.
//!
//! The front tells errors in full only until a call begins to answer; what ends a stream later is told here alike.

use std::sync::Arc;
use std::time::Duration;

use futures::future::ready;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::capability::Capability;
use crate::domain::time::{Expiry, Timestamp};
use crate::error::Error;
use crate::service::Ostiary;
use crate::service::caller::Caller;

use super::{Desk, status};

/// How often the caller of a silent stream is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Messages that are looked at together, with their caller as they are then.
pub(super) type Together<M> = (Arc<Caller>, Vec<Result<M, Status>>);

/// Who is asking, and the stream of what. Messages of a stream are not remembered under an idempotency key.
pub(super) fn admitted_stream<M>(request: Request<Streaming<M>>) -> Result<(Caller, Streaming<M>), Status> {
    let (_, mut extensions, messages) = request.into_parts();
    let mut caller: Caller =
        extensions.remove().ok_or_else(|| Error::Internal("a call came past the gate".to_owned()))?;
    if caller.call.idempotency.is_some() {
        caller.call_mut().idempotency = None;
    }
    Ok((caller, messages))
}

/// Messages, each with its caller as they are when it comes.
///
/// It ends with the error that a new call of the caller would get as soon as that is one, between two messages too;
/// and with [`Error::ShuttingDown`] when the server closes. Nothing comes after an error.
pub(super) fn admissions<M, S>(
    desk: &Desk,
    caller: Caller,
    capability: Capability,
    messages: S,
) -> impl Stream<Item = Result<(Arc<Caller>, M), Error>> + Send + use<M, S>
where
    M: Send,
    S: Stream<Item = Result<M, Status>> + Send + Unpin,
{
    watched(desk, caller, capability, until_error(messages)).map(|admitted| {
        let (caller, message) = admitted?;
        let message = message.map_err(|status| status::of_foreign(&status))?;
        Ok((caller, message))
    })
}

/// The same for up to so many of the messages that have come, which are looked at together. If one could not be read, that
/// is the last that comes.
pub(super) fn admissions_together<M, S>(
    desk: &Desk,
    caller: Caller,
    capability: Capability,
    messages: S,
    most: usize,
) -> impl Stream<Item = Result<Together<M>, Error>> + Send + use<M, S>
where
    M: Send,
    S: Stream<Item = Result<M, Status>> + Send + Unpin,
{
    watched(desk, caller, capability, until_error(messages).ready_chunks(most))
}

/// Messages up to the first that can't be read. What a stream of tonic's gives after that begins somewhere within it, where
/// whoever has written it may have put something that looks like a message.
fn until_error<M, S>(messages: S) -> impl Stream<Item = Result<M, Status>> + Send + Unpin + use<M, S>
where
    M: Send,
    S: Stream<Item = Result<M, Status>> + Send + Unpin,
{
    messages.scan(false, |failed, message| {
        let told = (!*failed).then_some(message);
        *failed = matches!(told, Some(Err(_)));
        ready(told)
    })
}

fn watched<S>(
    desk: &Desk,
    caller: Caller,
    capability: Capability,
    messages: S,
) -> impl Stream<Item = Result<(Arc<Caller>, S::Item), Error>> + Send + use<S>
where
    S: Stream<Item: Send> + Send + Unpin,
{
    let Desk { ostiary, closing, .. } = desk.clone();
    let caller = Arc::new(caller);
    stream::try_unfold(Watch { ostiary, closing, caller, capability, messages }, |mut watch| async move {
        let message = watch.next().await?;
        Ok(message.map(|message| ((Arc::clone(&watch.caller), message), watch)))
    })
}

/// The answer to a stream, within the time that its caller waits. The first error is its status, in full.
pub(super) fn answers<M: Send + 'static>(
    caller: &Caller,
    answers: impl Stream<Item = Result<M, Error>> + Send + 'static,
) -> Response<BoxStream<'static, Result<M, Status>>> {
    let request_id = caller.call.request_id.clone();
    let root_key = caller.root_key().id.to_string();
    let answers = match caller.call.deadline {
        Some(deadline) => within(deadline.left(), answers).left_stream(),
        None => answers.right_stream(),
    };
    let told = answers.scan(false, move |ended, answer| {
        let told = (!*ended).then(|| answer.map_err(|error| told(&error, &request_id, &root_key)));
        *ended = matches!(told, Some(Err(_)));
        ready(told)
    });
    Response::new(told.boxed())
}

/// Answers, and an error when the time for them is over.
fn within<M>(
    left: Duration,
    answers: impl Stream<Item = Result<M, Error>> + Send,
) -> impl Stream<Item = Result<M, Error>> + Send
where
    M: Send,
{
    let all = answers.map(Some).chain(stream::once(ready(None)));
    let over = tokio::time::sleep(left).map(|()| Some(Err(Error::DeadlineExceeded))).into_stream();
    stream::select(all, over).take_while(|answer| ready(answer.is_some())).filter_map(ready)
}

/// What ends a stream, as its caller gets it.
fn told(error: &Error, request_id: &str, root_key: &str) -> Status {
    let reason = status::reason(error);
    if error.is_fault() {
        let cause = format!("{error:?}");
        tracing::error!(request_id, reason, root_key, cause, "stream failed");
    } else {
        tracing::info!(request_id, reason, root_key, "stream ended");
    }
    status::render(error, request_id)
}

/// A stream, and who has opened it.
struct Watch<S> {
    ostiary: Arc<Ostiary>,
    closing: CancellationToken,
    caller: Arc<Caller>,
    capability: Capability,
    messages: S,
}

impl<S: Stream + Unpin> Watch<S> {
    /// The next message, once its caller has been let in for it.
    async fn next(&mut self) -> Result<Option<S::Item>, Error> {
        loop {
            if self.closing.is_cancelled() {
                return Err(Error::ShuttingDown);
            }
            // What has come already is taken without setting any clock.
            if let Some(message) = self.messages.next().now_or_never() {
                return self.admit(message).await;
            }
            let look = self.next_look();
            let message = tokio::select! {
                biased;
                () = self.closing.cancelled() => return Err(Error::ShuttingDown),
                message = self.messages.next() => Some(message),
                () = self.ostiary.world().wait_until(look) => None,
            };
            match message {
                None => {
                    let changed = self.ostiary.look_again(&self.caller, self.capability).await?;
                    self.now_as(changed);
                }
                Some(message) => return self.admit(message).await,
            }
        }
    }

    /// A message, once its caller has been let in for it.
    async fn admit(&mut self, message: Option<S::Item>) -> Result<Option<S::Item>, Error> {
        let Some(message) = message else { return Ok(None) };
        let changed = self.ostiary.readmit(&self.caller, self.capability).await?;
        self.now_as(changed);
        Ok(Some(message))
    }

    fn now_as(&mut self, changed: Option<Caller>) {
        if let Some(changed) = changed {
            self.caller = Arc::new(changed);
        }
    }

    /// When to look at the caller if nothing comes: soon, and at the end of the root key's life.
    fn next_look(&self) -> Timestamp {
        let soon = self.ostiary.world().now().after(LOOK_EVERY);
        match self.caller.root_key().expiry {
            Expiry::At(end) => end.min(soon),
            Expiry::Never => soon,
        }
    }
}
