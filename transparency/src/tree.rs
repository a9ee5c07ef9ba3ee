//! The right edge of a tree: all that appending needs to know, whatever the tree's size.

use cocoon_attestation::Digest;
use tlog_tiles::{EMPTY_HASH, Hash, Tile, node_hash, record_hash};

use crate::layout::{LEVELS, WIDTH};

/// The unfinished tile of every level: at most 255 hashes each.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<u8>>,
}

/// A tile that an append has filled.
pub(crate) struct Filled {
    pub level: u8,
    pub index: u64,
    pub hashes: Vec<u8>,
}

impl Edge {
    /// The edge of a tree whose leaves fill its tiles: `tile` reads a full tile of hashes.
    pub(crate) fn resume<E>(tiles: u64, mut tile: impl FnMut(u8, u64) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        let size = tiles * WIDTH;
        let mut levels = vec![Vec::new()];
        let mut count = tiles;
        while count > 0 && levels.len() < usize::from(LEVELS) {
            let below = (levels.len() - 1) as u8;
            let mut hashes = Vec::new();
            for index in count - count % WIDTH..count {
                hashes.extend(Tile::subtree_hash(&tile(below, index)?).0);
            }
            levels.push(hashes);
            count /= WIDTH;
        }
        Ok(Self { size, levels })
    }

    /// Leaves of the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &[u8]) {
        drop(self.push_hash(record_hash(entry)));
    }

    /// Adds a leaf's hash and returns the tiles that it filled, lowest first.
    pub(crate) fn push_hash(&mut self, hash: Hash) -> Vec<Filled> {
        let (mut filled, mut hash) = (Vec::new(), hash);
        self.size += 1;
        for level in 0..LEVELS {
            let at = usize::from(level);
            if self.levels.len() <= at {
                self.levels.push(Vec::new());
            }
            let tile = &mut self.levels[at];
            tile.extend(hash.0);
            if (tile.len() as u64) < WIDTH * 32 {
                break;
            }
            hash = Tile::subtree_hash(tile);
            let index = (self.size >> (8 * (u32::from(level) + 1))) - 1;
            filled.push(Filled { level, index, hashes: std::mem::take(tile) });
        }
        filled
    }

    /// The unfinished tiles: level, index and hashes.
    pub(crate) fn partial(&self) -> impl Iterator<Item = (u8, u64, &[u8])> {
        let size = self.size;
        self.levels.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()).map(move |(level, hashes)| {
            (level as u8, size.checked_shr(8 * (level as u32 + 1)).unwrap_or(0), hashes.as_slice())
        })
    }

    /// RFC 6962 root hash.
    pub fn root(&self) -> Digest {
        let mut root: Option<Hash> = None;
        // Perfect subtrees from the smallest, which is the rightmost, to the largest.
        for hashes in &self.levels {
            let mut rest = hashes.as_slice();
            while !rest.is_empty() {
                let leaves = rest.len() / 32;
                let smallest = 1 << leaves.trailing_zeros();
                let (left, right) = rest.split_at((leaves - smallest) * 32);
                let subtree = Tile::subtree_hash(right);
                root = Some(root.map_or(subtree, |below| node_hash(subtree, below)));
                rest = left;
            }
        }
        Digest(root.unwrap_or(EMPTY_HASH).0)
    }
}
