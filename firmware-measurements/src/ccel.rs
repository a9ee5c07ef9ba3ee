//! The event log that a TD's firmware leaves in the ACPI table CCEL, in TCG's format (TCG, "PC Client Platform Firmware Profile",
//! section 10; UEFI Specification, "Confidential Computing": measurement register 0 is MRTD, 1 to 4 are RTMR0 to 3).
//!
//! Linux shows it as `/sys/firmware/acpi/tables/data/CCEL`.

use cocoon_attestation::{Event, EventLog};

use crate::Error;
use crate::bytes::Bytes;

const WHAT: &str = "CCEL event log";
const SHA384: u16 = 0x0c;
const NO_ACTION: u32 = 3;
const SPEC_ID: &[u8] = b"Spec ID Event03\0";
const MAX_LOG: u64 = 16 << 20;

/// Reads a log. Events of kinds that say nothing of a register are left out; zeros or 0xff behind the last event are padding.
///
/// # Errors
/// The log is cut, or is of another format or with other digests than SHA-384 alone.
pub fn parse(log: &[u8]) -> Result<EventLog, Error> {
    let bytes = Bytes::new(WHAT, log);
    if bytes.len() > MAX_LOG {
        return Err(bytes.malformed("more than 16 MiB"));
    }
    // The first event has a header of its own: register, kind, SHA-1, length.
    let len = u64::from(bytes.u32(28)?);
    let header = bytes.slice(32, len)?;
    if bytes.u32(4)? != NO_ACTION || !header.starts_with(SPEC_ID) {
        return Err(bytes.malformed("it does not begin with \"Spec ID Event03\""));
    }
    let header = Bytes::new(WHAT, header);
    if header.u32(24)? != 1 || header.u16(28)? != SHA384 || header.u16(30)? != 48 {
        return Err(Error::Unsupported("an event log with other digests than SHA-384 alone".into()));
    }
    let (mut at, mut events) = (32 + len, Vec::new());
    while at + 8 <= bytes.len() {
        let (register, kind) = (bytes.u32(at)?, bytes.u32(at + 4)?);
        if register == u32::MAX || (register, kind) == (0, 0) {
            break;
        }
        if bytes.u32(at + 8)? != 1 || bytes.u16(at + 12)? != SHA384 {
            return Err(bytes.malformed(format!("the event at {at:#x} has not exactly one digest, of SHA-384")));
        }
        let digest = bytes.array(at + 14)?;
        let len = u64::from(bytes.u32(at + 62)?);
        let data = bytes.slice(at + 66, len)?.to_vec();
        at += 66 + len;
        if kind == NO_ACTION {
            continue;
        }
        let register = register.checked_sub(1).filter(|register| *register < 4);
        let Some(register) = register.and_then(|register| u8::try_from(register).ok()) else {
            return Err(bytes.malformed("an event is of none of the registers 1 to 4"));
        };
        events.push(Event { register, kind: kind_name(kind), digest, data });
    }
    Ok(EventLog(events))
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
pub(crate) fn measures_its_data(kind: &str) -> bool {
    ["EV_SEPARATOR", "EV_ACTION", "EV_EFI_ACTION", "EV_EFI_VARIABLE_DRIVER_CONFIG"].contains(&kind)
}
