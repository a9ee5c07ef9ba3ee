//! A bundle whose endorsements stand beside it comes to the very result of the bundle that carries them: good, altered in every way that the
//! negative suite knows, remembered or not.

mod common;
#[path = "suite/mod.rs"]
mod suite;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicUsize};

use cocoon_attestation::binding::{gpu_digest, report_data};
use cocoon_attestation::dev::{DevPlatform, OcspSpec, OcspSubject, RimSpec, SnpSpec, TdxSpec};
use cocoon_attestation::reference::{ImageReference, ModelReference, TdxReference};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, EnclaveKey, Endorsements, Event, EventLog, GpuEndorsements,
    Measurement, ProviderAddress, ReferenceValues, SnpEndorsements, UnixTime,
};
use cocoon_verifier::{Beside, Outcome, Policy, Verifier, appraise_bundle};
use common::{AT, collateral, platform, policy};
use suite::Files;

fn lookup(parts: &[(Digest, Vec<u8>)], digest: &Digest) -> Option<Vec<u8>> {
    parts.iter().find(|(name, _)| name == digest).map(|(_, bytes)| bytes.clone())
}

/// Both ways, twice, so that the second time can be a hit.
fn same(verifier: &Verifier, what: &str, bundle: &Bundle, policy: &Policy, at: UnixTime) -> Outcome {
    same_against(verifier, what, bundle, policy, None, at)
}

fn same_against(
    verifier: &Verifier,
    what: &str,
    bundle: &Bundle,
    policy: &Policy,
    references: Option<&ReferenceValues>,
    at: UnixTime,
) -> Outcome {
    let (detached, parts) = bundle.to_detached();
    let beside = Beside::new(|digest| lookup(&parts, digest));
    let expected = appraise_bundle(&bundle.to_cbor(), policy, references, at);
    for _ in 0..2 {
        let found = verifier.detached(&detached, &beside, policy, references, at);
        assert_eq!(found.appraisal, expected.appraisal, "{what}");
        assert_eq!((found.claims, found.evidence_id), (expected.claims.clone(), expected.evidence_id), "{what}");
    }
    expected.appraisal.outcome
}

fn claims(gpu: &[Vec<u8>]) -> Vec<u8> {
    let digest = Digest([3; 32]);
    let beacon = Beacon { seqno: 1, root_hash: digest, time: UnixTime(AT.0 - 60) };
    let claims = Claims {
        enclave_key: EnclaveKey([1; 32]),
        provider: ProviderAddress([0; 33]),
        model_name: "demo".into(),
        model_root: digest,
        config_digest: digest,
        beacon,
        nonce_root: digest,
        gpu_digest: gpu_digest(gpu),
    };
    claims.to_cbor()
}

fn good() -> Bundle {
    let claims = claims(&[]);
    let mut spec = TdxSpec::default();
    spec.body.report_data = report_data(&claims);
    Bundle {
        cpu: CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) },
        claims,
        gpu: Vec::new(),
        event_log: None,
        endorsements: Endorsements::Tdx { collateral: platform().tdx_collateral(&collateral()) },
        gpu_endorsements: GpuEndorsements::default(),
    }
}

/// Every case of the suite, as part of a bundle; those of GPUs under a good quote.
fn bundle(files: Files) -> Bundle {
    match files {
        Files::Tdx { quote, collateral } => {
            let (cpu, endorsements) = (CpuEvidence::Tdx { quote }, Endorsements::Tdx { collateral });
            Bundle { cpu, endorsements, ..good() }
        }
        Files::Snp { report, vek, ca, crl } => {
            let endorsements = Endorsements::Snp(SnpEndorsements { vek, ca, crl });
            Bundle { cpu: CpuEvidence::Snp { report }, endorsements, ..good() }
        }
        Files::Gpu { report, chain, rims, ocsp } => {
            let gpu = vec![report];
            let claims = claims(&gpu);
            let mut spec = TdxSpec::default();
            spec.body.report_data = report_data(&claims);
            let cpu = CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) };
            let gpu_endorsements = GpuEndorsements { chains: vec![chain], manifests: rims, ocsp };
            Bundle { claims, cpu, gpu, gpu_endorsements, ..good() }
        }
    }
}

#[test]
fn the_whole_negative_suite_comes_to_the_same_result_either_way() {
    let platform = DevPlatform::from_seed([7; 32]);
    let roots = vec![platform.tdx_root_der(), platform.snp_ark_der(), platform.gpu_root_der()];
    let policy = Policy { roots, ..Policy::default() };
    let verifier = Verifier::default();
    let mut outcomes = std::collections::BTreeMap::new();
    for case in suite::cases() {
        let mut one = bundle(case.files);
        // What bundles cannot hold is no case of theirs: too many parts, or one part twice.
        if Bundle::from_cbor(&one.to_cbor()).is_err() {
            one.gpu_endorsements.ocsp.dedup();
        }
        *outcomes.entry(same(&verifier, &case.id, &one, &policy, suite::AT)).or_insert(0) += 1;
    }
    // None of the suite's own quotes and reports is bound to these claims.
    assert!(outcomes[&Outcome::Malformed] > 10 && outcomes[&Outcome::Invalid] > 150, "{outcomes:?}");
}

#[test]
fn other_policies_times_logs_and_lacks_come_to_the_same_result_too() {
    let verifier = Verifier::default();
    let check = |what: &str, bundle: &Bundle, policy: &Policy, at: UnixTime| same(&verifier, what, bundle, policy, at);
    assert_eq!(check("good", &good(), &policy(), AT), Outcome::Accepted);
    let mut debug = TdxSpec::default();
    debug.body.report_data = report_data(&good().claims);
    debug.body.td_attributes = (1u64 << 28 | 1).to_le_bytes();
    let cpu = CpuEvidence::Tdx { quote: platform().tdx_quote(&debug) };
    assert_eq!(check("debug", &Bundle { cpu, ..good() }, &policy(), AT), Outcome::Refused);
    assert_eq!(check("no root", &good(), &Policy::default(), AT), Outcome::Invalid);
    assert_eq!(check("much later", &good(), &policy(), AT.plus(400 * 86_400)), Outcome::Invalid);
    assert_eq!(
        check("nothing stapled", &Bundle { endorsements: Endorsements::None, ..good() }, &policy(), AT),
        Outcome::Invalid
    );
    let chain = platform().snp_endorsements(&Default::default());
    let snp = Bundle { endorsements: Endorsements::Snp(chain), ..good() };
    assert_eq!(check("another CPU's", &snp, &policy(), AT), Outcome::Invalid);
    let json = Endorsements::Tdx { collateral: b"{}".to_vec() };
    assert_eq!(check("no collateral", &Bundle { endorsements: json, ..good() }, &policy(), AT), Outcome::Malformed);
    assert_eq!(check("no claims", &Bundle { claims: vec![0xa0], ..good() }, &policy(), AT), Outcome::Malformed);
    let event = Event { register: 3, kind: "x".into(), digest: [8; 48], data: vec![1] };
    let events = Bundle { event_log: Some(EventLog(vec![event])), ..good() };
    assert_eq!(check("events of another guest", &events, &policy(), AT), Outcome::Invalid);
    let report = platform().snp_report(&SnpSpec::default());
    let bare = Bundle { cpu: CpuEvidence::Snp { report }, endorsements: Endorsements::None, ..good() };
    assert_eq!(check("SNP without anything", &bare, &policy(), AT), Outcome::Invalid);
    assert_eq!(check("endorsements of no GPU", &with_manifests(Vec::new()), &policy(), AT), Outcome::Accepted);
}

/// A good bundle that has manifests and OCSP responses besides, and more bytes.
fn with_manifests(more: Vec<Vec<u8>>) -> Bundle {
    let mut manifests = [RimSpec::driver(), RimSpec::vbios()].map(|spec| platform().gpu_manifest(&spec)).to_vec();
    manifests.extend(more);
    let ocsp = OcspSubject::ASKED.map(|subject| platform().gpu_ocsp(&OcspSpec::new(subject))).to_vec();
    Bundle { gpu_endorsements: GpuEndorsements { chains: Vec::new(), manifests, ocsp }, ..good() }
}

#[test]
fn what_is_remembered_counts_at_its_own_time_and_against_its_own_references() {
    let verifier = Verifier::default();
    let image = ImageReference { name: "guest".into(), version: "1".into(), digest: Digest([5; 32]) };
    let mut right = ReferenceValues::new(image.clone());
    right.tdx.push(TdxReference::of_mrtd(Measurement(TdxSpec::default().body.mr_td)));
    right.models.push(ModelReference { name: "demo".into(), root: Digest([3; 32]) });
    let wrong = ReferenceValues::new(image);
    let much_later = AT.plus(400 * 86_400);
    for (what, references, at, outcome) in [
        ("good", &right, AT, Outcome::Accepted),
        ("too late", &right, much_later, Outcome::Invalid),
        ("good again", &right, AT, Outcome::Accepted),
        ("of no known guest", &wrong, AT, Outcome::Refused),
        ("good once more", &right, AT, Outcome::Accepted),
    ] {
        assert_eq!(same_against(&verifier, what, &good(), &policy(), Some(references), at), outcome, "{what}");
    }
}

#[test]
fn what_is_too_long_for_a_bundle_is_too_long_beside_one() {
    let verifier = Verifier::default();
    // A part alone that is longer than a whole bundle may be, and several that are so together; below it, nothing is amiss.
    for (parts, each, outcome) in
        [(1, 1 << 20, Outcome::Malformed), (9, 120_000, Outcome::Malformed), (8, 100_000, Outcome::Accepted)]
    {
        let parts = (0..parts).map(|n| vec![n; each]).collect();
        assert_eq!(same(&verifier, "long", &with_manifests(parts), &policy(), AT), outcome, "{each}");
    }
}

#[test]
fn what_one_place_lost_is_missing_there_whoever_else_has_it() {
    let verifier = Verifier::default();
    let (detached, parts) = good().to_detached();
    let whole = Beside::new(|digest| lookup(&parts, digest));
    let empty = Beside::new(|_| None);
    let outcome = |beside: &Beside<'_>| verifier.detached(&detached, beside, &policy(), None, AT).appraisal.outcome;
    assert_eq!((outcome(&whole), outcome(&empty)), (Outcome::Accepted, Outcome::Malformed));
}

#[test]
fn endorsements_are_asked_for_once_and_believed_by_their_hash_alone() {
    let verifier = Verifier::default();
    let (detached, parts) = good().to_detached();
    // 0: nothing is there; 1: something else is; 2: all is as it should be.
    let (state, asked) = (AtomicU8::new(0), AtomicUsize::new(0));
    let beside = Beside::new(|digest| match state.load(Relaxed) {
        0 => None,
        1 => Some(b"something else".to_vec()),
        _ => {
            asked.fetch_add(1, Relaxed);
            lookup(&parts, digest)
        }
    });
    let outcome = |now: u8| {
        state.store(now, Relaxed);
        verifier.detached(&detached, &beside, &policy(), None, AT).appraisal.outcome
    };
    // What is missing, or is something else, is not remembered.
    assert_eq!(outcome(0), Outcome::Malformed);
    assert_eq!(outcome(1), Outcome::Malformed);
    assert_eq!(outcome(2), Outcome::Accepted);
    assert_eq!((outcome(0), asked.load(Relaxed)), (Outcome::Accepted, 1), "it is remembered from then on");
}
