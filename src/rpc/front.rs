//! The envelope of every call: its id, its deadline, its error in full, its line in the log.
//!
//! It stands outside of everything else, so that nothing a call meets, a panic included, escapes it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use crate::domain::id::{RequestId, RootKeyId};
use crate::error::Error;
use crate::service::Ostiary;
use crate::service::caller::Deadline;

use super::arriving::{Arriving, Room};
use super::gate;
use super::policy::{Door, Effect, Policy, door};
use super::proxies::TrustedProxies;
use super::seldom::Seldom;
use super::shedding::Load;
use super::standing::Standing;
use super::throttle::Throttle;
use super::timings::Timings;
use super::traces::{Spans, TraceId};
use super::{Services, status};

/// The header that carries the request id, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Characters of a path that are logged.
const METHOD_LENGTH_MAX: usize = 128;
/// Bytes of an answer that is told at once: whoever does not take it has nothing for it.
const SMALL: u64 = 4 << 10;
/// Characters of a request id that a caller may choose.
const REQUEST_ID_LENGTH_MAX: usize = 64;

/// Takes calls from a connection.
#[derive(Clone)]
pub struct Front {
    house: Arc<House>,
    peer: Option<IpAddr>,
    /// How the connection stands, if it has a place to lose.
    standing: Option<Arc<Standing>>,
}

/// What the fronts of all connections have in common.
struct House {
    services: Services,
    ostiary: Arc<Ostiary>,
    throttle: Throttle,
    proxies: TrustedProxies,
    load: Arc<Load>,
    room: Arc<Room>,
    timings: Timings,
    spans: Spans,
    /// Calls without a root key that there is.
    strangers: Seldom,
    /// Calls with one that is not good.
    acquaintances: Seldom,
}

impl Front {
    /// A front before these services, that lets in at most so many calls at a time.
    pub fn new(
        services: Services,
        ostiary: Arc<Ostiary>,
        proxies: TrustedProxies,
        calls_max: u32,
        spans: Spans,
    ) -> Self {
        let house = House {
            services,
            ostiary,
            throttle: Throttle::default(),
            proxies,
            load: Load::new(calls_max),
            room: Arc::default(),
            timings: Timings::default(),
            spans,
            strangers: Seldom::default(),
            acquaintances: Seldom::default(),
        };
        Self { house: Arc::new(house), peer: None, standing: None }
    }

    /// The same, for the calls of one connection, by the address of its other end if it has one.
    #[must_use]
    pub fn facing(&self, peer: Option<IpAddr>, standing: Arc<Standing>) -> Self {
        Self { house: Arc::clone(&self.house), peer, standing: Some(standing) }
    }

    /// How many calls there are and have been refused.
    pub fn load(&self) -> &Load {
        &self.house.load
    }

    /// How long calls have taken.
    pub fn timings(&self) -> &Timings {
        &self.house.timings
    }

    /// Says now and then how often somebody has called without being let in, and who that was last and why not.
    fn mention_refused(&self, error: &Error, remote: Option<IpAddr>) {
        let House { ostiary, strangers, acquaintances, .. } = &*self.house;
        let known = matches!(error, Error::Unauthenticated(why) if why.is_known());
        let seldom = if known { acquaintances } else { strangers };
        if let Some(refused) = seldom.count(ostiary.world().now()) {
            let reason = status::reason(error);
            let remote = remote.map(tracing::field::display);
            if known {
                tracing::warn!(
                    refused,
                    reason,
                    remote,
                    "calls were refused whose root key is known and not good, or not from there"
                );
            } else {
                tracing::warn!(refused, reason, remote, "calls were refused that showed no good root key");
            }
        }
    }

    async fn answer<B>(self, mut request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync + Unpin,
    {
        let House { services, ostiary, throttle, proxies, load, room, timings, spans, .. } = &*self.house;
        let stopwatch = ostiary.world().stopwatch();
        let door = door(request.uri().path());
        let name = door.name_of(request.uri().path());
        let request_id = request_id(request.headers(), || RequestId::from_bytes(ostiary.world().request(&stopwatch)));
        let now = || ostiary.world().now();
        let mut under_way = match load.enter(door, self.standing.as_ref(), now) {
            Ok(under_way) => under_way,
            // Not told in the log one by one: that would be work as well.
            Err(error) => return with_id(status::render(&error, &request_id).into_http(), &request_id),
        };
        let mut line = Line::begin(door, request.uri().path());
        let traced = spans.begin(request.headers(), name.text);
        let within = request.headers_mut().remove(GRPC_TIMEOUT).and_then(|value| timeout(&value));
        let deadline = within.map(|within| stopwatch.deadline(within));
        let guarded = matches!(door, Door::Guarded(_));
        let remote = self.peer.filter(|_| guarded).and_then(|peer| proxies.caller(peer, request.headers()));
        let mut request = request.map(|body| Arriving::new(body, door.messages(), Arc::clone(room)));
        let (root_key, counted) = (&mut line.root_key, &mut under_way);
        // Pinned where it lies: what a call needs in the worst case is large, and moving it about is what costs.
        let outcome = {
            let work = pin!(async {
                if let Door::Guarded(policy) = door {
                    let mut caller =
                        gate::recognise(ostiary, throttle, remote, policy, &request_id, request.headers()).await?;
                    if deadline.is_some() {
                        // An answer of many messages goes on when this is done with the call.
                        caller.call_mut().deadline = deadline;
                    }
                    *root_key = Some(caller.root_key().id);
                    if let Some(standing) = &self.standing {
                        standing.prove();
                    }
                    counted.of(&caller, now)?;
                    request.body_mut().of(caller.tally());
                    gate::check(ostiary, &caller, policy, request.headers())?;
                    services.answer(caller, request).await
                } else {
                    gate::keep_needed(request.headers_mut());
                    Ok(Box::pin(services.call(request)).await)
                }
            });
            AssertUnwindSafe(in_time(deadline, work)).catch_unwind().await
        };
        let outcome = outcome.unwrap_or_else(|_| Err(Error::Internal("a handler panicked".to_owned())));
        let (response, error) = match outcome {
            Ok(response) => with_details(response, door, &request_id),
            Err(error) => (status::render(&error, &request_id).into_http(), Some(error)),
        };
        let mut response = with_id(response, &request_id);
        // Whoever was not let in could have any number of lines.
        let refused = error.as_ref().filter(|error| guarded && line.root_key.is_none() && !error.is_fault());
        if let Some(error) = refused {
            self.mention_refused(error, remote);
        }
        if refused.is_some() || under_way.was_refused() {
            line.hush();
        }
        if error.is_none() && response.body().size_hint().upper().is_none_or(|bytes| bytes > SMALL) {
            response = response.map(|answer| under_way.until_told(answer, self.standing.as_ref()));
        }
        let (code, took) = (code_of(&response, door, error.as_ref()), stopwatch.elapsed());
        timings.add(name.number, code, took);
        line.write(&request_id, traced.id(), code, took, error.as_ref());
        traced.end(code, &request_id);
        response
    }
}

impl<B> Service<Request<B>> for Front
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync + Unpin,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        hyper::service::Service::call(self, request)
    }
}

/// The same for connections that come in from outside.
impl<B> hyper::service::Service<Request<B>> for Front
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync + Unpin,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { Ok(front.answer(request).await) })
    }
}

/// The caller's own id if it is fit to be one, else a new one.
fn request_id(headers: &HeaderMap, draw: impl FnOnce() -> RequestId) -> String {
    let fit = |id: &&str| {
        (1..=REQUEST_ID_LENGTH_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let own = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    own.filter(fit).map_or_else(|| draw().text(), str::to_owned)
}

/// How long a call may take: up to 8 digits and a unit, as gRPC over HTTP/2 defines it.
fn timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let fit = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| fit)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Does the work unless its time runs out first; what has begun by then is dropped. Without any time left nothing is
/// begun.
async fn in_time<T>(
    deadline: Option<Deadline>,
    work: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> Result<T, Error> {
    match deadline.map(Deadline::left) {
        None => work.await,
        Some(Duration::ZERO) => Err(Error::DeadlineExceeded),
        Some(left) => Box::pin(tokio::time::timeout(left, work)).await.unwrap_or(Err(Error::DeadlineExceeded)),
    }
}

/// The response with the id of its request.
fn with_id(mut response: Response<Body>, request_id: &str) -> Response<Body> {
    if let Ok(mut value) = HeaderValue::from_str(request_id) {
        // No two calls have the same: it is not worth a place in the table of headers that connections have.
        value.set_sensitive(true);
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The response with its error, if it is one, told in full.
fn with_details(mut response: Response<Body>, door: Door, request_id: &str) -> (Response<Body>, Option<Error>) {
    let failed = response.extensions_mut().remove::<Status>().or_else(|| {
        let status = Status::from_header_map(response.headers())?;
        (status.code() != Code::Ok).then_some(status)
    });
    let Some(failed) = failed.filter(|status| status.code() != Code::Ok) else { return (response, None) };
    if door.is_open() && failed.code() != Code::Unimplemented {
        // The standard services say what they have to say by their own rules.
        return (response, None);
    }
    let source = std::error::Error::source(&failed).and_then(|source| source.downcast_ref::<Error>());
    let error = source.cloned().unwrap_or_else(|| status::of_foreign(&failed));
    (status::render(&error, request_id).into_http(), Some(error))
}

/// The code that a response begins with.
fn code_of(response: &Response<Body>, door: Door, error: Option<&Error>) -> Code {
    if error.is_none() && !door.is_open() {
        // What has failed has been told in full, as an error.
        return Code::Ok;
    }
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

/// What the log says of a call.
struct Line {
    /// As much of the path as any method has: whoever makes one up does not fill the log.
    method: Cow<'static, str>,
    root_key: Option<RootKeyId>,
    /// Whether it is as frequent as what the callers do for their own.
    frequent: bool,
    /// Whether somebody will read it, even if all went well.
    told: bool,
}

impl Line {
    fn begin(door: Door, path: &str) -> Self {
        let method = match door {
            Door::Guarded(Policy { path, .. }) => Cow::Borrowed(path.trim_start_matches('/')),
            Door::Open { .. } | Door::Missing => {
                Cow::Owned(path.trim_start_matches('/').chars().take(METHOD_LENGTH_MAX).collect())
            }
        };
        let frequent = match door {
            Door::Guarded(policy) => matches!(policy.effect, Effect::Verify | Effect::Count),
            // Anybody can ask for health, and for what there is not, as often as they like.
            Door::Open { .. } | Door::Missing => true,
        };
        let told = !frequent || tracing::enabled!(tracing::Level::DEBUG);
        Self { method, root_key: None, frequent, told }
    }

    /// Not worth a line of its own.
    fn hush(&mut self) {
        self.frequent = true;
        self.told = tracing::enabled!(tracing::Level::DEBUG);
    }

    fn write(&self, request_id: &str, trace: Option<TraceId>, code: Code, took: Duration, error: Option<&Error>) {
        let fault = error.filter(|error| error.is_fault());
        let Self { method, root_key, frequent, told } = self;
        if !told && fault.is_none() {
            return;
        }
        let method = &**method;
        let root_key = root_key.map(|id| id.to_string()).unwrap_or_default();
        let code = format!("{code:?}");
        let reason = error.map(status::reason).unwrap_or_default();
        let trace_id = trace.map(tracing::field::display);
        let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match fault {
            Some(error) => {
                let cause = format!("{error:?}");
                tracing::error!(
                    request_id,
                    method,
                    code,
                    reason,
                    duration_us,
                    root_key,
                    trace_id,
                    cause,
                    "call failed"
                );
            }
            None if *frequent => {
                tracing::debug!(request_id, method, code, reason, duration_us, root_key, trace_id, "call");
            }
            None => tracing::info!(request_id, method, code, reason, duration_us, root_key, trace_id, "call"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let read = |text: &str| timeout(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for nonsense in ["", "m", "1", "123456789m", "-1S", "1x", "1 S"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_callers_request_id_is_adopted_only_if_it_is_fit() {
        let drawn = RequestId::FIRST;
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(id).unwrap());
            request_id(&headers, || drawn)
        };
        assert_eq!(with("job-7_a"), "job-7_a");
        for unfit in ["", "a b", "a/b", &"a".repeat(65)] {
            assert_eq!(with(unfit), drawn.to_string(), "{unfit}");
        }
    }
}
