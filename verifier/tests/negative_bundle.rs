//! Bundles in which exactly one thing is wrong, and the controls: without its reference, the wrong guest or model is accepted
//! and listed as unchecked.

mod common;

use cocoon_attestation::binding::{gpu_digest, gpu_nonce, report_data};
use cocoon_attestation::dev::{GpuChainSpec, GpuSpec, OcspSpec, OcspSubject, RimSpec, TdxSpec};
use cocoon_attestation::reference::{EventReference, TdxReference};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, Endorsements, Event, EventLog, GpuEndorsements, Measurement,
    ProviderAddress, ReferenceValues, UnixTime,
};
use cocoon_verifier::policy::Hex;
use cocoon_verifier::{Appraisal, CheckOutcome, Outcome, Policy, appraise_bundle};
use common::{AT, accepted, claims, only, platform, policy, references, snp_bundle, tdx_bundle, unchecked};

fn appraise(bundle: &Bundle, policy: &Policy, references: Option<&ReferenceValues>) -> Appraisal {
    appraise_bundle(&bundle.to_cbor(), policy, references, AT).appraisal
}

fn strict(bundle: &Bundle) -> Appraisal {
    appraise(bundle, &policy(), Some(&references()))
}

fn both(claims: &Claims) -> [Bundle; 2] {
    [tdx_bundle(claims), snp_bundle(claims)]
}

#[test]
fn other_claims_than_the_cpu_signed() {
    for mut bundle in both(&claims()) {
        bundle.claims = Claims { nonce_root: Digest([1; 32]), ..claims() }.to_cbor();
        only(&strict(&bundle), "binding.report-data", Outcome::Invalid);
    }
}

#[test]
fn another_guest_and_its_control() {
    let mut others = references();
    others.tdx[0].mrtd = Measurement([9; 48]);
    others.snp[0].measurement = Measurement([9; 48]);
    for (bundle, register) in both(&claims()).into_iter().zip(["tdx.mrtd", "snp.measurement"]) {
        let result = appraise(&bundle, &policy(), Some(&others));
        only(&result, "reference.measurement", Outcome::Refused);

        // The control: the model is still compared, the measurement alone is not, as nobody gave values for it.
        assert!(!unchecked(&strict(&bundle), register), "reference values covered it");
        let mut policy = policy();
        policy.claims.model_root = vec![claims().model_root];
        let control = appraise(&bundle, &policy, None);
        accepted(&control);
        assert!(unchecked(&control, "reference.measurement") && unchecked(&control, register));
        assert!(!unchecked(&control, "reference.model-root"));
    }
}

#[test]
fn a_runtime_register_counts_if_the_reference_names_it() {
    let bundle = tdx_bundle(&claims());
    let mut values = references();
    values.tdx[0].rtmr1 = Some(Measurement([0; 48]));
    let result = appraise(&bundle, &policy(), Some(&values));
    accepted(&result);
    assert!(!unchecked(&result, "tdx.rtmr1") && unchecked(&result, "tdx.rtmr2"));
    values.tdx[0].rtmr1 = Some(Measurement([9; 48]));
    only(&appraise(&bundle, &policy(), Some(&values)), "reference.measurement", Outcome::Refused);
}

/// What a register is made of is known from its log and the reference values; without either, from the register alone.
#[test]
fn what_differs_is_named() {
    let event =
        |register, digest| Event { register, kind: "the host's word".into(), digest: [digest; 48], data: vec![] };
    let named = |register, digest, what: &str| EventReference {
        register,
        what: what.into(),
        digest: Measurement([digest; 48]),
    };
    let log = EventLog(vec![event(1, 1), event(2, 2), event(2, 3)]);
    let registers = log.replay().unwrap();
    let claims = claims();
    let mut bundle = tdx_bundle(&claims);
    let mut spec = TdxSpec::default();
    spec.body.rtmr = registers.map(|register| register.0);
    spec.body.report_data = report_data(&claims.to_cbor());
    bundle.cpu = CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) };
    bundle.event_log = Some(log);

    // Two shapes of machines: the nearer one differs in one event of RTMR2, the other one in more.
    let mut values = references();
    let near = TdxReference {
        rtmr1: Some(registers[1]),
        rtmr2: Some(Measurement([9; 48])),
        events: vec![named(1, 1, "the kernel"), named(2, 2, "the command line"), named(2, 9, "the initial ram disk")],
        ..TdxReference::of_mrtd(values.tdx[0].mrtd)
    };
    let far = TdxReference { mrtd: Measurement([9; 48]), rtmr1: Some(Measurement([9; 48])), ..near.clone() };
    values.tdx = vec![far, near.clone()];
    let reason = |bundle: &Bundle, values: &ReferenceValues| {
        let result = appraise(bundle, &policy(), Some(values));
        only(&result, "reference.measurement", Outcome::Refused);
        result.reason
    };
    let said = reason(&bundle, &values);
    assert!(said.ends_with("what differs is RTMR2: the initial ram disk"), "{said}");
    assert!(!said.contains("the host's word"), "what an event is called is the release's word: {said}");

    values.tdx = vec![TdxReference { events: near.events[..2].to_vec(), ..near.clone() }];
    let said = reason(&bundle, &values);
    assert!(said.ends_with("what differs is RTMR2: 2 things were measured instead of 1"), "{said}");

    values.tdx = vec![TdxReference { events: vec![], ..near.clone() }];
    let said = reason(&bundle, &values);
    assert!(said.ends_with("what differs is RTMR2: the command line or the initial ram disk"), "{said}");

    values.tdx = vec![TdxReference { mrtd: Measurement([9; 48]), rtmr2: None, ..near }];
    bundle.event_log = None;
    let said = reason(&bundle, &values);
    assert!(said.ends_with("what differs is MRTD: the firmware"), "{said}");
}

#[test]
fn another_model_and_its_control() {
    let swapped = Claims { model_root: Digest([9; 32]), ..claims() };
    for bundle in both(&swapped) {
        only(&strict(&bundle), "reference.model-root", Outcome::Refused);

        // The control: the measurement is still compared, the model alone is not.
        let mut policy = policy();
        policy.tdx.mrtd = references().tdx.iter().map(|entry| Hex(entry.mrtd.0)).collect();
        policy.snp.measurement = references().snp.iter().map(|entry| Hex(entry.measurement.0)).collect();
        let control = appraise(&bundle, &policy, None);
        accepted(&control);
        assert!(unchecked(&control, "reference.model-root"));
        assert!(control.check("tdx.mrtd").or(control.check("snp.measurement")).is_some());
    }
}

#[test]
fn a_models_root_under_another_name() {
    let renamed = Claims { model_name: "better".into(), ..claims() };
    only(&strict(&tdx_bundle(&renamed)), "reference.model-root", Outcome::Refused);
}

#[test]
fn what_the_policy_says_of_claims() {
    type Case = (&'static str, fn(&mut Policy));
    let cases: [Case; 3] = [
        ("reference.config-digest", |policy| policy.claims.config_digest = vec![Digest([9; 32])]),
        ("reference.provider", |policy| policy.claims.provider = vec![ProviderAddress([9; 33])]),
        ("claims.freshness", |policy| policy.claims.max_beacon_age = Some(59)),
    ];
    let bundle = tdx_bundle(&claims());
    for (id, ask) in cases {
        assert!(unchecked(&strict(&bundle), id));
        let mut policy = policy();
        ask(&mut policy);
        only(&appraise(&bundle, &policy, Some(&references())), id, Outcome::Refused);
    }
    let mut policy = policy();
    policy.claims.model_root = vec![Digest([9; 32])];
    only(&appraise(&bundle, &policy, Some(&references())), "reference.model-root", Outcome::Refused);
    only(&appraise(&bundle, &policy, None), "reference.model-root", Outcome::Refused);
    policy.claims.model_root.push(claims().model_root);
    accepted(&appraise(&bundle, &policy, None));
}

#[test]
fn a_beacon_from_the_future() {
    let beacon = Beacon { time: UnixTime(AT.0 + 1), ..claims().beacon };
    let mut policy = policy();
    policy.claims.max_beacon_age = Some(3600);
    let bundle = tdx_bundle(&Claims { beacon, ..claims() });
    only(&appraise(&bundle, &policy, Some(&references())), "claims.freshness", Outcome::Refused);
}

#[test]
fn endorsements_missing_or_of_another_kind() {
    let [mut tdx, mut snp] = both(&claims());
    std::mem::swap(&mut tdx.endorsements, &mut snp.endorsements);
    for mut bundle in [tdx, snp] {
        only(&strict(&bundle), "bundle.endorsements", Outcome::Invalid);
        bundle.endorsements = Endorsements::None;
        only(&strict(&bundle), "bundle.endorsements", Outcome::Invalid);
    }
}

#[test]
fn gpu_evidence_and_the_claims_name_each_other() {
    let gpu = vec![b"an SPDM exchange".to_vec()];
    let named = Claims { gpu_digest: gpu_digest(&gpu), ..claims() };
    let without = tdx_bundle(&named);
    only(&strict(&without), "binding.gpu-digest", Outcome::Invalid);
    let unnamed = Bundle { gpu: gpu.clone(), ..tdx_bundle(&claims()) };
    only(&strict(&unnamed), "binding.gpu-digest", Outcome::Invalid);
    let another = Bundle { gpu: vec![b"another".to_vec()], ..tdx_bundle(&named) };
    only(&strict(&another), "binding.gpu-digest", Outcome::Invalid);

    let bound = Bundle { gpu, ..tdx_bundle(&named) };
    only(&strict(&bound), "gpu.appraisal", Outcome::Refused);
    let mut policy = policy();
    policy.gpu.allow_unappraised = true;
    let result = appraise(&bound, &policy, Some(&references()));
    accepted(&result);
    assert_eq!(result.check("gpu.appraisal").map(|check| check.outcome), Some(CheckOutcome::Allowed));
}

/// A TDX bundle of a guest with this many GPUs, altered before the claims name their evidence.
fn with_gpus(count: u8, alter: impl Fn(&mut GpuSpec), endorse: impl Fn(&mut GpuEndorsements)) -> Bundle {
    let platform = platform();
    let nonce = gpu_nonce(&claims());
    let reports = (0..count).map(|gpu| {
        let mut spec = GpuSpec { gpu, nonce, ..GpuSpec::default() };
        alter(&mut spec);
        platform.gpu_report(&spec)
    });
    let gpu: Vec<_> = reports.collect();
    let mut gpu_endorsements = GpuEndorsements {
        chains: (0..count).map(|gpu| platform.gpu_chain(&GpuChainSpec { gpu, ..GpuChainSpec::default() })).collect(),
        manifests: [RimSpec::driver(), RimSpec::vbios()].map(|spec| platform.gpu_manifest(&spec)).to_vec(),
        ocsp: OcspSubject::ASKED.map(|subject| platform.gpu_ocsp(&OcspSpec::new(subject))).to_vec(),
    };
    endorse(&mut gpu_endorsements);
    let named = Claims { gpu_digest: gpu_digest(&gpu), ..claims() };
    Bundle { gpu, gpu_endorsements, ..tdx_bundle(&named) }
}

#[test]
fn gpus_are_appraised_with_the_cpu_and_each_side_names_the_other() {
    for count in [1, 8] {
        let good = with_gpus(count, |_| {}, |_| {});
        let result = strict(&good);
        accepted(&result);
        assert!(!unchecked(&result, "gpu.nonce") && !unchecked(&result, "gpu.measurements"));
    }
    // A GPU that was asked by another enclave: its report answers another nonce, though the claims name it.
    only(&strict(&with_gpus(1, |spec| spec.nonce = [9; 32], |_| {})), "gpu.nonce", Outcome::Invalid);
    only(&strict(&with_gpus(2, |spec| spec.gpu = 0, |_| {})), "gpu.signature", Outcome::Invalid);
    only(&strict(&with_gpus(2, |_| {}, |with| drop(with.chains.pop()))), "gpu.appraisal", Outcome::Refused);
    let tampered = |spec: &mut GpuSpec| drop(spec.measurements.insert(1, [9; 48]).map(Vec::from));
    only(&strict(&with_gpus(1, tampered, |_| {})), "gpu.measurements", Outcome::Refused);
    let mut policy = policy();
    policy.gpu.require_rims = true;
    let bare = with_gpus(1, |_| {}, |with| with.manifests.clear());
    assert_eq!(appraise(&bare, &policy, Some(&references())).outcome, Outcome::Refused);
    accepted(&strict(&bare));
}

#[test]
fn the_event_log_replays_to_the_registers() {
    let log = EventLog(vec![Event { register: 3, kind: "model".into(), digest: [7; 48], data: Vec::new() }]);
    let registers = log.replay().expect("a register that exists");
    let claims = claims().to_cbor();
    let mut spec = TdxSpec::default();
    spec.body.report_data = report_data(&claims);
    spec.body.rtmr[3] = registers[3].0;
    let good = Bundle {
        cpu: CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) },
        event_log: Some(log.clone()),
        ..tdx_bundle(&common::claims())
    };
    accepted(&strict(&good));
    let mut other = log.clone();
    other.0[0].digest[0] ^= 1;
    only(&strict(&Bundle { event_log: Some(other), ..good }), "tdx.event-log", Outcome::Invalid);
    // SNP has no such registers.
    let snp = Bundle { event_log: Some(log), ..snp_bundle(&common::claims()) };
    only(&strict(&snp), "snp.event-log", Outcome::Invalid);
}

#[test]
fn what_is_no_bundle() {
    let bytes = tdx_bundle(&claims()).to_cbor();
    for bytes in [&b""[..], &[0xa0], &bytes[..bytes.len() - 1], &[bytes.as_slice(), &[0]].concat()] {
        let result = appraise_bundle(bytes, &policy(), None, AT);
        only(&result.appraisal, "bundle.format", Outcome::Malformed);
        assert!(result.claims.is_none() && result.evidence_id.is_none());
    }
    let mut bundle = tdx_bundle(&claims());
    bundle.claims.push(0);
    let result = appraise_bundle(&bundle.to_cbor(), &policy(), None, AT);
    only(&result.appraisal, "claims.format", Outcome::Malformed);
    assert_eq!(result.evidence_id, Some(bundle.evidence_id()));
}

#[test]
fn malformed_evidence_inside_a_bundle() {
    let mut bundle = tdx_bundle(&claims());
    bundle.cpu = CpuEvidence::Tdx { quote: vec![0; 10] };
    let result = strict(&bundle);
    assert_eq!(result.outcome, Outcome::Malformed);
    assert!(result.reason.starts_with("tdx.format: "), "{}", result.reason);
}
