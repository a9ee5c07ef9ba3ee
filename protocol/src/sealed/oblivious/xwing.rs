//! X-Wing, the hybrid of ML-KEM-768 and X25519 (draft-connolly-cfrg-xwing-kem): a secret stays secret while either of the two holds.
//!
//! One difference from the draft: a private key is the two expanded keys as aws-lc made them, not the 32-byte seed of both, since it
//! never leaves the process. Nothing on the wire shows it.

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519, agree, agree_ephemeral};
use aws_lc_rs::digest::{SHA3_256, digest};
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use aws_lc_rs::rand::SystemRandom;
use zeroize::Zeroizing;

use crate::Error;

/// Length of an ML-KEM-768 public key, in bytes (FIPS 203).
const ML_KEM_PUBLIC_LEN: usize = 1184;
/// Length of an ML-KEM-768 ciphertext, in bytes (FIPS 203).
const ML_KEM_CIPHERTEXT_LEN: usize = 1088;
/// Length of an X25519 public key and of every shared secret here, in bytes.
const HALF: usize = 32;
/// Length of a public key, in bytes: ML-KEM first, then X25519.
pub(super) const PUBLIC_LEN: usize = ML_KEM_PUBLIC_LEN + HALF;
/// Length of an encapsulated key, in bytes: ML-KEM first, then X25519.
pub(super) const ENC_LEN: usize = ML_KEM_CIPHERTEXT_LEN + HALF;

/// What both sides share after encapsulation.
pub(super) type SharedSecret = Zeroizing<[u8; HALF]>;

/// Makes a secret and encapsulates it to a public key.
pub(super) fn encapsulate(public: &[u8; PUBLIC_LEN]) -> Result<([u8; ENC_LEN], SharedSecret), Error> {
    const UNUSABLE: Error = Error::Crypto("the X-Wing public key cannot be sealed to");
    let (public_m, public_x) = split::<PUBLIC_LEN>(public);
    // aws-lc checks here that the key is reduced (FIPS 203 section 7.2).
    let (ct_m, ss_m) =
        EncapsulationKey::new(&ML_KEM_768, public_m).map_err(|_| UNUSABLE)?.encapsulate().map_err(|_| UNUSABLE)?;
    let ephemeral =
        EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| Error::Crypto("no X25519 key"))?;
    let ct_x = ephemeral.compute_public_key().map_err(|_| Error::Crypto("no X25519 public key"))?;
    let mut enc = [0; ENC_LEN];
    let (enc_m, enc_x) = enc.split_at_mut(ML_KEM_CIPHERTEXT_LEN);
    fill(enc_m, ct_m.as_ref())?;
    fill(enc_x, ct_x.as_ref())?;
    let secret = agree_ephemeral(ephemeral, UnparsedPublicKey::new(&X25519, public_x), UNUSABLE, |ss_x| {
        combine(ss_m.as_ref(), ss_x, enc_x, public_x)
    })?;
    Ok((enc, secret))
}

/// Both private keys, and the public key that belongs to them.
pub(super) struct PrivateKey {
    ml_kem: DecapsulationKey,
    x25519: agreement::PrivateKey,
    public: [u8; PUBLIC_LEN],
}

impl PrivateKey {
    /// A new key.
    pub(super) fn generate() -> Result<Self, Error> {
        const FAILED: Error = Error::Crypto("no X-Wing key could be made");
        let ml_kem = DecapsulationKey::generate(&ML_KEM_768).map_err(|_| FAILED)?;
        let public_m = ml_kem.encapsulation_key().and_then(|key| key.key_bytes()).map_err(|_| FAILED)?;
        let x25519 = agreement::PrivateKey::generate(&X25519).map_err(|_| FAILED)?;
        Self::new(ml_kem, public_m.as_ref(), x25519)
    }

    fn new(ml_kem: DecapsulationKey, public_m: &[u8], x25519: agreement::PrivateKey) -> Result<Self, Error> {
        let public_x = x25519.compute_public_key().map_err(|_| Error::Crypto("no X25519 public key"))?;
        let mut public = [0; PUBLIC_LEN];
        fill(&mut public[..ML_KEM_PUBLIC_LEN], public_m)?;
        fill(&mut public[ML_KEM_PUBLIC_LEN..], public_x.as_ref())?;
        Ok(Self { ml_kem, x25519, public })
    }

    pub(super) fn public(&self) -> &[u8; PUBLIC_LEN] {
        &self.public
    }

    /// The secret that was encapsulated. One for another key or altered gives a secret that nobody has, not an error, except where
    /// the X25519 half is one of the few points that give zero: aws-lc refuses those (RFC 7748 section 6.1).
    pub(super) fn decapsulate(&self, enc: &[u8; ENC_LEN]) -> Result<SharedSecret, Error> {
        let (enc_m, enc_x) = enc.split_at(ML_KEM_CIPHERTEXT_LEN);
        let ss_m = self.ml_kem.decapsulate(Ciphertext::from(enc_m)).map_err(|_| Error::NotAuthentic)?;
        let (_, public_x) = split::<PUBLIC_LEN>(&self.public);
        agree(&self.x25519, UnparsedPublicKey::new(&X25519, enc_x), Error::NotAuthentic, |ss_x| {
            combine(ss_m.as_ref(), ss_x, enc_x, public_x)
        })
    }
}

/// The last step on both sides: SHA3-256 over both secrets and the X25519 half of the transcript. ML-KEM binds its own.
fn combine(ss_m: &[u8], ss_x: &[u8], ct_x: &[u8], public_x: &[u8]) -> Result<SharedSecret, Error> {
    const LABEL: &[u8; 6] = br"\.//^\";
    let mut input = Zeroizing::new([0; 4 * HALF + LABEL.len()]);
    let (parts, label) = input.split_at_mut(4 * HALF);
    for (part, bytes) in parts.chunks_exact_mut(HALF).zip([ss_m, ss_x, ct_x, public_x]) {
        fill(part, bytes)?;
    }
    label.copy_from_slice(LABEL);
    let mut secret = SharedSecret::default();
    fill(&mut *secret, digest(&SHA3_256, &*input).as_ref())?;
    Ok(secret)
}

/// The ML-KEM part and the X25519 part.
fn split<const N: usize>(both: &[u8; N]) -> (&[u8], &[u8]) {
    both.split_at(N - HALF)
}

/// Copies what must have this length; aws-lc gives slices, never arrays.
fn fill(target: &mut [u8], bytes: &[u8]) -> Result<(), Error> {
    if target.len() != bytes.len() {
        return Err(Error::Crypto("a key of unexpected length"));
    }
    target.copy_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use ml_kem::{FromSeed, KeyExport, MlKem768};
    use shake::digest::{ExtendableOutput, Update, XofReader};

    use super::*;

    /// `expandDecapsulationKey` of the draft, section 5.2: SHAKE256 of the seed gives the seeds of both keys.
    pub(in super::super) fn from_seed(seed: &[u8; 32]) -> PrivateKey {
        let mut expanded = shake::Shake256::default();
        expanded.update(seed);
        let mut expanded = expanded.finalize_xof();
        let (mut seed_m, mut secret_x) = ([0; 64], [0; 32]);
        expanded.read(&mut seed_m);
        expanded.read(&mut secret_x);
        let (secret_m, public_m) = MlKem768::from_seed(&seed_m.into());
        // aws-lc-rs has no way from a seed; it takes the long form that FIPS 203 writes down.
        #[expect(deprecated)]
        let secret_m = ml_kem::ExpandedKeyEncoding::to_expanded_bytes(&secret_m);
        PrivateKey::new(
            DecapsulationKey::new(&ML_KEM_768, &secret_m).unwrap(),
            &public_m.to_bytes(),
            agreement::PrivateKey::from_private_key(&X25519, &secret_x).unwrap(),
        )
        .unwrap()
    }

    /// The test vectors of the draft, appendix C.
    #[test]
    fn test_vectors_of_the_draft() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("xwing.json")).unwrap();
        let vectors = vectors.as_array().unwrap();
        assert_eq!(vectors.len(), 3);
        for vector in vectors {
            let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
            let key = from_seed(&bytes("seed").try_into().unwrap());
            assert_eq!(key.public()[..], bytes("pk"));
            let secret = key.decapsulate(&bytes("ct").try_into().unwrap()).unwrap();
            assert_eq!(secret[..], bytes("ss"));
        }
    }

    #[test]
    fn both_sides_have_one_secret_and_nobody_else() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let (enc, secret) = encapsulate(key.public()).unwrap();
        assert_eq!(key.decapsulate(&enc).unwrap(), secret);
        assert_ne!(other.decapsulate(&enc).unwrap(), secret);
        for at in [0, ML_KEM_CIPHERTEXT_LEN, ENC_LEN - 1] {
            let mut altered = enc;
            altered[at] ^= 1;
            assert_ne!(key.decapsulate(&altered).unwrap(), secret, "byte {at}");
        }
    }

    #[test]
    fn halves_that_give_no_secret_are_refused() {
        let key = PrivateKey::generate().unwrap();
        let (mut enc, _) = encapsulate(key.public()).unwrap();
        enc[ML_KEM_CIPHERTEXT_LEN..].fill(0);
        assert!(matches!(key.decapsulate(&enc), Err(Error::NotAuthentic)), "a point of small order");
        let mut public = *key.public();
        public[ML_KEM_PUBLIC_LEN..].fill(0);
        assert!(matches!(encapsulate(&public), Err(Error::Crypto(_))), "a point of small order");
        let mut public = *key.public();
        public[..3].fill(0xff);
        assert!(matches!(encapsulate(&public), Err(Error::Crypto(_))), "a coefficient that is not reduced");
    }
}
