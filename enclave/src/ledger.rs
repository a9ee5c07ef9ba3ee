//! What each channel owes this enclave. Nothing is ever served past a voucher's cap, however many requests run at once.
//!
//! A channel that was charged is remembered for as long as the key lives, which is as long as this process: forgotten, it could come back with
//! another voucher, and a total that began again at nothing would contradict the receipts signed before, for which a provider's stake is
//! taken. So as little as possible is kept of each, and nothing of a channel that was never charged.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cocoon_attestation::UnixTime;
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::{SignedSettlementReceipt, TokenCounts};
use cocoon_settlement::cells::{SettlementReceipt, Voucher};
use cocoon_settlement::{Address, Nanoton, NetworkId};

/// Why a request cannot be paid for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The voucher does not cover the prompt and one token.
    #[error(
        "the voucher's cap of {cap} is reached: {used} are used or promised and this request can cost {needed} more; sign a voucher with a higher cap, or ask for fewer tokens"
    )]
    CapReached {
        /// Cap of the voucher.
        cap: Nanoton,
        /// Total of this channel, with what runs now.
        used: Nanoton,
        /// The most this request can cost.
        needed: Nanoton,
    },
    /// As many channels as can be remembered.
    #[error("this enclave serves as many channels as it can: ask another")]
    TooManyChannels,
    /// Amounts beyond what can be counted.
    #[error("the price of this request is beyond any amount of Toncoin")]
    Overflow,
    /// The crypto library failed.
    #[error("the receipt could not be signed")]
    Signing,
}

/// Channels that are remembered at once: 73 bytes each, in a table of at most 2^20 entries.
const MAX_CHANNELS: usize = 900_000;

/// All that is kept of a channel. Signatures are deterministic, so the last receipt can be signed again, byte for byte.
#[derive(Clone, Copy, Default)]
struct Account {
    total: Nanoton,
    reserved: Nanoton,
    /// Of the last receipt; 0 if there is none.
    sequence: u64,
    /// Of the last receipt.
    time: UnixTime,
}

/// All channels of this enclave's key.
pub struct Ledger {
    network: NetworkId,
    provider: Address,
    accounts: Mutex<HashMap<Address, Account>>,
    most: usize,
    #[cfg(test)]
    cap_off: bool,
}

/// Money of a voucher set aside for one request. Dropping it frees the money: an answer that failed is free.
pub struct Reservation<'a> {
    ledger: &'a Ledger,
    voucher: Voucher,
    amount: Nanoton,
}

impl Ledger {
    /// An empty ledger for a provider.
    pub fn new(network: NetworkId, provider: Address) -> Self {
        Self {
            network,
            provider,
            accounts: Mutex::default(),
            most: MAX_CHANNELS,
            #[cfg(test)]
            cap_off: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets aside what a request can cost at most: its prompt and `wanted` tokens.
    ///
    /// # Errors
    /// That does not fit under the cap: an answer is never made shorter than asked for, unasked.
    pub fn reserve(&self, voucher: &Voucher, prompt: u64, wanted: u64) -> Result<Reservation<'_>, Error> {
        // Generated tokens may turn out to be thoughts, which have their own price.
        let spoken = TokenCounts { prompt, completion: wanted, ..TokenCounts::default() };
        let thought = TokenCounts { prompt, reasoning: wanted, ..TokenCounts::default() };
        let charge = |tokens: TokenCounts| tokens.charge(&voucher.prices).map_err(|_| Error::Overflow);
        let amount = charge(spoken)?.max(charge(thought)?);
        let mut accounts = self.lock();
        let known = accounts.get(&voucher.channel).copied();
        if known.is_none() && accounts.len() >= self.most {
            return Err(Error::TooManyChannels);
        }
        let mut account = known.unwrap_or_default();
        let used = account.total.checked_add(account.reserved).ok_or(Error::Overflow)?;
        let left = voucher.cap.saturating_sub(used);
        #[cfg(test)]
        let left = if self.cap_off { Nanoton(u64::MAX) } else { left };
        if amount > left {
            return Err(Error::CapReached { cap: voucher.cap, used, needed: amount });
        }
        account.reserved = account.reserved.checked_add(amount).ok_or(Error::Overflow)?;
        accounts.insert(voucher.channel, account);
        Ok(Reservation { ledger: self, voucher: voucher.clone(), amount })
    }

    /// The latest receipt of a channel, as `key` signed it.
    pub fn latest(&self, channel: &Address, key: &SigningKey) -> Option<SignedSettlementReceipt> {
        let account = self.lock().get(channel).copied().filter(|account| account.sequence > 0)?;
        SignedSettlementReceipt::sign(self.receipt(channel, &account, key), key).ok()
    }

    fn receipt(&self, channel: &Address, account: &Account, key: &SigningKey) -> SettlementReceipt {
        SettlementReceipt {
            network: self.network,
            provider: self.provider,
            channel: *channel,
            enclave_key: key.enclave_key(),
            sequence: account.sequence,
            total: account.total,
            time: account.time,
        }
    }
}

impl Reservation<'_> {
    /// Charges for tokens served and signs the channel's new total. Every signing takes a new sequence number.
    ///
    /// # Errors
    /// The amount cannot be counted or signed; then nothing is charged.
    pub fn settle(
        self,
        tokens: TokenCounts,
        time: UnixTime,
        key: &SigningKey,
    ) -> Result<(Nanoton, SignedSettlementReceipt), Error> {
        // Never more than was set aside, whatever was counted.
        let charge = tokens.charge(&self.voucher.prices).map_err(|_| Error::Overflow)?.min(self.amount);
        let mut accounts = self.ledger.lock();
        let account = accounts.entry(self.voucher.channel).or_default();
        let settled = Account {
            total: account.total.checked_add(charge).ok_or(Error::Overflow)?,
            sequence: account.sequence + 1,
            // The request came while the voucher held, however long its answer took: the contract pays up to that second.
            time: time.min(self.voucher.expiry),
            ..*account
        };
        let receipt = self.ledger.receipt(&self.voucher.channel, &settled, key);
        let signed = SignedSettlementReceipt::sign(receipt, key).map_err(|_| Error::Signing)?;
        *account = settled;
        drop(accounts);
        Ok((charge, signed))
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.ledger.lock().entry(self.voucher.channel) {
            let account = entry.get_mut();
            account.reserved = account.reserved.saturating_sub(self.amount);
            // Never charged, and nothing is set aside: no receipt was signed that another could contradict.
            if account.sequence == 0 && account.reserved == Nanoton(0) {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_attestation::EnclaveKey;
    use cocoon_settlement::Prices;

    fn address(byte: u8) -> Address {
        Address { workchain: 0, hash: [byte; 32] }
    }

    /// One nanoton a prompt token, two a generated one.
    fn voucher(cap: u64) -> Voucher {
        Voucher {
            network: NetworkId::LOCAL,
            channel: address(1),
            enclave_key: EnclaveKey([0; 32]),
            cap: Nanoton(cap),
            prices: Prices { prompt: 1_000_000, cached: 0, completion: 2_000_000, reasoning: 0 },
            expiry: UnixTime(u64::from(u32::MAX)),
        }
    }

    fn ledger() -> Ledger {
        Ledger::new(NetworkId::LOCAL, address(2))
    }

    fn served(prompt: u64, completion: u64) -> TokenCounts {
        TokenCounts { prompt, completion, ..TokenCounts::default() }
    }

    #[test]
    fn totals_grow_and_every_signing_takes_a_new_number() {
        let (ledger, key) = (ledger(), SigningKey::from_seed(&[1; 32]).unwrap());
        for round in 1..=3 {
            let reservation = ledger.reserve(&voucher(1_000), 10, 20).unwrap();
            let (charge, signed) = reservation.settle(served(10, 5), UnixTime(7), &key).unwrap();
            signed.verify().unwrap();
            assert_eq!(
                (charge, signed.receipt.sequence, signed.receipt.total),
                (Nanoton(20), round, Nanoton(20 * round))
            );
        }
    }

    #[test]
    fn what_can_cost_more_than_the_cap_is_refused_and_never_made_shorter() {
        let (ledger, key) = (ledger(), SigningKey::from_seed(&[1; 32]).unwrap());
        let refused = ledger.reserve(&voucher(21), 10, 6).err().unwrap();
        assert_eq!(refused, Error::CapReached { cap: Nanoton(21), used: Nanoton(0), needed: Nanoton(22) });
        let reservation = ledger.reserve(&voucher(21), 10, 5).unwrap();
        assert_eq!(reservation.amount, Nanoton(20), "10 + 2 x 5 = 20 fits under 21");
        reservation.settle(served(10, 5), UnixTime(7), &key).unwrap();
        let refused = ledger.reserve(&voucher(21), 10, 1).err().unwrap();
        assert_eq!(refused, Error::CapReached { cap: Nanoton(21), used: Nanoton(20), needed: Nanoton(12) });
    }

    /// The control of the attack "a voucher past its cap".
    #[test]
    fn with_the_cap_check_off_the_same_request_is_served() {
        assert!(ledger().reserve(&voucher(0), 10, 100).is_err());
        let (ledger, key) = (Ledger { cap_off: true, ..ledger() }, SigningKey::from_seed(&[1; 32]).unwrap());
        let reservation = ledger.reserve(&voucher(0), 10, 100).unwrap();
        let (charge, signed) = reservation.settle(served(10, 5), UnixTime(7), &key).unwrap();
        assert_eq!((charge, signed.receipt.total), (Nanoton(20), Nanoton(20)), "charged past a cap of nothing");
    }

    #[test]
    fn requests_at_once_cannot_spend_the_same_money() {
        let ledger = ledger();
        let first = ledger.reserve(&voucher(30), 10, 5).unwrap();
        assert!(ledger.reserve(&voucher(30), 10, 5).is_err());
        drop(first);
        ledger.reserve(&voucher(30), 10, 5).expect("a failed answer is free");
    }

    #[test]
    fn an_answer_that_outlives_its_voucher_stays_payable() {
        let (ledger, key) = (ledger(), SigningKey::from_seed(&[1; 32]).unwrap());
        let short = Voucher { expiry: UnixTime(7), ..voucher(1_000) };
        let (_, signed) = ledger.reserve(&short, 10, 5).unwrap().settle(served(10, 5), UnixTime(9), &key).unwrap();
        assert_eq!(signed.receipt.time, UnixTime(7));
    }

    /// A voucher of another channel.
    fn of(channel: u8, cap: u64) -> Voucher {
        Voucher { channel: address(channel), ..voucher(cap) }
    }

    #[test]
    fn who_was_never_charged_is_not_remembered() {
        let (ledger, key) = (Ledger { most: 2, ..ledger() }, SigningKey::from_seed(&[1; 32]).unwrap());
        for channel in 10..20 {
            assert!(matches!(ledger.reserve(&of(channel, 0), 10, 5), Err(Error::CapReached { .. })));
            drop(ledger.reserve(&of(channel, 100), 10, 5).unwrap());
        }
        assert_eq!(ledger.lock().len(), 0);
        let (running, other) =
            (ledger.reserve(&of(1, 100), 10, 5).unwrap(), ledger.reserve(&of(2, 100), 1, 1).unwrap());
        assert_eq!(ledger.reserve(&of(3, 100), 1, 1).err(), Some(Error::TooManyChannels));
        let second = ledger.reserve(&of(1, 100), 1, 1).expect("a channel that is known is served");
        drop(running);
        second.settle(served(1, 1), UnixTime(7), &key).unwrap();
        drop(other);
        assert_eq!(ledger.lock().keys().collect::<Vec<_>>(), [&address(1)]);
    }

    /// However long it has been away, and whatever it promises now: its total goes on where it was.
    #[test]
    fn a_channel_that_comes_back_goes_on_where_it_was() {
        let (ledger, key) = (Ledger { most: 2, ..ledger() }, SigningKey::from_seed(&[1; 32]).unwrap());
        let first = Voucher { expiry: UnixTime(100), ..voucher(30) };
        let (_, before) = ledger.reserve(&first, 10, 5).unwrap().settle(served(10, 5), UnixTime(90), &key).unwrap();
        for channel in 10..20 {
            drop(ledger.reserve(&of(channel, 100), 10, 5).unwrap());
        }
        assert_eq!(ledger.latest(&address(1), &key).unwrap().to_bytes(), before.to_bytes(), "the very receipt");
        let again = ledger.reserve(&first, 10, 5).err().unwrap();
        assert_eq!(again, Error::CapReached { cap: Nanoton(30), used: Nanoton(20), needed: Nanoton(20) });
        let later = Voucher { expiry: UnixTime(10_000), ..voucher(40) };
        let (_, after) = ledger.reserve(&later, 10, 5).unwrap().settle(served(10, 5), UnixTime(9_000), &key).unwrap();
        assert_eq!((after.receipt.sequence, after.receipt.total), (2, Nanoton(40)));
        assert_eq!(ledger.latest(&address(1), &key).unwrap().to_bytes(), after.to_bytes());
        assert!(ledger.latest(&address(9), &key).is_none());
    }

    #[test]
    fn a_channel_takes_as_little_as_the_documentation_says() {
        assert!(size_of::<(Address, Account)>() <= 72);
        // A table is full at seven eighths.
        const { assert!(MAX_CHANNELS <= (1 << 20) / 8 * 7) };
    }

    #[test]
    fn an_absurd_price_is_refused() {
        let mut voucher = voucher(u64::MAX);
        voucher.prices.completion = u64::MAX;
        assert_eq!(ledger().reserve(&voucher, 1, u64::MAX).err(), Some(Error::Overflow));
    }
}
