//! What deserves that a vendor is asked about it: evidence whose signatures lead to a root, whatever else is wrong with it.

mod common;

use cocoon_attestation::binding::{gpu_digest, gpu_nonce, report_data};
use cocoon_attestation::dev::{
    CollateralSpec, GpuChainSpec, GpuSpec, PckSpec, SignedBy, SnpEndorsementSpec, SnpSpec, TdxSpec,
};
use cocoon_attestation::{Bundle, Claims, CpuEvidence, Digest, Endorsements, UnixTime};
use cocoon_verifier::{Outcome, Policy, appraise_bundle, is_signed};
use common::{AT, claims, platform, policy, snp_bundle, tdx_bundle};

fn signed(bundle: &Bundle) -> bool {
    is_signed(bundle, &policy(), AT)
}

/// The same claims, quoted as the specification says.
fn quoted(spec: TdxSpec) -> Bundle {
    let mut bundle = tdx_bundle(&claims());
    let mut spec = spec;
    spec.body.report_data = report_data(&bundle.claims);
    bundle.cpu = CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) };
    bundle
}

#[test]
fn what_lapses_or_is_missing_takes_nothing_from_a_signature() {
    let mut bundle = tdx_bundle(&claims());
    assert!(signed(&bundle) && signed(&snp_bundle(&claims())));
    let lapsed = CollateralSpec::issued(UnixTime(AT.0 - 90 * 86_400), UnixTime(AT.0 - 60 * 86_400));
    for endorsements in [
        Endorsements::None,
        Endorsements::Tdx { collateral: platform().tdx_collateral(&lapsed) },
        Endorsements::Tdx { collateral: b"{}".to_vec() },
    ] {
        bundle.endorsements = endorsements;
        assert!(appraise_bundle(&bundle.to_cbor(), &policy(), None, AT).appraisal.outcome >= Outcome::Invalid);
        assert!(signed(&bundle));
    }
    let mut bundle = snp_bundle(&claims());
    let Endorsements::Snp(given) = &mut bundle.endorsements else { panic!("certificates") };
    given.crl = Some(b"no list".to_vec());
    assert!(signed(&bundle));
}

#[test]
fn what_nobody_signed_is_asked_about_by_nobody() {
    let mut foreign = Claims { nonce_root: Digest([1; 32]), ..claims() }.to_cbor();
    for good in [tdx_bundle(&claims()), snp_bundle(&claims())] {
        assert!(!is_signed(&good, &Policy::default(), AT), "a root that nobody named");
        assert!(!is_signed(&good, &policy(), UnixTime(0)), "certificates that are not current");
        let mut bundle = good.clone();
        std::mem::swap(&mut bundle.claims, &mut foreign);
        assert!(!signed(&bundle), "other claims");
        std::mem::swap(&mut bundle.claims, &mut foreign);
        match &mut bundle.cpu {
            CpuEvidence::Tdx { quote } => quote[200] ^= 1,
            CpuEvidence::Snp { report } => report[0x90] ^= 1,
        }
        assert!(!signed(&bundle), "an altered byte");
    }
    // A platform's name that somebody made up: the certificate is not Intel's.
    let mut pck = PckSpec { fmspc: [9; 6], ..PckSpec::default() };
    pck.certificate.signed_by = SignedBy::Another;
    assert!(!signed(&quoted(TdxSpec { pck, ..TdxSpec::default() })));
    let mut ca = TdxSpec::default();
    ca.pck_ca.signed_by = SignedBy::Another;
    assert!(!signed(&quoted(ca)));
    assert!(!signed(&quoted(TdxSpec { qe_signed_by: SignedBy::Another, ..TdxSpec::default() })));
    assert!(!signed(&quoted(TdxSpec { quote_signed_by: SignedBy::Another, ..TdxSpec::default() })));
    assert!(signed(&quoted(TdxSpec::default())));
}

#[test]
fn a_report_without_the_certificate_of_its_key_names_no_chip() {
    let good = snp_bundle(&claims());
    let mut bundle = good.clone();
    bundle.endorsements = Endorsements::None;
    assert!(!signed(&bundle));
    let Endorsements::Snp(mut given) = good.endorsements.clone() else { panic!("certificates") };
    given.vek = Vec::new();
    bundle.endorsements = Endorsements::Snp(given);
    assert!(!signed(&bundle));
    // Another chip's.
    let mut bundle = good;
    let mut spec = SnpSpec { report_data: report_data(&bundle.claims), ..SnpSpec::default() };
    spec.chip_id[0] ^= 1;
    bundle.cpu = CpuEvidence::Snp { report: platform().snp_report(&spec) };
    bundle.endorsements = Endorsements::Snp(platform().snp_endorsements(&SnpEndorsementSpec::default()));
    assert!(!signed(&bundle));
}

#[test]
fn gpus_are_as_their_keys_signed_and_as_the_claims_name_them() {
    let mut named = claims();
    let nonce = gpu_nonce(&named);
    let report = platform().gpu_report(&GpuSpec { nonce, ..GpuSpec::default() });
    let chain = platform().gpu_chain(&GpuChainSpec::default());
    let with = |claims: &Claims, report: &[u8], chains: Vec<Vec<u8>>| {
        let mut bundle = tdx_bundle(claims);
        (bundle.gpu, bundle.gpu_endorsements.chains) = (vec![report.to_vec()], chains);
        bundle
    };
    named.gpu_digest = gpu_digest(std::slice::from_ref(&report));
    assert!(signed(&with(&named, &report, vec![chain.clone()])));
    assert!(!signed(&with(&named, &report, Vec::new())), "no chain");
    assert!(!signed(&with(&claims(), &report, vec![chain.clone()])), "claims that name no GPU");
    // Bound by the CPU, and signed by no GPU: whoever has a TEE can have that.
    let mut forged = report.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    named.gpu_digest = gpu_digest(std::slice::from_ref(&forged));
    assert!(!signed(&with(&named, &forged, vec![chain])));
}
