//! Many requests at once of a client that knows nothing yet: evidence is appraised once, and gateway, chain and logs are asked once.

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::Bundle;
use cocoon_client::{Client, LogKey};
use cocoon_protocol::wire::{ENCLAVES_PATH, INCLUSION_PATH};
use cocoon_transparency::witness_key;
use cocoon_verifier::Outcome;
use common::{MRTD, PRICES, World, bundle, enclave, listed, platform, serve, statement};

const AT_ONCE: usize = 16;

/// A server that answers `path` with this, slowly enough that all ask before the first is answered, and counts.
async fn counting(path: &str, answer: serde_json::Value) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer = move || async move {
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        axum::Json(answer)
    };
    (serve(axum::Router::new().route(path, get(answer))).await, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_sixteen_need_at_once_is_fetched_and_appraised_once() {
    let world = World::new().await;
    let announcement = listed(&world).await;
    let evidence = Bundle::from_cbor(&STANDARD.decode(&announcement.bundle).unwrap()).unwrap();
    let log = world.log(&evidence, [51; 32], Outcome::Accepted);
    let (url, proofs) =
        counting(&format!("{INCLUSION_PATH}/{{id}}"), serde_json::to_value(log.proof(0, "")).unwrap()).await;
    let (gateway, lists) = counting(ENCLAVES_PATH, serde_json::to_value([announcement]).unwrap()).await;
    let mut config = world.config();
    config.gateways = vec![gateway];
    config.logs =
        vec![LogKey { url, key: log.key(), witness: witness_key("none.example/witness", &[77; 32]).unwrap() }];
    config.required_logs = 1;
    let client = Client::open(config).unwrap();
    for round in 1..=2 {
        let asking: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.enclaves().await.unwrap().0.len() })
            })
            .collect();
        for asked in asking {
            assert_eq!(asked.await.unwrap(), 1);
        }
        let asked = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        assert_eq!((client.appraisals(), asked(&lists), asked(&proofs)), (1, round, round));
        // Chain and logs are asked again, by one for all.
        world.clock.advance(31);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_evidence_from_sixteen_sides_at_once_is_appraised_once() {
    let world = World::new().await;
    let claims = world.claims().await;
    let evidence = bundle(&platform(), MRTD, &claims);
    let client = Client::open(world.config()).unwrap();
    let appraise = || {
        let (client, bytes, statement) = (client.clone(), evidence.to_cbor(), statement(&evidence, &enclave()));
        tokio::spawn(async move { client.appraise(&bytes, &statement, PRICES).await.map(drop) })
    };
    let asking: Vec<_> = (0..AT_ONCE).map(|_| appraise()).collect();
    for asked in asking {
        asked.await.unwrap().unwrap_err();
    }
    assert_eq!(client.appraisals(), 1, "nobody registered it, which is another question");
}

/// Where a gateway lists nothing that is accepted, those who waited for its list look for themselves, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_for_a_list_of_nothing_does_not_wait_for_everybody_else() {
    let world = World::new().await;
    let (gateway, lists) = counting(ENCLAVES_PATH, serde_json::json!([])).await;
    let mut config = world.config();
    config.gateways = vec![gateway];
    let client = Client::open(config).unwrap();
    let started = std::time::Instant::now();
    let asking: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.enclaves().await.unwrap().0.len() })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), 0);
    }
    assert!(lists.load(Ordering::Relaxed) > 1);
    let took = started.elapsed();
    assert!(
        took < std::time::Duration::from_millis(100 * AT_ONCE as u64 / 2),
        "{took:?} for {AT_ONCE} lists of 100 ms"
    );
}
