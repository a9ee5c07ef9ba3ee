//! Asking vendors' services: over HTTPS, bounded in size and time, no faster than they like, and again when they are busy.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Error;

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest that one request may take.
    pub timeout: Duration,
    /// Most times that one question is asked.
    pub attempts: u32,
    /// Wait before the second time; doubled before each further one.
    pub backoff: Duration,
    /// Longest wait that a service may ask for (`Retry-After`).
    pub longest_wait: Duration,
    /// Longest answer, in bytes.
    pub longest_answer: usize,
    /// Least time between two requests to one service. AMD's turns away whoever asks faster.
    pub spacing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(20),
            attempts: 4,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            longest_answer: 4 << 20,
            spacing: Duration::from_millis(200),
        }
    }
}

/// A client that keeps to the limits.
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limits: Limits,
    /// When each service may be asked again.
    next: Mutex<HashMap<String, Instant>>,
}

/// HTTPS with the web's roots, or HTTP.
pub(crate) fn connector() -> Result<HttpsConnector<HttpConnector>, Error> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider);
    let builder = builder.map_err(|error| Error::Tls(error.to_string()))?;
    Ok(builder.https_or_http().enable_http1().build())
}

/// Header and body of an answer.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Http {
    pub(super) fn new(limits: Limits) -> Result<Self, Error> {
        let client = Client::builder(TokioExecutor::new()).build(connector()?);
        Ok(Self { client, limits, next: Mutex::new(HashMap::new()) })
    }

    pub(super) async fn get(&self, url: &str) -> Result<Answer, Error> {
        self.ask(Method::GET, url, None).await
    }

    pub(super) async fn post(&self, url: &str, kind: &'static str, body: Vec<u8>) -> Result<Answer, Error> {
        self.ask(Method::POST, url, Some((kind, body.into()))).await
    }

    async fn ask(&self, method: Method, url: &str, body: Option<(&'static str, Bytes)>) -> Result<Answer, Error> {
        let uri: Uri = url.parse().map_err(|_| Error::Address(url.to_owned()))?;
        let host = uri.authority().ok_or_else(|| Error::Address(url.to_owned()))?.to_string();
        let mut attempt = 1;
        loop {
            self.turn(&host).await;
            let trouble = match timeout(self.limits.timeout, self.once(&method, &uri, body.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(trouble)) => trouble,
                Err(_) => Trouble::again(format!("no answer within {} s", self.limits.timeout.as_secs_f32())),
            };
            let Some(asked) = trouble.again.filter(|_| attempt < self.limits.attempts) else {
                return Err(Error::Service { url: url.to_owned(), attempts: attempt, trouble: trouble.what });
            };
            let wait = asked.unwrap_or(self.limits.backoff * 2_u32.saturating_pow(attempt - 1));
            tracing::debug!(url, attempt, wait = ?wait, trouble = trouble.what, "asking again");
            sleep(wait.min(self.limits.longest_wait)).await;
            attempt += 1;
        }
    }

    /// Waits until a service may be asked again.
    async fn turn(&self, host: &str) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let free = next.entry(host.to_owned()).or_insert_with(Instant::now);
            let at = (*free).max(Instant::now());
            *free = at + self.limits.spacing;
            at
        };
        sleep_until(at).await;
    }

    async fn once(&self, method: &Method, uri: &Uri, body: Option<(&'static str, Bytes)>) -> Result<Answer, Trouble> {
        let mut request = Request::builder().method(method.clone()).uri(uri.clone());
        let body = match body {
            None => Bytes::new(),
            Some((kind, body)) => {
                request = request.header(CONTENT_TYPE, kind);
                body
            }
        };
        let request = request.body(Full::new(body)).map_err(|error| Trouble::last(error.to_string()))?;
        let sent = self.client.request(request).await;
        let response = sent.map_err(|error| Trouble::again(chain_of(&error)))?;
        let (head, body) = response.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                return Err(busy(head.status, &head.headers));
            }
            status if status.is_server_error() => return Err(busy(status, &head.headers)),
            StatusCode::NOT_FOUND => return Err(Trouble::last("404: the service does not know it".into())),
            status => return Err(Trouble::last(format!("status {}", status.as_u16()))),
        }
        let body = Limited::new(body, self.limits.longest_answer).collect().await;
        let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => Trouble::last(format!("the answer is longer than {} bytes", self.limits.longest_answer)),
            false => Trouble::again(format!("the answer broke off: {error}")),
        })?;
        Ok(Answer { headers: head.headers, body: body.to_bytes() })
    }
}

/// What went wrong, and whether to ask again: perhaps at a time that the service asks for.
struct Trouble {
    what: String,
    again: Option<Option<Duration>>,
}

impl Trouble {
    fn again(what: String) -> Self {
        Self { what, again: Some(None) }
    }

    fn last(what: String) -> Self {
        Self { what, again: None }
    }
}

fn busy(status: StatusCode, headers: &HeaderMap) -> Trouble {
    let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Trouble { what: format!("status {}", status.as_u16()), again: Some(asked.map(Duration::from_secs)) }
}

/// An error with what caused it: the outermost says little.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
