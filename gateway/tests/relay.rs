//! The relay passes on what it gets, when it gets it, and nothing it should not.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::routing::post;
use axum::{Router, extract::State};
use cocoon_gateway::{EXPIRY, Gateway, GatewayConfig, Limits, MAX_REQUEST, Tap};
use cocoon_protocol::wire::{Refusal, SEALED_RESPONSE};
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use common::{OWNER, announce, listed, now, send, serve, signed, world};

#[derive(Default)]
struct Seen(Mutex<Vec<u8>>);

impl Tap for Seen {
    fn bytes(&self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

impl Seen {
    fn holds(&self, text: &str) -> bool {
        self.0.lock().unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// A gateway to which a host has announced an enclave, the enclave, and what passed.
async fn gateway(expiry: Duration, host: &str) -> (String, String, Arc<Seen>) {
    gateway_with(Limits::default(), expiry, host).await
}

async fn gateway_with(limits: Limits, expiry: Duration, host: &str) -> (String, String, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let world = world().await;
    let config = GatewayConfig { expiry, limits, tap: Some(seen.clone()), ..world.config() };
    let url = serve(Gateway::new(config).router()).await;
    let announcement = world.announcement(41, host).await;
    let (body, header) = signed(&announcement, OWNER, now());
    assert_eq!(announce(&url, body, header).await, (StatusCode::NO_CONTENT, String::new()));
    (url, announcement.evidence_id, seen)
}

fn relay(gateway: &str, enclave: &str) -> http::request::Builder {
    Request::post(format!("{gateway}/v1/relay")).header("cocoon-enclave", enclave).header("cocoon-voucher", "a-voucher")
}

async fn refusal(answer: Response<Body>) -> Refusal {
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// A host that echoes the request's body and voucher, then sends what the test hands it.
async fn host() -> (String, mpsc::UnboundedSender<Bytes>) {
    type Pieces = Arc<Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>>;
    async fn answer(State(pieces): State<Pieces>, headers: HeaderMap, body: Bytes) -> Response<Body> {
        let rest = pieces.lock().unwrap().take().unwrap();
        let first = [headers["cocoon-voucher"].as_bytes(), b"|", &body].concat();
        let stream = futures::stream::iter([Bytes::from(first)]).chain(UnboundedReceiverStream::new(rest));
        let response = Response::builder().status(StatusCode::ACCEPTED).header(header::CONTENT_TYPE, SEALED_RESPONSE);
        response.body(Body::from_stream(stream.map(Ok::<_, std::io::Error>))).unwrap()
    }
    let (pieces, rest) = mpsc::unbounded_channel();
    let state: Pieces = Arc::new(Mutex::new(Some(rest)));
    (serve(Router::new().route("/v1/relay", post(answer)).with_state(state)).await, pieces)
}

#[tokio::test]
async fn an_answer_passes_through_before_its_end_and_the_tap_sees_all() {
    let (host, pieces) = host().await;
    let (gateway, id, seen) = gateway(EXPIRY, &host).await;
    let answer = send(relay(&gateway, &id), "sealed-request").await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], SEALED_RESPONSE);
    let mut body = answer.into_body().into_data_stream();
    // The host has not got its second piece yet.
    assert_eq!(body.next().await.unwrap().unwrap(), "a-voucher|sealed-request");
    pieces.send("second-piece".into()).unwrap();
    assert_eq!(body.next().await.unwrap().unwrap(), "second-piece");
    drop(pieces);
    assert!(body.next().await.is_none());
    for text in [&id, "a-voucher", "sealed-request", "second-piece", SEALED_RESPONSE] {
        assert!(seen.holds(text), "{text}");
    }
}

#[tokio::test]
async fn an_unknown_enclave_is_not_found() {
    let (gateway, ..) = gateway(EXPIRY, "http://127.0.0.1:1").await;
    let answer = send(relay(&gateway, &"1".repeat(64)), "x").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert!(refusal(answer).await.what_to_do.contains("/v1/enclaves"));
}

#[tokio::test]
async fn a_host_that_was_sent_nothing_is_told_from_one_that_broke_off() {
    let (dead, id, _) = gateway(EXPIRY, "http://127.0.0.1:1").await;
    assert_eq!(send(relay(&dead, &id), "x").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    // It takes the request, and hangs up.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _some = connection.read(&mut [0; 1_024]).await.unwrap();
        }
    });
    let (breaking, id, _) = gateway(EXPIRY, &host).await;
    assert_eq!(send(relay(&breaking, &id), "x").await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn an_oversized_request_is_refused() {
    let (host, _pieces) = host().await;
    let (gateway, id, _) = gateway(EXPIRY, &host).await;
    let answer = send(relay(&gateway, &id), vec![0; MAX_REQUEST + 1]).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // Without a declared length too.
    let piece = || Ok::<_, std::io::Error>(Bytes::from(vec![0; MAX_REQUEST / 2 + 1]));
    let answer = send(relay(&gateway, &id), Body::from_stream(futures::stream::iter([piece(), piece()]))).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_announcement_is_listed_by_model_until_it_expires() {
    let (current, ..) = gateway(EXPIRY, "http://127.0.0.1:1").await;
    assert_eq!(listed(&current, "").await.len(), 1);
    assert_eq!(listed(&current, "?model=small").await.len(), 1);
    assert_eq!(listed(&current, "?model=large").await.len(), 0);
    let (expired, id, _) = gateway(Duration::ZERO, "http://127.0.0.1:1").await;
    assert_eq!(listed(&expired, "").await.len(), 0);
    assert_eq!(send(relay(&expired, &id), "x").await.status(), StatusCode::NOT_FOUND);
}

const SHORT: Duration = Duration::from_millis(1_500);

/// What a connection gets for these bytes until it is closed, by an end or by force.
async fn raw(gateway: &str, bytes: &[u8]) -> String {
    let mut connection = tokio::net::TcpStream::connect(gateway.trim_start_matches("http://")).await.unwrap();
    let _ = connection.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut answer)).await.expect("closed");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_that_comes_too_slowly_is_told_so_and_a_silent_host_is_given_up() {
    let (host, pieces) = host().await;
    let limits = Limits { body: SHORT, silence: SHORT, ..Limits::default() };
    let (gateway, id, _) = gateway_with(limits, EXPIRY, &host).await;
    let never = |first: &'static str| {
        let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(first))]);
        Body::from_stream(first.chain(futures::stream::pending()))
    };
    let answer = send(relay(&gateway, &id), never("x")).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    assert!(refusal(answer).await.error.contains("did not come to its end"));
    let answer = send(Request::put(format!("{gateway}/v1/announcements")), never("{")).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    // The host answers, and then says nothing more.
    let answer = send(relay(&gateway, &id), "sealed").await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let mut body = answer.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "a-voucher|sealed");
    // As long as it says something, it may take as long as it likes.
    for _ in 0..3 {
        tokio::time::sleep(SHORT / 2).await;
        pieces.send("piece".into()).unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), "piece");
    }
    assert!(body.next().await.unwrap().is_err(), "cut off, and not taken for whole");
}

#[tokio::test]
async fn the_server_closes_slow_heads_bounds_connections_and_lets_answers_end() {
    let (host, pieces) = host().await;
    let world = world().await;
    let limits = Limits { head: SHORT, connections: 2, ..Limits::default() };
    let gateway = Gateway::new(GatewayConfig { limits, ..world.config() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server =
        tokio::spawn(cocoon_gateway::serve(listener, gateway.router(), limits, async move { drop(stopped.await) }));
    let announcement = world.announcement(41, &host).await;
    let (body, header) = signed(&announcement, OWNER, now());
    assert_eq!(announce(&url, body, header).await.0, StatusCode::NO_CONTENT);

    // Half a head, or nothing at all: closed. Two at once are let in, and the third when they have gone.
    let started = std::time::Instant::now();
    let half = b"GET /health HTTP/1.1\r\nhost: x\r\n";
    let whole = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let (first, second, third) = tokio::join!(raw(&url, half), raw(&url, b""), async {
        tokio::time::sleep(SHORT / 3).await;
        let said = raw(&url, whole).await;
        (said, started.elapsed())
    });
    assert!(!first.contains("200 OK") && !second.contains("200 OK"), "{first} {second}");
    assert!(third.0.contains("200 OK") && third.1 >= SHORT, "{third:?}");
    // A head that never ends.
    let large = format!("GET /health HTTP/1.1\r\nx: {}", "x".repeat(100 << 10));
    let said = raw(&url, large.as_bytes()).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");

    // Told to stop, it takes no new connection, and the answer under way comes whole.
    let answer = send(relay(&url, &announcement.evidence_id), "sealed").await;
    let mut body = answer.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "a-voucher|sealed");
    stop.send(()).unwrap();
    tokio::time::sleep(SHORT).await;
    assert!(tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.is_err(), "it still listens");
    pieces.send("the end".into()).unwrap();
    drop(pieces);
    assert_eq!(body.next().await.unwrap().unwrap(), "the end");
    assert!(body.next().await.is_none());
    tokio::time::timeout(Duration::from_secs(5), server).await.expect("it has stopped").unwrap();
}
