//! The client's side: seal a request, open its answer as it arrives.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures::AsyncRead;

use super::answer::AnswerReader;
use super::binary_http;
use super::oblivious::chunks::Reader;
use super::oblivious::{RESPONSE_NONCE_LEN, Request, ResponseKey};
use super::{AnswerHead, Field, InnerRequest, MAX_SEALED_REQUEST};
use crate::Error;
use crate::statement::KeyStatement;

/// The least length of a request before it is sealed.
const REQUEST_FLOOR: usize = 4096;
/// How much of an answer is asked for at a time, in bytes.
const READ: usize = 1 << 14;

/// A request about to be sealed: its encapsulated key is known, its content is not yet written.
pub struct RequestSealer {
    request: Request,
}

impl RequestSealer {
    /// Encapsulates to the key of a statement that the caller has verified.
    ///
    /// # Errors
    /// The statement's key configuration is not X-Wing with HKDF-SHA256 and AES-128-GCM.
    pub fn new(statement: &KeyStatement) -> Result<Self, Error> {
        Ok(Self { request: Request::new(&statement.key_config)? })
    }

    /// The encapsulated key, which binds what is inside the seal to this one sealing.
    pub fn enc(&self) -> Vec<u8> {
        self.request.enc().to_vec()
    }

    /// Seals the request. Gives the bytes to send and what opens the answer.
    ///
    /// # Errors
    /// The request is too large.
    pub fn seal(self, request: &InnerRequest) -> Result<(Vec<u8>, ResponseOpener), Error> {
        let (sealed, key) = self.request.seal(&binary_http::write_request(request, REQUEST_FLOOR))?;
        if sealed.len() > MAX_SEALED_REQUEST {
            return Err(Error::TooLarge { what: "the sealed request", limit: MAX_SEALED_REQUEST });
        }
        Ok((sealed, ResponseOpener { key }))
    }
}

/// Opens the answer to one request.
pub struct ResponseOpener {
    key: ResponseKey,
}

impl ResponseOpener {
    /// Starts to read an answer from the bytes of the relay's response.
    ///
    /// # Errors
    /// None now.
    pub fn open(self, source: impl AsyncRead + Send + Unpin + 'static) -> Result<OpenAnswer, Error> {
        let chunks = Chunks::Nonce(self.key, BytesMut::new());
        Ok(OpenAnswer { source: Box::new(source), chunks, message: AnswerReader::new() })
    }
}

/// How far the sealed answer has been read.
enum Chunks {
    /// Its nonce has not arrived whole.
    Nonce(ResponseKey, BytesMut),
    Open(Reader),
    /// Its final chunk was opened, or it is not to be read any further.
    Ended,
}

/// An answer being opened. Every piece is authentic when it comes; only [`OpenAnswer::finish`] says that it is complete.
pub struct OpenAnswer {
    source: Box<dyn AsyncRead + Send + Unpin>,
    chunks: Chunks,
    message: AnswerReader,
}

impl OpenAnswer {
    /// Status and headers; to be called first.
    ///
    /// # Errors
    /// The answer was altered, is for another request, or ends too early.
    pub async fn head(&mut self) -> Result<AnswerHead, Error> {
        loop {
            if let Some(head) = self.message.head()? {
                return Ok(head);
            }
            self.open_more().await?;
        }
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(data) = self.message.data()? {
                return Ok(Some(data));
            }
            if self.message.data_has_ended() {
                return Ok(None);
            }
            self.open_more().await?;
        }
    }

    /// The trailer, once the answer has ended with its final chunk and nothing is missing.
    ///
    /// # Errors
    /// [`Error::Truncated`] if anything is.
    pub async fn finish(mut self) -> Result<Vec<Field>, Error> {
        while self.next().await?.is_some() {}
        let mut trailer = None;
        loop {
            trailer = trailer.or(self.message.trailer()?);
            self.message.drop_padding()?;
            if matches!(self.chunks, Chunks::Ended) {
                return trailer.ok_or(Error::Truncated);
            }
            self.open_more().await?;
        }
    }

    /// Opens one more chunk, as soon as it has arrived. Nothing is lost if the caller stops waiting.
    async fn open_more(&mut self) -> Result<(), Error> {
        loop {
            let buffer = match &mut self.chunks {
                Chunks::Nonce(_, buffer) => buffer,
                Chunks::Open(reader) => {
                    if let Some(chunk) = reader.next_chunk()? {
                        self.message.push(chunk);
                        return Ok(());
                    }
                    reader.buffer()
                }
                Chunks::Ended => return Err(Error::Truncated),
            };
            let is_end = read_more(&mut self.source, buffer).await? == 0;
            self.chunks = match (std::mem::replace(&mut self.chunks, Chunks::Ended), is_end) {
                (Chunks::Open(reader), true) => {
                    self.message.push(reader.finish()?);
                    return Ok(());
                }
                (_, true) => return Err(Error::Truncated),
                (Chunks::Nonce(key, buffer), false) => match buffer.split_first_chunk::<RESPONSE_NONCE_LEN>() {
                    Some((nonce, rest)) => {
                        let mut reader = key.open(nonce)?;
                        reader.buffer().extend_from_slice(rest);
                        Chunks::Open(reader)
                    }
                    None => Chunks::Nonce(key, buffer),
                },
                (chunks, false) => chunks,
            };
        }
    }
}

/// Appends what the source has to the buffer, and gives its length: zero at the end.
async fn read_more(source: &mut (dyn AsyncRead + Send + Unpin), buffer: &mut BytesMut) -> Result<usize, Error> {
    let before = buffer.len();
    let read = poll_fn(|cx| {
        // Within one call, so that the buffer never holds what was not read.
        buffer.resize(before + READ, 0);
        let read = Pin::new(&mut *source).poll_read(cx, &mut buffer[before..]);
        buffer.truncate(before + if let std::task::Poll::Ready(Ok(length)) = &read { *length } else { 0 });
        read
    });
    read.await.map_err(io_error)
}

fn io_error(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::Truncated,
        kind => Error::Io(kind.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::{Digest, EvidenceId, UnixTime};
    use ohttp::hpke::{Aead, Kdf, Kem};
    use ohttp::{KeyConfig, SymmetricSuite};

    use super::*;

    fn seals_to(suites: &[Aead]) -> bool {
        let suites = suites.iter().map(|aead| SymmetricSuite::new(Kdf::HkdfSha256, *aead)).collect();
        let statement = KeyStatement {
            evidence_id: EvidenceId(Digest::ZERO),
            key_config: KeyConfig::new(1, Kem::XWing, suites).unwrap().encode().unwrap(),
            not_before: UnixTime(0),
            not_after: UnixTime(1),
        };
        RequestSealer::new(&statement).is_ok()
    }

    #[test]
    fn one_suite_is_used_and_nothing_is_negotiated() {
        assert!(seals_to(&[Aead::Aes128Gcm]));
        assert!(!seals_to(&[Aead::ChaCha20Poly1305]), "another suite");
        assert!(!seals_to(&[Aead::ChaCha20Poly1305, Aead::Aes128Gcm]), "another suite before it");
        assert!(!seals_to(&[Aead::Aes128Gcm, Aead::ChaCha20Poly1305]), "another suite after it");
    }

    #[test]
    fn what_is_no_key_configuration_is_refused() {
        let good = crate::sealed::oblivious::Key::generate(1).unwrap().config();
        let seals_to = |key_config: &[u8]| Request::new(key_config).is_ok();
        assert!(seals_to(&good));
        assert!(!seals_to(&[&good[..], &[0]].concat()), "a byte more");
        for end in 0..good.len() {
            assert!(!seals_to(&good[..end]), "{end} bytes");
        }
    }
}
