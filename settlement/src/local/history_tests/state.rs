//! What the contracts say of themselves, by their get-methods.

use tycho_types::cell::HashBytes;
use tycho_types::dict::Dict;
use tycho_types::models::{Account, AccountState};

use super::parties::public;
use super::{History, VERIFIERS};
use crate::address::Address;
use crate::chain::StackValue;
use crate::local::getter;

impl History {
    pub(super) fn account(&self, address: &Address) -> Option<Account> {
        let account = self.accounts.get(address)?.load_account().unwrap()?;
        matches!(account.state, AccountState::Active(_)).then_some(account)
    }

    /// Whether TON froze an account, which it does at a debt of 0.1 TON.
    pub(super) fn frozen(&self, address: &Address) -> bool {
        let account = self.accounts.get(address).and_then(|account| account.load_account().unwrap());
        account.is_some_and(|account| matches!(account.state, AccountState::Frozen(_)))
    }

    pub(super) fn stack(&self, account: &Account, method: &str, args: &[StackValue]) -> Vec<StackValue> {
        let result = getter::run(&self.config, account, method, args, self.now as u32).unwrap();
        assert_eq!(result.exit_code, 0, "{method}");
        result.stack
    }

    pub(super) fn ints(&self, account: &Account, method: &str, args: &[StackValue]) -> Vec<u64> {
        self.stack(account, method, args).iter().map(|value| value.as_u64().unwrap_or_default()).collect()
    }

    /// The Registry's epoch, threshold, longest attestation, and its verifiers with their seeds.
    pub(super) fn rules(&self) -> (u32, usize, u64, Vec<(u8, [u8; 32])>) {
        let registry = self.account(&self.registry).expect("a Registry");
        let params = self.stack(&registry, "params", &[]);
        let int = |at: usize| params[at].as_u64().unwrap();
        let known: Vec<_> = VERIFIERS.map(|n| ([n; 32], public(&[n; 32]))).collect();
        let verifiers = Dict::<u8, HashBytes>::from(params[7].as_cell().cloned());
        let verifiers = verifiers.iter().map(|entry| {
            let (index, key) = entry.unwrap();
            (index, known.iter().find(|(_, public)| *public == key.0).expect("a key of the model's").0)
        });
        (int(4) as u32, int(5) as usize, int(6), verifiers.collect())
    }
}
