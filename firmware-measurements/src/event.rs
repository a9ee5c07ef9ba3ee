//! What was measured, so that a person can follow how a register came to its value.

use cocoon_attestation::Measurement;

/// Memory that was measured before the guest ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Short name, stable: programs may look for it.
    pub name: String,
    /// Guest physical address; none for registers of vCPUs, which lie nowhere.
    pub address: Option<u64>,
    /// Bytes.
    pub size: u64,
    /// What of it was measured, in words.
    pub meaning: String,
}

/// One extension of a runtime register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Short name, stable: programs may look for it.
    pub name: String,
    /// SHA-384 that the register was extended with.
    pub digest: Measurement,
    /// What it is the digest of, in words.
    pub meaning: String,
}

impl Event {
    pub(crate) fn new(name: &str, digest: Measurement, meaning: impl Into<String>) -> Self {
        Self { name: name.into(), digest, meaning: meaning.into() }
    }

    /// An event whose digest is that of `data`.
    pub(crate) fn of(name: &str, data: &[u8], meaning: impl Into<String>) -> Self {
        Self::new(name, Measurement::of(&[data]), meaning)
    }
}
