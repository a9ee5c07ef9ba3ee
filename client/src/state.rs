//! What this client has promised to each enclave and what it was charged, on disk before it is relied on.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use cocoon_attestation::EnclaveKey;
use cocoon_settlement::{Address, Nanoton};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::Error;

/// (channel, enclave key) to (cap promised, total verified, sequence verified).
const ENCLAVES: TableDefinition<&[u8], (u64, u64, u64)> = TableDefinition::new("enclaves-v1");
/// Number to (identifier, receipt as its trailer), oldest first.
const RECEIPTS: TableDefinition<u64, (&str, &str)> = TableDefinition::new("receipts-v1");
/// Identifier of an answer to the number of its receipt.
const RECEIPT_IDS: TableDefinition<&str, u64> = TableDefinition::new("receipt-ids-v1");
/// Receipts that are kept; the oldest go first. About 1 KB each.
const MAX_RECEIPTS: u64 = 100_000;

/// One enclave's account with this client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The highest cap ever signed for it.
    pub cap: Nanoton,
    /// The highest total it has signed a receipt for.
    pub total: Nanoton,
    /// The sequence of that receipt.
    pub sequence: u64,
}

/// The record of one client.
pub struct State {
    database: Database,
    /// Updates read before they write.
    updating: Mutex<()>,
}

impl State {
    /// Opens or makes the record.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let database = cocoon_settlement::database::open(path).map_err(failed)?;
        let write = database.begin_write().map_err(failed)?;
        write.open_table(ENCLAVES).map_err(failed)?;
        write.open_table(RECEIPTS).map_err(failed)?;
        write.open_table(RECEIPT_IDS).map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(Self { database, updating: Mutex::new(()) })
    }

    /// The account of an enclave.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn account(&self, channel: &Address, enclave: &EnclaveKey) -> Result<Account, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(ENCLAVES).map_err(failed)?;
        let found = table.get(key(channel, enclave).as_slice()).map_err(failed)?;
        Ok(found.map_or_else(Account::default, |entry| {
            let (cap, total, sequence) = entry.value();
            Account { cap: Nanoton(cap), total: Nanoton(total), sequence }
        }))
    }

    /// Every enclave this client ever promised anything to, with the channel that pays.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn accounts(&self) -> Result<Vec<(Address, EnclaveKey, Account)>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(ENCLAVES).map_err(failed)?;
        let mut accounts = Vec::new();
        for entry in table.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let (cap, total, sequence) = value.value();
            let Some((workchain, rest)) = key.value().split_first() else { continue };
            let (Some(hash), Some(enclave)) = (rest.first_chunk::<32>(), rest.last_chunk::<32>()) else { continue };
            let channel = Address { workchain: *workchain as i8, hash: *hash };
            accounts.push((
                channel,
                EnclaveKey(*enclave),
                Account { cap: Nanoton(cap), total: Nanoton(total), sequence },
            ));
        }
        Ok(accounts)
    }

    /// Raises what is recorded: no cap, total or sequence ever falls.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn raise(&self, channel: &Address, enclave: &EnclaveKey, to: Account) -> Result<Account, Error> {
        let _updating = self.lock()?;
        self.write(channel, enclave, to, None)
    }

    fn lock(&self) -> Result<MutexGuard<'_, ()>, Error> {
        self.updating.lock().map_err(|_| Error::State("an earlier write failed".into()))
    }

    /// With the lock held.
    fn write(
        &self,
        channel: &Address,
        enclave: &EnclaveKey,
        to: Account,
        receipt: Option<(&str, &str)>,
    ) -> Result<Account, Error> {
        let before = self.account(channel, enclave)?;
        let after = Account {
            cap: before.cap.max(to.cap),
            total: before.total.max(to.total),
            sequence: before.sequence.max(to.sequence),
        };
        if after != before || receipt.is_some() {
            let write = self.database.begin_write().map_err(failed)?;
            if let Some((id, trailer)) = receipt {
                keep(&write, id, trailer)?;
            }
            {
                let mut table = write.open_table(ENCLAVES).map_err(failed)?;
                let value = (after.cap.0, after.total.0, after.sequence);
                table.insert(key(channel, enclave).as_slice(), value).map_err(failed)?;
            }
            write.commit().map_err(failed)?;
        }
        Ok(after)
    }

    /// Records a verified receipt, if it continues what the enclave signed before: every signing takes a new number, and the total
    /// grows by at least what was charged, and by exactly that from one number to the next.
    ///
    /// # Errors
    /// [`Error::Receipt`] if the enclave contradicts itself.
    pub fn earned(
        &self,
        channel: &Address,
        enclave: &EnclaveKey,
        new: Account,
        charge: Nanoton,
        receipt: Option<(&str, &str)>,
    ) -> Result<Account, Error> {
        let _updating = self.lock()?;
        let known = self.account(channel, enclave)?;
        let grown = new.total.checked_sub(known.total);
        let continues = match new.sequence.checked_sub(known.sequence) {
            Some(0) => false,
            Some(1) => grown == Some(charge),
            Some(_) => grown.is_some_and(|grown| grown >= charge),
            // An older one that ended later, among several at once.
            None => new.total <= known.total,
        };
        if !continues {
            return Err(Error::Receipt("its total does not continue what this enclave signed before".into()));
        }
        self.write(channel, enclave, new, receipt)
    }

    /// The receipt of an answer, as its trailer had it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn receipt(&self, id: &str) -> Result<Option<String>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let numbers = read.open_table(RECEIPT_IDS).map_err(failed)?;
        let Some(number) = numbers.get(id).map_err(failed)?.map(|number| number.value()) else { return Ok(None) };
        let found = read.open_table(RECEIPTS).map_err(failed)?.get(number).map_err(failed)?;
        Ok(found.map(|found| found.value().1.to_owned()))
    }

    /// The sum of all caps signed out of a channel.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn promised(&self, channel: &Address) -> Result<Nanoton, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(ENCLAVES).map_err(failed)?;
        let (from, to) = (key(channel, &EnclaveKey([0; 32])), key(channel, &EnclaveKey([0xff; 32])));
        let mut sum = Nanoton(0);
        for entry in table.range(from.as_slice()..=to.as_slice()).map_err(failed)? {
            let (_, value) = entry.map_err(failed)?;
            sum = sum.saturating_add(Nanoton(value.value().0));
        }
        Ok(sum)
    }
}

/// Keeps a receipt, and lets go of the oldest.
fn keep(write: &redb::WriteTransaction, id: &str, trailer: &str) -> Result<(), Error> {
    let mut receipts = write.open_table(RECEIPTS).map_err(failed)?;
    let mut ids = write.open_table(RECEIPT_IDS).map_err(failed)?;
    let last = receipts.last().map_err(failed)?.map_or(0, |(number, _)| number.value());
    let number = last + 1;
    receipts.insert(number, (id, trailer)).map_err(failed)?;
    ids.insert(id, number).map_err(failed)?;
    let oldest = receipts.first().map_err(failed)?.map(|(number, found)| (number.value(), found.value().0.to_owned()));
    if let Some((oldest, id)) = oldest.filter(|(oldest, _)| number - oldest >= MAX_RECEIPTS) {
        receipts.remove(oldest).map_err(failed)?;
        ids.remove(id.as_str()).map_err(failed)?;
    }
    Ok(())
}

fn key(channel: &Address, enclave: &EnclaveKey) -> Vec<u8> {
    [&[channel.workchain as u8], channel.hash.as_slice(), &enclave.0].concat()
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::State(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: Address = Address { workchain: 0, hash: [1; 32] };

    #[test]
    fn totals_must_continue_one_another() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state.redb")).unwrap();
        let enclave = EnclaveKey([1; 32]);
        let earned = |sequence: u64, total: u64, charge: u64| {
            let new = Account { cap: Nanoton(0), total: Nanoton(total), sequence };
            let id = format!("chatcmpl-{sequence}");
            state.earned(&CHANNEL, &enclave, new, Nanoton(charge), Some((&id, &id))).is_ok()
        };
        assert!(earned(1, 10, 10));
        assert!(!earned(1, 10, 10), "the same number twice");
        assert!(!earned(2, 25, 10), "more than was charged");
        assert!(!earned(2, 15, 10), "less than was charged");
        assert!(earned(2, 20, 10));
        assert!(earned(4, 50, 10), "another answer ended in between");
        assert!(!earned(6, 55, 10), "less than was charged, whatever else ended");
        assert!(earned(3, 35, 10), "that other answer");
        assert!(!earned(3, 60, 10), "an older number with a newer total");
        assert_eq!(state.receipt("chatcmpl-4").unwrap().as_deref(), Some("chatcmpl-4"));
        assert_eq!(state.receipt("chatcmpl-6").unwrap(), None, "a receipt that was not believed is not kept");
    }

    #[test]
    fn nothing_falls_and_a_restart_knows_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let (one, two) = (EnclaveKey([1; 32]), EnclaveKey([2; 32]));
        {
            let state = State::open(&path).unwrap();
            let high = Account { cap: Nanoton(10), total: Nanoton(7), sequence: 3 };
            state.raise(&CHANNEL, &one, high).unwrap();
            state.raise(&CHANNEL, &one, Account { cap: Nanoton(9), total: Nanoton(8), sequence: 1 }).unwrap();
            state.raise(&CHANNEL, &two, Account { cap: Nanoton(5), ..Account::default() }).unwrap();
        }
        let state = State::open(&path).unwrap();
        let expected = Account { cap: Nanoton(10), total: Nanoton(8), sequence: 3 };
        assert_eq!(state.account(&CHANNEL, &one).unwrap(), expected);
        assert_eq!(state.promised(&CHANNEL).unwrap(), Nanoton(15));
        assert_eq!(state.promised(&Address { workchain: 0, hash: [2; 32] }).unwrap(), Nanoton(0));
    }
}
