//! Moments, spans and free-form data on the wire.

use std::time::Duration;

use crate::domain::network::AllowList;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::value::Metadata;
use crate::pb;

/// A moment on the wire.
pub fn moment(moment: Timestamp) -> prost_types::Timestamp {
    let millis = moment.millis();
    prost_types::Timestamp {
        seconds: i64::try_from(millis / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000,
    }
}

/// The end of a life on the wire; absent if there is none.
pub fn expire_time(expiry: Expiry) -> Option<prost_types::Timestamp> {
    expiry.moment().map(moment)
}

/// A span on the wire.
pub fn span(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// Networks on the wire.
pub fn networks(allowed: &AllowList) -> Vec<String> {
    allowed.iter().map(ToString::to_string).collect()
}

/// Metadata on the wire; absent if there is none.
pub fn metadata(metadata: &Metadata) -> Option<prost_types::Struct> {
    (!metadata.facts().is_empty()).then(|| pb::from_facts(metadata.facts()))
}

/// A count on the wire.
pub fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
