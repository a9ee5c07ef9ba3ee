//! TDX quotes and collateral in which exactly one thing is wrong, and the one check that says so.

mod common;

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{CertSpec, CollateralSpec, PckCa, SignedBy, Td15, TdxSpec, serial};
use cocoon_verifier::policy::Hex;
use cocoon_verifier::{Appraisal, CheckOutcome, Outcome, Policy, appraise_tdx};
use common::{AT, accepted, collateral, only, platform, policy, unchecked};

fn appraise(quote: &TdxSpec, collateral: &CollateralSpec, policy: &Policy) -> Appraisal {
    let platform = platform();
    appraise_tdx(&platform.tdx_quote(quote), &platform.tdx_collateral(collateral), policy, AT)
}

/// Alters a good quote.
fn quote(alter: impl FnOnce(&mut TdxSpec)) -> Appraisal {
    let mut spec = TdxSpec::default();
    alter(&mut spec);
    appraise(&spec, &collateral(), &policy())
}

/// Alters good collateral.
fn with_collateral(alter: impl FnOnce(&mut CollateralSpec)) -> Appraisal {
    let mut spec = collateral();
    alter(&mut spec);
    appraise(&TdxSpec::default(), &spec, &policy())
}

fn bit(n: u32) -> [u8; 8] {
    (1u64 << 28 | 1 << n).to_le_bytes()
}

fn v5(td15: Option<Td15>) -> TdxSpec {
    let mut spec = TdxSpec { td15, ..TdxSpec::default() };
    spec.header.version = 5;
    spec
}

#[test]
fn nothing_is_wrong_with_what_the_other_tests_start_from() {
    accepted(&quote(|_| {}));
    accepted(&with_collateral(|_| {}));
    accepted(&appraise(&v5(None), &collateral(), &policy()));
    accepted(&appraise(&v5(Some(Td15::default())), &collateral(), &policy()));
}

#[test]
fn signatures() {
    only(&quote(|spec| spec.quote_signed_by = SignedBy::Another), "tdx.signature", Outcome::Invalid);
    only(&quote(|spec| spec.qe_signed_by = SignedBy::Another), "tdx.qe-report", Outcome::Invalid);
    only(&quote(|spec| spec.pck.certificate.signed_by = SignedBy::Another), "tdx.certificates", Outcome::Invalid);
    only(&quote(|spec| spec.pck_ca.signed_by = SignedBy::Another), "tdx.certificates", Outcome::Invalid);
    only(&with_collateral(|spec| spec.tcb_signer.signed_by = SignedBy::Another), "tdx.certificates", Outcome::Invalid);
    only(&with_collateral(|spec| spec.tcb_info_signed_by = SignedBy::Another), "tdx.tcb-info", Outcome::Invalid);
    only(&with_collateral(|spec| spec.qe_identity_signed_by = SignedBy::Another), "tdx.qe-identity", Outcome::Invalid);
    only(&with_collateral(|spec| spec.root_crl.signed_by = SignedBy::Another), "tdx.certificates", Outcome::Invalid);
    only(&with_collateral(|spec| spec.pck_crl.signed_by = SignedBy::Another), "tdx.certificates", Outcome::Invalid);
}

#[test]
fn attributes_changed_after_signing() {
    let platform = platform();
    let collateral = platform.tdx_collateral(&collateral());
    let signed = platform.tdx_quote(&TdxSpec::default());
    for n in 0..64 {
        let mut quote = signed.clone();
        quote[48 + 120 + n / 8] ^= 1 << (n % 8);
        only(&appraise_tdx(&quote, &collateral, &policy(), AT), "tdx.signature", Outcome::Invalid);
    }
    // Nor can a quote of a guest under debugging be made to look like another's.
    let mut spec = TdxSpec::default();
    spec.body.td_attributes = bit(0);
    let mut quote = platform.tdx_quote(&spec);
    quote[48 + 120] = 0;
    only(&appraise_tdx(&quote, &collateral, &policy(), AT), "tdx.signature", Outcome::Invalid);
}

#[test]
fn the_attestation_key_is_the_quoting_enclaves() {
    only(&quote(|spec| spec.qe.report_data = Some([0; 64])), "tdx.qe-report", Outcome::Invalid);
}

#[test]
fn both_documents_have_a_chain_of_their_own() {
    let good = platform().tdx_collateral(&collateral());
    let quote = platform().tdx_quote(&TdxSpec::default());
    for name in ["tcb_info_issuer_chain", "qe_identity_issuer_chain"] {
        let mut json: serde_json::Value = serde_json::from_slice(&good).expect("JSON");
        json[name] = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".into();
        let result = appraise_tdx(&quote, &serde_json::to_vec(&json).expect("JSON"), &policy(), AT);
        assert_ne!(result.outcome, Outcome::Accepted, "{name}");
    }
}

#[test]
fn times() {
    let (past, future) = (UnixTime(AT.0 - 1), UnixTime(AT.0 + 1));
    only(&with_collateral(|spec| spec.tcb_info.next_update = past), "tdx.tcb-info", Outcome::Invalid);
    only(&with_collateral(|spec| spec.tcb_info.issue_date = future), "tdx.tcb-info", Outcome::Invalid);
    only(&with_collateral(|spec| spec.qe_identity.next_update = past), "tdx.qe-identity", Outcome::Invalid);
    only(&with_collateral(|spec| spec.qe_identity.issue_date = future), "tdx.qe-identity", Outcome::Invalid);
    only(&with_collateral(|spec| spec.root_crl.next_update = past), "tdx.certificates", Outcome::Invalid);
    only(&with_collateral(|spec| spec.pck_crl.next_update = past), "tdx.certificates", Outcome::Invalid);
    only(&with_collateral(|spec| spec.tcb_signer.not_after = past), "tdx.certificates", Outcome::Invalid);
    only(&quote(|spec| spec.pck.certificate.not_after = past), "tdx.certificates", Outcome::Invalid);
    only(&quote(|spec| spec.pck.certificate.not_before = future), "tdx.certificates", Outcome::Invalid);
    only(&quote(|spec| spec.pck_ca.not_after = past), "tdx.certificates", Outcome::Invalid);
}

#[test]
fn revocation() {
    let revoked = |serial| vec![serial];
    only(&with_collateral(|spec| spec.pck_crl.revoked = revoked(serial::PCK)), "tdx.certificates", Outcome::Invalid);
    for serial in [serial::PCK_PLATFORM_CA, serial::TCB_SIGNER, serial::ROOT] {
        let result = with_collateral(|spec| spec.root_crl.revoked = revoked(serial));
        only(&result, "tdx.certificates", Outcome::Invalid);
    }
    // A serial number of somebody else's changes nothing.
    accepted(&with_collateral(|spec| spec.pck_crl.revoked = revoked(4711)));
}

#[test]
fn a_leaf_cannot_issue_and_an_issuer_must_be_a_ca() {
    only(&quote(|spec| spec.pck_ca.ca = Some(false)), "tdx.certificates", Outcome::Invalid);
    only(&quote(|spec| spec.pck.certificate.ca = Some(true)), "tdx.certificates", Outcome::Invalid);
}

#[test]
fn the_revocation_list_is_of_the_pck_certificates_issuer() {
    let result = with_collateral(|spec| {
        spec.ca = PckCa::Processor;
        spec.pck_ca = CertSpec::new(serial::PCK_PROCESSOR_CA);
    });
    only(&result, "tdx.certificates", Outcome::Invalid);
}

#[test]
fn collateral_of_another_platform() {
    only(&quote(|spec| spec.pck.fmspc[0] ^= 1), "tdx.tcb-info", Outcome::Invalid);
    only(&quote(|spec| spec.pck.pce_id = [1, 0]), "tdx.pce-id", Outcome::Invalid);
    only(&with_collateral(|spec| spec.tcb_info.tcb_type = 1), "tdx.tcb-type", Outcome::Invalid);
    only(&with_collateral(|spec| spec.tcb_info.id = "SGX".into()), "tdx.tcb-info", Outcome::Invalid);
    only(&with_collateral(|spec| spec.qe_identity.id = "QE".into()), "tdx.qe-identity", Outcome::Invalid);
}

#[test]
fn certificates_are_what_they_are_named() {
    let named = |name: &str| Some(name.to_owned());
    let signer = with_collateral(|spec| spec.tcb_signer.common_name = named("SGX PCK Certificate"));
    only(&signer, "tdx.signer-subject", Outcome::Invalid);
    let pck = quote(|spec| spec.pck.certificate.common_name = named("SGX TCB Signing"));
    only(&pck, "tdx.pck-subject", Outcome::Invalid);
}

#[test]
fn the_pck_certificate_agrees_with_itself() {
    // Matched on CPUSVN alone, this platform would be up to date.
    only(&quote(|spec| spec.pck.tcb_components[0] = 0), "tdx.pck-tcb", Outcome::Invalid);
}

#[test]
fn quoting_enclave() {
    only(&quote(|spec| spec.qe.mr_signer[0] ^= 1), "tdx.qe-identity", Outcome::Invalid);
    only(&quote(|spec| spec.qe.isv_prod_id = 1), "tdx.qe-identity", Outcome::Invalid);
    only(&quote(|spec| spec.qe.attributes[0] |= 2), "tdx.qe-identity", Outcome::Invalid);
    only(&quote(|spec| spec.qe.misc_select = 1), "tdx.qe-identity", Outcome::Invalid);
    only(&quote(|spec| spec.qe.isv_svn = 0), "tdx.qe-identity", Outcome::Invalid);
    only(&quote(|spec| spec.qe.isv_svn = 2), "tdx.tcb-status", Outcome::Refused);
}

#[test]
fn header() {
    only(&quote(|spec| spec.header.version = 3), "tdx.format", Outcome::Malformed);
    only(&quote(|spec| spec.header.tee_type = 0), "tdx.format", Outcome::Malformed);
    only(&quote(|spec| spec.header.attestation_key_type = 3), "tdx.signature-data", Outcome::Invalid);
    only(&quote(|spec| spec.header.qe_vendor_id[0] ^= 1), "tdx.signature-data", Outcome::Invalid);
    only(&quote(|spec| spec.header.qe_svn = 5), "tdx.header-svn", Outcome::Invalid);
    only(&quote(|spec| spec.header.pce_svn = 14), "tdx.header-svn", Outcome::Invalid);
}

#[test]
fn tcb_levels() {
    let result = with_collateral(|spec| spec.tcb_info.tcb_levels[0].tcb_status = "SWHardeningNeeded".into());
    only(&result, "tdx.tcb-status", Outcome::Refused);
    assert_eq!(result.tcb_status.as_deref(), Some("SWHardeningNeeded"));

    let result = with_collateral(|spec| spec.tcb_info.tcb_levels[0].tcb_status = "Revoked".into());
    only(&result, "tdx.tcb-level", Outcome::Invalid);

    let result = with_collateral(|spec| spec.tcb_info.tcb_levels.clear());
    only(&result, "tdx.tcb-level", Outcome::Invalid);

    let result = with_collateral(|spec| spec.tcb_info.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00001".into()]);
    only(&result, "tdx.advisories", Outcome::Refused);
    assert_eq!(result.advisories, ["INTEL-SA-00001"]);
}

#[test]
fn tdx_module() {
    only(&quote(|spec| spec.body.mr_signer_seam[0] = 1), "tdx.module", Outcome::Invalid);
    only(&quote(|spec| spec.body.seam_attributes[0] = 1), "tdx.module", Outcome::Invalid);
    only(&quote(|spec| spec.body.tee_tcb_svn[1] = 9), "tdx.module", Outcome::Invalid);
    only(&quote(|spec| spec.body.tee_tcb_svn[0] = 0), "tdx.module", Outcome::Invalid);
    only(&quote(|spec| spec.body.tee_tcb_svn[0] = 2), "tdx.tcb-status", Outcome::Refused);
}

#[test]
fn guest_attributes() {
    for n in [0, 4, 5, 6] {
        only(&quote(|spec| spec.body.td_attributes = bit(n)), "tdx.debug", Outcome::Refused);
    }
    only(&quote(|spec| spec.body.td_attributes = bit(29)), "tdx.migration", Outcome::Refused);
    only(&quote(|spec| spec.body.td_attributes = [0; 8]), "tdx.sept-ve-disable", Outcome::Refused);
    only(&quote(|spec| spec.body.td_attributes = bit(17)), "tdx.service-td", Outcome::Refused);
    only(&quote(|spec| spec.body.td_attributes = bit(40)), "tdx.attributes", Outcome::Refused);
    let bound = v5(Some(Td15 { mr_service_td: [1; 48], ..Td15::default() }));
    only(&appraise(&bound, &collateral(), &policy()), "tdx.service-td", Outcome::Refused);
    // Protection keys and performance monitoring are the guest's own business.
    for n in [30, 63] {
        accepted(&quote(|spec| spec.body.td_attributes = bit(n)));
    }
}

#[test]
fn each_loosening_allows_its_own_check_and_shows() {
    type Case = (&'static str, fn(&mut TdxSpec), fn(&mut Policy));
    let cases: [Case; 4] = [
        ("tdx.debug", |spec| spec.body.td_attributes = bit(0), |policy| policy.tdx.allow_debug = true),
        ("tdx.migration", |spec| spec.body.td_attributes = bit(29), |policy| policy.tdx.allow_migration = true),
        ("tdx.sept-ve-disable", |spec| spec.body.td_attributes = [0; 8], |policy| policy.tdx.allow_sept_ve = true),
        ("tdx.service-td", |spec| spec.body.td_attributes = bit(17), |policy| policy.tdx.allow_service_td = true),
    ];
    for (n, (id, alter, _)) in cases.iter().enumerate() {
        for (m, (.., loosen)) in cases.iter().enumerate() {
            let (mut spec, mut policy) = (TdxSpec::default(), policy());
            alter(&mut spec);
            loosen(&mut policy);
            let result = appraise(&spec, &collateral(), &policy);
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
    let cases: [Case; 14] = [
        ("tdx.tcb-evaluation", |policy| policy.tdx.min_tcb_evaluation = Some(21)),
        ("tdx.qe-svn", |policy| policy.tdx.min_qe_svn = Some(5)),
        ("tdx.pce-svn", |policy| policy.tdx.min_pce_svn = Some(14)),
        ("tdx.tee-tcb-svn", |policy| {
            policy.tdx.min_tee_tcb_svn = Some(Hex([7, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        }),
        ("tdx.td-attributes", |policy| policy.tdx.td_attributes = vec![Hex([0, 0, 0, 0x50, 0, 0, 0, 0])]),
        ("tdx.mrtd", |policy| policy.tdx.mrtd = vec![Hex([9; 48])]),
        ("tdx.rtmr0", |policy| policy.tdx.rtmr0 = vec![Hex([9; 48])]),
        ("tdx.rtmr3", |policy| policy.tdx.rtmr3 = vec![Hex([9; 48])]),
        ("tdx.mrseam", |policy| policy.tdx.mrseam = vec![Hex([9; 48])]),
        ("tdx.xfam", |policy| policy.tdx.xfam = vec![Hex([9; 8])]),
        ("tdx.mrconfigid", |policy| policy.tdx.mrconfigid = vec![Hex([9; 48])]),
        ("tdx.mrowner", |policy| policy.tdx.mrowner = vec![Hex([9; 48])]),
        ("tdx.report-data", |policy| policy.tdx.report_data = vec![Hex([9; 64])]),
        ("tdx.fmspc", |policy| policy.tdx.fmspc = vec![Hex([9; 6])]),
    ];
    let good = quote(|_| {});
    for (id, ask) in cases {
        assert!(unchecked(&good, id), "{id} is not listed as unchecked");
        let mut policy = policy();
        ask(&mut policy);
        let result = appraise(&TdxSpec::default(), &collateral(), &policy);
        only(&result, id, Outcome::Refused);
        assert!(!unchecked(&result, id), "{id} is listed as unchecked");
    }
    let mut policy = policy();
    policy.tdx.mrtd = vec![Hex([9; 48]), Hex(TdxSpec::default().body.mr_td)];
    accepted(&appraise(&TdxSpec::default(), &collateral(), &policy));
}

#[test]
fn platform_configuration() {
    let (mut spec, mut policy) = (TdxSpec::default(), policy());
    spec.pck.smt_enabled = true;
    assert!(unchecked(&appraise(&spec, &collateral(), &policy), "tdx.smt"));
    policy.tdx.allow_smt = Some(false);
    only(&appraise(&spec, &collateral(), &policy), "tdx.smt", Outcome::Refused);
    spec.pck.smt_enabled = false;
    accepted(&appraise(&spec, &collateral(), &policy));
}

#[test]
fn what_follows_the_quote_must_be_zero() {
    let platform = platform();
    let collateral = platform.tdx_collateral(&collateral());
    let mut bytes = platform.tdx_quote(&TdxSpec::default());
    bytes.extend([0; 100]);
    accepted(&appraise_tdx(&bytes, &collateral, &policy(), AT));
    bytes.push(1);
    only(&appraise_tdx(&bytes, &collateral, &policy(), AT), "tdx.format", Outcome::Malformed);
}

#[test]
fn collateral_that_is_none() {
    let bytes = platform().tdx_quote(&TdxSpec::default());
    for collateral in [b"".as_slice(), b"{}", b"[]", b"\xff"] {
        only(&appraise_tdx(&bytes, collateral, &policy(), AT), "tdx.collateral-format", Outcome::Malformed);
    }
}

#[test]
fn only_roots_that_can_sign_quotes_are_tried() {
    let policy = Policy { roots: vec![platform().snp_ark_der()], ..Policy::default() };
    only(&appraise(&TdxSpec::default(), &collateral(), &policy), "tdx.root", Outcome::Invalid);
}
