#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(policy) = cocoon_verifier::Policy::from_toml(text) {
        policy.explain();
    }
});
