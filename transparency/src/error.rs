//! What can go wrong with a log.

/// An error of a log or a proof.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The origin cannot name a key.
    #[error("the log's origin '{0}' is empty or holds a space or a plus sign; choose another one")]
    Origin(String),
    /// The log was written under another origin or key.
    #[error(
        "the log in this folder belongs to {found}, not to {expected}; open it with its own name and key, or choose another folder"
    )]
    OtherLog {
        /// Verifier key that the folder names.
        found: String,
        /// Verifier key of the caller.
        expected: String,
    },
    /// Another process has the log open.
    #[error("another process has the log in {0} open; stop it first")]
    InUse(String),
    /// The folder lacks something that was promised.
    #[error(
        "the log in this folder is damaged: {0}; restore it from a copy, or start a new log under another name: a log that forgets can never be trusted again"
    )]
    Damaged(String),
    /// There is no such leaf.
    #[error("the log has {size} leaves, none with index {index}; ask for a smaller index")]
    NoLeaf {
        /// Asked for.
        index: u64,
        /// Leaves in the log.
        size: u64,
    },
    /// Bytes that are no leaf.
    #[error("no log leaf: {0}; take it from the node again")]
    Leaf(String),
    /// A part that stands beside the tree is not there or is not what its name says.
    #[error("the part {0} of a leaf {1}; take it from another copy of the log")]
    Part(cocoon_attestation::Digest, &'static str),
    /// The verifier key is not one.
    #[error("'{0}' is no log verifier key; take the line that the node prints")]
    VerifierKey(String),
    /// The checkpoint is not signed by the expected log, or is malformed.
    #[error("the checkpoint does not hold: {0}; take a new one, and do not trust this log if it happens again")]
    Checkpoint(String),
    /// The proof does not lead from the leaf to the checkpoint.
    #[error("the leaf is not proved to be in the log: {0}; treat the evidence as not logged")]
    Proof(String),
    /// Two checkpoints of one log, neither of which continues the other.
    #[error("the log shows different histories: {0}; keep both checkpoints as evidence, and do not trust this log")]
    SplitView(String),
    /// Somebody stopped a replay.
    #[error("the replay was stopped; start it again with the same folder, and it goes on from where it was")]
    Stopped,
    /// The chain did not answer, or not as a chain does.
    #[error("{0}")]
    Chain(#[from] cocoon_settlement::Error),
    /// The disk or the database failed.
    #[error("the log's files failed: {0}; check the disk and its free space")]
    Store(String),
    /// The crypto library refused a key.
    #[error("the log's signing key was refused; make a new seed")]
    Key,
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
    std::io::Error
);
