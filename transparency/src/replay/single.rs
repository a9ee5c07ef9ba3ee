//! Single leaves and documents of a log, and what a leaf needs to be appraised again.

use cocoon_attestation::Digest;
use tlog_tiles::Hash;

use super::appraise::MOST_DOCUMENT;
use super::entry;
use super::stream::{align, hex, leaf_hash, whole_entries};
use super::tiles::{prove, read_tile};
use crate::Error;
use crate::files::Source;
use crate::layout::{self, WIDTH};
use crate::note::TreeHead;

/// The newest leaf about an evidence that is wanted, found by reading all of the log, and proved to be in its tree.
///
/// # Errors
/// The source failed, or the log's files do not prove the leaf.
pub fn find(
    source: &(dyn Source + Sync),
    head: &TreeHead,
    evidence_id: &Digest,
    mut wanted: impl FnMut(&crate::Leaf) -> bool,
) -> Result<Option<(u64, crate::Leaf)>, Error> {
    let mut found = None;
    for index in 0..head.size.div_ceil(WIDTH) {
        let width = (head.size - index * WIDTH).min(WIDTH);
        let name = |width| layout::entries(index, width);
        // Behind files that are not there nothing else is looked for: a log can sign any size.
        let Some(bytes) = read_tile(source, name, width, false)? else { break };
        let entries = whole_entries(&bytes);
        let named = |entry: &[u8]| match entry::Entry::read(entry) {
            Some(leaf) => leaf.evidence_id.0 == *evidence_id,
            None => crate::Leaf::from_cbor(entry).is_ok_and(|leaf| leaf.evidence_id.0 == *evidence_id),
        };
        if !entries.iter().any(|entry| named(entry)) {
            continue;
        }
        let places = align(
            &signed_hashes(source, index, width)?,
            &entries.iter().map(|entry| leaf_hash(entry)).collect::<Vec<_>>(),
        );
        for (entry, place) in entries.into_iter().zip(places) {
            let Some(place) = place.filter(|_| named(entry)) else { continue };
            let leaf = crate::Leaf::from_cbor(entry)?;
            if wanted(&leaf) {
                let at = index * WIDTH + place as u64;
                prove(source, head, at, leaf_hash(entry))?;
                found = Some((at, leaf));
            }
        }
    }
    Ok(found)
}

/// One leaf of a log, by its index, and proved to be in its tree.
///
/// # Errors
/// The source failed, the log has no such leaf, or its files do not prove it.
pub fn leaf(source: &(dyn Source + Sync), head: &TreeHead, index: u64) -> Result<crate::Leaf, Error> {
    if index >= head.size {
        return Err(Error::NoLeaf { index, size: head.size });
    }
    let tile = index / WIDTH;
    let width = (head.size - tile * WIDTH).min(WIDTH);
    let place = (index % WIDTH) as usize;
    let signed = signed_hashes(source, tile, width)?;
    let bytes = read_tile(source, |width| layout::entries(tile, width), width, false)?.unwrap_or_default();
    let hash = signed.get(place).ok_or(Error::NoLeaf { index, size: head.size })?;
    // By its hash: with an entry missing in front of it, it stands at another place.
    let entries = whole_entries(&bytes);
    let entry = entries.into_iter().find(|entry| leaf_hash(entry).0 == hash.0);
    let entry = entry.ok_or_else(|| {
        Error::Leaf(format!("no entry has the hash {} that the tree has for leaf {index}", hex(hash)))
    })?;
    prove(source, head, index, *hash)?;
    crate::Leaf::from_cbor(entry)
}

/// A policy, or reference values, that a leaf names.
///
/// # Errors
/// It is not there, not what its name says, too long, or no text.
pub fn document(source: &(dyn Source + Sync), digest: &Digest) -> Result<String, Error> {
    let bytes = source.part(digest)?;
    if bytes.len() > MOST_DOCUMENT {
        return Err(Error::Part(*digest, "is longer than a policy or reference values can be"));
    }
    String::from_utf8(bytes).map_err(|_| Error::Part(*digest, "is not text"))
}

fn signed_hashes(source: &(dyn Source + Sync), tile: u64, width: u64) -> Result<Vec<Hash>, Error> {
    let bytes = read_tile(source, |width| layout::hashes(0, tile, width), width, false)?.unwrap_or_default();
    let mut hashes: Vec<Hash> = bytes.as_chunks().0.iter().map(|hash| Hash(*hash)).collect();
    hashes.truncate(width as usize);
    if hashes.len() as u64 == width {
        return Ok(hashes);
    }
    Err(Error::Leaf(format!(
        "{} is not there or cut short, so nothing proves its leaves",
        layout::hashes(0, tile, width)
    )))
}

/// Whether entries are those that a tile of hashes stands for, one by one.
pub fn entries_match(entries: &[u8], hashes: &[u8], width: u64) -> bool {
    let (entries, hashes) = (whole_entries(entries), hashes.as_chunks::<32>().0);
    let width = width as usize;
    entries.len() >= width
        && hashes.len() >= width
        && entries.iter().zip(hashes).take(width).all(|(entry, hash)| leaf_hash(entry).0 == *hash)
}

/// What an entry needs besides itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsOf {
    /// Parts that can be named from the entry alone.
    pub parts: Vec<Digest>,
    /// The part that the bundle is, where it does not stand in the entry: it names further ones ([`parts_of_bundle`]).
    pub bundle: Option<Digest>,
}

/// The parts that an entry names; none if it cannot be read.
pub fn parts_of(entry: &[u8]) -> PartsOf {
    let slow;
    let entry = match entry::Entry::read(entry) {
        Some(entry) => entry,
        None => match crate::Leaf::from_cbor(entry) {
            Ok(leaf) => {
                slow = leaf;
                entry::Entry::of(&slow)
            }
            Err(_) => return PartsOf::default(),
        },
    };
    let mut of = PartsOf { parts: vec![entry.policy], bundle: None };
    of.parts.extend(entry.references);
    if let entry::PartRef::Shared(appraisal) = entry.appraisal {
        of.parts.push(appraisal);
    }
    match entry.bundle {
        entry::PartRef::Inline(bundle) => of.parts.extend(parts_of_bundle(bundle)),
        entry::PartRef::Shared(bundle) => {
            of.parts.push(bundle);
            of.bundle = Some(bundle);
        }
    }
    of
}

/// The endorsements that a detached bundle names; none if it cannot be read.
pub fn parts_of_bundle(bundle: &[u8]) -> Vec<Digest> {
    cocoon_attestation::detached::named(bundle)
}
