#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common.rs"]
mod common;

fuzz_target!(|response: &[u8]| {
    common::WORLD.ocsp(response);
});
