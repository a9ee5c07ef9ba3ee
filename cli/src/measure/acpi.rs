//! `cocoon measure acpi`: the tables that QEMU makes for a guest's machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use cocoon_attestation::Digest;
use cocoon_host::vm::acpi::{self, Dump};
use cocoon_host::vm::{Plan, Tee};

use super::DUMP;
use crate::host_launch::read_plan;

#[derive(Debug, Args)]
pub struct AcpiArgs {
    /// The guest's configuration, as `cocoon host launch` takes it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The folder that they go to, for --acpi and for the description of an image
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Reads the tables of a plan's machine.
pub(super) fn dump(plan: &Plan) -> Result<Dump> {
    if plan.config.tee != Tee::Development {
        bail!(
            "the tables of a guest under {} cannot be had by emulation: what its protection changes in them is not known here. \
             docs/measurements.md says where a running guest has them",
            plan.config.tee
        );
    }
    Ok(acpi::dump(Command::new(&plan.command.program), &plan.command.args)?)
}

impl AcpiArgs {
    pub fn run(self) -> Result<String> {
        let Dump { tables, qemu } = dump(&read_plan(&self.config)?)?;
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        let [loader, root, all] = tables.files();
        let mut said = format!("QEMU {}.{}, {} vCPUs\n", qemu.major, qemu.minor, tables.vcpus()?);
        for (name, bytes) in DUMP.into_iter().zip([all, root, loader]) {
            let path = self.out.join(name);
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            said.push_str(&format!("{}  {name}\n", Digest::of(&[bytes])));
        }
        Ok(said)
    }
}
