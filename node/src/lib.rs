//! A verifier node: it appraises evidence bundles under its own policy, appends each to its transparency log, and signs
//! verdicts that k nodes together bring before the Registry. Its verdict is for the contract: a client appraises for itself.
//!
//! k nodes must sign the very same cell, so every field of a verdict follows from the evidence and the chain: the attestation
//! is counted from the beacon's time, not from this node's clock.
//!
//! What was accepted is appraised again every few seconds, under the policy, the Registry and the endorsements of that moment: when it would
//! not be accepted any more, that is logged too, and whoever asks for a proof is told.

mod anchor;
mod appraise;
pub mod endorsements;
mod error;
mod glance;
mod http;
mod limits;
mod own;
mod peers;
mod publish;
mod review;
mod spent;
mod store;
mod turns;

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Bundle, Digest, EvidenceId, ReferenceValues, UnixTime};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::wire::LogInclusion;
use cocoon_settlement::Address;
use cocoon_settlement::chain::{BlockRef, Chain};
use cocoon_settlement::contracts::RegistryParams;
use cocoon_transparency::{Leaf, Log, Source as _, Witness};
use cocoon_verifier::{Outcome, Policy, Verifier};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

pub use crate::anchor::Anchoring;
pub use crate::error::{Error, Refused};
use crate::glance::Glance;
use crate::limits::Buckets;
pub use crate::limits::Limits;
use crate::own::Own;
pub use crate::peers::Peer;
use crate::peers::Peers;
use crate::publish::Publisher;
use crate::spent::Spent;
use crate::store::{Record, Store};
use crate::turns::Turns;

/// Oldest beacon that is taken, in seconds before the newest block.
pub const MAX_BEACON_AGE: u64 = 600;
/// How long after its beacon a verdict can be brought before the Registry, in seconds.
pub const VERDICT_VALIDITY: u64 = 900;
/// How often what was accepted is appraised again.
pub const REVIEW: Duration = Duration::from_secs(15);
/// How old the node's own endorsements get unless configured otherwise, before vendors are asked again.
pub const REFRESH: Duration = Duration::from_secs(3_600);
/// What leaves name as the verifier: whoever repeats an appraisal with another version may explain a difference by it.
pub const VERIFIER: &str = concat!("cocoon-verifier ", env!("CARGO_PKG_VERSION"));

/// What a node is started with.
pub struct NodeConfig {
    /// Folder of its log and records.
    pub dir: PathBuf,
    /// Its name, also the origin of its log: no spaces, no plus signs.
    pub name: String,
    /// Its place in the Registry's list of verifiers.
    pub index: u8,
    /// Seed of the Ed25519 key that signs verdicts.
    pub verdict_seed: [u8; 32],
    /// Seed of the Ed25519 key that signs the log's checkpoints; the witness's key is derived from it.
    pub log_seed: [u8; 32],
    /// What it accepts: the policy document, TOML. It stands in the log.
    pub policy: String,
    /// The image and models it compares with; verdicts name this image. It stands in the log.
    pub references: ReferenceValues,
    /// The Registry its verdicts are for.
    pub registry: Address,
    /// How long an attestation lasts, in seconds from its beacon; the Registry's maximum limits it.
    pub lifetime: u64,
    /// The chain, which is also the node's clock.
    pub chain: Arc<dyn Chain>,
    /// Nodes that witness its log.
    pub peers: Vec<Peer>,
    /// Verifier keys of the logs that it witnesses.
    pub watched: Vec<String>,
    /// Where it gets endorsements of its own; without, it appraises again with those that a bundle brought.
    pub endorser: Option<Arc<endorsements::Endorser>>,
    /// How old those may get before vendors are asked again, although they have not lapsed: so long a revocation may go unnoticed.
    pub refresh: Duration,
    /// Whether and how it anchors its checkpoints in the Registry.
    pub anchoring: Option<Anchoring>,
    /// What it does for whom.
    pub limits: Limits,
}

/// Policy and reference values, as read and as they stand in the log.
pub(crate) struct Rules {
    policy: Policy,
    references: ReferenceValues,
    policy_part: (Digest, Vec<u8>),
    references_part: (Digest, Vec<u8>),
}

impl Rules {
    fn read(policy: &str, references: ReferenceValues) -> Result<Self, Error> {
        let read = Policy::from_toml(policy).map_err(|error| Error::Document(format!("policy: {error}")))?;
        let part = |text: &str| (Digest::of(&[text.as_bytes()]), text.as_bytes().to_vec());
        let references_part = part(&references.to_toml());
        Ok(Self { policy: read, policy_part: part(policy), references_part, references })
    }
}

/// The seeds of a node's keys, all from one secret.
pub struct Seeds {
    /// Of the key that signs verdicts.
    pub verdict: Zeroizing<[u8; 32]>,
    /// Of the key that signs checkpoints, and of the witness's.
    pub log: Zeroizing<[u8; 32]>,
}

impl Seeds {
    /// HKDF-SHA256 with salt `cocoon-node-v1` and the keys' names, `verdict` and `log`.
    ///
    /// # Errors
    /// The crypto library failed.
    pub fn of(secret: &[u8; 32]) -> Result<Self, Error> {
        let seed = |name: &str| cocoon_transparency::derive(secret, "cocoon-node-v1", name);
        Ok(Self { verdict: seed("verdict")?, log: seed("log")? })
    }
}

/// A running verifier node.
pub struct Node {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

pub(crate) struct Inner {
    name: String,
    index: u8,
    seed: Zeroizing<[u8; 32]>,
    public: [u8; 32],
    rules: RwLock<Arc<Rules>>,
    registry: Address,
    lifetime: u64,
    chain: Arc<dyn Chain>,
    log: Arc<Log>,
    store: Arc<Store>,
    publisher: Publisher,
    witness: Witness,
    verifier: Arc<Verifier>,
    own: Option<Own>,
    limits: Limits,
    /// Strangers' bundles that are being verified, or wait for a processor.
    queue: Semaphore,
    processors: Semaphore,
    /// The newest block, and the Registry's parameters, as of a moment ago.
    head: Glance<BlockRef>,
    params: Glance<RegistryParams>,
    buckets: Mutex<Buckets>,
    spent: Spent,
    /// One appraisal of a piece of evidence at a time, so that none is logged twice.
    turns: Turns<EvidenceId>,
    /// One review at a time: a second would find the same.
    reviewing: tokio::sync::Mutex<()>,
}

impl Node {
    /// Opens the node's log and records, or starts them, and its tasks: within a Tokio runtime. They end with the node.
    ///
    /// # Errors
    /// A name that cannot name a log, a policy or a key that is none, a folder of another node, or a failing disk.
    pub fn open(config: NodeConfig) -> Result<Self, Error> {
        let rules = Rules::read(&config.policy, config.references)?;
        let key = SigningKey::from_seed(&config.verdict_seed).map_err(|_| cocoon_transparency::Error::Key)?;
        let log = Arc::new(Log::open(&config.dir, &config.name, config.log_seed)?);
        let store = Arc::new(Store::open(&config.dir)?);
        index(&log, &store, config.lifetime)?;
        let witness = Witness::open(
            &config.dir.join("witness.redb"),
            &witness_name(&config.name),
            &*Witness::seed(&config.log_seed)?,
            &config.watched,
        )?;
        let (publisher, publishing) = Publisher::start(log.clone(), store.clone(), Peers::new(config.peers)?);
        let inner = Arc::new(Inner {
            name: config.name,
            index: config.index,
            seed: Zeroizing::new(config.verdict_seed),
            public: key.public(),
            rules: RwLock::new(Arc::new(rules)),
            registry: config.registry,
            lifetime: config.lifetime,
            chain: config.chain,
            log,
            store,
            publisher,
            witness,
            verifier: Arc::new(Verifier::default()),
            own: config.endorser.clone().map(Own::new),
            queue: Semaphore::new(config.limits.queue),
            processors: Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get)),
            head: Glance::new(config.limits.chain_age),
            params: Glance::new(config.limits.chain_age),
            limits: config.limits,
            buckets: Mutex::default(),
            spent: Spent::default(),
            turns: Turns::default(),
            reviewing: tokio::sync::Mutex::default(),
        });
        let reviewed = Arc::downgrade(&inner);
        let review = tokio::spawn(async move {
            loop {
                tokio::time::sleep(REVIEW).await;
                let Some(inner) = reviewed.upgrade() else { return };
                if let Err(error) = inner.review().await {
                    tracing::error!(%error, "what was accepted could not be appraised again");
                }
            }
        });
        let mut tasks = vec![publishing, review];
        if config.endorser.is_some_and(|endorser| endorser.is_online()) {
            tasks.push(tokio::spawn(review::keep_fresh(Arc::downgrade(&inner), config.refresh)));
        }
        if let Some(anchoring) = config.anchoring {
            tasks.push(tokio::spawn(anchor::run(Arc::downgrade(&inner), anchoring)));
        }
        Ok(Self { inner, tasks })
    }

    /// Ends its tasks and closes its log: what was acknowledged is on disk.
    pub async fn stop(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            let _ended = task.await;
        }
    }

    /// The public key that checks its verdicts.
    pub fn verdict_key(&self) -> [u8; 32] {
        self.inner.public
    }

    /// The C2SP verifier key of its log.
    pub fn log_key(&self) -> &str {
        self.inner.log.vkey()
    }

    /// The C2SP verifier key of its cosignatures.
    pub fn witness_key(&self) -> &str {
        self.inner.witness.vkey()
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// Appraises under another policy and other reference values from now on, and looks again at what was accepted. If that cannot be done now, it
    /// is done within [`REVIEW`]: the rules are in force all the same.
    ///
    /// # Errors
    /// The policy cannot be read: then nothing changes.
    pub async fn set_rules(&self, policy: &str, references: ReferenceValues) -> Result<(), Error> {
        let rules = Arc::new(Rules::read(policy, references)?);
        *self.inner.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        if let Err(error) = self.inner.review().await {
            tracing::error!(%error, "the new rules are in force; what was accepted before is looked at again a little later");
        }
        Ok(())
    }

    /// Appraises again what was accepted and has not ended, as happens by itself every [`REVIEW`]. Says how much is not accepted any more.
    ///
    /// # Errors
    /// The chain, the log or the disk failed.
    pub async fn review(&self) -> Result<usize, Error> {
        self.inner.review().await
    }

    /// Proof that this node logged evidence, against its newest checkpoint, and that the log continues what it was at `since` leaves.
    ///
    /// # Errors
    /// [`Error::NotLogged`].
    pub async fn inclusion(&self, id: &EvidenceId, since: u64) -> Result<LogInclusion, Error> {
        let record = self.inner.store.get(id)?.ok_or(Error::NotLogged)?;
        self.inner.prove(record.leaf_index, since).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Name of the key with which the node of a name cosigns.
fn witness_name(node: &str) -> String {
    format!("{node}/witness")
}

/// The verifier keys of the node with a name and a log seed: of its checkpoints, and of its cosignatures.
///
/// # Errors
/// The name cannot name a key.
pub fn public_keys(name: &str, log_seed: &[u8; 32]) -> Result<(String, String), Error> {
    let witness = cocoon_transparency::witness_key(&witness_name(name), &*Witness::seed(log_seed)?)?;
    Ok((cocoon_transparency::log_key(name, log_seed)?, witness))
}

/// Reads what a crash kept from the store: the log is what counts. What was accepted is looked at again until its attestation ends.
fn index(log: &Log, store: &Store, lifetime: u64) -> Result<(), Error> {
    let (indexed, size) = (store.indexed()?, log.size());
    for leaf_index in indexed..size {
        let leaf = Leaf::from_cbor(&log.entry(leaf_index)?)?;
        let verdict = store.get(&leaf.evidence_id)?.and_then(|record| record.verdict);
        let until = match leaf.outcome {
            Outcome::Accepted => {
                let claims = leaf.open_bundle(|digest: &Digest| log.files().part(digest).ok())?.claims();
                let claims = claims.map_err(|error| Error::Interrupted(error.to_string()))?;
                Some(claims.beacon.time.plus(lifetime))
            }
            _ => None,
        };
        let reason = leaf.refusal.unwrap_or_default();
        let record = Record { leaf_index, outcome: leaf.outcome, reason, verdict, until };
        store.put(&[(leaf.evidence_id, record)], Some(leaf_index + 1))?;
    }
    Ok(())
}

impl Inner {
    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The chain's time as of a moment ago.
    async fn time(&self) -> Result<UnixTime, Error> {
        Ok(self.head.get(self.chain.head()).await?.time)
    }

    async fn prove(&self, index: u64, since: u64) -> Result<LogInclusion, Error> {
        self.publisher.published(index).await?;
        let log = self.log.clone();
        publish::blocking(move || {
            let not_yet = || cocoon_transparency::Error::NoLeaf { index, size: 0 };
            let head = log.published().ok_or_else(not_yet)?;
            let size = head.tree.size;
            let proof = log.inclusion(index, size)?;
            Ok(LogInclusion {
                leaf_index: index,
                leaf: STANDARD.encode(log.entry(index)?),
                tree_size: size,
                hashes: proof.hashes.iter().map(Digest::to_string).collect(),
                checkpoint: head.checkpoint,
                // Who knows a larger tree than is published learns that from the checkpoint.
                consistency: log.consistency(since.min(size), size)?.iter().map(Digest::to_string).collect(),
            })
        })
        .await
    }

    /// Why there is no verdict, signed.
    fn refused(&self, what: &Subject, outcome: Outcome, reason: String, inclusion: Option<LogInclusion>) -> Error {
        let id = what.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let lines = [&outcome.to_string(), &id, &what.received.to_string(), &what.at.0.to_string(), &reason];
        match self.log.state(&lines.map(String::as_str)) {
            Ok(statement) => Error::Refused(Box::new(Refused { outcome, reason, statement, inclusion })),
            Err(error) => error.into(),
        }
    }
}

/// What a refusal is about.
pub(crate) struct Subject {
    /// SHA-256 of the bytes that came, whatever the node stapled to them since: whoever sent them can show that they were meant.
    received: Digest,
    id: Option<EvidenceId>,
    at: UnixTime,
}

/// What was appraised, and what came of it.
pub(crate) struct Found {
    /// With the endorsements that it was appraised with.
    bundle: Bundle,
    appraisal: cocoon_verifier::Appraisal,
    claims: cocoon_attestation::Claims,
    id: EvidenceId,
}
