//! The claims an enclave makes about itself: what CPU and GPU evidence is bound to. Schema: `docs/schemas/claims.cddl`.

use crate::Error;
use crate::cbor::{self, Fields, InPlace, Value};
use crate::types::{Digest, EnclaveKey, ProviderAddress, UnixTime};

/// The profile that claims of this version name.
pub const PROFILE: &str = "cocoon/evidence/v1";

/// Longest model name, in bytes of UTF-8.
pub const MAX_MODEL_NAME: usize = 256;

const WHAT: &str = "claims";

/// A TON masterchain block that existed before the evidence: nobody can quote a block hash before it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Beacon {
    /// Masterchain sequence number.
    pub seqno: u32,
    /// Root hash of the block.
    pub root_hash: Digest,
    /// The block's generation time.
    pub time: UnixTime,
}

/// What the enclave says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claims {
    /// Identity key made inside the enclave.
    pub enclave_key: EnclaveKey,
    /// Provider contract that is paid for this enclave's work.
    pub provider: ProviderAddress,
    /// Name under which the model is served, several with commas between them; 1 to [`MAX_MODEL_NAME`] bytes without control characters.
    pub model_name: String,
    /// Root of the model folder ([`crate::model`]).
    pub model_root: Digest,
    /// SHA-256 of the guest's configuration.
    pub config_digest: Digest,
    /// Earliest time of the evidence.
    pub beacon: Beacon,
    /// Merkle root of client nonces; zero if none waited.
    pub nonce_root: Digest,
    /// SHA-256 of the GPU evidence; absent without a GPU.
    pub gpu_digest: Option<Digest>,
}

impl Claims {
    /// The names of the models that are served: one, or several with commas between them. The root covers all of them.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.model_name.split(',')
    }

    /// Whether a model of this name is served.
    pub fn serves(&self, model: &str) -> bool {
        self.models().any(|name| name == model)
    }

    /// Deterministic CBOR; the bytes that REPORTDATA commits to.
    pub fn to_cbor(&self) -> Vec<u8> {
        let digest = |digest: &Digest| Value::Bytes(digest.0.to_vec());
        let beacon = cbor::map([
            (0, Value::from(self.beacon.seqno)),
            (1, digest(&self.beacon.root_hash)),
            (2, Value::from(self.beacon.time.0)),
        ]);
        let mut entries = vec![
            (0, Value::from(PROFILE)),
            (1, Value::Bytes(self.enclave_key.0.to_vec())),
            (2, Value::Bytes(self.provider.0.to_vec())),
            (3, Value::from(self.model_name.as_str())),
            (4, digest(&self.model_root)),
            (5, digest(&self.config_digest)),
            (6, beacon),
            (7, digest(&self.nonce_root)),
        ];
        entries.extend(self.gpu_digest.as_ref().map(|gpu| (8, digest(gpu))));
        cbor::encode(&cbor::map(entries))
    }

    /// Reads claims; anything but the deterministic encoding of known fields is refused.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        // As claims mostly are; everything else is read without haste, which says what is wrong with it.
        if let Some(claims) = Self::in_place(bytes) {
            return Ok(claims);
        }
        Self::read(bytes)
    }

    /// Reads claims exactly as [`Claims::to_cbor`] writes them; `None` if they are not.
    fn in_place(bytes: &[u8]) -> Option<Self> {
        let mut reader = InPlace::new(bytes);
        let count = reader.map()?;
        let mut next = 0;
        let mut key = |reader: &mut InPlace<'_>| {
            let found = reader.uint()? == next;
            next += 1;
            found.then_some(())
        };
        key(&mut reader)?;
        if reader.text()? != PROFILE {
            return None;
        }
        key(&mut reader)?;
        let enclave_key = EnclaveKey(reader.array_of()?);
        key(&mut reader)?;
        let provider = ProviderAddress(reader.array_of()?);
        key(&mut reader)?;
        let model_name = reader.text()?;
        if model_name.is_empty() || model_name.len() > MAX_MODEL_NAME || model_name.chars().any(char::is_control) {
            return None;
        }
        key(&mut reader)?;
        let model_root = Digest(reader.array_of()?);
        key(&mut reader)?;
        let config_digest = Digest(reader.array_of()?);
        key(&mut reader)?;
        if (reader.map()?, reader.uint()?) != (3, 0) {
            return None;
        }
        let seqno = reader.uint()?.try_into().ok()?;
        let root_hash = (reader.uint()? == 1).then(|| reader.array_of().map(Digest))??;
        let time = (reader.uint()? == 2).then(|| reader.uint().map(UnixTime))??;
        let beacon = Beacon { seqno, root_hash, time };
        key(&mut reader)?;
        let nonce_root = Digest(reader.array_of()?);
        let gpu_digest = match count {
            8 => None,
            9 => {
                key(&mut reader)?;
                Some(Digest(reader.array_of()?))
            }
            _ => return None,
        };
        let model_name = model_name.to_owned();
        let claims =
            Self { enclave_key, provider, model_name, model_root, config_digest, beacon, nonce_root, gpu_digest };
        reader.is_empty().then_some(claims)
    }

    fn read(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode(WHAT, bytes)?;
        let profile = fields.text(0)?;
        if profile != PROFILE {
            return Err(fields.error(format!("profile {profile:?} is not {PROFILE}, the one this version reads")));
        }
        let enclave_key = EnclaveKey(fields.array(1)?);
        let provider = ProviderAddress(fields.array(2)?);
        let model_name = fields.text(3)?;
        if model_name.is_empty() || model_name.len() > MAX_MODEL_NAME || model_name.chars().any(char::is_control) {
            return Err(fields.error(format!("the model name must be 1 to {MAX_MODEL_NAME} printable bytes")));
        }
        let model_root = Digest(fields.array(4)?);
        let config_digest = Digest(fields.array(5)?);
        let beacon = fields.take(6).ok_or_else(|| fields.error("field 6 (beacon) is missing"))?;
        let mut beacon = Fields::new("beacon", beacon)?;
        let seqno = beacon.uint(0)?;
        let seqno = seqno.try_into().map_err(|_| beacon.error("the sequence number has 32 bits"))?;
        let root_hash = Digest(beacon.array(1)?);
        let time = UnixTime(beacon.uint(2)?);
        beacon.finish()?;
        let nonce_root = Digest(fields.array(7)?);
        let gpu_digest = match fields.take(8) {
            None => None,
            Some(Value::Bytes(bytes)) => Some(Digest::from_slice(&bytes)?),
            Some(_) => return Err(fields.error("field 8 must be a byte string")),
        };
        fields.finish()?;
        let beacon = Beacon { seqno, root_hash, time };
        Ok(Self { enclave_key, provider, model_name, model_root, config_digest, beacon, nonce_root, gpu_digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(gpu_digest: Option<Digest>) -> Claims {
        Claims {
            enclave_key: EnclaveKey([1; 32]),
            provider: ProviderAddress([2; 33]),
            model_name: "a model, of a name".into(),
            model_root: Digest([3; 32]),
            config_digest: Digest([4; 32]),
            beacon: Beacon { seqno: 300, root_hash: Digest([5; 32]), time: UnixTime(1_790_000_000) },
            nonce_root: Digest([0; 32]),
            gpu_digest,
        }
    }

    /// What is read in haste is what is read without, and nothing else is.
    #[test]
    fn both_readers_agree_on_every_byte() {
        for claims in [claims(None), claims(Some(Digest([6; 32])))] {
            let bytes = claims.to_cbor();
            assert_eq!(Claims::in_place(&bytes), Some(claims.clone()));
            assert_eq!(Claims::read(&bytes).unwrap(), claims);
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut altered = bytes.clone();
                    altered[at] ^= 1 << bit;
                    if let Some(found) = Claims::in_place(&altered) {
                        assert_eq!(Claims::read(&altered).unwrap(), found, "byte {at}");
                    }
                }
                assert_eq!(Claims::in_place(&bytes[..at]), None);
            }
        }
    }
}
