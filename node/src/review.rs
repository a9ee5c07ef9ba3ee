//! Looking again at what was accepted: a platform, an image or a policy that was withdrawn reaches clients through the log.

use std::sync::Arc;

use cocoon_attestation::{Bundle, Digest, EvidenceId, UnixTime};
use cocoon_settlement::contracts::RegistryParams;
use cocoon_settlement::ops;
use cocoon_transparency::{Leaf, Source as _};
use cocoon_verifier::Outcome;

use crate::appraise::withdrawn;
use crate::store::Record;
use crate::{Error, Inner, Rules};

impl Inner {
    /// Appraises again whatever has not ended; returns how much is not accepted any more.
    pub(crate) async fn review(&self) -> Result<usize, Error> {
        let now = self.chain.head().await?.time;
        let live = self.store.live(now)?;
        if live.is_empty() {
            return Ok(0);
        }
        let params = ops::registry_params(&*self.chain, &self.registry).await?;
        let (rules, mut withdrawn) = (self.rules(), 0);
        for id in live {
            let turn = self.turn(&id);
            let _turn = turn.lock().await;
            match self.look_again(&id, &rules, &params, now).await {
                Ok(accepted) => withdrawn += usize::from(!accepted),
                // One that cannot be looked at must not keep the others from it.
                Err(error) => tracing::error!(evidence = %id, %error, "it could not be appraised again"),
            }
        }
        Ok(withdrawn)
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
        let bundle = self.endorse(self.logged(record.leaf_index).await?, now).await;
        let bytes = bundle.to_cbor();
        let result = self.run(bytes.clone(), rules.clone(), now).await?;
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
        self.record(&bytes, rules, &appraisal, refusal, now, record).await?;
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
