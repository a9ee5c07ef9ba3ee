//! A vCPU's first register state, which SNP measures as a page (AMD64 Architecture Programmer's Manual volume 2, appendix B,
//! "VMSA Layout, State Save Area for SEV-ES").

use crate::gctx::PAGE;

/// Where the first vCPU starts: the reset vector.
pub(crate) const RESET_VECTOR: u32 = 0xffff_fff0;

/// Who launches the guest. Each sets a few registers in its own way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vmm {
    /// QEMU with KVM.
    #[default]
    Qemu,
    /// Amazon EC2, as its users' tools compute it. The public tools disagree; see `docs/measurements.md`.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

/// Registers that depend on more than the architecture.
pub(crate) struct Registers {
    /// Address of the first instruction.
    pub start: u32,
    /// CPUID signature of the model: family, model, stepping.
    pub signature: u32,
    /// SEV_FEATURES.
    pub features: u64,
    /// Whether the state is one of flat 32-bit segments with protection on, as an SVSM is entered.
    pub flat: bool,
    pub vmm: Vmm,
}

impl Registers {
    pub fn page(&self) -> Box<[u8; PAGE]> {
        let mut page = Box::new([0; PAGE]);
        let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
        let (cs_attributes, ss_attributes, tr_attributes) = match self.vmm {
            Vmm::Ec2 if self.start == RESET_VECTOR => (0x9a, 0x92, 0x83),
            Vmm::Ec2 => (0x9b, 0x92, 0x83),
            Vmm::Qemu | Vmm::Gce => (0x9b, 0x93, 0x8b),
        };
        let cs_base = if self.flat { 0 } else { self.start & 0xffff_0000 };
        let segments: [(usize, u16, u16, u32, u32); 10] = if self.flat {
            [
                (0x00, 16, 0xc93, u32::MAX, 0),
                (0x10, 8, 0xc9b, u32::MAX, 0),
                (0x20, 16, 0xc93, u32::MAX, 0),
                (0x30, 16, 0xc93, u32::MAX, 0),
                (0x40, 16, 0xc93, u32::MAX, 0),
                (0x50, 0, 0x93, 0xffff, 0),
                (0x60, 0, 0, 0xffff, 0),
                (0x70, 0, 0x82, 0xffff, 0),
                (0x80, 0, 0, 0xffff, 0),
                (0x90, 0, 0x8b, 0xffff, 0),
            ]
        } else {
            [
                (0x00, 0, 0x93, 0xffff, 0),
                (0x10, 0xf000, cs_attributes, 0xffff, cs_base),
                (0x20, 0, ss_attributes, 0xffff, 0),
                (0x30, 0, 0x93, 0xffff, 0),
                (0x40, 0, 0x93, 0xffff, 0),
                (0x50, 0, 0x93, 0xffff, 0),
                (0x60, 0, 0, 0xffff, 0),
                (0x70, 0, 0x82, 0xffff, 0),
                (0x80, 0, 0, 0xffff, 0),
                (0x90, 0, tr_attributes, 0xffff, 0),
            ]
        };
        for (at, selector, attributes, limit, base) in segments {
            put(at, &selector.to_le_bytes());
            put(at + 2, &attributes.to_le_bytes());
            put(at + 4, &limit.to_le_bytes());
            put(at + 8, &u64::from(base).to_le_bytes());
        }
        let (rdx, mxcsr, fcw) = match self.vmm {
            // The SVSM's launcher leaves the x87 control word at zero.
            Vmm::Qemu if self.flat => (self.signature, 0x1f80, 0),
            Vmm::Qemu => (self.signature, 0x1f80, 0x37f),
            Vmm::Ec2 | Vmm::Gce => (0x600, 0, 0),
        };
        let pat: u64 = if self.vmm == Vmm::Gce { 0x0007_0106 } else { 0x0007_0406_0007_0406 };
        let rip = if self.flat { self.start } else { self.start & 0xffff };
        put(0x0d0, &0x1000_u64.to_le_bytes()); // EFER: SVME
        put(0x148, &0x40_u64.to_le_bytes()); // CR4: MCE
        put(0x158, &(0x10 | u64::from(self.flat)).to_le_bytes()); // CR0: ET, and PE where flat
        put(0x160, &0x400_u64.to_le_bytes()); // DR7
        put(0x168, &0xffff_0ff0_u64.to_le_bytes()); // DR6
        put(0x170, &2_u64.to_le_bytes()); // RFLAGS
        put(0x178, &u64::from(rip).to_le_bytes());
        put(0x268, &pat.to_le_bytes());
        put(0x310, &u64::from(rdx).to_le_bytes());
        put(0x3b0, &self.features.to_le_bytes());
        put(0x3e8, &1_u64.to_le_bytes()); // XCR0: x87
        put(0x408, &u32::to_le_bytes(mxcsr));
        put(0x410, &u16::to_le_bytes(fcw));
        page
    }
}
