//! Signed cells equal the published vectors, which the contracts' own tests build independently with `@ton/core`.

use std::path::Path;

use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use cocoon_settlement::cells::{CheckpointAnchor, SettlementReceipt, Verdict, Voucher};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId, Prices};
use serde_json::Value;

const BIG: u64 = 0xfedc_ba98_7654_3210;

fn voucher() -> Voucher {
    Voucher {
        network: NetworkId::LOCAL,
        channel: Address::basechain([0xc1; 32]),
        enclave_key: EnclaveKey([0xe1; 32]),
        cap: Nanoton(BIG),
        prices: Prices { prompt: 1, cached: 2, completion: 3, reasoning: u64::MAX },
        expiry: UnixTime(0xffff_fffe),
    }
}

fn receipt() -> SettlementReceipt {
    SettlementReceipt {
        network: NetworkId::LOCAL,
        provider: Address { workchain: -1, hash: [0xb1; 32] },
        channel: Address::basechain([0xc1; 32]),
        enclave_key: EnclaveKey([0xe1; 32]),
        sequence: BIG,
        total: Nanoton(0x0123_4567_89ab_cdef),
        time: UnixTime(1_800_000_000),
    }
}

fn verdict() -> Verdict {
    Verdict {
        network: NetworkId::TESTNET,
        registry: Address::basechain([0xa1; 32]),
        provider: Address::basechain([0xb1; 32]),
        enclave_key: EnclaveKey([0xe1; 32]),
        evidence_id: Digest([0x11; 32]),
        image: Digest([0x22; 32]),
        model_root: Digest([0x33; 32]),
        generation: 7,
        until: UnixTime(1_800_086_400),
        expiry: UnixTime(1_800_003_600),
        set_epoch: 3,
    }
}

fn checkpoint() -> CheckpointAnchor {
    CheckpointAnchor {
        network: NetworkId::MAINNET,
        registry: Address::basechain([0xa1; 32]),
        origin: Digest([0x44; 32]),
        tree_size: BIG,
        root: Digest([0x55; 32]),
        time: UnixTime(1_800_000_000),
    }
}

fn vectors() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/cells.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

macro_rules! equals_vector {
    ($test:ident, $name:literal, $type:ident, $value:expr) => {
        #[test]
        fn $test() {
            let vectors = vectors();
            let vector = &vectors["cells"][$name];
            let (seed, key) = (bytes(&vectors["seed"]), bytes(&vectors["public_key"]));
            let value = $value;
            let boc = hex::decode(vector["boc"].as_str().unwrap()).unwrap();
            assert_eq!($type::from_boc(&boc).unwrap(), value);
            assert_eq!($type::from_boc(&value.to_boc()).unwrap(), value);
            assert_eq!(value.hash(), bytes(&vector["hash"]));
            let signature = value.sign(&seed).unwrap();
            assert_eq!(signature, bytes(&vector["signature"]));
            value.verify(&signature, &key).unwrap();

            let mut forged = signature;
            forged[0] ^= 1;
            assert!(matches!(value.verify(&forged, &key), Err(Error::Signature(_))));
        }
    };
}

equals_vector!(voucher_equals_its_vector, "voucher", Voucher, voucher());
equals_vector!(receipt_equals_its_vector, "settlement_receipt", SettlementReceipt, receipt());
equals_vector!(verdict_equals_its_vector, "verdict", Verdict, verdict());
equals_vector!(checkpoint_equals_its_vector, "checkpoint_anchor", CheckpointAnchor, checkpoint());

#[test]
fn one_kind_of_cell_is_not_read_as_another() {
    assert!(Voucher::from_cell(&receipt().to_cell()).is_err());
    assert!(SettlementReceipt::from_cell(&voucher().to_cell()).is_err());
    assert!(Verdict::from_cell(&checkpoint().to_cell()).is_err());
    assert!(CheckpointAnchor::from_cell(&verdict().to_cell()).is_err());
}

#[test]
fn a_signature_for_one_network_does_not_count_on_another() {
    let vectors = vectors();
    let signature = voucher().sign(&bytes(&vectors["seed"])).unwrap();
    let key = bytes(&vectors["public_key"]);
    voucher().verify(&signature, &key).unwrap();
    let elsewhere = Voucher { network: NetworkId::MAINNET, ..voucher() };
    assert!(elsewhere.verify(&signature, &key).is_err());
}

#[test]
fn bytes_that_are_no_cell_are_errors() {
    for bad in [&b""[..], b"cell", &voucher().to_boc()[..40]] {
        assert!(matches!(Voucher::from_boc(bad), Err(Error::Malformed { .. })));
    }
}
