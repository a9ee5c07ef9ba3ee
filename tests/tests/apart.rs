//! Every role a process of its own, as its operator runs it: chain, three verifier nodes, a gateway, a provider's host and a client. The host is
//! killed and started again, told to stop while it answers, and asked what is wrong with its configuration.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cocoon_attestation::dev::DevPlatform;
use cocoon_attestation::{EnclaveKey, ReferenceValues, UnixTime};
use cocoon_cli::network::{MODEL_NAME, PRICES};
use cocoon_cli::proxy::{LogEntry, ProxyConfig};
use cocoon_client::SystemClock;
use cocoon_image::{ImageManifest, ModelFolder};
use cocoon_protocol::announce::{self, Announced};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::wire::{ANNOUNCEMENTS_PATH, Announcement, ENCLAVES_PATH, Refusal};
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::RegistryInit;
use cocoon_settlement::toncenter::Toncenter;
use cocoon_settlement::{Address, Nanoton, NetworkId, ops};
use cocoon_tests::http;
use cocoon_tests::roles::{self, Node, NodePlan, Role, cocoon};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

const NODES: usize = 3;
const GOVERNANCE: [u8; 32] = [5; 32];
const PLATFORM: [u8; 32] = [7; 32];

struct World {
    folder: tempfile::TempDir,
    chain: Arc<Toncenter>,
    chain_url: String,
    registry: Address,
    provider: Address,
    nodes: Vec<Node>,
    gateway: Role,
    gateway_url: String,
    _chain: Role,
}

/// What a command said in JSON.
fn said(command: &mut Command) -> Value {
    let out = command.output().unwrap();
    let (told, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{told}{wrong}");
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
}

fn references() -> ReferenceValues {
    let manifest = ImageManifest {
        name: "cocoon-enclave".into(),
        version: "1".into(),
        binary: cocoon_tests::enclave_binary(),
        models: vec![ModelFolder { name: MODEL_NAME.into(), path: cocoon_tests::demo_model() }],
    };
    manifest.reference_values().unwrap()
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let chain_role =
            Role::start(cocoon().args(["chain", "serve", "--listen", "127.0.0.1:0", "--data"]).arg(path.join("chain")));
        let chain_url = chain_role.url("API at");
        let api = format!("{chain_url}/api/v2/jsonRPC");
        let chain = Arc::new(Toncenter::new(&api, None, NetworkId::LOCAL).unwrap());
        let governance = Account::new(chain.clone() as Arc<dyn Chain>, GOVERNANCE).unwrap();
        give(&chain_url, &governance.address());

        let (plans, references) = (NodePlan::several(path, NODES), references());
        let init = RegistryInit {
            network: NetworkId::LOCAL,
            governance: governance.address(),
            time_lock: 0,
            threshold: 2,
            max_lifetime: 86_400,
            verifiers: plans.iter().map(NodePlan::verdict_key).collect(),
            images: vec![references.image.digest],
            models: references.models.iter().map(|model| model.root).collect(),
        };
        let (registry, report) = ops::deploy_registry(&governance, &init).await.unwrap();
        report.success().unwrap();
        let policy = roles::policy(&DevPlatform::from_seed(PLATFORM), "");
        let nodes = NodePlan::start(plans, &api, &registry, &references, &policy);

        let config = format!(
            "listen = \"127.0.0.1:0\"\nchain = \"{chain_url}\"\nnetwork = {}\nregistry = \"{registry}\"\n",
            NetworkId::LOCAL.0
        );
        std::fs::write(path.join("gateway.toml"), config).unwrap();
        let gateway = Role::start(cocoon().args(["gateway", "serve", "--config"]).arg(path.join("gateway.toml")));
        let gateway_url = gateway.url("gateway at");
        let provider = register(path, &chain_url, &registry);
        Self { folder, chain, chain_url, registry, provider, nodes, gateway, gateway_url, _chain: chain_role }
    }

    /// Writes a host's configuration, as the guide shows it, and gives its path.
    fn config(&self, every: u64, alter: impl FnOnce(&mut toml::Table)) -> PathBuf {
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("{:?}", node.url)).collect();
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata = \"host\"\nchain = \"{}\"\nnetwork = {}\nregistry = \"{}\"\nprovider = \"{}\"\n\
             wallet = \"provider/wallet.json\"\nmodels = [\"{MODEL_NAME}\"]\ngateways = [\"{}\"]\nnodes = [{}]\n\
             [prices]\nprompt = {}\ncached = {}\ncompletion = {}\nreasoning = {}\n\
             [guest]\nplatform_seed = \"platform\"\n[guest.process]\nmodel = {:?}\n[claims]\nevery = {every}\n",
            self.chain_url,
            NetworkId::LOCAL.0,
            self.registry,
            self.provider,
            self.gateway_url,
            nodes.join(", "),
            PRICES.prompt,
            PRICES.cached,
            PRICES.completion,
            PRICES.reasoning,
            cocoon_tests::demo_model(),
        );
        std::fs::write(self.folder.path().join("platform"), hex::encode(PLATFORM)).unwrap();
        let mut table: toml::Table = text.parse().unwrap();
        alter(&mut table);
        let path = self.folder.path().join("host.toml");
        std::fs::write(&path, table.to_string()).unwrap();
        path
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = cocoon();
        command.env("COCOON_ENCLAVE_BIN", cocoon_tests::enclave_binary());
        command.args(["host", "serve", "--config"]).arg(config);
        command.arg("--passphrase-file").arg(self.folder.path().join("provider/passphrase"));
        command
    }

    /// A host that claims so often, and the key of its enclave.
    fn host(&self, every: u64) -> (Role, EnclaveKey) {
        let host = Role::start(&mut self.command(&self.config(every, |_| {})));
        let ready = host.wait_for("ready: evidence");
        let key = ready.split("enclave key ").nth(1).unwrap().split(',').next().unwrap();
        (host, key.parse().unwrap())
    }

    /// Exit code of the check of a configuration, and what it says.
    fn check(&self, alter: impl FnOnce(&mut toml::Table)) -> (Option<i32>, String) {
        let out = self.command(&self.config(1, alter)).arg("--check").output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// A client with a channel, and its proxy.
    fn client(&self) -> (Role, String, Address) {
        let path = self.folder.path();
        let platform = DevPlatform::from_seed(PLATFORM);
        std::fs::write(path.join("references.toml"), references().to_signed(&roles::RELEASE).unwrap()).unwrap();
        let like = ProxyConfig {
            gateways: vec![self.gateway_url.clone()],
            chain: format!("{}/api/v2/jsonRPC", self.chain_url),
            network: NetworkId::LOCAL.0,
            registry: self.registry,
            channel: String::new(),
            client_key_file: "none".into(),
            references: "references.toml".into(),
            reference_signers: vec![roles::release_key()],
            policy: None,
            development_roots: vec![hex::encode(platform.tdx_root_der())],
            logs: self
                .nodes
                .iter()
                .map(|node| LogEntry { url: node.url.clone(), key: node.log.clone(), witness: node.witness.clone() })
                .collect(),
            required_logs: 2,
            required_witnesses: 1,
            voucher_step: 5_000_000_000,
            max_prices: PRICES,
            data: "client".into(),
            spending_limit: None,
            api_key_file: None,
            allowed_origins: Vec::new(),
        };
        std::fs::write(path.join("like.toml"), toml::to_string(&like).unwrap()).unwrap();
        let mut wallet = wallet(&path.join("client"), &self.chain_url, &["channel", "open"]);
        wallet.arg(self.provider.to_string()).args(["50", "--yes", "--json", "--like"]).arg(path.join("like.toml"));
        wallet.arg("--config").arg(path.join("client.toml")).arg("--client-key").arg(path.join("client/channel.json"));
        let channel = said(&mut wallet)["channel"].as_str().unwrap().parse().unwrap();
        let mut command = cocoon();
        command.env("COCOON_PASSPHRASE_FILE", path.join("client/passphrase"));
        command.args(["proxy", "--listen", "127.0.0.1:0", "--config"]).arg(path.join("client.toml"));
        let proxy = Role::start(&mut command);
        let url = proxy.url("OpenAI's API");
        (proxy, url, channel)
    }

    async fn paid(&self, channel: &Address, enclave: &EnclaveKey) -> Nanoton {
        ops::channel_paid(self.chain.as_ref(), channel, enclave).await.unwrap().paid
    }

    /// What a gateway lists.
    async fn listed(&self) -> Vec<Announcement> {
        let (status, body) = request("GET", &format!("{}{ENCLAVES_PATH}", self.gateway_url), None, Bytes::new()).await;
        assert_eq!(status, 200);
        serde_json::from_slice(&body).unwrap()
    }

    /// Announces to the gateway: status, and what it says.
    async fn announce(&self, body: &[u8], signed: Option<&Announced>) -> (u16, String) {
        let url = format!("{}{ANNOUNCEMENTS_PATH}", self.gateway_url);
        let header = signed.map(Announced::to_header);
        let (status, said) = request("PUT", &url, header, Bytes::copy_from_slice(body)).await;
        (status, serde_json::from_slice::<Refusal>(&said).map_or_else(|_| String::new(), |refusal| refusal.error))
    }
}

async fn request(method: &str, url: &str, announced: Option<String>, body: Bytes) -> (u16, Bytes) {
    let http = Http::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = hyper::Request::builder().method(method).uri(url);
    if let Some(value) = announced {
        request = request.header(announce::HEADER, value);
    }
    let response = http.request(request.body(Full::new(body)).unwrap()).await.unwrap();
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
}

/// 100 TON of play money.
fn give(chain: &str, to: &Address) {
    said(cocoon().args(["chain", "give"]).arg(to.to_string()).args(["100", "--json", "--chain", chain]));
}

/// A command that pays from the wallet of a folder, which is made and filled first if there is none.
fn wallet(folder: &Path, chain: &str, command: &[&str]) -> Command {
    let file = folder.join("wallet.json");
    let with = |words: &[&str]| {
        let mut command = cocoon();
        command.args(words).env("COCOON_WALLET", &file).env("COCOON_CHAIN", chain);
        command.env("COCOON_PASSPHRASE_FILE", folder.join("passphrase"));
        command
    };
    if !file.exists() {
        std::fs::create_dir_all(folder).unwrap();
        roles::passphrase(folder);
        assert!(with(&["wallet", "new"]).output().unwrap().status.success());
        let address = said(&mut with(&["wallet", "show", "--json"]))["address"].as_str().unwrap().to_owned();
        give(chain, &address.parse().unwrap());
    }
    with(command)
}

/// A provider with a wallet, a contract and a stake.
fn register(folder: &Path, chain: &str, registry: &Address) -> Address {
    let own = |command: &[&str]| wallet(&folder.join("provider"), chain, command);
    let registered = said(own(&["host", "register"]).arg(registry.to_string()).args(["--yes", "--json"]));
    let provider = registered["provider"].as_str().unwrap().to_owned();
    said(own(&["host", "stake"]).arg(&provider).args(["10", "--yes", "--json"]));
    provider.parse().unwrap()
}

/// Asks until somebody answers: after a restart the proxy finds the new enclave.
fn answered(proxy: &str) {
    let until = Instant::now() + Duration::from_secs(90);
    while http::chat(proxy, "What is Cocoon?").is_none() {
        assert!(Instant::now() < until, "nobody answers");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A long answer that has begun.
struct Stream {
    connection: TcpStream,
    come: Vec<u8>,
}

impl Stream {
    fn begin(proxy: &str) -> Self {
        let authority = proxy.trim_start_matches("http://").split('/').next().unwrap();
        // It never says its end, so it goes on to the end of its context.
        let body = serde_json::json!({
            "model": MODEL_NAME, "stream": true, "temperature": 0, "logit_bias": {"0": -100, "2": -100},
            "messages": [{"role": "user", "content": "What is Cocoon?"}],
        })
        .to_string();
        let head = "POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length:";
        let mut connection = TcpStream::connect(authority).unwrap();
        write!(connection, "{head} {}\r\n\r\n{body}", body.len()).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut stream = Self { connection, come: Vec::new() };
        while !stream.text().contains("data: ") {
            assert!(stream.more() > 0, "{}", stream.text());
        }
        stream
    }

    fn more(&mut self) -> usize {
        let mut piece = [0; 1_024];
        let length = self.connection.read(&mut piece).unwrap();
        self.come.extend_from_slice(&piece[..length]);
        length
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.come).into_owned()
    }

    fn end(mut self) -> String {
        while self.more() > 0 {}
        self.text()
    }
}

/// Process of a host's enclave.
fn enclave_of(host: &Role) -> u32 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect();
    let [enclave] = children[..] else { panic!("{children:?}") };
    enclave
}

async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is().await {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_serves_a_network_that_runs_elsewhere_and_loses_nothing() {
    let mut world = World::new().await;
    let (code, text) = world.check(|_| {});
    assert_eq!(code, Some(0), "{text}");
    assert!(
        !text.contains("wrong") && text.contains("2 of 3 verdicts") && text.contains("log node-2.example/log"),
        "{text}"
    );

    // A host that does not claim yet, so that what it earned is only on its disk when it is killed.
    let (mut host, first) = world.host(3_600);
    let (mut proxy, url, channel) = world.client();
    answered(&url);
    let stream = Stream::begin(&url);
    host.kill();
    let cut = stream.end();
    assert!(!cut.contains("[DONE]") && cut.contains(r#""code":"answer_broken""#), "{cut}");
    assert_eq!(world.paid(&channel, &first).await, Nanoton(0));

    // Another life, which claims what the first one earned, and serves another enclave.
    let (mut host, second) = world.host(1);
    assert_ne!(first, second);
    eventually("what was earned before is not claimed", async || world.paid(&channel, &first).await > Nanoton(0)).await;
    answered(&url);
    eventually("what is earned now is not claimed", async || world.paid(&channel, &second).await > Nanoton(0)).await;
    forged_announcements_are_refused(&world, &host).await;

    // Told to stop in the middle of an answer, it lets it end, and takes nothing new.
    let enclave = enclave_of(&host);
    let stream = Stream::begin(&url);
    roles::signal("-STOP", enclave);
    host.signal("-TERM");
    host.wait_for("draining: 1 answers under way");
    assert_eq!(http::chat(&url, "Anything new?"), None);
    roles::signal("-CONT", enclave);
    let whole = stream.end();
    assert!(whole.ends_with("data: [DONE]\n\n"), "{whole}");
    assert!(host.end().success(), "{:?}", host.said());
    assert!(!Path::new(&format!("/proc/{enclave}")).exists(), "its enclave runs on");

    // What clients hold receipts for, the host holds too, and the chain has paid no more.
    proxy.kill();
    let client = std::fs::read_dir(world.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let client = client.map(|path| path.join("client.redb")).find(|path| path.is_file()).expect("the client's record");
    let state = cocoon_client::state::State::open(&client).unwrap();
    let store = cocoon_host::store::Store::open(&world.folder.path().join("host/host/host.redb")).unwrap();
    let (mut answers, mut earned) = (0, Vec::new());
    for (channel, enclave, account) in state.accounts().unwrap() {
        let Some(kept) = store.receipt(&channel, &enclave).unwrap() else {
            assert_eq!(account.sequence, 0, "an acknowledged receipt is lost");
            continue;
        };
        assert!(kept.receipt.total >= account.total, "an acknowledged receipt is lost");
        assert!(world.paid(&channel, &enclave).await <= kept.receipt.total);
        answers += account.sequence;
        earned.push((enclave, kept.receipt.total));
    }
    assert!(answers >= 3, "{answers}");
    drop(store);

    // What the last answer earned is claimed by hand, for a host that has stopped; then everything is paid, and not a nanoton more.
    let mut claim = wallet(&world.folder.path().join("provider"), &world.chain_url, &["host", "claim"]);
    claim.arg(world.provider.to_string()).arg("--data").arg(world.folder.path().join("host/host"));
    said(claim.args(["--yes", "--json"]));
    assert!([first, second].iter().all(|key| earned.iter().any(|(enclave, _)| enclave == key)), "{earned:?}");
    for (enclave, total) in earned {
        assert_eq!(world.paid(&channel, &enclave).await, total);
    }

    world.gateway.signal("-TERM");
    assert!(world.gateway.end().success(), "{:?}", world.gateway.said());
    what_is_wrong_is_named(&world);
}

/// The gateway's clients are sent where the provider said, whoever else says something.
async fn forged_announcements_are_refused(world: &World, host: &Role) {
    let told = host.url("gateways are told");
    let mut known = world.listed().await;
    known.retain(|announcement| announcement.host_url == told);
    let [known] = &known[..] else { panic!("{known:?}") };
    let stolen = Announcement { host_url: "http://127.0.0.1:9".into(), ..known.clone() };
    let body = serde_json::to_vec(&stolen).unwrap();
    let thief = SigningKey::from_seed(&[66; 32]).unwrap();
    let now = SystemClock::time();
    let signed = Announced::sign(&body, NetworkId::LOCAL, now, &thief);
    for (signed, status, expected) in [
        (None, 401, "no header cocoon-announced"),
        (Some(signed), 403, "not the key of the wallet"),
        (Some(Announced::sign(&body, NetworkId::LOCAL, UnixTime(now.0 - 3_600), &thief)), 401, "clock"),
    ] {
        let (found, said) = world.announce(&body, signed.as_ref()).await;
        assert!(found == status && said.contains(expected), "{found} {said}");
    }
    let listed = world.listed().await;
    assert!(listed.iter().all(|announcement| announcement.host_url != stolen.host_url), "{listed:?}");
}

/// One thing at a time is wrong; the check names the key, and what to do.
fn what_is_wrong_is_named(world: &World) {
    let set =
        |key: &'static str, value: toml::Value| move |table: &mut toml::Table| drop(table.insert(key.into(), value));
    let (code, text) = world.check(|_| {});
    assert!(code == Some(10) && text.contains("wrong    gateway") && text.contains("`gateways`"), "{text}");
    let other = Address::basechain([1; 32]).to_string();
    let cases: [(&'static str, toml::Value, &str); 11] = [
        ("registry", other.clone().into(), "`registry`"),
        ("provider", other.into(), "`provider`"),
        ("network", (-3).into(), "`network`"),
        ("chain", "http://127.0.0.1:1".into(), "`chain`"),
        ("wallet", "nowhere.json".into(), "`wallet`"),
        ("wallet_version", "v4R2".into(), "`wallet_version`"),
        ("nodes", vec![world.nodes[0].url.clone()].into(), "`nodes` names 1"),
        ("nodes", vec!["http://127.0.0.1:1"; 2].into(), "`nodes`: http://127.0.0.1:1"),
        ("models", toml::Value::Array(Vec::new()), "`models` is empty"),
        ("url", "https://host.example".into(), "`url`"),
        ("listen", "0.0.0.0:0".into(), "`url` is missing"),
    ];
    for (key, value, expected) in cases {
        let (code, text) = world.check(set(key, value));
        let line = text.lines().find(|line| line.starts_with("wrong") && line.contains(expected));
        assert!(code == Some(10) && line.is_some(), "{key}: {text}");
    }
    for (alter, expected) in [
        ("[guest]", "needs one of"),
        ("[guest]\naddress = \"here\"\nplatform_seed = \"platform\"", "`guest.address`"),
        (
            "[guest]\naddress = \"http://127.0.0.1:1\"\nplatform_seed = \"platform\"",
            "`guest.address`: no guest answers",
        ),
        ("[guest]\naddress = \"http://127.0.0.1:1\"", "`endorsements` is missing"),
        ("[guest]\nlaunch = \"nowhere.toml\"\nplatform_seed = \"platform\"", "`guest.launch`"),
        ("[guest]\nprocess = { model = \"nowhere\" }\nplatform_seed = \"platform\"", "`guest.process.model`"),
        ("[guest]\nprocess = { model = \".\" }\nplatform_seed = \"host.toml\"", "`guest.platform_seed`"),
        (
            "[guest]\nprocess = { model = \".\" }\nplatform_seed = \"platform\"\nsettings = { provider = \"x\" }",
            "`guest.settings.provider`",
        ),
    ] {
        let guest: toml::Table = alter.parse().unwrap();
        let (code, text) = world.check(|table| drop(table.insert("guest".into(), guest["guest"].clone())));
        assert!(code == Some(10) && text.contains(expected), "{alter}: {text}");
    }
    // A key that is none is refused before anything is looked at, and so is a passphrase that is not the wallet's.
    let out = world.command(&world.config(1, set("nod", 1.into()))).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("unknown field `nod`"), "{said}");
    std::fs::write(world.folder.path().join("provider/passphrase"), "topsecret\n").unwrap();
    let out = world.command(&world.config(1, |_| {})).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("passphrase is wrong") && !said.contains("topsecret"), "{said}");
}
