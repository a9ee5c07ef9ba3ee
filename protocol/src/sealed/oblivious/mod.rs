//! Oblivious HTTP (RFC 9458) with chunked messages (draft-ietf-ohai-chunked-ohttp) in the one suite that Cocoon uses. It knows bytes
//! only; what they say is the business of the layers above.
//!
//! From the top: [`chunks`] frames, `hpke` derives keys (RFC 9180), `xwing` encapsulates, and `aead` and `hkdf` are aws-lc.

pub mod chunks;

mod aead;
mod hkdf;
mod hpke;
mod xwing;

use self::aead::{KEY_LEN, Sequence};
use self::chunks::{CHUNK_LEN, OVERHEAD, Reader, Writer};
use self::hpke::{Context, SUITE};
use self::xwing::{PUBLIC_LEN, PrivateKey};
use zeroize::Zeroizing;

use super::{ENC_LEN, HEADER_LEN};
use crate::Error;

/// Key identifier, KEM, public key, length of the list of suites, one suite (RFC 9458 section 3.1).
const KEY_CONFIG_LEN: usize = 1 + 2 + PUBLIC_LEN + 2 + 4;
/// What stands before the first chunk of a request: header and encapsulated key.
const HEAD_LEN: usize = HEADER_LEN + ENC_LEN;
/// Length of what stands before the first chunk of an answer, in bytes: the greater of the lengths of key and nonce.
pub const RESPONSE_NONCE_LEN: usize = 16;

const REQUEST_INFO: &[u8; 30] = b"message/bhttp chunked request\0";
const RESPONSE_LABEL: &[u8] = b"message/bhttp chunked response";

const _: () = assert!(ENC_LEN == xwing::ENC_LEN && HEADER_LEN == 1 + SUITE.len());

/// Key identifier and suite (RFC 9458 section 4.1).
fn header(key_id: u8) -> [u8; HEADER_LEN] {
    let [a, b, c, d, e, f] = SUITE;
    [key_id, a, b, c, d, e, f]
}

/// What the keys of a request are bound to (RFC 9458 section 4.3).
fn info(header: &[u8; HEADER_LEN]) -> [u8; REQUEST_INFO.len() + HEADER_LEN] {
    let mut info = [0; REQUEST_INFO.len() + HEADER_LEN];
    let (label, rest) = info.split_at_mut(REQUEST_INFO.len());
    label.copy_from_slice(REQUEST_INFO);
    rest.copy_from_slice(header);
    info
}

/// The client's side of one request.
pub struct Request {
    head: [u8; HEAD_LEN],
    writer: Writer,
    response: ResponseKey,
}

impl Request {
    /// Encapsulates to the key of an encoded key configuration.
    ///
    /// # Errors
    /// It offers anything else than the one suite, or its key is not a key.
    pub fn new(key_config: &[u8]) -> Result<Self, Error> {
        let (key_id, public) = read_key_config(key_config).ok_or_else(|| {
            Error::malformed("a key configuration", "only X-Wing with HKDF-SHA256 and AES-128-GCM is used")
        })?;
        let header = header(key_id);
        let (enc, context) = Context::sender(public, &info(&header))?;
        let mut head = [0; HEAD_LEN];
        head[..HEADER_LEN].copy_from_slice(&header);
        head[HEADER_LEN..].copy_from_slice(&enc);
        let response = ResponseKey::new(&enc, &context)?;
        Ok(Self { head, writer: Writer::new(context.messages), response })
    }

    /// The encapsulated key.
    pub fn enc(&self) -> &[u8] {
        &self.head[HEADER_LEN..]
    }

    /// Seals a whole message. Gives the bytes to send and what opens the answer.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn seal(self, plain: &[u8]) -> Result<(Vec<u8>, ResponseKey), Error> {
        let chunks = plain.len().div_ceil(CHUNK_LEN) + 1;
        let mut out = Vec::with_capacity(HEAD_LEN + plain.len() + chunks * OVERHEAD);
        let (mut writer, response) = self.start(&mut out);
        writer.write(plain, &mut out)?;
        writer.finish(&mut out)?;
        Ok((out, response))
    }

    /// Appends what stands before the first chunk to `out`. Gives what seals the chunks, and what opens the answer.
    pub fn start(self, out: &mut Vec<u8>) -> (Writer, ResponseKey) {
        out.extend_from_slice(&self.head);
        (self.writer, self.response)
    }
}

fn read_key_config(bytes: &[u8]) -> Option<(u8, &[u8; PUBLIC_LEN])> {
    let (key_id, rest) = bytes.split_first()?;
    let (public, suites) = rest.strip_prefix(&SUITE[..2])?.split_first_chunk()?;
    // One suite: four bytes.
    (suites.strip_prefix(&[0, 4])? == &SUITE[2..]).then_some((*key_id, public))
}

/// The enclave's side: a private key and the identifier that requests to it carry. RFC 9458 calls its holder the gateway.
pub struct Key {
    id: u8,
    key: PrivateKey,
}

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn generate(id: u8) -> Result<Self, Error> {
        Ok(Self { id, key: PrivateKey::generate()? })
    }

    /// The key that `ohttp::KeyConfig::derive` makes of the same bytes, for test vectors.
    #[cfg(test)]
    pub(super) fn derive(id: u8, ikm: &[u8]) -> Self {
        Self { id, key: hpke::tests::derive_key_pair(ikm) }
    }

    /// The encoded key configuration (RFC 9458 section 3.1).
    pub fn config(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(KEY_CONFIG_LEN);
        out.push(self.id);
        out.extend_from_slice(&SUITE[..2]);
        out.extend_from_slice(self.key.public());
        out.extend_from_slice(&[0, 4]);
        out.extend_from_slice(&SUITE[2..]);
        out
    }

    /// Opens a whole request. Gives its message and what seals the answer.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] if it is for another key or suite; or it was altered or cut off.
    pub fn open(&self, sealed: &[u8]) -> Result<(Vec<u8>, ResponseKey), Error> {
        let (header_found, rest) = sealed.split_first_chunk().ok_or(Error::Truncated)?;
        let (enc, chunks) = rest.split_first_chunk::<ENC_LEN>().ok_or(Error::Truncated)?;
        let header = header(self.id);
        if *header_found != header {
            return Err(Error::UnknownKey);
        }
        let context = Context::receiver(&self.key, enc, &info(&header))?;
        let response = ResponseKey::new(enc, &context)?;
        Ok((chunks::open_whole(context.messages, chunks)?, response))
    }
}

/// What the answer to one request is sealed and opened with.
pub struct ResponseKey {
    enc: Vec<u8>,
    secret: Zeroizing<[u8; RESPONSE_NONCE_LEN]>,
}

impl ResponseKey {
    fn new(enc: &[u8; ENC_LEN], context: &Context) -> Result<Self, Error> {
        Ok(Self { enc: enc.to_vec(), secret: context.export(RESPONSE_LABEL)? })
    }

    /// Starts an answer. Gives what stands before its first chunk, and what seals the chunks.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn seal(self) -> Result<([u8; RESPONSE_NONCE_LEN], Writer), Error> {
        let mut nonce = [0; RESPONSE_NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Error::Crypto("no random numbers"))?;
        Ok((nonce, Writer::new(self.messages(&nonce)?)))
    }

    /// Opens the chunks of an answer that starts with this nonce.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn open(self, nonce: &[u8; RESPONSE_NONCE_LEN]) -> Result<Reader, Error> {
        Ok(Reader::new(self.messages(nonce)?))
    }

    /// RFC 9458 section 4.4.
    fn messages(&self, nonce: &[u8; RESPONSE_NONCE_LEN]) -> Result<Sequence, Error> {
        let salt = [&self.enc[..], nonce].concat();
        let prk = hkdf::extract(&salt, &*self.secret)?;
        Sequence::new(&*hkdf::expand::<KEY_LEN>(&prk, &[b"key"])?, *hkdf::expand(&prk, &[b"nonce"])?)
    }
}
