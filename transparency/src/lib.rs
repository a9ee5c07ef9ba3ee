//! Append-only log of what verifier nodes appraised, so that a stranger can check them later: a
//! [C2SP tlog-tiles](https://c2sp.org/tlog-tiles) log of static files, with checkpoints that other nodes cosign as witnesses
//! (`docs/transparency.md`).
//!
//! Each entry is a [`Leaf`]: what was appraised, when, by whom and with what result. What many leaves share, and what is long,
//! stands beside the tree under its SHA-256.

mod error;
mod files;
mod journal;
pub mod layout;
mod leaf;
mod log;
mod note;
mod proof;
pub mod replay;
mod tree;
mod witness;

pub use error::Error;
pub use files::{Folder, Source};
pub use leaf::{Leaf, MAX_ENTRY, Part, read_entries, shared_parts};
pub use log::{Head, Log};
pub use note::{
    Cosigned, TreeHead, kept_checkpoints, log_key, open_checkpoint, open_cosigned, open_statement, witness_key,
};
pub use proof::{InclusionProof, verify_consistency, verify_inclusion};
pub use tree::Edge;
pub use witness::{AddCheckpoint, Witness, WitnessError, derive};
