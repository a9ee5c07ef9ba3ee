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
use cocoon_node::{Error, Limits, MAX_BEACON_AGE, Node, NodeConfig, Refused};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::wire::LogInclusion;
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock};
use cocoon_settlement::{Address, Nanoton, NetworkId, ops};
use cocoon_transparency::{InclusionProof, Leaf, open_checkpoint, open_statement, verify_inclusion};
use cocoon_verifier::Outcome;

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

    fn references() -> ReferenceValues {
        let image = ImageReference { name: "enclave".into(), version: "1".into(), digest: IMAGE };
        let mut references = ReferenceValues::new(image);
        let mrtd = Measurement(TdxSpec::default().body.mr_td);
        references.tdx.push(TdxReference::of_mrtd(mrtd));
        references.models.push(ModelReference { name: "demo".into(), root: MODEL });
        references
    }

    fn node(&self, dir: &Path, verdict_seed: [u8; 32]) -> Node {
        self.node_with(dir, verdict_seed, Limits::default())
    }

    fn node_with(&self, dir: &Path, verdict_seed: [u8; 32], limits: Limits) -> Node {
        Node::open(NodeConfig {
            dir: dir.into(),
            name: "node.example/log".into(),
            index: 0,
            verdict_seed,
            log_seed: [22; 32],
            policy: policy(""),
            references: Self::references(),
            registry: self.registry,
            lifetime: 86_400,
            chain: self.chain.clone(),
            peers: Vec::new(),
            watched: Vec::new(),
            endorser: None,
            anchoring: None,
            limits,
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

/// The development platform's root, and whatever else.
fn policy(more: &str) -> String {
    format!("roots = [\"{}\"]\n{more}", hex::encode(platform().tdx_root_der()))
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

fn refused(error: Error, outcome: Outcome, reason: &str) -> Refused {
    let Error::Refused(refused) = error else { panic!("{error}") };
    assert_eq!(refused.outcome, outcome, "{}", refused.reason);
    assert!(refused.reason.contains(reason), "{}", refused.reason);
    *refused
}

/// The leaf of a proof that holds.
fn proved(node: &Node, inclusion: &LogInclusion) -> Leaf {
    let proof = InclusionProof {
        index: inclusion.leaf_index,
        tree_size: inclusion.tree_size,
        hashes: inclusion.hashes.iter().map(|hash| hash.parse().unwrap()).collect(),
    };
    let leaf = STANDARD.decode(&inclusion.leaf).unwrap();
    verify_inclusion(&leaf, &proof, &open_checkpoint(&inclusion.checkpoint, node.log_key()).unwrap()).unwrap();
    Leaf::from_cbor(&leaf).unwrap()
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
        let leaf = proved(&node, &signed.inclusion);
        assert_eq!((leaf.outcome, leaf.refusal), (Outcome::Accepted, None));
        let mut signature = [0; 64];
        hex::decode_to_slice(&signed.signature, &mut signature).unwrap();
        let report = ops::attest(&world.account, &world.registry, &verdict, &[(0, signature)]).await.unwrap();
        report.success().unwrap();
        let record = ops::enclave_record(&*world.chain, &world.provider, &KEY).await.unwrap().unwrap();
        assert_eq!((record.generation, record.until), (generation, verdict.until));
        world.clock.advance(3600);
    }
    assert_eq!(node.log().size(), 2);
}

#[tokio::test]
async fn refused_evidence_is_logged_once_and_gets_no_verdict() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), VERIFIER);
    let bytes = bundle(&world.claims().await, true).to_cbor();
    let first = refused(node.appraise(&bytes).await.unwrap_err(), Outcome::Refused, "debug");
    let again = refused(node.appraise(&bytes).await.unwrap_err(), Outcome::Refused, "debug");
    assert_eq!(node.log().size(), 1);
    // Whoever was refused can show it: the node's signature, and the leaf.
    let lines = open_statement(&first.statement, node.log_key()).unwrap();
    let id = bundle(&world.claims().await, true).evidence_id().to_string();
    assert_eq!(lines[..3], ["refused".to_owned(), id, Digest::of(&[&bytes]).to_string()]);
    assert_eq!(lines[4], first.reason);
    let leaf = proved(&node, &first.inclusion.unwrap());
    assert_eq!((leaf.outcome, leaf.refusal), (Outcome::Refused, None));
    assert_eq!(again.inclusion.unwrap().leaf_index, 0);
    let garbage = refused(node.appraise(b"x").await.unwrap_err(), Outcome::Malformed, "");
    assert_eq!(open_statement(&garbage.statement, node.log_key()).unwrap()[..2], ["malformed", "-"]);
    assert!(garbage.inclusion.is_none());
    assert_eq!(node.log().size(), 1);
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

#[tokio::test]
async fn what_the_chain_says_no_to_is_logged_with_the_reason() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), VERIFIER);
    let mut claims = world.claims().await;
    (claims.model_name, claims.model_root) = ("other".into(), Digest([77; 32]));
    let mut references = World::references();
    references.models.push(ModelReference { name: "other".into(), root: Digest([77; 32]) });
    node.set_rules(&policy(""), references).await.unwrap();
    let error = node.appraise(&bundle(&claims, false).to_cbor()).await.unwrap_err();
    let refused = refused(error, Outcome::Refused, "does not allow model");
    let leaf = proved(&node, &refused.inclusion.unwrap());
    assert_eq!((leaf.outcome, leaf.refusal), (Outcome::Refused, Some(refused.reason)));
}

/// Evidence is public: nobody may spoil it by sending it again late, or with other endorsements.
#[tokio::test]
async fn accepted_evidence_cannot_be_spoiled_by_sending_it_again() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), VERIFIER);
    let good = bundle(&world.claims().await, false);
    node.appraise(&good.to_cbor()).await.unwrap();
    let mut lapsed = good.clone();
    let collateral = CollateralSpec::issued(UnixTime(AT.0 - 90 * 86_400), UnixTime(AT.0 - 60 * 86_400));
    lapsed.endorsements = Endorsements::Tdx { collateral: platform().tdx_collateral(&collateral) };
    refused(node.appraise(&lapsed.to_cbor()).await.unwrap_err(), Outcome::Invalid, "");
    world.clock.advance(3_600);
    let late = refused(node.appraise(&good.to_cbor()).await.unwrap_err(), Outcome::Refused, "old");
    assert!(late.inclusion.is_none());
    assert_eq!(node.log().size(), 1);
    let leaf = proved(&node, &node.inclusion(&good.evidence_id(), 0).await.unwrap());
    assert_eq!(leaf.outcome, Outcome::Accepted);
}

#[tokio::test]
async fn what_is_not_accepted_any_more_is_logged_and_told_to_whoever_asks() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), VERIFIER);
    let good = bundle(&world.claims().await, false);
    let id = good.evidence_id();
    node.appraise(&good.to_cbor()).await.unwrap();
    assert_eq!(node.review().await.unwrap(), 0);
    // A policy that this platform does not meet.
    node.set_rules(&policy("[tdx]\nmin_tee_tcb_svn = \"ffffffffffffffffffffffffffffffff\"\n"), World::references())
        .await
        .unwrap();
    let leaf = proved(&node, &node.inclusion(&id, 0).await.unwrap());
    assert_eq!((leaf.outcome, leaf.evidence_id), (Outcome::Refused, id));
    assert_eq!(node.log().size(), 2);
    assert_eq!(node.review().await.unwrap(), 0, "once");
    // Under the old policy again, and sent again: accepted, with a leaf of its own.
    node.set_rules(&policy(""), World::references()).await.unwrap();
    node.appraise(&good.to_cbor()).await.unwrap();
    assert_eq!(node.log().size(), 3);
    // Governance takes the image back.
    let image = cocoon_settlement::contracts::registry::Listed::Image(IMAGE);
    ops::forbid(&world.account, &world.registry, image).await.unwrap().success().unwrap();
    assert_eq!(node.review().await.unwrap(), 1);
    let leaf = proved(&node, &node.inclusion(&id, 0).await.unwrap());
    assert!(leaf.refusal.unwrap().contains("does not allow image"));
    // What has ended is not looked at any more.
    world.clock.advance(2 * 86_400);
    assert_eq!(node.review().await.unwrap(), 0);
}

#[tokio::test]
async fn a_restart_finds_everything_and_signs_the_same() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), VERIFIER);
    let good = bundle(&world.claims().await, false);
    let before = node.appraise(&good.to_cbor()).await.unwrap();
    node.stop().await;
    // As if the crash had come between the log and the store.
    std::fs::remove_file(folder.path().join("node.redb")).unwrap();
    let node = world.node(folder.path(), VERIFIER);
    let proof = node.inclusion(&good.evidence_id(), 0).await.unwrap();
    assert_eq!(proved(&node, &proof).outcome, Outcome::Accepted);
    let after = node.appraise(&good.to_cbor()).await.unwrap();
    assert_eq!((before.verdict, before.signature), (after.verdict, after.signature));
    assert_eq!(node.log().size(), 1);
}

#[tokio::test]
async fn a_provider_gets_its_share_and_repeats_cost_none_of_it() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let limits = Limits { burst: 2, seconds_each: 100, ..Limits::default() };
    let node = world.node_with(folder.path(), VERIFIER, limits);
    let evidence = async |number: u8| {
        let mut claims = world.claims().await;
        claims.config_digest = Digest([number; 32]);
        bundle(&claims, false).to_cbor()
    };
    let first = evidence(1).await;
    for _ in 0..5 {
        node.appraise(&first).await.unwrap();
    }
    node.appraise(&evidence(2).await).await.unwrap();
    assert!(matches!(node.appraise(&evidence(3).await).await, Err(Error::TooMuch(_))));
    node.appraise(&first).await.unwrap();
    world.clock.advance(100);
    node.appraise(&evidence(3).await).await.unwrap();
    assert_eq!(node.log().size(), 3);
}

#[tokio::test]
async fn the_same_evidence_sent_many_times_at_once_is_logged_once() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = Arc::new(world.node(folder.path(), VERIFIER));
    let bytes = bundle(&world.claims().await, false).to_cbor();
    let all = futures::future::join_all((0..50).map(|_| {
        let (node, bytes) = (node.clone(), bytes.clone());
        tokio::spawn(async move { node.appraise(&bytes).await.unwrap() })
    }))
    .await;
    let signatures: std::collections::BTreeSet<_> = all.into_iter().map(|signed| signed.unwrap().signature).collect();
    assert_eq!(signatures.len(), 1);
    assert_eq!(node.log().size(), 1);
}

#[tokio::test]
async fn published_checkpoints_are_anchored_once_each() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = world.node(folder.path(), VERIFIER);
    node.appraise(&bundle(&world.claims().await, false).to_cbor()).await.unwrap();
    assert!(node.anchor(&world.account).await.unwrap());
    let anchored =
        cocoon_settlement::contracts::registry::anchored(&*world.chain, &world.registry, 0).await.unwrap().unwrap();
    let published = node.log().published().unwrap().tree;
    assert_eq!((anchored.tree_size, anchored.root), (published.size, published.root));
    assert_eq!(anchored.origin, Digest::of(&[b"node.example/log"]));
    assert!(!node.anchor(&world.account).await.unwrap(), "nothing is new");
}
