//! How evidence is bound to claims. This is the whole of it, in one place, because everything else rests on it.
//!
//! The enclave computes these values itself from its own claims and never takes one from outside: an enclave that quotes
//! what it is given lets an attacker relay another party's claims.

use aws_lc_rs::digest;

use crate::claims::Claims;
use crate::types::Digest;

/// REPORTDATA of the CPU evidence: `SHA-512("cocoon-evidence-v1" || claims)`.
pub fn report_data(claims_cbor: &[u8]) -> [u8; 64] {
    let mut context = digest::Context::new(&digest::SHA512);
    context.update(b"cocoon-evidence-v1");
    context.update(claims_cbor);
    let mut out = [0; 64];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Nonce of the GPU evidence: `SHA-256("cocoon-gpu-v1" || claims without the GPU digest)`. The claims then carry the
/// digest of that evidence, so each side commits to the other.
pub fn gpu_nonce(claims: &Claims) -> [u8; 32] {
    let without = Claims { gpu_digest: None, ..claims.clone() };
    Digest::of(&[b"cocoon-gpu-v1", &without.to_cbor()]).0
}

/// The digest that claims carry of GPU evidence: SHA-256 over every report, each behind its length (8 bytes, big-endian).
/// `None` without GPU evidence.
pub fn gpu_digest(gpu: &[impl AsRef<[u8]>]) -> Option<Digest> {
    if gpu.is_empty() {
        return None;
    }
    Some(length_prefixed(gpu.iter().map(AsRef::as_ref)))
}

/// SHA-256 over parts, each behind its length, so that no two lists of parts share a digest.
pub(crate) fn length_prefixed<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Digest(out)
}
