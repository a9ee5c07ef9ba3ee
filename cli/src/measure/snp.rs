//! `cocoon measure snp`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use cocoon_firmware_measurements::id_block::IdBlock;
use cocoon_firmware_measurements::inspect::require_verified_kernel;
use cocoon_firmware_measurements::snp::{Firmware, SnpMachine, measure};
use cocoon_firmware_measurements::{CpuModel, KernelHashes, Vmm};
use serde_json::json;

use super::{hexadecimal, print, read, read_if_named};

/// The schema that `--json` names.
pub const SCHEMA: &str = "cocoon/measure-snp/v1";

#[derive(Debug, Args)]
pub struct SnpArgs {
    /// The firmware image that QEMU is given (-bios)
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    /// The kernel (-kernel with kernel-hashes=on); without it the firmware boots from a disk, which is not measured
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The initial ram disk (-initrd)
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The command line (-append)
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    cmdline: Option<String>,
    /// Number of vCPUs (-smp)
    #[arg(long, value_name = "N")]
    vcpus: u32,
    /// CPU model (-cpu): EPYC-v4, EPYC-Milan, EPYC-Genoa ..., or EAX of CPUID leaf 1 as 0x...
    #[arg(long, value_name = "MODEL", value_parser = |text: &str| text.parse::<CpuModel>())]
    cpu: CpuModel,
    /// SEV_FEATURES in hex: 0x1, or 0x21 where KVM offers debug register swap and QEMU asks for it
    #[arg(long, value_name = "HEX", value_parser = hexadecimal)]
    guest_features: u64,
    /// Who launches the guest
    #[arg(long, value_name = "VMM", default_value = "qemu")]
    vmm: Launcher,
    /// Measure a kernel with firmware that does not verify it: the digest then says nothing of what runs
    #[arg(long, requires = "kernel")]
    allow_unverified_kernel: bool,
    /// Guest policy for the identity block, hex
    #[arg(long, value_name = "HEX", value_parser = hexadecimal, default_value = "0x30000")]
    policy: u64,
    /// FAMILY_ID for the identity block, 16 bytes in hex
    #[arg(long, value_name = "HEX", default_value = "00000000000000000000000000000000")]
    family_id: String,
    /// IMAGE_ID for the identity block, 16 bytes in hex
    #[arg(long, value_name = "HEX", default_value = "00000000000000000000000000000000")]
    image_id: String,
    /// GUEST_SVN for the identity block
    #[arg(long, value_name = "N", default_value_t = 0)]
    guest_svn: u32,
    /// One line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// VMMs by their names.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Launcher {
    /// QEMU with KVM.
    Qemu,
    /// Amazon EC2; public tools disagree about it.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

impl SnpArgs {
    pub fn run(self) -> Result<String> {
        let image = read(&self.firmware)?;
        // Firmware and kernel are of a size: each on a processor of its own.
        let (kernel, firmware, verified) = std::thread::scope(|scope| {
            let kernel = scope.spawn(|| self.kernel_hashes());
            let firmware = Firmware::parse(&image).with_context(|| self.firmware.display().to_string());
            let demanded = self.kernel.is_some() && !self.allow_unverified_kernel;
            let verified = if demanded { require_verified_kernel(&image) } else { Ok(()) };
            (kernel.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), firmware, verified)
        });
        let (firmware, kernel) = (firmware?, kernel?);
        verified?;
        let machine = SnpMachine {
            firmware: &firmware,
            kernel,
            svsm: None,
            vcpus: self.vcpus,
            cpu: self.cpu,
            guest_features: self.guest_features,
            vmm: match self.vmm {
                Launcher::Qemu => Vmm::Qemu,
                Launcher::Ec2 => Vmm::Ec2,
                Launcher::Gce => Vmm::Gce,
            },
        };
        let found = measure(&machine)?;
        let block = IdBlock {
            launch_digest: found.digest,
            family_id: identifier("--family-id", &self.family_id)?,
            image_id: identifier("--image-id", &self.image_id)?,
            guest_svn: self.guest_svn,
            policy: self.policy,
        };
        let block = STANDARD.encode(block.to_bytes());
        if !self.json {
            let steps = print::steps(&found.steps);
            return Ok(format!("launch digest  {}\n{steps}\nidentity block {block}\n", found.digest));
        }
        let object = json!({
            "schema": SCHEMA,
            "inputs": {
                "firmware": cocoon_attestation::Digest::of(&[&image]).to_string(),
                "kernel": kernel.map(|hashes| hashes.kernel.to_string()),
                "initrd": kernel.map(|hashes| hashes.initrd.to_string()),
                "cmdline": self.cmdline,
                "vcpus": self.vcpus,
                "cpu_signature": format!("{:#x}", self.cpu.signature()),
                "guest_features": format!("{:#x}", self.guest_features),
            },
            "launch_digest": found.digest.to_string(),
            "steps": found.steps.iter().map(print::step).collect::<Vec<_>>(),
            "id_block": block,
        });
        Ok(format!("{object}\n"))
    }
}

impl SnpArgs {
    fn kernel_hashes(&self) -> Result<Option<KernelHashes>> {
        let Some(kernel) = &self.kernel else { return Ok(None) };
        let initrd = read_if_named(self.initrd.as_ref())?;
        Ok(Some(KernelHashes::of(&read(kernel)?, &initrd, self.cmdline.as_deref().unwrap_or_default())?))
    }
}

fn identifier(option: &str, text: &str) -> Result<[u8; 16]> {
    match hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => Ok(bytes),
        None => bail!("{option} {text:?} is not 16 bytes in hex"),
    }
}
