#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common.rs"]
mod common;

fuzz_target!(|certificate: &[u8]| {
    common::WORLD.snp(&common::WORLD.report, certificate);
});
