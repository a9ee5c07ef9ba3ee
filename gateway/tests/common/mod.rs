//! A local chain with a Registry and a provider, evidence that it holds, and hosts that announce it.

// Each test file takes what it needs.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::binding::report_data;
use cocoon_attestation::dev::{CollateralSpec, DevPlatform, TdxSpec};
use cocoon_attestation::{Beacon, Bundle, Claims, CpuEvidence, Digest, Endorsements, UnixTime};
use cocoon_gateway::{Gateway, GatewayConfig};
use cocoon_protocol::announce::{Announced, HEADER};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::wire::{Announcement, Refusal};
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
use cocoon_settlement::local::{Clock, Genesis, LocalChain, SystemClock};
use cocoon_settlement::wallet::{Version, Wallet};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, ops};
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Seed of the wallet that owns the provider and governs the Registry.
pub const OWNER: u8 = 5;
const VERIFIER: [u8; 32] = [21; 32];
const IMAGE: Digest = Digest([9; 32]);
const MODEL: Digest = Digest([3; 32]);
const CLAIM_WINDOW: u32 = 259_200;

pub fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

pub struct World {
    pub chain: Arc<LocalChain>,
    pub account: Account,
    pub registry: Address,
    pub provider: Address,
}

pub async fn world() -> World {
    world_of(Version::V5R1).await
}

/// With an owner whose wallet is of this version.
pub async fn world_of(version: Version) -> World {
    let wallet = || Wallet::with_version([OWNER; 32], NetworkId::LOCAL, version).unwrap();
    let accounts = vec![(wallet().address(), Nanoton(100_000_000_000))];
    let genesis = Genesis { accounts, time: SystemClock.now() };
    let chain = Arc::new(LocalChain::in_memory(genesis, Arc::new(SystemClock)).unwrap());
    let account = Account::with_wallet(chain.clone(), wallet());
    let registry = registry(&account, 0).await;
    let provider = provider(&account, registry).await;
    World { chain, account, registry, provider }
}

async fn registry(account: &Account, time_lock: u32) -> Address {
    let init = RegistryInit {
        network: NetworkId::LOCAL,
        governance: account.address(),
        time_lock,
        threshold: 1,
        max_lifetime: 86_400,
        verifiers: vec![SigningKey::from_seed(&VERIFIER).unwrap().public()],
        images: vec![IMAGE],
        models: vec![MODEL],
    };
    let (address, report) = ops::deploy_registry(account, &init).await.unwrap();
    report.success().unwrap();
    address
}

async fn provider(account: &Account, registry: Address) -> Address {
    let (network, owner) = (NetworkId::LOCAL, account.address());
    let init = ProviderInit { network, registry, owner, claim_window: CLAIM_WINDOW, salt: [0; 32] };
    let (address, report) = ops::deploy_provider(account, &init).await.unwrap();
    report.success().unwrap();
    address
}

impl World {
    /// A provider of the same owner, with a Registry that anybody could make.
    pub async fn elsewhere(&self) -> (Address, Address) {
        let registry = registry(&self.account, 1).await;
        (registry, provider(&self.account, registry).await)
    }

    /// Evidence of an enclave that names a provider.
    pub async fn bundle(&self, enclave: u8, provider: Address) -> Bundle {
        use cocoon_settlement::chain::Chain;
        let head = self.chain.head().await.unwrap();
        let claims = Claims {
            enclave_key: key(enclave).enclave_key(),
            provider: provider.into(),
            model_name: "small".into(),
            model_root: MODEL,
            config_digest: Digest([4; 32]),
            beacon: Beacon { seqno: head.seqno, root_hash: head.root_hash, time: head.time },
            nonce_root: Digest::ZERO,
            gpu_digest: None,
        }
        .to_cbor();
        let platform = DevPlatform::from_seed([7; 32]);
        let mut spec = TdxSpec::default();
        spec.body.report_data = report_data(&claims);
        let cpu = CpuEvidence::Tdx { quote: platform.tdx_quote(&spec) };
        let collateral = CollateralSpec::issued(UnixTime(now().0 - 3_600), now().plus(86_400));
        let endorsements = Endorsements::Tdx { collateral: platform.tdx_collateral(&collateral) };
        Bundle { claims, cpu, gpu: Vec::new(), event_log: None, endorsements, gpu_endorsements: Default::default() }
    }

    /// The Registry takes this evidence for a while.
    pub async fn attest(&self, bundle: &Bundle, registry: Address, generation: u32, seconds: u64) {
        let claims = bundle.claims().unwrap();
        let verdict = Verdict {
            network: NetworkId::LOCAL,
            registry,
            provider: claims.provider.into(),
            enclave_key: claims.enclave_key,
            evidence_id: bundle.evidence_id().0,
            image: IMAGE,
            model_root: MODEL,
            generation,
            until: now().plus(seconds),
            expiry: now().plus(900),
            set_epoch: 0,
        };
        let signature = verdict.sign(&VERIFIER).unwrap();
        ops::attest(&self.account, &registry, &verdict, &[(0, signature)]).await.unwrap().success().unwrap();
    }

    /// What a host announces of an enclave that the Registry has taken.
    pub async fn announcement(&self, enclave: u8, host: &str) -> Announcement {
        let bundle = self.bundle(enclave, self.provider).await;
        self.attest(&bundle, self.registry, 0, 3_600).await;
        self.announcement_of(&bundle, host)
    }

    pub fn announcement_of(&self, bundle: &Bundle, host: &str) -> Announcement {
        Announcement {
            evidence_id: bundle.evidence_id().to_string(),
            host_url: host.into(),
            models: vec!["small".into()],
            provider: bundle.claims().unwrap().provider.into(),
            prices: Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 },
            bundle: STANDARD.encode(bundle.to_cbor()),
            key_statement: String::new(),
        }
    }

    pub fn config(&self) -> GatewayConfig {
        GatewayConfig::new(self.chain.clone(), self.registry)
    }

    pub async fn gateway(&self) -> String {
        serve(Gateway::new(self.config()).router()).await
    }
}

pub async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

pub async fn send(request: http::request::Builder, body: impl Into<Body>) -> Response<Body> {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    client.request(request.body(body.into()).unwrap()).await.unwrap().map(Body::new)
}

/// Status of an announcement, and what a refusal says.
pub async fn announce(gateway: &str, body: Vec<u8>, header: Option<String>) -> (StatusCode, String) {
    let mut request =
        Request::put(format!("{gateway}/v1/announcements")).header(header::CONTENT_TYPE, "application/json");
    if let Some(value) = header {
        request = request.header(HEADER, value);
    }
    let answer = send(request, body).await;
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let said = serde_json::from_slice::<Refusal>(&body).map_or_else(|_| String::new(), |refusal| refusal.error);
    (status, said)
}

/// As a host does it: the body, and the header under it.
pub fn signed(announcement: &Announcement, signer: u8, time: UnixTime) -> (Vec<u8>, Option<String>) {
    let body = serde_json::to_vec(announcement).unwrap();
    let header = Announced::sign(&body, NetworkId::LOCAL, time, &key(signer)).to_header();
    (body, Some(header))
}

pub async fn listed(gateway: &str, query: &str) -> Vec<Announcement> {
    let answer = send(Request::get(format!("{gateway}/v1/enclaves{query}")), Body::empty()).await;
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}
