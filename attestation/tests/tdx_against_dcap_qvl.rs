//! The development platform's TDX evidence before an independent verifier, dcap-qvl: good evidence passes, and every
//! alteration of one field that the verifier looks at is refused for that field's reason.

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{
    CertSpec, CollateralSpec, DevPlatform, FROM, PckCa, SignedBy, Td15, TdxSpec, UNTIL, serial,
};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};

const NOW: u64 = 1_790_000_000;

fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

fn verify_at(quote: &[u8], collateral: &CollateralSpec, now: u64) -> Result<VerifiedReport, String> {
    let collateral: QuoteCollateralV3 = serde_json::from_slice(&platform().tdx_collateral(collateral)).unwrap();
    QuoteVerifier::new(platform().tdx_root_der()).verify(quote, &collateral, now).map_err(|error| format!("{error:#}"))
}

fn verify(quote: &TdxSpec, collateral: &CollateralSpec) -> Result<VerifiedReport, String> {
    verify_at(&platform().tdx_quote(quote), collateral, NOW)
}

/// Good evidence but for one change to the quote.
fn quote_refused(reason: &str, change: impl FnOnce(&mut TdxSpec)) {
    let mut spec = TdxSpec::default();
    change(&mut spec);
    assert_ne!(spec, TdxSpec::default(), "{reason}: nothing was changed");
    expect(reason, verify(&spec, &CollateralSpec::default()));
}

/// Good evidence but for one change to the collateral.
fn collateral_refused(reason: &str, change: impl FnOnce(&mut CollateralSpec)) {
    let mut spec = CollateralSpec::default();
    change(&mut spec);
    assert_ne!(spec, CollateralSpec::default(), "{reason}: nothing was changed");
    expect(reason, verify(&TdxSpec::default(), &spec));
}

fn expect(reason: &str, result: Result<VerifiedReport, String>) {
    let error = result.err().unwrap_or_else(|| panic!("accepted, though {reason:?} was expected"));
    assert!(error.contains(reason), "expected {reason:?}, got {error:?}");
}

/// Good evidence but for one change, which the verifier accepts with this status.
fn status(quote: &TdxSpec, collateral: &CollateralSpec) -> (String, Vec<String>) {
    let report = verify(quote, collateral).unwrap();
    (report.status, report.advisory_ids)
}

#[test]
fn good_evidence_is_up_to_date() {
    let mut spec = TdxSpec::default();
    assert_eq!(status(&spec, &CollateralSpec::default()), ("UpToDate".into(), vec![]));
    spec.body.report_data = [0xab; 64];
    spec.body.mr_td = [0xcd; 48];
    let report = verify(&spec, &CollateralSpec::default()).unwrap();
    let body = report.report.as_td10().unwrap();
    assert_eq!((body.report_data, body.mr_td), ([0xab; 64], [0xcd; 48]));
}

#[test]
fn version_5_quotes_and_processor_ca_chains_pass_too() {
    let mut spec = TdxSpec::default();
    spec.header.version = 5;
    assert!(verify(&spec, &CollateralSpec::default()).unwrap().report.as_td15().is_none());
    spec.td15 = Some(Td15::default());
    assert!(verify(&spec, &CollateralSpec::default()).unwrap().report.as_td15().is_some());

    let ca = CertSpec::new(serial::PCK_PROCESSOR_CA);
    let mut spec = TdxSpec { pck_ca: ca.clone(), ..TdxSpec::default() };
    spec.pck.ca = PckCa::Processor;
    let collateral = CollateralSpec { ca: PckCa::Processor, pck_ca: ca, ..CollateralSpec::default() };
    assert!(verify(&spec, &collateral).is_ok());
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_other_ones() {
    let (spec, collateral) = (TdxSpec::default(), CollateralSpec::default());
    assert_eq!(platform().tdx_quote(&spec), platform().tdx_quote(&spec));
    assert_eq!(platform().tdx_collateral(&collateral), platform().tdx_collateral(&collateral));
    let other = DevPlatform::from_seed([8; 32]);
    assert_ne!(other.tdx_root_der(), platform().tdx_root_der());
    let quote = other.tdx_quote(&spec);
    expect("verify certificate chain", verify_at(&quote, &collateral, NOW));
}

#[test]
fn headers_are_read() {
    quote_refused("version", |spec| spec.header.version = 6);
    quote_refused("attestation key type", |spec| spec.header.attestation_key_type = 3);
    // Another TEE has another body, so the quote does not even decode.
    quote_refused("decode quote", |spec| spec.header.tee_type = 0);
    quote_refused("QE vendor ID", |spec| spec.header.qe_vendor_id[0] ^= 1);
}

#[test]
fn td_reports_are_read() {
    quote_refused("Debug mode", |spec| spec.body.td_attributes[0] |= 1);
    quote_refused("SEPT_VE_DISABLE", |spec| spec.body.td_attributes[3] = 0);
    quote_refused("MRSIGNER mismatch", |spec| spec.body.mr_signer_seam[0] = 1);
    quote_refused("SEAMATTRIBUTES", |spec| spec.body.seam_attributes[0] = 1);
    quote_refused("TDX module", |spec| spec.body.tee_tcb_svn[1] = 9);
    quote_refused("below minimum", |spec| spec.body.tee_tcb_svn[0] = 1);
}

#[test]
fn signatures_in_the_quote_are_checked() {
    quote_refused("ISV enclave report signature", |spec| spec.quote_signed_by = SignedBy::Another);
    quote_refused("qe_report", |spec| spec.qe_signed_by = SignedBy::Another);
    quote_refused("QE report hash", |spec| spec.qe.report_data = Some([0; 64]));
    let good = platform().tdx_quote(&TdxSpec::default());
    for at in [16, 48, 200, 631] {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        assert!(verify_at(&flipped, &CollateralSpec::default(), NOW).is_err(), "bit flipped in byte {at}");
    }
}

#[test]
fn the_quoting_enclave_is_identified() {
    quote_refused("QE MRSIGNER", |spec| spec.qe.mr_signer[0] ^= 1);
    quote_refused("QE ISVPRODID", |spec| spec.qe.isv_prod_id = 1);
    quote_refused("MISCSELECT", |spec| spec.qe.misc_select = 1);
    quote_refused("ATTRIBUTES", |spec| spec.qe.attributes[0] = 0x01);
    quote_refused("Debug mode", |spec| spec.qe.attributes[0] |= 2);
    quote_refused("ISVSVN", |spec| spec.qe.isv_svn = 1);
    collateral_refused("QE MRSIGNER", |spec| spec.qe_identity.mrsigner[0] ^= 1);
    collateral_refused("QE ISVPRODID", |spec| spec.qe_identity.isvprodid = 1);
    collateral_refused("QE Identity id/version", |spec| spec.qe_identity.id = "QE".into());
    collateral_refused("QE Identity id/version", |spec| spec.qe_identity.version = 1);
}

#[test]
fn certificates_are_checked() {
    quote_refused("certificate chain", |spec| spec.pck.certificate.signed_by = SignedBy::Another);
    quote_refused("certificate chain", |spec| spec.pck_ca.signed_by = SignedBy::Another);
    quote_refused("CertExpired", |spec| spec.pck.certificate.not_after = UnixTime(NOW - 1));
    quote_refused("CertNotValidYet", |spec| spec.pck.certificate.not_before = UnixTime(NOW + 1));
    quote_refused("EndEntityUsedAsCa", |spec| spec.pck_ca.ca = Some(false));
    quote_refused("CaUsedAsEndEntity", |spec| spec.pck.certificate.ca = Some(true));
    quote_refused("CertExpired", |spec| spec.pck_ca.not_after = UnixTime(NOW - 1));
    collateral_refused("certificate", |spec| spec.tcb_signer.signed_by = SignedBy::Another);
    collateral_refused("CertExpired", |spec| spec.tcb_signer.not_after = UnixTime(NOW - 1));
}

#[test]
fn revocation_is_checked() {
    collateral_refused("CertRevoked", |spec| spec.pck_crl.revoked = vec![serial::PCK]);
    collateral_refused("CertRevoked", |spec| spec.root_crl.revoked = vec![serial::PCK_PLATFORM_CA]);
    collateral_refused("CertRevoked", |spec| spec.root_crl.revoked = vec![serial::TCB_SIGNER]);
    collateral_refused("CrlExpired", |spec| spec.pck_crl.next_update = UnixTime(NOW - 1));
    collateral_refused("InvalidCrlSignature", |spec| spec.pck_crl.signed_by = SignedBy::Another);
    collateral_refused("root CA CRL", |spec| spec.root_crl.signed_by = SignedBy::Another);
    // The control: a revoked serial that is nobody's changes nothing.
    let mut spec = CollateralSpec::default();
    spec.pck_crl.revoked = vec![99];
    assert!(verify(&TdxSpec::default(), &spec).is_ok());
}

#[test]
fn collateral_is_signed_dated_and_about_this_platform() {
    collateral_refused("tcb_info", |spec| spec.tcb_info_signed_by = SignedBy::Another);
    collateral_refused("qe_identity", |spec| spec.qe_identity_signed_by = SignedBy::Another);
    collateral_refused("TCBInfo expired", |spec| spec.tcb_info.next_update = UnixTime(NOW - 1));
    collateral_refused("TCBInfo issue date", |spec| spec.tcb_info.issue_date = UnixTime(NOW + 1));
    collateral_refused("QE Identity expired", |spec| spec.qe_identity.next_update = UnixTime(NOW - 1));
    collateral_refused("QE Identity issue date", |spec| spec.qe_identity.issue_date = UnixTime(NOW + 1));
    collateral_refused("Fmspc", |spec| spec.tcb_info.fmspc[0] ^= 1);
    quote_refused("Fmspc", |spec| spec.pck.fmspc[0] ^= 1);
    collateral_refused("non-TDX TCB info", |spec| spec.tcb_info.id = "SGX".into());
    collateral_refused("non-TDX TCB info", |spec| spec.tcb_info.version = 2);
    let issued = CollateralSpec::issued(UnixTime(NOW), UnixTime(NOW + 10));
    let quote = platform().tdx_quote(&TdxSpec::default());
    assert!(verify_at(&quote, &issued, NOW + 9).is_ok());
    expect("Expired", verify_at(&quote, &issued, NOW + 11));
    assert!(verify_at(&quote, &CollateralSpec::default(), UNTIL.0 - 1).is_ok());
    assert!(verify_at(&quote, &CollateralSpec::default(), FROM.0 - 1).is_err());
}

#[test]
fn levels_and_advisories_come_through() {
    let mut quote = TdxSpec::default();
    quote.pck.pce_svn = 6;
    let outdated = ("OutOfDate".into(), vec!["INTEL-SA-00000".to_owned()]);
    assert_eq!(status(&quote, &CollateralSpec::default()), outdated);
    quote_refused("No matching TCB level", |spec| spec.pck.cpu_svn[0] = 0);

    let mut quote = TdxSpec::default();
    quote.body.tee_tcb_svn[0] = 3;
    assert_eq!(status(&quote, &CollateralSpec::default()).0, "OutOfDate", "TDX module");
    let mut quote = TdxSpec::default();
    quote.qe.isv_svn = 2;
    assert_eq!(status(&quote, &CollateralSpec::default()).0, "OutOfDate", "quoting enclave");

    let mut collateral = CollateralSpec::default();
    collateral.tcb_info.tcb_levels[0].tcb_status = "SWHardeningNeeded".into();
    collateral.tcb_info.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00001".into()];
    let hardening = ("SWHardeningNeeded".into(), vec!["INTEL-SA-00001".to_owned()]);
    assert_eq!(status(&TdxSpec::default(), &collateral), hardening);
    collateral_refused("Revoked", |spec| spec.tcb_info.tcb_levels[0].tcb_status = "Revoked".into());
}

/// Offsets of the quote format, version 4: header 48 bytes, TD report 584 bytes. Each field is altered alone, and nothing
/// before the signature but its bytes may change.
#[test]
fn every_field_stands_at_its_offset_and_is_alterable_alone() {
    type Alter = fn(&mut TdxSpec);
    let cases: Vec<(&str, std::ops::Range<usize>, Alter)> = vec![
        ("version", 0..2, |spec| spec.header.version = 3),
        ("attestation key type", 2..4, |spec| spec.header.attestation_key_type = 3),
        ("TEE type", 4..8, |spec| spec.header.tee_type = 0),
        ("QE SVN", 8..10, |spec| spec.header.qe_svn = 5),
        ("PCE SVN", 10..12, |spec| spec.header.pce_svn = 5),
        ("QE vendor id", 12..28, |spec| spec.header.qe_vendor_id = [5; 16]),
        ("user data", 28..48, |spec| spec.header.user_data = [5; 20]),
        ("TEE_TCB_SVN", 48..64, |spec| spec.body.tee_tcb_svn = [5; 16]),
        ("MRSEAM", 64..112, |spec| spec.body.mr_seam = [5; 48]),
        ("MRSIGNERSEAM", 112..160, |spec| spec.body.mr_signer_seam = [5; 48]),
        ("SEAMATTRIBUTES", 160..168, |spec| spec.body.seam_attributes = [5; 8]),
        ("TDATTRIBUTES", 168..176, |spec| spec.body.td_attributes = [5; 8]),
        ("XFAM", 176..184, |spec| spec.body.xfam = [5; 8]),
        ("MRTD", 184..232, |spec| spec.body.mr_td = [5; 48]),
        ("MRCONFIGID", 232..280, |spec| spec.body.mr_config_id = [5; 48]),
        ("MROWNER", 280..328, |spec| spec.body.mr_owner = [5; 48]),
        ("MROWNERCONFIG", 328..376, |spec| spec.body.mr_owner_config = [5; 48]),
        ("RTMR0", 376..424, |spec| spec.body.rtmr[0] = [5; 48]),
        ("RTMR1", 424..472, |spec| spec.body.rtmr[1] = [5; 48]),
        ("RTMR2", 472..520, |spec| spec.body.rtmr[2] = [5; 48]),
        ("RTMR3", 520..568, |spec| spec.body.rtmr[3] = [5; 48]),
        ("REPORTDATA", 568..632, |spec| spec.body.report_data = [5; 64]),
    ];
    let good = platform().tdx_quote(&TdxSpec::default());
    for (name, range, alter) in cases {
        let mut spec = TdxSpec::default();
        alter(&mut spec);
        let quote = platform().tdx_quote(&spec);
        let changed: Vec<usize> = (0..632).filter(|at| quote[*at] != good[*at]).collect();
        assert!(!changed.is_empty() && changed.iter().all(|at| range.contains(at)), "{name}: {changed:?}");
        assert_ne!(quote[636..700], good[636..700], "{name} is signed");
        assert_eq!(quote[700..], good[700..], "{name}: what certifies the attestation key stays");
    }
}

#[test]
fn the_pck_certificate_says_what_its_specification_says() {
    let read = |spec: &TdxSpec| {
        let quote = dcap_qvl::quote::Quote::parse(&platform().tdx_quote(spec)).unwrap();
        let chain = dcap_qvl::intel::extract_cert_chain(&quote).unwrap();
        assert_eq!(chain.len(), 3);
        assert_eq!(chain[2], platform().tdx_root_der());
        dcap_qvl::intel::parse_pck_extension(&chain[0]).unwrap()
    };
    let good = read(&TdxSpec::default());
    let mut spec = TdxSpec::default();
    spec.pck.ppid = [1; 16];
    spec.pck.pce_svn = 300;
    spec.pck.cpu_svn = [2; 16];
    spec.pck.pce_id = [3, 4];
    spec.pck.fmspc = [5; 6];
    spec.pck.sgx_type = 2;
    spec.pck.platform_instance_id = [6; 16];
    (spec.pck.dynamic_platform, spec.pck.cached_keys, spec.pck.smt_enabled) = (true, true, true);
    let altered = read(&spec);
    assert_eq!((altered.ppid, altered.pce_svn, altered.cpu_svn), (vec![1; 16], 300, [2; 16]));
    assert_eq!((altered.pce_id, altered.fmspc, altered.sgx_type), (vec![3, 4], [5; 6], 2));
    assert_eq!(altered.platform_instance_id, Some(vec![6; 16]));
    assert_eq!(
        (altered.dynamic_platform, altered.cached_keys, altered.smt_enabled),
        (Some(true), Some(true), Some(true))
    );
    assert_eq!((good.dynamic_platform, good.cached_keys, good.smt_enabled), (Some(false), Some(false), Some(false)));
    spec.pck.ca = PckCa::Processor;
    let processor = read(&spec);
    assert_eq!((processor.platform_instance_id, processor.smt_enabled), (None, None));
}
