//! Answers about keys, put on the wire as they are found.
//!
//! The generated messages own every piece of text they carry and are measured before they are written, which costs more
//! than finding out what to say. What is written here is the same, byte for byte; the tests hold each against the other.

use prost::encoding::{WireType, encode_key, encode_varint};

use crate::domain::key::Verdict;
use crate::rpc::convert::{count, expire_time, moment, span};
use crate::rpc::credits::remaining;
use crate::service::Revision;
use crate::service::verify::{LimitOutcome, Verification, VerifiedKey};
use crate::service::windows::Standing;

use super::{code, shown};

/// Bytes before each message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;
/// The length of a message whose length is not known yet takes this many bytes until it turns out to need more, or less.
const LENGTH_GUESS: usize = 1;
/// The same for an answer about a key.
const VERDICT_LENGTH_GUESS: usize = 2;

/// Writes one of several messages, which `fill` writes, with what stands before it.
pub(super) fn put_framed(buffer: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.resize(start + PREFIX, 0);
    fill(buffer);
    let (prefix, message) = buffer[start..].split_at_mut(PREFIX);
    // Answers are a few hundred bytes long.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    prefix[1..].copy_from_slice(&length.to_be_bytes());
}

/// Writes `meta`, the first field of every answer.
pub(super) fn put_meta(buffer: &mut Vec<u8>, request_id: &str, revision: Revision) {
    nested(buffer, 1, |buffer| {
        put_text(buffer, 1, request_id);
        put_revision(buffer, 2, revision);
    });
}

/// Writes a revision as its text.
fn put_revision(buffer: &mut Vec<u8>, field: u32, Revision { epoch, counter }: Revision) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    const DECIMAL_MAX: usize = 20;
    let mut text = [b'.'; 16 + 1 + DECIMAL_MAX];
    for (place, digit) in text[..16].iter_mut().enumerate() {
        *digit = HEX[(epoch >> (4 * (15 - place)) & 0xf) as usize];
    }
    let digits = counter.checked_ilog10().map_or(1, |digits| digits as usize + 1);
    let mut left = counter;
    for digit in text[17..17 + digits].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    put_present(buffer, field, &text[..17 + digits]);
}

/// Writes an `ostiary.v1.Verdict` as this field of what is being written.
pub(super) fn put_verdict(buffer: &mut Vec<u8>, field: u32, verification: Verification) {
    match verification {
        Verification { key: Some(VerifiedKey { whole: Some(_), .. }), .. } => {
            prost::encoding::message::encode(field, &shown(verification), buffer);
        }
        Verification { verdict, key } => {
            nested_about(buffer, field, VERDICT_LENGTH_GUESS, |buffer| put_basic(buffer, &verdict, key.as_ref()));
        }
    }
}

/// Writes any message as this field.
pub(super) fn put_message(buffer: &mut Vec<u8>, field: u32, message: &impl prost::Message) {
    nested(buffer, field, |buffer| message.encode_raw(buffer));
}

/// Writes a field that is a message of its own, which `fill` writes.
pub(super) fn nested(buffer: &mut Vec<u8>, field: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    nested_about(buffer, field, LENGTH_GUESS, fill);
}

/// The same for one with a verdict in it.
pub(super) fn nested_verdict(buffer: &mut Vec<u8>, field: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    nested_about(buffer, field, VERDICT_LENGTH_GUESS, fill);
}

/// The same where the length is expected to take so many bytes.
fn nested_about(buffer: &mut Vec<u8>, field: u32, guess: usize, fill: impl FnOnce(&mut Vec<u8>)) {
    encode_key(field, WireType::LengthDelimited, buffer);
    let place = buffer.len();
    let start = place + guess;
    buffer.resize(start, 0);
    fill(buffer);
    let end = buffer.len();
    let length = end - start;
    let right = place + prost::length_delimiter_len(length);
    if right != start {
        buffer.resize(end.max(right + length), 0);
        buffer.copy_within(start..end, right);
        buffer.truncate(right + length);
    }
    let mut room = &mut buffer[place..right];
    encode_varint(length as u64, &mut room);
}

/// Writes text, unless it is empty, as what is not optional is written.
pub(super) fn put_text(buffer: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        put_present(buffer, field, text.as_bytes());
    }
}

/// Writes text that is there.
fn put_present(buffer: &mut Vec<u8>, field: u32, text: &[u8]) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(text.len() as u64, buffer);
    buffer.extend_from_slice(text);
}

fn put_number(buffer: &mut Vec<u8>, field: u32, number: i64) {
    encode_key(field, WireType::Varint, buffer);
    encode_varint(number.cast_unsigned(), buffer);
}

/// The same, unless it is what is taken for granted.
fn put_if_set(buffer: &mut Vec<u8>, field: u32, number: i64) {
    if number != 0 {
        put_number(buffer, field, number);
    }
}

fn put_basic(buffer: &mut Vec<u8>, verdict: &Verdict, key: Option<&VerifiedKey>) {
    put_if_set(buffer, 1, i64::from(*verdict == Verdict::Valid));
    put_if_set(buffer, 2, i64::from(i32::from(code(verdict))));
    if *verdict != Verdict::Valid {
        put_text(buffer, 3, &verdict.reason());
    }
    let Some(VerifiedKey { id, api, expiry, external_id, uses, limits, whole: _ }) = key else { return };
    put_present(buffer, 4, &id.spelled());
    put_present(buffer, 5, &api.spelled());
    if let Some(expires) = expire_time(*expiry) {
        put_time(buffer, 6, expires.seconds, expires.nanos);
    }
    if let Some(external_id) = external_id {
        put_present(buffer, 12, external_id.as_str().as_bytes());
    }
    if let Some(remaining) = remaining(*uses) {
        put_number(buffer, 13, remaining);
    }
    for outcome in limits {
        nested(buffer, 14, |buffer| put_outcome(buffer, outcome));
    }
}

fn put_outcome(buffer: &mut Vec<u8>, outcome: &LimitOutcome) {
    let LimitOutcome { name, standing: Standing { exceeded, limit, left, reset, retry_after } } = outcome;
    put_text(buffer, 1, name.as_str());
    put_if_set(buffer, 2, i64::from(*exceeded));
    put_if_set(buffer, 3, count(*limit));
    put_if_set(buffer, 4, count(*left));
    if let Some(reset) = reset.map(moment) {
        put_time(buffer, 5, reset.seconds, reset.nanos);
    }
    if let Some(wait) = retry_after.map(span) {
        put_time(buffer, 6, wait.seconds, wait.nanos);
    }
}

/// Writes a moment or a span, which look alike.
fn put_time(buffer: &mut Vec<u8>, field: u32, seconds: i64, nanos: i32) {
    nested(buffer, field, |buffer| {
        put_if_set(buffer, 1, seconds);
        put_if_set(buffer, 2, i64::from(nanos));
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::domain::credits::Uses;
    use crate::domain::id::{ApiId, KeyId};
    use crate::domain::name::{EXTERNAL_ID, LIMIT_NAME, Name};
    use crate::domain::time::{Expiry, Timestamp};
    use crate::pb::v1 as pb;

    fn verdict() -> impl Strategy<Value = Verdict> {
        let names = || proptest::collection::vec("[a-z.]{1,200}", 0..3);
        prop_oneof![
            Just(Verdict::Valid),
            Just(Verdict::NotFound),
            Just(Verdict::Disabled),
            Just(Verdict::Expired),
            Just(Verdict::Forbidden),
            Just(Verdict::UsageExceeded),
            names().prop_map(Verdict::InsufficientPermissions),
            names().prop_map(Verdict::RateLimited),
        ]
    }

    fn moment() -> impl Strategy<Value = Timestamp> {
        any::<u64>().prop_map(Timestamp::from_millis_saturating)
    }

    fn name(pattern: &'static str, bounds: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Name> {
        pattern.prop_filter_map("a name", move |text| Name::new(&text, bounds.clone()).ok())
    }

    fn outcome() -> impl Strategy<Value = LimitOutcome> {
        let wait = proptest::option::of((any::<u32>(), 0..1_000_000_000_u32));
        let parts = (name("[a-zé]{1,128}", LIMIT_NAME), any::<bool>(), any::<u64>(), any::<u64>());
        (parts, proptest::option::of(moment()), wait).prop_map(|((name, exceeded, limit, left), reset, wait)| {
            let retry_after = wait.map(|(seconds, nanos)| Duration::new(seconds.into(), nanos));
            LimitOutcome { name, standing: Standing { exceeded, limit, left, reset, retry_after } }
        })
    }

    fn key() -> impl Strategy<Value = VerifiedKey> {
        let expiry = proptest::option::of(moment()).prop_map(|end| end.map_or(Expiry::Never, Expiry::At));
        let uses = proptest::option::of(any::<u64>()).prop_map(|left| left.map_or(Uses::Unlimited, Uses::Left));
        let external_id = proptest::option::of(name("[A-Za-z0-9ü]{1,255}", EXTERNAL_ID));
        let limits = proptest::collection::vec(outcome(), 0..4);
        (any::<[u8; 16]>(), any::<[u8; 16]>(), expiry, external_id, uses, limits).prop_map(
            |(id, api, expiry, external_id, uses, limits)| VerifiedKey {
                id: KeyId::from_bytes(id),
                api: ApiId::from_bytes(api),
                expiry,
                external_id,
                uses,
                limits: limits.into(),
                whole: None,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_the_generated_message_would_have_been(
            verdict in verdict(),
            key in proptest::option::of(key()),
            request_id in "[a-z0-9_]{0,64}",
            (epoch, counter) in any::<(u64, u64)>(),
        ) {
            let (answer, revision) = (Verification { verdict, key }, Revision { epoch, counter });
            let mut written = Vec::new();
            put_meta(&mut written, &request_id, revision);
            put_verdict(&mut written, 2, answer.clone());
            let meta = pb::ResponseMeta { request_id, revision: revision.to_string() };
            let message = pb::VerifyKeyResponse { meta: Some(meta), verdict: Some(shown(answer)) };
            prop_assert_eq!(written, message.encode_to_vec());
        }
    }
}
