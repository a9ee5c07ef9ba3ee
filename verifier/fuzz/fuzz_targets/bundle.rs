#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common.rs"]
mod common;

fuzz_target!(|bundle: &[u8]| {
    common::WORLD.bundle(bundle);
});
