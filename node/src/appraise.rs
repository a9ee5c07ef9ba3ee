//! From a bundle to a verdict, or to a refusal that can be shown to others.

use std::sync::{Arc, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Bundle, Claims, Digest, EvidenceId, UnixTime};
use cocoon_protocol::wire::{MAX_BUNDLE, SignedVerdict};
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::contracts::RegistryParams;
use cocoon_settlement::contracts::provider::KeyState;
use cocoon_settlement::{Address, ops};
use cocoon_transparency::Leaf;
use cocoon_verifier::{Appraisal, BundleAppraisal, Outcome, is_signed};

use crate::store::Record;
use crate::{Error, Found, Inner, MAX_BEACON_AGE, Node, Rules, Subject, VERDICT_VALIDITY, VERIFIER, limits};

impl Node {
    /// Appraises a bundle, logs it and signs a verdict. While a verdict can still be used, the same evidence gets the same one.
    ///
    /// # Errors
    /// [`Error::Refused`] if the bundle deserves no verdict, with a statement to show; others if the node cannot tell.
    pub async fn appraise(&self, bundle: &[u8]) -> Result<SignedVerdict, Error> {
        let inner = &self.inner;
        let mut subject = Subject { received: Digest::of(&[bundle]), id: None, at: inner.time().await? };
        if bundle.len() > MAX_BUNDLE {
            let reason = format!("a bundle has at most {MAX_BUNDLE} bytes");
            return Err(inner.refused(&subject, Outcome::Malformed, reason, None));
        }
        let rules = inner.rules();
        let found = inner.look(bundle, &rules, &mut subject).await?;
        let turn = inner.turns.of(&found.id);
        let _turn = turn.lock().await;
        inner.decide(&subject, &rules, found).await
    }
}

/// Whether evidence is authentic, which says nothing yet of whether it is good.
fn is_authentic(result: &BundleAppraisal) -> bool {
    result.appraisal.outcome <= Outcome::Refused
}

impl Inner {
    /// Authenticates a stranger's bundle, then appraises it with what this node knows. Until its signatures are found to lead to a root,
    /// nothing is asked of anybody for it but the time, and that once for all who come within a second.
    async fn look(&self, bundle: &[u8], rules: &Arc<Rules>, subject: &mut Subject) -> Result<Found, Error> {
        let (first, deserves) = {
            let _place = self.queue.try_acquire().map_err(|_| Error::Busy(self.limits.queue))?;
            self.first_look(bundle.to_vec(), rules.clone(), subject.at).await?
        };
        subject.id = first.evidence_id;
        let mut result = first;
        let mut appraised = bundle.to_vec();
        if deserves {
            // It may be on a block that is newer than the last one that was seen here.
            let beacon = result.claims.as_ref().map(|claims| claims.beacon.time);
            let newer = beacon.is_some_and(|beacon| beacon > subject.at);
            if newer {
                subject.at = self.chain.head().await?.time;
            }
            if let Some(own) = &self.own {
                let read = Bundle::from_cbor(bundle).map_err(|error| Error::Interrupted(error.to_string()))?;
                own.fetch(&read, subject.at).await;
                appraised = own.staple(read, subject.at).await.to_cbor();
            }
            if newer || self.own.is_some() {
                result = self.run(appraised.clone(), rules.clone(), subject.at).await?;
            }
        }
        let authentic = is_authentic(&result);
        match (result.claims, result.evidence_id, Bundle::from_cbor(&appraised)) {
            (Some(claims), Some(id), Ok(bundle)) if authentic => {
                Ok(Found { bundle, appraisal: result.appraisal, claims, id })
            }
            // Anybody can make any amount of it, and it shows nothing about any platform: it is signed for, and not logged.
            _ => Err(self.refused(subject, result.appraisal.outcome, result.appraisal.reason, None)),
        }
    }

    /// What a bundle is by itself, and whether it deserves more: it is authentic, or its signatures are and only what vendors say of it is not.
    async fn first_look(
        &self,
        bundle: Vec<u8>,
        rules: Arc<Rules>,
        at: UnixTime,
    ) -> Result<(BundleAppraisal, bool), Error> {
        let (verifier, endorses) = (self.verifier.clone(), self.own.is_some());
        self.on_a_processor(move || {
            let result = verifier.bundle(&bundle, &rules.policy, Some(&rules.references), at);
            let signed = || Bundle::from_cbor(&bundle).is_ok_and(|bundle| is_signed(&bundle, &rules.policy, at));
            let deserves = is_authentic(&result) || endorses && signed();
            (result, deserves)
        })
        .await
    }

    /// Appraises a bundle at a time.
    pub(crate) async fn run(&self, bundle: Vec<u8>, rules: Arc<Rules>, at: UnixTime) -> Result<BundleAppraisal, Error> {
        let verifier = self.verifier.clone();
        self.on_a_processor(move || verifier.bundle(&bundle, &rules.policy, Some(&rules.references), at)).await
    }

    /// Signatures take a fraction of a millisecond: others are answered meanwhile, and no more run at once than there are processors.
    async fn on_a_processor<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let _processor = self.processors.acquire().await.map_err(|error| Error::Interrupted(error.to_string()))?;
        tokio::task::spawn_blocking(job).await.map_err(|error| Error::Interrupted(error.to_string()))
    }

    async fn decide(&self, subject: &Subject, rules: &Rules, found: Found) -> Result<SignedVerdict, Error> {
        let Found { bundle, appraisal, claims, id } = found;
        let now = subject.at;
        let params = self.params.get(ops::registry_params(&*self.chain, &self.registry)).await?;
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
            Outcome::Accepted => match self.verdict(rules, &params, &claims, id, now).await? {
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
                self.share(&appraisal, verdict.is_some().then(|| claims.provider.into()), now)?;
                Some(self.record(&bundle, rules, &appraisal, refusal, now, record).await?.leaf_index)
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

    /// Takes one of what a platform may bring, and of what a provider may whose evidence gets a verdict.
    fn share(&self, appraisal: &Appraisal, provider: Option<Address>, now: UnixTime) -> Result<(), Error> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(limits::platform(appraisal), provider, &self.limits, now).map_err(Error::TooMuch)
    }

    /// Appends a leaf.
    pub(crate) async fn record(
        &self,
        bundle: &Bundle,
        rules: &Rules,
        appraisal: &Appraisal,
        refusal: Option<String>,
        at: UnixTime,
        record: Record,
    ) -> Result<Record, Error> {
        let (mut leaf, mut parts) = Leaf::new(bundle, appraisal, at, rules.policy_part.0);
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
