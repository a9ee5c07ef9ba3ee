//! Checking that a log holds a leaf, and that it only ever grew, without the log.

use cocoon_attestation::Digest;
use tlog_tiles::{Hash, check_record, check_tree, record_hash};

use crate::Error;
use crate::note::TreeHead;

/// Longest proof that can be right: a tree has at most 2^64 leaves, and a proof of consistency at most one hash more than levels.
const MAX_HASHES: usize = 65;

/// The way from a leaf to the root of a tree (RFC 6962 section 2.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// Index of the leaf.
    pub index: u64,
    /// Leaves of the tree.
    pub tree_size: u64,
    /// Hashes from the leaf to the root.
    pub hashes: Vec<Digest>,
}

fn hashes(proof: &[Digest]) -> Result<Vec<Hash>, Error> {
    if proof.len() > MAX_HASHES {
        return Err(Error::Proof("it has too many hashes".into()));
    }
    Ok(proof.iter().map(|hash| Hash(hash.0)).collect())
}

/// Checks that a tree holds `leaf` (its CBOR) at the proof's index.
///
/// # Errors
/// The proof is for another tree, or does not lead to its root.
pub fn verify_inclusion(leaf: &[u8], proof: &InclusionProof, head: &TreeHead) -> Result<(), Error> {
    if head.size != proof.tree_size {
        return Err(Error::Proof(format!("it is for {} leaves, the checkpoint for {}", proof.tree_size, head.size)));
    }
    check_record(&hashes(&proof.hashes)?, head.size, Hash(head.root.0), proof.index, record_hash(leaf))
        .map_err(|error| Error::Proof(error.to_string()))
}

/// Checks that a tree begins with all the leaves of an older one (RFC 6962 section 2.1.2).
///
/// # Errors
/// [`Error::SplitView`] if the newer tree does not continue the older one, or the proof does not show that it does.
pub fn verify_consistency(proof: &[Digest], newer: &TreeHead, older: &TreeHead) -> Result<(), Error> {
    let split = |why: String| Err(Error::SplitView(why));
    if older.size == 0 {
        return Ok(());
    }
    if newer.size < older.size {
        return split(format!("it had {} leaves and shows {} now", older.size, newer.size));
    }
    if newer.size == older.size {
        if newer.root == older.root {
            return Ok(());
        }
        return split(format!("two trees of {} leaves have different roots", newer.size));
    }
    match check_tree(&hashes(proof)?, newer.size, Hash(newer.root.0), older.size, Hash(older.root.0)) {
        Ok(()) => Ok(()),
        Err(error) => {
            split(format!("a tree of {} leaves is not proved to continue one of {}: {error}", newer.size, older.size))
        }
    }
}
