//! What each channel owes this enclave. Nothing is ever served past a voucher's cap, however many requests run at once.

use std::collections::HashMap;
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

/// Channels that are remembered at once: 200 bytes each, roughly.
const MAX_CHANNELS: usize = 100_000;

#[derive(Default)]
struct Account {
    total: Nanoton,
    reserved: Nanoton,
    sequence: u64,
    latest: Option<SignedSettlementReceipt>,
}

/// All channels of this enclave's key.
pub struct Ledger {
    network: NetworkId,
    provider: Address,
    accounts: Mutex<HashMap<Address, Account>>,
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
        if accounts.len() >= MAX_CHANNELS && !accounts.contains_key(&voucher.channel) {
            return Err(Error::TooManyChannels);
        }
        let account = accounts.entry(voucher.channel).or_default();
        let used = account.total.checked_add(account.reserved).ok_or(Error::Overflow)?;
        let left = voucher.cap.saturating_sub(used);
        #[cfg(test)]
        let left = if self.cap_off { Nanoton(u64::MAX) } else { left };
        if amount > left {
            return Err(Error::CapReached { cap: voucher.cap, used, needed: amount });
        }
        account.reserved = account.reserved.checked_add(amount).ok_or(Error::Overflow)?;
        Ok(Reservation { ledger: self, voucher: voucher.clone(), amount })
    }

    /// The latest receipt of a channel.
    pub fn latest(&self, channel: &Address) -> Option<SignedSettlementReceipt> {
        self.lock().get(channel)?.latest.clone()
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
        let total = account.total.checked_add(charge).ok_or(Error::Overflow)?;
        let sequence = account.sequence + 1;
        let receipt = SettlementReceipt {
            network: self.ledger.network,
            provider: self.ledger.provider,
            channel: self.voucher.channel,
            enclave_key: key.enclave_key(),
            sequence,
            total,
            // The request came while the voucher held, however long its answer took: the contract pays up to that second.
            time: time.min(self.voucher.expiry),
        };
        let signed = SignedSettlementReceipt::sign(receipt, key).map_err(|_| Error::Signing)?;
        account.total = total;
        account.sequence = sequence;
        account.latest = Some(signed.clone());
        drop(accounts);
        Ok((charge, signed))
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(account) = self.ledger.lock().get_mut(&self.voucher.channel) {
            account.reserved = account.reserved.saturating_sub(self.amount);
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

    #[test]
    fn an_absurd_price_is_refused() {
        let mut voucher = voucher(u64::MAX);
        voucher.prices.completion = u64::MAX;
        assert_eq!(ledger().reserve(&voucher, 1, u64::MAX).err(), Some(Error::Overflow));
    }
}
