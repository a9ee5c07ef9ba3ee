//! A stamp of work on what is sent to a verifier node: whoever sends garbage pays more for it than the node does.
//!
//! A nonce of 64 bits such that `SHA-256("cocoon-work-v1" || SHA-256(bundle) || nonce)` begins with [`BITS`] zero bits; the nonce is
//! big-endian in the hash and decimal in the header [`HEADER`]. It belongs to the bundle's very bytes.

use cocoon_attestation::Digest;

/// Zero bits that are asked for: 65,536 hashes on average, about ten times what a node spends on the worst bundle.
pub const BITS: u32 = 16;
/// The header that carries the nonce.
pub const HEADER: &str = "cocoon-work";

const DOMAIN: &[u8] = b"cocoon-work-v1";

/// Finds a nonce.
pub fn stamp(bundle: &[u8]) -> u64 {
    let digest = Digest::of(&[bundle]);
    (0..=u64::MAX).find(|nonce| enough(&digest, *nonce)).unwrap_or_default()
}

/// Whether a nonce is enough work.
pub fn is_enough(bundle: &[u8], nonce: u64) -> bool {
    enough(&Digest::of(&[bundle]), nonce)
}

fn enough(digest: &Digest, nonce: u64) -> bool {
    let Digest(hash) = Digest::of(&[DOMAIN, digest.as_bytes(), &nonce.to_be_bytes()]);
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]).leading_zeros() >= BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_for_one_bundle_and_is_not_guessed() {
        let nonce = stamp(b"bundle");
        assert!(is_enough(b"bundle", nonce));
        assert!(!is_enough(b"bundlf", nonce));
        assert!((0..nonce).all(|lower| !is_enough(b"bundle", lower)));
        // The vector of `docs/protocol.md`.
        assert_eq!(nonce, 123_333);
    }
}
