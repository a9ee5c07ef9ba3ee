//! What TDX and SEV-SNP need from BIOS, firmware and services.

use super::machine::size;
use super::{Answer, Context, Finding, Question, as_root, malformed, ok, unknown, wrong};
use crate::vm::config::{QuoteService, Tee};

/// Lines of the kernel's log, or `None` where this user may not read it.
fn log(context: &Context<'_>, word: &str) -> Option<String> {
    context.machine.ask(&Question::KernelLog(word)).text()
}

fn line_with<'a>(log: &'a str, part: &str) -> Option<&'a str> {
    log.lines().find(|line| line.contains(part))
}

/// What follows a phrase in a line of the kernel's log.
fn after<'a>(log: &'a str, phrase: &str) -> Option<&'a str> {
    let line = line_with(log, phrase)?;
    line.split_once(phrase).map(|(_, rest)| rest.trim_matches([' ', ':']))
}

/// What the BIOS has given away of memory encryption.
pub(super) fn bios(context: &Context<'_>) -> Option<Finding> {
    match context.tee {
        Tee::Tdx => {
            let Some(log) = log(context, "tdx") else {
                return as_root("the kernel's log says whether the BIOS enables TDX");
            };
            match after(&log, "BIOS enabled: private KeyID range") {
                Some(range) => ok(format!("TDX with private key ids {range}")),
                None if log.is_empty() => unknown(
                    "the kernel's log does not mention TDX: the BIOS may not enable it, or the log has been overwritten",
                    "reboot and look again; in the BIOS: TDX on, TME-MT keys above 0, TDX key split above 0",
                ),
                None => wrong(
                    "the BIOS reserves no keys for TDX",
                    "in the BIOS: TME Multi-Tenant on, TDX on, TDX key split at 1 at least",
                ),
            }
        }
        Tee::Snp => {
            // SYSCFG (MSR C001_0010): bit 23 SMEE, 24 SNPEn, 25 VMPLEn.
            let answer = context.machine.ask(&Question::Bytes { path: "/dev/cpu/0/msr", offset: 0xc001_0010, len: 8 });
            let word = match answer {
                Answer::Text(word) => word,
                Answer::Missing => {
                    return unknown(
                        "the BIOS's SNP bits are in a register that is not offered",
                        "modprobe msr, then run as root",
                    );
                }
                _ => return as_root("the BIOS's SNP bits are in a register (SYSCFG)"),
            };
            let Some(value) = little_endian(&word) else {
                return malformed(format!("SYSCFG = {word}"), "update the kernel");
            };
            match (value >> 23 & 1, value >> 24 & 1) {
                (1, 1) => ok(format!("SYSCFG = {value:#x}: SMEE and SNP are on")),
                (0, _) => {
                    wrong(format!("SYSCFG = {value:#x}: memory encryption (SMEE) is off"), "in the BIOS switch on SMEE")
                }
                _ => wrong(
                    format!("SYSCFG = {value:#x}: SNP is off"),
                    "in the BIOS switch on SEV-SNP Support and SNP Memory (RMP) Coverage",
                ),
            }
        }
        Tee::Development => None,
    }
}

fn little_endian(hexadecimal: &str) -> Option<u64> {
    let mut bytes = [0; 8];
    hex::decode_to_slice(hexadecimal, &mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// SGX, in which Intel's quoting enclave runs.
pub(super) fn sgx(context: &Context<'_>) -> Option<Finding> {
    if context.tee != Tee::Tdx {
        return None;
    }
    let devices = ["/dev/sgx_enclave", "/dev/sgx_provision"];
    let missing: Vec<&str> = devices
        .into_iter()
        .filter(|device| context.machine.ask(&Question::Device(device)) == Answer::Missing)
        .collect();
    if missing.is_empty() {
        return ok(devices.join(" "));
    }
    wrong(
        format!("{} missing: quotes are signed by an SGX enclave", missing.join(" ")),
        "in the BIOS switch on SGX, SGX Factory Reset and SGX Auto MP Registration, and give it PRM memory",
    )
}

/// The TDX module, loaded by the SEAM loader and initialised by KVM.
pub(super) fn tdx_module(context: &Context<'_>) -> Option<Finding> {
    if context.tee != Tee::Tdx {
        return None;
    }
    let log = log(context, "tdx").unwrap_or_default();
    match context.file("/sys/module/kvm_intel/parameters/tdx").as_deref() {
        Some("Y" | "1") => {
            let version = after(&log, "TDX module version").or_else(|| after(&log, "TDX module"));
            ok(format!("KVM has initialised it{}", version.map(|version| format!(", {version}")).unwrap_or_default()))
        }
        Some(_) => match line_with(&log, "module not loaded") {
            Some(_) => wrong(
                "the TDX module is not loaded",
                "in the BIOS switch on the SEAM loader, and update the BIOS, which carries the module",
            ),
            None => wrong(
                "kvm_intel.tdx = N",
                "boot with kvm_intel.tdx=1; if it stays N, the kernel's log (dmesg | grep -i tdx) says what the module lacks",
            ),
        },
        None => wrong(
            "KVM has no parameter tdx",
            "modprobe kvm_intel, on a kernel of 6.16 or newer with CONFIG_KVM_INTEL_TDX",
        ),
    }
}

/// Intel's quoting service.
pub(super) fn quotes(context: &Context<'_>) -> Option<Finding> {
    if context.tee != Tee::Tdx {
        return None;
    }
    let fix = "install tdx-qgs, `systemctl enable --now qgsd`; its port is in /etc/qgs.conf";
    let (place, answer) = match &context.wanted.quotes {
        QuoteService::Vsock { cid, port } => {
            (format!("vsock {cid}:{port}"), context.machine.ask(&Question::Vsock { cid: *cid, port: *port }))
        }
        QuoteService::Unix(path) => {
            let path = path.display().to_string();
            let answer = context.machine.ask(&Question::Device(&path));
            (path, answer)
        }
    };
    if let Answer::Text(_) = answer {
        return ok(format!("the quoting service answers at {place}"));
    }
    // A host reaches its own virtual sockets only with the module vsock_loopback.
    match context.machine.ask(&Question::Command("systemctl is-active qgsd")) {
        Answer::Text(_) => unknown(
            format!("qgsd runs, and {place} cannot be reached from here"),
            "modprobe vsock_loopback to let the doctor ask it",
        ),
        _ => wrong(format!("nothing answers at {place}"), fix),
    }
}

/// The cache of Intel's certificates that the quoting service asks.
pub(super) fn pccs(context: &Context<'_>) -> Option<Finding> {
    if context.tee != Tee::Tdx {
        return None;
    }
    let path = "/etc/sgx_default_qcnl.conf";
    let Some(text) = context.file(path) else {
        return wrong(format!("{path} is missing"), "install libsgx-dcap-default-qpl, and name a PCCS in it");
    };
    let url = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .find_map(|line| line.split_once("\"pccs_url\"").and_then(|(_, rest)| rest.split('"').nth(1)))
        .map(str::to_owned);
    let Some(url) = url else {
        return malformed(
            format!("{path} names no pccs_url"),
            "write \"pccs_url\": \"https://localhost:8081/sgx/certification/v4/\" there",
        );
    };
    let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:443") };
    match context.machine.ask(&Question::Tcp(&address)) {
        Answer::Text(_) => ok(format!("{address} accepts connections")),
        Answer::Failed(why) => wrong(
            format!("{address} of {path}: {why}"),
            "start the PCCS (`systemctl start pccs`), or name one that runs",
        ),
        _ => wrong(format!("{address} of {path} is not known"), "correct pccs_url"),
    }
}

/// SNP in KVM.
pub(super) fn snp_enabled(context: &Context<'_>) -> Option<Finding> {
    if context.tee != Tee::Snp {
        return None;
    }
    match context.file("/sys/module/kvm_amd/parameters/sev_snp").as_deref() {
        Some("Y" | "1") => ok("kvm_amd.sev_snp = Y"),
        Some(_) => wrong(
            "kvm_amd.sev_snp = N",
            "boot without iommu=pt and amd_iommu=off, with kvm_amd.sev=1; if it stays N, see bios.tee and snp.rmp",
        ),
        None => wrong("KVM has no parameter sev_snp", "modprobe kvm_amd, on a kernel of 6.11 or newer"),
    }
}

const RMP_BASE: i64 = 0xc001_0132;
const RMP_END: i64 = 0xc001_0133;
/// Bytes of the table before its first entry, and of memory that an entry of 16 bytes covers.
const RMP_BOOKKEEPING: u64 = 16 << 10;

/// The reverse map table, which must cover all memory.
pub(super) fn rmp(context: &Context<'_>) -> Option<Finding> {
    if context.tee != Tee::Snp {
        return None;
    }
    let fix = "in the BIOS set SNP Memory (RMP Table) Coverage to Enabled, which covers all memory";
    if let Some(line) = log(context, "rmp").as_deref().and_then(|log| line_with(log, "does not cover full system RAM"))
    {
        return wrong(line.to_owned(), fix);
    }
    let msr = |offset| context.machine.ask(&Question::Bytes { path: "/dev/cpu/0/msr", offset, len: 8 });
    let range = match (msr(RMP_BASE), msr(RMP_END)) {
        (Answer::Text(base), Answer::Text(end)) => little_endian(&base).zip(little_endian(&end)),
        _ => log(context, "rmp").as_deref().and_then(logged_range),
    };
    let Some((base, end)) = range else { return as_root("the place of the RMP table") };
    let Some(length) = end.checked_sub(base).filter(|length| *length > RMP_BOOKKEEPING && base > 0) else {
        return wrong("the BIOS reserved no RMP table", fix);
    };
    let covered = ((length + 1 - RMP_BOOKKEEPING) / 16).saturating_mul(4096);
    let memory = meminfo(context, "MemTotal").unwrap_or(0);
    let top = top_of_memory(context).unwrap_or(memory);
    if covered < top {
        return wrong(format!("the RMP table covers {} of {}", size(covered), size(top)), fix);
    }
    ok(format!("the RMP table covers {}", size(covered)))
}

/// `SEV-SNP: RMP table physical range [0x0000000014600000 - 0x00000000547fffff]`.
fn logged_range(log: &str) -> Option<(u64, u64)> {
    let range = after(log, "RMP table physical range")?.trim_matches(['[', ']']);
    let (base, end) = range.split_once(" - ")?;
    let number = |text: &str| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
    Some((number(base)?, number(end)?))
}

/// The end of the highest range of memory; root sees it.
fn top_of_memory(context: &Context<'_>) -> Option<u64> {
    let map = context.file("/proc/iomem")?;
    let end = map
        .lines()
        .filter(|line| line.contains(": System RAM"))
        .filter_map(|line| u64::from_str_radix(line.split(" : ").next()?.split_once('-')?.1.trim(), 16).ok())
        .max()?;
    (end > 0).then_some(end + 1)
}

/// A field of `/proc/meminfo`, in bytes.
pub(super) fn meminfo(context: &Context<'_>, name: &str) -> Option<u64> {
    let text = context.file("/proc/meminfo")?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// AMD's secure processor: initialised, not hiding the chip, and with a TCB that is in force.
pub(super) fn snp_firmware(context: &Context<'_>) -> Option<Finding> {
    if context.tee != Tee::Snp {
        return None;
    }
    let status = match context.machine.ask(&Question::SnpStatus) {
        Answer::Text(status) => status,
        Answer::Missing => {
            return wrong(
                "/dev/sev is missing",
                "modprobe ccp; its firmware is in linux-firmware (amd/amd_sev_*.sbin)",
            );
        }
        Answer::Denied => {
            let api = log(context, "SEV-SNP API").unwrap_or_default();
            let api = after(&api, "SEV-SNP API").map(|api| format!("; the kernel saw API {api}")).unwrap_or_default();
            return as_root(format!("/dev/sev belongs to root{api}"));
        }
        Answer::Failed(why) => {
            return wrong(
                format!("SNP_PLATFORM_STATUS: {why}"),
                "see snp.enabled; then update amd/amd_sev_*.sbin of linux-firmware",
            );
        }
    };
    // struct sev_user_data_snp_status: major, minor, state, flags, build u32, flags u32, guests u32, current TCB u64, reported TCB u64.
    let mut bytes = [0_u8; cocoon_host_device::SNP_STATUS_LEN];
    if hex::decode_to_slice(&status, &mut bytes).is_err() {
        return malformed(format!("SNP_PLATFORM_STATUS = {status}"), "update the kernel");
    }
    let [major, minor, state, rmp, ..] = bytes;
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let about = format!("API {major}.{minor} build {}", word(4));
    let update = "update the BIOS and amd/amd_sev_*.sbin of linux-firmware, then reboot";
    if (major, minor) < (1, 51) {
        return wrong(format!("{about}: guests need 1.51"), update);
    }
    if state == 0 || rmp & 1 == 0 {
        return wrong(format!("{about}: SNP is not initialised"), "see snp.enabled and snp.rmp");
    }
    if word(8) & 1 != 0 {
        return wrong(
            format!("{about}: the chip id is masked, so no certificate fits its reports"),
            "unset MaskChipId (`snphost config set`)",
        );
    }
    if bytes[16..24] != bytes[24..32] {
        return wrong(
            format!(
                "{about}: it reports another TCB than it runs ({} and {})",
                hex::encode(&bytes[24..32]),
                hex::encode(&bytes[16..24])
            ),
            "run `snphost commit`, or undo `snphost config set`: clients compare the two",
        );
    }
    ok(format!("{about}, TCB {}", hex::encode(&bytes[16..24])))
}

/// What QEMU is told of the machine's encryption, which shows that KVM and `/dev/sev` answer it.
pub(super) fn snp_capabilities(context: &Context<'_>) -> Option<Finding> {
    if context.tee != Tee::Snp {
        return None;
    }
    match sev_capabilities(context.machine, &context.wanted.qemu.display().to_string()) {
        Ok((cbitpos, reduced)) => ok(format!("cbitpos={cbitpos}, reduced-phys-bits={reduced}")),
        Err(Answer::Text(text)) => malformed(format!("QEMU answers {text}"), "see qemu.version"),
        Err(Answer::Failed(why)) => {
            wrong(format!("QEMU: {why}"), "let this user read and write /dev/kvm and /dev/sev; see snp.enabled")
        }
        Err(Answer::Missing) => unknown("QEMU would say", "see qemu.version"),
        Err(Answer::Denied) => as_root("QEMU would say"),
    }
}

/// `cbitpos` and `reduced-phys-bits`, as QEMU sees them; else what it answered.
pub(crate) fn sev_capabilities(machine: &dyn super::Machine, qemu: &str) -> Result<(u32, u32), Answer> {
    let question = Question::Qmp { qemu, accelerator: "kvm", command: "query-sev-capabilities" };
    let answer = machine.ask(&question);
    let Answer::Text(text) = &answer else { return Err(answer) };
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let number = |name: &str| value[name].as_u64().and_then(|number| u32::try_from(number).ok());
    number("cbitpos").zip(number("reduced-phys-bits")).ok_or(answer)
}
