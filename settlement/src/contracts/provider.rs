//! Provider: one operator's attested enclave keys; passes claims on to Channels.

use std::sync::LazyLock;

use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use tycho_types::cell::{Cell, CellBuilder, CellFamily, Store};
use tycho_types::error::Error as CellError;
use tycho_types::models::StateInit;

use super::{Answer, Code, VERSION, body};
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::cells::{SettlementReceipt, Signature, Voucher, store_hash, store_time};
use crate::chain::{Chain, StackValue};
use crate::error::Error;

static CODE: Code = LazyLock::new(|| super::embedded(include_bytes!("../../contracts/build/provider.boc")));

/// Most items that one claim holds.
pub const MAX_CLAIM_ITEMS: usize = 8;

const OP_CLAIM: u32 = 0x4302_0002;
const OP_RELEASE_CHANNEL: u32 = 0x4302_0003;

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
        self.owner.store(&mut terms)?;
        terms.store_u32(self.claim_window)?;
        store_hash(&mut terms, &self.salt)?;
        let mut b = CellBuilder::new();
        b.store_u8(VERSION)?;
        b.store_reference(terms.build()?)?;
        b.store_u16(0)?;
        b.store_bit_zero()?;
        b.build()
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
    fn proof(&self, voucher: bool) -> Result<Cell, CellError> {
        let mut b = CellBuilder::new();
        b.store_u64(self.receipt.sequence)?;
        b.store_u64(self.receipt.total.0)?;
        store_time(&mut b, self.receipt.time)?;
        b.store_raw(&self.receipt_signature, 512)?;
        let voucher = if voucher { Some(self.voucher_proof()?) } else { None };
        voucher.store_into(&mut b, Cell::empty_context())?;
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

/// Body of a claim of one to eight items. What voucher and receipt say beyond the Channel's own terms is sent along; the
/// Channel rebuilds both cells and checks the signatures over them. `true` with an item sends its voucher; `false` leaves it
/// out, which is cheaper and enough once the Channel has paid on a voucher of the same cap and expiry.
pub fn claim(query_id: u64, items: &[(&ClaimItem, bool)]) -> Result<Cell, Error> {
    let Some((first, rest)) = items.split_first().filter(|_| items.len() <= MAX_CLAIM_ITEMS) else {
        return Err(Error::Malformed { what: "a claim", why: format!("take 1 to {MAX_CLAIM_ITEMS} items") });
    };
    let mut next: Option<Cell> = None;
    for item in rest.iter().rev() {
        let mut b = CellBuilder::new();
        store_item(&mut b, item, next)?;
        next = Some(b.build()?);
    }
    body(OP_CLAIM, query_id, |b| store_item(b, first, next))
}

fn store_item(b: &mut CellBuilder, (item, voucher): &(&ClaimItem, bool), next: Option<Cell>) -> Result<(), CellError> {
    item.receipt.channel.store(b)?;
    store_hash(b, &item.receipt.enclave_key.0)?;
    b.store_reference(item.proof(*voucher)?)?;
    next.store_into(b, Cell::empty_context())
}

/// Body by which the owner closes a Channel at once in favour of its client.
pub fn release_channel(query_id: u64, channel: &Address) -> Result<Cell, Error> {
    body(OP_RELEASE_CHANNEL, query_id, |b| channel.store(b))
}

/// What became of an enclave key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Attested: receipts until the end of the attestation are paid.
    Active,
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
    /// The attestation ends here.
    pub until: UnixTime,
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
            other => KeyState::Other(other),
        },
        generation: answer.uint()?,
        set_epoch: answer.uint()?,
        until: UnixTime(answer.uint()?),
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

/// The least value that a claim of this many items must carry.
pub async fn claim_value(chain: &dyn Chain, provider: &Address, items: usize) -> Result<Nanoton, Error> {
    let args = vec![StackValue::int(items as u64)];
    Ok(Nanoton(Answer::get(chain, &CODE, provider, "claim_value", args).await?.uint()?))
}
