//! A backup as bytes: what it begins with, the rows in the order of their keys, and an end that proves the rest.
//!
//! ```text
//! ostiary backup 1                       lines of text, for people and programs alike
//! store-format 1
//! epoch 0123456789abcdef
//! revision 4711
//! time 2026-01-31T12:00:00.000Z
//! written-by 0.1.0
//!                                        an empty line
//! length of key u16, length of value u32, key, value      for each row, ascending by key
//! 0u16                                   no more rows
//! number u16, then tag u8 and rows u64 for each           how many rows each table has
//! SHA-256 of all bytes before it         32 bytes, the last ones
//! ```
//!
//! Numbers are big-endian. Who reads it holds one row at a time, and must do nothing for good before the end has come.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest as _, Sha256};

use super::time::Timestamp;

mod reader;

pub use reader::{Piece, Reader};

/// The arrangement of a backup. One with a higher number is refused.
pub const FORMAT: u64 = 1;
/// Bytes of a row's key at most.
pub const KEY_LENGTH_MAX: usize = 2 << 10;
/// Bytes of a row's value at most.
pub const VALUE_LENGTH_MAX: usize = 2 << 20;
/// Bytes of the lines at the beginning at most.
const HEADER_LENGTH_MAX: usize = 512;
/// Bytes of the digest at the end.
const DIGEST_LENGTH: usize = 32;
/// What every backup begins with; then comes the number of its format.
const MAGIC: &str = "ostiary backup ";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The format of the store that it was taken from.
    pub store_format: u64,
    /// The epoch of that store's revisions.
    pub epoch: u64,
    /// The counter of the last commit that is in it.
    pub counter: u64,
    /// When it was taken.
    pub time: Timestamp,
    /// The version of the program that took it.
    pub written_by: String,
}

/// How much a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// How many rows each table has, by its tag.
    pub tables: BTreeMap<u8, u64>,
    /// Bytes of all of it.
    pub length: u64,
    /// The digest at its end.
    pub digest: [u8; DIGEST_LENGTH],
}

impl Contents {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.values().sum()
    }

    /// The digest in lower-case hexadecimal.
    pub fn digest_text(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Why bytes are no backup, or not a whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(Cow<'static, str>);

impl Damage {
    fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Header {
    /// As its lines, the empty one included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store_format, epoch, counter, time, written_by } = self;
        writeln!(f, "{MAGIC}{FORMAT}")?;
        writeln!(f, "store-format {store_format}")?;
        writeln!(f, "epoch {epoch:016x}")?;
        writeln!(f, "revision {counter}")?;
        writeln!(f, "time {time}")?;
        writeln!(f, "written-by {written_by}\n")
    }
}

impl Header {
    /// Reads its lines, in the one spelling that they have.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip(1);
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let header = Self {
            store_format: value("store-format")?.parse().ok()?,
            epoch: u64::from_str_radix(value("epoch")?, 16).ok()?,
            counter: value("revision")?.parse().ok()?,
            time: Timestamp::parse(value("time")?)?,
            written_by: value("written-by")?.to_owned(),
        };
        (header.to_string() == text).then_some(header)
    }
}

/// Makes a backup, piece by piece.
pub struct Writer {
    bytes: Vec<u8>,
    /// Bytes that the digest covers already.
    hashed: usize,
    hasher: Sha256,
    tables: BTreeMap<u8, u64>,
}

impl Writer {
    /// One that begins like this.
    pub fn new(header: &Header) -> Self {
        let bytes = header.to_string().into_bytes();
        Self { bytes, hashed: 0, hasher: Sha256::new(), tables: BTreeMap::new() }
    }

    /// Adds a row. Rows come in the order of their keys, within the bounds of this format.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        let length = u16::try_from(key.len()).ok().filter(|_| (1..=KEY_LENGTH_MAX).contains(&key.len()));
        let value_length = u32::try_from(value.len()).ok().filter(|_| value.len() <= VALUE_LENGTH_MAX);
        let (Some(length), Some(value_length)) = (length, value_length) else {
            return Err(Damage::new("a row is longer than any can be"));
        };
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(&value_length.to_be_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        *self.tables.entry(key[0]).or_default() += 1;
        Ok(())
    }

    /// Says that these were all rows.
    pub fn end(&mut self) {
        self.bytes.extend_from_slice(&[0; 2]);
        let number = u16::try_from(self.tables.len()).expect("a tag is one byte");
        self.bytes.extend_from_slice(&number.to_be_bytes());
        for (tag, rows) in &self.tables {
            self.bytes.push(*tag);
            self.bytes.extend_from_slice(&rows.to_be_bytes());
        }
        self.hash();
        let digest = std::mem::take(&mut self.hasher).finalize();
        self.bytes.extend_from_slice(&digest);
        self.hashed = self.bytes.len();
    }

    /// Bytes that are made and have not been taken.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Takes up to so many of them.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        self.hash();
        let rest = self.bytes.split_off(most.min(self.bytes.len()));
        self.hashed = rest.len();
        std::mem::replace(&mut self.bytes, rest)
    }

    fn hash(&mut self) {
        self.hasher.update(&self.bytes[self.hashed..]);
        self.hashed = self.bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            store_format: 1,
            epoch: 0x0123_4567_89ab_cdef,
            counter: 4_711,
            time: Timestamp::from_millis_saturating(1_767_225_600_123),
            written_by: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn the_beginning_can_be_read_by_people_and_is_spelled_in_one_way() {
        let text = header().to_string();
        assert_eq!(
            text,
            "ostiary backup 1\nstore-format 1\nepoch 0123456789abcdef\nrevision 4711\n\
             time 2026-01-01T00:00:00.123Z\nwritten-by 0.1.0\n\n"
        );
        assert_eq!(Header::parse(&text), Some(header()));
        for (from, to) in [("4711", "04711"), ("4711", "+4711"), ("abcdef", "ABCDEF"), (".123Z", "Z"), ("\n\n", "\n")] {
            assert_eq!(Header::parse(&text.replace(from, to)), None, "{to}");
        }
    }

    #[test]
    fn however_the_bytes_are_taken_they_are_the_same() {
        let whole = |most: usize| {
            let mut writer = Writer::new(&header());
            let mut bytes = Vec::new();
            for number in 1..50_u8 {
                writer.row(&[number / 10 + 1, number], &vec![number; usize::from(number) * 7]).unwrap();
                bytes.extend(writer.take(most));
            }
            writer.end();
            while writer.length() > 0 {
                bytes.extend(writer.take(most));
            }
            bytes
        };
        let once = whole(usize::MAX);
        for most in [1, 7, 100, 1_000] {
            assert_eq!(whole(most), once, "{most}");
        }
    }

    #[test]
    fn a_row_that_no_store_can_hold_is_not_written() {
        let mut writer = Writer::new(&header());
        assert!(writer.row(&[], b"value").is_err());
        assert!(writer.row(&vec![1; KEY_LENGTH_MAX + 1], b"value").is_err());
        assert!(writer.row(b"key", &vec![0; VALUE_LENGTH_MAX + 1]).is_err());
        assert!(writer.row(&vec![1; KEY_LENGTH_MAX], &vec![0; VALUE_LENGTH_MAX]).is_ok());
    }
}
