//! mistral.rs behind a few types of our own. Nothing else in the workspace links it.
//!
//! The engine is given tokens and gives back tokens: template, tokenizer, sampling, metering and decoding are here, where they are bounded
//! and belong to one request. Its own convenience calls are not safe for several tenants: a stream dropped early panics the engine's thread, a
//! reader that stops blocks everybody, and the prefix cache is shared without a salt, which is a timing oracle. So requests are submitted
//! directly, into channels as large as the answer can get, without a prefix cache.

pub mod baseline;
mod error;
mod generation;
mod prompt;
mod sampler;
mod stop;
mod template;
#[cfg(test)]
mod tests;
mod tokenizer;

/// As in the enclave: the tests give templates a bound of memory too.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: cocoon_allowance::Allowing<std::alloc::System> = cocoon_allowance::Allowing(std::alloc::System);

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mistralrs::core::Request;
use mistralrs::{
    EmbeddingModelBuilder, GgufModelBuilder, MemoryGpuConfig, Model, ModelDType, NormalRequest,
    PagedAttentionMetaBuilder, RequestMessage, Response, SamplingParams, TextModelBuilder, TokenSource,
};
use serde_json::Value as Json;
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, mpsc};

pub use error::Error;
pub use generation::{Event, FinishReason, Generation, Logprob, Token};
use prompt::SpecialTokens;
pub use sampler::Sampling;
use template::Template;
use tokenizer::Tokenizer;

/// Limits of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Generations at once, on a GPU. On a CPU there is one at a time: see [`Engine::load`].
    pub concurrent: usize,
    /// Requests that may wait for their turn.
    pub waiting: usize,
    /// Tokens that the GPU's key-value cache holds, those of all generations together.
    pub cache_tokens: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { concurrent: 4, waiting: 64, cache_tokens: 32_768 }
    }
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It continues text.
    Text,
    /// It turns text into a vector.
    Embedding,
}

/// A conversation, as the chat template takes it. Special tokens in its text become plain text: nobody speaks for another role.
#[derive(Clone, Default)]
pub struct Chat {
    /// Messages: objects with `role`, `content`, and for tools `tool_calls` or `tool_call_id`.
    pub messages: Vec<Json>,
    /// OpenAI's tool definitions.
    pub tools: Vec<Json>,
    /// Whether the model should think first; what the template does on its own if `None`.
    pub thinking: Option<bool>,
    /// How the answer begins; it is part of the prompt.
    pub opening: String,
    /// The answer follows a schema from its first token on, so thoughts that the template has opened are closed.
    pub constrained: bool,
}

/// Text behind which all text is the person's: the content of prompts does not appear.
impl std::fmt::Debug for Chat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chat({} messages, {} tools)", self.messages.len(), self.tools.len())
    }
}

/// A loaded model.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    model: Model,
    pub(crate) tokenizer: Tokenizer,
    template: Arc<Template>,
    special: SpecialTokens,
    kind: Kind,
    /// Numbers in a vector; none where it does not embed.
    dimensions: usize,
    context: usize,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    places: usize,
    /// Held by every generation; by one alone where the engine has to be tried without the others.
    pub(crate) together: Arc<RwLock<()>>,
}

/// Places in the queue, given back when the last clone is dropped.
#[derive(Clone)]
pub struct Places(#[expect(dead_code, reason = "held, never read")] Arc<OwnedSemaphorePermit>);

/// The right to have the engine compute: others wait until it is dropped.
pub struct Turn(#[expect(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

/// A prompt in tokens, admitted to the queue; clones share its places.
#[derive(Clone)]
pub struct Prompt {
    pub(crate) tokens: Arc<Vec<u32>>,
    /// Whether the prompt ends inside the model's thoughts.
    pub thinking: bool,
    _places: Places,
}

impl Prompt {
    /// Tokens of the prompt, template included.
    pub fn tokens(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// The same with the beginning of its answer.
    #[must_use]
    pub fn followed_by(&self, answer: &[u32]) -> Self {
        Self { tokens: Arc::new([self.tokens.as_slice(), answer].concat()), ..self.clone() }
    }
}

/// Tokens of the shortest text that has a vector: mistral.rs 0.8.1 panics on one of a single token (`qwen3_embedding.rs`). Tokenizers of
/// models that embed add a token of their own.
const LEAST_EMBEDDED: usize = 2;

/// Texts up to this length are turned into tokens at once; longer ones on a thread where they keep nobody waiting.
const SHORT: usize = 16 << 10;

impl Engine {
    /// Loads a model folder: Hugging Face's layout with safetensors, or the same with one `.gguf` in place of the weights; a folder with
    /// `modules.json` is an embedding model. It must exist: the engine would look for a name that is no folder on a model hub.
    ///
    /// On a CPU one sequence is in the engine at a time: mistral.rs 0.8.1 decodes sequences of equal length in one batch, and its attention
    /// on CPUs (`flash_attn_cpu_single_q`) keeps one scratch buffer for the whole batch, so that one tenant's answer would go on with another's.
    ///
    /// # Errors
    /// No such folder, a file of it missing, or a model that the engine does not know.
    pub async fn load(folder: &Path, config: EngineConfig) -> Result<Self, Error> {
        let gguf = gguf_of(folder)?;
        let needed: &[&str] = match &gguf {
            Some(_) => &["tokenizer.json", "tokenizer_config.json"],
            None => &["config.json", "tokenizer.json", "tokenizer_config.json"],
        };
        for file in needed {
            if !folder.join(file).is_file() {
                return Err(Error::NoModel(folder.join(file)));
            }
        }
        let special = SpecialTokens::load(&folder.join("tokenizer.json"))?;
        let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"))?;
        special.check(&tokenizer)?;
        let template = Arc::new(Template::load(folder, &tokenizer)?);
        let kind = if folder.join("modules.json").is_file() { Kind::Embedding } else { Kind::Text };
        if kind == Kind::Text && template.ends.is_empty() {
            return Err(Error::Load("no file of the model names a token that ends an answer (eos_token)".into()));
        }
        let path = folder.canonicalize().map_err(|_| Error::NoModel(folder.to_owned()))?;
        let concurrent = config.generations();
        computes_rightly(&path)?;
        // The engine's loaders panic on files that they do not know.
        let loading = tokio::spawn(async move { build(&path, gguf.as_deref(), kind, config, None).await });
        let model = loading.await.map_err(|_| Error::Load("the engine does not know this kind of file".into()))??;
        let context = model.max_sequence_length().map_err(|error| Error::Load(error.to_string()))?;
        let context = context.map(|context| if ON_GPU { context.min(config.cache_tokens) } else { context });
        let mut inner = Inner {
            model,
            tokenizer,
            template,
            special,
            kind,
            dimensions: 0,
            context: context.ok_or_else(|| Error::Load("the model does not say how long its context is".into()))?,
            running: Arc::new(Semaphore::new(concurrent)),
            admitted: Arc::new(Semaphore::new(concurrent + config.waiting)),
            places: concurrent + config.waiting,
            together: Arc::new(RwLock::new(())),
        };
        if kind == Kind::Embedding {
            inner.dimensions = inner.vector(vec![0; LEAST_EMBEDDED]).await?.len();
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the model does.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// Numbers in each of its vectors; none where it does not embed.
    pub fn dimensions(&self) -> usize {
        self.inner.dimensions
    }

    /// Tokens that prompt and answer may have together.
    pub fn context(&self) -> u64 {
        self.inner.context as u64
    }

    /// Whether the chat template can offer tools.
    pub fn offers_tools(&self) -> bool {
        self.inner.template.tools
    }

    /// Whether the model thinks between `<think>` and `</think>`.
    pub fn thinks(&self) -> bool {
        self.inner.template.thinks
    }

    /// Whether its thinking can be switched off.
    pub fn thinking_can_be_switched(&self) -> bool {
        self.inner.template.thinking_switch
    }

    /// Number of tokens that exist.
    pub fn vocabulary(&self) -> usize {
        self.inner.tokenizer.size()
    }

    /// Places that the queue has, those of generations that run included.
    pub fn places(&self) -> usize {
        self.inner.places
    }

    /// Takes so many places in the queue, one for each generation that will be in it at once.
    ///
    /// # Errors
    /// [`Error::Busy`]: there are not as many.
    pub fn enter(&self, places: usize) -> Result<Places, Error> {
        let places = u32::try_from(places).map_err(|_| Error::Busy)?;
        let entered = self.inner.admitted.clone().try_acquire_many_owned(places);
        entered.map(|entered| Places(Arc::new(entered))).map_err(|_| Error::Busy)
    }

    /// Turns a conversation into tokens, with a place in the queue of its own.
    ///
    /// # Errors
    /// The queue is full, or as for [`Self::chat_in`].
    pub async fn chat(&self, chat: Chat) -> Result<Prompt, Error> {
        self.chat_in(self.enter(1)?, chat).await
    }

    /// Turns a conversation into tokens.
    ///
    /// # Errors
    /// The prompt fills the context, or the template refuses.
    pub async fn chat_in(&self, places: Places, chat: Chat) -> Result<Prompt, Error> {
        if self.inner.kind != Kind::Text {
            return Err(Error::Incapable("chat: it embeds"));
        }
        let inner = self.inner.clone();
        let size: usize = chat.messages.iter().chain(&chat.tools).map(weight).sum();
        let work = move || {
            let plain =
                |values: Vec<Json>| values.into_iter().map(|value| inner.special.plain(value)).collect::<Vec<_>>();
            (plain(chat.messages), plain(chat.tools))
        };
        let (messages, tools) = aside(size > SHORT, move || Ok(work())).await?;
        let mut text = template::render(&self.inner.template, messages, tools, chat.thinking).await?;
        let inner = self.inner.clone();
        let work = move || {
            let mut thinking = text.trim_end().ends_with("<think>");
            if thinking && chat.constrained {
                text.push_str("\n</think>\n\n");
                thinking = false;
            }
            text.push_str(&chat.opening);
            Ok((inner.tokenizer.encode(&text, false)?, thinking))
        };
        let (tokens, thinking) = aside(size > SHORT, work).await?;
        self.admitted(tokens, thinking, places)
    }

    /// Turns a text to be continued into tokens, with a place in the queue of its own.
    ///
    /// # Errors
    /// As [`Self::chat`].
    pub async fn text(&self, text: String) -> Result<Prompt, Error> {
        self.text_in(self.enter(1)?, text).await
    }

    /// Turns a text to be continued into tokens.
    ///
    /// # Errors
    /// It fills the context.
    pub async fn text_in(&self, places: Places, text: String) -> Result<Prompt, Error> {
        let inner = self.inner.clone();
        let long = text.len() > SHORT;
        let tokens = aside(long, move || inner.tokenizer.encode(&inner.special.neutralise(&text), true)).await?;
        self.admitted(tokens, false, places)
    }

    /// Takes tokens as they are, with a place in the queue of their own.
    ///
    /// # Errors
    /// The queue is full, or as for [`Self::tokens_in`].
    pub fn tokens(&self, tokens: Vec<u32>) -> Result<Prompt, Error> {
        self.tokens_in(self.enter(1)?, tokens)
    }

    /// Takes tokens as they are.
    ///
    /// # Errors
    /// A token does not exist, or they fill the context.
    pub fn tokens_in(&self, places: Places, tokens: Vec<u32>) -> Result<Prompt, Error> {
        let size = self.vocabulary();
        if let Some(token) = tokens.iter().find(|token| **token as usize >= size) {
            return Err(Error::NoSuchToken { token: *token, last: size.saturating_sub(1) });
        }
        self.admitted(tokens, false, places)
    }

    fn admitted(&self, tokens: Vec<u32>, thinking: bool, places: Places) -> Result<Prompt, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if tokens.len() >= self.inner.context {
            return Err(Error::ContextFull { tokens: tokens.len(), context: self.inner.context });
        }
        Ok(Prompt { tokens: Arc::new(tokens), thinking, _places: places })
    }

    /// Starts to answer with at most `max_tokens` (at least one), less where the context ends sooner. Dropping the generation stops it
    /// with the next token.
    ///
    /// # Errors
    /// The engine has ended, or there is no randomness.
    pub async fn generate(&self, prompt: Prompt, sampling: Sampling, max_tokens: u64) -> Result<Generation, Error> {
        if self.inner.kind != Kind::Text {
            return Err(Error::Incapable("generate: it embeds"));
        }
        let (tokens, context) = (prompt.tokens.len(), self.inner.context);
        let room =
            context.checked_sub(tokens).filter(|room| *room > 0).ok_or(Error::ContextFull { tokens, context })?;
        let room = room as u64;
        let max_tokens = max_tokens.clamp(1, room) as usize;
        let running = self.inner.running.clone().acquire_owned().await.map_err(|_| Error::Ended)?;
        Generation::start(self.clone(), prompt, sampling, max_tokens, running)
    }

    /// Whether a prompt has a vector here, without computing it.
    ///
    /// # Errors
    /// This is no embedding model, or the prompt is too short for it.
    pub fn can_embed(&self, prompt: &Prompt) -> Result<(), Error> {
        if self.inner.kind != Kind::Embedding {
            return Err(Error::Incapable("embed: ask one that does"));
        }
        if prompt.tokens.len() < LEAST_EMBEDDED { Err(Error::TooShort) } else { Ok(()) }
    }

    /// Waits until it is somebody's turn to have a vector computed.
    ///
    /// # Errors
    /// The engine has ended.
    pub async fn turn(&self) -> Result<Turn, Error> {
        self.inner.running.clone().acquire_owned().await.map(Turn).map_err(|_| Error::Ended)
    }

    /// The vector of a text.
    ///
    /// # Errors
    /// As for [`Self::can_embed`], or the engine fails.
    pub async fn embed(&self, prompt: Prompt, _turn: Turn) -> Result<Vec<f32>, Error> {
        self.can_embed(&prompt)?;
        self.inner.vector(prompt.tokens.to_vec()).await
    }

    /// Gives a request to the engine's thread, which is started again if it has died.
    pub(crate) async fn submit(&self, request: NormalRequest) -> Result<(), Error> {
        self.inner.submit(request).await
    }
}

impl Inner {
    async fn vector(&self, tokens: Vec<u32>) -> Result<Vec<f32>, Error> {
        let (sender, mut answer) = mpsc::channel(4);
        let message = RequestMessage::EmbeddingTokens { prompt: tokens };
        let request = NormalRequest::new_simple(message, SamplingParams::deterministic(), sender, 0, None, None);
        self.submit(request).await?;
        match answer.recv().await {
            Some(Response::Embeddings { embeddings, .. }) => Ok(embeddings),
            _ => Err(Error::Failed),
        }
    }

    async fn submit(&self, request: NormalRequest) -> Result<(), Error> {
        let mut request = Request::Normal(Box::new(request));
        for _ in 0..100 {
            let sender = self.model.inner().get_sender(None).map_err(|_| Error::Ended)?;
            match sender.send(request).await {
                Ok(()) => return Ok(()),
                // The thread is ending: soon it will count as dead, and be replaced.
                Err(back) => request = back.0,
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Err(Error::Ended)
    }
}

/// Characters of all text in a value, roughly.
fn weight(value: &Json) -> usize {
    match value {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(weight).sum(),
        Json::Object(fields) => fields.iter().map(|(name, value)| name.len() + weight(value)).sum(),
        _ => 8,
    }
}

async fn aside<T: Send + 'static>(
    long: bool,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if !long {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Tokenizer)?
}

/// The one `.gguf` of a folder, if it has any.
fn gguf_of(folder: &Path) -> Result<Option<String>, Error> {
    let entries = std::fs::read_dir(folder).map_err(|_| Error::NoModel(folder.to_owned()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "gguf"));
    match files.as_slice() {
        [] => Ok(None),
        [one] => Ok(one.file_name().and_then(|name| name.to_str()).map(str::to_owned)),
        _ => Err(Error::Load("the folder has several .gguf files: leave the one to serve".into())),
    }
}

/// mistral.rs 0.8.1 gives every expert the same weight where DeepSeek's experts are chosen by group (`deepseek2.rs` fills the mask and not
/// the scores): such a model would answer, wrongly.
fn computes_rightly(folder: &Path) -> Result<(), Error> {
    let config =
        std::fs::read(folder.join("config.json")).ok().and_then(|bytes| serde_json::from_slice::<Json>(&bytes).ok());
    match config.as_ref().and_then(|config| config.get("topk_method")?.as_str()) {
        Some("group_limited_greedy") => Err(Error::Load(
            "the engine computes topk_method group_limited_greedy (DeepSeek-V2, V2.5) wrongly: serve another model"
                .into(),
        )),
        _ => Ok(()),
    }
}

const ON_GPU: bool = cfg!(feature = "cuda");

impl EngineConfig {
    /// Generations at once, on this device.
    fn generations(&self) -> usize {
        if ON_GPU { self.concurrent.max(1) } else { 1 }
    }
}

/// The same settings for every kind of model; a macro, since the three builders share names and no trait.
macro_rules! built {
    ($builder:expr, $config:expr) => {{
        let builder = $builder.with_token_source(TokenSource::None).with_max_num_seqs($config.generations());
        if ON_GPU { builder } else { builder.with_force_cpu() }.build().await
    }};
}

/// `prefixes`: how many prompts the engine may keep for the next ones, which tells their senders of one another: `None` wherever anybody is served.
async fn build(
    path: &Path,
    gguf: Option<&str>,
    kind: Kind,
    config: EngineConfig,
    prefixes: Option<usize>,
) -> Result<Model, Error> {
    let dtype = if ON_GPU { ModelDType::Auto } else { ModelDType::F32 };
    // Pages of the cache are taken as they are needed, so that one long answer does not keep room from many short ones. Without CUDA the
    // builders ignore it.
    let pages = PagedAttentionMetaBuilder::default().with_gpu_memory(MemoryGpuConfig::ContextSize(config.cache_tokens));
    let pages = pages.build().map_err(|error| Error::Load(error.to_string()))?;
    let name = path.display();
    let model = match (gguf, kind) {
        (Some(file), _) => built!(
            GgufModelBuilder::new(name, vec![file])
                .with_tok_model_id(path.display())
                .with_prefix_cache_n(prefixes)
                .with_paged_attn(pages),
            config
        ),
        (None, Kind::Embedding) => built!(EmbeddingModelBuilder::new(name).with_dtype(dtype), config),
        (None, Kind::Text) => built!(
            TextModelBuilder::new(name).with_dtype(dtype).with_prefix_cache_n(prefixes).with_paged_attn(pages),
            config
        ),
    };
    model.map_err(|error| Error::Load(format!("{error:#}")))
}
