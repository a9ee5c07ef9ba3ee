//! The baselines of the benchmarks: answers made in this process, without evidence, seal or money.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cocoon_engine::baseline::{Baseline, Timing};
use cocoon_engine::{Chat, Engine, EngineConfig, Event, Sampling};
use serde_json::json;

use crate::load::Staged;

/// Who answers.
enum Who {
    /// mistral.rs as it comes.
    Raw(Baseline),
    /// The enclave's engine.
    Engine(Engine),
}

async fn answer(who: &Who, prompt: &str, max_tokens: u64, sampling: Sampling) -> Result<Timing> {
    let engine = match who {
        Who::Raw(baseline) => return Ok(baseline.answer(prompt, max_tokens as usize).await?),
        Who::Engine(engine) => engine,
    };
    let messages = vec![json!({"role": "user", "content": prompt})];
    let started = Instant::now();
    let tokens = engine.chat(Chat { messages, ..Chat::default() }).await?;
    let mut generation = engine.generate(tokens, sampling, max_tokens).await?;
    let (mut first, mut last, mut gaps): (Option<Duration>, _, _) = (None, started, Vec::new());
    loop {
        match generation.next().await {
            Event::Token(_) => {
                let now = Instant::now();
                match first {
                    None => first = Some(now - started),
                    Some(_) => gaps.push(now - last),
                }
                last = now;
            }
            Event::Rest(_) => {}
            Event::Done { tokens, .. } => {
                let first = first.context("an answer without text")?;
                return Ok(Timing { first, gaps, total: started.elapsed(), tokens });
            }
            _ => anyhow::bail!("the engine failed"),
        }
    }
}

/// For each line of standard input, a number and perhaps a prompt behind it, gives as many answers at once, and prints a JSON line: for each answer its tokens, and in
/// microseconds the time to its first token, between tokens, and to its end; and the time to the end of all.
///
/// # Errors
/// The model cannot be loaded or fails.
pub async fn run(
    model: &Path,
    prompt: &str,
    max_tokens: u64,
    raw: bool,
    prefixes: Option<usize>,
    never: Vec<u32>,
    config: EngineConfig,
) -> Result<()> {
    let sampling =
        Sampling { logit_bias: never.into_iter().map(|token| (token, -100.0)).collect(), ..Sampling::default() };
    let who = Arc::new(match raw {
        true => Who::Raw(Baseline::load(model, config, prefixes).await?),
        false => Who::Engine(Engine::load(model, config).await?),
    });
    for line in std::io::stdin().lines() {
        let line = line?;
        let (streams, prompt) = line.trim().split_once(' ').unwrap_or((line.trim(), prompt));
        let streams: usize = streams.parse().context("a number of streams")?;
        let started = Instant::now();
        let asked: Vec<_> = (0..streams)
            .map(|_| {
                let (who, prompt, sampling) = (who.clone(), prompt.to_owned(), sampling.clone());
                tokio::spawn(async move { answer(&who, &prompt, max_tokens, sampling).await })
            })
            .collect();
        let mut answers = Vec::new();
        for asked in asked {
            let timing = asked.await??;
            let gaps: Vec<u64> = timing.gaps.iter().map(|gap| gap.as_micros() as u64).collect();
            answers.push(json!({
                "ttft_us": timing.first.as_micros() as u64, "total_us": timing.total.as_micros() as u64,
                "tokens": timing.tokens, "gaps_us": gaps,
            }));
        }
        println!("{}", json!({"wall_us": started.elapsed().as_micros() as u64, "answers": answers}));
    }
    Ok(())
}

/// Copies and hashes a folder as an enclave does with its model, several times, and prints a JSON line: its bytes, and the milliseconds that
/// each time took.
///
/// # Errors
/// It cannot be read, or there is not enough memory.
pub fn weights(folder: &Path, times: usize) -> Result<()> {
    let (mut bytes, mut took) = (0, Vec::new());
    for _ in 0..times {
        let started = Instant::now();
        let staged = Staged::copy(folder)?;
        took.push(started.elapsed().as_millis() as u64);
        bytes = staged.root.files.iter().map(|file| file.size).sum::<u64>();
    }
    println!("{}", json!({"bytes": bytes, "ms": took}));
    Ok(())
}
