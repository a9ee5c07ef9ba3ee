//! Answers of an OCSP service (RFC 6960) about one certificate each.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512, digest};

use super::certs::{CertSpec, FROM, Party, Role, certificate, extension};
use super::der;
use super::keys::SignedBy;
use crate::types::UnixTime;

/// Which of NVIDIA's certificates an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspSubject {
    /// A GPU's own.
    Gpu,
    /// Its boot ROM's.
    Firmware,
    /// The provisioner's.
    Provisioner,
    /// The model's.
    Model,
    /// A manifest's signer's.
    RimSigner,
    /// The signer's issuer's.
    RimL3,
    /// The authority's under the root.
    RimCa,
}

impl OcspSubject {
    /// Every certificate whose status NVIDIA's own verifier asks for.
    pub const ASKED: [Self; 6] =
        [Self::Firmware, Self::Provisioner, Self::Model, Self::RimSigner, Self::RimL3, Self::RimCa];
}

/// By which hash an answer names the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspHash {
    /// Of old, and of most services still.
    Sha1,
    /// SHA-256.
    Sha256,
    /// NVIDIA's.
    Sha384,
    /// Nobody's.
    Sha512,
}

impl OcspHash {
    fn algorithm(self) -> (&'static Algorithm, &'static [u32]) {
        match self {
            Self::Sha1 => (&SHA1_FOR_LEGACY_USE_ONLY, &[1, 3, 14, 3, 2, 26]),
            Self::Sha256 => (&SHA256, &[2, 16, 840, 1, 101, 3, 4, 2, 1]),
            Self::Sha384 => (&SHA384, &[2, 16, 840, 1, 101, 3, 4, 2, 2]),
            Self::Sha512 => (&SHA512, &[2, 16, 840, 1, 101, 3, 4, 2, 3]),
        }
    }
}

/// What the service says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspStatus {
    /// Not revoked.
    Good,
    /// Revoked at a time.
    Revoked(UnixTime),
    /// The service does not know the certificate.
    Unknown,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responder {
    /// Whoever issued the certificate.
    Issuer,
    /// Somebody whom the issuer certified for that.
    Delegate,
    /// Somebody whom the issuer certified, but not for that.
    Unauthorised,
}

/// Everything in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspSpec {
    /// The certificate.
    pub subject: OcspSubject,
    /// Of which architecture's chain, such as `GH100`.
    pub architecture: String,
    /// The hash that names its issuer.
    pub hash: OcspHash,
    /// Whether it names the issuer's key, or another of the same name.
    pub names_key: bool,
    /// What the service says of it.
    pub status: OcspStatus,
    /// Since when that is known to hold.
    pub this_update: UnixTime,
    /// When the next answer is due.
    pub next_update: Option<UnixTime>,
    /// Who answers.
    pub responder: Responder,
    /// The responder's certificate, where it is a delegate's.
    pub certificate: CertSpec,
    /// Whether that certificate's purpose is marked critical.
    pub critical_purpose: bool,
    /// Whether that certificate has a critical extension that nobody knows.
    pub critical_unknown: bool,
    /// Whether the responder signed.
    pub signed_by: SignedBy,
}

impl OcspSpec {
    /// Good until a day after [`crate::dev::FROM`]'s 20 years later: every time that the platform's collateral is good for.
    pub fn new(subject: OcspSubject) -> Self {
        Self {
            subject,
            architecture: "GH100".into(),
            hash: OcspHash::Sha384,
            names_key: true,
            status: OcspStatus::Good,
            this_update: FROM,
            next_update: Some(UnixTime(FROM.0 + 20 * 365 * 86_400)),
            responder: Responder::Delegate,
            certificate: CertSpec::new(30),
            critical_purpose: false,
            critical_unknown: false,
            signed_by: SignedBy::Right,
        }
    }
}

pub(super) fn response(issuer: &Party, responder: &Party, serial: u64, spec: &OcspSpec) -> Vec<u8> {
    let (hash, oid) = spec.hash.algorithm();
    let hash = |bytes: &[u8]| der::octets(digest(hash, bytes).as_ref());
    let algorithm = der::sequence(&[der::oid(oid), der::null()]);
    let key = if spec.names_key { issuer } else { responder };
    let id = [algorithm, hash(&issuer.name), hash(&[&[4], &key.key.point()[..]].concat()), der::integer(serial)];
    let status = match spec.status {
        OcspStatus::Good => der::tlv(0x80, &[]),
        OcspStatus::Revoked(at) => der::tlv(0xa1, &der::generalized(at)),
        OcspStatus::Unknown => der::tlv(0x82, &[]),
    };
    let mut single = vec![der::sequence(&id), status, der::generalized(spec.this_update)];
    single.extend(spec.next_update.map(|at| der::explicit(0, &der::generalized(at))));
    let signer = if spec.responder == Responder::Issuer { issuer } else { responder };
    let data = der::sequence(&[
        der::explicit(1, &signer.name),
        der::generalized(spec.this_update),
        der::sequence(&[der::sequence(&single)]),
    ]);
    let signature = der::bit_string(&signer.signer(spec.signed_by).sign(&data));
    let mut basic = vec![data, signer.key.algorithm(), signature];
    // id-kp-OCSPSigning.
    let purpose = der::sequence(&[der::oid(&[1, 3, 6, 1, 5, 5, 7, 3, 9])]);
    let purpose = extension(&[2, 5, 29, 37], spec.critical_purpose, &purpose);
    let mut further = match spec.responder {
        Responder::Issuer => return wrapped(basic),
        Responder::Delegate => vec![purpose],
        Responder::Unauthorised => vec![],
    };
    if spec.critical_unknown {
        further.push(extension(&[1, 3, 6, 1, 4, 1, 99_999, 1], true, &der::null()));
    }
    let delegate = certificate(issuer, responder, Role::Leaf, &spec.certificate, &further);
    basic.push(der::explicit(0, &der::sequence(&[delegate])));
    wrapped(basic)
}

/// OCSPResponse around a BasicOCSPResponse.
fn wrapped(basic: Vec<Vec<u8>>) -> Vec<u8> {
    let kind = der::oid(&[1, 3, 6, 1, 5, 5, 7, 48, 1, 1]);
    let bytes = der::sequence(&[kind, der::octets(&der::sequence(&basic))]);
    der::sequence(&[der::enumerated(0), der::explicit(0, &bytes)])
}
