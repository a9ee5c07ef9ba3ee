//! The enclave's statement of what it has earned.

use cocoon_attestation::types::{EnclaveKey, UnixTime};
use tycho_types::cell::{Cell, CellBuilder, CellSlice};
use tycho_types::error::Error as CellError;

use super::{expect_tag, load_hash, load_time, store_hash, store_time};
use crate::{Address, Nanoton, NetworkId};

/// "COR1"
const TAG: u32 = 0x434f_5231;

/// What an enclave has earned in one channel since the channel began. Signed by the enclave key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettlementReceipt {
    /// The network it can be claimed on.
    pub network: NetworkId,
    /// The provider that claims.
    pub provider: Address,
    /// The channel that pays.
    pub channel: Address,
    /// The enclave that signs.
    pub enclave_key: EnclaveKey,
    /// A new number for every signing by this key in this channel.
    pub sequence: u64,
    /// All that was earned so far, not just by the latest request.
    pub total: Nanoton,
    /// When it was signed, by the enclave's clock.
    pub time: UnixTime,
}

super::signed_cell!(SettlementReceipt, "a settlement receipt");

impl SettlementReceipt {
    fn write(&self) -> Result<Cell, CellError> {
        let mut b = CellBuilder::new();
        b.store_u32(TAG)?;
        b.store_u32(self.network.0 as u32)?;
        self.provider.store(&mut b)?;
        self.channel.store(&mut b)?;
        store_hash(&mut b, &self.enclave_key.0)?;
        b.store_u64(self.sequence)?;
        b.store_u64(self.total.0)?;
        store_time(&mut b, self.time)?;
        b.build()
    }

    fn read(s: &mut CellSlice<'_>) -> Result<Self, CellError> {
        expect_tag(s, TAG)?;
        Ok(Self {
            network: NetworkId(s.load_u32()? as i32),
            provider: Address::load(s)?,
            channel: Address::load(s)?,
            enclave_key: EnclaveKey(load_hash(s)?),
            sequence: s.load_u64()?,
            total: Nanoton(s.load_u64()?),
            time: load_time(s)?,
        })
    }
}
