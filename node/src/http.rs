//! The node's HTTP interface (`docs/transparency.md`).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cocoon_attestation::EvidenceId;
use cocoon_protocol::wire::{APPRAISE_PATH, CBOR, INCLUSION_PATH, MAX_BUNDLE, Refusal};
use cocoon_verifier::Outcome;

use crate::{Error, Node};

impl Node {
    /// `POST /v1/appraise`, `GET /v1/inclusion/{evidence id}`, `GET /checkpoint`, `GET /tile/...`, `GET /leaf/{index}`.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(APPRAISE_PATH, post(appraise))
            .route(&format!("{INCLUSION_PATH}/{{id}}"), get(inclusion))
            .route("/checkpoint", get(checkpoint))
            .route("/tile/{*path}", get(tile))
            .route("/leaf/{index}", get(leaf))
            .layer(DefaultBodyLimit::max(MAX_BUNDLE))
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
            return (status, Json(refused)).into_response();
        }
        let (status, what_to_do) = match self {
            Self::NotLogged => (StatusCode::NOT_FOUND, "post the bundle to /v1/appraise first"),
            Self::Log(cocoon_transparency::Error::NoLeaf { .. }) => {
                (StatusCode::NOT_FOUND, "ask for an index below the checkpoint's size")
            }
            Self::Chain(_) => (StatusCode::BAD_GATEWAY, "try again later, or ask another node"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "ask another node"),
        };
        if status.is_server_error() {
            tracing::error!(error = %self, "a request failed");
        }
        (status, Json(Refusal { error: self.to_string(), what_to_do: what_to_do.into() })).into_response()
    }
}

async fn appraise(State(node): State<Arc<Node>>, bundle: Bytes) -> Result<Response, Error> {
    Ok(Json(node.appraise(&bundle).await?).into_response())
}

async fn inclusion(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Result<Response, Error> {
    let id: EvidenceId = id.parse().map_err(|_| Error::NotLogged)?;
    Ok(Json(node.inclusion(&id)?).into_response())
}

async fn checkpoint(State(node): State<Arc<Node>>) -> Result<String, Error> {
    Ok(node.log().checkpoint()?)
}

async fn tile(State(node): State<Arc<Node>>, Path(path): Path<String>) -> Result<Response, Error> {
    Ok(match node.log().tile(&format!("tile/{path}"))? {
        Some(tile) => ([(header::CONTENT_TYPE, "application/octet-stream")], tile).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

async fn leaf(State(node): State<Arc<Node>>, Path(index): Path<u64>) -> Result<Response, Error> {
    Ok(([(header::CONTENT_TYPE, CBOR)], node.log().leaf(index)?).into_response())
}
