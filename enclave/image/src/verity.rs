//! The hash tree of dm-verity, written while the data goes by: memory does not grow with the image.
//!
//! Format 1 with SHA-256, blocks of 4,096 bytes and no salt: after the data one block with the superblock, then the tree, its top first
//! (cryptsetup, "DMVerity"; kernel documentation, `admin-guide/device-mapper/verity`). `veritysetup verify` accepts it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aws_lc_rs::digest::{SHA256, digest};

/// Bytes of a block, of data and of the tree.
pub const BLOCK: usize = 4096;
const DIGEST: usize = 32;
const PER_BLOCK: u64 = (BLOCK / DIGEST) as u64;

struct Level {
    /// Where its next block is written, counted in blocks.
    at: u64,
    block: Vec<u8>,
}

/// Writes data and its tree to a file.
pub struct VerityWriter {
    file: File,
    data_blocks: u64,
    written: u64,
    /// The lowest first.
    levels: Vec<Level>,
    root: Option<[u8; DIGEST]>,
}

impl VerityWriter {
    /// Begins with an empty file that is to have so many blocks of data.
    pub fn new(file: File, data_blocks: u64) -> Self {
        let mut sizes = Vec::new();
        let mut below = data_blocks;
        while below > 1 {
            below = below.div_ceil(PER_BLOCK);
            sizes.push(below);
        }
        let mut at = data_blocks + 1;
        let mut levels = Vec::new();
        for size in sizes.into_iter().rev() {
            levels.push(Level { at, block: Vec::with_capacity(BLOCK) });
            at += size;
        }
        levels.reverse();
        Self { file, data_blocks, written: 0, levels, root: None }
    }

    /// Writes the next block.
    ///
    /// # Errors
    /// The file cannot be written, or there are more blocks than said.
    pub fn push(&mut self, block: &[u8; BLOCK]) -> io::Result<()> {
        if self.written == self.data_blocks {
            return Err(io::Error::other("more data than was announced"));
        }
        self.file.write_all_at(block, self.written * BLOCK as u64)?;
        self.written += 1;
        self.add(0, block)
    }

    /// Adds the digest of a block to the level above it; above the highest is the root.
    fn add(&mut self, level: usize, block: &[u8]) -> io::Result<()> {
        let hash = digest(&SHA256, block);
        let Some(above) = self.levels.get_mut(level) else {
            let mut root = [0; DIGEST];
            root.copy_from_slice(hash.as_ref());
            self.root = Some(root);
            return Ok(());
        };
        above.block.extend_from_slice(hash.as_ref());
        if above.block.len() == BLOCK { self.flush(level) } else { Ok(()) }
    }

    fn flush(&mut self, level: usize) -> io::Result<()> {
        let this = &mut self.levels[level];
        let mut block = std::mem::replace(&mut this.block, Vec::with_capacity(BLOCK));
        block.resize(BLOCK, 0);
        let at = this.at;
        this.at += 1;
        self.file.write_all_at(&block, at * BLOCK as u64)?;
        self.add(level + 1, &block)
    }

    /// Ends the tree and gives its root.
    ///
    /// # Errors
    /// The file cannot be written, or there were fewer blocks than said.
    pub fn finish(mut self) -> io::Result<[u8; DIGEST]> {
        if self.written != self.data_blocks {
            return Err(io::Error::other("less data than was announced"));
        }
        self.file.write_all_at(&superblock(self.data_blocks), self.data_blocks * BLOCK as u64)?;
        for level in 0..self.levels.len() {
            if !self.levels[level].block.is_empty() {
                self.flush(level)?;
            }
        }
        self.root.ok_or_else(|| io::Error::other("there is no data"))
    }
}

/// For tools alone: the guest takes what it says from the measured command line. The identifier is fixed, so that bytes are.
fn superblock(data_blocks: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"verity\0\0");
    put(8, &1_u32.to_le_bytes());
    put(12, &1_u32.to_le_bytes());
    put(16, b"cocoon-model-v1\0");
    put(32, b"sha256");
    put(64, &(BLOCK as u32).to_le_bytes());
    put(68, &(BLOCK as u32).to_le_bytes());
    put(72, &data_blocks.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as the kernel's documentation words it, in memory.
    fn root_by_the_book(mut level: Vec<[u8; BLOCK]>) -> ([u8; 32], Vec<Vec<[u8; BLOCK]>>) {
        let mut levels = Vec::new();
        while level.len() > 1 {
            let hashes: Vec<u8> = level.iter().flat_map(|block| digest(&SHA256, block).as_ref().to_vec()).collect();
            level = hashes
                .chunks(BLOCK)
                .map(|chunk| {
                    let mut block = [0; BLOCK];
                    block[..chunk.len()].copy_from_slice(chunk);
                    block
                })
                .collect();
            levels.push(level.clone());
        }
        levels.reverse();
        (digest(&SHA256, &level[0]).as_ref().try_into().unwrap(), levels)
    }

    #[test]
    fn trees_of_every_depth_are_those_of_the_documentation() {
        for count in [1_u64, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1] {
            let blocks: Vec<[u8; BLOCK]> = (0..count)
                .map(|number| {
                    let mut block = [0; BLOCK];
                    block[..8].copy_from_slice(&number.to_le_bytes());
                    block
                })
                .collect();
            let file = tempfile::tempfile().unwrap();
            let mut writer = VerityWriter::new(file.try_clone().unwrap(), count);
            for block in &blocks {
                writer.push(block).unwrap();
            }
            let root = writer.finish().unwrap();
            let (expected, levels) = root_by_the_book(blocks);
            assert_eq!(root, expected, "{count} blocks");
            let mut tree = vec![0; levels.concat().len() * BLOCK];
            file.read_exact_at(&mut tree, (count + 1) * BLOCK as u64).unwrap();
            assert_eq!(file.metadata().unwrap().len(), (count + 1) * BLOCK as u64 + tree.len() as u64);
            assert_eq!(tree, levels.concat().concat(), "{count} blocks");
        }
    }

    #[test]
    fn another_number_of_blocks_than_announced_is_an_error() {
        let mut writer = VerityWriter::new(tempfile::tempfile().unwrap(), 1);
        writer.push(&[0; BLOCK]).unwrap();
        assert!(writer.push(&[0; BLOCK]).is_err());
        assert!(VerityWriter::new(tempfile::tempfile().unwrap(), 2).finish().is_err());
        assert!(VerityWriter::new(tempfile::tempfile().unwrap(), 0).finish().is_err());
    }
}
