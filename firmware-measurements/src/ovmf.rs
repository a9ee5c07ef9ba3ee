//! OVMF's table of GUIDed entries, which tells a loader where the parts are that a CPU measures (edk2,
//! `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`).
//!
//! The table ends 32 bytes before the image does and is read backwards: each entry is data, its length with this header
//! (u16), and its GUID.

use crate::Error;
use crate::bytes::Bytes;
use crate::guid::Guid;

const FOOTER: Guid = Guid::new(0x96b5_82de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
/// Where vCPUs but the first start.
const SEV_ES_RESET: Guid = Guid::new(0x00f7_71de, 0x1a7e, 0x4fcb, [0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e]);
const SEV_HASHES: Guid = Guid::new(0x7255_371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]);
const SEV_METADATA: Guid = Guid::new(0xdc88_6566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]);
const TDX_METADATA: Guid = Guid::new(0xe47a_6535, 0x984a, 0x4798, [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2]);
const SVSM_INFO: Guid = Guid::new(0xa789_a612, 0x0597, 0x4c4b, [0xa4, 0x9f, 0xcb, 0xb1, 0xfe, 0x9d, 0x1d, 0xdd]);

const HEADER: u64 = 18;
const AFTER_TABLE: u64 = 32;
/// Largest image that is read: far more than any OVMF has.
const MAX_IMAGE: u64 = 64 << 20;

/// A firmware image with its table.
#[derive(Debug)]
pub(crate) struct Ovmf<'a> {
    image: &'a [u8],
    entries: Vec<(Guid, &'a [u8])>,
}

impl<'a> Ovmf<'a> {
    pub fn parse(image: &'a [u8]) -> Result<Self, Error> {
        let bytes = Bytes::new("firmware image", image);
        if bytes.len() == 0 || bytes.len() > MAX_IMAGE || !bytes.len().is_multiple_of(4096) {
            let detail = format!("{} bytes are not a whole number of 4,096-byte pages up to 64 MiB", bytes.len());
            return Err(bytes.malformed(detail));
        }
        let header = bytes.len() - AFTER_TABLE - HEADER;
        if bytes.array(header + 2)? != FOOTER.0 {
            return Err(
                bytes.malformed("there is no OVMF table of GUIDs at its end; give OVMF.fd, with or without variables")
            );
        }
        let total = u64::from(bytes.u16(header)?);
        let rest = total.checked_sub(HEADER).filter(|rest| *rest <= header);
        let mut left = rest.ok_or_else(|| bytes.malformed("the table of GUIDs is longer than the image"))?;
        let mut end = header;
        let mut entries = Vec::new();
        while left >= HEADER {
            let guid = Guid(bytes.array(end - 16)?);
            let len = u64::from(bytes.u16(end - HEADER)?);
            if len < HEADER || len > left {
                return Err(bytes.malformed(format!("entry {guid} of the table of GUIDs says it has {len} bytes")));
            }
            entries.push((guid, bytes.slice(end - len, len - HEADER)?));
            (end, left) = (end - len, left - len);
        }
        Ok(Self { image, entries })
    }

    pub fn image(&self) -> &'a [u8] {
        self.image
    }

    /// The first u32 of an entry, which may be absent.
    fn number(&self, guid: Guid) -> Result<Option<u32>, Error> {
        let entry = self.entries.iter().find(|(found, _)| *found == guid);
        entry.map(|(_, data)| Bytes::new("entry of the firmware's table of GUIDs", data).u32(0)).transpose()
    }

    fn offset_of(&self, guid: Guid, what: &'static str) -> Result<Option<u64>, Error> {
        let Some(distance) = self.number(guid)? else { return Ok(None) };
        let start = (self.image.len() as u64).checked_sub(u64::from(distance));
        start.map(Some).ok_or_else(|| Error::malformed(what, "it lies before the image"))
    }

    /// Guest address at which vCPUs but the first start.
    pub fn sev_reset_address(&self) -> Result<Option<u32>, Error> {
        self.number(SEV_ES_RESET)
    }

    /// Guest address of the table of kernel hashes.
    pub fn sev_hashes_address(&self) -> Result<Option<u32>, Error> {
        Ok(self.number(SEV_HASHES)?.filter(|address| *address != 0))
    }

    /// Offset in the image of SEV's metadata.
    pub fn sev_metadata(&self) -> Result<Option<u64>, Error> {
        self.offset_of(SEV_METADATA, "SEV metadata")
    }

    /// Offset in the image of TDX's metadata.
    pub fn tdx_metadata(&self) -> Result<Option<u64>, Error> {
        self.offset_of(TDX_METADATA, "TDX metadata")
    }

    /// Offset in the image at which an SVSM starts.
    pub fn svsm_entry(&self) -> Result<Option<u32>, Error> {
        self.number(SVSM_INFO)
    }
}
