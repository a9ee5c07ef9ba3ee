//! The client's side: seal a request, open its answer as it arrives.

use bhttp::stream::{AsyncMessage, AsyncReadMessage};
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use ohttp::KeyConfig;

use super::body::Records;
use super::padding::padded;
use super::pipe::{Shared, Sink, Source, Target, now};
use super::{
    AnswerHead, ENC_LEN, Field, HEADER_LEN, InnerRequest, MAX_SEALED_REQUEST, bhttp_error, fields, io_error,
    ohttp_error,
};
use crate::Error;
use crate::statement::KeyStatement;

/// The least length of a request before it is sealed.
const REQUEST_FLOOR: usize = 1024;

/// Key identifier, KEM, X-Wing public key, length of the list of suites, one suite (RFC 9458 section 3.1).
const KEY_CONFIG_LEN: usize = 1 + 2 + 1216 + 2 + 4;

type Respond = Box<dyn FnOnce(Source) -> Result<Source, Error> + Send>;

/// A request about to be sealed: its encapsulated key is known, its content is not yet written.
pub struct RequestSealer {
    sink: Sink,
    request: Target,
    respond: Respond,
}

impl RequestSealer {
    /// Encapsulates to the key of a statement that the caller has verified.
    ///
    /// # Errors
    /// The statement's key configuration is not X-Wing with HKDF-SHA256 and AES-128-GCM.
    pub fn new(statement: &KeyStatement) -> Result<Self, Error> {
        let mut config = KeyConfig::decode(&statement.key_config).map_err(ohttp_error)?;
        let encoded = config.encode().map_err(ohttp_error)?;
        // The key identifier, then the KEM: X-Wing. The length leaves room for one suite, which is the one at the end.
        if encoded.len() != KEY_CONFIG_LEN
            || encoded.get(1..3) != Some(&[0x64, 0x7a])
            || !encoded.ends_with(&[0, 4, 0, 1, 0, 1])
            || encoded != statement.key_config
        {
            return Err(Error::malformed(
                "a key configuration",
                "only X-Wing with HKDF-SHA256 and AES-128-GCM is used",
            ));
        }
        let client = ohttp::ClientRequest::from_config(&mut config).map_err(ohttp_error)?;
        let sink = Sink::default();
        let stream = Shared::new(client.encapsulate_stream(sink.clone()).map_err(ohttp_error)?);
        let mut request: Target = Box::new(stream.clone());
        let respond: Respond =
            Box::new(move |source| Ok(Box::new(stream.lock().response(source).map_err(ohttp_error)?) as Source));
        // Flushing writes the header, and with it the encapsulated key.
        now(request.flush())?.map_err(io_error)?;
        Ok(Self { sink, request, respond })
    }

    /// The encapsulated key, which binds what is inside the seal to this one sealing.
    pub fn enc(&self) -> Vec<u8> {
        self.sink.with(|written| written.get(HEADER_LEN..HEADER_LEN + ENC_LEN).unwrap_or_default().to_vec())
    }

    /// Seals the request. Gives the bytes to send and what opens the answer.
    ///
    /// # Errors
    /// The request is too large.
    pub fn seal(mut self, request: &InnerRequest) -> Result<(Vec<u8>, ResponseOpener), Error> {
        let mut message = bhttp::Message::request(
            request.method.clone().into_bytes(),
            b"https".to_vec(),
            Vec::new(),
            request.path.clone().into_bytes(),
        );
        for (name, value) in &request.headers {
            message.put_header(name.as_str(), value.as_str());
        }
        message.write_content(&request.body);
        let mut plain = Vec::new();
        message.write_bhttp(bhttp::Mode::KnownLength, &mut plain).map_err(bhttp_error)?;
        let length = padded(plain.len(), REQUEST_FLOOR);
        plain.resize(length, 0);
        now(self.request.write_all(&plain))?.map_err(io_error)?;
        now(self.request.close())?.map_err(io_error)?;
        let sealed = self.sink.take();
        if sealed.len() > MAX_SEALED_REQUEST {
            return Err(Error::TooLarge { what: "the sealed request", limit: MAX_SEALED_REQUEST });
        }
        Ok((sealed, ResponseOpener { respond: self.respond }))
    }
}

/// Opens the answer to one request.
pub struct ResponseOpener {
    respond: Respond,
}

impl ResponseOpener {
    /// Starts to read an answer from the bytes of the relay's response.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn open(self, source: impl AsyncRead + Send + Unpin + 'static) -> Result<OpenAnswer, Error> {
        let response = Shared::new((self.respond)(Box::new(source))?);
        let message = bhttp::Message::async_read(response.clone());
        Ok(OpenAnswer { response, message, records: Records::default() })
    }
}

/// An answer being opened. Every piece is authentic when it comes; only [`OpenAnswer::finish`] says that it is complete.
pub struct OpenAnswer {
    response: Shared<Source>,
    message: AsyncMessage<Shared<Source>>,
    records: Records,
}

impl OpenAnswer {
    /// Status and headers; to be called first.
    ///
    /// # Errors
    /// The answer was altered, is for another request, or ends too early.
    pub async fn head(&mut self) -> Result<AnswerHead, Error> {
        let header = self.message.header().await.map_err(bhttp_error)?;
        let status = header.control().status().ok_or_else(|| Error::malformed("the answer", "it is a request"))?;
        Ok(AnswerHead { status: status.code(), headers: fields(&header)? })
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut buffer = [0; 4096];
        loop {
            match self.records.next_data()? {
                Some(data) if data.is_empty() => continue,
                Some(data) => return Ok(Some(data)),
                None => {}
            }
            // Once the body has ended, bhttp gives no body any more.
            let Ok(mut body) = self.message.body() else { return Ok(None) };
            match body.read(&mut buffer).await.map_err(io_error)? {
                0 if self.records.is_whole() => return Ok(None),
                0 => return Err(Error::Truncated),
                length => self.records.push(&buffer[..length]),
            }
        }
    }

    /// The trailer, once the answer has ended with its final chunk and nothing is missing.
    ///
    /// # Errors
    /// [`Error::Truncated`] if anything is.
    pub async fn finish(mut self) -> Result<Vec<Field>, Error> {
        while self.next().await?.is_some() {}
        let trailer = fields(&self.message.trailer().await.map_err(bhttp_error)?)?;
        let mut buffer = [0; 1024];
        loop {
            match self.response.read(&mut buffer).await.map_err(io_error)? {
                0 => return Ok(trailer),
                length if buffer[..length].iter().any(|byte| *byte != 0) => {
                    return Err(Error::malformed("the answer", "its padding is not zero"));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::{Digest, EvidenceId, UnixTime};
    use ohttp::SymmetricSuite;
    use ohttp::hpke::{Aead, Kdf, Kem};

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
}
