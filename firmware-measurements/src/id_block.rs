//! The identity block: by it an SNP guest's owner states which launch digest and policy are theirs, and the secure processor refuses
//! to start anything else (SEV-SNP Firmware ABI, SNP_LAUNCH_FINISH, "ID Block" and "ID Authentication Information").
//!
//! The block is made here, and so is the structure that carries its signatures. Keys stay with whoever holds them: sign
//! [`IdBlock::to_bytes`] with ECDSA over P-384 and SHA-384 there.

use cocoon_attestation::Measurement;

use crate::Error;

/// Bytes of an identity block.
pub const BLOCK: usize = 96;
/// Bytes of the authentication information: one page.
pub const AUTHENTICATION: usize = 4096;
const KEY: usize = 1028;
const SIGNATURE: usize = 512;
/// Numbers are little-endian in 72 bytes, of which a P-384 number fills 48.
const NUMBER: usize = 72;
const VERSION: u32 = 1;
const ECDSA_P384: u32 = 1;
const CURVE_P384: u32 = 2;

/// What a guest's owner states of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// The launch digest.
    pub launch_digest: Measurement,
    /// FAMILY_ID, of the owner's choice.
    pub family_id: [u8; 16],
    /// IMAGE_ID, of the owner's choice.
    pub image_id: [u8; 16],
    /// GUEST_SVN, the guest's security version.
    pub guest_svn: u32,
    /// The guest policy: the same as at launch.
    pub policy: u64,
}

impl IdBlock {
    /// The block, as it is signed and as QEMU takes it in base64 (`sev-snp-guest`, `id-block`).
    pub fn to_bytes(&self) -> [u8; BLOCK] {
        let mut out = [0; BLOCK];
        out[..48].copy_from_slice(&self.launch_digest.0);
        out[48..64].copy_from_slice(&self.family_id);
        out[64..80].copy_from_slice(&self.image_id);
        out[80..84].copy_from_slice(&VERSION.to_le_bytes());
        out[84..88].copy_from_slice(&self.guest_svn.to_le_bytes());
        out[88..].copy_from_slice(&self.policy.to_le_bytes());
        out
    }
}

/// A P-384 public key in AMD's format.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; KEY]);

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.digest())
    }
}

impl PublicKey {
    /// From an uncompressed point of SEC 1: 0x04, x, y, in 97 bytes.
    ///
    /// # Errors
    /// The bytes are of another form. Whether the point is on the curve is not looked at.
    pub fn from_point(point: &[u8]) -> Result<Self, Error> {
        match point.split_first() {
            Some((4, numbers)) if numbers.len() == 96 => {
                let mut out = [0; KEY];
                out[..4].copy_from_slice(&CURVE_P384.to_le_bytes());
                numbers_into(&mut out[4..], numbers);
                Ok(Self(out))
            }
            _ => Err(Error::malformed("P-384 public key", "it is no uncompressed point of 97 bytes")),
        }
    }

    /// The key as it stands in the authentication information.
    pub fn to_bytes(&self) -> [u8; KEY] {
        self.0
    }

    /// What a report states of it, as ID_KEY_DIGEST or AUTHOR_KEY_DIGEST.
    pub fn digest(&self) -> Measurement {
        Measurement::of(&[&self.0])
    }
}

/// A signature: r and s, big-endian, 48 bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 96]);

impl Signature {
    fn to_bytes(self) -> [u8; SIGNATURE] {
        let mut out = [0; SIGNATURE];
        numbers_into(&mut out, &self.0);
        out
    }
}

fn numbers_into(out: &mut [u8], numbers: &[u8]) {
    for (place, number) in out.chunks_mut(NUMBER).zip(numbers.chunks(48)) {
        for (to, from) in place.iter_mut().zip(number.iter().rev()) {
            *to = *from;
        }
    }
}

/// Who vouches for an identity block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdAuthentication {
    /// The key that signed the block.
    pub key: PublicKey,
    /// Its signature of [`IdBlock::to_bytes`].
    pub signature: Signature,
    /// An author's key, and its signature of [`PublicKey::to_bytes`] of the key above.
    pub author: Option<(PublicKey, Signature)>,
}

impl IdAuthentication {
    /// The structure, as QEMU takes it in base64 (`sev-snp-guest`, `id-auth`, with `author-key-enabled=on` if there is an author).
    pub fn to_bytes(&self) -> [u8; AUTHENTICATION] {
        let mut out = [0; AUTHENTICATION];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &ECDSA_P384.to_le_bytes());
        put(0x40, &self.signature.to_bytes());
        put(0x240, &self.key.0);
        if let Some((key, signature)) = &self.author {
            put(4, &ECDSA_P384.to_le_bytes());
            put(0x680, &signature.to_bytes());
            put(0x880, &key.0);
        }
        out
    }
}
