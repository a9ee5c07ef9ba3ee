//! Paying for inference on TON: amounts and signed cells, the contracts and their messages, a wallet, and the two chains that
//! speak the same [`chain::Chain`] trait: a local one that executes real TON transactions, and the network's.

pub mod account;
pub mod address;
pub mod amount;
pub mod cells;
pub mod chain;
pub mod contracts;
pub mod database;
mod error;
#[cfg(feature = "keys")]
pub mod keyfile;
pub mod local;
#[cfg(feature = "keys")]
pub mod mnemonic;
pub mod ops;
pub mod statement;
mod summary;
pub mod toncenter;
pub mod wallet;

pub use address::{Address, GivenAddress, NetworkId};
pub use amount::{Nanoton, Prices};
pub use error::Error;
