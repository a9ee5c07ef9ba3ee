//! The guest binary of Cocoon. It makes evidence about itself, opens sealed requests, lets mistral.rs answer them, meters, and signs
//! receipts. It answers nothing in the clear but its evidence, and receipts to its host.
//!
//! - [`config`]: the measured configuration. - [`attester`]: identity key, evidence, key epochs, the secure clock.
//! - [`ledger`]: what each channel owes, and the voucher's cap. - [`openai`]: the API inside the seal.
//! - [`session`]: one sealed request from opening to receipt. - [`http`]: the only door.

pub mod attester;
pub mod bench;
pub mod config;
pub mod http;
pub mod ledger;
pub mod openai;
pub mod session;
