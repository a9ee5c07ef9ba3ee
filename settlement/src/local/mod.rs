//! A small, correct TON for development: real transactions with real gas and fees, on one machine, durable.
//!
//! Every external message makes one block that holds its whole cascade of internal messages. Blocks are chained by hash and
//! serve as the freshness beacon; [`LocalChain::tick`], or asking for the head, adds an empty one when the newest is old. What a block changes reaches the
//! disk in one atomic commit before anybody can see it, so a process that is killed at any moment continues where it was.

mod block;
mod clock;
mod config;
#[cfg(test)]
mod crash_tests;
mod draft;
#[cfg(test)]
mod emulator_tests;
mod execute;
mod execution;
pub mod foresee;
mod getter;
#[cfg(test)]
mod history_tests;
pub mod rpc;
mod rpc_v3;
mod store;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cocoon_attestation::types::{Digest, UnixTime};
use redb::backends::InMemoryBackend;
use tycho_executor::ParsedConfig;
use tycho_types::cell::{Cell, Lazy};
use tycho_types::models::{self, CurrencyCollection, OptionalAccount, ShardAccount, StorageInfo, StorageUsed};
use tycho_types::num::VarUint56;

pub use self::clock::{Clock, ManualClock, SystemClock};
pub use self::execution::Execution;

use self::block::{Block, address_key, tx_key_account};
use self::draft::{Base, Draft, Queue};
use self::execution::Observer;
use self::store::Store;
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::chain::{AccountState, BlockRef, Chain, GetResult, StackValue, Trace, TxSummary};
use crate::error::Error;
use crate::summary::tokens;

/// Transactions after which a block takes no more internal messages; what a longer cascade leaves over goes to the next blocks.
const MAX_BLOCK_TRANSACTIONS: usize = 1_000;
/// Blocks that one submission makes at most; what is then left over is delivered by later submissions and ticks.
const MAX_BLOCKS_PER_SUBMISSION: usize = 8;
/// TON starts every block at a multiple of this logical time.
const LT_ALIGN: u64 = 1_000_000;
/// Seconds between empty blocks.
const BLOCK_INTERVAL: u64 = 5;

/// How a new chain starts. An existing chain keeps its own beginning.
#[derive(Debug, Clone, Default)]
pub struct Genesis {
    /// Accounts and their balances: all the money there will ever be.
    pub accounts: Vec<(Address, Nanoton)>,
    /// Time of block 0.
    pub time: UnixTime,
}

/// Fees of one transaction that an external message causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// For bringing the message in.
    pub import: Nanoton,
    /// Rent that is due.
    pub storage: Nanoton,
    /// For computing.
    pub gas: Nanoton,
    /// For the messages that it sends.
    pub forward: Nanoton,
}

impl Estimate {
    fn of(transaction: &models::Transaction) -> Result<Self, Error> {
        let models::TxInfo::Ordinary(info) = transaction.load_info()? else {
            return Err(Error::Execution("a tick-tock transaction on an ordinary account".into()));
        };
        let storage = info.storage_phase.map_or(Ok(Nanoton::ZERO), |phase| tokens(phase.storage_fees_collected))?;
        let gas = match &info.compute_phase {
            models::ComputePhase::Executed(phase) => tokens(phase.gas_fees)?,
            models::ComputePhase::Skipped(_) => Nanoton::ZERO,
        };
        let fee = |part: Option<_>| part.map_or(Ok(Nanoton::ZERO), tokens);
        let (action, forward) = match &info.action_phase {
            Some(phase) => (fee(phase.total_action_fees)?, fee(phase.total_fwd_fees)?),
            None => (Nanoton::ZERO, Nanoton::ZERO),
        };
        let total = tokens(transaction.total_fees.tokens)?;
        let import = [storage, gas, action].into_iter().fold(total, Nanoton::saturating_sub);
        Ok(Self { import, storage, gas, forward })
    }
}

/// A TON chain in this process. Cheap calls, but they block: an external message takes about a millisecond, most of it `fsync`.
///
/// Every account that changed since it was opened stays in memory, which for development, tests and the demo is what it should do; a chain that runs for
/// long with ever new accounts grows by a few hundred bytes for each, code apart, until it is opened again.
pub struct LocalChain {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

struct State {
    store: Store,
    config: ParsedConfig,
    /// States of all accounts that blocks have changed since the chain was opened; none is ever dropped from here.
    accounts: HashMap<Address, ShardAccount>,
    queue: Queue,
    head: BlockRef,
    end_lt: u64,
    observer: Option<Observer>,
}

impl LocalChain {
    /// Opens the chain in `folder`, or starts one there, on the machine's clock.
    pub fn open(folder: &Path, genesis: Genesis) -> Result<Self, Error> {
        Self::open_with_clock(folder, genesis, Arc::new(SystemClock))
    }

    /// Opens the chain in `folder`, or starts one there, on the given clock.
    pub fn open_with_clock(folder: &Path, genesis: Genesis, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::start(Store::open(folder)?, genesis, clock)
    }

    /// A chain that lives in memory only.
    pub fn in_memory(genesis: Genesis, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::start(Store::on(InMemoryBackend::new())?, genesis, clock)
    }

    fn start(store: Store, genesis: Genesis, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let head = match store.head()? {
            Some(block) => block,
            None => write_genesis(&store, &genesis)?,
        };
        let state = State {
            config: config::load()?,
            accounts: HashMap::new(),
            queue: store.queue()?,
            head: head.reference(),
            end_lt: head.end_lt,
            store,
            observer: None,
        };
        Ok(Self { state: Mutex::new(state), clock })
    }

    /// Tells `observer` of every message that is executed from here on, before its block is committed. It holds up the chain meanwhile.
    pub fn observed_by(self, observer: impl Fn(&Execution) + Send + Sync + 'static) -> Self {
        self.lock().observer = Some(Box::new(observer));
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state only changes after a commit, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes external messages in one block (and the blocks their cascades spill into), in the given order. Each has its own
    /// result; one that is not accepted leaves no trace.
    pub fn submit(&self, externals: Vec<Cell>) -> Result<Vec<Result<[u8; 32], Error>>, Error> {
        let now = self.clock.now();
        let mut state = self.lock();
        let mut results = Vec::with_capacity(externals.len());
        state.seal(now, externals, &mut results, false)?;
        for _ in 1..MAX_BLOCKS_PER_SUBMISSION {
            if state.queue.is_empty() {
                break;
            }
            state.seal(now, Vec::new(), &mut results, false)?;
        }
        Ok(results)
    }

    /// Makes an empty block if the newest is at least five seconds old at `now`, so that the beacon moves on.
    pub fn tick(&self, now: UnixTime) -> Result<BlockRef, Error> {
        let mut state = self.lock();
        if !state.queue.is_empty() || now.0 >= state.head.time.0.saturating_add(BLOCK_INTERVAL) {
            state.seal(now, Vec::new(), &mut Vec::new(), true)?;
        }
        Ok(state.head)
    }

    /// Balances of all accounts there ever were, by address.
    pub fn balances(&self) -> Result<Vec<(Address, Nanoton)>, Error> {
        let accounts = self.lock().store.accounts()?;
        accounts.into_iter().map(|(address, account)| Ok((address, account_state(&account)?.balance))).collect()
    }

    fn stored_block(&self, seqno: u32) -> Result<Block, Error> {
        let block = self.lock().store.block(seqno)?;
        block.ok_or_else(|| Error::Unexpected(format!("block {seqno} was not found: the chain")))
    }

    /// The newest transactions up to a logical time, newest first.
    fn stored_transactions(&self, address: &Address, to_lt: u64, limit: usize) -> Result<Vec<Cell>, Error> {
        self.lock().store.transactions(address, to_lt, limit)
    }

    /// The oldest transactions after a logical time, oldest first.
    fn transactions_after(&self, address: &Address, after_lt: u64, limit: usize) -> Result<Vec<Cell>, Error> {
        self.lock().store.transactions_after(address, after_lt, limit)
    }

    /// A parameter of the configuration.
    fn config_param(&self, id: u32) -> Result<Option<Cell>, Error> {
        Ok(self.lock().config.raw.params.as_dict().get(id)?)
    }

    /// What the first transaction of an external message would cost now; nothing changes. `ignore_signature` takes every signature
    /// for a good one.
    pub fn estimate(&self, external: Cell, ignore_signature: bool) -> Result<Estimate, Error> {
        let now = self.clock.now();
        let state = self.lock();
        let time = u32::try_from(now.0.max(state.head.time.0)).map_err(|_| Error::Arithmetic("a time beyond 2106"))?;
        let start_lt = state.end_lt.next_multiple_of(LT_ALIGN) + LT_ALIGN;
        let mut params = config::executor_params(time, start_lt, random()?);
        params.vm_modifiers.chksig_always_succeed = ignore_signature;
        let State { store, config, accounts, .. } = &*state;
        let base = Base { store, config, params: &params, accounts, observer: None };
        let mut draft = Draft::new(start_lt, Queue::new());
        draft.external(&base, external)?;
        let transaction =
            draft.transactions.first().map(|(_, cell)| cell.parse::<models::Transaction>()).transpose()?;
        let transaction = transaction.ok_or_else(|| Error::Execution("a message without a transaction".into()))?;
        Estimate::of(&transaction)
    }

    /// Reads the whole history and checks that blocks link up and name exactly the transactions and states that are stored.
    pub fn check(&self) -> Result<(), Error> {
        let state = self.lock();
        let broken =
            |seqno: u32, why: &str| Error::Store { path: "chain".into(), why: format!("block {seqno}: {why}") };
        let mut previous = Digest::ZERO;
        let mut states = HashMap::new();
        for seqno in 0..=state.head.seqno {
            let block = state.store.block(seqno)?.ok_or_else(|| broken(seqno, "missing"))?;
            if block.previous != previous || block.seqno != seqno {
                return Err(broken(seqno, "does not follow the one before"));
            }
            for (key, hash) in &block.transactions {
                match state.store.transaction(key)? {
                    Some(cell) if cell.repr_hash().0 == *hash => {}
                    _ => return Err(broken(seqno, "a transaction differs or is missing")),
                }
            }
            states.extend(block.accounts.iter().copied());
            previous = block.reference().root_hash;
        }
        for (address, account) in state.store.accounts()? {
            if states.remove(&address_key(&address)) != Some(account.account.repr_hash().0) {
                return Err(broken(state.head.seqno, "an account is not in the state that the blocks say"));
            }
        }
        if previous != state.head.root_hash || !states.is_empty() {
            return Err(broken(state.head.seqno, "the head differs, or an account is missing"));
        }
        Ok(())
    }
}

impl State {
    /// Makes a block of the given messages and of what is queued; none if it would be empty, unless that is wanted.
    fn seal(
        &mut self,
        now: UnixTime,
        externals: Vec<Cell>,
        results: &mut Vec<Result<[u8; 32], Error>>,
        even_if_empty: bool,
    ) -> Result<(), Error> {
        let time = u32::try_from(now.0.max(self.head.time.0)).map_err(|_| Error::Arithmetic("a time beyond 2106"))?;
        let start_lt = self.end_lt.next_multiple_of(LT_ALIGN) + LT_ALIGN;
        let rand_seed = random()?;
        let params = config::executor_params(time, start_lt, rand_seed);
        let Self { store, config, accounts, observer, .. } = &*self;
        let base = Base { store, config, params: &params, accounts, observer: observer.as_ref() };
        let mut draft = Draft::new(start_lt, self.queue.clone());
        for message in externals {
            results.push(draft.external(&base, message));
        }
        draft.deliver_queue(&base, MAX_BLOCK_TRANSACTIONS)?;
        if draft.transactions.is_empty() && !even_if_empty {
            return Ok(());
        }
        let mut accounts: Vec<_> = draft
            .accounts
            .iter()
            .map(|(address, account)| (address_key(address), account.account.repr_hash().0))
            .collect();
        accounts.sort_unstable();
        let block = Block {
            seqno: self.head.seqno + 1,
            time,
            previous: self.head.root_hash,
            rand_seed,
            start_lt,
            end_lt: draft.end_lt,
            transactions: draft.transactions.iter().map(|(key, cell)| (*key, cell.repr_hash().0)).collect(),
            accounts,
        };
        self.store.commit(&block, &draft)?;
        self.head = block.reference();
        self.end_lt = block.end_lt;
        self.accounts.extend(draft.accounts);
        self.queue = draft.queue;
        Ok(())
    }

    fn shard_account(&self, address: &Address) -> Result<ShardAccount, Error> {
        match self.accounts.get(address) {
            Some(account) => Ok(account.clone()),
            None => self.store.account(address)?.map_or_else(execute::empty_account, Ok),
        }
    }
}

fn random() -> Result<[u8; 32], Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Error::Execution(format!("no randomness: {error}")))?;
    Ok(seed)
}

fn write_genesis(store: &Store, genesis: &Genesis) -> Result<Block, Error> {
    let time = u32::try_from(genesis.time.0).map_err(|_| Error::Arithmetic("a time beyond 2106"))?;
    let mut draft = Draft::new(0, Queue::new());
    for (address, balance) in &genesis.accounts {
        let mut account = models::Account {
            address: models::StdAddr::from(*address).into(),
            storage_stat: StorageInfo { last_paid: time, ..StorageInfo::default() },
            last_trans_lt: 0,
            balance: CurrencyCollection::new(balance.0.into()),
            state: models::AccountState::Uninit,
        };
        // As of any account that a transfer made: it pays rent for what it is.
        account.storage_stat.used =
            StorageUsed { cells: VarUint56::new(1), bits: VarUint56::new(execute::storage_bits(&account)?) };
        let account =
            ShardAccount { account: Lazy::new(&OptionalAccount(Some(account)))?, ..execute::empty_account()? };
        draft.accounts.insert(*address, account);
    }
    let mut accounts: Vec<_> =
        draft.accounts.iter().map(|(address, account)| (address_key(address), account.account.repr_hash().0)).collect();
    accounts.sort_unstable();
    let block = Block {
        seqno: 0,
        time,
        previous: Digest::ZERO,
        rand_seed: random()?,
        start_lt: 0,
        end_lt: 0,
        transactions: Vec::new(),
        accounts,
    };
    store.commit(&block, &draft)?;
    Ok(block)
}

fn account_state(shard: &ShardAccount) -> Result<AccountState, Error> {
    let Some(account) = shard.load_account()? else { return Ok(AccountState::default()) };
    let init = match &account.state {
        models::AccountState::Active(init) => Some(init),
        models::AccountState::Uninit | models::AccountState::Frozen(_) => None,
    };
    let code = init.and_then(|init| init.code.clone());
    Ok(AccountState {
        balance: tokens(account.balance.tokens)?,
        active: init.is_some(),
        code_hash: code.as_ref().map(|code| code.repr_hash().0),
        code,
        data: init.and_then(|init| init.data.clone()),
        last_lt: shard.last_trans_lt,
        last_hash: shard.last_trans_hash.0,
    })
}

#[async_trait]
impl Chain for LocalChain {
    fn network(&self) -> NetworkId {
        NetworkId::LOCAL
    }

    /// Never older than the block interval: an empty block is made if need be.
    async fn head(&self) -> Result<BlockRef, Error> {
        self.tick(self.clock.now())
    }

    async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, Error> {
        Ok(self.lock().store.block(seqno)?.map(|block| block.reference()))
    }

    async fn account(&self, address: &Address) -> Result<AccountState, Error> {
        let shard = self.lock().shard_account(address)?;
        account_state(&shard)
    }

    async fn send(&self, external: Cell) -> Result<[u8; 32], Error> {
        let mut results = self.submit(vec![external])?;
        results.pop().unwrap_or_else(|| Err(Error::Execution("a message without a result".into())))
    }

    async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, Error> {
        let now = self.clock.now();
        let state = self.lock();
        let account = state.shard_account(address)?.load_account()?.ok_or(Error::NotDeployed(*address))?;
        if !matches!(account.state, models::AccountState::Active(_)) {
            return Err(Error::NotDeployed(*address));
        }
        let now = u32::try_from(now.0.max(state.head.time.0)).map_err(|_| Error::Arithmetic("a time beyond 2106"))?;
        getter::run(&state.config, &account, method, &args, now)
    }

    async fn transactions_before(
        &self,
        address: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<TxSummary>, Error> {
        let to_lt = before.map_or(u64::MAX, |(lt, _)| lt.saturating_sub(1));
        let cells = self.stored_transactions(address, to_lt, limit)?;
        cells.iter().map(|cell| TxSummary::from_cell(*address, cell)).collect()
    }

    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error> {
        let state = self.lock();
        let Some(record) = state.store.trace(message_hash)? else { return Ok(None) };
        let mut transactions = Vec::with_capacity(record.transactions.len());
        for key in &record.transactions {
            let missing = || Error::Store { path: "chain".into(), why: "a transaction of a trace is missing".into() };
            let cell = state.store.transaction(key)?.ok_or_else(missing)?;
            transactions.push(TxSummary::from_cell(tx_key_account(key), &cell)?);
        }
        Ok(Some(Trace { transactions, finished: record.pending == 0 }))
    }
}
