//! Reads an answer in Binary HTTP of indeterminate length (RFC 9292 section 3.2) as it arrives, and the records in its content.

use bytes::{Buf, Bytes, BytesMut};

use super::binary_http::{Input, Stop};
use super::body::Records;
use super::{AnswerHead, Field};
use crate::Error;

/// The most that the head or the trailer of an answer may take, in bytes.
const MAX_SECTION: usize = 1 << 18;

/// Where in an answer its reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    /// In the content, with so many bytes of its current chunk to come.
    Content(usize),
    Trailer,
    Padding,
}

/// Reads an answer as it arrives.
pub(super) struct AnswerReader {
    buffer: BytesMut,
    part: Part,
    records: Records,
}

impl AnswerReader {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), part: Part::Head, records: Records::default() }
    }

    pub(super) fn push(&mut self, bytes: BytesMut) {
        self.buffer.unsplit(bytes);
    }

    /// Status and headers, once they have arrived.
    pub(super) fn head(&mut self) -> Result<Option<AnswerHead>, Error> {
        self.take(Part::Head, Part::Content(0), |input| input.head())
    }

    /// The next piece of the body, once it has arrived.
    pub(super) fn data(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.records.next_data()? {
                Some(data) if data.is_empty() => continue,
                Some(data) => return Ok(Some(data)),
                None => {}
            }
            match self.part {
                Part::Content(0) => match self.take(self.part, self.part, |input| input.integer())? {
                    None => return Ok(None),
                    Some(0) if !self.records.is_whole() => return Err(Error::Truncated),
                    Some(0) => self.part = Part::Trailer,
                    Some(length) => self.part = Part::Content(usize::try_from(length).unwrap_or(usize::MAX)),
                },
                Part::Content(left) if !self.buffer.is_empty() => {
                    let piece = self.buffer.split_to(left.min(self.buffer.len()));
                    self.part = Part::Content(left - piece.len());
                    self.records.push(piece);
                }
                _ => return Ok(None),
            }
        }
    }

    /// Whether the content has ended, so that no more data comes.
    pub(super) fn data_has_ended(&self) -> bool {
        matches!(self.part, Part::Trailer | Part::Padding)
    }

    /// The trailer, after the data and once it has arrived.
    pub(super) fn trailer(&mut self) -> Result<Option<Vec<Field>>, Error> {
        self.take(Part::Trailer, Part::Padding, |input| input.fields())
    }

    /// Drops the padding that has arrived.
    pub(super) fn drop_padding(&mut self) -> Result<(), Error> {
        if self.part != Part::Padding {
            return Ok(());
        }
        if self.buffer.iter().any(|byte| *byte != 0) {
            return Err(Error::malformed("the answer", "its padding is not zero"));
        }
        self.buffer.clear();
        Ok(())
    }

    /// Reads something whole and goes on to the next part, if this is the part for it and it has arrived.
    fn take<T>(
        &mut self,
        part: Part,
        next: Part,
        read: impl FnOnce(&mut Input<'_>) -> Result<T, Stop>,
    ) -> Result<Option<T>, Error> {
        if self.part != part {
            return Ok(None);
        }
        let mut input = Input(&self.buffer);
        match read(&mut input) {
            Ok(value) => {
                let length = self.buffer.len() - input.0.len();
                self.buffer.advance(length);
                self.part = next;
                Ok(Some(value))
            }
            Err(Stop::Short) if self.buffer.len() > MAX_SECTION => {
                Err(Error::TooLarge { what: "the head or the trailer of the answer", limit: MAX_SECTION })
            }
            Err(Stop::Short) => Ok(None),
            Err(Stop::Malformed(why)) => Err(Error::malformed("the answer", why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::binary_http::{write_end, write_head};
    use super::super::body::{FLOOR, write_record};
    use super::*;

    fn answer() -> (AnswerHead, Vec<Field>, Vec<u8>) {
        let head = AnswerHead { status: 200, headers: vec![("a".into(), "b".into())] };
        let trailer = vec![("cocoon-receipt".to_owned(), "r".repeat(500))];
        let mut wire = write_head(&head);
        for piece in [&b"first "[..], b"", &[b'x'; 9_000]] {
            write_record(&mut wire, piece, FLOOR);
        }
        wire.extend(write_end(&trailer, 0));
        (head, trailer, wire)
    }

    fn read(wire: &[u8], step: usize) -> Result<(AnswerHead, Vec<u8>, Vec<Field>), Error> {
        let (mut reader, mut head, mut body, mut trailer) = (AnswerReader::new(), None, Vec::new(), None);
        for piece in wire.chunks(step) {
            reader.push(piece.into());
            head = head.or(reader.head()?);
            while let Some(data) = reader.data()? {
                body.extend_from_slice(&data);
            }
            trailer = trailer.or(reader.trailer()?);
            reader.drop_padding()?;
        }
        Ok((head.ok_or(Error::Truncated)?, body, trailer.ok_or(Error::Truncated)?))
    }

    #[test]
    fn an_answer_survives_any_split() {
        let (head, trailer, mut wire) = answer();
        wire.extend([0; 20]);
        for step in [1, 3, 250, wire.len()] {
            let (found, body, end) = read(&wire, step).unwrap();
            assert_eq!((&found, &end), (&head, &trailer));
            assert_eq!(body, [&b"first "[..], &[b'x'; 9_000]].concat());
        }
        wire.push(1);
        assert!(read(&wire, 100).is_err(), "padding that is not zero");
    }

    #[test]
    fn an_answer_that_is_cut_off_is_refused() {
        let (_, _, wire) = answer();
        // To the empty name that ends the trailer; what follows is padding.
        let whole = wire.iter().rposition(|byte| *byte != 0).unwrap() + 2;
        assert!(read(&wire[..whole], 100).is_ok());
        for end in 0..whole {
            assert!(matches!(read(&wire[..end], 100), Err(Error::Truncated)), "{end}");
        }
    }

    #[test]
    fn interim_answers_are_passed_over_and_other_messages_refused() {
        let (head, _, wire) = answer();
        let interim = [&[3, 0x40, 103, 1, b'a', 1, b'b', 0], &wire[1..]].concat();
        assert_eq!(read(&interim, 50).unwrap().0, head);
        for wrong in [&[1, 0x40, 200][..], &[3, 0x44, 0, 0], &[3, 5, 0], &[3, 0x40, 200, 1, 0xff, 0]] {
            assert!(matches!(read(wrong, 50), Err(Error::Malformed { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_refused() {
        let mut wire = vec![3, 0x40, 200];
        wire.extend([1, b'a', 1, b'b'].repeat(MAX_SECTION / 4 + 1));
        assert!(matches!(read(&wire, 1 << 14), Err(Error::TooLarge { .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0_u8.., 0..300), step in 1_usize..50) {
            let _ = read(&[&[3], &bytes[..]].concat(), step);
            let _ = read(&[&[3, 0x40, 200, 0], &bytes[..]].concat(), step);
        }
    }
}
