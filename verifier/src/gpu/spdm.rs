//! A GPU's attestation report: the SPDM 1.1 request GET_MEASUREMENTS and its signed response MEASUREMENTS (DMTF DSP0274 sections
//! 10.11.1 and 10.11.2), with NVIDIA's opaque data. Every length must add up; nothing is left over.

use std::collections::BTreeMap;

const REQUEST_LEN: usize = 37;
/// SPDM 1.1, GET_MEASUREMENTS, signature asked for, all measurements.
const REQUEST: [u8; 4] = [0x11, 0xe0, 0x01, 0xff];
/// SPDM 1.1, MEASUREMENTS.
const RESPONSE: [u8; 2] = [0x11, 0x60];
/// ECDSA with P-384: r || s.
const SIGNATURE_LEN: usize = 96;
/// Longest report that is looked at; real ones have about 4 KB.
const MAX_LEN: usize = 64 * 1024;
/// DMTF's measurement format.
const DMTF: u8 = 1;

/// Fields of NVIDIA's opaque data.
mod field {
    pub const DRIVER_VERSION: u16 = 3;
    pub const VBIOS_VERSION: u16 = 6;
    pub const NVDEC0_STATUS: u16 = 11;
    pub const CHIP_SKU: u16 = 15;
    pub const PROJECT: u16 = 17;
    pub const PROJECT_SKU: u16 = 18;
    pub const FWID: u16 = 20;
    pub const SWITCH_POSITION: u16 = 24;
    pub const SWITCH_LOCK: u16 = 25;
    pub const FEATURE: u16 = 36;
}

/// A report whose frame is sound.
#[derive(Clone, Debug)]
pub(super) struct GpuReport<'a> {
    bytes: &'a [u8],
    /// Digests by block index, from 1 on.
    measurements: [Option<&'a [u8]>; 256],
    opaque: BTreeMap<u16, &'a [u8]>,
}

impl<'a> GpuReport<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() > MAX_LEN {
            return Err(format!("{} bytes are too many for a GPU report", bytes.len()));
        }
        let mut reader = Reader(bytes);
        let request = reader.take(REQUEST_LEN, "the SPDM request")?;
        if request[..4] != REQUEST {
            return Err(format!(
                "it begins with {}, not with a request for all measurements",
                hex::encode(&request[..4])
            ));
        }
        let head = reader.take(8, "the SPDM response")?;
        if head[..2] != RESPONSE {
            return Err(format!("the response begins with {}, not as measurements do", hex::encode(&head[..2])));
        }
        let blocks = head[4];
        let record_len = u32::from_le_bytes([head[5], head[6], head[7], 0]) as usize;
        let measurements = blocks_of(reader.take(record_len, "the measurement record")?, blocks)?;
        reader.take(32, "the responder's nonce")?;
        let opaque_len = usize::from(reader.u16("the length of the opaque data")?);
        let opaque = fields_of(reader.take(opaque_len, "the opaque data")?)?;
        reader.take(SIGNATURE_LEN, "the signature")?;
        if !reader.0.is_empty() {
            return Err(format!("{} bytes follow the signature", reader.0.len()));
        }
        Ok(Self { bytes, measurements, opaque })
    }

    /// What the GPU signed: request and response without the signature.
    pub(super) fn signed(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - SIGNATURE_LEN]
    }

    /// r || s.
    pub(super) fn signature(&self) -> &[u8] {
        &self.bytes[self.bytes.len() - SIGNATURE_LEN..]
    }

    /// The nonce that was asked with.
    pub(super) fn nonce(&self) -> [u8; 32] {
        std::array::from_fn(|n| self.bytes[4 + n])
    }

    pub(super) fn measurement(&self, block: u8) -> Option<&[u8]> {
        self.measurements[usize::from(block)]
    }

    /// Text fields end with a zero byte, or several.
    fn text(&self, field: u16) -> Option<String> {
        let value = self.opaque.get(&field)?;
        let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let text = std::str::from_utf8(&value[..end]).ok()?;
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
    }

    pub(super) fn driver_version(&self) -> Option<String> {
        self.text(field::DRIVER_VERSION)
    }

    /// As NVIDIA writes it, such as `96.00.5E.00.01`: four bytes from the last to the first, then the fifth.
    pub(super) fn vbios_version(&self) -> Option<String> {
        let value = self.opaque.get(&field::VBIOS_VERSION)?;
        let [a, b, c, d, e, ..] = value[..] else { return None };
        Some(format!("{d:02X}.{c:02X}.{b:02X}.{a:02X}.{e:02X}"))
    }

    /// Project, its SKU and the chip's: what the name of a VBIOS RIM is made of.
    pub(super) fn board(&self) -> Option<String> {
        let parts = [field::PROJECT, field::PROJECT_SKU, field::CHIP_SKU].map(|field| self.text(field));
        let [Some(project), Some(sku), Some(chip)] = parts else { return None };
        Some(format!("{project}_{sku}_{chip}").to_uppercase())
    }

    /// Whether the first video decoder is switched off, and with it its measurement.
    pub(super) fn nvdec0_disabled(&self) -> bool {
        self.opaque.get(&field::NVDEC0_STATUS).is_some_and(|status| status[..] == [0x55])
    }

    /// Digest of the firmware that holds the signing key, where the driver reports it.
    pub(super) fn fwid(&self) -> Option<&[u8]> {
        self.opaque.get(&field::FWID).copied()
    }

    /// How the GPU is used: 0 one alone (SPT), 1 several for one guest (MPT), 2 with protected PCIe (PPCIE).
    pub(super) fn feature(&self) -> Option<&[u8]> {
        self.opaque.get(&field::FEATURE).copied()
    }

    /// Whether the opaque data has what only NVSwitches report.
    pub(super) fn is_switch(&self) -> bool {
        [field::SWITCH_POSITION, field::SWITCH_LOCK].iter().any(|field| self.opaque.contains_key(field))
    }
}

fn blocks_of(record: &[u8], count: u8) -> Result<[Option<&[u8]>; 256], String> {
    let mut blocks = [None; 256];
    let mut found = 0;
    let mut reader = Reader(record);
    while !reader.0.is_empty() {
        let head = reader.take(4, "a measurement block")?;
        let (index, format) = (head[0], head[1]);
        let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let mut block = Reader(reader.take(len, "a measurement block")?);
        if format != DMTF {
            return Err(format!("measurement block {index} has format {format}, not DMTF's ({DMTF})"));
        }
        block.take(1, "a measurement's type")?;
        let len = usize::from(block.u16("a measurement's length")?);
        let value = block.take(len, "a measurement")?;
        if !block.0.is_empty() || index == 0 {
            return Err(format!("measurement block {index} is not well formed"));
        }
        if blocks[usize::from(index)].replace(value).is_some() {
            return Err(format!("measurement block {index} is there twice"));
        }
        found += 1;
    }
    if found != count {
        return Err(format!("{count} measurement blocks are announced, {found} are there"));
    }
    Ok(blocks)
}

fn fields_of(opaque: &[u8]) -> Result<BTreeMap<u16, &[u8]>, String> {
    let mut fields = BTreeMap::new();
    let mut reader = Reader(opaque);
    while !reader.0.is_empty() {
        let kind = reader.u16("an opaque field")?;
        let len = usize::from(reader.u16("an opaque field")?);
        let value = reader.take(len, "an opaque field")?;
        if fields.insert(kind, value).is_some() {
            return Err(format!("opaque field {kind} is there twice"));
        }
    }
    Ok(fields)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            return Err(format!("{what} is cut short: {len} bytes where {} are left", self.0.len()));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self, what: &str) -> Result<u16, String> {
        let bytes = self.take(2, what)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
}
