//! Certificates: reading them, and checking one against its issuer.

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use cocoon_attestation::UnixTime;
use der::{Decode, Encode, Header, Reader, SliceReader};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_cert::Certificate;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::time::Time;

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

pub(crate) fn parse(der: &[u8]) -> Option<Certificate> {
    Certificate::from_der(der).ok()
}

/// SubjectPublicKeyInfo, DER.
pub(crate) fn spki(certificate: &Certificate) -> Option<Vec<u8>> {
    certificate.tbs_certificate().subject_public_key_info().to_der().ok()
}

/// The key itself: a point for EC, an RSAPublicKey for RSA.
pub(crate) fn key(certificate: &Certificate) -> &[u8] {
    certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
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
pub(crate) fn extension<'a>(certificate: &'a Certificate, oid: &str) -> Option<&'a [u8]> {
    let extensions = certificate.tbs_certificate().extensions()?;
    extensions.iter().find(|extension| extension.extn_id.to_string() == oid).map(|found| found.extn_value.as_bytes())
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
