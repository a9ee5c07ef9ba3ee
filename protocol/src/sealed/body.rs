//! Padded records inside an answer's body: `data length u32 || padding length u32 || data || zeros`, lengths big-endian.
//!
//! Binary HTTP pads only at its end, and a stream needs every piece padded as it leaves.

use bytes::{Buf, Bytes, BytesMut};

use super::padding::padded;
use super::varint;
use crate::Error;

/// The least length of a record, so that tokens of a stream look alike.
pub(super) const FLOOR: usize = 512;
const HEADER: usize = 8;
/// Bytes of the length before a record.
const LENGTH: usize = 2;
/// The most data in one record: a sealed chunk of ohttp holds 16 KiB.
pub(super) const MAX_DATA: usize = 12 * 1024;
const MAX_RECORD: usize = 16 * 1024;

/// Appends one record of at most [`MAX_DATA`] bytes of data, padded to the Padmé length of at least `floor` bytes.
pub(super) fn write_record(out: &mut Vec<u8>, data: &[u8], floor: usize) {
    write(out, data, padded(HEADER + data.len(), floor));
}

/// Appends a record without data, so that all of `out` gets the Padmé length of at least `floor` bytes.
pub(super) fn fill(out: &mut Vec<u8>, floor: usize) {
    let before = out.len() + LENGTH;
    write(out, &[], padded(before + HEADER, floor) - before);
}

/// Appends a record of so many bytes, and its length before it as Binary HTTP wants it.
fn write(out: &mut Vec<u8>, data: &[u8], length: usize) {
    varint::write_two(out, length as u64);
    let end = out.len() + length;
    out.reserve(length);
    // Both lengths are far below 2^32.
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(&((length - HEADER - data.len()) as u32).to_be_bytes());
    out.extend_from_slice(data);
    out.resize(end, 0);
}

/// Takes records apart as they arrive.
#[derive(Default)]
pub(super) struct Records {
    buffer: BytesMut,
}

impl Records {
    pub(super) fn push(&mut self, bytes: BytesMut) {
        self.buffer.unsplit(bytes);
    }

    /// The data of the next whole record.
    pub(super) fn next_data(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h] = *header;
        let data = u32::from_be_bytes([a, b, c, d]) as usize;
        let padding = u32::from_be_bytes([e, f, g, h]) as usize;
        if data > MAX_RECORD || padding > MAX_RECORD {
            return Err(Error::TooLarge { what: "a record of the answer", limit: MAX_RECORD });
        }
        if self.buffer.len() < HEADER + data + padding {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let content = self.buffer.split_to(data).freeze();
        self.buffer.advance(padding);
        Ok(Some(content))
    }

    /// Whether no record has been begun.
    pub(super) fn is_whole(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The record alone, without the length before it.
    fn record(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_record(&mut out, data, FLOOR);
        let (length, record) = varint::read(&out).unwrap();
        assert_eq!(length, record.len() as u64);
        record.to_vec()
    }

    #[test]
    fn records_survive_any_split_and_hide_small_lengths() {
        assert_eq!(record(b"a").len(), record(&[7; FLOOR - HEADER]).len());
        let wire = [record(b"one"), record(b""), record(&[9; MAX_DATA])].concat();
        for step in [1, 2, 7, 255, 4096, wire.len()] {
            let mut records = Records::default();
            let mut read = Vec::new();
            for piece in wire.chunks(step) {
                records.push(piece.into());
                while let Some(data) = records.next_data().unwrap() {
                    read.push(data.to_vec());
                }
            }
            assert_eq!(read, [b"one".to_vec(), Vec::new(), vec![9; MAX_DATA]]);
            assert!(records.is_whole());
        }
    }

    #[test]
    fn what_is_filled_has_one_length_and_holds_no_data() {
        for before in 0..=118 {
            let mut out = vec![1; before];
            fill(&mut out, 128);
            assert_eq!(out.len(), 128);
            let (length, filling) = varint::read(&out[before..]).unwrap();
            assert_eq!(length, filling.len() as u64);
            let mut records = Records::default();
            records.push(filling.into());
            assert!(records.next_data().unwrap().unwrap().is_empty() && records.is_whole());
        }
        for (before, after) in [(119, 144), (1_000, 1_024)] {
            let mut out = vec![1; before];
            fill(&mut out, 128);
            assert_eq!(out.len(), after);
        }
    }

    /// `record` of `docs/vectors/protocol.json`, both ways.
    #[test]
    fn a_record_is_written_and_read_as_it_was() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/protocol.json");
        let vectors: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let vector = |name: &str| hex::decode(vectors["record"][name].as_str().unwrap()).unwrap();
        assert_eq!(record(&vector("data")), vector("record"));
        let mut records = Records::default();
        records.push(vector("record")[..].into());
        assert_eq!(records.next_data().unwrap().unwrap(), vector("data"));
        assert!(records.is_whole());
    }

    #[test]
    fn an_absurd_record_is_refused_at_once() {
        let mut records = Records::default();
        records.push([0xff; HEADER][..].into());
        assert!(records.next_data().is_err());
    }
}
