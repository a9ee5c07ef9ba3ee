//! Results are what `docs/schemas/appraisal.schema.json` says.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use cocoon_attestation::dev::{CollateralSpec, TdxSpec};
use cocoon_verifier::outcome::SCHEMA;
use cocoon_verifier::{Appraisal, CheckOutcome, Outcome, Policy, appraise_tdx};
use common::{AT, platform, policy};
use serde_json::{Value, json};

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/appraisal.schema.json");
    serde_json::from_slice(&std::fs::read(path).expect("the schema")).expect("JSON")
}

/// A result of each outcome.
fn results() -> Vec<Appraisal> {
    let mut debug = TdxSpec::default();
    debug.body.td_attributes[0] = 1;
    let collateral = platform().tdx_collateral(&CollateralSpec::default());
    let appraise = |spec: &TdxSpec, policy: &Policy| appraise_tdx(&platform().tdx_quote(spec), &collateral, policy, AT);
    vec![
        appraise(&TdxSpec::default(), &policy()),
        appraise(&debug, &policy()),
        appraise(&TdxSpec::default(), &Policy::default()),
        appraise_tdx(b"none", &collateral, &policy(), AT),
    ]
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

fn words(value: &Value) -> BTreeSet<String> {
    value.as_array().expect("an array").iter().map(|word| word.as_str().expect("a string").into()).collect()
}

#[test]
fn every_result_has_the_required_keys_and_no_others() {
    let schema = schema();
    assert_eq!(schema["$id"], SCHEMA);
    let items = |name: &str| words(&schema["properties"][name]["items"]["required"]);
    for result in results() {
        let json = serde_json::to_value(&result).expect("JSON");
        assert_eq!(keys(&json), words(&schema["required"]));
        assert_eq!(json["schema"], SCHEMA);
        for check in json["checks"].as_array().expect("checks") {
            assert_eq!(keys(check), items("checks"));
        }
        for item in json["unchecked"].as_array().expect("unchecked") {
            assert_eq!(keys(item), items("unchecked"));
        }
        let back: Appraisal = serde_json::from_value(json).expect("what was written can be read");
        assert_eq!(back, result);
    }
}

#[test]
fn the_words_are_the_schemas() {
    use CheckOutcome as C;
    use Outcome as O;
    let schema = schema();
    let outcomes = [(O::Accepted, 0), (O::Refused, 10), (O::Invalid, 20), (O::Malformed, 30)];
    assert_eq!(json!(outcomes.map(|(outcome, _)| outcome)), schema["properties"]["outcome"]["enum"]);
    assert!(outcomes.iter().all(|(outcome, code)| outcome.exit_code() == *code));
    let checks = [C::Passed, C::Allowed, C::Refused, C::Invalid, C::Malformed];
    assert_eq!(json!(checks), schema["properties"]["checks"]["items"]["properties"]["outcome"]["enum"]);
    let found: Vec<_> = results().iter().map(|result| result.outcome).collect();
    assert_eq!(found, outcomes.map(|(outcome, _)| outcome), "one result of each outcome");
}
