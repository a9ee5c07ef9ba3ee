//! UEFI variables that a firmware image brings along (edk2, `MdeModulePkg/Include/Guid/VariableFormat.h`).

use crate::Error;
use crate::bytes::Bytes;
use crate::guid::Guid;

const WHAT: &str = "firmware variables";
const STORE: Guid = Guid::new(0xaaf3_2c78, 0x947b, 0x439a, [0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92]);
const STORE_HEADER: u64 = 28;
const VARIABLE_HEADER: u64 = 60;
const START: u16 = 0x55aa;
/// A variable that is there, and was not deleted.
const ADDED: u8 = 0x3f;

/// Names of the variables in a volume, in the order in which they stand there.
///
/// # Errors
/// There is no store of authenticated variables, or it is malformed.
pub(crate) fn names(volume: &[u8]) -> Result<Vec<String>, Error> {
    let bytes = Bytes::new(WHAT, volume);
    let start = u64::from(bytes.u16(48)?); // EFI_FIRMWARE_VOLUME_HEADER.HeaderLength
    if bytes.array(start)? != STORE.0 {
        return Err(Error::Unsupported("a firmware whose variables are not in edk2's authenticated format".into()));
    }
    let end = start + u64::from(bytes.u32(start + 16)?);
    bytes.slice(start, end - start)?;
    let (mut at, mut found) = (start + STORE_HEADER, Vec::new());
    while at + VARIABLE_HEADER <= end && bytes.u16(at)? == START {
        let (name, data) = (u64::from(bytes.u32(at + 36)?), u64::from(bytes.u32(at + 40)?));
        let units =
            bytes.slice(at + VARIABLE_HEADER, name)?.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let text: String =
            char::decode_utf16(units.take_while(|unit| *unit != 0)).map(|c| c.unwrap_or('\u{fffd}')).collect();
        if bytes.slice(at + 2, 1)? == [ADDED] {
            found.push(text);
        }
        at = (at + VARIABLE_HEADER + name + data).next_multiple_of(4);
    }
    Ok(found)
}
