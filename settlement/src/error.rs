//! The one error type of this crate.

use crate::address::Address;

/// What can go wrong with money and chains. Every message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text or bytes are not what they are supposed to be.
    #[error("not {what}: {why}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// Why it is not that.
        why: String,
    },
    /// A cell does not follow its TL-B scheme.
    #[error("cell does not follow its scheme: {0}")]
    Cell(#[from] tycho_types::error::Error),
    /// A sum or product of amounts left the range of 64 bits, or would be negative.
    #[error("amounts out of range: {0}")]
    Arithmetic(&'static str),
    /// A signature does not verify.
    #[error("the signature of {0} is not by the key it names: ask its signer for a new one")]
    Signature(&'static str),
    /// The destination refused to accept an external message, so nothing happened and nothing was paid.
    #[error(
        "{account} did not accept the external message (exit code {exit_code}): for a wallet, 132 or 133 mean a used \
         sequence number, 136 that its time ran out, 135 another key; sign it again"
    )]
    NotAccepted {
        /// Destination.
        account: Address,
        /// Exit code of the contract, or an `EXIT_*` constant if no code ran.
        exit_code: i32,
    },
    /// A message was taken in, but a contract did not carry it out; unspent value came back.
    #[error("{account} did not carry out the message (exit code {exit_code}, see docs/contracts.md)")]
    Aborted {
        /// The account that failed.
        account: Address,
        /// Its exit code, or an `EXIT_*` constant if no code ran.
        exit_code: i32,
    },
    /// A message is not an external message that a chain would take in.
    #[error("not an external message to a standard address: {0}")]
    BadMessage(String),
    /// A get-method failed.
    #[error("get-method {method} ended with exit code {exit_code}: is this the right contract?")]
    GetMethod {
        /// Its name.
        method: String,
        /// How it ended.
        exit_code: i32,
    },
    /// A get-method or cell has another shape than its contract promises.
    #[error("{0} answered in a shape this version does not know: is this the right contract?")]
    Unexpected(String),
    /// An account that must be deployed is not.
    #[error("{0} is not deployed: deploy it first, or check the address and the network")]
    NotDeployed(Address),
    /// A Registry's governance wants new contracts to have other code than this program's.
    #[error(
        "the Registry's governance names release {version} for new {what}, with code {named}, and this program's is {ours}: use the \
         Cocoon that belongs to that release. Nothing was sent"
    )]
    OtherRelease {
        /// Providers or Channels.
        what: &'static str,
        /// The release's number.
        version: u32,
        /// Representation hash of the code that it names, in hexadecimal.
        named: String,
        /// That of this version's code.
        ours: String,
    },
    /// An account cannot pay for what it should do.
    #[error("{account} holds {balance}, which does not cover {needed}: top it up")]
    Funds {
        /// Who should pay.
        account: Address,
        /// What it has.
        balance: crate::amount::Nanoton,
        /// What is needed.
        needed: crate::amount::Nanoton,
    },
    /// An external message was taken in, but did not show up in time.
    #[error("message {0} was submitted, but is not on the chain yet: look for it before sending again")]
    NotSeen(String),
    /// A key file cannot be made or used.
    #[error("the key file {path} cannot be used: {why}")]
    KeyFile {
        /// Its path.
        path: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// An account's history does not lead to its balance.
    #[error("the history of {account} does not lead to its balance: {why}")]
    Unreconciled {
        /// The account.
        account: Address,
        /// By how much, and what to do.
        why: String,
    },
    /// A server leaves out something that only some need.
    #[error("the chain's server does not give {0}: ask another one, best your own")]
    Incomplete(&'static str),
    /// The local chain's files cannot be used.
    #[error("the local chain in {path} cannot be used: {why}")]
    Store {
        /// Folder.
        path: String,
        /// What happened.
        why: String,
    },
    /// The virtual machine or executor failed, which no message should be able to cause.
    #[error("the local chain could not execute a message: {0}")]
    Execution(String),
    /// The network's API cannot be reached or answers with an error.
    #[error("the TON API at {url} failed: {why}")]
    Api {
        /// Its address, without any key.
        url: String,
        /// What it said.
        why: String,
    },
}
