//! Endorsements of the node's own: vendors decide what it accepts, and none of them can hold it up or be made to work for a stranger.

mod vendors;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use cocoon_attestation::binding::report_data;
use cocoon_attestation::dev::{
    CollateralSpec, CrlSpec, PckSpec, SignedBy, SnpEndorsementSpec, SnpSpec, TdxSpec, serial,
};
use cocoon_attestation::{Bundle, CpuEvidence, Digest, Endorsements, UnixTime};
use cocoon_node::endorsements::{Endorser, Limits as Pace};
use cocoon_node::{Limits, Node, NodeConfig, Peer, REFRESH};
use cocoon_settlement::contracts::registry::Listed;
use cocoon_settlement::ops;
use cocoon_transparency::{Leaf, open_statement};
use cocoon_verifier::Outcome;
use futures::future::join_all;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use vendors::{Fault, World as Vendors};
use world::{AT, IMAGE, World, bundle, platform, proved, refused, snp_bundle};

const PATIENCE: Duration = Duration::from_secs(20);
const TCB: &str = "/tdx/certification/v4/tcb";

/// Good collateral, other than what bundles carry.
fn good() -> CollateralSpec {
    CollateralSpec::issued(UnixTime(AT.0 - 7_200), AT.plus(30 * 86_400))
}

fn lapsed(mut bundle: Bundle) -> Bundle {
    let collateral = CollateralSpec::issued(UnixTime(AT.0 - 90 * 86_400), UnixTime(AT.0 - 60 * 86_400));
    bundle.endorsements = Endorsements::Tdx { collateral: platform().tdx_collateral(&collateral) };
    bundle
}

fn node(world: &World, vendors: &Vendors, dir: &std::path::Path, refresh: Duration) -> Node {
    let endorser = Some(Arc::new(vendors.online()));
    Node::open(NodeConfig { endorser, refresh, ..world.config(dir) }).unwrap()
}

/// The newest leaf about evidence, once it says something else than `before`.
async fn changed(node: &Node, bundle: &Bundle, before: Outcome) -> Leaf {
    let started = Instant::now();
    loop {
        node.review().await.unwrap();
        let leaf = proved(node, &node.inclusion(&bundle.evidence_id(), 0).await.unwrap());
        if leaf.outcome != before {
            return leaf;
        }
        assert!(started.elapsed() < PATIENCE, "nothing changed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_nodes_own_endorsements_decide_and_a_refusal_names_what_was_sent() {
    let (world, vendors) = (World::new().await, Vendors::with(good(), false).await);
    let folder = tempfile::tempdir().unwrap();
    let node = node(&world, &vendors, folder.path(), REFRESH);
    // What came along has lapsed; the vendor has better, and the log holds what was appraised.
    let sent = lapsed(bundle(&world.numbered(1).await, false));
    let signed = node.appraise(&sent.to_cbor()).await.unwrap();
    assert_eq!(vendors.asked(), 4);
    let leaf = proved(&node, &signed.inclusion);
    let logged = leaf.open_bundle(|digest| cocoon_transparency::Source::part(node.log().files(), digest).ok()).unwrap();
    let own = platform().tdx_collateral(&good());
    let Endorsements::Tdx { collateral } = &logged.endorsements else { panic!("collateral") };
    let read = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
    assert_eq!(read(collateral), read(&own));
    // A refusal is about the bytes that were sent, whatever was appraised in their place.
    let debug = lapsed(bundle(&world.numbered(2).await, true)).to_cbor();
    let shown = refused(node.appraise(&debug).await.unwrap_err(), Outcome::Refused, "debug");
    let lines = open_statement(&shown.statement, node.log_key()).unwrap();
    assert_eq!(lines[2], Digest::of(&[&debug]).to_string());
    assert_eq!(vendors.asked(), 4, "the folder has it by now");
}

/// Intel revokes the platform: new evidence of it is invalid, which is only signed for, and what was accepted is withdrawn in the log.
#[tokio::test]
async fn a_revoked_platform_is_found_by_asking_again_and_its_refusal_can_be_shown() {
    let (world, vendors) = (World::new().await, Vendors::with(good(), false).await);
    let folder = tempfile::tempdir().unwrap();
    let node = node(&world, &vendors, folder.path(), Duration::from_millis(100));
    let first = bundle(&world.numbered(1).await, false);
    node.appraise(&first.to_cbor()).await.unwrap();
    assert_eq!(node.review().await.unwrap(), 0);
    let mut spec = good();
    spec.pck_crl.revoked = vec![TdxSpec::default().pck.certificate.serial];
    vendors.publish(&spec);
    let leaf = changed(&node, &first, Outcome::Accepted).await;
    assert_eq!(leaf.outcome, Outcome::Invalid);
    let second = bundle(&world.numbered(2).await, false).to_cbor();
    let shown = refused(node.appraise(&second).await.unwrap_err(), Outcome::Invalid, "revoked");
    assert!(shown.inclusion.is_none());
    let lines = open_statement(&shown.statement, node.log_key()).unwrap();
    assert_eq!((lines[0].as_str(), &lines[2]), ("invalid", &Digest::of(&[&second]).to_string()));
}

/// Intel's next TCB info has an advisory against the platform, long before what is in the folder lapses.
#[tokio::test]
async fn an_advisory_is_found_by_asking_again() {
    let (world, vendors) = (World::new().await, Vendors::with(good(), false).await);
    let folder = tempfile::tempdir().unwrap();
    let node = node(&world, &vendors, folder.path(), Duration::from_millis(100));
    let sent = bundle(&world.numbered(1).await, false);
    node.appraise(&sent.to_cbor()).await.unwrap();
    assert_eq!(node.review().await.unwrap(), 0);
    let mut spec = good();
    spec.tcb_info.tcb_evaluation_data_number += 1;
    spec.tcb_info.tcb_levels[0].tcb_status = "SWHardeningNeeded".into();
    spec.tcb_info.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00001".into()];
    vendors.publish(&spec);
    assert_eq!(changed(&node, &sent, Outcome::Accepted).await.outcome, Outcome::Refused);
}

/// The certificate of a chip's key comes along and never lapses; AMD is asked for its chain and list, and for nobody's chip.
#[tokio::test]
async fn amds_list_is_asked_for_and_no_chips_certificate() {
    let (world, vendors) = (World::new().await, Vendors::new().await);
    let folder = tempfile::tempdir().unwrap();
    let node = node(&world, &vendors, folder.path(), Duration::from_millis(100));
    let mut sent = snp_bundle(&world.numbered(1).await);
    let Endorsements::Snp(given) = &mut sent.endorsements else { panic!("certificates") };
    given.crl = None;
    node.appraise(&sent.to_cbor()).await.unwrap();
    let mut paths = vendors.vendors.asked.lock().unwrap().clone();
    paths.sort();
    assert_eq!(paths, ["/vcek/v1/Milan/cert_chain", "/vcek/v1/Milan/crl"]);
    assert_eq!(node.review().await.unwrap(), 0);
    let crl = CrlSpec { revoked: vec![serial::ASK], ..CrlSpec::new(UnixTime(AT.0 - 3_600), AT.plus(86_400)) };
    let spec = SnpEndorsementSpec { crl: Some(crl), ..SnpEndorsementSpec::default() };
    *vendors.vendors.crl.lock().unwrap() = platform().snp_endorsements(&spec).crl;
    assert_eq!(changed(&node, &sent, Outcome::Accepted).await.outcome, Outcome::Invalid);
}

/// Names that nobody signed: whoever invents them must not set a node on the vendors.
#[tokio::test]
async fn no_vendor_is_asked_about_what_nobody_signed() {
    let (world, vendors) = (World::new().await, Vendors::with(good(), false).await);
    let folder = tempfile::tempdir().unwrap();
    let node = node(&world, &vendors, folder.path(), REFRESH);
    for number in 0..50_u8 {
        let claims = world.numbered(number.into()).await;
        // A chip of which nobody has heard: without a certificate, and with another chip's.
        let spec =
            SnpSpec { report_data: report_data(&claims.to_cbor()), chip_id: [number + 1; 64], ..SnpSpec::default() };
        let mut snp = snp_bundle(&claims);
        snp.cpu = CpuEvidence::Snp { report: platform().snp_report(&spec) };
        refused(node.appraise(&snp.to_cbor()).await.unwrap_err(), Outcome::Invalid, "another chip");
        snp.endorsements = Endorsements::None;
        refused(node.appraise(&snp.to_cbor()).await.unwrap_err(), Outcome::Invalid, "staple");
        // A kind of processor that nobody makes, under a certificate that Intel did not sign.
        let mut pck = PckSpec { fmspc: [number; 6], ..PckSpec::default() };
        pck.certificate.signed_by = SignedBy::Another;
        let mut spec = TdxSpec { pck, ..TdxSpec::default() };
        spec.body.report_data = report_data(&claims.to_cbor());
        let mut tdx = bundle(&claims, false);
        tdx.cpu = CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) };
        refused(node.appraise(&tdx.to_cbor()).await.unwrap_err(), Outcome::Invalid, "");
        tdx.endorsements = Endorsements::None;
        refused(node.appraise(&tdx.to_cbor()).await.unwrap_err(), Outcome::Invalid, "staple");
    }
    assert_eq!(vendors.asked(), 0);
    assert_eq!(node.log().size(), 0);
}

/// Vendors that say nothing, a witness that takes its time, and an image that governance takes back: all who run it are told at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_vendor_holds_up_no_withdrawal_and_withdrawals_share_checkpoints() {
    const LIVE: u32 = 500;
    let (world, vendors) = (World::new().await, Vendors::with(good(), false).await);
    vendors.fault(TCB, &[Fault::Silent; 10_000]);
    // The witness is a node as well, behind a line that takes a quarter of a second.
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = cocoon_node::public_keys("node.example/log", &[22; 32]).unwrap();
    let config = world.config(&folder.path().join("witness"));
    let witness = NodeConfig { name: "witness.example/log".into(), log_seed: [23; 32], watched: vec![log], ..config };
    let witness = Arc::new(Node::open(witness).unwrap());
    let key = witness.witness_key().to_owned();
    let router = TowerToHyperService::new(witness.router());
    let slow = Router::new().fallback(move |request: Request| {
        let router = router.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(250)).await;
            router.call(request).await
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, slow).await });

    let endorser = Endorser::online(vendors.folder.path(), vendors.addresses.clone(), Pace::default()).unwrap();
    let config = world.config(&folder.path().join("node"));
    let limits = Limits { queue: 1_000, platform_burst: 1_000, ..config.limits };
    let peers = vec![Peer { url, witness: key }];
    let node = Node::open(NodeConfig { endorser: Some(Arc::new(endorser)), limits, peers, ..config }).unwrap();
    let mut bundles = Vec::new();
    for number in 0..LIVE {
        bundles.push(bundle(&world.numbered(number).await, false).to_cbor());
    }
    let started = Instant::now();
    for answer in join_all(bundles.iter().map(|bundle| node.appraise(bundle))).await {
        answer.unwrap();
    }
    assert!(started.elapsed() < 3 * PATIENCE, "{:?}", started.elapsed());
    assert_eq!(vendors.asked(), 1, "asked once, and then left alone for a while");

    ops::forbid(&world.account, &world.registry, Listed::Image(IMAGE)).await.unwrap().success().unwrap();
    let started = Instant::now();
    assert_eq!(node.review().await.unwrap(), LIVE as usize);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(node.log().size(), 2 * u64::from(LIVE));
    assert_eq!(node.review().await.unwrap(), 0, "once");
}
