//! `cocoon demo` as a user runs it: everything it shows holds, and its last line is what its schema says.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn demo(args: &[&str]) -> Output {
    Command::new(cocoon_tests::cocoon_binary())
        .env("COCOON_ENCLAVE_BIN", cocoon_tests::enclave_binary())
        .args(["demo", "--json", "--model"])
        .arg(cocoon_tests::demo_model())
        .args(args)
        .output()
        .expect("the cocoon binary runs")
}

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/demo.schema.json");
    serde_json::from_slice(&std::fs::read(path).expect("the schema")).expect("JSON")
}

/// Checks a value against the part of JSON Schema that the project's schemas use.
fn check(value: &Value, schema: &Value, at: &str) {
    if let Some(expected) = schema.get("const") {
        assert_eq!(value, expected, "{at}");
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        assert!(words.contains(value), "{at}: {value}");
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => object(value, schema, at),
        Some("string") => {
            let least = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
            assert!(value.as_str().is_some_and(|text| text.len() as u64 >= least), "{at}: {value}");
        }
        Some("integer") => assert!(value.is_u64(), "{at}: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{at}: {value}"),
        Some(other) => panic!("{at}: this test does not know the type {other}"),
        None => {}
    }
}

fn object(value: &Value, schema: &Value, at: &str) {
    let found = value.as_object().unwrap_or_else(|| panic!("{at} is no object: {value}"));
    let names = |schema: &Value| -> Vec<String> {
        let names = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    };
    for name in names(schema) {
        assert!(found.contains_key(&name), "{at} lacks {name}");
    }
    if !schema["if"].is_null() && !names(&schema["if"]).iter().all(|name| found.contains_key(name)) {
        for name in names(&schema["else"]) {
            assert!(found.contains_key(&name), "{at} lacks {name}");
        }
    }
    let any = schema["patternProperties"].get(".*");
    for (name, value) in found {
        let part = schema["properties"].get(name).or(any);
        match part {
            Some(part) => check(value, part, &format!("{at}.{name}")),
            None => {
                assert!(schema["additionalProperties"] != Value::Bool(false), "{at} has {name}, which the schema lacks")
            }
        }
    }
}

fn holds(tee: &str) {
    let output = demo(&["--tee", tee]);
    let (said, progress) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{progress}");
    assert!(progress.contains("DEVELOPMENT PLATFORM - NOT CONFIDENTIAL"), "{progress}");
    let line: Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
    check(&line, &schema(), "line");
    assert_eq!((&line["outcome"], &line["plaintext_seen"]), (&"accepted".into(), &false.into()));
    assert!(line["paid_nanoton"].as_u64() > Some(0) && line["gas"].as_u64() > Some(0));
    assert!(line["tokens"]["completion"].as_u64() > Some(5));
    let refusals = line["refusals"].as_object().expect("refusals");
    let required = schema()["properties"]["refusals"]["required"].as_array().expect("names").len();
    assert_eq!(refusals.len(), required);
    let who = [
        ("swapped_model", "client and verifier nodes, reference.model-root: "),
        ("other_enclave", "client and verifier nodes, reference.measurement: "),
        ("flipped_bit", &format!("client and verifier nodes, {tee}.signature: ")),
        ("short_of_k", "Registry, exit code 109: "),
        ("replayed", "enclave, status 409: "),
        ("over_cap", "enclave, status 402 inside the seal: "),
    ];
    for (attack, by) in who {
        let reason = refusals[attack].as_str().expect("a reason");
        assert!(reason.starts_with(by) && reason.len() > by.len() + 20, "{attack}: {reason}");
    }
}

#[test]
fn everything_holds_on_tdx_evidence() {
    holds("tdx");
}

#[test]
fn everything_holds_on_snp_evidence() {
    holds("snp");
}

#[test]
fn what_fails_early_says_so_on_the_last_line_too() {
    let output = demo(&["--data", "/proc/cannot-be-made"]);
    assert!(!output.status.success());
    let line: Value = serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap();
    check(&line, &schema(), "line");
    assert_eq!(line["outcome"], "failed");
    assert!(line["error"].as_str().is_some_and(|error| error.contains("/proc/cannot-be-made")), "{line}");
}

#[test]
fn a_prompt_too_short_to_search_for_is_wrong_usage() {
    let output = demo(&["--prompt", "Hi"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).replace('\n', " ").contains("16 bytes"));
}
