//! The baseline of the benchmarks: mistral.rs called in this process, without evidence, seal or money.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use cocoon_engine::{Engine, EngineConfig, Event, Message, Role, Sampling};
use serde_json::json;

/// Answers the prompt once for each line of standard input, and prints a JSON line each time: microseconds to the first token and to
/// the end, and tokens.
///
/// # Errors
/// The model cannot be loaded or fails.
pub async fn run(model: &Path, prompt: &str, max_tokens: u64) -> Result<()> {
    let engine = Engine::load(model, EngineConfig::default()).await?;
    for line in std::io::stdin().lines() {
        line?;
        let messages = [Message { role: Role::User, content: prompt.to_owned() }];
        let started = Instant::now();
        let tokens = engine.prompt(&messages).await?;
        let mut generation = engine.generate(tokens, &Sampling::default(), max_tokens).await?;
        let mut first = None;
        let completion = loop {
            match generation.next().await {
                Event::Text(_) => {
                    first.get_or_insert_with(|| started.elapsed());
                }
                Event::Done { completion_tokens, .. } => break completion_tokens,
                Event::Failed => anyhow::bail!("the engine failed"),
            }
        };
        let first = first.context("an answer without text")?;
        println!(
            "{}",
            json!({"ttft_us": first.as_micros(), "total_us": started.elapsed().as_micros(), "tokens": completion})
        );
    }
    Ok(())
}
