//! Turning receipts into money, and never paying more for it than it brings.
//!
//! A receipt is cumulative and a Channel pays each total once, so claiming again is never wrong, only dear. What is due is read from the
//! chain at the start of every round; the record adds since when a receipt waits, what was refused, and which claims are under way, all on
//! disk. A process that dies anywhere therefore goes on where it was. A claim is in the record before it is sent, and what it claims is not
//! claimed again before the chain has told what became of it, or has moved past the time in which it could arrive.
//!
//! Before a claim is sent, the contracts' own code is run on it here, on their state of that moment: what they would refuse is not sent, and
//! costs nothing. What only happens meanwhile, or where the chain keeps code or data to itself, is refused there and costs its fees, once: the
//! loss is remembered, and made up for before anything is claimed again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_settlement::account::{Account, Signed, TxReport};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::channel::MAX_LIFETIME;
use cocoon_settlement::contracts::provider::{
    self, ClaimItem, EnclaveRecord, KeyState, MAX_CLAIM_CHECKS, MAX_CLAIM_ITEMS, ProviderInit,
};
use cocoon_settlement::contracts::{ChannelState, ChannelStatus, PaidRecord, exit};
use cocoon_settlement::local::foresee::{self, Foreseen};
use cocoon_settlement::{Address, Nanoton, ops};
use tokio::sync::Mutex;

use crate::deadline::Deadline;
use crate::refusal::Refusal;
use crate::store::{Claimed, Earned, Ended, Store, UnderWay, UnderWayItem};
use crate::{ClaimRule, Error, Shared};

/// Most that a claim's first item costs in fees at mainnet's prices, wallet included; `docs/contracts.md` has the measured figures.
pub const FIRST_ITEM_FEE: Nanoton = Nanoton(15_000_000);
/// Most that each further item adds.
pub const FURTHER_ITEM_FEE: Nanoton = Nanoton(7_000_000);
/// What a Provider asks to come with an item at those prices: by this a network with other prices is told.
pub const CLAIM_VALUE: Nanoton = Nanoton(12_480_000);

/// Most that claims cost in fees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    /// With one item.
    pub first: Nanoton,
    /// More with each further one.
    pub further: Nanoton,
}

impl Fees {
    /// At mainnet's prices.
    pub const MAINNET: Self = Self { first: FIRST_ITEM_FEE, further: FURTHER_ITEM_FEE };

    /// Where a Provider asks for so much with an item.
    ///
    /// That is the price of 25,000 gas and of forwarding two messages, and one number does not tell which of the two is another one. Of the most that
    /// a claim costs gas is less than 25,000, and everything else, which grows with the price of forwarding, is 3.15 times those
    /// two messages; a further item's is 1.53 times. So whichever it is, no claim costs more than as many times what is asked for.
    pub fn asked(value: Nanoton) -> Self {
        if value == CLAIM_VALUE {
            return Self::MAINNET;
        }
        let times = |hundredths: u64| Nanoton(value.0.saturating_mul(hundredths).div_ceil(100));
        Self { first: times(320), further: times(160) }
    }

    /// Of a claim of so many items.
    fn of(&self, items: usize) -> Nanoton {
        Nanoton(self.first.0.saturating_add(self.further.0.saturating_mul(items.saturating_sub(1) as u64)))
    }
}

/// Pairs of a channel and an enclave with nothing to claim that are looked at in one round, in turn: whether they can ever be paid again.
const LOOKED_AT: usize = 10;
/// Seconds after which a claim that the wallet has sent has arrived, whatever is known of it.
const LONGEST_WAY: u64 = 900;
/// The Registry lets no attestation last longer, and a Provider keeps a key for a day beyond what it is needed for.
const KEPT_BEYOND: u64 = MAX_LIFETIME + 86_400;

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
    /// Most that claiming it costs.
    pub fee: Nanoton,
}

impl Held {
    /// It is not claimed before it brings more than this: its fees, and what was lost before.
    pub fn least(&self) -> Nanoton {
        self.fee.saturating_add(self.refusal.lost)
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
    /// The Channel has not paid this enclave before: it takes what rent that needs first.
    new: bool,
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
fn held(earned: &Earned, value: Nanoton, refusal: Refusal, deadline: &Deadline, fees: &Fees) -> Held {
    let receipt = &earned.receipt.receipt;
    let next = refusal.next(earned.receipt.hash(), deadline);
    Held { channel: receipt.channel, enclave_key: receipt.enclave_key, value, refusal, next, fee: fees.first }
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

/// The claims to send now: of one Channel each, within what one message holds, worth more than their fees, and worth
/// `least` or pressing. The rest waits. What was refused before goes alone, so that it costs no other's fees again, and must be worth what
/// that has cost as well.
fn plan(mut due: Vec<Due>, least: Nanoton, fees: &Fees) -> Vec<Vec<Due>> {
    // Those that the Channel knows first: what rent the others take comes out of what is left. Then pressing and dear ones, so that what a
    // batch has no room for is what can wait best.
    due.sort_by_key(|due| (due.channel().hash, due.new, std::cmp::Reverse((due.pressing, due.value))));
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
            if item.value > fees.further {
                batch.push(item.clone());
            }
        }
        batches.push(batch);
    }
    batches.retain(|batch| {
        let value = value_of(batch);
        let lost: Nanoton = batch.iter().filter_map(|due| due.refused).sum();
        value > fees.of(batch.len()).saturating_add(lost)
            && !batch.is_empty()
            && (value >= least || batch.iter().any(|due| due.pressing))
    });
    batches
}

/// Why nothing can ever be paid for a receipt of this time any more, whatever happens.
fn over(record: Option<&EnclaveRecord>, time: UnixTime, window: u32, now: UnixTime) -> bool {
    let window = u64::from(window);
    match record {
        // It was removed, as nothing needed it. A chain's server that does not know it yet is given time.
        None => now > time.plus(KEPT_BEYOND + window),
        Some(record) => match record.state {
            KeyState::Void | KeyState::Slashed => true,
            KeyState::Retired => now > record.until.plus(window),
            // As long as the Provider keeps it, it may be renewed.
            KeyState::Active => now > record.keep,
            KeyState::Other(_) => false,
        },
    }
}

/// What the rounds of one process remember.
#[derive(Default)]
struct Memory {
    terms: Option<ProviderInit>,
    /// How many pairs with nothing to claim were looked at.
    looked_at: usize,
}

/// What one round goes by.
struct Round<'a> {
    chain: &'a dyn Chain,
    store: &'a Store,
    rule: &'a ClaimRule,
    fees: Fees,
    window: u32,
    now: UnixTime,
}

impl Round<'_> {
    /// Notes that a claim was refused, or would be, and what each of its items lost by that.
    fn refused(
        &self,
        items: &[UnderWayItem],
        code: i32,
        share: Nanoton,
        at: UnixTime,
        later: bool,
    ) -> Result<Outcome, Error> {
        let among = items.len() > 1 && !refuses_all(code);
        for UnderWayItem { claimed, .. } in items {
            let known = self.store.refusal(&claimed.channel, &claimed.enclave_key)?;
            if later && known.is_some_and(|known| (known.at, known.receipt) == (at, claimed.receipt)) {
                continue;
            }
            let refusal = match among {
                true => self.store.refuse_among(*claimed, at, code, share)?,
                false => self.store.refuse(*claimed, at, code, share)?,
            };
            tracing::warn!(enclave = %claimed.enclave_key, channel = %claimed.channel, code, times = refusal.count,
                lost = %refusal.lost, "a claim brought nothing: the next one waits");
        }
        Ok(if refuses_all(code) { Outcome::Hopeless } else { Outcome::Refused })
    }
}

/// Claims for one Provider, one round at a time.
pub struct Claimer {
    account: Arc<Account>,
    provider: Address,
    turn: Mutex<Memory>,
}

impl Claimer {
    /// A claimer that sends from the wallet of the Provider's owner.
    pub fn new(account: Arc<Account>, provider: Address) -> Self {
        Self { account, provider, turn: Mutex::default() }
    }

    /// Claims what is due by the rule.
    ///
    /// # Errors
    /// The chain or the record does not answer. What was claimed stays claimed.
    pub async fn round(&self, store: &Store, rule: &ClaimRule) -> Result<ClaimReport, Error> {
        // One round at a time: two would claim the same and pay fees twice.
        let mut turn = self.turn.lock().await;
        let chain = &**self.account.chain();
        if turn.terms.is_none() {
            turn.terms = Some(ops::provider_terms(chain, &self.provider).await?);
        }
        let window = turn.terms.as_ref().map_or(0, |terms| terms.claim_window);
        let fees = Fees::asked(provider::claim_value(chain, &self.provider, 1).await?);
        let now = chain.head().await?.time;
        let round = Round { chain, store, rule, fees, window, now };
        let mut report = ClaimReport::default();
        let under_way = self.conclude_earlier(&round, &mut report).await?;
        let before = report.paid;
        let due = self.due(&round, &under_way, &mut turn.looked_at, &mut report).await?;
        let mut lacking = None;
        for batch in plan(due.clone(), rule.least, &fees) {
            match self.pay(&round, batch, &mut report).await {
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
                report.held.push(held(earned, *value, refusal, deadline, &fees));
                left = left.saturating_sub(*value);
            }
        }
        let left = left.saturating_sub(report.paid.saturating_sub(before));
        report.waiting = report.waiting.saturating_add(left);
        Ok(report)
    }

    /// Finds out what became of claims that were sent, or were about to be, and of which nothing else is known; gives what those claim that may
    /// still arrive.
    async fn conclude_earlier(
        &self,
        round: &Round<'_>,
        report: &mut ClaimReport,
    ) -> Result<HashSet<(Address, EnclaveKey)>, Error> {
        let mut under_way = HashSet::new();
        for claim in round.store.under_way()? {
            match round.chain.trace(&claim.signed.message).await? {
                Some(trace) if trace.finished => {
                    let sent = TxReport::of(claim.signed.message, 1, trace.transactions);
                    // The wallet could not pay for it: nothing was asked.
                    if sent.aborted.is_none_or(|(at, _)| at != self.account.address()) {
                        self.conclude(round, &claim.items, &sent, true, report).await?;
                    }
                    round.store.end(&claim.signed.message)?;
                }
                None if claim.signed.lapsed(round.now) => round.store.end(&claim.signed.message)?,
                // Long done: a server that has forgotten part of it must not hold up the claims of these enclaves for ever.
                Some(_) if round.now > claim.signed.valid_until.plus(LONGEST_WAY) => {
                    tracing::warn!(message = %hex::encode(claim.signed.message), "it is not known what became of a claim");
                    round.store.end(&claim.signed.message)?;
                }
                _ => under_way.extend(claim.items.iter().map(|item| (item.claimed.channel, item.claimed.enclave_key))),
            }
        }
        Ok(under_way)
    }

    /// Claims a batch. One item that cannot be paid must not keep the others from it: where they are refused together, the reason is looked for in
    /// halves, and only an item that is refused alone is held off. Suspects are sent only while the round brings more than it costs, those of
    /// whom a refusal elsewhere says nothing any more like any other batch. What it is not worth finding out about goes alone from then on.
    async fn pay(&self, round: &Round<'_>, batch: Vec<Due>, report: &mut ClaimReport) -> Result<(), Error> {
        let fee = |items: &[Due]| round.fees.of(items.len());
        if self.claim(round, &batch, report).await? != Outcome::Refused || batch.len() == 1 {
            return Ok(());
        }
        let mut refused = vec![batch];
        while let Some(mut suspects) = refused.pop() {
            while !suspects.is_empty() {
                let rest = suspects.split_off(suspects.len().div_ceil(2));
                let (value, most) = (value_of(&suspects), fee(&suspects));
                if value <= most || report.paid.saturating_add(value) <= report.fees.saturating_add(most) {
                    break;
                }
                match self.claim(round, &suspects, report).await? {
                    // The reason is among the others.
                    Outcome::Taken => suspects = rest,
                    Outcome::Refused => {
                        let worth = value_of(&rest) > fee(&rest);
                        if worth && self.claim(round, &rest, report).await? == Outcome::Refused && rest.len() > 1 {
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

    /// Everything that a claim would be paid for now; what would be if no refusal held it off goes into the report, and so does what is under
    /// way. What can never be paid any more goes into the archive.
    async fn due(
        &self,
        round: &Round<'_>,
        under_way: &HashSet<(Address, EnclaveKey)>,
        looked_at: &mut usize,
        report: &mut ClaimReport,
    ) -> Result<Vec<Due>, Error> {
        let Round { store, now, window, .. } = *round;
        store.sweep(UnixTime(now.0.saturating_sub(KEPT_BEYOND + u64::from(window))), now)?;
        let mut due: Vec<Due> = Vec::new();
        let mut idle = Vec::new();
        let mut records = HashMap::new();
        let mut earned = store.earned()?;
        earned.retain(|earned| earned.receipt.receipt.provider == self.provider);
        earned.sort_by_key(|earned| earned.receipt.receipt.channel.hash);
        for of_channel in earned.chunk_by(|a, b| a.receipt.receipt.channel == b.receipt.receipt.channel) {
            let Some(first) = of_channel.first() else { continue };
            let channel = first.receipt.receipt.channel;
            // For what is known to be paid in full the chain need not be asked.
            let paid = store.paid(&channel)?;
            let (unpaid, settled): (Vec<_>, Vec<_>) = of_channel.iter().partition(|earned| {
                let paid = paid.get(&earned.receipt.receipt.enclave_key).copied().unwrap_or_default();
                earned.claimable() > paid
            });
            for earned in &settled {
                store.settled(&channel, &earned.receipt.receipt.enclave_key)?;
            }
            idle.extend(settled);
            if !unpaid.is_empty()
                && let Some(state) = self.open(round, &channel, of_channel).await?
            {
                self.due_of_channel(round, &state, &unpaid, under_way, &mut records, &mut due, report).await?;
            }
        }
        // One after the other, so that a round costs the same however many there are.
        for _ in 0..idle.len().min(LOOKED_AT) {
            let earned = idle[*looked_at % idle.len()];
            *looked_at = looked_at.wrapping_add(1);
            let receipt = &earned.receipt.receipt;
            // What is as old as this may have been the last.
            if now > receipt.time.plus(window.into())
                && self.open(round, &receipt.channel, std::slice::from_ref(earned)).await?.is_some()
            {
                let record = self.record(round, &mut records, &receipt.enclave_key).await?;
                if over(record.as_ref(), receipt.time, window, now) {
                    store.archive(&receipt.channel, &receipt.enclave_key, Ended::KeyOver, now)?;
                }
            }
        }
        Ok(due)
    }

    /// The state of a channel that can pay. What was earned in one that never can any more goes into the archive.
    async fn open(
        &self,
        round: &Round<'_>,
        channel: &Address,
        earned: &[Earned],
    ) -> Result<Option<ChannelState>, Error> {
        let ended = match ops::channel_state(round.chain, channel).await {
            Ok(state) if !matches!(state.status, ChannelStatus::Closed { .. }) => return Ok(Some(state)),
            Ok(_) => Ended::ChannelClosed,
            // It was closed for longer than any receipt before is old; a server that does not know it yet is given as much time.
            Err(cocoon_settlement::Error::NotDeployed(_))
                if earned.iter().all(|earned| {
                    round.now > earned.receipt.receipt.time.plus(KEPT_BEYOND + u64::from(round.window))
                }) =>
            {
                Ended::ChannelDeleted
            }
            // One that cannot be asked must not hold up the others.
            Err(error) => {
                tracing::debug!(%error, %channel, "a channel cannot be asked");
                return Ok(None);
            }
        };
        tracing::info!(%channel, "nothing can be claimed there any more: {}", ended.reason());
        for earned in earned {
            round.store.archive(channel, &earned.receipt.receipt.enclave_key, ended, round.now)?;
        }
        Ok(None)
    }

    /// What the Provider knows of an enclave key, asked once a round.
    async fn record(
        &self,
        round: &Round<'_>,
        records: &mut HashMap<EnclaveKey, Option<EnclaveRecord>>,
        key: &EnclaveKey,
    ) -> Result<Option<EnclaveRecord>, Error> {
        if !records.contains_key(key) {
            records.insert(*key, ops::enclave_record(round.chain, &self.provider, key).await?);
        }
        Ok(records.get(key).cloned().flatten())
    }

    /// What one channel owes, those first that it has paid before: what rent the others take comes out of what is left.
    #[expect(clippy::too_many_arguments, reason = "one step of `due`, and nothing else")]
    async fn due_of_channel(
        &self,
        round: &Round<'_>,
        state: &ChannelState,
        unpaid: &[&Earned],
        under_way: &HashSet<(Address, EnclaveKey)>,
        records: &mut HashMap<EnclaveKey, Option<EnclaveRecord>>,
        due: &mut Vec<Due>,
        report: &mut ClaimReport,
    ) -> Result<(), Error> {
        let Round { chain, store, rule, window, now, .. } = *round;
        let mut known = Vec::new();
        for earned in unpaid {
            let receipt = &earned.receipt.receipt;
            let (channel, key) = (&receipt.channel, &receipt.enclave_key);
            let paid = ops::channel_paid(chain, channel, key).await?;
            store.remember_paid(channel, key, &paid)?;
            if earned.claimable() <= paid.paid {
                store.settled(channel, key)?;
                continue;
            }
            known.push((*earned, paid));
        }
        known.sort_by_key(|(_, paid)| *paid == PaidRecord::default());
        let (mut further, mut spent) = (0, Nanoton::ZERO);
        for (earned, paid) in known {
            let (channel, key) = (earned.receipt.receipt.channel, earned.receipt.receipt.enclave_key);
            let record = self.record(round, records, &key).await?;
            if over(record.as_ref(), earned.receipt.receipt.time, window, now) {
                store.archive(&channel, &key, Ended::KeyOver, now)?;
                continue;
            }
            let Some(record) = record.filter(|record| matches!(record.state, KeyState::Active | KeyState::Retired))
            else {
                continue;
            };
            // After the attestation nothing is paid. The newest receipt may wait for a renewal; what was earned before it need not.
            let earned = if earned.receipt.receipt.time <= record.until {
                earned.clone()
            } else {
                let before = store.payable(&channel, &key)?;
                let Some(before) = before.filter(|before| before.receipt.receipt.time <= record.until) else {
                    continue;
                };
                before
            };
            let unpaid = earned.claimable().saturating_sub(paid.paid);
            let deadline = Deadline::new(record.until, window, state.status, now, rule.every);
            let new = paid == PaidRecord::default();
            let available = state.available_with(further + usize::from(new)).unwrap_or_default();
            let value = unpaid.min(available.saturating_sub(spent));
            if deadline.is_over(now) || value == Nanoton::ZERO {
                continue;
            }
            if under_way.contains(&(channel, key)) {
                report.waiting = report.waiting.saturating_add(value);
            } else {
                let refusal = store.refusal(&channel, &key)?;
                let hold = refusal.map(|refusal| held(&earned, value, refusal, &deadline, &round.fees));
                if let Some(hold) = hold.filter(|hold| now < hold.next && !rule.again) {
                    report.held.push(hold);
                    continue;
                }
                let since = store.waiting_since(&channel, &key, now)?;
                let voucher = &earned.voucher.voucher;
                let new_voucher = (paid.cap, paid.expiry) != (voucher.cap, voucher.expiry);
                due.push(Due {
                    before: paid.paid,
                    value,
                    checks: 1 + usize::from(new_voucher),
                    new,
                    pressing: deadline.presses(now) || now.0.saturating_sub(since.0) >= rule.max_age.as_secs(),
                    deadline,
                    // Whoever asks for it again takes the loss.
                    refused: refusal.map(|refusal| if rule.again { Nanoton::ZERO } else { refusal.lost }),
                    earned,
                });
            }
            further += usize::from(new);
            spent = spent.saturating_add(value);
        }
        Ok(())
    }

    /// Claims these items in one message, if the contracts would take it now and pay more for it than it costs. What became of it is in the record
    /// when it returns.
    async fn claim(&self, round: &Round<'_>, batch: &[Due], report: &mut ClaimReport) -> Result<Outcome, Error> {
        let items: Vec<ClaimItem> = batch
            .iter()
            .map(|Due { earned, .. }| ClaimItem {
                voucher: earned.voucher.voucher.clone(),
                voucher_signature: earned.voucher.signature,
                receipt: earned.receipt.receipt.clone(),
                receipt_signature: earned.receipt.signature,
            })
            .collect();
        let under_way: Vec<UnderWayItem> = batch
            .iter()
            .map(|due| UnderWayItem { claimed: Claimed::from(&due.earned.receipt), before: due.before })
            .collect();
        let message = ops::claim_message(round.chain, &self.provider, &items).await?;
        let (own, channel) = (self.account.address(), batch.first().map_or(self.provider, Due::channel));
        let body = message.body.clone().unwrap_or_default();
        match foresee::claim(round.chain, &own, &self.provider, &channel, message.value, &body).await? {
            Some(Foreseen::Refused { by, exit_code }) => {
                let why = exit::reason(exit_code).unwrap_or("for a reason of TON's own");
                tracing::warn!(%by, code = exit_code, items = batch.len(), "a claim would be refused, and is not sent: {why}");
                return round.refused(&under_way, exit_code, Nanoton::ZERO, round.now, false);
            }
            // Rent, or another claim, has taken it since the channel was asked.
            Some(Foreseen::Taken { paid }) if paid <= round.fees.of(batch.len()) => {
                tracing::debug!(%paid, "a claim would not bring what it costs, and is not sent");
                return Ok(Outcome::Hopeless);
            }
            Some(Foreseen::Taken { .. }) | None => {}
        }
        let note = |signed: &Signed| round.store.begin(&UnderWay { signed: *signed, items: under_way.clone() });
        let sent = self.account.send_noted(&[message], note).await?;
        let outcome = match sent.aborted {
            // The wallet could not pay for it: nothing was asked, so nothing is known of what it held.
            Some((at, _)) if at == self.account.address() => {
                round.store.end(&sent.message)?;
                sent.success()?;
                return Ok(Outcome::Hopeless);
            }
            _ => self.conclude(round, &under_way, &sent, false, report).await?,
        };
        round.store.end(&sent.message)?;
        Ok(outcome)
    }

    /// Notes what became of a claim that the wallet has sent; `later` is a round after the one that sent it, which may have noted it before it died.
    async fn conclude(
        &self,
        round: &Round<'_>,
        items: &[UnderWayItem],
        sent: &TxReport,
        later: bool,
        report: &mut ClaimReport,
    ) -> Result<Outcome, Error> {
        report.gas += sent.gas_used;
        report.fees = report.fees.saturating_add(sent.fees);
        let at = sent.transactions.last().map_or(round.now, |last| last.time);
        let share = Nanoton(sent.fees.0.div_ceil(items.len().max(1) as u64));
        if let Some((by, code)) = sent.aborted {
            let why = exit::reason(code).unwrap_or("for a reason of TON's own");
            tracing::warn!(%by, code, items = items.len(), "a claim was refused: {why}");
            return round.refused(items, code, share, at, later);
        }
        for UnderWayItem { claimed, before } in items {
            let Ok(after) = ops::channel_paid(round.chain, &claimed.channel, &claimed.enclave_key).await else {
                continue;
            };
            round.store.remember_paid(&claimed.channel, &claimed.enclave_key, &after)?;
            let paid = after.paid.saturating_sub(*before);
            if paid == Nanoton::ZERO {
                // Asking again at once would only cost fees again.
                round.refused(&[UnderWayItem { claimed: *claimed, before: *before }], 0, share, at, later)?;
                continue;
            }
            round.store.settled(&claimed.channel, &claimed.enclave_key)?;
            report.paid = report.paid.saturating_add(paid);
            report.items += 1;
        }
        Ok(Outcome::Taken)
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
            new: false,
            pressing,
            deadline: Deadline { last: UnixTime(9), presses_from: UnixTime(8) },
            refused: None,
        }
    }

    fn sizes(due: Vec<Due>, least_milli: u64) -> Vec<usize> {
        plan(due, Nanoton(least_milli * MILLI), &Fees::MAINNET).iter().map(Vec::len).collect()
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
    fn where_claims_are_dearer_more_must_be_brought_whatever_is_dearer() {
        assert_eq!(Fees::asked(CLAIM_VALUE), Fees::MAINNET);
        // Gas or forwarding alone, ten times as dear: what a claim with a new voucher then costs (docs/costs.md), and a further one.
        let (gas, forwarding) = (10_000_000, 2_480_000);
        for (times_gas, times_forwarding) in [(10, 1), (1, 10), (10, 10), (1, 2), (2, 1)] {
            let fees = Fees::asked(Nanoton(gas * times_gas + forwarding * times_forwarding));
            let costs = |gas: u64, all: u64| gas * 400 * times_gas + (all - gas * 400) * times_forwarding;
            assert!(fees.first.0 > costs(17_915, 11_480_000), "{times_gas} {times_forwarding}: {fees:?}");
            assert!(fees.further.0 > costs(8_106, 5_540_000), "{times_gas} {times_forwarding}: {fees:?}");
            assert!(fees.first > FIRST_ITEM_FEE && fees.further > FURTHER_ITEM_FEE);
        }
        let dear = Fees::asked(Nanoton(2 * CLAIM_VALUE.0));
        assert!(plan(vec![due(1, 70, 2, true)], Nanoton::ZERO, &dear).is_empty());
        assert_eq!(plan(vec![due(1, 90, 2, true)], Nanoton::ZERO, &dear).len(), 1);
    }

    #[test]
    fn what_a_channel_knows_goes_before_what_takes_rent_there() {
        let batches =
            plan(vec![Due { new: true, ..due(1, 900, 2, true) }, due(1, 20, 1, false)], Nanoton::ZERO, &Fees::MAINNET);
        let order: Vec<bool> = batches.iter().flatten().map(|due| due.new).collect();
        assert_eq!(order, [false, true]);
    }

    #[test]
    fn batches_hold_one_channel_eight_items_and_ten_cheap_checks() {
        assert_eq!(sizes((0..8).map(|_| due(1, 100, 2, false)).collect(), 0), [5, 3]);
        assert_eq!(sizes((0..17).map(|_| due(1, 100, 1, false)).collect(), 0), [8, 8, 1]);
        assert_eq!(sizes((0..6).map(|i| due(i % 2, 100, 1, false)).collect(), 0), [3, 3]);
        for batch in plan(
            (0..40).map(|i| due(i % 3, 20 + u64::from(i), 1 + usize::from(i % 2), false)).collect(),
            Nanoton::ZERO,
            &Fees::MAINNET,
        ) {
            let value: u64 = batch.iter().map(|due| due.value.0).sum();
            assert!(
                batch.len() <= MAX_CLAIM_ITEMS && batch.iter().map(|due| due.checks).sum::<usize>() <= MAX_CLAIM_CHECKS
            );
            assert!(
                batch.iter().all(|due| due.channel() == batch[0].channel()) && value > Fees::MAINNET.of(batch.len()).0
            );
        }
    }
}
