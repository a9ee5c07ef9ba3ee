//! Provider: one operator's attested enclave keys and stake; passes claims on to Channels.

use std::sync::LazyLock;

use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use tycho_types::cell::{Cell, CellBuilder, CellFamily, CellSlice, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error as CellError;
use tycho_types::models::StateInit;
use tycho_types::num::Tokens;

use super::channel::MAX_CLOSE_DELAY;
use super::{Answer, Code, VERSION, body};
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::cells::{
    SettlementReceipt, Signature, Voucher, load_hash, load_time, malformed, read_whole, store_hash, store_time,
};
use crate::chain::{Chain, StackValue};
use crate::error::Error;

static CODE: Code = LazyLock::new(|| super::embedded(include_bytes!("../../contracts/build/provider.boc")));

/// Most items that one claim holds.
pub const MAX_CLAIM_ITEMS: usize = 8;
/// Most signatures that one claim holds: one for each receipt and one for each voucher. TON checks so many in one transaction at their
/// common price.
pub const MAX_CLAIM_CHECKS: usize = 10;

const OP_CLAIM: u32 = 0x4302_0002;
const OP_RELEASE_CHANNEL: u32 = 0x4302_0003;
const OP_STAKE: u32 = 0x4302_0004;
const OP_UNSTAKE: u32 = 0x4302_0005;
const OP_WITHDRAW: u32 = 0x4302_0006;
const OP_REVOKE: u32 = 0x4302_0007;
const OP_PRUNE: u32 = 0x4302_0008;
const OP_SLASH: u32 = 0x4302_000a;

/// Representation hash of the Provider code of this version.
pub fn provider_code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// What a Provider starts with and never changes; its address follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderInit {
    /// The network it is on.
    pub network: NetworkId,
    /// The only Registry whose verdicts it takes.
    pub registry: Address,
    /// Who claims and gets paid.
    pub owner: Address,
    /// Seconds after the end of an attestation in which its receipts are still paid.
    pub claim_window: u32,
    /// Tells apart several Providers of one owner.
    pub salt: [u8; 32],
}

impl ProviderInit {
    fn data(&self) -> Cell {
        // Fixed widths below a cell's capacity: writing cannot fail.
        self.write().unwrap_or_default()
    }

    fn write(&self) -> Result<Cell, CellError> {
        let mut terms = CellBuilder::new();
        terms.store_u32(self.network.0 as u32)?;
        self.registry.store(&mut terms)?;
        store_hash(&mut terms, &self.salt)?;
        let mut b = CellBuilder::new();
        self.owner.store(&mut b)?;
        b.store_u32(self.claim_window)?;
        b.store_bit_zero()?;
        b.store_zeros(STATE_BITS)?;
        b.store_u8(VERSION)?;
        b.store_reference(terms.build()?)?;
        b.build()
    }

    /// Reads what a Provider was deployed with from its data of any time. It was deployed without any key only if [`Self::address`] is
    /// its own.
    ///
    /// # Errors
    /// They are not a Provider's of this version.
    pub fn of_data(data: &Cell) -> Result<Self, Error> {
        let read = |s: &mut CellSlice<'_>| {
            let (owner, claim_window) = (Address::load(s)?, s.load_u32()?);
            Dict::<HashBytes, Kept>::load_from(s)?;
            s.skip_first(STATE_BITS, 0)?;
            if s.load_u8()? != VERSION {
                return Err(CellError::InvalidTag);
            }
            read_whole(&s.load_reference_cloned()?, |s| {
                let (network, registry) = (NetworkId(s.load_u32()? as i32), Address::load(s)?);
                Ok(Self { network, registry, owner, claim_window, salt: load_hash(s)? })
            })
        };
        read_whole(data, read).map_err(|why| malformed("the data of a Provider", why))
    }

    /// Whether every Channel's close delay can be as long as its claim window: no longer one protects a claim.
    ///
    /// # Errors
    /// The window is longer.
    pub fn check(&self) -> Result<(), Error> {
        let (window, most) = (self.claim_window, MAX_CLOSE_DELAY);
        if window > most {
            let why = format!(
                "a claim window of {window} s is longer than {most} s (90 days), the longest close of a channel"
            );
            return Err(Error::Malformed { what: "a provider's terms", why });
        }
        Ok(())
    }

    /// State to deploy it with.
    pub fn state_init(&self) -> StateInit {
        super::state_init(&CODE, self.data())
    }

    /// Its address.
    pub fn address(&self) -> Address {
        super::address_of(&CODE.repr_hash().0, CODE.repr_depth(), &self.data())
    }
}

/// Number of keys, stake, what is unbonding, and when that ends: zero at the start.
const STATE_BITS: u16 = 16 + 64 + 64 + 32;

/// One thing to be paid for: the latest receipt of an enclave in a channel, and the voucher that covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimItem {
    /// The client's promise.
    pub voucher: Voucher,
    /// The client's signature on it.
    pub voucher_signature: Signature,
    /// The enclave's statement.
    pub receipt: SettlementReceipt,
    /// The enclave's signature on it.
    pub receipt_signature: Signature,
}

impl ClaimItem {
    pub(crate) fn to_cell(&self, voucher: bool, next: Option<Cell>) -> Result<Cell, CellError> {
        let mut b = CellBuilder::new();
        store_hash(&mut b, &self.receipt.enclave_key.0)?;
        next.store_into(&mut b, Cell::empty_context())?;
        let voucher = if voucher { Some(self.voucher_proof()?) } else { None };
        voucher.store_into(&mut b, Cell::empty_context())?;
        // Shorter than as they are signed: every bit of a claim travels three times.
        Tokens::new(self.receipt.sequence.into()).store_into(&mut b, Cell::empty_context())?;
        Tokens::new(self.receipt.total.0.into()).store_into(&mut b, Cell::empty_context())?;
        store_time(&mut b, self.receipt.time)?;
        b.store_raw(&self.receipt_signature, 512)?;
        b.build()
    }

    fn voucher_proof(&self) -> Result<Cell, CellError> {
        let mut b = CellBuilder::new();
        b.store_u64(self.voucher.cap.0)?;
        let prices = &self.voucher.prices;
        for price in [prices.prompt, prices.cached, prices.completion, prices.reasoning] {
            b.store_u64(price)?;
        }
        store_time(&mut b, self.voucher.expiry)?;
        b.store_raw(&self.voucher_signature, 512)?;
        b.build()
    }
}

/// Body of a claim of one to eight items of one Channel with at most ten signatures, which pays all of them or none. What voucher and receipt say beyond the
/// Channel's own terms is sent along; the Channel rebuilds both cells and checks the signatures over them. `true` with an item
/// sends its voucher; `false` leaves it out, which is cheaper and enough once the Channel has paid on a voucher of the same cap
/// and expiry.
pub fn claim(items: &[(&ClaimItem, bool)]) -> Result<Cell, Error> {
    let malformed = |why: String| Error::Malformed { what: "a claim", why };
    if items.len() > MAX_CLAIM_ITEMS {
        return Err(malformed(format!("take 1 to {MAX_CLAIM_ITEMS} items")));
    }
    let checks: usize = items.iter().map(|(_, voucher)| 1 + usize::from(*voucher)).sum();
    if checks > MAX_CLAIM_CHECKS {
        return Err(malformed(format!("{checks} signatures are more than {MAX_CLAIM_CHECKS}: split it")));
    }
    let mut first: Option<Cell> = None;
    for (item, voucher) in items.iter().rev() {
        first = Some(item.to_cell(*voucher, first)?);
    }
    let first = first.ok_or_else(|| malformed(format!("take 1 to {MAX_CLAIM_ITEMS} items")))?;
    let channel = items[0].0.receipt.channel;
    if items.iter().any(|(item, _)| item.receipt.channel != channel) {
        return Err(malformed("take items of one channel at a time".into()));
    }
    let mut b = CellBuilder::new();
    b.store_u32(OP_CLAIM)?;
    store_hash(&mut b, &channel.hash)?;
    b.store_reference(first)?;
    Ok(b.build()?)
}

/// Body by which the owner closes a Channel at once in favour of its client.
pub fn release_channel(query_id: u64, channel: &Address) -> Result<Cell, Error> {
    body(OP_RELEASE_CHANNEL, query_id, |b| channel.store(b))
}

/// Body of a deposit of stake, from anyone.
pub fn stake(query_id: u64) -> Result<Cell, Error> {
    body(OP_STAKE, query_id, |_| Ok(()))
}

/// Body by which the owner starts to take stake back; until it unlocks it can still be lost.
pub fn unstake(query_id: u64, amount: Nanoton) -> Result<Cell, Error> {
    body(OP_UNSTAKE, query_id, |b| b.store_u64(amount.0))
}

/// Body by which the owner takes what is neither stake nor unbonding nor a year's rent.
pub fn withdraw(query_id: u64) -> Result<Cell, Error> {
    body(OP_WITHDRAW, query_id, |_| Ok(()))
}

/// Body by which the owner ends a key's attestation; `void` refuses its claims too, for a key that others know.
/// What is left of the message's value goes to `payer`.
pub fn revoke(query_id: u64, key: &EnclaveKey, void: bool, payer: &Address) -> Result<Cell, Error> {
    body(OP_REVOKE, query_id, |b| {
        store_hash(b, &key.0)?;
        b.store_bit(void)?;
        payer.store(b)
    })
}

/// Body by which anyone removes a key that nothing can need any more.
pub fn prune(query_id: u64, key: &EnclaveKey) -> Result<Cell, Error> {
    body(OP_PRUNE, query_id, |b| store_hash(b, &key.0))
}

/// Body that shows two receipts of one enclave in one channel that cannot both be true: all stake is lost, a fifth of it to the
/// sender.
pub fn slash(
    query_id: u64,
    earlier: (&SettlementReceipt, &Signature),
    later: (&SettlementReceipt, &Signature),
) -> Result<Cell, Error> {
    let signed = |(receipt, signature): (&SettlementReceipt, &Signature)| {
        let mut b = CellBuilder::new();
        b.store_u64(receipt.sequence)?;
        b.store_u64(receipt.total.0)?;
        store_time(&mut b, receipt.time)?;
        b.store_raw(signature, 512)?;
        b.build()
    };
    let (first, second) = (signed(earlier)?, signed(later)?);
    body(OP_SLASH, query_id, |b| {
        store_hash(b, &earlier.0.enclave_key.0)?;
        earlier.0.channel.store(b)?;
        b.store_reference(first)?;
        b.store_reference(second)
    })
}

/// What became of an enclave key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Attested: receipts until the end of the attestation are paid.
    Active,
    /// Attests no more; its receipts are paid until its claim window ends.
    Retired,
    /// No claim of it is paid.
    Void,
    /// Void, and its Provider lost its stake for it.
    Slashed,
    /// A state that this version does not know: nothing should be sent to this enclave.
    Other(u8),
}

/// What a Provider knows about an enclave key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclaveRecord {
    /// What became of the key.
    pub state: KeyState,
    /// Generation of the latest verdict.
    pub generation: u32,
    /// Verifier set that signed it.
    pub set_epoch: u32,
    /// No receipt of an earlier time is paid; renewals leave it.
    pub since: UnixTime,
    /// The attestation ends here.
    pub until: UnixTime,
    /// The record may be removed afterwards, when stake that was asked back while the key was active is free.
    pub keep: UnixTime,
    /// The evidence that was appraised.
    pub evidence_id: Digest,
}

/// Reads the record of an enclave key; `None` if no attestation of it was ever taken.
pub async fn enclave(chain: &dyn Chain, provider: &Address, key: &EnclaveKey) -> Result<Option<EnclaveRecord>, Error> {
    let mut answer = Answer::get(chain, &CODE, provider, "enclave", vec![StackValue::uint256(&key.0)]).await?;
    if !answer.boolean()? {
        return Ok(None);
    }
    Ok(Some(EnclaveRecord {
        state: match answer.uint()? {
            1 => KeyState::Active,
            2 => KeyState::Retired,
            3 => KeyState::Void,
            4 => KeyState::Slashed,
            other => KeyState::Other(other),
        },
        generation: answer.uint()?,
        set_epoch: answer.uint()?,
        since: UnixTime(answer.uint()?),
        until: UnixTime(answer.uint()?),
        keep: UnixTime(answer.uint()?),
        evidence_id: Digest(answer.bytes32()?),
    }))
}

/// Reads what a Provider was deployed with.
pub async fn terms(chain: &dyn Chain, provider: &Address) -> Result<ProviderInit, Error> {
    let mut answer = Answer::get(chain, &CODE, provider, "terms", Vec::new()).await?;
    if answer.uint::<u8>()? != VERSION {
        return Err(Error::Unexpected("terms".into()));
    }
    Ok(ProviderInit {
        network: NetworkId(answer.int32()?),
        registry: answer.address()?,
        owner: answer.address()?,
        claim_window: answer.uint()?,
        salt: answer.bytes32()?,
    })
}

/// Most that a Provider with so many keys costs in rent. Bits and cells are those that the contract itself reckons with.
pub fn rent(keys: u16, seconds: u64) -> Nanoton {
    let keys = u64::from(keys);
    super::rent(20_000 + 900 * keys, 60 + 2 * keys, seconds)
}

/// The least value that a claim of this many items must carry.
pub async fn claim_value(chain: &dyn Chain, provider: &Address, items: usize) -> Result<Nanoton, Error> {
    let args = vec![StackValue::int(items as u64)];
    Ok(Nanoton(Answer::get(chain, &CODE, provider, "claim_value", args).await?.uint()?))
}

/// What backs a Provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StakeState {
    /// Lost if an enclave of it equivocates.
    pub stake: Nanoton,
    /// On its way back to the owner, and still lost with the stake.
    pub unbonding: Nanoton,
    /// When that may be withdrawn.
    pub unlocks_at: UnixTime,
    /// What the owner may withdraw now.
    pub free: Nanoton,
}

/// Reads what backs a Provider.
pub async fn stake_state(chain: &dyn Chain, provider: &Address) -> Result<StakeState, Error> {
    let mut answer = Answer::get(chain, &CODE, provider, "stake", Vec::new()).await?;
    Ok(StakeState {
        stake: Nanoton(answer.uint()?),
        unbonding: Nanoton(answer.uint()?),
        unlocks_at: UnixTime(answer.uint()?),
        free: Nanoton(answer.uint()?),
    })
}

/// Reads how many keys a Provider holds.
pub async fn key_count(chain: &dyn Chain, provider: &Address) -> Result<u16, Error> {
    Answer::get(chain, &CODE, provider, "key_count", Vec::new()).await?.uint()
}

/// Reads the keys that nothing needs any more at this time, and that [`prune`] removes; those longest unneeded come first.
pub async fn lapsed(chain: &dyn Chain, provider: &Address, now: UnixTime) -> Result<Vec<EnclaveKey>, Error> {
    let mut answer = Answer::get(chain, &CODE, provider, "enclaves", Vec::new()).await?;
    let mut lapsed = Vec::new();
    for entry in Dict::<HashBytes, Kept>::from(answer.dict()?).iter() {
        let (key, Kept(keep)) = entry?;
        if keep < now {
            lapsed.push((keep, EnclaveKey(key.0)));
        }
    }
    lapsed.sort_unstable_by_key(|(keep, key)| (*keep, key.0));
    Ok(lapsed.into_iter().map(|(_, key)| key).collect())
}

/// Until when a record of an enclave is kept.
struct Kept(UnixTime);

impl<'a> Load<'a> for Kept {
    fn load_from(s: &mut CellSlice<'a>) -> Result<Self, CellError> {
        // State, since, until, generation and set epoch come before it, and the evidence id behind it.
        s.skip_first(8 + 4 * 32, 0)?;
        let keep = load_time(s)?;
        s.skip_first(256, 0)?;
        Ok(Self(keep))
    }
}
