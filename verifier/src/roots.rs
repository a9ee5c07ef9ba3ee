//! The vendors' roots, and the roots that a policy names instead.

use cocoon_attestation::Digest;
use x509_cert::Certificate;

use crate::policy::Policy;
use crate::x509::{self, Cert};

/// Intel SGX Root CA, DER, as published by Intel; valid until 2049-12-31.
pub const INTEL_SGX_ROOT_CA: &[u8] = include_bytes!("roots/intel-sgx-root-ca.der");

/// An AMD product line with roots of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004, 8004: Genoa, Bergamo, Siena.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// As AMD's certificates name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// By family and model of the processor (AMD 57230, product names of the key distribution service).
    pub fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }

    /// By the name in a certificate, with or without a stepping ("Milan-B0").
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.split('-').next().unwrap_or_default();
        [Self::Milan, Self::Genoa, Self::Turin].into_iter().find(|product| product.name() == name)
    }
}

/// SHA-256 of the SubjectPublicKeyInfo of each AMD Root Key.
pub const AMD_ARK: [(Product, &str); 3] = [
    (Product::Milan, "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9"),
    (Product::Genoa, "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831"),
    (Product::Turin, "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08"),
];

/// Roots for TDX quotes: those that the policy names, of which only the ones with a P-256 key can serve, or else Intel's.
pub(crate) fn tdx(policy: &Policy) -> Vec<Cert> {
    let named = policy.roots.iter().map(Vec::as_slice);
    let roots: Vec<&[u8]> = if policy.roots.is_empty() { vec![INTEL_SGX_ROOT_CA] } else { named.collect() };
    let roots = roots.into_iter().filter_map(|root| Cert::from_der(root.to_vec()));
    // A point of P-256 without compression.
    roots.filter(|root| x509::has_ec_key(&root.x509) && root.key().len() == 65).collect()
}

/// Whether an AMD root is one to trust: `Some(true)` if the policy named it and it is no vendor's.
pub(crate) fn trusted_ark(ark: &Certificate, policy: &Policy) -> Option<bool> {
    let key = x509::spki(ark)?;
    let pinned = Digest::of(&[&key]).to_string();
    let vendor = AMD_ARK.iter().any(|(_, digest)| *digest == pinned);
    if policy.roots.is_empty() {
        return vendor.then_some(false);
    }
    let named =
        policy.roots.iter().filter_map(|root| x509::parse(root)).any(|root| x509::spki(&root) == Some(key.clone()));
    named.then_some(!vendor)
}

/// SHA-256 of the SubjectPublicKeyInfo of NVIDIA Device Identity CA, the root of GPUs' certificates.
pub const NVIDIA_DEVICE: &str = "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4";

/// SHA-256 of the SubjectPublicKeyInfo of NVIDIA CoRIM signing Root CA, the root of reference manifests.
pub const NVIDIA_RIM: &str = "dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3";

/// Whether a root of NVIDIA's is one to trust: `Some(true)` if the policy named it and it is no vendor's.
pub(crate) fn trusted_nvidia(root: &Cert, pinned: &str, policy: &Policy) -> Option<bool> {
    let key = x509::spki(&root.x509)?;
    let vendor = Digest::of(&[&key]).to_string() == pinned;
    if policy.roots.is_empty() {
        return vendor.then_some(false);
    }
    let named =
        policy.roots.iter().filter_map(|named| x509::parse(named)).any(|named| x509::spki(&named) == Some(key.clone()));
    named.then_some(!vendor)
}
