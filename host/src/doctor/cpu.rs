//! Processor, microcode and BIOS.

use std::collections::BTreeSet;

use super::{Context, Finding, Machine, Question, as_root, malformed, ok, unknown, wrong};
use crate::vm::config::Tee;

/// Fields of the first processor in `/proc/cpuinfo`.
struct Cpu {
    vendor: String,
    family: u32,
    model: u32,
    name: String,
    flags: BTreeSet<String>,
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn parse(info: &str) -> Option<Cpu> {
    Some(Cpu {
        vendor: field(info, "vendor_id")?.into(),
        family: field(info, "cpu family")?.parse().ok()?,
        model: field(info, "model")?.parse().ok()?,
        name: field(info, "model name")?.into(),
        flags: field(info, "flags")?.split(' ').map(str::to_owned).collect(),
    })
}

impl Cpu {
    /// The generation, if it has a TEE that Cocoon uses.
    fn generation(&self) -> Option<(Tee, &'static str)> {
        Some(match (self.vendor.as_str(), self.family, self.model) {
            ("GenuineIntel", 6, 143) => (Tee::Tdx, "Sapphire Rapids, which has TDX in some models only"),
            ("GenuineIntel", 6, 207) => (Tee::Tdx, "Emerald Rapids"),
            ("GenuineIntel", 6, 173 | 174) => (Tee::Tdx, "Granite Rapids"),
            ("GenuineIntel", 6, 175) => (Tee::Tdx, "Sierra Forest"),
            ("GenuineIntel", 6, 221) => (Tee::Tdx, "Clearwater Forest"),
            ("AuthenticAMD", 25, 0..=15) => (Tee::Snp, "Milan"),
            ("AuthenticAMD", 25, 16..=31) => (Tee::Snp, "Genoa"),
            ("AuthenticAMD", 25, 160..=175) => (Tee::Snp, "Bergamo or Siena"),
            ("AuthenticAMD", 26, 0..=31) => (Tee::Snp, "Turin"),
            _ => return None,
        })
    }
}

fn cpu(machine: &dyn Machine) -> Option<Cpu> {
    parse(&machine.ask(&Question::File("/proc/cpuinfo")).text()?)
}

/// The processor's own TEE, whether or not it is on; by its vendor where it has none, so that the lines say what is missing.
pub(super) fn best(machine: &dyn Machine) -> Tee {
    match cpu(machine) {
        Some(cpu) => match cpu.generation() {
            Some((tee, _)) => tee,
            None if cpu.vendor == "AuthenticAMD" => Tee::Snp,
            None => Tee::Tdx,
        },
        None => Tee::Tdx,
    }
}

/// A processor that can protect guests.
pub(super) fn model(context: &Context<'_>) -> Option<Finding> {
    let Some(cpu) = cpu(context.machine) else {
        return malformed("/proc/cpuinfo does not name the processor", "this is for Linux on x86-64");
    };
    let name = &cpu.name;
    match (context.tee, cpu.generation()) {
        (Tee::Development, _) => ok(name),
        (tee, Some((has, generation))) if has == tee => ok(format!("{name} ({generation})")),
        (Tee::Tdx, _) => wrong(
            format!("{name} has no TDX"),
            "use a Xeon of the 5th generation or newer (or AMD EPYC with --tee snp), or try Cocoon here with --tee development",
        ),
        (Tee::Snp, _) => wrong(
            format!("{name} has no SEV-SNP"),
            "use an EPYC of the 3rd generation (Milan) or newer (or Intel with --tee tdx), or try Cocoon here with --tee development",
        ),
    }
}

/// What the kernel found on in the processor.
pub(super) fn flags(context: &Context<'_>) -> Option<Finding> {
    let cpu = cpu(context.machine)?;
    let needed: &[&str] = match context.tee {
        Tee::Tdx => &["vmx", "ept", "tme", "tdx_host_platform"],
        Tee::Snp => &["svm", "npt", "sev", "sev_es", "sev_snp"],
        Tee::Development => return None,
    };
    if cpu.flags.contains("hypervisor") {
        return wrong("this is a virtual machine", "launch guests from the machine itself: a TEE cannot be nested");
    }
    let missing: Vec<&str> = needed.iter().filter(|flag| !cpu.flags.contains(**flag)).copied().collect();
    if missing.is_empty() {
        return ok(needed.join(" "));
    }
    let fix = match context.tee {
        Tee::Tdx => {
            "in the BIOS switch on VMX, Memory Encryption (TME), TME Multi-Tenant, TDX and the SEAM loader; fill DIMM slots evenly"
        }
        _ => {
            "in the BIOS switch on SVM, SMEE, SEV-SNP Support and SNP Memory Coverage; set the minimum SEV non-ES ASID above 1"
        }
    };
    wrong(format!("the processor does not show {}", missing.join(" ")), fix)
}

/// One microcode on all processors.
pub(super) fn microcode(context: &Context<'_>) -> Option<Finding> {
    if !context.guest() {
        return None;
    }
    let info = context.file("/proc/cpuinfo")?;
    let versions: BTreeSet<&str> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "microcode")
        .map(|(_, value)| value.trim())
        .collect();
    let list = versions.iter().copied().collect::<Vec<_>>().join(", ");
    match versions.len() {
        0 => {
            unknown("the kernel shows no microcode version", "boot a kernel with microcode loading (CONFIG_MICROCODE)")
        }
        1 => ok(list),
        _ => wrong(
            format!("processors run different microcode: {list}"),
            "install intel-microcode or amd64-microcode, update the BIOS, and reboot",
        ),
    }
}

/// First year whose BIOS versions can carry the fixes that verifiers ask for (AMD-SB-3019, Intel's TCB recoveries of 2025).
const BIOS_YEAR: u32 = 2025;

/// A BIOS whose TCB verifiers still accept.
pub(super) fn bios(context: &Context<'_>) -> Option<Finding> {
    if !context.guest() {
        return None;
    }
    let read = |name: &str| context.file(&format!("/sys/class/dmi/id/{name}"));
    let Some(date) = read("bios_date") else {
        return as_root("no BIOS date in /sys/class/dmi/id");
    };
    let about =
        [read("sys_vendor"), read("product_name"), read("bios_version")].map(Option::unwrap_or_default).join(" ");
    let found = format!("{about} of {date}");
    match date.rsplit('/').next().and_then(|year| year.parse::<u32>().ok()) {
        Some(year) if year >= BIOS_YEAR => ok(found),
        Some(_) => wrong(
            found,
            "update the BIOS: its TCB is older than verifiers accept (AMD-SB-3019; Intel TCB recoveries of 2025)",
        ),
        None => malformed(found, "the BIOS gives no date as MM/DD/YYYY: compare its version with the maker's newest"),
    }
}
