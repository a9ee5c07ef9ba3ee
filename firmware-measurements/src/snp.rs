//! SEV-SNP: the launch digest, which a report states as MEASUREMENT.

use cocoon_attestation::Measurement;

use crate::Error;
use crate::cpu::CpuModel;
use crate::event::Step;
use crate::gctx::GuestContext;
use crate::kernel_hashes::KernelHashes;
use crate::ovmf::Ovmf;
use crate::sev_metadata::{SevRegion, SevRegionKind, regions};
use crate::vmsa::{RESET_VECTOR, Registers, Vmm};

/// Where a firmware image ends in the guest's memory.
const FOUR_GIB: u64 = 1 << 32;
/// More vCPUs than QEMU gives a guest.
const MAX_VCPUS: u32 = 4096;
/// SEV_FEATURES bit 0: SNP is active.
const SNP_ACTIVE: u64 = 1;

/// A firmware image, as far as it is measured. Reading one hashes all of it, so keep it where many machines share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// The launch digest once the image's pages are in.
    pub digest: Measurement,
    /// Bytes of the image.
    pub size: u64,
    /// Other regions of memory in the order in which they are measured.
    pub regions: Vec<SevRegion>,
    /// Guest address of the table of kernel hashes, if the firmware has room for one.
    pub hashes_address: Option<u64>,
    /// Guest address at which vCPUs but the first start.
    pub reset_address: Option<u32>,
}

impl Firmware {
    /// Reads and hashes an OVMF image that was built for SEV-SNP.
    ///
    /// # Errors
    /// The image has no table of GUIDs or no SEV metadata, or they are malformed.
    pub fn parse(image: &[u8]) -> Result<Self, Error> {
        let ovmf = Ovmf::parse(image)?;
        let regions = regions(&ovmf)?;
        if regions.is_empty() {
            return Err(Error::Unsupported("the firmware has no SEV metadata: it was not built for SEV-SNP".into()));
        }
        let size = image.len() as u64;
        let mut context = GuestContext::new();
        context.normal(FOUR_GIB - size, image);
        Ok(Self {
            digest: context.digest(),
            size,
            regions,
            hashes_address: ovmf.sev_hashes_address()?.map(u64::from),
            reset_address: ovmf.sev_reset_address()?,
        })
    }
}

/// An SVSM that stands between secure processor and firmware.
#[derive(Clone, Copy, Debug)]
pub struct Svsm<'a> {
    /// Its image.
    pub image: &'a [u8],
    /// Bytes between the SVSM and the firmware: the firmware's variables, which lie in a file of their own.
    pub variables_size: u64,
}

/// A guest as QEMU is asked to launch it.
#[derive(Clone, Copy, Debug)]
pub struct SnpMachine<'a> {
    /// The firmware.
    pub firmware: &'a Firmware,
    /// What is loaded directly (`-kernel` with `kernel-hashes=on`); none if the firmware boots from a disk. Whether the firmware
    /// verifies what it is given is another question: ask [`Inspection`](crate::inspect::Inspection).
    pub kernel: Option<KernelHashes>,
    /// An SVSM, which boots without a kernel given directly.
    pub svsm: Option<Svsm<'a>>,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// CPU model.
    pub cpu: CpuModel,
    /// SEV_FEATURES: 0x1 on Linux 6.8 and older and where the host's KVM allows no more, 0x21 with debug register swap.
    pub guest_features: u64,
    /// Who launches it.
    pub vmm: Vmm,
}

/// What SNP measures of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpMeasurements {
    /// The launch digest.
    pub digest: Measurement,
    /// What was measured, in order.
    pub steps: Vec<Step>,
}

/// Computes the launch digest of a guest.
///
/// # Errors
/// The machine cannot be launched, or not so that its digest were known.
pub fn measure(machine: &SnpMachine<'_>) -> Result<SnpMeasurements, Error> {
    if !(1..=MAX_VCPUS).contains(&machine.vcpus) {
        return Err(Error::Unsupported(format!("{} vCPUs; there are 1 to {MAX_VCPUS}", machine.vcpus)));
    }
    if machine.guest_features & SNP_ACTIVE == 0 {
        let features = machine.guest_features;
        return Err(Error::Contradiction(format!(
            "guest features {features:#x} lack bit 0, which every SNP guest has: give 0x1, or 0x21 with debug register swap"
        )));
    }
    let firmware = machine.firmware;
    let mut run = Run { context: GuestContext::from_digest(firmware.digest), steps: Vec::new() };
    run.step("firmware", FOUR_GIB - firmware.size, firmware.size, "the image's pages");
    match machine.svsm {
        Some(svsm) => run.svsm(machine, &svsm)?,
        None => run.firmware(machine)?,
    }
    Ok(SnpMeasurements { digest: run.context.digest(), steps: run.steps })
}

struct Run {
    context: GuestContext,
    steps: Vec<Step>,
}

impl Run {
    fn step(&mut self, name: &'static str, address: u64, size: u64, meaning: impl Into<String>) {
        self.steps.push(Step { name: name.into(), address: Some(address), size, meaning: meaning.into() });
    }

    fn firmware(&mut self, machine: &SnpMachine<'_>) -> Result<(), Error> {
        let firmware = machine.firmware;
        let hashes = firmware.regions.iter().any(|region| region.kind == SevRegionKind::KernelHashes);
        if machine.kernel.is_some() && !(hashes && firmware.hashes_address.is_some()) {
            return Err(Error::Unsupported(
                "a kernel, because the firmware has no place for hashes of one; use an OVMF built from OvmfPkg/AmdSev"
                    .into(),
            ));
        }
        self.regions(&firmware.regions, machine, firmware.hashes_address)?;
        self.vcpu(machine, "vcpu-0", RESET_VECTOR, 1, false);
        if machine.vcpus > 1 {
            let start = firmware.reset_address.ok_or_else(|| {
                Error::Unsupported(
                    "more than one vCPU, because the firmware does not say where the others start".into(),
                )
            })?;
            self.vcpu(machine, "vcpus-1-up", start, machine.vcpus - 1, false);
        }
        Ok(())
    }

    fn svsm(&mut self, machine: &SnpMachine<'_>, svsm: &Svsm<'_>) -> Result<(), Error> {
        if machine.kernel.is_some() || machine.vmm != Vmm::Qemu {
            return Err(Error::Unsupported(
                "an SVSM with a kernel given directly, or under another VMM than QEMU".into(),
            ));
        }
        let ovmf = Ovmf::parse(svsm.image)?;
        let (size, below) = (svsm.image.len() as u64, machine.firmware.size.checked_add(svsm.variables_size));
        let address = below.and_then(|below| FOUR_GIB.checked_sub(below)?.checked_sub(size));
        let address = address.ok_or_else(|| Error::malformed("SVSM", "it does not fit below the firmware"))?;
        let entry = ovmf.svsm_entry()?.ok_or_else(|| Error::malformed("SVSM", "it does not say where it starts"))?;
        let start =
            u32::try_from(address + u64::from(entry)).map_err(|_| Error::malformed("SVSM", "it starts past 4 GiB"))?;
        self.context.normal(address, svsm.image);
        self.step("svsm", address, size, "the SVSM's pages");
        self.regions(&regions(&ovmf)?, machine, None)?;
        // The launcher of an SVSM gives it no feature but SNP itself.
        self.vcpu(&SnpMachine { guest_features: SNP_ACTIVE, ..*machine }, "vcpus", start, machine.vcpus, true);
        Ok(())
    }

    fn regions(&mut self, regions: &[SevRegion], machine: &SnpMachine<'_>, table: Option<u64>) -> Result<(), Error> {
        for region in regions {
            let region = region.checked()?;
            let SevRegion { address, size, kind } = region;
            match (kind, machine.kernel.zip(table)) {
                (SevRegionKind::Memory, _) if machine.vmm == Vmm::Gce => {
                    self.context.unmeasured(address, size);
                    self.step("memory", address, size, "addresses alone");
                }
                (SevRegionKind::Memory, _) => {
                    self.context.zero(address, size);
                    self.step("memory", address, size, "zeros");
                }
                (SevRegionKind::CallingArea, _) => {
                    self.context.zero(address, size);
                    self.step("calling-area", address, size, "zeros");
                }
                (SevRegionKind::Secrets, _) => {
                    self.context.secrets(address);
                    self.step("secrets", address, size, "address alone: the secure processor fills it");
                }
                // EC2 puts this page last.
                (SevRegionKind::Cpuid, _) if machine.vmm == Vmm::Ec2 => {}
                (SevRegionKind::Cpuid, _) => self.cpuid(address, size),
                (SevRegionKind::KernelHashes, Some((hashes, table))) => {
                    if table / 4096 != address / 4096 {
                        return Err(Error::malformed(
                            "SEV metadata",
                            "the table of kernel hashes lies outside its region",
                        ));
                    }
                    self.context.normal(address, &hashes.page(table)?);
                    let KernelHashes { kernel, initrd, cmdline } = hashes;
                    let meaning =
                        format!("SHA-256 of kernel {kernel}, initial ram disk {initrd}, command line {cmdline}");
                    self.step("kernel-hashes", address, size, meaning);
                }
                (SevRegionKind::KernelHashes, None) => {
                    self.context.zero(address, size);
                    self.step("kernel-hashes", address, size, "zeros: no kernel is given directly");
                }
            }
        }
        if machine.vmm == Vmm::Ec2 {
            for region in regions.iter().filter(|region| region.kind == SevRegionKind::Cpuid) {
                self.cpuid(region.address, region.size);
            }
        }
        Ok(())
    }

    fn cpuid(&mut self, address: u64, size: u64) {
        self.context.cpuid(address);
        self.step("cpuid", address, size, "address alone: the secure processor checks the values");
    }

    fn vcpu(&mut self, machine: &SnpMachine<'_>, name: &'static str, start: u32, count: u32, flat: bool) {
        let (signature, features) = (machine.cpu.signature(), machine.guest_features);
        let page = Registers { start, signature, features, flat, vmm: machine.vmm }.page();
        let digest = Measurement::of(&[&*page]);
        for _ in 0..count {
            self.context.vmsa(&digest);
        }
        let meaning = format!(
            "{count} x first registers: start {start:#x}, CPU signature {signature:#x}, features {features:#x}"
        );
        let size = u64::from(count) * page.len() as u64;
        self.steps.push(Step { name: name.into(), address: None, size, meaning });
    }
}
