//! The client's promise.

use cocoon_attestation::types::{EnclaveKey, UnixTime};
use tycho_types::cell::{Cell, CellBuilder, CellSlice};
use tycho_types::error::Error as CellError;

use super::{expect_tag, load_hash, load_time, store_hash, store_time};
use crate::{Address, Nanoton, NetworkId, Prices};

/// "COV1"
const TAG: u32 = 0x434f_5631;

/// A client's promise to pay one enclave at most `cap` in all. Signed by the channel's client key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The network it can be claimed on.
    pub network: NetworkId,
    /// The channel that pays.
    pub channel: Address,
    /// The enclave that may earn it.
    pub enclave_key: EnclaveKey,
    /// The most that may ever be paid to this enclave key out of this channel, earlier payments included.
    pub cap: Nanoton,
    /// What the client agreed to pay per token.
    pub prices: Prices,
    /// Receipts of a later time are not covered.
    pub expiry: UnixTime,
}

super::signed_cell!(Voucher, "a voucher");

impl Voucher {
    fn write(&self) -> Result<Cell, CellError> {
        let mut b = CellBuilder::new();
        b.store_u32(TAG)?;
        b.store_u32(self.network.0 as u32)?;
        self.channel.store(&mut b)?;
        store_hash(&mut b, &self.enclave_key.0)?;
        b.store_u64(self.cap.0)?;
        for price in [self.prices.prompt, self.prices.cached, self.prices.completion, self.prices.reasoning] {
            b.store_u64(price)?;
        }
        store_time(&mut b, self.expiry)?;
        b.build()
    }

    fn read(s: &mut CellSlice<'_>) -> Result<Self, CellError> {
        expect_tag(s, TAG)?;
        Ok(Self {
            network: NetworkId(s.load_u32()? as i32),
            channel: Address::load(s)?,
            enclave_key: EnclaveKey(load_hash(s)?),
            cap: Nanoton(s.load_u64()?),
            prices: Prices {
                prompt: s.load_u64()?,
                cached: s.load_u64()?,
                completion: s.load_u64()?,
                reasoning: s.load_u64()?,
            },
            expiry: load_time(s)?,
        })
    }
}
