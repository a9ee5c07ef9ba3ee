//! The whole network in one process: chain, three verifier nodes, gateway, a provider with its enclave, and a client with its channel.
//!
//! It is made once in a data folder and continued from it: secrets, chain, logs, receipts and the client's record stay.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::ReferenceValues;
use cocoon_attestation::dev::DevPlatform;
use cocoon_attestation::dev::cpu;
use cocoon_client::proxy::Access;
use cocoon_client::{Client, ClientConfig, LogKey, SystemClock};
use cocoon_gateway::{Gateway, GatewayConfig};
use cocoon_host::vm::Plan;
use cocoon_host::{ClaimRule, Endorser, Host};
use cocoon_image::{ImageManifest, ModelFolder};
use cocoon_node::{Node, NodeConfig, Peer};
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::channel::{ChannelInit, channel_code_hash};
use cocoon_settlement::contracts::provider::{ProviderInit, provider_code_hash};
use cocoon_settlement::contracts::registry::{self, Change, Listed, RegistryInit, Release};
use cocoon_settlement::local::{Genesis, LocalChain, rpc};
use cocoon_settlement::wallet::Wallet;
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, ops};
use cocoon_verifier::Policy;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::data::DataDir;
use crate::provider::{Guest, Provider, short as short_address};
use crate::tap::Recorder;
use crate::ui::Ui;

/// Verifier nodes that are run.
pub const NODES: usize = 3;
/// Verdicts that the Registry asks for.
pub const THRESHOLD: u8 = 2;
/// Seconds that an attestation lasts.
pub const ATTESTATION_LIFETIME: u64 = 86_400;
/// Seconds after it in which its receipts are still paid.
pub const CLAIM_WINDOW: u32 = 259_200;
/// What everybody starts with on the local chain.
const PURSE: Nanoton = Nanoton(100_000_000_000_000);
/// What the client puts into its channel.
const DEPOSIT: Nanoton = Nanoton(500_000_000_000);
/// The provider's prices, nanoton per million tokens: at these, the demo's answer is worth more than its claim's fees.
pub const PRICES: Prices = Prices {
    prompt: 500_000_000_000,
    cached: 50_000_000_000,
    completion: 2_000_000_000_000,
    reasoning: 2_000_000_000_000,
};
/// By how much the client's promise to an enclave grows at a time: half of it covers whatever one request can cost, the demo
/// model's whole context.
const VOUCHER_STEP: Nanoton = Nanoton(5_000_000_000);

/// Which CPU the development platform plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tee {
    /// Intel TDX.
    #[default]
    Tdx,
    /// AMD SEV-SNP.
    Snp,
}

impl FromStr for Tee {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tdx" => Ok(Self::Tdx),
            "snp" => Ok(Self::Snp),
            _ => Err("must be tdx or snp".into()),
        }
    }
}

impl Tee {
    pub(crate) fn cpu(self) -> cpu::Tee {
        match self {
            Self::Tdx => cpu::Tee::Tdx,
            Self::Snp => cpu::Tee::Snp,
        }
    }
}

/// What a network is started with.
pub struct Options {
    /// The guest's binary.
    pub enclave: PathBuf,
    /// The model folder.
    pub model: PathBuf,
    /// Which CPU is played.
    pub tee: Tee,
    /// More lines of the guest's configuration, in TOML; none by default.
    pub guest: String,
    /// The guest in a virtual machine, instead of as a process of the binary.
    pub vm: Option<VmGuest>,
    /// Keeps what host and gateway see, if anybody wants to look.
    pub tap: Option<Arc<Recorder>>,
    /// What the host staples to evidence; the development platform's own endorsements if `None`.
    pub endorser: Option<Arc<dyn Endorser>>,
    /// When the provider claims by itself.
    pub claims: Option<ClaimRule>,
    /// How long an attestation lasts, in seconds from its beacon; it is renewed at two thirds of that.
    pub lifetime: u64,
    /// Where progress goes.
    pub ui: Ui,
}

/// A guest that QEMU emulates, with the development platform as its CPU: it measures what QEMU is given. **Not confidential.**
pub struct VmGuest {
    /// What is launched.
    pub plan: Plan,
    /// What is accepted, made from the image's files and the machine's description.
    pub references: ReferenceValues,
}

/// Where the parts listen.
pub struct Urls {
    /// JSON-RPC of the local chain.
    pub chain: String,
    /// The gateway.
    pub gateway: String,
    /// The verifier nodes.
    pub nodes: Vec<String>,
}

/// A running network.
pub struct Network {
    /// The chain.
    pub chain: Arc<LocalChain>,
    /// The Registry.
    pub registry: Address,
    /// The Provider.
    pub provider: Address,
    /// The client's Channel.
    pub channel: Address,
    /// The provider's wallet.
    pub provider_account: Arc<Account>,
    /// The client's wallet.
    pub client_account: Arc<Account>,
    /// The client.
    pub client: Arc<Client>,
    /// The host.
    pub host: Host,
    /// The nodes.
    pub nodes: Vec<Arc<Node>>,
    /// Where they listen.
    pub urls: Urls,
    /// The model's name.
    pub model_name: String,
    /// The development platform.
    pub platform: DevPlatform,
    /// What the client accepts.
    pub references: ReferenceValues,
    /// The guest's configuration.
    pub guest_config: PathBuf,
    tasks: Vec<JoinHandle<()>>,
}

/// Name of the model that ships with the repository.
pub const MODEL_NAME: &str = "cocoon-demo";

impl Network {
    /// Starts everything on a data folder and waits until the client accepts the enclave.
    ///
    /// # Errors
    /// Something cannot start; the message says what.
    pub async fn start(data: &DataDir, options: Options) -> Result<Self> {
        let ui = options.ui;
        ui.heading("Network");
        let platform = DevPlatform::from_seed(data.secret("development-platform")?);
        let network = NetworkId::LOCAL;
        let mut tasks = Vec::new();

        let step = ui.step("measuring the guest and the model");
        let Launching { model_name, references, guest } = launching(&options, &platform).await?;
        data.write("references.toml", references.to_signed(&data.secret("release")?)?.as_bytes())?;
        let model_root = references.models.first().context("the manifest names a model")?.root;
        step.done(format!("image {}, model {}", short(&references.image.digest), short(&model_root)));

        let step = ui.step("TON chain with mainnet's fees");
        let wallets = ["governance", "provider", "client"];
        let mut genesis = Genesis { accounts: vec![crate::money::chain::faucet()?], time: SystemClock::time() };
        for name in wallets {
            genesis.accounts.push((Wallet::new(data.secret(name)?, network)?.address(), PURSE));
        }
        let chain = Arc::new(LocalChain::open(&data.join("chain"), genesis).context("the local chain")?);
        let account = |name: &str| -> Result<Arc<Account>> {
            Ok(Arc::new(Account::new(chain.clone() as Arc<dyn Chain>, data.secret(name)?)?))
        };
        let (governance, provider_account, client_account) =
            (account("governance")?, account("provider")?, account("client")?);
        let head = chain.head().await?;
        let (listener, chain_url) = listen().await?;
        let served = chain.clone();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = rpc::serve(listener, served).await {
                tracing::error!(%error, "the chain's RPC ended");
            }
        }));
        step.done(format!("block {}", head.seqno));

        let step = ui.step(format!("contracts: Registry ({THRESHOLD} of {NODES}) and Provider"));
        let mut verifiers = Vec::new();
        for index in 0..NODES {
            verifiers.push(
                cocoon_protocol::identity::SigningKey::from_seed(&data.secret(&format!("node-{index}-verdict"))?)?
                    .public(),
            );
        }
        let registry = registry(data, &governance, verifiers, &references).await?;
        let provider_init = ProviderInit {
            network,
            registry,
            owner: provider_account.address(),
            claim_window: CLAIM_WINDOW,
            salt: data.secret("provider-salt")?,
        };
        let provider = provider_init.address();
        if !chain.account(&provider).await?.active {
            ops::deploy_provider(&provider_account, &provider_init).await?.1.success()?;
        }
        step.done(format!("Registry {}, Provider {}", short_address(&registry), short_address(&provider)));

        let document = policy(&platform);
        let policy = Policy::from_toml(&document)?;
        let (nodes, node_urls, logs) =
            start_nodes(data, &chain, &document, &references, (registry, options.lifetime), &mut tasks, ui).await?;

        let gateway = GatewayConfig {
            tap: options.tap.clone().map(|tap| tap as Arc<dyn cocoon_gateway::Tap>),
            ..GatewayConfig::new(chain.clone() as Arc<dyn Chain>, registry)
        };
        let limits = gateway.limits;
        let (listener, gateway_url) = listen().await?;
        let served = cocoon_gateway::serve(listener, Gateway::new(gateway).router(), limits, std::future::pending());
        tasks.push(tokio::spawn(served));

        let step = ui.step("host: launch the guest, attest it, register its key");
        let served = Provider {
            terms: provider_init,
            chain: chain.clone() as Arc<dyn Chain>,
            account: provider_account.clone(),
            owner_key: cocoon_protocol::identity::SigningKey::from_seed(&data.secret("provider")?)?,
            guest,
            endorser: options.endorser,
            models: model_name.split(',').map(str::to_owned).collect(),
            lifetime: options.lifetime,
            settings: options.guest,
            prices: PRICES,
            nodes: node_urls.clone(),
            gateways: vec![gateway_url.clone()],
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            url: None,
            data: data.join("host"),
            claims: options.claims,
            tap: options.tap.map(|tap| tap as Arc<dyn cocoon_host::Tap>),
        };
        let guest_config = data.write("guest.toml", served.guest_config().as_bytes())?;
        let host = served.start(guest_config.clone()).await?;
        let ready = host.first_ready(Duration::from_secs(600)).await.context("the enclave did not become ready")?;
        step.done(format!("evidence {}", &ready.evidence_id.to_string()[..16]));

        let step = ui.step("client: open a channel and appraise the enclave");
        let channel_init = ChannelInit {
            network,
            provider,
            owner: provider_account.address(),
            client: client_account.address(),
            client_key: cocoon_protocol::identity::SigningKey::from_seed(&data.secret("client-key")?)?.public(),
            close_delay: CLAIM_WINDOW,
            salt: data.secret("channel-salt")?,
        };
        let channel = channel_init.address();
        open_channel(&chain, &client_account, &channel_init).await?;
        let client = Client::open(ClientConfig {
            gateways: vec![gateway_url.clone()],
            chain: chain.clone() as Arc<dyn Chain>,
            policy,
            references: Some(references.clone()),
            logs,
            required_logs: usize::from(THRESHOLD),
            // With the log itself as many parties as a verdict needs.
            required_witnesses: usize::from(THRESHOLD) - 1,
            registry,
            require_registered: true,
            max_beacon_age: Some(options.lifetime),
            channel: channel_init,
            client_key: data.secret("client-key")?,
            voucher_step: VOUCHER_STEP,
            spending_limit: None,
            voucher_lifetime: 3_600,
            max_prices: PRICES,
            data: data.join("client"),
            clock: Arc::new(SystemClock),
        })?;
        data.write("client.toml", proxy_config(data, &client, &chain_url, &platform)?.as_bytes())?;
        data.write("auditor.toml", auditor_config(&client, &chain_url).as_bytes())?;
        wait_for_enclave(&client).await?;
        step.done(format!("Channel {}", short_address(&channel)));

        Ok(Self {
            chain,
            registry,
            provider,
            channel,
            provider_account,
            client_account,
            client,
            host,
            nodes,
            urls: Urls { chain: chain_url, gateway: gateway_url, nodes: node_urls },
            model_name,
            platform,
            references,
            guest_config,
            tasks,
        })
    }

    /// Process id of the enclave.
    pub fn enclave_pid(&self) -> Option<u32> {
        self.host.enclave_pid()
    }

    /// OpenAI's API over this network's client.
    pub fn proxy(&self) -> axum::Router {
        cocoon_client::proxy::router(self.client.clone(), Access::default())
    }

    /// Stops the enclave and everything else.
    pub async fn stop(self) {
        self.host.shutdown().await;
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What a host launches, and what is accepted of it.
struct Launching {
    model_name: String,
    references: ReferenceValues,
    guest: Guest,
}

async fn launching(options: &Options, platform: &DevPlatform) -> Result<Launching> {
    if let Some(VmGuest { plan, references }) = &options.vm {
        anyhow::ensure!(
            plan.config.enclave.is_none(),
            "leave `enclave` out of the guest's configuration: here its own configuration is written for it"
        );
        let model = references.models.first().context("the reference values name no model")?;
        return Ok(Launching {
            model_name: model.name.clone(),
            references: references.clone(),
            guest: Guest::Machine(Box::new(plan.clone()), Some(platform.clone())),
        });
    }
    let model_name = model_names(&options.model)?;
    let manifest = ImageManifest {
        name: "cocoon-enclave".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        binary: options.enclave.clone(),
        models: vec![ModelFolder { name: model_name.clone(), path: options.model.clone() }],
    };
    let references = tokio::task::spawn_blocking(move || manifest.reference_values()).await??;
    let guest = Guest::Process {
        binary: options.enclave.clone(),
        model: options.model.clone(),
        tee: options.tee,
        platform: platform.clone(),
    };
    Ok(Launching { model_name, references, guest })
}

/// Deploys the Registry, or finds the one of an earlier start and allows today's image and models in it.
async fn registry(
    data: &DataDir,
    governance: &Account,
    verifiers: Vec<[u8; 32]>,
    references: &ReferenceValues,
) -> Result<Address> {
    let models: Vec<_> = references.models.iter().map(|model| model.root).collect();
    let path = data.join("registry");
    if let Ok(text) = std::fs::read_to_string(&path) {
        let registry: Address =
            text.trim().parse().context("the file `registry` of the data folder holds no address")?;
        let chain = governance.chain().as_ref();
        if chain.account(&registry).await?.active {
            let params = ops::registry_params(chain, &registry).await?;
            if !params.images.contains(&references.image.digest) {
                let image = Change::Allow(Listed::Image(references.image.digest));
                ops::propose(governance, &registry, &image).await?.success()?;
            }
            for root in models.iter().filter(|root| !params.models.contains(root)) {
                ops::propose(governance, &registry, &Change::Allow(Listed::Model(*root))).await?.success()?;
            }
            name_release(governance, &registry).await?;
            return Ok(registry);
        }
    }
    let init = RegistryInit {
        network: NetworkId::LOCAL,
        governance: governance.address(),
        // A network that starts and ends with this process: nobody would see a change wait.
        time_lock: 0,
        threshold: THRESHOLD,
        max_lifetime: 604_800,
        verifiers,
        images: vec![references.image.digest],
        models,
    };
    // Written first: a crash in between finds an address without a contract and deploys it.
    data.write("registry", init.address()?.to_string().as_bytes())?;
    let (registry, report) = ops::deploy_registry(governance, &init).await?;
    report.success()?;
    name_release(governance, &registry).await?;
    Ok(registry)
}

/// Names this program's code as that of new providers and channels, unless it is named already.
async fn name_release(governance: &Account, address: &Address) -> Result<()> {
    let known = registry::release(governance.chain().as_ref(), address).await?;
    let codes = (provider_code_hash(), channel_code_hash());
    if (known.provider_code, known.channel_code) == codes {
        return Ok(());
    }
    let release = Release { version: known.version.saturating_add(1), provider_code: codes.0, channel_code: codes.1 };
    ops::propose(governance, address, &Change::Release(release)).await?.success()?;
    Ok(())
}

async fn start_nodes(
    data: &DataDir,
    chain: &Arc<LocalChain>,
    policy: &str,
    references: &ReferenceValues,
    (registry, lifetime): (Address, u64),
    tasks: &mut Vec<JoinHandle<()>>,
    ui: Ui,
) -> Result<(Vec<Arc<Node>>, Vec<String>, Vec<LogKey>)> {
    let step = ui.step(format!("{NODES} verifier nodes, each with its own log and key, witnesses of one another"));
    let (mut nodes, mut urls, mut logs, mut listeners) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let name = |index: usize| format!("node-{index}.cocoon.local");
    for index in 0..NODES {
        let (listener, url) = listen().await?;
        let (key, witness) = cocoon_node::public_keys(&name(index), &data.secret(&format!("node-{index}-log"))?)?;
        logs.push(LogKey { url: url.clone(), key, witness });
        urls.push(url);
        listeners.push(listener);
    }
    for (index, listener) in listeners.into_iter().enumerate() {
        let others = || logs.iter().enumerate().filter(move |(other, _)| *other != index).map(|(_, log)| log);
        let node = Arc::new(Node::open(NodeConfig {
            dir: data.join(&format!("node-{index}")),
            name: name(index),
            index: u8::try_from(index)?,
            verdict_seed: data.secret(&format!("node-{index}-verdict"))?,
            log_seed: data.secret(&format!("node-{index}-log"))?,
            policy: policy.to_owned(),
            references: references.clone(),
            registry,
            lifetime,
            chain: chain.clone() as Arc<dyn Chain>,
            peers: others().map(|log| Peer { url: log.url.clone(), witness: log.witness.clone() }).collect(),
            watched: others().map(|log| log.key.clone()).collect(),
            endorser: None,
            refresh: cocoon_node::REFRESH,
            anchoring: None,
            limits: cocoon_node::Limits::default(),
        })?);
        tasks.push(serve(listener, node.clone().router()));
        nodes.push(node);
    }
    step.done("");
    Ok((nodes, urls, logs))
}

/// What `cocoon audit` needs to look at this network: whose logs there are, and which contracts. Nothing in it is secret.
fn auditor_config(client: &Client, chain_url: &str) -> String {
    let config = client.config();
    let (registry, network) = (config.registry, config.channel.network.0);
    let mut text = format!(
        "# Written by `cocoon up` at every start: the addresses hold while it runs. DEVELOPMENT PLATFORM - NOT CONFIDENTIAL\n\
         registry = \"{registry}\"\nchain = \"{chain_url}\"\nnetwork = {network}\n"
    );
    for (index, log) in config.logs.iter().enumerate() {
        // Its place in the Registry's list of verifiers, which nothing else says.
        let (url, key, witness) = (&log.url, &log.key, &log.witness);
        text += &format!("\n[[logs]]\nurl = \"{url}\"\nkey = \"{key}\"\nwitness = \"{witness}\"\nverifier = {index}\n");
    }
    text
}

/// What `cocoon proxy` needs to be this client in another process.
fn proxy_config(data: &DataDir, client: &Client, chain_url: &str, platform: &DevPlatform) -> Result<String> {
    let config = client.config();
    let signer = cocoon_protocol::identity::SigningKey::from_seed(&data.secret("release")?)?.public();
    let proxy = crate::proxy::ProxyConfig {
        gateways: config.gateways.clone(),
        chain: format!("{chain_url}/api/v2/jsonRPC"),
        network: config.channel.network.0,
        registry: config.registry,
        channel: STANDARD.encode(config.channel.to_boc()),
        client_key_file: "secrets/client-key".into(),
        references: "references.toml".into(),
        reference_signers: vec![hex::encode(signer)],
        policy: None,
        development_roots: vec![hex::encode(platform.tdx_root_der()), hex::encode(platform.snp_ark_der())],
        required_logs: config.required_logs,
        required_witnesses: config.required_witnesses,
        voucher_step: config.voucher_step.0,
        data: "proxy".into(),
        max_prices: config.max_prices,
        spending_limit: None,
        api_key_file: None,
        allowed_origins: Vec::new(),
        logs: config
            .logs
            .iter()
            .map(|log| crate::proxy::LogEntry {
                url: log.url.clone(),
                key: log.key.clone(),
                witness: log.witness.clone(),
            })
            .collect(),
    };
    let note = "# Written by `cocoon up` at every start: the addresses hold while it runs. DEVELOPMENT PLATFORM - NOT CONFIDENTIAL\n";
    Ok(format!("{note}{}", toml::to_string(&proxy)?))
}

/// Opens the channel, or tops it up where little is left.
async fn open_channel(chain: &Arc<LocalChain>, client: &Account, init: &ChannelInit) -> Result<()> {
    let channel = init.address();
    if !chain.account(&channel).await?.active {
        ops::open_channel(client, init, DEPOSIT).await?.success()?;
        return Ok(());
    }
    let state = ops::channel_state(chain.as_ref(), &channel).await?;
    if state.available < Nanoton(DEPOSIT.0 / 2) {
        ops::top_up(client, &channel, DEPOSIT).await?.success()?;
    }
    Ok(())
}

async fn wait_for_enclave(client: &Client) -> Result<()> {
    let mut why = "the gateway lists none".to_owned();
    for _ in 0..100 {
        let (enclaves, refused) = client.enclaves().await?;
        if !enclaves.is_empty() {
            return Ok(());
        }
        if let Some(refused) = refused {
            why = refused.to_string();
        }
        client.refresh();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the client accepts no enclave: {why}")
}

/// Strict, but for naming the development platform's roots: a policy document.
fn policy(platform: &DevPlatform) -> String {
    let roots = [platform.tdx_root_der(), platform.snp_ark_der()].map(hex::encode);
    format!("# DEVELOPMENT PLATFORM - NOT CONFIDENTIAL\nroots = [\"{}\", \"{}\"]\n", roots[0], roots[1])
}

/// A folder with a model in it is served under the demo model's name; one with folders of models, under theirs, with commas between them.
fn model_names(folder: &Path) -> Result<String> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the model folder {}", folder.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name in the model folder is not UTF-8")?;
        if name == "tokenizer.json" {
            return Ok(MODEL_NAME.into());
        }
        if entry.path().is_dir() {
            folders.push(name);
        }
    }
    folders.sort_unstable();
    anyhow::ensure!(
        !folders.is_empty(),
        "{} holds no model: no tokenizer.json, and no folder of a model",
        folder.display()
    );
    Ok(folders.join(","))
}

async fn listen() -> Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}

fn serve(listener: TcpListener, router: axum::Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = axum::serve(cocoon_host::no_delay(listener), router).await {
            tracing::error!(%error, "a listener ended");
        }
    })
}

fn short(digest: &cocoon_attestation::Digest) -> String {
    digest.to_string()[..16].to_owned()
}
