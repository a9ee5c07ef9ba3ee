//! Many bundles, one after another and many at once, and what the node's memory does meanwhile.

use std::sync::Arc;
use std::time::Instant;

use cocoon_node::{Error, Limits, Node, NodeConfig};
use cocoon_verifier::Outcome;
use futures::StreamExt as _;
use futures::stream;

use crate::world::{World, bundle};

/// Bundles under way at once.
const AT_ONCE: usize = 128;

/// What came of it.
pub struct Measured {
    /// Resident memory of the process after the first of them, in KiB.
    pub at_first: u64,
    /// And at the end.
    pub at_the_end: u64,
    /// Leaves of the log.
    pub leaves: u64,
    /// Bundles a second, their making included.
    pub rate: f64,
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Of ten bundles four are new and good, one is new and refused, three were there before, and two are garbage.
async fn one(world: &World, node: &Node, number: u32) {
    let (result, expected) = match number % 10 {
        0..4 => (node.appraise(&bundle(&world.numbered(number).await, false).to_cbor()).await, Outcome::Accepted),
        4 => (node.appraise(&bundle(&world.numbered(number).await, true).to_cbor()).await, Outcome::Refused),
        // One of its own ten, or one of long ago.
        5..8 => {
            let ten = number / 10;
            let before = if ten.is_multiple_of(2) { ten } else { ten / 2 } * 10 + number % 4;
            (node.appraise(&bundle(&world.numbered(before).await, false).to_cbor()).await, Outcome::Accepted)
        }
        8 => (node.appraise(&number.to_be_bytes()).await, Outcome::Malformed),
        _ => {
            let mut altered = bundle(&world.numbered(number).await, false);
            altered.claims = world.numbered(number + 1).await.to_cbor();
            (node.appraise(&altered.to_cbor()).await, Outcome::Invalid)
        }
    };
    match result {
        Ok(_) => assert_eq!(expected, Outcome::Accepted, "{number}"),
        Err(Error::Refused(refused)) => assert_eq!(expected, refused.outcome, "{number}: {}", refused.reason),
        Err(error) => panic!("{number}: {error}"),
    }
}

/// Few threads: each takes some memory once, whenever it first has something to do.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).max_blocking_threads(8).enable_all().build().unwrap()
}

/// `total` bundles; what caches may take they have taken after `first` of them.
pub async fn run(first: u32, total: u32) -> Measured {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let config = world.config(folder.path());
    let limits = Limits { burst: u32::MAX, platform_burst: u32::MAX, ..config.limits };
    let node = Arc::new(Node::open(NodeConfig { limits, ..config }).unwrap());
    let started = Instant::now();
    let mut at_first = 0;
    for (from, to) in [(0, first), (first, total)] {
        stream::iter(from..to).for_each_concurrent(AT_ONCE, |number| one(&world, &node, number)).await;
        if to < total {
            at_first = resident();
        }
    }
    let rate = f64::from(total) / started.elapsed().as_secs_f64();
    Measured { at_first, at_the_end: resident(), leaves: node.log().size(), rate }
}
