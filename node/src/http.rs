//! The node's HTTP interface (`docs/transparency.md`).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cocoon_attestation::{Digest, EvidenceId};
use cocoon_protocol::wire::{APPRAISE_PATH, INCLUSION_PATH, MAX_BUNDLE, NodeRefusal, Refusal, WITNESS_PATH};
use cocoon_protocol::work::{self, Stamp};
use cocoon_transparency::{Source as _, WitnessError, layout};
use cocoon_verifier::Outcome;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use tokio::time::timeout;

use crate::publish::blocking;
use crate::{Error, Node};

/// Longest checkpoint with its proof that a witness reads.
const MAX_CHECKPOINT: usize = 64 * 1024;

impl Node {
    /// `POST /v1/appraise`, `GET /v1/inclusion/{evidence id}`, `POST /add-checkpoint`, and the log's files.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(APPRAISE_PATH, post(appraise))
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
            Self::Spent => (StatusCode::CONFLICT, "send other evidence; a new stamp gets the statement once more"),
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

/// The work is looked at before the bundle is read: whoever did none, or sends the same garbage again, costs a node a header.
async fn appraise(State(node): State<Arc<Node>>, headers: HeaderMap, body: Body) -> Result<Response, Error> {
    let inner = &node.inner;
    let limits = &inner.limits;
    let stamp = headers.get(work::HEADER).and_then(|header| Stamp::from_header(header.to_str().ok()?));
    let now = inner.time().await?;
    if limits.work {
        match &stamp {
            None => return Ok(no_work("is absent, or shows too little work".into())),
            Some(stamp) if !stamp.counts_at(now) => {
                return Ok(no_work(format!("is of {}, and the chain's time is {now}", stamp.time)));
            }
            Some(stamp) if inner.spent.has(stamp) => return Err(Error::Spent),
            Some(_) => {}
        }
    }
    let read = timeout(limits.body, Limited::new(body, MAX_BUNDLE).collect()).await;
    let bundle = match read {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok((StatusCode::PAYLOAD_TOO_LARGE, "a bundle has at most 1 MiB\n").into_response());
        }
        Ok(Err(_)) => return Ok(StatusCode::BAD_REQUEST.into_response()),
        Err(_) => {
            let error = format!("the bundle did not come to its end within {} s", limits.body.as_secs());
            let what_to_do = "send it faster".into();
            return Ok((StatusCode::REQUEST_TIMEOUT, Json(Refusal { error, what_to_do })).into_response());
        }
    };
    if limits.work && stamp.is_none_or(|stamp| stamp.bundle != Digest::of(&[&bundle])) {
        return Ok(no_work("is for another bundle".into()));
    }
    let answer = node.appraise(&bundle).await;
    if let (Some(stamp), Err(Error::Refused(refused))) = (&stamp, &answer)
        && refused.outcome >= Outcome::Invalid
    {
        inner.spent.spend(stamp, now);
    }
    Ok(Json(answer?).into_response())
}

fn no_work(what: String) -> Response {
    let error = format!("the header {} {what}: {} zero bits are asked for", work::HEADER, work::BITS);
    let what_to_do = "compute it for this very bundle, as docs/protocol.md says; it takes some milliseconds".into();
    (StatusCode::PRECONDITION_REQUIRED, Json(Refusal { error, what_to_do })).into_response()
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
    let now = match node.inner.time().await {
        Ok(now) => now,
        Err(error) => return error.into_response(),
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
