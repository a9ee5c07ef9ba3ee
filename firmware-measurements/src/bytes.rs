//! Bounded reads of little-endian structures.

use crate::Error;

/// Bytes of a named structure, read at offsets that may come from the file itself.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a> {
    what: &'static str,
    data: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub fn new(what: &'static str, data: &'a [u8]) -> Self {
        Self { what, data }
    }

    pub fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// `len` bytes at `offset`.
    pub fn slice(&self, offset: u64, len: u64) -> Result<&'a [u8], Error> {
        let range = usize::try_from(offset).ok().zip(offset.checked_add(len).and_then(|end| usize::try_from(end).ok()));
        range.and_then(|(start, end)| self.data.get(start..end)).ok_or(Error::Truncated {
            what: self.what,
            offset,
            len,
            available: self.len(),
        })
    }

    pub fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(offset, N as u64)?);
        Ok(out)
    }

    pub fn u16(&self, offset: u64) -> Result<u16, Error> {
        self.array(offset).map(u16::from_le_bytes)
    }

    pub fn u32(&self, offset: u64) -> Result<u32, Error> {
        self.array(offset).map(u32::from_le_bytes)
    }

    pub fn u64(&self, offset: u64) -> Result<u64, Error> {
        self.array(offset).map(u64::from_le_bytes)
    }

    pub fn malformed(&self, detail: impl Into<String>) -> Error {
        Error::malformed(self.what, detail)
    }
}
