//! What travels between client, gateway, host and enclave.
//!
//! - [`sealed`]: the channel. Chunked Oblivious HTTP with X-Wing; gateway and host see ciphertext.
//! - [`statement`]: the attested identity key vouches for a short-lived key of that channel.
//! - [`voucher`], [`auth`]: who pays, and the proof inside the seal that the payer asked.
//! - [`receipt`]: what was served and what it cost, signed by the attested key.
//! - [`frame`], [`wire`], [`work`], [`announce`]: the hops outside the seal.
//!
//! `docs/protocol.md` has every byte with test vectors.

pub mod announce;
pub mod auth;
mod error;
pub mod frame;
pub mod identity;
pub mod receipt;
pub mod sealed;
pub mod statement;
pub mod voucher;
pub mod wire;
pub mod work;

pub use error::Error;
