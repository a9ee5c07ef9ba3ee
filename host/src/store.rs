//! Vouchers and receipts, on disk before they are acknowledged.

use std::path::Path;
use std::sync::Mutex;

use cocoon_attestation::EnclaveKey;
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::{Address, Nanoton};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::Error;

/// (channel, enclave key) to the voucher with the highest cap.
const VOUCHERS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("vouchers-v1");
/// (channel, enclave key) to the newest receipt.
const RECEIPTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("receipts-v1");
/// Receipts that contradict the newest one: evidence against an enclave.
const CONTRADICTIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("contradictions-v1");

/// What one enclave has earned in one channel, and the promise that covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earned {
    /// The promise.
    pub voucher: SignedVoucher,
    /// The newest receipt.
    pub receipt: SignedSettlementReceipt,
}

impl Earned {
    /// What the contract pays for it in all: `min(cap, total)`.
    pub fn claimable(&self) -> Nanoton {
        self.voucher.voucher.cap.min(self.receipt.receipt.total)
    }
}

/// The host's record. Every write is on disk when it returns.
pub struct Store {
    database: Database,
    /// Updates read before they write.
    updating: Mutex<()>,
}

impl Store {
    /// Opens or makes the record.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let database = Database::create(path).map_err(failed)?;
        let write = database.begin_write().map_err(failed)?;
        for table in [VOUCHERS, RECEIPTS, CONTRADICTIONS] {
            write.open_table(table).map_err(failed)?;
        }
        write.commit().map_err(failed)?;
        Ok(Self { database, updating: Mutex::new(()) })
    }

    fn get(&self, table: TableDefinition<&[u8], &[u8]>, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(table).map_err(failed)?;
        Ok(table.get(key).map_err(failed)?.map(|value| value.value().to_vec()))
    }

    fn put(&self, table: TableDefinition<&[u8], &[u8]>, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(failed)?;
        write.open_table(table).map_err(failed)?.insert(key, value).map_err(failed)?;
        write.commit().map_err(failed)
    }

    /// The voucher with the highest cap of an enclave in a channel.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn voucher(&self, channel: &Address, enclave: &EnclaveKey) -> Result<Option<SignedVoucher>, Error> {
        let bytes = self.get(VOUCHERS, &key(channel, enclave))?;
        Ok(bytes.map(|bytes| SignedVoucher::from_bytes(&bytes)).transpose()?)
    }

    /// The newest receipt of an enclave in a channel.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn receipt(&self, channel: &Address, enclave: &EnclaveKey) -> Result<Option<SignedSettlementReceipt>, Error> {
        let bytes = self.get(RECEIPTS, &key(channel, enclave))?;
        Ok(bytes.map(|bytes| SignedSettlementReceipt::from_bytes(&bytes)).transpose()?)
    }

    /// Keeps a voucher, unless one with a higher cap, or the same cap and a later expiry, is kept already.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn keep_voucher(&self, voucher: &SignedVoucher) -> Result<(), Error> {
        let _updating = self.lock()?;
        let (channel, enclave) = (&voucher.voucher.channel, &voucher.voucher.enclave_key);
        if let Some(known) = self.voucher(channel, enclave)? {
            let (known, new) = (&known.voucher, &voucher.voucher);
            if (known.cap, known.expiry) >= (new.cap, new.expiry) {
                return Ok(());
            }
        }
        self.put(VOUCHERS, &key(channel, enclave), &voucher.to_bytes())
    }

    /// Keeps a verified receipt. An older one is no news; one that contradicts the newest is kept beside it.
    ///
    /// # Errors
    /// The record cannot be written, or the enclave contradicts itself.
    pub fn keep_receipt(&self, receipt: &SignedSettlementReceipt) -> Result<(), Error> {
        let _updating = self.lock()?;
        let new = &receipt.receipt;
        let at = key(&new.channel, &new.enclave_key);
        if let Some(known) = self.receipt(&new.channel, &new.enclave_key)? {
            let known = &known.receipt;
            if known == new {
                return Ok(());
            }
            let contradicts = match new.sequence.cmp(&known.sequence) {
                std::cmp::Ordering::Less => new.total > known.total,
                std::cmp::Ordering::Equal => true,
                std::cmp::Ordering::Greater => new.total < known.total,
            };
            if contradicts {
                let mut at = at;
                at.extend_from_slice(&receipt.hash());
                self.put(CONTRADICTIONS, &at, &receipt.to_bytes())?;
                return Err(Error::Equivocation { enclave: new.enclave_key.to_string() });
            }
            if new.sequence < known.sequence {
                return Ok(());
            }
        }
        self.put(RECEIPTS, &at, &receipt.to_bytes())
    }

    /// Everything that was earned, by channel and enclave.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn earned(&self) -> Result<Vec<Earned>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let (vouchers, receipts) =
            (read.open_table(VOUCHERS).map_err(failed)?, read.open_table(RECEIPTS).map_err(failed)?);
        let mut earned = Vec::new();
        for entry in receipts.iter().map_err(failed)? {
            let (key, receipt) = entry.map_err(failed)?;
            let Some(voucher) = vouchers.get(key.value()).map_err(failed)? else { continue };
            earned.push(Earned {
                voucher: SignedVoucher::from_bytes(voucher.value())?,
                receipt: SignedSettlementReceipt::from_bytes(receipt.value())?,
            });
        }
        Ok(earned)
    }

    /// All vouchers of a channel.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn vouchers(&self, channel: &Address) -> Result<Vec<SignedVoucher>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(VOUCHERS).map_err(failed)?;
        let (from, to) = (key(channel, &EnclaveKey([0; 32])), key(channel, &EnclaveKey([0xff; 32])));
        let mut vouchers = Vec::new();
        for entry in table.range(from.as_slice()..=to.as_slice()).map_err(failed)? {
            vouchers.push(SignedVoucher::from_bytes(entry.map_err(failed)?.1.value())?);
        }
        Ok(vouchers)
    }

    fn lock(&self) -> Result<std::sync::MutexGuard<'_, ()>, Error> {
        self.updating.lock().map_err(|_| Error::Store("an earlier write failed".into()))
    }
}

fn key(channel: &Address, enclave: &EnclaveKey) -> Vec<u8> {
    [&[channel.workchain as u8], channel.hash.as_slice(), &enclave.0].concat()
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Store(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_attestation::UnixTime;
    use cocoon_protocol::identity::SigningKey;
    use cocoon_settlement::NetworkId;
    use cocoon_settlement::cells::SettlementReceipt;

    const CHANNEL: Address = Address { workchain: 0, hash: [1; 32] };

    fn receipt(sequence: u64, total: u64) -> SignedSettlementReceipt {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let receipt = SettlementReceipt {
            network: NetworkId::LOCAL,
            provider: Address { workchain: 0, hash: [2; 32] },
            channel: CHANNEL,
            enclave_key: key.enclave_key(),
            sequence,
            total: Nanoton(total),
            time: UnixTime(5),
        };
        SignedSettlementReceipt::sign(receipt, &key).unwrap()
    }

    #[test]
    fn the_newest_receipt_survives_a_restart_and_older_ones_are_no_news() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.redb");
        {
            let store = Store::open(&path).unwrap();
            store.keep_receipt(&receipt(1, 10)).unwrap();
            store.keep_receipt(&receipt(3, 30)).unwrap();
            store.keep_receipt(&receipt(2, 20)).unwrap();
        }
        let store = Store::open(&path).unwrap();
        let key = receipt(1, 10).receipt.enclave_key;
        assert_eq!(store.receipt(&CHANNEL, &key).unwrap(), Some(receipt(3, 30)));
    }

    #[test]
    fn contradictions_are_named_and_do_not_replace_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("host.redb")).unwrap();
        store.keep_receipt(&receipt(5, 50)).unwrap();
        for contradiction in [receipt(5, 51), receipt(6, 49), receipt(4, 51)] {
            assert!(matches!(store.keep_receipt(&contradiction), Err(Error::Equivocation { .. })));
        }
        let key = receipt(1, 10).receipt.enclave_key;
        assert_eq!(store.receipt(&CHANNEL, &key).unwrap(), Some(receipt(5, 50)));
    }
}
