//! The bytes of a TDX quote, up to its signature data.

/// TD report body of TDX 1.0; those of 1.5 start with the same bytes.
const BODY_LEN: usize = 584;
const HEADER_LEN: usize = 48;
/// TDX.
const TEE_TYPE: u32 = 0x81;
/// Offset of TDATTRIBUTES in the body.
const TD_ATTRIBUTES: usize = 120;

/// A quote whose frame is sound: every length adds up, and nothing but zeros follows.
#[derive(Clone, Debug)]
pub(crate) struct Quote {
    /// 4 or 5.
    pub(crate) version: u16,
    /// The quote without padding.
    pub(crate) bytes: Vec<u8>,
    body: usize,
    body_len: usize,
}

impl Quote {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let u16_at = |at: usize| bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
        let u32_at = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let short = || format!("{} bytes are too few for a TDX quote", bytes.len());
        let version = u16_at(0).ok_or_else(short)?;
        let tee_type = u32_at(4).ok_or_else(short)?;
        if tee_type != TEE_TYPE {
            return Err(format!("TEE type {tee_type:#x} is not TDX ({TEE_TYPE:#x})"));
        }
        let (body, body_len) = match version {
            4 => (HEADER_LEN, BODY_LEN),
            5 => {
                let kind = u16_at(HEADER_LEN).ok_or_else(short)?;
                let size = u32_at(HEADER_LEN + 2).ok_or_else(short)? as usize;
                let expected = match kind {
                    2 => BODY_LEN,
                    // TDX 1.5, and the same with what service TDs and partitions add.
                    3 => 648,
                    4 => 885,
                    _ => return Err(format!("body type {kind} is no TD report that this verifier knows")),
                };
                if size != expected {
                    return Err(format!("body type {kind} has {expected} bytes, not {size}"));
                }
                (HEADER_LEN + 6, size)
            }
            _ => return Err(format!("quote version {version} is neither 4 nor 5")),
        };
        let signature_len = u32_at(body + body_len).ok_or_else(short)? as usize;
        let end = (body + body_len + 4).checked_add(signature_len).filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(|| format!("the signature data of {signature_len} bytes is cut short"))?;
        // Some platforms pad quotes with zeros to a fixed size.
        if let Some(at) = bytes[end..].iter().position(|byte| *byte != 0) {
            return Err(format!("byte {} after the end of the quote is not zero", at + 1));
        }
        Ok(Self { version, bytes: bytes[..end].to_vec(), body, body_len })
    }

    /// What the attestation key signed: header and body.
    pub(crate) fn signed(&self) -> &[u8] {
        &self.bytes[..self.body + self.body_len]
    }

    /// Signature and attestation key, r || s and x || y.
    pub(crate) fn signature(&self) -> Option<(&[u8], &[u8])> {
        let at = self.body + self.body_len + 4;
        Some((self.bytes.get(at..at + 64)?, self.bytes.get(at + 64..at + 128)?))
    }

    /// The quote with other TD attributes.
    pub(crate) fn with_td_attributes(&self, attributes: u64) -> Self {
        let mut quote = self.clone();
        let at = self.body + TD_ATTRIBUTES;
        quote.bytes[at..at + 8].copy_from_slice(&attributes.to_le_bytes());
        quote
    }

    /// A field of the body. Every range used below lies within [`BODY_LEN`], which `parse` has made sure of.
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|n| self.bytes[self.body + at + n])
    }

    pub(crate) fn td_attributes(&self) -> u64 {
        u64::from_le_bytes(self.field(TD_ATTRIBUTES))
    }

    pub(crate) fn xfam(&self) -> [u8; 8] {
        self.field(128)
    }

    pub(crate) fn tee_tcb_svn(&self) -> [u8; 16] {
        self.field(0)
    }

    pub(crate) fn mrseam(&self) -> [u8; 48] {
        self.field(16)
    }

    pub(crate) fn mrtd(&self) -> [u8; 48] {
        self.field(136)
    }

    pub(crate) fn mrconfigid(&self) -> [u8; 48] {
        self.field(184)
    }

    pub(crate) fn mrowner(&self) -> [u8; 48] {
        self.field(232)
    }

    pub(crate) fn mrownerconfig(&self) -> [u8; 48] {
        self.field(280)
    }

    pub(crate) fn rtmr(&self, n: usize) -> [u8; 48] {
        self.field(328 + 48 * n.min(3))
    }

    pub(crate) fn report_data(&self) -> [u8; 64] {
        self.field(520)
    }

    /// MRSERVICETD, in bodies of TDX 1.5.
    pub(crate) fn mrservicetd(&self) -> Option<[u8; 48]> {
        (self.body_len >= 648).then(|| self.field(600))
    }
}
