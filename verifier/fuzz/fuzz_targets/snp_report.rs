#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common.rs"]
mod common;

fuzz_target!(|report: &[u8]| {
    common::WORLD.snp(report, &common::WORLD.chain.vek);
});
