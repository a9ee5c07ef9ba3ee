#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common.rs"]
mod common;

fuzz_target!(|quote: &[u8]| {
    common::WORLD.tdx(quote, &common::WORLD.collateral);
});
