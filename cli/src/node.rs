//! `cocoon node`: a verifier node, independent by its own policy, endorsements, log and key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use cocoon_attestation::ReferenceValues;
use cocoon_node::endorsements::{Addresses, Endorser, Limits as Pace};
use cocoon_node::{Anchoring, Limits, Node, NodeConfig, Peer, Seeds, public_keys};
use cocoon_protocol::identity::SigningKey;
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::toncenter::Toncenter;
use cocoon_settlement::{Address, NetworkId, keyfile};
use serde::{Deserialize, Serialize};

use crate::config;

/// How often policy and reference values are looked at for changes.
const RELOAD: Duration = Duration::from_secs(5);
/// How long requests under way are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);
/// Connections at once unless configured otherwise. Each may hold a bundle of 1 MiB.
const CONNECTIONS: usize = 1_024;

/// A verifier node.
#[derive(Debug, Args)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the node's secret, encrypted under a passphrase, and say its public keys; for a file that is there, say them again
    Keys {
        /// The key file
        #[arg(long)]
        key: PathBuf,
        /// The node's name, which is also its log's: like verifier.example/log
        #[arg(long)]
        name: String,
        /// A file whose first line is the passphrase; without one it is asked for
        #[arg(long, env = "COCOON_PASSPHRASE_FILE")]
        passphrase_file: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Appraise bundles, log them and sign verdicts
    Serve {
        /// The node's configuration, TOML; docs/guides/verifier-node.md explains each key
        #[arg(long)]
        config: PathBuf,
        /// A file whose first line is the passphrase of the key file; without one it is asked for
        #[arg(long, env = "COCOON_PASSPHRASE_FILE")]
        passphrase_file: Option<PathBuf>,
    },
}

/// A node's configuration, in TOML. Paths are taken from the file's folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// Its name, also the origin of its log.
    pub name: String,
    /// Its place in the Registry's list of verifiers.
    pub index: u8,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Folder of its log and records.
    pub data: PathBuf,
    /// Its key file (`cocoon node keys`).
    pub key: PathBuf,
    /// toncenter v2 endpoint of the chain.
    pub chain: String,
    /// TON network.
    pub network: i32,
    /// The Registry its verdicts are for.
    pub registry: Address,
    /// Appraisal policy; the strict default if absent.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// Signed reference values.
    pub references: PathBuf,
    /// Ed25519 keys whose signature on the reference values is believed, hexadecimal.
    pub reference_signers: Vec<String>,
    /// How long an attestation lasts, in seconds.
    #[serde(default = "lifetime")]
    pub lifetime: u64,
    /// Other nodes, which witness its log and whose logs it witnesses.
    #[serde(default)]
    pub peers: Vec<PeerEntry>,
    /// Endorsements of its own; without, it believes those that come with a bundle for as long as they last.
    #[serde(default)]
    pub endorsements: Option<EndorsementsEntry>,
    /// Who pays for anchoring its checkpoints in the Registry; nobody if absent.
    #[serde(default)]
    pub anchor: Option<AnchorEntry>,
    /// What it does for whom.
    #[serde(default)]
    pub limits: LimitsEntry,
}

/// A wallet that pays for anchoring.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorEntry {
    /// Its key file (`cocoon wallet new`, version v5R1), under the same passphrase as the node's.
    pub wallet: PathBuf,
    /// Seconds between two checkpoints.
    #[serde(default = "hour")]
    pub every: u64,
}

fn hour() -> u64 {
    3_600
}

fn lifetime() -> u64 {
    crate::network::ATTESTATION_LIFETIME
}

/// Another node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerEntry {
    /// Its base URL.
    pub url: String,
    /// Verifier key of its checkpoints.
    pub log: String,
    /// Verifier key of its cosignatures.
    pub witness: String,
}

/// Where endorsements come from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsementsEntry {
    /// Folder where they are kept.
    pub folder: PathBuf,
    /// Whether vendors' services are asked for what is missing or has lapsed.
    #[serde(default)]
    pub online: bool,
    /// A PCCS instead of Intel's service.
    #[serde(default)]
    pub pccs: Option<String>,
    /// A mirror of AMD's key distribution service.
    #[serde(default)]
    pub amd: Option<String>,
    /// A node's: seconds after which vendors are asked again, although nothing has lapsed.
    #[serde(default)]
    pub refresh: Option<u64>,
}

impl EndorsementsEntry {
    /// What gets them; paths are taken from this folder.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn endorser(&self, base: &Path) -> Result<Endorser> {
        let folder = base.join(&self.folder);
        if !self.online {
            return Ok(Endorser::offline(&folder)?);
        }
        let mut addresses = Addresses::default();
        if let Some(pccs) = &self.pccs {
            addresses = addresses.with_pccs(pccs);
        }
        if let Some(amd) = &self.amd {
            addresses.amd.clone_from(amd);
        }
        Ok(Endorser::online(&folder, addresses, Pace::default())?)
    }
}

/// Limits; what is absent is the default of `cocoon_node::Limits`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsEntry {
    /// Bundles that wait or are appraised at once.
    pub queue: Option<usize>,
    /// Good evidence that one provider may bring at once.
    pub burst: Option<u32>,
    /// Seconds after which it may bring one more.
    pub seconds_each: Option<u32>,
    /// Authentic evidence that one platform may bring at once.
    pub platform_burst: Option<u32>,
    /// Seconds after which it may bring one more.
    pub platform_seconds_each: Option<u32>,
    /// Connections at once.
    pub connections: Option<usize>,
}

/// Runs the command.
///
/// # Errors
/// The configuration, the key or the address cannot be used; the message says why.
pub async fn run(args: NodeArgs) -> Result<ExitCode> {
    match args.command {
        Command::Keys { key, name, passphrase_file, json } => keys(&key, &name, passphrase_file.as_deref(), json)?,
        Command::Serve { config, passphrase_file } => serve(&config, passphrase_file.as_deref()).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn passphrase(path: &Path, file: Option<&Path>) -> Result<zeroize::Zeroizing<String>> {
    crate::money::passphrase(file, &format!("Passphrase of {}: ", path.display()))
}

fn keys(path: &Path, name: &str, passphrase_file: Option<&Path>, json: bool) -> Result<()> {
    if !path.exists() {
        // A name that cannot be one is told before anything is written.
        public_keys(name, &[0; 32])?;
        let first = crate::money::passphrase(passphrase_file, "A passphrase for the key file: ")?;
        if passphrase_file.is_none() {
            let again = crate::money::passphrase(None, "The same again: ")?;
            ensure!(*first == *again, "the two differ: nothing was written");
        }
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret)
            .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
        keyfile::create(path, &secret, &first, &format!("verifier node {name}"))?;
    }
    let seeds = Seeds::of(&*keyfile::open(path, &passphrase(path, passphrase_file)?)?)?;
    let verdict = hex::encode(SigningKey::from_seed(&seeds.verdict)?.public());
    let (log, witness) = public_keys(name, &seeds.log)?;
    if json {
        let keys = serde_json::json!({ "schema": "cocoon/node-keys/v1", "name": name, "key_file": path, "verdict": verdict,
            "log": log, "witness": witness });
        println!("{}", serde_json::to_string_pretty(&keys)?);
    } else {
        println!("verdict key, for the Registry's governance:  {verdict}");
        println!("log key, for clients and auditors:           {log}");
        println!("witness key, for clients and other nodes:    {witness}");
        println!("the secret is in {}, encrypted: keep a copy of it, nobody else has one", path.display());
    }
    Ok(())
}

/// Documents that may change while the node runs.
struct Rules {
    policy: Option<PathBuf>,
    references: PathBuf,
    signers: Vec<[u8; 32]>,
}

impl Rules {
    fn read(&self) -> Result<(String, ReferenceValues)> {
        let text =
            |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let policy = self.policy.as_deref().map(text).transpose()?.unwrap_or_default();
        Ok((policy, ReferenceValues::from_signed(&text(&self.references)?, &self.signers)?))
    }

    fn changed(&self) -> Vec<Option<SystemTime>> {
        let files = self.policy.iter().chain([&self.references]);
        files.map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok()).collect()
    }
}

async fn serve(path: &Path, passphrase_file: Option<&Path>) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: NodeFile =
        toml::from_str(&text).with_context(|| format!("{} is no node configuration", path.display()))?;
    let base = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut signers = Vec::new();
    for signer in &file.reference_signers {
        let mut key = [0; 32];
        hex::decode_to_slice(signer, &mut key).context("a reference signer is not 64 hexadecimal digits")?;
        signers.push(key);
    }
    let rules = Rules {
        policy: file.policy.as_ref().map(|policy| base.join(policy)),
        references: base.join(&file.references),
        signers,
    };
    let (policy, references) = rules.read()?;
    if !cocoon_verifier::Policy::from_toml(&policy)?.roots.is_empty() {
        eprintln!("*** {}: the policy names roots of its own ***", crate::ui::NOT_CONFIDENTIAL);
    }
    let endorser = match &file.endorsements {
        None => None,
        Some(entry) => Some(Arc::new(entry.endorser(&base)?)),
    };
    let key = std::env::var("COCOON_TONCENTER_KEY").ok();
    let chain: Arc<dyn Chain> = Arc::new(Toncenter::new(&file.chain, key, NetworkId(file.network))?);
    let key = base.join(&file.key);
    let passphrase = passphrase(&key, passphrase_file)?;
    let seeds = Seeds::of(&*keyfile::open(&key, &passphrase)?)?;
    let anchoring = match &file.anchor {
        None => None,
        Some(entry) => {
            let secret = keyfile::open(&base.join(&entry.wallet), &passphrase).context("the wallet that anchors")?;
            let account = Arc::new(Account::new(chain.clone(), *secret)?);
            Some(Anchoring { account, every: Duration::from_secs(entry.every.max(60)) })
        }
    };
    let defaults = Limits::default();
    let connections = file.limits.connections.unwrap_or(CONNECTIONS);
    ensure!(connections > 0, "`limits.connections` is 0: nobody would be served");
    let refresh = file.endorsements.as_ref().and_then(|entry| entry.refresh);
    let node = Arc::new(Node::open(NodeConfig {
        dir: base.join(&file.data),
        name: file.name.clone(),
        index: file.index,
        verdict_seed: *seeds.verdict,
        log_seed: *seeds.log,
        policy,
        references,
        registry: file.registry,
        lifetime: file.lifetime,
        chain,
        peers: file.peers.iter().map(|peer| Peer { url: peer.url.clone(), witness: peer.witness.clone() }).collect(),
        watched: file.peers.iter().map(|peer| peer.log.clone()).collect(),
        endorser,
        refresh: refresh.map_or(cocoon_node::REFRESH, Duration::from_secs),
        anchoring,
        limits: Limits {
            queue: file.limits.queue.unwrap_or(defaults.queue),
            burst: file.limits.burst.unwrap_or(defaults.burst),
            seconds_each: file.limits.seconds_each.unwrap_or(defaults.seconds_each),
            platform_burst: file.limits.platform_burst.unwrap_or(defaults.platform_burst),
            platform_seconds_each: file.limits.platform_seconds_each.unwrap_or(defaults.platform_seconds_each),
            ..defaults
        },
    })?);
    let listener = tokio::net::TcpListener::bind(file.listen)
        .await
        .with_context(|| format!("cannot listen on {}: name another address as `listen`", file.listen))?;
    println!("verifier node {} at http://{}", file.name, listener.local_addr()?);
    println!("log key {}", node.log_key());
    let reloaded = node.clone();
    let reload = tokio::spawn(async move {
        let mut seen = rules.changed();
        loop {
            tokio::time::sleep(RELOAD).await;
            let now = rules.changed();
            if now == seen {
                continue;
            }
            seen = now;
            let read = rules.read();
            let set = match read {
                Ok((policy, references)) => reloaded.set_rules(&policy, references).await.map_err(anyhow::Error::from),
                Err(error) => Err(error),
            };
            match set {
                Ok(()) => tracing::warn!("policy and reference values were read anew"),
                Err(error) => tracing::error!("the node goes on under the old policy and reference values: {error:#}"),
            }
        }
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let bounds = cocoon_gateway::Limits { connections, grace: GRACE, ..Default::default() };
    let served = tokio::spawn(cocoon_gateway::serve(listener, node.router(), bounds, async move {
        let _ = stopped.await;
    }));
    config::interrupted().await?;
    let _ = stop.send(());
    served.await?;
    reload.abort();
    Ok(())
}
