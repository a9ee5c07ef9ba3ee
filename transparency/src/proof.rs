//! Checking that a log holds a leaf, without the log.

use cocoon_attestation::Digest;
use signed_note::{Note, StandardVerifier, Verifier, VerifierList};
use tlog_tiles::{Checkpoint, Hash, check_record, record_hash};

use crate::Error;
use crate::leaf::entry;

/// Longest proof that can be right: a tree has at most 2^64 leaves.
const MAX_HASHES: usize = 64;

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

/// A checkpoint whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Leaves of the tree.
    pub size: u64,
    /// RFC 6962 root hash.
    pub root: Digest,
}

/// Checks a checkpoint's signature and origin.
///
/// # Errors
/// The key is no verifier key, or it did not sign this checkpoint for its own origin.
pub fn open_checkpoint(checkpoint: &str, vkey: &str) -> Result<TreeHead, Error> {
    let verifier = StandardVerifier::new(vkey).map_err(|_| Error::VerifierKey(vkey.into()))?;
    let name = verifier.name().to_owned();
    let failed = |why: String| Error::Checkpoint(why);
    let note = Note::from_bytes(checkpoint.as_bytes()).map_err(|error| failed(error.to_string()))?;
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).map_err(|error| failed(error.to_string()))?;
    let parsed = Checkpoint::from_bytes(note.text()).map_err(|error| failed(error.to_string()))?;
    if parsed.origin() != name {
        return Err(failed(format!("it is of '{}', not of '{name}'", parsed.origin())));
    }
    Ok(TreeHead { size: parsed.size(), root: Digest(parsed.hash().0) })
}

/// Checks that the log of `vkey` holds `leaf` (its CBOR) at the proof's index.
///
/// # Errors
/// The checkpoint is not the log's, or the proof does not lead to its root.
pub fn verify_inclusion(leaf: &[u8], proof: &InclusionProof, checkpoint: &str, vkey: &str) -> Result<(), Error> {
    let head = open_checkpoint(checkpoint, vkey)?;
    if head.size != proof.tree_size {
        return Err(Error::Proof(format!("it is for {} leaves, the checkpoint for {}", proof.tree_size, head.size)));
    }
    if proof.hashes.len() > MAX_HASHES {
        return Err(Error::Proof("it has too many hashes".into()));
    }
    let hashes = proof.hashes.iter().map(|hash| Hash(hash.0)).collect();
    let hash = record_hash(entry(leaf).as_bytes());
    check_record(&hashes, head.size, Hash(head.root.0), proof.index, hash)
        .map_err(|error| Error::Proof(error.to_string()))
}
