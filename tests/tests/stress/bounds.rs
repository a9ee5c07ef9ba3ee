//! Requests beyond each bound, next to one within it; and an answer that fills the context.

use cocoon_protocol::sealed::MAX_SEALED_REQUEST;
use serde_json::{Value, json};

use super::enclave::{Enclave, in_turn};
use super::world::{Answer, Client};

const PATH: &str = "/v1/chat/completions";
/// What the demo model's prompt and answer may have together.
const CONTEXT: u64 = 1_024;

fn body(more: &Value) -> String {
    let mut body = json!({"model": "cocoon-demo", "temperature": 0, "max_tokens": 4,
        "messages": [{"role": "user", "content": "Who can read my prompt?"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string()
}

fn messages(number: usize) -> Value {
    json!({"messages": vec![json!({"role": "user", "content": "x"}); number]})
}

fn tools(number: usize) -> Value {
    let tool = |index| json!({"type": "function", "function": {"name": format!("tool-{index}")}});
    json!({"tools": (0..number).map(tool).collect::<Vec<_>>(), "tool_choice": "none"})
}

/// A schema of so many objects in one another.
fn deep(levels: usize) -> Value {
    let schema = (1..levels).fold(json!({"type": "string"}), |inner, _| json!({"items": inner}));
    json!({"response_format": {"type": "json_schema", "json_schema": {"name": "deep", "schema": schema}}})
}

fn stops(number: usize) -> Value {
    json!({"stop": vec!["unlikely"; number]})
}

#[test]
fn what_is_beyond_a_bound_is_refused_by_name_and_costs_nothing() {
    let _turn = in_turn();
    let enclave = Enclave::shared();
    let (evidence, client, within) =
        (&enclave.evidence, Client::new(&enclave.evidence, 80), Client::new(&enclave.evidence, 81));
    let ask = |client: &Client, more: &Value| enclave.ask(client.seal(evidence, "POST", PATH, &body(more)));
    let paid = ask(&client, &json!({})).receipt.expect("a good request is answered").receipt.settlement.receipt;
    let refused = |answer: &Answer| -> Option<(String, String)> {
        let error = answer.json()["error"].take();
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (answer.head.status != 200).then(|| {
            assert_eq!((answer.head.status, text("type").as_str()), (400, "invalid_request_error"), "{error}");
            assert!(text("message").len() > 10 && answer.receipt.is_none() && answer.settlement.is_none(), "{error}");
            (text("code"), text("param"))
        })
    };
    let beyond = [
        (messages(1_001), messages(1_000), "messages"),
        (tools(129), tools(128), "tools"),
        (deep(65), deep(64), "response_format.json_schema.schema"),
        (stops(5), stops(4), "stop"),
    ];
    for (beyond, good, param) in beyond {
        let expected = Some(("invalid_value".to_owned(), param.to_owned()));
        assert_eq!(refused(&ask(&client, &beyond)), expected);
        // The bound is there and nowhere else: one less is not refused for it.
        assert_ne!(refused(&ask(&within, &good)), expected, "one less");
    }
    let long = |words: usize| json!({"messages": [{"role": "user", "content": "word ".repeat(words)}]});
    let expected = Some(("context_length_exceeded".to_owned(), "messages".to_owned()));
    assert_eq!(refused(&ask(&client, &long(3_000))), expected);
    assert_eq!(refused(&ask(&within, &long(30))), None);
    // Each API has its own name for what is too long.
    for (path, name) in [("/v1/completions", "prompt"), ("/v1/responses", "input")] {
        let body = json!({"model": "cocoon-demo", name: "word ".repeat(3_000)});
        let answer = enclave.ask(client.seal(evidence, "POST", path, &body.to_string()));
        assert_eq!(refused(&answer), Some(("context_length_exceeded".to_owned(), name.to_owned())), "{path}");
    }
    assert_eq!(enclave.receipt(&client), Some(paid), "no refusal was charged");
}

#[test]
fn a_request_beyond_a_mebibyte_is_refused_before_it_is_opened() {
    let _turn = in_turn();
    let enclave = Enclave::shared();
    let client = Client::new(&enclave.evidence, 82);
    let mut sealed = client.chat(&enclave.evidence, "");
    sealed.body.resize(MAX_SEALED_REQUEST, 0);
    assert_eq!(enclave.post(&sealed).status, 400, "as many bytes as there may be, and altered");
    sealed.body.push(0);
    assert_eq!(enclave.post(&sealed).status, 413);
    assert_eq!(enclave.receipt(&client), None);
}

#[test]
fn an_answer_that_reaches_the_contexts_end_ends_by_length() {
    let _turn = in_turn();
    let enclave = Enclave::shared();
    let client = Client::new(&enclave.evidence, 83);
    let more = json!({"max_tokens": null, "logit_bias": {"0": -100, "2": -100},
        "messages": [{"role": "user", "content": "word ".repeat(200)}]});
    let answer = enclave.ask(client.seal(&enclave.evidence, "POST", PATH, &body(&more)));
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
    let receipt = &answer.receipt.as_ref().unwrap().receipt;
    assert_eq!(receipt.finish_reason, "length");
    assert_eq!(receipt.tokens.prompt + receipt.tokens.completion, CONTEXT, "to the last token, and not beyond");
    assert_eq!(answer.json()["usage"]["total_tokens"], CONTEXT);
}
