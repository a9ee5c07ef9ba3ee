//! Turning receipts into money, and never paying more for it than it brings.
//!
//! A receipt is cumulative and a Channel pays each total once, so claiming again is never wrong, only dear. What is due is read from the
//! chain at the start of every round; the record adds only since when a receipt waits and what was refused, both on disk. A process
//! that dies anywhere therefore goes on where it was. A claim whose fate is unknown is not sent beside itself: until the chain has moved
//! past it, the wallet's sequence number admits one of the two.

use std::sync::Arc;
use std::time::Duration;

use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_settlement::account::Account;
use cocoon_settlement::contracts::provider::{ClaimItem, KeyState, MAX_CLAIM_CHECKS, MAX_CLAIM_ITEMS, ProviderInit};
use cocoon_settlement::contracts::{ChannelStatus, exit};
use cocoon_settlement::{Address, Nanoton, ops};
use tokio::sync::Mutex;

use crate::deadline::Deadline;
use crate::refusal::Refusal;
use crate::store::{Earned, Store};
use crate::{ClaimRule, Error, Shared};

/// Most that a claim's first item costs in fees, wallet included; `docs/contracts.md` has the measured figures.
pub const FIRST_ITEM_FEE: Nanoton = Nanoton(15_000_000);
/// Most that each further item adds.
pub const FURTHER_ITEM_FEE: Nanoton = Nanoton(7_000_000);

/// What a round of claims came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimReport {
    /// Receipts that were claimed.
    pub items: usize,
    /// What the Channels paid.
    pub paid: Nanoton,
    /// Gas of all transactions.
    pub gas: u64,
    /// Fees of all transactions.
    pub fees: Nanoton,
    /// What is earned and left for a later round: not yet worth its fees, or without funds.
    pub waiting: Nanoton,
    /// What is earned, and not claimed because claims of it were refused.
    pub held: Vec<Held>,
}

/// What one enclave has earned in one channel where its claims were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The channel.
    pub channel: Address,
    /// The enclave.
    pub enclave_key: EnclaveKey,
    /// What a claim would bring.
    pub value: Nanoton,
    /// The last refusal.
    pub refusal: Refusal,
    /// Before this time it is not claimed again.
    pub next: UnixTime,
}

impl Held {
    /// It is not claimed before it brings more than this: its fees, and what was lost before.
    pub fn least(&self) -> Nanoton {
        FIRST_ITEM_FEE.saturating_add(self.refusal.lost)
    }
}

/// A receipt that would bring something.
#[derive(Clone, Debug)]
struct Due {
    earned: Earned,
    /// What the Channel has paid on it before.
    before: Nanoton,
    /// What a claim brings.
    value: Nanoton,
    /// Signatures that the contracts check for it: the voucher's only where it is new to the Channel.
    checks: usize,
    /// It has waited long enough, or soon cannot be claimed any more.
    pressing: bool,
    deadline: Deadline,
    /// What refusals of this enclave in this channel have cost since something was paid there.
    refused: Option<Nanoton>,
}

impl Due {
    fn channel(&self) -> Address {
        self.earned.receipt.receipt.channel
    }
}

/// What this has earned is held off by this refusal.
fn held(earned: &Earned, value: Nanoton, refusal: Refusal, deadline: &Deadline) -> Held {
    let receipt = &earned.receipt.receipt;
    let next = refusal.next(earned.receipt.hash(), deadline);
    Held { channel: receipt.channel, enclave_key: receipt.enclave_key, value, refusal, next }
}

/// Whether it is the message or the Channel that a code refuses, whatever the items are: sender, value, a Channel that is closed.
fn refuses_all(code: i32) -> bool {
    matches!(code, 100 | 101 | 140)
}

/// What became of a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The contracts took it.
    Taken,
    /// They refused it for one of its items.
    Refused,
    /// They would refuse any part of it too.
    Hopeless,
}

fn value_of(items: &[Due]) -> Nanoton {
    items.iter().map(|due| due.value).sum()
}

/// Most that a claim of so many items costs.
fn fee(items: usize) -> Nanoton {
    Nanoton(FIRST_ITEM_FEE.0 + FURTHER_ITEM_FEE.0 * items.saturating_sub(1) as u64)
}

/// The claims to send now: of one Channel each, within what one message holds, worth more than their fees, and worth
/// `least` or pressing. The rest waits. What was refused before goes alone, so that it costs no other's fees again, and must be worth what
/// that has cost as well.
fn plan(mut due: Vec<Due>, least: Nanoton) -> Vec<Vec<Due>> {
    // Pressing and dear ones first, so that what a batch has no room for is what can wait best.
    due.sort_by_key(|due| (due.channel().hash, std::cmp::Reverse((due.pressing, due.value))));
    let mut batches = Vec::new();
    for of_channel in due.chunk_by(|a, b| a.channel() == b.channel()) {
        let mut batch: Vec<Due> = Vec::new();
        for item in of_channel {
            if item.refused.is_some() {
                batches.push(vec![item.clone()]);
                continue;
            }
            let checks: usize = batch.iter().map(|due| due.checks).sum();
            if batch.len() == MAX_CLAIM_ITEMS || checks + item.checks > MAX_CLAIM_CHECKS {
                batches.push(std::mem::take(&mut batch));
            }
            // An item must bring more than it adds, and below the whole batch more than it costs.
            if item.value > FURTHER_ITEM_FEE {
                batch.push(item.clone());
            }
        }
        batches.push(batch);
    }
    batches.retain(|batch| {
        let value = value_of(batch);
        let lost: Nanoton = batch.iter().filter_map(|due| due.refused).sum();
        value > fee(batch.len()).saturating_add(lost)
            && !batch.is_empty()
            && (value >= least || batch.iter().any(|due| due.pressing))
    });
    batches
}

/// Claims for one Provider, one round at a time.
pub struct Claimer {
    account: Arc<Account>,
    provider: Address,
    turn: Mutex<Option<ProviderInit>>,
}

impl Claimer {
    /// A claimer that sends from the wallet of the Provider's owner.
    pub fn new(account: Arc<Account>, provider: Address) -> Self {
        Self { account, provider, turn: Mutex::new(None) }
    }

    /// Claims what is due by the rule.
    ///
    /// # Errors
    /// The chain or the record does not answer. What was claimed stays claimed.
    pub async fn round(&self, store: &Store, rule: &ClaimRule) -> Result<ClaimReport, Error> {
        // One round at a time: two would claim the same and pay fees twice.
        let mut turn = self.turn.lock().await;
        if turn.is_none() {
            *turn = Some(ops::provider_terms(&**self.account.chain(), &self.provider).await?);
        }
        let window = turn.as_ref().map_or(0, |terms| terms.claim_window);
        let mut report = ClaimReport::default();
        let due = self.due(store, rule, window, &mut report.held).await?;
        let mut lacking = None;
        for batch in plan(due.clone(), rule.least) {
            match self.pay(store, batch, &mut report).await {
                // A smaller batch behind it may need less than the wallet has.
                Err(Error::Chain(error @ cocoon_settlement::Error::Funds { .. })) => lacking = Some(error),
                result => result?,
            }
        }
        if let Some(error) = lacking {
            if report.items == 0 {
                return Err(error.into());
            }
            tracing::warn!(%error, "a claim could not be sent");
        }
        let mut left = value_of(&due);
        for Due { earned, value, deadline, .. } in &due {
            let receipt = &earned.receipt.receipt;
            if let Some(refusal) = store.refusal(&receipt.channel, &receipt.enclave_key)? {
                report.held.push(held(earned, *value, refusal, deadline));
                left = left.saturating_sub(*value);
            }
        }
        report.waiting = left.saturating_sub(report.paid);
        Ok(report)
    }

    /// Claims a batch. One item that cannot be paid must not keep the others from it: where they are refused together, the reason is looked for in
    /// halves, and only an item that is refused alone is held off. Suspects are sent only while the round brings more than it costs, those of
    /// whom a refusal elsewhere says nothing any more like any other batch. What it is not worth finding out about goes alone from then on.
    async fn pay(&self, store: &Store, batch: Vec<Due>, report: &mut ClaimReport) -> Result<(), Error> {
        if self.claim(store, &batch, report).await? != Outcome::Refused || batch.len() == 1 {
            return Ok(());
        }
        let mut refused = vec![batch];
        while let Some(mut suspects) = refused.pop() {
            while !suspects.is_empty() {
                let rest = suspects.split_off(suspects.len().div_ceil(2));
                let (value, most) = (value_of(&suspects), fee(suspects.len()));
                if value <= most || report.paid.saturating_add(value) <= report.fees.saturating_add(most) {
                    break;
                }
                match self.claim(store, &suspects, report).await? {
                    // The reason is among the others.
                    Outcome::Taken => suspects = rest,
                    Outcome::Refused => {
                        let worth = value_of(&rest) > fee(rest.len());
                        if worth && self.claim(store, &rest, report).await? == Outcome::Refused && rest.len() > 1 {
                            refused.push(rest);
                        }
                        if suspects.len() == 1 {
                            break;
                        }
                    }
                    Outcome::Hopeless => break,
                }
            }
        }
        Ok(())
    }

    /// Everything that a claim would be paid for now; what would be if no refusal held it off goes into `held_off`.
    async fn due(
        &self,
        store: &Store,
        rule: &ClaimRule,
        window: u32,
        held_off: &mut Vec<Held>,
    ) -> Result<Vec<Due>, Error> {
        let chain = &**self.account.chain();
        let now = chain.head().await?.time;
        let mut due: Vec<Due> = Vec::new();
        let mut earned = store.earned()?;
        earned.retain(|earned| earned.receipt.receipt.provider == self.provider);
        earned.sort_by_key(|earned| earned.receipt.receipt.channel.hash);
        for of_channel in earned.chunk_by(|a, b| a.receipt.receipt.channel == b.receipt.receipt.channel) {
            let Some(first) = of_channel.first() else { continue };
            let channel = first.receipt.receipt.channel;
            let (status, mut funds) = match ops::channel_state(chain, &channel).await {
                Ok(state) if !matches!(state.status, ChannelStatus::Closed { .. }) => (state.status, state.available),
                Ok(_) => continue,
                // One channel that was deleted must not hold up the others.
                Err(error) => {
                    tracing::warn!(%error, %channel, "a channel cannot be asked");
                    continue;
                }
            };
            for earned in of_channel {
                let receipt = &earned.receipt.receipt;
                let paid = ops::channel_paid(chain, &channel, &receipt.enclave_key).await?;
                let unpaid = earned.claimable().saturating_sub(paid.paid);
                if unpaid == Nanoton::ZERO {
                    store.settled(&channel, &receipt.enclave_key)?;
                    continue;
                }
                let record = ops::enclave_record(chain, &self.provider, &receipt.enclave_key).await?;
                let Some(record) = record.filter(|record| matches!(record.state, KeyState::Active | KeyState::Retired))
                else {
                    continue;
                };
                // After the attestation nothing is paid. The newest receipt may wait for a renewal; what was earned before it need not.
                let earned = if receipt.time <= record.until {
                    earned.clone()
                } else {
                    let before = store.payable(&channel, &receipt.enclave_key)?;
                    let Some(before) = before.filter(|before| before.receipt.receipt.time <= record.until) else {
                        continue;
                    };
                    before
                };
                let receipt = &earned.receipt.receipt;
                let unpaid = earned.claimable().saturating_sub(paid.paid);
                let deadline = Deadline::new(record.until, window, status, now, rule.every);
                let value = unpaid.min(funds);
                if deadline.is_over(now) || value == Nanoton::ZERO {
                    continue;
                }
                let refusal = store.refusal(&channel, &receipt.enclave_key)?;
                let hold = refusal.map(|refusal| held(&earned, value, refusal, &deadline));
                if let Some(hold) = hold.filter(|hold| now < hold.next && !rule.again) {
                    held_off.push(hold);
                    continue;
                }
                let since = store.waiting_since(&channel, &receipt.enclave_key, now)?;
                funds = funds.saturating_sub(value);
                let voucher = &earned.voucher.voucher;
                let new_voucher = (paid.cap, paid.expiry) != (voucher.cap, voucher.expiry);
                due.push(Due {
                    before: paid.paid,
                    value,
                    checks: 1 + usize::from(new_voucher),
                    pressing: deadline.presses(now) || now.0.saturating_sub(since.0) >= rule.max_age.as_secs(),
                    deadline,
                    // Whoever asks for it again takes the loss.
                    refused: refusal.map(|refusal| if rule.again { Nanoton::ZERO } else { refusal.lost }),
                    earned,
                });
            }
        }
        Ok(due)
    }

    /// Claims these items in one message. What became of it is in the record when it returns.
    async fn claim(&self, store: &Store, batch: &[Due], report: &mut ClaimReport) -> Result<Outcome, Error> {
        let items: Vec<ClaimItem> = batch
            .iter()
            .map(|Due { earned, .. }| ClaimItem {
                voucher: earned.voucher.voucher.clone(),
                voucher_signature: earned.voucher.signature,
                receipt: earned.receipt.receipt.clone(),
                receipt_signature: earned.receipt.signature,
            })
            .collect();
        let sent = ops::claim(&self.account, &self.provider, &items).await?;
        report.gas += sent.gas_used;
        report.fees = report.fees.saturating_add(sent.fees);
        let code = sent.aborted.map_or(0, |(_, code)| code);
        let share = Nanoton(sent.fees.0.div_ceil(batch.len() as u64));
        let chain = &**self.account.chain();
        if let Some((at, code)) = sent.aborted {
            // The wallet could not pay for it: nothing was asked, so nothing is known of what it held.
            if at == self.account.address() {
                sent.success()?;
                return Ok(Outcome::Hopeless);
            }
            let why = exit::reason(code).unwrap_or("for a reason of TON's own");
            tracing::warn!(%at, code, items = batch.len(), "a claim was refused: {why}");
            if batch.len() > 1 && !refuses_all(code) {
                for due in batch {
                    store.refuse_among(&due.earned.receipt, chain.head().await?.time, code, share)?;
                }
                return Ok(Outcome::Refused);
            }
        }
        for Due { earned, before, .. } in batch {
            let receipt = &earned.receipt.receipt;
            let Ok(after) = ops::channel_paid(chain, &receipt.channel, &receipt.enclave_key).await else { continue };
            let paid = after.paid.saturating_sub(*before);
            if paid == Nanoton::ZERO {
                // Asking again at once would only cost fees again.
                let refusal = store.refuse(&earned.receipt, chain.head().await?.time, code, share)?;
                tracing::warn!(enclave = %receipt.enclave_key, channel = %receipt.channel, code, times = refusal.count,
                    lost = %refusal.lost, "a claim brought nothing: the next one waits");
                continue;
            }
            store.settled(&receipt.channel, &receipt.enclave_key)?;
            report.paid = report.paid.saturating_add(paid);
            report.items += 1;
        }
        Ok(match sent.aborted {
            None => Outcome::Taken,
            Some((_, code)) if refuses_all(code) => Outcome::Hopeless,
            Some(_) => Outcome::Refused,
        })
    }
}

/// Claims from time to time. A round that fails is made up for by the next.
pub(crate) async fn regularly(shared: Arc<Shared>, rule: ClaimRule) {
    loop {
        tokio::time::sleep(rule.every).await;
        match shared.claimer.round(&shared.store, &rule).await {
            Ok(report) if report.items > 0 => tracing::info!(paid = %report.paid, fees = %report.fees, "claimed"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a round of claims failed"),
        }
    }
}

/// Everything that is worth its fees, now.
pub const AT_ONCE: ClaimRule =
    ClaimRule { every: Duration::ZERO, least: Nanoton::ZERO, max_age: Duration::ZERO, again: false };

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::identity::SigningKey;
    use cocoon_protocol::receipt::SignedSettlementReceipt;
    use cocoon_protocol::voucher::SignedVoucher;
    use cocoon_settlement::cells::{SettlementReceipt, Voucher};
    use cocoon_settlement::{NetworkId, Prices};

    const MILLI: u64 = 1_000_000;

    fn due(channel: u8, milli: u64, checks: usize, pressing: bool) -> Due {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let channel = Address { workchain: 0, hash: [channel; 32] };
        let prices = Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 };
        let (network, enclave_key) = (NetworkId::LOCAL, key.enclave_key());
        let cap = Nanoton(1 << 40);
        let voucher = Voucher { network, channel, enclave_key, cap, prices, expiry: UnixTime(9) };
        let provider = Address { workchain: 0, hash: [2; 32] };
        let receipt =
            SettlementReceipt { network, provider, channel, enclave_key, sequence: 1, total: cap, time: UnixTime(5) };
        Due {
            earned: Earned {
                voucher: SignedVoucher::sign(voucher, &[9; 32]).unwrap(),
                receipt: SignedSettlementReceipt::sign(receipt, &key).unwrap(),
            },
            before: Nanoton::ZERO,
            value: Nanoton(milli * MILLI),
            checks,
            pressing,
            deadline: Deadline { last: UnixTime(9), presses_from: UnixTime(8) },
            refused: None,
        }
    }

    fn sizes(due: Vec<Due>, least_milli: u64) -> Vec<usize> {
        plan(due, Nanoton(least_milli * MILLI)).iter().map(Vec::len).collect()
    }

    #[test]
    fn nothing_is_claimed_that_costs_more_than_it_brings() {
        assert!(sizes(vec![due(1, 15, 2, true)], 0).is_empty());
        assert_eq!(sizes(vec![due(1, 16, 2, true)], 0), [1]);
        // Together they are worth a claim, but the second adds less than it costs.
        assert_eq!(sizes(vec![due(1, 16, 2, true), due(1, 7, 1, true)], 0), [1]);
        assert_eq!(sizes(vec![due(1, 16, 2, true), due(1, 8, 1, true)], 0), [2]);
        assert_eq!(sizes(vec![due(1, 12, 1, true), due(1, 12, 1, true)], 0), [2], "only together");
        assert!(sizes(vec![due(1, 11, 1, true), due(1, 11, 1, true)], 0).is_empty());
        // Small ones of different channels never make a claim worth it.
        assert!(sizes((1..20).map(|channel| due(channel, 14, 1, true)).collect(), 0).is_empty());
    }

    #[test]
    fn what_is_worth_little_waits_until_it_is_worth_more_or_presses() {
        assert!(sizes(vec![due(1, 30, 1, false)], 50).is_empty());
        assert_eq!(sizes(vec![due(1, 30, 1, false), due(1, 30, 1, false)], 50), [2], "together they are worth it");
        assert_eq!(
            sizes(vec![due(1, 30, 1, false), due(1, 16, 1, true)], 1_000),
            [2],
            "one that presses takes the other along"
        );
        assert_eq!(sizes(vec![due(1, 60, 1, false), due(2, 30, 1, false)], 50), [1]);
    }

    #[test]
    fn what_was_refused_before_goes_alone_and_must_make_up_for_it() {
        let refused = |milli: u64, lost: u64| Due { refused: Some(Nanoton(lost * MILLI)), ..due(1, milli, 1, true) };
        assert_eq!(sizes(vec![due(1, 100, 1, true), refused(100, 10), due(1, 50, 1, true)], 0), [1, 2]);
        assert_eq!(sizes(vec![refused(100, 84)], 0), [1]);
        assert!(sizes(vec![refused(100, 85)], 0).is_empty(), "it costs 15 again");
        // Neither takes the other along.
        assert!(sizes(vec![due(1, 12, 1, true), refused(12, 0)], 0).is_empty());
    }

    #[test]
    fn batches_hold_one_channel_eight_items_and_ten_cheap_checks() {
        assert_eq!(sizes((0..8).map(|_| due(1, 100, 2, false)).collect(), 0), [5, 3]);
        assert_eq!(sizes((0..17).map(|_| due(1, 100, 1, false)).collect(), 0), [8, 8, 1]);
        assert_eq!(sizes((0..6).map(|i| due(i % 2, 100, 1, false)).collect(), 0), [3, 3]);
        for batch in
            plan((0..40).map(|i| due(i % 3, 20 + u64::from(i), 1 + usize::from(i % 2), false)).collect(), Nanoton::ZERO)
        {
            let value: u64 = batch.iter().map(|due| due.value.0).sum();
            assert!(
                batch.len() <= MAX_CLAIM_ITEMS && batch.iter().map(|due| due.checks).sum::<usize>() <= MAX_CLAIM_CHECKS
            );
            assert!(batch.iter().all(|due| due.channel() == batch[0].channel()) && value > fee(batch.len()).0);
        }
    }
}
