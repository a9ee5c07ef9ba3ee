//! How fast a log takes leaves, durably, and whether it slows as it grows. `make bench` runs it.

use std::time::Instant;

use cocoon_transparency::Log;

/// Bytes of a leaf: a TDX quote with its result.
const LEAF: usize = 8_000;
/// Leaves of the log that is to show whether it slows.
const MANY: u64 = 10_000_000;

fn leaf(number: u64, length: usize) -> Vec<u8> {
    let mut leaf = number.to_be_bytes().to_vec();
    leaf.resize(length, 7);
    leaf
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("| leaves of {LEAF} bytes in one batch | appends a second, on disk |");
    println!("|---|---|");
    for batch in [1, 16, 256, 4_096] {
        let folder = tempfile::tempdir()?;
        let log = Log::open(folder.path(), "bench.example", [7; 32])?;
        let (started, mut done) = (Instant::now(), 0);
        while started.elapsed().as_secs_f64() < 3.0 && done < 40_000 {
            log.append((done..done + batch).map(|number| leaf(number, LEAF)).collect())?;
            done += batch;
        }
        println!("| {batch} | {:.0} |", done as f64 / started.elapsed().as_secs_f64());
    }
    println!("\n| leaves so far | appends a second, batches of 256 leaves of 64 bytes | head, ms | proof, ms |");
    println!("|---|---|---|---|");
    let folder = tempfile::tempdir()?;
    let log = Log::open(folder.path(), "bench.example", [7; 32])?;
    for round in 1..=4 {
        let (from, to) = (MANY / 4 * (round - 1), MANY / 4 * round);
        let started = Instant::now();
        for first in (from..to).step_by(256) {
            log.append((first..(first + 256).min(to)).map(|number| leaf(number, 64)).collect())?;
        }
        let rate = (to - from) as f64 / started.elapsed().as_secs_f64();
        let started = Instant::now();
        let head = log.head()?;
        let signed = started.elapsed().as_secs_f64() * 1e3;
        let started = Instant::now();
        for index in (0..to).step_by((to / 100) as usize) {
            log.inclusion(index, head.tree.size)?;
        }
        println!("| {to} | {rate:.0} | {signed:.2} | {:.3} |", started.elapsed().as_secs_f64() * 10.0);
    }
    Ok(())
}
