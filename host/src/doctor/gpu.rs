//! GPUs that are passed to guests. Each check says of the first GPU that is not as it must be.

use super::machine::size;
use super::{Answer, Context, Finding, Question, as_root, malformed, ok, unknown, wrong};

const NVIDIA: &str = "0x10de";

/// Architecture with a confidential mode, by device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    Hopper,
    Blackwell,
}

impl Architecture {
    fn of(device: u32) -> Option<Self> {
        match device {
            0x2300..=0x23ff => Some(Self::Hopper),
            0x2900..=0x29ff | 0x2bb0..=0x2bbf | 0x3180..=0x31ff => Some(Self::Blackwell),
            _ => None,
        }
    }

    /// The word of the first memory window whose low two bits are the confidential mode.
    fn mode_register(self) -> u64 {
        match self {
            Self::Hopper => 0x0011_82cc,
            Self::Blackwell => 0x590,
        }
    }
}

fn path(gpu: &str, file: &str) -> String {
    format!("/sys/bus/pci/devices/{gpu}/{file}")
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

fn architecture(context: &Context<'_>, gpu: &str) -> Option<Architecture> {
    let device = context.file(&path(gpu, "device"))?;
    Architecture::of(u32::try_from(number(&device)?).ok()?)
}

/// The GPUs that were named, or all of NVIDIA's.
pub(super) fn wanted(context: &Context<'_>) -> Vec<String> {
    if !context.wanted.gpus.is_empty() {
        return context.wanted.gpus.iter().map(ToString::to_string).collect();
    }
    // A display controller's class begins with 3.
    let gpu = |device: &String| {
        context.file(&path(device, "vendor")).as_deref() == Some(NVIDIA)
            && context.file(&path(device, "class")).is_some_and(|class| class.starts_with("0x03"))
    };
    context.folder("/sys/bus/pci/devices").into_iter().filter(gpu).collect()
}

/// Asks the same of each GPU: the first answer that is not [`Finding::Ok`], or all of them.
fn each(context: &Context<'_>, look: impl Fn(&str) -> Option<Finding>) -> Option<Finding> {
    let mut good = Vec::new();
    for gpu in &context.gpus {
        match look(gpu)? {
            Finding::Ok(found) => good.push(found),
            other => return Some(other),
        }
    }
    if good.is_empty() { None } else { ok(good.join("; ")) }
}

/// GPUs with a confidential mode.
pub(super) fn model(context: &Context<'_>) -> Option<Finding> {
    each(context, |gpu| {
        let Some(device) = context.file(&path(gpu, "device")) else {
            return wrong(format!("{gpu} is not there"), "`lspci -D -d 10de:` lists the GPUs; correct `gpus`");
        };
        match number(&device).and_then(|device| u32::try_from(device).ok()) {
            None => malformed(format!("{gpu} has the device id {device:?}"), "update the kernel"),
            Some(id) => match Architecture::of(id) {
                Some(architecture) => ok(format!("{gpu} {architecture:?} ({id:#06x})")),
                None => wrong(
                    format!("{gpu} ({id:#06x}) has no confidential mode"),
                    "use an H100, H200, B200 or newer, or leave it out of `gpus`",
                ),
            },
        }
    })
}

/// Bound to the driver that passes devices on.
pub(super) fn driver(context: &Context<'_>) -> Option<Finding> {
    each(context, |gpu| match context.machine.ask(&Question::Link(&path(gpu, "driver"))).text().as_deref() {
        Some("vfio-pci") => ok(format!("{gpu} vfio-pci")),
        other => wrong(
            format!("{gpu} is bound to {}", other.unwrap_or("no driver")),
            format!("driverctl set-override {gpu} vfio-pci (and blacklist nouveau and nvidia on this machine)"),
        ),
    })
}

/// Alone in its IOMMU group, with a device file of this user's.
pub(super) fn group(context: &Context<'_>) -> Option<Finding> {
    each(context, |gpu| {
        let Some(group) = context.machine.ask(&Question::Link(&path(gpu, "iommu_group"))).text() else {
            return wrong(format!("{gpu} is in no IOMMU group"), "see iommu");
        };
        let members = context.folder(&format!("/sys/kernel/iommu_groups/{group}/devices"));
        // Bridges (class 0x06) share the group of what is behind them and are not passed on.
        let other = members.iter().find(|member| {
            *member != gpu && !context.file(&path(member, "class")).is_some_and(|class| class.starts_with("0x06"))
        });
        if let Some(other) = other {
            return wrong(
                format!("{gpu} shares the IOMMU group {group} with {other}"),
                "switch ACS on in the BIOS, or put the GPU into another slot",
            );
        }
        let Some(name) = context.folder(&path(gpu, "vfio-dev")).into_iter().next() else {
            return wrong(format!("{gpu} has no VFIO device file"), "see gpu.driver and iommufd");
        };
        match context.machine.ask(&Question::Device(&format!("/dev/vfio/devices/{name}"))) {
            Answer::Text(_) => ok(format!("{gpu} alone in group {group}, {name}")),
            _ => wrong(
                format!("/dev/vfio/devices/{name} of {gpu} is not this user's"),
                "a udev rule: SUBSYSTEM==\"vfio-dev\", GROUP=\"kvm\", MODE=\"0660\"",
            ),
        }
    })
}

/// The smallest large window of a GPU that is set up in full.
const LARGE: u64 = 16 << 30;

/// The memory windows, which need address space above 4 GiB.
pub(super) fn window(context: &Context<'_>) -> Option<Finding> {
    each(context, |gpu| {
        let Some(text) = context.file(&path(gpu, "resource")) else {
            return unknown(format!("{gpu} does not list its memory windows"), "see gpu.model");
        };
        let size_of = |line: &str| -> Option<u64> {
            let mut fields = line.split_whitespace().map(number);
            let (first, last) = (fields.next()??, fields.next()??);
            if last == 0 { Some(0) } else { last.checked_sub(first)?.checked_add(1) }
        };
        // The first six are the device's windows, the seventh its ROM.
        match text.lines().take(6).map(size_of).collect::<Option<Vec<u64>>>() {
            None => malformed(format!("{gpu} lists windows that cannot be read"), "update the kernel"),
            Some(sizes) => match sizes.into_iter().max().unwrap_or(0) {
                largest if largest >= LARGE => ok(format!("{gpu} {}", size(largest))),
                largest => wrong(
                    format!("the largest memory window of {gpu} is {}", size(largest)),
                    "in the BIOS switch on Above 4G Decoding and Resizable BAR, and raise MMIO High Size",
                ),
            },
        }
    })
}

/// The confidential mode, which the GPU keeps over resets.
pub(super) fn mode(context: &Context<'_>) -> Option<Finding> {
    each(context, |gpu| {
        // One that has no such mode was told of above.
        let Some(architecture) = architecture(context, gpu) else {
            return Some(Finding::Ok(format!("{gpu} has none")));
        };
        let question = Question::Window { device: gpu, offset: architecture.mode_register() };
        let word = match context.machine.ask(&question) {
            Answer::Text(word) => word,
            Answer::Denied => return as_root(format!("the mode of {gpu} is in a register")),
            Answer::Missing => return unknown(format!("{gpu} offers no registers"), "see gpu.model"),
            Answer::Failed(why) => {
                return unknown(
                    format!("{gpu}: {why}"),
                    "look while no guest has it: nvidia_gpu_tools.py --query-cc-mode does the same",
                );
            }
        };
        let set = format!("nvidia_gpu_tools.py --gpu-bdf={gpu} --set-cc-mode=on --reset-after-cc-mode-switch");
        match number(&word) {
            // A device that is asleep or has fallen off its bus.
            Some(0xffff_ffff) | None => {
                malformed(format!("{gpu} answers {word}"), "wake it up: write on to its power/control, or reset it")
            }
            Some(word) => match word & 3 {
                1 => ok(format!("{gpu} on")),
                0 => wrong(format!("{gpu}: confidential mode is off"), set),
                3 => wrong(format!("{gpu}: devtools mode, which clients refuse"), set),
                other => malformed(format!("{gpu}: mode {other}"), set),
            },
        }
    })
}
