//! Which enclaves may be asked. Evidence is appraised once, and never per request; what chain and logs say of it is asked every half minute.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Claims, Digest, EvidenceId, UnixTime};
use cocoon_protocol::statement::{KeyStatement, SignedKeyStatement};
use cocoon_protocol::wire::Announcement;
use cocoon_settlement::contracts::provider::KeyState;
use cocoon_settlement::{Address, Prices, ops};
use cocoon_verifier::{Appraisal, CheckOutcome, Outcome, appraise_bundle};

use crate::Error;
use crate::config::ClientConfig;
use crate::logs::Logs;
use crate::net::Http;

/// Seconds after which chain and logs are asked again about an accepted enclave: registration, platform or image can be withdrawn meanwhile, and
/// nodes look again every quarter of a minute, so that clients know within a minute. The evidence itself stays what it is.
const STANDING_SECONDS: u64 = 30;
/// Seconds for which evidence that was refused for what it says is not looked at again: it will not say anything else.
const REFUSED_SECONDS: u64 = 60;
/// The same for evidence that chain or logs did not stand behind: they may do so soon.
const UNSUPPORTED_SECONDS: u64 = 5;
/// Why evidence is refused whose enclave has renewed its attestation: what is registered now is listed in a moment.
pub(crate) const RENEWED: &str = "its key is registered with other evidence";
/// Pieces of evidence remembered at once.
const CACHE_ENTRIES: usize = 10_000;

/// An enclave that this client has appraised and accepted.
#[derive(Clone, Debug)]
pub struct Appraised {
    /// Its evidence.
    pub evidence_id: EvidenceId,
    /// What the evidence claims, now known to be true.
    pub claims: Claims,
    /// The key to seal to.
    pub statement: KeyStatement,
    /// What its host asks.
    pub prices: Prices,
    /// Whether its root was named by the policy: a development platform, NOT CONFIDENTIAL.
    pub development: bool,
    /// The gateway that knows it.
    pub gateway: String,
}

#[derive(Clone)]
struct Entry {
    evidence_id: EvidenceId,
    claims: Claims,
    development: bool,
    /// Until when the appraisal holds.
    good_until: UnixTime,
    /// Until when chain and logs need not be asked again; `None` where they have not been.
    standing_until: Option<UnixTime>,
}

/// What is remembered of evidence.
#[derive(Clone)]
enum Known {
    Accepted(Box<Entry>),
    Refused { check: String, reason: String, until: UnixTime },
}

impl Known {
    fn says_nothing_at(&self, now: UnixTime) -> bool {
        match self {
            Self::Accepted(entry) => entry.good_until < now,
            Self::Refused { until, .. } => *until < now,
        }
    }
}

/// Appraises announcements, and remembers what came of it.
pub struct Appraiser {
    /// By the SHA-256 of the very bytes that were appraised.
    known: Mutex<HashMap<Digest, Known>>,
    /// Held while evidence is appraised: whoever has the same waits for what comes of it.
    appraising: Mutex<()>,
    appraisals: AtomicU64,
    logs: Logs,
}

impl Appraiser {
    /// One that remembers in a data folder what logs showed it.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub(crate) fn open(data: &std::path::Path) -> Result<Self, Error> {
        Ok(Self {
            known: Mutex::default(),
            appraising: Mutex::default(),
            appraisals: AtomicU64::new(0),
            logs: Logs::open(data)?,
        })
    }

    /// How often evidence was really appraised.
    pub fn appraisals(&self) -> u64 {
        self.appraisals.load(Ordering::Relaxed)
    }

    /// Appraises what a gateway listed. Nothing in an announcement is believed.
    pub(crate) async fn announcement(
        &self,
        config: &ClientConfig,
        http: &Http,
        announcement: &Announcement,
        gateway: &str,
    ) -> Result<Appraised, Error> {
        let decode = |what: &str, text: &str| {
            STANDARD.decode(text).map_err(|_| Error::refused("announcement", format!("{what} is not base64")))
        };
        let bundle = decode("the bundle", &announcement.bundle)?;
        let statement = SignedKeyStatement::from_bytes(&decode("the key statement", &announcement.key_statement)?)
            .map_err(|error| Error::refused("key-statement", error))?;
        self.bundle(config, http, &bundle, &statement, announcement.prices, gateway).await
    }

    /// Appraises a bundle and the key statement that came with it.
    pub(crate) async fn bundle(
        &self,
        config: &ClientConfig,
        http: &Http,
        bundle: &[u8],
        statement: &SignedKeyStatement,
        prices: Prices,
        gateway: &str,
    ) -> Result<Appraised, Error> {
        let now = config.clock.now();
        let named = statement.statement.evidence_id;
        let bytes = Digest::of(&[bundle]);
        let mut entry = self.appraised(config, bytes, bundle, now)?;
        if entry.standing_until.is_none_or(|until| until < now) {
            let behind = self.standing(config, http, &entry, now).await;
            self.remember_refusal(bytes, behind, UNSUPPORTED_SECONDS, now)?;
            entry.standing_until = Some(now.plus(STANDING_SECONDS));
            self.put(bytes, Known::Accepted(Box::new(entry.clone())), now);
        }
        if entry.evidence_id != named {
            return Err(Error::refused("key-statement", "the key statement is for other evidence than came with it"));
        }
        let Entry { claims, development, .. } = entry;
        let verified = statement.verify(&claims.enclave_key, &named, now).map_err(|error| match error {
            // A good enclave's is never long out of date: it is as likely this machine that is.
            late @ cocoon_protocol::Error::StatementTime { .. } => {
                Error::refused("key-statement", format!("{late}, and see whether this machine's clock is right"))
            }
            error => Error::refused("key-statement", error),
        })?;
        let verified = verified.clone();
        Ok(Appraised {
            evidence_id: named,
            claims,
            statement: verified,
            prices,
            development,
            gateway: gateway.to_owned(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn put(&self, bytes: Digest, what: Known, now: UnixTime) {
        let mut known = self.lock();
        if known.len() >= CACHE_ENTRIES {
            known.retain(|_, known| !known.says_nothing_at(now));
        }
        if known.len() < CACHE_ENTRIES || known.contains_key(&bytes) {
            known.insert(bytes, what);
        }
    }

    /// Remembers a refusal for some seconds. What is no refusal, like a chain that does not answer, is asked again at once.
    fn remember_refusal<T>(
        &self,
        bytes: Digest,
        result: Result<T, Error>,
        seconds: u64,
        now: UnixTime,
    ) -> Result<T, Error> {
        if let Err(Error::Refused { check, reason }) = &result {
            let (check, reason, until) = (check.clone(), reason.clone(), now.plus(seconds));
            self.put(bytes, Known::Refused { check, reason, until }, now);
        }
        result
    }

    /// What is known of evidence; appraised now if nothing is, and remembered before anybody else is asked about it.
    fn appraised(&self, config: &ClientConfig, bytes: Digest, bundle: &[u8], now: UnixTime) -> Result<Entry, Error> {
        let known = || self.lock().get(&bytes).filter(|known| !known.says_nothing_at(now)).cloned();
        let mut found = known();
        let mut appraising = None;
        if found.is_none() {
            appraising = Some(self.appraising.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            found = known();
        }
        let _one = appraising;
        match found {
            Some(Known::Refused { check, reason, .. }) => Err(Error::Refused { check, reason }),
            Some(Known::Accepted(entry)) => Ok(*entry),
            None => {
                let appraised = self.appraise(config, bundle, now);
                let entry = self.remember_refusal(bytes, appraised, REFUSED_SECONDS, now)?;
                self.put(bytes, Known::Accepted(Box::new(entry.clone())), now);
                Ok(entry)
            }
        }
    }

    /// Whether chain and logs stand behind an enclave now.
    async fn standing(&self, config: &ClientConfig, http: &Http, entry: &Entry, now: UnixTime) -> Result<(), Error> {
        beacon(config, &entry.claims, now).await?;
        registered(config, &entry.claims, &entry.evidence_id, now).await?;
        self.logs.prove(config, http, &entry.evidence_id, now).await
    }

    /// What evidence says by itself.
    fn appraise(&self, config: &ClientConfig, bundle: &[u8], now: UnixTime) -> Result<Entry, Error> {
        self.appraisals.fetch_add(1, Ordering::Relaxed);
        let result = appraise_bundle(bundle, &config.policy, config.references.as_ref(), now);
        if result.appraisal.outcome != Outcome::Accepted {
            return Err(refusal(&result.appraisal));
        }
        let (Some(claims), Some(evidence_id)) = (result.claims, result.evidence_id) else {
            return Err(Error::refused("evidence", "accepted evidence without claims"));
        };
        if Address::from(claims.provider) != config.channel.provider {
            return Err(Error::refused("provider", "it works for another provider than this client's channel pays"));
        }
        let lapses = result.appraisal.not_after.unwrap_or(UnixTime(u64::MAX));
        // A policy that bounds the age of what vendors say may refuse tomorrow what it accepts today.
        let ages = config.policy.tdx.max_collateral_age.is_some();
        Ok(Entry {
            evidence_id,
            claims,
            development: result.appraisal.development,
            good_until: if ages { lapses.min(now.plus(STANDING_SECONDS)) } else { lapses },
            standing_until: None,
        })
    }
}

/// The first check that refused, with all that they found: a swapped model shows in the command line too, and is better known by its name.
fn refusal(appraisal: &Appraisal) -> Error {
    let mut failed = appraisal.checks.iter().filter(|check| check.outcome.is_failure());
    let check = failed.next().map_or_else(|| "evidence".to_owned(), |check| check.id.to_string());
    let others = failed.filter(|check| check.outcome == CheckOutcome::Refused);
    let others: String = others.map(|check| format!("; {}: {}", check.id, check.detail)).collect();
    Error::refused(&check, format!("{}{others}", appraisal.reason))
}

/// The evidence quotes a block of the chain, so it cannot be older than that block.
async fn beacon(config: &ClientConfig, claims: &Claims, now: UnixTime) -> Result<(), Error> {
    let Some(max_age) = config.max_beacon_age else { return Ok(()) };
    let beacon = &claims.beacon;
    match config.chain.block(beacon.seqno).await? {
        Some(block) if block.root_hash == beacon.root_hash && block.time == beacon.time => {}
        _ => return Err(Error::refused("beacon", "the block its evidence quotes is not on the chain")),
    }
    if beacon.time.plus(max_age) < now {
        return Err(Error::refused(
            "beacon",
            format!("its evidence is older than {max_age} s: the host must attest anew"),
        ));
    }
    Ok(())
}

async fn registered(config: &ClientConfig, claims: &Claims, evidence: &EvidenceId, now: UnixTime) -> Result<(), Error> {
    if !config.require_registered {
        return Ok(());
    }
    let terms = ops::provider_terms(config.chain.as_ref(), &config.channel.provider).await?;
    if terms.registry != config.registry {
        return Err(Error::refused("registration", "its provider answers to another Registry than this client trusts"));
    }
    let record = ops::enclave_record(config.chain.as_ref(), &config.channel.provider, &claims.enclave_key).await?;
    let Some(record) = record else {
        return Err(Error::refused("registration", "its key is not registered with the provider on TON"));
    };
    if record.state != KeyState::Active {
        return Err(Error::refused("registration", "the registration of its key was ended on TON"));
    }
    if record.until < now {
        return Err(Error::refused("registration", "the registration of its key has ended: the host must attest anew"));
    }
    if record.evidence_id != evidence.0 {
        return Err(Error::refused("registration", RENEWED));
    }
    Ok(())
}
