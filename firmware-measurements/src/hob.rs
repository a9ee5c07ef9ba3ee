//! The TD's hand-off block list, by which a VMM tells the firmware which memory there is (UEFI Platform Initialization
//! Specification, volume 3; as QEMU writes it in `hw/i386/tdvf-hob.c`).

use crate::Error;
use crate::tdvf::{Section, SectionKind};

/// Memory types in a resource descriptor: accepted before launch, or to be accepted by the guest.
const SYSTEM: u32 = 0;
const UNACCEPTED: u32 = 7;
/// Present, initialised, tested.
const ATTRIBUTES: u32 = 7;
const MIB: u64 = 1 << 20;
const FOUR_GIB: u64 = 1 << 32;
/// What fits in front of the addresses that no machine of today has.
const MAX_MEMORY: u64 = 1 << 46;

/// Bytes of memory below 4 GiB that QEMU's q35 gives a guest.
pub(crate) fn below_4g(memory: u64) -> u64 {
    if memory >= 0xb000_0000 { 0x8000_0000 } else { memory }
}

/// The list for a guest of `memory` bytes, without its closing entry, which is not measured.
pub(crate) fn hand_off_list(sections: &[Section<'_>], memory: u64) -> Result<Vec<u8>, Error> {
    if !memory.is_multiple_of(MIB) || memory == 0 || memory > MAX_MEMORY {
        return Err(Error::Unsupported(format!("{memory} bytes of memory; give whole MiB, up to 64 TiB")));
    }
    let below = below_4g(memory);
    let of_memory = |section: &&Section<'_>| matches!(section.kind, SectionKind::HandOff | SectionKind::Temporary);
    let mut accepted: Vec<_> = sections.iter().filter(of_memory).map(|found| (found.address, found.size)).collect();
    accepted.sort_unstable();
    let list = sections.iter().find(|section| section.kind == SectionKind::HandOff);
    let list = list.ok_or_else(|| Error::malformed("TDX metadata", "there is no section for the hand-off list"))?;
    let mut resources = Vec::new();
    let mut next = 0;
    for (address, size) in accepted {
        if address + size > below {
            return Err(Error::Contradiction(format!(
                "the firmware uses memory at {address:#x}, and a guest of {} MiB has none there",
                memory / MIB
            )));
        }
        if address > next {
            resources.push((UNACCEPTED, next, address - next));
        }
        resources.push((SYSTEM, address, size));
        next = address + size;
    }
    if next < below {
        resources.push((UNACCEPTED, next, below - next));
    }
    if memory > below {
        resources.push((UNACCEPTED, FOUR_GIB, memory - below));
    }
    let mut out = Vec::with_capacity(56 + 48 * resources.len());
    let header = |out: &mut Vec<u8>, kind: u16, len: u16| {
        out.extend(kind.to_le_bytes());
        out.extend(len.to_le_bytes());
        out.extend([0; 4]);
    };
    header(&mut out, 1, 56);
    out.extend(9_u32.to_le_bytes()); // version
    out.extend([0; 4 + 4 * 8]); // boot mode; memory top and bottom, free and not: unused
    let end = list.address + 56 + 48 * resources.len() as u64 + 8;
    out.extend(end.to_le_bytes());
    for (kind, address, size) in resources {
        header(&mut out, 3, 48);
        out.extend([0; 16]); // owner
        out.extend(kind.to_le_bytes());
        out.extend(ATTRIBUTES.to_le_bytes());
        out.extend(address.to_le_bytes());
        out.extend(size.to_le_bytes());
    }
    Ok(out)
}
