//! NVIDIA GPU evidence, Hopper and Blackwell: the SPDM report that a GPU in confidential mode signs, NVIDIA's certificates and
//! NVIDIA's reference manifests. In the order of NVIDIA's own verifier: architecture, chain and firmware id, nonce, versions, signature,
//! driver manifest, VBIOS manifest, golden measurements.

mod appraise;
mod chain;
pub(crate) mod ocsp;
mod rim;
mod spdm;
mod xml;

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use cocoon_attestation::UnixTime;

use crate::cache::Cache;
use crate::needs::{self, Need};
use crate::outcome::{Appraisal, CheckOutcome, Record};
use crate::policy::Policy;
use crate::x509::{Cert, sha256};
use chain::Chain;
use ocsp::{Responses, Word};
use rim::{Failure, Rim};
use spdm::GpuReport;

/// Appraises one GPU's report (SPDM request and response) against its certificate chain (PEM, leaf first), reference manifests in
/// any order and, if one was asked with, the nonce, at a time. [`appraise_gpus`] takes OCSP responses as well.
pub fn appraise_gpu(
    report: &[u8],
    chain: &[u8],
    rims: &[Vec<u8>],
    nonce: Option<[u8; 32]>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    let references = GpuReferences::new(rims.to_vec(), Vec::new());
    appraise_gpus(&[GpuEvidence { report, chain }], &references, nonce, policy, at)
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
    references: &GpuReferences,
    nonce: Option<[u8; 32]>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    let mut record = Record::default();
    run(&mut record, gpus, references, nonce, policy, at, None);
    record.finish()
}

/// What NVIDIA says of its GPUs, drivers and keys: read, but not yet believed. Reading it once serves any number of reports.
#[derive(Clone, Debug, Default)]
pub struct GpuReferences {
    manifests: Vec<Shared>,
    ocsp: Vec<Shared>,
}

impl GpuReferences {
    /// Reference manifests, XML, and OCSP responses, DER, as NVIDIA's services give them, in any order.
    pub fn new(manifests: Vec<Vec<u8>>, ocsp: Vec<Vec<u8>>) -> Self {
        let shared = |parts: Vec<Vec<u8>>| parts.into_iter().map(|bytes| Shared::new(Arc::new(bytes))).collect();
        Self::of(shared(manifests), shared(ocsp))
    }

    pub(crate) fn of(mut manifests: Vec<Shared>, ocsp: Vec<Shared>) -> Self {
        manifests.truncate(MAX_RIMS);
        Self { manifests, ocsp }
    }
}

/// Bytes that many have, with their SHA-256, so that nobody hashes or copies them again.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) digest: [u8; 32],
}

impl Shared {
    pub(crate) fn new(bytes: Arc<Vec<u8>>) -> Self {
        Self { digest: sha256(&bytes), bytes }
    }
}

/// What is remembered of GPUs.
#[derive(Debug)]
pub(crate) struct Known {
    chains: Cache<Chain>,
    manifests: Cache<Rim>,
    answers: Cache<Word>,
    responses: Cache<ocsp::Response>,
}

impl Known {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            chains: Cache::new(most),
            manifests: Cache::new(most),
            answers: Cache::new(most.saturating_mul(4)),
            responses: Cache::weighing(most.saturating_mul(4), RESPONSES, ocsp::Response::len),
        }
    }
}

/// Most bytes of answers that are kept read, by their length as they came: read, they take several times as much, and whoever sends them need
/// not be believed yet.
const RESPONSES: usize = 16 << 20;

/// Bytes of a chain that say where it is remembered.
const KEY: usize = 768;
/// Longest chain that is remembered; NVIDIA's have about 5 KB.
const REMEMBERED: usize = 16 * 1024;

/// SHA-256 of bytes and of the roots in force.
fn key(bytes: &[u8], policy: &Policy) -> [u8; 32] {
    key_of(std::iter::once(bytes).chain(policy.roots.iter().map(Vec::as_slice)))
}

/// SHA-256 of parts, each behind its length.
fn key_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// Appraises a reference manifest on its own, with OCSP responses (DER) for its certificates if there are any, at a time.
pub fn appraise_rim(manifest: &[u8], ocsp: &[Vec<u8>], policy: &Policy, at: UnixTime) -> Appraisal {
    let mut record = Record::default();
    match rim::authenticate(manifest, policy, at) {
        Err((id, outcome, detail)) => record.put(id, outcome, detail),
        Ok(rim) => {
            rim::report(&mut record, &rim);
            record.not_after = Some(rim.window.to);
            record.development = rim.development;
            let ocsp: Vec<_> = ocsp.iter().map(|der| Shared::new(Arc::new(der.clone()))).collect();
            match Responses::read(&ocsp, policy.gpu.require_ocsp, None) {
                Ok(responses) => ocsp::check(&mut record, "rim.revocation", &rim.certificates, 0, &responses, at),
                Err(detail) => record.put("rim.ocsp-format", CheckOutcome::Malformed, detail),
            }
        }
    }
    record.finish()
}

/// What a GPU's report and chain need, by their own word.
pub(crate) fn needs(report: &[u8], chain: &[u8]) -> Result<Vec<Need>, String> {
    let report = GpuReport::parse(report)?;
    let certificates = Cert::all(chain, chain::LENGTH)?;
    let architecture = chain::architecture(&certificates)?;
    let driver = report.driver_version().ok_or("the report names no driver version")?;
    let (board, vbios) = report.board().zip(report.vbios_version()).ok_or("the report names no board or VBIOS")?;
    // NVIDIA's names: Hopper's drivers are all called by one chip, Blackwell's by their own.
    let driver = match architecture.as_str() {
        "GH100" => format!("NV_GPU_DRIVER_GH100_{driver}"),
        other => format!("NV_GPU_CC_DRIVER_{other}_{driver}"),
    };
    let vbios = format!("NV_GPU_VBIOS_{board}_{}", vbios.replace('.', ""));
    let named = [driver, vbios].into_iter().map(|id| match is_name(&id) {
        true => Ok(Need::Rim { id }),
        false => Err(format!("{id:?} can be no manifest's name")),
    });
    let mut needs = named.collect::<Result<Vec<_>, _>>()?;
    needs.extend(needs::of_chain(&certificates, 1));
    Ok(needs)
}

/// What comes from evidence becomes part of an address and of a file's name.
fn is_name(id: &str) -> bool {
    id.len() <= 100 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// What a manifest needs, by its own word.
pub(crate) fn rim_needs(manifest: &[u8]) -> Result<Vec<Need>, String> {
    Ok(needs::of_chain(&rim::certificates(manifest)?, 0))
}

/// Whether a manifest is the one that a name asks for.
pub(crate) fn rim_fits(manifest: &[u8], id: &str) -> Result<(), String> {
    let (product, version) = rim::subject(manifest)?;
    let (wanted, found) = (id.to_ascii_uppercase(), version.replace('.', "").to_ascii_uppercase());
    if !found.is_empty() && wanted.replace('.', "").ends_with(&found) {
        return Ok(());
    }
    Err(format!("the manifest is for {product} {version}, not {id}"))
}

/// The same into a record.
pub(crate) fn run(
    record: &mut Record,
    gpus: &[GpuEvidence<'_>],
    references: &GpuReferences,
    nonce: Option<[u8; 32]>,
    policy: &Policy,
    at: UnixTime,
    known: Option<&Known>,
) {
    if gpus.is_empty() {
        return record.put("gpu.format", CheckOutcome::Malformed, "there is no GPU's report");
    }
    // Read once for all of them; a fault shows with every GPU that it leaves without golden values.
    let manifest = |manifest: &Shared| {
        let fresh = || rim::authenticate(&manifest.bytes, policy, at).map(Arc::new);
        match known {
            None => fresh(),
            Some(known) => known.manifests.get_or(&key(&manifest.digest, policy), |rim| rim.window.contains(at), fresh),
        }
    };
    let manifests = references.manifests.iter().map(manifest).collect::<Result<Vec<_>, _>>();
    let responses = match Responses::read(&references.ocsp, policy.gpu.require_ocsp, known) {
        Ok(responses) => responses,
        Err(detail) => return record.put("gpu.ocsp-format", CheckOutcome::Malformed, detail),
    };
    let asked = Asked { manifests, responses, nonce, policy, at };
    let mut keys = Vec::new();
    for (n, gpu) in gpus.iter().enumerate() {
        let mut own = Record::default();
        if let Some(key) = one(&mut own, gpu, &asked, known) {
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

/// Whether a report answers a nonce and was signed by a GPU that the root vouches for, whatever is said of that GPU today.
pub(crate) fn signed(gpu: &GpuEvidence<'_>, nonce: [u8; 32], policy: &Policy, at: UnixTime) -> bool {
    let (Ok(report), Ok(chain)) = (GpuReport::parse(gpu.report), Chain::authenticate(gpu.chain, policy, at)) else {
        return false;
    };
    chain::authenticate(&mut Record::default(), &report, &chain, Some(nonce)).is_ok()
}

/// Most manifests that are looked at.
const MAX_RIMS: usize = 16;

type Manifests = Result<Vec<Arc<Rim>>, Failure>;

/// What every GPU is held against.
struct Asked<'a> {
    manifests: Manifests,
    responses: Responses<'a>,
    nonce: Option<[u8; 32]>,
    policy: &'a Policy,
    at: UnixTime,
}

/// One GPU; its key comes back if its report is authentic.
fn one(record: &mut Record, gpu: &GpuEvidence<'_>, asked: &Asked<'_>, known: Option<&Known>) -> Option<Vec<u8>> {
    let Asked { policy, at, nonce, .. } = *asked;
    let report = match GpuReport::parse(gpu.report) {
        Ok(report) => report,
        Err(detail) => {
            record.put("gpu.format", CheckOutcome::Malformed, detail);
            return None;
        }
    };
    record.passed("gpu.format", format!("SPDM report, {} bytes", gpu.report.len()));
    // What is remembered counts only if all of its bytes and all roots are the same; it is looked for by the beginning, which has the
    // GPU's own certificate.
    let known = known.filter(|_| gpu.chain.len() <= REMEMBERED);
    let fresh = || {
        let mut chain = Chain::authenticate(gpu.chain, policy, at)?;
        if known.is_some() {
            chain.remember(gpu.chain, policy);
        }
        Ok(Arc::new(chain))
    };
    let counts = |chain: &Chain| chain.window.contains(at) && chain.rests_on(gpu.chain, policy);
    let chain = match known {
        None => fresh(),
        Some(known) => known.chains.get_or(&key(&gpu.chain[..gpu.chain.len().min(KEY)], policy), counts, fresh),
    };
    let chain = chain.and_then(|chain| {
        chain::authenticate(record, &report, &chain, nonce)?;
        Ok(chain)
    });
    let chain = match chain {
        Ok(chain) => chain,
        Err((id, outcome, detail)) => {
            record.put(id, outcome, detail);
            return None;
        }
    };
    appraise::measure(record, &report, &chain.architecture);
    appraise::mode_and_versions(record, &report, &policy.gpu);
    ocsp::check(record, "gpu.revocation", &chain.certificates, 1, &asked.responses, at);
    appraise::golden(record, &report, &chain.architecture, asked);
    Some(chain.point.clone())
}
