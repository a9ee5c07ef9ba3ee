//! Bundles of the development platform: good by default, and every part alterable alone.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::sync::LazyLock;

use cocoon_attestation::binding::report_data;
use cocoon_attestation::dev::{CollateralSpec, DevPlatform, SnpEndorsementSpec, SnpSpec, TdxSpec};
use cocoon_attestation::reference::{ImageReference, ModelReference, SnpReference, TdxReference};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, EnclaveKey, Endorsements, Measurement, ProviderAddress,
    ReferenceValues, UnixTime,
};
use cocoon_verifier::{Appraisal, Outcome, Policy};

/// When everything here is appraised.
pub const AT: UnixTime = UnixTime(1_790_000_000);

pub fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

/// The strict policy, with the roots of the development platform named.
pub fn policy() -> Policy {
    // RSA signatures take their time.
    static POLICY: LazyLock<Policy> = LazyLock::new(|| {
        let roots = vec![platform().tdx_root_der(), platform().snp_ark_der(), platform().gpu_root_der()];
        Policy { roots, ..Policy::default() }
    });
    POLICY.clone()
}

pub fn claims() -> Claims {
    Claims {
        enclave_key: EnclaveKey([1; 32]),
        provider: ProviderAddress([2; 33]),
        model_name: "demo".into(),
        model_root: Digest([3; 32]),
        config_digest: Digest([4; 32]),
        beacon: Beacon { seqno: 1, root_hash: Digest([5; 32]), time: UnixTime(AT.0 - 60) },
        nonce_root: Digest([0; 32]),
        gpu_digest: None,
    }
}

/// Good collateral, issued an hour ago and due again tomorrow.
pub fn collateral() -> CollateralSpec {
    CollateralSpec::issued(UnixTime(AT.0 - 3600), AT.plus(86_400))
}

/// A TDX bundle whose quote carries the binding of `claims`.
pub fn tdx_bundle(claims: &Claims) -> Bundle {
    let claims = claims.to_cbor();
    let mut spec = TdxSpec::default();
    spec.body.report_data = report_data(&claims);
    Bundle {
        claims,
        cpu: CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) },
        gpu: Vec::new(),
        event_log: None,
        endorsements: Endorsements::Tdx { collateral: platform().tdx_collateral(&collateral()) },
        gpu_endorsements: Default::default(),
    }
}

/// An SNP bundle whose report carries the binding of `claims`.
pub fn snp_bundle(claims: &Claims) -> Bundle {
    let claims = claims.to_cbor();
    let spec = SnpSpec { report_data: report_data(&claims), ..SnpSpec::default() };
    Bundle {
        claims,
        cpu: CpuEvidence::Snp { report: platform().snp_report(&spec) },
        gpu: Vec::new(),
        event_log: None,
        endorsements: Endorsements::Snp(platform().snp_endorsements(&SnpEndorsementSpec::default())),
        gpu_endorsements: Default::default(),
    }
}

/// Reference values that describe both default guests and the model of [`claims`].
pub fn references() -> ReferenceValues {
    let image = ImageReference { name: "enclave".into(), version: "1".into(), digest: Digest([9; 32]) };
    let mut values = ReferenceValues::new(image);
    let mrtd = Measurement(TdxSpec::default().body.mr_td);
    values.tdx.push(TdxReference::of_mrtd(mrtd));
    values.snp.push(SnpReference { measurement: Measurement(SnpSpec::default().measurement) });
    values.models.push(ModelReference { name: "demo".into(), root: claims().model_root });
    values
}

/// Asserts that exactly one check failed, this one, and that it alone decided the outcome.
#[track_caller]
pub fn only(result: &Appraisal, id: &str, outcome: Outcome) {
    let failed: Vec<_> =
        result.checks.iter().filter(|check| check.outcome.is_failure()).map(|check| &*check.id).collect();
    assert_eq!((failed.as_slice(), result.outcome), ([id].as_slice(), outcome), "{}", result.reason);
    assert!(result.reason.starts_with(&format!("{id}: ")), "{}", result.reason);
}

/// Asserts that evidence was accepted.
#[track_caller]
pub fn accepted(result: &Appraisal) {
    assert_eq!(result.outcome, Outcome::Accepted, "{}", result.reason);
}

/// Whether something is listed as unchecked.
pub fn unchecked(result: &Appraisal, id: &str) -> bool {
    result.unchecked.iter().any(|item| item.id == id)
}
