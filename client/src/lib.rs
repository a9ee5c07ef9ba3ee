//! The client's side of Cocoon. It believes nobody: it appraises an enclave's evidence itself before it seals anything to it, and
//! verifies what it was charged.
//!
//! - [`appraise`]: which enclaves may be asked, and why not the others. - [`state`]: what was promised and charged so far, on disk.
//! - [`talk`]: one request from voucher to verified receipt. - [`proxy`]: OpenAI's API on loopback, for code that speaks it already.

pub mod appraise;
pub mod config;
mod error;
mod logs;
mod net;
pub mod proxy;
pub mod state;
pub mod talk;

pub use appraise::Appraised;
pub use config::{ClientConfig, Clock, LogKey, SystemClock};
pub use error::Error;
pub use talk::{Answer, Client, SealedCall};
