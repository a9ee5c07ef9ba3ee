//! The bytes of a TDX quote (Intel TDX DCAP Quoting Library API, appendix 3). Every length must add up exactly: there is
//! no byte in a quote that belongs to nothing.

use std::ops::Range;

use super::pck::Pck;
use crate::x509::{self, Cert};

const HEADER_LEN: usize = 48;
/// TD report body of TDX 1.0; those of 1.5 start with the same bytes.
const BODY_LEN: usize = 584;
/// TD report body of TDX 1.5.
const BODY_15_LEN: usize = 648;
/// The same with what service TDs and partitions add.
const BODY_15_EX_LEN: usize = 885;
/// TDX.
const TEE_TYPE: u32 = 0x81;
/// ECDSA with P-256, the only kind of attestation key there is for TDX.
const KEY_TYPE: u16 = 2;
/// Intel's quoting enclaves.
const QE_VENDOR: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
/// Longest quote that is looked at; with three certificates they have about 5 KB.
const MAX_LEN: usize = 1 << 20;
/// The quoting enclave's report, an SGX report body.
const QE_REPORT_LEN: usize = 384;
const QE_AUTH_LEN: usize = 32;

/// A quote whose frame is sound: every length adds up, and nothing but zeros follows.
#[derive(Clone, Debug)]
pub(crate) struct Quote {
    /// 4 or 5.
    pub(crate) version: u16,
    /// The quote without padding.
    bytes: Vec<u8>,
    body: usize,
    body_len: usize,
}

/// Signature data of a quote, in place.
#[derive(Clone, Debug)]
pub(super) struct SignatureData<'a> {
    /// r || s over header and body.
    pub(super) signature: &'a [u8],
    /// x || y.
    pub(super) attestation_key: &'a [u8],
    /// The quoting enclave's report.
    pub(super) qe_report: &'a [u8],
    /// r || s over that report.
    pub(super) qe_signature: &'a [u8],
    /// What the report's hash covers besides the key.
    pub(super) qe_auth: &'a [u8],
    /// PEM of the PCK certificate and its chain; `None` for a kind that needs it from the collateral.
    pub(super) pck_chain: Option<&'a [u8]>,
    /// All that does not change from quote to quote: from the attestation key to the end.
    pub(super) constant: &'a [u8],
}

impl Quote {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let short = || format!("{} bytes are too few for a TDX quote", bytes.len());
        if bytes.len() > MAX_LEN {
            return Err(format!("{} bytes are too many for a TDX quote", bytes.len()));
        }
        let version = u16_at(bytes, 0).ok_or_else(short)?;
        let tee_type = u32_at(bytes, 4).ok_or_else(short)?;
        if tee_type != TEE_TYPE {
            return Err(format!("TEE type {tee_type:#x} is not TDX ({TEE_TYPE:#x})"));
        }
        let (body, body_len) = match version {
            4 => (HEADER_LEN, BODY_LEN),
            5 => {
                let kind = u16_at(bytes, HEADER_LEN).ok_or_else(short)?;
                let size = u32_at(bytes, HEADER_LEN + 2).ok_or_else(short)? as usize;
                let expected = match kind {
                    2 => BODY_LEN,
                    3 => BODY_15_LEN,
                    4 => BODY_15_EX_LEN,
                    _ => return Err(format!("body type {kind} is no TD report that this verifier knows")),
                };
                if size != expected {
                    return Err(format!("body type {kind} has {expected} bytes, not {size}"));
                }
                (HEADER_LEN + 6, size)
            }
            _ => return Err(format!("quote version {version} is neither 4 nor 5")),
        };
        let signature_len = u32_at(bytes, body + body_len).ok_or_else(short)? as usize;
        let end = (body + body_len + 4).checked_add(signature_len).filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(|| format!("the signature data of {signature_len} bytes is cut short"))?;
        // Some platforms pad quotes with zeros to a fixed size.
        if let Some(at) = bytes[end..].iter().position(|byte| *byte != 0) {
            return Err(format!("byte {} after the end of the quote is not zero", at + 1));
        }
        Ok(Self { version, bytes: bytes[..end].to_vec(), body, body_len })
    }

    /// Takes the signature data apart; every length must lead exactly to the next part or the end.
    pub(super) fn signature_data(&self) -> Result<SignatureData<'_>, String> {
        let key_type = u16::from_le_bytes([self.bytes[2], self.bytes[3]]);
        if key_type != KEY_TYPE {
            return Err(format!("attestation key type {key_type} is not ECDSA with P-256 ({KEY_TYPE})"));
        }
        if self.bytes[12..28] != QE_VENDOR {
            return Err("the quoting enclave is not Intel's, says the header".into());
        }
        let mut data = Reader(&self.bytes[self.body + self.body_len + 4..]);
        let signature = data.take(64)?;
        let constant = data.0;
        let attestation_key = data.take(64)?;
        let (kind, nested) = data.certification()?;
        if kind != 6 {
            return Err(format!(
                "certification data of type {kind} stands where the quoting enclave's report (6) must"
            ));
        }
        data.end()?;
        let mut nested = Reader(nested);
        let qe_report = nested.take(QE_REPORT_LEN)?;
        let qe_signature = nested.take(64)?;
        let auth_len = usize::from(nested.u16()?);
        if auth_len != QE_AUTH_LEN {
            return Err(format!("{auth_len} bytes of authentication data are not {QE_AUTH_LEN}"));
        }
        let qe_auth = nested.take(auth_len)?;
        let (kind, chain) = nested.certification()?;
        nested.end()?;
        let pck_chain = (kind == 5).then_some(chain);
        Ok(SignatureData { signature, attestation_key, qe_report, qe_signature, qe_auth, pck_chain, constant })
    }

    /// FMSPC and the name of the PCK certificate's issuer, by the quote's own word.
    pub(crate) fn platform(&self) -> Result<([u8; 6], String), String> {
        let data = self.signature_data()?;
        let pem = data.pck_chain.ok_or("the quote carries no PCK certificate")?;
        let chain = Cert::all(pem.strip_suffix(&[0]).unwrap_or(pem), 5)?;
        let pck = chain.first().ok_or("the quote's PCK chain is empty")?;
        let issuer = x509::common_name(pck.x509.tbs_certificate().issuer());
        Ok((Pck::of(pck)?.fmspc, issuer))
    }

    /// What the attestation key signed: header and body.
    pub(super) fn signed(&self) -> &[u8] {
        &self.bytes[..self.body + self.body_len]
    }

    /// Security versions of QE and PCE, where a header states them; other quoting enclaves leave zero.
    pub(super) fn header_svns(&self) -> (u16, u16) {
        let at = |range: Range<usize>| u16::from_le_bytes([self.bytes[range.start], self.bytes[range.start + 1]]);
        (at(8..10), at(10..12))
    }

    /// A field of the body. Every range used below lies within [`BODY_LEN`], which `parse` has made sure of.
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|n| self.bytes[self.body + at + n])
    }

    pub(crate) fn tee_tcb_svn(&self) -> [u8; 16] {
        self.field(0)
    }

    pub(crate) fn mrseam(&self) -> [u8; 48] {
        self.field(16)
    }

    pub(super) fn mrsignerseam(&self) -> [u8; 48] {
        self.field(64)
    }

    pub(super) fn seam_attributes(&self) -> [u8; 8] {
        self.field(112)
    }

    pub(crate) fn td_attributes(&self) -> u64 {
        u64::from_le_bytes(self.field(120))
    }

    pub(crate) fn xfam(&self) -> [u8; 8] {
        self.field(128)
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

    /// Security versions of the TDX module that runs now, which an update may have raised since launch. Bodies of TDX 1.5.
    pub(super) fn tee_tcb_svn2(&self) -> Option<[u8; 16]> {
        (self.body_len >= BODY_15_LEN).then(|| self.field(584))
    }

    /// MRSERVICETD, in bodies of TDX 1.5: the service TDs bound at creation.
    pub(crate) fn mrservicetd(&self) -> Option<[u8; 48]> {
        (self.body_len >= BODY_15_LEN).then(|| self.field(600))
    }

    /// The service TDs bound now, in extended bodies of TDX 1.5.
    pub(crate) fn current_service_td(&self) -> Option<[u8; 48]> {
        (self.body_len >= BODY_15_EX_LEN).then(|| self.field(BODY_15_EX_LEN - 56))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What is left of the signature data.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            return Err(format!("{len} bytes are announced where {} are left", self.0.len()));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16_at(self.take(2)?, 0).unwrap_or_default())
    }

    /// Certification data: type, length, content.
    fn certification(&mut self) -> Result<(u16, &'a [u8]), String> {
        let kind = self.u16()?;
        let len = u32_at(self.take(4)?, 0).unwrap_or_default() as usize;
        Ok((kind, self.take(len)?))
    }

    fn end(&self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes belong to nothing", self.0.len())) }
    }
}
