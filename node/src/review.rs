//! Looking again at what was accepted: a platform, an image or a policy that was withdrawn reaches clients through the log.

use std::sync::{Arc, Weak};
use std::time::Duration;

use cocoon_attestation::{Bundle, Digest, EvidenceId, UnixTime};
use cocoon_settlement::contracts::RegistryParams;
use cocoon_settlement::ops;
use cocoon_transparency::{Leaf, Source as _};
use cocoon_verifier::Outcome;
use futures::StreamExt as _;
use futures::stream;

use crate::appraise::withdrawn;
use crate::store::Record;
use crate::{Error, Inner, REVIEW, Rules};

/// Looked at again at once: those that are not accepted any more share checkpoints.
const AT_ONCE: usize = 256;

/// Asks vendors again about what is in use, so that a review finds what they say today. It holds up no review: vendors may take their time.
pub(crate) async fn keep_fresh(inner: Weak<Inner>, age: Duration) {
    loop {
        tokio::time::sleep(REVIEW.min(age.max(SHORTEST))).await;
        let Some(inner) = inner.upgrade() else { return };
        let Some(own) = &inner.own else { return };
        match inner.time().await {
            Ok(now) => match own.refresh(now, age).await {
                0 => {}
                count => tracing::info!(count, "endorsements were fetched anew"),
            },
            Err(error) => tracing::warn!(%error, "no time to hold endorsements against"),
        }
    }
}

/// Vendors are not asked more often than this, whatever is configured.
const SHORTEST: Duration = Duration::from_millis(100);

impl Inner {
    /// Appraises again whatever has not ended; returns how much is not accepted any more.
    pub(crate) async fn review(&self) -> Result<usize, Error> {
        let _alone = self.reviewing.lock().await;
        let now = self.chain.head().await?.time;
        let live = self.store.live(now)?;
        if live.is_empty() {
            return Ok(0);
        }
        let params = ops::registry_params(&*self.chain, &self.registry).await?;
        let (rules, params) = (&self.rules(), &params);
        let looked = stream::iter(live.into_iter().map(|id| async move {
            let turn = self.turns.of(&id);
            let _turn = turn.lock().await;
            match self.look_again(&id, rules, params, now).await {
                Ok(accepted) => usize::from(!accepted),
                // One that cannot be looked at must not keep the others from it.
                Err(error) => {
                    tracing::error!(evidence = %id, %error, "it could not be appraised again");
                    0
                }
            }
        }));
        Ok(looked.buffer_unordered(AT_ONCE).fold(0, |sum, one| async move { sum + one }).await)
    }

    async fn look_again(
        &self,
        id: &EvidenceId,
        rules: &Arc<Rules>,
        params: &RegistryParams,
        now: UnixTime,
    ) -> Result<bool, Error> {
        let Some(record) = self.store.get(id)?.filter(|record| record.outcome == Outcome::Accepted) else {
            return Ok(true);
        };
        let mut bundle = self.logged(record.leaf_index).await?;
        if let Some(own) = &self.own {
            own.note(&bundle);
            bundle = own.staple(bundle, now).await;
        }
        let result = self.run(bundle.to_cbor(), rules.clone(), now).await?;
        let appraisal = result.appraisal;
        let refusal = match (appraisal.outcome, &result.claims) {
            (Outcome::Accepted, Some(claims)) => withdrawn(rules, params, claims),
            _ => None,
        };
        if appraisal.outcome == Outcome::Accepted && refusal.is_none() {
            return Ok(true);
        }
        let outcome = if refusal.is_some() { Outcome::Refused } else { appraisal.outcome };
        let reason = refusal.clone().unwrap_or_else(|| appraisal.reason.clone());
        tracing::warn!(evidence = %id, %outcome, reason, "what was accepted is not any more");
        let record = Record { leaf_index: 0, outcome, reason, verdict: None, until: None };
        self.record(&bundle, rules, &appraisal, refusal, now, record).await?;
        Ok(false)
    }

    /// The bundle of a leaf, from the log.
    async fn logged(&self, index: u64) -> Result<Bundle, Error> {
        let log = self.log.clone();
        crate::publish::blocking(move || {
            let leaf = Leaf::from_cbor(&log.entry(index)?)?;
            leaf.open_bundle(|digest: &Digest| log.files().part(digest).ok())
        })
        .await
    }
}
