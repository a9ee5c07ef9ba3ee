//! Schemas as hard to follow as they may be: the engine works through them while others wait for their turn, or for their next token.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::enclave::{Enclave, in_turn};
use super::world::Client;

/// What a schema may have, in bytes.
const MOST: usize = 64 << 10;

/// As many of these as fit.
fn filled(wrap: impl Fn(Vec<(String, Value)>) -> Value, item: impl Fn(usize) -> Value) -> Value {
    let (mut items, mut size) = (Vec::new(), 200);
    loop {
        let (name, value) = (format!("p{:05}", items.len()), item(items.len()));
        size += value.to_string().len() + name.len() + 8;
        if size > MOST {
            return wrap(items);
        }
        items.push((name, value));
    }
}

fn list(items: Vec<(String, Value)>) -> Value {
    items.into_iter().map(|(_, value)| value).collect()
}

fn object(items: Vec<(String, Value)>) -> Value {
    json!({"type": "object", "properties": Value::Object(items.into_iter().collect()), "additionalProperties": false})
}

/// A pattern of which each step has many states.
fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn hostile() -> Vec<(&'static str, Value)> {
    let text = |number: usize| json!(format!("{number:05} {}", "ab".repeat(20 + number % 7)));
    let nested = (0..9)
        .fold(json!({"type": "integer"}), |inner, _| json!({"anyOf": [inner, {"type": "array", "items": inner}]}));
    vec![
        ("many texts", filled(|items| json!({"enum": list(items)}), text)),
        ("many properties that may come", filled(object, |_| json!({"type": "string"}))),
        (
            "many properties with patterns",
            filled(object, |number| pattern(&format!("^[a-z]{{1,{}}}x?[0-9]*$", number % 300 + 1))),
        ),
        (
            "many kinds of object",
            filled(
                |items| json!({"anyOf": list(items)}),
                |number| json!({"type": "object", "properties": {"kind": {"const": number}, "a": {"type": "string"}}, "required": ["kind"]}),
            ),
        ),
        (
            "all of many",
            filled(
                |items| json!({"allOf": list(items)}),
                |number| json!({"type": "object", "properties": {format!("q{number}"): {"type": "integer", "minimum": number}}}),
            ),
        ),
        (
            "definitions that lead to one another",
            filled(
                |items| json!({"$ref": "#/$defs/p00000", "$defs": Value::Object(items.into_iter().collect())}),
                |number| json!({"anyOf": [{"type": "array", "items": {"$ref": format!("#/$defs/p{:05}", number / 2)}}, {"type": "null"}]}),
            ),
        ),
        ("a pattern with a memory", pattern("^(.*a.{800}b|.*c.{700}d)$")),
        ("repeated repetitions", pattern("^((a{1,60}b{0,60}){1,60}c?){1,60}$")),
        (
            "many ways to one text",
            pattern(&format!("^({})$", (0..4_000).map(|n| format!("a{{0,9}}{n}")).collect::<Vec<_>>().join("|"))),
        ),
        (
            "numbers of many digits",
            json!({"type": "number", "multipleOf": 0.000_000_7, "minimum": -1.234_567_891e30, "maximum": 9.876_543_21e200}),
        ),
        (
            "a long list",
            json!({"type": "array", "minItems": 100_000, "items": {"type": "object", "required": ["a"], "properties": {"a": {"maxLength": 1_000_000_000, "type": "string"}}}}),
        ),
        ("choices in choices", nested),
        // As many patterns as may be joined; fifty take minutes.
        (
            "joined patterns",
            json!({"allOf": (0..8).map(|n| pattern(&format!("^(.*{}.{{{}}}|x{{{n}}}y*)$", ["a", "b", "c"][n % 3], 50 + n))).collect::<Vec<_>>()}),
        ),
        (
            "joined patterns without end",
            json!({"allOf": (0..8).map(|n| pattern(&format!("^(.*{}.{{{}}}z*)+$", ["a", "b", "c"][n % 3], 5 + n))).collect::<Vec<_>>()}),
        ),
    ]
}

/// What others wait for is the schema's compilation and each of its steps. On a CPU they wait for the whole answer; on a GPU for as much between
/// two of their tokens.
#[test]
fn no_schema_keeps_others_waiting_for_long() {
    let _turn = in_turn();
    let enclave = Enclave::start("");
    let evidence = &enclave.evidence;
    let (hostile_client, other) = (Client::new(evidence, 140), Client::new(evidence, 141));
    let behind = || enclave.ask(other.chat(evidence, r#","max_tokens":1"#));
    behind();
    let mut worst = Duration::ZERO;
    for (name, schema) in hostile() {
        assert!(schema.to_string().len() <= MOST, "{name}: {} bytes", schema.to_string().len());
        let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
        let body = json!({"model": "cocoon-demo", "max_tokens": 8, "seed": 1, "response_format": format,
            "messages": [{"role": "user", "content": "Who can read my prompt?"}]});
        let sealed = hostile_client.seal(evidence, "POST", "/v1/chat/completions", &body.to_string());
        let started = Instant::now();
        let stream = enclave.send(&sealed);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(behind().head.status, 200, "{name}");
        let waited = started.elapsed();
        drop(stream);
        let answer = enclave.ask(hostile_client.seal(evidence, "POST", "/v1/chat/completions", &body.to_string()));
        println!("{name}: others waited {waited:?}; status {}", answer.head.status);
        // Followed, refused, or more than the engine can: that costs this request only, and nothing.
        let charged = answer.receipt.is_some();
        assert!(
            matches!((answer.head.status, charged), (200, true) | (400 | 500, false)),
            "{name}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        worst = worst.max(waited);
    }
    assert!(worst < Duration::from_secs(5), "{worst:?}");
}
