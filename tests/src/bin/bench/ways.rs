//! The ways an answer can take from the enclave to whoever asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cocoon_client::{Appraised, Client};
use cocoon_protocol::frame::{Decoder, Frame};
use cocoon_protocol::wire;
use futures::{StreamExt, TryStreamExt};
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

/// A streamed request: an answer of just so many tokens, or one that ends by itself; and whether its usage is asked for.
pub fn body(tokens: Option<u64>, usage: bool) -> Vec<u8> {
    let message = json!({"role": "user", "content": PROMPT});
    let mut body = json!({"model": "cocoon-demo", "messages": [message], "temperature": 0, "stream": true});
    if let Some(tokens) = tokens {
        body["max_tokens"] = tokens.into();
        // The tokens that end an answer.
        body["logit_bias"] = json!({"0": -100, "2": -100});
    }
    if usage {
        body["stream_options"] = json!({"include_usage": true});
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

/// The events of a stream, wherever its pieces end.
#[derive(Default)]
struct Events {
    rest: Vec<u8>,
    /// Tokens generated, once an event has told.
    generated: Option<u64>,
}

impl Events {
    /// Takes a piece of the stream. Gives how many of the events that it ends carry text, which is one token each: the first event only names the role.
    fn push(&mut self, piece: &[u8]) -> usize {
        self.rest.extend_from_slice(piece);
        let mut texts = 0;
        while let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event);
            texts += usize::from(event.contains("\"content\":\"") && !event.contains("\"content\":\"\""));
            self.generated = completion_tokens(&event).or(self.generated);
        }
        texts
    }
}

/// Through the SDK to a relay: the host's or a gateway's.
pub async fn sdk(client: &Arc<Client>, enclave: &Appraised, relay: &str, tokens: Option<u64>) -> Result<Sample> {
    let (mut follow, mut events) = (Follow::start(), Events::default());
    let enclave = Appraised { gateway: relay.to_owned(), ..enclave.clone() };
    let voucher = client.voucher(&enclave).await?;
    let call = client.seal(&enclave, voucher, "POST", "/v1/chat/completions", body(tokens, false))?;
    let mut answer = client.send(call).await?;
    ensure!(answer.head().status == 200, "status {} inside the seal", answer.head().status);
    while let Some(piece) = answer.next().await? {
        for _ in 0..events.push(&piece) {
            follow.text();
        }
    }
    let receipt = answer.finish().await?.context("a receipt")?.receipt;
    follow.end(receipt.tokens.completion)
}

/// Sealed, straight to the enclave: no host and no gateway, and no receipt is verified.
pub async fn enclave_alone(
    http: &Http,
    client: &Arc<Client>,
    enclave: &Appraised,
    url: &str,
    tokens: Option<u64>,
) -> Result<Sample> {
    let (mut follow, mut events) = (Follow::start(), Events::default());
    let voucher = client.voucher(enclave).await?;
    let call = client.seal(enclave, voucher.clone(), "POST", "/v1/chat/completions", body(tokens, false))?;
    let request = Request::post(format!("{url}{}", wire::SEALED_PATH))
        .header(wire::ENCLAVE_HEADER, enclave.evidence_id.to_string())
        .header(wire::VOUCHER_HEADER, voucher.to_header())
        .body(Full::new(Bytes::from(call.body.clone())))?;
    let response = http.request(request).await?;
    ensure!(response.status() == 200, "the enclave answers {}", response.status());
    let mut decoder = Decoder::new();
    let sealed = response.into_body().into_data_stream().map(move |piece| {
        decoder.push(&piece.map_err(std::io::Error::other)?);
        let mut sealed = Vec::new();
        while let Some(frame) = decoder.next_frame().map_err(std::io::Error::other)? {
            if let Frame::Sealed(bytes) = frame {
                sealed.extend_from_slice(&bytes);
            }
        }
        Ok::<_, std::io::Error>(sealed)
    });
    let mut answer = call.into_opener().open(Box::pin(sealed).into_async_read())?;
    let status = answer.head().await?.status;
    ensure!(status == 200, "status {status} inside the seal");
    while let Some(piece) = answer.next().await? {
        for _ in 0..events.push(&piece) {
            follow.text();
        }
    }
    follow.end(0)
}

/// Through the proxy, as an OpenAI client would, or from another server that speaks OpenAI's API; `usage`: it has to be asked for how many tokens
/// there were.
pub async fn openai(http: &Http, url: &str, tokens: Option<u64>, usage: bool) -> Result<Sample> {
    let (mut follow, mut events) = (Follow::start(), Events::default());
    let request = Request::post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body(tokens, usage))))?;
    let response = http.request(request).await?;
    let status = response.status();
    let mut pieces = response.into_body().into_data_stream();
    let mut refusal = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if status != 200 {
            refusal.extend_from_slice(&piece);
        }
        for _ in 0..events.push(&piece) {
            follow.text();
        }
    }
    ensure!(status == 200, "{url} answers {status}: {}", String::from_utf8_lossy(&refusal));
    follow.end(events.generated.context("a stream that does not tell its tokens")?)
}

/// What an event says of the answer's length.
fn completion_tokens(event: &str) -> Option<u64> {
    let (_, number) = event.rsplit_once("\"completion_tokens\":")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The value below which so many per cent lie.
pub fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_counts_wherever_pieces_end() {
        let event = |text: &str| format!("data: {{\"delta\":{{\"content\":\"{text}\"}}}}\n\n");
        let stream =
            [event(""), event("a"), event("b"), event("c"), "data: {\"usage\":{\"completion_tokens\":3}}\n\n".into()];
        let stream = stream.concat();
        for size in 1..=stream.len() {
            let mut events = Events::default();
            let texts: usize = stream.as_bytes().chunks(size).map(|piece| events.push(piece)).sum();
            assert_eq!((texts, events.generated), (3, Some(3)), "pieces of {size}");
        }
    }
}
