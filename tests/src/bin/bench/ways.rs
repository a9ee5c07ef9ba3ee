//! The ways an answer can take from the enclave to whoever asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use cocoon_client::{Appraised, Client};
use cocoon_protocol::frame::{Decoder, Frame};
use cocoon_protocol::wire;
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

/// What is asked, of every model.
pub const PROMPT: &str = "Who can read my prompt?";

/// An HTTP client.
pub type Http = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

/// One that does not wait for acknowledgements.
pub fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector)
}

/// When the tokens of one answer came.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Until its first text.
    pub first: Duration,
    /// Between one piece and the next.
    pub gaps: Vec<Duration>,
    /// Until its end.
    pub total: Duration,
    /// Tokens generated, where the way tells.
    pub tokens: u64,
}

/// A streamed request: an answer of just so many tokens, or one that ends by itself.
pub fn body(tokens: Option<u64>) -> Vec<u8> {
    let message = json!({"role": "user", "content": PROMPT});
    let mut body = json!({"model": "cocoon-demo", "messages": [message], "temperature": 0, "stream": true});
    if let Some(tokens) = tokens {
        body["max_tokens"] = tokens.into();
        // The tokens that end an answer.
        body["logit_bias"] = json!({"0": -100, "2": -100});
    }
    body.to_string().into_bytes()
}

/// Follows the pieces of an answer.
struct Follow {
    started: Instant,
    last: Option<Instant>,
    sample: Sample,
}

impl Follow {
    fn start() -> Self {
        Self { started: Instant::now(), last: None, sample: Sample::default() }
    }

    fn text(&mut self) {
        let now = Instant::now();
        match self.last {
            None => self.sample.first = now - self.started,
            Some(last) => self.sample.gaps.push(now - last),
        }
        self.last = Some(now);
    }

    fn end(mut self, tokens: u64) -> Result<Sample> {
        self.last.context("an answer without text")?;
        self.sample.total = self.started.elapsed();
        self.sample.tokens = tokens;
        Ok(self.sample)
    }
}

/// Whether a piece of the stream carries text: the first event only names the role.
fn has_text(piece: &[u8]) -> bool {
    String::from_utf8_lossy(piece)
        .split("\n\n")
        .any(|event| event.contains("\"content\":\"") && !event.contains("\"content\":\"\""))
}

/// Through the SDK to a relay: the host's or a gateway's.
pub async fn sdk(client: &Arc<Client>, enclave: &Appraised, relay: &str, tokens: Option<u64>) -> Result<Sample> {
    let mut follow = Follow::start();
    let enclave = Appraised { gateway: relay.to_owned(), ..enclave.clone() };
    let voucher = client.voucher(&enclave).await?;
    let call = client.seal(&enclave, voucher, "POST", "/v1/chat/completions", body(tokens))?;
    let mut answer = client.send(call).await?;
    while let Some(piece) = answer.next().await? {
        if has_text(&piece) {
            follow.text();
        }
    }
    let receipt = answer.finish().await?.context("a receipt")?.receipt;
    follow.end(receipt.tokens.completion)
}

/// Sealed, straight to the enclave: no host, no gateway, and nobody opens the answer.
pub async fn enclave_alone(
    http: &Http,
    client: &Arc<Client>,
    enclave: &Appraised,
    url: &str,
    tokens: Option<u64>,
) -> Result<Sample> {
    let mut follow = Follow::start();
    let voucher = client.voucher(enclave).await?;
    let call = client.seal(enclave, voucher.clone(), "POST", "/v1/chat/completions", body(tokens))?;
    let request = Request::post(format!("{url}{}", wire::SEALED_PATH))
        .header(wire::ENCLAVE_HEADER, enclave.evidence_id.to_string())
        .header(wire::VOUCHER_HEADER, voucher.to_header())
        .body(Full::new(Bytes::from(call.body.clone())))?;
    let mut frames = http.request(request).await?.into_body().into_data_stream();
    let (mut decoder, mut sealed) = (Decoder::new(), 0);
    while let Some(piece) = frames.next().await {
        decoder.push(&piece?);
        while let Some(frame) = decoder.next_frame()? {
            if let Frame::Sealed(_) = frame {
                sealed += 1;
                // Head and role come first.
                if sealed > 2 {
                    follow.text();
                }
            }
        }
    }
    follow.end(0)
}

/// Through the proxy, as an OpenAI client would, or from another server that speaks OpenAI's API.
pub async fn openai(http: &Http, url: &str, tokens: Option<u64>) -> Result<Sample> {
    let mut follow = Follow::start();
    let request = Request::post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body(tokens))))?;
    let mut pieces = http.request(request).await?.into_body().into_data_stream();
    let mut generated = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if has_text(&piece) {
            follow.text();
        }
        generated = completion_tokens(&piece).unwrap_or(generated);
    }
    follow.end(generated)
}

/// What a last event says of the answer's length.
fn completion_tokens(piece: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(piece);
    let (_, number) = text.rsplit_once("\"completion_tokens\":")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The value below which so many per cent lie.
pub fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}
