//! A verifier node: it appraises evidence bundles under its own policy, appends each to its transparency log, and signs
//! verdicts that k nodes together bring before the Registry. Its verdict is for the contract: a client appraises for itself.
//!
//! k nodes must sign the very same cell, so every field of a verdict follows from the evidence and the chain: the attestation
//! is counted from the beacon's time, not from this node's clock.

pub mod endorsements;
mod error;
mod http;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Claims, Digest, EvidenceId, ReferenceValues, UnixTime};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::wire::{LogInclusion, MAX_BUNDLE, SignedVerdict};
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::provider::KeyState;
use cocoon_settlement::{Address, ops};
use cocoon_transparency::{Leaf, Log};
use cocoon_verifier::{Outcome, Policy, appraise_bundle};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

pub use crate::error::{Error, Refused};
use crate::store::{Record, Store};

/// Oldest beacon that is taken, in seconds before the newest block.
pub const MAX_BEACON_AGE: u64 = 600;
/// How long after its beacon a verdict can be brought before the Registry, in seconds.
pub const VERDICT_VALIDITY: u64 = 900;

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
    /// Seed of the Ed25519 key that signs the log's checkpoints.
    pub log_seed: [u8; 32],
    /// What it accepts.
    pub policy: Policy,
    /// The image and models it compares with; verdicts name this image.
    pub references: ReferenceValues,
    /// The Registry its verdicts are for.
    pub registry: Address,
    /// How long an attestation lasts, in seconds from its beacon; the Registry's maximum limits it.
    pub lifetime: u64,
    /// The chain, which is also the node's clock.
    pub chain: Arc<dyn Chain>,
}

/// A running verifier node.
pub struct Node {
    name: String,
    index: u8,
    seed: Zeroizing<[u8; 32]>,
    public: [u8; 32],
    policy: Arc<Policy>,
    references: Arc<ReferenceValues>,
    registry: Address,
    lifetime: u64,
    chain: Arc<dyn Chain>,
    log: Log,
    store: Store,
    /// One appraisal is recorded at a time, so that no evidence is logged twice.
    turn: Mutex<()>,
}

impl Node {
    /// Opens the node's log and records, or starts them.
    ///
    /// # Errors
    /// A name that cannot name a log, a folder of another node, or a failing disk.
    pub fn open(config: NodeConfig) -> Result<Self, Error> {
        let key = SigningKey::from_seed(&config.verdict_seed).map_err(|_| cocoon_transparency::Error::Key)?;
        Ok(Self {
            log: Log::open(&config.dir, &config.name, config.log_seed)?,
            store: Store::open(&config.dir)?,
            name: config.name,
            index: config.index,
            seed: Zeroizing::new(config.verdict_seed),
            public: key.public(),
            policy: Arc::new(config.policy),
            references: Arc::new(config.references),
            registry: config.registry,
            lifetime: config.lifetime,
            chain: config.chain,
            turn: Mutex::new(()),
        })
    }

    /// The public key that checks its verdicts.
    pub fn verdict_key(&self) -> [u8; 32] {
        self.public
    }

    /// The C2SP verifier key of its log.
    pub fn log_key(&self) -> &str {
        self.log.vkey()
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Appraises a bundle, logs it and signs a verdict. While a verdict can still be used, the same evidence gets the same one.
    ///
    /// # Errors
    /// [`Error::Refused`] if the bundle deserves no verdict; others if the node cannot tell.
    pub async fn appraise(&self, bundle: &[u8]) -> Result<SignedVerdict, Error> {
        if bundle.len() > MAX_BUNDLE {
            return Err(refused(Outcome::Malformed, format!("a bundle has at most {MAX_BUNDLE} bytes")));
        }
        let now = self.chain.head().await?.time;
        // Signatures take milliseconds: others are answered meanwhile.
        let (policy, references, owned) = (self.policy.clone(), self.references.clone(), bundle.to_vec());
        let appraised =
            tokio::task::spawn_blocking(move || appraise_bundle(&owned, &policy, Some(&references), now)).await;
        let result = appraised.map_err(|error| Error::Interrupted(error.to_string()))?;
        let appraisal = result.appraisal;
        let (Some(claims), Some(id), Outcome::Accepted | Outcome::Refused) =
            (result.claims, result.evidence_id, appraisal.outcome)
        else {
            return Err(refused(appraisal.outcome, appraisal.reason));
        };
        let _turn = self.turn.lock().await;
        let known = self.store.get(&id)?;
        let record = match known.filter(|known| known.outcome == appraisal.outcome) {
            Some(known) => known,
            None => {
                let leaf = Leaf {
                    bundle: bundle.to_vec(),
                    appraisal: serde_json::to_vec(&appraisal)?,
                    time: now,
                    node: self.name.clone(),
                };
                let leaf_index = self.log.append(&leaf)?;
                let (outcome, reason) = (appraisal.outcome, appraisal.reason.clone());
                let record = Record { leaf_index, outcome, reason, verdict: None };
                self.store.put(&id, &record)?;
                tracing::info!(evidence = %id, outcome = %record.outcome, leaf_index, "appraised");
                record
            }
        };
        if appraisal.outcome == Outcome::Refused {
            return Err(refused(appraisal.outcome, appraisal.reason));
        }
        self.verdict(&claims, id, record, now).await
    }

    async fn verdict(
        &self,
        claims: &Claims,
        id: EvidenceId,
        mut record: Record,
        now: UnixTime,
    ) -> Result<SignedVerdict, Error> {
        let chain = &*self.chain;
        let params = ops::registry_params(chain, &self.registry).await?;
        if params.verifiers.get(usize::from(self.index)) != Some(&self.public) {
            return Err(Error::NotVerifier { index: self.index });
        }
        if let Some(verdict) = record.verdict.as_deref().and_then(read_verdict)
            && verdict.expiry > now
            && verdict.set_epoch == params.set_epoch
        {
            return self.sign(&verdict, &record);
        }
        let image = self.references.image.digest;
        let policy = |reason: String| refused(Outcome::Refused, reason);
        if !params.images.contains(&image) {
            return Err(policy(format!("the Registry does not allow image {image}; ask its governance")));
        }
        if !params.models.contains(&claims.model_root) {
            return Err(policy(format!("the Registry does not allow model {}; ask its governance", claims.model_root)));
        }
        self.check_beacon(claims, now).await?;
        let provider: Address = claims.provider.into();
        let known = ops::enclave_record(chain, &provider, &claims.enclave_key).await?;
        let generation = match known {
            None => 0,
            Some(known) if known.state != KeyState::Active => {
                return Err(policy("the Provider's contract ended this enclave key; start the enclave again".into()));
            }
            Some(known) => known.generation.saturating_add(1),
        };
        let beacon = claims.beacon.time;
        let verdict = Verdict {
            network: chain.network(),
            registry: self.registry,
            provider,
            enclave_key: claims.enclave_key,
            evidence_id: id.0,
            image,
            model_root: claims.model_root,
            generation,
            until: beacon.plus(self.lifetime.min(params.max_lifetime.into())),
            expiry: beacon.plus(VERDICT_VALIDITY),
            set_epoch: params.set_epoch,
        };
        record.verdict = Some(hex::encode(verdict.to_boc()));
        self.store.put(&id, &record)?;
        self.sign(&verdict, &record)
    }

    /// The block must be the chain's own, and young: evidence cannot be older than it.
    async fn check_beacon(&self, claims: &Claims, now: UnixTime) -> Result<(), Error> {
        let beacon = &claims.beacon;
        let policy = |reason: String| Err(refused(Outcome::Refused, reason));
        let Some(block) = self.chain.block(beacon.seqno).await? else {
            return policy(format!("the chain has no block {}; make evidence on one that it has", beacon.seqno));
        };
        if (block.root_hash, block.time) != (beacon.root_hash, beacon.time) {
            return policy(format!("block {} of the chain is not the one in the claims", beacon.seqno));
        }
        if beacon.time.plus(MAX_BEACON_AGE) < now {
            return policy(format!("the beacon is more than {MAX_BEACON_AGE} s old; make new evidence"));
        }
        Ok(())
    }

    fn sign(&self, verdict: &Verdict, record: &Record) -> Result<SignedVerdict, Error> {
        Ok(SignedVerdict {
            index: self.index,
            verdict: STANDARD.encode(verdict.to_boc()),
            signature: hex::encode(verdict.sign(&self.seed)?),
            inclusion: self.prove(record.leaf_index)?,
        })
    }

    /// Proof that this node logged evidence, against its newest checkpoint.
    ///
    /// # Errors
    /// [`Error::NotLogged`].
    pub fn inclusion(&self, id: &EvidenceId) -> Result<LogInclusion, Error> {
        self.prove(self.store.get(id)?.ok_or(Error::NotLogged)?.leaf_index)
    }

    fn prove(&self, index: u64) -> Result<LogInclusion, Error> {
        let (proof, checkpoint) = self.log.inclusion(index)?;
        Ok(LogInclusion {
            leaf_index: index,
            leaf: STANDARD.encode(self.log.leaf(index)?),
            tree_size: proof.tree_size,
            hashes: proof.hashes.iter().map(Digest::to_string).collect(),
            checkpoint,
        })
    }
}

fn refused(outcome: Outcome, reason: String) -> Error {
    Error::Refused(Refused { outcome, reason })
}

fn read_verdict(text: &str) -> Option<Verdict> {
    Verdict::from_boc(&hex::decode(text).ok()?).ok()
}
