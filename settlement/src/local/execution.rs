//! What one message did to one account, for whoever wants to ask another implementation for the same.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tycho_executor::ExecutorParams;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::models::ShardAccount;

use super::execute::Delivery;
use crate::error::Error;

/// Is told of every execution on a chain, in order.
pub(super) type Observer = Box<dyn Fn(&Execution) + Send + Sync>;

/// One message delivered to one account.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Time of the block, in seconds since 1970.
    pub now: u32,
    /// The transaction's logical time at least.
    pub min_lt: u64,
    /// The block's random seed.
    pub rand_seed: [u8; 32],
    /// The account before, as a `ShardAccount` of TON's `block.tlb`.
    pub before: Cell,
    /// The message.
    pub message: Cell,
    /// The transaction and the account after it; the exit code for an external message that the account did not accept.
    pub outcome: Result<(Cell, Cell), i32>,
}

impl Execution {
    pub(super) fn of(
        params: &ExecutorParams,
        min_lt: u64,
        before: &ShardAccount,
        message: Cell,
        delivery: &Delivery,
    ) -> Result<Self, Error> {
        let outcome = match delivery {
            Delivery::Done(output) => {
                Ok((output.transaction.inner().clone(), CellBuilder::build_from(&output.new_state)?))
            }
            Delivery::NotAccepted(exit_code) => Err(*exit_code),
        };
        Ok(Self {
            now: params.block_unixtime,
            min_lt,
            rand_seed: params.rand_seed.0,
            before: CellBuilder::build_from(before)?,
            message,
            outcome,
        })
    }

    /// As one line of JSON, without its end: `now` and `lt` as numbers, `seed` in hex, the cells as bags of cells in base64, and
    /// `exitCode` only if the message was not accepted.
    pub fn to_json(&self) -> String {
        let boc = |cell: &Cell| BASE64_STANDARD.encode(Boc::encode(cell));
        let outcome = self.outcome.as_ref();
        json!({
            "now": self.now,
            "lt": self.min_lt,
            "seed": hex::encode(self.rand_seed),
            "before": boc(&self.before),
            "message": boc(&self.message),
            "after": outcome.ok().map(|(_, after)| boc(after)),
            "transaction": outcome.ok().map(|(transaction, _)| boc(transaction)),
            "exitCode": outcome.err(),
        })
        .to_string()
    }
}
