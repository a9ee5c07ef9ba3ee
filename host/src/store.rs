//! Vouchers and receipts, on disk before they are acknowledged; what is known to be paid, and which claims are under way.
//!
//! What can never be paid any more leaves the tables that are worked with for an archive, where it is only looked up.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;

use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::account::Signed;
use cocoon_settlement::cells::{SettlementReceipt, Voucher};
use cocoon_settlement::contracts::PaidRecord;
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
/// Enclave key to the first two of its receipts that cannot both be true: evidence against it, which later ones do not replace.
const EQUIVOCATIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("equivocations-v1");
/// Receipts that contradicted the newest one, as they were kept before the other one was kept with them.
const CONTRADICTIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("contradictions-v1");

/// (channel, enclave key) to the time since when something is unpaid, in seconds since 1970.
const WAITING: TableDefinition<&[u8], u64> = TableDefinition::new("waiting-v1");
/// (channel, enclave key) to the last refusal since something was paid: time, exit code, how often, fees in all, the receipt's hash.
const REFUSALS: TableDefinition<&[u8], Written> = TableDefinition::new("refusals-v1");

/// (channel, enclave key) to what the Channel has paid, for the keys that it has paid. It never becomes less.
const PAID: TableDefinition<&[u8], u64> = TableDefinition::new("paid-v1");
/// Hash of a message that claims to what it claims.
const UNDER_WAY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("under-way-v1");
/// (channel, enclave key) to what can be paid no more: why, when that was seen, what was paid, the last receipt, and the voucher for it, which may
/// be empty.
const ARCHIVE: TableDefinition<&[u8], Archived> = TableDefinition::new("archive-v1");

/// A line of the archive as it is kept.
type Archived = (u8, u64, u64, &'static [u8], &'static [u8]);

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

/// Why nothing is paid any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The channel is closed, and its client has the rest.
    ChannelClosed,
    /// The channel was deleted.
    ChannelDeleted,
    /// The enclave's key is void, or its claim window is over.
    KeyOver,
}

impl Ended {
    const ALL: [Self; 3] = [Self::ChannelClosed, Self::ChannelDeleted, Self::KeyOver];

    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ChannelClosed => "the channel is closed",
            Self::ChannelDeleted => "the channel was deleted",
            Self::KeyOver => "the enclave's key is void, or its claim window is over",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::ChannelClosed => 0,
            Self::ChannelDeleted => 1,
            Self::KeyOver => 2,
        }
    }
}

/// What was earned and is paid no more, if it was not paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The newest receipt.
    pub receipt: SignedSettlementReceipt,
    /// The promise that paid most of it; `None` if none covered it.
    pub voucher: Option<SignedVoucher>,
    /// What the Channel had paid.
    pub paid: Nanoton,
    /// Why it ended.
    pub ended: Ended,
    /// When that was seen.
    pub at: UnixTime,
}

/// Two receipts of one enclave in one channel that cannot both be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// That of the lower number.
    pub earlier: SignedSettlementReceipt,
    /// The other.
    pub later: SignedSettlementReceipt,
}

impl Equivocation {
    /// Of two receipts, if they contradict one another by what a Provider's contract goes by. Signatures are not looked at.
    pub fn of(one: SignedSettlementReceipt, other: SignedSettlementReceipt) -> Option<Self> {
        let (earlier, later) = if one.receipt.sequence <= other.receipt.sequence { (one, other) } else { (other, one) };
        let (a, b) = (&earlier.receipt, &later.receipt);
        let of_one =
            (a.network, a.provider, a.channel, a.enclave_key) == (b.network, b.provider, b.channel, b.enclave_key);
        let cannot = if a.sequence == b.sequence { a != b } else { a.total > b.total };
        (of_one && cannot).then_some(Self { earlier, later })
    }
}

/// A claim that was sent, or was about to be, and of which nothing else is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// The message.
    pub signed: Signed,
    /// What it claims.
    pub items: Vec<UnderWayItem>,
}

/// One item of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderWayItem {
    /// Which receipt.
    pub claimed: Claimed,
    /// What the Channel had paid before.
    pub before: Nanoton,
}

/// A receipt that was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The channel.
    pub channel: Address,
    /// The enclave.
    pub enclave_key: EnclaveKey,
    /// Hash of the receipt.
    pub receipt: [u8; 32],
}

impl From<&SignedSettlementReceipt> for Claimed {
    fn from(signed: &SignedSettlementReceipt) -> Self {
        let SettlementReceipt { channel, enclave_key, .. } = signed.receipt;
        Self { channel, enclave_key, receipt: signed.hash() }
    }
}

impl UnderWay {
    const ITEM: usize = PAIR + 32 + 8;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.signed.valid_until.0.to_be_bytes().to_vec();
        for UnderWayItem { claimed, before } in &self.items {
            bytes.extend(key(&claimed.channel, &claimed.enclave_key));
            bytes.extend(claimed.receipt);
            bytes.extend(before.0.to_be_bytes());
        }
        bytes
    }

    fn from_bytes(message: &[u8], bytes: &[u8]) -> Option<Self> {
        let (time, items) = bytes.split_first_chunk()?;
        let item = |bytes: &[u8]| {
            let (pair, rest) = bytes.split_at_checked(PAIR)?;
            let (channel, enclave_key) = pair_of(pair)?;
            let (receipt, before) = rest.split_first_chunk()?;
            let before = Nanoton(u64::from_be_bytes(before.try_into().ok()?));
            Some(UnderWayItem { claimed: Claimed { channel, enclave_key, receipt: *receipt }, before })
        };
        let valid_until = UnixTime(u64::from_be_bytes(*time));
        let items = items.chunks(Self::ITEM).map(item).collect::<Option<_>>()?;
        Some(Self { signed: Signed { message: message.try_into().ok()?, valid_until }, items })
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
        for table in [VOUCHERS, RECEIPTS, PAYABLE, CONTRADICTIONS, EQUIVOCATIONS, UNDER_WAY] {
            write.open_table(table).map_err(failed)?;
        }
        write.open_table(WAITING).map_err(failed)?;
        write.open_table(REFUSALS).map_err(failed)?;
        write.open_table(COVERED).map_err(failed)?;
        write.open_table(PAID).map_err(failed)?;
        write.open_table(ARCHIVE).map_err(failed)?;
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

    /// Every pair of a channel and an enclave that a table has something about, with one of the entries.
    fn pairs(&self, table: TableDefinition<&[u8], &[u8]>) -> Result<BTreeMap<Vec<u8>, Vec<Vec<u8>>>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let mut pairs: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for entry in read.open_table(table).map_err(failed)?.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let pair = key.value().get(..PAIR).unwrap_or_default().to_vec();
            pairs.entry(pair).or_default().push(value.value().to_vec());
        }
        Ok(pairs)
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
        let before = match self.receipt(&new.channel, &new.enclave_key)? {
            Some(known) => Some(known),
            None => self.past(&new.channel, &new.enclave_key)?.map(|past| past.receipt),
        };
        if let Some(known) = &before {
            if known.receipt == *new {
                return Ok(());
            }
            if let Some(Equivocation { earlier, later }) = Equivocation::of(known.clone(), receipt.clone()) {
                let enclave = new.enclave_key;
                if self.get(EQUIVOCATIONS, &enclave.0)?.is_none() {
                    let (earlier, later) = (earlier.to_bytes(), later.to_bytes());
                    let length = u32::try_from(earlier.len()).map_err(failed)?.to_be_bytes();
                    self.put(EQUIVOCATIONS, &enclave.0, &[&length[..], &earlier, &later].concat())?;
                }
                return Err(Error::Equivocation { enclave: enclave.to_string() });
            }
            if new.sequence < known.receipt.sequence {
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
        claimed: impl Into<Claimed>,
        now: UnixTime,
        code: i32,
        fees: Nanoton,
    ) -> Result<Refusal, Error> {
        let claimed = claimed.into();
        self.note(&claimed, |before| Refusal::after(before, now, code, fees, claimed.receipt))
    }

    /// Notes that it was among several that were refused together, and what its share of that cost.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn refuse_among(
        &self,
        claimed: impl Into<Claimed>,
        now: UnixTime,
        code: i32,
        share: Nanoton,
    ) -> Result<Refusal, Error> {
        let claimed = claimed.into();
        self.note(&claimed, |before| Refusal::among(before, now, code, share, claimed.receipt))
    }

    fn note(&self, claimed: &Claimed, follow: impl FnOnce(Option<Refusal>) -> Refusal) -> Result<Refusal, Error> {
        let _updating = self.lock()?;
        let (channel, enclave) = (&claimed.channel, &claimed.enclave_key);
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
        if self.get(EQUIVOCATIONS, &enclave.0)?.is_some() {
            return Ok(true);
        }
        let read = self.database.begin_read().map_err(failed)?;
        for entry in read.open_table(CONTRADICTIONS).map_err(failed)?.iter().map_err(failed)? {
            let receipt = SignedSettlementReceipt::from_bytes(entry.map_err(failed)?.1.value())?;
            if receipt.receipt.enclave_key == *enclave {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What enclaves have contradicted themselves with, and each with what.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn equivocations(&self) -> Result<Vec<Equivocation>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let mut all = Vec::new();
        for entry in read.open_table(EQUIVOCATIONS).map_err(failed)?.iter().map_err(failed)? {
            let (_, value) = entry.map_err(failed)?;
            let unreadable = || failed("the evidence against an enclave");
            let (length, both) = value.value().split_first_chunk().ok_or_else(unreadable)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(failed)?;
            let (earlier, later) = both.split_at_checked(length).ok_or_else(unreadable)?;
            let [earlier, later] = [earlier, later].map(SignedSettlementReceipt::from_bytes);
            all.push(Equivocation { earlier: earlier?, later: later? });
        }
        Ok(all)
    }

    /// What a Channel is known to have paid, by the enclave keys that it has paid.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn paid(&self, channel: &Address) -> Result<HashMap<EnclaveKey, Nanoton>, Error> {
        let (first, last) = (key(channel, &EnclaveKey([0; 32])), key(channel, &EnclaveKey([0xff; 32])));
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(PAID).map_err(failed)?;
        let mut paid = HashMap::new();
        for entry in table.range(first.as_slice()..=last.as_slice()).map_err(failed)? {
            let (key, amount) = entry.map_err(failed)?;
            paid.extend(pair_of(key.value()).map(|(_, enclave)| (enclave, Nanoton(amount.value()))));
        }
        Ok(paid)
    }

    /// Remembers what a Channel says that it has paid, if that is news.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn remember_paid(&self, channel: &Address, enclave: &EnclaveKey, record: &PaidRecord) -> Result<(), Error> {
        // It knows nothing of a key that it has not paid.
        if *record == PaidRecord::default() {
            return Ok(());
        }
        let _updating = self.lock()?;
        let at = key(channel, enclave);
        let read = self.database.begin_read().map_err(failed)?;
        let known = read.open_table(PAID).map_err(failed)?.get(at.as_slice()).map_err(failed)?;
        if known.is_some_and(|known| known.value() >= record.paid.0) {
            return Ok(());
        }
        let write = self.database.begin_write().map_err(failed)?;
        write.open_table(PAID).map_err(failed)?.insert(at.as_slice(), record.paid.0).map_err(failed)?;
        write.commit().map_err(failed)
    }

    /// Keeps which claim is about to be sent.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn begin(&self, claim: &UnderWay) -> Result<(), Error> {
        self.put(UNDER_WAY, &claim.signed.message, &claim.to_bytes())
    }

    /// The claims of which it is not known what became of them.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn under_way(&self) -> Result<Vec<UnderWay>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let mut claims = Vec::new();
        for entry in read.open_table(UNDER_WAY).map_err(failed)?.iter().map_err(failed)? {
            let (message, items) = entry.map_err(failed)?;
            let claim = UnderWay::from_bytes(message.value(), items.value());
            claims.push(claim.ok_or_else(|| failed("a claim that is under way"))?);
        }
        Ok(claims)
    }

    /// It is known what became of a claim, and noted.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn end(&self, message: &[u8; 32]) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(failed)?;
        write.open_table(UNDER_WAY).map_err(failed)?.remove(message.as_slice()).map_err(failed)?;
        write.commit().map_err(failed)
    }

    /// Nothing can be paid to this enclave from this channel any more: what was earned there leaves the record for the archive.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn archive(&self, channel: &Address, enclave: &EnclaveKey, ended: Ended, now: UnixTime) -> Result<(), Error> {
        let _updating = self.lock()?;
        let at = key(channel, enclave);
        let receipt = self.receipt(channel, enclave)?;
        let line = match receipt {
            Some(receipt) => {
                let voucher = self.with_voucher(receipt.clone())?.map(|earned| earned.voucher.to_bytes());
                Some((receipt.to_bytes(), voucher.unwrap_or_default()))
            }
            None => None,
        };
        let paid = self.paid(channel)?.get(enclave).map_or(0, |paid| paid.0);
        let last = !self.elsewhere(channel, enclave)?;
        let write = self.database.begin_write().map_err(failed)?;
        if let Some((receipt, voucher)) = &line {
            let line = (ended.number(), now.0, paid, receipt.as_slice(), voucher.as_slice());
            write.open_table(ARCHIVE).map_err(failed)?.insert(at.as_slice(), line).map_err(failed)?;
        }
        {
            let (first, last) = ([at.as_slice(), &[0; 32]].concat(), [at.as_slice(), &[0xff; 32]].concat());
            let mut vouchers = write.open_table(VOUCHERS).map_err(failed)?;
            vouchers.retain_in(first.as_slice()..=last.as_slice(), |_, _| false).map_err(failed)?;
        }
        for table in [RECEIPTS, PAYABLE] {
            write.open_table(table).map_err(failed)?.remove(at.as_slice()).map_err(failed)?;
        }
        for table in [WAITING, PAID] {
            write.open_table(table).map_err(failed)?.remove(at.as_slice()).map_err(failed)?;
        }
        write.open_table(REFUSALS).map_err(failed)?.remove(at.as_slice()).map_err(failed)?;
        if last {
            write.open_table(COVERED).map_err(failed)?.remove(enclave.0.as_slice()).map_err(failed)?;
        }
        write.commit().map_err(failed)
    }

    /// Whether an enclave has a receipt from another channel than this one, or a promise.
    fn elsewhere(&self, channel: &Address, enclave: &EnclaveKey) -> Result<bool, Error> {
        let own = key(channel, enclave);
        let read = self.database.begin_read().map_err(failed)?;
        for table in [RECEIPTS, VOUCHERS] {
            for entry in read.open_table(table).map_err(failed)?.iter().map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let pair = entry.0.value().get(..PAIR).unwrap_or_default();
                if pair != own && pair.ends_with(&enclave.0) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Forgets promises by which nothing was earned, and archives receipts that no promise covers, where all of it was over before this
    /// time.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn sweep(&self, over: UnixTime, now: UnixTime) -> Result<(), Error> {
        let (vouchers, receipts) = (self.pairs(VOUCHERS)?, self.pairs(RECEIPTS)?);
        let mut pairs: Vec<&Vec<u8>> = vouchers.keys().chain(receipts.keys()).collect();
        pairs.sort_unstable();
        pairs.dedup();
        for pair in pairs {
            let Some((channel, enclave)) = pair_of(pair) else { continue };
            let mut latest = UnixTime(0);
            for voucher in vouchers.get(pair).into_iter().flatten() {
                latest = latest.max(SignedVoucher::from_bytes(voucher)?.voucher.expiry);
            }
            let receipt = receipts.get(pair).and_then(|receipts| receipts.first());
            let receipt = receipt.map(|receipt| SignedSettlementReceipt::from_bytes(receipt)).transpose()?;
            latest = receipt.as_ref().map_or(latest, |receipt| latest.max(receipt.receipt.time));
            let earned = receipt.map(|receipt| self.with_voucher(receipt)).transpose()?.flatten();
            if latest < over && earned.is_none() {
                self.archive(&channel, &enclave, Ended::KeyOver, now)?;
            }
        }
        Ok(())
    }

    /// What was archived of an enclave in a channel.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn past(&self, channel: &Address, enclave: &EnclaveKey) -> Result<Option<Past>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let line = read.open_table(ARCHIVE).map_err(failed)?.get(key(channel, enclave).as_slice()).map_err(failed)?;
        line.map(|line| past(line.value())).transpose()
    }

    /// All that was archived.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn archived(&self) -> Result<Vec<Past>, Error> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(ARCHIVE).map_err(failed)?;
        let lines = table.iter().map_err(failed)?;
        lines.map(|line| past(line.map_err(failed)?.1.value())).collect()
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

fn past((number, at, paid, receipt, voucher): (u8, u64, u64, &[u8], &[u8])) -> Result<Past, Error> {
    let ended = Ended::ALL.into_iter().find(|ended| ended.number() == number);
    Ok(Past {
        receipt: SignedSettlementReceipt::from_bytes(receipt)?,
        voucher: if voucher.is_empty() { None } else { Some(SignedVoucher::from_bytes(voucher)?) },
        paid: Nanoton(paid),
        ended: ended.ok_or_else(|| failed("the archive"))?,
        at: UnixTime(at),
    })
}

/// Whether whatever `less` pays, `more` pays too.
fn covers(more: &Voucher, less: &Voucher) -> bool {
    more.cap >= less.cap && more.expiry >= less.expiry && more.prices == less.prices
}

fn key(channel: &Address, enclave: &EnclaveKey) -> Vec<u8> {
    [&[channel.workchain as u8], channel.hash.as_slice(), &enclave.0].concat()
}

/// Bytes of a channel and an enclave key.
const PAIR: usize = 1 + 32 + 32;

fn pair_of(pair: &[u8]) -> Option<(Address, EnclaveKey)> {
    let (workchain, rest) = pair.split_first()?;
    let (hash, enclave) = rest.split_first_chunk()?;
    Some((Address { workchain: *workchain as i8, hash: *hash }, EnclaveKey(enclave.try_into().ok()?)))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Store(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::identity::SigningKey;
    use cocoon_settlement::NetworkId;

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
    fn the_first_two_receipts_that_contradict_one_another_are_kept_whatever_follows() {
        for (known, new, order) in [
            (receipt(5, 50), receipt(5, 51), [(5, 50), (5, 51)]),
            (receipt(5, 50), receipt(6, 49), [(5, 50), (6, 49)]),
            (receipt(5, 50), receipt(4, 51), [(4, 51), (5, 50)]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("host.redb");
            {
                let store = Store::open(&path).unwrap();
                store.keep_receipt(&known).unwrap();
                assert_eq!(store.equivocations().unwrap(), []);
                assert!(store.keep_receipt(&new).is_err());
                // The newest one is another soon, and contradicted again.
                store.keep_receipt(&receipt(9, 90)).unwrap();
                assert!(store.keep_receipt(&receipt(10, 1)).is_err());
            }
            let found = Store::open(&path).unwrap().equivocations().unwrap();
            let pairs: Vec<_> = found
                .iter()
                .map(|found| [&found.earlier, &found.later].map(|one| (one.receipt.sequence, one.receipt.total.0)))
                .collect();
            assert_eq!(pairs, [order]);
        }
        // No contradiction: the same one, a later one that has more, and one of another channel.
        let elsewhere = SettlementReceipt { channel: Address { workchain: 0, hash: [3; 32] }, ..receipt(6, 1).receipt };
        let elsewhere = SignedSettlementReceipt::sign(elsewhere, &SigningKey::from_seed(&[7; 32]).unwrap()).unwrap();
        for other in [receipt(5, 50), receipt(6, 50), receipt(6, 51), receipt(4, 50), elsewhere] {
            assert_eq!(Equivocation::of(receipt(5, 50), other), None);
        }
    }

    #[test]
    fn claims_that_are_under_way_survive_a_restart_until_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.redb");
        let claim = |n: u8, items: usize| UnderWay {
            signed: Signed { message: [n; 32], valid_until: UnixTime(1_000 + u64::from(n)) },
            items: (0..items)
                .map(|at| UnderWayItem {
                    claimed: Claimed { enclave_key: EnclaveKey([at as u8; 32]), ..Claimed::from(&receipt(1, 10)) },
                    before: Nanoton(at as u64),
                })
                .collect(),
        };
        {
            let store = Store::open(&path).unwrap();
            store.begin(&claim(1, 1)).unwrap();
            store.begin(&claim(2, 8)).unwrap();
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.under_way().unwrap(), [claim(1, 1), claim(2, 8)]);
        store.end(&[1; 32]).unwrap();
        assert_eq!(store.under_way().unwrap(), [claim(2, 8)]);
        store.put(UNDER_WAY, &[3; 32], &[0; 20]).unwrap();
        assert!(store.under_way().is_err(), "what cannot be read is not taken for nothing");
    }

    #[test]
    fn what_is_archived_takes_all_of_its_pair_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("host.redb")).unwrap();
        let enclave = receipt(1, 10).receipt.enclave_key;
        let elsewhere = Address { workchain: 0, hash: [0; 32] };
        let other = SignedSettlementReceipt::sign(
            SettlementReceipt { channel: elsewhere, ..receipt(1, 10).receipt },
            &SigningKey::from_seed(&[7; 32]).unwrap(),
        )
        .unwrap();
        store.cover(&enclave, UnixTime(20)).unwrap();
        for receipt in [&receipt(1, 10), &receipt(2, 20), &other] {
            store.keep_receipt(receipt).unwrap();
        }
        store.keep_voucher(&voucher(100, 10)).unwrap();
        store.waiting_since(&CHANNEL, &enclave, UnixTime(5)).unwrap();
        let record = |paid| PaidRecord { paid: Nanoton(paid), cap: Nanoton(100), expiry: UnixTime(10) };
        store.remember_paid(&CHANNEL, &enclave, &record(7)).unwrap();
        store.remember_paid(&CHANNEL, &enclave, &record(6)).unwrap();
        assert_eq!(store.paid(&CHANNEL).unwrap()[&enclave], Nanoton(7), "it never becomes less");
        store.refuse(&receipt(2, 20), UnixTime(9), 133, Nanoton(1)).unwrap();
        store.archive(&CHANNEL, &enclave, Ended::KeyOver, UnixTime(99)).unwrap();
        let past = store.past(&CHANNEL, &enclave).unwrap().unwrap();
        assert_eq!((past.receipt, past.paid, past.at), (receipt(2, 20), Nanoton(7), UnixTime(99)));
        assert_eq!(past.voucher, Some(voucher(100, 10)));
        assert!(store.vouchers(&CHANNEL).unwrap().is_empty() && store.paid(&CHANNEL).unwrap().is_empty());
        assert_eq!(store.payable(&CHANNEL, &enclave).unwrap(), None);
        assert_eq!(store.refusal(&CHANNEL, &enclave).unwrap(), None);
        assert_eq!(store.receipt(&elsewhere, &enclave).unwrap(), Some(other));
        assert_eq!(store.covered(&enclave).unwrap(), UnixTime(20), "the other channel needs it");
        store.archive(&elsewhere, &enclave, Ended::ChannelClosed, UnixTime(100)).unwrap();
        assert_eq!(store.covered(&enclave).unwrap(), UnixTime(0));
        assert_eq!(store.past(&elsewhere, &enclave).unwrap().unwrap().voucher, None);
        // What an old receipt says is no news after it either.
        store.keep_receipt(&receipt(1, 10)).unwrap();
        assert_eq!(store.receipt(&CHANNEL, &enclave).unwrap(), None);
    }

    #[test]
    fn promises_that_nothing_was_earned_by_are_forgotten_when_they_are_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("host.redb")).unwrap();
        store.keep_voucher(&voucher(100, 10)).unwrap();
        store.keep_voucher(&voucher(50, 90)).unwrap();
        store.sweep(UnixTime(90), UnixTime(1_000)).unwrap();
        assert_eq!(store.vouchers(&CHANNEL).unwrap().len(), 2);
        store.sweep(UnixTime(91), UnixTime(1_000)).unwrap();
        assert!(store.vouchers(&CHANNEL).unwrap().is_empty() && store.archived().unwrap().is_empty());
        // A receipt that no promise covers is archived, one that is covered stays.
        store.keep_receipt(&receipt(1, 10)).unwrap();
        store.sweep(UnixTime(5), UnixTime(1_000)).unwrap();
        assert!(store.archived().unwrap().is_empty());
        store.keep_voucher(&voucher(100, 10)).unwrap();
        store.sweep(UnixTime(91), UnixTime(1_000)).unwrap();
        assert_eq!(store.earned().unwrap().len(), 1);
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
