//! Good evidence, of which each target alters one part. Nothing but the unaltered part may be accepted.
#![allow(dead_code)]

use std::sync::LazyLock;

use cocoon_attestation::binding::report_data;
use cocoon_attestation::dev::{
    CollateralSpec, DevPlatform, GpuChainSpec, GpuSpec, OcspSpec, OcspSubject, RimSpec, SnpEndorsementSpec, SnpSpec, TdxSpec,
};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, EnclaveKey, Endorsements, GpuEndorsements, ProviderAddress, UnixTime,
};
use cocoon_verifier::{Policy, appraise_bundle, appraise_gpu, appraise_rim, appraise_snp, appraise_tdx};

const AT: UnixTime = UnixTime(1_790_000_000);

pub struct World {
    policy: Policy,
    pub quote: Vec<u8>,
    pub collateral: Vec<u8>,
    pub report: Vec<u8>,
    pub chain: cocoon_attestation::SnpEndorsements,
    pub gpu_report: Vec<u8>,
    pub gpu_chain: Vec<u8>,
    pub ocsp: Vec<u8>,
    pub rims: Vec<Vec<u8>>,
    pub bundle: Vec<u8>,
}

pub static WORLD: LazyLock<World> = LazyLock::new(|| {
    let platform = DevPlatform::from_seed([7; 32]);
    let roots = vec![platform.tdx_root_der(), platform.snp_ark_der(), platform.gpu_root_der()];
    let claims = Claims {
        enclave_key: EnclaveKey([1; 32]),
        provider: ProviderAddress([2; 33]),
        model_name: "demo".into(),
        model_root: Digest([3; 32]),
        config_digest: Digest([4; 32]),
        beacon: Beacon { seqno: 1, root_hash: Digest([5; 32]), time: AT },
        nonce_root: Digest([0; 32]),
        gpu_digest: None,
    };
    let mut spec = TdxSpec::default();
    spec.body.report_data = report_data(&claims.to_cbor());
    let bundle = Bundle {
        claims: claims.to_cbor(),
        cpu: CpuEvidence::Tdx { quote: platform.tdx_quote(&spec) },
        gpu: Vec::new(),
        event_log: None,
        endorsements: Endorsements::Tdx { collateral: platform.tdx_collateral(&CollateralSpec::default()) },
        gpu_endorsements: GpuEndorsements::default(),
    };
    World {
        bundle: bundle.to_cbor(),
        policy: Policy { roots, ..Policy::default() },
        quote: platform.tdx_quote(&TdxSpec::default()),
        collateral: platform.tdx_collateral(&CollateralSpec::default()),
        report: platform.snp_report(&SnpSpec::default()),
        chain: platform.snp_endorsements(&SnpEndorsementSpec::default()),
        gpu_report: platform.gpu_report(&GpuSpec::default()),
        gpu_chain: platform.gpu_chain(&GpuChainSpec::default()),
        ocsp: platform.gpu_ocsp(&OcspSpec::new(OcspSubject::RimSigner)),
        rims: vec![platform.gpu_manifest(&RimSpec::driver()), platform.gpu_manifest(&RimSpec::vbios())],
    }
});

impl World {
    pub fn tdx(&self, quote: &[u8], collateral: &[u8]) {
        appraise_tdx(quote, collateral, &self.policy, AT);
    }

    pub fn snp(&self, report: &[u8], vek: &[u8]) {
        appraise_snp(report, vek, &self.chain.ca, self.chain.crl.as_deref(), &self.policy, AT);
    }

    pub fn gpu(&self, report: &[u8], chain: &[u8]) {
        appraise_gpu(report, chain, &self.rims, None, &self.policy, AT);
    }

    pub fn rim(&self, manifest: &[u8]) {
        appraise_rim(manifest, &[], &self.policy, AT);
    }

    pub fn ocsp(&self, response: &[u8]) {
        appraise_rim(&self.rims[0], &[response.to_vec()], &self.policy, AT);
    }

    pub fn bundle(&self, bundle: &[u8]) {
        appraise_bundle(bundle, &self.policy, None, AT);
    }
}
