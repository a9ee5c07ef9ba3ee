//! Channels: their money, and what each of their claims was paid on.

use std::collections::{BTreeMap, HashMap};

use cocoon_attestation::{Digest, EnclaveKey, UnixTime};
use cocoon_settlement::chain::TxSummary;
use cocoon_settlement::contracts::events::{self, ClaimedItem, Event};
use cocoon_settlement::contracts::{ChannelInit, channel, initial_state};
use cocoon_settlement::{Address, Error as ChainError, Nanoton};

use super::super::finding::{Finding, Kind};
use super::super::utc;
use super::provider::both;
use super::store::{Kept, Receipts};
use super::{ChainDay, ChannelFlow, DAY, MOST, Money, Pages, Reconcile, Sums, keep_most_paid, read, unreadable};
use crate::Error;

/// Channels that are looked up at once.
const BATCH: usize = 1_000;

const TOP_UP: u32 = 0x4303_0001;
const DELETE: u32 = 0x4303_0006;
const REFUND: u32 = 0x4304_0002;

/// What a Channel's history says of an enclave since the Channel was deployed.
#[derive(Default)]
struct Known {
    cap: u64,
    expiry: UnixTime,
    paid: u64,
    /// Highest total that was claimed.
    total: Option<u64>,
}

/// A Channel whose history was read.
struct Read {
    terms: ChannelInit,
    money: Money,
    days: BTreeMap<u64, ChainDay>,
    claims: u64,
}

impl Reconcile<'_> {
    /// Every Channel that claims name, and those that the auditor does.
    pub(super) async fn channels(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let some = self.store.channels(after.as_ref(), BATCH)?;
            for address in &some {
                self.channel(address, false).await?;
            }
            match some.last() {
                Some(last) => after = Some(*last),
                None => break,
            }
        }
        let mut named = self.input.channels.to_vec();
        named.sort_unstable();
        named.dedup();
        for address in named {
            if !self.store.names_channel(&address)? {
                self.channel(&address, true).await?;
            }
        }
        Ok(())
    }

    /// A Channel's money, and what each of its claims was paid on. A claim can name any account: what is none of our Channels refused it.
    async fn channel(&mut self, address: &Address, named: bool) -> Result<(), Error> {
        let account = self.input.chain.account(address).await?;
        let code = channel::channel_code_hash();
        let mut begun = account.code_hash.zip(account.data.clone()).filter(|_| account.active);
        if begun.as_ref().is_some_and(|(known, _)| *known != code) {
            return Ok(());
        }
        let (mut pages, mut sums) = (Pages::of(address, &account), Sums::default());
        let mut money = Money { held: account.balance.0, ..Money::default() };
        let (mut days, mut claims, mut found) = (BTreeMap::<u64, ChainDay>::new(), 0u64, Vec::new());
        while let Some(page) = self.page(&mut pages).await? {
            let mut kept = Vec::new();
            for transaction in &page {
                sums.add(transaction);
                money.fees = money.fees.saturating_add(transaction.fees.0);
                let message = transaction.received.as_ref();
                begun = begun.or(message.and_then(|message| initial_state(address, message.init.as_ref()?)));
                if !transaction.carried_out() {
                    continue;
                }
                for sent in transaction.sent.iter().filter(|sent| sent.op == Some(REFUND)) {
                    money.refunded = money.refunded.saturating_add(sent.value.0);
                }
                let day = days.entry(transaction.time.0 / DAY).or_default();
                match (read(transaction)?, message.and_then(|message| message.op)) {
                    (_, Some(TOP_UP)) => {
                        money.deposited = money.deposited.saturating_add(transaction.value_in.0);
                        day.deposited = day.deposited.saturating_add(transaction.value_in.0);
                    }
                    // What it knew of payments is gone; another one may be deployed in its place.
                    (_, Some(DELETE)) => kept.push(Kept::of(transaction, Nanoton::ZERO)),
                    (Ok(Some(Event::Settle { .. })), _) => {
                        let paid = match paid(transaction) {
                            Ok(paid) => paid,
                            // What is no Channel of ours may send what it likes.
                            Err(ChainError::Malformed { why, .. }) => {
                                found.push(unreadable(transaction, &format!("sent what cannot be read: {why}")));
                                continue;
                            }
                            Err(error) => return Err(error.into()),
                        };
                        money.paid = money.paid.saturating_add(paid.0);
                        day.paid = day.paid.saturating_add(paid.0);
                        claims += 1;
                        kept.push(Kept::of(transaction, paid));
                    }
                    (Ok(_), _) => {}
                    (Err(finding), _) => found.push(finding),
                }
            }
            self.store.keep(&kept)?;
            found.truncate(MOST);
        }
        let shown = begun.is_some();
        let terms = begun.filter(|(known, _)| *known == code).and_then(|(_, data)| ChannelInit::of_data(&data).ok());
        // One that was deployed with payments in it would have another address.
        match terms.filter(|terms| terms.address() == *address) {
            Some(terms) if named || self.providers.contains_key(&terms.provider) => {
                found.into_iter().for_each(|finding| self.findings.add(finding));
                self.balanced(address, account.balance, &sums);
                self.settled(address, Read { terms, money, days, claims })?;
            }
            Some(_) => {}
            None if claims > 0 && !shown => {
                let detail =
                    format!("the history of {address}, which paid claims, does not show what it was deployed with");
                self.findings.add(Finding::new(Kind::Unreconciled, detail));
            }
            None => {}
        }
        self.store.forget()
    }

    /// Follows each settled receipt, oldest first, and adds the Channel to the result.
    fn settled(&mut self, address: &Address, read: Read) -> Result<(), Error> {
        let Read { terms, money, days, claims } = read;
        let store = self.store.clone();
        store.with_receipts(|receipts| {
            let mut known: HashMap<EnclaveKey, Known> = HashMap::new();
            store.each_kept(|kept| match events::from_bytes(&kept.body)? {
                Some(Event::Settle { items }) => self.claim(address, &terms, &kept, &items, &mut known, receipts),
                _ => {
                    known.clear();
                    Ok(())
                }
            })
        })?;
        if let Some(provider) = self.providers.get_mut(&terms.provider) {
            provider.flow.money.add(&money);
            provider.flow.channels += 1;
        }
        for (day, more) in days {
            let day = self.result.days.entry(day).or_default();
            day.deposited = day.deposited.saturating_add(more.deposited);
            day.paid = day.paid.saturating_add(more.paid);
        }
        self.result.claims += claims;
        self.result.money.add(&money);
        self.result.channel_count += 1;
        let provider = terms.provider.to_string();
        self.channels.push(ChannelFlow { address: address.to_string(), provider, claims, money });
        if self.channels.len() > 2 * MOST {
            keep_most_paid(&mut self.channels);
        }
        Ok(())
    }

    /// One claim, computed again as the Channel computes it.
    fn claim(
        &mut self,
        channel: &Address,
        terms: &ChannelInit,
        kept: &Kept,
        items: &[(ClaimedItem, UnixTime, UnixTime)],
        known: &mut HashMap<EnclaveKey, Known>,
        receipts: &mut Receipts<'_>,
    ) -> Result<(), Error> {
        let (mut expected, mut left) = (0u64, kept.paid.0);
        let passed_on = self.passed_on(channel, terms, kept)?;
        for (item, ..) in items {
            let key = &item.enclave_key;
            let (sequence, total, time) = (item.receipt.sequence, item.receipt.total, item.receipt.time);
            // The Channel checked both signatures; who shows us another message than it got accuses nobody by it.
            if !item.holds(terms.network, &terms.provider, channel) {
                continue;
            }
            let say = |kind: Kind, detail: String| {
                let detail = format!("enclave {} in channel {channel}: {detail}", Digest(key.0));
                Finding::new(kind, detail).dated(kept.time).in_transaction(&kept.hash)
            };
            let entry = known.entry(*key).or_default();
            let (mut cap, mut expiry) = (entry.cap, entry.expiry);
            if let Some(voucher) = item.promise(terms.network, channel, &terms.client_key) {
                (cap, expiry) = (voucher.cap.0, voucher.expiry);
                if cap >= entry.cap {
                    (entry.cap, entry.expiry) = (cap, expiry);
                }
            }
            let due = if time <= expiry { total.0.min(cap).saturating_sub(entry.paid) } else { 0 };
            expected = expected.saturating_add(due);
            let paid = due.min(left);
            left -= paid;
            entry.paid += paid;
            if let Some((number, other, at)) = receipts.put(key, sequence, total, time)? {
                let detail = both((sequence, total.0, time), (number, other.0, at));
                self.findings.add(say(Kind::ReceiptsContradict, detail));
            } else if due == 0 && entry.total.is_some_and(|highest| total.0 <= highest) {
                let detail = format!("the total of {} nanoton had been claimed before", total.0);
                self.findings.add(say(Kind::DoubleClaim, detail));
            }
            entry.total = entry.total.max(Some(total.0));
            let Some(claim) = passed_on.filter(|_| paid > 0) else { continue };
            let uncovered = self.covered(&terms.provider, key, &item.receipt, claim)?;
            self.result.receipts_followed += u64::from(uncovered.is_none());
            if let Some((kind, detail)) = uncovered {
                self.findings.add(say(kind, format!("{paid} nanoton for a receipt of {}: {detail}", utc(time))));
            }
        }
        if kept.paid.0 > expected {
            let detail = format!("channel {channel} paid {} nanoton on receipts for {expected}", kept.paid.0);
            let finding = Finding::new(Kind::PaidTooMuch, detail).dated(kept.time);
            self.findings.add(finding.in_transaction(&kept.hash));
        }
        Ok(())
    }

    /// When the Provider passed a claim on that a Channel settled; `None` where that cannot be said: the Provider is another Registry's,
    /// or was read before.
    fn passed_on(
        &mut self,
        channel: &Address,
        terms: &ChannelInit,
        kept: &Kept,
    ) -> Result<Option<(u64, UnixTime)>, Error> {
        let Some(provider) = self.providers.get(&terms.provider) else { return Ok(None) };
        let claim = self.store.claim(&kept.cause)?;
        let later = kept.lt > provider.to && kept.time >= self.input.as_of;
        if claim.is_none() && !later {
            let detail =
                format!("channel {channel} paid on a claim that the history of {} does not show", terms.provider);
            let finding = Finding::new(Kind::Unreconciled, detail).dated(kept.time);
            self.findings.add(finding.in_transaction(&kept.hash));
        }
        Ok(claim)
    }
}

/// What a transaction paid to the Provider's owner.
fn paid(transaction: &TxSummary) -> Result<Nanoton, ChainError> {
    let mut paid = Nanoton::ZERO;
    for sent in &transaction.sent {
        if let Some(Event::Paid(amount)) = events::of(sent)? {
            paid = paid.saturating_add(amount);
        }
    }
    Ok(paid)
}
