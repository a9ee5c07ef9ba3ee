//! The relay passes on what it gets, when it gets it, and nothing it should not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::routing::post;
use axum::{Router, extract::State};
use cocoon_gateway::{EXPIRY, Gateway, GatewayConfig, MAX_REQUEST, Tap};
use cocoon_protocol::wire::{Announcement, Refusal, SEALED_RESPONSE};
use cocoon_settlement::{Address, Prices};
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

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

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn send(request: http::request::Builder, body: impl Into<Body>) -> Response<Body> {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    client.request(request.body(body.into()).unwrap()).await.unwrap().map(Body::new)
}

async fn gateway(expiry: Duration, host: &str) -> (String, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let url = serve(Gateway::new(GatewayConfig { expiry, tap: Some(seen.clone()) }).router()).await;
    let announcement = Announcement {
        evidence_id: ID.into(),
        host_url: host.into(),
        models: vec!["small".into()],
        provider: Address { workchain: 0, hash: [1; 32] },
        prices: Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 },
        bundle: String::new(),
        key_statement: String::new(),
    };
    let request = Request::put(format!("{url}/v1/announcements")).header(header::CONTENT_TYPE, "application/json");
    let answer = send(request, serde_json::to_vec(&announcement).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    (url, seen)
}

fn relay(gateway: &str, enclave: &str) -> http::request::Builder {
    Request::post(format!("{gateway}/v1/relay")).header("cocoon-enclave", enclave).header("cocoon-voucher", "a-voucher")
}

async fn refusal(answer: Response<Body>) -> Refusal {
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

async fn listed(gateway: &str, query: &str) -> usize {
    let answer = send(Request::get(format!("{gateway}/v1/enclaves{query}")), Body::empty()).await;
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice::<Vec<Announcement>>(&bytes).unwrap().len()
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
    let (gateway, seen) = gateway(EXPIRY, &host).await;
    let answer = send(relay(&gateway, ID), "sealed-request").await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], SEALED_RESPONSE);
    let mut body = answer.into_body().into_data_stream();
    // The host has not got its second piece yet.
    assert_eq!(body.next().await.unwrap().unwrap(), "a-voucher|sealed-request");
    pieces.send("second-piece".into()).unwrap();
    assert_eq!(body.next().await.unwrap().unwrap(), "second-piece");
    drop(pieces);
    assert!(body.next().await.is_none());
    for text in [ID, "a-voucher", "sealed-request", "second-piece", SEALED_RESPONSE] {
        assert!(seen.holds(text), "{text}");
    }
}

#[tokio::test]
async fn an_unknown_enclave_is_not_found() {
    let (gateway, _) = gateway(EXPIRY, "http://127.0.0.1:1").await;
    let answer = send(relay(&gateway, &ID.replace('0', "1")), "x").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert!(refusal(answer).await.what_to_do.contains("/v1/enclaves"));
}

#[tokio::test]
async fn a_host_that_was_sent_nothing_is_told_from_one_that_broke_off() {
    let (dead, _) = gateway(EXPIRY, "http://127.0.0.1:1").await;
    assert_eq!(send(relay(&dead, ID), "x").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    // It takes the request, and hangs up.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::io::AsyncReadExt::read(&mut connection, &mut [0; 1_024]).await.unwrap();
        }
    });
    let (breaking, _) = gateway(EXPIRY, &host).await;
    assert_eq!(send(relay(&breaking, ID), "x").await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn an_oversized_request_is_refused() {
    let (host, _pieces) = host().await;
    let (gateway, _) = gateway(EXPIRY, &host).await;
    let answer = send(relay(&gateway, ID), vec![0; MAX_REQUEST + 1]).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // Without a declared length too.
    let piece = || Ok::<_, std::io::Error>(Bytes::from(vec![0; MAX_REQUEST / 2 + 1]));
    let answer = send(relay(&gateway, ID), Body::from_stream(futures::stream::iter([piece(), piece()]))).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_announcement_is_listed_by_model_until_it_expires() {
    let (current, _) = gateway(EXPIRY, "http://127.0.0.1:1").await;
    assert_eq!(listed(&current, "").await, 1);
    assert_eq!(listed(&current, "?model=small").await, 1);
    assert_eq!(listed(&current, "?model=large").await, 0);
    let (expired, _) = gateway(Duration::ZERO, "http://127.0.0.1:1").await;
    assert_eq!(listed(&expired, "").await, 0);
    assert_eq!(send(relay(&expired, ID), "x").await.status(), StatusCode::NOT_FOUND);
}
