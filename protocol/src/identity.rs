//! Ed25519 keys (RFC 8032): the enclave's identity, the client's channel key, a verifier's verdict key.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use cocoon_attestation::EnclaveKey;
use zeroize::Zeroizing;

use crate::Error;

/// An Ed25519 signature.
pub type Signature = [u8; 64];

/// A private key that never shows itself: no `Debug` of its content, wiped when dropped.
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// A new key from the system's random source.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|_| Error::Crypto("no random numbers from the system"))?;
        Self::from_seed(&seed)
    }

    /// The key of a 32-byte seed.
    ///
    /// # Errors
    /// The crypto library refuses.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, Error> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Crypto("an Ed25519 key from a seed"))?;
        Ok(Self { seed: Zeroizing::new(*seed), pair })
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair.public_key().as_ref());
        public
    }

    /// The public key, as evidence names it.
    pub fn enclave_key(&self) -> EnclaveKey {
        EnclaveKey(self.public())
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The seed, for signing TON cells with it.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(public {})", hex::encode(self.public()))
    }
}

/// Checks a signature; `what` names the message in the error.
///
/// # Errors
/// [`Error::Signature`].
pub fn verify(what: &'static str, public: &[u8; 32], message: &[u8], signature: &Signature) -> Result<(), Error> {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).map_err(|_| Error::Signature(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_8032_test_1() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SigningKey::from_seed(&seed.try_into().unwrap()).unwrap();
        assert_eq!(hex::encode(key.public()), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let signature = key.sign(b"");
        assert_eq!(hex::encode(&signature[..8]), "e5564300c360ac72");
        verify("a test", &key.public(), b"", &signature).unwrap();
        assert!(verify("a test", &key.public(), b"x", &signature).is_err());
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let key = SigningKey::from_seed(&[0x5a; 32]).unwrap();
        assert!(!format!("{key:?}").contains(&hex::encode([0x5a; 8])));
    }
}
