//! The log's size and root on-chain: whoever holds the Registry's word knows how long the log is at least.

use std::sync::{Arc, Weak};
use std::time::Duration;

use cocoon_attestation::Digest;
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::CheckpointAnchor;
use cocoon_settlement::contracts::registry;
use cocoon_settlement::ops;

use crate::{Error, Inner, Node};

/// Who pays for anchoring, and how often.
#[derive(Clone)]
pub struct Anchoring {
    /// The wallet that pays: a few hundredths of a Toncoin each time.
    pub account: Arc<Account>,
    /// Time between two checkpoints.
    pub every: Duration,
}

impl Node {
    /// Anchors the published checkpoint in the Registry, if that knows a smaller one; says whether it did.
    ///
    /// # Errors
    /// The chain does not answer, or the Registry refuses.
    pub async fn anchor(&self, account: &Account) -> Result<bool, Error> {
        self.inner.anchor(account).await
    }
}

/// Anchors whenever the last anchor is old enough, by the Registry's word: a node that is started again every few minutes anchors all the same,
/// and no more often.
pub(crate) async fn run(inner: Weak<Inner>, anchoring: Anchoring) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let mut wait = anchoring.every;
        match inner.until_due(anchoring.every).await {
            Ok(Duration::ZERO) => match inner.anchor(&anchoring.account).await {
                Ok(true) => tracing::info!("the checkpoint was anchored"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the checkpoint was not anchored"),
            },
            Ok(remains) => wait = remains,
            Err(error) => tracing::error!(%error, "the Registry does not say what was anchored"),
        }
        drop(inner);
        tokio::time::sleep(wait).await;
    }
}

impl Inner {
    /// How long until the next anchor is due.
    async fn until_due(&self, every: Duration) -> Result<Duration, Error> {
        let Some(known) = registry::anchored(&*self.chain, &self.registry, self.index).await? else {
            return Ok(Duration::ZERO);
        };
        let (due, now) = (known.time.plus(every.as_secs()), self.chain.head().await?.time);
        Ok(Duration::from_secs(due.0.saturating_sub(now.0)))
    }

    async fn anchor(&self, account: &Account) -> Result<bool, Error> {
        let Some(published) = self.log.published() else { return Ok(false) };
        let known = registry::anchored(&*self.chain, &self.registry, self.index).await?;
        if published.tree.size <= known.map_or(0, |known| known.tree_size) {
            return Ok(false);
        }
        let checkpoint = CheckpointAnchor {
            network: self.chain.network(),
            registry: self.registry,
            origin: Digest::of(&[self.name.as_bytes()]),
            tree_size: published.tree.size,
            root: published.tree.root,
            time: self.chain.head().await?.time,
        };
        let signature = checkpoint.sign(&self.seed)?;
        ops::anchor(account, &self.registry, self.index, &checkpoint, &signature).await?.success()?;
        Ok(true)
    }
}
