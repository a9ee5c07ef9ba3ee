//! HTTP to the enclave; HTTP or HTTPS to nodes and to gateways.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::Error;
use crate::relay::Tap;

const MAX_BODY: usize = 16 << 20;

#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    tap: Option<Arc<dyn Tap>>,
}

impl Http {
    /// Whatever is sent and received whole is shown to the tap.
    pub(crate) fn new(tap: Option<Arc<dyn Tap>>) -> Result<Self, Error> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider);
        let builder = builder.map_err(|error| peer("TLS", error))?;
        let connector = builder.https_or_http().enable_http1().wrap_connector(connector);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), tap })
    }

    fn see(&self, bytes: &[u8]) {
        if let Some(tap) = &self.tap {
            tap.bytes(bytes);
        }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        self.see(url.as_bytes());
        for (name, value) in headers {
            self.see(name.as_bytes());
            self.see(value.as_bytes());
        }
        self.see(&body);
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| peer(url, error))?;
        self.client.request(request).await.map_err(|error| match error.is_connect() {
            true => Error::Unreachable { url: url.to_owned(), why: error.to_string() },
            false => peer(url, error),
        })
    }

    /// Status and whole body.
    pub(crate) async fn call(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(u16, Bytes), Error> {
        let response = self.send(method, url, headers, body).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|error| peer(url, error))?;
        let body = body.to_bytes();
        self.see(&body);
        Ok((status, body))
    }

    /// [`Self::call`], which is given up after a while: whoever never answers must not hold up what goes on beside it.
    pub(crate) async fn call_within(
        &self,
        within: Duration,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(u16, Bytes), Error> {
        let called = tokio::time::timeout(within, self.call(method, url, headers, body)).await;
        called.unwrap_or_else(|_| Err(peer(url, format!("it does not answer within {} s", within.as_secs()))))
    }
}

/// Asks for a page: status and body.
///
/// # Errors
/// Nobody answers in time.
pub async fn get(url: &str, within: Duration) -> Result<(u16, Bytes), Error> {
    Http::new(None)?.call_within(within, Method::GET, url, &[], Bytes::new()).await
}

pub(crate) fn peer(url: &str, why: impl std::fmt::Display) -> Error {
    Error::Peer { url: url.to_owned(), why: why.to_string() }
}
