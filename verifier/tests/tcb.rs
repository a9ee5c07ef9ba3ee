//! TDX TCB levels: which one a platform reaches, component by component, and what becomes of the statuses of platform, module
//! and quoting enclave together. The tables are written out from Intel's rules (PCS API v4, and its Quote Verification Library).

mod common;

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{CollateralSpec, QeLevel, Td15, TdxSpec};
use cocoon_verifier::{Appraisal, Outcome, appraise_tdx};
use common::{AT, accepted, collateral, only, platform, policy};

const STATUSES: [&str; 7] = [
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
];

/// Status of a part, then what it makes of each platform status above. `Revoked` anywhere is no status but a refusal.
const CONVERGED: [(&str, [&str; 6]); 7] = [
    (
        "UpToDate",
        [
            "UpToDate",
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
        ],
    ),
    (
        "SWHardeningNeeded",
        [
            "UpToDate",
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
        ],
    ),
    (
        "ConfigurationNeeded",
        [
            "UpToDate",
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
        ],
    ),
    (
        "ConfigurationAndSWHardeningNeeded",
        [
            "UpToDate",
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
        ],
    ),
    (
        "OutOfDate",
        [
            "OutOfDate",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
            "OutOfDateConfigurationNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
        ],
    ),
    (
        "OutOfDateConfigurationNeeded",
        [
            "UpToDate",
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
        ],
    ),
    ("Revoked", [""; 6]),
];

/// A guest of Intel's second layout, launched on one module and running on another.
fn extended(launch: [u8; 3], now: [u8; 3]) -> TdxSpec {
    let mut spec = TdxSpec::default();
    spec.header.version = 5;
    spec.body.tee_tcb_svn[..3].copy_from_slice(&launch);
    let mut current = Td15::default();
    current.tee_tcb_svn2[..3].copy_from_slice(&now);
    spec.td15 = Some(current);
    spec
}

fn appraise(quote: &TdxSpec, collateral: &CollateralSpec) -> Appraisal {
    let platform = platform();
    appraise_tdx(&platform.tdx_quote(quote), &platform.tdx_collateral(collateral), &policy(), AT)
}

#[track_caller]
fn status(result: &Appraisal, expected: &str) {
    match expected {
        "" => {
            only(result, "tdx.tcb-level", Outcome::Invalid);
            assert!(result.reason.contains("Revoked"), "{}", result.reason);
        }
        "UpToDate" => accepted(result),
        _ => only(result, "tdx.tcb-status", Outcome::Refused),
    }
    if !expected.is_empty() {
        assert_eq!(result.tcb_status.as_deref(), Some(expected));
    }
}

#[test]
fn statuses_of_platform_and_quoting_enclave_converge() {
    for (enclave, row) in CONVERGED {
        for (found, expected) in STATUSES.into_iter().zip(row) {
            let mut spec = collateral();
            spec.tcb_info.tcb_levels[0].tcb_status = found.into();
            spec.qe_identity.tcb_levels[0].tcb_status = enclave.into();
            let result = appraise(&TdxSpec::default(), &spec);
            status(&result, expected);
            let told = result.check("tdx.tcb-status").is_some_and(|check| check.detail.contains("quoting enclave is"));
            assert_eq!(
                told,
                enclave != "UpToDate" && !expected.is_empty() && expected != "UpToDate",
                "{enclave}, {found}"
            );
        }
    }
}

#[test]
fn statuses_of_platform_and_module_converge() {
    for (module, row) in CONVERGED {
        for (found, expected) in STATUSES.into_iter().zip(row) {
            let mut spec = collateral();
            spec.tcb_info.tcb_levels[0].tcb_status = found.into();
            spec.tcb_info.tdx_module_identities[0].tcb_levels[0].tcb_status = module.into();
            let result = appraise(&TdxSpec::default(), &spec);
            status(&result, expected);
            let told =
                result.check("tdx.tcb-status").is_some_and(|check| check.detail.contains("TDX module TDX_01 7 is"));
            assert_eq!(
                told,
                module != "UpToDate" && !expected.is_empty() && expected != "UpToDate",
                "{module}, {found}"
            );
        }
    }
}

#[test]
fn a_revoked_platform_is_none_whatever_its_parts_are() {
    let mut spec = collateral();
    spec.tcb_info.tcb_levels[0].tcb_status = "Revoked".into();
    status(&appraise(&TdxSpec::default(), &spec), "");
}

/// Module 7 is current, module 2 is out of date, module 4 revoked where a test says so.
#[test]
fn a_module_that_was_updated_under_its_guest_asks_for_a_relaunch() {
    let both = |alter: fn(&mut CollateralSpec), launch: u8, now: u8| {
        let mut spec = collateral();
        // Of the platform's levels only the statuses matter here, not the versions of the module.
        spec.tcb_info.tcb_levels.truncate(1);
        alter(&mut spec);
        appraise(&extended([launch, 1, 3], [now, 1, 3]), &spec)
    };
    let nothing: fn(&mut CollateralSpec) = |_| {};
    status(&both(nothing, 7, 7), "UpToDate");
    status(&both(nothing, 2, 7), "TDRelaunchAdvised");
    status(&both(nothing, 2, 2), "OutOfDate");
    // The other way round a relaunch would mend nothing: what runs now is out of date.
    status(&both(nothing, 7, 2), "OutOfDate");
    let configuration: fn(&mut CollateralSpec) =
        |spec| spec.tcb_info.tcb_levels[0].tcb_status = "ConfigurationNeeded".into();
    status(&both(configuration, 7, 7), "ConfigurationNeeded");
    status(&both(configuration, 2, 7), "TDRelaunchAdvisedConfigurationNeeded");
    let hardening: fn(&mut CollateralSpec) =
        |spec| spec.tcb_info.tcb_levels[0].tcb_status = "ConfigurationAndSWHardeningNeeded".into();
    status(&both(hardening, 2, 7), "TDRelaunchAdvisedConfigurationNeeded");
    let software: fn(&mut CollateralSpec) = |spec| spec.tcb_info.tcb_levels[0].tcb_status = "SWHardeningNeeded".into();
    status(&both(software, 2, 7), "TDRelaunchAdvised");
    // Only the level that the guest was launched on asks for another configuration.
    let mut spec = collateral();
    spec.tcb_info.tcb_levels[0].tcb.tdx[2] = 3;
    spec.tcb_info.tcb_levels[1].tcb.tdx[2] = 2;
    spec.tcb_info.tcb_levels[1].tcb_status = "OutOfDateConfigurationNeeded".into();
    spec.tcb_info.tcb_levels[1].advisory_ids.clear();
    status(&appraise(&extended([7, 1, 2], [7, 1, 3]), &spec), "TDRelaunchAdvisedConfigurationNeeded");
    // An old quoting enclave is no better for a relaunch.
    let enclave: fn(&mut CollateralSpec) = |spec| spec.qe_identity.tcb_levels[0].tcb_status = "OutOfDate".into();
    status(&both(enclave, 2, 7), "OutOfDate");
    // Neither module may be revoked.
    let revoked: fn(&mut CollateralSpec) =
        |spec| spec.tcb_info.tdx_module_identities[0].tcb_levels[1].tcb_status = "Revoked".into();
    status(&both(revoked, 2, 7), "");
    status(&both(revoked, 7, 2), "");
    // A module that collateral does not know, at launch or now.
    only(&appraise(&extended([7, 1, 3], [7, 2, 3]), &collateral()), "tdx.module", Outcome::Invalid);
    only(&appraise(&extended([7, 2, 3], [7, 1, 3]), &collateral()), "tdx.module", Outcome::Invalid);
}

#[test]
fn each_component_counts_and_is_named() {
    let mut good = collateral();
    good.tcb_info.tcb_levels[1].advisory_ids.clear();
    let lowered = |alter: &dyn Fn(&mut CollateralSpec)| {
        let mut spec = good.clone();
        alter(&mut spec);
        appraise(&TdxSpec::default(), &spec)
    };
    let quote = TdxSpec::default();
    for n in 0..16 {
        let result = lowered(&|spec| spec.tcb_info.tcb_levels[0].tcb.sgx[n] = quote.pck.cpu_svn[n] + 1);
        status(&result, "OutOfDate");
        let (found, wanted) = (quote.pck.cpu_svn[n], quote.pck.cpu_svn[n] + 1);
        let told = format!("SGX component {} has version {found}, not {wanted}", n + 1);
        assert!(result.reason.contains(&told), "{}", result.reason);
        // Exactly as much is enough.
        status(&lowered(&|spec| spec.tcb_info.tcb_levels[0].tcb.sgx[n] = quote.pck.cpu_svn[n]), "UpToDate");

        let svn = quote.body.tee_tcb_svn[n];
        let result = lowered(&|spec| spec.tcb_info.tcb_levels[0].tcb.tdx[n] = svn + 1);
        // The module's own identity judges its version and the first component.
        if n < 2 {
            status(&result, "UpToDate");
        } else {
            status(&result, "OutOfDate");
            let told = format!("TDX component {} has version {svn}, not {}", n + 1, svn + 1);
            assert!(result.reason.contains(&told), "{}", result.reason);
        }
        status(&lowered(&|spec| spec.tcb_info.tcb_levels[0].tcb.tdx[n] = svn), "UpToDate");
    }
    let result = lowered(&|spec| spec.tcb_info.tcb_levels[0].tcb.pcesvn = 14);
    status(&result, "OutOfDate");
    assert!(result.reason.contains("the PCE has version 13, not 14"), "{}", result.reason);
}

#[test]
fn a_module_without_a_version_has_no_identity_of_its_own() {
    let mut quote = TdxSpec::default();
    quote.body.tee_tcb_svn[1] = 0;
    let mut spec = collateral();
    // It is judged by the platform's levels alone, the first two components included.
    spec.tcb_info.tcb_levels[0].tcb.tdx[..2].copy_from_slice(&[7, 0]);
    spec.tcb_info.tcb_levels[1].advisory_ids.clear();
    spec.tcb_info.tdx_module_identities.clear();
    accepted(&appraise(&quote, &spec));
    spec.tcb_info.tcb_levels[0].tcb.tdx[0] = 8;
    spec.tcb_info.tcb_levels[1].tcb.tdx[1] = 0;
    status(&appraise(&quote, &spec), "OutOfDate");
    spec.tcb_info.tdx_module.mrsigner[0] = 1;
    only(&appraise(&quote, &spec), "tdx.module", Outcome::Invalid);
}

#[test]
fn a_module_is_who_signed_it_and_what_it_may() {
    let masked = |mask: u8, expected: u8, found: u8| {
        let mut spec = collateral();
        let module = &mut spec.tcb_info.tdx_module_identities[0].module;
        (module.attributes_mask[3], module.attributes[3]) = (mask, expected);
        let mut quote = TdxSpec::default();
        quote.body.seam_attributes[3] = found;
        appraise(&quote, &spec)
    };
    accepted(&masked(0xff, 0x12, 0x12));
    only(&masked(0xff, 0x12, 0x10), "tdx.module", Outcome::Invalid);
    only(&masked(0xff, 0x10, 0x12), "tdx.module", Outcome::Invalid);
    // Bits that the mask leaves out must be clear, whatever collateral says of them.
    accepted(&masked(0x0f, 0xf2, 0x02));
    only(&masked(0x0f, 0xf2, 0xf2), "tdx.module", Outcome::Invalid);
    only(&masked(0x0f, 0x02, 0x12), "tdx.module", Outcome::Invalid);
}

#[test]
fn advisories_of_all_parts_are_reported_once() {
    let mut spec = collateral();
    spec.tcb_info.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00003".into(), "INTEL-SA-00001".into()];
    spec.tcb_info.tdx_module_identities[0].tcb_levels[0].advisory_ids =
        vec!["INTEL-SA-00001".into(), "INTEL-SA-00004".into(), "INTEL-SA-00005".into()];
    spec.qe_identity.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00004".into(), "INTEL-SA-00002".into()];
    let result = appraise(&TdxSpec::default(), &spec);
    only(&result, "tdx.advisories", Outcome::Refused);
    assert_eq!(result.advisories, [1, 2, 3, 4, 5].map(|n| format!("INTEL-SA-0000{n}")));
}

#[test]
fn the_quoting_enclave_reaches_a_level_by_its_version() {
    let at = |svn| {
        let mut spec = collateral();
        spec.qe_identity.tcb_levels =
            vec![QeLevel::new(5, UnixTime(1), "UpToDate"), QeLevel::new(3, UnixTime(1), "OutOfDate")];
        let mut quote = TdxSpec::default();
        quote.qe.isv_svn = svn;
        appraise(&quote, &spec)
    };
    status(&at(6), "UpToDate");
    status(&at(5), "UpToDate");
    status(&at(4), "OutOfDate");
    status(&at(3), "OutOfDate");
    only(&at(2), "tdx.qe-identity", Outcome::Invalid);
}
