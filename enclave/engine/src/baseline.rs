//! mistral.rs as it comes, for benchmarks to compare with: its own template, sampler, tokenizer and stream, with the same settings of the
//! engine as [`crate::Engine`]. One request drops no other here, because nobody goes away.

use std::path::Path;
use std::time::{Duration, Instant};

use mistralrs::{Model, RequestBuilder, Response, TextMessageRole, TextMessages};

use crate::{EngineConfig, Error, Kind};

/// A loaded model.
pub struct Baseline(Model);

/// When the tokens of one answer came.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Until the first token.
    pub first: Duration,
    /// Between one token and the next.
    pub gaps: Vec<Duration>,
    /// Until the end.
    pub total: Duration,
    /// Tokens generated.
    pub tokens: u64,
}

impl Baseline {
    /// Loads a model folder with the settings of [`crate::Engine::load`], but for a cache of so many prompts, which that one never has.
    ///
    /// # Errors
    /// As there.
    pub async fn load(folder: &Path, config: EngineConfig, prefixes: Option<usize>) -> Result<Self, Error> {
        let path = folder.canonicalize().map_err(|_| Error::NoModel(folder.to_owned()))?;
        crate::build(&path, None, Kind::Text, config, prefixes).await.map(Self)
    }

    /// Answers one message of a user with at most so many tokens, always the likeliest.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn answer(&self, question: &str, max_tokens: usize) -> Result<Timing, Error> {
        let messages = TextMessages::new().add_message(TextMessageRole::User, question);
        let request = RequestBuilder::from(messages).set_deterministic_sampler().set_sampler_max_len(max_tokens);
        let started = Instant::now();
        let mut stream = self.0.stream_chat_request(request).await.map_err(|_| Error::Failed)?;
        let (mut first, mut last, mut gaps, mut tokens) = (None, started, Vec::new(), 0);
        while let Some(response) = stream.next().await {
            let Response::Chunk(chunk) = response else { return Err(Error::Failed) };
            let now = Instant::now();
            match first {
                None => first = Some(now - started),
                Some(_) => gaps.push(now - last),
            }
            last = now;
            if let Some(usage) = chunk.usage {
                tokens = usage.completion_tokens as u64;
            }
        }
        Ok(Timing { first: first.ok_or(Error::Failed)?, gaps, total: last - started, tokens })
    }
}
