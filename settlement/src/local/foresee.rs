//! What a claim would come to, found out here before anybody pays for it: the Provider's and the Channel's own code, on their state as a
//! chain gives it, in this process's virtual machine.
//!
//! It says what they would do now. What happens before a claim arrives, and prices other than mainnet's of the committed configuration, it
//! does not know.

use std::sync::LazyLock;

use tycho_executor::ParsedConfig;
use tycho_types::cell::{Cell, CellBuilder, HashBytes, Lazy};
use tycho_types::models::{
    Account, AccountState, CurrencyCollection, IntMsgInfo, MsgInfo, OptionalAccount, OwnedMessage, ShardAccount,
    StateInit, StdAddr, StorageInfo, StorageUsed,
};
use tycho_types::num::VarUint56;

use super::execute::{Delivery, deliver, envelope};
use super::{LT_ALIGN, config};
use crate::address::Address;
use crate::amount::Nanoton;
use crate::chain::{Chain, TxSummary};
use crate::contracts::events::{self, Event};
use crate::error::Error;

static CONFIG: LazyLock<Option<ParsedConfig>> = LazyLock::new(|| config::load().ok());

/// Most cells that a contract of ours has, and more: what has more is none.
const MAX_CELLS: usize = 1 << 14;

/// Logical time and balance, which stand in the cell of an account's state.
const BESIDE: u64 = 64 + 4 + 64 + 1;

/// What a claim would come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// One of the two would refuse it.
    Refused {
        /// Which.
        by: Address,
        /// Its exit code.
        exit_code: i32,
    },
    /// They would take it.
    Taken {
        /// What the Channel would pay for it.
        paid: Nanoton,
    },
}

/// Runs a claim that `owner` would send with this value and body. `None` where it cannot be foreseen: the chain keeps code or data to
/// itself, or the virtual machine fails on them.
///
/// # Errors
/// The chain does not answer.
pub async fn claim(
    chain: &dyn Chain,
    owner: &Address,
    provider: &Address,
    channel: &Address,
    value: Nanoton,
    body: &Cell,
) -> Result<Option<Foreseen>, Error> {
    let (Some(first), Some(second)) = (read(chain, provider).await?, read(chain, channel).await?) else {
        return Ok(None);
    };
    let now = chain.head().await?.time;
    let Some((config, now)) = CONFIG.as_ref().zip(u32::try_from(now.0).ok()) else { return Ok(None) };
    let message = OwnedMessage {
        info: MsgInfo::Int(IntMsgInfo {
            bounce: true,
            src: (*owner).into(),
            dst: (*provider).into(),
            value: CurrencyCollection::new(value.0.into()),
            created_lt: first.last_trans_lt.max(second.last_trans_lt) + LT_ALIGN,
            created_at: now,
            ..IntMsgInfo::default()
        }),
        init: None,
        body: body.clone().into(),
        layout: None,
    };
    // What cannot be run here may well be there.
    Ok(run(config, now, CellBuilder::build_from(message)?, [(*provider, first), (*channel, second)]).unwrap_or(None))
}

fn run(
    config: &ParsedConfig,
    now: u32,
    message: Cell,
    accounts: [(Address, ShardAccount); 2],
) -> Result<Option<Foreseen>, Error> {
    let mut message = message;
    let mut paid = Nanoton::ZERO;
    for (address, account) in accounts {
        let Some(to) = envelope(&message)?.filter(|to| to.destination == address) else { return Ok(None) };
        let start_lt = to.created_lt.div_ceil(LT_ALIGN).saturating_mul(LT_ALIGN);
        let params = config::executor_params(now, start_lt, [0; 32]);
        let Delivery::Done(output) = deliver(config, &params, start_lt.max(to.created_lt + 1), &to, message, &account)?
        else {
            return Ok(None);
        };
        let summary = TxSummary::from_cell(address, output.transaction.inner())?;
        if !summary.carried_out() {
            return Ok(Some(Foreseen::Refused { by: address, exit_code: summary.exit_code }));
        }
        let Some(next) = output.transaction_meta.out_msgs.first() else { return Ok(None) };
        message = next.inner().clone();
        // The Provider's message says that the Channel should settle; the Channel's what it pays.
        if let Some(Event::Paid(amount)) = summary.sent.first().map(events::of).transpose()?.flatten() {
            paid = amount;
        }
    }
    Ok(Some(Foreseen::Taken { paid }))
}

/// An account as the executor takes it, with the rent that it owes since its last transaction.
async fn read(chain: &dyn Chain, address: &Address) -> Result<Option<ShardAccount>, Error> {
    let state = chain.account(address).await?;
    let (Some(code), Some(data)) = (state.code, state.data) else { return Ok(None) };
    let last = chain.transactions(address, 1).await?;
    let Some(last_paid) = last.first().and_then(|last| u32::try_from(last.time.0).ok()) else { return Ok(None) };
    let init = StateInit { code: Some(code), data: Some(data), ..StateInit::default() };
    let account = || -> Result<_, tycho_types::error::Error> {
        let stored = CellBuilder::build_from(AccountState::Active(init.clone()))?;
        let Some(used) = stored.compute_unique_stats(MAX_CELLS) else { return Ok(None) };
        let account = Account {
            address: StdAddr::from(*address).into(),
            storage_stat: StorageInfo {
                used: StorageUsed {
                    cells: VarUint56::new(used.cell_count),
                    bits: VarUint56::new(used.bit_count + BESIDE),
                },
                last_paid,
                ..StorageInfo::default()
            },
            last_trans_lt: state.last_lt,
            balance: CurrencyCollection::new(state.balance.0.into()),
            state: AccountState::Active(init),
        };
        Ok(Some(ShardAccount {
            account: Lazy::new(&OptionalAccount(Some(account)))?,
            last_trans_hash: HashBytes(state.last_hash),
            last_trans_lt: state.last_lt,
        }))
    };
    Ok(account().unwrap_or(None))
}
