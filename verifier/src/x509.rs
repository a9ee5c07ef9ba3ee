//! Certificates: reading them, and checking one against its issuer.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, EcdsaVerificationAlgorithm, RSA_PSS_2048_8192_SHA384,
    UnparsedPublicKey,
};
use cocoon_attestation::UnixTime;
use const_oid::ObjectIdentifier;
use der::{Decode, Encode, Header, Reader, SliceReader};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, SubjectPublicKeyInfoDer};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::Time;

use crate::cache::Cache;

/// Longest certificate that is looked at, in bytes; the vendors' have about 2 KB.
const MAX_LEN: usize = 64 * 1024;

/// Certificates in PEM, or one in DER.
pub(crate) fn certificates(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    if bytes.len() > MAX_LEN {
        return Err(format!("{} bytes are too many for certificates", bytes.len()));
    }
    if Certificate::from_der(bytes).is_ok() {
        return Ok(vec![bytes.to_vec()]);
    }
    let pem: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let pem = pem.map_err(|error| error.to_string())?;
    if pem.is_empty() {
        return Err("found neither DER nor a PEM certificate".into());
    }
    pem.into_iter()
        .map(|der| Certificate::from_der(&der).map(|_| der.to_vec()).map_err(|error| error.to_string()))
        .collect()
}

/// x and y of a P-384 public key in PEM (SubjectPublicKeyInfo).
pub(crate) fn p384_point(pem: &[u8]) -> Option<Vec<u8>> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    let info = SubjectPublicKeyInfoOwned::from_der(&der).ok()?;
    let curve = info.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
    let known =
        info.algorithm.oid == const_oid::db::rfc5912::ID_EC_PUBLIC_KEY && curve == const_oid::db::rfc5912::SECP_384_R_1;
    let point = info.subject_public_key.as_bytes()?;
    (known && point.len() == 97 && point[0] == 4).then(|| point[1..].to_vec())
}

/// Exactly one certificate, DER or PEM, as DER.
pub(crate) fn one_certificate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut found = certificates(bytes)?;
    match (found.pop(), found.len()) {
        (Some(certificate), 0) => Ok(certificate),
        (_, more) => Err(format!("found {} certificates", more + 1)),
    }
}

/// A revocation list, DER or PEM, as DER.
pub(crate) fn revocation_list(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(b"-----BEGIN") {
        return Some(bytes.to_vec());
    }
    CertificateRevocationListDer::from_pem_slice(bytes).ok().map(|der| der.to_vec())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

pub(crate) fn parse(der: &[u8]) -> Option<Certificate> {
    Certificate::from_der(der).ok()
}

/// SubjectPublicKeyInfo, DER.
pub(crate) fn spki(certificate: &Certificate) -> Option<Vec<u8>> {
    certificate.tbs_certificate().subject_public_key_info().to_der().ok()
}

/// The key itself: a point for EC, an RSAPublicKey for RSA.
pub(crate) fn key(certificate: &Certificate) -> &[u8] {
    certificate.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes().unwrap_or_default()
}

/// Whether the key is an elliptic curve's (RFC 5480).
pub(crate) fn has_ec_key(certificate: &Certificate) -> bool {
    certificate.tbs_certificate().subject_public_key_info().algorithm.oid == const_oid::db::rfc5912::ID_EC_PUBLIC_KEY
}

/// The common name of a distinguished name; empty if there is none.
pub(crate) fn common_name(name: &Name) -> String {
    let common_name = name.iter().find(|attribute| attribute.oid == const_oid::db::rfc4519::CN);
    common_name.map(|attribute| String::from_utf8_lossy(attribute.value.value()).into_owned()).unwrap_or_default()
}

/// Value of an extension, without its OCTET STRING.
pub(crate) fn extension(certificate: &Certificate, oid: ObjectIdentifier) -> Option<&[u8]> {
    let extensions = certificate.tbs_certificate().extensions()?;
    extensions.iter().find(|extension| extension.extn_id == oid).map(|found| found.extn_value.as_bytes())
}

/// An object identifier below another.
pub(crate) fn below(base: ObjectIdentifier, arcs: &[u32]) -> Option<ObjectIdentifier> {
    arcs.iter().try_fold(base, |oid, arc| oid.push_arc(*arc).ok())
}

/// Whether a certificate is a CA's that may sign certificates: CA bit and key usage (RFC 5280 sections 4.2.1.9, 4.2.1.3).
pub(crate) fn is_ca(certificate: &Certificate) -> bool {
    let tbs = certificate.tbs_certificate();
    let ca = matches!(tbs.get_extension::<BasicConstraints>(), Ok(Some((_, constraints))) if constraints.ca);
    ca && matches!(tbs.get_extension::<KeyUsage>(), Ok(Some((_, usage))) if usage.key_cert_sign())
}

/// Whether a certificate may sign others, were anybody to look at that bit alone.
pub(crate) fn has_ca_bit(certificate: &Certificate) -> bool {
    !matches!(
        certificate.tbs_certificate().get_extension::<BasicConstraints>(),
        Ok(None) | Ok(Some((_, BasicConstraints { ca: false, .. })))
    )
}

/// Start and end of validity.
pub(crate) fn validity(certificate: &Certificate) -> (UnixTime, UnixTime) {
    let validity = certificate.tbs_certificate().validity();
    (unix(validity.not_before), unix(validity.not_after))
}

pub(crate) fn unix(time: Time) -> UnixTime {
    UnixTime(time.to_unix_duration().as_secs())
}

/// The part of a certificate or revocation list that its issuer signed: the first element of the outer SEQUENCE, as it
/// stands there and not encoded anew.
pub(crate) fn to_be_signed(der: &[u8]) -> Option<&[u8]> {
    let mut outer = SliceReader::new(der).ok()?;
    Header::decode(&mut outer).ok()?;
    let start = usize::try_from(outer.position()).ok()?;
    let inner = Header::decode(&mut outer).ok()?;
    let end = usize::try_from(outer.position()).ok()?.checked_add(usize::try_from(inner.length()).ok()?)?;
    der.get(start..end)
}

/// RSASSA-PSS with SHA-384 (RFC 4055): how AMD signs certificates and revocation lists.
pub(crate) fn rsa_pss_signed(der: &[u8], signature: &[u8], issuer: &Certificate) -> bool {
    let Some(signed) = to_be_signed(der) else { return false };
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key(issuer)).verify(signed, signature).is_ok()
}

/// How a vendor signs certificates and revocation lists with elliptic curves.
pub(crate) struct Ecdsa {
    oid: ObjectIdentifier,
    algorithm: &'static EcdsaVerificationAlgorithm,
}

/// ECDSA with P-256 and SHA-256: Intel's.
pub(crate) const P256: Ecdsa =
    Ecdsa { oid: const_oid::db::rfc5912::ECDSA_WITH_SHA_256, algorithm: &ECDSA_P256_SHA256_ASN1 };

/// ECDSA with P-384 and SHA-384: NVIDIA's.
pub(crate) const P384: Ecdsa =
    Ecdsa { oid: const_oid::db::rfc5912::ECDSA_WITH_SHA_384, algorithm: &ECDSA_P384_SHA384_ASN1 };

impl Ecdsa {
    /// Whether an algorithm field names it.
    pub(crate) fn names(&self, algorithm: &AlgorithmIdentifierOwned) -> bool {
        algorithm.oid == self.oid && algorithm.parameters.is_none()
    }

    pub(crate) fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, key).verify(message, signature).is_ok()
    }

    /// The same, unless it is known to have held before.
    fn held(&self, key: &[u8], message: &[u8], signature: &[u8], known: Option<&Signatures>) -> bool {
        // The identifier names hash and, with the key's length, curve.
        let algorithm = self.oid.to_string();
        Signatures::holds(known, &algorithm, [key, message, signature], || self.verify(key, message, signature))
    }
}

/// Signatures that held: whether one does is no question of time. Collateral is signed anew every few weeks, the platforms under it are not, and
/// all platforms share what Intel signed.
#[derive(Debug)]
pub(crate) struct Signatures(Cache<()>);

impl Signatures {
    pub(crate) fn new(most: usize) -> Self {
        Self(Cache::new(most))
    }

    /// Whether a signature holds, by `check` unless it held before. `algorithm` is a name for how that checks.
    pub(crate) fn holds(
        known: Option<&Self>,
        algorithm: &str,
        [key, message, signature]: [&[u8]; 3],
        check: impl FnOnce() -> bool,
    ) -> bool {
        let Some(Self(cache)) = known else { return check() };
        let mut context = Context::new(&SHA256);
        for part in [algorithm.as_bytes(), key, message, signature] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        cache.get_or(context.finish().as_ref(), |()| true, || check().then(|| Arc::new(())).ok_or(())).is_ok()
    }
}

/// When something holds: the overlap of all that it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: UnixTime,
    pub(crate) to: UnixTime,
}

impl Window {
    pub(crate) fn contains(self, at: UnixTime) -> bool {
        self.from <= at && at <= self.to
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
}

/// A certificate with the bytes it came as.
#[derive(Clone, Debug)]
pub(crate) struct Cert {
    pub(crate) der: Vec<u8>,
    /// SHA-256 of that.
    pub(crate) digest: [u8; 32],
    pub(crate) x509: Certificate,
}

impl Cert {
    pub(crate) fn from_der(der: Vec<u8>) -> Option<Self> {
        let x509 = parse(&der)?;
        Some(Self { digest: sha256(&der), der, x509 })
    }

    /// Certificates in PEM, or one in DER, at most `most` of them.
    pub(crate) fn all(bytes: &[u8], most: usize) -> Result<Vec<Self>, String> {
        let ders = certificates(bytes)?;
        if ders.len() > most {
            return Err(format!("{} certificates are more than {most}", ders.len()));
        }
        ders.into_iter().map(|der| Self::from_der(der).ok_or_else(|| "not a certificate".to_string())).collect()
    }

    pub(crate) fn key(&self) -> &[u8] {
        key(&self.x509)
    }

    pub(crate) fn subject(&self) -> &Name {
        self.x509.tbs_certificate().subject()
    }

    pub(crate) fn name(&self) -> String {
        common_name(self.subject())
    }

    pub(crate) fn window(&self) -> Window {
        let (from, to) = validity(&self.x509);
        Window { from, to }
    }

    /// Whether a certificate names another as its issuer.
    pub(crate) fn names_issuer(&self, issuer: &Self) -> bool {
        self.x509.tbs_certificate().issuer() == issuer.subject()
    }

    /// Whether an issuer's key signed this certificate, by the algorithm that both of its algorithm fields name.
    pub(crate) fn signed_by(&self, issuer: &Self, ecdsa: &Ecdsa, known: Option<&Signatures>) -> bool {
        let algorithm = self.x509.signature_algorithm();
        self.names_issuer(issuer)
            && algorithm == self.x509.tbs_certificate().signature()
            && ecdsa.names(algorithm)
            && to_be_signed(&self.der).is_some_and(|signed| {
                ecdsa.held(issuer.key(), signed, self.x509.signature().as_bytes().unwrap_or_default(), known)
            })
    }

    /// Whether it may issue certificates, with `below` CA certificates between it and the leaf (RFC 5280 section 6.1.4).
    pub(crate) fn may_issue(&self, below: u8) -> bool {
        let constraints = self.x509.tbs_certificate().get_extension::<BasicConstraints>();
        let length = match constraints {
            Ok(Some((_, constraints))) => constraints.path_len_constraint,
            _ => return false,
        };
        is_ca(&self.x509) && length.is_none_or(|length| length >= below)
    }

    /// Whether it is a leaf that may sign data: no CA, and digitalSignature unless it says nothing of its key's usage.
    pub(crate) fn may_sign(&self) -> bool {
        let usage = self.x509.tbs_certificate().get_extension::<KeyUsage>();
        !has_ca_bit(&self.x509)
            && match usage {
                Ok(None) => true,
                Ok(Some((_, usage))) => usage.digital_signature(),
                Err(_) => false,
            }
    }

    /// The first critical extension that is not understood: RFC 5280 forbids to go on with one.
    pub(crate) fn unknown_critical(&self) -> Option<String> {
        unknown_critical(&self.x509)
    }
}

/// The first critical extension of a certificate that is not understood.
pub(crate) fn unknown_critical(certificate: &Certificate) -> Option<String> {
    const KNOWN: [ObjectIdentifier; 2] =
        [const_oid::db::rfc5280::ID_CE_BASIC_CONSTRAINTS, const_oid::db::rfc5280::ID_CE_KEY_USAGE];
    let mut extensions = certificate.tbs_certificate().extensions()?.iter();
    let unknown = extensions.find(|extension| extension.critical && !KNOWN.contains(&extension.extn_id));
    unknown.map(|extension| extension.extn_id.to_string())
}

/// A revocation list that its issuer signed, and that is current.
pub(crate) struct Revoked {
    list: CertificateList<x509_cert::certificate::Rfc5280>,
    pub(crate) window: Window,
}

impl Revoked {
    /// Checks a list in DER: issuer, signature, dates, and that it is a complete one.
    pub(crate) fn signed_by(
        der: &[u8],
        issuer: &Cert,
        ecdsa: &Ecdsa,
        known: Option<&Signatures>,
        at: UnixTime,
    ) -> Result<Self, String> {
        let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der)
            .map_err(|error| format!("is no X.509 revocation list: {error}"))?;
        let tbs = &list.tbs_cert_list;
        let signed = tbs.issuer == *issuer.subject()
            && list.signature_algorithm == tbs.signature
            && list.signature_algorithm.oid == ecdsa.oid
            && to_be_signed(der).is_some_and(|signed| {
                ecdsa.held(issuer.key(), signed, list.signature.as_bytes().unwrap_or_default(), known)
            });
        if !signed {
            return Err(format!("is not signed by {:?}", issuer.name()));
        }
        // A delta or a partial list marks itself with a critical extension.
        if let Some(extension) = tbs.crl_extensions.iter().flatten().find(|extension| extension.critical) {
            return Err(format!("has the critical extension {}, which is not understood", extension.extn_id));
        }
        let Some(next) = tbs.next_update else { return Err("does not say when the next one is due".into()) };
        // At the moment it is due again it no longer counts, as webpki has it too.
        let window = Window { from: unix(tbs.this_update), to: UnixTime(unix(next).0.saturating_sub(1)) };
        if !window.contains(at) {
            return Err(format!("is of {} and was due again at {}, not current at {at}", window.from, window.to));
        }
        Ok(Self { list, window })
    }

    pub(crate) fn lists(&self, certificate: &Cert) -> bool {
        let serial = certificate.x509.tbs_certificate().serial_number();
        self.list.tbs_cert_list.revoked_certificates.iter().flatten().any(|revoked| revoked.serial_number == *serial)
    }
}
