//! The development platform's SNP evidence: layout by the ABI specification's offsets, and every signature checked with
//! another implementation than the one that made it.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use cocoon_attestation::dev::{
    CHIP_ID, CrlSpec, DevPlatform, FROM, ORGANISATION, SignedBy, SnpEndorsementSpec, SnpSpec, SnpTcb, UNTIL, serial,
};
use cocoon_attestation::{SnpEndorsements, UnixTime};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode};

fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

fn endorsements(spec: &SnpEndorsementSpec) -> SnpEndorsements {
    platform().snp_endorsements(spec)
}

fn public_key(certificate: &[u8]) -> Vec<u8> {
    let certificate = Certificate::from_der(certificate).unwrap();
    certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec()
}

fn verifies(algorithm: &'static dyn VerificationAlgorithm, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

fn issued_by(issuer: &[u8], certificate: &[u8]) -> bool {
    let certificate = Certificate::from_der(certificate).unwrap();
    let message = certificate.tbs_certificate().to_der().unwrap();
    let key = public_key(issuer);
    verifies(&signature::RSA_PSS_2048_8192_SHA384, &key, &message, certificate.signature().raw_bytes())
}

fn report_verifies(vcek: &[u8], report: &[u8]) -> bool {
    let number = |at: usize| report[at..at + 48].iter().rev().copied().collect::<Vec<u8>>();
    let signature = [number(0x2a0), number(0x2a0 + 72)].concat();
    verifies(&signature::ECDSA_P384_SHA384_FIXED, &public_key(vcek), &report[..0x2a0], &signature)
}

#[test]
fn report_and_chain_verify() {
    let chain = endorsements(&SnpEndorsementSpec::default());
    let report = platform().snp_report(&SnpSpec::default());
    let [ask, ark] = chain.ca.as_slice() else { panic!("ASK and ARK") };
    assert_eq!(*ark, platform().snp_ark_der());
    assert!(issued_by(ark, ark) && issued_by(ark, ask) && issued_by(ask, &chain.vek));
    assert!(report_verifies(&chain.vek, &report));
    let crl = CertificateList::from_der(chain.crl.as_deref().unwrap()).unwrap() as CertificateList;
    let message = crl.tbs_cert_list.to_der().unwrap();
    let algorithm = &signature::RSA_PSS_2048_8192_SHA384;
    assert!(verifies(algorithm, &public_key(ark), &message, crl.signature.raw_bytes()));
    for certificate in [ark, ask, &chain.vek] {
        let certificate = Certificate::from_der(certificate).unwrap();
        assert!(certificate.tbs_certificate().subject().to_string().contains(ORGANISATION));
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_another_chip_key() {
    let (report, chain) = (SnpSpec::default(), SnpEndorsementSpec::default());
    assert_eq!(platform().snp_report(&report), platform().snp_report(&report));
    assert_eq!(endorsements(&chain), endorsements(&chain));
    let other = DevPlatform::from_seed([8; 32]);
    assert_eq!(other.snp_ark_der(), platform().snp_ark_der());
    assert!(!report_verifies(&endorsements(&chain).vek, &other.snp_report(&report)));
}

#[test]
fn signatures_can_be_wrong_one_at_a_time() {
    let good = endorsements(&SnpEndorsementSpec::default());
    let [ask, ark] = good.ca.as_slice() else { panic!("ASK and ARK") };
    let mut spec = SnpEndorsementSpec::default();
    spec.vcek.signed_by = SignedBy::Another;
    let bad = endorsements(&spec);
    assert!(!issued_by(ask, &bad.vek));
    assert_eq!(bad.ca, good.ca);
    let mut spec = SnpEndorsementSpec::default();
    spec.ask.signed_by = SignedBy::Another;
    let bad = endorsements(&spec);
    assert!(!issued_by(ark, &bad.ca[0]));
    assert_eq!(bad.vek, good.vek);
    let report = platform().snp_report(&SnpSpec { signed_by: SignedBy::Another, ..SnpSpec::default() });
    assert!(!report_verifies(&good.vek, &report));
}

#[test]
fn dates_and_revocations_can_be_altered() {
    let mut spec = SnpEndorsementSpec { crl: Some(CrlSpec::new(FROM, UNTIL)), ..SnpEndorsementSpec::default() };
    spec.vcek.not_after = UnixTime(1_700_000_000);
    spec.crl.as_mut().unwrap().revoked = vec![serial::ASK];
    let chain = endorsements(&spec);
    let validity = *Certificate::from_der(&chain.vek).unwrap().tbs_certificate().validity();
    assert_eq!(validity.not_before.to_unix_duration().as_secs(), FROM.0);
    assert_eq!(validity.not_after.to_unix_duration().as_secs(), 1_700_000_000);
    let crl: CertificateList = CertificateList::from_der(&chain.crl.unwrap()).unwrap();
    let ask = Certificate::from_der(&chain.ca[0]).unwrap();
    let revoked = crl.tbs_cert_list.revoked_certificates.unwrap();
    assert_eq!(revoked[0].serial_number, *ask.tbs_certificate().serial_number());
}

/// Offsets of the SNP firmware ABI, table ATTESTATION_REPORT. Each field is altered alone, and nothing but its bytes and
/// the signature may change.
#[test]
fn every_field_stands_at_its_offset_and_is_alterable_alone() {
    let tcb = SnpTcb { fmc: None, bootloader: 0xa0, tee: 0xa1, snp: 0xa2, microcode: 0xa3 };
    type Alter = fn(&mut SnpSpec, SnpTcb);
    let cases: Vec<(&str, std::ops::Range<usize>, Alter)> = vec![
        ("GUEST_SVN", 0x04..0x08, |spec, _| spec.guest_svn = 5),
        ("POLICY", 0x08..0x10, |spec, _| spec.policy |= 1 << 19),
        ("FAMILY_ID", 0x10..0x20, |spec, _| spec.family_id = [5; 16]),
        ("IMAGE_ID", 0x20..0x30, |spec, _| spec.image_id = [5; 16]),
        ("VMPL", 0x30..0x34, |spec, _| spec.vmpl = 3),
        ("SIGNATURE_ALGO", 0x34..0x38, |spec, _| spec.signature_algorithm = 2),
        ("CURRENT_TCB", 0x38..0x40, |spec, tcb| spec.current_tcb = tcb),
        ("PLATFORM_INFO", 0x40..0x48, |spec, _| spec.platform_info = 3),
        ("AUTHOR_KEY_EN", 0x48..0x4c, |spec, _| spec.author_key_enabled = true),
        ("MASK_CHIP_KEY", 0x48..0x4c, |spec, _| spec.mask_chip_key = true),
        ("SIGNING_KEY", 0x48..0x4c, |spec, _| spec.signing_key = 1),
        ("REPORT_DATA", 0x50..0x90, |spec, _| spec.report_data = [5; 64]),
        ("MEASUREMENT", 0x90..0xc0, |spec, _| spec.measurement = [5; 48]),
        ("HOST_DATA", 0xc0..0xe0, |spec, _| spec.host_data = [5; 32]),
        ("ID_KEY_DIGEST", 0xe0..0x110, |spec, _| spec.id_key_digest = [5; 48]),
        ("AUTHOR_KEY_DIGEST", 0x110..0x140, |spec, _| spec.author_key_digest = [5; 48]),
        ("REPORT_ID", 0x140..0x160, |spec, _| spec.report_id = [5; 32]),
        ("REPORT_ID_MA", 0x160..0x180, |spec, _| spec.report_id_ma = [5; 32]),
        ("REPORTED_TCB", 0x180..0x188, |spec, tcb| spec.reported_tcb = tcb),
        ("CPUID", 0x188..0x18b, |spec, _| spec.cpuid = [0x1a, 2, 1]),
        ("CHIP_ID", 0x1a0..0x1e0, |spec, _| spec.chip_id = [5; 64]),
        ("COMMITTED_TCB", 0x1e0..0x1e8, |spec, tcb| spec.committed_tcb = tcb),
        ("CURRENT version", 0x1e8..0x1eb, |spec, _| spec.current_firmware = [1, 2, 3]),
        ("COMMITTED version", 0x1ec..0x1ef, |spec, _| spec.committed_firmware = [1, 2, 3]),
        ("LAUNCH_TCB", 0x1f0..0x1f8, |spec, tcb| spec.launch_tcb = tcb),
    ];
    let good = platform().snp_report(&SnpSpec::default());
    assert_eq!(good.len(), 1184);
    let vcek = endorsements(&SnpEndorsementSpec::default()).vek;
    for (name, range, alter) in cases {
        let mut spec = SnpSpec::default();
        alter(&mut spec, tcb);
        let report = platform().snp_report(&spec);
        let changed: Vec<usize> = (0..0x2a0).filter(|at| report[*at] != good[*at]).collect();
        assert!(!changed.is_empty() && changed.iter().all(|at| range.contains(at)), "{name}: {changed:x?}");
        assert!(report_verifies(&vcek, &report), "{name} is signed");
    }
    let altered = platform().snp_report(&SnpSpec { current_tcb: tcb, ..SnpSpec::default() });
    assert_eq!(altered[0x38..0x40], [0xa0, 0xa1, 0, 0, 0, 0, 0xa2, 0xa3], "TCB_VERSION of Milan");
    let version_2 = platform().snp_report(&SnpSpec { version: 2, ..SnpSpec::default() });
    assert_eq!((version_2[0], &version_2[0x188..0x18b]), (2, [0; 3].as_slice()));
}

#[test]
fn the_chip_key_certificate_carries_amds_extensions() {
    let spec = SnpEndorsementSpec {
        tcb: SnpTcb { fmc: None, bootloader: 1, tee: 2, snp: 3, microcode: 200 },
        ..SnpEndorsementSpec::default()
    };
    let certificate = Certificate::from_der(&endorsements(&spec).vek).unwrap();
    let value = |id: &str| {
        let id = format!("1.3.6.1.4.1.3704.1.{id}");
        let extensions = certificate.tbs_certificate().extensions().unwrap();
        let extension = extensions.iter().find(|extension| extension.extn_id.to_string() == id);
        extension.unwrap_or_else(|| panic!("{id}")).extn_value.as_bytes().to_vec()
    };
    for (id, version) in [("3.1", vec![1]), ("3.2", vec![2]), ("3.3", vec![3]), ("3.4", vec![0]), ("3.8", vec![0, 200])]
    {
        assert_eq!(value(id), [[2, version.len() as u8].as_slice(), &version].concat(), "{id}");
    }
    assert_eq!(value("2"), b"\x16\x08Milan-B0");
    assert_eq!(value("4"), CHIP_ID, "bare bytes, as AMD writes them");
}
