//! A host staples endorsements to its evidence: of CPUs and of GPUs, from a folder and from the vendors' services.

#[path = "../../node/tests/vendors/mod.rs"]
mod vendors;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::dev::{CollateralSpec, GpuChainSpec, GpuSpec, SnpSpec, TdxSpec};
use cocoon_attestation::reference::{ImageReference, ModelReference, TdxReference};
use cocoon_attestation::{
    Bundle, Claims, CpuEvidence, Digest, Endorsements, GpuEndorsements, Measurement, ReferenceValues, UnixTime, binding,
};
use cocoon_cli::staple::Stapler;
use cocoon_host::store::Store;
use cocoon_host::{DevEndorser, Endorser, Host, HostConfig, Joiner};
use cocoon_node::endorsements::Folder;
use cocoon_node::{Node, NodeConfig};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::statement::KeyStatement;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire::{ATTEST_PATH, Announcement, AttestRequest, ENCLAVES_PATH, EnclaveEvidence, RECEIPTS_PATH};
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::{SettlementReceipt, Voucher};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, ops};
use cocoon_tests::up::Up;
use cocoon_verifier::{Outcome, appraise_bundle};
use vendors::{AT, World, platform, policy, policy_document};

const MODEL: Digest = Digest([3; 32]);
const IMAGE: Digest = Digest([9; 32]);
const VERIFIER: [u8; 32] = [21; 32];
const PRICES: Prices = Prices { prompt: 10, cached: 1, completion: 20, reasoning: 20 };

async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Evidence as a guest with one GPU makes it, whose key has this seed: reports and chain as they come from the machine, and nothing stapled.
fn evidence(seed: u8, provider: Address, request: &AttestRequest) -> EnclaveEvidence {
    let key = SigningKey::from_seed(&[seed; 32]).unwrap();
    let mut claims = Claims {
        enclave_key: key.enclave_key(),
        provider: provider.into(),
        model_name: "demo".into(),
        model_root: MODEL,
        config_digest: Digest([4; 32]),
        beacon: request.beacon,
        nonce_root: request.nonce_root,
        gpu_digest: None,
    };
    let nonce = binding::gpu_nonce(&claims);
    let gpu = vec![platform().gpu_report(&GpuSpec { nonce, ..GpuSpec::default() })];
    claims.gpu_digest = binding::gpu_digest(&gpu);
    let mut spec = TdxSpec::default();
    spec.body.report_data = binding::report_data(&claims.to_cbor());
    let chains = vec![platform().gpu_chain(&GpuChainSpec::default())];
    let bundle = Bundle {
        claims: claims.to_cbor(),
        cpu: CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) },
        gpu,
        event_log: None,
        endorsements: Endorsements::None,
        gpu_endorsements: GpuEndorsements { chains, ..GpuEndorsements::default() },
    };
    let statement = KeyStatement {
        evidence_id: bundle.evidence_id(),
        key_config: vec![1],
        not_before: AT,
        not_after: AT.plus(86_400),
    };
    EnclaveEvidence { bundle: bundle.to_cbor(), key_statement: statement.sign(&key) }
}

/// A chain, and a node whose policy wants manifests and revocation answers of GPUs.
struct Network {
    chain: Arc<LocalChain>,
    account: Arc<Account>,
    registry: Address,
    provider: Address,
    node: String,
    folder: tempfile::TempDir,
}

impl Network {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wallet = cocoon_settlement::wallet::Wallet::new([5; 32], NetworkId::LOCAL).unwrap().address();
        let genesis = Genesis { accounts: vec![(wallet, Nanoton(100_000_000_000))], time: AT };
        let chain = Arc::new(LocalChain::in_memory(genesis, Arc::new(ManualClock::new(AT))).unwrap());
        let account = Arc::new(Account::new(chain.clone() as Arc<dyn Chain>, [5; 32]).unwrap());
        let registry = RegistryInit {
            network: NetworkId::LOCAL,
            governance: wallet,
            time_lock: 0,
            threshold: 1,
            max_lifetime: 86_400,
            verifiers: vec![SigningKey::from_seed(&VERIFIER).unwrap().public()],
            images: vec![IMAGE],
            models: vec![MODEL],
        };
        let registry = ops::deploy_registry(&account, &registry).await.unwrap().0;
        let provider =
            ProviderInit { network: NetworkId::LOCAL, registry, owner: wallet, claim_window: 259_200, salt: [0; 32] };
        let provider = ops::deploy_provider(&account, &provider).await.unwrap().0;
        let image = ImageReference { name: "enclave".into(), version: "1".into(), digest: IMAGE };
        let mut references = ReferenceValues::new(image);
        let mrtd = Measurement(TdxSpec::default().body.mr_td);
        references.tdx.push(TdxReference::of_mrtd(mrtd));
        references.models.push(ModelReference { name: "demo".into(), root: MODEL });
        let node = Node::open(NodeConfig {
            dir: folder.path().join("node"),
            name: "node.example/log".into(),
            index: 0,
            verdict_seed: VERIFIER,
            log_seed: [22; 32],
            policy: policy_document(),
            references,
            registry,
            lifetime: 86_400,
            chain: chain.clone() as Arc<dyn Chain>,
            peers: Vec::new(),
            watched: Vec::new(),
            endorser: None,
            refresh: cocoon_node::REFRESH,
            anchoring: None,
            limits: cocoon_node::Limits::default(),
        });
        let node = serve(Arc::new(node.unwrap()).router()).await;
        Self { chain, account, registry, provider, node, folder }
    }

    /// A host with a guest that has a GPU; what it announces, or why it announces nothing.
    async fn announced(&self, seed: u8, endorser: Arc<dyn Endorser>) -> Result<Announcement, String> {
        let guest = serve(guest(seed, self.provider)).await;
        let host = self.host(&guest, endorser, &tempfile::tempdir_in(self.folder.path()).unwrap().keep()).await;
        let ready = host.first_ready(Duration::from_secs(60)).await;
        host.shutdown().await;
        ready.map(|ready| ready.announcement).map_err(|error| error.to_string())
    }

    /// A host that joins the guest at this URL, with its record in this folder.
    async fn host(&self, guest: &str, endorser: Arc<dyn Endorser>, data: &Path) -> Host {
        Host::start(HostConfig {
            network: NetworkId::LOCAL,
            provider: self.provider,
            registry: self.registry,
            chain: self.chain.clone(),
            account: self.account.clone(),
            owner_key: SigningKey::from_seed(&[5; 32]).unwrap(),
            launcher: Arc::new(Joiner::new(guest.parse().unwrap())),
            endorser,
            guest_config: self.folder.path().join("guest.toml"),
            model: self.folder.path().join("model"),
            model_names: vec!["demo".into()],
            prices: PRICES,
            node_urls: vec![self.node.clone()],
            gateway_urls: Vec::new(),
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            url: None,
            data: data.to_owned(),
            tap: None,
            claims: None,
        })
        .await
        .unwrap()
    }
}

/// A guest that makes evidence.
fn guest(seed: u8, provider: Address) -> axum::Router {
    let attest = move |body: axum::body::Bytes| async move {
        evidence(seed, provider, &AttestRequest::from_cbor(&body).unwrap()).to_cbor()
    };
    axum::Router::new().route(ATTEST_PATH, post(attest))
}

/// Its host was killed after it had signed, and before the host had got it.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_outlived_its_host_is_joined_and_what_it_had_signed_is_kept() {
    let (vendors, network) = (World::new().await, Network::new().await);
    let (key, channel) = (SigningKey::from_seed(&[45; 32]).unwrap(), Address::basechain([6; 32]));
    let (enclave_key, provider) = (key.enclave_key(), network.provider);
    let data = network.folder.path().join("killed");
    std::fs::create_dir(&data).unwrap();
    let (cap, expiry) = (Nanoton(1_000), AT.plus(3_600));
    let voucher = Voucher { network: NetworkId::LOCAL, channel, enclave_key, cap, prices: PRICES, expiry };
    let store = Store::open(&data.join("host.redb")).unwrap();
    store.keep_voucher(&SignedVoucher::sign(voucher, &[31; 32]).unwrap()).unwrap();
    drop(store);
    let (sequence, total) = (3, Nanoton(30));
    let receipt =
        SettlementReceipt { network: NetworkId::LOCAL, provider, channel, enclave_key, sequence, total, time: AT };
    let receipt = SignedSettlementReceipt::sign(receipt, &key).unwrap();
    let bytes = receipt.to_bytes();
    let router = guest(45, provider).route(RECEIPTS_PATH, get(move || async move { bytes }));
    let running = serve(router).await;
    let stapler = || Arc::new(Stapler::new(vendors.online()));
    let host = network.host(&running, stapler(), &data).await;
    let ready = host.first_ready(Duration::from_secs(60)).await.unwrap();
    assert_eq!((ready.enclave_key, ready.pid), (enclave_key, None));
    assert_eq!(host.store().receipt(&channel, &enclave_key).unwrap(), Some(receipt));
    // It is not this host's to end.
    host.shutdown().await;
    let asked = cocoon_host::get(&format!("{running}{RECEIPTS_PATH}"), Duration::from_secs(5)).await.unwrap();
    assert_eq!(asked.0, 200);

    // Another provider's guest costs nothing, and the message says whose it is.
    let other = Address::basechain([8; 32]);
    let foreign = serve(guest(46, other)).await;
    let host = network.host(&foreign, stapler(), &network.folder.path().join("foreign")).await;
    let why = host.first_ready(Duration::from_secs(60)).await.unwrap_err().to_string();
    host.shutdown().await;
    assert!(why.contains(&format!("works for the provider {other}")), "{why}");
}

/// Manifests and revocation answers of the GPU are fetched and stapled, so that a stranger can appraise the bundle offline for ever; what
/// demands them refuses the same evidence without.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_a_gpu_is_stapled_with_manifests_and_revocation_answers() {
    let vendors = World::new().await;
    let network = Network::new().await;
    let bare = network.announced(41, Arc::new(DevEndorser::new(platform()))).await.expect_err("nothing is stapled");
    assert!(bare.contains("0 of 1 verdicts") && bare.contains("gpu."), "{bare}");
    assert_eq!(vendors.asked(), 0);

    let stapled = network.announced(42, Arc::new(Stapler::new(vendors.online()))).await.expect("stapled and attested");
    let bytes = STANDARD.decode(&stapled.bundle).unwrap();
    let bundle = Bundle::from_cbor(&bytes).unwrap();
    assert_eq!((bundle.gpu_endorsements.manifests.len(), bundle.gpu_endorsements.ocsp.len()), (2, 6));
    let result = appraise_bundle(&bytes, &policy(), None, AT).appraisal;
    assert_eq!(result.outcome, Outcome::Accepted, "{}", result.reason);
    // The evidence is the same one, whatever is stapled to it.
    assert_eq!(stapled.evidence_id, bundle.evidence_id().to_string());

    // Again without the services: the folder has it all now, and another folder does not.
    let asked = vendors.asked();
    let offline = |path: &Path| cocoon_node::endorsements::Endorser::offline(path).unwrap();
    let folder = vendors.folder.path();
    network.announced(43, Arc::new(Stapler::new(offline(folder)))).await.expect("from the folder alone");
    let empty = tempfile::tempdir().unwrap();
    let missing =
        network.announced(44, Arc::new(Stapler::new(offline(empty.path())))).await.expect_err("nothing to staple");
    assert!(missing.contains("is not in the folder"), "{missing}");
    assert_eq!(vendors.asked(), asked);
}

/// The same from the command line, with the real guest: what `--endorsements` names is what clients are given.
#[tokio::test(flavor = "multi_thread")]
async fn up_staples_what_its_folder_of_endorsements_holds() {
    let now = cocoon_client::SystemClock::time();
    let spec = CollateralSpec::issued(UnixTime(now.0 - 3_600), now.plus(86_400));
    let vendors = World::with(spec, false).await;
    let data = tempfile::tempdir().unwrap();
    let secrets = data.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    // The very platform whose vendors are asked.
    std::fs::write(secrets.join("development-platform"), hex::encode([7; 32])).unwrap();
    let folder = vendors.folder.path().to_str().unwrap().to_owned();
    let services = vendors.addresses.intel.clone();
    let path = data.path().to_owned();
    let start = move |more: Vec<String>| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || Up::start_asked(&path, &more))
    };
    let fetched = ["--endorsements", &folder, "--pccs", &services].map(str::to_owned).to_vec();
    let up = start(fetched).await.unwrap();
    let kept = Folder::open(vendors.folder.path()).unwrap();
    let entries = kept.entries().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["tdx/c0c000000000-platform.json"]);
    let asked = vendors.asked();
    assert_eq!(asked, 4);
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let listed = format!("{}{ENCLAVES_PATH}", up.ready["gateway"].as_str().unwrap());
    let body = http.get(listed.parse().unwrap()).await.unwrap().into_body();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    let list: Vec<Announcement> = serde_json::from_slice(&body).unwrap();
    let bundle = Bundle::from_cbor(&STANDARD.decode(&list[0].bundle).unwrap()).unwrap();
    let Endorsements::Tdx { collateral } = bundle.endorsements else { panic!("collateral") };
    assert_eq!(collateral, kept.read(&entries[0]).unwrap(), "byte for byte what the folder holds");
    drop(up);
    let offline = ["--endorsements", &folder, "--offline"].map(str::to_owned).to_vec();
    drop(start(offline).await.unwrap());
    assert_eq!(vendors.asked(), asked, "nothing is fetched again");
}

/// On the day of a recovery: all of a folder anew, current or not, and what one service does not give keeps nobody from the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_fetched_anew_at_one_word() {
    let now = cocoon_client::SystemClock::time();
    let mut spec = CollateralSpec::issued(UnixTime(now.0 - 3_600), now.plus(86_400));
    let vendors = World::with(spec.clone(), false).await;
    let (quote, report) = (platform().tdx_quote(&TdxSpec::default()), platform().snp_report(&SnpSpec::default()));
    vendors.online().tdx(&quote, now, false).await.unwrap();
    vendors.online().snp(&report, None, None, now, false).await.unwrap();
    let before = vendors.asked();
    let (folder, url) = (vendors.folder.path().to_owned(), vendors.addresses.intel.clone());
    let refresh = || {
        let (folder, url) = (folder.clone(), url.clone());
        let run = move || {
            let mut command = std::process::Command::new(cocoon_tests::cocoon_binary());
            command.args(["endorsements", "refresh"]).arg(folder).args(["--pccs", &url, "--amd", &url]);
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap())
        };
        async move { tokio::task::spawn_blocking(run).await.unwrap() }
    };
    spec.tcb_info.tcb_evaluation_data_number += 1;
    vendors.publish(&spec);
    let (success, said) = refresh().await;
    assert!(success && said.contains("NEW: tdx/c0c000000000-platform.json"), "{said}");
    assert!(said.contains("the same: snp/Milan/vcek.crl") && said.contains("2 endorsement(s)"), "{said}");
    // Four answers of Intel's and one list of AMD's; certificates never lapse.
    assert_eq!(vendors.asked() - before, 5);
    vendors.fault("/tdx/certification/v4/tcb", &[vendors::Fault::Status(404)]);
    let before = vendors.asked();
    let (success, said) = refresh().await;
    assert!(!success && said.contains("FAILED: tdx/c0c000000000-platform.json"), "{said}");
    assert!(said.contains("the same: snp/Milan/vcek.crl") && vendors.asked() - before == 2, "{said}");
    let offline = cocoon_node::endorsements::Endorser::offline(&folder).unwrap();
    offline.tdx(&quote, now, false).await.expect("what was there is still there");
}
