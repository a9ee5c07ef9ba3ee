//! What the node knows about an evidence id: where it was logged and what was signed for it. All of it follows from the log, but for
//! verdicts, which follow from the log and the chain.

use std::path::Path;

use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_verifier::Outcome;
use redb::{Database, ReadableDatabase, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::Error;

const RECORDS: TableDefinition<'static, [u8; 32], &'static [u8]> = TableDefinition::new("evidence");
/// Accepted evidence whose attestation has not ended: what is appraised again and again, and until when.
const LIVE: TableDefinition<'static, [u8; 32], u64> = TableDefinition::new("live");
/// Leaves of the log that are in `RECORDS`.
const INDEXED: TableDefinition<'static, (), u64> = TableDefinition::new("indexed");

/// Bytes of the database that are kept in memory: it grows with the log, and memory must not.
const CACHE: usize = 16 << 20;

/// An evidence id's place in the log and its latest verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub leaf_index: u64,
    pub outcome: Outcome,
    /// Why, where it was not accepted.
    pub reason: String,
    /// Bag of cells of the latest verdict, hexadecimal.
    pub verdict: Option<String>,
    /// When its attestation ends, where there is one.
    pub until: Option<UnixTime>,
}

pub(crate) struct Store(Database);

impl Store {
    pub fn open(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir)?;
        let database = cocoon_settlement::database::open_within(&dir.join("node.redb"), CACHE)?;
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(LIVE)?;
        transaction.open_table(INDEXED)?;
        transaction.commit()?;
        Ok(Self(database))
    }

    pub fn get(&self, id: &EvidenceId) -> Result<Option<Record>, Error> {
        let table = self.0.begin_read()?.open_table(RECORDS)?;
        match table.get(id.0.0)? {
            Some(record) => Ok(Some(serde_json::from_slice(record.value())?)),
            None => Ok(None),
        }
    }

    /// Leaves of the log that are known here.
    pub fn indexed(&self) -> Result<u64, Error> {
        let table = self.0.begin_read()?.open_table(INDEXED)?;
        Ok(table.get(())?.map_or(0, |size| size.value()))
    }

    /// Writes records in one commit, and how many leaves of the log are known by then.
    pub fn put(&self, records: &[(EvidenceId, Record)], indexed: Option<u64>) -> Result<(), Error> {
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            let mut live = transaction.open_table(LIVE)?;
            for (id, record) in records {
                table.insert(id.0.0, serde_json::to_vec(record)?.as_slice())?;
                match record.until.filter(|_| record.outcome == Outcome::Accepted) {
                    Some(until) => live.insert(id.0.0, until.0)?,
                    None => live.remove(id.0.0)?,
                };
            }
            if let Some(indexed) = indexed {
                transaction.open_table(INDEXED)?.insert((), indexed)?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Accepted evidence whose attestation has not ended, in the order of the log, which is read fastest that way. What has ended is forgotten
    /// here.
    pub fn live(&self, now: UnixTime) -> Result<Vec<EvidenceId>, Error> {
        let (mut alive, mut ended) = (Vec::new(), false);
        let transaction = self.0.begin_read()?;
        let records = transaction.open_table(RECORDS)?;
        for entry in transaction.open_table(LIVE)?.iter()? {
            let (id, until) = entry?;
            if until.value() > now.0 {
                let Some(record) = records.get(id.value())? else { continue };
                let record: Record = serde_json::from_slice(record.value())?;
                alive.push((record.leaf_index, EvidenceId(Digest(id.value()))));
            } else {
                ended = true;
            }
        }
        if ended {
            let transaction = self.0.begin_write()?;
            transaction.open_table(LIVE)?.retain(|_, until| until > now.0)?;
            transaction.commit()?;
        }
        alive.sort_unstable_by_key(|(leaf_index, _)| *leaf_index);
        Ok(alive.into_iter().map(|(_, id)| id).collect())
    }
}
