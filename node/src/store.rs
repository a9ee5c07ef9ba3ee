//! What the node knows about an evidence id: where it was logged and what was signed for it.

use std::path::Path;

use cocoon_attestation::EvidenceId;
use cocoon_verifier::Outcome;
use redb::{Database, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::Error;

const RECORDS: TableDefinition<'static, [u8; 32], &'static [u8]> = TableDefinition::new("evidence");

/// An evidence id's place in the log and its latest verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub leaf_index: u64,
    pub outcome: Outcome,
    /// Why, where it was not accepted.
    pub reason: String,
    /// Bag of cells of the latest verdict, hexadecimal.
    pub verdict: Option<String>,
}

pub(crate) struct Store(Database);

impl Store {
    pub fn open(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir)?;
        let database = cocoon_settlement::database::open(&dir.join("node.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
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

    pub fn put(&self, id: &EvidenceId, record: &Record) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record)?;
        let transaction = self.0.begin_write()?;
        transaction.open_table(RECORDS)?.insert(id.0.0, bytes.as_slice())?;
        Ok(transaction.commit()?)
    }
}
