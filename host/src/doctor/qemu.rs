//! QEMU and the guest's firmware.

use super::{Answer, Context, Finding, Question, as_root, malformed, ok, unknown, wrong};
use crate::vm::config::Tee;
use crate::vm::firmware::{self, Kind};

/// Version of QEMU: major, minor, patch.
pub(crate) fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let rest = text.split_once("version ")?.1;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
}

fn ask(context: &Context<'_>, arguments: &str) -> Answer {
    context.machine.ask(&Question::Command(&format!("{} {arguments}", context.wanted.qemu.display())))
}

/// A QEMU that knows the TEE.
pub(super) fn version(context: &Context<'_>) -> Option<Finding> {
    let install = "install qemu-system-x86 (Debian: `apt-get install qemu-system-x86`, from backports where the release's own is older)";
    let text = match ask(context, "--version") {
        Answer::Text(text) => text,
        Answer::Missing => return wrong(format!("{} is not installed", context.wanted.qemu.display()), install),
        Answer::Denied => {
            return wrong(format!("{} may not be run by this user", context.wanted.qemu.display()), install);
        }
        Answer::Failed(why) => return wrong(why, install),
    };
    let Some(version) = parse_version(&text) else {
        return malformed(text, "name QEMU with `qemu` in the configuration, or --qemu");
    };
    let (major, minor, patch) = version;
    let needed = match context.tee {
        Tee::Tdx => (10, 1, 0),
        Tee::Snp => (9, 1, 0),
        Tee::Development => (8, 2, 0),
    };
    let found = format!("QEMU {major}.{minor}.{patch}");
    if version < needed {
        return wrong(format!("{found}: {} guests need {}.{}", context.tee, needed.0, needed.1), install);
    }
    if version == (9, 1, 0) && context.tee == Tee::Snp && !context.gpus.is_empty() {
        return wrong(format!("{found} breaks SNP guests with GPUs"), "install 9.1.1 or newer");
    }
    ok(found)
}

/// Whether a list of QEMU's (`-object help`) has each of these; the missing ones.
fn missing(list: &str, names: &[&'static str]) -> Vec<&'static str> {
    let has = |name: &str| list.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == name);
    names.iter().filter(|name| !has(name)).copied().collect()
}

fn listed(context: &Context<'_>, arguments: &str, names: &[&'static str]) -> Option<Finding> {
    match ask(context, arguments) {
        Answer::Text(list) => {
            let missing = missing(&list, names);
            if missing.is_empty() {
                return ok(names.join(" "));
            }
            wrong(
                format!("QEMU has no {}", missing.join(" ")),
                "install a QEMU that was built with it (Debian's qemu-system-x86 is)",
            )
        }
        Answer::Denied => as_root("QEMU may not be run"),
        _ => unknown("QEMU would list them", "see qemu.version"),
    }
}

/// Objects that the command line of a guest makes.
pub(super) fn objects(context: &Context<'_>) -> Option<Finding> {
    let mut names = vec!["memory-backend-memfd"];
    match context.tee {
        Tee::Tdx => names.push("tdx-guest"),
        Tee::Snp => names.push("sev-snp-guest"),
        Tee::Development => {}
    }
    if !context.gpus.is_empty() {
        names.push("iommufd");
    }
    listed(context, "-object help", &names)
}

/// Devices that the command line of a guest has.
pub(super) fn devices(context: &Context<'_>) -> Option<Finding> {
    let mut names = vec!["virtio-blk-pci"];
    match (context.wanted.vsock, context.guest()) {
        (true, true) => names.push("vhost-vsock-pci"),
        _ => names.push("virtio-net-pci"),
    }
    if !context.guest() {
        names.push("virtserialport");
    }
    if !context.gpus.is_empty() {
        names.extend(["pcie-root-port", "vfio-pci"]);
    }
    listed(context, "-device help", &names)
}

/// Where Debian has it.
fn usual(tee: Tee) -> &'static str {
    match tee {
        Tee::Tdx => "/usr/share/ovmf/OVMF.inteltdx.fd",
        Tee::Snp => "/usr/share/ovmf/OVMF.amdsev.fd",
        Tee::Development => "/usr/share/ovmf/OVMF.fd",
    }
}

/// Firmware of the kind that the TEE measures.
pub(super) fn firmware(context: &Context<'_>) -> Option<Finding> {
    let path = context
        .wanted
        .firmware
        .as_ref()
        .map_or_else(|| usual(context.tee).to_owned(), |path| path.display().to_string());
    let question = Question::Bytes { path: &path, offset: -firmware::TAIL, len: firmware::TAIL as usize };
    let package = match context.tee {
        Tee::Tdx => "ovmf-inteltdx",
        Tee::Snp => "ovmf-amdsev",
        Tee::Development => "ovmf",
    };
    let tail = match context.machine.ask(&question) {
        Answer::Text(tail) => hex::decode(tail).unwrap_or_default(),
        Answer::Missing => {
            return wrong(
                format!("{path} is missing"),
                format!("unpack it from Debian's {package}, or name the image's with --config"),
            );
        }
        Answer::Denied => return as_root(format!("{path} may not be read")),
        Answer::Failed(why) => {
            return malformed(format!("{path}: {why}"), format!("use the firmware of Debian's {package}"));
        }
    };
    let kind = Kind::of(&tail);
    let name = path.rsplit('/').next().unwrap_or_default().to_lowercase();
    match context.tee {
        Tee::Development if kind.is_some() => ok(path),
        Tee::Tdx if kind.is_some_and(|kind| kind.tdx) && name.contains(".ms.") => wrong(
            format!("{path} has Secure Boot on, and refuses a kernel given directly"),
            "use the file without \".ms\"",
        ),
        Tee::Tdx if kind.is_some_and(|kind| kind.tdx) => ok(format!("{path} has TDX metadata")),
        Tee::Snp if kind.is_some_and(|kind| kind.snp && kind.hashes) && !name.contains("amdsev") => wrong(
            format!(
                "{path} is a general OVMF: it declares hashes of kernel and command line, and need not verify them"
            ),
            "use the AmdSev build (Debian's ovmf-amdsev), under a name that says so",
        ),
        Tee::Snp if kind.is_some_and(|kind| kind.snp && kind.hashes) => {
            ok(format!("{path} is an AmdSev build with SNP metadata"))
        }
        _ if kind.is_none() => {
            malformed(format!("{path} is no OVMF"), format!("use the firmware of Debian's {package}"))
        }
        _ => {
            wrong(format!("{path} is not made for {}", context.tee), format!("use the firmware of Debian's {package}"))
        }
    }
}
