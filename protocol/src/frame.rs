//! What an enclave sends its host in answer to a sealed request: sealed bytes to pass on, and settlement receipts for the host.
//!
//! A frame is `type u8 || length u32 big-endian || payload`. The receipt comes before the frame with the last sealed bytes, so
//! that a host that stores it before passing anything on has lost nothing a client was told it owes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Error;

/// The largest payload a reader takes, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;
const HEADER: usize = 5;
const SEALED: u8 = 0;
const RECEIPT: u8 = 1;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Sealed bytes for the client.
    Sealed(Bytes),
    /// A signed settlement receipt ([`crate::receipt::SignedSettlementReceipt::to_bytes`]).
    Receipt(Bytes),
}

impl Frame {
    /// The bytes on the wire. Sealed payloads beyond [`MAX_PAYLOAD`] become several frames.
    pub fn encode(&self) -> Bytes {
        let (kind, payload) = match self {
            Self::Sealed(payload) => (SEALED, payload),
            Self::Receipt(payload) => (RECEIPT, payload),
        };
        let mut out = BytesMut::with_capacity(HEADER + payload.len());
        for piece in payload.chunks(MAX_PAYLOAD) {
            out.put_u8(kind);
            // A chunk is at most MAX_PAYLOAD long.
            out.put_u32(piece.len() as u32);
            out.put_slice(piece);
        }
        out.freeze()
    }
}

/// Reads frames from bytes that arrive in any pieces.
#[derive(Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// A frame of an unknown type or beyond [`MAX_PAYLOAD`].
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        if self.buffer.len() < HEADER {
            return Ok(None);
        }
        let kind = self.buffer[0];
        let length = u32::from_be_bytes([self.buffer[1], self.buffer[2], self.buffer[3], self.buffer[4]]) as usize;
        if length > MAX_PAYLOAD {
            return Err(Error::TooLarge { what: "a frame", limit: MAX_PAYLOAD });
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(length).freeze();
        match kind {
            SEALED => Ok(Some(Frame::Sealed(payload))),
            RECEIPT => Ok(Some(Frame::Receipt(payload))),
            other => Err(Error::malformed("a frame", format!("its type is {other}"))),
        }
    }

    /// Whether the stream may end here: no frame has been begun.
    pub fn is_whole(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_split() {
        let frames = [
            Frame::Sealed(Bytes::from_static(b"abc")),
            Frame::Receipt(Bytes::from_static(b"r")),
            Frame::Sealed(Bytes::from_static(b"z")),
        ];
        let wire: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().to_vec()).collect();
        assert_eq!(hex::encode(&wire), "000000000361626301000000017200000000017a");
        for step in 1..=wire.len() {
            let mut decoder = Decoder::new();
            let mut read = Vec::new();
            for piece in wire.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames);
            assert!(decoder.is_whole());
        }
    }

    #[test]
    fn unknown_types_and_absurd_lengths_are_refused_at_once() {
        for wire in [[2, 0, 0, 0, 0], [0, 0xff, 0xff, 0xff, 0xff]] {
            let mut decoder = Decoder::new();
            decoder.push(&wire);
            assert!(decoder.next_frame().is_err());
        }
    }

    #[test]
    fn a_large_sealed_payload_becomes_several_frames() {
        let payload = Bytes::from(vec![7; MAX_PAYLOAD + 1]);
        let mut decoder = Decoder::new();
        decoder.push(&Frame::Sealed(payload.clone()).encode());
        let mut joined = Vec::new();
        while let Some(Frame::Sealed(piece)) = decoder.next_frame().unwrap() {
            joined.extend_from_slice(&piece);
        }
        assert_eq!(joined, payload);
    }
}
