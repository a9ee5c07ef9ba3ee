#![allow(dead_code)]
//! A chain with a Registry and a Provider, an enclave's evidence from the development platform, and a log that holds it.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::dev::cpu::{DevCpu, Launch, Tee};
use cocoon_attestation::dev::{CollateralSpec, DevPlatform};
use cocoon_attestation::reference::{ImageReference, ModelReference, TdxReference};
use cocoon_attestation::tsm::{self, SocketTsm};
use cocoon_attestation::{Beacon, Bundle, Claims, Digest, Endorsements, Measurement, ReferenceValues, UnixTime};
use cocoon_client::{Client, ClientConfig, Clock, Error, LogKey};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::sealed::Receiver;
use cocoon_protocol::statement::{KeyStatement, SignedKeyStatement};
use cocoon_protocol::wire::{Announcement, INCLUSION_PATH, LogInclusion};
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::channel::ChannelInit;
use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, ops};
use cocoon_transparency::{AddCheckpoint, Leaf, Log, Witness, witness_key};
use cocoon_verifier::{Outcome, Policy, appraise_bundle};

pub const AT: UnixTime = UnixTime(1_790_000_000);
pub const PRICES: Prices = Prices { prompt: 10, cached: 1, completion: 20, reasoning: 20 };
pub const MODEL: Digest = Digest([3; 32]);
const IMAGE: Digest = Digest([9; 32]);
const VERIFIER: [u8; 32] = [21; 32];
const CLIENT_KEY: [u8; 32] = [31; 32];

/// A clock that the test sets.
pub struct Time(pub Arc<ManualClock>);

impl Clock for Time {
    fn now(&self) -> UnixTime {
        cocoon_settlement::local::Clock::now(self.0.as_ref())
    }
}

pub fn enclave() -> SigningKey {
    SigningKey::from_seed(&[41; 32]).unwrap()
}

pub fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

pub struct World {
    pub chain: Arc<LocalChain>,
    pub clock: Arc<ManualClock>,
    pub account: Account,
    pub registry: Address,
    pub provider: Address,
    folder: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(AT));
        let wallet = cocoon_settlement::wallet::Wallet::new([5; 32], NetworkId::LOCAL).unwrap().address();
        let accounts = vec![(wallet, Nanoton(100_000_000_000))];
        let chain = Arc::new(LocalChain::in_memory(Genesis { accounts, time: AT }, clock.clone()).unwrap());
        let account = Account::new(chain.clone(), [5; 32]).unwrap();
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
        let (registry, report) = ops::deploy_registry(&account, &registry).await.unwrap();
        report.success().unwrap();
        let provider =
            ProviderInit { network: NetworkId::LOCAL, registry, owner: wallet, claim_window: 259_200, salt: [0; 32] };
        let (provider, report) = ops::deploy_provider(&account, &provider).await.unwrap();
        report.success().unwrap();
        Self { chain, clock, account, registry, provider, folder: tempfile::tempdir().unwrap() }
    }

    pub async fn claims(&self) -> Claims {
        let head = self.chain.head().await.unwrap();
        Claims {
            enclave_key: enclave().enclave_key(),
            provider: self.provider.into(),
            model_name: "demo".into(),
            model_root: MODEL,
            config_digest: Digest([4; 32]),
            beacon: Beacon { seqno: head.seqno, root_hash: head.root_hash, time: head.time },
            nonce_root: Digest::ZERO,
            gpu_digest: None,
        }
    }

    /// Registers the claims' key with this evidence until then.
    pub async fn register(&self, claims: &Claims, evidence_id: Digest, until: UnixTime) {
        self.register_anew(claims, evidence_id, until, 0).await;
    }

    /// The same as the attestation of this number: the first is 0.
    pub async fn register_anew(&self, claims: &Claims, evidence_id: Digest, until: UnixTime, generation: u32) {
        let verdict = Verdict {
            network: NetworkId::LOCAL,
            registry: self.registry,
            provider: self.provider,
            enclave_key: claims.enclave_key,
            evidence_id,
            image: IMAGE,
            model_root: MODEL,
            generation,
            until,
            expiry: AT.plus(3_600),
            set_epoch: ops::registry_params(self.chain.as_ref(), &self.registry).await.unwrap().set_epoch,
        };
        let signature = verdict.sign(&VERIFIER).unwrap();
        let report = ops::attest(&self.account, &self.registry, &verdict, &[(0, signature)]).await.unwrap();
        report.success().unwrap();
    }

    /// A client that demands everything but a log's proof.
    pub fn config(&self) -> ClientConfig {
        let client_key = SigningKey::from_seed(&CLIENT_KEY).unwrap().public();
        let mut references =
            ReferenceValues::new(ImageReference { name: "enclave".into(), version: "1".into(), digest: IMAGE });
        let mrtd = Measurement(MRTD);
        references.tdx.push(TdxReference::of_mrtd(mrtd));
        references.models.push(ModelReference { name: "demo".into(), root: MODEL });
        ClientConfig {
            gateways: Vec::new(),
            chain: self.chain.clone(),
            registry: self.registry,
            policy: Policy { roots: vec![platform().tdx_root_der()], ..Policy::default() },
            references: Some(references),
            logs: Vec::new(),
            required_logs: 0,
            required_witnesses: 0,
            require_registered: true,
            max_beacon_age: Some(86_400),
            channel: ChannelInit {
                network: NetworkId::LOCAL,
                provider: self.provider,
                owner: self.account.address(),
                client: self.account.address(),
                client_key,
                close_delay: 259_200,
                salt: [0; 32],
            },
            client_key: CLIENT_KEY,
            voucher_step: Nanoton(1_000),
            spending_limit: None,
            voucher_lifetime: 3_600,
            max_prices: PRICES,
            data: self.folder.path().join("client"),
            clock: Arc::new(Time(self.clock.clone())),
        }
    }

    /// A log that holds a bundle with an outcome.
    pub fn log(&self, bundle: &Bundle, seed: [u8; 32], outcome: Outcome) -> TestLog {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let log = Log::open(folder.path(), "log.example/one", seed).unwrap();
        let appraisal = appraise_bundle(&bundle.to_cbor(), &self.config().policy, None, AT).appraisal;
        let (mut leaf, _) = Leaf::new(bundle, &appraisal, AT, Digest::ZERO);
        leaf.outcome = outcome;
        log.append(vec![leaf.to_cbor()]).unwrap();
        TestLog { log, _folder: folder }
    }
}

/// A node's log, with a witness that has cosigned what it shows.
pub struct TestLog {
    pub log: Log,
    _folder: tempfile::TempDir,
}

impl TestLog {
    pub fn key(&self) -> String {
        self.log.vkey().to_owned()
    }

    /// More leaves.
    pub fn grow(&self, leaves: u64) {
        self.log.append((0..leaves).map(|number| number.to_be_bytes().to_vec()).collect()).unwrap();
    }

    /// Proof of the first leaf, under a checkpoint with these signature lines.
    pub fn proof(&self, since: u64, cosignatures: &str) -> LogInclusion {
        let head = self.log.head().unwrap();
        let size = head.tree.size;
        let proof = self.log.inclusion(0, size).unwrap();
        LogInclusion {
            leaf_index: 0,
            leaf: STANDARD.encode(self.log.entry(0).unwrap()),
            tree_size: size,
            hashes: proof.hashes.iter().map(ToString::to_string).collect(),
            checkpoint: head.checkpoint + cosignatures,
            consistency: self.log.consistency(since.min(size), size).unwrap().iter().map(ToString::to_string).collect(),
        }
    }

    /// A cosignature of what the log shows now, by a witness that has seen nothing before.
    pub fn cosignature(&self, witness_seed: [u8; 32], at: UnixTime) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness.redb");
        let witness = Witness::open(&path, "other.example/witness", &witness_seed, &[self.key()]).unwrap();
        let request = AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: self.log.head().unwrap().checkpoint };
        (witness.add_checkpoint(&request.to_text(), at).unwrap(), witness.vkey().to_owned())
    }
}

pub const MRTD: [u8; 48] = [0xa1; 48];

/// What a guest with this measurement gets from its CPU for these claims.
pub fn bundle(platform: &DevPlatform, mrtd: [u8; 48], claims: &Claims) -> Bundle {
    let (host, guest) = UnixStream::pair().unwrap();
    let cpu = DevCpu::new(platform.clone(), Tee::Tdx, Launch { mrtd, ..Launch::default() });
    std::thread::spawn(move || cpu.serve(host));
    let claims = claims.to_cbor();
    let cpu = tsm::collect(&mut SocketTsm::new(guest), &claims).unwrap().cpu;
    let collateral = CollateralSpec::issued(UnixTime(AT.0 - 3_600), AT.plus(8 * 86_400));
    let endorsements = Endorsements::Tdx { collateral: platform.tdx_collateral(&collateral) };
    Bundle { claims, cpu, gpu: Vec::new(), event_log: None, endorsements, gpu_endorsements: Default::default() }
}

pub fn statement(bundle: &Bundle, key: &SigningKey) -> SignedKeyStatement {
    let evidence_id = bundle.evidence_id();
    KeyStatement { evidence_id, key_config: vec![1], not_before: AT, not_after: AT.plus(86_400) }.sign(key)
}

pub async fn appraise(
    config: ClientConfig,
    bundle: &Bundle,
    statement: &SignedKeyStatement,
) -> Result<cocoon_client::Appraised, Error> {
    Client::open(config).unwrap().appraise(&bundle.to_cbor(), statement, PRICES).await
}

pub async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A node that answers every request for a proof with this one.
pub async fn node(inclusion: LogInclusion, key: String) -> LogKey {
    let route = format!("{INCLUSION_PATH}/{{id}}");
    let router = axum::Router::new().route(&route, axum::routing::get(|| async move { axum::Json(inclusion) }));
    LogKey { url: serve(router).await, key, witness: witness_key("none.example/witness", &[77; 32]).unwrap() }
}

/// What a gateway lists: one enclave, with a key that can be sealed to.
pub async fn listed(world: &World) -> Announcement {
    let claims = world.claims().await;
    let bundle = bundle(&platform(), MRTD, &claims);
    world.register(&claims, bundle.evidence_id().0, AT.plus(80_000)).await;
    let epoch = Receiver::new().rotate(AT, 86_400, 60).unwrap();
    let statement = KeyStatement {
        evidence_id: bundle.evidence_id(),
        key_config: epoch.key_config,
        not_before: epoch.not_before,
        not_after: epoch.not_after,
    };
    Announcement {
        evidence_id: bundle.evidence_id().to_string(),
        host_url: "http://127.0.0.1:1".into(),
        models: vec!["demo".into()],
        provider: world.provider,
        prices: PRICES,
        bundle: STANDARD.encode(bundle.to_cbor()),
        key_statement: STANDARD.encode(statement.sign(&enclave()).to_bytes()),
    }
}
