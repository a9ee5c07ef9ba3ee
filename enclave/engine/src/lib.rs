//! mistral.rs behind a few types of our own. Nothing else in the workspace links it.
//!
//! Its convenience calls are not safe for several tenants: a stream dropped early panics the engine's thread, a reader that stops blocks
//! everybody, and the prefix cache is shared without a salt, which is a timing oracle. So requests are submitted directly, into channels
//! as large as the answer can get, without a prefix cache.

mod error;
mod prompt;
mod stop;

use std::path::Path;
use std::sync::Arc;

use either::Either;
use indexmap::IndexMap;
use mistralrs::core::{Request, TokenizationRequest};
use mistralrs::{
    Model, ModelDType, NormalRequest, RequestMessage, Response, SamplingParams, TextModelBuilder, TokenSource,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub use error::Error;
use prompt::SpecialTokens;
use stop::StopFilter;

/// Who speaks in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions of the application.
    System,
    /// The person.
    User,
    /// The model, in an earlier turn.
    Assistant,
}

/// One turn of a conversation.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Plain text.
    pub content: String,
}

/// Shows no content.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.role, self.content.len())
    }
}

/// How to choose the next token. What is `None` is off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// 0 or `None`: always the likeliest token.
    pub temperature: Option<f64>,
    /// Nucleus.
    pub top_p: Option<f64>,
    /// Number of candidates.
    pub top_k: Option<usize>,
    /// OpenAI's frequency penalty.
    pub frequency_penalty: Option<f32>,
    /// OpenAI's presence penalty.
    pub presence_penalty: Option<f32>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// The limit of tokens or the context ended it.
    Length,
}

/// What comes out of a generation.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// More text.
    Text(String),
    /// The end, with the number of tokens generated.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens generated.
        completion_tokens: u64,
    },
    /// The engine failed; the answer is worth nothing.
    Failed,
}

/// Shows no content.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Done { reason, completion_tokens } => write!(f, "Done({reason:?}, {completion_tokens} tokens)"),
            Self::Failed => f.write_str("Failed"),
        }
    }
}

/// Limits of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Generations at once. On a CPU more than four slow one another down: only sequences of equal length are batched.
    pub concurrent: usize,
    /// Requests that may wait for their turn.
    pub waiting: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { concurrent: 4, waiting: 64 }
    }
}

/// A loaded model.
#[derive(Clone)]
pub struct Engine {
    model: Arc<Model>,
    special: Arc<SpecialTokens>,
    context: usize,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

/// A prompt in tokens, counted, and admitted to the queue.
pub struct Prompt {
    messages: Vec<IndexMap<String, mistralrs::MessageContent>>,
    tokens: usize,
    admitted: OwnedSemaphorePermit,
}

impl Prompt {
    /// Tokens of the prompt, template included.
    pub fn tokens(&self) -> u64 {
        self.tokens as u64
    }
}

impl Engine {
    /// Loads a model folder. It must exist: the engine would look for a name that is no folder on a model hub.
    ///
    /// # Errors
    /// No such folder, a file of it missing, or a model that the engine does not know.
    pub async fn load(folder: &Path, config: EngineConfig) -> Result<Self, Error> {
        for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            if !folder.join(file).is_file() {
                return Err(Error::NoModel(folder.join(file)));
            }
        }
        let special = SpecialTokens::load(&folder.join("tokenizer.json"))?;
        let path = folder.canonicalize().map_err(|_| Error::NoModel(folder.to_owned()))?;
        let model = TextModelBuilder::new(path.display())
            .with_force_cpu()
            .with_dtype(ModelDType::F32)
            .with_token_source(TokenSource::None)
            .with_max_num_seqs(config.concurrent.max(1))
            .with_prefix_cache_n(None)
            .build()
            .await
            .map_err(|error| Error::Load(format!("{error:#}")))?;
        let context = model.max_sequence_length().map_err(|error| Error::Load(error.to_string()))?;
        Ok(Self {
            model: Arc::new(model),
            special: Arc::new(special),
            context: context.ok_or_else(|| Error::Load("the model does not say how long its context is".into()))?,
            running: Arc::new(Semaphore::new(config.concurrent.max(1))),
            admitted: Arc::new(Semaphore::new(config.concurrent.max(1) + config.waiting)),
        })
    }

    /// Tokens that prompt and answer may have together.
    pub fn context(&self) -> u64 {
        self.context as u64
    }

    /// Turns a conversation into tokens. Special tokens in its text are made plain text first: nobody speaks for another role.
    ///
    /// # Errors
    /// The queue is full, the prompt fills the context, or the template fails.
    pub async fn prompt(&self, messages: &[Message]) -> Result<Prompt, Error> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
        let messages: Vec<IndexMap<String, mistralrs::MessageContent>> = messages
            .iter()
            .map(|message| {
                let role = match message.role {
                    Role::System => "system",
                    Role::User => "user",
                    Role::Assistant => "assistant",
                };
                IndexMap::from([
                    ("role".to_owned(), Either::Left(role.to_owned())),
                    ("content".to_owned(), Either::Left(self.special.neutralise(&message.content))),
                ])
            })
            .collect();
        let tokens = self.count(Either::Left(messages.clone())).await?;
        if tokens >= self.context {
            return Err(Error::ContextFull { tokens, context: self.context });
        }
        Ok(Prompt { messages, tokens, admitted })
    }

    /// Starts to answer with at most `max_tokens` (at least one), less where the context ends sooner. Dropping the generation stops it.
    ///
    /// # Errors
    /// The engine has ended.
    pub async fn generate(&self, prompt: Prompt, sampling: &Sampling, max_tokens: u64) -> Result<Generation, Error> {
        let room = (self.context - prompt.tokens) as u64;
        let max_tokens = max_tokens.clamp(1, room) as usize;
        let running = self.running.clone().acquire_owned().await.map_err(|_| Error::Ended)?;
        // As large as the answer can get: the engine never waits for a reader.
        let (sender, events) = mpsc::channel(max_tokens + 16);
        let messages =
            RequestMessage::Chat { messages: prompt.messages, enable_thinking: None, reasoning_effort: None };
        let mut request = NormalRequest::new_simple(messages, params(sampling, max_tokens), sender, 0, None, None);
        request.is_streaming = true;
        self.sender()?.send(Request::Normal(Box::new(request))).await.map_err(|_| Error::Ended)?;
        Ok(Generation {
            engine: self.clone(),
            events,
            text: String::new(),
            pieces: 0,
            ended: None,
            stop: StopFilter::new(&sampling.stop),
            end: None,
            _permits: (prompt.admitted, running),
        })
    }

    fn sender(&self) -> Result<mpsc::Sender<Request>, Error> {
        self.model.inner().get_sender(None).map_err(|_| Error::Ended)
    }

    async fn count(
        &self,
        text: Either<Vec<IndexMap<String, mistralrs::MessageContent>>, String>,
    ) -> Result<usize, Error> {
        let (response, mut answer) = mpsc::channel(1);
        let request = TokenizationRequest {
            text,
            tools: None,
            add_generation_prompt: true,
            add_special_tokens: false,
            enable_thinking: None,
            reasoning_effort: None,
            response,
        };
        self.sender()?.send(Request::Tokenize(request)).await.map_err(|_| Error::Ended)?;
        // The engine's thread panics if the receiver is gone when it answers, so the wait must outlive whoever asked.
        let waiting = tokio::spawn(async move { answer.recv().await });
        match waiting.await {
            Ok(Some(Ok(tokens))) => Ok(tokens.len()),
            Ok(Some(Err(_))) => Err(Error::Template),
            _ => Err(Error::Ended),
        }
    }
}

fn params(sampling: &Sampling, max_tokens: usize) -> SamplingParams {
    let mut params = SamplingParams::deterministic();
    if let Some(temperature) = sampling.temperature.filter(|temperature| *temperature > 0.0) {
        params.temperature = Some(temperature);
        params.top_k = sampling.top_k;
        params.top_p = sampling.top_p;
    }
    params.frequency_penalty = sampling.frequency_penalty;
    params.presence_penalty = sampling.presence_penalty;
    params.max_len = Some(max_tokens);
    params
}

/// An answer being generated.
pub struct Generation {
    engine: Engine,
    events: mpsc::Receiver<Response>,
    text: String,
    pieces: u64,
    ended: Option<FinishReason>,
    stop: StopFilter,
    /// An end that waits behind the last text.
    end: Option<Event>,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Generation {
    /// The next event; after [`Event::Done`] or [`Event::Failed`] there is none.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(end) = self.end.take() {
                return end;
            }
            let (text, end) = match self.generated().await {
                Event::Text(text) => match self.stop.push(&text) {
                    (text, false) => (text, None),
                    (text, true) => {
                        // The engine stops once nobody takes what it makes. What it has made is paid for.
                        self.events.close();
                        let completion_tokens = self.tokens_so_far().await;
                        (text, Some(Event::Done { reason: FinishReason::Stop, completion_tokens }))
                    }
                },
                Event::Failed => return Event::Failed,
                end => (self.stop.flush(), Some(end)),
            };
            self.end = end;
            if !text.is_empty() {
                return Event::Text(text);
            }
        }
    }

    /// The next event as the engine makes it, stop strings included.
    async fn generated(&mut self) -> Event {
        loop {
            match self.events.recv().await {
                Some(Response::Chunk(chunk)) => {
                    let usage = chunk.usage.map(|usage| usage.completion_tokens as u64);
                    let Some(choice) = chunk.choices.into_iter().next() else { continue };
                    self.pieces += 1;
                    if let Some(reason) = choice.finish_reason {
                        self.ended = Some(if reason == "length" { FinishReason::Length } else { FinishReason::Stop });
                    }
                    let text = choice.delta.content.unwrap_or_default();
                    self.text.push_str(&text);
                    match (self.ended, text.is_empty()) {
                        (Some(reason), true) => return self.done(reason, usage).await,
                        (Some(_), false) => {
                            // Text and end in one chunk: the end follows when the channel closes or is read again.
                            self.events.close();
                            self.pieces = usage.unwrap_or(self.pieces);
                            return Event::Text(text);
                        }
                        (None, true) => continue,
                        (None, false) => return Event::Text(text),
                    }
                }
                Some(_) => return Event::Failed,
                None => {
                    // The last chunk can be missing when the last token is half a character: then the length ended it.
                    return match self.ended {
                        Some(reason) => Event::Done { reason, completion_tokens: self.pieces },
                        None if self.pieces > 0 => self.done(FinishReason::Length, None).await,
                        None => Event::Failed,
                    };
                }
            }
        }
    }

    /// Tokens generated so far: for an answer that is cancelled.
    pub async fn tokens_so_far(&self) -> u64 {
        let counted = match self.text.is_empty() {
            true => 0,
            false => self.engine.count(Either::Right(self.text.clone())).await.unwrap_or(0) as u64,
        };
        counted.max(self.pieces)
    }

    async fn done(&mut self, reason: FinishReason, usage: Option<u64>) -> Event {
        let completion_tokens = match usage {
            Some(tokens) => tokens,
            None => self.tokens_so_far().await,
        };
        Event::Done { reason, completion_tokens }
    }
}
