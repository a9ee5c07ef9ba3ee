//! Bytes from outside never panic a reader, and CBOR that is accepted is accepted in one encoding only.

use std::sync::OnceLock;

use cocoon_attestation::UnixTime;
use cocoon_protocol::frame::Decoder;
use cocoon_protocol::receipt::{SignedFullReceipt, SignedSettlementReceipt};
use cocoon_protocol::sealed::{ENC_LEN, HEADER_LEN, Receiver};
use cocoon_protocol::statement::SignedKeyStatement;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire::{AttestRequest, EnclaveEvidence};
use proptest::prelude::*;

const NOW: UnixTime = UnixTime(1_000);

fn vectors() -> &'static [Vec<u8>; 5] {
    static VECTORS: OnceLock<[Vec<u8>; 5]> = OnceLock::new();
    VECTORS.get_or_init(|| {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/vectors/protocol.json")).unwrap();
        ["key_statement", "settlement_receipt", "full_receipt", "attest_request", "enclave_evidence"]
            .map(|name| hex::decode(vectors[name].as_str().unwrap()).unwrap())
    })
}

fn read_all(bytes: &[u8]) {
    if let Ok(statement) = SignedKeyStatement::from_bytes(bytes) {
        assert_eq!(statement.to_bytes(), bytes);
    }
    if let Ok(request) = AttestRequest::from_cbor(bytes) {
        assert_eq!(request.to_cbor(), bytes);
    }
    if let Ok(evidence) = EnclaveEvidence::from_cbor(bytes) {
        assert_eq!(evidence.to_cbor(), bytes);
    }
    if let Ok(receipt) = SignedFullReceipt::from_bytes(bytes) {
        assert_eq!(SignedFullReceipt::from_bytes(&receipt.to_bytes()).unwrap(), receipt);
    }
    let _ = SignedSettlementReceipt::from_bytes(bytes);
    let _ = SignedVoucher::from_bytes(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = SignedVoucher::from_header(&text);
    let _ = SignedFullReceipt::from_trailer(&text);
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    while let Ok(Some(_)) = decoder.next_frame() {}
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        read_all(&bytes);
    }

    #[test]
    fn good_bytes_with_one_altered(which in 0usize..5, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = vectors()[which].clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        read_all(&bytes);
    }

    #[test]
    fn nothing_arbitrary_is_opened(tail in proptest::collection::vec(any::<u8>(), 0..ENC_LEN + 200)) {
        let receiver = Receiver::new();
        let key = receiver.rotate(NOW, 3_600, 60).unwrap();
        // The header of this receiver's own key, so that the bytes get past it.
        let mut sealed = vec![key.key_config[0], 0x64, 0x7a, 0, 1, 0, 1];
        prop_assert_eq!(sealed.len(), HEADER_LEN);
        sealed.extend(tail);
        prop_assert!(receiver.open(&sealed, NOW).is_err());
    }
}
