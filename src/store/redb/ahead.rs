//! Reading a file in large pieces while all of it is being checked.
//!
//! A check reads every page that is in use, one at a time and twice over, and mostly those that lie near each other one
//! after another. Asking the kernel for a page takes as long as copying seven, and is more than half of the work. So a
//! piece of the file is read whole as soon as a second page of it is asked for. Where pages lie in no order that seldom
//! happens, and stops if too little comes of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces that are kept: 32 MiB, while the pages that are kept later take nothing yet.
const KEPT: usize = 128;
/// Pieces of which it is known that a page was asked for.
const SEEN: usize = 1_024;
/// How many times as many bytes may be read as are asked for.
const READ_PER_SERVED: u64 = 6;
/// Bytes that may be read before anything is served.
const READ_AT_FIRST: u64 = 16 << 20;

/// What was read of a file in advance.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Those asked for last are the last.
    kept: VecDeque<Piece>,
    /// The numbers of pieces, the latest last.
    seen: VecDeque<u64>,
    /// Bytes of pieces.
    read: u64,
    /// Bytes out of pieces.
    served: u64,
}

/// The bytes at `number` times [`PIECE`], up to the end of the file.
#[derive(Debug)]
struct Piece {
    number: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// Reads exactly what is there.
    pub(super) fn read(&mut self, file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let number = offset / PIECE as u64;
        let within = usize::try_from(offset % PIECE as u64).unwrap_or(PIECE);
        let Some(piece) = self.piece(file, number) else { return file.read_exact_at(out, offset) };
        let Some(bytes) = piece.bytes.get(within..).and_then(|bytes| bytes.get(..out.len())) else {
            return file.read_exact_at(out, offset);
        };
        out.copy_from_slice(bytes);
        self.served += out.len() as u64;
        Ok(())
    }

    /// Forgets everything, since some of it is about to change.
    pub(super) fn forget(&mut self) {
        *self = Self { read: self.read, served: self.served, ..Self::default() };
    }

    /// The piece with that number, if it is kept or worth reading.
    fn piece(&mut self, file: &File, number: u64) -> Option<&Piece> {
        if let Some(at) = self.kept.iter().rposition(|piece| piece.number == number) {
            // Whoever is among the last stays where it is: that is all that matters, and costs nothing.
            if at < self.kept.len() / 2 {
                let piece = self.kept.remove(at)?;
                self.kept.push_back(piece);
                return self.kept.back();
            }
            return self.kept.get(at);
        }
        if !self.seen.contains(&number) {
            if self.seen.len() == SEEN {
                self.seen.pop_front();
            }
            self.seen.push_back(number);
            return None;
        }
        if self.read > READ_AT_FIRST + READ_PER_SERVED * self.served {
            return None;
        }
        // The page that is asked for may be readable where others beside it are not.
        let mut bytes = if self.kept.len() == KEPT { self.kept.pop_front()?.bytes } else { vec![0; PIECE] };
        let length = read_up_to(file, number * PIECE as u64, &mut bytes).ok()?;
        bytes.truncate(length);
        self.read += length as u64;
        self.kept.push_back(Piece { number, bytes });
        self.kept.back()
    }
}

/// Reads until the room or the file ends, and tells how much that was.
fn read_up_to(file: &File, offset: u64, out: &mut Vec<u8>) -> io::Result<usize> {
    out.resize(PIECE, 0);
    let mut length = 0;
    while length < out.len() {
        match file.read_at(&mut out[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4_096;

    fn file(length: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|n| (n / 7 % 251) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        (file, bytes)
    }

    fn read(ahead: &mut Ahead, file: &File, offset: usize, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        ahead.read(file, offset as u64, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_read_is_what_is_there_in_whatever_order_and_length() {
        let (file, bytes) = file(3 * PIECE + 5 * PAGE + 17);
        let mut ahead = Ahead::default();
        let pages = bytes.len() / PAGE;
        for step in [1, 7, 31, pages - 1] {
            for length in [1, PAGE, 2 * PAGE, PIECE + PAGE] {
                for page in (0..pages).map(|n| n * step % pages * PAGE) {
                    let end = (page + length).min(bytes.len());
                    assert_eq!(read(&mut ahead, &file, page, end - page), bytes[page..end]);
                }
            }
        }
        assert!(ahead.served > 0);
    }

    #[test]
    fn pages_side_by_side_are_read_once() {
        let (file, bytes) = file(4 * PIECE);
        let mut ahead = Ahead::default();
        for page in (0..bytes.len()).step_by(PAGE) {
            read(&mut ahead, &file, page, PAGE);
        }
        assert_eq!(ahead.read, bytes.len() as u64);
        assert_eq!(ahead.served, (bytes.len() - 4 * PAGE) as u64, "all but the first of each piece");
    }

    #[test]
    fn where_too_little_comes_of_it_it_ends() {
        let pieces = 512;
        let (file, _) = file(pieces * PIECE);
        let mut ahead = Ahead::default();
        for piece in 0..pieces {
            for page in 0..2 {
                read(&mut ahead, &file, piece * PIECE + page * PAGE, PAGE);
            }
        }
        assert!(ahead.read <= READ_AT_FIRST + READ_PER_SERVED * ahead.served + PIECE as u64);
    }

    #[test]
    fn what_is_written_is_read_after_it_was_forgotten() {
        let (file, _) = file(PIECE);
        let mut ahead = Ahead::default();
        for _ in 0..3 {
            read(&mut ahead, &file, 0, PAGE);
        }
        ahead.forget();
        file.write_all_at(&[1; PAGE], 0).unwrap();
        for _ in 0..3 {
            assert_eq!(read(&mut ahead, &file, 0, PAGE), [1; PAGE]);
        }
    }

    #[test]
    fn behind_the_end_there_is_nothing() {
        let (file, bytes) = file(PAGE + 9);
        let mut ahead = Ahead::default();
        for _ in 0..3 {
            assert_eq!(read(&mut ahead, &file, PAGE, 9), bytes[PAGE..]);
            let error = ahead.read(&file, PAGE as u64, &mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
