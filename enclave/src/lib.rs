//! The guest binary of Cocoon. It makes evidence about itself, opens sealed requests, lets mistral.rs answer them, meters, and signs
//! receipts. It answers nothing in the clear but its evidence, and receipts to its host.
//!
//! - [`config`]: the measured configuration. - [`attester`], [`gpu`]: identity key, evidence, key epochs, the secure clock.
//! - [`load`]: models, hashed and tried before they serve. - [`ledger`], [`limits`]: what each channel owes, and what it may ask for.
//! - [`openai`]: the API inside the seal. - [`process`]: what the operating system may not keep. - [`egress`]: the way out, closed.
//! - [`session`]: one sealed request from opening to receipt. - [`unread`], [`out`]: how much of an answer may wait for its reader, and how long.
//! - [`http`], [`listen`]: the only door.

pub mod attester;
pub mod bench;
pub mod config;
pub mod egress;
pub mod gpu;
pub mod http;
pub mod ledger;
pub mod limits;
pub mod listen;
pub mod load;
pub mod models;
pub mod openai;
pub mod out;
pub mod process;
mod refusals;
mod running;
pub mod session;
pub mod unread;
