//! A node's verdict is taken by the contracts, stands in the node's log, and is given for good evidence only.

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::dev::CollateralSpec;
use cocoon_attestation::reference::ModelReference;
use cocoon_attestation::{Digest, Endorsements, UnixTime};
use cocoon_node::{Anchoring, Error, Limits, MAX_BEACON_AGE, Node};
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::ops;
use cocoon_transparency::open_statement;
use cocoon_verifier::Outcome;
use world::{AT, IMAGE, KEY, TOO_STRICT, VERIFIER, World, bundle, platform, policy, proved, refused, snp_bundle};

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
    node.set_rules(&policy(TOO_STRICT), World::references()).await.unwrap();
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

/// Whoever has changed the policy must not be told that the old one goes on, when it does not.
#[tokio::test]
async fn new_rules_are_in_force_although_the_chain_does_not_answer() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let wire = world.wire().await;
    let node = Node::open(cocoon_node::NodeConfig { chain: wire.chain, ..world.config(folder.path()) }).unwrap();
    let good = bundle(&world.claims().await, false);
    node.appraise(&good.to_cbor()).await.unwrap();
    wire.cut.store(true, Ordering::Relaxed);
    assert!(node.set_rules("nonsense", World::references()).await.is_err());
    node.set_rules(&policy(TOO_STRICT), World::references()).await.unwrap();
    assert!(node.review().await.is_err());
    wire.cut.store(false, Ordering::Relaxed);
    assert_eq!(node.review().await.unwrap(), 1, "looked at again as soon as it can be");
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
    // Once more: what was accepted before the crash is looked at again after it, until its attestation ends.
    node.stop().await;
    std::fs::remove_file(folder.path().join("node.redb")).unwrap();
    let node = world.node(folder.path(), VERIFIER);
    node.set_rules(&policy(TOO_STRICT), World::references()).await.unwrap();
    let leaf = proved(&node, &node.inclusion(&good.evidence_id(), 0).await.unwrap());
    assert_eq!((leaf.outcome, node.log().size()), (Outcome::Refused, 2));
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

/// Whoever has a platform of any sort can put a provider's name into what it signs: that takes nothing from the provider.
#[tokio::test]
async fn a_provider_pays_for_good_evidence_alone_and_a_platform_for_all_of_its_own() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let limits = Limits { burst: 2, platform_burst: 10, ..Limits::default() };
    let node = world.node_with(folder.path(), VERIFIER, limits);
    for number in 0..5 {
        let debug = bundle(&world.numbered(number).await, true).to_cbor();
        refused(node.appraise(&debug).await.unwrap_err(), Outcome::Refused, "debug");
    }
    // Good, on a block that the chain does not have.
    let mut unknown = world.numbered(5).await;
    unknown.beacon.seqno += 100;
    refused(node.appraise(&bundle(&unknown, false).to_cbor()).await.unwrap_err(), Outcome::Refused, "no block");
    for number in 6..8 {
        node.appraise(&bundle(&world.numbered(number).await, false).to_cbor()).await.unwrap();
    }
    let third = bundle(&world.numbered(8).await, false).to_cbor();
    assert!(matches!(node.appraise(&third).await, Err(Error::TooMuch(2))));
    // The platform's tenth: under another provider's name too it brings nothing more.
    let mut other = world.numbered(9).await;
    other.provider.0[5] ^= 1;
    refused(node.appraise(&bundle(&other, true).to_cbor()).await.unwrap_err(), Outcome::Refused, "debug");
    other.provider.0[5] ^= 2;
    let late = bundle(&other, true).to_cbor();
    assert!(matches!(node.appraise(&late).await, Err(Error::TooMuch(60))));
    // Another platform is served.
    refused(node.appraise(&snp_bundle(&unknown).to_cbor()).await.unwrap_err(), Outcome::Refused, "no block");
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

/// A node that is started again and again anchors all the same, and no more often than it should.
#[tokio::test]
async fn a_checkpoint_is_anchored_when_it_is_due_however_short_the_node_runs() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let account = Arc::new(cocoon_settlement::account::Account::new(world.chain.clone(), [5; 32]).unwrap());
    let open = || {
        let anchoring = Some(Anchoring { account: account.clone(), every: Duration::from_secs(3_600) });
        Node::open(cocoon_node::NodeConfig { anchoring, ..world.config(folder.path()) }).unwrap()
    };
    let anchored = || async {
        let anchored = cocoon_settlement::contracts::registry::anchored(&*world.chain, &world.registry, 0).await;
        anchored.unwrap().map_or(0, |anchored| anchored.tree_size)
    };
    let until = |size| async move {
        let started = std::time::Instant::now();
        while anchored().await < size && started.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anchored().await
    };
    let node = open();
    node.appraise(&bundle(&world.numbered(0).await, false).to_cbor()).await.unwrap();
    node.stop().await;
    let node = open();
    assert_eq!(until(1).await, 1);
    node.appraise(&bundle(&world.numbered(1).await, false).to_cbor()).await.unwrap();
    node.stop().await;
    // It is not due yet.
    let node = open();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(anchored().await, 1);
    node.stop().await;
    world.clock.advance(3_600);
    let _node = open();
    assert_eq!(until(2).await, 2);
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
