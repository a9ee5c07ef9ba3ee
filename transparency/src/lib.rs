//! Append-only log of what verifier nodes appraised, so that a stranger can check them later: a
//! [C2SP tlog-tiles](https://c2sp.org/tlog-tiles) log with signed-note checkpoints (`docs/transparency.md`).
//!
//! Each tree entry is the SHA-256 of a [`Leaf`], which carries the bundle, the appraisal and the time.

mod error;
mod leaf;
mod log;
mod proof;

pub use error::Error;
pub use leaf::{Leaf, entry};
pub use log::Log;
pub use proof::{InclusionProof, TreeHead, open_checkpoint, verify_inclusion};
