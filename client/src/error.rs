use cocoon_settlement::Nanoton;

/// Why a request was not sent, or its answer not believed. No variant carries content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An enclave that must not be trusted; nothing was sent to it.
    #[error("enclave refused by {check}: {reason}")]
    Refused {
        /// Identifier of the check that refused.
        check: String,
        /// What it found, and what to do.
        reason: String,
    },
    /// No enclave is left to ask.
    #[error("no enclave serves {model}: {why}")]
    NoEnclave {
        /// The model that was asked for.
        model: String,
        /// Why the last candidate was not taken.
        why: String,
    },
    /// A relay or enclave refused the request, outside the seal.
    #[error("{who} refused with status {status}: {reason}")]
    Relay {
        /// `gateway` or `host`.
        who: &'static str,
        /// HTTP status.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// A connection could not be made or broke off.
    #[error("{url} does not answer: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// What the connection said.
        why: String,
    },
    /// The answer broke off after something of it had come: it is not repeated.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// The enclave's receipt is missing or contradicts what came.
    #[error("the receipt does not hold: {0}; keep it, it is signed by the enclave")]
    Receipt(String),
    /// The enclave charges more than this client pays.
    #[error(
        "the enclave asks {asked} for {kind} tokens and this client pays at most {limit} nanoton per million: raise the limit or ask another"
    )]
    Price {
        /// Kind of token.
        kind: &'static str,
        /// Price asked.
        asked: u64,
        /// This client's limit.
        limit: u64,
    },
    /// The channel cannot pay any more.
    #[error(
        "the channel holds too little for what this request can cost: top it up, or ask for fewer tokens (max_tokens)"
    )]
    ChannelEmpty,
    /// More would be promised than this client may spend.
    #[error(
        "the spending limit of {limit} is reached: {promised} are spent or promised out of this channel; raise `spending_limit` to go on"
    )]
    SpendingLimit {
        /// The limit.
        limit: Nanoton,
        /// Sum of all caps signed so far.
        promised: Nanoton,
    },
    /// The cap was raised several times, and others used it up each time.
    #[error("other requests of this channel use up each voucher at once: try again shortly")]
    CapRace,
    /// Sealing, opening or signing failed.
    #[error(transparent)]
    Protocol(#[from] cocoon_protocol::Error),
    /// The chain could not be asked.
    #[error(transparent)]
    Chain(#[from] cocoon_settlement::Error),
    /// The client's own record could not be read or written.
    #[error("the client's record cannot be kept: {0}; check the disk and the data folder")]
    State(String),
}

impl Error {
    pub(crate) fn refused(check: &str, reason: impl std::fmt::Display) -> Self {
        Self::Refused { check: check.into(), reason: reason.to_string() }
    }
}
