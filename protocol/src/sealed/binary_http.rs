//! The two forms of Binary HTTP (RFC 9292) that are used: a request of known length, and an answer of indeterminate length.

use super::padding::padded;
use super::{AnswerHead, Field, InnerRequest, varint};
use crate::Error;

/// Framing indicators (section 3.3).
const KNOWN_LENGTH_REQUEST: u64 = 0;
const INDETERMINATE_LENGTH_RESPONSE: u64 = 3;

/// A request, padded with zeros (section 3.8) to the Padmé length of at least `floor` bytes.
pub(super) fn write_request(request: &InnerRequest, floor: usize) -> Vec<u8> {
    let mut fields = Vec::new();
    write_field_lines(&mut fields, &request.headers);
    // Method, scheme, authority, path; header, content, trailer (sections 3.1 and 3.4).
    let parts = [request.method.as_bytes(), b"https", b"", request.path.as_bytes(), &fields, &request.body, b""];
    // Eight bytes are enough for any length.
    let most = 1 + parts.iter().map(|part| 8 + part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(padded(most, floor));
    varint::write(&mut out, KNOWN_LENGTH_REQUEST);
    for part in parts {
        write_bytes(&mut out, part);
    }
    out.resize(padded(out.len(), floor), 0);
    out
}

/// A request, and nothing but zeros after it.
pub(super) fn read_request(message: &[u8]) -> Result<InnerRequest, Error> {
    let read = |mut input: Input<'_>| {
        if input.integer()? != KNOWN_LENGTH_REQUEST {
            return Err(Stop::Malformed("it is not a request of known length"));
        }
        let (method, _scheme, _authority, path) = (input.text()?, input.bytes()?, input.bytes()?, input.text()?);
        // Empty sections at the end may be left out (section 3.8).
        let mut section = || if input.0.is_empty() { Ok(&[][..]) } else { input.bytes() };
        let mut lines = Input(section()?);
        let body = section()?.to_vec();
        let _trailer = section()?;
        let mut headers = Vec::new();
        while !lines.0.is_empty() {
            let name = lines.bytes()?;
            headers.push(lines.field(name)?);
        }
        if input.0.iter().any(|byte| *byte != 0) {
            return Err(Stop::Malformed("its padding is not zero"));
        }
        Ok(InnerRequest { method, path, headers, body: body.into() })
    };
    read(Input(message)).map_err(|stop| match stop {
        Stop::Short => Error::Truncated,
        Stop::Malformed(why) => Error::malformed("the sealed request", why),
    })
}

/// Status and headers of an answer.
pub(super) fn write_head(head: &AnswerHead) -> Vec<u8> {
    let mut out = Vec::new();
    varint::write(&mut out, INDETERMINATE_LENGTH_RESPONSE);
    varint::write(&mut out, u64::from(head.status));
    write_field_lines(&mut out, &head.headers);
    out.push(0);
    out
}

/// The end of an answer's content, and its trailer, padded with zeros (section 3.8) to the Padmé length of at least `floor` bytes.
pub(super) fn write_end(trailer: &[Field], floor: usize) -> Vec<u8> {
    let mut out = vec![0];
    write_field_lines(&mut out, trailer);
    out.push(0);
    out.resize(padded(out.len(), floor), 0);
    out
}

fn write_field_lines(out: &mut Vec<u8>, fields: &[Field]) {
    for (name, value) in fields {
        write_bytes(out, name.as_bytes());
        write_bytes(out, value.as_bytes());
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Why reading stopped.
pub(super) enum Stop {
    /// More is needed.
    Short,
    Malformed(&'static str),
}

/// What is still to be read.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn integer(&mut self) -> Result<u64, Stop> {
        let (value, rest) = varint::read(self.0).ok_or(Stop::Short)?;
        self.0 = rest;
        Ok(value)
    }

    /// A length and as many bytes.
    fn bytes(&mut self) -> Result<&'a [u8], Stop> {
        let length = usize::try_from(self.integer()?).map_err(|_| Stop::Short)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Stop::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<String, Stop> {
        text(self.bytes()?)
    }

    /// The rest of a field line that starts with this name.
    fn field(&mut self, name: &[u8]) -> Result<Field, Stop> {
        if name.is_empty() {
            return Err(Stop::Malformed("a header has no name"));
        }
        Ok((text(name)?.to_ascii_lowercase(), self.text()?))
    }

    /// Field lines up to an empty name.
    pub(super) fn fields(&mut self) -> Result<Vec<Field>, Stop> {
        let mut fields = Vec::new();
        loop {
            match self.bytes()? {
                [] => return Ok(fields),
                name => fields.push(self.field(name)?),
            }
        }
    }

    /// Status and headers of an answer; interim answers before it are passed over.
    pub(super) fn head(&mut self) -> Result<AnswerHead, Stop> {
        if self.integer()? != INDETERMINATE_LENGTH_RESPONSE {
            return Err(Stop::Malformed("it is not an answer of indeterminate length"));
        }
        loop {
            let (status, headers) = (self.integer()?, self.fields()?);
            match u16::try_from(status) {
                Ok(100..=199) => {}
                Ok(status @ 200..=599) => return Ok(AnswerHead { status, headers }),
                _ => return Err(Stop::Malformed("its status is none")),
            }
        }
    }
}

fn text(bytes: &[u8]) -> Result<String, Stop> {
    let text = std::str::from_utf8(bytes).map_err(|_| Stop::Malformed("a header, method or path is not UTF-8"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> InnerRequest {
        InnerRequest {
            method: "POST".into(),
            path: "/v1/chat/completions".into(),
            headers: vec![("content-type".into(), "application/json".into()), ("empty".into(), String::new())],
            body: vec![b'x'; 70_000].into(),
        }
    }

    #[test]
    fn a_request_is_what_bhttp_writes_and_reads() {
        let (request, mut written) = (request(), write_request(&request(), 1024));
        let read = bhttp::Message::read_bhttp(&mut std::io::Cursor::new(&written)).unwrap();
        assert_eq!(read.control().path(), Some(request.path.as_bytes()));
        assert_eq!(read.header().get(b"content-type"), Some(&b"application/json"[..]));
        let mut again = Vec::new();
        read.write_bhttp(bhttp::Mode::KnownLength, &mut again).unwrap();
        assert_eq!(again, written[..again.len()]);
        assert_eq!(written.len(), padded(again.len(), 1024));
        assert_eq!(read_request(&written).unwrap(), request);
        written.push(1);
        assert!(read_request(&written).is_err(), "padding that is not zero");
    }

    #[test]
    fn another_message_is_refused() {
        for wrong in [&[1, 0x40, 200][..], &[2, 3], &[0, 1, 0xff, 0, 0, 0]] {
            assert!(matches!(read_request(wrong), Err(Error::Malformed { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_request_that_is_cut_off_is_refused() {
        let request = InnerRequest { body: b"body".to_vec().into(), ..request() };
        let written = write_request(&request, 0);
        let whole = written.windows(4).position(|bytes| bytes == b"body").unwrap() + 4;
        assert_eq!(read_request(&written[..whole]).unwrap(), request);
        for end in 0..whole {
            match read_request(&written[..end]) {
                Ok(read) => assert!(read.body.is_empty(), "{end}: only whole sections are left out"),
                Err(error) => assert!(matches!(error, Error::Truncated), "{end}: {error}"),
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0_u8.., 0..300)) {
            let _ = read_request(&[&[0], &bytes[..]].concat());
        }
    }
}
