//! `docs/vectors/protocol.json`, byte for byte: what is written today must be readable in ten years.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Beacon, Digest, EnclaveKey, EvidenceId, UnixTime};
use cocoon_protocol::announce::Announced;
use cocoon_protocol::auth;
use cocoon_protocol::frame::{Decoder, Frame};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::{FullReceipt, SignedFullReceipt, SignedSettlementReceipt, TokenCounts};
use cocoon_protocol::sealed::padme;
use cocoon_protocol::statement::{KeyStatement, SignedKeyStatement};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire::{Announcement, AttestRequest, EnclaveEvidence, LogInclusion, Refusal, SignedVerdict};
use cocoon_settlement::cells::{SettlementReceipt, Voucher};
use cocoon_settlement::contracts::channel::ChannelInit;
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices};
use serde_json::{Value, json};

const PROVIDER: Address = Address { workchain: 0, hash: [0x11; 32] };
const PRICES: Prices = Prices { prompt: 1_000_000, cached: 100_000, completion: 3_000_000, reasoning: 3_000_000 };

fn enclave() -> SigningKey {
    SigningKey::from_seed(&[0xe1; 32]).unwrap()
}

fn client() -> SigningKey {
    SigningKey::from_seed(&[0xc1; 32]).unwrap()
}

fn statement() -> SignedKeyStatement {
    KeyStatement {
        evidence_id: EvidenceId(Digest([0xee; 32])),
        key_config: vec![0xab; 8],
        not_before: UnixTime(1_800_000_000),
        not_after: UnixTime(1_800_003_600),
    }
    .sign(&enclave())
}

fn channel() -> ChannelInit {
    ChannelInit {
        network: NetworkId::LOCAL,
        provider: PROVIDER,
        owner: Address { workchain: 0, hash: [0x44; 32] },
        client: Address { workchain: 0, hash: [0x22; 32] },
        client_key: client().public(),
        close_delay: 259_200,
        salt: [0x33; 32],
    }
}

fn voucher() -> SignedVoucher {
    let voucher = Voucher {
        network: NetworkId::LOCAL,
        channel: Address { workchain: 0, hash: [0x44; 32] },
        enclave_key: enclave().enclave_key(),
        cap: Nanoton(1_000_000_000),
        prices: PRICES,
        expiry: UnixTime(1_800_003_600),
    };
    SignedVoucher::sign(voucher, client().seed()).unwrap()
}

fn settlement() -> SignedSettlementReceipt {
    let receipt = SettlementReceipt {
        network: NetworkId::LOCAL,
        provider: PROVIDER,
        channel: Address { workchain: 0, hash: [0x44; 32] },
        enclave_key: enclave().enclave_key(),
        sequence: 7,
        total: Nanoton(123_456),
        time: UnixTime(1_800_000_100),
    };
    SignedSettlementReceipt::sign(receipt, &enclave()).unwrap()
}

fn receipt() -> SignedFullReceipt {
    let tokens = TokenCounts { prompt: 16, cached: 0, completion: 26, reasoning: 0 };
    let salt = [0x55; 32];
    FullReceipt {
        salt,
        request_digest: FullReceipt::digest(&salt, b"a request"),
        response_digest: FullReceipt::digest(&salt, b"an answer"),
        tokens,
        prices: PRICES,
        charge: tokens.charge(&PRICES).unwrap(),
        model_root: Digest([0x66; 32]),
        evidence_id: EvidenceId(Digest([0xee; 32])),
        finish_reason: "stop".into(),
        settlement: settlement(),
    }
    .sign(&enclave())
}

fn attest_request() -> AttestRequest {
    let beacon = Beacon { seqno: 7, root_hash: Digest([0x77; 32]), time: UnixTime(1_800_000_000) };
    AttestRequest { beacon, nonce_root: Digest::ZERO }
}

fn evidence() -> EnclaveEvidence {
    EnclaveEvidence { bundle: b"bundle".to_vec(), key_statement: statement() }
}

fn announcement() -> Announcement {
    Announcement {
        evidence_id: EvidenceId(Digest([0xee; 32])).to_string(),
        host_url: "http://127.0.0.1:8002".into(),
        models: vec!["m".into()],
        provider: PROVIDER,
        prices: PRICES,
        bundle: STANDARD.encode(b"bundle"),
        key_statement: STANDARD.encode(statement().to_bytes()),
    }
}

/// By the owner of a provider, of the twelve bytes `announcement`.
fn announced() -> Announced {
    let owner = SigningKey::from_seed(&[0xb1; 32]).unwrap();
    Announced::sign(b"announcement", NetworkId::LOCAL, UnixTime(1_800_000_000), &owner)
}

fn verdict() -> SignedVerdict {
    let inclusion = LogInclusion {
        leaf_index: 1,
        leaf: STANDARD.encode(b"leaf"),
        tree_size: 2,
        hashes: vec!["aa".repeat(32)],
        checkpoint: "a log\n2\nroot\n\n\u{2014} a log signature\n".into(),
        consistency: vec!["bb".repeat(32)],
    };
    SignedVerdict { index: 1, verdict: STANDARD.encode(b"verdict"), signature: "99".repeat(64), inclusion }
}

fn refusal() -> Refusal {
    Refusal { error: "what is wrong".into(), what_to_do: "what to do".into() }
}

fn made() -> Value {
    let enc = [0x88; 1120];
    let headers: Vec<Value> = auth::headers(&enc, &voucher(), &channel(), &client())
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let padded = [100, 1_000, 100_000].map(|length| json!({"length": length, "padded": padme(length)}));
    json!({
        "enclave_key": EnclaveKey(enclave().public()).to_string(),
        "client_key": hex::encode(client().public()),
        "key_statement": hex::encode(statement().to_bytes()),
        "voucher_header": voucher().to_header(),
        "voucher_hash": hex::encode(voucher().hash()),
        "request_headers": headers,
        "settlement_receipt": hex::encode(settlement().to_bytes()),
        "full_receipt_trailer": receipt().to_trailer(),
        "announcement": announcement(),
        "announced": announced().to_header(),
        "signed_verdict": verdict(),
        "refusal": refusal(),
        "full_receipt": hex::encode(receipt().to_bytes()),
        "frame_sealed": hex::encode(Frame::Sealed(b"sealed".as_slice().into()).encode()),
        "frame_receipt": hex::encode(Frame::Receipt(b"receipt".as_slice().into()).encode()),
        "padme": padded,
        "attest_request": hex::encode(attest_request().to_cbor()),
        "enclave_evidence": hex::encode(evidence().to_cbor()),
    })
}

fn written() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/protocol.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn everything_is_written_as_it_was() {
    let written = written();
    for (name, value) in made().as_object().unwrap() {
        assert_eq!(written.get(name), Some(value), "{name}");
    }
}

#[test]
fn everything_that_was_written_is_read() {
    let written = written();
    let bytes = |name: &str| hex::decode(written[name].as_str().unwrap()).unwrap();
    assert_eq!(SignedKeyStatement::from_bytes(&bytes("key_statement")).unwrap(), statement());
    assert_eq!(SignedVoucher::from_header(written["voucher_header"].as_str().unwrap()).unwrap(), voucher());
    assert_eq!(SignedSettlementReceipt::from_bytes(&bytes("settlement_receipt")).unwrap(), settlement());
    let read = SignedFullReceipt::from_bytes(&bytes("full_receipt")).unwrap();
    assert_eq!(read, receipt());
    read.verify(&enclave().enclave_key()).unwrap();
    let trailer = written["full_receipt_trailer"].as_str().unwrap();
    assert_eq!(SignedFullReceipt::from_trailer(trailer).unwrap(), receipt());
    let json = |name: &str| written[name].clone();
    assert_eq!(serde_json::from_value::<Announcement>(json("announcement")).unwrap(), announcement());
    let header = Announced::from_header(written["announced"].as_str().unwrap()).unwrap();
    assert_eq!(header, announced());
    header.verify(b"announcement", NetworkId::LOCAL).unwrap();
    assert_eq!(serde_json::from_value::<SignedVerdict>(json("signed_verdict")).unwrap(), verdict());
    assert_eq!(serde_json::from_value::<Refusal>(json("refusal")).unwrap(), refusal());
    for (name, payload) in [("frame_sealed", "sealed"), ("frame_receipt", "receipt")] {
        let mut decoder = Decoder::new();
        decoder.push(&bytes(name));
        let (Frame::Sealed(read) | Frame::Receipt(read)) = decoder.next_frame().unwrap().unwrap();
        assert_eq!((read, decoder.is_whole()), (payload.into(), true));
    }
    assert_eq!(AttestRequest::from_cbor(&bytes("attest_request")).unwrap(), attest_request());
    assert_eq!(EnclaveEvidence::from_cbor(&bytes("enclave_evidence")).unwrap(), evidence());
}

#[test]
fn no_truncation_of_what_was_written_is_read() {
    let written = written();
    let bytes = |name: &str| hex::decode(written[name].as_str().unwrap()).unwrap();
    for end in 0..bytes("full_receipt").len() {
        assert!(SignedFullReceipt::from_bytes(&bytes("full_receipt")[..end]).is_err());
    }
    for end in 0..bytes("settlement_receipt").len() {
        assert!(SignedSettlementReceipt::from_bytes(&bytes("settlement_receipt")[..end]).is_err());
    }
    for end in 0..bytes("key_statement").len() {
        assert!(SignedKeyStatement::from_bytes(&bytes("key_statement")[..end]).is_err());
    }
    for end in 0..bytes("attest_request").len() {
        assert!(AttestRequest::from_cbor(&bytes("attest_request")[..end]).is_err());
    }
    for end in 0..bytes("enclave_evidence").len() {
        assert!(EnclaveEvidence::from_cbor(&bytes("enclave_evidence")[..end]).is_err());
    }
    let voucher = voucher().to_bytes();
    for end in 0..voucher.len() {
        assert!(SignedVoucher::from_bytes(&voucher[..end]).is_err());
    }
}

#[test]
fn the_document_shows_the_vectors() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let shown: String = std::fs::read_to_string(path).unwrap().split_whitespace().collect();
    let written = written();
    for name in [
        "key_statement",
        "voucher_header",
        "voucher_hash",
        "settlement_receipt",
        "full_receipt",
        "frame_sealed",
        "frame_receipt",
        "attest_request",
        "enclave_evidence",
    ] {
        assert!(shown.contains(written[name].as_str().unwrap()), "{name}");
    }
    assert!(shown.contains(written["request_headers"][0]["value"].as_str().unwrap()), "the request's signature");
    let announced: String = written["announced"].as_str().unwrap().split_whitespace().collect();
    assert!(shown.contains(&announced), "who announces");
    assert!(shown.contains(&written["record"]["record"].as_str().unwrap()[..32]), "the record");
}

/// `docs/schemas/wire.schema.json` names the keys that are written, all of them required.
#[test]
fn the_schema_names_every_key() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/wire.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let written = written();
    for (name, value) in [
        ("announcement", &written["announcement"]),
        ("prices", &written["announcement"]["prices"]),
        ("signed_verdict", &written["signed_verdict"]),
        ("log_inclusion", &written["signed_verdict"]["inclusion"]),
        ("refusal", &written["refusal"]),
    ] {
        let shape = &schema["$defs"][name];
        let required: BTreeSet<String> =
            shape["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().into()).collect();
        assert_eq!((keys(value), keys(value)), (keys(&shape["properties"]), required), "{name}");
    }
}
