//! TDX: MRTD and the runtime registers of a TD that QEMU starts with OVMF and a kernel given directly.

use cocoon_attestation::dev::cpu::Launch;
use cocoon_attestation::{EventLog, Measurement};

use crate::Error;
use crate::acpi::AcpiTables;
use crate::efi;
use crate::event::{Event, Step};
use crate::hob::hand_off_list;
use crate::inspect::{InitrdArgument, Inspection};
use crate::ovmf::Ovmf;
use crate::tdvf::{PageOrder, Section, SectionKind, mrtd, sections};
use crate::{linux, pe, variables};

/// A release of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
}

impl QemuVersion {
    /// The first release with TDX as upstream has it, which is assumed where nobody says otherwise.
    pub const DEFAULT: Self = Self { major: 10, minor: 1 };
    const KNOWN: std::ops::RangeInclusive<u32> = 8..=10;

    /// The order in which this release has pages added and measured. Backports exist, so it can be told otherwise.
    pub fn page_order(self) -> PageOrder {
        if self.major < 9 { PageOrder::TwoPass } else { PageOrder::SinglePass }
    }
}

impl std::str::FromStr for QemuVersion {
    type Err = Error;

    /// Reads `MAJOR.MINOR` with anything behind another dot; 8.0 to 10.x are known.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), Some(minor)) if Self::KNOWN.contains(&major) => Ok(Self { major, minor }),
            (Some(_), Some(_)) => Err(Error::Unsupported(format!("QEMU {text}; 8.0 to 10.x are known"))),
            _ => Err(Error::malformed("QEMU version", format!("{text:?} is not like 10.1"))),
        }
    }
}

/// A TD as QEMU is asked to launch it.
#[derive(Clone, Copy, Debug)]
pub struct TdxMachine<'a> {
    /// The firmware image, variables included.
    pub firmware: &'a [u8],
    /// What the firmware does ([`Inspection::of`]): costly to find, so it is kept where many machines share a firmware.
    pub inspection: Inspection,
    /// The kernel (`-kernel`): a bzImage of Linux 6.9 or later.
    pub kernel: &'a [u8],
    /// The initial ram disk (`-initrd`); empty if there is none.
    pub initrd: &'a [u8],
    /// The command line (`-append`), ASCII.
    pub cmdline: &'a str,
    /// Memory (`-m`) in bytes, whole MiB.
    pub memory: u64,
    /// Number of vCPUs (`-smp`).
    pub vcpus: u32,
    /// Which QEMU.
    pub qemu: QemuVersion,
    /// Order of pages, if it is not the one of `qemu`.
    pub page_order: Option<PageOrder>,
    /// QEMU's ACPI tables. Without them RTMR0 stays unknown.
    pub acpi: Option<&'a AcpiTables>,
}

/// A runtime register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Register {
    /// Its value, and what it was extended with in order.
    Known {
        /// The value.
        value: Measurement,
        /// The extensions.
        events: Vec<Event>,
    },
    /// Its value cannot be computed from what was given.
    Unknown {
        /// Why, and what to give.
        reason: String,
    },
}

impl Register {
    fn of(register: u8, events: Vec<Event>) -> Result<Self, Error> {
        let log = events.iter().map(|event| cocoon_attestation::Event {
            register,
            kind: event.name.clone(),
            digest: event.digest.0,
            data: Vec::new(),
        });
        let values = EventLog(log.collect()).replay();
        let values = values.map_err(|error| Error::malformed("event log", error.to_string()))?;
        Ok(Self::Known { value: values[usize::from(register)], events })
    }

    /// The value, if it is known.
    pub fn value(&self) -> Option<Measurement> {
        match self {
            Self::Known { value, .. } => Some(*value),
            Self::Unknown { .. } => None,
        }
    }

    /// The extensions; none if the value is unknown.
    pub fn events(&self) -> &[Event] {
        match self {
            Self::Known { events, .. } => events,
            Self::Unknown { .. } => &[],
        }
    }
}

/// What TDX measures of a launch, up to the first process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxMeasurements {
    /// Measurement of the initial memory.
    pub mrtd: Measurement,
    /// What it is made of, in order.
    pub mrtd_steps: Vec<Step>,
    /// RTMR0 (machine and firmware's settings), RTMR1 (kernel), RTMR2 (command line, initial ram disk), RTMR3 (nothing before the
    /// guest itself extends it).
    pub rtmr: [Register; 4],
}

impl TdxMeasurements {
    /// The events of all registers, as a log.
    pub fn event_log(&self) -> EventLog {
        let of = |(register, events): (u8, &Register)| {
            let event = move |event: &Event| cocoon_attestation::Event {
                register,
                kind: event.name.clone(),
                digest: event.digest.0,
                data: Vec::new(),
            };
            events.events().iter().map(event).collect::<Vec<_>>()
        };
        EventLog((0..).zip(&self.rtmr).flat_map(of).collect())
    }

    /// What the development platform's CPU records of this launch.
    ///
    /// # Errors
    /// A register is unknown: a CPU knows all of them.
    pub fn to_launch(&self) -> Result<Launch, Error> {
        let mut launch = Launch { mrtd: self.mrtd.0, ..Launch::default() };
        for (n, register) in self.rtmr.iter().enumerate() {
            launch.rtmr[n] = match register {
                Register::Known { value, .. } => value.0,
                Register::Unknown { reason } => {
                    return Err(Error::Unsupported(format!("a launch whose RTMR{n} is unknown: {reason}")));
                }
            };
        }
        Ok(launch)
    }
}

/// Computes the measurements of a TD.
///
/// # Errors
/// The machine cannot be launched, or not so that its registers were known.
pub fn measure(machine: &TdxMachine<'_>) -> Result<TdxMeasurements, Error> {
    let ovmf = Ovmf::parse(machine.firmware)?;
    let sections = sections(&ovmf)?;
    let order = machine.page_order.unwrap_or_else(|| machine.qemu.page_order());
    if machine.vcpus == 0 {
        return Err(Error::Unsupported("a guest without vCPUs".into()));
    }
    refuse_variables(&sections)?;
    // Firmware, kernel and initial ram disk are each hashed in one go, and the processor has room for three.
    let ((mrtd, mrtd_steps), rtmr1, rtmr2) = std::thread::scope(|scope| {
        let (kernel, initrd) = (scope.spawn(|| rtmr1(machine)), scope.spawn(|| rtmr2(machine)));
        (mrtd(&sections, order), joined(kernel), joined(initrd))
    });
    let rtmr = [rtmr0(machine, &sections)?, rtmr1?, rtmr2?, Register::of(3, Vec::new())?];
    Ok(TdxMeasurements { mrtd, mrtd_steps, rtmr })
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// MRTD alone, which depends on the firmware image and the order of pages and on nothing else.
///
/// # Errors
/// The image is no firmware for TDX.
pub fn measure_mrtd(firmware: &[u8], order: PageOrder) -> Result<Measurement, Error> {
    Ok(mrtd(&sections(&Ovmf::parse(firmware)?)?, order).0)
}

/// The hand-off list with which QEMU starts this firmware in a guest of `memory` bytes, as RTMR0 measures it.
///
/// # Errors
/// The image is no firmware for TDX, or a guest of that size cannot run it.
pub fn hand_off(firmware: &[u8], memory: u64) -> Result<Vec<u8>, Error> {
    hand_off_list(&sections(&Ovmf::parse(firmware)?)?, memory)
}

/// The image's variables, of which there is one section.
fn image_variables<'a>(sections: &[Section<'a>]) -> Result<&'a [u8], Error> {
    let mut found = sections.iter().filter(|section| section.kind == SectionKind::Variables);
    match (found.next(), found.next()) {
        (Some(section), None) => Ok(section.data),
        _ => Err(Error::Unsupported("a firmware without exactly one section of variables".into())),
    }
}

/// With Secure Boot a kernel that is given directly is not started unless it is signed; other variables would be measured too.
fn refuse_variables(sections: &[Section<'_>]) -> Result<(), Error> {
    let names = variables::names(image_variables(sections)?)?;
    if names.iter().any(|name| name == "PK") {
        return Err(Error::Unsupported(
            "a kernel given directly with this firmware, whose Secure Boot is on: use an image without keys (Debian: OVMF.fd)".into(),
        ));
    }
    match names.first() {
        None => Ok(()),
        Some(name) => Err(Error::Unsupported(format!("a firmware that brings variables along, such as {name:?}"))),
    }
}

fn rtmr0(machine: &TdxMachine<'_>, sections: &[Section<'_>]) -> Result<Register, Error> {
    let unknown = |reason: &str| Ok(Register::Unknown { reason: reason.into() });
    // Made in any case: a machine without that much memory cannot be launched.
    let list = hand_off_list(sections, machine.memory)?;
    let Some(acpi) = machine.acpi else {
        return unknown("QEMU's ACPI tables were not given (--acpi)");
    };
    let described = acpi.vcpus()?;
    if described != machine.vcpus {
        return Err(Error::Contradiction(format!(
            "the ACPI tables describe {described} vCPUs, and the machine has {}: dump the tables of this machine",
            machine.vcpus
        )));
    }
    if machine.inspection.measures_smbios {
        return unknown(
            "the firmware measures SMBIOS tables (edk2-stable202505 and later), and what it measures then is not known",
        );
    }
    if !machine.inspection.standard_boot_menu {
        return unknown("the firmware's boot menu is not edk2's");
    }
    let mut events = vec![
        Event::of("hand-off-list", &list, format!("the hand-off list of a machine with {} MiB", machine.memory >> 20)),
        Event::of("variables", image_variables(sections)?, "the firmware's variables, as they are in the image"),
    ];
    events.extend(efi::secure_boot_variables());
    events.push(efi::separator("the end of the firmware's own settings"));
    events.extend(acpi.events());
    events.extend(efi::boot_variables());
    Register::of(0, events)
}

fn rtmr1(machine: &TdxMachine<'_>) -> Result<Register, Error> {
    linux::check(machine.kernel)?;
    let unpatched = machine.inspection.takes_unpatched_kernel && machine.qemu.major >= 10;
    let (kernel, how) = if unpatched {
        (pe::authenticode_sha384(machine.kernel)?, "as the file is")
    } else {
        let patched = linux::patched(machine.kernel, machine.initrd.len() as u64, machine.memory)?;
        (pe::authenticode_sha384(&patched)?, "with the header that QEMU wrote")
    };
    Register::of(
        1,
        vec![
            Event::new("kernel", kernel, format!("the kernel's Authenticode digest, {how}")),
            efi::action("boot-option", "Calling EFI Application from Boot Option"),
            efi::separator("the end of the firmware"),
            efi::action("exit-boot-services", "Exit Boot Services Invocation"),
            efi::action("exit-boot-services-returned", "Exit Boot Services Returned with Success"),
        ],
    )
}

fn rtmr2(machine: &TdxMachine<'_>) -> Result<Register, Error> {
    if !machine.cmdline.is_ascii() || machine.cmdline.contains('\0') {
        return Err(Error::Unsupported("a command line that is not ASCII without NUL".into()));
    }
    let Some(place) = machine.inspection.initrd_argument else {
        return Err(Error::Unsupported("a firmware that loads no kernel directly".into()));
    };
    let cmdline = machine.cmdline;
    let options = match place {
        _ if machine.initrd.is_empty() => cmdline.to_owned(),
        InitrdArgument::Behind => format!("{cmdline} initrd=initrd"),
        InitrdArgument::InFront => format!("initrd=initrd {cmdline}"),
    };
    let mut events = Vec::new();
    if !options.is_empty() {
        events.push(efi::load_options(&options));
    }
    if !machine.initrd.is_empty() {
        events.push(Event::of("initrd", machine.initrd, "the initial ram disk"));
    }
    Register::of(2, events)
}
