//! Verifier nodes as operators run them: processes with key files, policies and logs of their own, witnesses of one another.

#[path = "../../node/tests/vendors/mod.rs"]
mod vendors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cocoon_attestation::binding::report_data;
use cocoon_attestation::dev::{CollateralSpec, DevPlatform, PckSpec, TdxSpec};
use cocoon_attestation::reference::{ImageReference, ModelReference, TdxReference};
use cocoon_attestation::{Beacon, Bundle, Claims, CpuEvidence, Digest, Endorsements, Measurement, ReferenceValues};
use cocoon_client::{Client, ClientConfig, LogKey, SystemClock};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::statement::{KeyStatement, SignedKeyStatement};
use cocoon_protocol::wire::{APPRAISE_PATH, NodeRefusal, SignedVerdict};
use cocoon_protocol::work::{self, Stamp};
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::channel::ChannelInit;
use cocoon_settlement::contracts::registry::Listed;
use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
use cocoon_settlement::local::{Genesis, LocalChain, rpc};
use cocoon_settlement::wallet::Wallet;
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, ops};
use cocoon_tests::roles::{self, Node, NodePlan};
use cocoon_transparency::{open_cosigned, open_statement};
use cocoon_verifier::Policy;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::TokioExecutor;

const NODES: usize = 3;
const WALLET: [u8; 32] = [5; 32];
const IMAGE: Digest = Digest([9; 32]);
const MODEL: Digest = Digest([3; 32]);
const MRTD: [u8; 48] = [0xa1; 48];
const PRICES: Prices = Prices { prompt: 10, cached: 1, completion: 20, reasoning: 20 };
const PATIENCE: Duration = Duration::from_secs(30);

fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

fn enclave() -> SigningKey {
    SigningKey::from_seed(&[41; 32]).unwrap()
}

fn policy(more: &str) -> String {
    roles::policy(&platform(), more)
}

/// Work that counts now.
fn stamped(bundle: &[u8]) -> String {
    Stamp::make(bundle, SystemClock::time()).to_header()
}

/// A policy that no platform meets.
const TOO_STRICT: &str = "[tdx]\nmin_tee_tcb_svn = \"ffffffffffffffffffffffffffffffff\"\n";

struct World {
    chain: Arc<LocalChain>,
    account: Account,
    registry: Address,
    provider: Address,
    nodes: Vec<Node>,
    references: ReferenceValues,
    http: Http<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With more tables in the configuration of each node.
    async fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wallet = Wallet::new(WALLET, NetworkId::LOCAL).unwrap().address();
        let genesis = Genesis { accounts: vec![(wallet, Nanoton(100_000_000_000))], time: SystemClock::time() };
        let chain = Arc::new(LocalChain::open(&folder.path().join("chain"), genesis).unwrap());
        let account = Account::new(chain.clone(), WALLET).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let chain_url = format!("http://{}/api/v2/jsonRPC", listener.local_addr().unwrap());
        tokio::spawn(rpc::serve(listener, chain.clone()));

        let plans = NodePlan::several(folder.path(), NODES);
        let registry = RegistryInit {
            network: NetworkId::LOCAL,
            governance: wallet,
            time_lock: 0,
            threshold: 2,
            max_lifetime: 86_400,
            verifiers: plans.iter().map(NodePlan::verdict_key).collect(),
            images: vec![IMAGE],
            models: vec![MODEL],
        };
        let (registry, report) = ops::deploy_registry(&account, &registry).await.unwrap();
        report.success().unwrap();
        let provider =
            ProviderInit { network: NetworkId::LOCAL, registry, owner: wallet, claim_window: 259_200, salt: [0; 32] };
        let (provider, report) = ops::deploy_provider(&account, &provider).await.unwrap();
        report.success().unwrap();

        let image = ImageReference { name: "enclave".into(), version: "1".into(), digest: IMAGE };
        let mut references = ReferenceValues::new(image);
        references.tdx.push(TdxReference::of_mrtd(Measurement(MRTD)));
        references.models.push(ModelReference { name: "demo".into(), root: MODEL });
        let nodes = NodePlan::start_with(plans, &chain_url, &registry, &references, &policy(""), more);
        let http = Http::builder(TokioExecutor::new()).build_http();
        let world = Self { chain, account, registry, provider, nodes, references, http, folder };
        for index in 0..NODES {
            world.cosigned(index, 0).await;
        }
        world
    }

    async fn get(&self, index: usize, path: &str) -> Option<(u16, Vec<u8>)> {
        let uri: hyper::Uri = format!("{}{path}", self.nodes[index].url).parse().unwrap();
        let response = self.http.get(uri).await.ok()?;
        Some((response.status().as_u16(), response.into_body().collect().await.ok()?.to_bytes().to_vec()))
    }

    /// Waits until a node shows a checkpoint of more than so many leaves that both others cosigned.
    async fn cosigned(&self, index: usize, more_than: u64) {
        let started = Instant::now();
        let others: Vec<_> =
            (0..NODES).filter(|other| *other != index).map(|other| &self.nodes[other].witness).collect();
        loop {
            if let Some((200, text)) = self.get(index, "/checkpoint").await {
                let opened = open_cosigned(&String::from_utf8(text).unwrap(), &self.nodes[index].log, &others).unwrap();
                if opened.witnesses.len() == 2 && opened.head.size + 1 > more_than {
                    return;
                }
            }
            assert!(started.elapsed() < 3 * PATIENCE, "node {index} has no cosigned checkpoint");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn bundle(&self, debug: bool) -> Bundle {
        self.bundle_of(&enclave(), PckSpec::default(), debug).await
    }

    /// Evidence of an enclave on a platform.
    async fn bundle_of(&self, enclave: &SigningKey, pck: PckSpec, debug: bool) -> Bundle {
        let head = self.chain.head().await.unwrap();
        let claims = Claims {
            enclave_key: enclave.enclave_key(),
            provider: self.provider.into(),
            model_name: "demo".into(),
            model_root: MODEL,
            config_digest: Digest([4; 32]),
            beacon: Beacon { seqno: head.seqno, root_hash: head.root_hash, time: head.time },
            nonce_root: Digest::ZERO,
            gpu_digest: None,
        }
        .to_cbor();
        let mut spec = TdxSpec { pck, ..TdxSpec::default() };
        spec.body.mr_td = MRTD;
        spec.body.report_data = report_data(&claims);
        spec.body.td_attributes[0] |= u8::from(debug);
        let cpu = CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) };
        let now = SystemClock::time();
        let collateral = CollateralSpec::issued(cocoon_attestation::UnixTime(now.0 - 3_600), now.plus(8 * 86_400));
        let endorsements = Endorsements::Tdx { collateral: platform().tdx_collateral(&collateral) };
        Bundle { claims, cpu, gpu: Vec::new(), event_log: None, endorsements, gpu_endorsements: Default::default() }
    }

    async fn post(&self, index: usize, bundle: &[u8], stamp: Option<&str>) -> (u16, Vec<u8>) {
        let mut request = Request::post(format!("{}{APPRAISE_PATH}", self.nodes[index].url));
        if let Some(stamp) = stamp {
            request = request.header(work::HEADER, stamp);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(bundle))).unwrap();
        let response = tokio::time::timeout(PATIENCE, self.http.request(request)).await.unwrap().unwrap();
        (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    fn client(&self) -> Arc<Client> {
        let wallet = self.account.address();
        let client_key = [31; 32];
        Client::open(ClientConfig {
            gateways: Vec::new(),
            chain: self.chain.clone(),
            policy: Policy::from_toml(&policy("")).unwrap(),
            references: Some(self.references.clone()),
            logs: self
                .nodes
                .iter()
                .map(|node| LogKey { url: node.url.clone(), key: node.log.clone(), witness: node.witness.clone() })
                .collect(),
            required_logs: 2,
            required_witnesses: 1,
            registry: self.registry,
            require_registered: true,
            max_beacon_age: Some(86_400),
            channel: ChannelInit {
                network: NetworkId::LOCAL,
                provider: self.provider,
                owner: wallet,
                client: wallet,
                client_key: SigningKey::from_seed(&client_key).unwrap().public(),
                close_delay: 259_200,
                salt: [0; 32],
            },
            client_key,
            voucher_step: Nanoton(1_000),
            spending_limit: None,
            voucher_lifetime: 3_600,
            max_prices: PRICES,
            data: self.folder.path().join("client"),
            clock: Arc::new(SystemClock),
        })
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_sign_log_witness_come_back_and_tell_clients_what_is_withdrawn() {
    let mut world = World::new().await;
    let good = world.bundle(false).await;
    let bytes = good.to_cbor();
    let stamp = stamped(&bytes);
    let stamp = stamp.as_str();

    // Without the work nothing is done for anybody.
    assert_eq!(world.post(0, &bytes, None).await.0, 428);
    assert_eq!(world.post(0, &bytes, Some(&format!("1{stamp}"))).await.0, 428);
    assert_eq!(world.post(0, &bytes, Some(&stamped(b"another bundle"))).await.0, 428);
    // A refusal is signed, and can be shown to anybody.
    let debug = world.bundle(true).await.to_cbor();
    let (status, body) = world.post(0, &debug, Some(&stamped(&debug))).await;
    let refusal: NodeRefusal = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, refusal.outcome.as_str()), (422, "refused"));
    let lines = open_statement(&refusal.statement, &world.nodes[0].log).unwrap();
    assert_eq!(lines[2], Digest::of(&[&debug]).to_string());
    assert!(refusal.inclusion.is_some());
    let garbage = b"garbage".to_vec();
    let of_garbage = stamped(&garbage);
    assert_eq!(world.post(0, &garbage, Some(&of_garbage)).await.0, 400);
    assert_eq!(world.post(0, &garbage, Some(&of_garbage)).await.0, 409, "paid for once");

    // Two of three verdicts put the key on-chain.
    let mut signed: Vec<(u8, [u8; 64], Verdict)> = Vec::new();
    for index in 0..NODES {
        let (status, body) = world.post(index, &bytes, Some(stamp)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let answer: SignedVerdict = serde_json::from_slice(&body).unwrap();
        let verdict = Verdict::from_boc(&STANDARD.decode(&answer.verdict).unwrap()).unwrap();
        signed.push((answer.index, hex::decode(&answer.signature).unwrap().try_into().unwrap(), verdict));
    }
    assert!(signed.iter().all(|(.., verdict)| *verdict == signed[0].2));
    let signatures: Vec<_> = signed[..2].iter().map(|(index, signature, _)| (*index, *signature)).collect();
    ops::attest(&world.account, &world.registry, &signed[0].2, &signatures).await.unwrap().success().unwrap();

    // The log is a folder of files, and nothing else of the node can be read.
    let folder = world.nodes[0].folder.join("data/public");
    for (path, found) in
        [("/tile/entries/000.p/2", 200), ("/tile/0/000.p/2", 200), ("/owner", 404), ("/../owner", 404), ("/x", 404)]
    {
        let (status, body) = world.get(0, path).await.unwrap();
        assert_eq!(status, found, "{path}");
        if status == 200 {
            assert_eq!(body, std::fs::read(folder.join(&path[1..])).unwrap());
        }
    }

    // The client demands proofs that were witnessed.
    let client = world.client();
    let expiry = SystemClock::time().plus(86_400);
    let statement = KeyStatement {
        evidence_id: good.evidence_id(),
        key_config: vec![1],
        not_before: SystemClock::time(),
        not_after: expiry,
    }
    .sign(&enclave());
    client.appraise(&bytes, &statement, PRICES).await.unwrap();

    // Killed and started again, a node goes on where it was, and signs the same.
    world.nodes[0].kill();
    world.nodes[0].start();
    world.cosigned(0, 2).await;
    let (status, body) = world.post(0, &bytes, Some(stamp)).await;
    let again: SignedVerdict = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, hex::decode(again.signature).unwrap()), (200, signed[0].1.to_vec()));

    // Two operators find the platform too old: clients stop within a minute. A policy that cannot be read changes nothing.
    std::fs::write(world.nodes[2].folder.join("policy.toml"), "nonsense").unwrap();
    for node in &world.nodes[..2] {
        std::fs::write(node.folder.join("policy.toml"), policy(TOO_STRICT)).unwrap();
    }
    let changed = Instant::now();
    loop {
        match client.appraise(&bytes, &statement, PRICES).await {
            Ok(_) => assert!(changed.elapsed() < Duration::from_secs(60), "a client still accepts it"),
            Err(error) => {
                assert!(error.to_string().contains("does not accept it any more"), "{error}");
                break;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// An enclave whose key two of three nodes put on-chain; its bundle, and a statement of its key.
async fn registered(world: &World, seed: u8, pck: PckSpec) -> (Vec<u8>, SignedKeyStatement) {
    let enclave = SigningKey::from_seed(&[seed; 32]).unwrap();
    let bundle = world.bundle_of(&enclave, pck, false).await;
    let bytes = bundle.to_cbor();
    let stamp = stamped(&bytes);
    let (mut signatures, mut verdicts) = (Vec::new(), Vec::new());
    for index in 0..NODES {
        let (status, body) = world.post(index, &bytes, Some(&stamp)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let answer: SignedVerdict = serde_json::from_slice(&body).unwrap();
        verdicts.push(Verdict::from_boc(&STANDARD.decode(&answer.verdict).unwrap()).unwrap());
        signatures.push((answer.index, hex::decode(&answer.signature).unwrap().try_into().unwrap()));
    }
    ops::attest(&world.account, &world.registry, &verdicts[0], &signatures[..2]).await.unwrap().success().unwrap();
    let (not_before, evidence_id) = (SystemClock::time(), bundle.evidence_id());
    let statement = KeyStatement { evidence_id, key_config: vec![1], not_before, not_after: not_before.plus(86_400) }
        .sign(&enclave);
    (bytes, statement)
}

/// The three ways in which what was accepted is withdrawn without anybody changing a node's policy, each from the moment that it is published:
/// Intel revokes a platform, Intel's next TCB info has an advisory against another, governance takes an image back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_of_platform_advisory_and_image_reaches_clients_within_a_minute() {
    const MINUTE: Duration = Duration::from_secs(60);
    const REVOKED: u64 = 1_001;
    let now = SystemClock::time();
    let mut good = CollateralSpec::issued(cocoon_attestation::UnixTime(now.0 - 3_600), now.plus(30 * 86_400));
    let vendors = vendors::World::with(good.clone(), false).await;
    let more = format!(
        "[endorsements]\nfolder = \"endorsements\"\nonline = true\npccs = \"{}\"\nrefresh = 5\n",
        vendors.addresses.intel
    );
    let world = World::with(&more).await;
    let newer = || {
        let mut pck = PckSpec::default();
        (pck.tcb_components[0], pck.cpu_svn[0]) = (pck.tcb_components[0] + 1, pck.cpu_svn[0] + 1);
        pck
    };
    let mut revoked = newer();
    revoked.certificate.serial = REVOKED;
    let (on_revoked, on_old, on_good) = (
        registered(&world, 51, revoked).await,
        registered(&world, 52, PckSpec::default()).await,
        registered(&world, 53, newer()).await,
    );
    let client = world.client();
    let asked = async |(bytes, statement): &(Vec<u8>, SignedKeyStatement)| {
        client.appraise(bytes, statement, PRICES).await.map(drop).map_err(|error| error.to_string())
    };
    for enclave in [&on_revoked, &on_old, &on_good] {
        asked(enclave).await.unwrap();
    }

    good.pck_crl.revoked = vec![REVOKED];
    let mut best = good.tcb_info.tcb_levels[0].clone();
    best.tcb.sgx[0] += 1;
    good.tcb_info.tcb_levels[0].tcb_status = "OutOfDate".into();
    good.tcb_info.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00001".into()];
    good.tcb_info.tcb_levels.insert(0, best);
    good.tcb_info.tcb_evaluation_data_number += 1;
    vendors.publish(&good);
    let published = Instant::now();
    let withdrawn = |result: Result<(), String>| match result {
        Ok(()) => false,
        Err(why) => {
            assert!(why.contains("does not accept it any more"), "{why}");
            true
        }
    };
    while !(withdrawn(asked(&on_revoked).await) && withdrawn(asked(&on_old).await)) {
        assert!(published.elapsed() < MINUTE, "a client still accepts a platform that was revoked or is too old");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("platform and advisory: {:?}", published.elapsed());
    asked(&on_good).await.unwrap();

    ops::forbid(&world.account, &world.registry, Listed::Image(IMAGE)).await.unwrap().success().unwrap();
    let forbidden = Instant::now();
    while !withdrawn(asked(&on_good).await) {
        assert!(forbidden.elapsed() < MINUTE, "a client still accepts an image that was taken back");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("image: {:?}", forbidden.elapsed());
}
