//! A request that was sent is not sent again unless nothing can have been generated for it.

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use axum::routing::{get, post};
use cocoon_client::{Client, Error};
use cocoon_protocol::wire::{ENCLAVES_PATH, RELAY_PATH, Refusal};
use cocoon_settlement::{Nanoton, ops};
use common::{World, listed, serve};
use tokio::io::AsyncReadExt;

/// Asks through a gateway with a record of its own; gives the error.
async fn ask(world: &World, gateway: String) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let mut config = world.config();
    (config.data, config.gateways) = (folder.path().into(), vec![gateway]);
    let client = Client::open(config).unwrap();
    match client.call("POST", "/v1/chat/completions", Some("demo"), b"{}".to_vec()).await {
        Err(error) => error,
        Ok(_) => panic!("nobody answers here"),
    }
}

#[tokio::test]
async fn another_try_is_made_only_where_nothing_can_have_been_generated() {
    let world = World::new().await;
    let list = listed(&world).await;
    ops::open_channel(&world.account, &world.config().channel, Nanoton(10_000_000_000))
        .await
        .unwrap()
        .success()
        .unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    for (status, tries) in [
        (400, 2),
        (401, 2),
        (402, 2),
        (404, 2),
        (410, 2),
        (413, 2),
        (421, 2),
        (503, 2),
        // It was taken before, whoever sent it then.
        (409, 1),
        // It may have been answered.
        (500, 1),
        (502, 1),
        (504, 1),
        (418, 1),
    ] {
        let (list, sent) = (list.clone(), sent.clone());
        let counter = sent.clone();
        let refusal = Refusal { error: "words".into(), what_to_do: "more words".into() };
        let answer = (StatusCode::from_u16(status).unwrap(), axum::Json(refusal));
        let relay = move || async move {
            counter.fetch_add(1, Ordering::SeqCst);
            answer
        };
        let router = axum::Router::new()
            .route(ENCLAVES_PATH, get(|| async move { axum::Json(vec![list]) }))
            .route(RELAY_PATH, post(relay));
        let error = ask(&world, serve(router).await).await;
        assert_eq!(sent.swap(0, Ordering::SeqCst), tries, "{status}: {error}");
        assert_eq!(matches!(error, Error::Broken(_)), tries == 1, "{status}: {error}");
        assert!(error.to_string().contains("words"), "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_not_tried_again() {
    let world = World::new().await;
    let list = listed(&world).await;
    ops::open_channel(&world.account, &world.config().channel, Nanoton(10_000_000_000))
        .await
        .unwrap()
        .success()
        .unwrap();
    // One connection to list enclaves, and one for each request that is sent.
    let body = serde_json::to_vec(&vec![list]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 1 << 16];
            let length = connection.read(&mut bytes).await.unwrap();
            if bytes[..length].starts_with(b"GET") {
                let head = format!("HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let answer = [head.as_bytes(), &body].concat();
                tokio::io::AsyncWriteExt::write_all(&mut connection, &answer).await.unwrap();
            } else if length > 0 {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let error = ask(&world, gateway).await;
    assert!(matches!(error, Error::Broken(_)), "{error}");
    assert_eq!(sent.load(Ordering::SeqCst), 1);
}
