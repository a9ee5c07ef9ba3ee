//! Asking an HTTP API: bounded in size and time, no faster than it allows, and again when it is busy.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, DATE, HeaderName, RETRY_AFTER};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use super::retry_after::retry_after;
use super::timer::Timer;
use crate::error::Error;

#[cfg(feature = "https")]
type Connector = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "https"))]
type Connector = HttpConnector;

const MAX_ANSWER: usize = 16 << 20;

/// How often and how soon a question is asked again. Waits double and are chosen at random below that, so that many clients of a service
/// that comes back do not all come at once.
#[derive(Debug, Clone, Copy)]
pub struct BackOff {
    /// Most times that a question is asked.
    pub attempts: u32,
    /// Longest wait before the second time.
    pub first: Duration,
    /// Longest wait of all.
    pub most: Duration,
    /// Longest that one attempt may take.
    pub timeout: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { attempts: 5, first: ms(500), most: ms(8_000), timeout: Duration::from_secs(20) }
    }
}

impl BackOff {
    /// The wait after attempt `attempt` (from 1).
    pub(super) fn pause(&self, attempt: u32) -> Duration {
        let longest = self.first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1))).min(self.most);
        let mut random = [0; 4];
        // Without randomness the longest wait is as good.
        match getrandom::fill(&mut random) {
            Ok(()) => longest.mul_f64(f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX)),
            Err(_) => longest,
        }
    }
}

/// How a call failed.
pub(super) enum Failure {
    /// The endpoint did not answer, or was too busy: asking again may help, in the time it names if it does.
    Transient(String, Option<Duration>),
    /// It said no.
    Answer(String),
}

pub(super) struct Http {
    base: String,
    key: Option<String>,
    client: Client<Connector, Full<Bytes>>,
    pub(super) back_off: BackOff,
    spacing: Duration,
    timer: Arc<dyn Timer>,
    /// When the API may be asked again, by the timer.
    next: Mutex<Duration>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl Http {
    pub fn new(
        base: &str,
        key: Option<String>,
        spacing: Option<Duration>,
        back_off: BackOff,
        timer: Arc<dyn Timer>,
    ) -> Result<Self, Error> {
        let wrong = |why: &str| Err(Error::Api { url: base.into(), why: why.into() });
        let Ok(uri) = base.parse::<Uri>() else { return wrong("this is no URL") };
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return wrong("this is no URL: it begins with http:// or https://");
        };
        let loopback = host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match scheme {
            "http" if key.is_some() && !loopback => {
                return wrong("the API key would travel unprotected: use https://, or give no key");
            }
            "http" => {}
            "https" if cfg!(feature = "https") => {}
            "https" => return wrong("this program was built without TLS: build it with the feature `https`"),
            _ => return wrong("this is no URL: it begins with http:// or https://"),
        }
        // Toncenter allows one request a second without a key and ten with a free one.
        let usual = match (&key, loopback) {
            (_, true) => Duration::ZERO,
            (Some(_), false) => Duration::from_millis(100),
            (None, false) => Duration::from_secs(1),
        };
        Ok(Self {
            base: base.trim_end_matches('/').into(),
            key,
            client: Client::builder(TokioExecutor::new()).build(connector(base)?),
            back_off,
            spacing: spacing.unwrap_or(usual),
            timer,
            next: Mutex::new(Duration::ZERO),
        })
    }

    pub fn error(&self, why: impl fmt::Display) -> Error {
        Error::Api { url: self.base.clone(), why: why.to_string() }
    }

    /// Waits until it is this request's turn.
    async fn turn(&self) {
        loop {
            let left = {
                let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
                let now = self.timer.now();
                if *next <= now {
                    *next = now.saturating_add(self.spacing);
                    return;
                }
                *next - now
            };
            self.timer.wait(left).await;
        }
    }

    /// No request of this client goes out before so much time has passed.
    fn rest(&self, time: Duration) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(self.timer.now().saturating_add(time));
    }

    /// One attempt: status and JSON. `path` comes after the base URL, with its query; a body makes it a POST.
    pub async fn once(&self, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value), Failure> {
        self.turn().await;
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::from(body)).map_err(|error| Failure::Answer(error.to_string()))?;
        let transient = |error: &dyn fmt::Display| Failure::Transient(error.to_string(), None);
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| transient(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| transient(&error))?;
            Ok((parts, body.to_bytes()))
        };
        let (parts, body) =
            timeout(self.back_off.timeout, exchange).await.map_err(|_| transient(&"no answer in time"))??;
        let status = parts.status;
        if matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504 | 542) {
            let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let asked = header(RETRY_AFTER).and_then(|value| retry_after(value, header(DATE), now));
            return Err(Failure::Transient(format!("HTTP status {status}"), asked));
        }
        let answer = serde_json::from_slice(&body);
        answer.map(|answer| (status, answer)).map_err(|_| Failure::Answer(format!("HTTP status {status}, no JSON")))
    }

    /// Waits as long as a failed attempt asks for; `false` if it was the last. A wait that the API named holds for every other question
    /// of this client too.
    pub async fn again(&self, attempt: u32, asked: Option<Duration>) -> bool {
        if let Some(asked) = asked {
            self.rest(asked);
        }
        if attempt >= self.back_off.attempts {
            return false;
        }
        if asked.is_none() {
            self.timer.wait(self.back_off.pause(attempt)).await;
        }
        true
    }
}

#[cfg(feature = "https")]
fn connector(base: &str) -> Result<Connector, Error> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider);
    let builder = builder.map_err(|error| Error::Api { url: base.into(), why: error.to_string() })?;
    Ok(builder.https_or_http().enable_http1().build())
}

#[cfg(not(feature = "https"))]
fn connector(_: &str) -> Result<Connector, Error> {
    Ok(HttpConnector::new())
}

#[cfg(test)]
mod tests {
    use super::super::timer::SystemTimer;
    use super::*;

    #[test]
    fn waits_grow_stay_below_their_bound_and_differ() {
        let back_off = BackOff::default();
        let pauses: Vec<Duration> = (0..200).map(|_| back_off.pause(3)).collect();
        assert!(pauses.iter().all(|pause| *pause <= back_off.first * 4));
        assert!(pauses.iter().any(|pause| *pause > back_off.first), "later waits are no longer than the first");
        assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]), "all clients wait the same");
        assert!((0..200).all(|_| back_off.pause(40) <= back_off.most));
    }

    #[test]
    fn a_key_never_travels_unprotected_and_is_never_shown() {
        let new = |url: &str, key: Option<&str>| {
            Http::new(url, key.map(str::to_owned), None, BackOff::default(), Arc::new(SystemTimer))
        };
        let refused = new("http://toncenter.com/api/v2/jsonRPC", Some("topsecret")).err().unwrap().to_string();
        assert!(refused.contains("unprotected") && !refused.contains("topsecret"), "{refused}");
        assert!(new("http://toncenter.com/api/v2/jsonRPC", None).is_ok());
        for loopback in ["http://127.0.0.1:1/x", "http://[::1]:1/x", "http://localhost/x"] {
            let http = new(loopback, Some("topsecret")).unwrap();
            assert!(!format!("{http:?}").contains("topsecret"));
        }
        for bad in ["", "toncenter.com", "ftp://toncenter.com", "/api"] {
            assert!(new(bad, None).is_err(), "{bad}");
        }
        assert_eq!(new("https://toncenter.com/api/v3", Some("topsecret")).is_ok(), cfg!(feature = "https"));
    }
}
