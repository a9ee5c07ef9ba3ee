//! A whole evidence bundle: CPU evidence, claims, their binding and reference values, one result.

use cocoon_attestation::{Bundle, Claims, CpuEvidence, Endorsements, EvidenceId, ReferenceValues, UnixTime};

use crate::binding::{self, Authentic};
use crate::cache::Cache;
use crate::outcome::{Appraisal, CheckOutcome, Record, Signature};
use crate::policy::Policy;
use crate::{gpu, snp, tdx};

/// What is remembered of platforms, by kind.
#[derive(Debug)]
pub(crate) struct Platforms {
    pub(crate) tdx: Cache<tdx::Platform>,
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
    let mut record = Record::default();
    let bundle = match Bundle::from_cbor(bundle) {
        Ok(bundle) => bundle,
        Err(error) => {
            record.put("bundle.format", CheckOutcome::Malformed, error.to_string());
            return BundleAppraisal { appraisal: record.finish(), claims: None, evidence_id: None };
        }
    };
    let evidence_id = Some(bundle.evidence_id());
    let claims = match bundle.claims() {
        Ok(claims) => claims,
        Err(error) => {
            record.put("claims.format", CheckOutcome::Malformed, error.to_string());
            return BundleAppraisal { appraisal: record.finish(), claims: None, evidence_id };
        }
    };
    record.passed("bundle.format", "claims and evidence can be read");
    let cpu = match (&bundle.cpu, &bundle.endorsements) {
        (CpuEvidence::Tdx { quote }, Endorsements::Tdx { collateral }) => {
            let events = bundle.event_log.as_ref();
            let given = tdx::Given { quote, collateral: tdx::Intel::Json(collateral), events };
            tdx::run(&mut record, &given, policy, at, Signature::Checked, platforms.map(|known| &known.tdx))
                .map(Authentic::Tdx)
        }
        (CpuEvidence::Snp { report }, Endorsements::Snp(chain)) => {
            let endorsed = snp::Endorsed { vek: &chain.vek, ca: &chain.ca, crl: chain.crl.as_deref() };
            let known = platforms.map(|known| &known.snp);
            snp::run(&mut record, report, &endorsed, policy, at, Signature::Checked, known).map(Authentic::Snp)
        }
        _ => {
            let detail = "the bundle carries no endorsements for its CPU evidence: staple them first";
            record.put("bundle.endorsements", CheckOutcome::Invalid, detail);
            None
        }
    };
    // Nothing can be bound to evidence that is not authentic.
    if let Some(cpu) = cpu {
        binding::claims(&mut record, &cpu, &bundle);
        binding::gpu(&mut record, &claims, &bundle, policy, at, platforms.map(|known| &known.gpu));
        if matches!(cpu, Authentic::Snp(_)) && bundle.event_log.is_some() {
            let detail = "this platform has no runtime registers to replay a log into";
            record.genuine("snp.event-log", false, detail);
        }
        binding::references(&mut record, &cpu, &claims, bundle.event_log.as_ref(), references, policy);
        binding::freshness(&mut record, &claims, policy, at);
    }
    BundleAppraisal { appraisal: record.finish(), claims: Some(claims), evidence_id }
}
