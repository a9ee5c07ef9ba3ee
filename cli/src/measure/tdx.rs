//! `cocoon measure tdx`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use cocoon_attestation::Digest;
use cocoon_firmware_measurements::tdvf::PageOrder;
use cocoon_firmware_measurements::tdx::{QemuVersion, TdxMachine, measure};
use serde_json::json;

use super::inspected::inspect;
use super::{acpi_tables, print, read, read_if_named, size};

/// The schema that `--json` names.
pub const SCHEMA: &str = "cocoon/measure-tdx/v1";

#[derive(Debug, Args)]
pub struct TdxArgs {
    /// The firmware image that QEMU is given (-bios), variables included
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    /// The kernel (-kernel): a bzImage of Linux 6.9 or later
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The initial ram disk (-initrd)
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The command line (-append)
    #[arg(long, value_name = "TEXT", default_value = "")]
    cmdline: String,
    /// Memory (-m), such as 64G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: u64,
    /// Number of vCPUs (-smp)
    #[arg(long, value_name = "N")]
    vcpus: u32,
    /// The release of QEMU: 8.0 to 10.x [default: 10.1, the first with TDX upstream]
    #[arg(long, value_name = "VERSION", value_parser = |text: &str| text.parse::<QemuVersion>())]
    qemu: Option<QemuVersion>,
    /// Order in which pages are added and measured, where it is not the one of that release
    #[arg(long, value_name = "ORDER")]
    page_order: Option<Order>,
    /// Folder with this machine's ACPI tables, as QEMU had them after the firmware enumerated PCI: etc_acpi_tables and, unless they
    /// follow from it, etc_acpi_rsdp and etc_table-loader. Without it RTMR0 stays unknown
    #[arg(long, value_name = "DIR")]
    acpi: Option<PathBuf>,
    /// One line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Orders by their names.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Order {
    /// Each page is measured as it is added (QEMU 9 and later).
    Single,
    /// All pages of a section are added, then measured (QEMU 8).
    Two,
}

impl From<Order> for PageOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::Single => Self::SinglePass,
            Order::Two => Self::TwoPass,
        }
    }
}

impl TdxArgs {
    pub fn run(self) -> Result<String> {
        let (firmware, kernel) = (read(&self.firmware)?, read(&self.kernel)?);
        let initrd = read_if_named(self.initrd.as_ref())?;
        let acpi = self.acpi.as_deref().map(acpi_tables).transpose()?;
        let inspection = inspect(&firmware).with_context(|| self.firmware.display().to_string())?;
        let machine = TdxMachine {
            firmware: &firmware,
            inspection,
            kernel: &kernel,
            initrd: &initrd,
            cmdline: &self.cmdline,
            memory: self.memory,
            vcpus: self.vcpus,
            qemu: self.qemu.unwrap_or(QemuVersion::DEFAULT),
            page_order: self.page_order.map(PageOrder::from),
            acpi: acpi.as_ref(),
        };
        let found = measure(&machine)?;
        if !self.json {
            return Ok(print::tdx(&found));
        }
        let hash = |bytes: &[u8]| Digest::of(&[bytes]).to_string();
        let order = machine.page_order.unwrap_or_else(|| machine.qemu.page_order());
        let object = json!({
            "schema": SCHEMA,
            "inputs": {
                "firmware": hash(&firmware), "kernel": hash(&kernel), "initrd": self.initrd.as_ref().map(|_| hash(&initrd)),
                "cmdline": self.cmdline, "memory": self.memory, "vcpus": self.vcpus,
                "qemu": format!("{}.{}", machine.qemu.major, machine.qemu.minor),
                "page_order": match order { PageOrder::SinglePass => "single", PageOrder::TwoPass => "two" },
            },
            "mrtd": found.mrtd.to_string(),
            "mrtd_steps": found.mrtd_steps.iter().map(print::step).collect::<Vec<_>>(),
            "rtmr": found.rtmr.iter().map(print::register).collect::<Vec<_>>(),
        });
        Ok(format!("{object}\n"))
    }
}
