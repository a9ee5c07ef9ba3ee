#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common.rs"]
mod common;

fuzz_target!(|manifest: &[u8]| {
    common::WORLD.rim(manifest);
});
