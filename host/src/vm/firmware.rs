//! What an OVMF is made for, from the table at its end (edk2 `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`): entries of data, length (u16)
//! and GUID, backwards from 32 bytes before the end; the first is the table's own.

/// Bytes at the end of a file that hold the table.
pub const TAIL: i64 = 1024;

const TABLE: [u8; 16] = guid(0x96b5_82de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
const TDX_METADATA: [u8; 16] = guid(0xe47a_6535, 0x984a, 0x4798, [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2]);
const SEV_METADATA: [u8; 16] = guid(0xdc88_6566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]);
const SEV_HASHES: [u8; 16] = guid(0x7255_371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]);

const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a0, a1, a2, a3, b0, b1, c0, c1, d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// What an OVMF has tables for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// TDX metadata.
    pub tdx: bool,
    /// SNP metadata.
    pub snp: bool,
    /// A place for the hashes of kernel, initial ram disk and command line.
    pub hashes: bool,
}

impl Kind {
    /// Reads the end of a firmware file; `None` if it has no table.
    pub fn of(tail: &[u8]) -> Option<Self> {
        let mut rest = tail.get(..tail.len().checked_sub(32)?)?;
        let (length, id) = entry(rest)?;
        if id != TABLE {
            return None;
        }
        // The table's length counts its own entry.
        let start = rest.len().checked_sub(length)?;
        rest = rest.get(start..rest.len() - 18)?;
        let mut kind = Self::default();
        while let Some((length, id)) = entry(rest) {
            kind.tdx |= id == TDX_METADATA;
            kind.snp |= id == SEV_METADATA;
            kind.hashes |= id == SEV_HASHES;
            rest = match rest.len().checked_sub(length) {
                Some(left) if length >= 18 => &rest[..left],
                _ => return None,
            };
        }
        Some(kind)
    }
}

/// Length and GUID of the entry that ends here.
fn entry(bytes: &[u8]) -> Option<(usize, [u8; 16])> {
    let footer = bytes.get(bytes.len().checked_sub(18)?..)?;
    let length = u16::from_le_bytes([footer[0], footer[1]]);
    Some((usize::from(length), footer[2..].try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The end of a firmware with these tables.
    pub(crate) fn tail(kind: Kind) -> Vec<u8> {
        let mut table = Vec::new();
        for (present, id) in [(kind.tdx, TDX_METADATA), (kind.snp, SEV_METADATA), (kind.hashes, SEV_HASHES)] {
            if present {
                table.extend([0, 0, 0, 0, 22, 0]);
                table.extend(id);
            }
        }
        let length = u16::try_from(table.len() + 18).unwrap();
        table.extend(length.to_le_bytes());
        table.extend(TABLE);
        let mut tail = vec![0xff; usize::try_from(TAIL).unwrap() - 32 - table.len()];
        tail.extend(table);
        tail.extend([0x90; 32]);
        tail
    }

    #[test]
    fn what_a_firmware_is_made_for_is_read_from_its_end() {
        for bits in 0..8_u8 {
            let kind = Kind { tdx: bits & 1 != 0, snp: bits & 2 != 0, hashes: bits & 4 != 0 };
            assert_eq!(Kind::of(&tail(kind)), Some(kind));
        }
    }

    #[test]
    fn what_has_no_table_is_no_firmware() {
        assert_eq!(Kind::of(&[]), None);
        assert_eq!(Kind::of(&[0; 1024]), None);
        let mut broken = tail(Kind { tdx: true, snp: true, hashes: true });
        // An entry that is longer than what is before it.
        let at = broken.len() - 32 - 18 - 18;
        broken[at..at + 2].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(Kind::of(&broken), None);
    }
}
