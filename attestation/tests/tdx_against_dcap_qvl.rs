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
    quote_refused("TEE", |spec| spec.header.tee_type = 0);
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
    quote_refused("ATTRIBUTES", |spec| spec.qe.attributes[0] = 0x13);
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
    assert!(verify_at(&quote, &issued, NOW + 10).is_ok());
    expect("expired", verify_at(&quote, &issued, NOW + 11));
    assert!(verify_at(&quote, &CollateralSpec::default(), UNTIL.0 - 1).is_ok());
    assert!(verify_at(&quote, &CollateralSpec::default(), FROM.0 - 1).is_err());
}

#[test]
fn levels_and_advisories_come_through() {
    let mut quote = TdxSpec::default();
    quote.pck.pce_svn = 6;
    let outdated = ("OutOfDate".into(), vec!["INTEL-SA-00000".to_owned()]);
    assert_eq!(status(&quote, &CollateralSpec::default()), outdated);
    quote_refused("No matching TCB level", |spec| spec.pck.tcb_components[0] = 0);

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
