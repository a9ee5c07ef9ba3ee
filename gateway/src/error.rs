//! What a gateway answers when it cannot relay. Nothing here says anything about content: the gateway sees none.

use axum::Json;
use axum::response::{IntoResponse, Response};
use cocoon_protocol::wire::{ENCLAVE_HEADER, Refusal};
use http::StatusCode;

/// An error of a gateway.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No enclave was named.
    #[error("the request names no enclave in its header {ENCLAVE_HEADER}")]
    NoEnclave,
    /// Nobody announces the enclave, or no longer.
    #[error("no host announces this enclave")]
    UnknownEnclave,
    /// The request's body is too large.
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    /// The announcement cannot be used.
    #[error("the announcement cannot be used: {0}")]
    Announcement(String),
    /// The announcement is not signed, or not by the key it names, or not now.
    #[error("the announcement is not authentic: {0}")]
    Unsigned(String),
    /// The announcement is signed, by somebody who may not make it or of an enclave that may not be listed.
    #[error("the announcement is refused: {0}")]
    NotAllowed(String),
    /// A newer announcement of the enclave is known.
    #[error("a newer announcement of this enclave is known, or this very one")]
    Stale,
    /// More announcements than may be asked about at once.
    #[error("too many announcements of enclaves that are not known yet come at once")]
    Busy,
    /// The chain cannot be asked whether an announcement may be listed.
    #[error("the chain does not say whether this enclave may be listed")]
    Chain,
    /// The request did not come whole in time.
    #[error("the request did not come to its end within {0} s")]
    Slow(u64),
    /// The directory is full.
    #[error("the directory holds as many enclaves as it can")]
    Full,
    /// The host cannot be reached: it was sent nothing.
    #[error("the enclave's host does not answer")]
    Unreachable,
    /// The host broke off after the request was sent.
    #[error("the enclave's host broke off, and its enclave may have generated")]
    Host,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, what_to_do) = match &self {
            Self::NoEnclave => (StatusCode::BAD_REQUEST, "send the evidence id of an enclave from /v1/enclaves"),
            Self::UnknownEnclave => (StatusCode::NOT_FOUND, "take another enclave from /v1/enclaves"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "send a shorter request"),
            Self::Announcement(_) => (StatusCode::BAD_REQUEST, "correct the announcement and send it again"),
            Self::Unsigned(_) => (
                StatusCode::UNAUTHORIZED,
                "sign it with the wallet of the provider's owner, for this network, by a clock that is right",
            ),
            Self::NotAllowed(_) => (
                StatusCode::FORBIDDEN,
                "announce enclaves of a provider that you own, with the evidence that the Registry took last",
            ),
            Self::Stale => (StatusCode::CONFLICT, "sign it anew"),
            Self::Busy | Self::Chain => (StatusCode::SERVICE_UNAVAILABLE, "announce again shortly"),
            Self::Slow(_) => (StatusCode::REQUEST_TIMEOUT, "send it in one go"),
            Self::Full => (StatusCode::SERVICE_UNAVAILABLE, "announce to another gateway"),
            Self::Unreachable => (StatusCode::SERVICE_UNAVAILABLE, "take another enclave from /v1/enclaves"),
            Self::Host => (StatusCode::BAD_GATEWAY, "ask again only if it may be paid twice"),
        };
        (status, Json(Refusal { error: self.to_string(), what_to_do: what_to_do.into() })).into_response()
    }
}
