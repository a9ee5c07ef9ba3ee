//! A result never says more than was checked, and small input never costs much: one test for each way that it once did.

use cocoon_attestation::bundle::{Bundle, MAX_BYTES};

use cocoon_attestation::dev::{
    CollateralSpec, DevPlatform, GpuChainSpec, GpuSpec, OcspSpec, OcspSubject, RimSpec, SnpEndorsementSpec, SnpSpec,
    TdxSpec,
};
use cocoon_attestation::{Event, EventLog, UnixTime};
use cocoon_verifier::policy::{GpuMode, Hex, MinTcb};
use cocoon_verifier::{
    Appraisal, CheckOutcome, GpuEvidence, GpuReferences, Outcome, Policy, appraise_gpu, appraise_gpus, appraise_snp,
    appraise_tdx, appraise_tdx_with_events, ear,
};

const AT: UnixTime = UnixTime(1_790_000_000);

fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

fn policy() -> Policy {
    let mut policy = Policy::default();
    for root in [platform().tdx_root_der(), platform().snp_ark_der(), platform().gpu_root_der()] {
        policy.add_root(&root).unwrap();
    }
    policy
}

fn unchecked(result: &Appraisal, id: &str) -> bool {
    result.unchecked.iter().any(|item| item.id == id)
}

fn ear_of(mut result: Appraisal, part: &str) -> (String, serde_json::Value) {
    // As on hardware: the development platform's is never affirmed.
    result.development = false;
    let claims = result.to_ear_json(&ear::Context { at: AT, ..Default::default() }).unwrap();
    let part = &claims["submods"][part];
    (part["ear_status"].as_str().unwrap().to_owned(), part["ear_trustworthiness_vector"].clone())
}

fn gpu(spec: &GpuSpec, rims: bool, policy: &Policy) -> Appraisal {
    let platform = platform();
    let rims: Vec<_> = if rims { vec![RimSpec::driver(), RimSpec::vbios()] } else { Vec::new() };
    let rims: Vec<_> = rims.iter().map(|spec| platform.gpu_manifest(spec)).collect();
    let (report, chain) = (platform.gpu_report(spec), platform.gpu_chain(&GpuChainSpec::default()));
    appraise_gpu(&report, &chain, &rims, Some([0; 32]), policy, AT)
}

#[test]
fn a_mode_that_is_demanded_must_be_reported() {
    let mut spec = GpuSpec::default();
    spec.opaque.remove(&36);
    assert!(unchecked(&gpu(&spec, true, &policy()), "gpu.mode"));
    let mut strict = policy();
    strict.gpu.mode = vec![GpuMode::Spt];
    assert_eq!(gpu(&spec, true, &strict).outcome, Outcome::Refused);
    assert_eq!(gpu(&GpuSpec::default(), true, &strict).outcome, Outcome::Accepted);
}

#[test]
fn switches_that_nobody_looked_at_are_listed() {
    let mut spec = GpuSpec::default();
    spec.opaque.insert(36, vec![2, 0]);
    let result = gpu(&spec, true, &policy());
    assert_eq!(result.outcome, Outcome::Accepted);
    assert!(
        unchecked(&result, "gpu.switches") && !unchecked(&gpu(&GpuSpec::default(), true, &policy()), "gpu.switches")
    );
}

#[test]
fn a_gpus_words_are_affirmed_only_with_its_measurements() {
    let mut spec = GpuSpec::default();
    spec.measurements.values_mut().for_each(|value| *value = [0xbd; 48]);
    let mut named = policy();
    named.gpu.driver_version = vec!["580.159.03".into()];
    let (_, vector) = ear_of(gpu(&spec, false, &named), "gpu");
    assert!(vector.get("executables").is_none() && vector.get("configuration").is_none(), "{vector}");
    let (status, vector) = ear_of(gpu(&GpuSpec::default(), true, &policy()), "gpu");
    assert_eq!((&status[..], &vector["executables"], &vector["configuration"]), ("affirming", &2.into(), &2.into()));
}

#[test]
fn rules_that_name_no_measurement_leave_the_register_unchecked_and_an_empty_log_says_nothing() {
    let log = EventLog(vec![Event { register: 3, kind: "note".into(), digest: [0xee; 48], data: b"hello".to_vec() }]);
    let mut spec = TdxSpec::default();
    spec.body.rtmr = log.replay().unwrap().map(|register| register.0);
    let (quote, collateral) = (platform().tdx_quote(&spec), platform().tdx_collateral(&CollateralSpec::default()));
    let digest = hex::encode([0xee; 48]);
    for (rule, covered) in [("kind = \"note\"".to_owned(), false), (format!("digest = [\"{digest}\"]"), true)] {
        let mut ruled = policy();
        let text = format!("[tdx]\nevents = [{{ register = 3, {rule} }}]");
        ruled.tdx.events = Policy::from_toml(&text).unwrap().tdx.events;
        let result = appraise_tdx_with_events(&quote, &collateral, Some(&log), &ruled, AT);
        assert_eq!((result.outcome, unchecked(&result, "tdx.rtmr3")), (Outcome::Accepted, !covered), "{rule}");
    }
    let empty = appraise_tdx_with_events(&quote, &collateral, Some(&EventLog(Vec::new())), &policy(), AT);
    assert!(unchecked(&empty, "tdx.event-log"));
}

#[test]
fn a_version_4_quote_does_not_say_which_service_tds_are_bound() {
    let collateral = platform().tdx_collateral(&CollateralSpec::default());
    let result = appraise_tdx(&platform().tdx_quote(&TdxSpec::default()), &collateral, &policy(), AT);
    assert_eq!(result.outcome, Outcome::Accepted);
    assert!(unchecked(&result, "tdx.service-td"));
}

#[test]
fn what_the_policy_was_loosened_for_is_a_warning_whatever_it_is() {
    let mut loose = policy();
    loose.snp.allow_masked_chip_id = true;
    loose.snp.min_tcb = Some(MinTcb::default());
    let chain = platform().snp_endorsements(&SnpEndorsementSpec::default());
    for (chip_id, status) in [([0; 64], "warning"), (SnpSpec::default().chip_id, "affirming")] {
        let report = platform().snp_report(&SnpSpec { chip_id, ..SnpSpec::default() });
        let result = appraise_snp(&report, &chain.vek, &chain.ca, chain.crl.as_deref(), &loose, AT);
        let masked = result.check("snp.masked-chip-id").is_some_and(|check| check.outcome == CheckOutcome::Allowed);
        assert_eq!(masked, status == "warning");
        assert_eq!(ear_of(result, "cpu").0, status);
    }
    // A processor model is no machine.
    let mut named = policy();
    named.tdx.fmspc = vec![Hex(cocoon_attestation::dev::FMSPC)];
    let collateral = platform().tdx_collateral(&CollateralSpec::default());
    let result = appraise_tdx(&platform().tdx_quote(&TdxSpec::default()), &collateral, &named, AT);
    assert!(ear_of(result, "cpu").1.get("instance-identity").is_none());
}

#[test]
fn every_demand_of_a_policy_is_explained() {
    let strict = Policy::from_toml("[snp]\nallowed_guest_policy = 0x30000\nrequired_guest_policy = 0x100000").unwrap();
    let text = format!("{:?}", strict.explain());
    assert!(text.contains("0x30000") && text.contains("0x100000"), "{text}");
}

#[test]
fn more_answers_about_one_certificate_than_anybody_needs_are_refused_unread() {
    let platform = platform();
    let (report, chain) = (platform.gpu_report(&GpuSpec::default()), platform.gpu_chain(&GpuChainSpec::default()));
    let rims = [RimSpec::driver(), RimSpec::vbios()].map(|spec| platform.gpu_manifest(&spec)).to_vec();
    let good = OcspSubject::ASKED.map(|subject| platform.gpu_ocsp(&OcspSpec::new(subject)));
    let appraise = |ocsp: Vec<Vec<u8>>| {
        let gpu = GpuEvidence { report: &report, chain: &chain };
        appraise_gpus(&[gpu], &GpuReferences::new(rims.clone(), ocsp), Some([0; 32]), &policy(), AT)
    };
    // Altered copies: the signature is at the end, before the certificates.
    let altered = |n: usize| {
        let mut answer = good[0].clone();
        let at = answer.len() / 2;
        answer[at] ^= u8::try_from(n).unwrap();
        answer
    };
    let with = |copies: usize| good.iter().cloned().chain((1..=copies).map(altered)).collect::<Vec<_>>();
    assert_eq!(appraise(with(0)).outcome, Outcome::Accepted);
    let many = appraise(with(40));
    assert!(many.outcome == Outcome::Invalid && many.reason.contains("more than 4"), "{}", many.reason);
    // The same one again is the same one.
    assert_eq!(appraise(vec![good.to_vec(); 10].concat()).outcome, Outcome::Accepted);
}

#[test]
fn a_bundle_that_is_longer_than_any_is_refused_unread() {
    let error = Bundle::from_cbor(&vec![0x80; MAX_BYTES + 1]).unwrap_err().to_string();
    assert!(error.contains("at most 1048576"), "{error}");
}
