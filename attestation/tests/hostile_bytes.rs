//! Bytes from outside never panic a decoder, and whatever is accepted is accepted in one encoding only.

use cocoon_attestation::tsm::CertTable;
use cocoon_attestation::{Bundle, Claims, EventLog, ReferenceValues};
use proptest::prelude::*;

fn vectors() -> Vec<Vec<u8>> {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../docs/vectors/evidence.json")).unwrap();
    let hex_of = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
    let mut found = vec![hex_of(&vectors["event_log"]["cbor"])];
    for list in ["claims", "bundles"] {
        found.extend(vectors[list].as_array().unwrap().iter().map(|vector| hex_of(&vector["cbor"])));
    }
    found
}

fn decode_all(bytes: &[u8]) {
    if let Ok(claims) = Claims::from_cbor(bytes) {
        assert_eq!(claims.to_cbor(), bytes);
    }
    if let Ok(bundle) = Bundle::from_cbor(bytes) {
        assert_eq!(bundle.to_cbor(), bytes);
    }
    if let Ok(log) = EventLog::from_cbor(bytes) {
        assert_eq!(log.to_cbor(), bytes);
        assert!(log.replay().is_ok());
    }
    let _ = CertTable::parse(bytes);
    let _ = ReferenceValues::from_signed(&String::from_utf8_lossy(bytes), &[[0; 32]]);
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        decode_all(&bytes);
    }

    #[test]
    fn good_bytes_with_one_altered_or_cut(which in 0usize..6, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = vectors()[which].clone();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        decode_all(&bytes);
    }
}

#[test]
fn the_unaltered_vectors_are_accepted() {
    let accepted = |bytes: &Vec<u8>| {
        Claims::from_cbor(bytes).is_ok() || Bundle::from_cbor(bytes).is_ok() || EventLog::from_cbor(bytes).is_ok()
    };
    assert_eq!(vectors().iter().filter(|bytes| accepted(bytes)).count(), 6);
}
