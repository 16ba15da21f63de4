//! Spans of calls, for a collector of OpenTelemetry. They say what the log says of a call, and no more.

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tonic::Code;

use super::{Parent, TraceId};

/// Makes a span of each call, if somebody is to get them.
#[derive(Clone, Default)]
pub struct Spans(Option<SdkTracer>);

/// A call under way.
pub(super) struct Span(Option<opentelemetry_sdk::trace::Span>);

impl Spans {
    /// For whoever gets what this tracer makes.
    pub const fn to(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    pub(super) fn span(&self, parent: Option<Parent>, method: &str) -> Span {
        let Some(tracer) = &self.0 else { return Span(None) };
        let (service, name) = method.rsplit_once('/').unwrap_or(("", method));
        let builder = tracer.span_builder(method.to_owned()).with_kind(SpanKind::Server).with_attributes([
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", name.to_owned()),
        ]);
        let around = parent.map_or_else(Context::new, within);
        Span(Some(tracer.build_with_context(builder, &around)))
    }
}

/// What a span of a call from elsewhere lies in.
fn within(parent: Parent) -> Context {
    let Parent { trace, span, flags } = parent;
    let (trace, span) = (opentelemetry::trace::TraceId::from(trace.0), SpanId::from(span));
    let remote = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE);
    Context::new().with_remote_span_context(remote)
}

impl Span {
    pub(super) fn trace(&self) -> Option<TraceId> {
        let context = self.0.as_ref()?.span_context();
        context.is_valid().then(|| TraceId(u128::from_be_bytes(context.trace_id().to_bytes())))
    }

    pub(super) fn end(self, code: Code, request_id: &str) {
        let Some(mut span) = self.0 else { return };
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(i32::from(code))));
        span.set_attribute(KeyValue::new("ostiary.request_id", request_id.to_owned()));
        if is_fault(code) {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// Whether a code says that the server failed, by the conventions of OpenTelemetry for gRPC.
const fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
