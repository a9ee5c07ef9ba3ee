use std::path::PathBuf;

/// Why a guest could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the guest could not be read.
    #[error("{}: {source}; a guest is measured from the very file that is launched", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A structure ends before it should, or points outside its file.
    #[error(
        "{what}: {len} bytes at offset {offset:#x} are needed, and there are {available} in all; the file is cut or no such file"
    )]
    Truncated {
        /// The structure that was read.
        what: &'static str,
        /// Where it should continue.
        offset: u64,
        /// How many bytes it should have there.
        len: u64,
        /// How many bytes there are.
        available: u64,
    },
    /// A structure is there and says something that it may not.
    #[error("{what}: {detail}")]
    Malformed {
        /// The structure that was read.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The inputs are sound, and what they would measure is not known here. There is no digest rather than a guess.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// Two inputs contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed { what, detail: detail.into() }
    }
}
