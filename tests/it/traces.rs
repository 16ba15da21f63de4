//! Whose trace a call is part of: in its line in the log, and, if that was built in, in a span that is sent.

use ostiary::pb::v1 as pb;
use prost::Message as _;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::harness::Client;
use crate::process::Place;

#[cfg(feature = "otlp")]
mod collector;

const WHO_AM_I: &str = "/ostiary.v1.RootKeyService/WhoAmI";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// A header that names that trace and that span.
fn traceparent() -> String {
    format!("00-{TRACE}-{SPAN}-01")
}

/// A call with these headers.
async fn call(client: &Client, request_id: &str, traceparent: Option<&str>) {
    let mut metadata = MetadataMap::new();
    let text = |text: &str| AsciiMetadataValue::try_from(text).unwrap();
    metadata.insert("x-request-id", text(request_id));
    if let Some(traceparent) = traceparent {
        metadata.insert("traceparent", text(traceparent));
    }
    let message = pb::WhoAmIRequest::default().encode_to_vec();
    client.raw(WHO_AM_I, message, metadata).await.unwrap();
}

#[tokio::test]
async fn the_trace_of_a_call_is_in_its_line_and_what_names_none_is_as_if_it_were_not_there() {
    for format in ["text", "json"] {
        let place = Place::new();
        let server = place.serve(&["--log-format", format]);
        let client = server.client(&place.first_root_key()).await;
        call(&client, "traced", Some(&traceparent())).await;
        call(&client, "untraced", None).await;
        call(&client, "misled", Some(&traceparent().to_uppercase())).await;
        let log = server.stop().stderr;
        let line = |id: &str| log.lines().find(|line| line.contains(id)).unwrap();
        assert!(line("traced").contains("trace_id") && line("traced").contains(TRACE), "{log}");
        assert!(!line("untraced").contains("trace_id") && !line("misled").contains("trace_id"), "{log}");
    }
}

#[cfg(not(feature = "otlp"))]
#[test]
fn without_the_feature_a_collector_is_refused_before_anything_is_touched() {
    let place = Place::new();
    let refused = place.serve_in_vain(&["--otlp-endpoint", "http://127.0.0.1:4317"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--features otlp"), "{refused:?}");
    assert!(!place.data().exists());
}
