//! A gateway: directory of enclaves and blind relay. It sees ciphertext and vouchers only, and is trusted with nothing but
//! availability; what it lists, clients appraise for themselves. Who may announce what is in the module `admission`; [`serve()`] is a
//! server that slow and greedy clients cannot hold up.

mod admission;
mod directory;
mod error;
mod serve;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use cocoon_attestation::{EvidenceId, UnixTime};
use cocoon_protocol::announce;
use cocoon_protocol::wire::{
    ANNOUNCEMENTS_PATH, Announcement, ENCLAVE_HEADER, ENCLAVES_PATH, RELAY_PATH, VOUCHER_HEADER,
};
use cocoon_settlement::Address;
use cocoon_settlement::chain::Chain;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;

pub use crate::admission::{MAX_AGE, MAX_AHEAD};
pub use crate::directory::{MAX_DIRECTORY, MAX_ENCLAVES, MAX_LIST};
pub use crate::error::Error;
pub use crate::serve::serve;

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

/// What is borne of whoever is slow or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait until they are accepted.
    pub connections: usize,
    /// How long the head of a request may take, and a connection may stay open without one.
    pub head: Duration,
    /// How long a request's body may take.
    pub body: Duration,
    /// How long a host may be silent within an answer, and before it.
    pub silence: Duration,
    /// How long answers under way are waited for when the gateway stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            // Longer than clients keep connections that they do not use: who closes first never closes under a request.
            head: Duration::from_secs(100),
            body: Duration::from_secs(30),
            silence: Duration::from_secs(600),
            grace: Duration::from_secs(30),
        }
    }
}

/// What a gateway is started with.
#[derive(Clone)]
pub struct GatewayConfig {
    /// The chain that says who owns a provider and which evidence was taken.
    pub chain: Arc<dyn Chain>,
    /// The Registry whose providers are listed.
    pub registry: Address,
    /// How long an announcement counts.
    pub expiry: Duration,
    /// What is borne of clients and hosts.
    pub limits: Limits,
    /// Sees what is relayed.
    pub tap: Option<Arc<dyn Tap>>,
}

impl GatewayConfig {
    /// A gateway for the providers of a Registry.
    pub fn new(chain: Arc<dyn Chain>, registry: Address) -> Self {
        Self { chain, registry, expiry: EXPIRY, limits: Limits::default(), tap: None }
    }
}

/// A running gateway.
pub struct Gateway {
    directory: directory::Directory,
    admission: admission::Admission,
    limits: Limits,
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
        Self {
            directory: directory::Directory::new(config.expiry),
            admission: admission::Admission::new(config.chain, config.registry),
            limits: config.limits,
            tap: config.tap,
            client,
        }
    }

    /// `PUT /v1/announcements`, `GET /v1/enclaves?model=`, `POST /v1/relay`, `GET /health`.
    pub fn router(self) -> Router {
        let gateway = Arc::new(self);
        let router = Router::new()
            .route(ANNOUNCEMENTS_PATH, put(announce))
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

async fn announce(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<StatusCode, Error> {
    let (parts, body) = request.into_parts();
    let body = whole(body, MAX_ANNOUNCEMENT, gateway.limits.body).await?;
    let header = parts.headers.get(announce::HEADER).and_then(|value| value.to_str().ok());
    let now = now();
    let admitted = gateway.admission.admit(&body, header, now).await?;
    gateway.directory.put(admitted, now)?;
    Ok(StatusCode::NO_CONTENT)
}

fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// A body that is not too large and comes in time.
async fn whole(body: Body, most: usize, within: Duration) -> Result<Bytes, Error> {
    match tokio::time::timeout(within, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if too_large(error.as_ref()) => Err(Error::TooLarge(most)),
        Ok(Err(_)) => Err(Error::Announcement("it broke off".into())),
        Err(_) => Err(Error::Slow(within.as_secs())),
    }
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
    let body = serve::in_time(Body::new(Limited::new(body, MAX_REQUEST)), gateway.limits.body);
    let mut outgoing = http::Request::new(body);
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() =
        format!("{}{RELAY_PATH}", host.trim_end_matches('/')).parse().map_err(|_| Error::Unreachable)?;
    let passed = [HeaderName::from_static(ENCLAVE_HEADER), HeaderName::from_static(VOUCHER_HEADER)];
    for name in passed.iter().chain(&[header::CONTENT_TYPE, header::CONTENT_LENGTH]) {
        if let Some(value) = parts.headers.get(name) {
            outgoing.headers_mut().insert(name, value.clone());
        }
    }
    let limits = gateway.limits;
    // The host may not be silent before the client has sent all.
    let waited = tokio::time::timeout(limits.body + limits.silence, gateway.client.request(outgoing)).await;
    let answer = waited.map_err(|_| Error::Host)?.map_err(|error| {
        tracing::debug!(enclave = %id, "a host did not answer");
        match () {
            () if too_large(&error) => Error::TooLarge(MAX_REQUEST),
            // The host has not got the end of it, so nothing was generated.
            () if serve::too_slow(&error) => Error::Slow(limits.body.as_secs()),
            () if error.is_connect() => Error::Unreachable,
            () => Error::Host,
        }
    })?;
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(serve::never_silent(Body::new(body), limits.silence));
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
