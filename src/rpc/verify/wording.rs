//! Questions in their callers' words, as they lie in the message.
//!
//! A generated message owns a copy of every text in it, which costs as much as answering. Most questions have nothing but
//! a few texts and numbers; those are read here, and all others by the generated message.

use std::borrow::Cow;

use prost::encoding::{WireType, decode_varint};

use crate::pb::counted::FIELDS_MAX;
use crate::pb::v1 as pb;

use super::batch::REQUESTS_MAX;

/// Bytes that a question has in a batch, rarely less.
const QUESTION_LENGTH: usize = 48;
/// Bytes of a plain message. A field takes at least two, so it has no more of them than any message may have.
const PLAIN_LENGTH_MAX: usize = 2 * FIELDS_MAX;

/// A `VerifyKeyRequest`, of which nothing has been looked at.
#[derive(Default)]
pub(in crate::rpc) struct Wording<'m> {
    pub key: Cow<'m, str>,
    pub api_id: Option<&'m str>,
    pub permissions: Option<&'m str>,
    pub client_ip: Option<&'m str>,
    pub view: i32,
    pub dry_run: bool,
    pub min_revision: &'m str,
    pub cost: Option<i64>,
    pub rate_limits: &'m [pb::VerifyRateLimit],
    pub tags: &'m [String],
}

impl<'m> Wording<'m> {
    /// That of a generated message. The key is taken out of it, so that no copy of it is left behind.
    pub(in crate::rpc) fn of(request: &'m mut pb::VerifyKeyRequest) -> Self {
        let pb::VerifyKeyRequest {
            key,
            api_id,
            permissions,
            client_ip,
            view,
            dry_run,
            min_revision,
            cost,
            rate_limits,
            tags,
        } = request;
        Self {
            key: Cow::Owned(std::mem::take(key)),
            api_id: api_id.as_deref(),
            permissions: permissions.as_deref(),
            client_ip: client_ip.as_deref(),
            view: *view,
            dry_run: *dry_run,
            min_revision,
            cost: *cost,
            rate_limits,
            tags,
        }
    }

    /// That of a message as it came, if it has no limits, no tags and nothing unusual.
    pub(super) fn plain(mut message: &'m [u8]) -> Option<Self> {
        const KEY: u8 = text(1);
        const API_ID: u8 = text(2);
        const PERMISSIONS: u8 = text(3);
        const CLIENT_IP: u8 = text(4);
        const VIEW: u8 = number(5);
        const DRY_RUN: u8 = number(6);
        const MIN_REVISION: u8 = text(7);
        const COST: u8 = number(8);
        if message.len() > PLAIN_LENGTH_MAX {
            return None;
        }
        let mut wording = Self::default();
        while let Some((tag, rest)) = message.split_first() {
            message = rest;
            match *tag {
                KEY => wording.key = Cow::Borrowed(take_text(&mut message)?),
                API_ID => wording.api_id = Some(take_text(&mut message)?),
                PERMISSIONS => wording.permissions = Some(take_text(&mut message)?),
                CLIENT_IP => wording.client_ip = Some(take_text(&mut message)?),
                // As the generated message does: what is too large for its type loses its upper bits.
                VIEW => wording.view = take_number(&mut message)? as i32,
                DRY_RUN => wording.dry_run = take_number(&mut message)? != 0,
                MIN_REVISION => wording.min_revision = take_text(&mut message)?,
                COST => wording.cost = Some(take_number(&mut message)?.cast_signed()),
                _ => return None,
            }
        }
        Some(wording)
    }

    /// Those of a `BatchVerifyKeysRequest` as it came, if all are plain and there are no more than a call may have.
    pub(super) fn plain_batch(mut message: &'m [u8]) -> Option<Vec<Self>> {
        const REQUESTS: u8 = text(1);
        let mut wordings = Vec::with_capacity((message.len() / QUESTION_LENGTH).min(REQUESTS_MAX));
        while let Some((tag, rest)) = message.split_first() {
            message = rest;
            if *tag != REQUESTS || wordings.len() == REQUESTS_MAX {
                return None;
            }
            wordings.push(Self::plain(take_bytes(&mut message)?)?);
        }
        Some(wordings)
    }

    /// That of a `StreamVerifyKeysRequest` as it came, if it is plain, and what its answer is to be joined to it by.
    pub(super) fn plain_of_stream(mut message: &'m [u8]) -> Option<(&'m str, Option<Self>)> {
        const CORRELATION_ID: u8 = text(1);
        const REQUEST: u8 = text(2);
        if message.len() > PLAIN_LENGTH_MAX {
            return None;
        }
        let (mut correlation_id, mut request) = ("", None);
        while let Some((tag, rest)) = message.split_first() {
            message = rest;
            match *tag {
                CORRELATION_ID => correlation_id = take_text(&mut message)?,
                // A second one would have to be merged with the first.
                REQUEST if request.is_none() => request = Some(Self::plain(take_bytes(&mut message)?)?),
                _ => return None,
            }
        }
        Some((correlation_id, request))
    }
}

/// What stands before a text, or whatever else has a length, that is this field.
const fn text(field: u8) -> u8 {
    field << 3 | WireType::LengthDelimited as u8
}

/// What stands before a number that is this field.
const fn number(field: u8) -> u8 {
    field << 3 | WireType::Varint as u8
}

fn take_number(message: &mut &[u8]) -> Option<u64> {
    decode_varint(message).ok()
}

fn take_bytes<'m>(message: &mut &'m [u8]) -> Option<&'m [u8]> {
    let length = usize::try_from(take_number(message)?).ok()?;
    let (bytes, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(bytes)
}

fn take_text<'m>(message: &mut &'m [u8]) -> Option<&'m str> {
    std::str::from_utf8(take_bytes(message)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn request() -> impl Strategy<Value = pb::VerifyKeyRequest> {
        let texts = ("[a-z_é]{0,200}", proptest::option::of("[a-z]{0,30}"), proptest::option::of("[a-z ()é]{0,200}"));
        let more = (proptest::option::of("[0-9.]{0,15}"), "[0-9a-f.]{0,30}");
        let numbers = (any::<i32>(), any::<bool>(), proptest::option::of(any::<i64>()));
        (texts, more, numbers, 0..2_usize, 0..2_usize).prop_map(|(texts, more, numbers, limits, tags)| {
            let (key, api_id, permissions) = texts;
            let (client_ip, min_revision) = more;
            let (view, dry_run, cost) = numbers;
            let rate_limits = vec![pb::VerifyRateLimit { name: "calls".to_owned(), ..Default::default() }; limits];
            let tags = vec!["tag".to_owned(); tags];
            pb::VerifyKeyRequest {
                key,
                api_id,
                permissions,
                client_ip,
                view,
                dry_run,
                min_revision,
                cost,
                rate_limits,
                tags,
            }
        })
    }

    fn is_plain(request: &pb::VerifyKeyRequest) -> bool {
        request.rate_limits.is_empty() && request.tags.is_empty()
    }

    /// What it says, as a generated message.
    fn said(wording: Wording<'_>) -> pb::VerifyKeyRequest {
        pb::VerifyKeyRequest {
            key: wording.key.into_owned(),
            api_id: wording.api_id.map(str::to_owned),
            permissions: wording.permissions.map(str::to_owned),
            client_ip: wording.client_ip.map(str::to_owned),
            view: wording.view,
            dry_run: wording.dry_run,
            min_revision: wording.min_revision.to_owned(),
            cost: wording.cost,
            rate_limits: wording.rate_limits.to_vec(),
            tags: wording.tags.to_vec(),
        }
    }

    fn said_on_a_stream(message: &[u8]) -> Option<pb::StreamVerifyKeysRequest> {
        let (correlation_id, wording) = Wording::plain_of_stream(message)?;
        Some(pb::StreamVerifyKeysRequest { correlation_id: correlation_id.to_owned(), request: wording.map(said) })
    }

    proptest! {
        #[test]
        fn what_is_plain_is_read_as_the_generated_message_reads_it(
            requests in proptest::collection::vec(request(), 0..4),
            correlation_id in "[a-zé]{0,300}",
        ) {
            let one = requests.first().cloned();
            if let Some(one) = &one {
                let read = Wording::plain(&one.encode_to_vec()).map(said);
                prop_assert_eq!(read, is_plain(one).then(|| one.clone()));
            }
            let stream = pb::StreamVerifyKeysRequest { correlation_id, request: one };
            let plain = stream.request.as_ref().is_none_or(is_plain);
            prop_assert_eq!(said_on_a_stream(&stream.encode_to_vec()), plain.then(|| stream.clone()));
            let batch = pb::BatchVerifyKeysRequest { requests };
            let message = batch.encode_to_vec();
            let read = Wording::plain_batch(&message).map(|read| read.into_iter().map(said).collect::<Vec<_>>());
            prop_assert_eq!(read, batch.requests.iter().all(is_plain).then_some(batch.requests));
        }

        /// Bytes near enough to messages to be read now and then.
        #[test]
        fn what_is_read_of_any_bytes_is_what_the_generated_message_reads(
            bytes in proptest::collection::vec(prop_oneof![0_u8..20, 0x28_u8..0x48, any::<u8>()], 0..24),
        ) {
            if let Some(read) = Wording::plain(&bytes).map(said) {
                prop_assert_eq!(pb::VerifyKeyRequest::decode(bytes.as_slice()), Ok(read));
            }
            if let Some(read) = Wording::plain_batch(&bytes) {
                let requests = read.into_iter().map(said).collect();
                prop_assert_eq!(pb::BatchVerifyKeysRequest::decode(bytes.as_slice()), Ok(pb::BatchVerifyKeysRequest { requests }));
            }
            if let Some(read) = said_on_a_stream(&bytes) {
                prop_assert_eq!(pb::StreamVerifyKeysRequest::decode(bytes.as_slice()), Ok(read));
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_generated_message() {
        let named = |number: usize| [0x0a, 0].repeat(number);
        assert_eq!(Wording::plain_batch(&named(REQUESTS_MAX)).map(|read| read.len()), Some(REQUESTS_MAX));
        assert!(Wording::plain_batch(&named(REQUESTS_MAX + 1)).is_none(), "one too many");
        assert!(Wording::plain(&[0x0a, 2, b'a']).is_none(), "cut short");
        assert!(Wording::plain(&[0x0a, 1, 0xff]).is_none(), "no text");
        assert!(Wording::plain(&[0x08, 1]).is_none(), "a number where a text should be");
        assert!(Wording::plain(&[0x5a, 0]).is_none(), "no field that there is");
        assert!(Wording::plain_of_stream(&[0x12, 0, 0x12, 0]).is_none(), "two to be merged");
        assert!(Wording::plain(&named(FIELDS_MAX)).is_some() && Wording::plain_of_stream(&named(FIELDS_MAX)).is_some());
        assert!(Wording::plain(&named(FIELDS_MAX + 1)).is_none(), "a field too many");
        assert!(Wording::plain_of_stream(&named(FIELDS_MAX + 1)).is_none(), "a field too many");
    }
}
