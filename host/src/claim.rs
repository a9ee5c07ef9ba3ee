//! Turning receipts into money.

use std::sync::Arc;

use cocoon_settlement::contracts::exit;
use cocoon_settlement::contracts::provider::{ClaimItem, MAX_CLAIM_ITEMS};
use cocoon_settlement::{Nanoton, ops};

use crate::store::Earned;
use crate::{ClaimRule, Error, Shared};

/// What a round of claims came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimReport {
    /// Receipts that were claimed.
    pub items: usize,
    /// What the Channels paid.
    pub paid: Nanoton,
    /// Gas of all transactions.
    pub gas: u64,
    /// Fees of all transactions.
    pub fees: Nanoton,
}

/// Claims from time to time. A round that fails is made up for by the next.
pub(crate) async fn regularly(shared: Arc<Shared>, rule: ClaimRule) {
    loop {
        tokio::time::sleep(rule.every).await;
        match claim_all(&shared, rule.least).await {
            Ok(report) if report.items > 0 => tracing::info!(paid = %report.paid, fees = %report.fees, "claimed"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a round of claims failed"),
        }
    }
}

/// Claims every receipt that is worth at least `least` more than was paid.
pub(crate) async fn claim_all(shared: &Shared, least: Nanoton) -> Result<ClaimReport, Error> {
    // One round at a time: two would claim the same and pay fees twice.
    let _one = shared.claiming.lock().await;
    let chain = shared.config.chain.as_ref();
    let mut due: Vec<(Earned, Nanoton)> = Vec::new();
    for earned in shared.store.earned()? {
        let receipt = &earned.receipt.receipt;
        if shared.unpayable().contains(&earned.receipt.hash()) {
            continue;
        }
        match ops::channel_paid(chain, &receipt.channel, &receipt.enclave_key).await {
            Ok(paid) if earned.claimable().saturating_sub(paid.paid) >= least.max(Nanoton(1)) => {
                due.push((earned, paid.paid))
            }
            Ok(_) => {}
            // One channel that was deleted must not hold up the others.
            Err(error) => tracing::warn!(%error, channel = %receipt.channel, "a channel cannot be asked"),
        }
    }
    // A claim is of one Channel, which pays all of its items or none.
    due.sort_by_key(|(earned, _)| earned.receipt.receipt.channel.hash);
    let mut report = ClaimReport::default();
    for of_channel in due.chunk_by(|a, b| a.0.receipt.receipt.channel == b.0.receipt.receipt.channel) {
        for batch in of_channel.chunks(MAX_CLAIM_ITEMS) {
            if claim(shared, batch, &mut report).await? || batch.len() == 1 {
                continue;
            }
            // One item that cannot be paid must not keep the others from it.
            for item in batch.chunks(1) {
                claim(shared, item, &mut report).await?;
            }
        }
    }
    Ok(report)
}

/// Claims these items in one message; whether it was taken.
async fn claim(shared: &Shared, batch: &[(Earned, Nanoton)], report: &mut ClaimReport) -> Result<bool, Error> {
    let items: Vec<ClaimItem> = batch
        .iter()
        .map(|(earned, _)| ClaimItem {
            voucher: earned.voucher.voucher.clone(),
            voucher_signature: earned.voucher.signature,
            receipt: earned.receipt.receipt.clone(),
            receipt_signature: earned.receipt.signature,
        })
        .collect();
    let sent = ops::claim(&shared.config.account, &shared.config.provider, &items).await?;
    report.gas += sent.gas_used;
    report.fees = report.fees.saturating_add(sent.fees);
    if let Some((at, code)) = sent.aborted {
        let why = exit::reason(code).unwrap_or("for a reason of TON's own");
        tracing::warn!(%at, code, items = batch.len(), "a claim was refused: {why}");
        if batch.len() > 1 {
            return Ok(false);
        }
    }
    for (earned, before) in batch {
        let receipt = &earned.receipt.receipt;
        let chain = shared.config.chain.as_ref();
        let Ok(after) = ops::channel_paid(chain, &receipt.channel, &receipt.enclave_key).await else { continue };
        let paid = after.paid.saturating_sub(*before);
        if paid == Nanoton(0) {
            // Closed, lapsed or empty: asking again for the same receipt would only cost fees.
            shared.unpayable().insert(earned.receipt.hash());
            continue;
        }
        report.paid = report.paid.saturating_add(paid);
        report.items += 1;
    }
    Ok(sent.aborted.is_none())
}
