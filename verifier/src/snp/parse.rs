//! The bytes of an SNP report (56860, table "ATTESTATION_REPORT").

use crate::roots::Product;

/// Length of a report.
const LEN: usize = 1184;
/// What the key signs.
const SIGNED_LEN: usize = 0x2a0;
/// Each number of the signature, little-endian; the upper 24 bytes are zero for P-384.
const NUMBER_LEN: usize = 72;

/// Security versions, by component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tcb {
    pub(crate) fmc: Option<u8>,
    pub(crate) bootloader: u8,
    pub(crate) tee: u8,
    pub(crate) snp: u8,
    pub(crate) microcode: u8,
}

impl Tcb {
    fn from_bytes(b: [u8; 8], product: Product) -> Self {
        match product {
            Product::Turin => Self { fmc: Some(b[0]), bootloader: b[1], tee: b[2], snp: b[3], microcode: b[7] },
            _ => Self { fmc: None, bootloader: b[0], tee: b[1], snp: b[6], microcode: b[7] },
        }
    }
}

/// A report whose layout is sound.
#[derive(Clone, Debug)]
pub(crate) struct Report(Box<[u8; LEN]>);

impl Report {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes: [u8; LEN] =
            bytes.try_into().map_err(|_| format!("a report has {LEN} bytes, not {}", bytes.len()))?;
        let report = Self(Box::new(bytes));
        let version = report.version();
        if !(2..=5).contains(&version) {
            return Err(format!("report version {version} is not among 2 to 5"));
        }
        // Where each version must be zero. Version 3 names the processor, version 5 adds two mitigation vectors.
        let cpuid_end = if version >= 3 { 0x18b } else { 0x188 };
        let tail = if version >= 5 { 0x208 } else { 0x1f8 };
        let reserved = [(0x4c, 0x50), (cpuid_end, 0x1a0), (0x1eb, 0x1ec), (0x1ef, 0x1f0), (tail, SIGNED_LEN)];
        let number = |n: usize| (SIGNED_LEN + NUMBER_LEN * n + 48, SIGNED_LEN + NUMBER_LEN * (n + 1));
        let unsigned = [number(0), number(1), (SIGNED_LEN + 2 * NUMBER_LEN, LEN)];
        for (from, to) in reserved.into_iter().chain(unsigned) {
            if report.0[from..to].iter().any(|byte| *byte != 0) {
                return Err(format!("reserved bytes {from:#x} to {to:#x} are not zero"));
            }
        }
        if report.flags() >> 5 != 0 {
            return Err("reserved bits beside the signing key's kind are set".into());
        }
        Ok(report)
    }

    /// A field; every offset below is a constant within the report.
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|n| self.0[at + n])
    }

    pub(crate) fn signed(&self) -> &[u8] {
        &self.0[..SIGNED_LEN]
    }

    /// r || s, big-endian.
    pub(crate) fn signature(&self) -> [u8; 96] {
        let (r, s): ([u8; 48], [u8; 48]) = (self.field(SIGNED_LEN), self.field(SIGNED_LEN + NUMBER_LEN));
        std::array::from_fn(|n| if n < 48 { r[47 - n] } else { s[95 - n] })
    }

    pub(crate) fn version(&self) -> u32 {
        u32::from_le_bytes(self.field(0))
    }

    pub(crate) fn guest_svn(&self) -> u32 {
        u32::from_le_bytes(self.field(4))
    }

    pub(crate) fn policy(&self) -> u64 {
        u64::from_le_bytes(self.field(8))
    }

    pub(crate) fn family_id(&self) -> [u8; 16] {
        self.field(0x10)
    }

    pub(crate) fn image_id(&self) -> [u8; 16] {
        self.field(0x20)
    }

    pub(crate) fn vmpl(&self) -> u32 {
        u32::from_le_bytes(self.field(0x30))
    }

    pub(crate) fn signature_algorithm(&self) -> u32 {
        u32::from_le_bytes(self.field(0x34))
    }

    pub(crate) fn platform_info(&self) -> u64 {
        u64::from_le_bytes(self.field(0x40))
    }

    fn flags(&self) -> u32 {
        u32::from_le_bytes(self.field(0x48))
    }

    pub(crate) fn author_key_enabled(&self) -> bool {
        self.flags() & 1 != 0
    }

    /// 0 VCEK, 1 VLEK, 7 none.
    pub(crate) fn signing_key(&self) -> u32 {
        self.flags() >> 2 & 7
    }

    pub(crate) fn chip_id_masked(&self) -> bool {
        self.flags() & 2 != 0 || self.chip_id() == [0; 64]
    }

    pub(crate) fn report_data(&self) -> [u8; 64] {
        self.field(0x50)
    }

    pub(crate) fn measurement(&self) -> [u8; 48] {
        self.field(0x90)
    }

    pub(crate) fn host_data(&self) -> [u8; 32] {
        self.field(0xc0)
    }

    pub(crate) fn id_key_digest(&self) -> [u8; 48] {
        self.field(0xe0)
    }

    pub(crate) fn author_key_digest(&self) -> [u8; 48] {
        self.field(0x110)
    }

    pub(crate) fn report_id(&self) -> [u8; 32] {
        self.field(0x140)
    }

    /// Id of the migration agent's report; all ones if the guest has none.
    pub(crate) fn report_id_ma(&self) -> [u8; 32] {
        self.field(0x160)
    }

    /// Family and model, from version 3 on.
    pub(crate) fn cpuid(&self) -> Option<(u8, u8)> {
        (self.version() >= 3).then(|| (self.0[0x188], self.0[0x189]))
    }

    pub(crate) fn chip_id(&self) -> [u8; 64] {
        self.field(0x1a0)
    }

    pub(crate) fn current_tcb(&self) -> [u8; 8] {
        self.field(0x38)
    }

    pub(crate) fn committed_tcb(&self) -> [u8; 8] {
        self.field(0x1e0)
    }

    pub(crate) fn reported_tcb(&self, product: Product) -> Tcb {
        Tcb::from_bytes(self.field(0x180), product)
    }

    pub(crate) fn launch_tcb(&self, product: Product) -> Tcb {
        Tcb::from_bytes(self.field(0x1f0), product)
    }

    /// Mitigations at launch and now, a bit for each, from version 5 on.
    pub(crate) fn mitigations(&self) -> Option<[u64; 2]> {
        let read = |at| u64::from_le_bytes(self.field(at));
        (self.version() >= 5).then(|| [read(0x1f8), read(0x200)])
    }

    /// Build, minor, major of the firmware that runs.
    pub(crate) fn current_firmware(&self) -> [u8; 3] {
        self.field(0x1e8)
    }

    /// Build, minor, major of the firmware that cannot be gone back behind.
    pub(crate) fn committed_firmware(&self) -> [u8; 3] {
        self.field(0x1ec)
    }
}
