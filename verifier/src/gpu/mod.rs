//! NVIDIA GPU evidence, Hopper and Blackwell: the SPDM report that a GPU in confidential mode signs, NVIDIA's certificates and
//! NVIDIA's reference manifests. In the order of NVIDIA's own verifier: architecture, chain and firmware id, nonce, versions, signature,
//! driver manifest, VBIOS manifest, golden measurements.

mod appraise;
mod chain;
mod rim;
mod spdm;
mod xml;

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use cocoon_attestation::UnixTime;

use crate::cache::Cache;
use crate::outcome::{Appraisal, CheckOutcome, Record};
use crate::policy::Policy;
use chain::Chain;
use rim::{Failure, Rim};
use spdm::GpuReport;

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
    appraise::golden(record, &report, &chain.architecture, manifests, policy);
    record.unchecked(
        "gpu.revocation",
        "no OCSP response is read yet: NVIDIA's service knows whether a certificate is revoked",
    );
    Some(chain.point.clone())
}
