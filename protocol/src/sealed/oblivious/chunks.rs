//! A message in chunks (draft-ietf-ohai-chunked-ohttp): length and sealed chunk, again and again; then a zero and the final
//! chunk, which runs to the end of the message and is sealed as final, so that nothing can be cut off unseen.

use bytes::{Buf, BytesMut};

use super::aead::{Sequence, TAG_LEN};
use crate::Error;
use crate::sealed::varint;

/// The most that a chunk may hold unless its reader is known to take more, in bytes.
pub const CHUNK_LEN: usize = 1 << 14;
/// The most that a chunk may hold to be read here, in bytes.
pub const MAX_CHUNK_LEN: usize = 1 << 20;
/// The most that a chunk adds to what it holds, in bytes: its length and its tag.
pub(super) const OVERHEAD: usize = 4 + TAG_LEN;

const NOT_FINAL: &[u8] = b"";
const FINAL: &[u8] = b"final";
const TOO_LARGE: Error = Error::TooLarge { what: "a sealed chunk", limit: MAX_CHUNK_LEN };

/// Seals a message chunk by chunk.
pub struct Writer(Sequence);

impl Writer {
    pub(super) fn new(messages: Sequence) -> Self {
        Self(messages)
    }

    /// Appends one sealed chunk to `out`. It should hold at most [`CHUNK_LEN`] bytes and need not hold any.
    ///
    /// # Errors
    /// It holds more than [`MAX_CHUNK_LEN`] bytes, or the crypto library fails.
    pub fn chunk(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if plain.len() > MAX_CHUNK_LEN {
            return Err(TOO_LARGE);
        }
        varint::write(out, (plain.len() + TAG_LEN) as u64);
        self.0.seal(NOT_FINAL, plain, out)
    }

    /// Appends as many chunks of [`CHUNK_LEN`] bytes as the bytes need.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        plain.chunks(CHUNK_LEN).try_for_each(|chunk| self.chunk(chunk, out))
    }

    /// Appends the final chunk, which is empty.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        varint::write(out, 0);
        self.0.seal(FINAL, b"", out)
    }
}

/// What the length before a chunk says.
enum Next {
    /// A chunk of so many bytes, tag included.
    Chunk(usize),
    /// The final chunk.
    Final,
}

/// Reads the length of the next chunk; `None` while it is not there whole.
fn length(bytes: &[u8]) -> Result<Option<(Next, &[u8])>, Error> {
    let Some((length, rest)) = varint::read(bytes) else { return Ok(None) };
    match usize::try_from(length) {
        Ok(0) => Ok(Some((Next::Final, rest))),
        Ok(length) if length <= MAX_CHUNK_LEN + TAG_LEN => Ok(Some((Next::Chunk(length), rest))),
        _ => Err(TOO_LARGE),
    }
}

/// Opens a message as it arrives. Every chunk is authentic when it is given; only [`Reader::finish`] says that none is missing.
pub struct Reader {
    messages: Sequence,
    buffer: BytesMut,
    is_final: bool,
}

impl Reader {
    pub(super) fn new(messages: Sequence) -> Self {
        Self { messages, buffer: BytesMut::new(), is_final: false }
    }

    /// Where to append bytes as they arrive.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next chunk but the final one; `None` while it has not arrived whole.
    ///
    /// # Errors
    /// The chunk was altered, is not the next, or is too large.
    pub fn next_chunk(&mut self) -> Result<Option<BytesMut>, Error> {
        if !self.is_final {
            let Some((next, rest)) = length(&self.buffer)? else { return Ok(None) };
            let (arrived, prefix) = (rest.len(), self.buffer.len() - rest.len());
            match next {
                Next::Chunk(length) if arrived < length => return Ok(None),
                Next::Chunk(length) => {
                    self.buffer.advance(prefix);
                    return open(&mut self.messages, NOT_FINAL, self.buffer.split_to(length)).map(Some);
                }
                Next::Final => {
                    self.buffer.advance(prefix);
                    self.is_final = true;
                }
            }
        }
        if self.buffer.len() > MAX_CHUNK_LEN + TAG_LEN {
            return Err(TOO_LARGE);
        }
        Ok(None)
    }

    /// The final chunk, once everything has arrived and [`Self::next_chunk`] gives no more.
    ///
    /// # Errors
    /// [`Error::Truncated`] if something is missing; or the end was altered.
    pub fn finish(mut self) -> Result<BytesMut, Error> {
        if !self.is_final || self.buffer.len() < TAG_LEN {
            return Err(Error::Truncated);
        }
        open(&mut self.messages, FINAL, self.buffer)
    }
}

/// Opens a chunk where it lies.
fn open(messages: &mut Sequence, aad: &[u8], mut chunk: BytesMut) -> Result<BytesMut, Error> {
    let length = messages.open(aad, &mut chunk)?.len();
    chunk.truncate(length);
    Ok(chunk)
}

/// Opens a whole message.
pub(super) fn open_whole(mut messages: Sequence, mut sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::with_capacity(sealed.len());
    loop {
        let (next, rest) = length(sealed)?.ok_or(Error::Truncated)?;
        match next {
            Next::Chunk(length) => {
                let (chunk, rest) = rest.split_at_checked(length).ok_or(Error::Truncated)?;
                messages.open_into(NOT_FINAL, chunk, &mut plain)?;
                sealed = rest;
            }
            Next::Final if rest.len() < TAG_LEN => return Err(Error::Truncated),
            Next::Final => {
                messages.open_into(FINAL, rest, &mut plain)?;
                return Ok(plain);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence() -> Sequence {
        Sequence::new(&[1; 16], [2; 12]).unwrap()
    }

    fn sealed(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut writer, mut out) = (Writer::new(sequence()), Vec::new());
        for chunk in chunks {
            writer.chunk(chunk, &mut out).unwrap();
        }
        writer.finish(&mut out).unwrap();
        out
    }

    /// The message, read in pieces of `step` bytes.
    fn read(sealed: &[u8], step: usize) -> Result<Vec<u8>, Error> {
        let (mut reader, mut plain) = (Reader::new(sequence()), Vec::new());
        for piece in sealed.chunks(step) {
            reader.buffer().extend_from_slice(piece);
            while let Some(chunk) = reader.next_chunk()? {
                plain.extend_from_slice(&chunk);
            }
        }
        plain.extend_from_slice(&reader.finish()?);
        Ok(plain)
    }

    #[test]
    fn chunks_survive_any_split() {
        let large = vec![7; MAX_CHUNK_LEN];
        let messages: [&[&[u8]]; 4] = [&[], &[b""], &[b"one", b"", b"two"], &[b"small", &large]];
        for chunks in messages {
            let sealed = sealed(chunks);
            assert_eq!(open_whole(sequence(), &sealed).unwrap(), chunks.concat());
            for step in [1, 7, 4096, sealed.len()].into_iter().filter(|step| sealed.len() / step < 10_000) {
                assert_eq!(read(&sealed, step).unwrap(), chunks.concat());
            }
        }
        assert!(Writer::new(sequence()).chunk(&[0; MAX_CHUNK_LEN + 1], &mut Vec::new()).is_err());
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        let sealed = sealed(&[b"one", b"two"]);
        for end in 0..sealed.len() {
            assert!(read(&sealed[..end], 5).is_err(), "{end} bytes");
            assert!(open_whole(sequence(), &sealed[..end]).is_err(), "{end} bytes");
        }
        let longer = [&sealed[..], &[0]].concat();
        assert!(matches!(read(&longer, 5), Err(Error::NotAuthentic)));
        assert!(matches!(open_whole(sequence(), &longer), Err(Error::NotAuthentic)));
    }

    /// A chunk that is not final is not taken for one that is, though all its bytes are those of the final one.
    #[test]
    fn final_and_not_final_are_told_apart() {
        let whole = sealed(&[]);
        let as_chunk = [&[16], &whole[1..], &whole].concat();
        assert!(matches!(read(&as_chunk, 5), Err(Error::NotAuthentic)));
        let mut as_final = sealed(&[b""]);
        as_final.truncate(1 + TAG_LEN);
        as_final[0] = 0;
        assert!(matches!(read(&as_final, 5), Err(Error::NotAuthentic)));
        assert!(matches!(open_whole(sequence(), &as_final), Err(Error::NotAuthentic)));
    }

    #[test]
    fn absurd_lengths_are_refused_at_once() {
        let mut reader = Reader::new(sequence());
        reader.buffer().extend_from_slice(&[0xff; 8]);
        assert!(matches!(reader.next_chunk(), Err(Error::TooLarge { .. })));
        assert!(matches!(open_whole(sequence(), &[0xff; 8]), Err(Error::TooLarge { .. })));
        let mut reader = Reader::new(sequence());
        reader.buffer().resize(MAX_CHUNK_LEN + 100, 0);
        assert!(matches!(reader.next_chunk(), Err(Error::TooLarge { .. })), "a final chunk without an end");
    }
}
