//! Why a guest does not come up.

use std::path::{Path, PathBuf};

/// Why a guest does not come up. The machine's console shows the message before it is switched off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel's command line does not say what it must.
    #[error("kernel command line: {0}")]
    Parameter(String),
    /// A step failed in the kernel.
    #[error("{step}: {source}")]
    Step {
        /// What was being done.
        step: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A device that the host has to give is not there.
    #[error("{0}")]
    Missing(String),
    /// The machine is not fit for what it is to do.
    #[error("{0}")]
    Unfit(String),
}

impl Error {
    /// Says which step failed; for `map_err`.
    pub(crate) fn step(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Step { step: step.into(), source }
    }

    /// Says that a file could not be read or written; for `map_err`.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = PathBuf::from(path);
        move |source| Self::Step { step: path.display().to_string(), source }
    }
}
