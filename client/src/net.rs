//! Plain HTTP to gateways and nodes: everything secret is sealed before it gets here.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::Error;

/// The largest body that is read whole, in bytes.
const MAX_BODY: usize = 16 << 20;

#[derive(Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    pub(crate) async fn get(&self, url: &str) -> Result<(u16, Bytes), Error> {
        let request = Request::get(url).body(Full::default()).map_err(|error| unreachable(url, error))?;
        whole(url, self.send(url, request).await?).await
    }

    pub(crate) async fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .header(header::CONTENT_LENGTH, body.len())
            .body(Full::new(body))
            .map_err(|error| unreachable(url, error))?;
        self.send(url, request).await
    }

    async fn send(&self, url: &str, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        self.0.request(request).await.map_err(|error| match error.is_connect() {
            true => unreachable(url, error),
            // The request may have arrived: whoever asks again could pay twice.
            false => Error::Broken(format!("{url}: {error}")),
        })
    }
}

pub(crate) async fn whole(url: &str, response: Response<Incoming>) -> Result<(u16, Bytes), Error> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|error| unreachable(url, error))?;
    Ok((status, body.to_bytes()))
}

fn unreachable(url: &str, why: impl std::fmt::Display) -> Error {
    Error::Unreachable { url: url.to_owned(), why: why.to_string() }
}
