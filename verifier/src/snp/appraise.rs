//! Is a genuine report good enough? All of it is policy.

use super::authenticate::Platform;
use super::parse::{Report, Tcb};
use crate::outcome::Record;
use crate::policy::{MinFirmware, MinTcb, SnpPolicy};

// Guest policy bits (56860, table "Guest Policy").
const SMT: u64 = 1 << 16;
const ALWAYS_ONE: u64 = 1 << 17;
const MIGRATION: u64 = 1 << 18;
const DEBUG: u64 = 1 << 19;
const SINGLE_SOCKET: u64 = 1 << 20;
/// As many as are known: PAGE_SWAP_DISABLE is the last.
const POLICY_BITS: u32 = 26;
const ABI_VERSION: u64 = 0xffff;

pub(super) fn appraise(record: &mut Record, report: &Report, key: &Platform, policy: &SnpPolicy) {
    measure(record, report);
    let say = |holds: bool, good: &str, bad: &str| if holds { good.to_string() } else { bad.to_string() };
    let guest = report.policy();
    let debug = guest & DEBUG == 0;
    record.demand_unless(
        "snp.debug",
        debug,
        policy.allow_debug,
        say(debug, "off", "the guest policy lets the host debug this guest"),
    );
    let migration = guest & MIGRATION == 0 && report.report_id_ma() == [0xff; 32];
    record.demand_unless(
        "snp.migration",
        migration,
        policy.allow_migration,
        say(migration, "off", "the guest may have a migration agent"),
    );
    let known = guest & ALWAYS_ONE != 0 && guest >> POLICY_BITS == 0;
    let detail = format!("guest policy {guest:#x}; bit 17 must be one, and no bit above {} set", POLICY_BITS - 1);
    record.demand("snp.policy", known, detail);
    let (allowed, required) = (policy.allowed_guest_policy, policy.required_guest_policy);
    if allowed.is_none() && required.is_none() {
        record.unchecked("snp.guest-policy", "the policy has no opinion on further bits");
    } else {
        let bits = guest & !ABI_VERSION;
        let (beyond, missing) = (bits & !allowed.unwrap_or(u64::MAX), required.unwrap_or(0) & !bits);
        let detail = format!("{guest:#x}; bits {beyond:#x} may not be set, bits {missing:#x} must be");
        record.demand("snp.guest-policy", beyond == 0 && missing == 0, detail);
    }
    match policy.allow_smt {
        None => record.unchecked("snp.smt", "the policy has no opinion on it"),
        Some(allowed) => record.demand_unless(
            "snp.smt",
            guest & SMT == 0,
            allowed,
            "whether the guest policy permits hyper-threading",
        ),
    }
    let vmpl = report.vmpl();
    record.demand_unless(
        "snp.vmpl",
        vmpl == 0,
        vmpl <= policy.max_vmpl,
        format!("asked for at privilege level {vmpl}"),
    );
    let committed =
        report.current_tcb() == report.committed_tcb() && report.current_firmware() == report.committed_firmware();
    record.demand_unless(
        "snp.provisional-firmware",
        committed,
        policy.allow_provisional_firmware,
        say(
            committed,
            "the firmware that runs is committed",
            "the firmware that runs is provisional: ask the host to commit it",
        ),
    );
    let reported = report.reported_tcb(key.product);
    let same = reported == key.tcb;
    record.demand_unless(
        "snp.tcb",
        same,
        policy.allow_tcb_mismatch,
        format!("reported {}, certificate {}", show(&reported), show(&key.tcb)),
    );
    if key.vlek {
        record.demand_unless(
            "snp.vlek",
            false,
            policy.allow_vlek,
            "signed with a key that AMD loaded for a cloud provider",
        );
    } else {
        let named = !report.chip_id_masked();
        record.demand_unless(
            "snp.masked-chip-id",
            named,
            policy.allow_masked_chip_id,
            say(named, "not masked", "the host masked the chip id"),
        );
    }
    least_tcb(record, "snp.min-tcb", &reported, policy.min_tcb);
    least_tcb(record, "snp.min-launch-tcb", &report.launch_tcb(key.product), policy.min_launch_tcb);
    let abi = ((guest >> 8) as u8, guest as u8);
    match policy.min_abi {
        None => record.unchecked("snp.abi", "the policy gives no minimum"),
        Some(least) => record.demand(
            "snp.abi",
            abi >= (least.major, least.minor),
            format!("the guest policy asks for ABI {}.{}", abi.0, abi.1),
        ),
    }
    record.minimum("snp.guest-svn", report.guest_svn().into(), policy.min_guest_svn.map(Into::into));
    firmware(record, report, policy);
    platform_info(record, report, policy);
    mitigations(record, report, policy);
    if policy.require_id_block {
        let holds = report.id_key_digest() != [0; 48];
        record.demand("snp.id-key", holds, say(holds, "a key signed an identity block", "there is no identity block"));
    }
    if policy.require_author_key {
        let holds = report.author_key_enabled();
        record.demand(
            "snp.author-key",
            holds,
            say(holds, "an author key signed", "no author key signed the identity block"),
        );
    }
    if policy.require_single_socket {
        let holds = guest & SINGLE_SOCKET != 0;
        record.demand("snp.single-socket", holds, say(holds, "one socket", "the guest may use several sockets"));
    }
    record.reference("snp.measurement", &report.measurement(), &policy.measurement);
    record.reference("snp.host-data", &report.host_data(), &policy.host_data);
    record.reference("snp.report-data", &report.report_data(), &policy.report_data);
    record.reference("snp.id-key-digest", &report.id_key_digest(), &policy.id_key_digest);
    record.reference("snp.author-key-digest", &report.author_key_digest(), &policy.author_key_digest);
    id_block(record, report, policy);
    record.reference("snp.family-id", &report.family_id(), &policy.family_id);
    record.reference("snp.image-id", &report.image_id(), &policy.image_id);
    record.reference("snp.report-id", &report.report_id(), &policy.report_id);
    record.reference("snp.report-id-ma", &report.report_id_ma(), &policy.report_id_ma);
    record.reference("snp.allowed-chip", &report.chip_id(), &policy.chip_id);
}

/// Who signed the identity block: a trusted key itself, or one that a trusted author vouches for.
fn id_block(record: &mut Record, report: &Report, policy: &SnpPolicy) {
    let (keys, authors) = (&policy.trusted_id_keys, &policy.trusted_author_keys);
    if keys.is_empty() && authors.is_empty() {
        return record.unchecked("snp.id-block", "the policy names no trusted key");
    }
    let key = keys.iter().any(|key| key.0 == report.id_key_digest());
    let author = report.author_key_enabled() && authors.iter().any(|key| key.0 == report.author_key_digest());
    let detail = match (key, author) {
        (true, _) => "a trusted key signed the identity block",
        (_, true) => "a trusted author vouches for the key of the identity block",
        _ => "no trusted key signed the identity block, or vouches for the one that did",
    };
    record.demand("snp.id-block", key || author, detail);
}

/// Both firmware versions count: the one that runs, and the one that cannot be gone back behind.
fn firmware(record: &mut Record, report: &Report, policy: &SnpPolicy) {
    let Some(least) = policy.min_firmware else {
        return record.unchecked("snp.firmware", "the policy gives no minimum");
    };
    let version = |[build, minor, major]: [u8; 3]| MinFirmware { major, minor, build };
    let (current, committed) = (version(report.current_firmware()), version(report.committed_firmware()));
    let holds = current >= least && committed >= least;
    let show = |of: MinFirmware| format!("{}.{}.{}", of.major, of.minor, of.build);
    let detail =
        format!("{} runs, {} is committed, the policy asks for {}", show(current), show(committed), show(least));
    record.demand("snp.firmware", holds, detail);
}

fn platform_info(record: &mut Record, report: &Report, policy: &SnpPolicy) {
    let info = report.platform_info();
    let (allowed, required) = (policy.allowed_platform_info, policy.required_platform_info);
    if allowed.is_none() && required.is_none() {
        return record.unchecked("snp.platform-info", "the policy has no opinion on it");
    }
    let (beyond, missing) = (info & !allowed.unwrap_or(u64::MAX), required.unwrap_or(0) & !info);
    let detail = format!("{info:#x}; bits {beyond:#x} may not be set, bits {missing:#x} must be");
    record.demand("snp.platform-info", beyond == 0 && missing == 0, detail);
}

/// Bits of both vectors: a guest keeps what it was launched without.
fn mitigations(record: &mut Record, report: &Report, policy: &SnpPolicy) {
    let Some(required) = policy.required_mitigations else {
        return record.unchecked("snp.mitigations", "the policy demands none");
    };
    let (holds, detail) = match report.mitigations() {
        None => (false, format!("a report of version {} does not say which mitigations there are", report.version())),
        Some([launch, now]) => {
            let missing = required & !(launch & now);
            (missing == 0, format!("{launch:#x} at launch, {now:#x} now; bits {missing:#x} are missing"))
        }
    };
    record.demand("snp.mitigations", holds, detail);
}

fn measure(record: &mut Record, report: &Report) {
    record.measure("snp.measurement", &report.measurement());
    record.measure("snp.host-data", &report.host_data());
    record.measure("snp.report-data", &report.report_data());
    record.measure("snp.report-id", &report.report_id());
    record.measure("snp.report-id-ma", &report.report_id_ma());
    record.measure("snp.chip-id", &report.chip_id());
    record.measure("snp.id-key-digest", &report.id_key_digest());
    record.measure("snp.author-key-digest", &report.author_key_digest());
    let [launch, now] = report.mitigations().map_or([None; 2], |both| both.map(Some));
    for (name, number) in [("snp.launch-mitigations", launch), ("snp.current-mitigations", now)] {
        record.measurements.extend(number.map(|number| (name.into(), number.to_string())));
    }
    for (name, number) in [
        ("snp.policy", report.policy()),
        ("snp.platform-info", report.platform_info()),
        ("snp.guest-svn", report.guest_svn().into()),
        ("snp.vmpl", report.vmpl().into()),
    ] {
        record.measurements.push((name.into(), number.to_string()));
    }
}

fn show(tcb: &Tcb) -> String {
    let fmc = tcb.fmc.map(|fmc| format!("fmc {fmc}, ")).unwrap_or_default();
    format!("{fmc}bootloader {}, tee {}, snp {}, microcode {}", tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)
}

fn least_tcb(record: &mut Record, id: &'static str, tcb: &Tcb, least: Option<MinTcb>) {
    let Some(least) = least else { return record.unchecked(id, "the policy gives no minimum") };
    let holds = tcb.fmc.is_none_or(|fmc| fmc >= least.fmc)
        && tcb.bootloader >= least.bootloader
        && tcb.tee >= least.tee
        && tcb.snp >= least.snp
        && tcb.microcode >= least.microcode;
    record.demand(id, holds, format!("{}, and the policy asks for {least:?} or more", show(tcb)));
}

#[cfg(test)]
mod tests {
    //! Turin's further component, which the development platform does not mint.

    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn the_fmc_counts_where_there_is_one() {
        let turin = Tcb { fmc: Some(3), bootloader: 4, tee: 5, snp: 6, microcode: 7 };
        let least = |fmc| Some(MinTcb { fmc, bootloader: 4, tee: 5, snp: 6, microcode: 7 });
        for (tcb, fmc, holds) in
            [(turin, 3, true), (turin, 4, false), (turin, 0, true), (Tcb { fmc: None, ..turin }, 4, true)]
        {
            let mut record = Record::default();
            least_tcb(&mut record, "snp.min-tcb", &tcb, least(fmc));
            assert_eq!(record.finish().outcome == Outcome::Accepted, holds, "{fmc}");
        }
        assert_eq!(show(&turin), "fmc 3, bootloader 4, tee 5, snp 6, microcode 7");
        assert_eq!(show(&Tcb { fmc: None, ..turin }), "bootloader 4, tee 5, snp 6, microcode 7");
    }
}
