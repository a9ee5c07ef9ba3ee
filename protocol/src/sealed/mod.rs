//! The sealed channel: Oblivious HTTP (RFC 9458) with chunked messages, KEM X-Wing (0x647a), AES-128-GCM; inside it Binary HTTP
//! (RFC 9292). One round trip, streaming answers, post-quantum confidentiality.
//!
//! The request is sealed whole; the answer is opened as it arrives. A client knows the encapsulated key (`enc`) before it seals
//! anything, so that the proof of payment inside the seal can be bound to it.

mod body;
mod client;
mod padding;
mod pipe;
mod replay;
mod server;

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
    /// Body.
    pub body: Vec<u8>,
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

fn fields(section: &bhttp::FieldSection) -> Result<Vec<Field>, crate::Error> {
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec()).map_err(|_| crate::Error::malformed("an inner header", "it is not UTF-8"))
    };
    section.iter().map(|field| Ok((text(field.name())?.to_ascii_lowercase(), text(field.value())?))).collect()
}

fn ohttp_error(error: ohttp::Error) -> crate::Error {
    use crate::Error;
    match error {
        ohttp::Error::KeyId | ohttp::Error::Unsupported | ohttp::Error::InvalidKem | ohttp::Error::InvalidKeyType => {
            Error::UnknownKey
        }
        ohttp::Error::Truncated => Error::Truncated,
        _ => Error::NotAuthentic,
    }
}

fn io_error(error: std::io::Error) -> crate::Error {
    use crate::Error;
    // ohttp and bhttp wrap their own errors, possibly in one another.
    let mut source: Option<&(dyn std::error::Error + 'static)> =
        error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<ohttp::Error>() {
            return match error {
                ohttp::Error::Truncated => Error::Truncated,
                ohttp::Error::KeyId | ohttp::Error::Unsupported => Error::UnknownKey,
                _ => Error::NotAuthentic,
            };
        }
        if let Some(bhttp::Error::Truncated) = inner.downcast_ref::<bhttp::Error>() {
            return Error::Truncated;
        }
        if let Some(error) = inner.downcast_ref::<std::io::Error>() {
            source = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
            continue;
        }
        source = inner.source();
    }
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::Truncated,
        kind => Error::Io(kind.to_string()),
    }
}

fn bhttp_error(error: bhttp::Error) -> crate::Error {
    match error {
        bhttp::Error::Truncated => crate::Error::Truncated,
        bhttp::Error::Io(error) => io_error(error),
        other => crate::Error::malformed("the sealed message", kind(&other)),
    }
}

/// Names the error without its content: some of bhttp's variants quote what they read.
fn kind(error: &bhttp::Error) -> String {
    let text = format!("{error:?}");
    text.split(['(', '{', ' ']).next().unwrap_or("not Binary HTTP").to_owned()
}
