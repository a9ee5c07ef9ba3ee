//! Is a genuine quote good enough? All of it is policy.

use dcap_qvl::{PckCertFlag, QuoteClaims};

use super::parse::Quote;
use crate::outcome::Record;
use crate::policy::TdxPolicy;

/// TUD: DEBUG and the profiling bits; the TD's owner gives up confidentiality with any of them.
const DEBUG: u64 = 0xff;
const SERVTD_EXT: u64 = 1 << 17;
const SEPT_VE_DISABLE: u64 = 1 << 28;
const MIGRATABLE: u64 = 1 << 29;
/// ICSSD, SERVTD_EXT, LASS, SEPT_VE_DISABLE, MIGRATABLE, PKS, KL, TPA, PERFMON (TDX Module 1.5 ABI, ATTRIBUTES).
const KNOWN: u64 = DEBUG | 1 << 16 | SERVTD_EXT | 0x1f << 27 | 3 << 62;

/// The TCB status that needs no loosening.
const UP_TO_DATE: &str = "UpToDate";

pub(super) fn appraise(record: &mut Record, quote: &Quote, claims: &QuoteClaims, policy: &TdxPolicy) {
    measure(record, quote, claims);
    tcb(record, claims, policy);
    attributes(record, quote, policy);
    platform(record, claims, policy);
    references(record, quote, claims, policy);
}

fn measure(record: &mut Record, quote: &Quote, claims: &QuoteClaims) {
    record.measure("tdx.mrtd", &quote.mrtd());
    for n in 0..4 {
        record.measure(&format!("tdx.rtmr{n}"), &quote.rtmr(n));
    }
    record.measure("tdx.mrseam", &quote.mrseam());
    record.measure("tdx.tee-tcb-svn", &quote.tee_tcb_svn());
    record.measure("tdx.td-attributes", &quote.td_attributes().to_le_bytes());
    record.measure("tdx.xfam", &quote.xfam());
    record.measure("tdx.mrconfigid", &quote.mrconfigid());
    record.measure("tdx.mrowner", &quote.mrowner());
    record.measure("tdx.mrownerconfig", &quote.mrownerconfig());
    record.measure("tdx.report-data", &quote.report_data());
    record.measure("tdx.fmspc", &claims.platform.pck.fmspc);
    record.measurements.insert("tdx.tcb-evaluation".into(), claims.tcb.eval_data_number.to_string());
    record.measurements.insert("tdx.qe-svn".into(), claims.qe.report.isv_svn.to_string());
    record.measurements.insert("tdx.pce-svn".into(), claims.platform.pck.pce_svn.to_string());
}

fn tcb(record: &mut Record, claims: &QuoteClaims, policy: &TdxPolicy) {
    let status = claims.tcb.status.to_string();
    let mut advisories = claims.tcb.advisory_ids.clone();
    advisories.sort();
    advisories.dedup();
    let accepted = policy.accept_status.contains(&status);
    let detail = match (status == UP_TO_DATE, accepted) {
        (true, true) => "UpToDate".into(),
        (_, true) => format!("{status}, which the policy accepts"),
        _ => format!("{status}: update BIOS, microcode and TDX module, or let the policy accept this status"),
    };
    record.demand_unless("tdx.tcb-status", accepted && status == UP_TO_DATE, accepted, detail);
    let open: Vec<_> = advisories.iter().filter(|id| !policy.accept_advisories.contains(id)).cloned().collect();
    let detail = match (advisories.is_empty(), open.is_empty()) {
        (true, _) => "none applies".into(),
        (_, true) => format!("{} apply, each accepted by the policy", advisories.join(", ")),
        _ => format!("{} apply to this platform and are not accepted by the policy", open.join(", ")),
    };
    record.demand_unless("tdx.advisories", advisories.is_empty(), open.is_empty(), detail);
    record.minimum("tdx.tcb-evaluation", claims.tcb.eval_data_number.into(), policy.min_tcb_evaluation.map(Into::into));
    record.minimum("tdx.qe-svn", claims.qe.report.isv_svn.into(), policy.min_qe_svn.map(Into::into));
    record.minimum("tdx.pce-svn", claims.platform.pck.pce_svn.into(), policy.min_pce_svn.map(Into::into));
    record.tcb_status = Some(status);
    record.advisories = advisories;
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
    let service = clear(SERVTD_EXT) && quote.mrservicetd().is_none_or(|digest| digest == [0; 48]);
    record.demand_unless(
        "tdx.service-td",
        service,
        policy.allow_service_td,
        say(service, "none", "a service TD is bound to this TD"),
    );
    let reserved = clear(!KNOWN);
    record.demand(
        "tdx.attributes",
        reserved,
        say(reserved, "every bit is known", "a TD attribute is set that this verifier does not know"),
    );
}

fn platform(record: &mut Record, claims: &QuoteClaims, policy: &TdxPolicy) {
    let pck = &claims.platform.pck;
    let flags = [
        ("tdx.smt", pck.smt_enabled, policy.allow_smt),
        ("tdx.cached-keys", pck.cached_keys, policy.allow_cached_keys),
        ("tdx.dynamic-platform", pck.dynamic_platform, policy.allow_dynamic_platform),
    ];
    for (id, flag, allowed) in flags {
        match allowed {
            None => record.unchecked(id, "the policy has no opinion on it"),
            Some(allowed) => record.demand_unless(
                id,
                flag == PckCertFlag::False,
                allowed,
                format!("{flag:?} in the PCK certificate"),
            ),
        }
    }
}

fn references(record: &mut Record, quote: &Quote, claims: &QuoteClaims, policy: &TdxPolicy) {
    record.reference("tdx.mrtd", &quote.mrtd(), &policy.mrtd);
    for (n, accepted) in [&policy.rtmr0, &policy.rtmr1, &policy.rtmr2, &policy.rtmr3].into_iter().enumerate() {
        record.reference(&format!("tdx.rtmr{n}"), &quote.rtmr(n), accepted);
    }
    record.reference("tdx.mrseam", &quote.mrseam(), &policy.mrseam);
    record.reference("tdx.xfam", &quote.xfam(), &policy.xfam);
    record.reference("tdx.mrconfigid", &quote.mrconfigid(), &policy.mrconfigid);
    record.reference("tdx.mrowner", &quote.mrowner(), &policy.mrowner);
    record.reference("tdx.mrownerconfig", &quote.mrownerconfig(), &policy.mrownerconfig);
    record.reference("tdx.report-data", &quote.report_data(), &policy.report_data);
    record.reference("tdx.fmspc", &claims.platform.pck.fmspc, &policy.fmspc);
}
