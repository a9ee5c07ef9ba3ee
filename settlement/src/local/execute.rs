//! One message on one account.

use tycho_executor::{Executor, ExecutorInspector, ExecutorOutput, ExecutorParams, ParsedConfig, TxError};
use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes, Lazy, Load, Store};
use tycho_types::models::{Account, IntAddr, MsgInfo, OptionalAccount, ShardAccount};
use tycho_types::num::Tokens;

use crate::address::Address;
use crate::chain::{EXIT_NO_GAS, EXIT_NO_STATE};
use crate::error::Error;

/// An account that does not exist.
pub(super) fn empty_account() -> Result<ShardAccount, Error> {
    Ok(ShardAccount {
        account: Lazy::new(&OptionalAccount::EMPTY)?,
        last_trans_hash: HashBytes::ZERO,
        last_trans_lt: 0,
    })
}

/// Bits of what TON counts of an account's own cell, without those that it refers to: its logical time, balance and state.
pub(super) fn storage_bits(account: &Account) -> Result<u64, Error> {
    let (mut cell, context) = (CellBuilder::new(), Cell::empty_context());
    cell.store_u64(account.last_trans_lt)?;
    account.balance.store_into(&mut cell, context)?;
    account.state.store_into(&mut cell, context)?;
    Ok(cell.size_bits().into())
}

/// Where a message goes, when it came to be, and whether it comes from outside.
pub(super) struct Envelope {
    pub destination: Address,
    pub created_lt: u64,
    pub external: bool,
}

/// Reads a message's header; `None` for messages that leave the chain.
pub(super) fn envelope(message: &Cell) -> Result<Option<Envelope>, Error> {
    let mut slice = message.as_slice()?;
    let (destination, created_lt, external) = match MsgInfo::load_from(&mut slice)? {
        MsgInfo::Int(info) => (info.dst, info.created_lt, false),
        MsgInfo::ExtIn(info) => (info.dst, 0, true),
        MsgInfo::ExtOut(_) => return Ok(None),
    };
    match destination {
        IntAddr::Std(address) if address.anycast.is_none() => {
            Ok(Some(Envelope { destination: address.into(), created_lt, external }))
        }
        _ => Err(Error::BadMessage("the destination is not a standard address".into())),
    }
}

/// Result of delivering a message.
pub(super) enum Delivery {
    /// A transaction happened.
    Done(Box<ExecutorOutput>),
    /// An external message that the contract did not accept; the exit code tells why.
    NotAccepted(i32),
}

/// Runs `message` on `account` at a logical time of at least `min_lt`.
pub(super) fn deliver(
    config: &ParsedConfig,
    params: &ExecutorParams,
    min_lt: u64,
    envelope: &Envelope,
    message: Cell,
    account: &ShardAccount,
) -> Result<Delivery, Error> {
    let mut inspector = ExecutorInspector::default();
    let fatal = |error: tycho_executor::TxError| Error::Execution(format!("{}: {error}", envelope.destination));
    let outcome = Executor::new(params, config).with_min_lt(min_lt).begin_ordinary_ext(
        &envelope.destination.into(),
        envelope.external,
        message,
        account,
        Some(&mut inspector),
    );
    match outcome {
        Ok(transaction) => {
            let output = transaction.commit().map_err(|error| fatal(TxError::Fatal(error)))?;
            Ok(Delivery::Done(Box::new(output)))
        }
        Err(TxError::Skipped) => Ok(Delivery::NotAccepted(inspector.exit_code.unwrap_or_else(|| {
            let deployed = account
                .load_account()
                .is_ok_and(|account| account.is_some_and(|account| account.balance.tokens > Tokens::ZERO));
            if deployed { EXIT_NO_STATE } else { EXIT_NO_GAS }
        }))),
        Err(error) => Err(fatal(error)),
    }
}
