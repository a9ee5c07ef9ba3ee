//! Reading deterministic CBOR in place, without a copy of anything.

const UINT: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// What is left of deterministic CBOR (RFC 8949 section 4.2.1). Every method takes one head or string off the front and is `None`,
/// with nothing to be relied on afterwards, if another one stands there or it is not in its shortest form. The order of a map's keys
/// is the caller's business.
#[derive(Clone, Copy, Debug)]
pub struct InPlace<'a>(&'a [u8]);

impl<'a> InPlace<'a> {
    /// A reader of bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn head(&mut self, major: u8) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        if first >> 5 != major {
            return None;
        }
        let (value, least, rest) = match first & 31 {
            short @ 0..24 => (u64::from(short), 0, rest),
            24 => rest.split_first().map(|(byte, rest)| (u64::from(*byte), 24, rest))?,
            25 => {
                rest.split_first_chunk().map(|(bytes, rest)| (u64::from(u16::from_be_bytes(*bytes)), 1 << 8, rest))?
            }
            26 => {
                rest.split_first_chunk().map(|(bytes, rest)| (u64::from(u32::from_be_bytes(*bytes)), 1 << 16, rest))?
            }
            27 => rest.split_first_chunk().map(|(bytes, rest)| (u64::from_be_bytes(*bytes), 1 << 32, rest))?,
            _ => return None,
        };
        self.0 = rest;
        (value >= least).then_some(value)
    }

    fn string(&mut self, major: u8) -> Option<&'a [u8]> {
        let length = usize::try_from(self.head(major)?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// An unsigned integer.
    pub fn uint(&mut self) -> Option<u64> {
        self.head(UINT)
    }

    /// A byte string.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        self.string(BYTES)
    }

    /// A byte string of one length.
    pub fn array_of<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes()?.try_into().ok()
    }

    /// A text.
    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.string(TEXT)?).ok()
    }

    /// The head of an array: how many items follow.
    pub fn array(&mut self) -> Option<u64> {
        self.head(ARRAY)
    }

    /// The head of a map: how many pairs follow.
    pub fn map(&mut self) -> Option<u64> {
        self.head(MAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_shortest_form_is_read() {
        let uint = |hex_text: &str| InPlace::new(&hex::decode(hex_text).unwrap()).uint();
        for (text, value) in [("17", 23), ("1818", 24), ("190100", 256), ("1a00010000", 1 << 16)] {
            assert_eq!(uint(text), Some(value), "{text}");
        }
        assert_eq!(uint("1b0000000100000000"), Some(1 << 32));
        for text in ["1817", "1900ff", "1a0000ffff", "1b00000000ffffffff", "20", "18", "1c", "1f", ""] {
            assert_eq!(uint(text), None, "{text}");
        }
        let mut reader = InPlace::new(&[0x42, 1, 2, 0x61, b'a', 0x42, 1]);
        assert_eq!((reader.bytes(), reader.text()), (Some(&[1, 2][..]), Some("a")));
        assert_eq!(reader.bytes(), None, "cut short");
    }
}
