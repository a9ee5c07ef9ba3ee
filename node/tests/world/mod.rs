#![allow(dead_code)]
//! A chain whose clock is set by hand, contracts on it, and nodes of theirs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::IntoResponse as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::binding::report_data;
use cocoon_attestation::dev::{CollateralSpec, DevPlatform, SnpEndorsementSpec, SnpSpec, TdxSpec};
use cocoon_attestation::reference::{ImageReference, ModelReference, SnpReference, TdxReference};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, EnclaveKey, Endorsements, Measurement, ReferenceValues, UnixTime,
};
use cocoon_node::{Error, Limits, Node, NodeConfig, REFRESH, Refused};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::wire::LogInclusion;
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock, rpc};
use cocoon_settlement::toncenter::{BackOff, Options, Toncenter};
use cocoon_settlement::{Address, Nanoton, NetworkId, ops};
use cocoon_transparency::{InclusionProof, Leaf, open_checkpoint, verify_inclusion};
use cocoon_verifier::Outcome;

pub const AT: UnixTime = UnixTime(1_790_000_000);
pub const VERIFIER: [u8; 32] = [21; 32];
pub const KEY: EnclaveKey = EnclaveKey([1; 32]);
pub const MODEL: Digest = Digest([3; 32]);
pub const IMAGE: Digest = Digest([9; 32]);

pub struct World {
    pub chain: Arc<LocalChain>,
    pub clock: Arc<ManualClock>,
    pub account: Account,
    pub registry: Address,
    pub provider: Address,
}

/// The chain as nodes know it: behind a server that may be asked how often it was asked, and be cut off.
pub struct Wire {
    pub chain: Arc<Toncenter>,
    pub asked: Arc<AtomicUsize>,
    pub cut: Arc<AtomicBool>,
}

impl World {
    pub async fn wire(&self) -> Wire {
        let (asked, cut) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, switch) = (asked.clone(), cut.clone());
        let router = rpc::router(self.chain.clone()).layer(axum::middleware::from_fn(
            move |request: axum::extract::Request, next: axum::middleware::Next| {
                counter.fetch_add(1, Ordering::Relaxed);
                let cut = switch.load(Ordering::Relaxed);
                async move {
                    if cut {
                        return axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response();
                    }
                    next.run(request).await
                }
            },
        ));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v2/jsonRPC", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let back_off = BackOff { attempts: 1, ..BackOff::default() };
        let options = Options { back_off, ..Options::default() };
        Wire { chain: Arc::new(Toncenter::with_options(&url, NetworkId::LOCAL, options).unwrap()), asked, cut }
    }

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
        Self { chain, clock, account, registry, provider }
    }

    pub fn references() -> ReferenceValues {
        let image = ImageReference { name: "enclave".into(), version: "1".into(), digest: IMAGE };
        let mut references = ReferenceValues::new(image);
        let mrtd = Measurement(TdxSpec::default().body.mr_td);
        references.tdx.push(TdxReference::of_mrtd(mrtd));
        references.snp.push(SnpReference { measurement: Measurement(SnpSpec::default().measurement) });
        references.models.push(ModelReference { name: "demo".into(), root: MODEL });
        references
    }

    pub fn node(&self, dir: &Path, verdict_seed: [u8; 32]) -> Node {
        self.node_with(dir, verdict_seed, Limits::default())
    }

    pub fn node_with(&self, dir: &Path, verdict_seed: [u8; 32], limits: Limits) -> Node {
        Node::open(NodeConfig {
            verdict_seed,
            limits: Limits { chain_age: Duration::ZERO, ..limits },
            ..self.config(dir)
        })
        .unwrap()
    }

    /// The clock of these tests stands still and jumps, so nothing that the chain said a moment ago holds.
    pub fn config(&self, dir: &Path) -> NodeConfig {
        NodeConfig {
            dir: dir.into(),
            name: "node.example/log".into(),
            index: 0,
            verdict_seed: VERIFIER,
            log_seed: [22; 32],
            policy: policy(""),
            references: Self::references(),
            registry: self.registry,
            lifetime: 86_400,
            chain: self.chain.clone(),
            peers: Vec::new(),
            watched: Vec::new(),
            endorser: None,
            refresh: REFRESH,
            anchoring: None,
            limits: Limits { chain_age: Duration::ZERO, ..Limits::default() },
        }
    }

    /// Claims that no other evidence makes.
    pub async fn numbered(&self, number: u32) -> Claims {
        let mut claims = self.claims().await;
        claims.config_digest = Digest::of(&[&number.to_be_bytes()]);
        claims
    }

    pub async fn claims(&self) -> Claims {
        let head = self.chain.head().await.unwrap();
        Claims {
            enclave_key: KEY,
            provider: self.provider.into(),
            model_name: "demo".into(),
            model_root: MODEL,
            config_digest: Digest([4; 32]),
            beacon: Beacon { seqno: head.seqno, root_hash: head.root_hash, time: head.time },
            nonce_root: Digest::ZERO,
            gpu_digest: None,
        }
    }
}

/// The development platform's roots of CPUs, and whatever else.
pub fn policy(more: &str) -> String {
    let roots = [platform().tdx_root_der(), platform().snp_ark_der()].map(hex::encode);
    format!("roots = {roots:?}\n{more}")
}

/// A policy that no platform meets.
pub const TOO_STRICT: &str = "[tdx]\nmin_tee_tcb_svn = \"ffffffffffffffffffffffffffffffff\"\n";

pub fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

pub fn bundle(claims: &Claims, debug: bool) -> Bundle {
    let claims = claims.to_cbor();
    let mut spec = TdxSpec::default();
    spec.body.report_data = report_data(&claims);
    spec.body.td_attributes[0] |= u8::from(debug);
    let collateral = CollateralSpec::issued(UnixTime(AT.0 - 3600), AT.plus(8 * 86_400));
    Bundle {
        claims,
        cpu: CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) },
        gpu: Vec::new(),
        event_log: None,
        endorsements: Endorsements::Tdx { collateral: platform().tdx_collateral(&collateral) },
        gpu_endorsements: Default::default(),
    }
}

/// Evidence of the development platform's AMD chip, with the certificate of its key.
pub fn snp_bundle(claims: &Claims) -> Bundle {
    let claims = claims.to_cbor();
    let spec = SnpSpec { report_data: report_data(&claims), ..SnpSpec::default() };
    Bundle {
        claims,
        cpu: CpuEvidence::Snp { report: platform().snp_report(&spec) },
        gpu: Vec::new(),
        event_log: None,
        endorsements: Endorsements::Snp(platform().snp_endorsements(&SnpEndorsementSpec::default())),
        gpu_endorsements: Default::default(),
    }
}

pub fn refused(error: Error, outcome: Outcome, reason: &str) -> Refused {
    let Error::Refused(refused) = error else { panic!("{error}") };
    assert_eq!(refused.outcome, outcome, "{}", refused.reason);
    assert!(refused.reason.contains(reason), "{}", refused.reason);
    *refused
}

/// The leaf of a proof that holds.
pub fn proved(node: &Node, inclusion: &LogInclusion) -> Leaf {
    let proof = InclusionProof {
        index: inclusion.leaf_index,
        tree_size: inclusion.tree_size,
        hashes: inclusion.hashes.iter().map(|hash| hash.parse().unwrap()).collect(),
    };
    let leaf = STANDARD.decode(&inclusion.leaf).unwrap();
    verify_inclusion(&leaf, &proof, &open_checkpoint(&inclusion.checkpoint, node.log_key()).unwrap()).unwrap();
    Leaf::from_cbor(&leaf).unwrap()
}
