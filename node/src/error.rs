//! What can go wrong in a node.

use cocoon_protocol::wire::LogInclusion;
use cocoon_verifier::Outcome;

/// Why a node signs no verdict for a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{outcome}: {reason}")]
pub struct Refused {
    /// What came of the appraisal.
    pub outcome: Outcome,
    /// Why, in words a person can act on.
    pub reason: String,
    /// The same as a signed note by the key of the node's log: outcome, evidence id or `-`, SHA-256 of the bundle, time, reason.
    pub statement: String,
    /// Where the log holds the refusal; evidence that is not authentic is not logged.
    pub inclusion: Option<LogInclusion>,
}

/// An error of a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bundle does not deserve a verdict.
    #[error(transparent)]
    Refused(#[from] Box<Refused>),
    /// The node has enough to do.
    #[error("this node has {0} bundles to appraise already; send it again in a second, or ask another node")]
    Busy(usize),
    /// Garbage came under this stamp before.
    #[error("what came under this stamp was refused before, as it will be again: the refusal said why")]
    Spent,
    /// A provider brings evidence faster than it may.
    #[error("the provider brought more evidence than it may: send it again in {0} s")]
    TooMuch(u64),
    /// The policy or the reference values cannot be read.
    #[error("the node's {0}")]
    Document(String),
    /// The Registry does not know this node by its key.
    #[error(
        "verifier {index} of the Registry has another key than this node: correct the node's index or have governance set its key"
    )]
    NotVerifier {
        /// The node's configured place.
        index: u8,
    },
    /// The chain could not be asked.
    #[error("the chain could not be asked: {0}")]
    Chain(#[from] cocoon_settlement::Error),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] cocoon_transparency::Error),
    /// The node's own database failed.
    #[error("the node's database failed: {0}; check the disk and its free space")]
    Store(String),
    /// The node is stopping, or its verifier broke off.
    #[error("the appraisal broke off: {0}; send the bundle again")]
    Interrupted(String),
    /// No bundle with this evidence id was logged here.
    #[error("this node has not logged that evidence id; have the bundle appraised first")]
    NotLogged,
}

macro_rules! store_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Store(error.to_string())
            }
        }
    )*};
}
store_errors!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    std::io::Error,
    serde_json::Error
);
