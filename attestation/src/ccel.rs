//! The event log that a TD's firmware leaves in the ACPI table CCEL, in TCG's format (TCG, "PC Client Platform Firmware Profile",
//! section 10; UEFI Specification, "Confidential Computing": measurement register 0 is MRTD, 1 to 4 are RTMR0 to 3).
//!
//! Linux shows it as `/sys/firmware/acpi/tables/data/CCEL`.

use crate::{Error, Event, EventLog};

const WHAT: &str = "CCEL event log";
const SHA384: u16 = 0x0c;
const NO_ACTION: u32 = 3;
const SPEC_ID: &[u8] = b"Spec ID Event03\0";
const MAX_LOG: usize = 16 << 20;

/// Reads a log. Events of kinds that say nothing of a register are left out; zeros or 0xff behind the last event are padding.
///
/// # Errors
/// The log is cut, or is of another format or with other digests than SHA-384 alone.
pub fn parse(log: &[u8]) -> Result<EventLog, Error> {
    let bytes = Bytes(log);
    if log.len() > MAX_LOG {
        return Err(malformed("more than 16 MiB"));
    }
    // The first event has a header of its own: register, kind, SHA-1, length.
    let len = bytes.u32(28)? as usize;
    let header = bytes.slice(32, len)?;
    if bytes.u32(4)? != NO_ACTION || !header.starts_with(SPEC_ID) {
        return Err(malformed("it does not begin with \"Spec ID Event03\""));
    }
    let header = Bytes(header);
    if header.u32(24)? != 1 || header.u16(28)? != SHA384 || header.u16(30)? != 48 {
        return Err(malformed("it has other digests than SHA-384 alone, which is not supported"));
    }
    let (mut at, mut events) = (32 + len, Vec::new());
    while at + 8 <= log.len() {
        let (register, kind) = (bytes.u32(at)?, bytes.u32(at + 4)?);
        if register == u32::MAX || (register, kind) == (0, 0) {
            break;
        }
        if bytes.u32(at + 8)? != 1 || bytes.u16(at + 12)? != SHA384 {
            return Err(malformed(format!("the event at {at:#x} has not exactly one digest, of SHA-384")));
        }
        let digest = bytes.array(at + 14)?;
        let len = bytes.u32(at + 62)? as usize;
        let data = bytes.slice(at + 66, len)?.to_vec();
        at += 66 + len;
        if kind == NO_ACTION {
            continue;
        }
        let register = register.checked_sub(1).filter(|register| *register < 4);
        let Some(register) = register.and_then(|register| u8::try_from(register).ok()) else {
            return Err(malformed("an event is of none of the registers 1 to 4"));
        };
        events.push(Event { register, kind: kind_name(kind), digest, data });
    }
    Ok(EventLog(events))
}

fn malformed(detail: impl Into<String>) -> Error {
    Error::Field { what: WHAT, detail: detail.into() }
}

/// Bytes read at offsets that come from the log itself.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn slice(&self, at: usize, len: usize) -> Result<&'a [u8], Error> {
        let end = at.checked_add(len);
        end.and_then(|end| self.0.get(at..end))
            .ok_or_else(|| malformed(format!("it is cut: {len} bytes are needed at {at:#x}")))
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(at, N)?);
        Ok(out)
    }

    fn u16(&self, at: usize) -> Result<u16, Error> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, Error> {
        self.array(at).map(u32::from_le_bytes)
    }
}

/// TCG's name of a kind of event.
pub fn kind_name(kind: u32) -> String {
    let name = match kind {
        0x4 => "EV_SEPARATOR",
        0x5 => "EV_ACTION",
        0x6 => "EV_EVENT_TAG",
        0x8 => "EV_S_CRTM_VERSION",
        0xa => "EV_PLATFORM_CONFIG_FLAGS",
        0xd => "EV_IPL",
        0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
        0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
        0x8000_0003 => "EV_EFI_BOOT_SERVICES_APPLICATION",
        0x8000_0004 => "EV_EFI_BOOT_SERVICES_DRIVER",
        0x8000_0006 => "EV_EFI_GPT_EVENT",
        0x8000_0007 => "EV_EFI_ACTION",
        0x8000_0008 => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
        0x8000_000a => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        0x8000_000b => "EV_EFI_HANDOFF_TABLES2",
        0x8000_000c => "EV_EFI_VARIABLE_BOOT2",
        0x8000_00e0 => "EV_EFI_VARIABLE_AUTHORITY",
        other => return format!("{other:#x}"),
    };
    name.into()
}

/// Whether the digest of such an event is that of its data, by TCG's definition of its kind.
pub fn measures_its_data(kind: &str) -> bool {
    ["EV_SEPARATOR", "EV_ACTION", "EV_EFI_ACTION", "EV_EFI_VARIABLE_DRIVER_CONFIG"].contains(&kind)
}
