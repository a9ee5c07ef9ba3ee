//! The Authenticode digest of an EFI application: SHA-384 over everything but the checksum, the entry for the certificate table
//! and the table itself (Microsoft, "Windows Authenticode Portable Executable Signature Format"; measured by edk2's
//! `DxeTpm2MeasureBootLib`).

use aws_lc_rs::digest::{Context, SHA384};
use cocoon_attestation::Measurement;

use crate::Error;
use crate::bytes::Bytes;

const WHAT: &str = "kernel (as an EFI application)";
const SECURITY_DIRECTORY: u64 = 4;
const MAX_SECTIONS: u16 = 96;

/// The Authenticode digest of an image.
///
/// # Errors
/// The bytes are no PE image, or its headers point outside it.
pub fn authenticode_sha384(image: &[u8]) -> Result<Measurement, Error> {
    let bytes = Bytes::new(WHAT, image);
    if bytes.slice(0, 2)? != b"MZ" {
        return Err(bytes.malformed("it does not start with MZ: build the kernel with CONFIG_EFI_STUB"));
    }
    let coff = u64::from(bytes.u32(0x3c)?);
    if bytes.slice(coff, 4)? != b"PE\0\0" {
        return Err(bytes.malformed("there is no PE header"));
    }
    let (sections, optional_len) = (bytes.u16(coff + 6)?, u64::from(bytes.u16(coff + 20)?));
    let optional = coff + 24;
    let directories = match bytes.u16(optional)? {
        0x10b => optional + 96,
        0x20b => optional + 112,
        magic => return Err(bytes.malformed(format!("magic {magic:#x} is neither PE32 nor PE32+"))),
    };
    if sections > MAX_SECTIONS {
        return Err(bytes.malformed(format!("{sections} sections")));
    }
    if u64::from(bytes.u32(directories - 4)?) <= SECURITY_DIRECTORY {
        return Err(Error::Unsupported("a PE image without an entry for certificates".into()));
    }
    let checksum = optional + 64;
    let security = directories + 8 * SECURITY_DIRECTORY;
    let headers = u64::from(bytes.u32(optional + 60)?);
    let between = |from: u64, to: u64| match to.checked_sub(from) {
        Some(len) => bytes.slice(from, len),
        None => Err(bytes.malformed("its headers end before they should")),
    };
    let mut context = Context::new(&SHA384);
    context.update(between(0, checksum)?);
    context.update(between(checksum + 4, security)?);
    context.update(between(security + 8, headers)?);

    let table = optional + optional_len;
    let ranges = (0..u64::from(sections)).map(|n| {
        let at = table + 40 * n;
        Ok((u64::from(bytes.u32(at + 20)?), u64::from(bytes.u32(at + 16)?)))
    });
    let mut ranges: Vec<_> = ranges.collect::<Result<_, Error>>()?;
    ranges.retain(|(_, len)| *len > 0);
    ranges.sort_unstable();
    let mut hashed = headers;
    for (start, len) in ranges {
        context.update(bytes.slice(start, len)?);
        hashed += len;
    }
    // What lies behind the sections is hashed too, but for certificates, which come last.
    let certificates = u64::from(bytes.u32(security + 4)?);
    let rest = bytes.len().checked_sub(hashed).and_then(|rest| rest.checked_sub(certificates));
    let rest = rest.ok_or_else(|| bytes.malformed("its sections and certificates are more than its bytes"))?;
    context.update(bytes.slice(hashed, rest)?);
    let mut digest = [0; 48];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(Measurement(digest))
}
