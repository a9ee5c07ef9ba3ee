//! Execution parameters: mainnet's, so that gas and fees are what they would be there.

use tycho_executor::{ExecutorParams, ParsedConfig};
use tycho_types::boc::Boc;
use tycho_types::cell::HashBytes;
use tycho_types::dict::Dict;
use tycho_types::models::{
    BlockchainConfig, BlockchainConfigParams, WorkchainDescription, WorkchainFormat, WorkchainFormatBasic,
};

use crate::address::NetworkId;
use crate::error::Error;

/// Mainnet's parameters of October 2025; see `data/README.md`.
const MAINNET_CONFIG: &[u8] = include_bytes!("../../data/mainnet-config.boc");
/// The config contract's address on mainnet (parameter 0).
const CONFIG_ADDRESS: HashBytes = HashBytes([0x55; 32]);

/// Reads the committed parameters, with the local chain's global id in parameter 19.
pub(super) fn load() -> Result<ParsedConfig, Error> {
    let root = Boc::decode(MAINNET_CONFIG).map_err(|error| Error::Execution(format!("configuration: {error}")))?;
    let mut params = BlockchainConfigParams::from_raw(root);
    params.set_global_id(NetworkId::LOCAL.0)?;
    // Mainnet writes parameter 12 in a newer layout than tycho-types reads.
    let mut workchains = Dict::<i32, WorkchainDescription>::new();
    workchains.set(0, basechain())?;
    params.set_workchains(&workchains)?;
    // Mainnet has had one set of storage prices since 2019, so the time of parsing does not matter.
    Ok(ParsedConfig::parse(BlockchainConfig { address: CONFIG_ADDRESS, params }, u32::MAX)?)
}

fn basechain() -> WorkchainDescription {
    WorkchainDescription {
        enabled_since: 0,
        actual_min_split: 0,
        min_split: 0,
        max_split: 0,
        active: true,
        accept_msgs: true,
        zerostate_root_hash: HashBytes::ZERO,
        zerostate_file_hash: HashBytes::ZERO,
        version: 0,
        format: WorkchainFormat::Basic(WorkchainFormatBasic { vm_mode: 0, vm_version: 0 }),
    }
}

/// What a block fixes for every transaction in it.
pub(super) fn executor_params(time: u32, start_lt: u64, rand_seed: [u8; 32]) -> ExecutorParams {
    ExecutorParams {
        rand_seed: HashBytes(rand_seed),
        block_unixtime: time,
        block_lt: start_lt,
        // TON's behaviour; tycho's own network differs.
        charge_action_fees_on_fail: true,
        strict_extra_currency: true,
        ..ExecutorParams::default()
    }
}
