//! Transactions in accounting terms.

use cocoon_attestation::types::UnixTime;
use tycho_types::cell::{Cell, CellBuilder, Load};
use tycho_types::models::{
    AccountStatus, ComputePhase, ComputePhaseSkipReason, IntAddr, Message, MsgInfo, Transaction, TxInfo,
};
use tycho_types::num::Tokens;

use crate::address::Address;
use crate::amount::Nanoton;
use crate::chain::{EXIT_BAD_STATE, EXIT_NO_GAS, EXIT_NO_STATE, EXIT_SUSPENDED, MessageSummary, TxSummary};
use crate::error::Error;

impl TxSummary {
    /// Reads a transaction (`Transaction` of TON's block.tlb) of an account.
    pub fn from_cell(account: Address, cell: &Cell) -> Result<Self, Error> {
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
        let (mut sent, mut received) = (Vec::new(), None);
        let mut out_msg_hashes = Vec::new();
        for entry in transaction.out_msgs.values() {
            let message = entry?;
            if let MsgInfo::Int(out) = MsgInfo::load_from(&mut message.as_slice()?)? {
                let value = tokens(out.value.tokens)?;
                value_out = add(value_out, value)?;
                fees = add(fees, tokens(out.fwd_fee)?)?;
                sent.extend(peer(&out.dst, value, out.bounced, &message)?);
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
                received = peer(&info.src, value_in, info.bounced, cell)?;
            }
        }
        // A plain transfer to an account without code stays there: TON calls that aborted, people do not.
        let kept =
            skipped && !deploys && info.bounce_phase.is_none() && transaction.end_status != AccountStatus::Active;
        Ok(Self {
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
            received,
            sent,
            in_msg_hash,
            out_msg_hashes,
            previous: (transaction.prev_trans_lt != 0)
                .then_some((transaction.prev_trans_lt, transaction.prev_trans_hash.0)),
            existed: transaction.orig_status != AccountStatus::NotExists,
        })
    }
}

/// The message as its account at the other end, `peer`, sees it.
fn peer(peer: &IntAddr, value: Nanoton, bounced: bool, cell: &Cell) -> Result<Option<MessageSummary>, Error> {
    let IntAddr::Std(peer) = peer else { return Ok(None) };
    let message = cell.parse::<Message<'_>>()?;
    let init = message.init.as_ref().map(CellBuilder::build_from).transpose()?;
    let mut body = message.body;
    let whole = CellBuilder::build_from(body)?;
    // A bounced body starts with a mark of its own.
    let op = if !bounced && body.size_bits() >= 32 { Some(body.load_u32()?).filter(|op| *op != 0) } else { None };
    Ok(Some(MessageSummary { peer: peer.clone().into(), value, op, bounced, body: Some(whole), init }))
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
pub(crate) fn tokens(amount: Tokens) -> Result<Nanoton, Error> {
    u64::try_from(amount.into_inner()).map(Nanoton).map_err(|_| Error::Arithmetic("more nanoton than there are"))
}

fn add(a: Nanoton, b: Nanoton) -> Result<Nanoton, Error> {
    a.checked_add(b).ok_or(Error::Arithmetic("more nanoton than there are"))
}
