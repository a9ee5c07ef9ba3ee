//! An enclave renews its attestation: the moment between its registration and its announcement fails nobody's request.

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Bundle, Claims, Digest};
use cocoon_client::{Client, Error};
use cocoon_protocol::sealed::Receiver;
use cocoon_protocol::statement::KeyStatement;
use cocoon_protocol::wire::{Announcement, ENCLAVE_HEADER, ENCLAVES_PATH, RELAY_PATH};
use cocoon_settlement::{Nanoton, ops};
use common::{AT, MRTD, PRICES, World, bundle, enclave, platform, serve};

fn announced(world: &World, bundle: &Bundle) -> Announcement {
    let epoch = Receiver::new().rotate(AT, 86_400, 60).unwrap();
    let statement = KeyStatement {
        evidence_id: bundle.evidence_id(),
        key_config: epoch.key_config,
        not_before: epoch.not_before,
        not_after: epoch.not_after,
    };
    Announcement {
        evidence_id: bundle.evidence_id().to_string(),
        host_url: "http://127.0.0.1:1".into(),
        models: vec!["demo".into()],
        provider: world.provider,
        prices: PRICES,
        bundle: STANDARD.encode(bundle.to_cbor()),
        key_statement: STANDARD.encode(statement.sign(&enclave()).to_bytes()),
    }
}

#[tokio::test]
async fn a_request_between_registration_and_announcement_waits_for_the_list() {
    let world = World::new().await;
    ops::open_channel(&world.account, &world.config().channel, Nanoton(10_000_000_000))
        .await
        .unwrap()
        .success()
        .unwrap();
    let claims = world.claims().await;
    let renewed = Claims { config_digest: Digest([5; 32]), ..claims.clone() };
    let [old, new] = [&claims, &renewed].map(|claims| bundle(&platform(), MRTD, claims));
    world.register(&claims, old.evidence_id().0, AT.plus(80_000)).await;
    world.register_anew(&renewed, new.evidence_id().0, AT.plus(81_000), 1).await;
    let [old_id, new_id] = [&old, &new].map(|bundle| bundle.evidence_id().to_string());
    let [old, new] = [&old, &new].map(|bundle| announced(&world, bundle));
    // The gateway hears of the renewal before the fourth list, or never.
    for (heard, lists) in [(3, 4..=4), (usize::MAX, 20..=60)] {
        let (listed, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (counter, seen, old, new) = (listed.clone(), asked.clone(), old.clone(), new.clone());
        let list = move || async move {
            let count = counter.fetch_add(1, Ordering::SeqCst);
            axum::Json(vec![if count < heard { old } else { new }])
        };
        let relay = move |headers: HeaderMap| async move {
            seen.lock().unwrap().push(headers[ENCLAVE_HEADER].to_str().unwrap().to_owned());
            // It ends there: that the request was brought to the enclave is what counts here.
            StatusCode::BAD_GATEWAY
        };
        let gateway = serve(axum::Router::new().route(ENCLAVES_PATH, get(list)).route(RELAY_PATH, post(relay))).await;
        let folder = tempfile::tempdir().unwrap();
        let mut config = world.config();
        (config.data, config.gateways) = (folder.path().into(), vec![gateway]);
        let client = Client::open(config).unwrap();
        let error = client.call("POST", "/v1/chat/completions", Some("demo"), b"{}".to_vec()).await.err().unwrap();
        let asked = asked.lock().unwrap().clone();
        assert!(!asked.contains(&old_id), "{asked:?}");
        if heard == usize::MAX {
            assert!(matches!(&error, Error::NoEnclave { why, .. } if why.contains("other evidence")), "{error}");
            assert!(asked.is_empty());
        } else {
            assert_eq!(asked, std::slice::from_ref(&new_id), "{error}");
        }
        let lists_asked = listed.load(Ordering::SeqCst);
        assert!(lists.contains(&lists_asked), "{lists_asked} lists");
    }
}
