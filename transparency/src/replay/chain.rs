//! The chain's side: every attestation is followed to the leaves behind it, every payment to an attestation, and every nanoton from
//! deposit to payment, refund or what is held.
//!
//! It reads accounts' transactions from the newest back, up to the state that the account had when it was looked at, and keeps on disk
//! what it has to look up. It believes the chain's server: ask one that you trust, best your own. Of what stands on the chain it
//! believes only what a contract of Cocoon carried out, and nothing about a contract that did not begin as one. Channels are found by
//! the claims that name them.

mod channel;
mod provider;
mod registry;
mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use cocoon_attestation::UnixTime;
use cocoon_settlement::chain::{AccountState, Chain, TxSummary};
use cocoon_settlement::contracts::events::{self, Event};
use cocoon_settlement::contracts::registry::registry_code_hash;
use cocoon_settlement::{Address, Error as ChainError, Nanoton, NetworkId};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Kind};
use super::report::Findings;
use super::state::State;
use super::{LogResult, origin, utc};
use crate::Error;
use crate::files::Source;
use provider::Provider;
use registry::Sets;
use store::Store;

/// Transactions that are asked for at once.
const PAGE: usize = 100;
/// How far clocks may differ: an enclave's from the chain's, as the contracts allow it, and a node's or a witness's too.
const SLACK: u64 = 600;
/// Providers and channels that a result names one by one.
const MOST: usize = 100;
const DAY: u64 = 86_400;

/// A log that was replayed, and whose verifier it is.
pub struct ReplayedLog<'a> {
    /// What came of it.
    pub result: &'a LogResult,
    /// What was found in it.
    pub state: &'a State,
    /// Its files.
    pub source: &'a (dyn Source + Sync),
    /// The verifier's position in the Registry, from whatever the auditor trusts. The chain does not say it: whoever has a verdict key can
    /// anchor the checkpoint of any log. Without it the log backs no verdicts, and no anchor is held against it.
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
    /// The chain's time before the logs were read: leaves behind later transactions may not be in them yet.
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
    /// Attestations later than the logs that were replayed, or than what was read of the Registry.
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
    for provider in job.registry().await? {
        job.provider(&provider).await?;
    }
    job.channels().await?;
    Ok(job.finish())
}

struct Reconcile<'a> {
    input: &'a ChainInput<'a>,
    findings: &'a mut Findings,
    store: Arc<Store>,
    /// The Registry, as it was when it was looked at.
    registry: AccountState,
    sets: Sets,
    unknown_sets: BTreeSet<u32>,
    /// Verifiers' keys: place of the log that the auditor says is theirs.
    bound: HashMap<[u8; 32], usize>,
    /// Logs that end too early for something: how much, and the first of it.
    later: BTreeMap<usize, (u64, UnixTime, [u8; 32])>,
    result: ChainResult,
    providers: BTreeMap<Address, Provider>,
    channels: Vec<ChannelFlow>,
}

/// An account's transactions up to a state of it, newest first.
struct Pages {
    account: Address,
    /// Later ones came in since.
    to: u64,
    last: Option<(u64, [u8; 32])>,
}

impl Pages {
    fn of(account: &Address, state: &AccountState) -> Self {
        // An account that is no more has no last transaction.
        let to = if state.last_lt == 0 { u64::MAX } else { state.last_lt };
        Self { account: *account, to, last: None }
    }
}

impl<'a> Reconcile<'a> {
    async fn new(input: &'a ChainInput<'a>, findings: &'a mut Findings) -> Result<Self, Error> {
        let head = input.chain.head().await?;
        let registry = input.chain.account(&input.registry).await?;
        if !registry.active {
            return Err(ChainError::NotDeployed(input.registry).into());
        }
        if registry.code_hash != Some(registry_code_hash()) {
            return Err(ChainError::Unexpected(format!("{} (the Registry)", input.registry)).into());
        }
        let NetworkId(network) = input.chain.network();
        let result = ChainResult {
            network,
            registry: input.registry.to_string(),
            block: head.seqno,
            time: head.time,
            threshold: 0,
            verifiers: Vec::new(),
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
            store: Arc::new(Store::make(input.work)?),
            registry,
            sets: Sets::default(),
            unknown_sets: BTreeSet::new(),
            bound: HashMap::new(),
            later: BTreeMap::new(),
            result,
            providers: BTreeMap::new(),
            channels: Vec::new(),
        })
    }

    /// The next page of an account's transactions.
    async fn page(&mut self, pages: &mut Pages) -> Result<Option<Vec<TxSummary>>, Error> {
        let mut page = self.input.chain.transactions_before(&pages.account, pages.last, PAGE).await?;
        let Some(oldest) = page.last().map(|oldest| (oldest.lt, oldest.hash)) else { return Ok(None) };
        if pages.last.is_some_and(|(lt, _)| oldest.0 >= lt) {
            return Err(ChainError::Unexpected(format!("the history of {}", pages.account)).into());
        }
        pages.last = Some(oldest);
        page.retain(|transaction| transaction.lt <= pages.to);
        self.result.transactions += page.len() as u64;
        (self.input.progress)(self.result.transactions);
        Ok(Some(page))
    }

    /// What a transaction carried out; found where nobody can say what.
    fn event(&mut self, transaction: &TxSummary) -> Result<Option<Event>, Error> {
        let event = read(transaction)?;
        Ok(event.unwrap_or_else(|finding| {
            self.findings.add(finding);
            None
        }))
    }

    /// What came in, less what went out, is what is there.
    fn balanced(&mut self, account: &Address, balance: Nanoton, sums: &Sums) {
        let expected = sums.received - sums.sent - sums.fees;
        if expected != i128::from(balance.0) {
            let detail = format!("{account} holds {} nanoton, and its transactions leave {expected}", balance.0);
            self.findings.add(Finding::new(Kind::Unreconciled, detail));
        }
    }

    fn day(&mut self, time: UnixTime) -> &mut ChainDay {
        self.result.days.entry(time.0 / DAY).or_default()
    }

    fn finish(mut self) -> ChainResult {
        for (place, (count, time, hash)) in std::mem::take(&mut self.later) {
            let Some(log) = self.input.logs.get(place) else { continue };
            let detail = format!(
                "this copy of it ends at {}; {count} attestations or checkpoints of its verifier on the chain are later or no more than \
                 ten minutes earlier, and it does not hold what they rest on: fetch it anew and look again",
                utc(registry::end(log.result))
            );
            let finding = Finding::new(Kind::LaterThanLog, detail).in_log(&log.result.origin).dated(time);
            self.findings.add(finding.in_transaction(&hash));
        }
        self.result.provider_count = self.providers.len() as u64;
        self.result.providers = self.providers.into_values().map(|provider| provider.flow).collect();
        self.result.providers.sort_by_key(|flow| std::cmp::Reverse((flow.money.paid, flow.attestations)));
        self.result.providers.truncate(MOST);
        keep_most_paid(&mut self.channels);
        self.result.channels = self.channels;
        self.result
    }
}

/// What a transaction carried out, or what is found where nobody can say what.
fn read(transaction: &TxSummary) -> Result<Result<Option<Event>, Finding>, Error> {
    match events::carried_out(transaction) {
        Ok(event) => Ok(Ok(event)),
        Err(ChainError::Malformed { why, .. }) => {
            let op = transaction.received.as_ref().and_then(|message| message.op).unwrap_or(0);
            Ok(Err(unreadable(transaction, &format!("carried out the operation {op:08x}: {why}"))))
        }
        Err(error) => Err(error.into()),
    }
}

fn unreadable(transaction: &TxSummary, what: &str) -> Finding {
    let finding = Finding::new(Kind::UnreadableMessage, format!("{} {what}", transaction.account));
    finding.dated(transaction.time).in_transaction(&transaction.hash)
}

fn keep_most_paid(channels: &mut Vec<ChannelFlow>) {
    channels.sort_by_key(|flow| std::cmp::Reverse(flow.money.paid));
    channels.truncate(MOST);
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

/// A log's verifier by its origin, for results that were read back.
pub fn verifier_of<'a>(result: &'a ChainResult, key: &str) -> Option<&'a VerifierLink> {
    result.verifiers.iter().find(|verifier| verifier.log.as_deref() == Some(origin(key)))
}
