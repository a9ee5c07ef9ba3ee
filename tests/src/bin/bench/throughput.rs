//! A model large enough to be the bottleneck: what is left of mistral.rs's own speed when everything of Cocoon is around it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cocoon_cli::data::DataDir;
use cocoon_cli::network::Network;
use cocoon_tests::models::{self, Shape};

use crate::engine::{InProcess, processor_time};
use crate::options;
use crate::ways::{self, Sample, percentile};

const TOKENS: u64 = 48;

/// What one side did.
#[derive(Default)]
struct Side {
    speeds: Vec<f64>,
    gaps: Vec<Duration>,
    first: Vec<Duration>,
    processor: Duration,
    tokens: u64,
}

impl Side {
    fn add(&mut self, answers: &[Sample], wall: Duration, processor: Duration) {
        // The path tells tokens in its receipts, the baseline by itself; both give what was asked for.
        let tokens: u64 = answers.iter().map(|answer| answer.tokens).sum();
        self.speeds.push(tokens as f64 / wall.as_secs_f64());
        self.gaps.extend(answers.iter().flat_map(|answer| answer.gaps.iter().copied()));
        self.first.extend(answers.iter().map(|answer| answer.first));
        self.processor += processor;
        self.tokens += tokens;
    }

    fn speed(&self) -> f64 {
        let mut speeds = self.speeds.clone();
        speeds.sort_by(f64::total_cmp);
        speeds[speeds.len() / 2]
    }

    fn row(&self, name: &str, of: f64) -> String {
        let ms = |values: &[Duration], percent| percentile(values.to_vec(), percent).as_secs_f64() * 1e3;
        format!(
            "| {name} | {:.2} | {:.3} | {:.1} | {:.2} | {:.2} | {:.2} |",
            self.speed(),
            self.speed() / of,
            ms(&self.first, 50),
            ms(&self.gaps, 50),
            ms(&self.gaps, 99),
            self.processor.as_secs_f64() * 1e3 / self.tokens as f64
        )
    }
}

/// Alternating runs of both sides, at 1 and at 4 streams.
pub async fn run(rounds: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("model");
    models::write(&model, Shape::Bench)?;
    let recorded = Command::new(cocoon_tests::enclave_binary()).args(["record", "--model"]).arg(&model).output()?;
    ensure!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    let data = DataDir::open(&folder.path().join("data"))?;
    let network = Network::start(&data, options(model.clone())).await?;
    let (enclaves, _) = network.client.enclaves().await?;
    let enclave = enclaves.into_iter().next().context("an enclave")?;
    let pid = network.enclave_pid().context("an enclave's process")?;
    let mut engine = InProcess::start(&model, TOKENS, true)?;
    println!(
        "\nA model of 105 million parameters (random weights, f32), {TOKENS} tokens an answer, {rounds} runs of each side in turn.\n"
    );
    println!(
        "| streams | side | tokens/s | of mistral.rs | TTFT p50, ms | gap p50, ms | gap p99, ms | processor ms/token |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for streams in [1, 4] {
        let (mut raw, mut cocoon) = (Side::default(), Side::default());
        for round in 0..=rounds {
            let before = processor_time(engine.pid())?;
            let (answers, wall) = tokio::task::block_in_place(|| engine.ask(streams))?;
            let used = processor_time(engine.pid())?.saturating_sub(before);
            let all = || -> Result<Duration> { Ok(processor_time(pid)? + processor_time(std::process::id())?) };
            let (before, started) = (all()?, Instant::now());
            let asked = (0..streams).map(|_| ways::sdk(&network.client, &enclave, &network.urls.gateway, Some(TOKENS)));
            let path: Vec<Sample> = futures::future::try_join_all(asked).await?;
            let (path_wall, path_used) = (started.elapsed(), all()?.saturating_sub(before));
            // The first round warms both up.
            if round > 0 {
                raw.add(&answers, wall, used);
                cocoon.add(&path, path_wall, path_used);
            }
        }
        let of = raw.speed();
        println!("| {streams} {}", raw.row("mistral.rs in-process", of));
        println!("| {streams} {}", cocoon.row("the whole of Cocoon", of));
    }
    network.stop().await;
    Ok(())
}
