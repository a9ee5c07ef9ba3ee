//! GUIDs as UEFI stores them.

/// A GUID in UEFI's order of bytes: the first three fields are little-endian (UEFI Specification, appendix A).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The GUID `a-b-c-d`, with `d` the last two groups of its text form.
    pub(crate) const fn new(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }
}

impl std::fmt::Display for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let g = &self.0;
        let (a, b, c) = ([g[3], g[2], g[1], g[0]], [g[5], g[4]], [g[7], g[6]]);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        write!(f, "{}-{}-{}-{}-{}", hex(&a), hex(&b), hex(&c), hex(&g[8..10]), hex(&g[10..]))
    }
}

impl std::fmt::Debug for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_text_are_those_of_the_specification() {
        let guid = Guid::new(0x8be4_df61, 0x93ca, 0x11d2, [0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
        assert_eq!(guid.to_string(), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
        assert_eq!(hex::encode(guid.0), "61dfe48bca93d211aa0d00e098032b8c");
    }
}
