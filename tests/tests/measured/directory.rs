//! A gateway that lists one enclave, whatever it is, and counts what it is asked to pass on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Json;
use axum::http::StatusCode;
use axum::routing::{get, post};
use cocoon_cli::network::Network;
use cocoon_client::{Client, ClientConfig};
use cocoon_protocol::wire::{self, Announcement};

/// What came of a prompt.
pub struct Asked {
    /// Why no enclave was asked; `None` if one was.
    pub refused: Option<String>,
    /// Sealed requests that left the client.
    pub relayed: usize,
}

/// A client that knows this gateway alone asks its model something.
pub async fn ask(network: &Network, announcement: Announcement, folder: &Path) -> Asked {
    let relayed = Arc::new(AtomicUsize::new(0));
    let count = relayed.clone();
    let router =
        axum::Router::new().route(wire::ENCLAVES_PATH, get(move || async move { Json(vec![announcement]) })).route(
            wire::RELAY_PATH,
            post(move || async move {
                count.fetch_add(1, Ordering::Relaxed);
                StatusCode::SERVICE_UNAVAILABLE
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let config = ClientConfig { gateways: vec![url], data: folder.join("client"), ..network.client.config().clone() };
    let client = Client::open(config).unwrap();
    let body = br#"{"model":"cocoon-demo","messages":[{"role":"user","content":"Who can read my prompt?"}]}"#.to_vec();
    let answer = client.call("POST", "/v1/chat/completions", Some(&network.model_name), body).await;
    let error = answer.err().expect("this gateway passes nothing on").to_string();
    server.abort();
    let relayed = relayed.load(Ordering::Relaxed);
    Asked { refused: (relayed == 0).then_some(error), relayed }
}
