//! What garbage costs its sender, and what it costs a node. A process of its own: its processor time is measured.

mod vendors;
mod world;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use cocoon_attestation::CpuEvidence;
use cocoon_attestation::binding::report_data;
use cocoon_attestation::dev::{PckSpec, SignedBy, TdxSpec};
use cocoon_node::{Node, NodeConfig};
use cocoon_protocol::wire::{APPRAISE_PATH, MAX_BUNDLE};
use cocoon_protocol::work::{HEADER, Stamp};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use vendors::World as Vendors;
use world::{AT, World, bundle, platform, snp_bundle};

/// Processor time that this process has used, in hundredths of a second.
fn used() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// How a kind of garbage is made, each piece unlike all others.
type Make = Box<dyn Fn(u32) -> Vec<u8>>;

/// For each kind of garbage: stamping it, which is the least that a sender must do, against all that a node does about it but for the network.
#[tokio::test]
async fn garbage_costs_its_sender_more_than_the_node() {
    const EACH: u32 = 150;
    let (world, vendors) = (World::new().await, Vendors::new().await);
    let folder = tempfile::tempdir().unwrap();
    let endorser = Some(Arc::new(vendors.online()));
    let node = Arc::new(Node::open(NodeConfig { endorser, ..world.config(folder.path()) }).unwrap());
    let claims = world.claims().await;
    let foreign = bundle(&claims, false);
    let (genuine, amd) = (bundle(&claims, false), snp_bundle(&claims));
    let kinds: [(&str, Make); 5] = [
        ("noise", Box::new(|number| [&number.to_be_bytes()[..], &[7; 1_000]].concat())),
        ("as much as is taken", Box::new(|number| [&number.to_be_bytes()[..], &vec![7; MAX_BUNDLE - 4]].concat())),
        ("a quote under a certificate that Intel did not sign", {
            Box::new(move |number| {
                let mut bundle = foreign.clone();
                let mut pck = PckSpec { fmspc: [number as u8; 6], ..PckSpec::default() };
                pck.certificate.signed_by = SignedBy::Another;
                let mut spec = TdxSpec { pck, ..TdxSpec::default() };
                spec.body.report_data = report_data(&[&bundle.claims[..], &number.to_be_bytes()].concat());
                bundle.cpu = CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) };
                bundle.to_cbor()
            })
        }),
        ("a genuine quote with other claims", {
            let claims = claims.clone();
            Box::new(move |number| {
                let mut bundle = genuine.clone();
                let mut other = claims.clone();
                other.config_digest.0[..4].copy_from_slice(&number.to_be_bytes());
                bundle.claims = other.to_cbor();
                bundle.to_cbor()
            })
        }),
        ("a genuine report with one byte altered", {
            Box::new(move |number| {
                let mut bundle = amd.clone();
                let CpuEvidence::Snp { report } = &mut bundle.cpu else { panic!("a report") };
                report[0x90..0x94].copy_from_slice(&number.to_be_bytes());
                bundle.to_cbor()
            })
        }),
    ];
    for (kind, make) in kinds {
        let bundles: Vec<_> = (0..EACH).map(&make).collect();
        let before = used();
        let sent: Vec<_> = bundles.into_iter().map(|bundle| (Stamp::make(&bundle, AT).to_header(), bundle)).collect();
        let sender = used() - before;
        let before = used();
        for (stamp, bundle) in sent {
            let request = Request::post(APPRAISE_PATH).header(HEADER, stamp).body(Body::from(bundle)).unwrap();
            let status = TowerToHyperService::new(node.clone().router()).call(request).await.unwrap().status();
            assert!(matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY), "{kind}: {status}");
        }
        let cost = used() - before;
        println!("{kind}: {sender} for the sender, {cost} for the node (hundredths of a second, {EACH} bundles)");
        assert!(cost < sender, "{kind}: {cost} against {sender}");
    }
    // Nobody was asked about it, and nothing kept.
    assert_eq!((vendors.asked(), node.log().size()), (0, 0));
}
