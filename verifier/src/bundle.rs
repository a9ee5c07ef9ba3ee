//! A whole evidence bundle: CPU evidence, claims, their binding and reference values, one result.

use cocoon_attestation::detached::CpuSlice;
use cocoon_attestation::{
    Bundle, Claims, CpuEvidence, Endorsements, EventLog, EvidenceId, GpuEndorsements, ReferenceValues, UnixTime,
};

use crate::binding::{self, Authentic};
use crate::cache::Cache;
use crate::gpu::GpuReferences;
use crate::outcome::{Appraisal, CheckOutcome, Record, Signature};
use crate::policy::Policy;
use crate::{gpu, snp, tdx};

/// What is remembered of platforms, by kind.
#[derive(Debug)]
pub(crate) struct Platforms {
    pub(crate) tdx: tdx::Known,
    pub(crate) snp: Cache<snp::Platform>,
    pub(crate) gpu: gpu::Known,
}

/// The result for a bundle.
#[derive(Clone, Debug)]
pub struct BundleAppraisal {
    /// The result.
    pub appraisal: Appraisal,
    /// The claims, if they can be read. Believe them only if the outcome is accepted.
    pub claims: Option<Claims>,
    /// The evidence id, if the bundle can be read.
    pub evidence_id: Option<EvidenceId>,
}

/// Appraises a bundle that carries its endorsements, at a time.
pub fn appraise_bundle(
    bundle: &[u8],
    policy: &Policy,
    references: Option<&ReferenceValues>,
    at: UnixTime,
) -> BundleAppraisal {
    appraise_bundle_with(bundle, policy, references, at, None)
}

pub(crate) fn appraise_bundle_with(
    bundle: &[u8],
    policy: &Policy,
    references: Option<&ReferenceValues>,
    at: UnixTime,
    platforms: Option<&Platforms>,
) -> BundleAppraisal {
    match Bundle::from_cbor(bundle) {
        Ok(bundle) => appraise_parts(&Parts::of(&bundle), policy, references, at, platforms),
        Err(error) => unreadable(error.to_string()),
    }
}

pub(crate) fn unreadable(detail: String) -> BundleAppraisal {
    let mut record = Record::default();
    record.put("bundle.format", CheckOutcome::Malformed, detail);
    BundleAppraisal { appraisal: record.finish(), claims: None, evidence_id: None }
}

/// What a bundle holds, wherever it stands.
pub(crate) struct Parts<'a> {
    pub(crate) claims: &'a [u8],
    pub(crate) cpu: CpuSlice<'a>,
    pub(crate) gpu: Vec<&'a [u8]>,
    pub(crate) event_log: Option<&'a EventLog>,
    pub(crate) endorsed: Endorsed<'a>,
    /// Each GPU's chain, PEM.
    pub(crate) gpu_chains: Vec<&'a [u8]>,
    pub(crate) gpu_references: References<'a>,
    pub(crate) evidence_id: EvidenceId,
}

/// What NVIDIA says.
pub(crate) enum References<'a> {
    /// As the bundle carries it: nobody copies or hashes it before the CPU's evidence is found authentic.
    Carried(&'a GpuEndorsements),
    /// Shared with other bundles.
    Shared(GpuReferences),
}

/// What vouches for the CPU.
pub(crate) enum Endorsed<'a> {
    None,
    Tdx(tdx::Intel<'a>),
    Snp(snp::Endorsed<'a>),
}

impl<'a> Parts<'a> {
    fn of(bundle: &'a Bundle) -> Self {
        let gpu = &bundle.gpu_endorsements;
        Self {
            claims: &bundle.claims,
            cpu: match &bundle.cpu {
                CpuEvidence::Tdx { quote } => CpuSlice::Tdx(quote),
                CpuEvidence::Snp { report } => CpuSlice::Snp(report),
            },
            gpu: bundle.gpu.iter().map(Vec::as_slice).collect(),
            event_log: bundle.event_log.as_ref(),
            endorsed: match &bundle.endorsements {
                Endorsements::None => Endorsed::None,
                Endorsements::Tdx { collateral } => Endorsed::Tdx(tdx::Intel::Json(collateral)),
                Endorsements::Snp(chain) => Endorsed::Snp(snp::Endorsed {
                    vek: &chain.vek,
                    ca: chain.ca.iter().map(Vec::as_slice).collect(),
                    crl: chain.crl.as_deref(),
                }),
            },
            gpu_chains: gpu.chains.iter().map(Vec::as_slice).collect(),
            gpu_references: References::Carried(gpu),
            evidence_id: bundle.evidence_id(),
        }
    }
}

pub(crate) fn appraise_parts(
    bundle: &Parts<'_>,
    policy: &Policy,
    references: Option<&ReferenceValues>,
    at: UnixTime,
    platforms: Option<&Platforms>,
) -> BundleAppraisal {
    let mut record = Record::roomy();
    let evidence_id = Some(bundle.evidence_id);
    let claims = match Claims::from_cbor(bundle.claims) {
        Ok(claims) => claims,
        Err(error) => {
            record.put("claims.format", CheckOutcome::Malformed, error.to_string());
            return BundleAppraisal { appraisal: record.finish(), claims: None, evidence_id };
        }
    };
    record.passed("bundle.format", "claims and evidence can be read");
    let cpu = match (&bundle.cpu, &bundle.endorsed) {
        (CpuSlice::Tdx(quote), Endorsed::Tdx(collateral)) => {
            let given = tdx::Given { quote, collateral: *collateral, events: bundle.event_log };
            tdx::run(&mut record, &given, policy, at, Signature::Checked, platforms.map(|known| &known.tdx))
                .map(Authentic::Tdx)
        }
        (CpuSlice::Snp(report), Endorsed::Snp(endorsed)) => {
            let known = platforms.map(|known| &known.snp);
            snp::run(&mut record, report, endorsed, policy, at, Signature::Checked, known).map(Authentic::Snp)
        }
        _ => {
            let detail = "the bundle carries no endorsements for its CPU evidence: staple them first";
            record.put("bundle.endorsements", CheckOutcome::Invalid, detail);
            None
        }
    };
    // Nothing can be bound to evidence that is not authentic.
    if let Some(cpu) = cpu {
        binding::claims(&mut record, &cpu, bundle.claims);
        binding::gpu(&mut record, &claims, bundle, policy, at, platforms.map(|known| &known.gpu));
        if matches!(cpu, Authentic::Snp(_)) && bundle.event_log.is_some() {
            let detail = "this platform has no runtime registers to replay a log into";
            record.genuine("snp.event-log", false, detail);
        }
        binding::references(&mut record, &cpu, &claims, bundle.event_log, references, policy);
        binding::freshness(&mut record, &claims, policy, at);
    }
    BundleAppraisal { appraisal: record.finish(), claims: Some(claims), evidence_id }
}
