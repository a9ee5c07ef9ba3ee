//! GPU reports and reference manifests in which exactly one thing is wrong, and the one check that says so.

mod common;

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{
    GpuChainSpec, GpuSpec, OcspHash, OcspSpec, OcspStatus, OcspSubject, Responder, RimSpec, SignedBy,
};
use cocoon_verifier::policy::GpuMode;
use cocoon_verifier::{
    Appraisal, CheckOutcome, GpuEvidence, GpuReferences, Outcome, Policy, appraise_gpu, appraise_gpus, appraise_rim,
};
use common::{AT, accepted, only, platform, policy, unchecked};

/// One GPU with everything that vouches for it.
#[derive(Clone)]
struct Case {
    report: GpuSpec,
    chain: GpuChainSpec,
    rims: Vec<RimSpec>,
    ocsp: Vec<OcspSpec>,
    nonce: Option<[u8; 32]>,
    policy: Policy,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            report: GpuSpec::default(),
            chain: GpuChainSpec::default(),
            rims: vec![RimSpec::driver(), RimSpec::vbios()],
            ocsp: OcspSubject::ASKED.map(OcspSpec::new).to_vec(),
            nonce: Some([0; 32]),
            policy: policy(),
        }
    }
}

impl Case {
    fn set(&mut self, block: u8, digest: [u8; 48]) {
        self.report.measurements.insert(block, digest);
    }

    fn appraise(&self) -> Appraisal {
        let platform = platform();
        let rims: Vec<_> = self.rims.iter().map(|spec| platform.gpu_manifest(spec)).collect();
        let (report, chain) = (platform.gpu_report(&self.report), platform.gpu_chain(&self.chain));
        let ocsp = self.ocsp.iter().map(|spec| platform.gpu_ocsp(spec)).collect();
        let gpu = GpuEvidence { report: &report, chain: &chain };
        appraise_gpus(&[gpu], &GpuReferences::new(rims, ocsp), self.nonce, &self.policy, AT)
    }
}

fn altered(alter: impl FnOnce(&mut Case)) -> Appraisal {
    let mut case = Case::default();
    alter(&mut case);
    case.appraise()
}

#[test]
fn nothing_is_wrong_with_what_the_other_tests_start_from() {
    let result = altered(|_| {});
    accepted(&result);
    assert!(result.development);
    assert!(result.check("gpu.distinct").is_none(), "one GPU is no pair");
    assert_eq!(result.check("gpu.measurements").map(|check| &*check.detail), Some("40 golden measurements match"));
    for rim in [RimSpec::driver(), RimSpec::vbios()] {
        accepted(&appraise_rim(&platform().gpu_manifest(&rim), &[], &policy(), AT));
    }
    // Blackwell, and its place for the firmware's id.
    accepted(&altered(|case| {
        case.chain.architecture = "GB100".into();
        case.chain.fwid_arcs = vec![2, 23, 133, 5, 4, 1, 1];
        case.rims.iter_mut().for_each(|rim| rim.product = "GB100".into());
        case.ocsp.iter_mut().for_each(|ocsp| ocsp.architecture = "GB100".into());
    }));
}

#[test]
fn chain_and_signature() {
    let (past, future) = (UnixTime(AT.0 - 1), UnixTime(AT.0 + 1));
    only(&altered(|case| case.report.signed_by = SignedBy::Another), "gpu.signature", Outcome::Invalid);
    only(&altered(|case| case.report.gpu = 1), "gpu.signature", Outcome::Invalid);
    only(&altered(|case| case.chain.leaf.signed_by = SignedBy::Another), "gpu.certificates", Outcome::Invalid);
    only(&altered(|case| case.chain.leaf.not_after = past), "gpu.certificates", Outcome::Invalid);
    only(&altered(|case| case.chain.leaf.not_before = future), "gpu.certificates", Outcome::Invalid);
    only(&altered(|case| case.chain.leaf.ca = Some(true)), "gpu.certificates", Outcome::Invalid);
    for n in 0..3 {
        let each =
            |alter: fn(&mut cocoon_attestation::dev::CertSpec)| altered(|case| alter(&mut case.chain.authorities[n]));
        only(&each(|spec| spec.signed_by = SignedBy::Another), "gpu.certificates", Outcome::Invalid);
        only(&each(|spec| spec.not_after = UnixTime(AT.0 - 1)), "gpu.certificates", Outcome::Invalid);
        only(&each(|spec| spec.ca = Some(false)), "gpu.certificates", Outcome::Invalid);
    }
    only(
        &altered(|case| case.policy.roots.retain(|root| *root != platform().gpu_root_der())),
        "gpu.root",
        Outcome::Invalid,
    );
    only(&altered(|case| case.policy = Policy::default()), "gpu.root", Outcome::Invalid);
}

#[test]
fn who_asked_and_what_answers() {
    only(&altered(|case| case.nonce = Some([1; 32])), "gpu.nonce", Outcome::Invalid);
    assert!(unchecked(&altered(|case| case.nonce = None), "gpu.nonce"));
    only(&altered(|case| case.chain.fwid = Some([1; 48])), "gpu.fwid", Outcome::Invalid);
    only(&altered(|case| case.chain.fwid = None), "gpu.fwid", Outcome::Invalid);
    let old_driver = altered(|case| drop(case.report.opaque.remove(&20)));
    accepted(&old_driver);
    assert!(unchecked(&old_driver, "gpu.fwid"));
}

#[test]
fn a_switch_is_no_gpu() {
    for field in [24, 25] {
        only(&altered(|case| drop(case.report.opaque.insert(field, vec![1]))), "gpu.architecture", Outcome::Invalid);
    }
    for name in ["LS10", "AD102", "GH10", "GHabc", ""] {
        only(&altered(|case| case.chain.architecture = name.into()), "gpu.architecture", Outcome::Invalid);
    }
}

#[test]
fn manifests_and_what_they_say() {
    only(&altered(|case| case.rims[0].version = "580.159.04".into()), "gpu.driver-rim", Outcome::Refused);
    only(&altered(|case| case.rims[1].version = "96.00.74.00.21".into()), "gpu.vbios-rim", Outcome::Refused);
    only(&altered(|case| case.rims[0].product = "GB100".into()), "gpu.driver-rim", Outcome::Refused);
    for (n, id) in [(0, "gpu.driver-rim"), (1, "gpu.vbios-rim")] {
        let missing = altered(|case| drop(case.rims.remove(n)));
        accepted(&missing);
        assert!(unchecked(&missing, id));
        let demanded = altered(|case| {
            case.rims.remove(n);
            case.policy.gpu.require_rims = true;
        });
        only(&demanded, id, Outcome::Refused);
    }
    let none = altered(|case| case.rims.clear());
    assert!(unchecked(&none, "gpu.measurements"));
    assert!(unchecked(&altered(|case| drop(case.rims.remove(0))), "gpu.all-measurements"));
    assert!(!unchecked(&altered(|_| {}), "gpu.all-measurements"));
    // Whose manifests there are is told, of the same kind alone.
    let other = altered(|case| case.rims[0].version = "580.159.04".into());
    assert!(
        other.reason.ends_with("runs driver 580.159.03; the manifests are for GH100 580.159.04"),
        "{}",
        other.reason
    );
    // Every golden measurement counts, whichever manifest gives it.
    for index in 0..40 {
        let result = altered(|case| case.set(index + 1, [9; 48]));
        only(&result, "gpu.measurements", Outcome::Refused);
        assert!(result.reason.contains(&format!(" {index} (")), "{}", result.reason);
    }
    // What no manifest gives does not.
    accepted(&altered(|case| case.set(41, [9; 48])));
    only(
        &altered(|case| case.report.measurements.retain(|block, _| *block != 8)),
        "gpu.measurements",
        Outcome::Refused,
    );
    // A video decoder that is switched off is not measured.
    let off = altered(|case| {
        case.report.opaque.insert(11, vec![0x55]);
        case.set(36, [0; 48]);
    });
    accepted(&off);
    assert!(!off.measurements.contains_key("gpu.measurement35"), "an empty block is no measurement");
    // A digest is one whether or not a byte of it is zero.
    for byte in [0, 9] {
        let digest = altered(|case| case.set(41, [[9; 47].as_slice(), &[byte]].concat().try_into().expect("48 bytes")));
        let told = digest.measurements.get("gpu.measurement40").map(String::len);
        assert_eq!(told, Some(96));
    }
    let conflict = altered(|case| {
        let value = case.rims[0].golden[&1].clone();
        case.rims[1].golden.insert(1, value);
    });
    only(&conflict, "gpu.measurements", Outcome::Invalid);
}

#[test]
fn manifests_that_are_not_authentic() {
    let rim = |alter: fn(&mut RimSpec)| {
        let mut spec = RimSpec::driver();
        alter(&mut spec);
        appraise_rim(&platform().gpu_manifest(&spec), &[], &policy(), AT)
    };
    only(&rim(|spec| spec.signed_by = SignedBy::Another), "rim.signature", Outcome::Invalid);
    only(&rim(|spec| spec.leaf.signed_by = SignedBy::Another), "rim.certificates", Outcome::Invalid);
    only(&rim(|spec| spec.leaf.not_after = UnixTime(AT.0 - 1)), "rim.certificates", Outcome::Invalid);
    only(&rim(|spec| spec.leaf.ca = Some(true)), "rim.certificates", Outcome::Invalid);
    for n in 0..2 {
        let mut spec = RimSpec::driver();
        spec.authorities[n].ca = Some(false);
        only(&appraise_rim(&platform().gpu_manifest(&spec), &[], &policy(), AT), "rim.certificates", Outcome::Invalid);
    }
    only(
        &appraise_rim(&platform().gpu_manifest(&RimSpec::driver()), &[], &Policy::default(), AT),
        "rim.root",
        Outcome::Invalid,
    );
    only(&rim(|spec| spec.golden.clear()), "rim.format", Outcome::Malformed);
    only(&altered(|case| case.rims[0].signed_by = SignedBy::Another), "gpu.rim.signature", Outcome::Invalid);

    let good = String::from_utf8(platform().gpu_manifest(&RimSpec::driver())).unwrap();
    for (from, to, id, outcome) in [
        ("active=\"False\"", "active=\"True\"", "rim.signature", Outcome::Invalid),
        ("580.159.03", "580.159.04", "rim.signature", Outcome::Invalid),
        ("ecdsa-sha384", "ecdsa-sha256", "rim.signature", Outcome::Invalid),
        ("URI=\"\"", "URI=\"#x\"", "rim.signature", Outcome::Invalid),
        ("xmldsig#enveloped-signature", "xmldsig#other", "rim.signature", Outcome::Invalid),
        (
            "<ds:Signature ",
            "<ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"></ds:Signature><ds:Signature ",
            "rim.format",
            Outcome::Malformed,
        ),
        ("<SoftwareIdentity", "<!DOCTYPE x [<!ENTITY e \"e\">]><SoftwareIdentity", "rim.format", Outcome::Malformed),
        ("SoftwareIdentity", "SoftwareIdentitY", "rim.format", Outcome::Malformed),
        ("</Payload>", "<Other></Other></Payload>", "rim.signature", Outcome::Invalid),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        only(&appraise_rim(bad.as_bytes(), &[], &policy(), AT), id, outcome);
    }
    // A comment, and white space within tags, change nothing that is signed.
    let same = good.replace("<Payload>", "<!-- x --><Payload\n>");
    accepted(&appraise_rim(same.as_bytes(), &[], &policy(), AT));
}

#[test]
fn policy_over_mode_and_versions() {
    for (flag, mode) in [(0, GpuMode::Spt), (1, GpuMode::Mpt), (2, GpuMode::Ppcie)] {
        let with = |modes: Vec<GpuMode>| {
            altered(|case| {
                case.report.opaque.insert(36, vec![flag, 0]);
                case.policy.gpu.mode = modes;
            })
        };
        accepted(&with(vec![]));
        accepted(&with(vec![mode]));
        assert_eq!(with(vec![mode]).check("gpu.mode").map(|check| check.detail.to_string()), Some(format!("{mode:?}")));
        let others = [GpuMode::Spt, GpuMode::Mpt, GpuMode::Ppcie].into_iter().filter(|other| *other != mode).collect();
        let refused: Appraisal = with(others);
        only(&refused, "gpu.mode", Outcome::Refused);
        assert!(refused.reason.ends_with(&format!("{mode:?}, which is none of those that the policy takes")));
    }
    for unknown in [vec![3, 0], vec![0], vec![0, 1], vec![]] {
        only(&altered(|case| drop(case.report.opaque.insert(36, unknown))), "gpu.mode", Outcome::Refused);
    }
    assert!(unchecked(&altered(|case| drop(case.report.opaque.remove(&36))), "gpu.mode"));
    only(&altered(|case| case.policy.gpu.driver_version = vec!["1".into()]), "gpu.driver-version", Outcome::Refused);
    only(&altered(|case| case.policy.gpu.vbios_version = vec!["1".into()]), "gpu.vbios-version", Outcome::Refused);
    let named = altered(|case| {
        case.policy.gpu.driver_version = vec!["580.159.03".into()];
        case.policy.gpu.vbios_version = vec!["96.00.74.00.20".into()];
    });
    accepted(&named);
    assert_eq!(named.check("gpu.driver-version").map(|check| check.outcome), Some(CheckOutcome::Passed));
}

#[test]
fn every_byte_of_a_report_counts() {
    let platform = platform();
    let good = platform.gpu_report(&GpuSpec::default());
    let chain = platform.gpu_chain(&GpuChainSpec::default());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let result = appraise_gpu(&bad, &chain, &[], None, &policy(), AT);
        assert!(result.outcome >= Outcome::Invalid, "byte {at}: {}", result.reason);
        if at % 7 == 0 {
            let result = appraise_gpu(&good[..at], &chain, &[], None, &policy(), AT);
            only(&result, "gpu.format", Outcome::Malformed);
        }
    }
    only(
        &appraise_gpu(&[&good[..], &[0]].concat(), &chain, &[], None, &policy(), AT),
        "gpu.format",
        Outcome::Malformed,
    );
}

#[test]
fn several_gpus_are_several_gpus() {
    let platform = platform();
    let rims = [RimSpec::driver(), RimSpec::vbios()].map(|spec| platform.gpu_manifest(&spec));
    let references = GpuReferences::new(rims.to_vec(), Vec::new());
    let reports: Vec<_> = (0..3).map(|gpu| platform.gpu_report(&GpuSpec { gpu, ..GpuSpec::default() })).collect();
    let chains: Vec<_> =
        (0..3).map(|gpu| platform.gpu_chain(&GpuChainSpec { gpu, ..GpuChainSpec::default() })).collect();
    let appraise = |gpus: &[usize]| {
        let gpus: Vec<_> = gpus.iter().map(|n| GpuEvidence { report: &reports[*n], chain: &chains[*n] }).collect();
        appraise_gpus(&gpus, &references, Some([0; 32]), &policy(), AT)
    };
    let result = appraise(&[0, 1, 2]);
    accepted(&result);
    assert_eq!(result.measurements["gpu2.driver"], "580.159.03");
    only(&appraise(&[0, 1, 0]), "gpu.distinct", Outcome::Invalid);
    only(&appraise(&[]), "gpu.format", Outcome::Malformed);
    let bad = GpuSpec { gpu: 1, signed_by: SignedBy::Another, ..GpuSpec::default() };
    let bad = platform.gpu_report(&bad);
    let gpus =
        [GpuEvidence { report: &reports[0], chain: &chains[0] }, GpuEvidence { report: &bad, chain: &chains[1] }];
    let result = appraise_gpus(&gpus, &references, Some([0; 32]), &policy(), AT);
    only(&result, "gpu.signature", Outcome::Invalid);
    assert!(result.reason.contains("GPU 1: "), "{}", result.reason);
}

#[test]
fn revocation_by_stapled_answers() {
    let good = altered(|_| {});
    for id in ["gpu.revocation", "gpu.driver-rim-revocation", "gpu.vbios-rim-revocation"] {
        assert!(
            good.check(id).is_some_and(|check| check.detail.ends_with("says that 3 certificates are good")),
            "{id}"
        );
    }
    assert_eq!(good.not_after, Some(OcspSpec::new(OcspSubject::Model).next_update.unwrap()));
    type Alteration = fn(&mut OcspSpec);
    let alterations: [(&str, Alteration); 12] = [
        ("revoked", |spec| spec.status = OcspStatus::Revoked(UnixTime(AT.0 - 1))),
        ("unknown", |spec| spec.status = OcspStatus::Unknown),
        ("signed by another", |spec| spec.signed_by = SignedBy::Another),
        ("the issuer's, signed by another", |spec| {
            (spec.responder, spec.signed_by) = (Responder::Issuer, SignedBy::Another)
        }),
        ("by somebody not certified to answer", |spec| spec.responder = Responder::Unauthorised),
        ("by a delegate whom another certified", |spec| spec.certificate.signed_by = SignedBy::Another),
        ("by a delegate that is a CA", |spec| spec.certificate.ca = Some(true)),
        ("by a delegate of the past", |spec| spec.certificate.not_after = UnixTime(AT.0 - 1)),
        ("by a delegate with an unknown critical extension", |spec| spec.critical_unknown = true),
        ("of the future", |spec| spec.this_update = UnixTime(AT.0 + 1)),
        ("due again", |spec| spec.next_update = Some(UnixTime(AT.0 - 1))),
        ("a day old, without a next one", |spec| {
            (spec.this_update, spec.next_update) = (UnixTime(AT.0 - 86_401), None)
        }),
    ];
    for (n, id) in
        [(0, "gpu.revocation"), (1, "gpu.revocation"), (2, "gpu.revocation"), (3, "RIM"), (4, "RIM"), (5, "RIM")]
    {
        for (what, alter) in alterations {
            let result = altered(|case| alter(&mut case.ocsp[n]));
            if id == "RIM" {
                // The signer of both manifests is one.
                assert_eq!(result.outcome, Outcome::Invalid, "{n} {what}");
                let failed: Vec<_> =
                    result.checks.iter().filter(|check| check.outcome.is_failure()).map(|check| &*check.id).collect();
                assert_eq!(failed, ["gpu.driver-rim-revocation", "gpu.vbios-rim-revocation"], "{n} {what}");
            } else {
                only(&result, id, Outcome::Invalid);
            }
        }
    }
    accepted(&altered(|case| case.ocsp.iter_mut().for_each(|spec| spec.critical_purpose = true)));
    // The issuer is named by one of three hashes, of its name and of its key.
    for (hash, known) in
        [(OcspHash::Sha1, true), (OcspHash::Sha256, true), (OcspHash::Sha384, true), (OcspHash::Sha512, false)]
    {
        let result = altered(|case| case.ocsp.iter_mut().for_each(|spec| spec.hash = hash));
        accepted(&result);
        assert_eq!(unchecked(&result, "gpu.revocation"), !known, "{hash:?}");
    }
    let other_key = altered(|case| case.ocsp.iter_mut().for_each(|spec| spec.names_key = false));
    assert!(unchecked(&other_key, "gpu.revocation"));
    // The issuer may answer itself, and an answer of today may leave out when the next one is due.
    accepted(&altered(|case| case.ocsp.iter_mut().for_each(|spec| spec.responder = Responder::Issuer)));
    accepted(&altered(|case| {
        case.ocsp.iter_mut().for_each(|spec| (spec.this_update, spec.next_update) = (UnixTime(AT.0 - 86_400), None))
    }));
    // A GPU's own certificate needs no answer, but one that is there counts.
    only(
        &altered(|case| {
            let status = OcspStatus::Revoked(AT);
            case.ocsp.push(OcspSpec { status, ..OcspSpec::new(OcspSubject::Gpu) })
        }),
        "gpu.revocation",
        Outcome::Invalid,
    );
    // A revocation counts in whatever company, and a good answer beside one that has lapsed.
    for (status, this_update, outcome) in [
        (OcspStatus::Revoked(AT), UnixTime(AT.0 - 5), Outcome::Invalid),
        (OcspStatus::Good, UnixTime(AT.0 + 5), Outcome::Accepted),
    ] {
        for first in [true, false] {
            let result = altered(|case| {
                let other = OcspSpec { status, this_update, ..OcspSpec::new(OcspSubject::Model) };
                case.ocsp.insert(if first { 0 } else { case.ocsp.len() }, other);
            });
            assert_eq!(result.outcome, outcome, "{status:?} first {first}: {}", result.reason);
        }
    }
}

#[test]
fn answers_that_are_missing_foreign_or_none() {
    let result = altered(|case| case.ocsp.retain(|spec| spec.subject != OcspSubject::Model));
    accepted(&result);
    assert!(unchecked(&result, "gpu.revocation"));
    only(
        &altered(|case| {
            case.policy.gpu.require_ocsp = true;
            case.ocsp.retain(|spec| spec.subject != OcspSubject::Model);
        }),
        "gpu.revocation",
        Outcome::Refused,
    );
    accepted(&altered(|case| case.policy.gpu.require_ocsp = true));
    // The certificate of another chain, though its serial number is the same.
    assert!(unchecked(&altered(|case| case.ocsp[1].architecture = "GB100".into()), "gpu.revocation"));

    let (platform, at) = (platform(), AT);
    let manifest = platform.gpu_manifest(&RimSpec::driver());
    let answer = platform.gpu_ocsp(&OcspSpec { responder: Responder::Issuer, ..OcspSpec::new(OcspSubject::RimSigner) });
    let appraise = |answer: &[u8]| appraise_rim(&manifest, &[answer.to_vec()], &policy(), at);
    assert!(unchecked(&appraise(&answer), "rim.revocation"), "two of three are missing");
    // Every byte counts: what is not signed is the frame.
    for n in 0..answer.len() {
        let mut other = answer.clone();
        other[n] ^= 1;
        let result = appraise(&other);
        let silent = result.outcome == Outcome::Accepted && result.unchecked == appraise(&answer).unchecked;
        assert!(!silent, "byte {n} of {} was altered unseen", answer.len());
    }
    for bad in [&answer[..answer.len() - 1], &[], &[0x30, 3, 0x0a, 1, 3], &vec![0x30; 20_000]] {
        only(&appraise(bad), "rim.ocsp-format", Outcome::Malformed);
    }
    assert!(appraise(&vec![0x30; 20_000]).reason.contains("too many for an OCSP response"));
    let mut many = vec![answer; 96];
    accepted(&appraise_rim(&manifest, &many, &policy(), at));
    many.push(many[0].clone());
    only(&appraise_rim(&manifest, &many, &policy(), at), "rim.ocsp-format", Outcome::Malformed);
}
