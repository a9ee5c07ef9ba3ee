//! A transparency log's checkpoint, for the chain.

use cocoon_attestation::types::{Digest, UnixTime};
use tycho_types::cell::{Cell, CellBuilder, CellSlice};
use tycho_types::error::Error as CellError;

use super::{expect_tag, load_hash, load_time, store_hash, store_time};
use crate::{Address, NetworkId};

/// "COK1"
const TAG: u32 = 0x434f_4b31;

/// A log's checkpoint as its verifier anchors it in the Registry. Signed by the verifier's verdict key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointAnchor {
    /// The network it counts on.
    pub network: NetworkId,
    /// The Registry that keeps it.
    pub registry: Address,
    /// SHA-256 of the log's C2SP origin line.
    pub origin: Digest,
    /// Number of leaves.
    pub tree_size: u64,
    /// RFC 6962 root hash of those leaves.
    pub root: Digest,
    /// When the checkpoint was made.
    pub time: UnixTime,
}

super::signed_cell!(CheckpointAnchor, "a checkpoint anchor");

impl CheckpointAnchor {
    fn write(&self) -> Result<Cell, CellError> {
        let mut b = CellBuilder::new();
        b.store_u32(TAG)?;
        b.store_u32(self.network.0 as u32)?;
        self.registry.store(&mut b)?;
        store_hash(&mut b, &self.origin.0)?;
        b.store_u64(self.tree_size)?;
        store_hash(&mut b, &self.root.0)?;
        store_time(&mut b, self.time)?;
        b.build()
    }

    fn read(s: &mut CellSlice<'_>) -> Result<Self, CellError> {
        expect_tag(s, TAG)?;
        Ok(Self {
            network: NetworkId(s.load_u32()? as i32),
            registry: Address::load(s)?,
            origin: Digest(load_hash(s)?),
            tree_size: s.load_u64()?,
            root: Digest(load_hash(s)?),
            time: load_time(s)?,
        })
    }
}
