//! A bundle as an enclave and its host would give it, from the development platform: **not confidential**.

use cocoon_attestation::binding::report_data;
use cocoon_attestation::dev::{CollateralSpec, DevPlatform, TdxSpec};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, EnclaveKey, Endorsements, GpuEndorsements, ProviderAddress, UnixTime,
};
use cocoon_verifier::Policy;

/// When it all happens.
pub const AT: UnixTime = UnixTime(1_790_000_000);

/// The n-th enclave's bundle, and a policy that takes the development platform.
pub fn bundle(n: u8) -> (Vec<u8>, Policy) {
    let platform = DevPlatform::from_seed([7; 32]);
    let claims = Claims {
        enclave_key: EnclaveKey([n; 32]),
        provider: ProviderAddress([2; 33]),
        model_name: "example".into(),
        model_root: Digest([3; 32]),
        config_digest: Digest([4; 32]),
        beacon: Beacon { seqno: 1, root_hash: Digest([5; 32]), time: UnixTime(AT.0 - 60) },
        nonce_root: Digest([0; 32]),
        gpu_digest: None,
    }
    .to_cbor();
    let mut spec = TdxSpec::default();
    spec.body.report_data = report_data(&claims);
    let bundle = Bundle {
        claims,
        cpu: CpuEvidence::Tdx { quote: platform.tdx_quote(&spec) },
        gpu: Vec::new(),
        event_log: None,
        endorsements: Endorsements::Tdx { collateral: platform.tdx_collateral(&CollateralSpec::default()) },
        gpu_endorsements: GpuEndorsements::default(),
    };
    (bundle.to_cbor(), Policy { roots: vec![platform.tdx_root_der()], ..Policy::default() })
}
