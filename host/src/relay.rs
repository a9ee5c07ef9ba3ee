//! The relay: ciphertext in, ciphertext out, and the receipts in between on disk before the client sees the end of its answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_stream::stream;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_protocol::frame::{Decoder, Frame};
use cocoon_protocol::sealed::{self, MAX_SEALED_REQUEST};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire::{self, Refusal};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::channel::{ChannelInit, ChannelStatus};
use cocoon_settlement::contracts::provider::KeyState;
use cocoon_settlement::{Address, Prices, ops};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use tokio::sync::Mutex;

use crate::Shared;
use crate::owed::OpenAnswer;
use crate::reserve::Reservation;
use crate::store::Store;

/// Sees what reaches and leaves the host, so that anybody can search it for what should not be there.
pub trait Tap: Send + Sync {
    /// A URL, a header's name or value, or a piece of a body, in either direction.
    fn bytes(&self, bytes: &[u8]);
}

/// A refusal outside the seal.
struct Refused(StatusCode, Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, axum::Json(self.1)).into_response()
    }
}

fn refuse(status: StatusCode, error: &str, what_to_do: &str) -> Refused {
    Refused(status, Refusal { error: error.into(), what_to_do: what_to_do.into() })
}

/// Channels whose terms were read from the chain, and when each was last seen open.
#[derive(Default)]
pub(crate) struct Channels(Mutex<HashMap<Address, (ChannelInit, Instant)>>);

/// Whether the chain still pays an enclave, asked anew from time to time.
#[derive(Default)]
pub struct Standing(Mutex<Option<(EnclaveKey, UnixTime, Instant)>>);

/// How long a key that was active is taken to be so. What it earns meanwhile is not paid if it was revoked.
const ACTIVE_FOR: Duration = Duration::from_secs(10);

impl Standing {
    /// Whether receipts that this key signs now are paid; if not, why. Notes in the record up to when they are.
    ///
    /// # Errors
    /// The chain or the record does not answer.
    pub async fn unpaid(
        &self,
        chain: &dyn Chain,
        provider: &Address,
        store: &Store,
        key: &EnclaveKey,
        now: UnixTime,
    ) -> Result<Option<&'static str>, crate::Error> {
        let mut known = self.0.lock().await;
        if known.is_some_and(|(of, until, seen)| of == *key && now <= until && seen.elapsed() < ACTIVE_FOR) {
            return Ok(None);
        }
        *known = None;
        let record = ops::enclave_record(chain, provider, key).await?;
        let why = match record.as_ref().map(|record| record.state) {
            None => "the enclave's key is not registered",
            Some(KeyState::Active) => "the enclave's attestation is over",
            Some(KeyState::Retired) => "the enclave's key was retired",
            Some(KeyState::Void | KeyState::Slashed | KeyState::Other(_)) => "the enclave's key was declared void",
        };
        let Some(record) = record else { return Ok(Some(why)) };
        if matches!(record.state, KeyState::Active | KeyState::Retired) {
            // Whatever is revoked later is paid up to now.
            store.cover(key, record.until.min(now))?;
        }
        if record.state != KeyState::Active || record.until < now {
            return Ok(Some(why));
        }
        *known = Some((*key, record.until, Instant::now()));
        Ok(None)
    }
}

/// How long a channel that was open is taken to be so. It closes alone only after its delay, which is far longer.
const OPEN_FOR: Duration = Duration::from_secs(30);
/// A voucher must hold this much longer, so that its answer can end before it does.
const VOUCHER_MARGIN: u64 = 30;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(wire::RELAY_PATH, post(relay))
        .route(wire::ENCLAVES_PATH, get(enclaves))
        .route("/health", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::max(MAX_SEALED_REQUEST))
        .with_state(shared)
}

async fn enclaves(State(shared): State<Arc<Shared>>) -> Response {
    axum::Json(shared.announcement().into_iter().collect::<Vec<_>>()).into_response()
}

async fn relay(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    shared.tapped(&body);
    for (name, value) in &headers {
        shared.tapped(name.as_str().as_bytes());
        shared.tapped(value.as_bytes());
    }
    match forward(shared, &headers, body).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    }
}

async fn forward(shared: Arc<Shared>, headers: &HeaderMap, body: Bytes) -> Result<Response, Refused> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // Counted before anything is looked at, so that a guest that drains does not end under a request that was let in.
    let under_way = shared.open.clone();
    if shared.draining() {
        let why = match shared.stopping() {
            true => "the host stops: it finishes open answers and takes no new requests",
            false => "the enclave's image was withdrawn: it finishes open answers and takes no new requests",
        };
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, why, "ask another host"));
    }
    let Some((_, base_url)) = shared.ready() else {
        return Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the enclave is starting",
            "try again shortly or ask another",
        ));
    };
    // The enclave knows which evidence it still serves: for a while after a renewal, the one before too.
    let evidence_id = text(wire::ENCLAVE_HEADER).unwrap_or_default();
    let header = text(wire::VOUCHER_HEADER).unwrap_or_default();
    let voucher = SignedVoucher::from_header(header)
        .map_err(|error| refuse(StatusCode::PAYMENT_REQUIRED, &error.to_string(), "send a signed voucher"))?;
    accept(&shared, &voucher).await?;
    let url = format!("{base_url}{}", wire::SEALED_PATH);
    // From here on the enclave may generate, and may be owed, whether or not the client waits for its answer.
    let mut open = OpenAnswer::new(shared.clone(), under_way, voucher.clone(), base_url, sealed::request_id(&body));
    let passed =
        [(wire::ENCLAVE_HEADER, evidence_id), (wire::VOUCHER_HEADER, header), ("content-type", wire::SEALED_REQUEST)];
    let response = match shared.http.send(Method::POST, &url, &passed, body).await {
        Ok(response) => response,
        Err(crate::Error::Unreachable { .. }) => {
            open.settled();
            return Err(refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "the enclave does not answer",
                "try again shortly or ask another",
            ));
        }
        // It may have got the request, and may be owed: what was signed is fetched.
        Err(_) => {
            return Err(refuse(
                StatusCode::BAD_GATEWAY,
                "the enclave broke off, and may have generated",
                "ask again only if it may be paid twice",
            ));
        }
    };
    let (error, what_to_do) = match response.status().as_u16() {
        200 => {
            let sealed = Body::from_stream(pass_on(shared, open, response.into_body()));
            return Ok(([(header::CONTENT_TYPE, wire::SEALED_RESPONSE)], sealed).into_response());
        }
        400 => (
            "the enclave cannot open this request: it was altered or is not sealed to it",
            "fetch its key statement and seal again",
        ),
        401 => ("the enclave takes no such voucher", "send a signed voucher"),
        409 => ("this sealed request was accepted before: it is a replay", "seal the request again to send it again"),
        410 => ("the request is sealed to a key that has been replaced", "fetch the key statement and seal again"),
        421 => ("this host runs no enclave with that evidence", "fetch the list of enclaves again"),
        503 => ("the enclave cannot take requests now", "try again shortly or ask another"),
        _ => ("the enclave failed", "try again or ask another"),
    };
    open.settled();
    Err(refuse(response.status(), error, what_to_do))
}

/// Checks a voucher against the enclave, the chain and what else was promised from the same channel, and keeps it.
async fn accept(shared: &Shared, voucher: &SignedVoucher) -> Result<(), Refused> {
    let pay = |error: String, what_to_do: &str| refuse(StatusCode::PAYMENT_REQUIRED, &error, what_to_do);
    let promise = &voucher.voucher;
    let chain = shared.config.chain.as_ref();
    let unavailable = |_| refuse(StatusCode::SERVICE_UNAVAILABLE, "the chain does not answer", "try again shortly");
    if promise.network != shared.config.network {
        return Err(pay("the voucher is for another network".into(), "sign one for this network"));
    }
    if shared.enclave_key() != Some(promise.enclave_key) {
        return Err(pay("the voucher pays another enclave".into(), "sign one for this enclave's key"));
    }
    let now = chain.head().await.map_err(unavailable)?.time;
    let (provider, store) = (&shared.config.provider, &shared.store);
    let standing = shared.standing.unpaid(chain, provider, store, &promise.enclave_key, now).await;
    if let Some(why) = standing.map_err(|_| {
        refuse(StatusCode::SERVICE_UNAVAILABLE, "the chain or the host's record does not answer", "try again shortly")
    })? {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, why, "ask another host, or try again when it is attested"));
    }
    if promise.expiry < now.plus(VOUCHER_MARGIN) {
        return Err(pay("the voucher has expired, or is about to".into(), "sign a new one"));
    }
    if let Some((kind, asked)) = too_cheap(&promise.prices, &shared.config.prices) {
        return Err(pay(
            format!("the voucher pays too little for {kind} tokens"),
            &format!("pay {asked} nanoton per million"),
        ));
    }
    let channel = channel(shared, &promise.channel).await?;
    voucher
        .verify(&channel.client_key)
        .map_err(|_| pay("the voucher is not signed by the channel's client key".into(), "sign it with that key"))?;
    reserve(shared, voucher, now).await
}

fn too_cheap(offered: &Prices, asked: &Prices) -> Option<(&'static str, u64)> {
    let kinds = [
        ("prompt", offered.prompt, asked.prompt),
        ("cached", offered.cached, asked.cached),
        ("completion", offered.completion, asked.completion),
        ("reasoning", offered.reasoning, asked.reasoning),
    ];
    kinds.into_iter().find(|(_, offered, asked)| offered < asked).map(|(kind, _, asked)| (kind, asked))
}

/// The channel's terms, which never change.
async fn channel(shared: &Shared, address: &Address) -> Result<ChannelInit, Refused> {
    let pay = |error: String| refuse(StatusCode::PAYMENT_REQUIRED, &error, "open a channel with this provider");
    if let Some((channel, seen)) = shared.channels.0.lock().await.get(address)
        && seen.elapsed() < OPEN_FOR
    {
        return Ok(channel.clone());
    }
    let chain = shared.config.chain.as_ref();
    let terms = ops::channel_terms(chain, address).await.map_err(|error| match error {
        cocoon_settlement::Error::NotDeployed(_) | cocoon_settlement::Error::Unexpected(_) => {
            pay(format!("the channel cannot be used: {error}"))
        }
        _ => refuse(StatusCode::SERVICE_UNAVAILABLE, "the chain does not answer", "try again shortly"),
    })?;
    if terms.provider != shared.config.provider {
        return Err(pay("the channel pays another provider".into()));
    }
    let provider = ops::provider_terms(chain, &shared.config.provider).await.map_err(|error| pay(error.to_string()))?;
    terms.check_for(&provider).map_err(|error| pay(error.to_string()))?;
    let state = ops::channel_state(chain, address).await.map_err(|error| pay(error.to_string()))?;
    if state.status != ChannelStatus::Open {
        return Err(pay("the channel is being closed".into()));
    }
    let mut known = shared.channels.0.lock().await;
    // Terms are some 200 bytes; a flood of channels costs its owner a deployment each.
    if known.len() < 100_000 || known.contains_key(address) {
        known.insert(*address, (terms.clone(), Instant::now()));
    }
    Ok(terms)
}

/// Keeps the voucher if its channel can pay it beside all that was promised before.
async fn reserve(shared: &Shared, voucher: &SignedVoucher, now: UnixTime) -> Result<(), Refused> {
    let pay = |error: &str, what_to_do: &str| Err(refuse(StatusCode::PAYMENT_REQUIRED, error, what_to_do));
    let (chain, serving) = (shared.config.chain.as_ref(), shared.enclave_key());
    match shared.reservations.reserve(chain, &shared.store, serving, voucher, now).await {
        Ok(Reservation::Kept) => Ok(()),
        Ok(Reservation::Beyond { available, promised }) => pay(
            &format!("the channel holds {available}, and {promised} would be promised"),
            "top the channel up, or sign a lower cap",
        ),
        Ok(Reservation::TooManyKeys) => {
            pay("the channel has paid as many enclaves as one channel does", "open another channel with this provider")
        }
        Ok(Reservation::TooManyVouchers) => pay(
            "too many vouchers of different caps and expiries are held",
            "sign one whose cap and expiry are both the highest so far",
        ),
        Err(_) => Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the chain or the host's record does not answer",
            "try again shortly or ask another host",
        )),
    }
}

/// Passes sealed bytes on as they come. Nothing that follows a receipt is passed on before the receipt is on disk.
fn pass_on(
    shared: Arc<Shared>,
    mut open: OpenAnswer,
    mut body: Incoming,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    stream! {
        let mut decoder = Decoder::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                yield Err(std::io::Error::other("the enclave broke off"));
                return;
            };
            let Ok(data) = frame.into_data() else { continue };
            decoder.push(&data);
            loop {
                match decoder.next_frame() {
                    Ok(Some(Frame::Sealed(sealed))) => {
                        shared.tapped(&sealed);
                        yield Ok(sealed);
                    }
                    Ok(Some(Frame::Receipt(receipt))) => {
                        shared.tapped(&receipt);
                        if let Err(error) = open.keep(&receipt).await {
                            tracing::error!(%error, "a receipt was not kept: the rest of the answer is held back");
                            yield Err(std::io::Error::other("the receipt could not be kept"));
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(%error, "the enclave sent no frames");
                        yield Err(std::io::Error::other("the enclave broke off"));
                        return;
                    }
                }
            }
        }
        // Where no receipt came before this end, the enclave gave the answer up and may still have signed for it: dropped, it is asked.
    }
}
