use std::path::PathBuf;

use cocoon_attestation::Digest;

/// Why the host cannot go on. No variant carries content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guest could not be started.
    #[error("the guest {} did not start: {why}; its log is {}", binary.display(), log.display())]
    Launch {
        /// Its binary.
        binary: PathBuf,
        /// What happened.
        why: String,
        /// Where it wrote.
        log: PathBuf,
    },
    /// The guest's binary could not be measured.
    #[error(transparent)]
    Measure(#[from] cocoon_firmware_measurements::Error),
    /// Evidence that could not be read or endorsed.
    #[error(transparent)]
    Evidence(#[from] cocoon_attestation::Error),
    /// What vendors say about the platform is not to be had.
    #[error("the evidence cannot be endorsed: {0}")]
    Endorsements(String),
    /// A message that could not be read.
    #[error(transparent)]
    Protocol(#[from] cocoon_protocol::Error),
    /// Another part of the network does not answer as it should.
    #[error("{url}: {why}")]
    Peer {
        /// Which one.
        url: String,
        /// What it said.
        why: String,
    },
    /// Another part of the network could not be reached: it was sent nothing.
    #[error("{url} cannot be reached: {why}")]
    Unreachable {
        /// Which one.
        url: String,
        /// What the connection said.
        why: String,
    },
    /// Too few verifier nodes signed.
    #[error("{signed} of {needed} verdicts: {why}")]
    Verdicts {
        /// Nodes that signed the same verdict.
        signed: usize,
        /// Verdicts the Registry asks for.
        needed: usize,
        /// What the nodes that did not said.
        why: String,
    },
    /// The chain could not be asked or refused.
    #[error(transparent)]
    Chain(#[from] cocoon_settlement::Error),
    /// The host's record could not be read or written.
    #[error("receipts cannot be kept: {0}; check the disk and the data folder")]
    Store(String),
    /// Governance withdrew the guest's image.
    #[error("the Registry has withdrawn the image {image}: {}", replacement(.allowed))]
    Withdrawn {
        /// The image that ran.
        image: Digest,
        /// What may run instead.
        allowed: Vec<Digest>,
    },
    /// The enclave contradicts itself.
    #[error(
        "the enclave {enclave} signed two receipts that contradict one another: both are kept as evidence, and it is asked nothing more"
    )]
    Equivocation {
        /// Its key.
        enclave: String,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
}

/// Which image to launch instead.
pub(crate) fn replacement(allowed: &[Digest]) -> String {
    match allowed {
        [] => "none replaces it yet".into(),
        [one] => format!("launch {one} instead"),
        several => {
            let list: Vec<String> = several.iter().map(ToString::to_string).collect();
            format!("launch one of these instead: {}", list.join(", "))
        }
    }
}
