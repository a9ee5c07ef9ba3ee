//! dcap-qvl beside this verifier, on the same bytes. Where it accepts, status and advisories are the same here, and what is
//! refused is refused by a check that it does not make; where it fails, nothing is accepted here unless the policy here
//! has the say.

mod common;

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{CollateralSpec, SignedBy, Td15, TdxSpec, serial};
use cocoon_verifier::{Outcome, Policy, appraise_tdx};
use common::{AT, collateral, platform};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;

/// What dcap-qvl says: status and advisories, or why not.
fn oracle(quote: &[u8], collateral: &[u8], root: &[u8], at: UnixTime) -> Result<(String, Vec<String>), String> {
    let collateral: QuoteCollateralV3 = serde_json::from_slice(collateral).map_err(|error| error.to_string())?;
    let verifier = QuoteVerifier::new(root.to_vec()).allow_service_td(true).allow_debug(true);
    let report = verifier.verify(quote, &collateral, at.0).map_err(|error| format!("{error:#}"))?;
    let mut advisories = report.advisory_ids;
    advisories.sort();
    Ok((report.status, advisories))
}

/// Checks that dcap-qvl leaves to whoever calls it.
const OURS_ALONE: &[&str] = &[
    "tdx.format",
    "tdx.signature-data",
    "tdx.pce-id",
    "tdx.tcb-type",
    "tdx.signer-subject",
    "tdx.pck-subject",
    "tdx.pck-tcb",
    "tdx.header-svn",
];

/// Matters of policy here, for which dcap-qvl fails a quote.
const POLICY_HERE: &[&str] =
    &["Debug mode", "profiling", "Reserved bits", "migration", "SERVTD_EXT", "SEPT_VE_DISABLE"];

#[track_caller]
fn agree(what: &str, quote: &[u8], collateral: &[u8], at: UnixTime) {
    let root = platform().tdx_root_der();
    let mut policy = Policy { roots: vec![root.clone()], ..Policy::default() };
    (policy.tdx.allow_debug, policy.tdx.allow_migration) = (true, true);
    (policy.tdx.allow_sept_ve, policy.tdx.allow_service_td) = (true, true);
    let ours = appraise_tdx(quote, collateral, &policy, at);
    match oracle(quote, collateral, &root, at) {
        Ok((status, advisories)) => {
            let failed = ours.checks.iter().find(|check| check.outcome.is_failure());
            if ours.outcome == Outcome::Accepted || ours.outcome == Outcome::Refused {
                assert_eq!((ours.tcb_status, ours.advisories), (Some(status), advisories), "{what}");
            } else {
                let id = failed.map(|check| &*check.id).unwrap_or_default();
                // PEM between its markers is read strictly here, and no certificate may be there for nothing.
                let pem = ours.reason.contains("PCK chain");
                assert!(pem || OURS_ALONE.contains(&id), "{what}: dcap-qvl says {status}, we say {}", ours.reason);
            }
        }
        Err(error) if POLICY_HERE.iter().any(|word| error.contains(word)) => {
            assert!(ours.outcome < Outcome::Invalid, "{what}: {error}; {}", ours.reason);
        }
        Err(error) => assert!(ours.outcome >= Outcome::Invalid, "{what}: {error}; we say {}", ours.outcome),
    }
}

#[test]
fn on_collateral_of_every_kind() {
    type Alter = fn(&mut CollateralSpec);
    let cases: &[(&str, Alter)] = &[
        ("good", |_| {}),
        ("status SWHardeningNeeded", |spec| spec.tcb_info.tcb_levels[0].tcb_status = "SWHardeningNeeded".into()),
        ("status ConfigurationNeeded", |spec| spec.tcb_info.tcb_levels[0].tcb_status = "ConfigurationNeeded".into()),
        ("status both", |spec| {
            spec.tcb_info.tcb_levels[0].tcb_status = "ConfigurationAndSWHardeningNeeded".into();
        }),
        ("status OutOfDate", |spec| spec.tcb_info.tcb_levels[0].tcb_status = "OutOfDate".into()),
        ("status OutOfDateConfigurationNeeded", |spec| {
            spec.tcb_info.tcb_levels[0].tcb_status = "OutOfDateConfigurationNeeded".into();
        }),
        ("status Revoked", |spec| spec.tcb_info.tcb_levels[0].tcb_status = "Revoked".into()),
        ("status that nobody knows", |spec| spec.tcb_info.tcb_levels[0].tcb_status = "Fine".into()),
        ("no levels", |spec| spec.tcb_info.tcb_levels.clear()),
        ("levels in another order", |spec| spec.tcb_info.tcb_levels.reverse()),
        ("an advisory", |spec| spec.tcb_info.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00002".into()]),
        ("PCE version out of reach", |spec| spec.tcb_info.tcb_levels[0].tcb.pcesvn = 9_999),
        ("TCB info of SGX", |spec| spec.tcb_info.id = "SGX".into()),
        ("QE identity of SGX", |spec| spec.qe_identity.id = "QE".into()),
        ("TCB info's signature", |spec| spec.tcb_info_signed_by = SignedBy::Another),
        ("QE identity's signature", |spec| spec.qe_identity_signed_by = SignedBy::Another),
        ("signer's signature", |spec| spec.tcb_signer.signed_by = SignedBy::Another),
        ("root list's signature", |spec| spec.root_crl.signed_by = SignedBy::Another),
        ("PCK list's signature", |spec| spec.pck_crl.signed_by = SignedBy::Another),
        ("PCK revoked", |spec| spec.pck_crl.revoked = vec![serial::PCK]),
        ("PCK issuer revoked", |spec| spec.root_crl.revoked = vec![serial::PCK_PLATFORM_CA]),
        ("signer revoked", |spec| spec.root_crl.revoked = vec![serial::TCB_SIGNER]),
        ("root revoked", |spec| spec.root_crl.revoked = vec![serial::ROOT]),
        ("tcbType", |spec| spec.tcb_info.tcb_type = 1),
    ];
    let quotes = [TdxSpec::default(), v5(None), v5(Some(Td15::default()))];
    for (what, alter) in cases {
        let mut spec = collateral();
        alter(&mut spec);
        let collateral = platform().tdx_collateral(&spec);
        for (n, quote) in quotes.iter().enumerate() {
            agree(&format!("{what}, quote {n}"), &platform().tdx_quote(quote), &collateral, AT);
        }
    }
}

fn v5(td15: Option<Td15>) -> TdxSpec {
    let mut spec = TdxSpec { td15, ..TdxSpec::default() };
    spec.header.version = 5;
    spec
}

#[test]
fn on_every_combination_of_versions() {
    let collateral = platform().tdx_collateral(&collateral());
    for (module, isv) in (0..=4).flat_map(|module| (0..=8).map(move |isv| (module, isv))) {
        for current in [(module, isv), (module, 8), (1, 0), (9, 9)] {
            let mut td15 = Td15 { tee_tcb_svn2: TdxSpec::default().body.tee_tcb_svn, ..Td15::default() };
            (td15.tee_tcb_svn2[1], td15.tee_tcb_svn2[0]) = current;
            let mut spec = v5(Some(td15));
            (spec.body.tee_tcb_svn[1], spec.body.tee_tcb_svn[0]) = (module, isv);
            agree(&format!("module {module} {isv}, now {current:?}"), &platform().tdx_quote(&spec), &collateral, AT);
        }
    }
    for n in 0..16 {
        for svn in [0, 255] {
            let mut spec = TdxSpec::default();
            spec.pck.cpu_svn[n] = svn;
            spec.pck.tcb_components[n] = svn;
            agree(&format!("SGX component {n} at {svn}"), &platform().tdx_quote(&spec), &collateral, AT);
            let mut spec = TdxSpec::default();
            spec.body.tee_tcb_svn[n] = svn;
            agree(&format!("TDX component {n} at {svn}"), &platform().tdx_quote(&spec), &collateral, AT);
        }
    }
}

#[test]
fn on_altered_bytes_and_at_the_edges_of_time() {
    let spec = collateral();
    let (good, json) = (platform().tdx_quote(&TdxSpec::default()), platform().tdx_collateral(&spec));
    for at in (0..good.len()).step_by(5) {
        let mut quote = good.clone();
        quote[at] ^= 1 << (at % 8);
        agree(&format!("byte {at}"), &quote, &json, AT);
    }
    for at in [0, spec.tcb_info.issue_date.0 - 1, spec.tcb_info.issue_date.0, spec.tcb_info.next_update.0] {
        for at in [UnixTime(at), UnixTime(at + 1)] {
            agree(&format!("at {at}"), &good, &json, at);
        }
    }
}
