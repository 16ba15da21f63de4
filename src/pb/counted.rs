//! The codec of all services: protobuf as ever, for messages that consist of no more fields than any has use for.
//!
//! An entry of a list may be two bytes long and take several hundred once it is decoded. A message of 4 MiB of them would
//! take a gigabyte before anybody could refuse it.

use bytes::Buf as _;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Fields of a message, every entry of a list being one. No message that is good has a tenth of that.
pub const FIELDS_MAX: usize = 1 << 14;

/// Writes messages of one type and reads those of another.
#[derive(Debug)]
pub struct Counted<T, U>(ProstCodec<T, U>);

impl<T, U> Default for Counted<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for Counted<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = CountedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CountedDecoder(self.0.decoder())
    }
}

/// Reads messages.
#[derive(Debug)]
pub struct CountedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for CountedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if fields(bytes.chunk()) > FIELDS_MAX {
            return Err(too_many_fields());
        }
        self.0.decode(bytes)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// How many fields there are in a message. Where it can't be read the count ends: whoever decodes it will say so.
pub fn fields(mut message: &[u8]) -> usize {
    let mut fields = 0;
    while let Ok((number, kind)) = decode_key(&mut message) {
        fields += 1;
        if skip_field(kind, number, &mut message, DecodeContext::default()).is_err() {
            break;
        }
    }
    fields
}

/// What is told to whoever sends more, in the words of a decoder.
pub fn too_many_fields() -> Status {
    Status::internal(format!("failed to decode Protobuf message: it has more than {FIELDS_MAX} fields"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_a_list_counts_and_what_cannot_be_read_ends_the_count() {
        assert_eq!(fields(&[]), 0);
        assert_eq!(fields(&[0x0a, 0].repeat(FIELDS_MAX + 1)), FIELDS_MAX + 1);
        // A number, a text, a nested message with fields of its own.
        assert_eq!(fields(&[0x08, 1, 0x12, 2, b'h', b'i', 0x1a, 4, 0x0a, 0, 0x0a, 0]), 3);
        assert_eq!(fields(&[0x0a, 0, 0x0a, 9]), 2, "cut short");
        assert_eq!(fields(&[0xff; 20]), 0);
    }
}
