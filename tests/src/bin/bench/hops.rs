//! The demo model, so small that the path itself is all there is to see: what each hop costs, per token and until the first one.

use std::time::Duration;

use anyhow::{Context, Result};
use cocoon_cli::network::Network;

use crate::engine::{InProcess, processor_time};
use crate::ways::{self, Http, Sample, percentile};

/// The ways, each with one hop more than the one before.
pub const WAYS: [&str; 5] =
    ["the enclave's engine alone", "enclave, sealed", "+ host", "+ gateway", "+ proxy (OpenAI's API)"];
const LONG: u64 = 400;

async fn way(
    number: usize,
    engine: &mut InProcess,
    network: &Network,
    http: &Http,
    urls: (&str, &str),
    tokens: Option<u64>,
) -> Result<Sample> {
    let (enclaves, _) = network.client.enclaves().await?;
    let enclave = enclaves.into_iter().next().context("an enclave")?;
    match number {
        0 => Ok(tokio::task::block_in_place(|| engine.ask(1))?.0.remove(0)),
        1 => ways::enclave_alone(http, &network.client, &enclave, urls.0, tokens).await,
        2 => ways::sdk(&network.client, &enclave, &network.host.url(), tokens).await,
        3 => ways::sdk(&network.client, &enclave, &network.urls.gateway, tokens).await,
        _ => ways::openai(http, urls.1, tokens, true).await,
    }
}

/// Processor time per token of long answers, in blocks of each way in turn.
pub async fn per_token(
    network: &Network,
    http: &Http,
    enclave_url: &str,
    proxy_url: &str,
    rounds: usize,
) -> Result<()> {
    const BLOCK: u64 = 10;
    let mut engine = InProcess::endless(LONG)?;
    let enclave = network.enclave_pid().context("an enclave's process")?;
    let mut used: Vec<Vec<f64>> = vec![Vec::new(); WAYS.len()];
    for round in 0..=rounds {
        for (number, used) in used.iter_mut().enumerate() {
            let mut all = Duration::ZERO;
            for pid in [engine.pid(), enclave, std::process::id()] {
                all += processor_time(pid)?;
            }
            for _ in 0..BLOCK {
                way(number, &mut engine, network, http, (enclave_url, proxy_url), Some(LONG)).await?;
            }
            let mut after = Duration::ZERO;
            for pid in [engine.pid(), enclave, std::process::id()] {
                after += processor_time(pid)?;
            }
            if round > 0 {
                used.push((after - all).as_secs_f64() * 1e6 / (BLOCK * LONG) as f64);
            }
        }
    }
    println!(
        "\nProcessor time of all processes together, per token, answers of {LONG} tokens, {rounds} blocks of {BLOCK} answers each way in turn.\n"
    );
    println!("| way | us/token, median | added by this hop |\n|---|---|---|");
    let median = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (number, name) in WAYS.iter().enumerate() {
        let now = median(&used[number]);
        let added = if number == 0 { 0.0 } else { now - median(&used[number - 1]) };
        println!("| {name} | {now:.1} | {added:.1} |");
    }
    println!(
        "\nAll hops together: {:.1} us/token (60 at most are wanted).",
        median(&used[WAYS.len() - 1]) - median(&used[0])
    );
    Ok(())
}

/// Time to the first token of short answers, one of each way in turn, against mistral.rs as it comes.
pub async fn first_token(
    network: &Network,
    http: &Http,
    enclave_url: &str,
    proxy_url: &str,
    runs: usize,
) -> Result<u64> {
    const WARM_UP: usize = 20;
    let model = cocoon_tests::demo_model();
    let (mut raw, mut engine) = (InProcess::raw(&model, 64, 1)?, InProcess::ours(&model, 64)?);
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); WAYS.len() + 1];
    for run in 0..WARM_UP + runs {
        for (number, samples) in samples.iter_mut().enumerate() {
            let sample = match number {
                0 => tokio::task::block_in_place(|| raw.ask(1))?.0.remove(0),
                _ => way(number - 1, &mut engine, network, http, (enclave_url, proxy_url), None).await?,
            };
            if run >= WARM_UP {
                samples.push(sample);
            }
        }
    }
    let tokens = samples[0][0].tokens;
    println!("Demo model, {tokens} tokens an answer, {runs} answers each way in turn, one at a time.\n");
    println!(
        "| way | TTFT p50, ms | TTFT p99, ms | added p50, ms | added p99, ms | answer p50, ms | tokens/s of mistral.rs |"
    );
    println!("|---|---|---|---|---|---|---|");
    let ms = |of: &[Sample], value: fn(&Sample) -> Duration, percent| {
        percentile(of.iter().map(value).collect(), percent).as_secs_f64() * 1e3
    };
    let (base_first, base_total) = (ms(&samples[0], |s| s.first, 50), ms(&samples[0], |s| s.total, 50));
    let base_last = ms(&samples[0], |s| s.first, 99);
    for (name, of) in std::iter::once(&"mistral.rs in-process").chain(&WAYS).zip(&samples) {
        let (first, total) = (ms(of, |s| s.first, 50), ms(of, |s| s.total, 50));
        println!(
            "| {name} | {first:.2} | {:.2} | {:.2} | {:.2} | {total:.2} | {:.3} |",
            ms(of, |s| s.first, 99),
            first - base_first,
            ms(of, |s| s.first, 99) - base_last,
            base_total / total
        );
    }
    let all = &samples[WAYS.len()];
    println!(
        "\nAdded to the first token by the whole path: {:.2} ms at the median, {:.2} ms at p99 (1 and 3 at most are wanted).",
        ms(all, |s| s.first, 50) - base_first,
        ms(all, |s| s.first, 99) - base_last
    );
    Ok(tokens)
}
