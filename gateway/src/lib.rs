//! A gateway: directory of enclaves and blind relay. It sees ciphertext and vouchers only, and is trusted with nothing but
//! availability; what it lists, clients appraise for themselves.

mod directory;
mod error;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use cocoon_attestation::EvidenceId;
use cocoon_protocol::wire::{
    ANNOUNCEMENTS_PATH, Announcement, ENCLAVE_HEADER, ENCLAVES_PATH, RELAY_PATH, VOUCHER_HEADER,
};
use futures::StreamExt;
use http::{HeaderMap, HeaderName, StatusCode, header};
use http_body_util::{LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;

pub use crate::directory::MAX_ENCLAVES;
pub use crate::error::Error;

/// The largest sealed request that is relayed, in bytes.
pub const MAX_REQUEST: usize = 1 << 20;
/// The largest announcement, in bytes: a bundle in base64, and room for the rest.
pub const MAX_ANNOUNCEMENT: usize = 2 << 20;
/// How long an announcement counts unless configured otherwise.
pub const EXPIRY: Duration = Duration::from_secs(60);
/// How long a host has to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Sees every byte that reaches or leaves a gateway, so that anybody can search it for what should not be there.
pub trait Tap: Send + Sync {
    /// A path, a header's name or value, or a piece of a body, in either direction.
    fn bytes(&self, bytes: &[u8]);
}

/// What a gateway is started with.
#[derive(Clone)]
pub struct GatewayConfig {
    /// How long an announcement counts.
    pub expiry: Duration,
    /// Sees what is relayed.
    pub tap: Option<Arc<dyn Tap>>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self { expiry: EXPIRY, tap: None }
    }
}

/// A running gateway.
pub struct Gateway {
    directory: directory::Directory,
    tap: Option<Arc<dyn Tap>>,
    client: Client<HttpConnector, Body>,
}

#[derive(Deserialize)]
struct Filter {
    model: Option<String>,
}

impl Gateway {
    /// A gateway with an empty directory.
    pub fn new(config: GatewayConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { directory: directory::Directory::new(config.expiry), tap: config.tap, client }
    }

    /// `PUT /v1/announcements`, `GET /v1/enclaves?model=`, `POST /v1/relay`, `GET /health`.
    pub fn router(self) -> Router {
        let gateway = Arc::new(self);
        let router = Router::new()
            .route(ANNOUNCEMENTS_PATH, put(announce).layer(DefaultBodyLimit::max(MAX_ANNOUNCEMENT)))
            .route(ENCLAVES_PATH, get(enclaves))
            .route(RELAY_PATH, post(relay))
            .route("/health", get(health))
            .with_state(gateway.clone());
        if gateway.tap.is_none() {
            return router;
        }
        router.layer(middleware::from_fn_with_state(gateway, watched))
    }

    fn see_headers(&self, headers: &HeaderMap) {
        if let Some(tap) = &self.tap {
            for (name, value) in headers {
                tap.bytes(name.as_str().as_bytes());
                tap.bytes(value.as_bytes());
            }
        }
    }

    /// The body, each piece shown to the tap as it passes.
    fn see_body(&self, body: Body) -> Body {
        let tap = self.tap.clone();
        Body::from_stream(body.into_data_stream().inspect(move |piece| {
            if let (Some(tap), Ok(piece)) = (&tap, piece) {
                tap.bytes(piece);
            }
        }))
    }
}

/// Shows a request and its answer to the tap, whole.
async fn watched(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    if let Some(tap) = &gateway.tap {
        tap.bytes(head.uri.to_string().as_bytes());
    }
    gateway.see_headers(&head.headers);
    let request = Request::from_parts(head, gateway.see_body(body));
    let (head, body) = next.run(request).await.into_parts();
    gateway.see_headers(&head.headers);
    Response::from_parts(head, gateway.see_body(body))
}

async fn announce(
    State(gateway): State<Arc<Gateway>>,
    announcement: Result<Json<Announcement>, JsonRejection>,
) -> Result<StatusCode, Error> {
    let Json(announcement) = announcement.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge(MAX_ANNOUNCEMENT),
        _ => Error::Announcement(rejection.body_text()),
    })?;
    gateway.directory.put(announcement)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn enclaves(State(gateway): State<Arc<Gateway>>, Query(filter): Query<Filter>) -> Json<Vec<Announcement>> {
    Json(gateway.directory.list(filter.model.as_deref()))
}

async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    Json(json!({ "status": "ok", "enclaves": gateway.directory.len() })).into_response()
}

async fn relay(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let name = parts.headers.get(ENCLAVE_HEADER).and_then(|value| value.to_str().ok()).ok_or(Error::NoEnclave)?;
    let id: EvidenceId = name.parse().map_err(|_| Error::UnknownEnclave)?;
    let host = gateway.directory.host_url(&id).ok_or(Error::UnknownEnclave)?;
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_REQUEST) {
        return Err(Error::TooLarge(MAX_REQUEST));
    }
    let mut outgoing = http::Request::new(Body::new(Limited::new(body, MAX_REQUEST)));
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() =
        format!("{}{RELAY_PATH}", host.trim_end_matches('/')).parse().map_err(|_| Error::Unreachable)?;
    let passed = [HeaderName::from_static(ENCLAVE_HEADER), HeaderName::from_static(VOUCHER_HEADER)];
    for name in passed.iter().chain(&[header::CONTENT_TYPE, header::CONTENT_LENGTH]) {
        if let Some(value) = parts.headers.get(name) {
            outgoing.headers_mut().insert(name, value.clone());
        }
    }
    let answer = gateway.client.request(outgoing).await.map_err(|error| {
        tracing::debug!(enclave = %id, "a host did not answer");
        match () {
            () if too_large(&error) => Error::TooLarge(MAX_REQUEST),
            () if error.is_connect() => Error::Unreachable,
            () => Error::Host,
        }
    })?;
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = parts.status;
    for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
        if let Some(value) = parts.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

fn too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>())
}
