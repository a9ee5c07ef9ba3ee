//! SNP reports and certificates in which exactly one thing is wrong, and the one check that says so.

mod common;

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{SignedBy, SnpEndorsementSpec, SnpSpec, SnpTcb, serial};
use cocoon_verifier::policy::{Hex, MinAbi, MinTcb};
use cocoon_verifier::{Appraisal, CheckOutcome, Outcome, Policy, appraise_snp};
use common::{AT, accepted, only, platform, policy, unchecked};

fn appraise(report: &SnpSpec, endorsements: &SnpEndorsementSpec, policy: &Policy) -> Appraisal {
    let report = platform().snp_report(report);
    let chain = platform().snp_endorsements(endorsements);
    appraise_snp(&report, &chain.vek, &chain.ca, chain.crl.as_deref(), policy, AT)
}

/// Alters a good report.
fn report(alter: impl FnOnce(&mut SnpSpec)) -> Appraisal {
    let mut spec = SnpSpec::default();
    alter(&mut spec);
    appraise(&spec, &SnpEndorsementSpec::default(), &policy())
}

/// Alters good endorsements.
fn endorsed(alter: impl FnOnce(&mut SnpEndorsementSpec)) -> Appraisal {
    let mut spec = SnpEndorsementSpec::default();
    alter(&mut spec);
    appraise(&SnpSpec::default(), &spec, &policy())
}

/// The good revocation list of good endorsements, altered.
fn revocation_list(alter: impl FnOnce(&mut cocoon_attestation::dev::CrlSpec)) -> Appraisal {
    endorsed(|spec| alter(spec.crl.as_mut().expect("a revocation list")))
}

/// Bytes changed in a good report after it was signed.
fn patched(at: usize) -> Appraisal {
    let mut bytes = platform().snp_report(&SnpSpec::default());
    bytes[at] ^= 1;
    let chain = platform().snp_endorsements(&SnpEndorsementSpec::default());
    appraise_snp(&bytes, &chain.vek, &chain.ca, chain.crl.as_deref(), &policy(), AT)
}

#[test]
fn nothing_is_wrong_with_what_the_other_tests_start_from() {
    let good = report(|_| {});
    accepted(&good);
    assert!(good.check("snp.revocation").is_some());
    let v2 = report(|spec| spec.version = 2);
    accepted(&v2);
}

/// Report and certificate of another product line.
fn of(product: &str, cpuid: [u8; 3]) -> (SnpSpec, SnpEndorsementSpec) {
    let report = SnpSpec { cpuid, ..SnpSpec::default() };
    (report, SnpEndorsementSpec { product: product.into(), ..SnpEndorsementSpec::default() })
}

fn turin() -> (SnpSpec, SnpEndorsementSpec) {
    let (mut report, mut endorsements) = of("Turin-B0", [0x1a, 0x02, 0x01]);
    let tcb = SnpTcb { fmc: Some(1), bootloader: 2, tee: 3, snp: 4, microcode: 5 };
    (report.reported_tcb, report.current_tcb, report.committed_tcb, report.launch_tcb) = (tcb, tcb, tcb, tcb);
    report.chip_id = [0; 64];
    report.chip_id[..8].copy_from_slice(&[7; 8]);
    (endorsements.tcb, endorsements.hwid) = (tcb, vec![7; 8]);
    (report, endorsements)
}

#[test]
fn every_product_line() {
    for (product, cpuid) in
        [("Milan-B0", [0x19, 0x01, 0x01]), ("Genoa-B1", [0x19, 0x11, 0x01]), ("Genoa", [0x19, 0xa0, 0x02])]
    {
        for version in 2..=5 {
            for wrapped_hwid in [false, true] {
                let (report, endorsements) = of(product, cpuid);
                let report = SnpSpec { version, ..report };
                let result = appraise(&report, &SnpEndorsementSpec { wrapped_hwid, ..endorsements }, &policy());
                accepted(&result);
                assert!(!unchecked(&result, "snp.chip-id"), "{product} {version} {wrapped_hwid}");
            }
        }
    }
    // The processor is of one line, the key's certificate of another, or its authorities.
    only(
        &appraise(&of("Milan-B0", [0x19, 0x11, 0x01]).0, &SnpEndorsementSpec::default(), &policy()),
        "snp.product",
        Outcome::Invalid,
    );
    only(&appraise(&SnpSpec::default(), &of("Genoa-B1", [0; 3]).1, &policy()), "snp.product", Outcome::Invalid);
    only(&appraise(&SnpSpec::default(), &of("Naples", [0; 3]).1, &policy()), "snp.product", Outcome::Invalid);
}

#[test]
fn turin_has_versions_and_chip_ids_of_its_own() {
    let altered = |alter: fn(&mut SnpSpec, &mut SnpEndorsementSpec)| {
        let (mut report, mut endorsements) = turin();
        alter(&mut report, &mut endorsements);
        appraise(&report, &endorsements, &policy())
    };
    accepted(&altered(|_, _| {}));
    accepted(&altered(|_, endorsements| endorsements.wrapped_hwid = true));
    for alter in [
        |tcb: &mut SnpTcb| tcb.fmc = Some(2),
        |tcb: &mut SnpTcb| tcb.bootloader += 1,
        |tcb: &mut SnpTcb| tcb.tee += 1,
        |tcb: &mut SnpTcb| tcb.snp += 1,
        |tcb: &mut SnpTcb| tcb.microcode += 1,
    ] {
        let (report, mut endorsements) = turin();
        alter(&mut endorsements.tcb);
        only(&appraise(&report, &endorsements, &policy()), "snp.tcb", Outcome::Refused);
    }
    only(&altered(|_, endorsements| endorsements.tcb.fmc = None), "snp.certificate-tcb", Outcome::Invalid);
    only(&altered(|report, _| report.chip_id[7] = 8), "snp.chip-id", Outcome::Invalid);
    only(&altered(|report, _| report.chip_id[8] = 1), "snp.chip-id", Outcome::Invalid);
    only(&altered(|_, endorsements| endorsements.hwid = vec![7; 7]), "snp.chip-id", Outcome::Invalid);
    only(&altered(|_, endorsements| endorsements.hwid = Vec::new()), "snp.chip-id", Outcome::Invalid);
}

#[test]
fn a_cloud_providers_key_is_of_no_chip() {
    let report = SnpSpec { signing_key: 1, ..SnpSpec::default() };
    let endorsements = SnpEndorsementSpec { vlek: true, ..SnpEndorsementSpec::default() };
    let mut policy = policy();
    only(&appraise(&report, &endorsements, &policy), "snp.vlek", Outcome::Refused);
    policy.snp.allow_vlek = true;
    let result = appraise(&report, &endorsements, &policy);
    accepted(&result);
    assert!(unchecked(&result, "snp.chip-id"));
    // What the report says of its key, and what the certificate says.
    only(&appraise(&SnpSpec::default(), &endorsements, &policy), "snp.signing-key", Outcome::Invalid);
    only(&appraise(&report, &SnpEndorsementSpec::default(), &policy), "snp.signing-key", Outcome::Invalid);
    let named = |name: &str| {
        let mut other = endorsements.clone();
        other.vcek.common_name = Some(name.into());
        appraise(&report, &other, &policy)
    };
    accepted(&named("SEV-VLEK"));
    only(&named("SEV-VXEK"), "snp.signing-key", Outcome::Invalid);
}

#[test]
fn certificates_and_lists_hold_from_their_first_second_to_their_last() {
    let (before, after) = (UnixTime(AT.0 - 1), UnixTime(AT.0 + 1));
    accepted(&endorsed(|spec| (spec.vcek.not_before, spec.vcek.not_after) = (AT, AT)));
    accepted(&endorsed(|spec| (spec.ask.not_before, spec.ask.not_after) = (AT, AT)));
    accepted(&revocation_list(|list| (list.this_update, list.next_update) = (AT, AT)));
    for (from, to) in [(after, after), (before, before)] {
        assert_eq!(endorsed(|spec| (spec.vcek.not_before, spec.vcek.not_after) = (from, to)).outcome, Outcome::Invalid);
        assert_eq!(endorsed(|spec| (spec.ask.not_before, spec.ask.not_after) = (from, to)).outcome, Outcome::Invalid);
        let list = revocation_list(|list| (list.this_update, list.next_update) = (from, to));
        assert_eq!(list.outcome, Outcome::Invalid);
    }
}

#[test]
fn signatures() {
    only(&report(|spec| spec.signed_by = SignedBy::Another), "snp.signature", Outcome::Invalid);
    only(&report(|spec| spec.signature_algorithm = 2), "snp.signature", Outcome::Invalid);
    only(&endorsed(|spec| spec.vcek.signed_by = SignedBy::Another), "snp.chain", Outcome::Invalid);
    only(&endorsed(|spec| spec.ask.signed_by = SignedBy::Another), "snp.chain", Outcome::Invalid);
}

#[test]
fn changed_after_signing() {
    // Measurement, report data, signature.
    for at in [0x90, 0x50, 0x2a0, 0x2a0 + 72] {
        only(&patched(at), "snp.signature", Outcome::Invalid);
    }
    // Reserved bytes, behind each number of the signature, and the very end.
    for at in [0x1f8, 0x2a0 + 48, 0x2a0 + 72 + 48, 1183] {
        only(&patched(at), "snp.format", Outcome::Malformed);
    }
}

#[test]
fn layout() {
    for version in [0, 1, 6] {
        only(&report(|spec| spec.version = version), "snp.format", Outcome::Malformed);
    }
    let bytes = platform().snp_report(&SnpSpec::default());
    let chain = platform().snp_endorsements(&SnpEndorsementSpec::default());
    for bytes in [&bytes[..1183], &[bytes.as_slice(), &[0]].concat()] {
        let result = appraise_snp(bytes, &chain.vek, &chain.ca, None, &policy(), AT);
        only(&result, "snp.format", Outcome::Malformed);
    }
}

#[test]
fn certificates_come_in_any_order_and_must_be_certificates() {
    let bytes = platform().snp_report(&SnpSpec::default());
    let mut chain = platform().snp_endorsements(&SnpEndorsementSpec::default());
    chain.ca.reverse();
    accepted(&appraise_snp(&bytes, &chain.vek, &chain.ca, None, &policy(), AT));
    let result = appraise_snp(&bytes, b"none", &chain.ca, None, &policy(), AT);
    only(&result, "snp.certificate-format", Outcome::Malformed);
    let result = appraise_snp(&bytes, &chain.vek, &chain.ca, Some(b"none"), &policy(), AT);
    only(&result, "snp.revocation", Outcome::Malformed);
}

#[test]
fn the_root_must_be_named() {
    let result = appraise(&SnpSpec::default(), &SnpEndorsementSpec::default(), &Policy::default());
    only(&result, "snp.root", Outcome::Invalid);
    // A root of Intel's part does not vouch for AMD's.
    let policy = Policy { roots: vec![platform().tdx_root_der()], ..Policy::default() };
    let result = appraise(&SnpSpec::default(), &SnpEndorsementSpec::default(), &policy);
    only(&result, "snp.root", Outcome::Invalid);
}

#[test]
fn times() {
    let (past, future) = (UnixTime(AT.0 - 1), UnixTime(AT.0 + 1));
    only(&endorsed(|spec| spec.vcek.not_after = past), "snp.validity", Outcome::Invalid);
    only(&endorsed(|spec| spec.vcek.not_before = future), "snp.validity", Outcome::Invalid);
    only(&endorsed(|spec| spec.ask.not_after = past), "snp.validity", Outcome::Invalid);
    only(&revocation_list(|crl| crl.next_update = past), "snp.revocation", Outcome::Invalid);
    only(&revocation_list(|crl| crl.this_update = future), "snp.revocation", Outcome::Invalid);
}

#[test]
fn revocation() {
    only(&revocation_list(|crl| crl.revoked = vec![serial::ASK]), "snp.revocation", Outcome::Invalid);
    only(&revocation_list(|crl| crl.signed_by = SignedBy::Another), "snp.revocation", Outcome::Invalid);
    accepted(&revocation_list(|crl| crl.revoked = vec![4711]));

    let none = SnpEndorsementSpec { crl: None, ..SnpEndorsementSpec::default() };
    let mut policy = policy();
    let result = appraise(&SnpSpec::default(), &none, &policy);
    accepted(&result);
    assert!(unchecked(&result, "snp.revocation"));
    policy.snp.require_crl = true;
    only(&appraise(&SnpSpec::default(), &none, &policy), "snp.revocation", Outcome::Refused);
}

#[test]
fn kinds_of_certificates() {
    only(&endorsed(|spec| spec.ask.ca = Some(false)), "snp.key-usage", Outcome::Invalid);
    only(&endorsed(|spec| spec.vcek.ca = Some(true)), "snp.key-usage", Outcome::Invalid);
    // A report that says VLEK or no key, over a VCEK certificate.
    for kind in [1, 7] {
        only(&report(|spec| spec.signing_key = kind), "snp.signing-key", Outcome::Invalid);
    }
}

#[test]
fn certificate_of_another_chip_or_product() {
    only(&report(|spec| spec.chip_id[0] ^= 1), "snp.chip-id", Outcome::Invalid);
    only(&endorsed(|spec| spec.hwid[0] ^= 1), "snp.chip-id", Outcome::Invalid);
    only(&endorsed(|spec| spec.product = "Genoa-B0".into()), "snp.product", Outcome::Invalid);
    only(&endorsed(|spec| spec.product = "Rome-B0".into()), "snp.product", Outcome::Invalid);
    // A Genoa processor.
    only(&report(|spec| spec.cpuid = [0x19, 0x11, 0x01]), "snp.product", Outcome::Invalid);
}

#[test]
fn tcb() {
    let older = SnpTcb { microcode: 1, ..SnpTcb::default() };
    only(&endorsed(|spec| spec.tcb = older), "snp.tcb", Outcome::Refused);
    only(&report(|spec| spec.reported_tcb = older), "snp.tcb", Outcome::Refused);
    only(&report(|spec| spec.committed_tcb = older), "snp.provisional-firmware", Outcome::Refused);
    only(&report(|spec| spec.committed_firmware = [23, 55, 1]), "snp.provisional-firmware", Outcome::Refused);
}

#[test]
fn guest() {
    only(&report(|spec| spec.policy |= 1 << 19), "snp.debug", Outcome::Refused);
    only(&report(|spec| spec.policy |= 1 << 18), "snp.migration", Outcome::Refused);
    only(&report(|spec| spec.report_id_ma = [1; 32]), "snp.migration", Outcome::Refused);
    only(&report(|spec| spec.policy &= !(1 << 17)), "snp.policy", Outcome::Refused);
    only(&report(|spec| spec.vmpl = 1), "snp.vmpl", Outcome::Refused);
    only(&report(|spec| spec.chip_id = [0; 64]), "snp.masked-chip-id", Outcome::Refused);
}

#[test]
fn each_loosening_allows_its_own_check_and_shows() {
    type Case = (&'static str, fn(&mut SnpSpec), fn(&mut Policy));
    let cases: [Case; 6] = [
        ("snp.debug", |spec| spec.policy |= 1 << 19, |policy| policy.snp.allow_debug = true),
        ("snp.migration", |spec| spec.policy |= 1 << 18, |policy| policy.snp.allow_migration = true),
        ("snp.vmpl", |spec| spec.vmpl = 1, |policy| policy.snp.max_vmpl = 1),
        (
            "snp.provisional-firmware",
            |spec| spec.committed_firmware = [0; 3],
            |policy| policy.snp.allow_provisional_firmware = true,
        ),
        ("snp.tcb", |spec| spec.reported_tcb.snp = 0, |policy| policy.snp.allow_tcb_mismatch = true),
        ("snp.masked-chip-id", |spec| spec.chip_id = [0; 64], |policy| policy.snp.allow_masked_chip_id = true),
    ];
    for (n, (id, alter, _)) in cases.iter().enumerate() {
        for (m, (.., loosen)) in cases.iter().enumerate() {
            let (mut spec, mut policy) = (SnpSpec::default(), policy());
            alter(&mut spec);
            loosen(&mut policy);
            let result = appraise(&spec, &SnpEndorsementSpec::default(), &policy);
            if n == m {
                accepted(&result);
                assert_eq!(result.check(id).map(|check| check.outcome), Some(CheckOutcome::Allowed));
            } else {
                only(&result, id, Outcome::Refused);
            }
        }
    }
}

#[test]
fn minimums_and_references_are_unchecked_until_the_policy_gives_them() {
    type Case = (&'static str, fn(&mut Policy));
    let cases: [Case; 12] = [
        ("snp.min-tcb", |policy| policy.snp.min_tcb = Some(MinTcb { snp: 25, ..MinTcb::default() })),
        ("snp.min-launch-tcb", |policy| policy.snp.min_launch_tcb = Some(MinTcb { tee: 1, ..MinTcb::default() })),
        ("snp.abi", |policy| policy.snp.min_abi = Some(MinAbi { major: 0, minor: 1 })),
        ("snp.guest-svn", |policy| policy.snp.min_guest_svn = Some(1)),
        ("snp.measurement", |policy| policy.snp.measurement = vec![Hex([9; 48])]),
        ("snp.host-data", |policy| policy.snp.host_data = vec![Hex([9; 32])]),
        ("snp.report-data", |policy| policy.snp.report_data = vec![Hex([9; 64])]),
        ("snp.id-key-digest", |policy| policy.snp.id_key_digest = vec![Hex([9; 48])]),
        ("snp.author-key-digest", |policy| policy.snp.author_key_digest = vec![Hex([9; 48])]),
        ("snp.family-id", |policy| policy.snp.family_id = vec![Hex([9; 16])]),
        ("snp.image-id", |policy| policy.snp.image_id = vec![Hex([9; 16])]),
        ("snp.allowed-chip", |policy| policy.snp.chip_id = vec![Hex([9; 64])]),
    ];
    let good = report(|_| {});
    for (id, ask) in cases {
        assert!(unchecked(&good, id), "{id} is not listed as unchecked");
        let mut policy = policy();
        ask(&mut policy);
        let result = appraise(&SnpSpec::default(), &SnpEndorsementSpec::default(), &policy);
        only(&result, id, Outcome::Refused);
        assert!(!unchecked(&result, id), "{id} is listed as unchecked");
    }
    let mut policy = policy();
    policy.snp.measurement = vec![Hex([9; 48]), Hex(SnpSpec::default().measurement)];
    accepted(&appraise(&SnpSpec::default(), &SnpEndorsementSpec::default(), &policy));
}

#[test]
fn firmware_platform_bits_author_key_and_socket() {
    use cocoon_verifier::policy::MinFirmware;
    let with = |alter: &dyn Fn(&mut SnpSpec), ask: &dyn Fn(&mut Policy)| {
        let (mut spec, mut policy) = (SnpSpec::default(), policy());
        alter(&mut spec);
        ask(&mut policy);
        appraise(&spec, &SnpEndorsementSpec::default(), &policy)
    };
    let runs = |version: [u8; 3]| {
        move |spec: &mut SnpSpec| (spec.current_firmware, spec.committed_firmware) = (version, version)
    };
    let least = |major, minor, build| {
        move |policy: &mut Policy| policy.snp.min_firmware = Some(MinFirmware { major, minor, build })
    };
    // Build, minor, major in the report.
    accepted(&with(&runs([21, 55, 1]), &least(1, 55, 21)));
    accepted(&with(&runs([0, 0, 2]), &least(1, 55, 21)));
    for older in [[20, 55, 1], [255, 54, 1], [255, 255, 0]] {
        only(&with(&runs(older), &least(1, 55, 21)), "snp.firmware", Outcome::Refused);
    }
    let bits = |info: u64, allowed: Option<u64>, required: Option<u64>| {
        with(&|spec| spec.platform_info = info, &|policy| {
            policy.snp.allowed_platform_info = allowed;
            policy.snp.required_platform_info = required;
        })
    };
    accepted(&bits(0b11, Some(0b11), Some(0b10)));
    only(&bits(0b100, Some(0b11), None), "snp.platform-info", Outcome::Refused);
    only(&bits(0b01, None, Some(0b10)), "snp.platform-info", Outcome::Refused);
    only(&bits(0, Some(0), Some(1)), "snp.platform-info", Outcome::Refused);

    let author = |policy: &mut Policy| policy.snp.require_author_key = true;
    only(&with(&|_| {}, &author), "snp.author-key", Outcome::Refused);
    accepted(&with(&|spec| spec.author_key_enabled = true, &author));
    let socket = |policy: &mut Policy| policy.snp.require_single_socket = true;
    only(&with(&|_| {}, &socket), "snp.single-socket", Outcome::Refused);
    accepted(&with(&|spec| spec.policy |= 1 << 20, &socket));
    let named = |policy: &mut Policy| policy.snp.report_id = vec![cocoon_verifier::policy::Hex([9; 32])];
    only(&with(&|_| {}, &named), "snp.report-id", Outcome::Refused);
    accepted(&with(&|spec| spec.report_id = [9; 32], &named));
}

#[test]
fn who_signed_the_identity_block() {
    let (key, author, other) = (Hex([1; 48]), Hex([2; 48]), Hex([3; 48]));
    let appraise = |keys: &[Hex<48>], authors: &[Hex<48>], enabled: bool| {
        let mut policy = policy();
        policy.snp.trusted_id_keys = keys.to_vec();
        policy.snp.trusted_author_keys = authors.to_vec();
        let spec = SnpSpec {
            id_key_digest: key.0,
            author_key_digest: author.0,
            author_key_enabled: enabled,
            ..SnpSpec::default()
        };
        let chain = platform().snp_endorsements(&SnpEndorsementSpec::default());
        appraise_snp(&platform().snp_report(&spec), &chain.vek, &chain.ca, chain.crl.as_deref(), &policy, AT)
    };
    assert!(unchecked(&appraise(&[], &[], true), "snp.id-block"));
    for (keys, authors, enabled) in [
        (&[key][..], &[][..], false),
        (&[other, key], &[], false),
        (&[other], &[author], true),
        (&[], &[other, author], true),
    ] {
        let result = appraise(keys, authors, enabled);
        accepted(&result);
        assert!(!unchecked(&result, "snp.id-block"));
    }
    for (keys, authors, enabled) in [
        (&[other][..], &[][..], true),
        (&[author], &[], true),
        (&[], &[key], true),
        (&[], &[author], false),
        (&[other], &[other], true),
    ] {
        only(&appraise(keys, authors, enabled), "snp.id-block", Outcome::Refused);
    }
}

#[test]
fn further_bits_of_the_guest_policy() {
    let appraise = |guest: u64, alter: fn(&mut cocoon_verifier::policy::SnpPolicy)| {
        let mut policy = policy();
        alter(&mut policy.snp);
        let chain = platform().snp_endorsements(&SnpEndorsementSpec::default());
        let spec = SnpSpec { policy: guest, ..SnpSpec::default() };
        appraise_snp(&platform().snp_report(&spec), &chain.vek, &chain.ca, chain.crl.as_deref(), &policy, AT)
    };
    let usual = SnpSpec::default().policy;
    assert!(unchecked(&appraise(usual, |_| {}), "snp.guest-policy"));
    // Bit 21 is CXL, 24 ciphertext hiding; the ABI version below bit 16 is another check's.
    accepted(&appraise(usual | 1 << 21, |policy| policy.allowed_guest_policy = Some(0x3f_0000)));
    only(
        &appraise(usual | 1 << 21, |policy| policy.allowed_guest_policy = Some(0x1f_0000)),
        "snp.guest-policy",
        Outcome::Refused,
    );
    accepted(&appraise(usual | 1 << 24, |policy| policy.required_guest_policy = Some(1 << 24)));
    only(&appraise(usual, |policy| policy.required_guest_policy = Some(1 << 24)), "snp.guest-policy", Outcome::Refused);
    accepted(&appraise(usual | 1 << 25, |_| {}));
    only(&appraise(usual | 1 << 26, |_| {}), "snp.policy", Outcome::Refused);
    only(&appraise(usual, |policy| policy.require_id_block = true), "snp.id-key", Outcome::Refused);
}
