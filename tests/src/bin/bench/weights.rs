//! How fast weights are copied into sealed memory and hashed, beside what memory, one processor and the disk do.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cocoon_attestation::model_root;
use serde_json::Value;

use crate::ways::percentile;

/// What is measured.
#[derive(clap::Args)]
pub struct Weights {
    /// MiB of weights: once in one file, once in eight
    #[arg(long, default_value_t = 1_024)]
    mib: usize,
}

impl Default for Weights {
    fn default() -> Self {
        Self { mib: 1_024 }
    }
}

/// Runs of each.
const TIMES: usize = 5;
const MIB: usize = 1 << 20;

/// Gigabytes a second.
fn speed(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e9 / took.as_secs_f64()
}

fn median(mut work: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed());
    }
    Ok(percentile(times, 50))
}

/// Writes files of numbers that no page of memory can be shared for.
fn write(folder: &Path, files: usize, mib: usize) -> Result<()> {
    std::fs::create_dir(folder)?;
    for file in 0..files {
        let mut out = File::create(folder.join(format!("weights-{file}")))?;
        for at in 0..mib / files {
            let mut state = (file * mib + at) as u64 + 1;
            let piece: Vec<u8> = (0..MIB / 8)
                .flat_map(|_| {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    state.to_le_bytes()
                })
                .collect();
            out.write_all(&piece)?;
        }
        out.sync_all()?;
    }
    Ok(())
}

/// Copied and hashed as an enclave does it.
fn staged(folder: &Path) -> Result<Duration> {
    let output = Command::new(cocoon_tests::enclave_binary())
        .args(["bench-weights", "--times", &TIMES.to_string(), "--model"])
        .arg(folder)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout)?;
    let times = value["ms"].as_array().context("times")?.iter().filter_map(Value::as_u64);
    Ok(percentile(times.map(Duration::from_millis).collect(), 50))
}

/// What the disk gives when nothing of the file is in memory; `None` where that cannot be asked for.
fn disk(folder: &Path) -> Option<Duration> {
    let started = Instant::now();
    let file = format!("if={}", folder.join("weights-0").display());
    let status = Command::new("dd").args([&file, "of=/dev/null", "bs=8M", "iflag=direct", "status=none"]).status();
    status.ok()?.success().then(|| started.elapsed())
}

fn hash(folder: &Path) -> Result<()> {
    std::hint::black_box(model_root(folder)?);
    Ok(())
}

/// Prints the table.
pub fn run(what: &Weights) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (one, eight) = (folder.path().join("one"), folder.path().join("eight"));
    let mib = (what.mib / 8).max(1) * 8;
    write(&one, 1, mib)?;
    write(&eight, 8, mib)?;
    let bytes = (mib * MIB) as u64;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    println!("\nWeights, {mib} MiB, medians of {TIMES}, {processors} processor(s).\n\n| what | GB/s |\n|---|---|");
    let row = |name: &str, took: Duration| println!("| {name} | {:.2} |", speed(bytes, took));
    let (from, mut to) = (vec![7_u8; mib * MIB], vec![0_u8; mib * MIB]);
    let copied = median(|| {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&to);
        Ok(())
    })?;
    row("copy memory, one processor", copied);
    drop((from, to));
    let mut piece = vec![0; MIB];
    let read = median(|| {
        let mut file = File::open(one.join("weights-0"))?;
        while file.read(&mut piece)? > 0 {}
        Ok(())
    })?;
    row("read one file that is in memory, one processor", read);
    row("hash one file (SHA-256), one processor", median(|| hash(&one))?);
    row("hash eight files, all processors", median(|| hash(&eight))?);
    row("copy one file into sealed memory and hash it there", staged(&one)?);
    row("copy eight files into sealed memory and hash them there", staged(&eight)?);
    match disk(&one) {
        Some(took) => row("read one file from the disk, nothing of it in memory", took),
        None => println!("| read one file from the disk | not measured: `dd iflag=direct` does not work here |"),
    }
    Ok(())
}
