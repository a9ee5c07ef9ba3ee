//! A Provider that is nearly full.

use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes, Lazy, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error as CellError;
use tycho_types::models::{AccountState, OptionalAccount, ShardAccount, StorageUsed};

use super::parties::STRANGER;
use super::{History, TON};
use crate::contracts;

/// Keys that nobody of the model has, and that stay for ever: a Provider holds 512.
const KEYS: u16 = 509;

struct Record;

impl Store for Record {
    fn store_into(&self, b: &mut CellBuilder, _: &dyn tycho_types::cell::CellContext) -> Result<(), CellError> {
        // Retired; attested since and until; generation, epoch, kept until; evidence id.
        b.store_u8(2)?;
        for part in [0, 1, 0, 0, u32::MAX] {
            b.store_u32(part)?;
        }
        b.store_u256(&HashBytes::ZERO)
    }
}

impl History {
    /// The Provider holds keys that nobody of the model has, all but three of those that it may, and a year's rent of them and more.
    pub(super) fn crowd(&mut self, p: usize) {
        let address = self.providers[p].address();
        self.send(STRANGER, address, 5 * TON, Some(contracts::fund(0).unwrap()), None);
        self.settle();
        let mut keys = Dict::<HashBytes, Record>::new();
        for n in 0..KEYS {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&n.wrapping_mul(40_503).to_be_bytes());
            keys.set(HashBytes(key), Record).unwrap();
        }
        let mut account = self.account(&address).expect("a Provider");
        let AccountState::Active(state) = &mut account.state else { panic!("a Provider without code") };
        let data = state.data.take().expect("data");
        let (mut rest, mut full) = (data.as_slice().unwrap(), CellBuilder::new());
        let fixed = rest.load_prefix(267 + 32, 0).unwrap();
        full.store_slice(fixed).unwrap();
        assert!(!rest.load_bit().unwrap() && rest.load_u16().unwrap() == 0, "it holds keys already");
        keys.store_into(&mut full, Cell::empty_context()).unwrap();
        full.store_u16(KEYS).unwrap();
        full.store_slice(rest).unwrap();
        state.data = Some(full.build().unwrap());
        // So that it is counted anew.
        account.storage_stat.used = StorageUsed::ZERO;
        let before = &self.accounts[&address];
        let account = Lazy::new(&OptionalAccount(Some(account))).unwrap();
        let crowded = ShardAccount { account, ..before.clone() };
        self.accounts.insert(address, crowded);
    }
}
