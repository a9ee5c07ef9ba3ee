#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common.rs"]
mod common;

fuzz_target!(|chain: &[u8]| {
    common::WORLD.gpu(&common::WORLD.gpu_report, chain);
});
