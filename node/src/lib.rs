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
mod http;
mod limits;
mod peers;
mod publish;
mod review;
mod store;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Digest, EvidenceId, ReferenceValues, UnixTime};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::wire::LogInclusion;
use cocoon_settlement::Address;
use cocoon_settlement::chain::Chain;
use cocoon_transparency::{Leaf, Log, Witness};
use cocoon_verifier::{Outcome, Policy, Verifier};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

pub use crate::anchor::Anchoring;
pub use crate::error::{Error, Refused};
use crate::limits::Buckets;
pub use crate::limits::Limits;
pub use crate::peers::Peer;
use crate::peers::Peers;
use crate::publish::Publisher;
use crate::store::{Record, Store};

/// Oldest beacon that is taken, in seconds before the newest block.
pub const MAX_BEACON_AGE: u64 = 600;
/// How long after its beacon a verdict can be brought before the Registry, in seconds.
pub const VERDICT_VALIDITY: u64 = 900;
/// How often what was accepted is appraised again.
pub const REVIEW: Duration = Duration::from_secs(15);
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
    endorser: Option<Arc<endorsements::Endorser>>,
    limits: Limits,
    queue: Semaphore,
    buckets: Mutex<Buckets>,
    /// One appraisal of a piece of evidence at a time, so that none is logged twice.
    turns: Mutex<HashMap<EvidenceId, Weak<tokio::sync::Mutex<()>>>>,
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
        index(&log, &store)?;
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
            endorser: config.endorser,
            queue: Semaphore::new(config.limits.queue),
            limits: config.limits,
            buckets: Mutex::default(),
            turns: Mutex::default(),
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

    /// Appraises under another policy and other reference values from now on, and looks again at what was accepted.
    ///
    /// # Errors
    /// The policy cannot be read: then nothing changes. Or what was accepted could not be looked at.
    pub async fn set_rules(&self, policy: &str, references: ReferenceValues) -> Result<(), Error> {
        let rules = Arc::new(Rules::read(policy, references)?);
        *self.inner.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        self.inner.review().await.map(drop)
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

/// Reads what a crash kept from the store: the log is what counts.
fn index(log: &Log, store: &Store) -> Result<(), Error> {
    let (indexed, size) = (store.indexed()?, log.size());
    for leaf_index in indexed..size {
        let leaf = Leaf::from_cbor(&log.entry(leaf_index)?)?;
        let verdict = store.get(&leaf.evidence_id)?.and_then(|record| record.verdict);
        let reason = leaf.refusal.unwrap_or_default();
        let record = Record { leaf_index, outcome: leaf.outcome, reason, verdict, until: None };
        store.put(&[(leaf.evidence_id, record)], Some(leaf_index + 1))?;
    }
    Ok(())
}

impl Inner {
    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The turn of one piece of evidence.
    fn turn(&self, id: &EvidenceId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(*id, Arc::downgrade(&turn));
        turn
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
    fn refused(&self, what: &Subject<'_>, outcome: Outcome, reason: String, inclusion: Option<LogInclusion>) -> Error {
        let id = what.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let lines =
            [&outcome.to_string(), &id, &Digest::of(&[what.bundle]).to_string(), &what.at.0.to_string(), &reason];
        match self.log.state(&lines.map(String::as_str)) {
            Ok(statement) => Error::Refused(Box::new(Refused { outcome, reason, statement, inclusion })),
            Err(error) => error.into(),
        }
    }
}

/// What a refusal is about.
pub(crate) struct Subject<'a> {
    bundle: &'a [u8],
    id: Option<EvidenceId>,
    at: UnixTime,
}
