//! Security versions against what Intel says of them (Intel PCS API v4, "TCB info: how to use it", and Intel's Quote Verification
//! Library, whose order and convergence of statuses these are).

use super::collateral::{Component, Components, EnclaveLevel, Level, ModuleIdentity, Status, TcbInfo};
use super::parse::Quote;
use super::pck::Pck;

/// What Intel says of a platform and its TDX module.
#[derive(Clone, Debug)]
pub(super) struct Tcb {
    pub(super) status: Status,
    pub(super) advisories: Vec<String>,
    /// What keeps the platform from the highest level, layer by layer, for people.
    pub(super) lacking: Vec<String>,
}

/// An error names the check that failed.
pub(super) type Failure = (&'static str, String);

/// The status of platform and module, converged with the quoting enclave's.
pub(super) fn evaluate(info: &TcbInfo, pck: &Pck, qe: &EnclaveLevel, quote: &Quote) -> Result<Tcb, Failure> {
    let launch = quote.tee_tcb_svn();
    module(info, quote, &launch)?;
    let mut tcb = levels(info, pck, &launch)?;
    for advisory in &qe.advisories {
        if !tcb.advisories.contains(advisory) {
            tcb.advisories.push(advisory.clone());
        }
    }
    tcb.status = converge(tcb.status, qe.tcb_status);
    if !matches!(qe.tcb_status, Status::UpToDate) {
        tcb.lacking.push(format!("the quoting enclave is {}: update Intel's DCAP packages", qe.tcb_status.name()));
    }
    // A module can be updated under a running guest. Both versions must be appraisable, and neither revoked.
    let current = match quote.tee_tcb_svn2() {
        None => tcb.status,
        Some(svn) => converge(levels(info, pck, &svn)?.status, qe.tcb_status),
    };
    if tcb.status == Status::Revoked || current == Status::Revoked {
        return Err(("tdx.tcb-level", "Revoked: the platform's keys can no longer be trusted".into()));
    }
    tcb.status = relaunch(tcb.status, current);
    Ok(tcb)
}

/// The level that a platform with a module of these versions reaches, converged with the module's own.
fn levels(info: &TcbInfo, pck: &Pck, tee_tcb_svn: &[u8; 16]) -> Result<Tcb, Failure> {
    let reached = info.tcb_levels.iter().find(|level| shortfalls(&level.tcb, pck, tee_tcb_svn).is_empty());
    let highest = info.tcb_levels.first();
    let lacking = || highest.map(|highest| shortfalls(&highest.tcb, pck, tee_tcb_svn)).unwrap_or_default();
    let Some(Level { tcb_status, advisories, .. }) = reached else {
        let lacking = lacking();
        let detail = if lacking.is_empty() { "TCB info lists none".into() } else { lacking.join("; ") };
        return Err(("tdx.tcb-level", format!("the platform reaches no TCB level: {detail}")));
    };
    let mut tcb = Tcb { status: *tcb_status, advisories: advisories.clone(), lacking: Vec::new() };
    if *tcb_status != Status::UpToDate {
        tcb.lacking = lacking();
    }
    if let Some(identity) = identity(info, tee_tcb_svn)? {
        let svn = tee_tcb_svn[0];
        let level = EnclaveLevel::reached(&identity.tcb_levels, svn.into());
        let level =
            level.ok_or_else(|| ("tdx.module", format!("TDX module {} {svn} reaches no level", identity.id)))?;
        if level.tcb_status != Status::UpToDate {
            tcb.lacking.push(format!("TDX module {} {svn} is {}", identity.id, level.tcb_status.name()));
        }
        tcb.status = converge(tcb.status, level.tcb_status);
        for advisory in &level.advisories {
            if !tcb.advisories.contains(advisory) {
                tcb.advisories.push(advisory.clone());
            }
        }
    }
    Ok(tcb)
}

/// The identity of a module that has a version (`tee_tcb_svn[1]`); modules without one have no identity of their own.
fn identity<'a>(info: &'a TcbInfo, tee_tcb_svn: &[u8; 16]) -> Result<Option<&'a ModuleIdentity>, Failure> {
    let version = tee_tcb_svn[1];
    if version == 0 {
        return Ok(None);
    }
    let id = format!("TDX_{version:02X}");
    let found = info.tdx_module_identities.iter().find(|identity| identity.id.eq_ignore_ascii_case(&id));
    found.map(Some).ok_or_else(|| ("tdx.module", format!("TCB info knows no TDX module {id}")))
}

/// The module is signed by whom TCB info names, and has the attributes it names and no others.
fn module(info: &TcbInfo, quote: &Quote, tee_tcb_svn: &[u8; 16]) -> Result<(), Failure> {
    let base = info.tdx_module.as_ref().ok_or(("tdx.module", "TCB info names no TDX module".to_string()))?;
    let expected = identity(info, tee_tcb_svn)?.unwrap_or(base);
    if quote.mrsignerseam() != expected.mrsigner.0 {
        return Err(("tdx.module", "somebody else than TCB info names signed the TDX module".into()));
    }
    let (attributes, mask) = (expected.attributes.0, expected.attributes_mask.0);
    let differ = |n: usize| quote.seam_attributes()[n] & mask[n] != attributes[n] & mask[n];
    let beyond = |n: usize| quote.seam_attributes()[n] & !mask[n] != 0;
    if (0..8).any(|n| differ(n) || beyond(n)) {
        let found = hex::encode(quote.seam_attributes());
        return Err(("tdx.module", format!("SEAM attributes {found} are not what TCB info names")));
    }
    Ok(())
}

/// What a platform lacks for a level, in words; empty if it reaches it. Where a module has a version, its identity judges the
/// first two TDX components.
fn shortfalls(level: &Components, pck: &Pck, tee_tcb_svn: &[u8; 16]) -> Vec<String> {
    let mut lacking = Vec::new();
    let mut compare = |what: &str, n: usize, found: u8, wanted: &Component| {
        if found < wanted.svn {
            let layer = match (wanted.category.as_str(), wanted.kind.as_str()) {
                ("", "") => String::new(),
                (category, "") => format!(" ({category})"),
                (category, kind) => format!(" ({category}, {kind})"),
            };
            lacking.push(format!("{what} component {}{layer} has version {found}, not {}", n + 1, wanted.svn));
        }
    };
    for (n, (found, wanted)) in pck.cpu_svn.iter().zip(&level.sgx).enumerate() {
        compare("SGX", n, *found, wanted);
    }
    let judged_by_identity = if tee_tcb_svn[1] > 0 { 2 } else { 0 };
    for (n, (found, wanted)) in tee_tcb_svn.iter().zip(&level.tdx).enumerate().skip(judged_by_identity) {
        compare("TDX", n, *found, wanted);
    }
    if pck.pce_svn < level.pce_svn {
        lacking.push(format!("the PCE has version {}, not {}", pck.pce_svn, level.pce_svn));
    }
    lacking
}

/// A platform's status with that of a part of it: only a part that is out of date or revoked counts.
fn converge(platform: Status, part: Status) -> Status {
    use Status::{
        ConfigurationAndSwHardeningNeeded, ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded, Revoked,
        SwHardeningNeeded, UpToDate,
    };
    match (part, platform) {
        (Revoked, _) => Revoked,
        (OutOfDate, UpToDate | SwHardeningNeeded) => OutOfDate,
        (OutOfDate, ConfigurationNeeded | ConfigurationAndSwHardeningNeeded) => OutOfDateConfigurationNeeded,
        _ => platform,
    }
}

/// A guest that was launched on an out-of-date module which has been updated since needs a relaunch only.
fn relaunch(launch: Status, current: Status) -> Status {
    use Status::{
        ConfigurationAndSwHardeningNeeded, ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded, Revoked,
        TdRelaunchAdvised, TdRelaunchAdvisedConfigurationNeeded,
    };
    let out_of_date = |status| matches!(status, OutOfDate | OutOfDateConfigurationNeeded | Revoked);
    let configuration = |status| {
        matches!(status, ConfigurationNeeded | OutOfDateConfigurationNeeded | ConfigurationAndSwHardeningNeeded)
    };
    match (out_of_date(launch), out_of_date(current)) {
        (true, false) if configuration(launch) || configuration(current) => TdRelaunchAdvisedConfigurationNeeded,
        (true, false) => TdRelaunchAdvised,
        // Modules are not updated to older ones; if one is, it counts.
        (false, true) => current,
        _ => launch,
    }
}
