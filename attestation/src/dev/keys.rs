//! Keys of the development platform. Signatures are deterministic: RFC 6979 for ECDSA, and for RSA-PSS a salt that is
//! drawn from a generator seeded with the message.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rsa::RsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey;
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
use rsa::traits::PublicKeyParts;

use super::der;

/// Committed RSA keys, public by nature: whoever has this source can sign with them.
static ARK: LazyLock<RsaPrivateKey> = LazyLock::new(|| committed(include_bytes!("keys/ark.pkcs8.der")));
static ASK: LazyLock<RsaPrivateKey> = LazyLock::new(|| committed(include_bytes!("keys/ask.pkcs8.der")));

fn committed(pkcs8: &[u8]) -> RsaPrivateKey {
    RsaPrivateKey::from_pkcs8_der(pkcs8).expect("the key committed with the source is a PKCS #8 RSA key")
}

/// Who makes a signature. A negative test sets this alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignedBy {
    /// The key that should.
    #[default]
    Right,
    /// Another key of the same kind.
    Another,
}

/// A signing key.
#[derive(Clone)]
pub(super) enum Key {
    P256(Box<p256::ecdsa::SigningKey>),
    P384(Box<p384::ecdsa::SigningKey>),
    Ark,
    Ask,
}

impl Key {
    /// A P-256 key from the platform's seed and a label.
    pub(super) fn p256(seed: &[u8; 32], label: &str) -> Self {
        // One try in 2^32 gives no valid scalar; then the counter gives the next.
        (0u8..=255)
            .find_map(|counter| {
                p256::ecdsa::SigningKey::from_slice(derive(&SHA256, seed, label, counter).as_ref()).ok()
            })
            .map(|key| Self::P256(Box::new(key)))
            .expect("one of 256 digests is a P-256 scalar")
    }

    /// A P-384 key from the platform's seed and a label.
    pub(super) fn p384(seed: &[u8; 32], label: &str) -> Self {
        (0u8..=255)
            .find_map(|counter| {
                p384::ecdsa::SigningKey::from_slice(derive(&SHA384, seed, label, counter).as_ref()).ok()
            })
            .map(|key| Self::P384(Box::new(key)))
            .expect("one of 256 digests is a P-384 scalar")
    }

    fn rsa(&self) -> &'static RsaPrivateKey {
        if matches!(self, Self::Ark) { &ARK } else { &ASK }
    }

    /// The public key without its tag byte: x || y for the curves.
    pub(super) fn point(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => key.verifying_key().to_sec1_point(false).as_bytes()[1..].to_vec(),
            Self::P384(key) => key.verifying_key().to_sec1_point(false).as_bytes()[1..].to_vec(),
            Self::Ark | Self::Ask => Vec::new(),
        }
    }

    /// SubjectPublicKeyInfo, DER.
    pub(super) fn spki(&self) -> Vec<u8> {
        let curve = |arcs: &[u32]| {
            let algorithm = der::sequence(&[der::oid(&[1, 2, 840, 10045, 2, 1]), der::oid(arcs)]);
            der::sequence(&[algorithm, der::bit_string(&[&[4], self.point().as_slice()].concat())])
        };
        match self {
            Self::P256(_) => curve(&[1, 2, 840, 10045, 3, 1, 7]),
            Self::P384(_) => curve(&[1, 3, 132, 0, 34]),
            Self::Ark | Self::Ask => {
                let key = self.rsa();
                let number = |bytes: &[u8]| der::integer_bytes(bytes);
                let public = der::sequence(&[number(&key.n_bytes()), number(&key.e_bytes())]);
                let algorithm = der::sequence(&[der::oid(&[1, 2, 840, 113549, 1, 1, 1]), der::null()]);
                der::sequence(&[algorithm, der::bit_string(&public)])
            }
        }
    }

    /// AlgorithmIdentifier of this key's signatures, DER.
    pub(super) fn algorithm(&self) -> Vec<u8> {
        match self {
            Self::P256(_) => der::sequence(&[der::oid(&[1, 2, 840, 10045, 4, 3, 2])]),
            Self::P384(_) => der::sequence(&[der::oid(&[1, 2, 840, 10045, 4, 3, 3])]),
            Self::Ark | Self::Ask => {
                // RSASSA-PSS-params (RFC 4055): SHA-384, MGF1 with SHA-384, salt of 48 bytes, trailer 1.
                let sha384 = der::sequence(&[der::oid(&[2, 16, 840, 1, 101, 3, 4, 2, 2]), der::null()]);
                let mgf1 = der::sequence(&[der::oid(&[1, 2, 840, 113549, 1, 1, 8]), sha384.clone()]);
                let parameters = der::sequence(&[
                    der::explicit(0, &sha384),
                    der::explicit(1, &mgf1),
                    der::explicit(2, &der::integer(48)),
                    der::explicit(3, &der::integer(1)),
                ]);
                der::sequence(&[der::oid(&[1, 2, 840, 113549, 1, 1, 10]), parameters])
            }
        }
    }

    /// A signature as certificates carry it.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let raw = self.sign_raw(message);
        match self {
            Self::Ark | Self::Ask => raw,
            Self::P256(_) | Self::P384(_) => {
                let (r, s) = raw.split_at(raw.len() / 2);
                der::sequence(&[der::integer_bytes(r), der::integer_bytes(s)])
            }
        }
    }

    /// A signature as quotes carry it: r || s, big-endian, for the curves.
    pub(super) fn sign_raw(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Self::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Self::Ark | Self::Ask => {
                let signer = rsa::pss::SigningKey::<sha2::Sha384>::new_with_salt_len(self.rsa().clone(), 48);
                let mut seed = [0; 32];
                seed.copy_from_slice(digest(&SHA256, message).as_ref());
                signer.sign_with_rng(&mut ChaCha20Rng::from_seed(seed), message).to_vec()
            }
        }
    }

    /// Key identifier (RFC 7093 section 2, method 1): the first 20 bytes of SHA-256 over the public key.
    pub(super) fn identifier(&self) -> Vec<u8> {
        digest(&SHA256, &self.spki()).as_ref()[..20].to_vec()
    }
}

fn derive(
    algorithm: &'static aws_lc_rs::digest::Algorithm,
    seed: &[u8; 32],
    label: &str,
    counter: u8,
) -> aws_lc_rs::digest::Digest {
    digest(algorithm, &[b"cocoon-development-key".as_slice(), seed, &[counter], label.as_bytes()].concat())
}
