//! A verifier's statement for the contract.

use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use tycho_types::cell::{Cell, CellBuilder, CellSlice};
use tycho_types::error::Error as CellError;

use super::{expect_tag, load_hash, load_time, read_whole, store_hash, store_time};
use crate::{Address, NetworkId};

/// "COA1"
const TAG: u32 = 0x434f_4131;

/// A verifier's statement that evidence for an enclave key was accepted. k verifiers sign the very same cell, so every
/// field must follow from the evidence and the Registry alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The network it counts on.
    pub network: NetworkId,
    /// The Registry it counts at.
    pub registry: Address,
    /// The Provider the evidence names.
    pub provider: Address,
    /// The enclave's identity key.
    pub enclave_key: EnclaveKey,
    /// The evidence that was appraised.
    pub evidence_id: Digest,
    /// The measured image, as the Registry lists it.
    pub image: Digest,
    /// The model's root, as the Registry lists it.
    pub model_root: Digest,
    /// 0 for a key the Provider does not know; each renewal takes a higher number.
    pub generation: u32,
    /// The attestation ends here: later receipts are not paid.
    pub until: UnixTime,
    /// The Registry takes the verdict no later than this.
    pub expiry: UnixTime,
    /// The verifier set that this counts for.
    pub set_epoch: u32,
}

super::signed_cell!(Verdict, "a verdict");

impl Verdict {
    fn write(&self) -> Result<Cell, CellError> {
        let mut subject = CellBuilder::new();
        for digest in [&self.evidence_id, &self.image, &self.model_root] {
            store_hash(&mut subject, &digest.0)?;
        }
        let mut b = CellBuilder::new();
        b.store_u32(TAG)?;
        b.store_u32(self.network.0 as u32)?;
        self.registry.store(&mut b)?;
        self.provider.store(&mut b)?;
        store_hash(&mut b, &self.enclave_key.0)?;
        b.store_u32(self.generation)?;
        b.store_u32(self.set_epoch)?;
        store_time(&mut b, self.until)?;
        store_time(&mut b, self.expiry)?;
        b.store_reference(subject.build()?)?;
        b.build()
    }

    fn read(s: &mut CellSlice<'_>) -> Result<Self, CellError> {
        expect_tag(s, TAG)?;
        let network = NetworkId(s.load_u32()? as i32);
        let (registry, provider) = (Address::load(s)?, Address::load(s)?);
        let enclave_key = EnclaveKey(load_hash(s)?);
        let (generation, set_epoch) = (s.load_u32()?, s.load_u32()?);
        let (until, expiry) = (load_time(s)?, load_time(s)?);
        let [evidence_id, image, model_root] = read_whole(&s.load_reference_cloned()?, |s| {
            Ok([Digest(load_hash(s)?), Digest(load_hash(s)?), Digest(load_hash(s)?)])
        })?;
        Ok(Self {
            network,
            registry,
            provider,
            enclave_key,
            evidence_id,
            image,
            model_root,
            generation,
            until,
            expiry,
            set_epoch,
        })
    }
}
