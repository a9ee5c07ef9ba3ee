//! `cocoon host doctor`: what stands between this machine and a guest that proves what it runs, from BIOS to GPU, a line each.
//!
//! Every check looks through [`Machine`] alone, changes nothing, and says something without root; where root would see more, it says so.

mod cpu;
mod gpu;
pub mod machine;
mod qemu;
mod system;
mod tee;

use std::path::PathBuf;

use serde_json::{Value, json};

pub use machine::{Answer, Live, Machine, Question, Recorder, Recording};

pub(crate) use tee::sev_capabilities;

use crate::vm::config::{GuestConfig, PciAddress, QuoteService, Size, Tee};

/// What the machine is to be fit for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What is to protect guests; `None`: what this processor has.
    pub tee: Option<Tee>,
    /// GPUs to pass on; none named: all NVIDIA GPUs that there are.
    pub gpus: Vec<PciAddress>,
    /// Memory of a guest.
    pub memory: Size,
    /// Size of the pages that are to back it.
    pub hugepages: Option<Size>,
    /// NUMA node that is to hold it.
    pub numa: Option<u32>,
    /// The guest's firmware; `None`: Debian's.
    pub firmware: Option<PathBuf>,
    /// QEMU.
    pub qemu: PathBuf,
    /// Where quotes of trust domains come from.
    pub quotes: QuoteService,
    /// Whether guests are reached over virtual sockets.
    pub vsock: bool,
    /// Where data is kept.
    pub data: PathBuf,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            tee: None,
            gpus: Vec::new(),
            memory: Size(16 << 30),
            hugepages: None,
            numa: None,
            firmware: None,
            qemu: "qemu-system-x86_64".into(),
            quotes: QuoteService::default(),
            vsock: true,
            data: "/var/lib".into(),
        }
    }
}

impl From<&GuestConfig> for Wanted {
    fn from(config: &GuestConfig) -> Self {
        let quotes = config.tdx.as_ref().map(|tdx| tdx.quotes.clone()).unwrap_or_default();
        Self {
            tee: Some(config.tee),
            gpus: config.gpus.clone(),
            memory: config.memory,
            hugepages: config.hugepages,
            numa: config.numa,
            firmware: None,
            qemu: config.qemu.clone(),
            quotes,
            vsock: config.network.vsock.is_some(),
            data: config.data.clone(),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it must be.
    Ok(String),
    /// Not as it must be.
    Wrong {
        /// What is there.
        found: String,
        /// What to do.
        fix: String,
    },
    /// It could not be seen.
    Unknown {
        /// What was tried.
        found: String,
        /// What would show it.
        fix: String,
        /// Whether it is enough to be root.
        root: bool,
    },
    /// What the machine says cannot be read as what it should be.
    Malformed {
        /// What it says.
        found: String,
        /// What to do.
        fix: String,
    },
}

fn ok(found: impl Into<String>) -> Option<Finding> {
    Some(Finding::Ok(found.into()))
}

fn wrong(found: impl Into<String>, fix: impl Into<String>) -> Option<Finding> {
    Some(Finding::Wrong { found: found.into(), fix: fix.into() })
}

fn unknown(found: impl Into<String>, fix: impl Into<String>) -> Option<Finding> {
    Some(Finding::Unknown { found: found.into(), fix: fix.into(), root: false })
}

/// Root sees it.
fn as_root(found: impl Into<String>) -> Option<Finding> {
    Some(Finding::Unknown { found: found.into(), fix: "run `sudo cocoon host doctor`".into(), root: true })
}

fn malformed(found: impl Into<String>, fix: impl Into<String>) -> Option<Finding> {
    Some(Finding::Malformed { found: found.into(), fix: fix.into() })
}

impl Finding {
    /// `ok`, `wrong`, `unknown` or `malformed`.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Ok(_) => "ok",
            Self::Wrong { .. } => "wrong",
            Self::Unknown { .. } => "unknown",
            Self::Malformed { .. } => "malformed",
        }
    }

    /// What is there, and what to do about it.
    pub fn parts(&self) -> (&str, Option<&str>) {
        match self {
            Self::Ok(found) => (found, None),
            Self::Wrong { found, fix } | Self::Unknown { found, fix, .. } | Self::Malformed { found, fix } => {
                (found, Some(fix))
            }
        }
    }
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its stable name, `iommu` or `gpu.mode`.
    pub id: &'static str,
    /// What was found.
    pub finding: Finding,
}

/// What the checks look at.
struct Context<'a> {
    machine: &'a dyn Machine,
    wanted: &'a Wanted,
    tee: Tee,
    gpus: Vec<String>,
}

impl Context<'_> {
    fn file(&self, path: &str) -> Option<String> {
        self.machine.ask(&Question::File(path)).text()
    }

    fn folder(&self, path: &str) -> Vec<String> {
        let names = self.machine.ask(&Question::Folder(path)).text().unwrap_or_default();
        names.lines().map(str::to_owned).collect()
    }

    fn guest(&self) -> bool {
        self.tee != Tee::Development
    }
}

/// A check: `None` where the layer is not needed.
type Look = fn(&Context<'_>) -> Option<Finding>;

/// From the outside in: a line that is wrong explains those below it.
const CHECKS: &[(&str, Look)] = &[
    ("cpu.model", cpu::model),
    ("cpu.flags", cpu::flags),
    ("cpu.microcode", cpu::microcode),
    ("bios.version", cpu::bios),
    ("bios.tee", tee::bios),
    ("bios.sgx", tee::sgx),
    ("kernel.version", system::kernel),
    ("kernel.parameters", system::parameters),
    ("kvm", system::kvm),
    ("tdx.module", tee::tdx_module),
    ("tdx.quotes", tee::quotes),
    ("tdx.pccs", tee::pccs),
    ("snp.enabled", tee::snp_enabled),
    ("snp.rmp", tee::rmp),
    ("snp.firmware", tee::snp_firmware),
    ("snp.capabilities", tee::snp_capabilities),
    ("iommu", system::iommu),
    ("iommufd", system::iommufd),
    ("vsock", system::vsock),
    ("memory", system::memory),
    ("hugepages", system::hugepages),
    ("numa", system::numa),
    ("limits.memlock", system::memlock),
    ("limits.files", system::files),
    ("qemu.version", qemu::version),
    ("qemu.objects", qemu::objects),
    ("qemu.devices", qemu::devices),
    ("firmware", qemu::firmware),
    ("gpu.model", gpu::model),
    ("gpu.driver", gpu::driver),
    ("gpu.group", gpu::group),
    ("gpu.window", gpu::window),
    ("gpu.mode", gpu::mode),
    ("clock", system::clock),
    ("entropy", system::entropy),
    ("disk", system::disk),
];

/// What the doctor says of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it was examined for.
    pub tee: Tee,
    /// Layers that are needed, from the outside in.
    pub checks: Vec<Check>,
}

/// The worst of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Ready,
    /// Something is wrong, and what to do is known.
    Wrong,
    /// Nothing is wrong, but something could not be seen.
    Unknown,
    /// Something cannot be read as what it should be.
    Malformed,
}

impl Outcome {
    /// Exit code, as every command that judges has it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Wrong => 10,
            Self::Unknown => 20,
            Self::Malformed => 30,
        }
    }

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Wrong => "wrong",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
        }
    }
}

impl Report {
    /// The worst: wrong before malformed before unknown.
    pub fn outcome(&self) -> Outcome {
        let any = |status: &str| self.checks.iter().any(|check| check.finding.status() == status);
        [("wrong", Outcome::Wrong), ("malformed", Outcome::Malformed), ("unknown", Outcome::Unknown)]
            .into_iter()
            .find(|(status, _)| any(status))
            .map_or(Outcome::Ready, |(_, outcome)| outcome)
    }

    /// Layers that are not as they must be, a line each.
    pub fn wrong(&self) -> impl Iterator<Item = String> + '_ {
        let bad = |check: &&Check| matches!(check.finding, Finding::Wrong { .. } | Finding::Malformed { .. });
        self.checks.iter().filter(bad).map(line)
    }

    /// For a person: a line for each layer, and one for the whole.
    pub fn text(&self) -> String {
        let mut text: String = self.checks.iter().map(|check| line(check) + "\n").collect();
        let count = |status| self.checks.iter().filter(|check| check.finding.status() == status).count();
        let (wrong, unknown, malformed) = (count("wrong"), count("unknown"), count("malformed"));
        let root =
            self.checks.iter().filter(|check| matches!(check.finding, Finding::Unknown { root: true, .. })).count();
        text += &match self.outcome() {
            Outcome::Ready if self.tee == Tee::Development => {
                "This machine can run guests of the development platform: NOT CONFIDENTIAL.\n".to_owned()
            }
            Outcome::Ready => format!("This machine can run {} guests.\n", self.tee),
            _ => {
                format!("For {} guests: {wrong} wrong, {malformed} unreadable, {unknown} unknown", self.tee)
                    + &if root > 0 { format!(", of which root sees {root}.\n") } else { ".\n".into() }
            }
        };
        text
    }

    /// `docs/schemas/doctor.schema.json`.
    pub fn json(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                let (found, fix) = check.finding.parts();
                let root = matches!(check.finding, Finding::Unknown { root: true, .. });
                json!({"id": check.id, "status": check.finding.status(), "found": found, "fix": fix, "root_sees": root})
            })
            .collect();
        json!({"schema": "cocoon/doctor/v1", "tee": self.tee.to_string(), "outcome": self.outcome().name(),
               "exit_code": self.outcome().exit_code(), "checks": checks})
    }
}

fn line(check: &Check) -> String {
    let (found, fix) = check.finding.parts();
    let fix = fix.map(|fix| format!(" -> {fix}")).unwrap_or_default();
    // What a machine says is on one line and cannot move the cursor.
    let text: String = format!("{found}{fix}").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{:9}  {:17}  {text}", check.finding.status(), check.id)
}

/// Looks at every layer that is needed.
pub fn examine(machine: &dyn Machine, wanted: &Wanted) -> Report {
    let tee = wanted.tee.unwrap_or_else(|| cpu::best(machine));
    let mut context = Context { machine, wanted, tee, gpus: Vec::new() };
    if tee != Tee::Development {
        context.gpus = gpu::wanted(&context);
    }
    let root = machine.ask(&Question::Command("id -u")).text().as_deref() == Some("0");
    let checks = CHECKS
        .iter()
        .filter_map(|(id, look)| look(&context).map(|finding| Check { id, finding: seen_by(root, finding) }))
        .collect();
    Report { tee, checks }
}

/// What root would see and root does not see.
fn seen_by(root: bool, finding: Finding) -> Finding {
    match finding {
        Finding::Unknown { found, root: true, .. } if root => Finding::Unknown {
            found,
            fix: "root does not see it either: the kernel or a hypervisor keeps it away".into(),
            root: false,
        },
        finding => finding,
    }
}

/// Names of all checks, in order.
pub fn check_ids() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(id, _)| *id)
}
