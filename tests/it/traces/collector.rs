//! A tiny collector of OpenTelemetry, and what it gets.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{SPAN, TRACE, call, traceparent};
use crate::harness::{Client, refusal, root_key};
use crate::process::Place;

// As much of `opentelemetry.proto.collector.trace.v1` as is looked at.

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<OfResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<OfScope>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

/// `SPAN_KIND_SERVER`.
const SERVER: i32 = 2;

/// The value of an attribute, as text.
fn of(attributes: &[Attribute], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone());
    let Value { text, number } = value.unwrap_or_default();
    text.or(number.map(|number| number.to_string())).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Collects what is sent there, byte for byte.
async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<Bytes>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let sender = sender.clone();
                async move {
                    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
                    let frame = request.into_body().collect().await.unwrap().to_bytes();
                    // Nobody listens once the test is over.
                    let _ = sender.send(frame.slice(5..));
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async { Some(Ok(trailers)) });
                    let response = Response::builder().header("content-type", "application/grpc").body(body);
                    Ok::<_, Infallible>(response.unwrap())
                }
            });
            let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, receiver)
}

/// What is sent by a server until it has stopped, whose calls are made in between.
async fn sent(calls: impl AsyncFn(&Client)) -> (Vec<Bytes>, String) {
    let (address, mut receiver) = collector().await;
    let place = Place::new();
    let endpoint = format!("http://{address}");
    let server = place.serve(&["--otlp-endpoint", &endpoint]);
    let secret = place.first_root_key();
    calls(&server.client(&secret).await).await;
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    let mut all = Vec::new();
    while let Ok(sent) = receiver.try_recv() {
        all.push(sent);
    }
    (all, secret)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_is_a_span_within_what_it_is_part_of_and_a_stop_sends_the_last() {
    let calls = async |client: &Client| {
        call(client, "traced", Some(&traceparent())).await;
        call(client, "untraced", None).await;
        assert_eq!(refusal(client.root_keys().create_root_key(root_key("", &[])).await).1, "FIELD_INVALID");
    };
    let (all, secret) = sent(calls).await;
    let resources: Vec<OfResource> =
        all.iter().flat_map(|bytes| Export::decode(bytes.clone()).unwrap().resource_spans).collect();
    assert!(resources.iter().all(|of| of_resource(of) == "ostiary"));
    let spans: Vec<Span> = resources.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect();
    let span = |id: &str| spans.iter().find(|span| of(&span.attributes, "ostiary.request_id") == id).unwrap();
    let traced = span("traced");
    assert_eq!((hex(&traced.trace_id).as_str(), hex(&traced.parent_span_id).as_str()), (TRACE, SPAN));
    assert_eq!((traced.name.as_str(), traced.kind), ("ostiary.v1.RootKeyService/WhoAmI", SERVER));
    let told = |key| of(&traced.attributes, key);
    assert_eq!((told("rpc.system"), told("rpc.service")), ("grpc".into(), "ostiary.v1.RootKeyService".into()));
    assert_eq!((told("rpc.method"), told("rpc.grpc.status_code")), ("WhoAmI".into(), "0".into()));
    let untraced = span("untraced");
    assert!(untraced.parent_span_id.is_empty() && hex(&untraced.trace_id) != TRACE);
    assert!(spans.iter().any(|span| of(&span.attributes, "rpc.grpc.status_code") == "3"), "{spans:?}");
    assert!(!all.iter().any(|bytes| bytes.windows(secret.len()).any(|part| part == secret.as_bytes())));
}

fn of_resource(of_resource: &OfResource) -> String {
    of(&of_resource.resource.as_ref().unwrap().attributes, "service.name")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_record_its_trace_is_followed_in_that() {
    let calls = async |client: &Client| call(client, "quiet", Some(&traceparent().replace("-01", "-00"))).await;
    let (all, _) = sent(calls).await;
    assert!(!all.iter().any(|bytes| String::from_utf8_lossy(bytes).contains("quiet")));
}

#[test]
fn a_collector_that_is_not_there_keeps_nobody_waiting_and_is_told_in_the_log() {
    let place = Place::new();
    // Nothing listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = place.serve(&["--otlp-endpoint", &format!("http://{free}")]);
    let secret = place.first_root_key();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { call(&server.client(&secret).await, "alone", None).await });
    let ended = server.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("spans can't be sent"), "{ended:?}");
}
