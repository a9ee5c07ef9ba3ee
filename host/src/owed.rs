//! What an answer under way is owed: its receipt, which comes with its end, or is fetched where the client hung up before. What a guest had
//! signed when its host was killed is fetched when the next host finds it still running.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cocoon_attestation::{Digest, EnclaveKey};
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire;
use cocoon_settlement::Address;
use hyper::Method;

use crate::net::Http;
use crate::{Error, Shared};

/// How often the host asks for the receipt of a client that hung up, and how long it waits before: longer each time, two minutes in all.
const TRIES: u32 = 70;
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// What an enclave has not got by then, it will not get: the connection that brought it is closed.
const ARRIVAL: Duration = Duration::from_secs(2);

/// An answer under way. If it is dropped before its receipt came, the client has hung up, and the receipt is fetched.
pub(crate) struct OpenAnswer {
    shared: Arc<Shared>,
    /// Held as long as anything is owed: a guest that drains waits for it.
    under_way: Arc<()>,
    owed: Option<Owed>,
}

/// A receipt that has not come.
struct Owed {
    voucher: SignedVoucher,
    /// Base URL of the enclave that was asked.
    enclave: String,
    /// Names the request; `None` for what is too short to be one, which no enclave answers.
    request: Option<Digest>,
}

impl OpenAnswer {
    /// Of an enclave at this base URL.
    pub(crate) fn new(
        shared: Arc<Shared>,
        under_way: Arc<()>,
        voucher: SignedVoucher,
        enclave: String,
        request: Option<Digest>,
    ) -> Self {
        Self { shared, under_way, owed: Some(Owed { voucher, enclave, request }) }
    }

    /// Nothing is owed any more.
    pub(crate) fn settled(&mut self) {
        self.owed = None;
    }

    /// Takes the receipt that came.
    ///
    /// # Errors
    /// It is not what is owed, or cannot be kept.
    pub(crate) async fn keep(&mut self, receipt: &[u8]) -> Result<(), Error> {
        let Some(owed) = self.owed.take() else {
            return Err(Error::Store("a second receipt for one answer".into()));
        };
        keep_receipt(self.shared.clone(), &owed.voucher, receipt).await
    }
}

impl Drop for OpenAnswer {
    fn drop(&mut self) {
        let Some(owed) = self.owed.take() else { return };
        let (shared, under_way) = (self.shared.clone(), self.under_way.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                fetch(shared, owed).await;
                drop(under_way);
            });
        }
    }
}

/// Verifies a receipt and puts it on disk.
async fn keep_receipt(shared: Arc<Shared>, voucher: &SignedVoucher, receipt: &[u8]) -> Result<(), Error> {
    let signed = SignedSettlementReceipt::from_bytes(receipt)?;
    signed.verify()?;
    let (receipt, promise) = (&signed.receipt, &voucher.voucher);
    let fits = receipt.network == promise.network
        && receipt.channel == promise.channel
        && receipt.enclave_key == promise.enclave_key
        && receipt.provider == shared.config.provider;
    if !fits {
        return Err(Error::Store("the enclave's receipt is for something else".into()));
    }
    // Waiting for the disk blocks a thread, and other answers go on meanwhile.
    let writing = shared.clone();
    let kept = tokio::task::spawn_blocking(move || writing.store.keep_receipt(&signed))
        .await
        .map_err(|error| Error::Store(error.to_string()))?;
    if let Err(Error::Equivocation { .. }) = kept {
        shared.condemned.store(true, Ordering::Relaxed);
    }
    kept
}

/// The client hung up: the enclave stops, and signs for what it had generated.
async fn fetch(shared: Arc<Shared>, owed: Owed) {
    let Some(request) = owed.request else { return };
    let channel = owed.voucher.voucher.channel;
    let url = format!("{}{}?channel={channel}", owed.enclave, wire::RECEIPTS_PATH);
    let runs = || shared.ready().is_some_and(|(_, url)| url == owed.enclave);
    let Some(receipt) = last_word(&shared.http, &url, &request, runs).await else { return };
    if let Err(error) = keep_receipt(shared, &owed.voucher, &receipt).await {
        tracing::error!(%error, "the receipt of a client that hung up was not kept");
    }
}

/// Fetches what an enclave has signed for every channel that promised it something, and keeps what is newer than the record. A guest that has just been
/// started has signed nothing; one that outlived its host may have signed what that host never got.
pub(crate) async fn recover(shared: &Shared, enclave: &str, key: &EnclaveKey) {
    let channels = match shared.store.channels_of(key) {
        Ok(channels) => channels,
        Err(error) => {
            tracing::error!(%error, "what the enclave is promised cannot be read");
            return;
        }
    };
    for channel in channels {
        let url = format!("{enclave}{}?channel={channel}", wire::RECEIPTS_PATH);
        let kept = match shared.http.call_within(LONGEST_WAIT, Method::GET, &url, &[], Bytes::new()).await {
            Ok((200, receipt)) => keep_of(shared, &channel, key, &receipt),
            // It was charged for nothing there.
            Ok((404, _)) => Ok(()),
            Ok((status, _)) => Err(crate::net::peer(&url, format!("no receipt, status {status}"))),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::error!(%error, %channel, "what the enclave had signed before was not kept");
        }
    }
}

fn keep_of(shared: &Shared, channel: &Address, key: &EnclaveKey, receipt: &[u8]) -> Result<(), Error> {
    let signed = SignedSettlementReceipt::from_bytes(receipt)?;
    signed.verify()?;
    let of = &signed.receipt;
    let own = (of.network, of.provider, of.channel, of.enclave_key);
    if own != (shared.config.network, shared.config.provider, *channel, *key) {
        return Err(Error::Store("the enclave's receipt is for something else".into()));
    }
    shared.store.keep_receipt(&signed)
}

/// The receipt that has a request's charge in it, as soon as the enclave says that the request has ended. Others of the channel may be charged
/// before it is, so a newer receipt alone is no sign. `None` if the request did not arrive, the channel was never charged, or the enclave runs no
/// more.
async fn last_word(http: &Http, url: &str, request: &Digest, runs: impl Fn() -> bool) -> Option<Bytes> {
    let of_request = format!("{url}&request={request}");
    let (mut wait, mut arrived, started) = (FIRST_WAIT, false, Instant::now());
    for _ in 0..TRIES {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
        if !runs() {
            break;
        }
        match http.call(Method::GET, &of_request, &[], Bytes::new()).await {
            Ok((200, receipt)) => return Some(receipt),
            Ok((202, _)) => arrived = true,
            // It has ended, so late that the enclave does not remember what was sealed to that key.
            Ok((404, _)) if arrived => {
                let newest = http.call(Method::GET, url, &[], Bytes::new()).await;
                return newest.ok().and_then(|(status, receipt)| (status == 200).then_some(receipt));
            }
            // It may be on its way, longer than the client waited.
            Ok((404, _)) if started.elapsed() >= ARRIVAL => return None,
            // Whatever it is, it may change.
            _ => {}
        }
    }
    tracing::warn!("no receipt for a client that hung up: its enclave is gone");
    None
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;

    use axum::extract::{RawQuery, State};
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use axum::routing::get;

    use super::*;

    /// Says one after another, and the last again and again; notes what it was asked.
    #[derive(Default)]
    struct Enclave {
        says: Mutex<VecDeque<(u16, &'static str)>>,
        asked: Mutex<Vec<String>>,
    }

    async fn answer(State(enclave): State<Arc<Enclave>>, RawQuery(query): RawQuery) -> axum::response::Response {
        enclave.asked.lock().unwrap().push(query.unwrap_or_default());
        let mut says = enclave.says.lock().unwrap();
        let (status, body) = if says.len() > 1 { says.pop_front() } else { says.front().copied() }.unwrap();
        (StatusCode::from_u16(status).unwrap(), body).into_response()
    }

    async fn enclave(says: &[(u16, &'static str)]) -> (String, Arc<Enclave>) {
        let enclave = Arc::new(Enclave { says: Mutex::new(says.iter().copied().collect()), ..Enclave::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/receipts?channel=c", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/receipts", get(answer)).with_state(enclave.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, enclave)
    }

    const REQUEST: Digest = Digest([7; 32]);

    #[tokio::test]
    async fn the_receipt_is_waited_for_until_the_request_has_arrived_and_ended() {
        let http = Http::new(None).unwrap();
        let (pending, own) = ((202, "of another"), (200, "its receipt"));
        for (says, expected) in [
            (vec![own], Some("its receipt")),
            (vec![pending, pending, pending, own], Some("its receipt")),
            // Asked before it came.
            (vec![(404, ""), (404, ""), pending, own], Some("its receipt")),
            (vec![(404, ""), own], Some("its receipt")),
            (vec![(503, ""), own], Some("its receipt")),
        ] {
            let (url, enclave) = enclave(&says).await;
            let found = last_word(&http, &url, &REQUEST, || true).await;
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{says:?}");
            let asked = enclave.asked.lock().unwrap();
            assert_eq!(asked.len(), says.len(), "{says:?}");
            assert!(asked.iter().all(|query| *query == format!("channel=c&request={REQUEST}")), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn a_request_whose_key_is_gone_is_in_the_newest_receipt_once_it_has_ended() {
        for (newest, expected) in [((200, "newest"), Some("newest")), ((404, ""), None)] {
            let (url, enclave) = enclave(&[(202, ""), (404, ""), newest]).await;
            let found = last_word(&Http::new(None).unwrap(), &url, &REQUEST, || true).await;
            assert_eq!(found.as_deref(), expected.map(str::as_bytes));
            assert_eq!(enclave.asked.lock().unwrap().last().unwrap(), "channel=c");
        }
    }

    #[tokio::test]
    async fn a_request_that_never_arrives_is_given_up_and_nobody_elses_receipt_taken() {
        let (url, enclave) = enclave(&[(404, "")]).await;
        let started = Instant::now();
        assert_eq!(last_word(&Http::new(None).unwrap(), &url, &REQUEST, || true).await, None);
        assert!(started.elapsed() >= ARRIVAL && enclave.asked.lock().unwrap().len() > 4);
    }

    #[tokio::test]
    async fn an_enclave_that_runs_no_more_is_not_asked() {
        let (url, enclave) = enclave(&[(202, "")]).await;
        let looks = AtomicU32::new(0);
        let found =
            last_word(&Http::new(None).unwrap(), &url, &REQUEST, || looks.fetch_add(1, Ordering::SeqCst) < 2).await;
        assert_eq!((found, enclave.asked.lock().unwrap().len()), (None, 2));
    }
}
