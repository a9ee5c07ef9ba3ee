//! Receipts that contradict themselves or are signed by another are refused; amounts are rounded as stated.

use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_protocol::Error;
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::{FullReceipt, SignedFullReceipt, SignedSettlementReceipt, TokenCounts};
use cocoon_settlement::cells::SettlementReceipt;
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices};

const PRICES: Prices = Prices { prompt: 500_000, cached: 100_000, completion: 2_000_000, reasoning: 3_000_000 };

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32]).unwrap()
}

fn settlement(signer: &SigningKey) -> SignedSettlementReceipt {
    let receipt = SettlementReceipt {
        network: NetworkId::LOCAL,
        provider: Address { workchain: 0, hash: [1; 32] },
        channel: Address { workchain: 0, hash: [2; 32] },
        enclave_key: signer.enclave_key(),
        sequence: 1,
        total: Nanoton(100),
        time: UnixTime(5),
    };
    SignedSettlementReceipt::sign(receipt, signer).unwrap()
}

fn receipt(alter: impl FnOnce(&mut FullReceipt)) -> SignedFullReceipt {
    let tokens = TokenCounts { prompt: 3, cached: 1, completion: 5, reasoning: 2 };
    let mut receipt = FullReceipt {
        salt: [3; 32],
        request_digest: Digest([4; 32]),
        response_digest: Digest([5; 32]),
        tokens,
        prices: PRICES,
        charge: tokens.charge(&PRICES).unwrap(),
        model_root: Digest([6; 32]),
        evidence_id: EvidenceId(Digest([7; 32])),
        finish_reason: "stop".into(),
        settlement: settlement(&key(1)),
    };
    alter(&mut receipt);
    receipt.sign(&key(1))
}

#[test]
fn charges_are_rounded_up_once() {
    let charge = |prompt, cached, completion, reasoning| {
        TokenCounts { prompt, cached, completion, reasoning }.charge(&PRICES).unwrap()
    };
    assert_eq!(charge(0, 0, 0, 0), Nanoton(0));
    assert_eq!(charge(1, 0, 0, 0), Nanoton(1), "half a nanoton is one");
    assert_eq!(charge(1, 1, 0, 0), Nanoton(1), "0.6: the sum is rounded, not its parts");
    assert_eq!(charge(3, 1, 5, 2), Nanoton(18), "1.5 + 0.1 + 10 + 6");
}

#[test]
fn a_good_receipt_is_believed_and_survives_the_trailer() {
    let signed = receipt(|_| {});
    let read = SignedFullReceipt::from_trailer(&signed.to_trailer()).unwrap();
    assert_eq!(read, signed);
    read.verify(&key(1).enclave_key()).unwrap();
}

#[test]
fn each_contradiction_is_refused() {
    let enclave = key(1).enclave_key();
    assert!(matches!(receipt(|_| {}).verify(&key(2).enclave_key()), Err(Error::Signature(_))), "another signer");
    let more = receipt(|receipt| receipt.charge = Nanoton(19));
    assert!(matches!(more.verify(&enclave), Err(Error::Receipt(_))), "a charge that its tokens do not make");
    let foreign = receipt(|receipt| receipt.settlement = settlement(&key(2)));
    assert!(matches!(foreign.verify(&enclave), Err(Error::Receipt(_))), "another enclave's settlement receipt");
    let forged = receipt(|receipt| receipt.settlement.signature[0] ^= 1);
    assert!(matches!(forged.verify(&enclave), Err(Error::Signature(_))), "a forged settlement receipt");
    let mut altered = receipt(|_| {});
    altered.receipt.tokens.completion += 1;
    assert!(matches!(altered.verify(&enclave), Err(Error::Signature(_))), "altered after signing");
}
