//! What a client trusts, pays and keeps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cocoon_attestation::{ReferenceValues, UnixTime};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::channel::ChannelInit;
use cocoon_settlement::{Address, Nanoton, Prices};
use cocoon_verifier::Policy;

/// Where the time comes from: a test sets its own.
pub trait Clock: Send + Sync {
    /// Seconds since 1970.
    fn now(&self) -> UnixTime;
}

/// The machine's clock.
pub struct SystemClock;

impl SystemClock {
    /// Seconds since 1970, by the machine.
    pub fn time() -> UnixTime {
        UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        Self::time()
    }
}

/// A verifier node's log, for proofs that an enclave's evidence is in it.
#[derive(Clone, Debug)]
pub struct LogKey {
    /// Base URL of the node.
    pub url: String,
    /// Verifier key of its checkpoints, as a signed note names it.
    pub key: String,
    /// Verifier key with which it cosigns the checkpoints of the others.
    pub witness: String,
}

/// Everything a client needs to know.
#[derive(Clone)]
pub struct ClientConfig {
    /// Base URLs of gateways. None is trusted.
    pub gateways: Vec<String>,
    /// The chain that says which enclave keys are registered.
    pub chain: Arc<dyn Chain>,
    /// What evidence must show.
    pub policy: Policy,
    /// Measurements and model roots that are accepted. `None` accepts any, and is for tests.
    pub references: Option<ReferenceValues>,
    /// Logs that may prove inclusion.
    pub logs: Vec<LogKey>,
    /// How many of them must.
    pub required_logs: usize,
    /// How many of the others must have cosigned the checkpoint of each within the last ten minutes.
    pub required_witnesses: usize,
    /// The Registry whose verdicts count.
    pub registry: Address,
    /// Whether the enclave's key must be registered, by that Registry, with the provider on-chain.
    pub require_registered: bool,
    /// Oldest beacon in seconds; `None` accepts any age, and is for tests.
    pub max_beacon_age: Option<u64>,
    /// Initial data of the channel that pays.
    pub channel: ChannelInit,
    /// Seed of the channel's client key.
    pub client_key: [u8; 32],
    /// By how much the promise to an enclave grows at a time.
    pub voucher_step: Nanoton,
    /// The most that may ever be promised out of this channel; `None` is what it holds.
    pub spending_limit: Option<Nanoton>,
    /// Seconds that a voucher is good for.
    pub voucher_lifetime: u64,
    /// The most this client pays, nanoton per million tokens.
    pub max_prices: Prices,
    /// Where the client keeps its record.
    pub data: PathBuf,
    /// The time.
    pub clock: Arc<dyn Clock>,
}
