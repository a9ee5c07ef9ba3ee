//! What reconciling has to look up, on disk, so that memory does not grow with a chain's history. It is made anew each time: nothing
//! in it is worth a wait for the disk.

use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use cocoon_attestation::{Digest, EnclaveKey, UnixTime};
use cocoon_settlement::chain::TxSummary;
use cocoon_settlement::contracts::events;
use cocoon_settlement::{Address, Nanoton};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::Error;

/// Hash of the message by which the Registry passed an attestation on: evidence id, verdicts that count, verdicts that it needed.
const VERDICTS: TableDefinition<'static, &'static [u8; 32], &'static [u8; 34]> = TableDefinition::new("verdicts");
/// Provider, key, logical time: kind of event, its time, until.
const LIVES: TableDefinition<'static, &'static [u8; 73], (u8, u64, u64)> = TableDefinition::new("lives");
/// Hash of the message by which a Provider passed a claim on: logical time and time.
const CLAIMS: TableDefinition<'static, &'static [u8; 32], (u64, u64)> = TableDefinition::new("claims");
/// Channels that claims name.
const CHANNELS: TableDefinition<'static, &'static [u8; 33], ()> = TableDefinition::new("channels");
/// Logical time: one account's transaction that is looked at again from the oldest on. Its hash, its time, that of the message that
/// caused it, what it paid, hashes of the messages that it sent, and the body.
type Waiting = (&'static [u8; 32], u64, &'static [u8; 32], u64, &'static [u8], &'static [u8]);
const WAITING: TableDefinition<'static, u64, Waiting> = TableDefinition::new("waiting");
/// Key and number: total and time of a receipt in one Channel.
const RECEIPTS: TableDefinition<'static, &'static [u8; 40], (u64, u64)> = TableDefinition::new("receipts");

/// Commits that may be lost before one that waits for the disk, so that the file's free room is used again.
const LOOSE: u32 = 256;

/// Verdicts behind an attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// What they are about.
    pub evidence_id: Digest,
    /// How many count.
    pub count: u8,
    /// How many were needed.
    pub needed: u8,
}

/// What happened to a key at its Provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It was attested up to a time.
    Attested(UnixTime),
    /// It attests no more.
    Retired,
    /// Nothing is paid for it any more.
    Void,
    /// It was forgotten.
    Pruned,
}

/// A transaction that is looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub lt: u64,
    pub hash: [u8; 32],
    pub time: UnixTime,
    /// Hash of the message that caused it.
    pub cause: [u8; 32],
    pub paid: Nanoton,
    /// Hashes of the messages that it sent.
    pub sent: Vec<[u8; 32]>,
    /// The body of the message that caused it.
    pub body: Vec<u8>,
}

impl Kept {
    /// A transaction, and what it paid.
    pub fn of(transaction: &TxSummary, paid: Nanoton) -> Self {
        let body = transaction.received.as_ref().and_then(|message| message.body.as_ref());
        Self {
            lt: transaction.lt,
            hash: transaction.hash,
            time: transaction.time,
            cause: transaction.in_msg_hash,
            paid,
            sent: transaction.out_msg_hashes.clone(),
            body: body.map(events::to_bytes).unwrap_or_default(),
        }
    }
}

pub(super) struct Store {
    database: Database,
    commits: AtomicU32,
}

impl Store {
    pub fn make(work: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(work)?;
        let path = work.join("chain.redb");
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let database = cocoon_settlement::database::open(&path)?;
        let store = Self { database, commits: AtomicU32::new(0) };
        store.write(|transaction| {
            transaction.open_table(VERDICTS)?;
            transaction.open_table(LIVES)?;
            transaction.open_table(CLAIMS)?;
            transaction.open_table(CHANNELS)?;
            transaction.open_table(WAITING)?;
            Ok(())
        })?;
        Ok(store)
    }

    fn write(&self, change: impl FnOnce(&WriteTransaction) -> Result<(), Error>) -> Result<(), Error> {
        let mut transaction = self.database.begin_write()?;
        if !self.commits.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOSE) {
            transaction.set_durability(Durability::None).map_err(|error| Error::Store(error.to_string()))?;
        }
        change(&transaction)?;
        Ok(transaction.commit()?)
    }

    /// Verdicts behind attestations, by the message that passes each on.
    pub fn put_verdicts(&self, some: &[([u8; 32], Verdicts)]) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(VERDICTS)?;
            for (message, Verdicts { evidence_id, count, needed }) in some {
                let mut value = [0; 34];
                value[..32].copy_from_slice(&evidence_id.0);
                (value[32], value[33]) = (*count, *needed);
                table.insert(message, &value)?;
            }
            Ok(())
        })
    }

    /// The verdicts behind an attestation that a message passed on.
    pub fn verdicts(&self, message: &[u8; 32]) -> Result<Option<Verdicts>, Error> {
        let table = self.database.begin_read()?.open_table(VERDICTS)?;
        let value = table.get(message)?.map(|value| *value.value());
        Ok(value.map(|value| Verdicts {
            evidence_id: Digest(std::array::from_fn(|n| value[n])),
            count: value[32],
            needed: value[33],
        }))
    }

    /// What a page of a Provider's transactions says.
    pub fn put_provider(
        &self,
        provider: &Address,
        lives: &[(EnclaveKey, u64, UnixTime, Life)],
        claims: &[([u8; 32], u64, UnixTime)],
        channels: &[Address],
    ) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(LIVES)?;
            for (key, lt, time, life) in lives {
                let (kind, until) = match life {
                    Life::Attested(until) => (0, until.0),
                    Life::Retired => (1, 0),
                    Life::Void => (2, 0),
                    Life::Pruned => (3, 0),
                };
                table.insert(&life_key(provider, key, *lt), (kind, time.0, until))?;
            }
            let mut table = transaction.open_table(CLAIMS)?;
            for (message, lt, time) in claims {
                table.insert(message, (*lt, time.0))?;
            }
            let mut table = transaction.open_table(CHANNELS)?;
            channels.iter().try_for_each(|channel| Ok(table.insert(&account_key(channel), ()).map(drop)?))
        })
    }

    /// A key's life up to a logical time, oldest first.
    pub fn life(&self, provider: &Address, key: &EnclaveKey, lt: u64) -> Result<Vec<(UnixTime, Life)>, Error> {
        let table = self.database.begin_read()?.open_table(LIVES)?;
        let (from, to) = (life_key(provider, key, 0), life_key(provider, key, lt));
        let mut life = Vec::new();
        for entry in table.range::<&[u8; 73]>(&from..=&to)? {
            let (kind, time, until) = entry?.1.value();
            let what = match kind {
                0 => Life::Attested(UnixTime(until)),
                1 => Life::Retired,
                2 => Life::Void,
                _ => Life::Pruned,
            };
            life.push((UnixTime(time), what));
        }
        Ok(life)
    }

    /// When a Provider passed on the claim in a message: logical time and time.
    pub fn claim(&self, message: &[u8; 32]) -> Result<Option<(u64, UnixTime)>, Error> {
        let table = self.database.begin_read()?.open_table(CLAIMS)?;
        Ok(table.get(message)?.map(|value| value.value()).map(|(lt, time)| (lt, UnixTime(time))))
    }

    /// At most so many channels behind one.
    pub fn channels(&self, after: Option<&Address>, most: usize) -> Result<Vec<Address>, Error> {
        let table = self.database.begin_read()?.open_table(CHANNELS)?;
        let after = after.map(account_key);
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut some = Vec::new();
        for entry in table.range::<&[u8; 33]>((from, Bound::Unbounded))?.take(most) {
            let key = *entry?.0.value();
            let [workchain, hash @ ..] = key;
            some.push(Address { workchain: workchain as i8, hash });
        }
        Ok(some)
    }

    /// Whether a claim names a channel.
    pub fn names_channel(&self, channel: &Address) -> Result<bool, Error> {
        Ok(self.database.begin_read()?.open_table(CHANNELS)?.get(&account_key(channel))?.is_some())
    }

    /// Keeps transactions of the account that is read now.
    pub fn keep(&self, some: &[Kept]) -> Result<(), Error> {
        if some.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut table = transaction.open_table(WAITING)?;
            for kept in some {
                let Kept { lt, hash, time, cause, paid, sent, body } = kept;
                table.insert(*lt, (hash, time.0, cause, paid.0, sent.as_flattened(), body.as_slice()))?;
            }
            Ok(())
        })
    }

    /// Goes through what was kept, oldest first.
    pub fn each_kept(&self, mut each: impl FnMut(Kept) -> Result<(), Error>) -> Result<(), Error> {
        let table = self.database.begin_read()?.open_table(WAITING)?;
        for entry in table.iter()? {
            let (lt, value) = entry?;
            let (hash, time, cause, paid, sent, body) = value.value();
            let sent = sent.as_chunks().0.to_vec();
            let (time, paid) = (UnixTime(time), Nanoton(paid));
            each(Kept { lt: lt.value(), hash: *hash, time, cause: *cause, paid, sent, body: body.to_vec() })?;
        }
        Ok(())
    }

    /// Lets receipts of one Channel be looked up and kept, which are forgotten afterwards. Nothing else can be written meanwhile.
    pub fn with_receipts(&self, look: impl FnOnce(&mut Receipts<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let transaction = self.database.begin_write()?;
        look(&mut Receipts(transaction.open_table(RECEIPTS)?))?;
        Ok(transaction.abort()?)
    }

    /// Forgets what was kept.
    pub fn forget(&self) -> Result<(), Error> {
        self.write(|transaction| {
            transaction.delete_table(WAITING)?;
            transaction.open_table(WAITING)?;
            Ok(())
        })
    }
}

/// The receipts of one Channel so far, by key and number.
pub(super) struct Receipts<'a>(Table<'a, &'static [u8; 40], (u64, u64)>);

impl Receipts<'_> {
    /// Keeps a receipt, and says which one it cannot be true beside, if any: number, total, time. An enclave signs each with a new number
    /// and a total that never falls.
    pub fn put(
        &mut self,
        key: &EnclaveKey,
        sequence: u64,
        total: Nanoton,
        time: UnixTime,
    ) -> Result<Option<(u64, Nanoton, UnixTime)>, Error> {
        let own = receipt_key(key, sequence);
        let same = self.0.get(&own)?.map(|value| value.value());
        if let Some((known, at)) = same {
            let differs = (known, at) != (total.0, time.0);
            return Ok(differs.then_some((sequence, Nanoton(known), UnixTime(at))));
        }
        let number = |key: &[u8; 40]| u64::from_be_bytes(std::array::from_fn(|n| key[32 + n]));
        let mut other = None;
        let (first, last) = (receipt_key(key, 0), receipt_key(key, u64::MAX));
        // Neighbours are enough: those behind them do not contradict them.
        if let Some(entry) = self.0.range::<&[u8; 40]>(&first..&own)?.next_back() {
            let (key, value) = entry?;
            let (known, at) = value.value();
            other = (known > total.0).then(|| (number(key.value()), Nanoton(known), UnixTime(at)));
        }
        if other.is_none()
            && let Some(entry) = self.0.range::<&[u8; 40]>((Bound::Excluded(&own), Bound::Included(&last)))?.next()
        {
            let (key, value) = entry?;
            let (known, at) = value.value();
            other = (known < total.0).then(|| (number(key.value()), Nanoton(known), UnixTime(at)));
        }
        self.0.insert(&own, (total.0, time.0))?;
        Ok(other)
    }
}

fn account_key(account: &Address) -> [u8; 33] {
    let mut key = [0; 33];
    key[0] = account.workchain as u8;
    key[1..].copy_from_slice(&account.hash);
    key
}

fn life_key(provider: &Address, key: &EnclaveKey, lt: u64) -> [u8; 73] {
    let mut out = [0; 73];
    out[..33].copy_from_slice(&account_key(provider));
    out[33..65].copy_from_slice(&key.0);
    out[65..].copy_from_slice(&lt.to_be_bytes());
    out
}

fn receipt_key(key: &EnclaveKey, sequence: u64) -> [u8; 40] {
    let mut out = [0; 40];
    out[..32].copy_from_slice(&key.0);
    out[32..].copy_from_slice(&sequence.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: EnclaveKey = EnclaveKey([7; 32]);

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::make(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn transactions_come_back_oldest_first_until_they_are_forgotten() {
        let (_folder, store) = store();
        let kept = Kept {
            lt: 1,
            hash: [1; 32],
            time: UnixTime(2),
            cause: [3; 32],
            paid: Nanoton(4),
            sent: vec![[5; 32], [6; 32]],
            body: vec![7, 8],
        };
        store.keep(&[Kept { lt: 9, ..kept.clone() }]).unwrap();
        store.keep(std::slice::from_ref(&kept)).unwrap();
        let mut taken = Vec::new();
        store
            .each_kept(|one| {
                taken.push(one);
                Ok(())
            })
            .unwrap();
        assert_eq!(taken, [kept.clone(), Kept { lt: 9, ..kept }]);
        store.forget().unwrap();
        store.each_kept(|_| panic!("it was forgotten")).unwrap();
        let verdicts = Verdicts { evidence_id: Digest([1; 32]), count: 2, needed: 3 };
        store.put_verdicts(&[([9; 32], verdicts)]).unwrap();
        assert_eq!(store.verdicts(&[9; 32]).unwrap(), Some(verdicts));
        assert_eq!(store.verdicts(&[8; 32]).unwrap(), None);
    }

    #[test]
    fn receipts_contradict_one_another_in_any_order() {
        let (_folder, store) = store();
        let look = |receipts: &mut Receipts<'_>| {
            let mut put = |sequence, total, time| {
                let other = receipts.put(&KEY, sequence, Nanoton(total), UnixTime(time)).unwrap();
                other.map(|(sequence, ..)| sequence)
            };
            assert_eq!(put(5, 50, 5), None);
            assert_eq!(put(5, 50, 5), None, "the same once more");
            assert_eq!(put(5, 50, 6), Some(5), "one number, one total, two times");
            assert_eq!(put(5, 51, 5), Some(5));
            assert_eq!(put(9, 90, 9), None);
            assert_eq!(put(7, 70, 7), None, "an older one that comes later");
            assert_eq!(put(6, 71, 6), Some(7), "more than a later one");
            assert_eq!(put(8, 69, 8), Some(7), "less than an earlier one");
            assert_eq!(put(10, 90, 10), None, "a total may stay");
            assert_eq!(receipts.put(&EnclaveKey([8; 32]), 5, Nanoton(1), UnixTime(1)).unwrap(), None);
            Ok(())
        };
        store.with_receipts(look).unwrap();
        // Those of another Channel begin anew.
        store.with_receipts(look).unwrap();
    }

    #[test]
    fn lives_are_told_by_provider_key_and_logical_time() {
        let (_folder, store) = store();
        let (one, other) = (Address::basechain([1; 32]), Address { workchain: -1, hash: [1; 32] });
        let life = |lt, life| (KEY, lt, UnixTime(lt * 10), life);
        let lives = [life(3, Life::Void), life(1, Life::Attested(UnixTime(99))), life(2, Life::Retired)];
        store.put_provider(&one, &lives, &[([4; 32], 2, UnixTime(20))], &[other, one]).unwrap();
        store.put_provider(&other, &[life(1, Life::Pruned)], &[], &[one]).unwrap();
        let expected = [(UnixTime(10), Life::Attested(UnixTime(99))), (UnixTime(20), Life::Retired)];
        assert_eq!(store.life(&one, &KEY, 2).unwrap(), expected);
        assert_eq!(store.life(&one, &KEY, u64::MAX).unwrap().len(), 3);
        assert_eq!(store.life(&other, &KEY, 9).unwrap(), [(UnixTime(10), Life::Pruned)]);
        assert_eq!(store.life(&one, &EnclaveKey([8; 32]), 9).unwrap(), []);
        assert_eq!(store.claim(&[4; 32]).unwrap(), Some((2, UnixTime(20))));
        assert_eq!(store.claim(&[5; 32]).unwrap(), None);
        assert_eq!(store.channels(None, 9).unwrap(), [one, other]);
        assert_eq!(store.channels(None, 1).unwrap(), [one]);
        assert_eq!(store.channels(Some(&one), 9).unwrap(), [other]);
    }
}
