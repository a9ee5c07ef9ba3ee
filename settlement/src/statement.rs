//! An account's statement: every transaction with what it was about, and a balance after each that ends at the chain's own.

use std::fmt::Write as _;

use cocoon_attestation::types::UnixTime;

use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::chain::{AccountState, Chain, MessageSummary, TxSummary};
use crate::contracts::{self, events::Event};
use crate::error::Error;

/// Transactions asked for at once.
const PAGE: usize = 100;
/// Times that the history is read anew because a transaction came in between.
const ATTEMPTS: usize = 5;

/// One line: a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Block time.
    pub time: UnixTime,
    /// Logical time.
    pub lt: u64,
    /// Transaction hash.
    pub hash: [u8; 32],
    /// What it was about: operations' names, `transfer`, or `returned` for value that came back.
    pub what: String,
    /// The accounts at the other end.
    pub peers: Vec<Address>,
    /// Value that came in.
    pub received: Nanoton,
    /// What of it enclaves had earned: what a Channel says that it paid for a claim. The rest of that message is left of what came with the
    /// claim.
    pub earned: Nanoton,
    /// Value that went out.
    pub sent: Nanoton,
    /// Everything that the account paid to the network for it.
    pub fees: Nanoton,
    /// What it held afterwards.
    pub balance: Nanoton,
}

/// Everything that happened on an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The account.
    pub account: Address,
    /// What it held before its first transaction: zero but for accounts that a local chain began with, where it is the rest that the
    /// transactions, none of which is missing, leave.
    pub opening: Nanoton,
    /// Transactions, oldest first.
    pub entries: Vec<Entry>,
    /// What it holds now by the chain: the last entry's balance.
    pub closing: Nanoton,
}

impl Statement {
    /// Reads an account's whole history. An error if a transaction is missing in it, or if it does not add up to the balance to the
    /// nanoton.
    pub async fn read(chain: &dyn Chain, account: &Address) -> Result<Self, Error> {
        for _ in 0..ATTEMPTS {
            let state = chain.account(account).await?;
            if let Some(transactions) = history(chain, account, &state).await? {
                return Self::of(chain.network(), *account, &state, &transactions);
            }
        }
        Err(Error::Unreconciled { account: *account, why: "it changes while it is read; try again".into() })
    }

    fn of(
        network: NetworkId,
        account: Address,
        state: &AccountState,
        newest_first: &[TxSummary],
    ) -> Result<Self, Error> {
        let wrong = |why: String| Error::Unreconciled { account, why };
        let change = |transaction: &TxSummary| {
            let [received, sent, fees] = [transaction.value_in, transaction.value_out, transaction.fees];
            i128::from(received.0) - i128::from(sent.0) - i128::from(fees.0)
        };
        let changes: i128 = newest_first.iter().map(change).sum();
        let opening = i128::from(state.balance.0) - changes;
        // Each names the one before it, up to the first, so nothing of an account that a local chain began with is hidden in its opening.
        let mut expected = (state.last_lt != 0).then_some((state.last_lt, state.last_hash));
        for transaction in newest_first {
            if expected != Some((transaction.lt, transaction.hash)) {
                return Err(wrong(missing(expected)));
            }
            expected = transaction.previous;
        }
        if expected.is_some() {
            return Err(wrong(missing(expected)));
        }
        let begun = newest_first.last().is_none_or(|first| first.existed);
        if opening != 0 && !(begun && network == NetworkId::LOCAL) {
            return Err(wrong(format!(
                "{opening} nanoton are not explained; ask an archive node, which knows all of it"
            )));
        }
        let mut balance = opening;
        let mut entries = Vec::with_capacity(newest_first.len());
        for transaction in newest_first.iter().rev() {
            balance += change(transaction);
            let mut messages: Vec<&MessageSummary> = transaction.received.iter().chain(&transaction.sent).collect();
            let mut names: Vec<&str> = messages.iter().map(|message| name(message)).collect();
            names.dedup();
            messages.dedup_by_key(|message| message.peer);
            entries.push(Entry {
                time: transaction.time,
                lt: transaction.lt,
                hash: transaction.hash,
                what: if names.is_empty() { "request".into() } else { names.join("+") },
                peers: messages.iter().map(|message| message.peer).collect(),
                received: transaction.value_in,
                earned: earned(transaction)?,
                sent: transaction.value_out,
                fees: transaction.fees,
                balance: nanoton(balance).ok_or_else(|| wrong(format!("it is negative at {}", transaction.lt)))?,
            });
        }
        let opening = nanoton(opening).ok_or_else(|| wrong("it begins below zero".into()))?;
        Ok(Self { account, opening, entries, closing: state.balance })
    }

    /// Comma-separated values with a heading; amounts in nanoton, times in seconds since 1970, accounts apart by spaces.
    pub fn to_csv(&self) -> String {
        let mut out = String::from(
            "time,lt,hash,what,peers,received_nanoton,sent_nanoton,fees_nanoton,balance_nanoton,earned_nanoton\n",
        );
        if self.opening != Nanoton::ZERO {
            let _ = writeln!(out, ",,,opening,,{},0,0,{},0", self.opening.0, self.opening.0);
        }
        for entry in &self.entries {
            let peers: Vec<String> = entry.peers.iter().map(Address::to_string).collect();
            let Entry { time, lt, hash, what, received, earned, sent, fees, balance, .. } = entry;
            let _ = writeln!(
                out,
                "{},{lt},{},{what},{},{},{},{},{},{}",
                time.0,
                hex::encode(hash),
                peers.join(" "),
                received.0,
                sent.0,
                fees.0,
                balance.0,
                earned.0
            );
        }
        out
    }
}

/// What to do about a transaction that a later one, or the account itself, names and that did not come.
fn missing(named: Option<(u64, [u8; 32])>) -> String {
    match named {
        Some((lt, hash)) => format!(
            "the transaction {} at {lt} is missing; ask an archive node, which knows all of it",
            hex::encode(hash)
        ),
        None => "there are transactions that it does not name; ask another server".into(),
    }
}

fn name(message: &MessageSummary) -> &'static str {
    match (message.bounced, message.op) {
        (true, _) => "returned",
        (false, None) => "transfer",
        (false, Some(op)) => contracts::operation(op).unwrap_or("other-contract"),
    }
}

/// Anybody can send such a message; more than came with it nobody can have paid.
fn earned(transaction: &TxSummary) -> Result<Nanoton, Error> {
    let Some(message) = transaction.received.as_ref().filter(|message| !message.bounced) else {
        return Ok(Nanoton::ZERO);
    };
    match contracts::events::of(message) {
        Ok(Some(Event::Paid(amount))) => Ok(amount.min(message.value)),
        // What this is about stands in its body.
        Err(error @ Error::Incomplete(_)) if message.op.and_then(contracts::operation) == Some("claim-paid") => {
            Err(error)
        }
        _ => Ok(Nanoton::ZERO),
    }
}

fn nanoton(amount: i128) -> Option<Nanoton> {
    u64::try_from(amount).ok().map(Nanoton)
}

/// All transactions, newest first; `None` if the account changed meanwhile.
async fn history(chain: &dyn Chain, account: &Address, state: &AccountState) -> Result<Option<Vec<TxSummary>>, Error> {
    let mut transactions: Vec<TxSummary> = Vec::new();
    if state.last_lt == 0 {
        return Ok(Some(transactions));
    }
    loop {
        let before = transactions.last().map(|last| (last.lt, last.hash));
        let page = chain.transactions_before(account, before, PAGE).await?;
        if before.is_none() && page.first().map(|newest| newest.lt) != Some(state.last_lt) {
            return Ok(None);
        }
        if page.is_empty() {
            return Ok(Some(transactions));
        }
        transactions.extend(page);
    }
}
