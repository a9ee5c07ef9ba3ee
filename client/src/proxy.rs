//! OpenAI's API on loopback: code that speaks it already needs nothing but another base URL.

use std::net::IpAddr;
use std::sync::Arc;

use async_stream::stream;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::Error;
use crate::talk::{Answer, Client};

/// Response header with the evidence id of the enclave that answered.
pub const EVIDENCE_HEADER: &str = "cocoon-evidence";
/// Response header on answers that rest on the development platform.
pub const PLATFORM_HEADER: &str = "cocoon-platform";
const DEVELOPMENT: HeaderValue = HeaderValue::from_static("development-not-confidential");
/// The largest request, in bytes: a sealed request holds no more.
const MAX_REQUEST: usize = 900 * 1024;

/// The proxy's routes. Serve them on a loopback address only: whoever reaches them spends the client's money.
pub fn router(client: Arc<Client>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/health", get(|| async { "ok" }))
        .fallback(|| async {
            error(
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                "unknown_path",
                "this proxy serves /v1/chat/completions and /v1/models",
            )
        })
        .method_not_allowed_fallback(|| async {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request_error",
                "method_not_allowed",
                "POST /v1/chat/completions, GET /v1/models",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .layer(middleware::from_fn(local))
        .with_state(client)
}

/// Turns away what a web page made somebody's browser send: a page of another origin, or another name that was made to point at
/// this machine, would spend the client's money.
async fn local(request: Request, next: Next) -> Response {
    match turned_away(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

fn turned_away(request: &Request) -> Option<Response> {
    let header = |name| request.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?").to_owned());
    let host = header(header::HOST).or_else(|| request.uri().authority().map(ToString::to_string));
    let origin = header(header::ORIGIN);
    let foreign = host.filter(|host| !is_loopback(host)).or_else(|| {
        origin.filter(|origin| !origin.split_once("://").is_some_and(|(_, authority)| is_loopback(authority)))
    });
    if foreign.is_some() {
        return Some(error(
            StatusCode::FORBIDDEN,
            "invalid_request_error",
            "foreign_origin",
            "this proxy answers programs on this machine: use its address (127.0.0.1, [::1] or localhost) and no foreign Origin",
        ));
    }
    let json = header(header::CONTENT_TYPE).is_some_and(|kind| kind.trim().starts_with("application/json"));
    if request.method() == Method::POST && !json {
        return Some(error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "unsupported_media_type",
            "send JSON, with content-type: application/json",
        ));
    }
    None
}

/// Whether an authority, with or without a port, is this machine's loopback.
fn is_loopback(authority: &str) -> bool {
    let name = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => authority.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn chat(State(client): State<Arc<Client>>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request_error",
                "request_too_large",
                &format!("a request has at most {MAX_REQUEST} bytes"),
            );
        }
        Err(_) => {
            return error(
                StatusCode::BAD_REQUEST,
                "invalid_request_error",
                "invalid_value",
                "the request broke off before its end",
            );
        }
    };
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return error(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            "invalid_value",
            "the body must be a JSON object",
        );
    };
    let Some(model) = request.get("model").and_then(Value::as_str) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_value", "name the model to ask");
    };
    if let Ok((enclaves, _)) = client.enclaves().await {
        let mut names = enclaves.iter().map(|enclave| enclave.claims.model_name.as_str());
        if !enclaves.is_empty() && names.all(|name| name != model) {
            return error(
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                "model_not_found",
                "no enclave serves this model; GET /v1/models lists those that are served",
            );
        }
    }
    match client.call("POST", "/v1/chat/completions", Some(model), body.to_vec()).await {
        Ok(answer) => relay(answer).await,
        Err(failed) => failure(&failed),
    }
}

/// Passes an answer on as it arrives.
async fn relay(answer: Answer) -> Response {
    let head = answer.head().clone();
    let status = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let content_type = head.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.clone());
    let content_type = content_type.and_then(|value| HeaderValue::from_str(&value).ok());
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/json"));
    let evidence = answer.enclave().evidence_id.to_string();
    let development = answer.enclave().development;
    let streamed = content_type.as_bytes().starts_with(b"text/event-stream");
    let mut response = if streamed { events(answer) } else { json_answer(answer).await };
    if !streamed && response.status() != StatusCode::OK {
        return response;
    }
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(evidence) = HeaderValue::from_str(&evidence) {
        headers.insert(EVIDENCE_HEADER, evidence);
    }
    if development {
        headers.insert(PLATFORM_HEADER, DEVELOPMENT);
    }
    response
}

async fn json_answer(answer: Answer) -> Response {
    match answer.whole().await {
        // An answer is charged, and a charge has a receipt; a refusal has neither.
        Ok((head, _, None)) if head.status == 200 => failure(&Error::Receipt("the enclave sent none".into())),
        Ok((_, body, _)) => body.into_response(),
        Err(failed) => failure(&failed),
    }
}

/// The end of a stream, `[DONE]`, is passed on only once the receipt has been verified.
fn events(mut answer: Answer) -> Response {
    const DONE: &[u8] = b"data: [DONE]\n\n";
    let pieces = stream! {
        loop {
            match answer.next().await {
                Ok(Some(piece)) => {
                    let kept = piece.strip_suffix(DONE).map_or_else(|| piece.clone(), |rest| piece.slice(..rest.len()));
                    let ended = kept.len() != piece.len();
                    if !kept.is_empty() {
                        yield Ok::<_, std::convert::Infallible>(kept);
                    }
                    if ended {
                        match answer.finish().await {
                            Ok(Some(_)) => yield Ok(Bytes::from_static(DONE)),
                            Ok(None) => yield Ok(error_event(&Error::Receipt("the enclave sent none".into()))),
                            Err(failed) => yield Ok(error_event(&failed)),
                        }
                        return;
                    }
                }
                // An end without [DONE]: the enclave has sent the error that ended it, or the answer is incomplete.
                Ok(None) => {
                    if let Err(failed) = answer.finish().await {
                        yield Ok(error_event(&failed));
                    }
                    return;
                }
                Err(failed) => {
                    yield Ok(error_event(&failed));
                    return;
                }
            }
        }
    };
    Body::from_stream(pieces).into_response()
}

async fn models(State(client): State<Arc<Client>>) -> Response {
    match client.enclaves().await {
        Ok((enclaves, _)) => {
            let mut names: Vec<&str> = enclaves.iter().map(|enclave| enclave.claims.model_name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let models: Vec<Value> = names
                .iter()
                .map(|name| json!({"id": name, "object": "model", "created": 0, "owned_by": "cocoon"}))
                .collect();
            let mut response = axum::Json(json!({"object": "list", "data": models})).into_response();
            if enclaves.iter().any(|enclave| enclave.development) {
                response.headers_mut().insert(PLATFORM_HEADER, DEVELOPMENT);
            }
            response
        }
        Err(failed) => failure(&failed),
    }
}

fn error_event(failed: &Error) -> Bytes {
    let value = json!({"error": {"message": failed.to_string(), "type": "server_error", "param": null, "code": code(failed).1}});
    Bytes::from(format!("data: {value}\n\n"))
}

fn code(failed: &Error) -> (StatusCode, &'static str) {
    match failed {
        Error::NoEnclave { .. } => (StatusCode::SERVICE_UNAVAILABLE, "no_enclave"),
        Error::Refused { .. } => (StatusCode::BAD_GATEWAY, "evidence_refused"),
        Error::Price { .. } => (StatusCode::PAYMENT_REQUIRED, "price_above_limit"),
        Error::ChannelEmpty => (StatusCode::PAYMENT_REQUIRED, "channel_empty"),
        Error::CapRace => (StatusCode::SERVICE_UNAVAILABLE, "cap_race"),
        Error::Unreachable { .. } | Error::Relay { .. } => (StatusCode::BAD_GATEWAY, "relay_failed"),
        Error::Broken(_) => (StatusCode::BAD_GATEWAY, "answer_broken"),
        Error::Receipt(_) => (StatusCode::BAD_GATEWAY, "receipt_invalid"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "client_error"),
    }
}

fn failure(failed: &Error) -> Response {
    let (status, code) = code(failed);
    error(status, "server_error", code, &failed.to_string())
}

fn error(status: StatusCode, kind: &str, code: &str, message: &str) -> Response {
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_this_machine_is_loopback() {
        for here in ["127.0.0.1", "127.0.0.1:8787", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8787", "127.9.9.9:1"] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in
            ["", "attacker.example", "localhost.attacker.example:8787", "10.0.0.1", "[2001:db8::1]:1", "?", "1"]
        {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}
