//! Vouchers and receipts, on disk before they are acknowledged.

use std::path::Path;
use std::sync::Mutex;

use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::cells::Voucher;
use cocoon_settlement::{Address, Nanoton};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::Error;
use crate::refusal::Refusal;

/// (channel, enclave key, hash) to each voucher that no other one covers in both cap and expiry.
const VOUCHERS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("vouchers-v1");
/// Vouchers of one enclave in one channel that are kept at most.
const MAX_VOUCHERS: usize = 16;
/// (channel, enclave key) to the newest receipt.
const RECEIPTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("receipts-v1");
/// (channel, enclave key) to the newest receipt before it that the chain is known to pay, whatever becomes of the key.
const PAYABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("payable-v1");
/// Enclave key to the latest time of which a receipt is known to be paid, in seconds since 1970.
const COVERED: TableDefinition<&[u8], u64> = TableDefinition::new("covered-v1");
/// Receipts that contradict the newest one: evidence against an enclave.
const CONTRADICTIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("contradictions-v1");

/// (channel, enclave key) to the time since when something is unpaid, in seconds since 1970.
const WAITING: TableDefinition<&[u8], u64> = TableDefinition::new("waiting-v1");
/// (channel, enclave key) to the last refusal since something was paid: time, exit code, how often, fees in all, the receipt's hash.
const REFUSALS: TableDefinition<&[u8], Written> = TableDefinition::new("refusals-v1");

/// A refusal as it is kept.
type Written = (u64, i32, u32, u64, [u8; 32]);

/// What one enclave has earned in one channel, and the promise that covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earned {
    /// The promise.
    pub voucher: SignedVoucher,
    /// The newest receipt, or an earlier one that is paid where the newest is not.
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
        let database = cocoon_settlement::database::open(path).map_err(failed)?;
        let write = database.begin_write().map_err(failed)?;
        for table in [VOUCHERS, RECEIPTS, PAYABLE, CONTRADICTIONS] {
            write.open_table(table).map_err(failed)?;
        }
        write.open_table(WAITING).map_err(failed)?;
        write.open_table(REFUSALS).map_err(failed)?;
        write.open_table(COVERED).map_err(failed)?;
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

    /// The vouchers of an enclave in a channel.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn vouchers_of(&self, channel: &Address, enclave: &EnclaveKey) -> Result<Vec<SignedVoucher>, Error> {
        let prefix = key(channel, enclave);
        self.vouchers_between(&[prefix.as_slice(), &[0; 32]].concat(), &[prefix.as_slice(), &[0xff; 32]].concat())
    }

    fn vouchers_between(&self, from: &[u8], to: &[u8]) -> Result<Vec<SignedVoucher>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(VOUCHERS).map_err(failed)?;
        let mut vouchers = Vec::new();
        for entry in table.range(from..=to).map_err(failed)? {
            vouchers.push(SignedVoucher::from_bytes(entry.map_err(failed)?.1.value())?);
        }
        Ok(vouchers)
    }

    /// The newest receipt of an enclave in a channel.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn receipt(&self, channel: &Address, enclave: &EnclaveKey) -> Result<Option<SignedSettlementReceipt>, Error> {
        let bytes = self.get(RECEIPTS, &key(channel, enclave))?;
        Ok(bytes.map(|bytes| SignedSettlementReceipt::from_bytes(&bytes)).transpose()?)
    }

    /// Keeps a voucher, in place of those that it covers. Gives whether it, or one that covers it, is kept now.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn keep_voucher(&self, voucher: &SignedVoucher) -> Result<bool, Error> {
        let _updating = self.lock()?;
        let new = &voucher.voucher;
        let prefix = key(&new.channel, &new.enclave_key);
        let at = |voucher: &SignedVoucher| [prefix.as_slice(), &voucher.hash()].concat();
        let known = self.vouchers_of(&new.channel, &new.enclave_key)?;
        if known.iter().any(|known| covers(&known.voucher, new)) {
            return Ok(true);
        }
        let covered: Vec<_> = known.iter().filter(|known| covers(new, &known.voucher)).map(at).collect();
        if known.len() - covered.len() >= MAX_VOUCHERS {
            return Ok(false);
        }
        let write = self.database.begin_write().map_err(failed)?;
        {
            let mut table = write.open_table(VOUCHERS).map_err(failed)?;
            for covered in covered {
                table.remove(covered.as_slice()).map_err(failed)?;
            }
            table.insert(at(voucher).as_slice(), voucher.to_bytes().as_slice()).map_err(failed)?;
        }
        write.commit().map_err(failed)?;
        Ok(true)
    }

    /// Notes that the chain pays this enclave's receipts up to this time. It takes back nothing that it said before: a key that is revoked
    /// is paid up to that moment.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn cover(&self, enclave: &EnclaveKey, time: UnixTime) -> Result<(), Error> {
        let _updating = self.lock()?;
        if self.covered(enclave)? >= time {
            return Ok(());
        }
        let write = self.database.begin_write().map_err(failed)?;
        write.open_table(COVERED).map_err(failed)?.insert(enclave.0.as_slice(), time.0).map_err(failed)?;
        write.commit().map_err(failed)
    }

    fn covered(&self, enclave: &EnclaveKey) -> Result<UnixTime, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let known = read.open_table(COVERED).map_err(failed)?.get(enclave.0.as_slice()).map_err(failed)?;
        Ok(UnixTime(known.map_or(0, |known| known.value())))
    }

    /// Keeps a verified receipt. An older one is no news; one that contradicts the newest is kept beside it. The one before it is kept too
    /// where it is known to be paid.
    ///
    /// # Errors
    /// The record cannot be written, or the enclave contradicts itself.
    pub fn keep_receipt(&self, receipt: &SignedSettlementReceipt) -> Result<(), Error> {
        let _updating = self.lock()?;
        let new = &receipt.receipt;
        let at = key(&new.channel, &new.enclave_key);
        let before = self.receipt(&new.channel, &new.enclave_key)?;
        if let Some(known) = &before {
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
        let covered = self.covered(&new.enclave_key)?;
        let write = self.database.begin_write().map_err(failed)?;
        if let Some(before) = before.filter(|before| before.receipt.time <= covered) {
            let mut payable = write.open_table(PAYABLE).map_err(failed)?;
            payable.insert(at.as_slice(), before.to_bytes().as_slice()).map_err(failed)?;
        }
        let bytes = receipt.to_bytes();
        write.open_table(RECEIPTS).map_err(failed)?.insert(at.as_slice(), bytes.as_slice()).map_err(failed)?;
        write.commit().map_err(failed)
    }

    /// Everything that was earned, by channel and enclave, each with the voucher that pays most of it.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn earned(&self) -> Result<Vec<Earned>, Error> {
        let mut receipts = Vec::new();
        {
            let read = self.database.begin_read().map_err(failed)?;
            for entry in read.open_table(RECEIPTS).map_err(failed)?.iter().map_err(failed)? {
                receipts.push(SignedSettlementReceipt::from_bytes(entry.map_err(failed)?.1.value())?);
            }
        }
        let mut earned = Vec::new();
        for receipt in receipts {
            earned.extend(self.with_voucher(receipt)?);
        }
        Ok(earned)
    }

    /// What was earned up to the last receipt before the newest one that was known to be paid, if there is one.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn payable(&self, channel: &Address, enclave: &EnclaveKey) -> Result<Option<Earned>, Error> {
        match self.get(PAYABLE, &key(channel, enclave))? {
            Some(bytes) => self.with_voucher(SignedSettlementReceipt::from_bytes(&bytes)?),
            None => Ok(None),
        }
    }

    fn with_voucher(&self, receipt: SignedSettlementReceipt) -> Result<Option<Earned>, Error> {
        let vouchers = self.vouchers_of(&receipt.receipt.channel, &receipt.receipt.enclave_key)?;
        let paying = vouchers.into_iter().filter(|voucher| voucher.voucher.expiry >= receipt.receipt.time);
        let best = paying.max_by_key(|voucher| voucher.voucher.cap);
        Ok(best.map(|voucher| Earned { voucher, receipt }))
    }

    /// Since when an enclave's pay is due in a channel: `now`, and from then on what this said first.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn waiting_since(&self, channel: &Address, enclave: &EnclaveKey, now: UnixTime) -> Result<UnixTime, Error> {
        let _updating = self.lock()?;
        let at = key(channel, enclave);
        let read = self.database.begin_read().map_err(failed)?;
        let known = read.open_table(WAITING).map_err(failed)?.get(at.as_slice()).map_err(failed)?;
        if let Some(since) = known {
            return Ok(UnixTime(since.value()));
        }
        let write = self.database.begin_write().map_err(failed)?;
        write.open_table(WAITING).map_err(failed)?.insert(at.as_slice(), now.0).map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(now)
    }

    /// It was paid: nothing waits there any more, and nothing is held against it.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn settled(&self, channel: &Address, enclave: &EnclaveKey) -> Result<(), Error> {
        let _updating = self.lock()?;
        let at = key(channel, enclave);
        let read = self.database.begin_read().map_err(failed)?;
        let waits = read.open_table(WAITING).map_err(failed)?.get(at.as_slice()).map_err(failed)?.is_some();
        if !waits && self.refusal(channel, enclave)?.is_none() {
            return Ok(());
        }
        let write = self.database.begin_write().map_err(failed)?;
        write.open_table(WAITING).map_err(failed)?.remove(at.as_slice()).map_err(failed)?;
        write.open_table(REFUSALS).map_err(failed)?.remove(at.as_slice()).map_err(failed)?;
        write.commit().map_err(failed)
    }

    /// Notes that claiming this receipt cost so much, brought nothing, and why (an exit code, 0 if nothing was due).
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn refuse(
        &self,
        receipt: &SignedSettlementReceipt,
        now: UnixTime,
        code: i32,
        fees: Nanoton,
    ) -> Result<Refusal, Error> {
        self.note(receipt, |before| Refusal::after(before, now, code, fees, receipt.hash()))
    }

    /// Notes that it was among several that were refused together, and what its share of that cost.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn refuse_among(
        &self,
        receipt: &SignedSettlementReceipt,
        now: UnixTime,
        code: i32,
        share: Nanoton,
    ) -> Result<Refusal, Error> {
        self.note(receipt, |before| Refusal::among(before, now, code, share, receipt.hash()))
    }

    fn note(
        &self,
        receipt: &SignedSettlementReceipt,
        follow: impl FnOnce(Option<Refusal>) -> Refusal,
    ) -> Result<Refusal, Error> {
        let _updating = self.lock()?;
        let (channel, enclave) = (&receipt.receipt.channel, &receipt.receipt.enclave_key);
        let refusal = follow(self.refusal(channel, enclave)?);
        let value = (refusal.at.0, refusal.code, refusal.count, refusal.lost.0, refusal.receipt);
        let write = self.database.begin_write().map_err(failed)?;
        let at = key(channel, enclave);
        write.open_table(REFUSALS).map_err(failed)?.insert(at.as_slice(), value).map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(refusal)
    }

    /// The last refusal of an enclave's receipt in a channel, if nothing was paid there since.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn refusal(&self, channel: &Address, enclave: &EnclaveKey) -> Result<Option<Refusal>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let known = read.open_table(REFUSALS).map_err(failed)?.get(key(channel, enclave).as_slice()).map_err(failed)?;
        Ok(known.map(|known| {
            let (at, code, count, lost, receipt) = known.value();
            Refusal { at: UnixTime(at), code, count, lost: Nanoton(lost), receipt }
        }))
    }

    /// The channels that have promised an enclave something.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn channels_of(&self, enclave: &EnclaveKey) -> Result<Vec<Address>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(VOUCHERS).map_err(failed)?;
        let mut channels = Vec::new();
        for entry in table.iter().map_err(failed)? {
            let voucher = SignedVoucher::from_bytes(entry.map_err(failed)?.1.value())?.voucher;
            // Those of one channel follow one another.
            if voucher.enclave_key == *enclave && channels.last() != Some(&voucher.channel) {
                channels.push(voucher.channel);
            }
        }
        Ok(channels)
    }

    /// Whether an enclave has contradicted itself.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn contradicted(&self, enclave: &EnclaveKey) -> Result<bool, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        for entry in read.open_table(CONTRADICTIONS).map_err(failed)?.iter().map_err(failed)? {
            let receipt = SignedSettlementReceipt::from_bytes(entry.map_err(failed)?.1.value())?;
            if receipt.receipt.enclave_key == *enclave {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All vouchers of a channel.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn vouchers(&self, channel: &Address) -> Result<Vec<SignedVoucher>, Error> {
        let (first, last) = (key(channel, &EnclaveKey([0; 32])), key(channel, &EnclaveKey([0xff; 32])));
        self.vouchers_between(&first, &[last.as_slice(), &[0xff; 32]].concat())
    }

    fn lock(&self) -> Result<std::sync::MutexGuard<'_, ()>, Error> {
        self.updating.lock().map_err(|_| Error::Store("an earlier write failed".into()))
    }
}

/// Whether whatever `less` pays, `more` pays too.
fn covers(more: &Voucher, less: &Voucher) -> bool {
    more.cap >= less.cap && more.expiry >= less.expiry && more.prices == less.prices
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
    fn the_last_receipt_that_is_known_to_be_paid_is_kept_beside_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.redb");
        let enclave = receipt(1, 10).receipt.enclave_key;
        let at = |sequence: u64, time: u64| {
            let receipt = SettlementReceipt { time: UnixTime(time), ..receipt(sequence, sequence * 10).receipt };
            SignedSettlementReceipt::sign(receipt, &SigningKey::from_seed(&[7; 32]).unwrap()).unwrap()
        };
        {
            let store = Store::open(&path).unwrap();
            store.keep_voucher(&voucher(1_000, 90)).unwrap();
            store.cover(&enclave, UnixTime(20)).unwrap();
            store.keep_receipt(&at(1, 10)).unwrap();
            assert_eq!(store.payable(&CHANNEL, &enclave).unwrap(), None, "it is the newest");
            store.keep_receipt(&at(2, 20)).unwrap();
            store.keep_receipt(&at(3, 21)).unwrap();
            store.cover(&enclave, UnixTime(15)).unwrap();
            store.keep_receipt(&at(4, 22)).unwrap();
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.payable(&CHANNEL, &enclave).unwrap().unwrap().receipt, at(2, 20));
        assert_eq!(store.earned().unwrap()[0].receipt, at(4, 22));
        store.cover(&enclave, UnixTime(30)).unwrap();
        store.keep_receipt(&at(5, 31)).unwrap();
        assert_eq!(store.payable(&CHANNEL, &enclave).unwrap().unwrap().receipt, at(4, 22));
    }

    fn voucher(cap: u64, expiry: u64) -> SignedVoucher {
        let voucher = Voucher {
            network: NetworkId::LOCAL,
            channel: CHANNEL,
            enclave_key: receipt(1, 10).receipt.enclave_key,
            cap: Nanoton(cap),
            prices: cocoon_settlement::Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 },
            expiry: UnixTime(expiry),
        };
        SignedVoucher::sign(voucher, &[9; 32]).unwrap()
    }

    #[test]
    fn a_voucher_is_dropped_only_for_one_that_pays_all_it_pays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("host.redb")).unwrap();
        let enclave = receipt(1, 10).receipt.enclave_key;
        for (cap, expiry) in [(100, 10), (50, 90), (40, 80)] {
            assert!(store.keep_voucher(&voucher(cap, expiry)).unwrap());
        }
        let mut kept: Vec<u64> =
            store.vouchers_of(&CHANNEL, &enclave).unwrap().iter().map(|kept| kept.voucher.cap.0).collect();
        kept.sort_unstable();
        assert_eq!(kept, [50, 100]);
        // Time 5: the higher cap pays. Later than its expiry: the other one does.
        store.keep_receipt(&receipt(1, 80)).unwrap();
        assert_eq!(store.earned().unwrap()[0].claimable(), Nanoton(80));
        let mut late = receipt(2, 90).receipt;
        late.time = UnixTime(50);
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        store.keep_receipt(&SignedSettlementReceipt::sign(late, &key).unwrap()).unwrap();
        assert_eq!(store.earned().unwrap()[0].claimable(), Nanoton(50));
        store.keep_voucher(&voucher(200, 200)).unwrap();
        assert_eq!(store.vouchers_of(&CHANNEL, &enclave).unwrap().len(), 1);
    }

    #[test]
    fn what_waits_and_what_was_refused_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.redb");
        let (one, two) = (receipt(1, 10), receipt(2, 20));
        let enclave = one.receipt.enclave_key;
        {
            let store = Store::open(&path).unwrap();
            assert_eq!(store.waiting_since(&CHANNEL, &enclave, UnixTime(100)).unwrap(), UnixTime(100));
            assert_eq!(store.refusal(&CHANNEL, &enclave).unwrap(), None);
            store.refuse(&one, UnixTime(100), 133, Nanoton(5)).unwrap();
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.waiting_since(&CHANNEL, &enclave, UnixTime(200)).unwrap(), UnixTime(100));
        let refusal = store.refuse(&two, UnixTime(200), 133, Nanoton(6)).unwrap();
        let expected = Refusal { at: UnixTime(200), code: 133, count: 2, lost: Nanoton(11), receipt: two.hash() };
        assert_eq!((refusal, store.refusal(&CHANNEL, &enclave).unwrap()), (expected, Some(expected)));
        let elsewhere = Address { workchain: 0, hash: [3; 32] };
        assert_eq!(store.refusal(&elsewhere, &enclave).unwrap(), None, "another channel is another matter");
        store.settled(&CHANNEL, &enclave).unwrap();
        assert_eq!(store.waiting_since(&CHANNEL, &enclave, UnixTime(300)).unwrap(), UnixTime(300));
        assert_eq!(store.refusal(&CHANNEL, &enclave).unwrap(), None);
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
        assert!(store.contradicted(&key).unwrap() && !store.contradicted(&EnclaveKey([1; 32])).unwrap());
    }

    #[test]
    fn the_channels_that_promised_an_enclave_something_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("host.redb")).unwrap();
        let enclave = receipt(1, 10).receipt.enclave_key;
        // Two that do not cover one another, and one of another channel for another enclave.
        store.keep_voucher(&voucher(100, 10)).unwrap();
        store.keep_voucher(&voucher(50, 90)).unwrap();
        let other = Voucher {
            channel: Address { workchain: 0, hash: [0; 32] },
            enclave_key: EnclaveKey([1; 32]),
            ..voucher(1, 1).voucher
        };
        store.keep_voucher(&SignedVoucher::sign(other, &[9; 32]).unwrap()).unwrap();
        assert_eq!(store.channels_of(&enclave).unwrap(), [CHANNEL]);
        assert_eq!(store.channels_of(&EnclaveKey([2; 32])).unwrap(), []);
    }
}
