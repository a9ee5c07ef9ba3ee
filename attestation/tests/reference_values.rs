//! Reference-value files against `docs/vectors/reference-values.toml`, which another implementation signed.

use cocoon_attestation::{Digest, Measurement, ReferenceValues};

const SIGNED: &str = include_str!("../../docs/vectors/reference-values.toml");

fn signer() -> ([u8; 32], [u8; 32]) {
    let vector: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/vectors/reference-values.json")).unwrap();
    let key = |name: &str| vector[name].as_str().unwrap().parse::<Digest>().unwrap().0;
    (key("seed"), key("public_key"))
}

#[test]
fn the_vector_is_read_and_written_again_byte_for_byte() {
    let (seed, public) = signer();
    let values = ReferenceValues::from_signed(SIGNED, &[[0; 32], public]).unwrap();
    assert_eq!(values.image.digest, Digest([0x11; 32]));
    assert_eq!(values.tdx[0].mrtd, Measurement([0x22; 48]));
    assert_eq!(values.tdx[0].rtmrs(), [None, None, None, Some(Measurement([0x33; 48]))]);
    assert_eq!(values.snp[0].measurement, Measurement([0x44; 48]));
    assert_eq!((values.models[0].name.as_str(), values.models[0].root), ("demo", Digest([0x55; 32])));
    assert_eq!(values.to_signed(&seed).unwrap(), SIGNED);
    assert_eq!(ReferenceValues::from_toml(SIGNED).unwrap(), values, "the signature is a comment to TOML");
}

#[test]
fn one_wrong_thing_is_refused() {
    let (_, public) = signer();
    let refused =
        |text: &str, signers: &[[u8; 32]]| ReferenceValues::from_signed(text, signers).unwrap_err().to_string();
    assert!(refused(SIGNED, &[[0; 32]]).contains("none of the keys"), "another signer");
    assert!(refused(SIGNED, &[]).contains("none of the keys"), "nobody trusted");
    assert!(refused(&SIGNED.replacen("0.1.0", "0.1.1", 1), &[public]).contains("changed after"), "a changed version");
    assert!(refused(&SIGNED.replacen("[[snp]]", "\n[[snp]]", 1), &[public]).contains("changed after"), "a blank line");
    let unsigned = SIGNED.split_once("# signature").unwrap().0;
    assert!(refused(unsigned, &[public]).contains("no signature line"));
    assert!(refused(&format!("{SIGNED}extra = 1\n"), &[public]).contains("no signature line"), "a line behind");
    let twice = format!("{SIGNED}{}", &SIGNED[unsigned.len()..]);
    assert!(refused(&twice, &[public]).contains("changed after"), "the signature line does not cover itself");
}

#[test]
fn unknown_keys_and_schemas_are_refused() {
    assert!(ReferenceValues::from_toml(&SIGNED.replacen("rtmr3", "rtmr4", 1)).is_err());
    assert!(ReferenceValues::from_toml(&SIGNED.replacen("[[models]]", "[[model]]", 1)).is_err());
    let other = SIGNED.replacen("values/v1", "values/v2", 1);
    assert!(ReferenceValues::from_toml(&other).unwrap_err().to_string().contains("values/v2"));
    assert!(ReferenceValues::from_toml(&SIGNED.replacen("1111", "11", 1)).is_err(), "a short digest");
}
