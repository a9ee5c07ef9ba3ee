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
    assert_eq!(policy.tdx.min_tee_tcb_svn.map(|svn| svn.0[..4].to_vec()), Some(vec![7, 1, 3, 0]));
    assert_eq!((policy.snp.allowed_guest_policy, policy.snp.required_guest_policy), (Some(0x1f3_0000), Some(0x2_0000)));
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

#[test]
fn rules_over_events_that_could_not_be_believed_are_refused() {
    let fault = |rule: &str| Policy::from_toml(&format!("[tdx]\nevents = [{rule}]")).expect_err(rule).to_string();
    assert!(fault("{ register = 4 }").contains("registers 0 to 3"));
    assert!(fault(r#"{ register = 2, data = "x" }"#).contains("measured_data"));
    assert!(fault("{ register = 2, digests = [] }").contains("digests"), "an unknown key");
    assert_eq!(Policy::from_toml(&in_full()).expect("a policy").tdx.events.len(), 3);
}

#[test]
fn trusted_keys_become_the_digests_that_reports_state() {
    // A key made for this test; its digest was computed by another program from AMD's description of the format.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEnkINPhdIamFiU4/nUWdGqaL5biZoTLXo\n\
        H9l0ni0P8eyTxf3XtSHRvnX/CY2YxLdwHs41f3ds73aWPiTlv+EZ9aUaFm3C4FdB\n\
        RUIzrmrHH2Ib5sDYwbs4txN9o5mdYzhh\n-----END PUBLIC KEY-----\n";
    const DIGEST: &str =
        "487fdedfbb9c66db88151c95d31faefcea1be20eb7a9037c4272860b4bf7934fef749db65e5e2d3909c3af665b16bbc7";
    let read = |key: &str| Policy::from_toml(&format!("[snp]\ntrusted_id_keys = [\"\"\"{key}\"\"\"]"));
    let policy = read(KEY).expect("a policy");
    assert_eq!(policy.snp.trusted_id_keys.iter().map(|key| hex::encode(key.0)).collect::<Vec<_>>(), [DIGEST]);
    for bad in ["", "00", &KEY.replace("MHYw", "MHYx"), &KEY.replace("BEGIN PUBLIC", "BEGIN PRIVATE")] {
        assert!(read(bad).expect_err("no key").to_string().contains("PEM of a P-384 public key"));
    }
}
