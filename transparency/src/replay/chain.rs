//! The chain's side: every attestation is followed to the leaves behind it, every payment to an attestation, and every nanoton from
//! deposit to payment, refund or what is held.
//!
//! It reads accounts' transactions from the newest back, and keeps on disk what it has to look up. It believes the chain's server:
//! ask one that you trust, best your own. Channels are found by the claims that name them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use cocoon_attestation::{Digest, EnclaveKey, UnixTime};
use cocoon_settlement::cells::{Signature, Verdict};
use cocoon_settlement::chain::{Chain, TxSummary};
use cocoon_settlement::contracts::events::{self, ClaimedItem, Event};
use cocoon_settlement::contracts::{channel, provider};
use cocoon_settlement::{Address, Nanoton, NetworkId, ops};
use redb::{Database, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Kind};
use super::report::Findings;
use super::state::State;
use super::tiles::root_at;
use super::{LogResult, origin, utc};
use crate::Error;
use crate::files::Source;
use crate::note::TreeHead;

/// Transactions that are asked for at once.
const PAGE: usize = 100;
/// How far an enclave's clock may lag behind the chain's, as the contracts allow it.
const SLACK: u64 = 600;
/// Providers and channels that a result names one by one.
const MOST: usize = 100;
const DAY: u64 = 86_400;

const ATTESTED: u8 = 0;
const RETIRED: u8 = 1;
const VOID: u8 = 2;

/// Provider, key, generation: transaction at the Registry, its time, and how many verdicts count.
const VERDICTS: TableDefinition<'static, &'static [u8; 68], &'static [u8; 41]> = TableDefinition::new("verdicts");
/// Provider, key, time, kind of event: until.
const KEYS: TableDefinition<'static, &'static [u8; 73], u64> = TableDefinition::new("keys");

/// A log that was replayed, and whose verifier it is.
pub struct ReplayedLog<'a> {
    /// What came of it.
    pub result: &'a LogResult,
    /// What was found in it.
    pub state: &'a State,
    /// Its files.
    pub source: &'a (dyn Source + Sync),
    /// The verifier's position in the Registry, where that is known from elsewhere than the chain's anchors.
    pub verifier: Option<u8>,
}

/// What is to be reconciled.
pub struct ChainInput<'a> {
    /// The chain.
    pub chain: &'a dyn Chain,
    /// The Registry.
    pub registry: Address,
    /// The logs.
    pub logs: &'a [ReplayedLog<'a>],
    /// Channels besides those that claims name.
    pub channels: &'a [Address],
    /// Leaves behind later transactions may not be in the logs yet.
    pub as_of: UnixTime,
    /// For what has to be looked up; made anew.
    pub work: &'a Path,
    /// Is told how many transactions were read.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// Nanoton, by where they went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// What clients put into channels.
    pub deposited: u64,
    /// What claims paid.
    pub paid: u64,
    /// What went back to clients.
    pub refunded: u64,
    /// What channels hold now.
    pub held: u64,
    /// Fees that channels paid to the network.
    pub fees: u64,
}

impl Money {
    fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.deposited, other.deposited),
            (&mut self.paid, other.paid),
            (&mut self.refunded, other.refunded),
            (&mut self.held, other.held),
            (&mut self.fees, other.fees),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }
}

/// One day on the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainDay {
    /// Attestations that came into force.
    pub attestations: u64,
    /// Nanoton that clients deposited.
    pub deposited: u64,
    /// Nanoton that claims paid.
    pub paid: u64,
}

/// One provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderFlow {
    /// Its contract.
    pub address: String,
    /// Who claims and is paid.
    pub owner: String,
    /// Attestations that came into force.
    pub attestations: u64,
    /// Keys that were ended before their time.
    pub revocations: u64,
    /// Nanoton of stake that it holds, unbonding included.
    pub stake: u64,
    /// Nanoton that its contract holds in all.
    pub balance: u64,
    /// Its channels' money.
    pub money: Money,
    /// How many channels it has claimed on.
    pub channels: u64,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelFlow {
    /// Its contract.
    pub address: String,
    /// Its provider.
    pub provider: String,
    /// Claims that were settled.
    pub claims: u64,
    /// Its money.
    pub money: Money,
}

/// A verifier of the Registry, and its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifierLink {
    /// Its position.
    pub index: u8,
    /// Its verdict key, in hex.
    pub key: String,
    /// The origin of its log, if that is among those that were replayed.
    pub log: Option<String>,
    /// Leaves that the Registry anchors of it.
    pub anchored: Option<u64>,
}

/// What the chain amounts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainResult {
    /// Global id of the network.
    pub network: i32,
    /// The Registry.
    pub registry: String,
    /// Newest block that was looked at.
    pub block: u32,
    /// Its time.
    pub time: UnixTime,
    /// Verdicts that an attestation needs.
    pub threshold: u8,
    /// Verifiers by position.
    pub verifiers: Vec<VerifierLink>,
    /// Transactions that were read.
    pub transactions: u64,
    /// Attestations that came into force.
    pub attestations: u64,
    /// Verdicts that were followed to a leaf that says accepted and is accepted again.
    pub verdicts_followed: u64,
    /// Verdicts of verifiers whose logs are not at hand.
    pub verdicts_without_log: u64,
    /// Attestations later than the logs that were replayed.
    pub attestations_later: u64,
    /// Claims that were settled.
    pub claims: u64,
    /// Claimed receipts that were followed to an attestation.
    pub receipts_followed: u64,
    /// Checkpoints of the logs in the Registry's history that the logs continue.
    pub anchors_followed: u64,
    /// All channels' money.
    pub money: Money,
    /// Nanoton of stake that providers hold.
    pub stake: u64,
    /// How many providers there are, and the first of them.
    pub provider_count: u64,
    /// Providers, those that were paid most first.
    pub providers: Vec<ProviderFlow>,
    /// How many channels there are.
    pub channel_count: u64,
    /// Channels, those that were paid most first.
    pub channels: Vec<ChannelFlow>,
    /// By day since 1970.
    pub days: BTreeMap<u64, ChainDay>,
}

/// Holds logs against the chain.
///
/// # Errors
/// The chain did not answer, or is not of Cocoon's contracts; the disk failed.
pub async fn reconcile(input: &ChainInput<'_>, findings: &mut Findings) -> Result<ChainResult, Error> {
    let mut job = Reconcile::new(input, findings).await?;
    let providers = job.registry().await?;
    let mut channels: BTreeMap<Address, Option<Address>> =
        input.channels.iter().map(|channel| (*channel, None)).collect();
    for address in &providers {
        for channel in job.provider(address).await? {
            channels.insert(channel, Some(*address));
        }
    }
    for (address, claimed_by) in &channels {
        job.channel(address, claimed_by.as_ref()).await?;
    }
    Ok(job.finish(channels.len()))
}

struct Reconcile<'a> {
    input: &'a ChainInput<'a>,
    findings: &'a mut Findings,
    keys: Vec<[u8; 32]>,
    set_epoch: u32,
    unknown_sets: BTreeSet<u32>,
    /// Position of each verifier: place of its log.
    logs: HashMap<u8, usize>,
    database: Database,
    result: ChainResult,
    flows: BTreeMap<Address, ProviderFlow>,
    channels: Vec<ChannelFlow>,
}

impl<'a> Reconcile<'a> {
    async fn new(input: &'a ChainInput<'a>, findings: &'a mut Findings) -> Result<Self, Error> {
        let head = input.chain.head().await?;
        let params = ops::registry_params(input.chain, &input.registry).await?;
        let path = input.work.join("chain.redb");
        std::fs::create_dir_all(input.work)?;
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let database = cocoon_settlement::database::open(&path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(VERDICTS)?;
        transaction.open_table(KEYS)?;
        transaction.commit()?;
        let mut logs: HashMap<u8, usize> = HashMap::new();
        let mut verifiers = Vec::new();
        for (index, key) in (0u8..).zip(&params.verifiers) {
            let anchored =
                cocoon_settlement::contracts::registry::anchored(input.chain, &input.registry, index).await?;
            let anchored = anchored.filter(|anchored| anchored.verifier == *key);
            let place = input.logs.iter().position(|log| {
                let named = Digest::of(&[log.result.origin.as_bytes()]);
                log.verifier == Some(index) || anchored.as_ref().is_some_and(|anchored| anchored.origin == named)
            });
            logs.extend(place.map(|place| (index, place)));
            verifiers.push(VerifierLink {
                index,
                key: Digest(*key).to_string(),
                log: place.and_then(|place| input.logs.get(place)).map(|log| log.result.origin.clone()),
                anchored: anchored.map(|anchored| anchored.tree_size),
            });
        }
        let NetworkId(network) = input.chain.network();
        let result = ChainResult {
            network,
            registry: input.registry.to_string(),
            block: head.seqno,
            time: head.time,
            threshold: params.threshold,
            verifiers,
            transactions: 0,
            attestations: 0,
            verdicts_followed: 0,
            verdicts_without_log: 0,
            attestations_later: 0,
            claims: 0,
            receipts_followed: 0,
            anchors_followed: 0,
            money: Money::default(),
            stake: 0,
            provider_count: 0,
            providers: Vec::new(),
            channel_count: 0,
            channels: Vec::new(),
            days: BTreeMap::new(),
        };
        Ok(Self {
            input,
            findings,
            keys: params.verifiers,
            set_epoch: params.set_epoch,
            unknown_sets: BTreeSet::new(),
            logs,
            database,
            result,
            flows: BTreeMap::new(),
            channels: Vec::new(),
        })
    }

    /// A page of an account's transactions, before a given one.
    async fn page(&mut self, account: &Address, last: &mut Option<(u64, [u8; 32])>) -> Result<Vec<TxSummary>, Error> {
        let page = self.input.chain.transactions_before(account, *last, PAGE).await?;
        *last = page.last().map(|oldest| (oldest.lt, oldest.hash)).or(*last);
        self.result.transactions += page.len() as u64;
        (self.input.progress)(self.result.transactions);
        Ok(page)
    }

    /// Every verdict and anchor that the Registry took; the Providers that it passed attestations on to.
    async fn registry(&mut self) -> Result<BTreeSet<Address>, Error> {
        let mut providers = BTreeSet::new();
        let (registry, mut last) = (self.input.registry, None);
        loop {
            let page = self.page(&registry, &mut last).await?;
            if page.is_empty() {
                return Ok(providers);
            }
            let mut verdicts = Vec::new();
            for transaction in page.iter().filter(|transaction| !transaction.failed) {
                let Some(event) = event(transaction) else { continue };
                match event {
                    Event::Attest { verdict, signatures } => {
                        providers.insert(verdict.provider);
                        verdicts.push(self.verdicts(transaction, &verdict, &signatures)?);
                    }
                    Event::Anchor { checkpoint, .. } if transaction.time <= self.input.as_of => {
                        let head = TreeHead { size: checkpoint.tree_size, root: checkpoint.root };
                        self.anchor(transaction, &checkpoint.origin, &head);
                    }
                    Event::RevokeKey { provider, .. } => drop(providers.insert(provider)),
                    _ => {}
                }
            }
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(VERDICTS)?;
                for (key, value) in &verdicts {
                    table.insert(key, value)?;
                }
            }
            write.commit()?;
        }
    }

    /// Follows verdicts to their leaves; what is kept of them for when the attestation shows at its Provider.
    fn verdicts(
        &mut self,
        transaction: &TxSummary,
        verdict: &Verdict,
        signatures: &[(u8, Signature)],
    ) -> Result<([u8; 68], [u8; 41]), Error> {
        // Signers whose log backs them, and those about whom nothing can be said.
        let (mut backed, mut unknown) = (0u8, 0u8);
        if verdict.set_epoch != self.set_epoch {
            unknown = u8::try_from(signatures.len()).unwrap_or(u8::MAX);
            if self.unknown_sets.insert(verdict.set_epoch) {
                let detail = format!(
                    "verifier set {} signed it; the Registry shows the keys of set {} only",
                    verdict.set_epoch, self.set_epoch
                );
                let finding = Finding::new(Kind::SetNotKnown, detail).of(verdict.evidence_id).dated(transaction.time);
                self.findings.add(finding.in_transaction(&transaction.hash));
            }
        } else if transaction.time > self.input.as_of {
            unknown = u8::try_from(signatures.len()).unwrap_or(u8::MAX);
        } else {
            let mut signers = BTreeSet::new();
            for (index, signature) in signatures {
                let holds =
                    self.keys.get(usize::from(*index)).is_some_and(|key| verdict.verify(signature, key).is_ok());
                if !holds || !signers.insert(*index) {
                    continue;
                }
                match self.backs(*index, &verdict.evidence_id)? {
                    Backed::Yes => backed += 1,
                    Backed::NoLog => unknown += 1,
                    Backed::No(log, why) => {
                        let detail = format!("verifier {index} signed for it, and its log {why}");
                        let finding = Finding::new(Kind::VerdictWithoutLeaf, detail).of(verdict.evidence_id);
                        let finding = finding.in_log(&log).dated(transaction.time).in_transaction(&transaction.hash);
                        self.findings.add(finding);
                    }
                }
            }
        }
        self.result.verdicts_followed += u64::from(backed);
        self.result.verdicts_without_log += u64::from(unknown);
        let mut value = [0; 41];
        value[..32].copy_from_slice(&transaction.hash);
        value[32..40].copy_from_slice(&transaction.time.0.to_be_bytes());
        value[40] = backed.saturating_add(unknown);
        Ok((verdict_key(&verdict.provider, &verdict.enclave_key, verdict.generation), value))
    }

    fn backs(&self, verifier: u8, evidence_id: &Digest) -> Result<Backed, Error> {
        let Some(log) = self.logs.get(&verifier).and_then(|place| self.input.logs.get(*place)) else {
            return Ok(Backed::NoLog);
        };
        let leaves = log.state.logged(evidence_id)?;
        if leaves.iter().any(|leaf| leaf.confirmed) {
            return Ok(Backed::Yes);
        }
        let why = match leaves.last() {
            // It may stand in front of where the replay began, or where the log cannot be read on.
            None if log.result.from > 0 || log.result.replayed < log.result.size => return Ok(Backed::NoLog),
            None => "holds no leaf of that evidence".to_owned(),
            Some(leaf) if leaf.outcome != cocoon_verifier::Outcome::Accepted => {
                format!("says {} of it in leaf {}", leaf.outcome, leaf.leaf)
            }
            Some(leaf) => format!("says accepted in leaf {}, which is not what comes of its evidence", leaf.leaf),
        };
        Ok(Backed::No(log.result.origin.clone(), why))
    }

    /// A checkpoint in the Registry must be of the log's own past.
    fn anchor(&mut self, transaction: &TxSummary, named: &Digest, anchored: &TreeHead) {
        let log = self.input.logs.iter().find(|log| Digest::of(&[log.result.origin.as_bytes()]) == *named);
        let Some(log) = log else { return };
        let Some(root) = log.result.root.as_deref().and_then(|root| root.parse().ok()) else { return };
        let head = TreeHead { size: log.result.size, root };
        let (size, root) = (anchored.size, anchored.root);
        let detail = if size > head.size {
            format!("the Registry anchors {size} leaves of it, and it shows {}", head.size)
        } else {
            match root_at(log.source, &head, size) {
                Ok(own) if own == root => {
                    self.result.anchors_followed += 1;
                    return;
                }
                Ok(own) => {
                    format!("the Registry anchors {size} leaves of root {root}, and the log's have the root {own}")
                }
                Err(_) => return,
            }
        };
        let finding = Finding::new(Kind::SplitView, detail).in_log(&log.result.origin).dated(transaction.time);
        self.findings.add(finding.in_transaction(&transaction.hash));
    }

    /// A Provider's attestations and revocations; the Channels that it claimed on.
    async fn provider(&mut self, address: &Address) -> Result<BTreeSet<Address>, Error> {
        let account = self.input.chain.account(address).await?;
        let mut flow = ProviderFlow {
            address: address.to_string(),
            owner: String::new(),
            attestations: 0,
            revocations: 0,
            stake: 0,
            balance: account.balance.0,
            money: Money::default(),
            channels: 0,
        };
        let known = account.code_hash == Some(provider::provider_code_hash());
        if known {
            let stake = provider::stake_state(self.input.chain, address).await?;
            flow.stake = stake.stake.0.saturating_add(stake.unbonding.0);
            flow.owner = provider::terms(self.input.chain, address).await?.owner.to_string();
        } else if account.active {
            self.findings.add(Finding::new(
                Kind::UnknownCode,
                format!("the provider {address} does not hold a Provider's code"),
            ));
        }
        let (mut channels, mut last, mut sums) = (BTreeSet::new(), None, Sums::default());
        loop {
            let page = self.page(address, &mut last).await?;
            if page.is_empty() {
                break;
            }
            let mut keys = Vec::new();
            for transaction in &page {
                sums.add(transaction);
                if transaction.failed || !known {
                    continue;
                }
                let by_registry = transaction.received.as_ref().is_some_and(|from| from.peer == self.input.registry);
                match event(transaction) {
                    Some(Event::Attested { key, generation, until, evidence_id, .. }) if by_registry => {
                        flow.attestations += 1;
                        keys.push((life_key(address, &key, transaction.time, ATTESTED), until.0));
                        self.attested(transaction, address, &key, generation, &evidence_id)?;
                    }
                    Some(Event::Revoke { key, void }) => {
                        flow.revocations += 1;
                        keys.push((life_key(address, &key, transaction.time, if void { VOID } else { RETIRED }), 0));
                    }
                    Some(Event::Slash { key, .. }) => {
                        keys.push((life_key(address, &key, transaction.time, VOID), 0));
                    }
                    Some(Event::Claim { channel, .. }) => drop(channels.insert(channel)),
                    _ => {}
                }
            }
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(KEYS)?;
                for (key, until) in &keys {
                    table.insert(key, *until)?;
                }
            }
            write.commit()?;
        }
        self.balanced(address, account.balance, &sums);
        self.result.attestations += flow.attestations;
        self.result.stake = self.result.stake.saturating_add(flow.stake);
        self.flows.insert(*address, flow);
        Ok(channels)
    }

    fn attested(
        &mut self,
        transaction: &TxSummary,
        provider: &Address,
        key: &EnclaveKey,
        generation: u32,
        evidence_id: &Digest,
    ) -> Result<(), Error> {
        self.day(transaction.time).attestations += 1;
        if transaction.time > self.input.as_of {
            self.result.attestations_later += 1;
            return Ok(());
        }
        let table = self.database.begin_read()?.open_table(VERDICTS)?;
        let verdicts = table.get(&verdict_key(provider, key, generation))?;
        let count = verdicts.as_ref().map_or(0, |verdicts| verdicts.value()[40]);
        if count < self.result.threshold {
            let needed = self.result.threshold;
            let detail = match verdicts {
                None => "the Registry's history has no verdicts for it".to_owned(),
                Some(_) => format!("{count} of its verdicts have an accepted leaf behind them, {needed} are needed"),
            };
            let finding = Finding::new(
                Kind::AttestationWithoutQuorum,
                format!("enclave {} of {provider}: {detail}", Digest(key.0)),
            );
            self.findings.add(finding.of(*evidence_id).dated(transaction.time).in_transaction(&transaction.hash));
        }
        Ok(())
    }

    /// A Channel's money, and what each of its claims was paid on.
    async fn channel(&mut self, address: &Address, claimed_by: Option<&Address>) -> Result<(), Error> {
        let account = self.input.chain.account(address).await?;
        let known = account.code_hash == Some(channel::channel_code_hash());
        // A claim can name any account; what is none of Cocoon's channels bounced it.
        if account.active && !known {
            return Ok(());
        }
        let (mut last, mut sums, mut settled) = (None, Sums::default(), Vec::new());
        let mut money = Money { held: account.balance.0, ..Money::default() };
        let mut provider = claimed_by.copied();
        loop {
            let page = self.page(address, &mut last).await?;
            if page.is_empty() {
                break;
            }
            for transaction in &page {
                sums.add(transaction);
                money.fees = money.fees.saturating_add(transaction.fees.0);
                if transaction.failed {
                    continue;
                }
                let op = transaction.received.as_ref().and_then(|message| message.op);
                if op == Some(0x4303_0001) {
                    money.deposited = money.deposited.saturating_add(transaction.value_in.0);
                    self.day(transaction.time).deposited += transaction.value_in.0;
                }
                for sent in transaction.sent.iter().filter(|sent| sent.op == Some(0x4304_0002)) {
                    money.refunded = money.refunded.saturating_add(sent.value.0);
                }
                if let Some(Event::Settle { items }) = event(transaction) {
                    let paid = transaction.sent.iter().filter_map(|sent| match events::read(&sent.body) {
                        Some(Event::Paid(amount)) => Some(amount),
                        _ => None,
                    });
                    let paid: Nanoton = paid.sum();
                    provider = transaction.received.as_ref().map(|message| message.peer).or(provider);
                    money.paid = money.paid.saturating_add(paid.0);
                    self.day(transaction.time).paid += paid.0;
                    settled.push(Settled { hash: transaction.hash, time: transaction.time, items, paid });
                }
            }
        }
        self.balanced(address, account.balance, &sums);
        settled.reverse();
        if let Some(provider) = provider {
            self.settled(address, &provider, &settled)?;
            if let Some(flow) = self.flows.get_mut(&provider) {
                flow.money.add(&money);
                flow.channels += 1;
            }
        }
        self.result.claims += settled.len() as u64;
        self.result.money.add(&money);
        let provider = provider.map(|provider| provider.to_string()).unwrap_or_default();
        self.channels.push(ChannelFlow { address: address.to_string(), provider, claims: settled.len() as u64, money });
        Ok(())
    }

    /// What came in, less what went out, is what is there.
    fn balanced(&mut self, account: &Address, balance: Nanoton, sums: &Sums) {
        let expected = sums.received - sums.sent - sums.fees;
        if expected != i128::from(balance.0) {
            let detail = format!("{account} holds {} nanoton, and its transactions leave {expected}", balance.0);
            self.findings.add(Finding::new(Kind::Unreconciled, detail));
        }
    }

    /// Follows each settled receipt, oldest first.
    fn settled(&mut self, channel: &Address, provider: &Address, settled: &[Settled]) -> Result<(), Error> {
        let mut known: HashMap<EnclaveKey, Known> = HashMap::new();
        for claim in settled {
            let (mut expected, mut left) = (0u64, claim.paid.0);
            for (item, ..) in &claim.items {
                let key = &item.enclave_key;
                let entry = known.entry(*key).or_default();
                let say = |kind: Kind, detail: String| {
                    let detail = format!("enclave {} in channel {channel}: {detail}", Digest(key.0));
                    Finding::new(kind, detail).dated(claim.time).in_transaction(&claim.hash)
                };
                if let Some(voucher) = &item.voucher {
                    entry.cap = entry.cap.max(voucher.cap.0);
                }
                let due = item.total.0.min(entry.cap).saturating_sub(entry.paid);
                expected = expected.saturating_add(due);
                let paid = due.min(left);
                left -= paid;
                entry.paid += paid;
                if let Some((sequence, total)) = entry.receipt {
                    let later_is_less = item.sequence >= sequence && item.total.0 < total;
                    let earlier_is_more = item.sequence <= sequence && item.total.0 > total;
                    if later_is_less || earlier_is_more {
                        let detail = format!(
                            "receipt {} of {} nanoton and receipt {sequence} of {total} nanoton",
                            item.sequence, item.total.0
                        );
                        self.findings.add(say(Kind::ReceiptsContradict, detail));
                    } else if due == 0 && item.total.0 <= total {
                        let detail = format!("the total of {} nanoton had been claimed before", item.total.0);
                        self.findings.add(say(Kind::DoubleClaim, detail));
                    }
                }
                if entry.receipt.is_none_or(|(_, total)| item.total.0 > total) {
                    entry.receipt = Some((item.sequence, item.total.0));
                }
                if paid == 0 {
                    continue;
                }
                let covered = self.covered(provider, item, claim.time)?;
                self.result.receipts_followed += u64::from(covered.is_none());
                if let Some((kind, detail)) = covered {
                    self.findings
                        .add(say(kind, format!("{paid} nanoton for a receipt of {}: {detail}", utc(item.time))));
                }
            }
            if claim.paid.0 > expected {
                let detail = format!("channel {channel} paid {} nanoton on receipts for {expected}", claim.paid.0);
                let finding = Finding::new(Kind::PaidTooMuch, detail).dated(claim.time);
                self.findings.add(finding.in_transaction(&claim.hash));
            }
        }
        Ok(())
    }

    /// Why a receipt should not have been paid at a time, if so.
    fn covered(
        &self,
        provider: &Address,
        item: &ClaimedItem,
        paid_at: UnixTime,
    ) -> Result<Option<(Kind, String)>, Error> {
        let table = self.database.begin_read()?.open_table(KEYS)?;
        let from = life_key(provider, &item.enclave_key, UnixTime(0), ATTESTED);
        let to = life_key(provider, &item.enclave_key, paid_at, VOID);
        let (mut since, mut until, mut ended) = (None, UnixTime(0), None);
        for entry in table.range::<&[u8; 73]>(&from..=&to)? {
            let (key, value) = entry?;
            let time = UnixTime(u64::from_be_bytes(std::array::from_fn(|n| key.value()[64 + n])));
            match key.value()[72] {
                ATTESTED if ended.is_some() || since.is_none() => {
                    // Attested anew: the key's former life counts no more.
                    (since, until, ended) = (Some(time), UnixTime(value.value()), None);
                }
                ATTESTED => until = until.max(UnixTime(value.value())),
                RETIRED => ended = ended.or(Some((time, false))),
                _ => ended = Some((time, true)),
            }
        }
        let Some(since) = since else {
            return Ok(Some((Kind::PayoutWithoutAttestation, "its key was never attested there".into())));
        };
        if let Some((time, void)) = ended.filter(|(time, void)| *void || item.time > *time) {
            let how = if void { "void" } else { "retired" };
            return Ok(Some((Kind::RevokedReceipt, format!("its key was {how} at {}", utc(time)))));
        }
        if item.time > until || item.time.plus(SLACK) < since {
            let detail = format!("its key was attested from {} to {}", utc(since), utc(until));
            return Ok(Some((Kind::PayoutWithoutAttestation, detail)));
        }
        Ok(None)
    }

    fn day(&mut self, time: UnixTime) -> &mut ChainDay {
        self.result.days.entry(time.0 / DAY).or_default()
    }

    fn finish(mut self, channels: usize) -> ChainResult {
        self.result.provider_count = self.flows.len() as u64;
        self.result.channel_count = channels as u64;
        self.result.providers = self.flows.into_values().collect();
        self.result.providers.sort_by_key(|flow| std::cmp::Reverse((flow.money.paid, flow.attestations)));
        self.result.providers.truncate(MOST);
        self.channels.sort_by_key(|flow| std::cmp::Reverse(flow.money.paid));
        self.channels.truncate(MOST);
        self.result.channels = self.channels;
        self.result
    }
}

enum Backed {
    Yes,
    /// The verifier's log is not at hand.
    NoLog,
    /// The log, and what it says.
    No(String, String),
}

/// A claim that a Channel carried out.
struct Settled {
    hash: [u8; 32],
    time: UnixTime,
    items: Vec<(ClaimedItem, UnixTime, UnixTime)>,
    paid: Nanoton,
}

/// What a Channel's history says of an enclave so far.
#[derive(Default)]
struct Known {
    cap: u64,
    paid: u64,
    /// Number and total of the highest receipt.
    receipt: Option<(u64, u64)>,
}

/// Everything that moved on an account.
#[derive(Default)]
struct Sums {
    received: i128,
    sent: i128,
    fees: i128,
}

impl Sums {
    fn add(&mut self, transaction: &TxSummary) {
        self.received += i128::from(transaction.value_in.0);
        self.sent += i128::from(transaction.value_out.0);
        self.fees += i128::from(transaction.fees.0);
    }
}

fn event(transaction: &TxSummary) -> Option<Event> {
    let message = transaction.received.as_ref().filter(|message| !message.bounced)?;
    events::read(&message.body)
}

fn verdict_key(provider: &Address, key: &EnclaveKey, generation: u32) -> [u8; 68] {
    let mut out = [0; 68];
    out[..32].copy_from_slice(&provider.hash);
    out[32..64].copy_from_slice(&key.0);
    out[64..].copy_from_slice(&generation.to_be_bytes());
    out
}

fn life_key(provider: &Address, key: &EnclaveKey, time: UnixTime, kind: u8) -> [u8; 73] {
    let mut out = [0; 73];
    out[..32].copy_from_slice(&provider.hash);
    out[32..64].copy_from_slice(&key.0);
    out[64..72].copy_from_slice(&time.0.to_be_bytes());
    out[72] = kind;
    out
}

/// A log's verifier by its origin, for results that were read back.
pub fn verifier_of<'a>(result: &'a ChainResult, key: &str) -> Option<&'a VerifierLink> {
    result.verifiers.iter().find(|verifier| verifier.log.as_deref() == Some(origin(key)))
}
