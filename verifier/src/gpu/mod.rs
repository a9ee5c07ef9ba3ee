//! NVIDIA GPU evidence, Hopper and Blackwell: the SPDM report that a GPU in confidential mode signs, NVIDIA's certificates and
//! NVIDIA's reference manifests. In the order of NVIDIA's own verifier: architecture, chain and firmware id, nonce, versions, signature,
//! driver manifest, VBIOS manifest, golden measurements.

mod rim;
mod spdm;
mod xml;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use cocoon_attestation::UnixTime;
use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};

use crate::cache::Cache;
use crate::outcome::{Appraisal, CheckOutcome, Record};
use crate::policy::{GpuMode, Policy};
use crate::roots;
use crate::x509::{self, Cert, P384, Window};
use rim::{Failure, Kind, Rim};
use spdm::GpuReport;

/// Leaf, firmware, provisioner, model and root.
const CHAIN: usize = 5;
/// Extensions that carry the digest of the firmware that holds the leaf's key: Hopper's, and Blackwell's.
const FWID: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("2.23.133.5.4.1"), ObjectIdentifier::new_unwrap("2.23.133.5.4.1.1")];
/// Block 36, which is index 35 of a manifest, is the first video decoder's.
const NVDEC0: u8 = 35;

/// Appraises one GPU's report (SPDM request and response) against its certificate chain (PEM, leaf first), reference manifests in
/// any order and, if one was asked with, the nonce, at a time.
pub fn appraise_gpu(
    report: &[u8],
    chain: &[u8],
    rims: &[Vec<u8>],
    nonce: Option<[u8; 32]>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    appraise_gpus(&[GpuEvidence { report, chain }], rims, nonce, policy, at)
}

/// One GPU's evidence: its report (SPDM request and response), and its certificate chain (PEM, leaf first).
#[derive(Clone, Copy, Debug)]
pub struct GpuEvidence<'a> {
    /// SPDM request and response.
    pub report: &'a [u8],
    /// PEM, leaf first.
    pub chain: &'a [u8],
}

/// Appraises the reports of several GPUs that one guest uses, each under the same nonce; one result for all.
pub fn appraise_gpus(
    gpus: &[GpuEvidence<'_>],
    rims: &[Vec<u8>],
    nonce: Option<[u8; 32]>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    let mut record = Record::default();
    let rims: Vec<_> = rims.iter().take(MAX_RIMS).cloned().map(Manifest::new).collect();
    run(&mut record, gpus, &rims, nonce, policy, at, None);
    record.finish()
}

/// A reference manifest that has been read, but not yet believed. Reading it once serves any number of reports.
#[derive(Clone, Debug)]
pub struct Manifest {
    bytes: Vec<u8>,
    digest: [u8; 32],
}

impl Manifest {
    /// A manifest as NVIDIA published it, XML.
    pub fn new(bytes: Vec<u8>) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        Self { bytes, digest: hash }
    }
}

/// What is remembered of GPUs.
#[derive(Debug)]
pub(crate) struct Known {
    chains: Cache<Chain>,
    manifests: Cache<Rim>,
}

impl Known {
    pub(crate) fn new(most: usize) -> Self {
        Self { chains: Cache::new(most), manifests: Cache::new(most) }
    }
}

/// SHA-256 of bytes and of the roots in force, each behind its length.
fn key(bytes: &[u8], policy: &Policy) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in std::iter::once(bytes).chain(policy.roots.iter().map(Vec::as_slice)) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// Appraises a reference manifest on its own, at a time.
pub fn appraise_rim(manifest: &[u8], policy: &Policy, at: UnixTime) -> Appraisal {
    let mut record = Record::default();
    match rim::authenticate(manifest, policy, at) {
        Err((id, outcome, detail)) => record.put(id, outcome, detail),
        Ok(rim) => {
            rim::report(&mut record, &rim);
            record.not_after = Some(rim.window.to);
            record.development = rim.development;
        }
    }
    record.finish()
}

/// The same into a record.
pub(crate) fn run(
    record: &mut Record,
    gpus: &[GpuEvidence<'_>],
    rims: &[Manifest],
    nonce: Option<[u8; 32]>,
    policy: &Policy,
    at: UnixTime,
    known: Option<&Known>,
) {
    if gpus.is_empty() {
        return record.put("gpu.format", CheckOutcome::Malformed, "there is no GPU's report");
    }
    // Read once for all of them; a fault shows with every GPU that it leaves without golden values.
    let manifest = |manifest: &Manifest| {
        let fresh = || rim::authenticate(&manifest.bytes, policy, at).map(Arc::new);
        match known {
            None => fresh(),
            Some(known) => known.manifests.get_or(&key(&manifest.digest, policy), |rim| rim.window.contains(at), fresh),
        }
    };
    let manifests = rims.iter().take(MAX_RIMS).map(manifest).collect::<Result<Vec<_>, _>>();
    let mut keys = Vec::new();
    for (n, gpu) in gpus.iter().enumerate() {
        let mut own = Record::default();
        if let Some(key) = one(&mut own, gpu, &manifests, nonce, policy, at, known) {
            keys.push(key);
        }
        if gpus.len() == 1 {
            record.absorb(own, None);
        } else {
            record.absorb(own, Some(n));
        }
    }
    if gpus.len() > 1 {
        let found = keys.len();
        keys.sort();
        keys.dedup();
        let distinct = keys.len() == gpus.len() && found == gpus.len();
        let detail = if distinct { "each report is of a GPU of its own" } else { "one GPU is there more than once" };
        if distinct || found == gpus.len() {
            record.genuine("gpu.distinct", distinct, detail);
        }
    }
}

/// Most manifests that are looked at.
const MAX_RIMS: usize = 16;

type Manifests = Result<Vec<Arc<Rim>>, Failure>;

/// One GPU; its key comes back if its report is authentic.
fn one(
    record: &mut Record,
    gpu: &GpuEvidence<'_>,
    manifests: &Manifests,
    nonce: Option<[u8; 32]>,
    policy: &Policy,
    at: UnixTime,
    known: Option<&Known>,
) -> Option<Vec<u8>> {
    let report = match GpuReport::parse(gpu.report) {
        Ok(report) => report,
        Err(detail) => {
            record.put("gpu.format", CheckOutcome::Malformed, detail);
            return None;
        }
    };
    record.passed("gpu.format", format!("SPDM report, {} bytes", gpu.report.len()));
    let fresh = || Chain::authenticate(gpu.chain, policy, at).map(Arc::new);
    let chain = match known {
        None => fresh(),
        Some(known) => known.chains.get_or(&key(gpu.chain, policy), |chain| chain.window.contains(at), fresh),
    };
    let chain = chain.and_then(|chain| {
        authenticate(record, &report, &chain, nonce)?;
        Ok(chain)
    });
    let chain = match chain {
        Ok(chain) => chain,
        Err((id, outcome, detail)) => {
            record.put(id, outcome, detail);
            return None;
        }
    };
    measure(record, &report, &chain.architecture);
    appraise(record, &report, policy);
    golden(record, &report, &chain.architecture, manifests, policy);
    record.unchecked(
        "gpu.revocation",
        "no OCSP response is read yet: NVIDIA's service knows whether a certificate is revoked",
    );
    Some(chain.point.clone())
}

/// A GPU's certificates, once authenticated.
#[derive(Debug)]
struct Chain {
    key: ParsedPublicKey,
    point: Vec<u8>,
    architecture: String,
    fwid: Option<[u8; 48]>,
    root: String,
    window: Window,
    development: bool,
}

impl Chain {
    fn authenticate(pem: &[u8], policy: &Policy, at: UnixTime) -> Result<Self, Failure> {
        let chain =
            Cert::all(pem, CHAIN).map_err(|detail| ("gpu.certificate-format", CheckOutcome::Malformed, detail))?;
        let invalid = |id: &'static str, detail: String| (id, CheckOutcome::Invalid, detail);
        let (Some(leaf), Some(root), CHAIN) = (chain.first(), chain.last(), chain.len()) else {
            let detail = format!("{CHAIN} certificates are expected, {} are there", chain.len());
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
        Ok(Self { key, point, architecture, fwid, root, window, development })
    }
}

/// Firmware id, nonce and signature.
fn authenticate(
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
fn certificates(what: &str, chain: &[Cert], at: UnixTime) -> Result<Window, String> {
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
        if !certificate.signed_by(issuer, &P384) {
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
fn architecture(chain: &[Cert]) -> Result<String, String> {
    let name = chain[0].name();
    let architecture = name.split(' ').next().unwrap_or_default().to_owned();
    let model = chain[CHAIN - 2].name();
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

fn measure(record: &mut Record, report: &GpuReport, architecture: &str) {
    record.measurements.insert("gpu.architecture".into(), architecture.to_owned());
    for (name, value) in
        [("gpu.driver", report.driver_version()), ("gpu.vbios", report.vbios_version()), ("gpu.board", report.board())]
    {
        record.measurements.extend(value.map(|value| (name.to_owned(), value)));
    }
    record.measure("gpu.nonce", &report.nonce());
    for (block, digest) in report.measurements() {
        if digest.iter().any(|byte| *byte != 0) {
            record.measure(&format!("gpu.measurement{:02}", block - 1), digest);
        }
    }
}

fn appraise(record: &mut Record, report: &GpuReport, policy: &Policy) {
    let policy = &policy.gpu;
    match report.feature() {
        None => record.unchecked("gpu.mode", "this driver does not report how the GPU is used"),
        Some(flag) => {
            let mode = match flag {
                [0, 0] => Some(GpuMode::Spt),
                [1, 0] => Some(GpuMode::Mpt),
                [2, 0] => Some(GpuMode::Ppcie),
                _ => None,
            };
            let accepted = mode.is_some_and(|mode| policy.mode.is_empty() || policy.mode.contains(&mode));
            let detail = match mode {
                None => format!("the flag {} is no mode that this verifier knows", hex::encode(flag)),
                Some(mode) if accepted => format!("{mode:?}"),
                Some(mode) => format!("{mode:?}, which is none of those that the policy takes"),
            };
            record.demand("gpu.mode", accepted, detail);
        }
    }
    let text = |record: &mut Record, id: &str, found: Option<String>, accepted: &[String]| {
        let found = found.unwrap_or_default();
        if accepted.is_empty() {
            return record.unchecked(id, "the policy names none");
        }
        record.demand(id, accepted.contains(&found), format!("{found:?}; the policy takes {}", accepted.join(", ")));
    };
    text(record, "gpu.driver-version", report.driver_version(), &policy.driver_version);
    text(record, "gpu.vbios-version", report.vbios_version(), &policy.vbios_version);
}

/// Reference manifests, and every golden measurement in them.
fn golden(record: &mut Record, report: &GpuReport, architecture: &str, manifests: &Manifests, policy: &Policy) {
    let rims = match manifests {
        Ok(rims) => rims,
        Err((id, outcome, detail)) => return record.put(&format!("gpu.{id}"), *outcome, detail.clone()),
    };
    let find = |kind: Kind, version: &Option<String>| {
        rims.iter().find(|rim| {
            rim.kind == kind
                && rim.product == architecture
                && version.as_ref().is_some_and(|version| rim.version.eq_ignore_ascii_case(version))
        })
    };
    let mut values: BTreeMap<u8, (&str, &[Vec<u8>])> = BTreeMap::new();
    let mut complete = true;
    for (kind, id, what, version) in [
        (Kind::Driver, "gpu.driver-rim", "driver", report.driver_version()),
        (Kind::Vbios, "gpu.vbios-rim", "VBIOS", report.vbios_version()),
    ] {
        let running = version.clone().unwrap_or_else(|| "of no version".into());
        match find(kind, &version) {
            Some(rim) => {
                record.passed(id, format!("{what} {} for {}, signed and current", rim.version, rim.product));
                record.development |= rim.development;
                record.not_after = Some(record.not_after.map_or(rim.window.to, |known| known.min(rim.window.to)));
                for (index, golden) in &rim.golden {
                    if values.insert(*index, (what, golden)).is_some() {
                        let detail = format!("driver and VBIOS manifests both give measurement {index}");
                        return record.genuine("gpu.measurements", false, detail);
                    }
                }
            }
            None if rims.iter().any(|rim| rim.kind == kind) => {
                complete = false;
                let found: Vec<_> = rims
                    .iter()
                    .filter(|rim| rim.kind == kind)
                    .map(|rim| format!("{} {}", rim.product, rim.version))
                    .collect();
                let detail = format!(
                    "the GPU ({architecture}) runs {what} {running}; the manifests are for {}",
                    found.join(", ")
                );
                record.demand(id, false, detail);
            }
            None => {
                complete = false;
                let why = format!("no manifest for {what} {running} was given");
                if policy.gpu.require_rims {
                    record.demand(id, false, format!("{why}, and the policy demands one"));
                } else {
                    record.unchecked(id, why);
                }
            }
        }
    }
    if values.is_empty() {
        return record.unchecked(
            "gpu.measurements",
            "without manifests nothing says whether firmware and mode are NVIDIA's own",
        );
    }
    if report.nvdec0_disabled() {
        values.remove(&NVDEC0);
    }
    let differing: Vec<String> = values
        .iter()
        .filter(|(index, (_, golden))| {
            let found = report.measurement(*index + 1);
            !found.is_some_and(|found| golden.iter().any(|value| value == found))
        })
        .map(|(index, (what, _))| format!("{index} ({what})"))
        .collect();
    let detail = if differing.is_empty() {
        format!("{} golden measurements match", values.len())
    } else {
        format!(
            "{} of {} measurements are not NVIDIA's: {}; the firmware is another, or the GPU is not in confidential mode (devtools)",
            differing.len(),
            values.len(),
            differing.join(", ")
        )
    };
    record.demand("gpu.measurements", differing.is_empty(), detail);
    if !complete {
        record.unchecked("gpu.all-measurements", "one of the two manifests is missing");
    }
}
