//! A block in the making: messages are executed against it, and nothing shows until it is committed whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tycho_executor::{ExecutorParams, ParsedConfig};
use tycho_types::cell::Cell;
use tycho_types::models::ShardAccount;

use super::block::{TxKey, tx_key};
use super::execute::{Delivery, Envelope, deliver, empty_account, envelope};
use super::execution::{Execution, Observer};
use super::store::Store;
use crate::address::Address;
use crate::error::Error;

/// Logical time of creation (big-endian), then message hash: TON's order of delivery.
pub(super) type QueueKey = [u8; 40];
pub(super) type Queue = BTreeMap<QueueKey, Queued>;

/// An internal message under way.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    /// Hash of the external message behind it.
    pub trace: [u8; 32],
    pub message: Cell,
}

/// What an external message caused so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TraceRecord {
    /// Messages still under way.
    pub pending: u32,
    pub transactions: Vec<TxKey>,
}

impl TraceRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.pending.to_be_bytes().to_vec();
        self.transactions.iter().for_each(|key| out.extend_from_slice(key));
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (pending, keys) = bytes.split_first_chunk::<4>()?;
        let (keys, rest) = keys.as_chunks::<41>();
        rest.is_empty().then(|| Self { pending: u32::from_be_bytes(*pending), transactions: keys.to_vec() })
    }
}

/// Changes that a block makes.
pub(super) struct Draft {
    pub accounts: HashMap<Address, ShardAccount>,
    pub transactions: Vec<(TxKey, Cell)>,
    pub traces: BTreeMap<[u8; 32], TraceRecord>,
    /// Messages still under way after the block.
    pub queue: Queue,
    /// Messages of earlier blocks that this one delivered.
    pub dequeued: BTreeSet<QueueKey>,
    start_lt: u64,
    pub end_lt: u64,
}

/// What a draft is built on.
pub(super) struct Base<'a> {
    pub store: &'a Store,
    pub config: &'a ParsedConfig,
    pub params: &'a ExecutorParams,
    pub accounts: &'a HashMap<Address, ShardAccount>,
    pub observer: Option<&'a Observer>,
}

impl Draft {
    pub fn new(start_lt: u64, queue: Queue) -> Self {
        Self {
            accounts: HashMap::new(),
            transactions: Vec::new(),
            traces: BTreeMap::new(),
            queue,
            dequeued: BTreeSet::new(),
            start_lt,
            end_lt: start_lt,
        }
    }

    /// Takes in an external message; an error leaves the draft as it was.
    pub fn external(&mut self, base: &Base<'_>, message: Cell) -> Result<[u8; 32], Error> {
        let hash = message.repr_hash().0;
        let to = envelope(&message)?.filter(|envelope| envelope.external);
        let to = to.ok_or_else(|| Error::BadMessage("it is internal or leaves the chain".into()))?;
        match self.execute(base, &to, message, hash)? {
            None => Ok(hash),
            Some(exit_code) => Err(Error::NotAccepted { account: to.destination, exit_code }),
        }
    }

    /// Delivers internal messages in order until none is left or the block is full.
    pub fn deliver_queue(&mut self, base: &Base<'_>, limit: usize) -> Result<(), Error> {
        while self.transactions.len() < limit {
            let Some((key, queued)) = self.queue.pop_first() else { break };
            let to =
                envelope(&queued.message)?.ok_or_else(|| Error::Execution("an outbound message was queued".into()))?;
            if let Some(exit_code) = self.execute(base, &to, queued.message, queued.trace)? {
                return Err(Error::Execution(format!("an internal message was skipped with exit code {exit_code}")));
            }
            self.trace(base, queued.trace)?.pending -= 1;
            self.dequeued.insert(key);
        }
        Ok(())
    }

    fn trace(&mut self, base: &Base<'_>, hash: [u8; 32]) -> Result<&mut TraceRecord, Error> {
        use std::collections::btree_map::Entry;
        match self.traces.entry(hash) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(base.store.trace(&hash)?.unwrap_or_default())),
        }
    }

    /// Runs one message; `Some(exit code)` if it was not accepted.
    fn execute(
        &mut self,
        base: &Base<'_>,
        to: &Envelope,
        message: Cell,
        trace: [u8; 32],
    ) -> Result<Option<i32>, Error> {
        let address = to.destination;
        let account = match self.accounts.get(&address).or_else(|| base.accounts.get(&address)) {
            Some(account) => account.clone(),
            None => base.store.account(&address)?.map_or_else(empty_account, Ok)?,
        };
        let min_lt = self.start_lt.max(to.created_lt.saturating_add(1));
        let delivery = deliver(base.config, base.params, min_lt, to, message.clone(), &account)?;
        if let Some(observer) = base.observer {
            observer(&Execution::of(base.params, min_lt, &account, message, &delivery)?);
        }
        let output = match delivery {
            Delivery::Done(output) => output,
            Delivery::NotAccepted(exit_code) => return Ok(Some(exit_code)),
        };
        let mut queued = 0;
        for out in &output.transaction_meta.out_msgs {
            let message = out.inner();
            let Some(to) = envelope(message)? else { continue };
            let mut key = [0; 40];
            key[..8].copy_from_slice(&to.created_lt.to_be_bytes());
            key[8..].copy_from_slice(&message.repr_hash().0);
            self.queue.insert(key, Queued { trace, message: message.clone() });
            queued += 1;
        }
        let key = tx_key(&address, output.new_state.last_trans_lt);
        let record = self.trace(base, trace)?;
        record.pending += queued;
        record.transactions.push(key);
        self.end_lt = self.end_lt.max(output.transaction_meta.next_lt);
        self.transactions.push((key, output.transaction.inner().clone()));
        self.accounts.insert(address, output.new_state);
        Ok(None)
    }
}
