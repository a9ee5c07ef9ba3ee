//! Is a genuine quote good enough? All of it is policy.

use cocoon_attestation::UnixTime;

use super::authenticate::Platform;
use super::collateral::Status;
use super::parse::Quote;
use super::tcb::Tcb;
use crate::outcome::Record;
use crate::policy::TdxPolicy;

/// TUD: DEBUG and the profiling bits; the TD's owner gives up confidentiality with any of them.
const DEBUG: u64 = 0xff;
const SERVTD_EXT: u64 = 1 << 17;
const SEPT_VE_DISABLE: u64 = 1 << 28;
const MIGRATABLE: u64 = 1 << 29;
/// TUD, ICSSD (16), SERVTD_EXT, LASS (27), SEPT_VE_DISABLE, MIGRATABLE, PKS, KL, TPA (62), PERFMON (TDX Module 1.5 ABI, ATTRIBUTES).
const KNOWN: u64 = 0xc000_0000_f803_00ff;

/// The header's bytes 8 to 11 state versions in other quotes and are reserved in TDX ones, where quoting enclaves leave
/// zero. A header that does state them must not exceed what was certified.
pub(super) fn header(record: &mut Record, quote: &Quote, platform: &Platform) {
    let stated = quote.header_svns();
    let certified = (platform.qe_svn, platform.pck.pce_svn);
    let holds = stated.0 <= certified.0 && stated.1 <= certified.1;
    let detail = format!("header states (QE, PCE) {stated:?}, certified are {certified:?}");
    record.genuine("tdx.header-svn", holds, detail);
}

pub(super) fn appraise(
    record: &mut Record,
    quote: &Quote,
    platform: &Platform,
    found: Tcb,
    policy: &TdxPolicy,
    at: UnixTime,
) {
    measure(record, quote, platform);
    tcb(record, quote, platform, found, policy);
    age(record, platform, policy, at);
    attributes(record, quote, policy);
    flags(record, platform, policy);
    references(record, quote, platform, policy);
}

fn measure(record: &mut Record, quote: &Quote, platform: &Platform) {
    record.measure("tdx.mrtd", &quote.mrtd());
    for (n, name) in ["tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2", "tdx.rtmr3"].into_iter().enumerate() {
        record.measure(name, &quote.rtmr(n));
    }
    record.measure("tdx.mrseam", &quote.mrseam());
    record.measure("tdx.tee-tcb-svn", &quote.tee_tcb_svn());
    record.measure("tdx.td-attributes", &quote.td_attributes().to_le_bytes());
    record.measure("tdx.xfam", &quote.xfam());
    record.measure("tdx.mrconfigid", &quote.mrconfigid());
    record.measure("tdx.mrowner", &quote.mrowner());
    record.measure("tdx.mrownerconfig", &quote.mrownerconfig());
    record.measure("tdx.report-data", &quote.report_data());
    record.measure("tdx.fmspc", &platform.pck.fmspc);
    if let Some(piid) = platform.pck.piid {
        record.measure("tdx.piid", &piid);
    }
    record.measurements.push(("tdx.tcb-evaluation".into(), platform.evaluation.to_string()));
    record.measurements.push(("tdx.qe-svn".into(), platform.qe_svn.to_string()));
    record.measurements.push(("tdx.pce-svn".into(), platform.pck.pce_svn.to_string()));
}

fn tcb(record: &mut Record, quote: &Quote, platform: &Platform, found: Tcb, policy: &TdxPolicy) {
    let status = found.status.name();
    let up_to_date = found.status == Status::UpToDate;
    let mut advisories = found.advisories;
    advisories.sort();
    advisories.dedup();
    let accepted = policy.accept_status.iter().any(|name| name == status);
    let lacking = if found.lacking.is_empty() { String::new() } else { format!(" ({})", found.lacking.join("; ")) };
    let detail = match (up_to_date, accepted) {
        (true, true) => "UpToDate".into(),
        (_, true) => format!("{status}, which the policy accepts{lacking}"),
        _ => format!("{status}: update BIOS, microcode and TDX module, or let the policy accept this status{lacking}"),
    };
    record.demand_unless("tdx.tcb-status", accepted && up_to_date, accepted, detail);
    let open: Vec<_> = advisories.iter().filter(|id| !policy.accept_advisories.contains(id)).cloned().collect();
    let detail = match (advisories.is_empty(), open.is_empty()) {
        (true, _) => "none applies".into(),
        (_, true) => format!("{} apply, each accepted by the policy", advisories.join(", ")),
        _ => format!("{} apply to this platform and are not accepted by the policy", open.join(", ")),
    };
    record.demand_unless("tdx.advisories", advisories.is_empty(), open.is_empty(), detail);
    record.minimum("tdx.tcb-evaluation", platform.evaluation.into(), policy.min_tcb_evaluation.map(Into::into));
    record.minimum("tdx.qe-svn", platform.qe_svn.into(), policy.min_qe_svn.map(Into::into));
    record.minimum("tdx.pce-svn", platform.pck.pce_svn.into(), policy.min_pce_svn.map(Into::into));
    match policy.min_tee_tcb_svn {
        None => record.unchecked("tdx.tee-tcb-svn", "the policy gives no minimum"),
        Some(least) => {
            let svn = quote.tee_tcb_svn();
            let holds = svn.iter().zip(least.0).all(|(found, least)| *found >= least);
            let (found, least) = (hex::encode(svn), hex::encode(least));
            record.demand("tdx.tee-tcb-svn", holds, format!("{found}, and the policy asks for {least} or more"));
        }
    }
    record.tcb_status = Some(status.into());
    record.advisories = advisories;
}

/// Collateral can be current and yet older than a relying party likes: the next update may be weeks away.
fn age(record: &mut Record, platform: &Platform, policy: &TdxPolicy, at: UnixTime) {
    let Some(longest) = policy.max_collateral_age else {
        return record.unchecked("tdx.collateral-age", "the policy gives no longest age");
    };
    let issued = platform.issued;
    let detail = format!("the oldest part is of {issued}, appraised at {at}, and may be {longest} s old");
    record.demand("tdx.collateral-age", at <= issued.plus(longest), detail);
}

fn attributes(record: &mut Record, quote: &Quote, policy: &TdxPolicy) {
    let attributes = quote.td_attributes();
    let clear = |bits: u64| attributes & bits == 0;
    let say = |holds: bool, good: &str, bad: &str| if holds { good.to_string() } else { bad.to_string() };
    let debug = clear(DEBUG);
    record.demand_unless(
        "tdx.debug",
        debug,
        policy.allow_debug,
        say(debug, "off", "the host can read this TD: debug or profiling is on"),
    );
    let migration = clear(MIGRATABLE);
    record.demand_unless(
        "tdx.migration",
        migration,
        policy.allow_migration,
        say(migration, "off", "this TD can be migrated"),
    );
    let sept = !clear(SEPT_VE_DISABLE);
    record.demand_unless(
        "tdx.sept-ve-disable",
        sept,
        policy.allow_sept_ve,
        say(sept, "set", "SEPT_VE_DISABLE is clear: the host can inject #VE by removing pages"),
    );
    let service = clear(SERVTD_EXT)
        && [quote.mrservicetd(), quote.current_service_td()].iter().flatten().all(|digest| *digest == [0; 48]);
    if service && quote.mrservicetd().is_none() {
        record.unchecked("tdx.service-td", "this kind of quote does not say which service TDs are bound");
    } else {
        record.demand_unless(
            "tdx.service-td",
            service,
            policy.allow_service_td,
            say(service, "none", "a service TD is bound to this TD"),
        );
    }
    let reserved = clear(!KNOWN);
    record.demand(
        "tdx.attributes",
        reserved,
        say(reserved, "every bit is known", "a TD attribute is set that this verifier does not know"),
    );
}

fn flags(record: &mut Record, platform: &Platform, policy: &TdxPolicy) {
    let pck = &platform.pck;
    let flags = [
        ("tdx.smt", pck.smt, policy.allow_smt),
        ("tdx.cached-keys", pck.cached_keys, policy.allow_cached_keys),
        ("tdx.dynamic-platform", pck.dynamic_platform, policy.allow_dynamic_platform),
    ];
    for (id, flag, allowed) in flags {
        match allowed {
            None => record.unchecked(id, "the policy has no opinion on it"),
            Some(allowed) => {
                let stated = match flag {
                    None => "not stated",
                    Some(true) => "stated",
                    Some(false) => "denied",
                };
                record.demand_unless(id, flag == Some(false), allowed, format!("{stated} in the PCK certificate"));
            }
        }
    }
}

fn references(record: &mut Record, quote: &Quote, platform: &Platform, policy: &TdxPolicy) {
    record.reference("tdx.mrtd", &quote.mrtd(), &policy.mrtd);
    record.reference("tdx.rtmr0", &quote.rtmr(0), &policy.rtmr0);
    record.reference("tdx.rtmr1", &quote.rtmr(1), &policy.rtmr1);
    record.reference("tdx.rtmr2", &quote.rtmr(2), &policy.rtmr2);
    record.reference("tdx.rtmr3", &quote.rtmr(3), &policy.rtmr3);
    record.reference("tdx.mrseam", &quote.mrseam(), &policy.mrseam);
    record.reference("tdx.td-attributes", &quote.td_attributes().to_le_bytes(), &policy.td_attributes);
    record.reference("tdx.xfam", &quote.xfam(), &policy.xfam);
    record.reference("tdx.mrconfigid", &quote.mrconfigid(), &policy.mrconfigid);
    record.reference("tdx.mrowner", &quote.mrowner(), &policy.mrowner);
    record.reference("tdx.mrownerconfig", &quote.mrownerconfig(), &policy.mrownerconfig);
    record.reference("tdx.report-data", &quote.report_data(), &policy.report_data);
    record.reference("tdx.fmspc", &platform.pck.fmspc, &policy.fmspc);
    // A platform without an instance id is none of those that the policy names.
    record.reference("tdx.piid", &platform.pck.piid.unwrap_or_default(), &policy.piid);
}
