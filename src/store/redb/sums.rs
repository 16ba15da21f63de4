//! What each block of a file was when it was last read or written, as a checksum.
//!
//! Opening a store verifies every page that is in use. What is read later is compared with what was read or written
//! then, so that a disk that rots meanwhile is found out. That takes 4 bytes for each block of 4 KiB.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes of a block.
const BLOCK: usize = 4_096;
/// Nothing is known of the block.
const UNKNOWN: u32 = 0;

/// The checksums of a file's blocks.
#[derive(Debug, Default)]
pub(super) struct Sums(RwLock<Vec<AtomicU32>>);

impl Sums {
    /// Fails if a block is not what it was. One of which nothing is known is taken as it is.
    pub(super) fn check(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let sums = self.reaching(offset, data.len());
        for (block, bytes) in whole(offset, data) {
            let Some(known) = sums.get(block) else { continue };
            let sum = sum(bytes);
            match known.compare_exchange(UNKNOWN, sum, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {}
                Err(known) if known == sum => {}
                Err(_) => {
                    let what = format!("what is at {} has changed on the disk", block * BLOCK);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
        Ok(())
    }

    /// Remembers what was written.
    pub(super) fn note(&self, offset: u64, data: &[u8]) {
        let sums = self.reaching(offset, data.len());
        for (block, bytes) in whole(offset, data) {
            if let Some(known) = sums.get(block) {
                known.store(sum(bytes), Ordering::Relaxed);
            }
        }
    }

    /// Forgets blocks that are about to be written, in part or whole.
    pub(super) fn forget(&self, offset: u64, length: usize) {
        let Range { start, end } = touched(offset, length);
        let sums = self.0.read();
        for known in sums.iter().take(end).skip(start) {
            known.store(UNKNOWN, Ordering::Relaxed);
        }
    }

    /// Forgets what is behind the end of a file.
    pub(super) fn cut(&self, length: u64) {
        let left = usize::try_from(length).unwrap_or(usize::MAX) / BLOCK;
        self.0.write().truncate(left);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.write().clear();
    }

    /// All of them, with room for those of these bytes.
    fn reaching(&self, offset: u64, length: usize) -> RwLockReadGuard<'_, Vec<AtomicU32>> {
        let end = touched(offset, length).end;
        let sums = self.0.read();
        if sums.len() >= end {
            return sums;
        }
        drop(sums);
        let mut sums = self.0.write();
        if sums.len() < end {
            sums.resize_with(end, || AtomicU32::new(UNKNOWN));
        }
        RwLockWriteGuard::downgrade(sums)
    }
}

/// The blocks that these bytes are in.
fn touched(offset: u64, length: usize) -> Range<usize> {
    let first = usize::try_from(offset).unwrap_or(usize::MAX);
    first / BLOCK..first.saturating_add(length).div_ceil(BLOCK)
}

/// The blocks that are wholly in these bytes.
fn whole(offset: u64, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let first = offset.div_ceil(BLOCK);
    let skipped = (first.saturating_mul(BLOCK) - offset).min(data.len());
    data[skipped..].chunks_exact(BLOCK).enumerate().map(move |(n, bytes)| (first + n, bytes))
}

/// Never [`UNKNOWN`].
fn sum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes).max(UNKNOWN + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_was_read_or_written_must_stay_what_it_was() {
        let sums = Sums::default();
        let mut data = vec![7; 3 * BLOCK];
        sums.note(0, &data);
        assert!(sums.check(0, &data).is_ok());
        data[BLOCK] = 8;
        assert!(sums.check(0, &data[..BLOCK]).is_ok());
        assert_eq!(sums.check(0, &data).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(sums.check(BLOCK as u64 * 9, &data[..BLOCK]).is_ok(), "nothing is known of it");
        assert!(sums.check(BLOCK as u64 * 9, &data[BLOCK..2 * BLOCK]).is_err(), "now it is");
    }

    #[test]
    fn of_a_block_that_is_written_in_part_nothing_is_known() {
        let sums = Sums::default();
        let zeros = vec![0; BLOCK];
        sums.note(0, &zeros);
        sums.forget(100, 1);
        sums.note(100, &[1]);
        let mut data = zeros;
        data[100] = 1;
        assert!(sums.check(0, &data).is_ok());
        data[100] = 2;
        assert!(sums.check(0, &data).is_err());
    }

    #[test]
    fn what_was_cut_off_is_forgotten() {
        let sums = Sums::default();
        sums.note(0, &vec![1; 2 * BLOCK]);
        sums.cut(BLOCK as u64);
        assert!(sums.check(BLOCK as u64, &[2; BLOCK]).is_ok());
        assert!(sums.check(0, &[2; BLOCK]).is_err());
    }
}
