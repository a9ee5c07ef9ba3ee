//! Kernel, memory, limits and services.

use super::machine::size;
use super::tee::meminfo;
use super::{Answer, Context, Finding, Question, as_root, malformed, ok, unknown, wrong};
use crate::vm::config::{QuoteService, Tee};

/// A kernel whose KVM launches the guest.
pub(super) fn kernel(context: &Context<'_>) -> Option<Finding> {
    let release = context.file("/proc/sys/kernel/osrelease")?;
    let needed = match context.tee {
        Tee::Tdx => (6, 16),
        Tee::Snp => (6, 11),
        Tee::Development => return None,
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return malformed(format!("release {release:?}"), "a kernel's release begins with two numbers");
    };
    if (major, minor) >= needed {
        return ok(release);
    }
    wrong(
        format!("{release}: {} guests need {}.{}", context.tee, needed.0, needed.1),
        format!("install Linux {}.{} or newer (Debian: linux-image-amd64 of backports)", needed.0, needed.1),
    )
}

/// Parameters that exclude a TEE.
pub(super) fn parameters(context: &Context<'_>) -> Option<Finding> {
    if !context.guest() {
        return None;
    }
    let line = context.file("/proc/cmdline")?;
    let value = |name: &str| line.split_whitespace().rev().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let refused: &[(&str, &str)] = match context.tee {
        Tee::Snp => {
            &[("iommu", "pt"), ("iommu", "off"), ("amd_iommu", "off"), ("kvm_amd.sev", "0"), ("kvm_amd.sev_snp", "0")]
        }
        _ => &[("intel_iommu", "off"), ("iommu", "off"), ("kvm_intel.tdx", "0"), ("kvm_intel.ept", "0")],
    };
    for (name, bad) in refused {
        if value(name) == Some(bad) {
            return wrong(
                format!("{name}={bad} excludes {} guests", context.tee),
                format!("take {name}={bad} out of the kernel's command line, and reboot"),
            );
        }
    }
    if context.tee == Tee::Tdx
        && !context.gpus.is_empty()
        && !["on", "on,sm_on"].contains(&value("intel_iommu").unwrap_or(""))
    {
        return wrong(
            "GPUs are passed on and intel_iommu is not on",
            "add intel_iommu=on to the kernel's command line, and reboot",
        );
    }
    ok("nothing excludes guests")
}

/// KVM, which must not only be there but work.
pub(super) fn kvm(context: &Context<'_>) -> Option<Finding> {
    if !context.guest() {
        return None;
    }
    let module = if context.tee == Tee::Tdx { "kvm_intel" } else { "kvm_amd" };
    match context.machine.ask(&Question::Device("/dev/kvm")) {
        Answer::Text(_) => {}
        Answer::Missing => {
            return wrong(
                "/dev/kvm is missing",
                format!("switch virtualisation on in the BIOS, then modprobe {module}"),
            );
        }
        Answer::Denied => {
            return wrong(
                "/dev/kvm is not this user's",
                "add the user that launches guests to the group kvm, and log in again",
            );
        }
        Answer::Failed(why) => return wrong(format!("/dev/kvm: {why}"), format!("modprobe {module}")),
    }
    let qemu = context.wanted.qemu.display().to_string();
    match context.machine.ask(&Question::Qmp { qemu: &qemu, accelerator: "kvm", command: "query-kvm" }) {
        Answer::Text(_) => ok("QEMU uses it"),
        Answer::Failed(why) => wrong(
            format!("QEMU cannot use it: {why}"),
            format!("modprobe {module}; the kernel's log says what it lacks"),
        ),
        Answer::Missing => unknown("/dev/kvm is this user's; QEMU would try it", "see qemu.version"),
        Answer::Denied => as_root("QEMU may not be run"),
    }
}

/// An IOMMU that translates.
pub(super) fn iommu(context: &Context<'_>) -> Option<Finding> {
    // A TDX guest without devices of the machine needs none.
    if !context.guest() || (context.tee == Tee::Tdx && context.gpus.is_empty()) {
        return None;
    }
    let units = context.folder("/sys/class/iommu").len();
    let groups = context.folder("/sys/kernel/iommu_groups");
    if groups.is_empty() {
        return wrong(
            "there are no IOMMU groups",
            "switch the IOMMU (VT-d, AMD-Vi) on in the BIOS, and see kernel.parameters",
        );
    }
    let first = format!("/sys/kernel/iommu_groups/{}/type", groups.first()?);
    if context.tee == Tee::Snp && context.file(&first).as_deref() == Some("identity") {
        return wrong(
            "the IOMMU passes everything through",
            "boot without iommu=pt (and without CONFIG_IOMMU_DEFAULT_PASSTHROUGH): SNP needs translation",
        );
    }
    ok(format!("{units} units, {} groups", groups.len()))
}

/// The device through which GPUs are passed on.
pub(super) fn iommufd(context: &Context<'_>) -> Option<Finding> {
    if context.gpus.is_empty() {
        return None;
    }
    match context.machine.ask(&Question::Device("/dev/iommu")) {
        Answer::Text(_) => ok("/dev/iommu"),
        Answer::Missing => wrong(
            "/dev/iommu is missing",
            "modprobe iommufd, on a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV",
        ),
        _ => wrong(
            "/dev/iommu is not this user's",
            "give it to the group that launches guests with a udev rule: KERNEL==\"iommu\", GROUP=\"kvm\", MODE=\"0660\"",
        ),
    }
}

/// Virtual sockets, over which a guest without a network card is reached.
pub(super) fn vsock(context: &Context<'_>) -> Option<Finding> {
    let quotes = context.tee == Tee::Tdx && matches!(context.wanted.quotes, QuoteService::Vsock { .. });
    if !context.guest() || !(context.wanted.vsock || quotes) {
        return None;
    }
    match context.machine.ask(&Question::Device("/dev/vhost-vsock")) {
        Answer::Text(_) => ok("/dev/vhost-vsock"),
        Answer::Missing => {
            wrong("/dev/vhost-vsock is missing", "modprobe vhost_vsock, and name it in /etc/modules-load.d/cocoon.conf")
        }
        _ => wrong(
            "/dev/vhost-vsock is not this user's",
            "add the user that launches guests to the group kvm, and log in again",
        ),
    }
}

/// Memory, which a confidential guest pins.
pub(super) fn memory(context: &Context<'_>) -> Option<Finding> {
    let Some(available) = meminfo(context, "MemAvailable") else {
        return malformed("/proc/meminfo has no MemAvailable", "this is for Linux on x86-64");
    };
    let guest = context.wanted.memory.0;
    // Devices keep the shared half of an SNP guest's memory pinned beside the private one.
    let doubled = context.tee == Tee::Snp && !context.gpus.is_empty();
    let needed = if doubled { guest.saturating_mul(2) } else { guest };
    let found = format!("{} free of {}", size(available), size(meminfo(context, "MemTotal").unwrap_or(0)));
    if available >= needed {
        return ok(found);
    }
    let twice = if doubled { ", twice its memory, because SNP with GPUs pins both copies" } else { "" };
    wrong(
        format!("{found}: a guest of {} needs {}{twice}", context.wanted.memory, size(needed)),
        "lower the guest's memory, or free some",
    )
}

/// Pages reserved for the guest.
pub(super) fn hugepages(context: &Context<'_>) -> Option<Finding> {
    let page = context.wanted.hugepages?;
    let folder = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page.0 >> 10);
    let needed = context.wanted.memory.0.div_ceil(page.0);
    let Some(free) = context.file(&format!("{folder}/free_hugepages")).and_then(|text| text.parse::<u64>().ok()) else {
        return wrong(format!("pages of {page} are not offered"), "leave hugepages out, or use 2M");
    };
    if free >= needed {
        return ok(format!("{free} free of {page}"));
    }
    wrong(
        format!("{free} free of {page}, {needed} needed"),
        format!("boot with hugepagesz={page} hugepages={needed}, or write {needed} to {folder}/nr_hugepages"),
    )
}

/// The node that is to hold the guest, and its GPUs beside it.
pub(super) fn numa(context: &Context<'_>) -> Option<Finding> {
    let nodes: Vec<u32> = context
        .folder("/sys/devices/system/node")
        .iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .collect();
    if !context.guest() || nodes.len() < 2 && context.wanted.numa.is_none() {
        return None;
    }
    let Some(wanted) = context.wanted.numa else {
        return ok(format!("{} nodes; the guest is bound to none", nodes.len()));
    };
    if !nodes.contains(&wanted) {
        return wrong(format!("numa = {wanted}, and there are {nodes:?}"), "name one of these");
    }
    for gpu in &context.gpus {
        let node = context.file(&format!("/sys/bus/pci/devices/{gpu}/numa_node"));
        if let Some(node) = node.and_then(|node| node.parse::<u32>().ok())
            && node != wanted
        {
            return wrong(
                format!("the GPU {gpu} is at node {node}, the guest at {wanted}"),
                format!("write numa = {node}, or another GPU"),
            );
        }
    }
    ok(format!("node {wanted}"))
}

fn limit(context: &Context<'_>, name: &str) -> Option<u64> {
    let text = context.file("/proc/self/limits")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.to_owned();
    if value == "unlimited" { Some(u64::MAX) } else { value.parse().ok() }
}

/// Memory that this user may pin.
pub(super) fn memlock(context: &Context<'_>) -> Option<Finding> {
    if context.gpus.is_empty() {
        return None;
    }
    let needed = context.wanted.memory.0;
    match limit(context, "Max locked memory") {
        None => malformed("/proc/self/limits has no locked memory", "update the kernel"),
        Some(u64::MAX) => ok("unlimited"),
        Some(most) if most >= needed.saturating_add(needed / 8) => ok(size(most)),
        Some(most) => wrong(
            format!("{} may be locked, and GPUs pin all {} of the guest", size(most), context.wanted.memory),
            "LimitMEMLOCK=infinity in the service, or `memlock unlimited` in /etc/security/limits.d",
        ),
    }
}

/// A host holds a connection for each answer that is open.
const FILES: u64 = 8_192;

/// Files that this user may open.
pub(super) fn files(context: &Context<'_>) -> Option<Finding> {
    match limit(context, "Max open files") {
        None => malformed("/proc/self/limits has no open files", "update the kernel"),
        Some(most) if most >= FILES => ok(most.to_string()),
        Some(most) => wrong(
            format!("{most} files may be open: {FILES} are needed under load"),
            format!("LimitNOFILE={FILES} in the service, or ulimit -n"),
        ),
    }
}

/// A clock that somebody sets: vouchers, verdicts and certificates have times.
pub(super) fn clock(context: &Context<'_>) -> Option<Finding> {
    let systemd = context.machine.ask(&Question::Command("timedatectl show --property=NTPSynchronized --value"));
    match systemd.text().as_deref() {
        Some("yes") => return ok("synchronised"),
        Some("no") => {
            return wrong("not synchronised", "install chrony or systemd-timesyncd, and let it reach a time server");
        }
        _ => {}
    }
    match context.machine.ask(&Question::Command("chronyc -c tracking")).text() {
        // The fields of `tracking`: the last one is the leap status.
        Some(line) if line.ends_with("Normal") => ok("synchronised by chrony"),
        Some(_) => {
            wrong("chrony has not synchronised", "let it reach a time server: `chronyc sources` says which it tries")
        }
        None => unknown(
            "neither timedatectl nor chronyc answers",
            "install chrony, or see yourself that something sets the clock",
        ),
    }
}

/// Randomness.
pub(super) fn entropy(context: &Context<'_>) -> Option<Finding> {
    match context.file("/proc/sys/kernel/random/entropy_avail").and_then(|text| text.parse::<u32>().ok()) {
        Some(bits) if bits >= 128 => ok(format!("{bits} bits")),
        Some(bits) => wrong(
            format!("{bits} bits"),
            "wait until the kernel's generator is seeded, or boot with random.trust_cpu=on",
        ),
        None => unknown("the kernel does not say", "see /proc/sys/kernel/random/entropy_avail"),
    }
}

/// Bytes that receipts, logs and images need at least.
const DISK: u64 = 20 << 30;

/// Room for receipts, console and images.
pub(super) fn disk(context: &Context<'_>) -> Option<Finding> {
    // The folder may still have to be made: the first that is there says which disk it will be on.
    let place = context.wanted.data.ancestors().find(|folder| {
        !matches!(context.machine.ask(&Question::Folder(&folder.display().to_string())), Answer::Missing)
    });
    let folder = place.unwrap_or(&context.wanted.data).display().to_string();
    let command = format!("df --block-size=1 --output=avail {folder}");
    let Some(text) = context.machine.ask(&Question::Command(&command)).text() else {
        return unknown(format!("df says nothing about {folder}"), "name a data folder that can be read");
    };
    match text.lines().last().and_then(|line| line.trim().parse::<u64>().ok()) {
        Some(free) if free >= DISK => ok(format!("{} free at {folder}", size(free))),
        Some(free) => wrong(
            format!("{} free at {folder}", size(free)),
            format!("free {} for receipts, console and images", size(DISK)),
        ),
        None => malformed(format!("df says {text:?}"), "install coreutils"),
    }
}
