//! Bindings to the three contracts of `settlement/contracts`: initial states, messages, get-methods, exit codes.
//!
//! Layouts are those of `schema.tlb`; the compiled code is committed beside the sources and built into this crate.

pub mod channel;
pub mod events;
pub mod exit;
pub mod provider;
pub mod registry;

use std::sync::LazyLock;

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::error::Error as CellError;
use tycho_types::models::StateInit;

use crate::address::Address;
use crate::amount::Nanoton;
use crate::chain::{Chain, StackValue};
use crate::error::Error;

pub use channel::{ChannelInit, ChannelState, ChannelStatus, PaidRecord};
pub use provider::{ClaimItem, EnclaveRecord, KeyState, ProviderInit, StakeState};
pub use registry::{Anchored, Change, Listed, Proposal, RegistryInit, RegistryParams, Release, VerifierSet, Verifiers};

/// Storage layout that these bindings write and read.
const VERSION: u8 = 1;
/// "fund": pays a contract's rent, from anyone.
const OP_FUND: u32 = 0x4300_0001;

/// What a message of the contracts is about, by its operation; `None` for operations of others.
pub fn operation(op: u32) -> Option<&'static str> {
    Some(match op {
        OP_FUND => "rent",
        0x4301_0001 => "attest",
        0x4301_0002 => "propose",
        0x4301_0003 => "execute",
        0x4301_0004 => "cancel",
        0x4301_0005 => "forbid",
        0x4301_0006 => "tighten",
        0x4301_0007 => "revoke-key",
        0x4301_0008 => "anchor",
        0x4302_0001 => "attested",
        0x4302_0002 => "claim",
        0x4302_0003 => "release-channel",
        0x4302_0004 => "stake",
        0x4302_0005 => "unstake",
        0x4302_0006 => "withdraw",
        0x4302_0007 => "revoke",
        0x4302_0008 => "prune",
        0x4302_000a => "slash",
        0x4303_0001 => "channel-deposit",
        0x4303_0002 => "settle",
        0x4303_0003 => "start-close",
        0x4303_0004 => "finish-close",
        0x4303_0005 => "release",
        0x4303_0006 => "delete-channel",
        0x4304_0001 => "claim-paid",
        0x4304_0002 => "channel-refund",
        0x4304_0003 => "refused",
        0x4304_0004 => "withdrawn",
        0x4304_0005 => "slashed",
        0xd532_76db => "excess-returned",
        _ => return None,
    })
}

/// Compiled code of one contract.
pub(crate) type Code = LazyLock<Cell>;

/// Reads code that was compiled into this crate.
pub(crate) fn embedded(boc: &[u8]) -> Cell {
    Boc::decode(boc).expect("the contract code in this crate is a bag of cells; `make contracts` rewrites it")
}

/// A message body: operation, query id, then what `rest` writes.
pub(crate) fn body(
    op: u32,
    query_id: u64,
    rest: impl FnOnce(&mut CellBuilder) -> Result<(), CellError>,
) -> Result<Cell, Error> {
    let mut builder = CellBuilder::new();
    builder.store_u32(op)?;
    builder.store_u64(query_id)?;
    rest(&mut builder)?;
    Ok(builder.build()?)
}

/// Body of a message that only pays a contract's rent.
pub fn fund(query_id: u64) -> Result<Cell, Error> {
    body(OP_FUND, query_id, |_| Ok(()))
}

/// Storage fees at mainnet's prices: 1 for a bit and 500 for a cell, in 1/65536 nanoton a second. A rent that is reckoned too low by other prices
/// makes a message too small, which comes back.
pub(crate) fn rent(bits: u64, cells: u64, seconds: u64) -> Nanoton {
    let fee = (u128::from(bits) + 500 * u128::from(cells)) * u128::from(seconds);
    Nanoton(u64::try_from(fee.div_ceil(65_536)).unwrap_or(u64::MAX))
}

/// Initial state of a contract.
pub(crate) fn state_init(code: &Cell, data: Cell) -> StateInit {
    StateInit { code: Some(code.clone()), data: Some(data), ..StateInit::default() }
}

/// Code hash and data of an account's initial state, where this is its own: the address follows from it.
pub fn initial_state(account: &Address, init: &Cell) -> Option<([u8; 32], Cell)> {
    if init.repr_hash().0 != account.hash {
        return None;
    }
    let init = init.parse::<StateInit>().ok()?;
    Some((init.code?.repr_hash().0, init.data?))
}

/// Address of a contract from what its StateInit refers to: representation hash (TVM, section 3.1.5) of the cell
/// `00110b` with code and data as references.
pub(crate) fn address_of(code_hash: &[u8; 32], code_depth: u16, data: &Cell) -> Address {
    // Two references, one incomplete byte of data: the five bits and the completion tag.
    const DESCRIPTORS_AND_DATA: [u8; 3] = [2, 1, 0b0011_0100];
    let mut bytes = DESCRIPTORS_AND_DATA.to_vec();
    bytes.extend_from_slice(&code_depth.to_be_bytes());
    bytes.extend_from_slice(&data.repr_depth().to_be_bytes());
    bytes.extend_from_slice(code_hash);
    bytes.extend_from_slice(&data.repr_hash().0);
    Address::basechain(cocoon_attestation::types::Digest::of(&[&bytes]).0)
}

/// The stack that a get-method left, read front to back.
pub(crate) struct Answer {
    method: &'static str,
    stack: std::vec::IntoIter<StackValue>,
}

impl Answer {
    /// Runs a get-method of a contract that must hold this code: any other could answer what it likes.
    pub(crate) async fn get(
        chain: &dyn Chain,
        code: &Cell,
        contract: &Address,
        method: &'static str,
        args: Vec<StackValue>,
    ) -> Result<Self, Error> {
        let account = chain.account(contract).await?;
        if !account.active {
            return Err(Error::NotDeployed(*contract));
        }
        if account.code_hash != Some(code.repr_hash().0) {
            return Err(Error::Unexpected(format!("{contract} (get-method {method})")));
        }
        let stack = chain.run_get(contract, method, args).await?.success(method)?;
        Ok(Self { method, stack: stack.into_iter() })
    }

    fn take<T>(&mut self, read: impl FnOnce(&StackValue) -> Option<T>) -> Result<T, Error> {
        self.stack.next().as_ref().and_then(read).ok_or_else(|| Error::Unexpected(self.method.into()))
    }

    /// An unsigned integer of the given type.
    pub(crate) fn uint<T: TryFrom<u64>>(&mut self) -> Result<T, Error> {
        self.take(|value| T::try_from(value.as_u64()?).ok())
    }

    /// A signed 32-bit integer.
    pub(crate) fn int32(&mut self) -> Result<i32, Error> {
        self.take(|value| i32::try_from(value.as_i64()?).ok())
    }

    /// A boolean: -1 or 0.
    pub(crate) fn boolean(&mut self) -> Result<bool, Error> {
        self.take(|value| value.as_i64().map(|int| int != 0))
    }

    /// An unsigned 256-bit integer as bytes.
    pub(crate) fn bytes32(&mut self) -> Result<[u8; 32], Error> {
        self.take(StackValue::as_bytes32)
    }

    /// A standard address.
    pub(crate) fn address(&mut self) -> Result<Address, Error> {
        self.take(|value| Address::load(&mut value.as_cell()?.as_slice().ok()?).ok())
    }

    /// The root of a dictionary; `None` if it is empty.
    pub(crate) fn dict(&mut self) -> Result<Option<Cell>, Error> {
        self.take(|value| match value {
            StackValue::Null => Some(None),
            other => other.as_cell().map(|cell| Some(cell.clone())),
        })
    }
}
