//! `cocoon host serve`: a provider's host, against a chain, verifier nodes and gateways that run elsewhere.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use cocoon_attestation::dev::DevPlatform;
use cocoon_host::vm::Tee as MachineTee;
use cocoon_host::{ClaimRule, Endorser, GuestAddress, Status};
use cocoon_protocol::identity::SigningKey;
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::{ProviderInit, RegistryParams};
use cocoon_settlement::toncenter::Toncenter;
use cocoon_settlement::wallet::{Version, Wallet};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, keyfile, ops};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::{self, base_url, interrupted};
use crate::data::DataDir;
use crate::node::EndorsementsEntry;
use crate::provider::{CLAIM_AGE, CLAIM_LEAST, Guest, Provider, WRITTEN};
use crate::staple::Stapler;
use crate::{host_launch, measure, paths, ui};

mod check;

/// Serve a guest: launch or join it, have it attested, announce it, relay to it, claim what it earns; SIGTERM lets answers end first
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The host's configuration, TOML; docs/guides/provider.md explains each key
    #[arg(long)]
    config: PathBuf,
    /// A file whose first line is the passphrase of the wallet's key file; without one it is asked for
    #[arg(long, env = "COCOON_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// Start nothing: reach out to everything that the configuration names, and say of each what is wrong. The exit code: 0 ready, 10 not
    #[arg(long)]
    check: bool,
    /// Launch the guest although `cocoon host doctor` finds something wrong
    #[arg(long, conflicts_with = "check")]
    anyway: bool,
}

/// A host's configuration, in TOML. Paths are taken from the file's folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// Where the relay listens.
    pub listen: SocketAddr,
    /// What gateways are told, `http://host:port`; where the relay listens if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Folder of receipts and logs; one for each host.
    pub data: PathBuf,
    /// toncenter's endpoint of the chain.
    pub chain: String,
    /// TON network.
    pub network: i32,
    /// File with the key of that API; `COCOON_TONCENTER_KEY` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_key_file: Option<PathBuf>,
    /// The Registry whose verdicts count.
    pub registry: Address,
    /// The provider's contract (`cocoon host register`).
    pub provider: Address,
    /// Key file of the wallet that owns it.
    pub wallet: PathBuf,
    /// The wallet's version: v5R1 or v4R2.
    #[serde(default = "v5r1")]
    pub wallet_version: String,
    /// Names of the models.
    pub models: Vec<String>,
    /// Base URLs of gateways.
    pub gateways: Vec<String>,
    /// Base URLs of verifier nodes; their keys are the Registry's.
    pub nodes: Vec<String>,
    /// Seconds that answers under way are waited for at the end.
    #[serde(default = "minute")]
    pub drain: u64,
    /// What is asked, nanoton per million tokens.
    pub prices: Prices,
    /// What is served.
    pub guest: GuestEntry,
    /// What is stapled to the guest's evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsements: Option<EndorsementsEntry>,
    /// When to claim.
    #[serde(default)]
    pub claims: ClaimsEntry,
}

fn v5r1() -> String {
    Version::V5R1.to_string()
}

fn minute() -> u64 {
    60
}

/// What is served: one of `launch`, `address` and `process`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestEntry {
    /// Configuration of a guest in a virtual machine, as `cocoon host launch` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<PathBuf>,
    /// A guest that runs already: `http://host:port` or `vsock:CID:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A process of this machine, on the development platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessEntry>,
    /// Seed of the development platform, which plays the CPU of a guest that is launched here, and endorses it: a file with 32 bytes in
    /// hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_seed: Option<PathBuf>,
    /// More of the guest's own configuration, which is measured.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub settings: toml::Table,
}

/// The guest's binary as a process. **Not confidential.**
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessEntry {
    /// The binary; `COCOON_ENCLAVE_BIN`, else `cocoon-enclave` beside this program, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
    /// Its model folder.
    pub model: PathBuf,
    /// Which CPU is played: tdx or snp.
    #[serde(default = "tdx")]
    pub tee: String,
}

fn tdx() -> String {
    "tdx".into()
}

/// When to claim. No claim is made that brings less than its fees, whatever this says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimsEntry {
    /// Seconds between two looks.
    pub every: u64,
    /// What a channel's claim must bring to be made at once, nanoton.
    pub least: u64,
    /// Seconds that a receipt waits at most for others to be worth a claim together.
    pub max_age: u64,
}

impl Default for ClaimsEntry {
    fn default() -> Self {
        Self { every: 60, least: CLAIM_LEAST.0, max_age: CLAIM_AGE.as_secs() }
    }
}

/// What the file says, as far as this machine alone can tell that it is right.
struct Local {
    url: Option<String>,
    guest: Guest,
    settings: String,
    /// `None`: the development platform's own.
    endorser: Option<Arc<dyn Endorser>>,
    nodes: Vec<String>,
    gateways: Vec<String>,
    version: Version,
    claims: ClaimRule,
}

impl HostFile {
    fn local(&self, base: &Path) -> Result<Local> {
        ensure!(!self.models.is_empty(), "`models` is empty: name what the guest serves");
        for model in &self.models {
            let plain =
                !model.is_empty() && model.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",\\".contains(&byte));
            ensure!(
                plain,
                "`models`: {model:?} is no name: write letters, digits and signs, no spaces, commas or quotes"
            );
        }
        ensure!(
            !self.nodes.is_empty(),
            "`nodes` is empty: name as many verifier nodes as the Registry asks verdicts of"
        );
        ensure!(!self.gateways.is_empty(), "`gateways` is empty: name one that tells clients of this host");
        let all = |key: &str, urls: &[String]| urls.iter().map(|url| base_url(key, url)).collect::<Result<Vec<_>>>();
        ensure!(self.claims.every > 0, "`claims.every` is 0: write the seconds between two looks");
        let claims = ClaimRule {
            every: Duration::from_secs(self.claims.every),
            least: Nanoton(self.claims.least),
            max_age: Duration::from_secs(self.claims.max_age),
            again: false,
        };
        let guest = self.guest.read(base, self)?;
        let endorser = match &self.endorsements {
            None => {
                ensure!(
                    self.guest.platform_seed.is_some(),
                    "`endorsements` is missing: verdicts need what the vendor says of the platform; name a `folder`, and `online = true` to fetch into it"
                );
                None
            }
            Some(entry) => {
                let endorser = entry.endorser(base).context("`endorsements`")?;
                Some(Arc::new(Stapler::new(endorser)) as Arc<dyn Endorser>)
            }
        };
        Ok(Local {
            url: self.told()?,
            guest,
            settings: self.guest.more()?,
            endorser,
            nodes: all("nodes", &self.nodes)?,
            gateways: all("gateways", &self.gateways)?,
            version: self.wallet_version.parse().context("`wallet_version`")?,
            claims,
        })
    }

    /// What gateways are told.
    fn told(&self) -> Result<Option<String>> {
        let Some(url) = &self.url else {
            ensure!(
                !self.listen.ip().is_unspecified(),
                "`url` is missing: the relay listens on every address of this machine; name the one by which gateways reach it, like http://host.example:{}",
                self.listen.port()
            );
            return Ok(None);
        };
        let told = base_url("url", url)?;
        ensure!(
            told.starts_with("http://"),
            "`url` is {url:?}: gateways reach hosts by http://; requests and answers are sealed, whoever carries them"
        );
        Ok(Some(told))
    }
}

impl GuestEntry {
    fn read(&self, base: &Path, file: &HostFile) -> Result<Guest> {
        let platform = self.platform(base)?;
        match (&self.launch, &self.address, &self.process) {
            (Some(launch), None, None) => {
                let plan = host_launch::read_plan(&base.join(launch)).context("`guest.launch`")?;
                let development = plan.config.tee == MachineTee::Development;
                ensure!(
                    development == platform.is_some(),
                    "`guest.platform_seed` goes with tee = \"development\" in `guest.launch`, and with nothing else: there it is {}",
                    plan.config.tee
                );
                if let Some(enclave) = &plan.config.enclave {
                    works_for(enclave, file).context("`enclave` in the file of `guest.launch`")?;
                    ensure!(
                        self.settings.is_empty(),
                        "`guest.settings` would not reach the guest: `enclave` in the file of `guest.launch` is its configuration"
                    );
                }
                Ok(Guest::Machine(Box::new(plan), platform))
            }
            (None, Some(address), None) => {
                ensure!(
                    self.settings.is_empty(),
                    "`guest.settings` would not reach a guest that runs already: whoever launched it configured it"
                );
                let address: GuestAddress = address.parse().map_err(anyhow::Error::msg).context("`guest.address`")?;
                Ok(Guest::Running(address, platform))
            }
            (None, None, Some(process)) => {
                let platform = platform.context(
                    "`guest.platform_seed` is missing: `guest.process` runs on the development platform; name a file with 32 bytes in hexadecimal",
                )?;
                let tee = process.tee.parse().map_err(anyhow::Error::msg).context("`guest.process.tee`")?;
                let binary = match &process.binary {
                    Some(binary) => base.join(binary),
                    None => paths::enclave_binary().context("`guest.process.binary`")?,
                };
                let model = base.join(&process.model);
                ensure!(binary.is_file(), "`guest.process.binary`: {} is not there", binary.display());
                ensure!(model.is_dir(), "`guest.process.model`: {} is no folder", model.display());
                Ok(Guest::Process { binary, model, tee, platform })
            }
            _ => bail!(
                "`guest` needs one of `launch` (a virtual machine), `address` (a guest that runs already) and `process` (the development platform)"
            ),
        }
    }

    fn platform(&self, base: &Path) -> Result<Option<DevPlatform>> {
        let Some(seed) = &self.platform_seed else { return Ok(None) };
        let seed = measure::image::seed(&base.join(seed)).context("`guest.platform_seed`")?;
        Ok(Some(DevPlatform::from_seed(*seed)))
    }

    /// More lines of the guest's configuration.
    fn more(&self) -> Result<String> {
        for key in WRITTEN {
            ensure!(
                !self.settings.contains_key(key),
                "`guest.settings.{key}` follows from the contract and the rest of this file: leave it out"
            );
        }
        Ok(toml::to_string(&self.settings)?)
    }
}

/// Whether a guest's own configuration is for this provider.
fn works_for(enclave: &Path, file: &HostFile) -> Result<()> {
    #[derive(Deserialize)]
    struct Enclave {
        provider: Address,
        network: i32,
    }
    let (enclave, _) = config::read::<Enclave>(enclave, "guest")?;
    ensure!(
        (enclave.provider, enclave.network) == (file.provider, file.network),
        "it works for {} on network {}, and `provider` is {} on {}",
        enclave.provider,
        enclave.network,
        file.provider,
        file.network
    );
    Ok(())
}

/// The wallet's secret.
fn unlock(file: &HostFile, base: &Path, passphrase: Option<&Path>) -> Result<Zeroizing<[u8; 32]>> {
    let path = base.join(&file.wallet);
    ensure!(path.exists(), "`wallet`: {} is not there: `cocoon wallet new` makes one", path.display());
    let passphrase = crate::money::passphrase(passphrase, &format!("Passphrase of {}: ", path.display()))?;
    keyfile::open(&path, &passphrase).context("`wallet`")
}

/// The Registry, after it has said that it is of this network.
async fn registry(chain: &Toncenter, file: &HostFile) -> Result<RegistryParams> {
    let params = ops::registry_params(chain, &file.registry).await.context("`registry`")?;
    ensure!(
        params.network == NetworkId(file.network),
        "`registry` is of network {}, and `network` is {}",
        params.network,
        file.network
    );
    ensure!(
        file.nodes.len() >= usize::from(params.threshold),
        "`nodes` names {}, and the Registry asks for {} verdicts of its {} verifiers: name more",
        file.nodes.len(),
        params.threshold,
        params.verifiers.len()
    );
    Ok(params)
}

/// The Provider, after it has said that it is this wallet's and takes this Registry's verdicts.
async fn provider(chain: &Toncenter, file: &HostFile, wallet: &Address) -> Result<ProviderInit> {
    let terms = ops::provider_terms(chain, &file.provider)
        .await
        .context("`provider`: `cocoon host register` makes one, and says its address")?;
    ensure!(
        terms.owner == *wallet,
        "`provider` belongs to the wallet {}, and `wallet` is {wallet}: name its key file, and its `wallet_version`",
        terms.owner
    );
    ensure!(
        terms.registry == file.registry,
        "`provider` takes verdicts of the Registry {}, and `registry` is {}",
        terms.registry,
        file.registry
    );
    ensure!(
        terms.address() == file.provider,
        "`provider` was deployed by another release: its guests would not find its address; register another one"
    );
    Ok(terms)
}

/// Runs the command.
///
/// # Errors
/// The configuration cannot be used, or what it names cannot; the message names the key.
pub async fn run(args: ServeArgs) -> Result<ExitCode> {
    let (file, base) = config::read::<HostFile>(&args.config, "host")?;
    if file.guest.platform_seed.is_some() {
        eprintln!("*** {} ***", crate::ui::NOT_CONFIDENTIAL);
    }
    if args.check {
        return check::run(&file, &base, args.passphrase_file.as_deref()).await;
    }
    serve(&file, &base, &args).await
}

async fn serve(file: &HostFile, base: &Path, args: &ServeArgs) -> Result<ExitCode> {
    let local = file.local(base)?;
    let secret = unlock(file, base, args.passphrase_file.as_deref())?;
    let chain = config::chain(&file.chain, file.network, file.chain_key_file.as_deref(), base)?;
    chain.check_network().await.context("`chain` and `network`")?;
    let wallet = Wallet::with_version(*secret, chain.network(), local.version)?;
    let params = registry(&chain, file).await?;
    let terms = provider(&chain, file, &wallet.address()).await?;
    let data = DataDir::open(&base.join(&file.data)).context("`data`")?;
    if let Guest::Machine(plan, _) = &local.guest {
        let wrong = host_launch::wrong(plan).await?;
        ensure!(
            wrong.is_empty() || args.anyway,
            "this machine is not fit for the guest (--anyway starts it all the same):\n{}",
            wrong.join("\n")
        );
    }
    let account = Arc::new(Account::with_wallet(chain.clone() as Arc<dyn Chain>, wallet));
    let provider = Provider {
        terms,
        chain,
        account,
        owner_key: SigningKey::from_seed(&secret)?,
        guest: local.guest,
        endorser: local.endorser,
        models: file.models.clone(),
        lifetime: crate::network::ATTESTATION_LIFETIME.min(params.max_lifetime.into()),
        settings: local.settings,
        prices: file.prices,
        nodes: local.nodes,
        gateways: local.gateways,
        listen: file.listen,
        url: local.url,
        data: data.join("host"),
        claims: Some(local.claims),
        tap: None,
    };
    let guest_config = data.write("enclave-config.toml", provider.guest_config().as_bytes())?;
    let host = provider.start(guest_config).await?;
    println!("host of provider {}; gateways are told {}", file.provider, host.url());
    let mut status = host.watch();
    let mut said = String::new();
    {
        let mut stop = std::pin::pin!(interrupted());
        loop {
            say(&status.borrow_and_update().clone(), &mut said);
            tokio::select! {
                changed = status.changed() => changed?,
                stopped = &mut stop => {
                    stopped?;
                    break;
                }
            }
        }
    }
    println!(
        "draining: {} answers under way are waited for, {} s at most; again stops at once",
        host.open_answers(),
        file.drain
    );
    tokio::select! {
        open = host.drain(Duration::from_secs(file.drain)) => {
            if open > 0 {
                println!("{open} answers were not at their end: what they earned so far is lost with the guest");
            }
        }
        again = interrupted() => again?,
    }
    host.shutdown().await;
    println!("stopped; what is not claimed yet is claimed when the host runs again, or by `cocoon host claim`");
    Ok(ExitCode::SUCCESS)
}

/// What may quote nodes, gateways or a guest, for a line of ours.
fn foreign(text: &str) -> String {
    const MOST: usize = 400;
    let short: String = text.chars().take(MOST).collect();
    ui::within_line(&short)
}

/// Says in a line what the host is doing, when that has changed.
fn say(status: &Status, said: &mut String) {
    let line = match status {
        Status::Starting { why: None } => "starting: the guest is launched and attested".to_owned(),
        Status::Starting { why: Some(why) } => format!("not ready: {}; it is tried again", foreign(why)),
        Status::Ready(ready) => {
            format!("ready: evidence {} of enclave key {}, image {}", ready.evidence_id, ready.enclave_key, ready.image)
        }
        Status::Draining { why, .. } => format!("draining: {}", foreign(why)),
    };
    if line != *said {
        println!("{line}");
        *said = line;
    }
}
