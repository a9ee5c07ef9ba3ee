//! What an announcement must show before it is listed.
//!
//! Whoever could announce another's enclave would get what its clients send. That is ciphertext, and no answer would come: nobody's prompt would be
//! read, and everybody's request would be lost. So, in this order, cheap before dear:
//!
//! 1. It is signed, over its very bytes, at a time near this gateway's clock ([`cocoon_protocol::announce`]).
//! 2. Its bundle is the evidence that it names, and that evidence names the provider that it names.
//! 3. The signature's key is that of the wallet which owns the Provider contract, as the chain says.
//! 4. The Registry has taken that very evidence, and its attestation has not ended: a place in the directory costs an attestation.
//!
//! Whether the evidence is any good is not asked: clients appraise it for themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Bundle, Claims, EnclaveKey, EvidenceId, UnixTime};
use cocoon_protocol::announce::{Announced, HEADER};
use cocoon_protocol::wire::Announcement;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::provider::{EnclaveRecord, KeyState};
use cocoon_settlement::wallet::{Version, Wallet};
use cocoon_settlement::{Address, ops};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::Error;

/// Oldest signature that is taken, in seconds. Hosts announce every ten.
pub const MAX_AGE: u64 = 60;
/// How far a host's clock may be ahead of this one, in seconds.
pub const MAX_AHEAD: u64 = 30;
/// How long the chain's word on an attestation counts.
const TAKEN_FOR: Duration = Duration::from_secs(600);
/// Questions to the chain that are open at once about attestations of providers whose owner has signed. Whoever is known already needs none.
const QUESTIONS: usize = 8;
/// The same about who owns a provider: anybody can ask for that, with any name, so it has places of its own.
const STRANGERS: usize = 2;
/// How long an announcement waits for such a place.
const TURN: Duration = Duration::from_secs(5);
/// Providers and attestations that are remembered.
const REMEMBERED: usize = 16_384;

/// An announcement that may be listed.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub id: EvidenceId,
    /// When it was signed.
    pub time: UnixTime,
    pub announcement: Announcement,
    /// How many bytes it came in.
    pub size: usize,
}

/// What the chain said of an attestation.
#[derive(Clone, Copy)]
struct Taken {
    until: UnixTime,
    asked: Instant,
}

pub(crate) struct Admission {
    chain: Arc<dyn Chain>,
    registry: Address,
    /// Who owns a provider: that never changes.
    owners: Mutex<HashMap<Address, Address>>,
    taken: Mutex<HashMap<EvidenceId, Taken>>,
    questions: Semaphore,
    strangers: Semaphore,
}

impl Admission {
    pub fn new(chain: Arc<dyn Chain>, registry: Address) -> Self {
        Self {
            chain,
            registry,
            owners: Mutex::default(),
            taken: Mutex::default(),
            questions: Semaphore::new(QUESTIONS),
            strangers: Semaphore::new(STRANGERS),
        }
    }

    /// Everything that is asked of an announcement but whether a newer one is known.
    pub async fn admit(&self, body: &[u8], header: Option<&str>, now: UnixTime) -> Result<Admitted, Error> {
        let announced = self.signed(body, header, now)?;
        let announcement: Announcement =
            serde_json::from_slice(body).map_err(|error| Error::Announcement(error.to_string()))?;
        let (id, claims) = named(&announcement)?;
        self.owned(&announcement.provider, &announced.key).await?;
        self.registered(&announcement.provider, &id, &claims.enclave_key, now).await?;
        Ok(Admitted { id, time: announced.time, announcement, size: body.len() })
    }

    fn signed(&self, body: &[u8], header: Option<&str>, now: UnixTime) -> Result<Announced, Error> {
        let header = header.ok_or_else(|| Error::Unsigned(format!("it has no header {HEADER}")))?;
        let announced = Announced::from_header(header).map_err(|error| Error::Unsigned(error.to_string()))?;
        let (signed, here) = (announced.time.0, now.0);
        if here.saturating_sub(signed) > MAX_AGE || signed.saturating_sub(here) > MAX_AHEAD {
            return Err(Error::Unsigned(format!(
                "it was signed at {signed}, and this gateway's clock says {here}: between {MAX_AGE} s ago and {MAX_AHEAD} s from now is taken"
            )));
        }
        announced.verify(body, self.chain.network()).map_err(|error| {
            Error::Unsigned(format!("{error}, for these bytes and network {}", self.chain.network()))
        })?;
        Ok(announced)
    }

    /// The chain's word that this key's wallet owns the provider.
    async fn owned(&self, provider: &Address, key: &[u8; 32]) -> Result<(), Error> {
        let known = lock(&self.owners).get(provider).copied();
        let owner = match known {
            Some(owner) => owner,
            None => {
                let _place = place(&self.strangers).await?;
                let terms = ops::provider_terms(self.chain.as_ref(), provider).await.map_err(chain)?;
                if terms.registry != self.registry {
                    return Err(Error::NotAllowed(format!(
                        "the provider {provider} belongs to the Registry {}, and this gateway lists those of {}",
                        terms.registry, self.registry
                    )));
                }
                remember(&self.owners, *provider, terms.owner);
                terms.owner
            }
        };
        let own =
            |version| Wallet::address_of(key, self.chain.network(), version).is_ok_and(|address| address == owner);
        if own(Version::V5R1) || own(Version::V4R2) {
            return Ok(());
        }
        Err(Error::NotAllowed(format!(
            "it is signed by {}, which is not the key of the wallet {owner} that owns the provider {provider}",
            hex::encode(key)
        )))
    }

    /// The chain's word that the provider holds this evidence, now.
    async fn registered(
        &self,
        provider: &Address,
        id: &EvidenceId,
        key: &EnclaveKey,
        now: UnixTime,
    ) -> Result<(), Error> {
        let known = lock(&self.taken).get(id).copied().filter(|taken| now <= taken.until);
        if known.is_some_and(|taken| taken.asked.elapsed() < TAKEN_FOR) {
            return Ok(());
        }
        let record = match self.record(provider, key).await {
            // Who was taken before is not dropped because the chain is silent, or because others ask too much.
            Err(Error::Busy | Error::Chain) if known.is_some() => return Ok(()),
            record => record?,
        };
        let why = match record {
            Some(record) if record.evidence_id == id.0 && record.state == KeyState::Active && now <= record.until => {
                remember(&self.taken, *id, Taken { until: record.until, asked: Instant::now() });
                return Ok(());
            }
            None => "the provider holds no attestation of this enclave".to_owned(),
            Some(record) if record.evidence_id != id.0 => {
                format!("the provider holds other evidence of this enclave, {}", record.evidence_id)
            }
            Some(record) if record.state == KeyState::Active => format!("its attestation ended at {}", record.until),
            Some(record) => format!("the enclave's key is {}", format!("{:?}", record.state).to_lowercase()),
        };
        lock(&self.taken).remove(id);
        Err(Error::NotAllowed(why))
    }

    async fn record(&self, provider: &Address, key: &EnclaveKey) -> Result<Option<EnclaveRecord>, Error> {
        let _place = place(&self.questions).await?;
        ops::enclave_record(self.chain.as_ref(), provider, key).await.map_err(chain)
    }
}

/// A place among those who may ask the chain, in the order of coming.
async fn place(among: &Semaphore) -> Result<SemaphorePermit<'_>, Error> {
    match tokio::time::timeout(TURN, among.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        _ => Err(Error::Busy),
    }
}

/// What the evidence in an announcement says, which must be what the announcement says.
fn named(announcement: &Announcement) -> Result<(EvidenceId, Claims), Error> {
    let unusable = |why: &str| Error::Announcement(why.into());
    let text = &announcement.host_url;
    let url: http::Uri = text.parse().map_err(|_| unusable("host_url is no URL"))?;
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    // Nothing but an address: with a path of its own, it would choose what is asked there.
    let is_address = !authority.is_empty() && !authority.contains('@');
    if !is_address || *text.strip_suffix('/').unwrap_or(text) != format!("http://{authority}") {
        return Err(unusable("host_url must be http://host:port, and nothing else"));
    }
    let id: EvidenceId = announcement.evidence_id.parse().map_err(|_| unusable("evidence_id is no digest"))?;
    let bundle = STANDARD.decode(&announcement.bundle).map_err(|_| unusable("bundle is no base64"))?;
    let bundle = Bundle::from_cbor(&bundle).map_err(|error| Error::Announcement(format!("bundle: {error}")))?;
    if bundle.evidence_id() != id {
        return Err(Error::NotAllowed(format!(
            "its bundle is the evidence {}, and it names {id}",
            bundle.evidence_id()
        )));
    }
    let claims = bundle.claims().map_err(|error| Error::Announcement(format!("claims: {error}")))?;
    if claims.provider != announcement.provider.into() {
        return Err(Error::NotAllowed("its evidence names another provider than it does".into()));
    }
    Ok((id, claims))
}

/// A provider that is not there is the announcement's fault; a chain that does not answer is not.
fn chain(error: cocoon_settlement::Error) -> Error {
    match error {
        cocoon_settlement::Error::NotDeployed(_) | cocoon_settlement::Error::Unexpected(_) => {
            Error::NotAllowed(format!("its provider: {error}"))
        }
        error => {
            tracing::warn!(%error, "the chain cannot be asked about an announcement");
            Error::Chain
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a fact that cost a question. A memory that is full begins anew: what is lost is asked again.
fn remember<K: Eq + std::hash::Hash, V>(memory: &Mutex<HashMap<K, V>>, key: K, value: V) {
    let mut memory = lock(memory);
    if memory.len() >= REMEMBERED {
        memory.clear();
    }
    memory.insert(key, value);
}
