//! The GPU owner's shim. It launches the guest, has it attested, relays ciphertext, keeps receipts and claims pay. It is trusted with
//! nothing but availability.
//!
//! - [`launch`], [`join`], [`endorse`], [`attest`]: from a binary to a key that is registered on-chain.
//! - [`relay`]: sealed requests in, sealed answers out. - [`store`]: receipts, durable before they are acknowledged.
//! - [`reserve`]: no more is promised than is there. - [`claim`] turns receipts into money; [`deadline`]: until when; [`refusal`]: what it learns from a no. -
//!   [`room`] for further keys.
//! - [`doctor`]: whether a machine can protect guests. - [`vm`]: guests in virtual machines.

pub mod attest;
mod back_off;
pub mod claim;
pub mod deadline;
pub mod doctor;
pub mod endorse;
mod error;
pub mod join;
pub mod launch;
mod net;
mod owed;
pub mod refusal;
pub mod relay;
pub mod reserve;
pub mod room;
pub mod store;
mod supervise;
pub mod vm;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cocoon_attestation::{Digest, EnclaveKey, EvidenceId};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::wire::Announcement;
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use attest::{Attestation, collect_evidence};
pub use claim::{ClaimReport, Claimer, Held};
pub use endorse::{DevEndorser, Endorser};
pub use error::Error;
pub use join::{GuestAddress, Joiner};
pub use launch::{EnclaveLauncher, Guest, LaunchSpec, ProcessLauncher, RunningEnclave};
pub use net::get;
pub use relay::Tap;

/// A listener whose connections send every piece at once: a streamed token must not wait for the acknowledgement of the last.
pub fn no_delay(listener: tokio::net::TcpListener) -> impl axum::serve::Listener<Addr = SocketAddr> {
    use axum::serve::ListenerExt;
    listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
    })
}

/// What a host is started with.
pub struct HostConfig {
    /// TON network.
    pub network: NetworkId,
    /// The provider's contract.
    pub provider: Address,
    /// The Registry.
    pub registry: Address,
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// The provider's wallet, which pays for attestations and claims.
    pub account: Arc<Account>,
    /// That wallet's key: it signs what is announced.
    pub owner_key: SigningKey,
    /// Starts guests.
    pub launcher: Arc<dyn EnclaveLauncher>,
    /// Gets endorsements.
    pub endorser: Arc<dyn Endorser>,
    /// The guest's measured configuration.
    pub guest_config: PathBuf,
    /// The model folder.
    pub model: PathBuf,
    /// Names of the models served.
    pub model_names: Vec<String>,
    /// What is asked, nanoton per million tokens.
    pub prices: Prices,
    /// Base URLs of verifier nodes.
    pub node_urls: Vec<String>,
    /// Base URLs of gateways.
    pub gateway_urls: Vec<String>,
    /// Where the relay listens.
    pub listen: SocketAddr,
    /// What gateways are told, where they reach the relay by another address than the one it listens at.
    pub url: Option<String>,
    /// Where receipts and logs are kept.
    pub data: PathBuf,
    /// Sees every byte that passes, if anybody wants to look.
    pub tap: Option<Arc<dyn Tap>>,
    /// When to claim without being asked; `None` claims only when asked.
    pub claims: Option<ClaimRule>,
}

/// When a host claims by itself.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRule {
    /// Time between two rounds.
    pub every: Duration,
    /// What a channel's claim must bring to be made at once. Whatever this says, none is made that brings less than its fees.
    pub least: Nanoton,
    /// How long a receipt waits at most for others to be worth a claim together.
    pub max_age: Duration,
    /// Whether what was refused is claimed again before its time, and whatever that has cost.
    pub again: bool,
}

/// An enclave that takes requests.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its evidence.
    pub evidence_id: EvidenceId,
    /// Its key.
    pub enclave_key: EnclaveKey,
    /// Its process; `None` if it runs elsewhere.
    pub pid: Option<u32>,
    /// Where the host reaches it.
    pub base_url: String,
    /// Its image, as the Registry lists it.
    pub image: Digest,
    /// What the host announces.
    pub announcement: Announcement,
}

/// What the host is doing.
#[derive(Clone, Debug)]
pub enum Status {
    /// The guest is being launched or attested.
    Starting {
        /// Why it is not ready yet, if something went wrong.
        why: Option<String>,
    },
    /// Requests are served.
    Ready(Box<Ready>),
    /// The Registry has withdrawn the guest's image, or the host stops: open answers are finished, new requests are refused.
    Draining {
        /// The guest, which still runs.
        ready: Box<Ready>,
        /// What is wrong and what to launch instead, in one line.
        why: String,
    },
}

pub(crate) struct Shared {
    pub(crate) config: HostConfig,
    pub(crate) store: store::Store,
    pub(crate) http: net::Http,
    pub(crate) channels: relay::Channels,
    pub(crate) standing: relay::Standing,
    pub(crate) reservations: reserve::Reservations,
    pub(crate) claimer: Claimer,
    /// The enclave contradicted itself and is to be replaced.
    pub(crate) condemned: AtomicBool,
    /// The host stops: whatever state it is in, it takes no new requests.
    pub(crate) stopping: AtomicBool,
    /// No launch is waited for any more.
    pub(crate) given_up: Arc<AtomicBool>,
    /// Held once for each answer under way.
    pub(crate) open: Arc<()>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) relay_url: RwLock<String>,
}

impl Shared {
    fn with_ready<T>(&self, look: impl FnOnce(&Ready) -> T) -> Option<T> {
        match &*self.status.borrow() {
            Status::Ready(ready) | Status::Draining { ready, .. } => Some(look(ready)),
            Status::Starting { .. } => None,
        }
    }

    /// Whether the guest only finishes what it has begun.
    pub(crate) fn draining(&self) -> bool {
        self.stopping() || matches!(&*self.status.borrow(), Status::Draining { .. })
    }

    /// Whether it does so because the host stops.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Answers under way, receipts that are still fetched included.
    pub(crate) fn open_answers(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Evidence id and base URL of the enclave.
    pub(crate) fn ready(&self) -> Option<(String, String)> {
        self.with_ready(|ready| (ready.evidence_id.to_string(), ready.base_url.clone()))
    }

    pub(crate) fn enclave_key(&self) -> Option<EnclaveKey> {
        self.with_ready(|ready| ready.enclave_key)
    }

    pub(crate) fn announcement(&self) -> Option<Announcement> {
        if self.draining() {
            return None;
        }
        self.with_ready(|ready| ready.announcement.clone())
    }

    pub(crate) fn relay_url(&self) -> String {
        self.relay_url.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn tapped(&self, bytes: &[u8]) {
        if let Some(tap) = &self.config.tap {
            tap.bytes(bytes);
        }
    }
}

/// A running host.
pub struct Host {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Host {
    /// Opens the record, starts the relay and begins to launch the guest.
    ///
    /// # Errors
    /// The data folder or the address cannot be used.
    pub async fn start(config: HostConfig) -> Result<Self, Error> {
        std::fs::create_dir_all(&config.data).map_err(|error| Error::Store(error.to_string()))?;
        let store = store::Store::open(&config.data.join("host.redb"))?;
        let listener =
            tokio::net::TcpListener::bind(config.listen).await.map_err(|error| Error::Listen(config.listen, error))?;
        let address = listener.local_addr().map_err(|error| Error::Listen(config.listen, error))?;
        let url = config.url.clone().unwrap_or_else(|| format!("http://{address}"));
        let shared = Arc::new(Shared {
            http: net::Http::new(config.tap.clone())?,
            claimer: Claimer::new(config.account.clone(), config.provider),
            config,
            store,
            channels: relay::Channels::default(),
            standing: relay::Standing::default(),
            reservations: reserve::Reservations::default(),
            condemned: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            given_up: Arc::default(),
            open: Arc::default(),
            status: watch::Sender::new(Status::Starting { why: None }),
            relay_url: RwLock::new(url),
        });
        let (stop, stopped) = watch::channel(false);
        let router = relay::router(shared.clone());
        let mut tasks = Vec::new();
        if let Some(rule) = shared.config.claims {
            tasks.push(tokio::spawn(claim::regularly(shared.clone(), rule)));
        }
        tasks.extend([
            tokio::spawn(async move {
                if let Err(error) = axum::serve(no_delay(listener), router).await {
                    tracing::error!(%error, "the relay ended");
                }
            }),
            tokio::spawn(supervise::run(shared.clone(), stopped)),
        ]);
        Ok(Self { shared, stop, tasks })
    }

    /// Waits until the enclave takes requests.
    ///
    /// # Errors
    /// It does not within `timeout`; the message says what went wrong last.
    pub async fn ready(&self, timeout: Duration) -> Result<Ready, Error> {
        let mut status = self.shared.status.subscribe();
        let waited = tokio::time::timeout(timeout, async {
            loop {
                if let Status::Ready(ready) = &*status.borrow_and_update() {
                    return Some((**ready).clone());
                }
                status.changed().await.ok()?;
            }
        })
        .await;
        match waited {
            Ok(Some(ready)) => Ok(ready),
            _ => {
                let why = match self.status() {
                    Status::Starting { why } => why,
                    Status::Ready(_) => None,
                    Status::Draining { why, .. } => Some(why),
                };
                let why = why.unwrap_or_else(|| "it is still starting".into());
                Err(Error::Peer { url: "the enclave".into(), why })
            }
        }
    }

    /// Waits for the first guest. Unlike [`Self::ready`], which trusts that what worked before works again, this gives up at
    /// the first failure.
    ///
    /// # Errors
    /// The guest did not start or was not attested, or not in time.
    pub async fn first_ready(&self, timeout: Duration) -> Result<Ready, Error> {
        let mut status = self.shared.status.subscribe();
        let failed = async {
            loop {
                if let Status::Starting { why: Some(why) } = &*status.borrow_and_update() {
                    return why.clone();
                }
                if status.changed().await.is_err() {
                    return "the host has stopped".into();
                }
            }
        };
        tokio::select! {
            ready = self.ready(timeout) => ready,
            why = failed => Err(Error::Peer { url: "the enclave".into(), why }),
        }
    }

    /// What the host is doing.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Tells of every change of [`Self::status`].
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Answers under way.
    pub fn open_answers(&self) -> usize {
        self.shared.open_answers()
    }

    /// Process id of the enclave, if it runs.
    pub fn enclave_pid(&self) -> Option<u32> {
        self.shared.with_ready(|ready| ready.pid).flatten()
    }

    /// What the host announces, if the enclave is ready.
    pub fn announcement(&self) -> Option<Announcement> {
        self.shared.announcement()
    }

    /// Base URL of the relay.
    pub fn url(&self) -> String {
        self.shared.relay_url()
    }

    /// Vouchers and receipts.
    pub fn store(&self) -> &store::Store {
        &self.shared.store
    }

    /// Claims every receipt that is worth its claim's fees.
    ///
    /// # Errors
    /// The chain or the record does not answer. What was claimed stays claimed.
    pub async fn claim_all(&self) -> Result<ClaimReport, Error> {
        self.shared.claimer.round(&self.shared.store, &claim::AT_ONCE).await
    }

    /// Takes no new requests and waits until the answers under way have ended and their receipts are kept, for `grace` at most. Gives how many
    /// are open then.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.status.send_modify(|status| {
            if let Status::Ready(ready) = status {
                *status = Status::Draining { ready: ready.clone(), why: "the host stops".into() };
            }
        });
        let waited = async {
            while self.open_answers() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(grace, waited).await;
        self.open_answers()
    }

    /// Stops the guest and the relay at once; [`Self::drain`] comes before.
    pub async fn shutdown(mut self) {
        self.shared.given_up.store(true, Ordering::Relaxed);
        let _ = self.stop.send(true);
        if let Some(supervisor) = self.tasks.pop() {
            let _ = supervisor.await;
        }
        for task in &self.tasks {
            task.abort();
        }
    }
}
