//! What a node does for whoever has not done the work, is slow, or comes when it has enough to do.

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use cocoon_attestation::{Digest, UnixTime};
use cocoon_node::{Limits, Node, NodeConfig};
use cocoon_protocol::wire::{APPRAISE_PATH, MAX_BUNDLE, NodeRefusal};
use cocoon_protocol::work::{self, Stamp};
use futures::future::join_all;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use world::{AT, World, bundle};

fn stamped(bundle: &[u8]) -> String {
    Stamp::make(bundle, AT).to_header()
}

async fn post(node: &Arc<Node>, stamp: Option<&str>, body: impl Into<Body>) -> Response {
    let mut request = Request::post(APPRAISE_PATH);
    if let Some(stamp) = stamp {
        request = request.header(work::HEADER, stamp);
    }
    TowerToHyperService::new(node.clone().router()).call(request.body(body.into()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn nothing_is_read_of_a_bundle_before_its_stamp() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let node = Arc::new(Node::open(world.config(folder.path())).unwrap());
    let good = bundle(&world.claims().await, false).to_cbor();
    let other = stamped(b"another bundle");
    let little = format!("1 {} {}", AT.0, Digest::of(&[&good]));
    let old = Stamp::make(&good, UnixTime(AT.0 - work::LASTS - 1)).to_header();
    let early = Stamp::make(&good, AT.plus(work::LASTS + 1)).to_header();
    for (stamp, read) in [
        (None, false),
        (Some(""), false),
        (Some(little.as_str()), false),
        (Some(&old), false),
        (Some(&early), false),
        (Some(&other), true),
    ] {
        let touched = Arc::new(AtomicBool::new(false));
        let (seen, piece) = (touched.clone(), good.clone());
        let body = futures::stream::once(async move {
            seen.store(true, Ordering::Relaxed);
            Ok::<_, std::io::Error>(piece)
        });
        assert_eq!(post(&node, stamp, Body::from_stream(body)).await.status(), StatusCode::PRECONDITION_REQUIRED);
        assert_eq!(touched.load(Ordering::Relaxed), read, "{stamp:?}");
    }
    assert_eq!(post(&node, Some(&stamped(&good)), good).await.status(), StatusCode::OK);
    // Garbage that was refused is not looked at again under the stamp that paid for it once.
    let (stamp, touched) = (stamped(b"garbage"), Arc::new(AtomicBool::new(false)));
    assert_eq!(post(&node, Some(&stamp), "garbage").await.status(), StatusCode::BAD_REQUEST);
    let seen = touched.clone();
    let again = futures::stream::once(async move {
        seen.store(true, Ordering::Relaxed);
        Ok::<_, std::io::Error>("garbage")
    });
    assert_eq!(post(&node, Some(&stamp), Body::from_stream(again)).await.status(), StatusCode::CONFLICT);
    assert!(!touched.load(Ordering::Relaxed));
    let anew = Stamp::make(b"garbage", AT.plus(1)).to_header();
    assert_eq!(post(&node, Some(&anew), "garbage").await.status(), StatusCode::BAD_REQUEST);
    let long = vec![7; MAX_BUNDLE + 1];
    assert_eq!(post(&node, Some(&stamped(&long)), long).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_bundle_that_comes_too_slowly_is_not_waited_for() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let config = world.config(folder.path());
    let limits = Limits { body: Duration::from_millis(100), ..config.limits };
    let node = Arc::new(Node::open(NodeConfig { limits, ..config }).unwrap());
    let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    assert_eq!(post(&node, Some(&stamped(b"x")), never).await.status(), StatusCode::REQUEST_TIMEOUT);
}

/// One place: of many who come at once, the others are told to come back, and get their verdict when they do.
#[tokio::test]
async fn a_full_queue_turns_away_and_says_when_to_come_back() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let config = world.config(folder.path());
    let limits = Limits { queue: 1, ..config.limits };
    let node = Arc::new(Node::open(NodeConfig { limits, ..config }).unwrap());
    let mut bundles = Vec::new();
    for number in 0..20 {
        let bundle = bundle(&world.numbered(number).await, false).to_cbor();
        bundles.push((stamped(&bundle), bundle));
    }
    let all = join_all(bundles.iter().map(|(stamp, bundle)| post(&node, Some(stamp), bundle.clone()))).await;
    let (served, turned_away): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|response| response.status() == StatusCode::OK);
    assert!(!served.is_empty() && !turned_away.is_empty(), "{} served", served.len());
    for response in turned_away {
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        // It is no refusal: nothing is signed, and nothing logged.
        assert!(serde_json::from_slice::<NodeRefusal>(&body).is_err());
    }
    assert_eq!(node.log().size(), served.len() as u64);
    for (stamp, bundle) in bundles {
        assert_eq!(post(&node, Some(&stamp), bundle).await.status(), StatusCode::OK);
    }
    assert_eq!(node.log().size(), 20);
}

#[tokio::test]
async fn the_chain_is_asked_for_its_time_once_however_many_bring_garbage() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let (wire, config) = (world.wire().await, world.config(folder.path()));
    let limits = Limits { chain_age: Duration::from_secs(60), ..config.limits };
    let node = Arc::new(Node::open(NodeConfig { chain: wire.chain, limits, ..config }).unwrap());
    let stamps = (0..100_u32).map(|number| (stamped(&number.to_be_bytes()), number.to_be_bytes().to_vec()));
    let stamps: Vec<_> = stamps.collect();
    for response in join_all(stamps.iter().map(|(stamp, body)| post(&node, Some(stamp), body.clone()))).await {
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
    // One question takes one or two requests.
    let asked = wire.asked.load(Ordering::Relaxed);
    assert!((1..=2).contains(&asked), "{asked} requests");
}
