//! Whether NVIDIA still stands by its certificates: answers of its OCSP service (RFC 6960), stapled to the evidence. An answer is
//! signed by the issuer of the certificate it is about, or by somebody whom that issuer certified for it; it holds from one time
//! to another, so a revocation is seen when the last answer from before it has lapsed.

use std::sync::Arc;

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, digest};
use cocoon_attestation::UnixTime;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{ID_SHA_1, ID_SHA_256, ID_SHA_384};
use der::asn1::{Any, BitString, GeneralizedTime, Int, OctetString};
use der::{Decode, Encode, Sequence, Tag, TagNumber, Tagged};
use x509_cert::Certificate;
use x509_cert::ext::Extensions;
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::{Known, Shared};
use crate::outcome::Record;
use crate::x509::{self, Cert, P384, Window, sha256};

/// Longest answer that is looked at, in bytes; NVIDIA's have about 2 KB.
const MAX_LEN: usize = 16 * 1024;
/// Most answers that are looked at.
pub(super) const MAX_RESPONSES: usize = 96;
/// Most answers about one certificate.
const MAX_ANSWERS: usize = 4;
/// Most certificates in one answer.
const MAX_CERTIFICATES: usize = 4;
/// An answer that does not say when the next one is due holds for a day.
const UNSTATED: u64 = 86_400;
const BASIC: ObjectIdentifier = const_oid::db::rfc6960::ID_PKIX_OCSP_BASIC;
const SIGNING: ObjectIdentifier = const_oid::db::rfc5280::ID_KP_OCSP_SIGNING;

#[derive(Clone, Debug, Sequence)]
struct OcspResponse {
    status: Any,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    bytes: Option<ResponseBytes>,
}

#[derive(Clone, Debug, Sequence)]
struct ResponseBytes {
    kind: ObjectIdentifier,
    response: OctetString,
}

#[derive(Clone, Debug, Sequence)]
struct BasicResponse {
    data: ResponseData,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    certificates: Option<Vec<Certificate>>,
}

#[derive(Clone, Debug, Sequence)]
struct ResponseData {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    version: Option<u8>,
    responder: Any,
    produced_at: GeneralizedTime,
    responses: Vec<SingleResponse>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Clone, Debug, Sequence)]
struct SingleResponse {
    id: CertId,
    status: Any,
    this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Clone, Debug, Sequence)]
struct CertId {
    hash: AlgorithmIdentifierOwned,
    issuer_name: OctetString,
    issuer_key: OctetString,
    serial: Int,
}

/// What is said of one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Good,
    Revoked,
    Unknown,
}

/// An answer that can be read; whether to believe it depends on the certificate that it is asked for.
#[derive(Debug)]
pub(crate) struct Response {
    der: Vec<u8>,
    /// SHA-256 of that.
    digest: [u8; 32],
    basic: BasicResponse,
}

/// What a believed answer says, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    status: Status,
    window: Window,
}

impl Response {
    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.der.len()
    }

    pub(crate) fn parse(der: &[u8]) -> Result<Self, String> {
        if der.len() > MAX_LEN {
            return Err(format!("{} bytes are too many for an OCSP response", der.len()));
        }
        let read = |error: der::Error| format!("an OCSP response cannot be read: {error}");
        let outer = OcspResponse::from_der(der).map_err(read)?;
        if outer.status.tag() != Tag::Enumerated || outer.status.value() != [0] {
            let code = outer.status.value().first().copied().unwrap_or_default();
            return Err(format!("the OCSP service answered with error {code}, not with a status: ask it again"));
        }
        let bytes = outer.bytes.ok_or("an OCSP response is empty")?;
        if bytes.kind != BASIC {
            return Err(format!("OCSP response type {} is not the basic one", bytes.kind));
        }
        let der = bytes.response.into_bytes().to_vec();
        let basic = BasicResponse::from_der(&der).map_err(read)?;
        Ok(Self { digest: sha256(&der), der, basic })
    }

    /// When it is due again, by its own word, if it is about a certificate.
    pub(crate) fn due(&self, certificate: &Cert, issuer: &Cert) -> Result<UnixTime, String> {
        let single = self.about(certificate, issuer).ok_or("the OCSP response is about another certificate")?;
        Ok(single.window().to)
    }

    /// When the first of its entries is due again, by its own word.
    pub(crate) fn first_due(&self) -> Result<UnixTime, String> {
        let entries = self.basic.data.responses.iter().map(|single| single.window().to);
        entries.min().ok_or_else(|| "the OCSP response is about nothing".into())
    }

    /// Whether it has an entry for a certificate of this number, whoever issued that.
    fn mentions(&self, certificate: &Cert) -> bool {
        let serial = certificate.x509.tbs_certificate().serial_number().as_bytes();
        self.basic.data.responses.iter().any(|single| single.id.serial.as_bytes() == serial)
    }

    /// The entry for a certificate, if there is one.
    fn about(&self, certificate: &Cert, issuer: &Cert) -> Option<&SingleResponse> {
        let serial = certificate.x509.tbs_certificate().serial_number().as_bytes();
        let entries = &self.basic.data.responses;
        // An entry that is not good comes first: one answer that says two things is believed in the worse.
        let mut own = entries.iter().filter(|single| single.id.serial.as_bytes() == serial && single.id.names(issuer));
        let good =
            |single: &&SingleResponse| matches!(single.status.tag(), Tag::ContextSpecific { number: TagNumber(0), .. });
        let first = own.next()?;
        Some(if good(&first) { own.find(|single| !good(single)).unwrap_or(first) } else { first })
    }

    /// What it says of a certificate, if its issuer or the issuer's delegate signed it, and it holds now.
    fn believed(&self, single: &SingleResponse, issuer: &Cert, at: UnixTime) -> Result<Word, String> {
        let name = issuer.name();
        let stated = [self.basic.data.extensions.as_ref(), single.extensions.as_ref()];
        if let Some(critical) = stated.into_iter().flatten().flatten().find(|extension| extension.critical) {
            return Err(format!("has the critical extension {}, which is not understood", critical.extn_id));
        }
        let mut signers = vec![issuer.clone()];
        for certificate in self.basic.certificates.iter().flatten().take(MAX_CERTIFICATES) {
            let der = certificate.to_der().map_err(|error| format!("has a certificate that is none: {error}"))?;
            signers.extend(Cert::from_der(der).filter(|delegate| delegate.der != issuer.der));
        }
        let signed = x509::to_be_signed(&self.der).unwrap_or_default();
        let signature = self.basic.signature.as_bytes().unwrap_or_default();
        let signer = signers
            .iter()
            .find(|signer| P384.names(&self.basic.algorithm) && P384.verify(signer.key(), signed, signature));
        let Some(signer) = signer else {
            return Err(format!("is signed neither by {name:?} nor by a certificate that it carries"));
        };
        let mut window = single.window();
        let Window { from, to } = window;
        if signer.der != issuer.der {
            delegate(signer, issuer, at)?;
        }
        if !window.contains(at) {
            return Err(format!("is of {from} and was due again at {to}, not current at {at}: ask the service again"));
        }
        let status = match single.status.tag() {
            Tag::ContextSpecific { number: TagNumber(0), .. } => Status::Good,
            Tag::ContextSpecific { number: TagNumber(1), .. } => Status::Revoked,
            Tag::ContextSpecific { number: TagNumber(2), .. } => Status::Unknown,
            other => return Err(format!("has the status {other}, which is none")),
        };
        if signer.der != issuer.der {
            // The answer is believed no longer than its signer.
            window = window.and(signer.window());
        }
        Ok(Word { status, window })
    }
}

impl SingleResponse {
    fn window(&self) -> Window {
        let from = UnixTime(self.this_update.to_unix_duration().as_secs());
        let to = match &self.next_update {
            Some(next) => UnixTime(next.to_unix_duration().as_secs()),
            None => from.plus(UNSTATED),
        };
        Window { from, to }
    }
}

/// The question that NVIDIA's own verifier asks: by SHA-384, without a nonce, so that one answer serves everybody.
pub(crate) fn request(certificate: &Cert, issuer: &Cert) -> Option<Vec<u8>> {
    let hash = |bytes: &[u8]| OctetString::new(digest(&SHA384, bytes).as_ref()).ok();
    let id = CertId {
        hash: AlgorithmIdentifierOwned { oid: ID_SHA_384, parameters: Some(Any::null()) },
        issuer_name: hash(&issuer.subject().to_der().ok()?)?,
        issuer_key: hash(issuer.key())?,
        serial: Int::new(certificate.x509.tbs_certificate().serial_number().as_bytes()).ok()?,
    };
    // OCSPRequest of a TBSRequest of a list of Requests, each of a CertID.
    let wrap = |der: Vec<u8>| Any::new(Tag::Sequence, der).ok()?.to_der().ok();
    wrap(wrap(wrap(wrap(id.to_der().ok()?)?)?)?)
}

impl CertId {
    fn names(&self, issuer: &Cert) -> bool {
        let algorithm: &Algorithm = match self.hash.oid {
            ID_SHA_1 => &SHA1_FOR_LEGACY_USE_ONLY,
            ID_SHA_256 => &SHA256,
            ID_SHA_384 => &SHA384,
            _ => return false,
        };
        let Ok(name) = issuer.subject().to_der() else { return false };
        digest(algorithm, &name).as_ref() == self.issuer_name.as_bytes()
            && digest(algorithm, issuer.key()).as_ref() == self.issuer_key.as_bytes()
    }
}

/// Whether an issuer certified somebody to answer for it (RFC 6960 section 4.2.2.2).
fn delegate(signer: &Cert, issuer: &Cert, at: UnixTime) -> Result<(), String> {
    let name = signer.name();
    let purposes = signer.x509.tbs_certificate().get_extension::<ExtendedKeyUsage>();
    let may = matches!(purposes, Ok(Some((_, ExtendedKeyUsage(purposes)))) if purposes.contains(&SIGNING));
    if !signer.signed_by(issuer, &P384, None) || !may || !signer.may_sign() {
        return Err(format!("is signed by {name:?}, whom {:?} did not certify to answer for it", issuer.name()));
    }
    let purpose = const_oid::db::rfc5280::ID_CE_EXT_KEY_USAGE.to_string();
    if let Some(oid) = signer.unknown_critical().filter(|oid| *oid != purpose) {
        return Err(format!("is signed by {name:?}, whose certificate has the critical extension {oid}"));
    }
    if !signer.window().contains(at) {
        return Err(format!("is signed by {name:?}, whose certificate is not valid at {at}"));
    }
    Ok(())
}

/// Says of each certificate but the root whether it is revoked, as far as there are answers. The first `unasked` need none: the
/// service does not know GPUs' own certificates.
pub(super) fn check(
    record: &mut Record,
    id: &'static str,
    chain: &[Cert],
    unasked: usize,
    responses: &Responses<'_>,
    at: UnixTime,
) {
    let (mut good, mut missing) = (0, Vec::new());
    for (n, pair) in chain.windows(2).enumerate() {
        let [certificate, issuer] = pair else { continue };
        let name = || certificate.name();
        match responses.word(certificate, issuer, at) {
            None if n < unasked => {}
            None => missing.push(name()),
            Some(Err(detail)) => {
                return record.genuine(id, false, format!("the OCSP response for {:?} {detail}", name()));
            }
            Some(Ok(word)) => {
                record.not_after = Some(record.not_after.map_or(word.window.to, |known| known.min(word.window.to)));
                match word.status {
                    Status::Good => good += 1,
                    Status::Revoked => {
                        let detail =
                            format!("NVIDIA revoked the certificate of {:?} and no longer stands by it", name());
                        return record.genuine(id, false, detail);
                    }
                    Status::Unknown => {
                        let detail = format!("NVIDIA's service does not know the certificate of {:?}", name());
                        return record.genuine(id, false, detail);
                    }
                }
            }
        }
    }
    if missing.is_empty() {
        return record.passed(id, format!("NVIDIA's service says that {good} certificates are good"));
    }
    let detail = format!("no OCSP response for {}: nothing says that they are not revoked", missing.join(", "));
    if responses.required { record.demand(id, false, detail) } else { record.unchecked(id, detail) }
}

/// An answer about a certificate: what was believed of it before, or its entry.
enum About<'a> {
    Known(Arc<Word>),
    New([u8; 32], &'a Response, &'a SingleResponse),
}

/// Answers at hand.
#[derive(Debug)]
pub(super) struct Responses<'a> {
    responses: Vec<Arc<Response>>,
    required: bool,
    known: Option<&'a Known>,
}

impl<'a> Responses<'a> {
    /// Reads answers; an error says which cannot be read.
    pub(super) fn read(ders: &[Shared], required: bool, known: Option<&'a Known>) -> Result<Self, String> {
        if ders.len() > MAX_RESPONSES {
            return Err(format!("{} OCSP responses are more than {MAX_RESPONSES}", ders.len()));
        }
        // The same answer twice says nothing more, and costs nothing more.
        let mut distinct: Vec<&Shared> = ders.iter().collect();
        distinct.sort_by_key(|shared| shared.digest);
        distinct.dedup_by_key(|shared| shared.digest);
        let read = |der: &Shared| {
            let fresh = || Response::parse(&der.bytes).map(Arc::new);
            known.map_or_else(fresh, |known| known.responses.get_or(&der.digest, |_| true, fresh))
        };
        let responses = distinct.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { responses, required, known })
    }

    /// What the answers say of a certificate. A revocation counts whatever else is there; of several others, any that holds.
    fn word(&self, certificate: &Cert, issuer: &Cert, at: UnixTime) -> Option<Result<Word, String>> {
        let mut about = Vec::new();
        for response in self.responses.iter().filter(|response| response.mentions(certificate)) {
            let key = super::key_of([&response.digest[..], &certificate.digest, &issuer.digest]);
            let known = self.known.and_then(|known| known.answers.get(&key, |word| word.window.contains(at)));
            match known {
                Some(word) => about.push(About::Known(word)),
                None => {
                    about.extend(response.about(certificate, issuer).map(|single| About::New(key, response, single)))
                }
            }
        }
        // Each that is not authentic costs several signature checks, and nobody has a use for many.
        if about.len() > MAX_ANSWERS {
            return Some(Err(format!("is one of more than {MAX_ANSWERS} about the same certificate")));
        }
        let mut best: Option<Result<Word, String>> = None;
        for answer in about {
            let word = match answer {
                About::Known(word) => Ok(*word),
                About::New(key, response, single) => {
                    let word = response.believed(single, issuer, at);
                    if let (Some(known), Ok(word)) = (self.known, &word) {
                        known.answers.keep(&key, Arc::new(*word));
                    }
                    word
                }
            };
            match (&word, &best) {
                (Ok(found), _) if found.status != Status::Good => return Some(word),
                (Ok(_), _) | (Err(_), None) => best = Some(word),
                (Err(_), Some(_)) => {}
            }
        }
        best
    }
}
