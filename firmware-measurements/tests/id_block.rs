//! Identity blocks and what carries their signatures, against AMD's layout and the `sev` crate's files.

mod common;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use cocoon_attestation::Measurement;
use cocoon_firmware_measurements::id_block::{IdAuthentication, IdBlock, PublicKey, Signature};
use common::{read, vectors};

#[test]
fn a_block_has_its_fields_where_the_specification_puts_them() {
    let block = IdBlock {
        launch_digest: Measurement([1; 48]),
        family_id: [2; 16],
        image_id: [3; 16],
        guest_svn: 0x0405_0607,
        policy: 0x3_0000,
    };
    let bytes = block.to_bytes();
    assert_eq!(bytes[..48], [1; 48]);
    assert_eq!(bytes[48..64], [2; 16]);
    assert_eq!(bytes[64..80], [3; 16]);
    assert_eq!(bytes[80..], [1, 0, 0, 0, 7, 6, 5, 4, 0, 0, 3, 0, 0, 0, 0, 0]);
}

#[test]
fn keys_of_other_forms_are_refused() {
    for point in [&[][..], &[4; 96], &[2; 97], &[4; 98]] {
        assert!(PublicKey::from_point(point).is_err(), "{}", point.len());
    }
}

/// Two numbers of 72 little-endian bytes, as big-endian ones of 48.
fn numbers(bytes: &[u8]) -> Vec<u8> {
    let number = |at: usize| bytes[at..at + 48].iter().rev().copied();
    number(0).chain(number(72)).collect()
}

#[test]
fn the_files_of_the_sev_crate_are_made_again() {
    let Some(folder) = vectors() else { return };
    let [expected, id, author] = ["test_auth_block.bin", "test_id_sig.bin", "test_auth_sig.bin"]
        .map(|name| read(&folder, &format!("snp/sev-crate/{name}")));
    let point = |at: usize| [vec![4], numbers(&expected[at + 4..])].concat();
    let (key, author_key) =
        (PublicKey::from_point(&point(0x240)).unwrap(), PublicKey::from_point(&point(0x880)).unwrap());
    let signature = |bytes: &[u8]| Signature(numbers(bytes).try_into().unwrap());
    let made = IdAuthentication {
        key: key.clone(),
        signature: signature(&id),
        author: Some((author_key, signature(&author))),
    };
    assert_eq!(made.to_bytes()[..], expected[..]);
    // The author really signed the other key as it stands there.
    let verified =
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point(0x880)).verify(&key.to_bytes(), &numbers(&author));
    assert!(verified.is_ok());
}
