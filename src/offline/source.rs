//! A backup as a file, read from its beginning to its end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::domain::backup::{Contents, Header, Piece, Reader};
use crate::store::{FORMAT_VERSION, tables};

use super::Refusal;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// What stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Where a backup comes from.
pub struct Source {
    name: String,
    bytes: Box<dyn Read>,
}

impl Source {
    /// Opens it.
    pub fn open(file: &Path) -> Result<Self, Refusal> {
        if file == Path::new(STANDARD_INPUT) {
            return Ok(Self { name: "standard input".to_owned(), bytes: Box::new(io::stdin()) });
        }
        let opened = File::open(file).map_err(Refusal::file(file))?;
        Ok(Self { name: file.display().to_string(), bytes: Box::new(opened) })
    }

    /// How it is named in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads all of it, and hands on its rows. They count for nothing unless this ends well.
    pub fn walk(
        mut self,
        mut row: impl FnMut(&[u8], &[u8]) -> Result<(), Refusal>,
    ) -> Result<(Header, Contents), Refusal> {
        let (mut reader, mut header, mut chunk) = (Reader::default(), None, vec![0; CHUNK]);
        loop {
            let read = self.bytes.read(&mut chunk).map_err(Refusal::file(Path::new(&self.name)))?;
            if read == 0 {
                break;
            }
            reader.feed(&chunk[..read]);
            while let Some(piece) = reader.piece().map_err(|damage| self.damaged(damage))? {
                match piece {
                    Piece::Header(read) => header = Some(self.fit(read)?),
                    Piece::Row { key, value } => {
                        tables::examine(key, value)
                            .map_err(|_| self.damaged("a row in it is not one that a store has"))?;
                        row(key, value)?;
                    }
                    Piece::End(_) => {}
                }
            }
        }
        let contents = reader.finish().map_err(|damage| self.damaged(damage))?;
        let header = header.ok_or_else(|| self.damaged("it has no beginning"))?;
        Ok((header, contents))
    }

    /// Refuses what was taken from a store of another format.
    fn fit(&self, header: Header) -> Result<Header, Refusal> {
        match header.store_format {
            FORMAT_VERSION => Ok(header),
            other => Err(self.damaged(format!(
                "it was taken from a store of format {other}, and this version knows format {FORMAT_VERSION}: use \
                 version {} or one that knows both",
                header.written_by
            ))),
        }
    }

    fn damaged(&self, why: impl ToString) -> Refusal {
        Refusal::Damaged { backup: self.name.clone(), why: why.to_string() }
    }
}
