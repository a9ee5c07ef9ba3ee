//! What a message caused, found by following its messages from account to account: API v2 has no traces.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tycho_types::cell::{Cell, Load};
use tycho_types::models::{IntAddr, MsgInfo, Transaction};

use super::{PAGE, Toncenter};
use crate::address::Address;
use crate::chain::{Trace, TxSummary};
use crate::error::Error;

/// Messages whose destination is remembered.
const MAX_SENT: usize = 1_024;
/// Transactions of one trace that are followed.
const MAX_TRANSACTIONS: usize = 1_000;

/// Where this client's external messages went, newest last.
#[derive(Default)]
pub(super) struct Sent(Mutex<VecDeque<([u8; 32], Address)>>);

impl Sent {
    pub fn remember(&self, hash: [u8; 32], destination: Address) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() == MAX_SENT {
            sent.pop_front();
        }
        sent.push_back((hash, destination));
    }

    fn destination(&self, hash: &[u8; 32]) -> Option<Address> {
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter().rev().find(|(known, _)| known == hash).map(|(_, destination)| *destination)
    }
}

/// Destination of an external message.
pub(super) fn destination(message: &Cell) -> Result<Address, Error> {
    match MsgInfo::load_from(&mut message.as_slice()?)? {
        MsgInfo::ExtIn(info) => match info.dst {
            IntAddr::Std(address) => Ok(address.into()),
            IntAddr::Var(_) => Err(Error::BadMessage("the destination is not a standard address".into())),
        },
        _ => Err(Error::BadMessage("it is internal or leaves the chain".into())),
    }
}

impl Toncenter {
    /// An account's newest transactions by the message that caused each.
    async fn by_message(&self, account: &Address) -> Result<HashMap<[u8; 32], Cell>, Error> {
        let mut by_message = HashMap::new();
        for cell in self.transaction_cells(account, None, PAGE).await? {
            if let Some(message) = cell.parse::<Transaction>()?.in_msg {
                by_message.insert(message.repr_hash().0, cell);
            }
        }
        Ok(by_message)
    }

    /// Follows a message that this client sent; others are unknown (`None`).
    pub(super) async fn follow(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error> {
        let Some(destination) = self.sent.destination(message_hash) else { return Ok(None) };
        let mut found = BTreeMap::new();
        let mut finished = true;
        // Each account is read once.
        let mut accounts: HashMap<Address, HashMap<[u8; 32], Cell>> = HashMap::new();
        let mut wanted = VecDeque::from([(destination, *message_hash)]);
        while let Some((account, message)) = wanted.pop_front() {
            let known = match accounts.entry(account) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.by_message(&account).await?),
            };
            let Some(cell) = known.get(&message) else {
                finished = false;
                continue;
            };
            if found.len() == MAX_TRANSACTIONS {
                return Err(Error::Unexpected(format!(
                    "a message that causes more than {MAX_TRANSACTIONS} transactions"
                )));
            }
            for out in cell.parse::<Transaction>()?.out_msgs.values() {
                let out = out?;
                if let MsgInfo::Int(info) = MsgInfo::load_from(&mut out.as_slice()?)?
                    && let IntAddr::Std(address) = info.dst
                {
                    wanted.push_back((address.into(), out.repr_hash().0));
                }
            }
            let summary = TxSummary::from_cell(account, cell)?;
            found.insert((summary.lt, summary.hash), summary);
        }
        if found.is_empty() {
            return Ok(None);
        }
        Ok(Some(Trace { transactions: found.into_values().collect(), finished }))
    }
}
