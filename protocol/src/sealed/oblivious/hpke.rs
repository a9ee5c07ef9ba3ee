//! HPKE (RFC 9180) in base mode with one suite: X-Wing, HKDF-SHA256, AES-128-GCM.

use zeroize::Zeroizing;

use super::aead::{KEY_LEN, Sequence};
use super::hkdf::{self, Prk32};
use super::xwing::{self, ENC_LEN, PUBLIC_LEN, PrivateKey, SharedSecret};
use crate::Error;

/// KEM, KDF and AEAD, as the registries of RFC 9180 section 7 number them.
pub(super) const SUITE: [u8; 6] = [0x64, 0x7a, 0, 1, 0, 1];

/// `suite_id` of section 5.1, after the version label of section 4.
const SUITE_ID: &[u8; 17] = b"HPKE-v1HPKE\x64\x7a\0\x01\0\x01";
const MODE_BASE: u8 = 0;

/// What both sides hold after the encapsulation: the key of the messages, and a secret to derive others from.
pub(super) struct Context {
    pub(super) messages: Sequence,
    exporter_secret: Prk32,
}

impl Context {
    /// `SetupBaseS` of section 5.1.1: the encapsulated key, and the sender's context.
    pub(super) fn sender(public: &[u8; PUBLIC_LEN], info: &[u8]) -> Result<([u8; ENC_LEN], Self), Error> {
        let (enc, secret) = xwing::encapsulate(public)?;
        Ok((enc, Self::schedule(&secret, info)?))
    }

    /// `SetupBaseR` of section 5.1.1.
    pub(super) fn receiver(key: &PrivateKey, enc: &[u8; ENC_LEN], info: &[u8]) -> Result<Self, Error> {
        Self::schedule(&key.decapsulate(enc)?, info)
    }

    /// `KeySchedule` of section 5.1, without a pre-shared key.
    fn schedule(shared_secret: &SharedSecret, info: &[u8]) -> Result<Self, Error> {
        let psk_id_hash = labeled_extract(b"", b"psk_id_hash", b"")?;
        let info_hash = labeled_extract(b"", b"info_hash", info)?;
        let context: [&[u8]; 3] = [&[MODE_BASE], &*psk_id_hash, &*info_hash];
        let secret = labeled_extract(&**shared_secret, b"secret", b"")?;
        let key = labeled_expand::<KEY_LEN>(&secret, b"key", context)?;
        let base_nonce = labeled_expand(&secret, b"base_nonce", context)?;
        Ok(Self {
            messages: Sequence::new(&key, *base_nonce)?,
            exporter_secret: labeled_expand(&secret, b"exp", context)?,
        })
    }

    /// `Context.Export` of section 5.3.
    pub(super) fn export<const N: usize>(&self, label: &[u8]) -> Result<Zeroizing<[u8; N]>, Error> {
        labeled_expand(&self.exporter_secret, b"sec", [label, b"", b""])
    }
}

/// `LabeledExtract` of section 4.
fn labeled_extract(salt: &[u8], label: &[u8], ikm: &[u8]) -> Result<Prk32, Error> {
    // Without a pre-shared key, what is secret is the salt alone.
    hkdf::extract(salt, &[SUITE_ID, label, ikm].concat())
}

/// `LabeledExpand` of section 4.
fn labeled_expand<const N: usize>(
    prk: &Prk32,
    label: &[u8],
    [first, second, third]: [&[u8]; 3],
) -> Result<Zeroizing<[u8; N]>, Error> {
    const { assert!(N <= u16::MAX as usize) };
    hkdf::expand(prk, &[&(N as u16).to_be_bytes(), SUITE_ID, label, first, second, third])
}

#[cfg(test)]
pub(super) mod tests {
    use shake::digest::{ExtendableOutput, Update, XofReader};

    use super::*;

    /// `DeriveKeyPair` of draft-ietf-hpke-pq for X-Wing: `LabeledDerive` with SHAKE256, whose version label stands after the secret.
    pub(in super::super) fn derive_key_pair(ikm: &[u8]) -> PrivateKey {
        let mut hash = shake::Shake256::default();
        let label = b"DeriveKeyPair";
        for part in [ikm, b"HPKE-v1KEM\x64\x7a", &[0, label.len() as u8], label, &[0, 32]] {
            hash.update(part);
        }
        let mut seed = [0; 32];
        hash.finalize_xof().read(&mut seed);
        xwing::tests::from_seed(&seed)
    }

    #[test]
    fn both_sides_agree_and_everything_is_bound_to_info() {
        let key = derive_key_pair(b"seed");
        let (enc, mut sender) = Context::sender(key.public(), b"info").unwrap();
        let mut sealed = Vec::new();
        sender.messages.seal(b"aad", b"message", &mut sealed).unwrap();

        let mut receiver = Context::receiver(&key, &enc, b"info").unwrap();
        assert_eq!(receiver.messages.open(b"aad", &mut sealed.clone()).unwrap(), b"message");
        assert_eq!(receiver.export::<16>(b"label").unwrap(), sender.export(b"label").unwrap());
        assert_ne!(receiver.export::<16>(b"other").unwrap(), sender.export(b"label").unwrap());

        let mut other = Context::receiver(&key, &enc, b"other").unwrap();
        assert!(other.messages.open(b"aad", &mut sealed.clone()).is_err());
        assert_ne!(other.export::<16>(b"label").unwrap(), sender.export(b"label").unwrap());
    }
}
