//! Channel: one client's deposit for one provider.

use std::sync::LazyLock;

use cocoon_attestation::types::{EnclaveKey, UnixTime};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellSlice, Load};
use tycho_types::error::Error as CellError;
use tycho_types::models::StateInit;

use super::{Answer, Code, ProviderInit, VERSION, body};
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::cells::{load_hash, read_whole, store_hash};
use crate::chain::{Chain, StackValue};
use crate::error::Error;

static CODE: Code = LazyLock::new(|| super::embedded(include_bytes!("../../contracts/build/channel.boc")));

const OP_TOP_UP: u32 = 0x4303_0001;
const OP_START_CLOSE: u32 = 0x4303_0003;
const OP_FINISH_CLOSE: u32 = 0x4303_0004;
const OP_DELETE: u32 = 0x4303_0006;

/// Longest close delay, 90 days: the contract takes a longer one for this.
pub const MAX_CLOSE_DELAY: u32 = 7_776_000;

/// The Registry lets no attestation last longer, 7 days.
pub const MAX_LIFETIME: u64 = 604_800;

/// Most enclave keys that a Channel pays.
pub const MAX_KEYS: u16 = 256;
/// It holds back rent for so many at a time.
const RENT_STEP: u16 = 16;
/// Of the time that the rent is held back for, in seconds.
const YEAR: u64 = 31_536_000;

/// Representation hash of the Channel code of this version; enclaves carry it in their measured configuration.
pub fn channel_code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// Depth of that code, which an address needs besides the hash.
pub fn channel_code_depth() -> u16 {
    CODE.repr_depth()
}

/// What a Channel starts with and never changes; its address follows from it. As a cell it is the initial data itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInit {
    /// The network it is on.
    pub network: NetworkId,
    /// The only Provider whose claims it takes.
    pub provider: Address,
    /// The owner of that Provider, who is paid.
    pub owner: Address,
    /// Refunds go here, and only it may start to close.
    pub client: Address,
    /// Ed25519 key that signs vouchers and requests.
    pub client_key: [u8; 32],
    /// Seconds between start and end of a close by the client alone; [`MAX_CLOSE_DELAY`] at most.
    pub close_delay: u32,
    /// Random and never used before: a Channel that is deployed again where one was deleted knows nothing of what that one paid, and
    /// enclaves count on.
    pub salt: [u8; 32],
}

impl ChannelInit {
    /// The initial data.
    pub fn to_cell(&self) -> Cell {
        // Fixed widths below a cell's capacity: writing cannot fail.
        self.write().unwrap_or_default()
    }

    fn write(&self) -> Result<Cell, CellError> {
        let mut terms = CellBuilder::new();
        terms.store_u8(VERSION)?;
        terms.store_u32(self.close_delay)?;
        self.client.store(&mut terms)?;
        store_hash(&mut terms, &self.salt)?;
        let mut b = CellBuilder::new();
        b.store_zeros(BITS_BEFORE_NETWORK)?;
        b.store_u32(self.network.0 as u32)?;
        self.provider.store(&mut b)?;
        self.owner.store(&mut b)?;
        store_hash(&mut b, &self.client_key)?;
        b.store_zeros(BITS_AT)?;
        b.store_reference(terms.build()?)?;
        b.build()
    }

    /// Reads initial data; data of a Channel that has already been used is an error.
    pub fn from_cell(cell: &Cell) -> Result<Self, Error> {
        read_whole(cell, Self::read).map_err(malformed)
    }

    fn read(s: &mut CellSlice<'_>) -> Result<Self, CellError> {
        expect_zeros(s, BITS_BEFORE_NETWORK)?;
        Self::read_terms(s, |s| expect_zeros(s, BITS_AT))
    }

    /// From the network on; `at` reads when its close may be finished or was.
    fn read_terms<'a>(
        s: &mut CellSlice<'a>,
        at: impl FnOnce(&mut CellSlice<'a>) -> Result<(), CellError>,
    ) -> Result<Self, CellError> {
        let network = NetworkId(s.load_u32()? as i32);
        let (provider, owner, client_key) = (Address::load(s)?, Address::load(s)?, load_hash(s)?);
        at(s)?;
        read_whole(&s.load_reference_cloned()?, |s| {
            if s.load_u8()? != VERSION {
                return Err(CellError::InvalidTag);
            }
            let (close_delay, client, salt) = (s.load_u32()?, Address::load(s)?, load_hash(s)?);
            Ok(Self { network, provider, owner, client, client_key, close_delay, salt })
        })
    }

    /// Reads what a Channel was deployed with from its data of any time. It was deployed with nothing paid only if [`Self::address`] is
    /// its own.
    ///
    /// # Errors
    /// They are not a Channel's of this version.
    pub fn of_data(data: &Cell) -> Result<Self, Error> {
        let read = |s: &mut CellSlice<'_>| {
            // Entries in three dictionaries, their number, rent, status, first deposit.
            for _ in 0..3 {
                Option::<Cell>::load_from(s)?;
            }
            s.skip_first(BITS_BEFORE_NETWORK - 3, 0)?;
            Self::read_terms(s, |s| s.skip_first(BITS_AT, 0))
        };
        read_whole(data, read).map_err(malformed)
    }

    /// The initial data as a bag of cells.
    pub fn to_boc(&self) -> Vec<u8> {
        Boc::encode(self.to_cell())
    }

    /// Reads a bag of cells with exactly the initial data as its root.
    pub fn from_boc(boc: &[u8]) -> Result<Self, Error> {
        Self::from_cell(&Boc::decode(boc).map_err(malformed)?)
    }

    /// Whether its close delay is one that the contract keeps.
    ///
    /// # Errors
    /// It is longer.
    pub fn check(&self) -> Result<(), Error> {
        let (delay, most) = (self.close_delay, MAX_CLOSE_DELAY);
        if delay > most {
            let why = format!("a close delay of {delay} s is longer than {most} s (90 days), the longest there is");
            return Err(Error::Malformed { what: "a channel's terms", why });
        }
        Ok(())
    }

    /// Whether a provider with these terms may serve it: the contract lets the client choose, so the host must look.
    pub fn check_for(&self, provider: &ProviderInit) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::Malformed { what: "a channel that this provider serves", why });
        if self.network != provider.network {
            return wrong(format!("it is on {}", self.network));
        }
        if self.provider != provider.address() {
            return wrong(format!("it pays the provider {}", self.provider));
        }
        if self.owner != provider.owner {
            return wrong(format!("it pays {} and not the provider's owner", self.owner));
        }
        if self.close_delay < provider.claim_window {
            let (delay, window) = (self.close_delay, provider.claim_window);
            return wrong(format!("its close delay of {delay} s is shorter than the claim window of {window} s"));
        }
        self.check()?;
        provider.check()
    }

    /// State to deploy it with.
    pub fn state_init(&self) -> StateInit {
        super::state_init(&CODE, self.to_cell())
    }

    /// Its address, with the code of this version.
    pub fn address(&self) -> Address {
        self.address_with_code_hash(&channel_code_hash(), channel_code_depth())
    }

    /// Its address with the code of this representation hash and depth, as an enclave's configuration names it.
    pub fn address_with_code_hash(&self, code_hash: &[u8; 32], code_depth: u16) -> Address {
        super::address_of(code_hash, code_depth, &self.to_cell())
    }
}

/// No entries (three bits), their number (16), the rent held back (64), status (8), first deposit (32).
const BITS_BEFORE_NETWORK: u16 = 3 + 16 + 64 + 8 + 32;
/// When its close may be finished or was.
const BITS_AT: u16 = 32;

/// Everything that changes is zero at the start.
fn expect_zeros(s: &mut CellSlice<'_>, bits: u16) -> Result<(), CellError> {
    for _ in 0..bits {
        if s.load_bit()? {
            return Err(CellError::InvalidData);
        }
    }
    Ok(())
}

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::Malformed { what: "the initial data of a channel", why: why.to_string() }
}

/// Body of a deposit, which also deploys.
pub fn top_up(query_id: u64) -> Result<Cell, Error> {
    body(OP_TOP_UP, query_id, |_| Ok(()))
}

/// Body by which the client starts to close alone.
pub fn start_close(query_id: u64) -> Result<Cell, Error> {
    body(OP_START_CLOSE, query_id, |_| Ok(()))
}

/// Body by which anyone ends a close whose delay is over; the client gets the refund.
pub fn finish_close(query_id: u64) -> Result<Cell, Error> {
    body(OP_FINISH_CLOSE, query_id, |_| Ok(()))
}

/// Body by which anyone deletes a Channel that has been closed for long enough.
pub fn delete(query_id: u64) -> Result<Cell, Error> {
    body(OP_DELETE, query_id, |_| Ok(()))
}

/// Where a Channel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelStatus {
    /// Takes deposits and pays claims.
    Open,
    /// Takes no deposits, still pays claims; the client gets the rest after `at`.
    Closing {
        /// From here on anyone may finish the close.
        at: UnixTime,
    },
    /// Refunded.
    Closed {
        /// Since when.
        at: UnixTime,
    },
}

/// What a Channel holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// All it holds, its rent included.
    pub balance: Nanoton,
    /// What claims can be paid from.
    pub available: Nanoton,
    /// Where it is in its life.
    pub status: ChannelStatus,
    /// Enclave keys that were paid.
    pub keys: u16,
    /// No receipt of an earlier time is paid: ten minutes before the first deposit.
    pub opened: UnixTime,
}

impl ChannelState {
    /// What claims of so many enclave keys that it has not paid yet can be paid from, besides those that it has: for every sixteen it holds
    /// back more rent, first of all. `None` if it takes so many no more.
    ///
    /// At mainnet's prices, and without the rent since its last transaction.
    pub fn available_with(&self, further: usize) -> Option<Nanoton> {
        let keys = usize::from(self.keys).checked_add(further).filter(|keys| *keys <= usize::from(MAX_KEYS))?;
        // It reckons anew where the key before was the last of a step.
        let last_step = keys.saturating_sub(1) / usize::from(RENT_STEP) * usize::from(RENT_STEP);
        if further == 0 || last_step < usize::from(self.keys) {
            return Some(self.available);
        }
        // What it holds back now cannot be told where rent has eaten into it; nothing is paid then.
        let reserve = self.balance.saturating_sub(self.available);
        let needed = rent(u16::try_from(last_step).ok()?.saturating_add(RENT_STEP), YEAR);
        Some(self.available.saturating_sub(needed.saturating_sub(reserve)))
    }
}

/// Reads what a Channel holds.
pub async fn state(chain: &dyn Chain, channel: &Address) -> Result<ChannelState, Error> {
    let balance = chain.account(channel).await?.balance;
    let mut answer = Answer::get(chain, &CODE, channel, "state", Vec::new()).await?;
    let (status, at, keys) = (answer.uint::<u8>()?, UnixTime(answer.uint()?), answer.uint()?);
    let status = match status {
        0 => ChannelStatus::Open,
        1 => ChannelStatus::Closing { at },
        2 => ChannelStatus::Closed { at },
        _ => return Err(Error::Unexpected("state".into())),
    };
    let (available, opened) = (Nanoton(answer.uint()?), UnixTime(answer.uint()?));
    Ok(ChannelState { balance, available, status, keys, opened })
}

/// Reads what a Channel was deployed with. Its address is checked against the answer, so a wrong one cannot pass.
pub async fn terms(chain: &dyn Chain, channel: &Address) -> Result<ChannelInit, Error> {
    let mut answer = Answer::get(chain, &CODE, channel, "terms", Vec::new()).await?;
    if answer.uint::<u8>()? != VERSION {
        return Err(Error::Unexpected("terms".into()));
    }
    let init = ChannelInit {
        network: NetworkId(answer.int32()?),
        provider: answer.address()?,
        owner: answer.address()?,
        client: answer.address()?,
        client_key: answer.bytes32()?,
        close_delay: answer.uint()?,
        salt: answer.bytes32()?,
    };
    if init.address() != *channel {
        return Err(Error::Unexpected("terms".into()));
    }
    Ok(init)
}

/// Most that a Channel that has paid so many enclave keys costs in rent. Bits and cells are those that the contract itself reckons with.
pub fn rent(keys: u16, seconds: u64) -> Nanoton {
    let keys = u64::from(keys);
    super::rent(17_000 + 700 * keys, 40 + 2 * keys, seconds)
}

/// From when on a Channel that was closed at this time may be deleted: when nothing that was paid from it can be claimed anew.
pub fn deletable(closed: UnixTime, close_delay: u32) -> UnixTime {
    // One second more, because the contract asks for more than this to have passed.
    closed.plus(MAX_LIFETIME + u64::from(close_delay.min(MAX_CLOSE_DELAY)) + 1)
}

/// What a Channel must hold back when it is closed: the rent until it may be deleted, seven days and its close delay later, and for a month longer.
pub fn closed_rent(keys: u16, close_delay: u32) -> Nanoton {
    const MONTH: u64 = 30 * 86_400;
    rent(keys, MAX_LIFETIME + MONTH + u64::from(close_delay.min(MAX_CLOSE_DELAY)))
}

/// What a Channel has paid to one enclave key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaidRecord {
    /// Paid so far in all.
    pub paid: Nanoton,
    /// Cap of the highest voucher it has verified.
    pub cap: Nanoton,
    /// Expiry of that voucher.
    pub expiry: UnixTime,
}

/// Reads what a Channel has paid to one enclave key; zeros if nothing.
pub async fn paid(chain: &dyn Chain, channel: &Address, key: &EnclaveKey) -> Result<PaidRecord, Error> {
    let mut answer = Answer::get(chain, &CODE, channel, "paid", vec![StackValue::uint256(&key.0)]).await?;
    Ok(PaidRecord { paid: Nanoton(answer.uint()?), cap: Nanoton(answer.uint()?), expiry: UnixTime(answer.uint()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixteenth_key_takes_rent_first_and_no_more_than_256_are_taken() {
        let state = |keys: u16, available| ChannelState {
            balance: Nanoton(available).saturating_add(rent(keys.div_ceil(16).max(1) * 16, YEAR)),
            available: Nanoton(available),
            status: ChannelStatus::Open,
            keys,
            opened: UnixTime(0),
        };
        let step = rent(32, YEAR).saturating_sub(rent(16, YEAR));
        assert!((13_000_000..13_200_000).contains(&step.0), "{step}");
        let much = 1_000_000_000;
        let left = |steps: u64| Some(Nanoton(much - steps * step.0));
        for (keys, further, steps) in [(0, 0, 0), (0, 1, 0), (0, 16, 0), (0, 17, 1), (15, 1, 0), (15, 2, 1), (16, 0, 0)]
            .into_iter()
            .chain([(16, 1, 1), (16, 16, 1), (16, 17, 2), (17, 1, 0), (32, 1, 1)])
        {
            let found = state(keys, much).available_with(further).unwrap();
            assert!(found.0.abs_diff(left(steps).unwrap().0) <= steps, "{keys} and {further}: {found}");
        }
        assert_eq!(state(16, 5).available_with(1), Some(Nanoton::ZERO));
        assert_eq!((state(255, much).available_with(1), state(256, much).available_with(1)), (left(0), None));
        assert_eq!(state(256, much).available_with(0), left(0));
    }
}
