//! Whose trace a call is part of, as [W3C Trace Context](https://www.w3.org/TR/trace-context/) has it.
//!
//! It is in the call's line in the log, and, if ostiary was built with the feature `otlp`, in the span that is sent to a
//! collector. It decides nothing.

use std::fmt;

use http::HeaderMap;

#[cfg(feature = "otlp")]
mod spans;
#[cfg(not(feature = "otlp"))]
#[path = "traces/unsent.rs"]
mod spans;

pub use spans::Spans;

/// The header that says what a call is part of.
const TRACEPARENT: &str = "traceparent";
/// Characters of a version, a trace, a span and flags, with a dash after each but the last.
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// A trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a call is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parent {
    trace: TraceId,
    span: u64,
    flags: u8,
}

impl Parent {
    /// What the headers say, if they say it once and well. Anything else is as if it were not there.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut entries = headers.get_all(TRACEPARENT).iter();
        let entry = entries.next().filter(|_| entries.next().is_none())?;
        Self::parse(entry.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let parts: Vec<&str> = known.split('-').collect();
        let &[version, trace, span, flags] = parts.as_slice() else { return None };
        let (trace, span) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?);
        let (version, flags) = (hex(version, 2)?, u8::try_from(hex(flags, 2)?).ok()?);
        // Version 0 ends here. What a later one adds comes after a dash; ff is none.
        let ends_well = rest.is_empty() || (version > 0 && rest.starts_with('-'));
        let means_something = version < 0xff && trace != 0 && span != 0;
        (ends_well && means_something).then_some(Self { trace: TraceId(trace), span, flags })
    }
}

/// A number of so many digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let fit = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| fit)
}

/// A call as part of a trace.
pub struct Traced {
    parent: Option<Parent>,
    span: spans::Span,
}

impl Spans {
    /// A call of this method begins, with what its headers say of its trace.
    pub fn begin(&self, headers: &HeaderMap, method: &str) -> Traced {
        let parent = Parent::of(headers);
        Traced { parent, span: self.span(parent, method) }
    }
}

impl Traced {
    /// The trace that the call is part of, or has begun itself; none if nobody asked for one.
    pub fn id(&self) -> Option<TraceId> {
        self.span.trace().or(self.parent.map(|parent| parent.trace))
    }

    /// The call has been answered.
    pub fn end(self, code: tonic::Code, request_id: &str) {
        self.span.end(code, request_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_good_header_names_a_trace_a_span_and_flags() {
        let parent = Parent::parse(GOOD).unwrap();
        assert_eq!(parent.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((parent.span, parent.flags), (0xb7ad_6b71_6920_3331, 1));
    }

    #[test]
    fn later_versions_may_say_more_at_the_end() {
        assert_eq!(Parent::parse(&GOOD.replacen("00", "cc", 1)), Parent::parse(GOOD));
        assert_eq!(Parent::parse(&format!("{}-what-else", GOOD.replacen("00", "01", 1))), Parent::parse(GOOD));
    }

    #[test]
    fn anything_else_is_as_if_it_were_not_there() {
        let zero_trace = GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let zero_span = GOOD.replace("b7ad6b7169203331", &"0".repeat(16));
        let cases = [
            String::new(),
            "-".repeat(LENGTH),
            GOOD[..LENGTH - 1].to_owned(),
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "0x", 1),
            GOOD.replacen('-', "_", 1),
            GOOD.replace("-01", "-+1"),
            format!("{GOOD}-more"),
            format!("{}more", GOOD.replacen("00", "01", 1)),
            format!(" {GOOD}"),
            format!("{GOOD},{GOOD}"),
            format!("{}é", &GOOD[..LENGTH - 1]),
            zero_trace,
            zero_span,
        ];
        for text in cases {
            assert_eq!(Parent::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn two_headers_say_nothing() {
        let mut headers = HeaderMap::new();
        assert_eq!(Parent::of(&headers), None);
        headers.append(TRACEPARENT, GOOD.parse().unwrap());
        assert!(Parent::of(&headers).is_some());
        headers.append(TRACEPARENT, GOOD.parse().unwrap());
        assert_eq!(Parent::of(&headers), None);
    }
}
