//! Every number a policy can ask for, at its edge and one beyond; every value a result reports, equal to what was signed.

mod common;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cocoon_attestation::dev::{CollateralSpec, SnpEndorsementSpec, SnpSpec, SnpTcb, TdxSpec};
use cocoon_attestation::{SnpEndorsements, UnixTime};
use cocoon_verifier::policy::{Hex, MinAbi, MinFirmware, MinTcb};
use cocoon_verifier::{Appraisal, Outcome, Policy, appraise_snp, appraise_tdx};
use common::{AT, accepted, collateral, only, platform, policy, unchecked};

/// AMD's part of the chain is made with RSA, which takes its time.
fn chain() -> &'static SnpEndorsements {
    static CHAIN: LazyLock<SnpEndorsements> =
        LazyLock::new(|| platform().snp_endorsements(&SnpEndorsementSpec::default()));
    &CHAIN
}

fn tdx(spec: &TdxSpec, collateral: &CollateralSpec, policy: &Policy) -> Appraisal {
    let platform = platform();
    appraise_tdx(&platform.tdx_quote(spec), &platform.tdx_collateral(collateral), policy, AT)
}

fn snp(spec: &SnpSpec, policy: &Policy) -> Appraisal {
    let chain = chain();
    appraise_snp(&platform().snp_report(spec), &chain.vek, &chain.ca, chain.crl.as_deref(), policy, AT)
}

fn detail<'a>(result: &'a Appraisal, id: &str) -> &'a str {
    result.check(id).map(|check| &*check.detail).unwrap_or_default()
}

/// Different bytes, none of them zero, in each field.
fn fill<const N: usize>(field: u8) -> [u8; N] {
    std::array::from_fn(|n| field.wrapping_mul(29).wrapping_add(n as u8) | 1)
}

fn distinct_tdx() -> TdxSpec {
    let mut spec = TdxSpec::default();
    spec.body.mr_seam = fill(1);
    spec.body.mr_td = fill(2);
    spec.body.mr_config_id = fill(3);
    spec.body.mr_owner = fill(4);
    spec.body.mr_owner_config = fill(5);
    spec.body.rtmr = [fill(6), fill(7), fill(8), fill(9)];
    spec.body.report_data = fill(10);
    spec
}

fn distinct_snp() -> SnpSpec {
    SnpSpec {
        family_id: fill(1),
        image_id: fill(2),
        report_data: fill(3),
        measurement: fill(4),
        host_data: fill(5),
        id_key_digest: fill(6),
        author_key_digest: fill(7),
        report_id: fill(8),
        ..SnpSpec::default()
    }
}

#[test]
fn tdx_results_report_what_the_quote_says() {
    let spec = distinct_tdx();
    let result = tdx(&spec, &collateral(), &policy());
    accepted(&result);
    let body = &spec.body;
    let expected: BTreeMap<_, _> = [
        ("tdx.mrtd", hex::encode(body.mr_td)),
        ("tdx.rtmr0", hex::encode(body.rtmr[0])),
        ("tdx.rtmr1", hex::encode(body.rtmr[1])),
        ("tdx.rtmr2", hex::encode(body.rtmr[2])),
        ("tdx.rtmr3", hex::encode(body.rtmr[3])),
        ("tdx.mrseam", hex::encode(body.mr_seam)),
        ("tdx.tee-tcb-svn", hex::encode(body.tee_tcb_svn)),
        ("tdx.td-attributes", hex::encode(body.td_attributes)),
        ("tdx.xfam", hex::encode(body.xfam)),
        ("tdx.mrconfigid", hex::encode(body.mr_config_id)),
        ("tdx.mrowner", hex::encode(body.mr_owner)),
        ("tdx.mrownerconfig", hex::encode(body.mr_owner_config)),
        ("tdx.report-data", hex::encode(body.report_data)),
        ("tdx.fmspc", hex::encode(spec.pck.fmspc)),
        ("tdx.tcb-evaluation", "20".into()),
        ("tdx.qe-svn", "4".into()),
        ("tdx.pce-svn", "13".into()),
    ]
    .into_iter()
    .map(|(id, value)| (id.to_string(), value))
    .collect();
    let found: BTreeMap<_, _> = result.measurements.iter().map(|(id, value)| (id.to_string(), value.clone())).collect();
    for (id, value) in &expected {
        assert_eq!(found.get(id), Some(value), "{id}");
    }
    assert!(found.keys().all(|id| expected.contains_key(id) || id == "tdx.piid"), "{:?}", found.keys());
}

#[test]
fn snp_results_report_what_the_report_says() {
    let spec = distinct_snp();
    let result = snp(&spec, &policy());
    accepted(&result);
    for (id, value) in [
        ("snp.measurement", hex::encode(spec.measurement)),
        ("snp.host-data", hex::encode(spec.host_data)),
        ("snp.report-data", hex::encode(spec.report_data)),
        ("snp.report-id", hex::encode(spec.report_id)),
        ("snp.report-id-ma", hex::encode(spec.report_id_ma)),
        ("snp.chip-id", hex::encode(spec.chip_id)),
        ("snp.id-key-digest", hex::encode(spec.id_key_digest)),
        ("snp.author-key-digest", hex::encode(spec.author_key_digest)),
        ("snp.policy", spec.policy.to_string()),
        ("snp.platform-info", spec.platform_info.to_string()),
        ("snp.guest-svn", spec.guest_svn.to_string()),
        ("snp.vmpl", spec.vmpl.to_string()),
    ] {
        assert_eq!(result.measurements.get(id), Some(&value), "{id}");
    }
}

/// Accepted when the policy names the value, among others; refused when it names one that differs in one bit.
fn references<const N: usize>(
    appraise: impl Fn(&Policy) -> Appraisal,
    id: &str,
    value: [u8; N],
    set: impl Fn(&mut Policy, Vec<Hex<N>>),
) {
    let mut named = policy();
    set(&mut named, vec![Hex([0xee; N]), Hex(value)]);
    let result = appraise(&named);
    accepted(&result);
    assert!(!unchecked(&result, id), "{id}");
    for n in [0, N - 1] {
        let mut other = value;
        other[n] ^= 1;
        let mut policy = policy();
        set(&mut policy, vec![Hex(other)]);
        only(&appraise(&policy), id, Outcome::Refused);
    }
}

#[test]
fn tdx_values_are_compared_with_their_own_lists() {
    let spec = distinct_tdx();
    let (platform, body) = (platform(), spec.body.clone());
    let (quote, collateral) = (platform.tdx_quote(&spec), platform.tdx_collateral(&collateral()));
    let go = |policy: &Policy| appraise_tdx(&quote, &collateral, policy, AT);
    references(go, "tdx.mrtd", body.mr_td, |p, list| p.tdx.mrtd = list);
    references(go, "tdx.rtmr0", body.rtmr[0], |p, list| p.tdx.rtmr0 = list);
    references(go, "tdx.rtmr1", body.rtmr[1], |p, list| p.tdx.rtmr1 = list);
    references(go, "tdx.rtmr2", body.rtmr[2], |p, list| p.tdx.rtmr2 = list);
    references(go, "tdx.rtmr3", body.rtmr[3], |p, list| p.tdx.rtmr3 = list);
    references(go, "tdx.mrseam", body.mr_seam, |p, list| p.tdx.mrseam = list);
    references(go, "tdx.td-attributes", body.td_attributes, |p, list| p.tdx.td_attributes = list);
    references(go, "tdx.xfam", body.xfam, |p, list| p.tdx.xfam = list);
    references(go, "tdx.mrconfigid", body.mr_config_id, |p, list| p.tdx.mrconfigid = list);
    references(go, "tdx.mrowner", body.mr_owner, |p, list| p.tdx.mrowner = list);
    references(go, "tdx.mrownerconfig", body.mr_owner_config, |p, list| p.tdx.mrownerconfig = list);
    references(go, "tdx.report-data", body.report_data, |p, list| p.tdx.report_data = list);
    references(go, "tdx.fmspc", spec.pck.fmspc, |p, list| p.tdx.fmspc = list);
}

#[test]
fn snp_values_are_compared_with_their_own_lists() {
    let spec = distinct_snp();
    let (report, chain) = (platform().snp_report(&spec), chain());
    let go = |policy: &Policy| appraise_snp(&report, &chain.vek, &chain.ca, chain.crl.as_deref(), policy, AT);
    references(go, "snp.measurement", spec.measurement, |p, list| p.snp.measurement = list);
    references(go, "snp.host-data", spec.host_data, |p, list| p.snp.host_data = list);
    references(go, "snp.report-data", spec.report_data, |p, list| p.snp.report_data = list);
    references(go, "snp.id-key-digest", spec.id_key_digest, |p, list| p.snp.id_key_digest = list);
    references(go, "snp.author-key-digest", spec.author_key_digest, |p, list| p.snp.author_key_digest = list);
    references(go, "snp.family-id", spec.family_id, |p, list| p.snp.family_id = list);
    references(go, "snp.image-id", spec.image_id, |p, list| p.snp.image_id = list);
    references(go, "snp.report-id", spec.report_id, |p, list| p.snp.report_id = list);
    references(go, "snp.report-id-ma", spec.report_id_ma, |p, list| p.snp.report_id_ma = list);
    references(go, "snp.allowed-chip", spec.chip_id, |p, list| p.snp.chip_id = list);
}

/// What holds is accepted and no longer unchecked; what asks for one more is refused by this check alone.
fn edge(appraise: impl Fn(&Policy) -> Appraisal, id: &str, holds: impl Fn(&mut Policy), beyond: impl Fn(&mut Policy)) {
    let mut good = policy();
    holds(&mut good);
    let result = appraise(&good);
    accepted(&result);
    assert!(!unchecked(&result, id), "{id}");
    assert!(result.check(id).is_some(), "{id}");
    let mut bad = policy();
    beyond(&mut bad);
    only(&appraise(&bad), id, Outcome::Refused);
}

#[test]
fn tdx_minimums_hold_at_their_edge() {
    let go = |policy: &Policy| tdx(&TdxSpec::default(), &collateral(), policy);
    let number = |id: &str| go(&policy()).measurements[id].parse::<u32>().expect("a number");
    let evaluation = number("tdx.tcb-evaluation");
    edge(
        go,
        "tdx.tcb-evaluation",
        |p| p.tdx.min_tcb_evaluation = Some(evaluation),
        |p| p.tdx.min_tcb_evaluation = Some(evaluation + 1),
    );
    let qe = number("tdx.qe-svn") as u16;
    edge(go, "tdx.qe-svn", |p| p.tdx.min_qe_svn = Some(qe), |p| p.tdx.min_qe_svn = Some(qe + 1));
    let pce = number("tdx.pce-svn") as u16;
    edge(go, "tdx.pce-svn", |p| p.tdx.min_pce_svn = Some(pce), |p| p.tdx.min_pce_svn = Some(pce + 1));
    let svn = TdxSpec::default().body.tee_tcb_svn;
    for n in 0..16 {
        let mut more = svn;
        more[n] += 1;
        edge(
            go,
            "tdx.tee-tcb-svn",
            |p| p.tdx.min_tee_tcb_svn = Some(Hex(svn)),
            |p| p.tdx.min_tee_tcb_svn = Some(Hex(more)),
        );
    }
    // The common collateral was issued an hour before.
    edge(
        go,
        "tdx.collateral-age",
        |p| p.tdx.max_collateral_age = Some(3600),
        |p| p.tdx.max_collateral_age = Some(3599),
    );
    assert!(unchecked(&go(&policy()), "tdx.collateral-age"));
}

#[test]
fn every_td_attribute_is_judged() {
    for n in 0..64 {
        let mut spec = TdxSpec::default();
        spec.body.td_attributes = (1u64 << 28 | 1 << n).to_le_bytes();
        let result = tdx(&spec, &collateral(), &policy());
        match n {
            0..=7 => only(&result, "tdx.debug", Outcome::Refused),
            17 => only(&result, "tdx.service-td", Outcome::Refused),
            29 => only(&result, "tdx.migration", Outcome::Refused),
            16 | 27 | 28 | 30 | 31 | 62 | 63 => accepted(&result),
            _ => only(&result, "tdx.attributes", Outcome::Refused),
        }
    }
}

#[test]
fn tcb_status_and_advisories_are_told_as_they_are() {
    let good = tdx(&TdxSpec::default(), &collateral(), &policy());
    assert_eq!(detail(&good, "tdx.tcb-status"), "UpToDate");
    assert_eq!(detail(&good, "tdx.advisories"), "none applies");

    let mut spec = collateral();
    spec.tcb_info.tcb_levels[0].tcb_status = "SWHardeningNeeded".into();
    spec.tcb_info.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00002".into(), "INTEL-SA-00001".into()];
    let mut lenient = policy();
    lenient.tdx.accept_status.push("SWHardeningNeeded".into());
    lenient.tdx.accept_advisories = vec!["INTEL-SA-00001".into(), "INTEL-SA-00002".into()];
    let result = tdx(&TdxSpec::default(), &spec, &lenient);
    accepted(&result);
    assert_eq!(detail(&result, "tdx.tcb-status"), "SWHardeningNeeded, which the policy accepts");
    let told = "INTEL-SA-00001, INTEL-SA-00002 apply, each accepted by the policy";
    assert_eq!(detail(&result, "tdx.advisories"), told);

    lenient.tdx.accept_advisories.pop();
    let result = tdx(&TdxSpec::default(), &spec, &lenient);
    only(&result, "tdx.advisories", Outcome::Refused);
    assert!(detail(&result, "tdx.advisories").starts_with("INTEL-SA-00002 apply to this platform"));

    // A policy that does not name UpToDate accepts no platform at all.
    let mut none = policy();
    none.tdx.accept_status.clear();
    only(&tdx(&TdxSpec::default(), &collateral(), &none), "tdx.tcb-status", Outcome::Refused);
}

fn all(n: u8) -> MinTcb {
    MinTcb { fmc: 0, bootloader: n, tee: n, snp: n, microcode: n }
}

#[test]
fn snp_minimums_hold_at_their_edge() {
    let tcb = SnpTcb { fmc: None, bootloader: 3, tee: 4, snp: 5, microcode: 6 };
    // Reported is the certificate's; at launch it was another.
    let launched = SnpSpec { launch_tcb: tcb, ..SnpSpec::default() };
    let go = |policy: &Policy| snp(&launched, policy);
    let least = MinTcb { fmc: 0, bootloader: 3, tee: 4, snp: 5, microcode: 6 };
    for beyond in [
        MinTcb { bootloader: 4, ..all(0) },
        MinTcb { tee: 5, ..all(0) },
        MinTcb { snp: 6, ..all(0) },
        MinTcb { microcode: 7, ..all(0) },
    ] {
        edge(go, "snp.min-launch-tcb", |p| p.snp.min_launch_tcb = Some(least), |p| p.snp.min_launch_tcb = Some(beyond));
    }
    let reported = SnpSpec::default().reported_tcb;
    let least = MinTcb {
        fmc: 0,
        bootloader: reported.bootloader,
        tee: reported.tee,
        snp: reported.snp,
        microcode: reported.microcode,
    };
    for beyond in [
        MinTcb { bootloader: least.bootloader + 1, ..all(0) },
        MinTcb { tee: least.tee + 1, ..all(0) },
        MinTcb { snp: least.snp + 1, ..all(0) },
        MinTcb { microcode: least.microcode + 1, ..all(0) },
    ] {
        edge(go, "snp.min-tcb", |p| p.snp.min_tcb = Some(least), |p| p.snp.min_tcb = Some(beyond));
    }

    let old = SnpSpec { guest_svn: 7, policy: 0x3_0000 | 1 << 8 | 55, ..SnpSpec::default() };
    let go = |policy: &Policy| snp(&old, policy);
    edge(go, "snp.guest-svn", |p| p.snp.min_guest_svn = Some(7), |p| p.snp.min_guest_svn = Some(8));
    let abi = |major, minor| move |p: &mut Policy| p.snp.min_abi = Some(MinAbi { major, minor });
    edge(go, "snp.abi", abi(1, 55), abi(1, 56));
    edge(go, "snp.abi", abi(0, 99), abi(2, 0));
    let mut lenient = policy();
    lenient.snp.min_abi = Some(MinAbi { major: 1, minor: 0 });
    assert_eq!(detail(&go(&lenient), "snp.abi"), "the guest policy asks for ABI 1.55");
}

#[test]
fn both_firmware_versions_must_be_new_enough() {
    let version = |major: u8, minor: u8, build: u8| [build, minor, major];
    let least =
        |major, minor, build| move |p: &mut Policy| p.snp.min_firmware = Some(MinFirmware { major, minor, build });
    let spec =
        SnpSpec { current_firmware: version(1, 55, 21), committed_firmware: version(1, 55, 21), ..SnpSpec::default() };
    let go = |policy: &Policy| snp(&spec, policy);
    edge(go, "snp.firmware", least(1, 55, 21), least(1, 55, 22));
    edge(go, "snp.firmware", least(1, 54, 99), least(1, 56, 0));
    edge(go, "snp.firmware", least(0, 99, 99), least(2, 0, 0));
    assert!(unchecked(&go(&policy()), "snp.firmware"));
    // One that runs and is not committed is provisional; with that allowed, both are compared.
    for (current, committed) in [((1, 55, 22), (1, 55, 21)), ((1, 55, 21), (1, 55, 22))] {
        let (a, b) = (current, committed);
        let spec = SnpSpec {
            current_firmware: version(a.0, a.1, a.2),
            committed_firmware: version(b.0, b.1, b.2),
            ..SnpSpec::default()
        };
        only(&snp(&spec, &policy()), "snp.provisional-firmware", Outcome::Refused);
        let mut lenient = policy();
        lenient.snp.allow_provisional_firmware = true;
        least(1, 55, 21)(&mut lenient);
        accepted(&snp(&spec, &lenient));
        least(1, 55, 22)(&mut lenient);
        only(&snp(&spec, &lenient), "snp.firmware", Outcome::Refused);
    }
    // So is a TCB that is not committed.
    let mut spec = SnpSpec::default();
    spec.committed_tcb.microcode -= 1;
    only(&snp(&spec, &policy()), "snp.provisional-firmware", Outcome::Refused);
}

#[test]
fn every_guest_policy_bit_is_judged() {
    for n in 16..64 {
        let go = |policy: &Policy| snp(&SnpSpec { policy: 0x2_0000 | 1 << n, ..SnpSpec::default() }, policy);
        let result = go(&policy());
        match n {
            18 => only(&result, "snp.migration", Outcome::Refused),
            19 => only(&result, "snp.debug", Outcome::Refused),
            16..=25 => {
                accepted(&result);
                edge(
                    go,
                    "snp.guest-policy",
                    |p| p.snp.allowed_guest_policy = Some(0x2_0000 | 1 << n),
                    |p| p.snp.allowed_guest_policy = Some(!(1 << n)),
                );
                let another = if n == 25 { 24 } else { 25 };
                edge(
                    go,
                    "snp.guest-policy",
                    |p| p.snp.required_guest_policy = Some(1 << n),
                    |p| p.snp.required_guest_policy = Some(1 << n | 1 << another),
                );
            }
            _ => only(&result, "snp.policy", Outcome::Refused),
        }
    }
    only(&snp(&SnpSpec { policy: 0, ..SnpSpec::default() }, &policy()), "snp.policy", Outcome::Refused);
    // The lower half is the ABI version, not bits.
    let old = SnpSpec { policy: 0x2_0000 | 0x137, ..SnpSpec::default() };
    let mut strict = policy();
    strict.snp.allowed_guest_policy = Some(0x2_0000);
    accepted(&snp(&old, &strict));
}

#[test]
fn mitigations_are_needed_at_launch_and_now() {
    for n in 0..64 {
        let bit = 1 << n;
        let with = |launch, current| SnpSpec {
            version: 5,
            launch_mitigations: launch,
            current_mitigations: current,
            ..SnpSpec::default()
        };
        let both = with(bit, bit);
        let another = 1 << ((n + 1) % 64);
        edge(
            |policy| snp(&both, policy),
            "snp.mitigations",
            |p| p.snp.required_mitigations = Some(bit),
            |p| p.snp.required_mitigations = Some(bit | another),
        );
        let mut demands = policy();
        demands.snp.required_mitigations = Some(bit);
        for lacking in [with(bit, 0), with(0, bit), SnpSpec { version: 3, ..both.clone() }] {
            only(&snp(&lacking, &demands), "snp.mitigations", Outcome::Refused);
        }
        let result = snp(&with(bit, another), &policy());
        assert!(unchecked(&result, "snp.mitigations"));
        assert_eq!(result.measurements["snp.launch-mitigations"], bit.to_string());
        assert_eq!(result.measurements["snp.current-mitigations"], another.to_string());
    }
    assert!(!snp(&SnpSpec::default(), &policy()).measurements.contains_key("snp.launch-mitigations"));
}

#[test]
fn platform_info_bits() {
    for n in 0..64 {
        let go = |policy: &Policy| snp(&SnpSpec { platform_info: 1 << n, ..SnpSpec::default() }, policy);
        let another = 1 << ((n + 1) % 64);
        edge(
            go,
            "snp.platform-info",
            |p| p.snp.allowed_platform_info = Some(1 << n),
            |p| p.snp.allowed_platform_info = Some(another),
        );
        edge(
            go,
            "snp.platform-info",
            |p| p.snp.required_platform_info = Some(1 << n),
            |p| p.snp.required_platform_info = Some(another),
        );
        assert!(unchecked(&go(&policy()), "snp.platform-info"));
    }
}

#[test]
fn switches_of_the_snp_policy() {
    let go = |spec: &SnpSpec, set: fn(&mut Policy)| {
        let mut policy = policy();
        set(&mut policy);
        snp(spec, &policy)
    };
    let base = SnpSpec::default();
    let smt = SnpSpec { policy: 0x3_0000, ..base.clone() };
    only(&go(&smt, |p| p.snp.allow_smt = Some(false)), "snp.smt", Outcome::Refused);
    accepted(&go(&smt, |p| p.snp.allow_smt = Some(true)));
    assert!(unchecked(&go(&smt, |_| {}), "snp.smt"));
    accepted(&go(&SnpSpec { policy: 0x2_0000, ..base.clone() }, |p| p.snp.allow_smt = Some(false)));

    for vmpl in 1..4 {
        only(&go(&SnpSpec { vmpl, ..base.clone() }, |_| {}), "snp.vmpl", Outcome::Refused);
        accepted(&go(&SnpSpec { vmpl, ..base.clone() }, |p| p.snp.max_vmpl = 3));
    }
    only(&go(&SnpSpec { vmpl: 2, ..base.clone() }, |p| p.snp.max_vmpl = 1), "snp.vmpl", Outcome::Refused);
    accepted(&go(&SnpSpec { vmpl: 1, ..base.clone() }, |p| p.snp.max_vmpl = 1));

    let several = SnpSpec { policy: 0x2_0000, ..base.clone() };
    only(&go(&several, |p| p.snp.require_single_socket = true), "snp.single-socket", Outcome::Refused);
    accepted(&go(&SnpSpec { policy: 0x12_0000, ..base.clone() }, |p| p.snp.require_single_socket = true));

    only(&go(&base, |p| p.snp.require_id_block = true), "snp.id-key", Outcome::Refused);
    let keyed = SnpSpec { id_key_digest: [1; 48], ..base.clone() };
    accepted(&go(&keyed, |p| p.snp.require_id_block = true));
    only(&go(&keyed, |p| p.snp.require_author_key = true), "snp.author-key", Outcome::Refused);
    let authored = SnpSpec { author_key_enabled: true, author_key_digest: [2; 48], ..keyed };
    accepted(&go(&authored, |p| p.snp.require_author_key = true));

    let agent = SnpSpec { report_id_ma: [0; 32], ..base.clone() };
    only(&go(&agent, |_| {}), "snp.migration", Outcome::Refused);
    accepted(&go(&agent, |p| p.snp.allow_migration = true));
}

#[test]
fn an_identity_block_is_trusted_by_its_key_or_by_its_author() {
    let go = |spec: &SnpSpec, keys: &[u8], authors: &[u8]| {
        let mut policy = policy();
        policy.snp.trusted_id_keys = keys.iter().map(|n| Hex([*n; 48])).collect();
        policy.snp.trusted_author_keys = authors.iter().map(|n| Hex([*n; 48])).collect();
        snp(spec, &policy)
    };
    let signed = SnpSpec { id_key_digest: [1; 48], author_key_digest: [2; 48], ..SnpSpec::default() };
    let authored = SnpSpec { author_key_enabled: true, ..signed.clone() };
    assert!(unchecked(&go(&signed, &[], &[]), "snp.id-block"));
    let told = |result: &Appraisal| {
        accepted(result);
        detail(result, "snp.id-block").to_string()
    };
    assert_eq!(told(&go(&signed, &[9, 1], &[])), "a trusted key signed the identity block");
    let vouched = "a trusted author vouches for the key of the identity block";
    assert_eq!(told(&go(&authored, &[], &[9, 2])), vouched);
    assert_eq!(told(&go(&authored, &[1], &[2])), "a trusted key signed the identity block");
    for (spec, keys, authors) in [
        (&signed, [9].as_slice(), [].as_slice()),
        // The digest of an author key that did not sign says nothing.
        (&signed, &[], &[2]),
        (&authored, &[2], &[1]),
        (&authored, &[9], &[9]),
    ] {
        only(&go(spec, keys, authors), "snp.id-block", Outcome::Refused);
    }
}

#[test]
fn collateral_expires_after_its_last_second() {
    let mut spec = collateral();
    spec.tcb_info.next_update = AT;
    accepted(&tdx(&TdxSpec::default(), &spec, &policy()));
    spec.tcb_info.next_update = UnixTime(AT.0 - 1);
    only(&tdx(&TdxSpec::default(), &spec, &policy()), "tdx.tcb-info", Outcome::Invalid);
}

/// Logs keep what an appraisal says once for all renewals of a guest, and nothing else is taken for it.
#[test]
fn renewals_are_recorded_in_the_same_bytes() {
    let quoted = |n| {
        let mut spec = distinct_tdx();
        spec.body.report_data = [n; 64];
        tdx(&spec, &collateral(), &policy())
    };
    let reported = |n| snp(&SnpSpec { report_data: [n; 64], report_id: [n; 32], ..distinct_snp() }, &policy());
    for (one, other) in [(quoted(1), quoted(2)), (reported(1), reported(2))] {
        assert_ne!(one, other);
        let recorded = one.clone().recorded();
        let json = |appraisal: &Appraisal| serde_json::to_string(appraisal).unwrap();
        assert_eq!(json(&recorded), json(&other.clone().recorded()));
        assert!(recorded.measurements.len() > 8 && recorded.measurements.len() < one.measurements.len());
        assert!(one.is_recorded_as(&recorded) && other.is_recorded_as(&recorded) && one.is_recorded_as(&one));
        assert!(!one.is_recorded_as(&other), "what is recorded of one evidence alone counts");
        let alterations: [fn(&mut Appraisal); 14] = [
            |r| r.schema.push('x'),
            |r| r.outcome = Outcome::Malformed,
            |r| r.reason.push('x'),
            |r| r.tcb_status = Some("other".into()),
            |r| r.advisories.push("INTEL-SA-1".into()),
            |r| drop(r.checks.pop()),
            |r| r.checks[0].detail = "other".into(),
            |r| drop(r.unchecked.pop()),
            |r| r.not_after = Some(UnixTime(1)),
            |r| r.development = !r.development,
            |r| drop(r.measurements.pop_first()),
            |r| drop(r.measurements.pop_last()),
            |r| drop(r.measurements.insert("a".into(), "1".into())),
            |r| r.measurements.first_entry().unwrap().get_mut().push('0'),
        ];
        for (n, alter) in alterations.into_iter().enumerate() {
            let mut altered = recorded.clone();
            alter(&mut altered);
            assert!(!one.is_recorded_as(&altered), "alteration {n}");
        }
    }
}
