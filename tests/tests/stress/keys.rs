//! Keys and clocks that change while requests are on their way. What is sealed and how it can be altered is tested in
//! `protocol/tests/sealed.rs`; this is what an enclave makes of it.

use std::time::Duration;

use cocoon_attestation::UnixTime;
use cocoon_protocol::wire::{self, EnclaveEvidence};

use super::enclave::{Enclave, in_turn, long, reply};
use super::world::{BEACON_TIME, Client, claims};

#[test]
fn a_request_sealed_to_another_enclave_is_refused_and_can_still_be_sent_to_its_own() {
    let _turn = in_turn();
    let (own, other) = (Enclave::shared(), Enclave::start(""));
    let client = Client::new(&own.evidence, 100);
    let mut sealed = client.chat(&own.evidence, "");
    assert_eq!(other.post(&sealed).status, 421, "it names the evidence of another");
    let evidence_id = std::mem::replace(&mut sealed.evidence_id, client.chat(&other.evidence, "").evidence_id);
    assert_eq!(other.post(&sealed).status, 400, "whatever it names, it does not open");
    assert_eq!(other.receipt(&client), None);
    sealed.evidence_id = evidence_id;
    assert_eq!(own.ask(sealed).receipt.unwrap().receipt.settlement.receipt.sequence, 1);
}

#[test]
fn keys_are_replaced_under_requests_on_their_way_and_open_nothing_after_their_time() {
    let enclave = Enclave::start("key_lifetime = 1\nkey_overlap = 1\n");
    let first = &enclave.evidence;
    let client = Client::new(first, 101);
    let mut running = client.chat(first, &long(300));
    let mut stream = enclave.send(&running);
    let (on_its_way, too_late) = (client.chat(first, r#","max_tokens":4"#), client.chat(first, ""));
    let second = enclave.attest(8, BEACON_TIME + 1);
    assert_ne!(first.key_statement.statement.key_config, second.key_statement.statement.key_config);
    assert_eq!(claims(first).enclave_key, claims(&second).enclave_key);
    enclave.ask(on_its_way).receipt.expect("sealed before the key was replaced");
    let answer = running.open(&reply(&mut stream));
    let receipt = answer.receipt.expect("what was running runs to its end");
    let id = first.key_statement.statement.evidence_id;
    assert_eq!(
        receipt.verify(&claims(first).enclave_key).unwrap().evidence_id,
        id,
        "under the evidence it was asked by"
    );

    std::thread::sleep(Duration::from_millis(4_100));
    assert_eq!(enclave.post(&too_late).status, 410, "its key has been replaced for longer than the overlap");
    let fetched = EnclaveEvidence::from_cbor(&enclave.get(wire::EVIDENCE_PATH).body).unwrap();
    assert_ne!(fetched.key_statement, second.key_statement, "there is a new key without being asked for");
    enclave.ask(client.chat(&fetched, r#","max_tokens":4"#)).receipt.expect("sealed to the new key");
    let third = enclave.attest(9, BEACON_TIME + 2);
    assert_eq!(enclave.post(&client.chat(first, "")).status, 421, "evidence before the last is nobody's any more");
    enclave.ask(client.chat(&third, r#","max_tokens":4"#)).receipt.expect("sealed under the newest evidence");
}

#[test]
fn a_host_that_names_an_old_block_does_not_bring_old_promises_back() {
    let enclave = Enclave::start("");
    let mut client = Client::new(&enclave.evidence, 102);
    client.voucher.expiry = UnixTime(BEACON_TIME - 100);
    let ask = |evidence: &EnclaveEvidence| {
        let answer = enclave.ask(client.chat(evidence, ""));
        (answer.head.status, answer.json()["error"]["code"].as_str().map(str::to_owned))
    };
    let refused = (402, Some("voucher_refused".to_owned()));
    assert_eq!(ask(&enclave.evidence), refused);
    let back = enclave.attest(6, BEACON_TIME - 86_000);
    assert!(back.key_statement.statement.not_before >= UnixTime(BEACON_TIME), "its clock goes on");
    assert_eq!(ask(&back), refused);
    client.voucher.expiry = UnixTime(BEACON_TIME + 3_600);
    enclave.ask(client.chat(&back, "")).receipt.expect("a promise that holds");
}
