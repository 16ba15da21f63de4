//! No spans: ostiary was built without the feature `otlp`.

use tonic::Code;

use super::{Parent, TraceId};

/// Makes a span of each call, which nobody gets.
#[derive(Clone, Default)]
pub struct Spans(());

/// A call under way.
pub(super) struct Span;

impl Spans {
    pub(super) const fn span(&self, _parent: Option<Parent>, _method: &str) -> Span {
        Span
    }
}

impl Span {
    pub(super) const fn trace(&self) -> Option<TraceId> {
        None
    }

    pub(super) const fn end(self, _code: Code, _request_id: &str) {}
}
