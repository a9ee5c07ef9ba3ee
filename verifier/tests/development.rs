//! Bundles of the development platform are accepted under a policy that names its roots, say so, and never otherwise.

mod common;

use cocoon_attestation::Bundle;
use cocoon_attestation::dev::DevPlatform;
use cocoon_verifier::{Outcome, Policy, appraise_bundle};
use common::{AT, accepted, claims, platform, policy, references, snp_bundle, tdx_bundle};

fn bundles() -> [Bundle; 2] {
    [tdx_bundle(&claims()), snp_bundle(&claims())]
}

#[test]
fn good_bundles_are_accepted_and_marked() {
    for bundle in bundles() {
        let result = appraise_bundle(&bundle.to_cbor(), &policy(), Some(&references()), AT);
        accepted(&result.appraisal);
        assert!(result.appraisal.development);
        assert_eq!(result.claims, Some(claims()));
        assert_eq!(result.evidence_id, Some(bundle.evidence_id()));
        for id in ["binding.report-data", "reference.measurement", "reference.model-root"] {
            assert!(result.appraisal.check(id).is_some(), "{id} was not checked");
        }
    }
}

#[test]
fn one_named_root_is_enough_for_its_own_kind() {
    let roots = [platform().tdx_root_der(), platform().snp_ark_der()];
    for (bundle, root) in bundles().into_iter().zip(roots) {
        let policy = Policy { roots: vec![root], ..Policy::default() };
        accepted(&appraise_bundle(&bundle.to_cbor(), &policy, None, AT).appraisal);
    }
}

#[test]
fn nobody_accepts_them_who_did_not_name_the_root() {
    for bundle in bundles() {
        let result = appraise_bundle(&bundle.to_cbor(), &Policy::default(), Some(&references()), AT).appraisal;
        assert_eq!(result.outcome, Outcome::Invalid);
        assert!(!result.development);
        assert!(result.measurements.is_empty(), "values of evidence that is not authentic");
    }
}

#[test]
fn another_platforms_root_does_not_do() {
    // AMD's keys are the same on every development platform, so this is about Intel's part.
    let policy = Policy { roots: vec![DevPlatform::from_seed([8; 32]).tdx_root_der()], ..Policy::default() };
    let result = appraise_bundle(&tdx_bundle(&claims()).to_cbor(), &policy, None, AT).appraisal;
    assert_eq!(result.outcome, Outcome::Invalid, "{}", result.reason);
}

#[test]
fn the_same_inputs_give_the_same_result() {
    for bundle in bundles() {
        let bytes = bundle.to_cbor();
        let first = appraise_bundle(&bytes, &policy(), Some(&references()), AT).appraisal;
        assert_eq!(first, appraise_bundle(&bytes, &policy(), Some(&references()), AT).appraisal);
    }
}
