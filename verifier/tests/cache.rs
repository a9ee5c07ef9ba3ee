//! What a verifier remembers changes how long a result takes, and nothing else: no entry is hit for other bytes, other roots or
//! another time.

mod common;

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{
    CertSpec, CollateralSpec, CrlSpec, DevPlatform, GpuChainSpec, GpuSpec, OcspSpec, OcspSubject, RimSpec, SignedBy,
    SnpEndorsementSpec, SnpSpec, TdxSpec, serial,
};
use cocoon_verifier::{
    Appraisal, Collateral, GpuEvidence, GpuReferences, Outcome, Policy, Verifier, appraise_gpus, appraise_snp,
    appraise_tdx,
};
use common::{AT, accepted, collateral, platform, policy};

/// The same with and without memory, twice, so that the second time can be a hit.
fn same(what: &str, remembered: impl Fn() -> Appraisal, fresh: Appraisal) -> Appraisal {
    for _ in 0..2 {
        assert_eq!(remembered(), fresh, "{what}");
    }
    fresh
}

fn tdx(verifier: &Verifier, what: &str, quote: &[u8], json: &[u8], policy: &Policy, at: UnixTime) -> Appraisal {
    let read = Collateral::from_json(json).expect("collateral");
    same(what, || verifier.tdx(quote, &read, None, policy, at), appraise_tdx(quote, json, policy, at))
}

#[test]
fn tdx_platforms() {
    let verifier = Verifier::default();
    let (good, spec) = (platform().tdx_quote(&TdxSpec::default()), collateral());
    let json = platform().tdx_collateral(&spec);
    accepted(&tdx(&verifier, "good", &good, &json, &policy(), AT));
    // Another quote of the same platform, good or bad in itself.
    let mut debug = TdxSpec::default();
    debug.body.td_attributes[0] = 1;
    let result = tdx(&verifier, "debug", &platform().tdx_quote(&debug), &json, &policy(), AT);
    assert_eq!(result.outcome, Outcome::Refused);
    let forged = TdxSpec { quote_signed_by: SignedBy::Another, ..TdxSpec::default() };
    let result = tdx(&verifier, "forged", &platform().tdx_quote(&forged), &json, &policy(), AT);
    assert_eq!(result.outcome, Outcome::Invalid);
    // Every byte of what is remembered.
    for at in 636..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        if at % 5 == 0 {
            tdx(&verifier, &format!("byte {at}"), &bad, &json, &policy(), AT);
        }
    }
    // Other collateral: revoked since, of another status, or issued later.
    let mut revoked = spec.clone();
    revoked.pck_crl.revoked = vec![serial::PCK];
    let revoked = platform().tdx_collateral(&revoked);
    assert_eq!(tdx(&verifier, "revoked", &good, &revoked, &policy(), AT).outcome, Outcome::Invalid);
    let mut stale = spec.clone();
    stale.tcb_info.tcb_levels[0].tcb_status = "OutOfDate".into();
    let stale = platform().tdx_collateral(&stale);
    assert_eq!(tdx(&verifier, "out of date", &good, &stale, &policy(), AT).outcome, Outcome::Refused);
    // Another root, or none.
    assert_eq!(tdx(&verifier, "no root", &good, &json, &Policy::default(), AT).outcome, Outcome::Invalid);
    let other = Policy { roots: vec![DevPlatform::from_seed([8; 32]).tdx_root_der()], ..Policy::default() };
    assert_eq!(tdx(&verifier, "another root", &good, &json, &other, AT).outcome, Outcome::Invalid);
    // Before and after all of it is current, and at the edges.
    let (from, to) = (spec.tcb_info.issue_date, spec.tcb_info.next_update);
    for (at, expected) in [
        (from.0 - 1, Outcome::Invalid),
        (from.0, Outcome::Accepted),
        (to.0 - 1, Outcome::Accepted),
        (to.0 + 1, Outcome::Invalid),
        (AT.0, Outcome::Accepted),
    ] {
        assert_eq!(tdx(&verifier, &format!("at {at}"), &good, &json, &policy(), UnixTime(at)).outcome, expected);
    }
}

#[test]
fn snp_chips() {
    let verifier = Verifier::default();
    let good = platform().snp_report(&SnpSpec::default());
    let snp = |what: &str, report: &[u8], spec: &SnpEndorsementSpec, policy: &Policy, at: UnixTime| {
        let chain = platform().snp_endorsements(spec);
        let (vek, ca, crl) = (&chain.vek, &chain.ca, chain.crl.as_deref());
        same(what, || verifier.snp(report, vek, ca, crl, policy, at), appraise_snp(report, vek, ca, crl, policy, at))
            .outcome
    };
    let spec =
        SnpEndorsementSpec { crl: Some(CrlSpec::new(UnixTime(AT.0 - 10), UnixTime(AT.0 + 10))), ..Default::default() };
    assert_eq!(snp("good", &good, &spec, &policy(), AT), Outcome::Accepted);
    assert_eq!(
        snp("no list", &good, &SnpEndorsementSpec { crl: None, ..spec.clone() }, &policy(), AT),
        Outcome::Accepted
    );
    let mut demanding = policy();
    demanding.snp.require_crl = true;
    assert_eq!(
        snp("list demanded", &good, &SnpEndorsementSpec { crl: None, ..spec.clone() }, &demanding, AT),
        Outcome::Refused
    );
    let revoked = CrlSpec { revoked: vec![serial::ASK], ..spec.crl.clone().expect("a list") };
    assert_eq!(
        snp("revoked", &good, &SnpEndorsementSpec { crl: Some(revoked), ..spec.clone() }, &policy(), AT),
        Outcome::Invalid
    );
    let expired = CertSpec { not_after: UnixTime(AT.0 - 1), ..CertSpec::new(serial::VCEK) };
    assert_eq!(
        snp("expired", &good, &SnpEndorsementSpec { vcek: expired, ..spec.clone() }, &policy(), AT),
        Outcome::Invalid
    );
    assert_eq!(snp("no root", &good, &spec, &Policy::default(), AT), Outcome::Invalid);
    assert_eq!(snp("later", &good, &spec, &policy(), UnixTime(AT.0 + 11)), Outcome::Invalid);
    assert_eq!(snp("earlier", &good, &spec, &policy(), UnixTime(AT.0 - 11)), Outcome::Invalid);
    let forged = platform().snp_report(&SnpSpec { signed_by: SignedBy::Another, ..SnpSpec::default() });
    assert_eq!(snp("forged", &forged, &spec, &policy(), AT), Outcome::Invalid);
    let other = SnpEndorsementSpec { hwid: vec![9; 64], ..spec.clone() };
    assert_eq!(snp("another chip", &good, &other, &policy(), AT), Outcome::Invalid);
    assert_eq!(snp("good again", &good, &spec, &policy(), AT), Outcome::Accepted);
}

#[test]
fn gpu_chains_and_manifests() {
    let verifier = Verifier::default();
    let lapse = Some(UnixTime(AT.0 + 10));
    let gpu = |what: &str, report: &GpuSpec, chain: &GpuChainSpec, rim: &RimSpec, policy: &Policy, at: UnixTime| {
        let (report, chain) = (platform().gpu_report(report), platform().gpu_chain(chain));
        let rims = vec![platform().gpu_manifest(rim), platform().gpu_manifest(&RimSpec::vbios())];
        let ocsp = OcspSubject::ASKED
            .map(|subject| platform().gpu_ocsp(&OcspSpec { next_update: lapse, ..OcspSpec::new(subject) }));
        let gpus = [GpuEvidence { report: &report, chain: &chain }];
        let read = GpuReferences::new(rims, ocsp.to_vec());
        same(what, || verifier.gpus(&gpus, &read, None, policy, at), appraise_gpus(&gpus, &read, None, policy, at))
            .outcome
    };
    let (report, chain, rim) = (GpuSpec::default(), GpuChainSpec::default(), RimSpec::driver());
    assert_eq!(gpu("good", &report, &chain, &rim, &policy(), AT), Outcome::Accepted);
    assert_eq!(gpu("no root", &report, &chain, &rim, &Policy::default(), AT), Outcome::Invalid);
    let forged = GpuSpec { signed_by: SignedBy::Another, ..report.clone() };
    assert_eq!(gpu("forged", &forged, &chain, &rim, &policy(), AT), Outcome::Invalid);
    let unsigned = RimSpec { signed_by: SignedBy::Another, ..rim.clone() };
    assert_eq!(gpu("forged manifest", &report, &chain, &unsigned, &policy(), AT), Outcome::Invalid);
    let short = RimSpec { leaf: CertSpec { not_after: AT, ..CertSpec::new(20) }, ..rim.clone() };
    assert_eq!(gpu("manifest of today", &report, &chain, &short, &policy(), AT), Outcome::Accepted);
    assert_eq!(gpu("manifest of yesterday", &report, &chain, &short, &policy(), UnixTime(AT.0 + 1)), Outcome::Invalid);
    let mut golden = rim.clone();
    golden.golden.insert(1, vec![[9; 48]]);
    assert_eq!(gpu("other golden values", &report, &chain, &golden, &policy(), AT), Outcome::Refused);
    let switch = GpuChainSpec { architecture: "LS10".into(), ..chain.clone() };
    assert_eq!(gpu("a switch", &report, &switch, &rim, &policy(), AT), Outcome::Invalid);
    // An answer of NVIDIA's service lasts no longer than the certificate of who signed it.
    let brief = |at: UnixTime| {
        let ocsp = OcspSubject::ASKED.map(|subject| {
            let certificate = CertSpec { not_after: UnixTime(AT.0 + 5), ..CertSpec::new(30) };
            platform().gpu_ocsp(&OcspSpec { certificate, ..OcspSpec::new(subject) })
        });
        let (report, chain) = (platform().gpu_report(&report), platform().gpu_chain(&chain));
        let gpus = [GpuEvidence { report: &report, chain: &chain }];
        let read = GpuReferences::new(Vec::new(), ocsp.to_vec());
        let result = same(
            "a brief delegate",
            || verifier.gpus(&gpus, &read, None, &policy(), at),
            appraise_gpus(&gpus, &read, None, &policy(), at),
        );
        (result.outcome, result.not_after)
    };
    assert_eq!(brief(AT), (Outcome::Accepted, Some(UnixTime(AT.0 + 5))));
    assert_eq!(brief(UnixTime(AT.0 + 6)).0, Outcome::Invalid);
    assert_eq!(gpu("good again", &report, &chain, &rim, &policy(), AT), Outcome::Accepted);
}

/// A stranger who sends platform after platform pushes others out, and that is all.
#[test]
fn a_small_memory_forgets_and_stays_right() {
    let verifier = Verifier::with_capacity(2);
    let json = platform().tdx_collateral(&CollateralSpec::default());
    let read = Collateral::from_json(&json).expect("collateral");
    for round in 0..3 {
        for n in 0..6 {
            let mut spec = TdxSpec::default();
            spec.qe.isv_svn += n;
            let result = verifier.tdx(&platform().tdx_quote(&spec), &read, None, &policy(), AT);
            assert_eq!(result, appraise_tdx(&platform().tdx_quote(&spec), &json, &policy(), AT), "{round} {n}");
        }
    }
}
