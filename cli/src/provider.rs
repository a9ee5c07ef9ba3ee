//! What a provider runs: a guest, and the host in front of it. `cocoon up` and `cocoon host serve` start both here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cocoon_attestation::dev::DevPlatform;
use cocoon_host::vm::{DevelopmentCpu, Plan, VmLauncher};
use cocoon_host::{
    ClaimRule, DevEndorser, EnclaveLauncher, Endorser, GuestAddress, Host, HostConfig, Joiner, ProcessLauncher,
};
use cocoon_protocol::identity::SigningKey;
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::ProviderInit;
use cocoon_settlement::contracts::channel::{channel_code_depth, channel_code_hash};
use cocoon_settlement::{Address, Nanoton, Prices};

use crate::network::Tee;

/// Below this, a claim's fees (about 0.014 TON) are a large part of what it brings.
pub const CLAIM_LEAST: Nanoton = Nanoton(50_000_000);
/// How long less than this waits for more.
pub const CLAIM_AGE: Duration = Duration::from_secs(6 * 3_600);

/// A guest, and who starts it.
pub enum Guest {
    /// A process of this machine, with the development platform as its CPU. **Not confidential.**
    Process {
        /// The guest's binary.
        binary: PathBuf,
        /// Its model folder.
        model: PathBuf,
        /// Which CPU is played.
        tee: Tee,
        /// Who plays it.
        platform: DevPlatform,
    },
    /// A virtual machine; with a development platform that plays its CPU, where it is only emulated.
    Machine(Box<Plan>, Option<DevPlatform>),
    /// Somebody else launched it and keeps it running; with the development platform that endorses it, if one does.
    Running(GuestAddress, Option<DevPlatform>),
}

impl Guest {
    /// What starts it, and the development platform's own endorsements of it, if it has such a platform.
    pub fn launcher(&self) -> (Arc<dyn EnclaveLauncher>, Option<Arc<dyn Endorser>>) {
        let endorsed = |platform: &DevPlatform| Arc::new(DevEndorser::new(platform.clone())) as Arc<dyn Endorser>;
        match self {
            Self::Process { binary, tee, platform, .. } => {
                let launcher = ProcessLauncher::new(binary.clone(), platform.clone(), tee.cpu());
                (Arc::new(launcher), Some(endorsed(platform)))
            }
            Self::Machine(plan, None) => (Arc::new(VmLauncher::new((**plan).clone())), None),
            Self::Machine(plan, Some(platform)) => {
                let cpu = Arc::new(DevelopmentCpu::new(platform.clone()));
                (Arc::new(VmLauncher::new((**plan).clone()).with_cpu(cpu.clone())), Some(cpu))
            }
            Self::Running(address, platform) => {
                (Arc::new(Joiner::new(address.clone())), platform.as_ref().map(endorsed))
            }
        }
    }

    /// Its model folder, where that is not in its image.
    fn model(&self) -> &Path {
        match self {
            Self::Process { model, .. } => model,
            Self::Machine(..) | Self::Running(..) => Path::new(""),
        }
    }
}

/// What a host is run with.
pub struct Provider {
    /// The contract.
    pub terms: ProviderInit,
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// The owner's wallet.
    pub account: Arc<Account>,
    /// Its key.
    pub owner_key: SigningKey,
    /// What is launched.
    pub guest: Guest,
    /// What is stapled to evidence; the development platform's own endorsements if `None`.
    pub endorser: Option<Arc<dyn Endorser>>,
    /// Names of the models.
    pub models: Vec<String>,
    /// How long attestations last, in seconds.
    pub lifetime: u64,
    /// More lines of the guest's configuration, in TOML.
    pub settings: String,
    /// What is asked.
    pub prices: Prices,
    /// Verifier nodes.
    pub nodes: Vec<String>,
    /// Gateways.
    pub gateways: Vec<String>,
    /// Where the relay listens.
    pub listen: SocketAddr,
    /// What gateways are told, if it is another address.
    pub url: Option<String>,
    /// The host's folder.
    pub data: PathBuf,
    /// When it claims by itself.
    pub claims: Option<ClaimRule>,
    /// Sees what passes.
    pub tap: Option<Arc<dyn cocoon_host::Tap>>,
}

impl Provider {
    /// Starts the host, whose guest has its configuration from this file.
    ///
    /// # Errors
    /// There is nobody who endorses the guest, or the host cannot start.
    pub async fn start(self, guest_config: PathBuf) -> Result<Host> {
        let (launcher, development) = self.guest.launcher();
        let endorser = self.endorser.or(development).context("nobody endorses the guest's evidence")?;
        let config = HostConfig {
            network: self.terms.network,
            provider: self.terms.address(),
            registry: self.terms.registry,
            chain: self.chain,
            account: self.account,
            owner_key: self.owner_key,
            launcher,
            endorser,
            guest_config,
            model: self.guest.model().to_owned(),
            model_names: self.models,
            prices: self.prices,
            node_urls: self.nodes,
            gateway_urls: self.gateways,
            listen: self.listen,
            url: self.url,
            data: self.data,
            tap: self.tap,
            claims: self.claims,
        };
        Host::start(config).await.context("the host")
    }

    /// The guest's configuration.
    pub fn guest_config(&self) -> String {
        guest_config(&self.terms, &self.models, self.lifetime, &self.settings)
    }
}

/// Keys of the guest's configuration that follow from the contract, and are never given otherwise.
pub const WRITTEN: [&str; 7] = [
    "network",
    "provider",
    "channel_code_hash",
    "channel_code_depth",
    "model_name",
    "attestation_lifetime",
    "least_close_delay",
];

/// The guest's configuration for a provider: whom it works for, and on which terms.
fn guest_config(terms: &ProviderInit, models: &[String], lifetime: u64, more: &str) -> String {
    format!(
        "# Measured: its SHA-256 is among the enclave's claims.\nnetwork = {}\nprovider = \"{}\"\nchannel_code_hash = \"{}\"\n\
         channel_code_depth = {}\nmodel_name = \"{}\"\nattestation_lifetime = {lifetime}\nleast_close_delay = {}\n{more}",
        terms.network.0,
        terms.address(),
        hex::encode(channel_code_hash()),
        channel_code_depth(),
        models.join(","),
        terms.claim_window,
    )
}

/// The Provider's address, short enough for a line.
pub fn short(address: &Address) -> String {
    let text = address.to_string();
    format!("{}...", &text[..14.min(text.len())])
}
