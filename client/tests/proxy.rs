//! What the proxy says when it cannot answer, in the shape that OpenAI's clients read.

#[path = "common/mod.rs"]
mod common;

use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_client::{Client, proxy};
use cocoon_protocol::wire::{Announcement, ENCLAVES_PATH};
use common::{AT, MRTD, PRICES, World, bundle, enclave, platform, serve, statement};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A proxy whose gateway lists these.
async fn proxy_over(world: &World, list: Vec<Announcement>) -> String {
    let gateway = axum::Router::new().route(ENCLAVES_PATH, get(|| async move { axum::Json(list) }));
    proxy_of(world, serve(gateway).await).await
}

async fn proxy_of(world: &World, gateway: String) -> String {
    let mut config = world.config();
    config.gateways = vec![gateway];
    serve(proxy::router(Client::open(config).unwrap())).await
}

/// Asks for a completion; gives status and the error object.
async fn ask(url: &str, body: &str) -> (u16, Value) {
    let mut stream = tokio::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let value: Value = serde_json::from_str(body).unwrap();
    let error = &value["error"];
    for field in ["message", "type", "code"] {
        assert!(error[field].is_string(), "{field} of {error}");
    }
    (head.split(' ').nth(1).unwrap().parse().unwrap(), error.clone())
}

#[tokio::test]
async fn failures_are_openai_error_objects() {
    const REQUEST: &str = r#"{"model":"demo","messages":[]}"#;
    let world = World::new().await;
    let claims = world.claims().await;
    let bundle = bundle(&platform(), MRTD, &claims);
    world.register(&claims, bundle.evidence_id().0, AT.plus(80_000)).await;

    // A port that nothing listens on any more.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = tempfile::tempdir().unwrap();
    let mut config = world.config();
    config.data = down.path().into();
    config.gateways = vec![format!("http://{closed}")];
    let url = serve(proxy::router(Client::open(config).unwrap())).await;
    let (status, error) = ask(&url, REQUEST).await;
    assert_eq!((status, error["code"].as_str()), (502, Some("relay_failed")));

    let empty = World::new().await;
    let url = proxy_over(&empty, vec![]).await;
    let (status, error) = ask(&url, REQUEST).await;
    assert_eq!((status, error["code"].as_str()), (503, Some("no_enclave")));

    let listed = Announcement {
        evidence_id: bundle.evidence_id().to_string(),
        host_url: "http://127.0.0.1:1".into(),
        models: vec!["demo".into()],
        provider: world.provider,
        prices: PRICES,
        bundle: STANDARD.encode(bundle.to_cbor()),
        key_statement: STANDARD.encode(statement(&bundle, &enclave()).to_bytes()),
    };
    let url = proxy_over(&world, vec![listed]).await;
    let (status, error) = ask(&url, r#"{"model":"other","messages":[]}"#).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("model_not_found")));
    let (status, error) = ask(&url, "{").await;
    assert_eq!((status, error["code"].as_str()), (400, Some("invalid_value")));
}
