//! Variable-length integers (RFC 9000 section 16), which both Binary HTTP and chunks begin with.

/// Writes the shortest form. Values here are lengths of things in memory, far below 2^62.
pub(super) fn write(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Writes two bytes where one would do, so that the value does not change how long its own length is. Two are enough for lengths of
/// records, and a reader takes any form.
pub(super) fn write_two(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x3f => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        _ => write(out, value),
    }
}

/// The integer at the start of `bytes`, in whatever form, and what follows it; `None` while it is not there whole.
pub(super) fn read(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let (integer, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    let value = integer.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some((value & (u64::MAX >> (66 - 8 * integer.len())), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000 appendix A.1, and the bounds of each form.
    #[test]
    fn integers_of_the_rfc() {
        for (bytes, value) in [
            ("c2197c5eff14e88c", 151_288_809_941_952_652),
            ("9d7f3e7d", 494_878_333),
            ("7bbd", 15_293),
            ("25", 37),
            ("3f", 0x3f),
            ("4040", 0x40),
            ("7fff", 0x3fff),
            ("80004000", 0x4000),
            ("bfffffff", 0x3fff_ffff),
            ("c000000040000000", 0x4000_0000),
        ] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!(hex::encode(&out), bytes);
            for end in 0..out.len() {
                assert_eq!(read(&out[..end]), None);
            }
            out.push(7);
            assert_eq!(read(&out), Some((value, &[7][..])));
        }
        let mut out = Vec::new();
        write_two(&mut out, 37);
        write_two(&mut out, 15_293);
        assert_eq!(hex::encode(&out), "40257bbd");
        assert_eq!(read(&out[..2]), Some((37, &[][..])), "a longer form of 37");
    }
}
