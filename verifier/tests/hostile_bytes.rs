//! Whatever the bytes, there is a result and no panic, and nothing that is signed can be altered unnoticed.

mod common;

use cocoon_attestation::dev::{SnpEndorsementSpec, SnpSpec, TdxSpec};
use cocoon_verifier::{Appraisal, Outcome, appraise_bundle, appraise_snp, appraise_tdx};
use common::{AT, claims, collateral, platform, policy, snp_bundle, tdx_bundle};

/// Flips one bit of every `step`th byte, and cuts there.
fn altered(
    good: &[u8],
    step: usize,
    mut appraise: impl FnMut(&[u8]) -> Appraisal,
    mut seen: impl FnMut(usize, Appraisal),
) {
    for at in (0..good.len()).step_by(step) {
        let mut flipped = good.to_vec();
        flipped[at] ^= 1 << (at % 8);
        seen(at, appraise(&flipped));
        let cut = appraise(&good[..at]);
        assert_ne!(cut.outcome, Outcome::Accepted, "cut at {at}");
    }
}

fn not_authentic(at: usize, result: Appraisal) {
    assert!(matches!(result.outcome, Outcome::Invalid | Outcome::Malformed), "byte {at}: {}", result.reason);
}

#[test]
fn tdx_quotes() {
    let quote = platform().tdx_quote(&TdxSpec::default());
    let collateral = platform().tdx_collateral(&collateral());
    // Header, body and their signature; PEM further on has bytes that do not count.
    let signed = 48 + 584 + 4 + 128;
    altered(
        &quote,
        3,
        |quote| appraise_tdx(quote, &collateral, &policy(), AT),
        |at, result| {
            if at < signed {
                not_authentic(at, result);
            }
        },
    );
}

#[test]
fn tdx_collateral() {
    let quote = platform().tdx_quote(&TdxSpec::default());
    let collateral = platform().tdx_collateral(&collateral());
    altered(&collateral, 7, |collateral| appraise_tdx(&quote, collateral, &policy(), AT), |_, _| {});
}

#[test]
fn snp_reports() {
    let report = platform().snp_report(&SnpSpec::default());
    let chain = platform().snp_endorsements(&SnpEndorsementSpec::default());
    let crl = chain.crl.as_deref();
    altered(&report, 1, |report| appraise_snp(report, &chain.vek, &chain.ca, crl, &policy(), AT), not_authentic);
}

#[test]
fn snp_endorsements() {
    let report = platform().snp_report(&SnpSpec::default());
    let chain = platform().snp_endorsements(&SnpEndorsementSpec::default());
    let crl = chain.crl.as_deref();
    altered(&chain.vek, 3, |vek| appraise_snp(&report, vek, &chain.ca, crl, &policy(), AT), not_authentic);
    let ask = |ask: &[u8]| appraise_snp(&report, &chain.vek, &[ask.to_vec(), chain.ca[1].clone()], crl, &policy(), AT);
    altered(&chain.ca[0], 3, ask, not_authentic);
    let list = chain.crl.clone().expect("a revocation list");
    altered(&list, 3, |crl| appraise_snp(&report, &chain.vek, &chain.ca, Some(crl), &policy(), AT), not_authentic);
}

#[test]
fn bundles() {
    for bundle in [tdx_bundle(&claims()), snp_bundle(&claims())] {
        let appraise = |bytes: &[u8]| appraise_bundle(bytes, &policy(), None, AT).appraisal;
        altered(&bundle.to_cbor(), 13, appraise, |_, _| {});
    }
}
