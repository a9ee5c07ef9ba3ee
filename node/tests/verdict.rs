//! A node's verdict is taken by the contracts, stands in the node's log, and is given for good evidence only.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::binding::report_data;
use cocoon_attestation::dev::{CollateralSpec, DevPlatform, TdxSpec};
use cocoon_attestation::reference::{ImageReference, ModelReference, TdxReference};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, EnclaveKey, Endorsements, Measurement, ReferenceValues, UnixTime,
};
use cocoon_node::{Error, MAX_BEACON_AGE, Node, NodeConfig};
use cocoon_protocol::identity::SigningKey;
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock};
use cocoon_settlement::{Address, Nanoton, NetworkId, ops};
use cocoon_transparency::{InclusionProof, verify_inclusion};
use cocoon_verifier::{Outcome, Policy};

const AT: UnixTime = UnixTime(1_790_000_000);
const VERIFIER: [u8; 32] = [21; 32];
const KEY: EnclaveKey = EnclaveKey([1; 32]);
const MODEL: Digest = Digest([3; 32]);
const IMAGE: Digest = Digest([9; 32]);

struct World {
    chain: Arc<LocalChain>,
    clock: Arc<ManualClock>,
    account: Account,
    registry: Address,
    provider: Address,
}

impl World {
    async fn new() -> Self {
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

    fn node(&self, dir: &Path, verdict_seed: [u8; 32]) -> Node {
        let image = ImageReference { name: "enclave".into(), version: "1".into(), digest: IMAGE };
        let mut references = ReferenceValues::new(image);
        let mrtd = Measurement(TdxSpec::default().body.mr_td);
        references.tdx.push(TdxReference::of_mrtd(mrtd));
        references.models.push(ModelReference { name: "demo".into(), root: MODEL });
        Node::open(NodeConfig {
            dir: dir.into(),
            name: "node.example/log".into(),
            index: 0,
            verdict_seed,
            log_seed: [22; 32],
            policy: Policy { roots: vec![platform().tdx_root_der()], ..Policy::default() },
            references,
            registry: self.registry,
            lifetime: 86_400,
            chain: self.chain.clone(),
        })
        .unwrap()
    }

    async fn claims(&self) -> Claims {
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

fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

fn bundle(claims: &Claims, debug: bool) -> Bundle {
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

fn refused(error: Error, outcome: Outcome, reason: &str) {
    let Error::Refused(refused) = error else { panic!("{error}") };
    assert_eq!(refused.outcome, outcome, "{}", refused.reason);
    assert!(refused.reason.contains(reason), "{}", refused.reason);
}

#[tokio::test]
async fn verdicts_register_and_renew_a_key_and_stand_in_the_log() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), VERIFIER);
    for generation in 0..2 {
        let bytes = bundle(&world.claims().await, false).to_cbor();
        let signed = node.appraise(&bytes).await.unwrap();
        assert_eq!(node.appraise(&bytes).await.unwrap(), signed, "the same evidence gets the same verdict");
        let verdict = Verdict::from_boc(&STANDARD.decode(&signed.verdict).unwrap()).unwrap();
        assert_eq!(verdict.generation, generation);
        let proof = InclusionProof {
            index: signed.inclusion.leaf_index,
            tree_size: signed.inclusion.tree_size,
            hashes: signed.inclusion.hashes.iter().map(|hash| hash.parse().unwrap()).collect(),
        };
        let leaf = STANDARD.decode(&signed.inclusion.leaf).unwrap();
        verify_inclusion(&leaf, &proof, &signed.inclusion.checkpoint, node.log_key()).unwrap();
        let mut signature = [0; 64];
        signature.copy_from_slice(&hex(&signed.signature));
        let report = ops::attest(&world.account, &world.registry, &verdict, &[(0, signature)]).await.unwrap();
        report.success().unwrap();
        let record = ops::enclave_record(&*world.chain, &world.provider, &KEY).await.unwrap().unwrap();
        assert_eq!((record.generation, record.until), (generation, verdict.until));
        world.clock.advance(3600);
    }
    assert_eq!(node.log().size().unwrap(), 2);
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn refused_evidence_is_logged_once_and_gets_no_verdict() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), VERIFIER);
    let bytes = bundle(&world.claims().await, true).to_cbor();
    refused(node.appraise(&bytes).await.unwrap_err(), Outcome::Refused, "debug");
    refused(node.appraise(&bytes).await.unwrap_err(), Outcome::Refused, "debug");
    assert_eq!(node.log().size().unwrap(), 1);
    refused(node.appraise(b"x").await.unwrap_err(), Outcome::Malformed, "");
    assert_eq!(node.log().size().unwrap(), 1);
}

#[tokio::test]
async fn beacons_are_young_blocks_of_the_chain() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), VERIFIER);
    let good = world.claims().await;
    let mut other = good.clone();
    other.beacon.root_hash.0[0] ^= 1;
    refused(node.appraise(&bundle(&other, false).to_cbor()).await.unwrap_err(), Outcome::Refused, "not the one");
    let mut unknown = good.clone();
    unknown.beacon.seqno += 100;
    refused(node.appraise(&bundle(&unknown, false).to_cbor()).await.unwrap_err(), Outcome::Refused, "no block");
    world.clock.advance(MAX_BEACON_AGE + 1);
    refused(node.appraise(&bundle(&good, false).to_cbor()).await.unwrap_err(), Outcome::Refused, "old");
}

#[tokio::test]
async fn a_node_that_the_registry_does_not_know_signs_nothing() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), [99; 32]);
    let bytes = bundle(&world.claims().await, false).to_cbor();
    assert!(matches!(node.appraise(&bytes).await, Err(Error::NotVerifier { index: 0 })));
}
