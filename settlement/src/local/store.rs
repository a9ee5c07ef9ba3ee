//! The chain on disk: everything a block changes is written in one redb transaction, so a block is there or it is not.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tycho_types::boc::{Boc, BocRepr};
use tycho_types::cell::Cell;
use tycho_types::models::ShardAccount;

use super::block::{Block, TxKey, address_key};
use super::draft::{Draft, Queue, QueueKey, Queued, TraceRecord};
use crate::address::Address;
use crate::error::Error;

/// `format` -> version of everything below.
const META: TableDefinition<&str, u32> = TableDefinition::new("meta");
/// Address -> BoC of `ShardAccount`.
const ACCOUNTS: TableDefinition<&[u8; 33], &[u8]> = TableDefinition::new("accounts");
/// Sequence number -> encoded block.
const BLOCKS: TableDefinition<u32, &[u8]> = TableDefinition::new("blocks");
/// Address and logical time -> BoC of `Transaction`.
const TRANSACTIONS: TableDefinition<&[u8; 41], &[u8]> = TableDefinition::new("transactions");
/// Logical time and hash of a message under way -> hash of the external message behind it, then its BoC.
const QUEUE: TableDefinition<&[u8; 40], &[u8]> = TableDefinition::new("queue");
/// Hash of an external message -> messages under way (u32), then the keys of its transactions.
const TRACES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("traces");

const FORMAT: u32 = 1;

pub(super) struct Store {
    database: Database,
    path: String,
}

impl Store {
    /// Opens or creates `chain.redb` in the folder.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.display().to_string();
        let fail = |why: String| Error::Store { path: path.clone(), why };
        std::fs::create_dir_all(folder).map_err(|error| fail(error.to_string()))?;
        let database = crate::database::open(&folder.join("chain.redb"))
            .map_err(|error| fail(format!("{error}; another process may be using it")))?;
        Self::prepare(database, path)
    }

    /// A store on anything that keeps bytes.
    pub fn on(backend: impl redb::StorageBackend) -> Result<Self, Error> {
        let path = "memory".to_owned();
        let database = Database::builder()
            .create_with_backend(backend)
            .map_err(|error| Error::Store { path: path.clone(), why: error.to_string() })?;
        Self::prepare(database, path)
    }

    fn prepare(database: Database, path: String) -> Result<Self, Error> {
        let store = Self { database, path };
        let format = store.attempt(|| {
            let transaction = store.database.begin_write()?;
            let format = {
                transaction.open_table(ACCOUNTS)?;
                transaction.open_table(BLOCKS)?;
                transaction.open_table(TRANSACTIONS)?;
                transaction.open_table(QUEUE)?;
                transaction.open_table(TRACES)?;
                let mut meta = transaction.open_table(META)?;
                let format = meta.get("format")?.map(|value| value.value());
                if format.is_none() {
                    meta.insert("format", FORMAT)?;
                }
                format.unwrap_or(FORMAT)
            };
            transaction.commit()?;
            Ok(format)
        })?;
        if format != FORMAT {
            let why = format!("it is in format {format}, this version knows {FORMAT}: use the version that wrote it");
            return Err(Error::Store { path: store.path, why });
        }
        Ok(store)
    }

    fn attempt<T>(&self, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Error> {
        work().map_err(|error| Error::Store { path: self.path.clone(), why: error.to_string() })
    }

    fn damaged(&self, what: &str, why: impl std::fmt::Display) -> Error {
        Error::Store { path: self.path.clone(), why: format!("{what} cannot be read ({why}); restore it from a copy") }
    }

    fn cell(&self, what: &str, bytes: &[u8]) -> Result<Cell, Error> {
        Boc::decode(bytes).map_err(|error| self.damaged(what, error))
    }

    pub fn head(&self) -> Result<Option<Block>, Error> {
        let bytes = self.attempt(|| {
            let blocks = self.database.begin_read()?.open_table(BLOCKS)?;
            Ok(blocks.last()?.map(|(_, value)| value.value().to_vec()))
        })?;
        bytes.map(|bytes| Block::decode(&bytes)).transpose()
    }

    pub fn block(&self, seqno: u32) -> Result<Option<Block>, Error> {
        let bytes = self.attempt(|| {
            let blocks = self.database.begin_read()?.open_table(BLOCKS)?;
            Ok(blocks.get(seqno)?.map(|value| value.value().to_vec()))
        })?;
        bytes.map(|bytes| Block::decode(&bytes)).transpose()
    }

    pub fn account(&self, address: &Address) -> Result<Option<ShardAccount>, Error> {
        let bytes = self.attempt(|| {
            let accounts = self.database.begin_read()?.open_table(ACCOUNTS)?;
            Ok(accounts.get(&address_key(address))?.map(|value| value.value().to_vec()))
        })?;
        bytes.map(|bytes| BocRepr::decode(&bytes).map_err(|error| self.damaged("an account", error))).transpose()
    }

    /// Every account there ever was.
    pub fn accounts(&self) -> Result<Vec<(Address, ShardAccount)>, Error> {
        let rows = self.attempt(|| {
            let accounts = self.database.begin_read()?.open_table(ACCOUNTS)?;
            let mut rows = Vec::new();
            for row in accounts.iter()? {
                let (key, value) = row?;
                rows.push((*key.value(), value.value().to_vec()));
            }
            Ok(rows)
        })?;
        rows.into_iter()
            .map(|(key, bytes)| {
                let account = BocRepr::decode(&bytes).map_err(|error| self.damaged("an account", error))?;
                Ok((cocoon_attestation::types::ProviderAddress(key).into(), account))
            })
            .collect()
    }

    pub fn transaction(&self, key: &TxKey) -> Result<Option<Cell>, Error> {
        let bytes = self.attempt(|| {
            let transactions = self.database.begin_read()?.open_table(TRANSACTIONS)?;
            Ok(transactions.get(key)?.map(|value| value.value().to_vec()))
        })?;
        bytes.map(|bytes| self.cell("a transaction", &bytes)).transpose()
    }

    /// The newest transactions of an account with a logical time of at most `to_lt`, newest first.
    pub fn transactions(&self, address: &Address, to_lt: u64, limit: usize) -> Result<Vec<Cell>, Error> {
        let (from, to) = (super::block::tx_key(address, 0), super::block::tx_key(address, to_lt));
        let rows = self.attempt(|| {
            let transactions = self.database.begin_read()?.open_table(TRANSACTIONS)?;
            let mut rows = Vec::new();
            for row in transactions.range::<&[u8; 41]>(&from..=&to)?.rev().take(limit) {
                rows.push(row?.1.value().to_vec());
            }
            Ok(rows)
        })?;
        rows.iter().map(|bytes| self.cell("a transaction", bytes)).collect()
    }

    /// The oldest transactions of an account with a logical time above `after_lt`, oldest first.
    pub fn transactions_after(&self, address: &Address, after_lt: u64, limit: usize) -> Result<Vec<Cell>, Error> {
        let from = super::block::tx_key(address, after_lt.saturating_add(1));
        let to = super::block::tx_key(address, u64::MAX);
        let rows = self.attempt(|| {
            let transactions = self.database.begin_read()?.open_table(TRANSACTIONS)?;
            let mut rows = Vec::new();
            for row in transactions.range::<&[u8; 41]>(&from..=&to)?.take(limit) {
                rows.push(row?.1.value().to_vec());
            }
            Ok(rows)
        })?;
        rows.iter().map(|bytes| self.cell("a transaction", bytes)).collect()
    }

    pub fn trace(&self, message: &[u8; 32]) -> Result<Option<TraceRecord>, Error> {
        let bytes = self.attempt(|| {
            let traces = self.database.begin_read()?.open_table(TRACES)?;
            Ok(traces.get(message)?.map(|value| value.value().to_vec()))
        })?;
        bytes.map(|bytes| TraceRecord::decode(&bytes).ok_or_else(|| self.damaged("a trace", "truncated"))).transpose()
    }

    pub fn queue(&self) -> Result<Queue, Error> {
        let rows = self.attempt(|| {
            let queue = self.database.begin_read()?.open_table(QUEUE)?;
            let mut rows = Vec::new();
            for row in queue.iter()? {
                let (key, value) = row?;
                rows.push((*key.value(), value.value().to_vec()));
            }
            Ok(rows)
        })?;
        rows.into_iter()
            .map(|(key, bytes): (QueueKey, Vec<u8>)| {
                let (trace, boc) =
                    bytes.split_first_chunk::<32>().ok_or_else(|| self.damaged("a queued message", "truncated"))?;
                Ok((key, Queued { trace: *trace, message: self.cell("a queued message", boc)? }))
            })
            .collect()
    }

    /// Writes a whole block, durably, or nothing.
    pub fn commit(&self, block: &Block, draft: &Draft) -> Result<(), Error> {
        let mut accounts = Vec::with_capacity(draft.accounts.len());
        for (address, account) in &draft.accounts {
            accounts.push((address_key(address), BocRepr::encode(account)?));
        }
        self.attempt(|| {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(ACCOUNTS)?;
                for (key, boc) in &accounts {
                    table.insert(key, boc.as_slice())?;
                }
                let mut table = transaction.open_table(TRANSACTIONS)?;
                for (key, cell) in &draft.transactions {
                    table.insert(key, Boc::encode(cell).as_slice())?;
                }
                let mut table = transaction.open_table(TRACES)?;
                for (hash, record) in &draft.traces {
                    table.insert(hash, record.encode().as_slice())?;
                }
                let mut table = transaction.open_table(QUEUE)?;
                for key in &draft.dequeued {
                    table.remove(key)?;
                }
                for (key, queued) in &draft.queue {
                    let mut value = queued.trace.to_vec();
                    value.extend_from_slice(&Boc::encode(&queued.message));
                    table.insert(key, value.as_slice())?;
                }
                transaction.open_table(BLOCKS)?.insert(block.seqno, block.encode().as_slice())?;
            }
            transaction.commit()?;
            Ok(())
        })
    }
}
