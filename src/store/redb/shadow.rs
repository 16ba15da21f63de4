//! A file that can only be read, for a database that wants to write: what it writes stays in memory.
//!
//! Opening a store repairs it, which takes a few writes. Where the disk takes none, these are made here, so that what is
//! stored can still be read. Nothing else is written: the store that is opened this way is never given to the writer.

use std::collections::HashMap;
use std::io;

use ::redb::StorageBackend;
use parking_lot::RwLock;

/// Bytes that are kept together.
const BLOCK: usize = 4_096;
/// Blocks that may be written: 64 MiB of them.
const BLOCKS_MAX: usize = 16_384;

/// What is below, and above it what was written since.
#[derive(Debug)]
pub(super) struct Shadow<B> {
    below: B,
    above: RwLock<Above>,
}

#[derive(Debug)]
struct Above {
    length: u64,
    blocks: HashMap<u64, Box<[u8; BLOCK]>>,
}

impl<B: StorageBackend> Shadow<B> {
    /// What is below, with nothing written. Only what is certain to survive is shown, so it is synced first.
    pub(super) fn over(below: B) -> io::Result<Self> {
        below.sync_data()?;
        let length = below.len()?;
        Ok(Self { below, above: RwLock::new(Above { length, blocks: HashMap::new() }) })
    }

    /// Reads what is below; behind its end there are zeros.
    fn read_below(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.below.len()?.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (there, zeros) = out.split_at_mut(there.min(out.len()));
        zeros.fill(0);
        if there.is_empty() { Ok(()) } else { self.below.read(offset, there) }
    }
}

impl<B: StorageBackend> StorageBackend for Shadow<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.above.read().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        let above = self.above.read();
        if end > above.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(offset, out)?;
        for (block, within, of_data) in parts(offset, out.len()) {
            if let Some(bytes) = above.blocks.get(&block) {
                out[of_data].copy_from_slice(&bytes[within]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.above.write().length = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut above = self.above.write();
        for (block, within, of_data) in parts(offset, data.len()) {
            if !above.blocks.contains_key(&block) {
                if above.blocks.len() == BLOCKS_MAX {
                    return Err(io::Error::new(io::ErrorKind::StorageFull, "too much is written to be kept in memory"));
                }
                let mut bytes = Box::new([0; BLOCK]);
                self.read_below(block * BLOCK as u64, bytes.as_mut_slice())?;
                above.blocks.insert(block, bytes);
            }
            if let Some(bytes) = above.blocks.get_mut(&block) {
                bytes[within].copy_from_slice(&data[of_data]);
            }
        }
        above.length = above.length.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }
}

type Part = std::ops::Range<usize>;

/// The blocks that these bytes are in, which part of each, and which part of the bytes that is.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, Part, Part)> {
    let size = BLOCK as u64;
    let end = offset + length as u64;
    (offset / size..end.div_ceil(size)).map(move |block| {
        let (from, to) = (offset.max(block * size), end.min((block + 1) * size));
        // Both are within a block, and within the bytes.
        let within = (from - block * size) as usize..(to - block * size) as usize;
        (block, within, (from - offset) as usize..(to - offset) as usize)
    })
}

#[cfg(test)]
mod tests {
    use ::redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_never_reaches_what_is_below() {
        let below = InMemoryBackend::new();
        below.set_len(3 * BLOCK as u64).unwrap();
        below.write(0, &[1; 3 * BLOCK]).unwrap();
        let shadow = Shadow::over(below).unwrap();
        shadow.write(BLOCK as u64 - 2, &[2; 4]).unwrap();
        shadow.set_len(5 * BLOCK as u64).unwrap();
        let mut read = vec![9; 3 * BLOCK];
        shadow.read(BLOCK as u64, &mut read).unwrap();
        assert_eq!(read[..2], [2; 2]);
        assert_eq!(read[2..2 * BLOCK], vec![1; 2 * BLOCK - 2]);
        assert_eq!(read[2 * BLOCK..], [0; BLOCK], "behind the end of what is below");
        assert!(shadow.read(3 * BLOCK as u64, &mut read).is_err());
        shadow.below.read(0, &mut read).unwrap();
        assert_eq!(read, vec![1; 3 * BLOCK]);
    }
}
