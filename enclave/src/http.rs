//! The enclave's only door. It is reached by the host alone, and the host is not trusted: everything but evidence, receipts and bare
//! statuses is sealed.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cocoon_attestation::Digest;
use cocoon_protocol::Error;
use cocoon_protocol::auth;
use cocoon_protocol::sealed::{self, InnerRequest, MAX_SEALED_REQUEST};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire;
use cocoon_settlement::Address;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::out::FRAMES_WAITING;
use crate::session::{Enclave, Terms};

/// The interface of `docs/protocol.md`.
pub fn router(enclave: Arc<Enclave>) -> Router {
    Router::new()
        .route(wire::EVIDENCE_PATH, get(evidence))
        .route(wire::ATTEST_PATH, post(attest))
        .route(wire::SEALED_PATH, post(answer))
        .route(wire::RECEIPTS_PATH, get(receipts))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(DefaultBodyLimit::max(MAX_SEALED_REQUEST))
        .with_state(enclave)
}

fn cbor(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, wire::CBOR)], body).into_response()
}

async fn evidence(State(enclave): State<Arc<Enclave>>) -> Response {
    match enclave.attester.evidence() {
        Ok(evidence) => cbor(evidence.to_cbor()),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn attest(State(enclave): State<Arc<Enclave>>, body: Bytes) -> Response {
    let Ok(request) = wire::AttestRequest::from_cbor(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    // The platform may take a while to sign, and other requests go on meanwhile.
    match tokio::task::spawn_blocking(move || enclave.attester.attest(&request)).await {
        Ok(Ok(evidence)) => cbor(evidence.to_cbor()),
        Ok(Err(error)) => {
            tracing::error!(%error, "no evidence could be made");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Statuses outside the seal: 400 unreadable, 401 no voucher, 409 replayed, 410 sealed to a key of no current epoch, 421 for another
/// enclave, 503 not attested or full. None says anything of the content.
async fn answer(State(enclave): State<Arc<Enclave>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (evidence_id, now) = match enclave.attester.attested_as(text(wire::ENCLAVE_HEADER).unwrap_or_default()) {
        Ok(Some(attested)) => attested,
        Ok(None) => return StatusCode::MISDIRECTED_REQUEST.into_response(),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let Some(voucher) = text(wire::VOUCHER_HEADER).and_then(|value| SignedVoucher::from_header(value).ok()) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    // Only a request that somebody pays for takes a place in the replay guard; the others are refused inside the seal.
    let open = sealed::request_id(&body).map(|request| enclave.open.begin(request));
    let mut unpaid = Some("nothing was checked".to_owned());
    let authorised = |request: &InnerRequest, enc: &[u8]| {
        unpaid = auth::verify(&enclave.expected(), &voucher, enc, request, now).err().map(|error| error.to_string());
        unpaid.is_none()
    };
    let opened = match enclave.attester.receiver().open_if(&body, now, authorised) {
        Ok(opened) => opened,
        Err(error) => {
            return match error {
                Error::Replayed => StatusCode::CONFLICT,
                Error::UnknownKey => StatusCode::GONE,
                Error::EpochFull => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            }
            .into_response();
        }
    };
    let (sender, frames) = mpsc::channel(FRAMES_WAITING);
    tokio::spawn(enclave.answer(opened, Terms { voucher, evidence_id, unpaid }, open, sender));
    let body = Body::from_stream(ReceiverStream::new(frames).map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, wire::FRAMES)], body).into_response()
}

#[derive(Deserialize)]
struct ReceiptsQuery {
    channel: String,
    /// The request whose charge must be in it.
    request: Option<String>,
}

async fn receipts(State(enclave): State<Arc<Enclave>>, Query(query): Query<ReceiptsQuery>) -> Response {
    let Ok(channel) = query.channel.parse::<Address>() else { return StatusCode::BAD_REQUEST.into_response() };
    let request = match query.request.map(|request| request.parse::<Digest>()).transpose() {
        Ok(request) => request,
        Err(_) => return StatusCode::BAD_REQUEST.into_response(),
    };
    if let Some(request) = request {
        if enclave.open.contains(&request) {
            return StatusCode::ACCEPTED.into_response();
        }
        // It may still be on its way: what others of the channel were charged says nothing of it.
        if !enclave.attester.receiver().accepted(&request) {
            return StatusCode::NOT_FOUND.into_response();
        }
    }
    match enclave.ledger.latest(&channel, enclave.attester.key()) {
        Some(receipt) => ([(header::CONTENT_TYPE, "application/octet-stream")], receipt.to_bytes()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
