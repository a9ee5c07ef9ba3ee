//! One sealed request, from opening to receipt.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use bytes::Bytes;
use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_engine::{Event, Meter, Prompt};
use cocoon_protocol::auth::Expected;
use cocoon_protocol::frame::Frame;
use cocoon_protocol::receipt::{FullReceipt, SignedSettlementReceipt, TokenCounts};
use cocoon_protocol::sealed::{AnswerHead, InnerRequest, Opened, ResponseSealer};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire::RECEIPT_TRAILER;
use cocoon_settlement::Nanoton;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::attester::Attester;
use crate::ledger::{self, Ledger, Reservation};
use crate::limits::{self, Limits};
use crate::models::{Model, Models};
use crate::openai::{self, Answer, ApiError, Embed, Generate, Input, Splitter};

/// Everything a request needs.
pub struct Enclave {
    /// Evidence, keys, clock.
    pub attester: Attester,
    /// Money.
    pub ledger: Ledger,
    /// What answers.
    pub models: Models,
    /// What each channel may ask for.
    pub limits: Limits,
}

/// How long an answer waits for its reader before it counts as given up: it is charged then, and its place is free.
const STALLED: Duration = Duration::from_secs(30);
/// Events of one answer that may wait for it to be written.
const EVENTS_WAITING: usize = 64;

/// Under what a request was opened.
pub struct Terms {
    /// The promise that pays.
    pub voucher: SignedVoucher,
    /// The evidence that the client appraised.
    pub evidence_id: EvidenceId,
    /// Why the promise does not pay for this request, if it does not.
    pub unpaid: Option<String>,
}

/// The host has closed its connection: nobody reads any more.
struct Gone;

/// Where an answer goes: sealed, framed, to the host.
struct Out {
    sealer: ResponseSealer,
    frames: mpsc::Sender<Bytes>,
    digest: digest::Context,
}

impl Out {
    fn new(sealer: ResponseSealer, frames: mpsc::Sender<Bytes>, salt: &[u8; 32]) -> Self {
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(salt);
        Self { sealer, frames, digest }
    }

    async fn send(&mut self, frame: Frame) -> Result<(), Gone> {
        match tokio::time::timeout(STALLED, self.frames.send(frame.encode())).await {
            Ok(sent) => sent.map_err(|_| Gone),
            Err(_) => Err(Gone),
        }
    }

    async fn head(&mut self, status: u16, content_type: &str, more: &[(&str, String)]) -> Result<(), Gone> {
        let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
        headers.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let head = AnswerHead { status, headers };
        let sealed = self.sealer.head(&head).map_err(|_| Gone)?;
        self.send(Frame::Sealed(sealed.into())).await
    }

    async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.digest.update(data);
        let sealed = self.sealer.data(data).map_err(|_| Gone)?;
        self.send(Frame::Sealed(sealed.into())).await
    }

    async fn refuse(mut self, error: &ApiError) -> Result<(), Gone> {
        let again: Vec<_> = error.retry_after.iter().map(|seconds| ("retry-after", seconds.to_string())).collect();
        self.head(error.status, "application/json", &again).await?;
        self.data(&error.body()).await?;
        self.finish(&[]).await
    }

    async fn finish(self, trailer: &[(String, String)]) -> Result<(), Gone> {
        let sealed = self.sealer.finish(trailer).map_err(|_| Gone)?;
        let _ = self.frames.send(Frame::Sealed(sealed.into()).encode()).await;
        Ok(())
    }

    fn body_digest(&self) -> Digest {
        let mut out = [0; 32];
        out.copy_from_slice(self.digest.clone().finish().as_ref());
        Digest(out)
    }
}

impl Enclave {
    /// Answers a request that was opened under this evidence into `frames`. If the host goes away, what was generated until then is charged all the same, and the
    /// receipt waits for the host.
    pub async fn answer(self: Arc<Self>, opened: Opened, terms: Terms, frames: mpsc::Sender<Bytes>) {
        let Opened { request, sealer, .. } = opened;
        let mut salt = [0; 32];
        if getrandom::fill(&mut salt).is_err() {
            return;
        }
        let out = Out::new(sealer, frames, &salt);
        // Nobody reads any more where this fails, so there is nobody to tell.
        let _ = self.serve(&request, &terms, salt, out).await;
    }

    async fn serve(&self, request: &InnerRequest, terms: &Terms, salt: [u8; 32], mut out: Out) -> Result<(), Gone> {
        if let Some(why) = &terms.unpaid {
            return out.refuse(&ApiError::other(402, "payment_error", "voucher_refused", why)).await;
        }
        let context = || Context {
            evidence_id: terms.evidence_id,
            salt,
            request_digest: FullReceipt::digest(&salt, &request.body),
        };
        let parsed = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/models") => {
                out.head(200, "application/json", &[]).await?;
                out.data(&openai::models(self.models.names())).await?;
                return out.finish(&[]).await;
            }
            ("POST", "/v1/chat/completions") => openai::chat::parse(&request.body),
            ("POST", "/v1/completions") => openai::completions::parse(&request.body),
            ("POST", "/v1/responses") => openai::responses::parse(&request.body),
            ("POST", "/v1/embeddings") => match openai::completions::parse_embed(&request.body) {
                Ok(embed) => return self.embed(embed, &terms.voucher, context(), out).await,
                Err(error) => Err(error),
            },
            _ => Err(ApiError::other(
                404,
                "invalid_request_error",
                "unknown_path",
                "this enclave serves POST /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/responses, and GET /v1/models",
            )),
        };
        match parsed {
            Ok(generate) => self.generate(generate, &terms.voucher, context(), out).await,
            Err(error) => out.refuse(&error).await,
        }
    }

    /// What vouchers must fit.
    pub(crate) fn expected(&self) -> Expected {
        let config = self.attester.config();
        Expected {
            network: config.network(),
            provider: config.provider,
            enclave_key: self.attester.key().enclave_key(),
            channel_code_hash: config.channel_code_hash.0,
            channel_code_depth: config.channel_code_depth,
            least_close_delay: config.least_close_delay,
        }
    }

    fn model(&self, name: &str) -> Result<&Model, ApiError> {
        self.models.get(name).ok_or_else(|| {
            let served: Vec<&str> = self.models.names().collect();
            let message = format!("this enclave serves {}", served.join(", "));
            ApiError {
                param: Some("model".into()),
                ..ApiError::other(404, "invalid_request_error", "model_not_found", message)
            }
        })
    }

    async fn prompts(&self, model: &Model, inputs: Vec<Input>) -> Result<Vec<Prompt>, ApiError> {
        let mut prompts = Vec::new();
        for input in inputs {
            let prompt = match input {
                Input::Chat(chat) => {
                    openai::chat::possible(&chat, &model.engine)?;
                    model.engine.chat(chat).await
                }
                Input::Text(text) => model.engine.text(text).await,
                Input::Tokens(tokens) => model.engine.tokens(tokens),
            };
            prompts.push(prompt.map_err(|error| engine_error(&error))?);
        }
        Ok(prompts)
    }

    async fn embed(&self, embed: Embed, voucher: &SignedVoucher, context: Context, mut out: Out) -> Result<(), Gone> {
        let prepared = async {
            let model = self.model(&embed.model)?;
            let entered = self.limits.enter(voucher.voucher.channel, Instant::now()).map_err(limits_error)?;
            let prompts = self.prompts(model, embed.inputs).await?;
            let tokens = prompts.iter().map(Prompt::tokens).sum();
            let reservation = self.ledger.reserve(&voucher.voucher, tokens, 0).map_err(|error| ledger_error(&error))?;
            let mut vectors = Vec::new();
            for prompt in prompts {
                vectors.push(model.engine.embed(prompt).await.map_err(|error| engine_error(&error))?);
            }
            let wrong = embed.dimensions.filter(|wanted| vectors.iter().any(|vector| vector.len() as u64 != *wanted));
            if wrong.is_some() {
                let message = format!("this model's vectors have {} dimensions: leave it out", vectors[0].len());
                return Err(ApiError::invalid("dimensions", message));
            }
            entered.used(tokens);
            Ok((model, tokens, vectors, reservation))
        };
        let (model, prompt, vectors, reservation) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return out.refuse(&error).await,
        };
        let id = openai::answer::identifier("embd-");
        out.head(200, "application/json", &[(RECEIPT_HEADER, id)]).await?;
        out.data(&openai::embeddings(&embed.model, &vectors, embed.base64, prompt)).await?;
        let tokens = TokenCounts { prompt, ..TokenCounts::default() };
        let mut served =
            Served { enclave: self, model, voucher, context, tokens, most: 0, reservation: Some(reservation) };
        served.end("stop", out).await
    }

    async fn generate(
        &self,
        generate: Generate,
        voucher: &SignedVoucher,
        context: Context,
        out: Out,
    ) -> Result<(), Gone> {
        let mut generate = generate;
        let inputs = std::mem::take(&mut generate.inputs);
        let echoed: Vec<Option<String>> = inputs
            .iter()
            .map(|input| match input {
                Input::Text(text) if generate.echo => Some(text.clone()),
                _ => None,
            })
            .collect();
        let prepared = async {
            let model = self.model(&generate.model)?;
            let entered = self.limits.enter(voucher.voucher.channel, Instant::now()).map_err(limits_error)?;
            if generate.sampling.logit_bias.iter().any(|(token, _)| *token as usize >= model.engine.vocabulary()) {
                let message = format!("this model has tokens 0 to {}", model.engine.vocabulary().saturating_sub(1));
                return Err(ApiError::invalid("logit_bias", message));
            }
            let prompts = self.prompts(model, inputs).await?;
            let prompt_tokens = prompts.iter().map(Prompt::tokens).sum::<u64>();
            let room = |prompt: &Prompt| model.engine.context() - prompt.tokens();
            let wanted = |prompt: &Prompt| generate.max_tokens.unwrap_or(u64::MAX).min(room(prompt));
            let most = prompts.iter().map(wanted).sum::<u64>() * generate.choices as u64;
            let reservation =
                self.ledger.reserve(&voucher.voucher, prompt_tokens, most).map_err(|error| ledger_error(&error))?;
            Ok((model, entered, prompts, prompt_tokens, most, reservation))
        };
        let (model, entered, prompts, prompt_tokens, most, reservation) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return out.refuse(&error).await,
        };
        let created = self.attester.now().map_or(0, |now| now.0);
        let choices = prompts.len() * generate.choices;
        let repeated = std::mem::take(&mut generate.repeated);
        let answer = Answer::new(generate.style, &generate.model, created, choices, generate.include_usage, repeated);
        let tokens = TokenCounts { prompt: prompt_tokens, ..TokenCounts::default() };
        let running = Running::start(model, &generate, &prompts);
        // From here on a place in the queue is held by what is being generated, not by what is waiting to be read.
        drop(prompts);
        let mut served =
            Served { enclave: self, model, voucher, context, tokens, most, reservation: Some(reservation) };
        let ended = served.run(&generate, answer, running, &echoed, out).await;
        entered.used(prompt_tokens + served.tokens.completion + served.tokens.reasoning);
        ended
    }
}

/// Header, inside the seal, with the identifier of an answer and its receipt.
pub use cocoon_protocol::wire::RECEIPT_ID_HEADER as RECEIPT_HEADER;

struct Context {
    evidence_id: EvidenceId,
    salt: [u8; 32],
    request_digest: Digest,
}

/// The generations of one answer. Dropping them stops them.
struct Running {
    /// Stops its tasks when dropped.
    _tasks: JoinSet<()>,
    events: mpsc::Receiver<(usize, Event)>,
    meters: Arc<Mutex<Vec<Meter>>>,
    splitters: Vec<Splitter>,
}

impl Running {
    fn start(model: &Model, generate: &Generate, prompts: &[Prompt]) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_WAITING);
        let meters: Arc<Mutex<Vec<Meter>>> = Arc::default();
        let (mut tasks, mut splitters) = (JoinSet::new(), Vec::new());
        for prompt in prompts {
            for number in 0..generate.choices {
                let choice = splitters.len();
                let thoughts = generate.thoughts && model.engine.thinks();
                splitters.push(Splitter::new(thoughts, prompt.thinking, generate.calls));
                let (engine, prompt, sender, meters) =
                    (model.engine.clone(), prompt.clone(), sender.clone(), meters.clone());
                let mut sampling = generate.sampling.clone();
                sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(number as u64));
                let max_tokens = generate.max_tokens.unwrap_or(u64::MAX);
                tasks.spawn(async move {
                    let Ok(mut generation) = engine.generate(prompt, sampling, max_tokens).await else {
                        let _ = sender.send((choice, Event::Failed)).await;
                        return;
                    };
                    meters.lock().unwrap_or_else(PoisonError::into_inner).push(generation.meter());
                    loop {
                        let event = generation.next().await;
                        let last = !matches!(event, Event::Token(_) | Event::Rest(_));
                        if sender.send((choice, event)).await.is_err() || last {
                            return;
                        }
                    }
                });
            }
        }
        Self { _tasks: tasks, events, meters, splitters }
    }

    /// Tokens generated so far.
    fn tokens(&self) -> u64 {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Meter::tokens).sum()
    }
}

/// A request that is being answered and will be charged.
struct Served<'a> {
    enclave: &'a Enclave,
    model: &'a Model,
    voucher: &'a SignedVoucher,
    context: Context,
    tokens: TokenCounts,
    /// Generated tokens that money was set aside for: never more are charged.
    most: u64,
    /// Taken when the answer is charged: nothing is charged twice.
    reservation: Option<Reservation<'a>>,
}

impl Served<'_> {
    async fn run(
        &mut self,
        generate: &Generate,
        mut answer: Answer,
        mut running: Running,
        echoed: &[Option<String>],
        mut out: Out,
    ) -> Result<(), Gone> {
        let written = self.write(generate, &mut answer, &mut running, echoed, &mut out).await;
        match written {
            Ok(Some(reasons)) => self.end(&reasons, out).await,
            // The engine failed: an error was sent, and the answer is free.
            Ok(None) => {
                self.tokens = TokenCounts::default();
                out.finish(&[]).await
            }
            Err(Gone) => {
                // What was generated and not yet written counts as what the last written token was.
                let all = running.tokens().min(self.most);
                drop(running);
                self.tokens.completion = all.saturating_sub(self.tokens.reasoning);
                self.settle();
                Err(Gone)
            }
        }
    }

    /// Charges, and sends the receipt behind a whole answer.
    async fn end(&mut self, reasons: &str, mut out: Out) -> Result<(), Gone> {
        let Some((charge, settlement)) = self.settle() else { return Err(Gone) };
        out.send(Frame::Receipt(settlement.to_bytes().into())).await?;
        let trailer = [(RECEIPT_TRAILER.to_owned(), self.receipt(charge, settlement, reasons, out.body_digest()))];
        out.finish(&trailer).await
    }

    /// Writes the answer as it comes. Gives the reasons of its end, or `None` if the engine failed.
    async fn write(
        &mut self,
        generate: &Generate,
        answer: &mut Answer,
        running: &mut Running,
        echoed: &[Option<String>],
        out: &mut Out,
    ) -> Result<Option<String>, Gone> {
        let mut waiting = Vec::new();
        let head = [(RECEIPT_HEADER, answer.id.clone())];
        if generate.stream {
            out.head(200, "text/event-stream", &head).await?;
            waiting = answer.begin();
        }
        for (input, text) in echoed.iter().enumerate() {
            for choice in 0..generate.choices {
                if let Some(text) = text {
                    let pieces = vec![openai::Piece::Text(text.clone())];
                    waiting.extend(answer.pieces(input * generate.choices + choice, pieces, None));
                }
            }
        }
        let mut reasons: Vec<&'static str> = Vec::new();
        while reasons.len() < running.splitters.len() {
            // What has come meanwhile goes out together.
            let next = match running.events.try_recv() {
                Ok(next) => Some(next),
                Err(_) => {
                    if generate.stream && !waiting.is_empty() {
                        out.data(&waiting).await?;
                        waiting.clear();
                    }
                    tokio::select! {
                        next = running.events.recv() => next,
                        () = out.frames.closed() => return Err(Gone),
                    }
                }
            };
            let (choice, event) = next.unwrap_or((0, Event::Failed));
            let splitter = &mut running.splitters[choice];
            let written = match event {
                Event::Token(token) => {
                    let kind =
                        if splitter.thinking() { &mut self.tokens.reasoning } else { &mut self.tokens.completion };
                    *kind += 1;
                    let pieces = splitter.push(&token.text);
                    answer.pieces(choice, pieces, token.scores.filter(|_| !token.end))
                }
                Event::Rest(text) => {
                    let pieces = splitter.push(&text);
                    answer.pieces(choice, pieces, None)
                }
                Event::Done { reason, .. } => {
                    let mut written = answer.pieces(choice, splitter.finish(), None);
                    let reason = openai::answer::reason_text(reason, splitter.calls());
                    written.extend(answer.end_choice(choice, reason));
                    reasons.push(reason);
                    written
                }
                failed => {
                    let error = if failed == Event::Schema { schema_error() } else { failure() };
                    if generate.stream {
                        waiting.extend(openai::error_event(generate.style, &error));
                        out.data(&waiting).await?;
                    } else {
                        out.head(error.status, "application/json", &[]).await?;
                        out.data(&error.body()).await?;
                    }
                    return Ok(None);
                }
            };
            if generate.stream {
                waiting.extend(written);
            }
        }
        if generate.stream {
            // The end comes in a piece of its own: a client passes it on only with the receipt.
            if !waiting.is_empty() {
                out.data(&waiting).await?;
            }
            out.data(&answer.end(self.tokens)).await?;
        } else {
            out.head(200, "application/json", &head).await?;
            out.data(&answer.whole(self.tokens)).await?;
        }
        reasons.sort_unstable();
        reasons.dedup();
        Ok(Some(reasons.join(",")))
    }

    /// Charges and signs, unless the attestation has ended meanwhile: then nothing is signed and the answer is free.
    fn settle(&mut self) -> Option<(Nanoton, SignedSettlementReceipt)> {
        let (_, now): (EvidenceId, UnixTime) = self.enclave.attester.attested().ok()?;
        self.reservation.take()?.settle(self.tokens, now, self.enclave.attester.key()).ok()
    }

    fn receipt(
        &self,
        charge: Nanoton,
        settlement: SignedSettlementReceipt,
        reason: &str,
        response_digest: Digest,
    ) -> String {
        FullReceipt {
            salt: self.context.salt,
            request_digest: self.context.request_digest,
            response_digest,
            tokens: self.tokens,
            prices: self.voucher.voucher.prices,
            charge,
            model_root: self.model.root,
            evidence_id: self.context.evidence_id,
            finish_reason: reason.to_owned(),
            settlement,
        }
        .sign(self.enclave.attester.key())
        .to_trailer()
    }
}

fn failure() -> ApiError {
    ApiError::other(500, "server_error", "engine_failed", cocoon_engine::Error::Failed.to_string())
}

fn schema_error() -> ApiError {
    ApiError::invalid("response_format", cocoon_engine::Error::Schema.to_string())
}

fn limits_error(error: limits::Error) -> ApiError {
    ApiError {
        retry_after: Some(error.retry_after()),
        ..ApiError::other(429, "rate_limit_error", "rate_limit_exceeded", error.to_string())
    }
}

fn engine_error(error: &cocoon_engine::Error) -> ApiError {
    use cocoon_engine::Error;
    match error {
        Error::Busy => {
            ApiError { retry_after: Some(1), ..ApiError::other(429, "rate_limit_error", "busy", error.to_string()) }
        }
        Error::ContextFull { .. } => ApiError {
            param: Some("messages".into()),
            ..ApiError::other(400, "invalid_request_error", "context_length_exceeded", error.to_string())
        },
        Error::Template => ApiError::invalid("messages", error.to_string()),
        Error::EmptyPrompt | Error::NoSuchToken { .. } | Error::Tokenizer => {
            ApiError::invalid("prompt", error.to_string())
        }
        Error::TooShort => ApiError::invalid("input", error.to_string()),
        Error::Incapable(_) => ApiError::invalid("model", error.to_string()),
        Error::Schema => schema_error(),
        Error::Failed => failure(),
        _ => ApiError::other(503, "server_error", "engine_ended", error.to_string()),
    }
}

fn ledger_error(error: &ledger::Error) -> ApiError {
    match error {
        ledger::Error::CapReached { used, needed, .. } => ApiError {
            least_cap: Some(used.saturating_add(*needed)),
            ..ApiError::other(402, "payment_error", "voucher_cap_reached", error.to_string())
        },
        ledger::Error::TooManyChannels => ApiError::other(503, "server_error", "too_many_channels", error.to_string()),
        _ => ApiError::other(400, "payment_error", "amount_out_of_range", error.to_string()),
    }
}
