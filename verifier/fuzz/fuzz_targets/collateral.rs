#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common.rs"]
mod common;

fuzz_target!(|collateral: &[u8]| {
    common::WORLD.tdx(&common::WORLD.quote, collateral);
});
