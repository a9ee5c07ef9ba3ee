//! The sealed channel: Oblivious HTTP (RFC 9458) with chunked messages, KEM X-Wing (0x647a), AES-128-GCM; inside it Binary HTTP
//! (RFC 9292). One round trip, streaming answers, post-quantum confidentiality.
//!
//! The request is sealed whole; the answer is opened as it arrives. A client knows the encapsulated key (`enc`) before it seals
//! anything, so that the proof of payment inside the seal can be bound to it.

pub mod oblivious;

mod answer;
mod binary_http;
mod body;
mod client;
mod padding;
mod replay;
mod server;
mod varint;

use cocoon_attestation::Digest;
use zeroize::Zeroizing;

pub use client::{OpenAnswer, RequestSealer, ResponseOpener};
pub use padding::padme;
pub use replay::ReplayGuard;
pub use server::{EpochKey, Opened, Receiver, ResponseSealer};

/// Length of the encapsulated key of X-Wing, in bytes.
pub const ENC_LEN: usize = 1120;
/// Length of the OHTTP request header before the encapsulated key, in bytes.
pub const HEADER_LEN: usize = 7;
/// The largest sealed request that is taken, in bytes.
pub const MAX_SEALED_REQUEST: usize = 1 << 20;

/// Names a sealed request among an enclave's: SHA-256 of its encapsulated key, which is accepted once. `None` if it is too short to have one.
pub fn request_id(sealed: &[u8]) -> Option<Digest> {
    sealed.get(HEADER_LEN..HEADER_LEN + ENC_LEN).map(|enc| Digest::of(&[enc]))
}

/// Name and value of an inner header or trailer.
pub type Field = (String, String);

/// A request inside the seal.
#[derive(Clone, PartialEq, Eq)]
pub struct InnerRequest {
    /// `GET` or `POST`.
    pub method: String,
    /// Path with its leading slash.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: Vec<Field>,
    /// Body; overwritten when it is dropped.
    pub body: Zeroizing<Vec<u8>>,
}

impl InnerRequest {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Shows sizes only: a request is its prompt.
impl std::fmt::Debug for InnerRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InnerRequest({} headers, {} bytes)", self.headers.len(), self.body.len())
    }
}

/// Status and headers of an answer inside the seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<Field>,
}
