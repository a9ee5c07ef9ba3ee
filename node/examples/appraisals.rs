//! A million appraisals, and what they leave in memory. `make bench` runs it.
//!
//! `MALLOC_ARENA_MAX=1 cargo run --release -p cocoon-node --example appraisals -- 1000000`

#[path = "../tests/flat/mod.rs"]
mod flat;
#[path = "../tests/world/mod.rs"]
mod world;

/// Most that the last nine tenths may add, in KiB. Kept whole, the leaves alone would take some ten GiB.
const NOISE: u64 = 48 << 10;

fn main() {
    let total = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let measured = flat::runtime().block_on(flat::run(total / 10, total));
    println!("\n| bundles | a second, their making included | leaves | memory after a tenth, MiB | at the end, MiB |");
    println!("|---|---|---|---|---|");
    println!(
        "| {total} | {:.0} | {} | {} | {} |",
        measured.rate,
        measured.leaves,
        measured.at_first / 1024,
        measured.at_the_end / 1024
    );
    assert!(measured.at_the_end <= measured.at_first + NOISE, "memory grows with what was appraised");
}
