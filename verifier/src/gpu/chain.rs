//! Is a GPU's report genuine? Certificates, firmware id, nonce and signature.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use cocoon_attestation::UnixTime;
use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};

use super::rim::Failure;
use super::spdm::GpuReport;
use crate::outcome::{CheckOutcome, Record};
use crate::policy::Policy;
use crate::roots;
use crate::x509::{self, Cert, P384, Window};

/// Leaf, firmware, provisioner, model and root.
pub(super) const LENGTH: usize = 5;
/// Extensions that carry the digest of the firmware that holds the leaf's key: Hopper's, and Blackwell's.
const FWID: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("2.23.133.5.4.1"), ObjectIdentifier::new_unwrap("2.23.133.5.4.1.1")];
/// A GPU's certificates, once authenticated.
#[derive(Debug)]
pub(super) struct Chain {
    key: ParsedPublicKey,
    /// The GPU's own public key, as a point.
    pub(super) point: Vec<u8>,
    pub(super) certificates: Vec<Cert>,
    pub(super) architecture: String,
    fwid: Option<[u8; 48]>,
    root: String,
    pub(super) window: Window,
    development: bool,
    /// What it rests on, where it is remembered: the bytes that it came as, and the policy's roots.
    pem: Box<[u8]>,
    roots: Vec<Vec<u8>>,
}

impl Chain {
    pub(super) fn authenticate(pem: &[u8], policy: &Policy, at: UnixTime) -> Result<Self, Failure> {
        let chain =
            Cert::all(pem, LENGTH).map_err(|detail| ("gpu.certificate-format", CheckOutcome::Malformed, detail))?;
        let invalid = |id: &'static str, detail: String| (id, CheckOutcome::Invalid, detail);
        let (Some(leaf), Some(root), LENGTH) = (chain.first(), chain.last(), chain.len()) else {
            let detail = format!("{LENGTH} certificates are expected, {} are there", chain.len());
            return Err(invalid("gpu.certificates", detail));
        };
        let development = roots::trusted_nvidia(root, roots::NVIDIA_DEVICE, policy).ok_or_else(|| {
            let name = root.name();
            invalid("gpu.root", format!("the root {name:?} is neither NVIDIA's nor one that the policy names"))
        })?;
        let window = certificates("GPU", &chain, at).map_err(|detail| invalid("gpu.certificates", detail))?;
        let architecture = architecture(&chain).map_err(|detail| invalid("gpu.architecture", detail))?;
        let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, leaf.key())
            .map_err(|_| invalid("gpu.signature", "the GPU's key is no key of P-384".into()))?;
        let (point, fwid, root) = (leaf.key().to_vec(), fwid(leaf), root.name());
        let (pem, roots) = (Box::default(), Vec::new());
        Ok(Self { key, point, architecture, fwid, root, window, development, certificates: chain, pem, roots })
    }

    /// Keeps what it rests on.
    pub(super) fn remember(&mut self, pem: &[u8], policy: &Policy) {
        self.pem = pem.into();
        self.roots.clone_from(&policy.roots);
    }

    /// Whether it rests on exactly these.
    pub(super) fn rests_on(&self, pem: &[u8], policy: &Policy) -> bool {
        *self.pem == *pem && self.roots == policy.roots
    }
}

/// Firmware id, nonce and signature.
pub(super) fn authenticate(
    record: &mut Record,
    report: &GpuReport,
    chain: &Chain,
    nonce: Option<[u8; 32]>,
) -> Result<(), Failure> {
    let invalid = |id: &'static str, detail: &str| Err((id, CheckOutcome::Invalid, detail.to_owned()));
    record.passed("gpu.certificates", "five certificates, each signed by the next, all current");
    record.passed("gpu.root", chain.root.clone());
    record.development |= chain.development;
    record.not_after = Some(record.not_after.map_or(chain.window.to, |known| known.min(chain.window.to)));
    if report.is_switch() {
        return invalid("gpu.architecture", "this is the evidence of a switch, not of a GPU");
    }
    record.passed("gpu.architecture", chain.architecture.clone());
    match (report.fwid(), &chain.fwid) {
        (Some(stated), Some(certified)) if stated == certified => {
            record.passed("gpu.fwid", "report and certificate name the same firmware");
        }
        (Some(_), _) => {
            return invalid("gpu.fwid", "the report names other firmware than the certificate of its key");
        }
        // Drivers before 550 do not report it.
        (None, _) => record.unchecked("gpu.fwid", "this driver does not report its firmware's id"),
    }
    match nonce {
        None => record.unchecked("gpu.nonce", "no nonce was given: nothing says when this report was made"),
        Some(nonce) if nonce == report.nonce() => record.passed("gpu.nonce", "the report answers the nonce"),
        Some(_) => {
            let detail = "the report answers another nonce: it was made for somebody else, or earlier";
            return invalid("gpu.nonce", detail);
        }
    }
    if chain.key.verify_sig(report.signed(), report.signature()).is_err() {
        return invalid("gpu.signature", "the certified key did not sign this report");
    }
    record.passed("gpu.signature", "the certified key signed request and response");
    Ok(())
}

/// A chain from its leaf to a root that somebody else has decided to trust: signatures, dates, what each may do.
pub(super) fn certificates(what: &str, chain: &[Cert], at: UnixTime) -> Result<Window, String> {
    let mut window = Window { from: UnixTime(0), to: UnixTime(u64::MAX) };
    for (n, certificate) in chain.iter().enumerate() {
        let own = certificate.window();
        if !own.contains(at) {
            let name = certificate.name();
            return Err(format!(
                "the {what}'s certificate {name:?} is valid from {} to {}, not at {at}",
                own.from, own.to
            ));
        }
        window = window.and(own);
        if let Some(oid) = certificate.unknown_critical() {
            return Err(format!("{:?} has the critical extension {oid}, which is not understood", certificate.name()));
        }
        let issuer = chain.get(n + 1).unwrap_or(certificate);
        if !certificate.signed_by(issuer, &P384, None) {
            return Err(format!("{:?} did not sign the certificate of {:?}", issuer.name(), certificate.name()));
        }
        let below = u8::try_from(n.saturating_sub(1)).unwrap_or(u8::MAX);
        if n == 0 && !certificate.may_sign() || n > 0 && !certificate.may_issue(below) {
            return Err(format!("{:?} may not be used as what it is used as", certificate.name()));
        }
    }
    Ok(window)
}

/// The GPU's architecture, by the name that NVIDIA certified. Switches have certificates of the same kind, and are no GPUs.
pub(super) fn architecture(chain: &[Cert]) -> Result<String, String> {
    let (Some(leaf), Some(model)) = (chain.first(), chain.get(LENGTH - 2)) else {
        return Err(format!("{LENGTH} certificates are expected, {} are there", chain.len()));
    };
    let (name, model) = (leaf.name(), model.name());
    let architecture = name.split(' ').next().unwrap_or_default().to_owned();
    let known = ["GH", "GB"].iter().any(|family| {
        architecture
            .strip_prefix(family)
            .is_some_and(|rest| rest.len() == 3 && rest.bytes().all(|b| b.is_ascii_digit()))
    });
    if architecture.starts_with("LS") {
        return Err(format!("this is the evidence of a switch ({name:?}), not of a GPU"));
    }
    if !known {
        return Err(format!("{name:?} is no GPU of Hopper (GH) or Blackwell (GB)"));
    }
    if !model.split(' ').any(|word| word == architecture) {
        return Err(format!("the certificates are of different architectures: {name:?}, {model:?}"));
    }
    Ok(architecture)
}

/// The one SHA-384 firmware id (TCG DICE: algorithm and digest) in the leaf's extension.
fn fwid(leaf: &Cert) -> Option<[u8; 48]> {
    let extension = FWID.into_iter().find_map(|oid| x509::extension(&leaf.x509, oid))?;
    let mut found = Vec::new();
    search(extension, 0, &mut found);
    let [one] = found[..] else { return None };
    Some(one)
}

fn search(der: &[u8], depth: u32, found: &mut Vec<[u8; 48]>) {
    const DEEPEST: u32 = 6;
    let Ok(mut reader) = SliceReader::new(der) else { return };
    let (mut before, mut values) = (None, 0);
    while let Ok(value) = AnyRef::decode(&mut reader) {
        values += 1;
        if value.tag() == Tag::OctetString
            && before == Some(const_oid::db::rfc5912::ID_SHA_384)
            && let Ok(octets) = value.decode_as::<&OctetStringRef>()
            && let Ok(digest) = octets.as_bytes().try_into()
        {
            found.push(digest);
        }
        if value.tag().is_constructed() && depth < DEEPEST {
            search(value.value(), depth + 1, found);
        }
        before = ObjectIdentifier::from_bytes(value.value()).ok().filter(|_| value.tag() == Tag::ObjectIdentifier);
        if reader.is_finished() || values > 64 {
            return;
        }
    }
}
