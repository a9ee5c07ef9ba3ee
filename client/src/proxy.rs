//! OpenAI's API on loopback: code that speaks it already needs nothing but another base URL.

use std::net::IpAddr;
use std::sync::Arc;

use async_stream::stream;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cocoon_attestation::Digest;
use cocoon_protocol::wire::RECEIPT_ID_HEADER;
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

/// Who may use the proxy.
#[derive(Clone, Default)]
pub struct Access {
    /// The key that programs must send; any if `None`.
    pub api_key: Option<String>,
    /// Origins of web pages that may use it from a browser, besides those of this machine.
    pub origins: Vec<String>,
}

/// What is generated, by path.
const GENERATING: &[&str] = &["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"];
/// Response header from the point on where little of the spending limit is left.
pub const SPENDING_HEADER: &str = "cocoon-spending-warning";

/// The proxy's routes. Serve them on a loopback address only: whoever reaches them spends the client's money.
pub fn router(client: Arc<Client>, access: Access) -> Router {
    let mut routes = Router::new();
    for path in GENERATING {
        let ask = move |State(client): State<Arc<Client>>, body: Result<Bytes, BytesRejection>| ask(client, path, body);
        routes = routes.route(path, post(ask));
    }
    routes
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/receipts/{id}", get(receipt))
        .route("/health", get(|| async { "ok" }))
        .fallback(|| async {
            error(
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                "unknown_path",
                "this proxy serves /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, /v1/models and /v1/receipts/ID",
            )
        })
        .method_not_allowed_fallback(|| async {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request_error",
                "method_not_allowed",
                "POST what generates; GET /v1/models and /v1/receipts/ID",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .layer(middleware::from_fn_with_state(Arc::new(access), local))
        .with_state(client)
}

/// Turns away what a web page made somebody's browser send: a page of another origin, or another name that was made to point at
/// this machine, would spend the client's money.
async fn local(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    // A page that may use the proxy is told so, in every answer: its browser asks first.
    let origin = request.headers().get(header::ORIGIN).cloned();
    let preflight = request.method() == Method::OPTIONS;
    if let Some(refusal) = foreign(&request, &access) {
        return refusal;
    }
    let mut response = match preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        // A page that may ask must be able to read why it is refused, too.
        false => match unfit(&request, &access) {
            Some(refusal) => refusal,
            None => next.run(request).await,
        },
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        if preflight {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
            // A star does not cover Authorization.
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("authorization, content-type, *"),
            );
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
    response
}

/// Whether the key is the right one, without telling by time how much of it is.
fn right(key: &str, sent: Option<&str>) -> bool {
    let sent = sent.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().trim();
    let digest = |text: &str| Digest::of(&[text.as_bytes()]).0;
    digest(key) == digest(sent)
}

fn header_text(request: &Request, name: HeaderName) -> Option<String> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or("?").to_owned())
}

/// Refuses what comes from elsewhere.
fn foreign(request: &Request, access: &Access) -> Option<Response> {
    let header = |name| header_text(request, name);
    let host = header(header::HOST).or_else(|| request.uri().authority().map(ToString::to_string));
    let origin = header(header::ORIGIN);
    let foreign = host.filter(|host| !is_loopback(host)).or_else(|| {
        let local = |origin: &String| origin.split_once("://").is_some_and(|(_, authority)| is_loopback(authority));
        origin.filter(|origin| !local(origin) && !access.origins.contains(origin))
    });
    foreign.map(|_| {
        error(
            StatusCode::FORBIDDEN,
            "invalid_request_error",
            "foreign_origin",
            "this proxy answers programs on this machine: use its address (127.0.0.1, [::1] or localhost) and no Origin that `allowed_origins` does not name",
        )
    })
}

/// Refuses what lacks the proxy's key, or is no JSON.
fn unfit(request: &Request, access: &Access) -> Option<Response> {
    if let Some(key) = &access.api_key
        && !right(key, header_text(request, header::AUTHORIZATION).as_deref())
    {
        return Some(error(
            StatusCode::UNAUTHORIZED,
            "invalid_request_error",
            "invalid_api_key",
            "this proxy asks for its own key: send it as `Authorization: Bearer KEY`",
        ));
    }
    let json =
        header_text(request, header::CONTENT_TYPE).is_some_and(|kind| kind.trim().starts_with("application/json"));
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

async fn ask(client: Arc<Client>, path: &'static str, body: Result<Bytes, BytesRejection>) -> Response {
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
    if let Ok((enclaves, _)) = client.enclaves().await
        && !enclaves.is_empty()
        && !enclaves.iter().any(|enclave| enclave.claims.serves(model))
    {
        return error(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "model_not_found",
            "no enclave serves this model; GET /v1/models lists those that are served",
        );
    }
    let mut response = match client.call("POST", path, Some(model), body.to_vec()).await {
        Ok(answer) => relay(answer).await,
        Err(failed) => return failure(&failed),
    };
    if let Ok(Some((limit, promised))) = client.spending()
        && promised.0 / 4 >= limit.0 / 5
    {
        let warning = format!("{promised} of at most {limit} are spent or promised");
        tracing::warn!("{warning}");
        if let Ok(warning) = HeaderValue::from_str(&warning) {
            response.headers_mut().insert(SPENDING_HEADER, warning);
        }
    }
    response
}

/// The receipt of an answer, as the enclave signed it.
async fn receipt(State(client): State<Arc<Client>>, Path(id): Path<String>) -> Response {
    let signed = match client.receipt(&id) {
        Ok(Some(signed)) => signed,
        Ok(None) => {
            return error(
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                "receipt_not_found",
                "no receipt of this identifier: answers carry theirs in the header cocoon-receipt-id, and free ones have none",
            );
        }
        Err(failed) => return failure(&failed),
    };
    let receipt = &signed.receipt;
    let settlement = &receipt.settlement.receipt;
    axum::Json(json!({
        "id": id, "object": "cocoon.receipt",
        "charge_nanoton": receipt.charge, "tokens": receipt.tokens, "prices": receipt.prices,
        "finish_reason": receipt.finish_reason, "model_root": receipt.model_root, "evidence_id": receipt.evidence_id.to_string(),
        "salt": hex::encode(receipt.salt), "request_digest": receipt.request_digest, "response_digest": receipt.response_digest,
        "settlement": {
            "network": settlement.network.0, "provider": settlement.provider.to_string(), "channel": settlement.channel.to_string(),
            "enclave_key": hex::encode(settlement.enclave_key.0), "sequence": settlement.sequence,
            "total_nanoton": settlement.total, "time": settlement.time,
        },
        "signed": signed.to_trailer(),
    }))
    .into_response()
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
    let kept: Vec<(HeaderName, HeaderValue)> = head
        .headers
        .iter()
        .filter(|(name, _)| [RECEIPT_ID_HEADER, "retry-after"].contains(&name.as_str()))
        .filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
        })
        .collect();
    let streamed = content_type.as_bytes().starts_with(b"text/event-stream");
    let mut response = if streamed { events(answer) } else { json_answer(answer).await };
    if !streamed && response.status() != StatusCode::OK {
        return response;
    }
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.extend(kept);
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

/// Where the end of a stream begins in a piece of it: `[DONE]`, or the last event of a response.
fn end_of_stream(piece: &[u8]) -> Option<usize> {
    const DONE: &[u8] = b"data: [DONE]\n\n";
    const LAST: [&[u8]; 2] = [b"event: response.completed\n", b"event: response.incomplete\n"];
    if piece.ends_with(DONE) {
        return Some(piece.len() - DONE.len());
    }
    // The enclave sends it as a piece of its own.
    LAST.iter().any(|last| piece.starts_with(last)).then_some(0)
}

/// The end of a stream is passed on only once the receipt has been verified.
fn events(mut answer: Answer) -> Response {
    let pieces = stream! {
        loop {
            match answer.next().await {
                Ok(Some(piece)) => {
                    let end = end_of_stream(&piece);
                    let kept = piece.slice(..end.unwrap_or(piece.len()));
                    if !kept.is_empty() {
                        yield Ok::<_, std::convert::Infallible>(kept);
                    }
                    if let Some(end) = end {
                        match last(answer, piece.slice(end..)).await {
                            Ok(last) => {
                                for piece in last {
                                    yield Ok(piece);
                                }
                            }
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

/// The end of a stream from its first piece on, which may be long: a response repeats all that was said and asked.
async fn last(mut answer: Answer, first: Bytes) -> Result<Vec<Bytes>, Error> {
    let mut pieces = vec![first];
    while let Some(piece) = answer.next().await? {
        pieces.push(piece);
    }
    match answer.finish().await? {
        Some(_) => Ok(pieces),
        None => Err(Error::Receipt("the enclave sent none".into())),
    }
}

async fn models(State(client): State<Arc<Client>>) -> Response {
    match client.enclaves().await {
        Ok((enclaves, _)) => {
            let mut names: Vec<&str> = enclaves.iter().flat_map(|enclave| enclave.claims.models()).collect();
            names.sort_unstable();
            names.dedup();
            let models: Vec<Value> = names.into_iter().map(listed).collect();
            let mut response = axum::Json(json!({"object": "list", "data": models})).into_response();
            if enclaves.iter().any(|enclave| enclave.development) {
                response.headers_mut().insert(PLATFORM_HEADER, DEVELOPMENT);
            }
            response
        }
        Err(failed) => failure(&failed),
    }
}

fn listed(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "cocoon"})
}

async fn model(State(client): State<Arc<Client>>, Path(id): Path<String>) -> Response {
    match client.enclaves().await {
        Ok((enclaves, _)) if enclaves.iter().any(|enclave| enclave.claims.serves(&id)) => {
            axum::Json(listed(&id)).into_response()
        }
        Ok(_) => error(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "model_not_found",
            "no enclave serves this model; GET /v1/models lists those that are served",
        ),
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
        Error::SpendingLimit { .. } => (StatusCode::PAYMENT_REQUIRED, "spending_limit_reached"),
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
