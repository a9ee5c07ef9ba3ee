//! What Cocoon needs from a TON chain: one trait, implemented by the local chain and by the network client.

use std::sync::Arc;

use async_trait::async_trait;
use cocoon_attestation::types::{Digest, UnixTime};
use num_bigint::{BigInt, Sign};
use tycho_types::cell::Cell;

use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::error::Error;

/// Exit code reported for a transaction whose compute phase was skipped because the account has no code.
pub const EXIT_NO_STATE: i32 = -1001;
/// Exit code reported when the message's state init does not belong to the account.
pub const EXIT_BAD_STATE: i32 = -1002;
/// Exit code reported when the message carried too little value to buy any gas.
pub const EXIT_NO_GAS: i32 = -1003;
/// Exit code reported when the account is suspended.
pub const EXIT_SUSPENDED: i32 = -1004;

/// A block that the chain agreed on: the freshness beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    /// Masterchain sequence number.
    pub seqno: u32,
    /// Root hash of the block.
    pub root_hash: Digest,
    /// Generation time in seconds.
    pub time: UnixTime,
}

/// State of an account; one that does not exist has balance zero and no code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountState {
    /// Spendable balance.
    pub balance: Nanoton,
    /// Whether code is deployed and the account is not frozen.
    pub active: bool,
    /// Representation hash of the code.
    pub code_hash: Option<[u8; 32]>,
    /// Code.
    pub code: Option<Cell>,
    /// Persistent data.
    pub data: Option<Cell>,
    /// Logical time of the last transaction, 0 if none.
    pub last_lt: u64,
    /// Hash of the last transaction, zero if none.
    pub last_hash: [u8; 32],
}

/// A value on the stack of a get-method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StackValue {
    /// `null`, also the absent value of an optional cell.
    Null,
    /// Signed integer of at most 257 bits.
    Int(BigInt),
    /// A cell.
    Cell(Cell),
    /// What remained of a slice, as a cell of its own.
    Slice(Cell),
    /// A tuple.
    Tuple(Vec<StackValue>),
}

impl StackValue {
    /// An integer argument.
    pub fn int(value: impl Into<BigInt>) -> Self {
        Self::Int(value.into())
    }

    /// 32 bytes as the unsigned 256-bit integer that contracts use for hashes and public keys.
    pub fn uint256(bytes: &[u8; 32]) -> Self {
        Self::Int(BigInt::from_bytes_be(Sign::Plus, bytes))
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<&BigInt> {
        match self {
            Self::Int(value) => Some(value),
            _ => None,
        }
    }

    /// The integer, if it is one between 0 and 2^64 - 1.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_int()?.try_into().ok()
    }

    /// The integer, if it is one between -2^63 and 2^63 - 1.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_int()?.try_into().ok()
    }

    /// An unsigned 256-bit integer as 32 bytes, big-endian.
    pub fn as_bytes32(&self) -> Option<[u8; 32]> {
        let (sign, bytes) = self.as_int()?.to_bytes_be();
        if sign == Sign::Minus || bytes.len() > 32 {
            return None;
        }
        let mut out = [0; 32];
        out[32 - bytes.len()..].copy_from_slice(&bytes);
        Some(out)
    }

    /// The cell of a cell or slice; `None` for null and everything else.
    pub fn as_cell(&self) -> Option<&Cell> {
        match self {
            Self::Cell(cell) | Self::Slice(cell) => Some(cell),
            _ => None,
        }
    }

    /// The tuple's elements.
    pub fn as_tuple(&self) -> Option<&[StackValue]> {
        match self {
            Self::Tuple(items) => Some(items),
            _ => None,
        }
    }
}

/// What a get-method returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetResult {
    /// 0 or 1 on success; 11 usually means that there is no such method.
    pub exit_code: i32,
    /// The stack, first element deepest.
    pub stack: Vec<StackValue>,
    /// Gas it would have cost.
    pub gas_used: u64,
}

impl GetResult {
    /// The stack of a successful call; an error that names the method otherwise.
    pub fn success(self, method: &str) -> Result<Vec<StackValue>, Error> {
        if matches!(self.exit_code, 0 | 1) {
            return Ok(self.stack);
        }
        Err(Error::GetMethod { method: method.into(), exit_code: self.exit_code })
    }
}

/// A message between accounts, as its sender's or receiver's transaction shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSummary {
    /// The account at the other end.
    pub peer: Address,
    /// Value it carried, without forward fees.
    pub value: Nanoton,
    /// Operation, the first 32 bits of its body; `None` for a plain transfer, with or without a comment.
    pub op: Option<u32>,
    /// Whether it came back because its receiver did not carry it out.
    pub bounced: bool,
    /// Its body; [`crate::contracts::events::of`] says what it asks of Cocoon's contracts. `None` where the chain's server keeps it to
    /// itself.
    pub body: Option<Cell>,
    /// The initial state that it brought along, as a cell (`StateInit` of TON's block.tlb); an account takes it if it has no code yet.
    pub init: Option<Cell>,
}

/// One transaction, in the terms in which people account for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxSummary {
    /// Account that executed it.
    pub account: Address,
    /// Logical time.
    pub lt: u64,
    /// Transaction hash.
    pub hash: [u8; 32],
    /// Block time in seconds.
    pub time: UnixTime,
    /// Exit code of the compute phase; the action phase's result code if only that failed; `EXIT_*` if no code ran.
    pub exit_code: i32,
    /// Whether the message was not carried out. Value that stays on an account without code is not a failure.
    pub failed: bool,
    /// Gas used.
    pub gas_used: u64,
    /// Everything this transaction cost: storage, gas, action and import fees, and the forward fees of what it sent.
    pub fees: Nanoton,
    /// Value that arrived with the message.
    pub value_in: Nanoton,
    /// Value that left in messages, without forward fees.
    pub value_out: Nanoton,
    /// The message from another account that caused it; `None` if it came from outside the chain.
    pub received: Option<MessageSummary>,
    /// What it sent to other accounts.
    pub sent: Vec<MessageSummary>,
    /// Hash of the message that caused it.
    pub in_msg_hash: [u8; 32],
    /// Hashes of the messages it sent, external ones included.
    pub out_msg_hashes: Vec<[u8; 32]>,
    /// Logical time and hash of the account's transaction before; `None` if this is its first.
    pub previous: Option<(u64, [u8; 32])>,
    /// Whether there was an account before it. A first transaction finds one only where a local chain began with it.
    pub existed: bool,
}

impl TxSummary {
    /// Whether the account's code ran and ended well: whatever a message asks of an account without code, or of one that refuses it, did
    /// not happen. More than not [`Self::failed`], which value that just stays somewhere is not either.
    pub fn carried_out(&self) -> bool {
        // No code ran: the codes of that are negative. Codes 0 and 1 are TON's two ways to end well.
        !self.failed && matches!(self.exit_code, 0 | 1)
    }
}

/// All transactions that an external message caused, in order of execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Transactions, the receiver of the external message first.
    pub transactions: Vec<TxSummary>,
    /// Whether no message of it is still under way.
    pub finished: bool,
}

/// A TON chain.
#[async_trait]
pub trait Chain: Send + Sync {
    /// Global id of the network.
    fn network(&self) -> NetworkId;

    /// The newest masterchain block.
    async fn head(&self) -> Result<BlockRef, Error>;

    /// A masterchain block by number; `None` if there is none (yet).
    async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, Error>;

    /// Newest state of an account.
    async fn account(&self, address: &Address) -> Result<AccountState, Error>;

    /// Submits an external message and returns its hash. An error if the chain can tell that no contract accepts it.
    async fn send(&self, external: Cell) -> Result<[u8; 32], Error>;

    /// Runs a get-method on the newest state, arguments first to last.
    async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, Error>;

    /// The newest `limit` transactions of an account, newest first.
    async fn transactions(&self, address: &Address, limit: usize) -> Result<Vec<TxSummary>, Error> {
        self.transactions_before(address, None, limit).await
    }

    /// The newest `limit` transactions before a given one (logical time and hash), newest first; maybe fewer than there are, but none
    /// only if there is none.
    async fn transactions_before(
        &self,
        address: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<TxSummary>, Error>;

    /// What an external message caused so far; `None` if it is not (yet) known.
    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error>;
}

#[async_trait]
impl<C: Chain + ?Sized> Chain for Arc<C> {
    fn network(&self) -> NetworkId {
        (**self).network()
    }
    async fn head(&self) -> Result<BlockRef, Error> {
        (**self).head().await
    }
    async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, Error> {
        (**self).block(seqno).await
    }
    async fn account(&self, address: &Address) -> Result<AccountState, Error> {
        (**self).account(address).await
    }
    async fn send(&self, external: Cell) -> Result<[u8; 32], Error> {
        (**self).send(external).await
    }
    async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, Error> {
        (**self).run_get(address, method, args).await
    }
    async fn transactions_before(
        &self,
        address: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<TxSummary>, Error> {
        (**self).transactions_before(address, before, limit).await
    }
    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error> {
        (**self).trace(message_hash).await
    }
}
