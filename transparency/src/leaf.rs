//! One entry of a log: what was appraised, with what result, when and by whom. Schema: `docs/schemas/log-leaf.cddl`.

use cocoon_attestation::cbor::{self, Fields, Value};
use cocoon_attestation::{Digest, UnixTime};

use crate::Error;

const VERSION: u64 = 1;

/// A leaf carries all that is needed to repeat the appraisal offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The bundle's CBOR with its endorsements.
    pub bundle: Vec<u8>,
    /// The appraisal as JSON.
    pub appraisal: Vec<u8>,
    /// The time for which it was appraised.
    pub time: UnixTime,
    /// Name of the verifier node.
    pub node: String,
}

impl Leaf {
    /// Deterministic CBOR.
    pub fn to_cbor(&self) -> Vec<u8> {
        cbor::encode(&cbor::map([
            (0, Value::from(VERSION)),
            (1, Value::Bytes(self.bundle.clone())),
            (2, Value::Bytes(self.appraisal.clone())),
            (3, Value::from(self.time.0)),
            (4, Value::from(self.node.as_str())),
        ]))
    }

    /// Reads deterministic CBOR.
    ///
    /// # Errors
    /// Another version, or fields that are absent, unknown or of another type.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        Self::read(bytes).map_err(|error| Error::Leaf(error.to_string()))
    }

    fn read(bytes: &[u8]) -> Result<Self, cocoon_attestation::Error> {
        let mut fields = Fields::decode("a log leaf", bytes)?;
        if fields.uint(0)? != VERSION {
            return Err(fields.error("its version is not 1"));
        }
        let leaf = Self {
            bundle: fields.bytes(1)?,
            appraisal: fields.bytes(2)?,
            time: UnixTime(fields.uint(3)?),
            node: fields.text(4)?,
        };
        fields.finish()?;
        Ok(leaf)
    }
}

/// The tree's entry for a leaf: its SHA-256. C2SP entries are at most 65535 bytes, and leaves are longer.
pub fn entry(leaf: &[u8]) -> Digest {
    Digest::of(&[leaf])
}
