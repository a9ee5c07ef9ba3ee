#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common.rs"]
mod common;

fuzz_target!(|report: &[u8]| {
    common::WORLD.gpu(report, &common::WORLD.gpu_chain);
});
