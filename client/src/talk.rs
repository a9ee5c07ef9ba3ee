//! One request: choose an enclave, promise to pay, seal, relay, open, verify the receipt.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cocoon_attestation::{Digest, EnclaveKey};
use cocoon_protocol::auth;
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::{FullReceipt, SignedFullReceipt};
use cocoon_protocol::sealed::{AnswerHead, InnerRequest, OpenAnswer, RequestSealer, ResponseOpener};
use cocoon_protocol::statement::SignedKeyStatement;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire::{self, Announcement, Refusal};
use cocoon_settlement::cells::Voucher;
use cocoon_settlement::{Nanoton, Prices, ops};
use futures::TryStreamExt;
use http_body_util::BodyExt;

use crate::Error;
use crate::appraise::{Appraised, Appraiser, RENEWED};
use crate::config::ClientConfig;
use crate::net::{Http, whole};
use crate::state::{Account, State};

/// How long a list of enclaves is used before it is fetched again, in seconds.
const DIRECTORY_SECONDS: u64 = 5;
/// How often the list is fetched again where the only enclave has renewed its attestation and is not yet announced with it: that takes its host
/// a fraction of a second, or seconds on a busy machine.
const RELISTS: u32 = 40;
/// Pause before each of these.
const RELIST: Duration = Duration::from_millis(250);
/// How often a cap is raised for one request before it gives up.
const RAISES: u32 = 16;

/// Statuses by which a relay says that no enclave took the request: nothing was generated, and another may be asked. With any other one an
/// enclave may have, and whoever asks again could pay twice. 409 is among those: this very request was taken before.
const UNSERVED: [u16; 8] = [400, 401, 402, 404, 410, 413, 421, 503];

/// A client of the network.
pub struct Client {
    config: ClientConfig,
    key: SigningKey,
    http: Http,
    appraiser: Appraiser,
    state: State,
    directory: Mutex<Option<(u64, Vec<Appraised>)>>,
    /// The latest promise to each enclave: a new one is signed only for a higher cap or before it expires.
    promises: Mutex<HashMap<EnclaveKey, SignedVoucher>>,
    /// Held while the list is fetched: whoever needs it meanwhile waits for what comes of it.
    listing: tokio::sync::Mutex<()>,
    /// Lists without an enclave that is accepted.
    fruitless: AtomicU64,
    /// Held while a cap is raised.
    raising: tokio::sync::Mutex<()>,
}

/// A sealed request that has not been sent yet.
pub struct SealedCall {
    /// The enclave it is sealed to.
    pub enclave: Appraised,
    /// The promise that pays for it.
    pub voucher: SignedVoucher,
    /// The sealed bytes.
    pub body: Vec<u8>,
    opener: ResponseOpener,
    request: zeroize::Zeroizing<Vec<u8>>,
}

impl SealedCall {
    /// What opens the answer, for whoever sends the request another way than [`Client::send`] does.
    pub fn into_opener(self) -> ResponseOpener {
        self.opener
    }
}

impl Client {
    /// A client with a record in its data folder.
    ///
    /// # Errors
    /// The record cannot be opened, or the key does not belong to the channel.
    pub fn open(config: ClientConfig) -> Result<Arc<Self>, Error> {
        let key = SigningKey::from_seed(&config.client_key)?;
        if key.public() != config.channel.client_key {
            return Err(Error::State("the client key is not the one that the channel was opened with".into()));
        }
        std::fs::create_dir_all(&config.data).map_err(|error| Error::State(error.to_string()))?;
        let state = State::open(&config.data.join("client.redb"))?;
        let appraiser = Appraiser::open(&config.data)?;
        Ok(Arc::new(Self {
            config,
            key,
            http: Http::new(),
            appraiser,
            state,
            directory: Mutex::default(),
            promises: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
            fruitless: AtomicU64::new(0),
            raising: tokio::sync::Mutex::default(),
        }))
    }

    /// The configuration.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// How often evidence was appraised: once per enclave, never per request.
    pub fn appraisals(&self) -> u64 {
        self.appraiser.appraisals()
    }

    /// What this client has promised to and was charged by an enclave.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn account(&self, enclave: &Appraised) -> Result<Account, Error> {
        self.state.account(&self.config.channel.address(), &enclave.claims.enclave_key)
    }

    /// The spending limit and what was promised under it; `None` if there is no limit.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn spending(&self) -> Result<Option<(Nanoton, Nanoton)>, Error> {
        let Some(limit) = self.config.spending_limit else { return Ok(None) };
        Ok(Some((limit, self.state.promised(&self.config.channel.address())?)))
    }

    /// The verified receipt of an answer, by the identifier in its [`wire::RECEIPT_ID_HEADER`].
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn receipt(&self, id: &str) -> Result<Option<SignedFullReceipt>, Error> {
        let Some(trailer) = self.state.receipt(id)? else { return Ok(None) };
        SignedFullReceipt::from_trailer(&trailer).map(Some).map_err(|error| Error::State(error.to_string()))
    }

    /// Appraises a bundle that came from anywhere.
    ///
    /// # Errors
    /// [`Error::Refused`] with the check that refused it.
    pub async fn appraise(
        &self,
        bundle: &[u8],
        statement: &SignedKeyStatement,
        prices: Prices,
    ) -> Result<Appraised, Error> {
        let gateway = self.config.gateways.first().cloned().unwrap_or_default();
        self.appraiser.bundle(&self.config, &self.http, bundle, statement, prices, &gateway).await
    }

    /// The enclaves that this client accepts, of all that its gateways list; and why the last refused one was.
    ///
    /// # Errors
    /// No gateway answers.
    pub async fn enclaves(&self) -> Result<(Vec<Appraised>, Option<Error>), Error> {
        let fruitless = self.fruitless.load(Ordering::Relaxed);
        if let Some(enclaves) = self.listed() {
            return Ok((enclaves, None));
        }
        let listing = self.listing.lock().await;
        if let Some(enclaves) = self.listed() {
            return Ok((enclaves, None));
        }
        // Where whoever was first found nothing, those who waited all look at once: one after another they would wait for ever longer.
        let _listing = (self.fruitless.load(Ordering::Relaxed) == fruitless).then_some(listing);
        let found = self.list_all().await;
        if !matches!(&found, Ok((enclaves, _)) if !enclaves.is_empty()) {
            self.fruitless.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// The list, where it is not too old and holds any.
    fn listed(&self) -> Option<Vec<Appraised>> {
        let now = self.config.clock.now().0;
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = directory.as_ref().filter(|(at, enclaves)| at + DIRECTORY_SECONDS > now && !enclaves.is_empty());
        fresh.map(|(_, enclaves)| enclaves.clone())
    }

    async fn list_all(&self) -> Result<(Vec<Appraised>, Option<Error>), Error> {
        let now = self.config.clock.now().0;
        let (mut accepted, mut refused, mut answered): (Vec<Appraised>, _, _) = (Vec::new(), None, false);
        for gateway in &self.config.gateways {
            let list = match self.list(gateway).await {
                Ok(list) => list,
                Err(error) => {
                    refused = Some(error);
                    continue;
                }
            };
            answered = true;
            for announcement in list {
                match self.appraiser.announcement(&self.config, &self.http, &announcement, gateway).await {
                    Ok(enclave) if accepted.iter().any(|known| known.evidence_id == enclave.evidence_id) => {}
                    Ok(enclave) => accepted.push(enclave),
                    Err(error) => refused = Some(error),
                }
            }
        }
        if !answered {
            return Err(refused.unwrap_or_else(|| Error::State("no gateway is configured".into())));
        }
        *self.directory.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, accepted.clone()));
        Ok((accepted, refused))
    }

    /// Forgets the list of enclaves, so that the next request fetches it again.
    pub fn refresh(&self) {
        *self.directory.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn list(&self, gateway: &str) -> Result<Vec<Announcement>, Error> {
        let url = format!("{gateway}{}", wire::ENCLAVES_PATH);
        let (status, body) = self.http.get(&url).await?;
        if status != 200 {
            return Err(Error::Relay { who: "gateway", status, reason: refusal(&body) });
        }
        serde_json::from_slice(&body).map_err(|_| Error::Relay {
            who: "gateway",
            status,
            reason: "its list cannot be read".into(),
        })
    }

    /// The promise to pay the next request with: the last one while half a step of it is left, else one that covers a step more than the
    /// enclave has earned so far, or all that channel or spending limit have left where that is less.
    ///
    /// # Errors
    /// The prices are above this client's limits, or the channel cannot pay.
    pub async fn voucher(&self, enclave: &Appraised) -> Result<SignedVoucher, Error> {
        self.check_prices(&enclave.prices)?;
        let account = self.account(enclave)?;
        let step = self.config.voucher_step;
        let left = account.cap.saturating_sub(account.total);
        if left >= Nanoton(step.0 / 2) {
            return self.voucher_with_cap(enclave, account.cap);
        }
        match self.raised_voucher(enclave, account.total.saturating_add(step)).await {
            // What is left may do for this request, and the enclave says so if it does not.
            Err(Error::ChannelEmpty | Error::SpendingLimit { .. }) => {
                match self.raised_voucher(enclave, account.cap.saturating_add(Nanoton(1))).await {
                    Err(Error::ChannelEmpty | Error::SpendingLimit { .. }) if left > Nanoton(0) => {
                        self.voucher_with_cap(enclave, account.cap)
                    }
                    signed => signed,
                }
            }
            signed => signed,
        }
    }

    /// Signs a promise of at least `least`, up to the next multiple of the step: a cap that everybody sees tells steps, and not what answers
    /// cost. Where channel or spending limit end before that, it is all that they have left.
    ///
    /// # Errors
    /// The channel cannot pay `least`, or the spending limit forbids it.
    pub async fn raised_voucher(&self, enclave: &Appraised, least: Nanoton) -> Result<SignedVoucher, Error> {
        // One after another: the spending limit holds over all enclaves together.
        let _raising = self.raising.lock().await;
        let (chain, channel) = (self.config.chain.as_ref(), self.config.channel.address());
        let known = self.account(enclave)?;
        let state = ops::channel_state(chain, &channel).await?;
        let paid = ops::channel_paid(chain, &channel, &enclave.claims.enclave_key).await?;
        let payable = paid.paid.saturating_add(state.available);
        if payable < least {
            return Err(Error::ChannelEmpty);
        }
        let mut cap = whole_steps(least, self.config.voucher_step).min(payable);
        if let Some(limit) = self.config.spending_limit {
            let promised = self.state.promised(&channel)?;
            let allowed = known.cap.saturating_add(limit.saturating_sub(promised));
            if allowed < least {
                return Err(Error::SpendingLimit { limit, promised });
            }
            cap = cap.min(allowed);
        }
        self.voucher_with_cap(enclave, cap.max(known.cap))
    }

    /// Signs a promise of exactly `cap`, and records it.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn voucher_with_cap(&self, enclave: &Appraised, cap: Nanoton) -> Result<SignedVoucher, Error> {
        let key = enclave.claims.enclave_key;
        let channel = self.config.channel.address();
        let now = self.config.clock.now();
        let mut promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = promises.get(&key) {
            let fresh = known.voucher.expiry >= now.plus(self.config.voucher_lifetime / 2);
            if fresh && known.voucher.cap == cap && known.voucher.prices == enclave.prices {
                return Ok(known.clone());
            }
        }
        self.state.raise(&channel, &key, Account { cap, ..Account::default() })?;
        let voucher = Voucher {
            network: self.config.channel.network,
            channel,
            enclave_key: key,
            cap,
            prices: enclave.prices,
            expiry: now.plus(self.config.voucher_lifetime),
        };
        let signed = SignedVoucher::sign(voucher, self.key.seed())?;
        promises.retain(|_, known| known.voucher.expiry >= now);
        promises.insert(key, signed.clone());
        Ok(signed)
    }

    fn check_prices(&self, asked: &Prices) -> Result<(), Error> {
        let most = &self.config.max_prices;
        let kinds = [
            ("prompt", asked.prompt, most.prompt),
            ("cached", asked.cached, most.cached),
            ("completion", asked.completion, most.completion),
            ("reasoning", asked.reasoning, most.reasoning),
        ];
        match kinds.into_iter().find(|(_, asked, limit)| asked > limit) {
            Some((kind, asked, limit)) => Err(Error::Price { kind, asked, limit }),
            None => Ok(()),
        }
    }

    /// Seals a request to one enclave.
    ///
    /// # Errors
    /// Sealing fails.
    pub fn seal(
        &self,
        enclave: &Appraised,
        voucher: SignedVoucher,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<SealedCall, Error> {
        let sealer = RequestSealer::new(&enclave.statement)?;
        let request = InnerRequest {
            method: method.into(),
            path: path.into(),
            headers: auth::headers(&sealer.enc(), &voucher, &self.config.channel, &self.key),
            body: body.into(),
        };
        let (sealed, opener) = sealer.seal(&request)?;
        Ok(SealedCall { enclave: enclave.clone(), voucher, body: sealed, opener, request: request.body })
    }

    /// Sends a sealed request through the enclave's gateway.
    ///
    /// # Errors
    /// The relay refuses, or the answer does not open.
    pub async fn send(self: &Arc<Self>, call: SealedCall) -> Result<Answer, Error> {
        let url = format!("{}{}", call.enclave.gateway, wire::RELAY_PATH);
        let evidence_id = call.enclave.evidence_id.to_string();
        let voucher = call.voucher.to_header();
        let headers = [
            (wire::ENCLAVE_HEADER, evidence_id.as_str()),
            (wire::VOUCHER_HEADER, voucher.as_str()),
            ("content-type", wire::SEALED_REQUEST),
        ];
        let response = self.http.post(&url, &headers, call.body.into()).await?;
        let status = response.status().as_u16();
        if status != 200 {
            let reason = whole(&url, response).await.map_or_else(|_| refusal(&[]), |(_, body)| refusal(&body));
            return Err(match UNSERVED.contains(&status) {
                true => Error::Relay { who: "relay", status, reason },
                false => Error::Broken(format!("the relay answered with status {status}: {reason}")),
            });
        }
        let stream = response.into_body().into_data_stream().map_err(std::io::Error::other);
        let opened = call.opener.open(Box::pin(stream).into_async_read());
        let mut answer = opened.map_err(|error| Error::Broken(error.to_string()))?;
        let head = answer.head().await.map_err(|error| Error::Broken(error.to_string()))?;
        Ok(Answer {
            client: self.clone(),
            enclave: call.enclave,
            voucher: call.voucher,
            request: call.request,
            head,
            answer,
            content: Vec::new(),
        })
    }

    /// Asks any enclave that serves `model`. Another is tried only while nothing has been generated: none could be reached, each said inside
    /// the seal that it refuses, or a relay did so with one of the statuses that mean it.
    ///
    /// # Errors
    /// None is left to ask.
    pub async fn call(
        self: &Arc<Self>,
        method: &str,
        path: &str,
        model: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Answer, Error> {
        let mut why = "its gateways list none".to_owned();
        let mut renewed = false;
        for attempt in 0..=RELISTS {
            // A second list may hold what the first did not; further ones are for an enclave that has just renewed its attestation.
            if attempt > 1 {
                if !renewed {
                    break;
                }
                tokio::time::sleep(RELIST).await;
            }
            if attempt > 0 {
                self.refresh();
            }
            let (enclaves, refused) = self.enclaves().await?;
            renewed = matches!(&refused, Some(Error::Refused { reason, .. }) if reason == RENEWED);
            if let Some(refused) = refused {
                why = refused.to_string();
            }
            let serving = enclaves.iter().filter(|enclave| model.is_none_or(|model| enclave.claims.serves(model)));
            for enclave in serving {
                match self.ask(enclave, method, path, &body).await {
                    Ok(answer) => return Ok(answer),
                    // It may have generated, and may be owed: asking again could pay twice.
                    // And another enclave is paid from the same channel.
                    Err(error @ (Error::Broken(_) | Error::ChannelEmpty | Error::SpendingLimit { .. })) => {
                        return Err(error);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "an enclave did not answer");
                        why = error.to_string();
                    }
                }
            }
        }
        Err(Error::NoEnclave { model: model.unwrap_or("any model").to_owned(), why })
    }
}

impl Client {
    /// Asks one enclave. Where the cap is used up by answers whose end this client never saw, or that another holder of the
    /// channel's key asked for, it is raised past what the enclave names, again if others took that too. A cap is no payment: that takes signed receipts.
    async fn ask(
        self: &Arc<Self>,
        enclave: &Appraised,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Answer, Error> {
        let mut voucher = self.voucher(enclave).await?;
        for _ in 0..RAISES {
            let cap = voucher.voucher.cap;
            let answer = self.send(self.seal(enclave, voucher, method, path, body.to_vec())?).await?;
            if answer.head.status != 402 {
                return Ok(answer);
            }
            let (head, content, _) = answer.whole().await?;
            let error: serde_json::Value = serde_json::from_slice(&content).unwrap_or_default();
            if error["error"]["code"] != "voucher_cap_reached" {
                let reason = error["error"]["message"].as_str().unwrap_or("it gave no reason").to_owned();
                return Err(Error::Relay { who: "enclave", status: head.status, reason });
            }
            let least = error["error"]["least_cap_nanoton"].as_u64().map_or(cap, Nanoton).max(cap);
            let more = least.saturating_add(self.config.voucher_step);
            voucher = match self.raised_voucher(enclave, more).await {
                Err(Error::ChannelEmpty | Error::SpendingLimit { .. }) => self.raised_voucher(enclave, least).await?,
                signed => signed?,
            };
        }
        Err(Error::CapRace)
    }
}

/// An answer as it arrives.
pub struct Answer {
    client: Arc<Client>,
    enclave: Appraised,
    voucher: SignedVoucher,
    request: zeroize::Zeroizing<Vec<u8>>,
    head: AnswerHead,
    answer: OpenAnswer,
    content: Vec<u8>,
}

impl Answer {
    /// Status and headers.
    pub fn head(&self) -> &AnswerHead {
        &self.head
    }

    /// The enclave that answers.
    pub fn enclave(&self) -> &Appraised {
        &self.enclave
    }

    /// The next piece of the body; `None` at its end. What comes is authentic; only [`Self::finish`] says that it is complete.
    ///
    /// # Errors
    /// The answer was altered or broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let piece = self.answer.next().await.map_err(|error| Error::Broken(error.to_string()))?;
        if let Some(piece) = &piece {
            // The receipt's digest is salted, and the salt comes last.
            self.content.extend_from_slice(piece);
        }
        Ok(piece)
    }

    /// Reads the rest and verifies the receipt, which an answer that cost nothing does not have.
    ///
    /// # Errors
    /// The answer is incomplete, or its receipt contradicts it.
    pub async fn finish(mut self) -> Result<Option<SignedFullReceipt>, Error> {
        while self.next().await?.is_some() {}
        let trailer = self.answer.finish().await.map_err(|error| Error::Broken(error.to_string()))?;
        let Some((_, value)) = trailer.iter().find(|(name, _)| name == wire::RECEIPT_TRAILER) else { return Ok(None) };
        let signed = SignedFullReceipt::from_trailer(value).map_err(|error| Error::Receipt(error.to_string()))?;
        let expected = Expected {
            enclave: &self.enclave,
            voucher: &self.voucher,
            request: &self.request,
            response: &self.content,
        };
        let receipt = expected.verify(&signed)?;
        let settlement = &receipt.settlement.receipt;
        let channel = self.client.config.channel.address();
        let earned = Account { cap: Nanoton(0), total: settlement.total, sequence: settlement.sequence };
        let id = self.head.headers.iter().find(|(name, _)| name == wire::RECEIPT_ID_HEADER);
        let kept = id.map(|(_, id)| (id.as_str(), value.as_str()));
        self.client.state.earned(&channel, &self.enclave.claims.enclave_key, earned, receipt.charge, kept)?;
        Ok(Some(signed))
    }

    /// The whole body and the verified receipt.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub async fn whole(mut self) -> Result<(AnswerHead, Vec<u8>, Option<SignedFullReceipt>), Error> {
        let mut body = Vec::new();
        while let Some(piece) = self.next().await? {
            body.extend_from_slice(&piece);
        }
        let head = self.head.clone();
        Ok((head, body, self.finish().await?))
    }
}

/// What a receipt must agree with.
pub struct Expected<'a> {
    /// The enclave that was asked.
    pub enclave: &'a Appraised,
    /// The promise it was asked with.
    pub voucher: &'a SignedVoucher,
    /// The request body.
    pub request: &'a [u8],
    /// The response body as it came.
    pub response: &'a [u8],
}

impl Expected<'_> {
    /// Checks a receipt against what was asked, promised and received.
    ///
    /// # Errors
    /// [`Error::Receipt`] names what contradicts.
    pub fn verify<'r>(&self, signed: &'r SignedFullReceipt) -> Result<&'r FullReceipt, Error> {
        let claims = &self.enclave.claims;
        let receipt = signed.verify(&claims.enclave_key).map_err(|error| Error::Receipt(error.to_string()))?;
        let settlement = &receipt.settlement.receipt;
        let promise = &self.voucher.voucher;
        let digest = |content: &[u8]| -> Digest { FullReceipt::digest(&receipt.salt, content) };
        let checks = [
            (receipt.request_digest == digest(self.request), "it is for another request"),
            (receipt.response_digest == digest(self.response), "it is for another answer"),
            (receipt.model_root == claims.model_root, "it names another model than the evidence"),
            (receipt.evidence_id == self.enclave.evidence_id, "it names other evidence"),
            (receipt.prices == promise.prices, "its prices are not the voucher's"),
            (settlement.network == promise.network, "it is for another network"),
            (settlement.channel == promise.channel, "it charges another channel"),
            (settlement.provider == claims.provider.into(), "it pays another provider"),
            (settlement.total <= promise.cap, "it charges more than was promised"),
            (settlement.total >= receipt.charge, "its total is less than its charge"),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(Error::Receipt(why.into())),
            None => Ok(receipt),
        }
    }
}

/// The least multiple of `step` that is not below `amount`; the amount itself where there is none.
fn whole_steps(amount: Nanoton, step: Nanoton) -> Nanoton {
    Nanoton(amount.0.checked_next_multiple_of(step.0).unwrap_or(amount.0))
}

fn refusal(body: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => format!("{}: {}", refusal.error, refusal.what_to_do),
        Err(_) => "it gave no reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_whole_steps() {
        for (amount, step, cap) in [(0, 10, 0), (1, 10, 10), (10, 10, 10), (11, 10, 20), (7, 1, 7)] {
            assert_eq!(whole_steps(Nanoton(amount), Nanoton(step)), Nanoton(cap), "{amount} in steps of {step}");
        }
        for (amount, step) in [(u64::MAX, 10), (5, 0)] {
            assert_eq!(whole_steps(Nanoton(amount), Nanoton(step)), Nanoton(amount), "no multiple to be had");
        }
    }
}
