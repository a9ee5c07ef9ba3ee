use std::path::PathBuf;

/// Why evidence could not be written, read or collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A fixed-size value came with another length.
    #[error("{what} has {expected} bytes, not {actual}")]
    Length {
        /// The value that was read.
        what: &'static str,
        /// Its length in bytes.
        expected: usize,
        /// The length found.
        actual: usize,
    },
    /// Text that should be hexadecimal is not.
    #[error("{what} must be written in hexadecimal")]
    Hex {
        /// The value that was read.
        what: &'static str,
    },
    /// Bytes that are no CBOR, or CBOR other than the one deterministic encoding (RFC 8949 section 4.2.1).
    #[error("{what} is not deterministic CBOR: {detail}")]
    Cbor {
        /// The structure that was read.
        what: &'static str,
        /// What the decoder met.
        detail: String,
    },
    /// A field is absent, unknown, of another type, or out of its range.
    #[error("{what}: {detail}")]
    Field {
        /// The structure that was read.
        what: &'static str,
        /// Which field, and what is wrong with it.
        detail: String,
    },
    /// The bundle refers to an endorsement that it does not carry.
    #[error(
        "the bundle refers to endorsement {0} but does not carry it: ask whoever stored the bundle for the attached form"
    )]
    MissingEndorsement(crate::types::Digest),
    /// An event log names a register that does not exist.
    #[error("the event log extends register {0}; runtime registers are 0 to 3")]
    Register(u8),
    /// The model folder does not exist or is no folder.
    #[error("{}: no such model folder; give the path of a folder that holds config.json and the weights", .0.display())]
    NoModelFolder(PathBuf),
    /// The model folder holds something whose content the model root could not vouch for.
    #[error("{}: {reason}; a model folder holds plain files only", path.display())]
    ModelEntry {
        /// The offending entry.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A reference-value file is not what it claims to be.
    #[error("reference values: {0}")]
    Reference(String),
    /// The platform did not give a report.
    #[error("no attestation report: {0}")]
    Tsm(String),
    /// A report request did not stay alone: another writer used the same configfs entry.
    #[error("another process keeps writing to the report entry {0}; only the enclave may ask for reports")]
    TsmRace(String),
    /// The development platform cannot mint what it was asked for.
    #[error("development platform: {0}")]
    Dev(String),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
