//! The node's HTTP interface (`docs/transparency.md`).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cocoon_attestation::EvidenceId;
use cocoon_protocol::wire::{APPRAISE_PATH, INCLUSION_PATH, MAX_BUNDLE, NodeRefusal, Refusal, WITNESS_PATH};
use cocoon_protocol::work;
use cocoon_transparency::{Source as _, WitnessError, layout};
use cocoon_verifier::Outcome;
use serde::Deserialize;

use crate::publish::blocking;
use crate::{Error, Node};

/// Longest checkpoint with its proof that a witness reads.
const MAX_CHECKPOINT: usize = 64 * 1024;

impl Node {
    /// `POST /v1/appraise`, `GET /v1/inclusion/{evidence id}`, `POST /add-checkpoint`, and the log's files.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(APPRAISE_PATH, post(appraise).layer(DefaultBodyLimit::max(MAX_BUNDLE)))
            .route(&format!("{INCLUSION_PATH}/{{id}}"), get(inclusion))
            .route(WITNESS_PATH, post(add_checkpoint).layer(DefaultBodyLimit::max(MAX_CHECKPOINT)))
            .fallback(get(file))
            .with_state(self)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if let Self::Refused(refused) = self {
            let status = match refused.outcome {
                Outcome::Malformed => StatusCode::BAD_REQUEST,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            let outcome = refused.outcome.to_string();
            let (reason, statement, inclusion) = (refused.reason, refused.statement, refused.inclusion);
            return (status, Json(NodeRefusal { outcome, reason, statement, inclusion })).into_response();
        }
        let (status, what_to_do) = match self {
            Self::NotLogged => (StatusCode::NOT_FOUND, "post the bundle to /v1/appraise first"),
            Self::Log(cocoon_transparency::Error::NoLeaf { .. }) => {
                (StatusCode::NOT_FOUND, "ask for an index below the checkpoint's size")
            }
            Self::Chain(_) => (StatusCode::BAD_GATEWAY, "try again later, or ask another node"),
            Self::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "try again, or ask another node"),
            Self::TooMuch(_) => (StatusCode::TOO_MANY_REQUESTS, "wait, and renew attestations at different times"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "ask another node"),
        };
        let wait = match self {
            Self::Busy(_) => Some(1),
            Self::TooMuch(seconds) => Some(seconds),
            _ => None,
        };
        if status.is_server_error() {
            tracing::error!(error = %self, "a request failed");
        }
        let mut response =
            (status, Json(Refusal { error: self.to_string(), what_to_do: what_to_do.into() })).into_response();
        if let Some(seconds) = wait {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

async fn appraise(State(node): State<Arc<Node>>, headers: HeaderMap, bundle: Bytes) -> Result<Response, Error> {
    if node.inner.limits.work {
        let nonce = headers.get(work::HEADER).and_then(|nonce| nonce.to_str().ok()?.parse().ok());
        if !nonce.is_some_and(|nonce| work::is_enough(&bundle, nonce)) {
            let error = format!("the header {} has no nonce of {} zero bits for this bundle", work::HEADER, work::BITS);
            let what_to_do = "compute one, as docs/protocol.md says; it takes some milliseconds".into();
            return Ok((StatusCode::PRECONDITION_REQUIRED, Json(Refusal { error, what_to_do })).into_response());
        }
    }
    Ok(Json(node.appraise(&bundle).await?).into_response())
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
}

async fn inclusion(
    State(node): State<Arc<Node>>,
    Path(id): Path<String>,
    Query(Since { since }): Query<Since>,
) -> Result<Response, Error> {
    let id: EvidenceId = id.parse().map_err(|_| Error::NotLogged)?;
    Ok(Json(node.inclusion(&id, since).await?).into_response())
}

/// C2SP tlog-witness.
async fn add_checkpoint(State(node): State<Arc<Node>>, body: String) -> Response {
    let now = match node.inner.chain.head().await {
        Ok(head) => head.time,
        Err(error) => return Error::from(error).into_response(),
    };
    let asked = tokio::task::spawn_blocking(move || node.inner.witness.add_checkpoint(&body, now)).await;
    match asked {
        Ok(Ok(line)) => line.into_response(),
        Ok(Err(error)) => {
            let status = match &error {
                WitnessError::Malformed => StatusCode::BAD_REQUEST,
                WitnessError::UnknownLog(_) => StatusCode::NOT_FOUND,
                WitnessError::Untrusted(_) => StatusCode::FORBIDDEN,
                WitnessError::Conflict(size) => {
                    let size =
                        (StatusCode::CONFLICT, [(header::CONTENT_TYPE, "text/x.tlog.size")], format!("{size}\n"));
                    return size.into_response();
                }
                WitnessError::Inconsistent(_) => StatusCode::UNPROCESSABLE_ENTITY,
                WitnessError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            tracing::warn!(%error, "a checkpoint was not cosigned");
            (status, format!("{error}\n")).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A file of the log: what is not unfinished never changes.
async fn file(State(node): State<Arc<Node>>, uri: axum::http::Uri) -> Result<Response, Error> {
    let name = uri.path().trim_start_matches('/').to_owned();
    let files = node.inner.log.files().clone();
    let read = name.clone();
    let Some(bytes) = blocking(move || files.read(&read)).await? else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let (kind, keep) = match name.as_str() {
        layout::CHECKPOINT => ("text/plain; charset=utf-8", "no-cache"),
        _ => ("application/octet-stream", "public, max-age=31536000, immutable"),
    };
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep)], bytes).into_response())
}
