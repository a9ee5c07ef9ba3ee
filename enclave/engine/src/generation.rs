//! One answer being generated: what the engine does is followed by a task of its own, so that a slow reader holds up nobody, and an engine
//! that dies takes no answer with it.

use std::sync::Arc;

use mistralrs::core::Constraint;
use mistralrs::{CustomLogitsProcessor, NormalRequest, RequestMessage, Response, SamplingParams};
use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedSemaphorePermit, mpsc};

use crate::sampler::{Chooser, Chosen, Sampling};
use crate::stop::StopFilter;
use crate::tokenizer::Decoder;
use crate::{Engine, Error, Prompt};

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// The limit of tokens or the context ended it.
    Length,
}

/// A token's score.
#[derive(Clone, PartialEq)]
pub struct Logprob {
    /// Its number in the vocabulary.
    pub id: u32,
    /// Its text, special tokens included.
    pub token: String,
    /// Its bytes: a token can be part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// One generated token.
#[derive(Clone, Default, PartialEq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// The text that it completes; nothing while a character or a stop string may be incomplete.
    pub text: String,
    /// Its own score and the likeliest tokens', if they were asked for.
    pub scores: Option<(Logprob, Vec<Logprob>)>,
    /// Whether it ends the answer, as the model's own end does; it is counted like any other.
    pub end: bool,
}

/// What comes out of a generation.
#[derive(Clone, PartialEq)]
pub enum Event {
    /// One token more.
    Token(Token),
    /// Text that was held back, behind the last token.
    Rest(String),
    /// The end, with the number of tokens generated.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens generated.
        tokens: u64,
    },
    /// The engine failed on this request; the answer is worth nothing.
    Failed,
    /// The engine cannot follow the schema.
    Schema,
    /// It was stopped before its end: see [`Generation::stop`].
    Stopped,
}

/// Shows no content.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(token) => write!(f, "Token({} bytes)", token.text.len()),
            Self::Rest(text) => write!(f, "Rest({} bytes)", text.len()),
            Self::Done { reason, tokens } => write!(f, "Done({reason:?}, {tokens} tokens)"),
            Self::Failed => f.write_str("Failed"),
            Self::Schema => f.write_str("Schema"),
            Self::Stopped => f.write_str("Stopped"),
        }
    }
}

/// An answer being generated. Dropping it stops the engine's work on it with the next token.
pub struct Generation {
    events: mpsc::UnboundedReceiver<Event>,
    chooser: Arc<Chooser>,
    stop: Arc<Notify>,
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.chooser.cancel();
    }
}

impl Generation {
    pub(crate) fn start(
        engine: Engine,
        prompt: Prompt,
        sampling: Sampling,
        max_tokens: usize,
        running: OwnedSemaphorePermit,
    ) -> Result<Self, Error> {
        let end = engine.inner.template.ends.first().copied().unwrap_or_default();
        let chooser = Chooser::new(sampling.clone(), prompt.tokens.len(), end)?;
        Ok(Self::follow(engine, prompt, sampling, max_tokens, running, chooser))
    }

    pub(crate) fn follow(
        engine: Engine,
        prompt: Prompt,
        sampling: Sampling,
        max_tokens: usize,
        running: OwnedSemaphorePermit,
        chooser: Chooser,
    ) -> Self {
        let chooser = Arc::new(chooser);
        // Holds no more than the answer: it is as long as its limit of tokens.
        let (sender, events) = mpsc::unbounded_channel();
        let stop = Arc::new(Notify::new());
        let follower = Follower {
            stopped: stop.clone(),
            stop: StopFilter::new(&sampling.stop),
            schema: sampling.schema,
            engine,
            prompt,
            chooser: chooser.clone(),
            max_tokens,
            events: sender,
            decoder: Decoder::default(),
            read: 0,
        };
        tokio::spawn(async move {
            follower.run().await;
            drop(running);
        });
        Self { events, chooser, stop }
    }

    /// Stops the engine's work on it, as dropping it does. What was generated until then still comes, and [`Event::Stopped`] behind it, unless
    /// the answer has come to another end meanwhile.
    pub fn stop(&self) {
        self.chooser.cancel();
        self.stop.notify_one();
    }

    /// The next event; the last one is [`Event::Done`], [`Event::Failed`], [`Event::Schema`] or [`Event::Stopped`].
    pub async fn next(&mut self) -> Event {
        self.events.recv().await.unwrap_or(Event::Failed)
    }

    #[cfg(test)]
    pub(crate) fn chooser(&self) -> Arc<Chooser> {
        self.chooser.clone()
    }
}

/// What the engine answers one attempt with.
type Responses = mpsc::Receiver<Response>;

/// How one attempt of the engine ended.
enum Attempt {
    /// The answer is whole.
    Ended(FinishReason),
    /// Nobody waits for it any more.
    Unwanted,
    /// The engine or its thread failed, on this request or on another one.
    Broken,
    /// The engine refuses the request itself.
    Refused,
}

struct Follower {
    engine: Engine,
    prompt: Prompt,
    chooser: Arc<Chooser>,
    schema: Option<serde_json::Value>,
    max_tokens: usize,
    events: mpsc::UnboundedSender<Event>,
    stopped: Arc<Notify>,
    stop: StopFilter,
    decoder: Decoder,
    /// Choices that were turned into events.
    read: usize,
}

/// Attempts of one answer: the first beside others; where that breaks, one alone, which cannot be another request's fault.
const ATTEMPTS: usize = 2;
/// Tokens after which an attempt that began alone lets others in again.
const ALONE: usize = 8;

impl Follower {
    async fn run(mut self) {
        for attempt in 1..=ATTEMPTS {
            let lane = match attempt {
                1 => Lane::Shared(self.engine.inner.together.clone().read_owned().await),
                _ => Lane::Alone(self.engine.inner.together.clone().write_owned().await),
            };
            let mut responses = None;
            let ended = self.attempt(lane, &mut responses).await;
            let last = match ended {
                Attempt::Broken if attempt < ATTEMPTS && !self.events.is_closed() => {
                    tracing::warn!(attempt, "the engine failed while it answered");
                    None
                }
                Attempt::Ended(reason) => Some(Event::Done { reason, tokens: self.chooser.count() as u64 }),
                Attempt::Refused if self.schema.is_some() => Some(Event::Schema),
                Attempt::Broken | Attempt::Refused => Some(Event::Failed),
                Attempt::Unwanted => Some(Event::Stopped),
            };
            let over = last.is_some();
            if let Some(last) = last {
                let _ = self.events.send(last);
            }
            // The place is given away only when the engine has let go of the sequence: on a CPU no two may be in it (see `build`). Where a
            // schema keeps it from ending, it lets go of one whose channel is closed; others end at once, and nothing of them stays in memory.
            if let Some(mut responses) = responses {
                if self.schema.is_some() {
                    responses.close();
                }
                while responses.recv().await.is_some() {}
            }
            if over {
                return;
            }
        }
    }

    /// Submits the request, from where the last attempt came to, and follows it to its end.
    async fn attempt(&mut self, mut lane: Lane, kept: &mut Option<Responses>) -> Attempt {
        // A schema is followed from the beginning, so its tokens are chosen again; others continue behind what there is.
        let done = self.chooser.rewind(self.read, self.schema.is_some());
        let before = if self.schema.is_some() { Vec::new() } else { done };
        let left = self.max_tokens - before.len();
        if left == 0 {
            return Attempt::Ended(FinishReason::Length);
        }
        let tokens = [self.prompt.tokens.as_slice(), &before].concat();
        let (sender, responses) = mpsc::channel(left + 16);
        let responses = kept.insert(responses);
        let mut params = SamplingParams::deterministic();
        params.max_len = Some(left);
        let mut request =
            NormalRequest::new_simple(RequestMessage::CompletionTokens(tokens), params, sender, 0, None, None);
        request.is_streaming = true;
        let chooser: Arc<dyn CustomLogitsProcessor> = self.chooser.clone();
        request.logits_processors = Some(vec![chooser]);
        if let Some(schema) = &self.schema {
            request.constraint = Constraint::JsonSchema(compact(schema));
        }
        if self.engine.submit(request).await.is_err() {
            return Attempt::Broken;
        }
        loop {
            let response = tokio::select! {
                response = responses.recv() => response,
                () = self.events.closed() => {
                    self.chooser.cancel();
                    return Attempt::Unwanted;
                }
                () = self.stopped.notified() => {
                    // Under a schema the last choice may still have been forbidden: nobody pays for it.
                    self.pass_on(usize::from(self.schema.is_some()));
                    return Attempt::Unwanted;
                }
            };
            let reason = match response {
                Some(Response::CompletionChunk(chunk)) => {
                    chunk.choices.into_iter().find_map(|choice| choice.finish_reason).map(|reason| reason == "length")
                }
                Some(Response::ValidationError(_)) => return Attempt::Refused,
                Some(_) => return Attempt::Broken,
                None => match self.end_unsaid() {
                    Some(length) => Some(length),
                    None => return Attempt::Broken,
                },
            };
            // The last choice under a schema may still be replaced.
            let uncertain = usize::from(self.schema.is_some() && reason.is_none());
            if self.pass_on(uncertain) {
                return Attempt::Ended(FinishReason::Stop);
            }
            if self.read >= ALONE {
                lane = lane.shared();
            }
            if let Some(length) = reason {
                let mut rest = self.decoder.flush(&self.engine.inner.tokenizer);
                let (text, stopped) = self.stop.push(&rest);
                rest = text;
                if !stopped {
                    rest.push_str(&self.stop.flush());
                }
                if !rest.is_empty() {
                    let _ = self.events.send(Event::Rest(rest));
                }
                return Attempt::Ended(if length && !stopped { FinishReason::Length } else { FinishReason::Stop });
            }
        }
    }

    /// The engine's last chunk is missing where the last token is half a character. Whether the length ended it then; `None` if nothing did:
    /// the thread has died.
    fn end_unsaid(&self) -> Option<bool> {
        let count = self.chooser.count();
        let last = self.chooser.since(count.saturating_sub(1), 0);
        let ended = last.last().is_some_and(|last| self.engine.inner.template.ends.contains(&last.token));
        if ended { Some(false) } else { (count >= self.max_tokens).then_some(true) }
    }

    /// Turns new choices into events. Says whether a stop string has ended the answer.
    fn pass_on(&mut self, uncertain: usize) -> bool {
        for chosen in self.chooser.since(self.read, uncertain) {
            self.read += 1;
            let end = self.engine.inner.template.ends.contains(&chosen.token);
            let tokenizer = &self.engine.inner.tokenizer;
            let text = if end { String::new() } else { self.decoder.push(tokenizer, chosen.token) };
            let (text, stopped) = self.stop.push(&text);
            let scores = self.scores(&chosen);
            let _ = self.events.send(Event::Token(Token { id: chosen.token, text, scores, end }));
            if stopped {
                // What the engine chose beyond is nobody's.
                self.chooser.cancel();
                self.chooser.rewind(self.read, false);
                return true;
            }
        }
        false
    }

    fn scores(&self, chosen: &Chosen) -> Option<(Logprob, Vec<Logprob>)> {
        let (own, top) = chosen.scores.as_ref()?;
        let score = |id: u32, logprob: f32| {
            let (token, bytes) = self.engine.inner.tokenizer.piece(id);
            Logprob { id, token, bytes, logprob }
        };
        Some((score(chosen.token, *own), top.iter().map(|scored| score(scored.token, scored.logprob)).collect()))
    }
}

/// The schema with no choice of white space: a model can go on with that for ever.
fn compact(schema: &serde_json::Value) -> serde_json::Value {
    let mut schema = match schema {
        serde_json::Value::Object(_) => schema.clone(),
        other => serde_json::json!({"allOf": [other]}),
    };
    schema["x-guidance"] =
        serde_json::json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    schema
}

/// Beside other generations, or alone.
enum Lane {
    Shared(#[expect(dead_code, reason = "held, never read")] OwnedRwLockReadGuard<()>),
    Alone(tokio::sync::OwnedRwLockWriteGuard<()>),
}

impl Lane {
    fn shared(self) -> Self {
        match self {
            Self::Alone(guard) => Self::Shared(guard.downgrade()),
            shared => shared,
        }
    }
}
