//! Reading a backup, as its bytes come in.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{
    Contents, DIGEST_LENGTH, Damage, FORMAT, HEADER_LENGTH_MAX, Header, KEY_LENGTH_MAX, MAGIC, VALUE_LENGTH_MAX,
};

/// Bytes in front of each row.
const LENGTHS: usize = 6;
/// Bytes that say how many rows a table has.
const COUNT_LENGTH: usize = 9;

/// What comes next in a backup.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// What it says of itself; always the first.
    Header(Header),
    /// A row.
    Row {
        /// Its key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// It has ended, and all of it is what was written.
    End(Contents),
}

/// What is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Header,
    Row,
    Nothing,
}

/// Reads a backup, however its bytes are cut.
pub struct Reader {
    bytes: Vec<u8>,
    /// How many of them have been read.
    read: usize,
    expected: Expected,
    hasher: Sha256,
    last_key: Vec<u8>,
    contents: Contents,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            read: 0,
            expected: Expected::Header,
            hasher: Sha256::new(),
            last_key: Vec::new(),
            contents: Contents::default(),
        }
    }
}

impl Reader {
    /// Takes in more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// What comes next; none if it takes more bytes to tell.
    ///
    /// # Errors
    /// As soon as it shows that this is not a backup as it was written. There is nothing more to ask after that.
    pub fn piece(&mut self) -> Result<Option<Piece<'_>>, Damage> {
        match self.expected {
            Expected::Header => self.header(),
            Expected::Row => self.row(),
            Expected::Nothing if self.read < self.bytes.len() => {
                Err(Damage::new("something follows the end of the backup"))
            }
            Expected::Nothing => Ok(None),
        }
    }

    /// Says that no more bytes will come.
    ///
    /// # Errors
    /// If more should have come.
    pub fn finish(self) -> Result<Contents, Damage> {
        match self.expected {
            Expected::Header if self.bytes.is_empty() => Err(Damage::new("it is empty")),
            Expected::Header if !begins_alike(&self.bytes) => Err(no_backup()),
            Expected::Header | Expected::Row => Err(Damage::new("it is cut off: its end is missing")),
            Expected::Nothing if self.read < self.bytes.len() => {
                Err(Damage::new("something follows the end of the backup"))
            }
            Expected::Nothing => Ok(self.contents),
        }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    /// Counts so many bytes as read, and into the digest.
    fn pass(&mut self, length: usize) {
        self.hasher.update(&self.bytes[self.read..self.read + length]);
        self.read += length;
        self.contents.length += length as u64;
    }

    fn header(&mut self) -> Result<Option<Piece<'_>>, Damage> {
        let rest = self.rest();
        if !begins_alike(rest) {
            return Err(no_backup());
        }
        let Some(end) = rest.windows(2).position(|two| two == b"\n\n") else {
            let too_long = rest.len() > HEADER_LENGTH_MAX;
            return if too_long { Err(Damage::new("its beginning makes no sense")) } else { Ok(None) };
        };
        let text = std::str::from_utf8(&rest[..end + 2]).map_err(|_| Damage::new("its beginning makes no sense"))?;
        let format = text.lines().next().and_then(|line| line.strip_prefix(MAGIC)).unwrap_or_default();
        match format.parse::<u64>() {
            Ok(FORMAT) => {}
            Ok(newer) if newer > FORMAT => {
                return Err(Damage::new(format!(
                    "it has format {newer}, and this version reads up to format {FORMAT}: use a newer version"
                )));
            }
            Ok(_) | Err(_) => return Err(Damage::new("its format makes no sense")),
        }
        let header = Header::parse(text).ok_or_else(|| Damage::new("its beginning makes no sense"))?;
        self.pass(end + 2);
        self.expected = Expected::Row;
        Ok(Some(Piece::Header(header)))
    }

    fn row(&mut self) -> Result<Option<Piece<'_>>, Damage> {
        let Some((length, _)) = self.rest().split_first_chunk() else { return Ok(None) };
        let key_length = usize::from(u16::from_be_bytes(*length));
        if key_length == 0 {
            return self.end();
        }
        let Some(lengths) = self.rest().get(..LENGTHS) else { return Ok(None) };
        let value_length = lengths[2..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if key_length > KEY_LENGTH_MAX || value_length > VALUE_LENGTH_MAX {
            return Err(Damage::new("a row is longer than any can be"));
        }
        let whole = LENGTHS + key_length + value_length;
        if self.rest().len() < whole {
            return Ok(None);
        }
        let begin = self.read + LENGTHS;
        self.pass(whole);
        let (key, value) = self.bytes[begin..self.read].split_at(key_length);
        if key <= self.last_key.as_slice() {
            return Err(Damage::new("its rows are not in order"));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        *self.contents.tables.entry(key[0]).or_default() += 1;
        Ok(Some(Piece::Row { key, value }))
    }

    fn end(&mut self) -> Result<Option<Piece<'_>>, Damage> {
        let Some(number) = self.rest().get(2..4) else { return Ok(None) };
        let number = usize::from(number[0]) << 8 | usize::from(number[1]);
        if number != self.contents.tables.len() {
            return Err(miscounted());
        }
        let counted = 4 + number * COUNT_LENGTH;
        if self.rest().len() < counted + DIGEST_LENGTH {
            return Ok(None);
        }
        let (counts, _) = self.rest()[4..counted].as_chunks::<COUNT_LENGTH>();
        let told = counts.iter().map(|count| {
            let rows = count[1..].iter().fold(0, |rows, byte| rows << 8 | u64::from(*byte));
            (count[0], rows)
        });
        if told.collect::<BTreeMap<u8, u64>>() != self.contents.tables {
            return Err(miscounted());
        }
        self.pass(counted);
        let digest: [u8; DIGEST_LENGTH] = std::mem::take(&mut self.hasher).finalize().into();
        if self.rest().get(..DIGEST_LENGTH) != Some(&digest) {
            return Err(Damage::new("its bytes are not those that were written: the digest at its end is another"));
        }
        self.read += DIGEST_LENGTH;
        self.contents.length += DIGEST_LENGTH as u64;
        self.contents.digest = digest;
        self.expected = Expected::Nothing;
        Ok(Some(Piece::End(self.contents.clone())))
    }
}

fn begins_alike(bytes: &[u8]) -> bool {
    bytes.iter().zip(MAGIC.as_bytes()).all(|(is, should)| is == should)
}

fn no_backup() -> Damage {
    Damage::new("it is not a backup of ostiary")
}

fn miscounted() -> Damage {
    Damage::new("it does not have as many rows as it says")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Writer;
    use super::*;
    use crate::domain::time::Timestamp;

    type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

    fn header() -> Header {
        let time = Timestamp::from_millis_saturating(1_767_225_600_000);
        Header { store_format: 1, epoch: 7, counter: 42, time, written_by: "0.1.0".to_owned() }
    }

    fn written(rows: &Rows) -> Vec<u8> {
        let mut writer = Writer::new(&header());
        for (key, value) in rows {
            writer.row(key, value).unwrap();
        }
        writer.end();
        writer.take(usize::MAX)
    }

    /// Reads it in pieces of this length.
    fn read(bytes: &[u8], cut: usize) -> Result<(Header, Rows, Contents), Damage> {
        let (mut reader, mut header, mut rows) = (Reader::default(), None, Rows::new());
        for some in bytes.chunks(cut) {
            reader.feed(some);
            while let Some(piece) = reader.piece()? {
                match piece {
                    Piece::Header(read) => header = Some(read),
                    Piece::Row { key, value } => drop(rows.insert(key.to_vec(), value.to_vec())),
                    Piece::End(_) => {}
                }
            }
        }
        let contents = reader.finish()?;
        Ok((header.unwrap(), rows, contents))
    }

    fn rows() -> Rows {
        let row = |number: u8| (vec![number / 4 + 1, number], vec![number; usize::from(number)]);
        (0..20).map(row).collect()
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = written(&rows());
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[position] ^= 1 << bit;
                assert!(read(&damaged, 64).is_err(), "bit {bit} of byte {position}");
            }
        }
    }

    #[test]
    fn every_cut_and_whatever_follows_is_noticed() {
        let whole = written(&rows());
        for length in 0..whole.len() {
            assert!(read(&whole[..length], 64).is_err(), "{length} bytes");
        }
        for more in [&[0][..], b"\n", &whole] {
            let why = read(&[&whole, more].concat(), 64).unwrap_err().to_string();
            assert_eq!(why, "something follows the end of the backup");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let whole = written(&rows());
        let why = |bytes: &[u8]| read(bytes, 64).unwrap_err().to_string();
        assert_eq!(why(b""), "it is empty");
        assert_eq!(why(b"PK\x03\x04"), "it is not a backup of ostiary");
        assert_eq!(why(b"osti"), "it is cut off: its end is missing");
        let newer = [b"ostiary backup 2\n\n", &whole[..]].concat();
        assert_eq!(why(&newer), "it has format 2, and this version reads up to format 1: use a newer version");
        assert!(why(&[b"ostiary backup 1\n", &[b'x'; 600][..]].concat()).contains("beginning makes no sense"));
        let mut swapped = Writer::new(&header());
        swapped.row(&[2], b"").unwrap();
        swapped.row(&[1], b"").unwrap();
        assert_eq!(why(&swapped.take(usize::MAX)), "its rows are not in order");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_however_it_is_cut(
            rows in prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 1..40),
                prop::collection::vec(any::<u8>(), 0..200),
                0..60,
            ),
            cut in 1_usize..500,
        ) {
            let whole = written(&rows);
            let (read_header, read_rows, contents) = read(&whole, cut).unwrap();
            prop_assert_eq!(read_header, header());
            prop_assert_eq!(contents.rows(), rows.len() as u64);
            prop_assert_eq!(contents.length, whole.len() as u64);
            prop_assert_eq!(read_rows, rows);
        }

        #[test]
        fn what_is_no_backup_is_refused_and_nothing_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            begins_alike in any::<bool>(),
        ) {
            let begin = if begins_alike { header().to_string().into_bytes() } else { Vec::new() };
            prop_assert!(read(&[begin, bytes].concat(), 64).is_err());
        }
    }
}
