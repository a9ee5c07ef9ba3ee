//! Trees of earlier sizes, from the tiles of hashes of a log whose newest tree is known.

use std::cell::RefCell;
use std::collections::HashMap;

use cocoon_attestation::Digest;
use tlog_tiles::{
    Hash, HashReader, Tile, check_record, check_tree, prove_record, prove_tree, split_stored_hash_index, tree_hash,
};

use crate::Error;
use crate::files::Source;
use crate::layout::{self, HEIGHT, WIDTH};
use crate::note::TreeHead;

/// Tiles that are kept, 8 KiB each.
const MOST: usize = 256;

/// A file of a tile: of its width in a tree, or of a wider one, cut.
pub(super) fn read_tile(
    source: &(dyn Source + Sync),
    name: impl Fn(u64) -> String,
    width: u64,
    full_first: bool,
) -> Result<Option<Vec<u8>>, Error> {
    let widths = if width == WIDTH || full_first { [WIDTH, width] } else { [width, WIDTH] };
    for width in widths {
        if let Some(bytes) = source.read(&name(width))? {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

struct Tiles<'a> {
    source: &'a (dyn Source + Sync),
    size: u64,
    known: RefCell<HashMap<(u8, u64), Vec<u8>>>,
}

impl Tiles<'_> {
    fn hash(&self, stored: u64) -> Option<Hash> {
        let (level, index) = split_stored_hash_index(stored);
        let (tile_level, height) = (level / HEIGHT, level % HEIGHT);
        let first = index.checked_shl(height.into())?;
        let (tile, at) = (first / WIDTH, (first % WIDTH) as usize);
        let range = at * 32..(at + (1 << height)) * 32;
        let mut known = self.known.borrow_mut();
        if let Some(hashes) = known.get(&(tile_level, tile)) {
            return hashes.get(range).map(Tile::subtree_hash);
        }
        let count = self.size.checked_shr(8 * u32::from(tile_level)).unwrap_or(0);
        let width = if tile < count / WIDTH { WIDTH } else { count % WIDTH };
        let name = |width| layout::hashes(tile_level, tile, width);
        let hashes = read_tile(self.source, name, width.max(1), false).ok()??;
        let hash = hashes.get(range).map(Tile::subtree_hash);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert((tile_level, tile), hashes);
        hash
    }
}

impl HashReader for Tiles<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let hash = |stored: &u64| self.hash(*stored).ok_or(tlog_tiles::Error::IndexesNotInTree);
        indexes.iter().map(hash).collect()
    }
}

/// The root that a log had with `size` leaves, proved to lead to its newest tree: tiles that were tampered with are an error.
pub(super) fn root_at(source: &(dyn Source + Sync), head: &TreeHead, size: u64) -> Result<Digest, Error> {
    let damaged =
        |error: tlog_tiles::Error| Error::Damaged(format!("its tiles do not hold the tree of {size} leaves ({error})"));
    if size == 0 {
        return Ok(Digest(tlog_tiles::EMPTY_HASH.0));
    }
    if size == head.size {
        return Ok(head.root);
    }
    let tiles = Tiles { source, size: head.size, known: RefCell::default() };
    let root = tree_hash(size, &tiles).map_err(damaged)?;
    let proof = prove_tree(head.size, size, &tiles).map_err(damaged)?;
    check_tree(&proof, head.size, Hash(head.root.0), size, root).map_err(damaged)?;
    Ok(Digest(root.0))
}

/// Proves from a log's files that its newest tree has a hash at an index.
pub(super) fn prove(source: &(dyn Source + Sync), head: &TreeHead, index: u64, hash: Hash) -> Result<(), Error> {
    let failed = |error: tlog_tiles::Error| Error::Proof(format!("leaf {index} of {}: {error}", head.size));
    let tiles = Tiles { source, size: head.size, known: RefCell::default() };
    let proof = prove_record(head.size, index, &tiles).map_err(failed)?;
    check_record(&proof, head.size, Hash(head.root.0), index, hash).map_err(failed)
}
