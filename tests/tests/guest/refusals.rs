//! What the guest refuses, each case one step from a request that it takes.

use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_settlement::Nanoton;

use super::world::{BEACON_TIME, Client, Guest, Sealed};

/// Status and code of a refusal inside the seal.
fn refused(sealed: &mut Sealed) -> (u16, String) {
    let (guest, _) = Guest::shared();
    let answer = sealed.open(&guest.post(sealed));
    assert!(answer.receipt.is_none() && answer.settlement.is_none(), "a refusal is free");
    (answer.head.status, answer.json()["error"]["code"].as_str().unwrap().to_owned())
}

#[test]
fn nothing_is_served_before_an_attestation() {
    let guest = Guest::start();
    assert_eq!(guest.http("GET", "/v1/evidence", &[], b"").status, 503);
    let (_, evidence) = Guest::shared();
    let sealed = Client::new(evidence, 30).chat(evidence, "");
    assert_eq!(guest.post(&sealed).status, 503);
}

#[test]
fn the_door_has_no_other_rooms_and_says_nothing() {
    let (guest, _) = Guest::shared();
    for (method, path) in [("GET", "/"), ("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/metrics")] {
        let reply = guest.http(method, path, &[], b"{}");
        assert_eq!((reply.status, reply.body.len()), (404, 0), "{method} {path}");
    }
}

#[test]
fn a_replayed_request_is_refused() {
    let (guest, evidence) = Guest::shared();
    let sealed = Client::new(evidence, 31).chat(evidence, "");
    assert_eq!(guest.post(&sealed).status, 200);
    let again = guest.post(&sealed);
    assert_eq!((again.status, again.body.len()), (409, 0));
}

#[test]
fn a_flipped_bit_is_refused() {
    let (guest, evidence) = Guest::shared();
    let mut sealed = Client::new(evidence, 32).chat(evidence, "");
    let last = sealed.body.len() - 1;
    sealed.body[last] ^= 1;
    assert_eq!(guest.post(&sealed).status, 400);
}

#[test]
fn a_request_without_or_for_another_enclave_is_refused_before_it_is_opened() {
    let (guest, evidence) = Guest::shared();
    let mut sealed = Client::new(evidence, 33).chat(evidence, "");
    sealed.evidence_id = "00".repeat(32);
    assert_eq!(guest.post(&sealed).status, 421);
    let mut sealed = Client::new(evidence, 33).chat(evidence, "");
    sealed.voucher.clear();
    assert_eq!(guest.post(&sealed).status, 401);
}

#[test]
fn what_can_cost_more_than_the_voucher_allows_is_refused_and_says_how_much_it_takes() {
    let (guest, evidence) = Guest::shared();
    let mut client = Client::new(evidence, 34);
    client.voucher.cap = Nanoton(60);
    let mut sealed = client.chat(evidence, r#","max_tokens":40"#);
    let answer = sealed.open(&guest.post(&sealed));
    assert_eq!((answer.head.status, answer.json()["error"]["code"].as_str()), (402, Some("voucher_cap_reached")));
    let least = answer.json()["error"]["least_cap_nanoton"].as_u64().expect("the least cap");
    assert!(least > 60 && answer.receipt.is_none());
    client.voucher.cap = Nanoton(least - 1);
    assert_eq!(refused(&mut client.chat(evidence, r#","max_tokens":40"#)), (402, "voucher_cap_reached".into()));
    client.voucher.cap = Nanoton(least);
    let mut sealed = client.chat(evidence, r#","max_tokens":40"#);
    let receipt = sealed.open(&guest.post(&sealed)).receipt.expect("it fits").receipt;
    assert!(receipt.charge <= Nanoton(least));
    // It ends by itself or after the 40 tokens that were asked for, as without a cap.
    assert!(receipt.finish_reason == "stop" || receipt.tokens.completion == 40, "nothing made it shorter");
}

#[test]
fn a_voucher_that_does_not_fit_is_refused() {
    type Alteration = (&'static str, fn(&mut Client));
    let (_, evidence) = Guest::shared();
    let alterations: [Alteration; 4] = [
        ("another enclave's", |client| client.voucher.enclave_key = EnclaveKey([9; 32])),
        ("expired", |client| client.voucher.expiry = UnixTime(BEACON_TIME - 1)),
        ("of another channel", |client| client.channel.salt = [0xee; 32]),
        ("of a channel that closes too soon", |client| {
            client.channel.close_delay = 60;
            client.voucher.channel = client.channel.address();
        }),
    ];
    for (what, alter) in alterations {
        let mut client = Client::new(evidence, 35);
        alter(&mut client);
        assert_eq!(refused(&mut client.chat(evidence, "")), (402, "voucher_refused".into()), "a voucher {what}");
    }
}

#[test]
fn a_voucher_exchanged_on_the_way_is_refused() {
    let (_, evidence) = Guest::shared();
    let mut client = Client::new(evidence, 36);
    let mut sealed = client.chat(evidence, "");
    client.voucher.cap = Nanoton(2_000_000_000);
    sealed.voucher = client.chat(evidence, "").voucher;
    assert_eq!(refused(&mut sealed), (402, "voucher_refused".into()));
}

#[test]
fn what_the_engine_would_ignore_and_unknown_models_are_refused_by_name() {
    let (_, evidence) = Guest::shared();
    let client = Client::new(evidence, 37);
    assert_eq!(refused(&mut client.chat(evidence, r#","store":true"#)), (400, "unsupported_parameter".into()));
    let mut sealed = client.seal(
        evidence,
        "POST",
        "/v1/chat/completions",
        r#"{"model":"gpt","messages":[{"role":"user","content":"x"}]}"#,
    );
    assert_eq!(refused(&mut sealed), (404, "model_not_found".into()));
    let mut sealed = client.seal(evidence, "POST", "/v1/chat/completions", "{");
    assert_eq!(refused(&mut sealed), (400, "invalid_value".into()));
    let mut sealed = client.seal(evidence, "GET", "/v1/files", "");
    assert_eq!(refused(&mut sealed), (404, "unknown_path".into()));
}

#[test]
fn a_prompt_that_fills_the_context_is_refused() {
    let (_, evidence) = Guest::shared();
    let long = "word ".repeat(3_000);
    let body = format!(r#"{{"model":"cocoon-demo","messages":[{{"role":"user","content":"{long}"}}]}}"#);
    let mut sealed = Client::new(evidence, 38).seal(evidence, "POST", "/v1/chat/completions", &body);
    assert_eq!(refused(&mut sealed), (400, "context_length_exceeded".into()));
}
