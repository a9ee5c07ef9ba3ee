//! From a bundle to a verdict, or to a refusal that can be shown to others.

use std::sync::{Arc, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Bundle, Claims, EvidenceId, UnixTime};
use cocoon_protocol::wire::{MAX_BUNDLE, SignedVerdict};
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::contracts::RegistryParams;
use cocoon_settlement::contracts::provider::KeyState;
use cocoon_settlement::{Address, ops};
use cocoon_transparency::Leaf;
use cocoon_verifier::{Appraisal, BundleAppraisal, Outcome};

use crate::store::Record;
use crate::{Error, Inner, MAX_BEACON_AGE, Node, Rules, Subject, VERDICT_VALIDITY, VERIFIER};

impl Node {
    /// Appraises a bundle, logs it and signs a verdict. While a verdict can still be used, the same evidence gets the same one.
    ///
    /// # Errors
    /// [`Error::Refused`] if the bundle deserves no verdict, with a statement to show; others if the node cannot tell.
    pub async fn appraise(&self, bundle: &[u8]) -> Result<SignedVerdict, Error> {
        let inner = &self.inner;
        let _place = inner.queue.try_acquire().map_err(|_| Error::Busy(inner.limits.queue))?;
        let now = inner.chain.head().await?.time;
        let mut subject = Subject { bundle, id: None, at: now };
        if bundle.len() > MAX_BUNDLE {
            let reason = format!("a bundle has at most {MAX_BUNDLE} bytes");
            return Err(inner.refused(&subject, Outcome::Malformed, reason, None));
        }
        let rules = inner.rules();
        // Its own endorsements, if it has any: what a provider staples may be older than what vendors say today.
        let endorsed = match Bundle::from_cbor(bundle) {
            Ok(parsed) if inner.endorser.is_some() => Some(inner.endorse(parsed, now).await.to_cbor()),
            _ => None,
        };
        if let Some(endorsed) = &endorsed {
            subject.bundle = endorsed;
        }
        let result = inner.run(subject.bundle.to_vec(), rules.clone(), now).await?;
        subject.id = result.evidence_id;
        let (appraisal, claims, id) = match (result.claims, result.evidence_id) {
            (Some(claims), Some(id)) if result.appraisal.outcome <= Outcome::Refused => (result.appraisal, claims, id),
            // Anybody can make any amount of it, and it shows nothing about any platform: it is signed for, and not logged.
            _ => return Err(inner.refused(&subject, result.appraisal.outcome, result.appraisal.reason, None)),
        };
        let turn = inner.turn(&id);
        let _turn = turn.lock().await;
        inner.decide(&subject, &rules, appraisal, &claims, id).await
    }
}

impl Inner {
    /// Signatures take a fraction of a millisecond: others are answered meanwhile.
    pub(crate) async fn run(&self, bundle: Vec<u8>, rules: Arc<Rules>, at: UnixTime) -> Result<BundleAppraisal, Error> {
        let verifier = self.verifier.clone();
        let job = move || verifier.bundle(&bundle, &rules.policy, Some(&rules.references), at);
        tokio::task::spawn_blocking(job).await.map_err(|error| Error::Interrupted(error.to_string()))
    }

    /// What vendors say today; where they do not answer, what came with the bundle.
    pub(crate) async fn endorse(&self, bundle: Bundle, at: UnixTime) -> Bundle {
        let Some(endorser) = &self.endorser else { return bundle };
        let mut endorsed = bundle.clone();
        match endorser.staple(&mut endorsed, at, false).await {
            Ok(()) => endorsed,
            Err(error) => {
                tracing::warn!(evidence = %bundle.evidence_id(), %error, "no endorsements of this node's own");
                bundle
            }
        }
    }

    async fn decide(
        &self,
        subject: &Subject<'_>,
        rules: &Rules,
        appraisal: Appraisal,
        claims: &Claims,
        id: EvidenceId,
    ) -> Result<SignedVerdict, Error> {
        let now = subject.at;
        let params = ops::registry_params(&*self.chain, &self.registry).await?;
        if params.verifiers.get(&self.index) != Some(&self.public) {
            return Err(Error::NotVerifier { index: self.index });
        }
        let known = self.store.get(&id)?;
        if appraisal.outcome == Outcome::Accepted
            && let Some(record) = known.as_ref().filter(|record| record.outcome == Outcome::Accepted)
            && let Some(verdict) = record.verdict.as_deref().and_then(read_verdict)
            && verdict.expiry > now
            && verdict.set_epoch == params.set_epoch
        {
            return self.sign(&verdict, record.leaf_index).await;
        }
        let (refusal, verdict) = match appraisal.outcome {
            Outcome::Accepted => match self.verdict(rules, &params, claims, id, now).await? {
                Ok(verdict) => (None, Some(verdict)),
                Err(reason) => (Some(reason), None),
            },
            _ => (None, None),
        };
        let (outcome, reason) = match &refusal {
            Some(reason) => (Outcome::Refused, reason.clone()),
            None => (appraisal.outcome, appraisal.reason.clone()),
        };
        let record = Record {
            leaf_index: 0,
            outcome,
            reason: reason.clone(),
            verdict: verdict.as_ref().map(|verdict| hex::encode(verdict.to_boc())),
            until: verdict.as_ref().map(|verdict| verdict.until),
        };
        let leaf = match (known.filter(|known| known.outcome == Outcome::Accepted || verdict.is_none()), &verdict) {
            // Logged as accepted before: only the verdict is new.
            (Some(known), Some(_)) => {
                let record = Record { leaf_index: known.leaf_index, ..record };
                self.store.put(&[(id, record)], None)?;
                Some(known.leaf_index)
            }
            // Whoever sends evidence again, with worse endorsements or too late, takes nothing from it: that is for the review alone.
            (Some(known), None) => (known.outcome != Outcome::Accepted).then_some(known.leaf_index),
            (None, _) => {
                self.share(claims.provider.into(), now)?;
                Some(self.record(subject.bundle, rules, &appraisal, refusal, now, record).await?.leaf_index)
            }
        };
        match (verdict, leaf) {
            (Some(verdict), Some(leaf)) => self.sign(&verdict, leaf).await,
            (_, leaf) => {
                let inclusion = match leaf {
                    Some(leaf) => Some(self.prove(leaf, 0).await?),
                    None => None,
                };
                Err(self.refused(subject, outcome, reason, inclusion))
            }
        }
    }

    /// Takes one of what a provider may bring.
    fn share(&self, provider: Address, now: UnixTime) -> Result<(), Error> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(provider, &self.limits, now).map_err(Error::TooMuch)
    }

    /// Appends a leaf.
    pub(crate) async fn record(
        &self,
        bundle: &[u8],
        rules: &Rules,
        appraisal: &Appraisal,
        refusal: Option<String>,
        at: UnixTime,
        record: Record,
    ) -> Result<Record, Error> {
        let bundle = Bundle::from_cbor(bundle).map_err(|error| Error::Interrupted(error.to_string()))?;
        let (mut leaf, mut parts) = Leaf::new(&bundle, appraisal, at, rules.policy_part.0);
        leaf.references = Some(rules.references_part.0);
        leaf.outcome = record.outcome;
        leaf.refusal = refusal;
        leaf.node = self.name.clone();
        leaf.verifier = VERIFIER.into();
        parts.push(rules.policy_part.clone());
        parts.push(rules.references_part.clone());
        let record = self.publisher.append(leaf.evidence_id, leaf.to_cbor(), parts, record).await?;
        tracing::info!(evidence = %leaf.evidence_id, outcome = %record.outcome, leaf = record.leaf_index, "appraised");
        Ok(record)
    }

    /// What to sign, or why nothing is signed although the evidence was accepted.
    async fn verdict(
        &self,
        rules: &Rules,
        params: &RegistryParams,
        claims: &Claims,
        id: EvidenceId,
        now: UnixTime,
    ) -> Result<Result<Verdict, String>, Error> {
        let chain = &*self.chain;
        if let Some(reason) = withdrawn(rules, params, claims) {
            return Ok(Err(reason));
        }
        if let Some(reason) = self.beacon(claims, now).await? {
            return Ok(Err(reason));
        }
        let provider: Address = claims.provider.into();
        let known = ops::enclave_record(chain, &provider, &claims.enclave_key).await?;
        let generation = match known {
            None => 0,
            Some(known) if known.state != KeyState::Active => {
                return Ok(Err("the Provider's contract ended this enclave key; start the enclave again".into()));
            }
            Some(known) => known.generation.saturating_add(1),
        };
        let beacon = claims.beacon.time;
        Ok(Ok(Verdict {
            network: chain.network(),
            registry: self.registry,
            provider,
            enclave_key: claims.enclave_key,
            evidence_id: id.0,
            image: rules.references.image.digest,
            model_root: claims.model_root,
            generation,
            until: beacon.plus(self.lifetime.min(params.max_lifetime.into())),
            expiry: beacon.plus(VERDICT_VALIDITY),
            set_epoch: params.set_epoch,
        }))
    }

    /// The block must be the chain's own, and young: evidence cannot be older than it.
    async fn beacon(&self, claims: &Claims, now: UnixTime) -> Result<Option<String>, Error> {
        let beacon = &claims.beacon;
        let Some(block) = self.chain.block(beacon.seqno).await? else {
            return Ok(Some(format!("the chain has no block {}; make evidence on one that it has", beacon.seqno)));
        };
        if (block.root_hash, block.time) != (beacon.root_hash, beacon.time) {
            return Ok(Some(format!("block {} of the chain is not the one in the claims", beacon.seqno)));
        }
        if beacon.time.plus(MAX_BEACON_AGE) < now {
            return Ok(Some(format!("the beacon is more than {MAX_BEACON_AGE} s old; make new evidence")));
        }
        Ok(None)
    }

    async fn sign(&self, verdict: &Verdict, leaf: u64) -> Result<SignedVerdict, Error> {
        Ok(SignedVerdict {
            index: self.index,
            verdict: STANDARD.encode(verdict.to_boc()),
            signature: hex::encode(verdict.sign(&self.seed)?),
            inclusion: self.prove(leaf, 0).await?,
        })
    }
}

/// Why governance does not let this image or model work.
pub(crate) fn withdrawn(rules: &Rules, params: &RegistryParams, claims: &Claims) -> Option<String> {
    let image = rules.references.image.digest;
    if !params.images.contains(&image) {
        return Some(format!("the Registry does not allow image {image}; ask its governance"));
    }
    if !params.models.contains(&claims.model_root) {
        return Some(format!("the Registry does not allow model {}; ask its governance", claims.model_root));
    }
    None
}

fn read_verdict(text: &str) -> Option<Verdict> {
    Verdict::from_boc(&hex::decode(text).ok()?).ok()
}
