//! One message on one account, and what a finished transaction says about itself.

use cocoon_attestation::types::UnixTime;
use tycho_executor::{Executor, ExecutorInspector, ExecutorOutput, ExecutorParams, ParsedConfig, TxError};
use tycho_types::cell::{Cell, HashBytes, Lazy, Load};
use tycho_types::models::{
    AccountStatus, ComputePhase, ComputePhaseSkipReason, IntAddr, Message, MsgInfo, OptionalAccount, ShardAccount,
    Transaction, TxInfo,
};
use tycho_types::num::Tokens;

use crate::address::Address;
use crate::amount::Nanoton;
use crate::chain::{EXIT_BAD_STATE, EXIT_NO_GAS, EXIT_NO_STATE, EXIT_SUSPENDED, TxSummary};
use crate::error::Error;

/// An account that does not exist.
pub(super) fn empty_account() -> Result<ShardAccount, Error> {
    Ok(ShardAccount {
        account: Lazy::new(&OptionalAccount::EMPTY)?,
        last_trans_hash: HashBytes::ZERO,
        last_trans_lt: 0,
    })
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

/// A transaction in accounting terms.
pub(super) fn summarize(account: Address, cell: &Cell) -> Result<TxSummary, Error> {
    let transaction = cell.parse::<Transaction>()?;
    let TxInfo::Ordinary(info) = transaction.load_info()? else {
        return Err(Error::Execution("a tick-tock transaction on an ordinary account".into()));
    };
    let (compute_code, gas_used, skipped) = match &info.compute_phase {
        ComputePhase::Executed(phase) => (phase.exit_code, phase.gas_used.into_inner(), false),
        ComputePhase::Skipped(phase) => (skip_code(phase.reason), 0, true),
    };
    let action_failure = info.action_phase.as_ref().filter(|phase| !phase.success).map(|phase| phase.result_code);
    let mut value_out = Nanoton::ZERO;
    let mut fees = tokens(transaction.total_fees.tokens)?;
    let mut out_msg_hashes = Vec::new();
    for entry in transaction.out_msgs.values() {
        let message = entry?;
        if let MsgInfo::Int(out) = MsgInfo::load_from(&mut message.as_slice()?)? {
            value_out = add(value_out, tokens(out.value.tokens)?)?;
            fees = add(fees, tokens(out.fwd_fee)?)?;
        }
        out_msg_hashes.push(message.repr_hash().0);
    }
    let (mut in_msg_hash, mut value_in, mut deploys) = ([0; 32], Nanoton::ZERO, false);
    if let Some(cell) = &transaction.in_msg {
        let message = cell.parse::<Message<'_>>()?;
        in_msg_hash = cell.repr_hash().0;
        deploys = message.init.is_some();
        if let MsgInfo::Int(info) = message.info {
            value_in = tokens(info.value.tokens)?;
        }
    }
    // A plain transfer to an account without code stays there: TON calls that aborted, people do not.
    let kept = skipped && !deploys && info.bounce_phase.is_none() && transaction.end_status != AccountStatus::Active;
    Ok(TxSummary {
        account,
        lt: transaction.lt,
        hash: cell.repr_hash().0,
        time: UnixTime(transaction.now.into()),
        exit_code: action_failure.unwrap_or(compute_code),
        failed: info.aborted && !kept,
        gas_used,
        fees,
        value_in,
        value_out,
        in_msg_hash,
        out_msg_hashes,
    })
}

fn skip_code(reason: ComputePhaseSkipReason) -> i32 {
    match reason {
        ComputePhaseSkipReason::NoState => EXIT_NO_STATE,
        ComputePhaseSkipReason::BadState => EXIT_BAD_STATE,
        ComputePhaseSkipReason::NoGas => EXIT_NO_GAS,
        ComputePhaseSkipReason::Suspended => EXIT_SUSPENDED,
    }
}

/// TON's 120-bit amounts as ours; more than 64 bits of nanoton do not exist.
pub(super) fn tokens(amount: Tokens) -> Result<Nanoton, Error> {
    u64::try_from(amount.into_inner()).map(Nanoton).map_err(|_| Error::Arithmetic("more nanoton than there are"))
}

fn add(a: Nanoton, b: Nanoton) -> Result<Nanoton, Error> {
    a.checked_add(b).ok_or(Error::Arithmetic("more nanoton than there are"))
}
