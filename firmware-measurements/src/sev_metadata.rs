//! What OVMF asks a hypervisor to prepare for SEV-SNP: regions of guest memory and how each is measured (edk2,
//! `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`).

use crate::Error;
use crate::bytes::Bytes;
use crate::ovmf::Ovmf;

const WHAT: &str = "SEV metadata";
const PAGE: u64 = 4096;
/// Far more than any firmware asks for, so that a hostile one cannot make a measurement last.
const MAX_REGIONS: u32 = 64;
const MAX_MEMORY: u64 = 256 << 20;

/// How a region of guest memory enters the launch digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SevRegionKind {
    /// Zeroed memory that the firmware uses before it has page tables.
    Memory,
    /// The page on which the secure processor puts the guest's secrets.
    Secrets,
    /// The page of CPUID values, which the secure processor checks and does not measure.
    Cpuid,
    /// An SVSM's calling area.
    CallingArea,
    /// The page with hashes of kernel, initial ram disk and command line; zeros when there is no kernel.
    KernelHashes,
}

/// A region of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SevRegion {
    /// Guest physical address, of a page's start.
    pub address: u64,
    /// Bytes, whole pages.
    pub size: u64,
    /// How it is measured.
    pub kind: SevRegionKind,
}

/// Reads a firmware's regions in the order in which they are measured.
pub(crate) fn regions(ovmf: &Ovmf<'_>) -> Result<Vec<SevRegion>, Error> {
    let bytes = Bytes::new(WHAT, ovmf.image());
    let Some(start) = ovmf.sev_metadata()? else { return Ok(Vec::new()) };
    let (signature, version, count) = (bytes.slice(start, 4)?, bytes.u32(start + 8)?, bytes.u32(start + 12)?);
    if signature != b"ASEV" {
        return Err(bytes.malformed("the signature is not ASEV"));
    }
    if version != 1 {
        return Err(Error::Unsupported(format!("SEV metadata of version {version}; version 1 is known")));
    }
    if count > MAX_REGIONS {
        return Err(bytes.malformed(format!("it names {count} regions")));
    }
    let regions = (0..u64::from(count)).map(|n| {
        let at = start + 16 + 12 * n;
        let (address, size) = (u64::from(bytes.u32(at)?), u64::from(bytes.u32(at + 4)?));
        let kind = match bytes.u32(at + 8)? {
            1 => SevRegionKind::Memory,
            2 => SevRegionKind::Secrets,
            3 => SevRegionKind::Cpuid,
            4 => SevRegionKind::CallingArea,
            0x10 => SevRegionKind::KernelHashes,
            other => return Err(Error::Unsupported(format!("SEV metadata has a region of unknown type {other}"))),
        };
        SevRegion { address, size, kind }.checked()
    });
    regions.collect()
}

impl SevRegion {
    /// The region, if it can be measured: whole pages, and one alone where the kind has one.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        let one = matches!(self.kind, SevRegionKind::Secrets | SevRegionKind::Cpuid | SevRegionKind::KernelHashes);
        let whole = self.address.is_multiple_of(PAGE)
            && self.size.is_multiple_of(PAGE)
            && self.size > 0
            && self.size <= MAX_MEMORY;
        if !whole || (one && self.size != PAGE) {
            let detail = format!("a {:?} region of {:#x} bytes at {:#x}", self.kind, self.size, self.address);
            return Err(Error::malformed(WHAT, detail));
        }
        Ok(self)
    }
}
