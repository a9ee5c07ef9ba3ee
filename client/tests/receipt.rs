//! A receipt agrees with what was asked, promised and received, or it is refused.

use cocoon_attestation::{Beacon, Claims, Digest, EvidenceId, UnixTime};
use cocoon_client::talk::Expected;
use cocoon_client::{Appraised, Error};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::{FullReceipt, SignedSettlementReceipt, TokenCounts};
use cocoon_protocol::statement::KeyStatement;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::cells::{SettlementReceipt, Voucher};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices};

const PRICES: Prices = Prices { prompt: 1_000_000, cached: 0, completion: 2_000_000, reasoning: 0 };
const PROVIDER: Address = Address { workchain: 0, hash: [2; 32] };
const CHANNEL: Address = Address { workchain: 0, hash: [3; 32] };

fn key() -> SigningKey {
    SigningKey::from_seed(&[41; 32]).unwrap()
}

fn settle(alter: impl Fn(&mut SettlementReceipt)) -> SignedSettlementReceipt {
    let mut receipt = SettlementReceipt {
        network: NetworkId::LOCAL,
        provider: PROVIDER,
        channel: CHANNEL,
        enclave_key: key().enclave_key(),
        sequence: 2,
        total: Nanoton(60),
        time: UnixTime(5),
    };
    alter(&mut receipt);
    SignedSettlementReceipt::sign(receipt, &key()).unwrap()
}

fn good() -> FullReceipt {
    let salt = [6; 32];
    FullReceipt {
        salt,
        request_digest: FullReceipt::digest(&salt, b"request"),
        response_digest: FullReceipt::digest(&salt, b"response"),
        tokens: TokenCounts { prompt: 10, cached: 0, completion: 20, reasoning: 0 },
        prices: PRICES,
        charge: Nanoton(50),
        model_root: Digest([7; 32]),
        evidence_id: EvidenceId(Digest([8; 32])),
        finish_reason: "stop".into(),
        settlement: settle(|_| {}),
    }
}

fn verify(receipt: FullReceipt, signer: &SigningKey) -> Result<(), Error> {
    let evidence_id = EvidenceId(Digest([8; 32]));
    let claims = Claims {
        enclave_key: key().enclave_key(),
        provider: PROVIDER.into(),
        model_name: "demo".into(),
        model_root: Digest([7; 32]),
        config_digest: Digest::ZERO,
        beacon: Beacon { seqno: 1, root_hash: Digest::ZERO, time: UnixTime(1) },
        nonce_root: Digest::ZERO,
        gpu_digest: None,
    };
    let statement = KeyStatement { evidence_id, key_config: vec![], not_before: UnixTime(0), not_after: UnixTime(9) };
    let enclave =
        Appraised { evidence_id, claims, statement, prices: PRICES, development: true, gateway: String::new() };
    let voucher = Voucher {
        network: NetworkId::LOCAL,
        channel: CHANNEL,
        enclave_key: key().enclave_key(),
        cap: Nanoton(100),
        prices: PRICES,
        expiry: UnixTime(100),
    };
    let voucher = SignedVoucher::sign(voucher, &[31; 32]).unwrap();
    let expected = Expected { enclave: &enclave, voucher: &voucher, request: b"request", response: b"response" };
    expected.verify(&receipt.sign(signer)).map(|_| ())
}

#[test]
fn a_receipt_for_what_was_asked_and_received_holds() {
    verify(good(), &key()).unwrap();
}

#[test]
fn each_contradiction_is_refused_and_named() {
    type Alter = fn(&mut FullReceipt);
    let cases: &[(Alter, &str)] = &[
        (|r| r.request_digest.0[0] ^= 1, "another request"),
        (|r| r.response_digest.0[0] ^= 1, "another answer"),
        (|r| r.model_root.0[0] ^= 1, "another model"),
        (|r| r.evidence_id.0.0[0] ^= 1, "other evidence"),
        // A kind of which there were no tokens: the charge stays right.
        (|r| r.prices.reasoning = 1, "not the voucher's"),
        (|r| r.charge = Nanoton(51), "its tokens cost"),
        (|r| r.tokens.completion = 21, "its tokens cost"),
        (|r| r.settlement = settle(|s| s.network = NetworkId::TESTNET), "another network"),
        (|r| r.settlement = settle(|s| s.channel.hash[0] ^= 1), "another channel"),
        (|r| r.settlement = settle(|s| s.provider.hash[0] ^= 1), "another provider"),
        (|r| r.settlement = settle(|s| s.total = Nanoton(101)), "more than was promised"),
        (|r| r.settlement = settle(|s| s.total = Nanoton(49)), "less than its charge"),
        (|r| r.settlement = settle(|s| s.enclave_key.0[0] ^= 1), "another enclave's"),
        (|r| r.settlement.signature[0] ^= 1, "signature"),
    ];
    for (alter, why) in cases {
        let mut receipt = good();
        alter(&mut receipt);
        let Err(Error::Receipt(reason)) = verify(receipt, &key()) else { panic!("taken, though {why}") };
        assert!(reason.contains(why), "{reason} is not {why}");
    }
}

#[test]
fn a_receipt_that_another_key_signed_is_refused() {
    let stranger = SigningKey::from_seed(&[42; 32]).unwrap();
    assert!(matches!(verify(good(), &stranger), Err(Error::Receipt(_))));
}
