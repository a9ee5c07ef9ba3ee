//! Cells that a key signs: voucher, settlement receipt, verdict, checkpoint anchor (`schema.tlb`).
//!
//! A signature is Ed25519 (RFC 8032) over the 32-byte representation hash of the cell. The first 32 bits say which kind
//! of cell it is and the next 32 for which network, so no signature can be taken for another.
//!
//! Times are 32 bits wide in cells, as TON's own are: a later [`UnixTime`] is written as the last one that fits.

mod checkpoint;
mod receipt;
mod verdict;
mod voucher;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use cocoon_attestation::types::UnixTime;
use tycho_types::cell::{Cell, CellBuilder, CellSlice, HashBytes};
use tycho_types::error::Error as CellError;

use crate::error::Error;

pub use checkpoint::CheckpointAnchor;
pub use receipt::SettlementReceipt;
pub use verdict::Verdict;
pub use voucher::Voucher;

/// An Ed25519 signature.
pub type Signature = [u8; 64];

/// Signs a cell's representation hash with the Ed25519 key of this seed.
pub fn sign_hash(hash: &[u8; 32], seed: &[u8; 32]) -> Result<Signature, Error> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed)
        .map_err(|_| Error::Malformed { what: "an Ed25519 seed", why: "use 32 random bytes".into() })?;
    let mut signature = [0; 64];
    signature.copy_from_slice(pair.sign(hash).as_ref());
    Ok(signature)
}

/// Checks an Ed25519 signature over a cell's representation hash; `what` names the cell in the error.
pub fn verify_hash(what: &'static str, hash: &[u8; 32], signature: &Signature, key: &[u8; 32]) -> Result<(), Error> {
    UnparsedPublicKey::new(&ED25519, key).verify(hash, signature).map_err(|_| Error::Signature(what))
}

/// What every signed cell can do, given `write` and `read`.
macro_rules! signed_cell {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The cell of `schema.tlb`.
            pub fn to_cell(&self) -> tycho_types::cell::Cell {
                // Fixed widths below a cell's capacity: writing cannot fail.
                self.write().unwrap_or_default()
            }

            /// Reads the cell; anything missing, left over or of another kind is an error.
            pub fn from_cell(cell: &tycho_types::cell::Cell) -> Result<Self, $crate::Error> {
                $crate::cells::read_whole(cell, Self::read).map_err(|e| $crate::cells::malformed($what, e))
            }

            /// The representation hash, which is what gets signed.
            pub fn hash(&self) -> [u8; 32] {
                self.to_cell().repr_hash().0
            }

            /// Serialized as a bag of cells.
            pub fn to_boc(&self) -> Vec<u8> {
                tycho_types::boc::Boc::encode(self.to_cell())
            }

            /// Reads a bag of cells with exactly this cell as its root.
            pub fn from_boc(boc: &[u8]) -> Result<Self, $crate::Error> {
                let cell = tycho_types::boc::Boc::decode(boc).map_err(|e| $crate::cells::malformed($what, e))?;
                Self::from_cell(&cell)
            }

            /// Signs with the Ed25519 key of this seed.
            pub fn sign(&self, seed: &[u8; 32]) -> Result<$crate::cells::Signature, $crate::Error> {
                $crate::cells::sign_hash(&self.hash(), seed)
            }

            /// Checks a signature by this Ed25519 public key.
            pub fn verify(&self, signature: &$crate::cells::Signature, key: &[u8; 32]) -> Result<(), $crate::Error> {
                $crate::cells::verify_hash($what, &self.hash(), signature, key)
            }
        }
    };
}
use signed_cell;

/// Reads a cell to its very end.
pub(crate) fn read_whole<T>(
    cell: &Cell,
    read: impl FnOnce(&mut CellSlice<'_>) -> Result<T, CellError>,
) -> Result<T, CellError> {
    let mut slice = cell.as_slice()?;
    let value = read(&mut slice)?;
    if !slice.is_data_empty() || !slice.is_refs_empty() {
        return Err(CellError::InvalidData);
    }
    Ok(value)
}

/// A cell or bag of cells that is not what it should be.
pub(crate) fn malformed(what: &'static str, why: impl std::fmt::Display) -> Error {
    Error::Malformed { what, why: why.to_string() }
}

fn expect_tag(slice: &mut CellSlice<'_>, tag: u32) -> Result<(), CellError> {
    if slice.load_u32()? == tag { Ok(()) } else { Err(CellError::InvalidTag) }
}

pub(crate) fn store_time(builder: &mut CellBuilder, time: UnixTime) -> Result<(), CellError> {
    builder.store_u32(u32::try_from(time.0).unwrap_or(u32::MAX))
}

pub(crate) fn load_time(slice: &mut CellSlice<'_>) -> Result<UnixTime, CellError> {
    Ok(UnixTime(slice.load_u32()?.into()))
}

pub(crate) fn store_hash(builder: &mut CellBuilder, hash: &[u8; 32]) -> Result<(), CellError> {
    builder.store_u256(&HashBytes(*hash))
}

pub(crate) fn load_hash(slice: &mut CellSlice<'_>) -> Result<[u8; 32], CellError> {
    Ok(slice.load_u256()?.0)
}
