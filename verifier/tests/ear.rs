//! Results for other systems, and advice for people.

mod common;
mod suite;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value as Cbor;
use cocoon_attestation::dev::{CollateralSpec, GpuChainSpec, GpuSpec, SnpEndorsementSpec, SnpSpec, TdxSpec};
use cocoon_verifier::ear::{Context, PROFILE};
use cocoon_verifier::{Appraisal, Outcome, Policy, appraise_gpu, appraise_snp, appraise_tdx};
use common::{AT, platform, policy};
use serde_json::Value;

const SEED: [u8; 32] = [5; 32];

fn tdx(alter: impl FnOnce(&mut TdxSpec), policy: &Policy) -> Appraisal {
    let mut spec = TdxSpec::default();
    alter(&mut spec);
    appraise_tdx(&platform().tdx_quote(&spec), &platform().tdx_collateral(&CollateralSpec::default()), policy, AT)
}

fn context() -> Context {
    Context { at: AT, policy: Some("ni:///sha-256;x".into()), nonce: Some(vec![9; 8]) }
}

/// Evidence as it would be from hardware: the development platform's is never affirmed.
fn as_hardware(mut appraisal: Appraisal) -> Appraisal {
    appraisal.development = false;
    appraisal
}

fn vector(appraisal: &Appraisal, part: &str) -> Value {
    let claims = appraisal.to_ear_json(&Context::default()).expect("claims");
    claims["submods"][part]["ear_trustworthiness_vector"].clone()
}

fn status(appraisal: &Appraisal, part: &str) -> String {
    let claims = appraisal.to_ear_json(&Context::default()).expect("claims");
    claims["submods"][part]["ear_status"].as_str().expect("a status").to_owned()
}

#[test]
fn good_evidence_is_affirmed_as_far_as_it_was_looked_at() {
    let good = as_hardware(tdx(|_| {}, &policy()));
    assert_eq!(status(&good, "cpu"), "affirming");
    assert_eq!(vector(&good, "cpu").to_string(), r#"{"configuration":2,"hardware":2,"runtime-opaque":2}"#);
    let mut named = policy();
    named.tdx.mrtd = vec![cocoon_verifier::policy::Hex(TdxSpec::default().body.mr_td)];
    let named = vector(&as_hardware(tdx(|_| {}, &named)), "cpu");
    assert_eq!((&named["executables"], named.get("instance-identity")), (&Value::from(2), None));
    // A register without the first measurement says nothing.
    let mut later = policy();
    later.tdx.rtmr3 = vec![cocoon_verifier::policy::Hex(TdxSpec::default().body.rtmr[3])];
    assert!(vector(&as_hardware(tdx(|_| {}, &later)), "cpu").get("executables").is_none());
}

#[test]
fn amd_keeps_no_list_of_good_versions_so_a_policy_must() {
    let chain = platform().snp_endorsements(&SnpEndorsementSpec::default());
    let report = platform().snp_report(&SnpSpec::default());
    let appraise =
        |policy: &Policy| as_hardware(appraise_snp(&report, &chain.vek, &chain.ca, chain.crl.as_deref(), policy, AT));
    assert!(vector(&appraise(&policy()), "cpu").get("hardware").is_none());
    let mut judged = policy();
    judged.snp.min_tcb = Some(Default::default());
    assert_eq!(vector(&appraise(&judged), "cpu")["hardware"], 2);
    judged.snp.min_tcb.as_mut().expect("a minimum").microcode = 255;
    assert_eq!(vector(&appraise(&judged), "cpu")["hardware"], 96);
}

#[test]
fn the_development_platform_is_never_affirmed() {
    let good = tdx(|_| {}, &policy());
    assert_eq!(good.outcome, Outcome::Accepted);
    assert_eq!(status(&good, "cpu"), "contraindicated");
    assert_eq!(
        (&vector(&good, "cpu")["hardware"], &vector(&good, "cpu")["runtime-opaque"]),
        (&Value::from(97), &Value::from(96))
    );
    let gpu = appraise_gpu(
        &platform().gpu_report(&GpuSpec::default()),
        &platform().gpu_chain(&GpuChainSpec::default()),
        &[],
        None,
        &policy(),
        AT,
    );
    assert_eq!(status(&gpu, "gpu"), "contraindicated");
    assert_eq!(status(&as_hardware(gpu), "gpu"), "affirming");
}

#[test]
fn what_a_loosened_policy_takes_is_a_warning_and_debugging_is_not_confidential() {
    let debug = |spec: &mut TdxSpec| spec.body.td_attributes[0] = 1;
    let refused = as_hardware(tdx(debug, &policy()));
    assert_eq!(status(&refused, "cpu"), "contraindicated");
    let mut loose = policy();
    loose.tdx.allow_debug = true;
    let allowed = as_hardware(tdx(debug, &loose));
    assert_eq!(allowed.outcome, Outcome::Accepted);
    assert_eq!(vector(&allowed, "cpu")["runtime-opaque"], 96);
    loose.tdx.allow_sept_ve = true;
    let allowed = as_hardware(tdx(|spec| spec.body.td_attributes = [0; 8], &loose));
    assert_eq!(
        (status(&allowed, "cpu"), &vector(&allowed, "cpu")["configuration"]),
        ("warning".into(), &Value::from(32))
    );
    let invalid = tdx(|_| {}, &Policy::default());
    assert_eq!(
        (status(&invalid, "cpu"), vector(&invalid, "cpu").to_string()),
        ("contraindicated".into(), r#"{"instance-identity":99}"#.into())
    );
    let malformed = appraise_tdx(b"none", b"{}", &policy(), AT);
    assert_eq!(
        (status(&malformed, "cpu"), vector(&malformed, "cpu").to_string()),
        ("none".into(), r#"{"instance-identity":1}"#.into())
    );
}

#[test]
fn a_jwt_carries_the_claims_and_a_signature_over_them() {
    let jwt = tdx(|_| {}, &policy()).to_jwt(&context(), &SEED).expect("a token");
    let parts: Vec<_> = jwt.split('.').collect();
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let key = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a key");
    let key = UnparsedPublicKey::new(&ED25519, key.public_key().as_ref());
    let signed = format!("{}.{}", parts[0], parts[1]);
    key.verify(signed.as_bytes(), &bytes(parts[2])).expect("signed");
    assert!(key.verify(format!("{signed}x").as_bytes(), &bytes(parts[2])).is_err());
    let header: Value = serde_json::from_slice(&bytes(parts[0])).expect("JSON");
    assert_eq!(header.to_string(), r#"{"alg":"EdDSA","typ":"eat+jwt"}"#);
    let claims: Value = serde_json::from_slice(&bytes(parts[1])).expect("JSON");
    assert_eq!(
        (&claims["eat_profile"], &claims["iat"], &claims["eat_nonce"]),
        (&PROFILE.into(), &AT.0.into(), &"CQkJCQkJCQk".into())
    );
    let cpu = &claims["submods"]["cpu"];
    assert_eq!(cpu["ear_appraisal_policy_ids"][0], "ni:///sha-256;x");
    assert_eq!(cpu["ear_attester_claims"]["tdx.fmspc"], hex::encode(cocoon_attestation::dev::FMSPC));
    assert_eq!(cpu["ear_verifier_claims"]["cocoon_outcome"], "accepted");
    assert_eq!(cpu["ear_verifier_claims"]["cocoon_development"], "NOT CONFIDENTIAL");
    assert!(cpu["ear_verifier_claims"]["cocoon_unchecked"].as_str().expect("text").contains("tdx.mrtd"));
}

fn get(map: &Cbor, key: impl Into<Cbor>) -> Cbor {
    let key = key.into();
    map.as_map().expect("a map").iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone()).expect("the key")
}

/// Keys in the order of their encodings, all the way down.
fn deterministic(value: &Cbor) -> bool {
    match value {
        Cbor::Map(entries) => {
            let encoded = entries.iter().map(|(key, _)| {
                let mut bytes = Vec::new();
                ciborium::into_writer(key, &mut bytes).expect("a key");
                bytes
            });
            encoded.collect::<Vec<_>>().is_sorted() && entries.iter().all(|(_, value)| deterministic(value))
        }
        Cbor::Array(items) => items.iter().all(deterministic),
        _ => true,
    }
}

#[test]
fn a_cwt_says_the_same() {
    let appraisal = tdx(|_| {}, &policy());
    let cwt: Cbor = ciborium::from_reader(&appraisal.to_cwt(&context(), &SEED).expect("a token")[..]).expect("CBOR");
    let Cbor::Tag(18, parts) = cwt else { panic!("COSE_Sign1 expected") };
    let parts = parts.into_array().expect("four parts");
    assert_eq!(parts[0].as_bytes().expect("a header"), &[0xa1, 0x01, 0x27], "alg EdDSA");
    let mut signed = Vec::new();
    let structure = vec!["Signature1".into(), parts[0].clone(), Cbor::Bytes(Vec::new()), parts[2].clone()];
    ciborium::into_writer(&Cbor::Array(structure), &mut signed).expect("CBOR");
    let key = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a key");
    UnparsedPublicKey::new(&ED25519, key.public_key().as_ref())
        .verify(&signed, parts[3].as_bytes().expect("a signature"))
        .expect("signed");
    let claims: Cbor = ciborium::from_reader(&parts[2].as_bytes().expect("a payload")[..]).expect("CBOR");
    assert!(deterministic(&claims));
    assert_eq!(
        (get(&claims, 265), get(&claims, 6), get(&claims, 10)),
        (PROFILE.into(), AT.0.into(), Cbor::Bytes(vec![9; 8]))
    );
    assert_eq!(get(&get(&claims, 1004), 0), "Cocoon".into());
    let cpu = get(&get(&claims, 266), "cpu");
    assert_eq!((get(&cpu, 1000), get(&get(&cpu, 1001), 4)), (96.into(), 97.into()));
    assert_eq!(get(&get(&cpu, 1005), "tdx.fmspc"), hex::encode(cocoon_attestation::dev::FMSPC).into());
    assert_eq!(get(&get(&cpu, 1006), "cocoon_outcome"), "accepted".into());
    for nonce in [vec![0; 7], vec![0; 65]] {
        let context = Context { nonce: Some(nonce), ..context() };
        assert!(appraisal.to_cwt(&context, &SEED).is_err() && appraisal.to_jwt(&context, &SEED).is_err());
    }
}

#[test]
fn every_failure_of_the_suite_has_advice_of_its_own() {
    let fallback = "these bytes are not what they are said to be";
    let roots = vec![platform().tdx_root_der(), platform().snp_ark_der(), platform().gpu_root_der()];
    let policy = Policy { roots, ..Policy::default() };
    let mut seen = 0;
    for case in suite::cases() {
        let result = match &case.files {
            suite::Files::Tdx { quote, collateral } => appraise_tdx(quote, collateral, &policy, AT),
            suite::Files::Snp { report, vek, ca, crl } => appraise_snp(report, vek, ca, crl.as_deref(), &policy, AT),
            suite::Files::Gpu { report, chain, rims, .. } => appraise_gpu(report, chain, rims, None, &policy, AT),
        };
        for advice in result.advice() {
            seen += 1;
            assert!(
                !advice.remedy.contains(fallback) || advice.check.ends_with("format"),
                "{}: {}",
                case.id,
                advice.check
            );
            assert_eq!(advice.found, result.check(&advice.check).expect("the check").detail);
        }
        // A relying party that looks at nothing but the status is not led astray.
        let part = if case.id.starts_with("gpu") { "gpu" } else { "cpu" };
        let expected = if result.outcome == Outcome::Malformed { "none" } else { "contraindicated" };
        if result.outcome != Outcome::Accepted {
            assert_eq!(status(&as_hardware(result.clone()), part), expected, "{}", case.id);
        }
        let failed = result.checks.iter().any(|check| check.outcome.is_failure());
        assert_eq!(failed, !result.advice().is_empty(), "{}", case.id);
    }
    assert!(seen > 200);
    assert!(tdx(|_| {}, &common::policy()).advice().is_empty());
}

#[test]
fn the_layer_of_a_low_tcb_is_the_one_that_lacks() {
    use cocoon_verifier::Layer;
    let layer = |status: &str, lacking: &str| {
        let mut appraisal = tdx(|_| {}, &policy());
        appraisal.checks.retain(|check| check.id == "tdx.tcb-status");
        appraisal.checks[0].outcome = cocoon_verifier::CheckOutcome::Refused;
        appraisal.checks[0].detail = format!("{status}: ({lacking})").into();
        appraisal.advice()[0].layer
    };
    assert_eq!(
        layer("OutOfDate", "SGX component 1 (BIOS, Early Microcode Update) has version 2, not 3"),
        Layer::Microcode
    );
    assert_eq!(layer("OutOfDate", "TDX module TDX_01 2 is OutOfDate"), Layer::Module);
    assert_eq!(layer("OutOfDate", "the quoting enclave is OutOfDate: update Intel's DCAP packages"), Layer::Quoting);
    assert_eq!(layer("OutOfDate", "the PCE has version 3, not 4"), Layer::Quoting);
    assert_eq!(layer("ConfigurationNeeded", ""), Layer::Bios);
    assert_eq!(layer("TDRelaunchAdvised", ""), Layer::Module);
}

#[test]
fn refusals_that_no_category_is_about_are_contraindicated_too() {
    let mut policy = policy();
    policy.tdx.mrowner = vec![cocoon_verifier::policy::Hex([9; 48])];
    let refused = as_hardware(tdx(|_| {}, &policy));
    assert_eq!(refused.outcome, Outcome::Refused);
    assert_eq!(
        (status(&refused, "cpu"), &vector(&refused, "cpu")["configuration"]),
        ("contraindicated".into(), &Value::from(96))
    );
}
