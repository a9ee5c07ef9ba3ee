//! What the proxy says when it cannot answer, in the shape that OpenAI's clients read.

#[path = "common/mod.rs"]
mod common;

use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_client::Client;
use cocoon_client::proxy::{self, Access};
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
    serve(proxy::router(Client::open(config).unwrap(), Access::default())).await
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
    let url = serve(proxy::router(Client::open(config).unwrap(), Access::default())).await;
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

async fn raw(url: &str, request: &str) -> (u16, String) {
    let authority = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(authority).await.unwrap();
    let request = format!("{request}\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer.to_ascii_lowercase())
}

#[tokio::test]
async fn a_key_is_asked_for_and_pages_are_let_in_only_by_name() {
    let world = World::new().await;
    let access = Access { api_key: Some("a key of its own".into()), origins: vec!["https://app.example".into()] };
    let url = serve(proxy::router(Client::open(world.config()).unwrap(), access)).await;
    const KEY: &str = "authorization: Bearer a key of its own";
    assert_eq!(raw(&url, "GET /health HTTP/1.1").await.0, 401);
    assert_eq!(raw(&url, "GET /health HTTP/1.1\r\nauthorization: Bearer a key of its owm").await.0, 401);
    assert_eq!(raw(&url, &format!("GET /health HTTP/1.1\r\n{KEY}")).await.0, 200);

    let (status, answer) = raw(&url, &format!("GET /health HTTP/1.1\r\n{KEY}\r\norigin: https://app.example")).await;
    assert!(status == 200 && answer.contains("access-control-allow-origin: https://app.example"), "{answer}");
    // A page that may use it reads its refusals too; another one reads nothing.
    let post = "POST /v1/chat/completions HTTP/1.1\r\ncontent-type: text/plain\r\ncontent-length: 0";
    for (request, key, status) in [("GET /health HTTP/1.1", "x-none: 1", 401), (post, KEY, 415)] {
        let (found, answer) = raw(&url, &format!("{request}\r\n{key}\r\norigin: https://app.example")).await;
        assert!(found == status && answer.contains("access-control-allow-origin: https://app.example"), "{answer}");
        let (found, answer) = raw(&url, &format!("{request}\r\n{key}\r\norigin: https://other.example")).await;
        assert!(found == 403 && !answer.contains("access-control-allow-origin"), "{answer}");
    }
    let preflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\naccess-control-request-method: POST\r\norigin: ";
    let (status, answer) = raw(&url, &format!("{preflight}https://app.example")).await;
    assert!(status == 204 && answer.contains("access-control-allow-headers: authorization"), "{answer}");
    for origin in ["https://other.example", "https://app.example.evil", "null"] {
        let (status, answer) = raw(&url, &format!("{preflight}{origin}")).await;
        assert!(status == 403 && !answer.contains("access-control-allow-origin"), "{answer}");
    }
}
