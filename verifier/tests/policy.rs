//! The commented example is the strict default, and names every key.

use std::path::Path;

use cocoon_verifier::Policy;
use cocoon_verifier::policy::MinAbi;

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.example.toml");
    std::fs::read_to_string(path).expect("docs/policy.example.toml")
}

/// The example with the keys that it leaves out.
fn in_full() -> String {
    example().replace("#! ", "")
}

#[test]
fn the_example_is_the_strict_default() {
    assert_eq!(Policy::from_toml(&example()).expect("a policy"), Policy::default());
    assert_eq!(Policy::from_toml("").expect("a policy"), Policy::default());
}

#[test]
fn what_the_example_leaves_out_can_be_used() {
    let policy = Policy::from_toml(&in_full()).expect("a policy");
    assert_eq!(policy.tdx.min_tcb_evaluation, Some(17));
    assert_eq!(policy.tdx.min_qe_svn, Some(8));
    assert_eq!(policy.tdx.min_pce_svn, Some(13));
    assert_eq!(policy.tdx.allow_smt, Some(true));
    assert_eq!(policy.tdx.allow_cached_keys, Some(false));
    assert_eq!(policy.tdx.allow_dynamic_platform, Some(false));
    assert_eq!(policy.snp.allow_smt, Some(true));
    assert_eq!(policy.snp.min_tcb.map(|tcb| (tcb.bootloader, tcb.snp, tcb.microcode)), Some((4, 24, 219)));
    assert_eq!(policy.snp.min_launch_tcb.map(|tcb| (tcb.bootloader, tcb.snp, tcb.microcode)), Some((4, 24, 0)));
    assert_eq!(policy.snp.min_abi, Some(MinAbi { major: 1, minor: 51 }));
    assert_eq!(policy.snp.min_guest_svn, Some(1));
    assert_eq!(policy.snp.min_firmware.map(|least| (least.major, least.minor, least.build)), Some((1, 55, 21)));
    assert_eq!((policy.snp.allowed_platform_info, policy.snp.required_platform_info), (Some(0x3f), Some(0x20)));
    assert_eq!(policy.claims.max_beacon_age, Some(90_000));
}

#[test]
fn the_example_names_every_key() {
    let example: toml::Table = in_full().parse().expect("TOML");
    for (section, value) in [
        ("tdx", format!("{:#?}", Policy::default().tdx)),
        ("snp", format!("{:#?}", Policy::default().snp)),
        ("claims", format!("{:#?}", Policy::default().claims)),
        ("gpu", format!("{:#?}", Policy::default().gpu)),
    ] {
        let keys: Vec<_> = value.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": ")).collect();
        assert!(!keys.is_empty());
        for (key, _) in keys.into_iter().filter(|(key, _)| !key.starts_with(' ')) {
            assert!(example[section].get(key).is_some(), "{section}.{key} is not in the example");
        }
    }
}

#[test]
fn a_key_that_is_unknown_or_has_another_shape_is_refused() {
    for text in [
        "allow_debug = true",
        "[tdx]\nallow_debugging = false",
        "[tdx]\nmrtd = [\"00\"]",
        "[tdx]\naccept_status = \"UpToDate\"",
        "[tdx]\naccept_status = [\"uptodate\"]",
        "[tdx]\naccept_status = [\"Revoked\"]",
        "[snp]\nmin_tcb = { ucode = 1 }",
        "roots = [\"00\"]",
    ] {
        assert!(Policy::from_toml(text).is_err(), "{text}");
    }
}
