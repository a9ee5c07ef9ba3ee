/// Why something that travelled was not accepted. No variant carries content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are not what they claim to be.
    #[error("{what} cannot be read: {why}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong with it, without its content.
        why: String,
    },
    /// An Ed25519 signature that does not belong to what it stands under.
    #[error("the signature of {0} is not by the key it names")]
    Signature(&'static str),
    /// The sealed message is not for a key that is in use: wrong enclave, or an epoch that has ended.
    #[error("sealed to a key that this enclave does not hold now: fetch its key statement again")]
    UnknownKey,
    /// The sealed message was altered, or is for another key with the same identifier.
    #[error(
        "the sealed message was altered on the way or is for another enclave: fetch the key statement and seal it again"
    )]
    NotAuthentic,
    /// The same sealed request came a second time.
    #[error("this sealed request was accepted before: seal the request again to send it again")]
    Replayed,
    /// The replay guard of this key epoch holds all it can.
    #[error("this key epoch takes no more requests: try again when the key has rotated")]
    EpochFull,
    /// The answer ended before its end was signed.
    #[error("the answer broke off before its end: what came so far is authentic but incomplete")]
    Truncated,
    /// The voucher does not fit the request or the enclave.
    #[error("voucher refused: {0}")]
    Voucher(String),
    /// A key statement is not valid at this time.
    #[error("the key statement is valid from {from} to {until}, not at {at}: fetch a new one")]
    StatementTime {
        /// First second of validity.
        from: u64,
        /// Last second of validity.
        until: u64,
        /// The time of the check.
        at: u64,
    },
    /// A receipt contradicts what the client saw.
    #[error("receipt refused: {0}")]
    Receipt(String),
    /// Something larger than its bound.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The system gave no random numbers or the crypto library failed.
    #[error("cryptography failed: {0}")]
    Crypto(&'static str),
    /// Below the seal, the connection failed.
    #[error("the connection failed: {0}")]
    Io(String),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Malformed { what, why: why.to_string() }
    }
}

impl From<cocoon_attestation::Error> for Error {
    fn from(error: cocoon_attestation::Error) -> Self {
        Self::Malformed { what: "a message", why: error.to_string() }
    }
}
