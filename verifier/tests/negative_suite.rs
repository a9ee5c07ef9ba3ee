//! Every numbered case gives its outcome, by its check and no other.

mod suite;

use std::collections::BTreeSet;

use cocoon_attestation::dev::DevPlatform;
use cocoon_verifier::{Appraisal, GpuEvidence, GpuReferences, Policy, appraise_gpus, appraise_snp, appraise_tdx};
use suite::{AT, Case, Files, cases};

fn appraise(case: &Case, policy: &Policy) -> Appraisal {
    match &case.files {
        Files::Tdx { quote, collateral } => appraise_tdx(quote, collateral, policy, AT),
        Files::Snp { report, vek, ca, crl } => appraise_snp(report, vek, ca, crl.as_deref(), policy, AT),
        Files::Gpu { report, chain, rims, ocsp } => {
            let references = GpuReferences::new(rims.clone(), ocsp.clone());
            appraise_gpus(&[GpuEvidence { report, chain }], &references, None, policy, AT)
        }
    }
}

#[test]
fn every_case_is_refused_by_its_check_alone() {
    let platform = DevPlatform::from_seed([7; 32]);
    let roots = vec![platform.tdx_root_der(), platform.snp_ark_der(), platform.gpu_root_der()];
    let policy = Policy { roots, ..Policy::default() };
    let (cases, mut wrong) = (cases(), Vec::new());
    for case in &cases {
        let result = appraise(case, &policy);
        let failed: Vec<_> =
            result.checks.iter().filter(|check| check.outcome.is_failure()).map(|check| &check.id).collect();
        if result.outcome.to_string() != case.expect || failed != [case.check] {
            wrong.push(format!(
                "{} ({}): {} by {failed:?}, not {} by {}",
                case.id, case.what, result.outcome, case.expect, case.check
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ids: BTreeSet<_> = cases.iter().map(|case| &case.id).collect();
    assert_eq!(ids.len(), cases.len());
    assert!(cases.len() >= 200, "{} cases", cases.len());
}
