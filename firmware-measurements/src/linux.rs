//! A Linux kernel as QEMU loads it directly: its setup header, and what QEMU 9 and older write into it before the firmware
//! measures it (Linux, `Documentation/arch/x86/boot.rst`; QEMU, `hw/i386/x86-common.c`, `x86_load_linux`).

use crate::Error;
use crate::bytes::Bytes;
use crate::hob::below_4g;

const WHAT: &str = "kernel (bzImage)";
/// The first kernel whose EFI stub measures command line and initial ram disk by the CC protocol of a TD.
const MEASURES: (u32, u32) = (6, 9);
/// The boot protocol that has `xloadflags`.
const PROTOCOL: u16 = 0x20c;
const CAN_BE_LOADED_ABOVE_4G: u16 = 2;
/// QEMU keeps this much below 4 GiB for ACPI tables.
const ACPI_DATA: u64 = 0x28000;
const CMDLINE_ADDRESS: u32 = 0x20000;
const REAL_ADDRESS: u32 = 0x10000;

/// Checks that a kernel is a bzImage that measures what it is given when it runs in a TD.
///
/// # Errors
/// It is another kind of file, or too old.
pub fn check(kernel: &[u8]) -> Result<(), Error> {
    let bytes = Bytes::new(WHAT, kernel);
    if bytes.slice(0x202, 4)? != b"HdrS" {
        return Err(Error::Unsupported(
            "a kernel that is no bzImage; unified kernel images are measured by their stub, not as here".into(),
        ));
    }
    bytes.slice(0x200, 0x68)?;
    let protocol = bytes.u16(0x206)?;
    if protocol < PROTOCOL || bytes.slice(0x211, 1)?[0] & 1 == 0 {
        return Err(Error::Unsupported(format!(
            "a kernel of boot protocol {protocol:#x}, or loaded low; {PROTOCOL:#x} is the least"
        )));
    }
    let (text, version) = version(&bytes)?;
    if version < MEASURES {
        return Err(Error::Unsupported(format!(
            "Linux {text}: before 6.9 the EFI stub measures neither command line nor initial ram disk in a TD, so RTMR2 would prove nothing"
        )));
    }
    Ok(())
}

/// The version that the header's text begins with.
fn version(bytes: &Bytes<'_>) -> Result<(String, (u32, u32)), Error> {
    let at = 0x200 + u64::from(bytes.u16(0x20e)?);
    let text: String =
        bytes.slice(at, 64)?.iter().take_while(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect();
    let mut numbers = text.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => Ok((text, (major, minor))),
        _ => Err(bytes.malformed("its header does not say which version of Linux it is")),
    }
}

/// The kernel with the header as QEMU 9 and older leave it, for an initial ram disk and a guest of so many bytes.
///
/// # Errors
/// As for [`check`], or the initial ram disk does not fit.
pub fn patched(kernel: &[u8], initrd_size: u64, memory: u64) -> Result<Vec<u8>, Error> {
    check(kernel)?;
    let bytes = Bytes::new(WHAT, kernel);
    let mut out = kernel.to_vec();
    out[0x210] = 0xb0; // type_of_loader: QEMU
    out[0x211] |= 0x80; // loadflags: the heap can be used
    out[0x224..0x228].copy_from_slice(&(CMDLINE_ADDRESS - REAL_ADDRESS - 0x200).to_le_bytes());
    out[0x228..0x22c].copy_from_slice(&CMDLINE_ADDRESS.to_le_bytes());
    if initrd_size > 0 {
        let limit = match bytes.u16(0x236)? & CAN_BE_LOADED_ABOVE_4G {
            0 => u64::from(bytes.u32(0x22c)?),
            _ => u64::from(u32::MAX),
        };
        let available = below_4g(memory).saturating_sub(ACPI_DATA);
        let limit = limit.min(available.saturating_sub(1));
        let address = limit.checked_sub(initrd_size).map(|address| address & !0xfff);
        let place = address.and_then(|address| u32::try_from(address).ok()).zip(u32::try_from(initrd_size).ok());
        let Some((address, size)) = place.filter(|(address, _)| *address > 0) else {
            return Err(Error::Contradiction("the initial ram disk does not fit into the guest's memory".into()));
        };
        out[0x218..0x21c].copy_from_slice(&address.to_le_bytes());
        out[0x21c..0x220].copy_from_slice(&size.to_le_bytes());
    }
    Ok(out)
}
