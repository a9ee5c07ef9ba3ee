//! TDX's metadata in OVMF: the sections that a VMM puts into a TD's memory, and MRTD, which measures them (Intel, "TDX Virtual
//! Firmware Design Guide", "TDVF Metadata"; "TDX Module Base Architecture Specification", "MRTD").

use aws_lc_rs::digest::{Context, SHA384};
use cocoon_attestation::Measurement;

use crate::Error;
use crate::bytes::Bytes;
use crate::event::Step;
use crate::ovmf::Ovmf;

const WHAT: &str = "TDX metadata";
const PAGE: u64 = 4096;
const CHUNK: u64 = 256;
const MAX_SECTIONS: u32 = 64;
const MAX_MEMORY: u64 = 256 << 20;
const EXTEND: u32 = 1;
const AUGMENT: u32 = 2;

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// The firmware's code.
    Code,
    /// The firmware's variables.
    Variables,
    /// Memory for the list that tells the firmware of the machine's memory.
    HandOff,
    /// Memory for the firmware's use.
    Temporary,
}

/// A section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it is.
    pub kind: SectionKind,
    /// Guest physical address, of a page's start.
    pub address: u64,
    /// Bytes in memory, whole pages.
    pub size: u64,
    /// Its bytes in the image; empty where memory starts as zeros.
    pub data: &'a [u8],
    /// Whether contents are measured, and not only addresses.
    pub extended: bool,
}

/// In which order a VMM adds and measures the pages of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOrder {
    /// All are added, then all are measured (KVM patches for QEMU 8).
    TwoPass,
    /// Each is measured as it is added (QEMU 9 and later, upstream Linux).
    SinglePass,
}

/// Reads a firmware's sections in the order in which they are added.
pub(crate) fn sections<'a>(ovmf: &Ovmf<'a>) -> Result<Vec<Section<'a>>, Error> {
    let bytes = Bytes::new(WHAT, ovmf.image());
    let Some(start) = ovmf.tdx_metadata()? else {
        return Err(Error::Unsupported("the firmware has no TDX metadata: it was not built for TDX".into()));
    };
    let (signature, version, count) = (bytes.slice(start, 4)?, bytes.u32(start + 8)?, bytes.u32(start + 12)?);
    if signature != b"TDVF" {
        return Err(bytes.malformed("the signature is not TDVF"));
    }
    if version != 1 {
        return Err(Error::Unsupported(format!("TDX metadata of version {version}; version 1 is known")));
    }
    if count == 0 || count > MAX_SECTIONS {
        return Err(bytes.malformed(format!("it names {count} sections")));
    }
    let sections = (0..u64::from(count)).map(|n| section(&bytes, start + 16 + 32 * n));
    let sections: Vec<_> = sections.collect::<Result<_, _>>()?;
    let mut ordered: Vec<_> =
        sections.iter().map(|section| (section.address, section.address + section.size)).collect();
    ordered.sort_unstable();
    if ordered.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(bytes.malformed("sections overlap"));
    }
    if sections.iter().filter(|section| section.kind == SectionKind::HandOff).count() != 1 {
        return Err(bytes.malformed("there is not exactly one section for the hand-off list"));
    }
    Ok(sections)
}

fn section<'a>(bytes: &Bytes<'a>, at: u64) -> Result<Section<'a>, Error> {
    let (offset, len) = (u64::from(bytes.u32(at)?), u64::from(bytes.u32(at + 4)?));
    let (address, size) = (bytes.u64(at + 8)?, bytes.u64(at + 16)?);
    let attributes = bytes.u32(at + 28)?;
    let kind = match bytes.u32(at + 24)? {
        0 => SectionKind::Code,
        1 => SectionKind::Variables,
        2 => SectionKind::HandOff,
        3 => SectionKind::Temporary,
        other => {
            return Err(Error::Unsupported(format!("TDX metadata has a section of type {other}; OVMF has 0 to 3")));
        }
    };
    if attributes & AUGMENT != 0 || attributes & !(EXTEND | AUGMENT) != 0 {
        return Err(Error::Unsupported(format!("TDX metadata has a section with attributes {attributes:#x}")));
    }
    let whole = address.is_multiple_of(PAGE) && size.is_multiple_of(PAGE) && (1..=MAX_MEMORY).contains(&size);
    if !whole || address.checked_add(size).is_none() {
        return Err(bytes.malformed(format!("a section of {size:#x} bytes at {address:#x} is not of whole pages")));
    }
    let data = bytes.slice(offset, len)?;
    let full = matches!(kind, SectionKind::Code | SectionKind::Variables);
    if (full && len != size) || (!full && len != 0) {
        return Err(bytes
            .malformed(format!("a section at {address:#x} has {size:#x} bytes in memory and {len:#x} in the image")));
    }
    let extended = attributes & EXTEND != 0;
    if extended && !full {
        return Err(Error::Unsupported("TDX metadata asks to measure memory that the image does not fill".into()));
    }
    Ok(Section { kind, address, size, data, extended })
}

/// MRTD of a TD that has these sections and nothing else.
pub(crate) fn mrtd(sections: &[Section<'_>], order: PageOrder) -> (Measurement, Vec<Step>) {
    let mut context = Context::new(&SHA384);
    let operation = |context: &mut Context, name: &[u8], address: u64| {
        let mut buffer = [0; 128];
        buffer[..name.len()].copy_from_slice(name);
        buffer[16..24].copy_from_slice(&address.to_le_bytes());
        context.update(&buffer);
    };
    let add = |context: &mut Context, address| operation(context, b"MEM.PAGE.ADD", address);
    let mut steps = Vec::new();
    for section in sections {
        let extend = |context: &mut Context, offset: u64| {
            let page = section.data.get(offset as usize..).unwrap_or_default().chunks(CHUNK as usize);
            for (n, chunk) in page.take((PAGE / CHUNK) as usize).enumerate() {
                operation(context, b"MR.EXTEND", section.address + offset + n as u64 * CHUNK);
                context.update(chunk);
            }
        };
        let offsets = || (0..section.size).step_by(PAGE as usize);
        for offset in offsets() {
            add(&mut context, section.address + offset);
            if section.extended && order == PageOrder::SinglePass {
                extend(&mut context, offset);
            }
        }
        if section.extended && order == PageOrder::TwoPass {
            offsets().for_each(|offset| extend(&mut context, offset));
        }
        let (name, what) = match section.kind {
            SectionKind::Code => ("code", "the firmware's code"),
            SectionKind::Variables => ("variables", "the firmware's variables"),
            SectionKind::HandOff => ("hand-off", "memory for the hand-off list"),
            SectionKind::Temporary => ("temporary", "memory for the firmware's use"),
        };
        let how = if section.extended { "addresses and contents" } else { "addresses alone" };
        let (address, size) = (Some(section.address), section.size);
        steps.push(Step { name: name.into(), address, size, meaning: format!("{what}: {how}") });
    }
    let mut digest = [0; 48];
    digest.copy_from_slice(context.finish().as_ref());
    (Measurement(digest), steps)
}
