//! A model large enough to be the bottleneck: what is left of mistral.rs's own speed when everything of Cocoon is around it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cocoon_cli::data::DataDir;
use cocoon_cli::network::{Network, Options};
use cocoon_tests::models::{self, Shape};

use crate::engine::{InProcess, Server, processor_time};
use crate::options;
use crate::ways::{self, Sample, percentile};

/// What is measured.
#[derive(clap::Args, Clone, Copy)]
pub struct Throughput {
    /// Runs of each side, in turn
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Tokens of an answer
    #[arg(long, default_value_t = 96)]
    tokens: u64,
    /// On a GPU, with a model of the sizes of Qwen3-8B (needs a guest built with `--features cuda`, 40 GB of memory, 17 GB in TMPDIR), and at
    /// 1, 16 and 64 streams rather than 1 and 4
    #[arg(long)]
    gpu: bool,
}

impl Throughput {
    /// The lesser measurement that is part of all.
    pub fn brief(rounds: usize) -> Self {
        Self { rounds, tokens: 96, gpu: false }
    }
}

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
    fn add(&mut self, round: usize, answers: &[Sample], wall: Duration, processor: Duration) {
        if round == 0 {
            return;
        }
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
            "| {name} | {:.2} | {:.3} | {:.1} | {:.2} | {:.2} | {:.3} |",
            self.speed(),
            self.speed() / of,
            ms(&self.first, 50),
            ms(&self.gaps, 50),
            ms(&self.gaps, 99),
            // Of a thousand tokens.
            self.processor.as_secs_f64() * 1e3 / self.tokens as f64
        )
    }
}

/// The sides: their places, and their names.
const RAW: usize = 0;
const SERVER: usize = 1;
const SDK: usize = 2;
const NAMES: [&str; 4] = [
    "mistral.rs in-process",
    "mistral.rs's HTTP server",
    "Cocoon: SDK, gateway, host, enclave",
    "Cocoon: OpenAI's API at the proxy, gateway, host, enclave",
];

/// Runs of all sides in turn.
pub async fn run(Throughput { rounds, tokens, gpu }: Throughput) -> Result<()> {
    let (shape, name, counts): (_, _, &[usize]) = match gpu {
        true => (
            Shape::Large,
            "of 8.2 billion parameters (the sizes of Qwen3-8B, random weights, bfloat16, on a GPU)",
            &[1, 16, 64],
        ),
        false => (Shape::Bench, "of 105 million parameters (random weights, f32)", &[1, 4]),
    };
    let most = counts.last().copied().unwrap_or(1);
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("model");
    models::write(&model, shape)?;
    let started = Instant::now();
    let recorded = Command::new(cocoon_tests::enclave_binary()).args(["record", "--model"]).arg(&model).output()?;
    ensure!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    eprintln!("recorded in {:.1} s", started.elapsed().as_secs_f64());
    let data = DataDir::open(&folder.path().join("data"))?;
    let guest = format!("concurrent = {most}\nwaiting = {most}\nchannel_concurrent = {most}\n");
    let network = Network::start(&data, Options { guest, ..options(model.clone()) }).await?;
    eprintln!("the network is up after {:.1} s", started.elapsed().as_secs_f64());
    let log = std::fs::read_to_string(data.join("host").join("enclave.log")).unwrap_or_default();
    let loaded =
        log.lines().find(|line| line.contains("hashed")).context("the guest does not say how long hashing took")?;
    eprintln!("the guest: {loaded}");
    let (enclaves, _) = network.client.enclaves().await?;
    let enclave = enclaves.into_iter().next().context("an enclave")?;
    let pid = network.enclave_pid().context("an enclave's process")?;
    let mut engine = InProcess::raw(&model, tokens, most)?;
    println!("\nA model {name}, {tokens} tokens an answer, {rounds} runs of each side, in turn.\n");
    if !gpu {
        println!(
            "On a CPU the engine has one sequence at a time: of 4 streams, 3 wait for their turn, on every side.\n"
        );
    }
    println!(
        "| streams | side | tokens/s | of mistral.rs | TTFT p50, ms | gap p50, ms | gap p99, ms | CPU s per 1,000 tokens |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let http = ways::http();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let proxy = format!("http://{}", listener.local_addr()?);
    let router = network.proxy();
    tokio::spawn(async move { axum::serve(cocoon_host::no_delay(listener), router).await });
    // The server's program is one for CPUs.
    let server = if gpu { None } else { Server::start(&model)? };
    let own = || -> Result<Duration> { Ok(processor_time(pid)? + processor_time(std::process::id())?) };
    for streams in counts.iter().copied() {
        let mut sides = [Side::default(), Side::default(), Side::default(), Side::default()];
        // The first round warms all of them up; each begins with another one.
        for round in 0..=rounds {
            for turn in 0..sides.len() {
                let which = (round + turn) % sides.len();
                let (answers, wall, used) = match (which, &server) {
                    (RAW, _) => {
                        let before = processor_time(engine.pid())?;
                        let (answers, wall) = tokio::task::block_in_place(|| engine.ask(streams))?;
                        (answers, wall, processor_time(engine.pid())?.saturating_sub(before))
                    }
                    (SERVER, None) => continue,
                    (SERVER, Some(server)) => {
                        let (before, started) = (processor_time(server.pid())?, Instant::now());
                        let asked = (0..streams).map(|_| ways::openai(&http, server.url(), Some(tokens), false));
                        let answers = futures::future::try_join_all(asked).await?;
                        (answers, started.elapsed(), processor_time(server.pid())?.saturating_sub(before))
                    }
                    (SDK, _) => {
                        let (before, started) = (own()?, Instant::now());
                        let asked = (0..streams)
                            .map(|_| ways::sdk(&network.client, &enclave, &network.urls.gateway, Some(tokens)));
                        let answers = futures::future::try_join_all(asked).await?;
                        (answers, started.elapsed(), own()?.saturating_sub(before))
                    }
                    _ => {
                        let (before, started) = (own()?, Instant::now());
                        let asked = (0..streams).map(|_| ways::openai(&http, &proxy, Some(tokens), true));
                        let answers = futures::future::try_join_all(asked).await?;
                        (answers, started.elapsed(), own()?.saturating_sub(before))
                    }
                };
                sides[which].add(round, &answers, wall, used);
            }
        }
        let of = sides[RAW].speed();
        for (side, name) in sides.iter().zip(NAMES).filter(|(side, _)| !side.speeds.is_empty()) {
            println!("| {streams} {}", side.row(name, of));
        }
    }
    if server.is_none() && !gpu {
        println!(
            "\nmistral.rs's HTTP server was not measured: COCOON_ENGINE_SERVER names none (`make bench` builds it)."
        );
    }
    network.stop().await;
    Ok(())
}
