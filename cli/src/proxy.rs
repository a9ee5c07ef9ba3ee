//! `cocoon proxy`: OpenAI's API on loopback for a network that runs elsewhere, described by a file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::ReferenceValues;
use cocoon_client::proxy::Access;
use cocoon_client::{Client, ClientConfig, LogKey, SystemClock};
use cocoon_protocol::identity::SigningKey;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::channel::ChannelInit;
use cocoon_settlement::toncenter::Toncenter;
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, keyfile};
use cocoon_verifier::Policy;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// How long answers under way are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

/// Arguments of `cocoon proxy`.
#[derive(clap::Args)]
pub struct ProxyArgs {
    /// What the client trusts and pays with; `cocoon up` writes one as `client.toml` into its data folder
    #[arg(long)]
    config: PathBuf,
    /// Where the proxy listens
    #[arg(long, default_value = "127.0.0.1:8788")]
    listen: SocketAddr,
}

/// A verifier node's log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Base URL of the node.
    pub url: String,
    /// Verifier key of its checkpoints.
    pub key: String,
    /// Verifier key of its cosignatures.
    pub witness: String,
}

/// A client's configuration, in TOML. Paths are taken from the file's folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// Base URLs of gateways.
    pub gateways: Vec<String>,
    /// toncenter v2 endpoint of the chain.
    pub chain: String,
    /// TON network.
    pub network: i32,
    /// The Registry whose verdicts count.
    pub registry: Address,
    /// The channel's initial data, base64 of its bag of cells.
    pub channel: String,
    /// File with the channel's client key: a key file of `cocoon channel open`, or 64 hexadecimal digits.
    pub client_key_file: PathBuf,
    /// Signed reference values.
    pub references: PathBuf,
    /// Ed25519 keys whose signature on the reference values is believed, hexadecimal.
    pub reference_signers: Vec<String>,
    /// Appraisal policy; the strict default if absent.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// Roots that are accepted besides the vendors', DER in hexadecimal: a development platform's is NOT CONFIDENTIAL.
    #[serde(default)]
    pub development_roots: Vec<String>,
    /// Logs that prove inclusion, and witness one another.
    pub logs: Vec<LogEntry>,
    /// How many of them must.
    pub required_logs: usize,
    /// How many of the others must have cosigned each one's checkpoint.
    pub required_witnesses: usize,
    /// By how much the promise to an enclave grows at a time, nanoton.
    pub voucher_step: u64,
    /// The most that is paid, nanoton per million tokens.
    pub max_prices: Prices,
    /// Where the client keeps its record.
    pub data: PathBuf,
    /// The most that may ever be promised out of this channel, nanoton: a warning comes before, a refusal at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spending_limit: Option<u64>,
    /// File with the key that programs must send as `Authorization: Bearer KEY`; any key is taken without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// Origins of web pages that may use the proxy from a browser, like `http://localhost:3000` or `https://app.example`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
}

impl ProxyConfig {
    /// A client as the file describes it.
    ///
    /// # Errors
    /// A file that is named cannot be read or does not hold what it should.
    pub fn client(&self, base: &Path) -> Result<ClientConfig> {
        ensure!(!self.gateways.is_empty(), "`gateways` is empty: name at least one");
        for url in self.gateways.iter().chain(self.logs.iter().map(|log| &log.url)).chain([&self.chain]) {
            let uri = url.parse::<hyper::Uri>().ok().filter(|uri| uri.scheme_str() == Some("http"));
            ensure!(uri.is_some_and(|uri| uri.host().is_some()), "{url:?} is no http:// URL");
        }
        ensure!(
            self.required_logs <= self.logs.len(),
            "`required_logs` is {}, and `logs` names {}",
            self.required_logs,
            self.logs.len()
        );
        ensure!(
            self.required_witnesses < self.logs.len().max(1),
            "`required_witnesses` is {}, and the log of each has {} others",
            self.required_witnesses,
            self.logs.len().saturating_sub(1)
        );
        ensure!(self.voucher_step > 0, "`voucher_step` must be more than nothing");
        let read = |path: &Path| {
            let path = base.join(path);
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let client_key = secret(&base.join(&self.client_key_file))?;
        let (mut policy, named) = match &self.policy {
            Some(path) => {
                let folder = base.join(path).parent().map(Path::to_owned).unwrap_or_default();
                crate::policy::load(&read(path)?, &folder)?
            }
            None => (Policy::default(), None),
        };
        for root in &self.development_roots {
            policy.add_root(&hex::decode(root).context("a development root is not hexadecimal")?)?;
        }
        let mut signers = Vec::new();
        for signer in &self.reference_signers {
            let mut key = [0; 32];
            hex::decode_to_slice(signer, &mut key).context("a reference signer is not 64 hexadecimal digits")?;
            signers.push(key);
        }
        let references = ReferenceValues::from_signed(&read(&self.references)?, &signers)?;
        ensure!(
            named.is_none_or(|named| named == references),
            "the policy names other reference values than `references`: let both name the same file"
        );
        let network = NetworkId(self.network);
        let chain: Arc<dyn Chain> =
            Arc::new(Toncenter::new(&self.chain, std::env::var("COCOON_TONCENTER_KEY").ok(), network)?);
        let channel = ChannelInit::from_boc(&STANDARD.decode(&self.channel).context("the channel is not base64")?)?;
        ensure!(
            channel.network == network,
            "the channel is of network {}, and `network` is {}",
            channel.network.0,
            network.0
        );
        let signer = SigningKey::from_seed(&client_key)?;
        ensure!(
            channel.client_key == signer.public(),
            "{} is not the channel's client key",
            self.client_key_file.display()
        );
        Ok(ClientConfig {
            gateways: self.gateways.clone(),
            chain,
            policy,
            references: Some(references),
            logs: self
                .logs
                .iter()
                .map(|log| LogKey { url: log.url.clone(), key: log.key.clone(), witness: log.witness.clone() })
                .collect(),
            required_logs: self.required_logs,
            required_witnesses: self.required_witnesses,
            registry: self.registry,
            require_registered: true,
            max_beacon_age: Some(crate::network::ATTESTATION_LIFETIME),
            channel,
            client_key,
            voucher_step: Nanoton(self.voucher_step),
            spending_limit: self.spending_limit.map(Nanoton),
            voucher_lifetime: 3_600,
            max_prices: self.max_prices,
            data: base.join(&self.data),
            clock: Arc::new(SystemClock),
        })
    }
}

impl ProxyConfig {
    /// Who may use the proxy.
    ///
    /// # Errors
    /// The key cannot be read, or an origin is none.
    fn access(&self, base: &Path) -> Result<Access> {
        let api_key = match &self.api_key_file {
            None => None,
            Some(file) => {
                let path = base.join(file);
                let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                ensure!(text.trim().len() >= 16, "{} holds no key of at least 16 characters", path.display());
                Some(text.trim().to_owned())
            }
        };
        for origin in &self.allowed_origins {
            let uri = origin.parse::<hyper::Uri>().ok();
            let plain = uri.is_some_and(|uri| uri.scheme().is_some() && uri.host().is_some()) && !origin.ends_with('/');
            ensure!(plain, "`allowed_origins` holds {origin:?}, which is no origin like https://app.example");
        }
        Ok(Access { api_key, origins: self.allowed_origins.clone() })
    }
}

/// A client key: a key file, or hexadecimal digits.
fn secret(path: &Path) -> Result<[u8; 32]> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if text.trim_start().starts_with('{') {
        let file = std::env::var_os("COCOON_PASSPHRASE_FILE").map(PathBuf::from);
        let prompt = format!("Passphrase of {}: ", path.display());
        return Ok(*keyfile::open(path, &crate::money::passphrase(file.as_deref(), &prompt)?)?);
    }
    let mut key = [0; 32];
    let read = hex::decode_to_slice(text.trim(), &mut key);
    read.ok().with_context(|| format!("{} is no key file and not 64 hexadecimal digits", path.display()))?;
    Ok(key)
}

/// Serves until Ctrl-C.
///
/// # Errors
/// The configuration is wrong or the address is taken.
pub async fn run(args: ProxyArgs) -> Result<ExitCode> {
    anyhow::ensure!(
        args.listen.ip().is_loopback(),
        "the proxy holds the client's keys: let it listen on a loopback address"
    );
    let text =
        std::fs::read_to_string(&args.config).with_context(|| format!("cannot read {}", args.config.display()))?;
    let config: ProxyConfig =
        toml::from_str(&text).with_context(|| format!("{} is no client configuration", args.config.display()))?;
    if !config.development_roots.is_empty() {
        eprintln!("*** {} ***", crate::ui::NOT_CONFIDENTIAL);
    }
    let base = args.config.parent().map(Path::to_owned).unwrap_or_default();
    let client = Client::open(config.client(&base)?)?;
    let access = config.access(&base)?;
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}: name another address with --listen", args.listen))?;
    println!("OpenAI's API at http://{}/v1", listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = Arc::new(Notify::new());
    let stopping = stop.clone();
    let served = axum::serve(cocoon_host::no_delay(listener), cocoon_client::proxy::router(client, access))
        .with_graceful_shutdown(async move { stopping.notified().await })
        .into_future();
    let mut served = std::pin::pin!(served);
    tokio::select! {
        result = &mut served => result?,
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    // Answers under way may come to their end; whoever never finishes a request is not waited for.
    stop.notify_one();
    let _ = tokio::time::timeout(GRACE, served).await;
    Ok(ExitCode::SUCCESS)
}
