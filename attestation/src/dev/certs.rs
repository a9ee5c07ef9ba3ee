//! Certificates and revocation lists (RFC 5280) of the development platform.

use base64::Engine;

use super::der;
use super::keys::{Key, SignedBy};
use crate::types::UnixTime;

/// Stands in the organisation of every certificate of the development platform.
pub const ORGANISATION: &str = "DEVELOPMENT PLATFORM - NOT CONFIDENTIAL";

/// 2020-01-01T00:00:00Z.
pub const FROM: UnixTime = UnixTime(1_577_836_800);
/// 2049-12-31T23:59:59Z, the last second that UTCTime can express.
pub const UNTIL: UnixTime = UnixTime(2_524_607_999);

/// What a test may alter about any certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertSpec {
    /// Serial number; the platform's own certificates have fixed ones ([`serial`]).
    pub serial: u64,
    /// Start of validity.
    pub not_before: UnixTime,
    /// End of validity.
    pub not_after: UnixTime,
    /// Whether it is a CA's; `None`: as its role demands.
    pub ca: Option<bool>,
    /// Whether the issuer signed.
    pub signed_by: SignedBy,
    /// Another common name than its role's.
    pub common_name: Option<String>,
}

impl CertSpec {
    /// A good certificate with a serial number.
    pub fn new(serial: u64) -> Self {
        Self { serial, not_before: FROM, not_after: UNTIL, ca: None, signed_by: SignedBy::Right, common_name: None }
    }
}

/// Serial numbers of the platform's certificates.
pub mod serial {
    /// Either root.
    pub const ROOT: u64 = 1;
    /// PCK platform CA.
    pub const PCK_PLATFORM_CA: u64 = 2;
    /// PCK processor CA.
    pub const PCK_PROCESSOR_CA: u64 = 3;
    /// TCB signing certificate.
    pub const TCB_SIGNER: u64 = 4;
    /// PCK certificate.
    pub const PCK: u64 = 5;
    /// AMD signing key.
    pub const ASK: u64 = 6;
    /// Chip endorsement key.
    pub const VCEK: u64 = 7;
    /// A GPU's own key.
    pub const GPU: u64 = 8;
}

/// What a test may alter about a revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlSpec {
    /// When it was issued.
    pub this_update: UnixTime,
    /// When the next one is due.
    pub next_update: UnixTime,
    /// Serial numbers of revoked certificates.
    pub revoked: Vec<u64>,
    /// Whether the issuer signed.
    pub signed_by: SignedBy,
}

impl CrlSpec {
    /// A list without entries.
    pub fn new(this_update: UnixTime, next_update: UnixTime) -> Self {
        Self { this_update, next_update, revoked: Vec::new(), signed_by: SignedBy::Right }
    }
}

/// A name and its key.
#[derive(Clone)]
pub(super) struct Party {
    pub(super) name: Vec<u8>,
    pub(super) key: Key,
    /// Signs instead of `key` where a specification says [`SignedBy::Another`].
    pub(super) impostor: Key,
}

impl Party {
    pub(super) fn new(common_name: &str, key: Key, impostor: Key) -> Self {
        Self { name: distinguished(common_name), key, impostor }
    }

    /// The same keys under another name.
    pub(super) fn named(&self, common_name: &str) -> Self {
        Self { name: distinguished(common_name), ..self.clone() }
    }

    pub(super) fn signer(&self, by: SignedBy) -> &Key {
        match by {
            SignedBy::Right => &self.key,
            SignedBy::Another => &self.impostor,
        }
    }

    fn signed(&self, by: SignedBy, to_be_signed: Vec<u8>) -> Vec<u8> {
        let signature = self.signer(by).sign(&to_be_signed);
        der::sequence(&[to_be_signed, self.key.algorithm(), der::bit_string(&signature)])
    }
}

/// A distinguished name with a common name.
fn distinguished(common_name: &str) -> Vec<u8> {
    let attribute = |id: u32, value: Vec<u8>| der::set(&[der::sequence(&[der::oid(&[2, 5, 4, id]), value])]);
    der::sequence(&[
        attribute(6, der::printable("US")),
        attribute(10, der::utf8(ORGANISATION)),
        attribute(3, der::utf8(common_name)),
    ])
}

/// An extension (RFC 5280 section 4.1) around an already encoded value.
pub(super) fn extension(arcs: &[u32], critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![der::oid(arcs)];
    if critical {
        parts.push(der::boolean(true));
    }
    parts.push(der::octets(value));
    der::sequence(&parts)
}

/// What a certificate is for.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// Issues certificates, over at most so many further CAs.
    Ca(u64),
    /// Signs other things.
    Leaf,
}

impl Role {
    /// Basic constraints and key usage (RFC 5280 sections 4.2.1.9 and 4.2.1.3).
    fn extensions(self, ca: Option<bool>) -> [Vec<u8>; 2] {
        let constraints = match self {
            _ if ca == Some(false) => vec![],
            Self::Ca(path_length) => vec![der::boolean(true), der::integer(path_length)],
            Self::Leaf if ca == Some(true) => vec![der::boolean(true)],
            Self::Leaf => vec![],
        };
        let usage = match self {
            // keyCertSign and cRLSign.
            Self::Ca(_) => [1, 0x06],
            // digitalSignature.
            Self::Leaf => [7, 0x80],
        };
        [
            extension(&[2, 5, 29, 19], true, &der::sequence(&constraints)),
            extension(&[2, 5, 29, 15], true, &der::tlv(0x03, &usage)),
        ]
    }
}

/// A certificate, DER: `issuer` says that `subject` holds its key.
pub(super) fn certificate(
    issuer: &Party,
    subject: &Party,
    role: Role,
    spec: &CertSpec,
    extensions: &[Vec<u8>],
) -> Vec<u8> {
    let mut all = vec![
        extension(&[2, 5, 29, 14], false, &der::octets(&subject.key.identifier())),
        extension(&[2, 5, 29, 35], false, &authority(issuer)),
    ];
    all.extend(role.extensions(spec.ca));
    all.extend_from_slice(extensions);
    let to_be_signed = der::sequence(&[
        der::explicit(0, &der::integer(2)),
        der::integer(spec.serial),
        issuer.key.algorithm(),
        issuer.name.clone(),
        der::sequence(&[der::time(spec.not_before), der::time(spec.not_after)]),
        spec.common_name.as_deref().map_or_else(|| subject.name.clone(), distinguished),
        subject.key.spki(),
        der::explicit(3, &der::sequence(&all)),
    ]);
    issuer.signed(spec.signed_by, to_be_signed)
}

/// A version 2 revocation list, DER.
pub(super) fn crl(issuer: &Party, spec: &CrlSpec) -> Vec<u8> {
    let revoked =
        spec.revoked.iter().map(|serial| der::sequence(&[der::integer(*serial), der::time(spec.this_update)]));
    let revoked: Vec<_> = revoked.collect();
    let mut parts = vec![
        der::integer(1),
        issuer.key.algorithm(),
        issuer.name.clone(),
        der::time(spec.this_update),
        der::time(spec.next_update),
    ];
    if !revoked.is_empty() {
        parts.push(der::sequence(&revoked));
    }
    let extensions =
        [extension(&[2, 5, 29, 20], false, &der::integer(1)), extension(&[2, 5, 29, 35], false, &authority(issuer))];
    parts.push(der::explicit(0, &der::sequence(&extensions)));
    issuer.signed(spec.signed_by, der::sequence(&parts))
}

fn authority(issuer: &Party) -> Vec<u8> {
    der::sequence(&[der::tlv(0x80, &issuer.key.identifier())])
}

/// PEM (RFC 7468) of certificates, one after the other.
pub(super) fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
