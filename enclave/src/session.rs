//! One sealed request, from opening to receipt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_engine::{Event, Places, Prompt};
use cocoon_protocol::auth::Expected;
use cocoon_protocol::frame::Frame;
use cocoon_protocol::receipt::{FullReceipt, SignedSettlementReceipt, TokenCounts};
use cocoon_protocol::sealed::{InnerRequest, Opened};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire::RECEIPT_TRAILER;
use cocoon_settlement::Nanoton;
use tokio::sync::mpsc;

use crate::attester::Attester;
use crate::ledger::{Ledger, Reservation};
use crate::limits::Limits;
use crate::models::{Model, Models};
use crate::openai::{self, Answer, ApiError, Embed, Generate, Input};
use crate::out::{Gone, Out};
use crate::refusals::{
    crowded, embeddable, engine_error, failed_error, ledger_error, limits_error, most_whole, vectors_fit, whole_fits,
};
use crate::running::{Next, Running};
use crate::unread::{Full, Unread};

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
    /// What may wait to be read.
    pub unread: Arc<Unread>,
    /// Requests that may still be charged.
    pub open: OpenRequests,
}

/// Requests that may still be charged, by [`cocoon_protocol::sealed::request_id`]: a host whose client hung up asks when one has ended. Each with
/// how often it is here: a host may send one again while it is answered.
#[derive(Clone, Default)]
pub struct OpenRequests(Arc<Mutex<HashMap<Digest, usize>>>);

impl OpenRequests {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Digest, usize>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this one is.
    pub fn contains(&self, request: &Digest) -> bool {
        self.with(|open| open.contains_key(request))
    }

    /// This one is, until what is given back is dropped. Begun before the request is accepted, so that nobody finds one that is accepted,
    /// not ended, and not here.
    pub fn begin(&self, request: Digest) -> Open {
        self.with(|open| *open.entry(request).or_default() += 1);
        Open { requests: self.clone(), request }
    }
}

/// One of [`OpenRequests`], until it is dropped.
pub struct Open {
    requests: OpenRequests,
    request: Digest,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.requests.with(|open| {
            if let Some(times) = open.get_mut(&self.request) {
                *times -= 1;
                if *times == 0 {
                    open.remove(&self.request);
                }
            }
        });
    }
}

/// Under what a request was opened.
pub struct Terms {
    /// The promise that pays.
    pub voucher: SignedVoucher,
    /// The evidence that the client appraised.
    pub evidence_id: EvidenceId,
    /// Why the promise does not pay for this request, if it does not.
    pub unpaid: Option<String>,
}

impl Enclave {
    /// Answers a request that was opened under this evidence into `frames`. If the host goes away, what was generated until then is charged all the same, and the
    /// receipt waits for the host. The request counts as open for as long.
    pub fn answer(
        self: Arc<Self>,
        opened: Opened,
        terms: Terms,
        open: Option<Open>,
        frames: mpsc::Sender<Bytes>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Opened { request, sealer, .. } = opened;
        async move {
            let _open = open;
            let mut salt = [0; 32];
            if getrandom::fill(&mut salt).is_err() {
                return;
            }
            let out = Out::new(sealer, frames, &salt);
            // Nobody reads any more where this fails, so there is nobody to tell.
            let _ = self.serve(&request, &terms, salt, out).await;
        }
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

    /// Turns inputs into tokens. `param`: where they came from.
    async fn prompts(
        &self,
        model: &Model,
        places: &Places,
        inputs: Vec<Input>,
        param: &str,
    ) -> Result<Vec<Prompt>, ApiError> {
        let mut prompts = Vec::new();
        for input in inputs {
            let prompt = match input {
                Input::Chat(chat) => {
                    openai::chat::possible(&chat, &model.engine)?;
                    model.engine.chat_in(places.clone(), chat).await
                }
                Input::Text(text) => model.engine.text_in(places.clone(), text).await,
                Input::Tokens(tokens) => model.engine.tokens_in(places.clone(), tokens),
            };
            prompts.push(prompt.map_err(|error| engine_error(&error, param))?);
        }
        Ok(prompts)
    }

    async fn embed(
        &self,
        mut embed: Embed,
        voucher: &SignedVoucher,
        context: Context,
        mut out: Out,
    ) -> Result<(), Gone> {
        let inputs = std::mem::take(&mut embed.inputs);
        let waiting = self.unread.begin();
        let prepared = async {
            let model = self.model(&embed.model)?;
            // One vector is computed after another: however many there are, they take one place.
            let entered = self.limits.enter(voucher.voucher.channel, 1, Instant::now()).map_err(limits_error)?;
            let places = model.engine.enter(1).map_err(|error| engine_error(&error, "input"))?;
            let prompts = self.prompts(model, &places, inputs, "input").await?;
            // Whatever would be refused is, before anything is computed that nobody would pay for.
            let dimensions = model.engine.dimensions();
            for prompt in &prompts {
                model.engine.can_embed(prompt).map_err(|error| engine_error(&error, "input"))?;
            }
            vectors_fit(&embed, prompts.len(), dimensions, self.unread.most())?;
            waiting.add(prompts.len() * dimensions * size_of::<f32>()).map_err(|_| crowded())?;
            let tokens = prompts.iter().map(Prompt::tokens).sum();
            embeddable(tokens)?;
            let reservation = self.ledger.reserve(&voucher.voucher, tokens, 0).map_err(|error| ledger_error(&error))?;
            Ok((model, prompts, reservation, entered))
        };
        // The place is held until the answer has been read.
        let (model, prompts, reservation, entered) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return out.refuse(&error).await,
        };
        let tokens = TokenCounts::default();
        let mut served = Served { enclave: self, model, voucher, context, tokens, reservation: Some(reservation) };
        let written = served.write_vectors(&embed, prompts, &mut out).await;
        entered.used(served.tokens.prompt);
        match written {
            Ok(true) => served.end("stop", out).await,
            Ok(false) => out.finish(&[]).await,
            Err(Gone) => {
                // Whoever goes away before anything was computed has cost nothing.
                if served.tokens.prompt > 0 {
                    served.settle();
                }
                Err(Gone)
            }
        }
    }

    async fn generate(
        &self,
        generate: Generate,
        voucher: &SignedVoucher,
        context: Context,
        mut out: Out,
    ) -> Result<(), Gone> {
        let mut generate = generate;
        let inputs = std::mem::take(&mut generate.inputs);
        let answers = inputs.len() * generate.choices;
        if !generate.stream && generate.max_tokens.is_none() {
            // Nobody said how long it may be, and it is no longer than can be kept until it is whole.
            generate.max_tokens = Some((most_whole(&generate, self.unread.most()) / answers as u64).max(1));
        }
        let echoed: Vec<Option<String>> = inputs
            .iter()
            .map(|input| match input {
                Input::Text(text) if generate.echo => Some(text.clone()),
                _ => None,
            })
            .collect();
        let prepared = async {
            let model = self.model(&generate.model)?;
            let at_once = self.limits.at_once(answers).min(model.engine.places());
            let entered = self.limits.enter(voucher.voucher.channel, at_once, Instant::now()).map_err(limits_error)?;
            if generate.sampling.logit_bias.iter().any(|(token, _)| *token as usize >= model.engine.vocabulary()) {
                let message = format!("this model has tokens 0 to {}", model.engine.vocabulary().saturating_sub(1));
                return Err(ApiError::invalid("logit_bias", message));
            }
            let param = generate.style.input();
            let places = model.engine.enter(at_once).map_err(|error| engine_error(&error, param))?;
            let prompts = self.prompts(model, &places, inputs, param).await?;
            let prompt_tokens = prompts.iter().map(Prompt::tokens).sum::<u64>();
            let room = |prompt: &Prompt| model.engine.context() - prompt.tokens();
            let wanted = |prompt: &Prompt| generate.max_tokens.unwrap_or(u64::MAX).min(room(prompt));
            let most = prompts.iter().map(wanted).sum::<u64>() * generate.choices as u64;
            whole_fits(&generate, most, self.unread.most())?;
            let reservation =
                self.ledger.reserve(&voucher.voucher, prompt_tokens, most).map_err(|error| ledger_error(&error))?;
            Ok((model, entered, at_once, prompts, reservation))
        };
        let (model, entered, at_once, prompts, reservation) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return out.refuse(&error).await,
        };
        let created = self.attester.now().map_or(0, |now| now.0);
        let repeated = std::mem::take(&mut generate.repeated);
        let mut answer =
            Answer::new(generate.style, &generate.model, created, answers, generate.include_usage, repeated);
        if generate.stream {
            answer = answer.not_kept();
        }
        if let Some(top) = generate.sampling.logprobs {
            out.pad_to(PADDED + (top + 1) * PADDED_SCORE);
        }
        let tokens = TokenCounts::default();
        let running = Running::start(model, &generate, &prompts, at_once, self.unread.begin());
        // From here on a place in the queue is held by what is being generated, not by what is waiting to be read.
        drop(prompts);
        let mut served = Served { enclave: self, model, voucher, context, tokens, reservation: Some(reservation) };
        let (used, ended) = served.run(&generate, answer, running, &echoed, out).await;
        entered.used(used);
        ended
    }
}

/// Header, inside the seal, with the identifier of an answer and its receipt.
pub use cocoon_protocol::wire::RECEIPT_ID_HEADER as RECEIPT_HEADER;

/// Bytes of a stream that go out together at most.
const TOGETHER: usize = 8 << 10;

/// What a streamed token is padded to where it comes with scores, in bytes, and what more for each score: nearly all fit.
const PADDED: usize = 512;
const PADDED_SCORE: usize = 128;

struct Context {
    evidence_id: EvidenceId,
    salt: [u8; 32],
    request_digest: Digest,
}

/// A request that is being answered and will be charged.
struct Served<'a> {
    enclave: &'a Enclave,
    model: &'a Model,
    voucher: &'a SignedVoucher,
    context: Context,
    tokens: TokenCounts,
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
    ) -> (u64, Result<(), Gone>) {
        let all = |tokens: TokenCounts| tokens.prompt + tokens.completion + tokens.reasoning;
        let written = self.write(generate, &mut answer, &mut running, echoed, &mut out).await;
        match written {
            Ok(Some(reasons)) => (all(self.tokens), self.end(&reasons, out).await),
            // The engine failed: an error was sent, and the answer is free.
            Ok(None) => {
                let used = all(running.counted());
                drop(running);
                (used, out.finish(&[]).await)
            }
            Err(Gone) => {
                // Written or not, it was generated. Where nothing was even begun, there is nothing to charge, and nothing to sign.
                self.tokens = running.stop().await.unwrap_or_default();
                if self.tokens.prompt > 0 {
                    self.settle();
                }
                (all(self.tokens), Err(Gone))
            }
        }
    }

    /// Computes vectors, one after another while somebody waits for them, and writes them. `false` if an error was written: that is free.
    async fn write_vectors(&mut self, embed: &Embed, prompts: Vec<Prompt>, out: &mut Out) -> Result<bool, Gone> {
        let mut vectors = Vec::new();
        for prompt in prompts {
            let tokens = prompt.tokens();
            let turn = tokio::select! {
                turn = self.model.engine.turn() => turn,
                () = out.closed() => return Err(Gone),
            };
            let vector = match turn {
                // Not cut short: the engine goes on with what it has begun, and what comes next would be computed beside it.
                Ok(turn) => self.model.engine.embed(prompt, turn).await,
                Err(error) => Err(error),
            };
            match vector {
                Ok(vector) => vectors.push(vector),
                Err(error) => {
                    // Free, whether or not anybody still reads why.
                    self.reservation = None;
                    out.error(&engine_error(&error, "input")).await?;
                    return Ok(false);
                }
            }
            self.tokens.prompt += tokens;
            if out.is_closed() {
                return Err(Gone);
            }
        }
        let id = openai::answer::identifier("embd-");
        out.head(200, "application/json", &[(RECEIPT_HEADER, id)]).await?;
        // Written bit by bit: as text they take several times as much.
        let mut waiting = Vec::new();
        for part in openai::embeddings(&embed.model, &vectors, embed.base64, self.tokens.prompt) {
            waiting.extend(part);
            if waiting.len() >= TOGETHER {
                out.data(&waiting).await?;
                waiting.clear();
            }
        }
        out.data(&waiting).await?;
        Ok(true)
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
        let mut first = None;
        if generate.stream {
            // Whether the engine can follow a schema shows with the first token: if not, it is refused with a status, as where nothing is streamed.
            if generate.sampling.schema.is_some() {
                let next = tokio::select! {
                    next = running.next() => next,
                    () = out.closed() => return Err(Gone),
                };
                if let Next::Said(_, failed @ (Event::Failed | Event::Schema)) = &next {
                    self.reservation = None;
                    out.error(&failed_error(failed, generate)).await?;
                    return Ok(None);
                }
                first = Some(next);
            }
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
        let mut reasons: Vec<Option<&'static str>> = vec![None; running.choices()];
        while reasons.contains(&None) {
            // What has come meanwhile goes out together.
            let next = match first.take().or_else(|| running.try_next()) {
                Some(next) => next,
                None => {
                    if generate.stream && !waiting.is_empty() {
                        out.data(&waiting).await?;
                        waiting.clear();
                    }
                    tokio::select! {
                        next = running.next() => next,
                        () = out.closed() => return Err(Gone),
                    }
                }
            };
            let (choice, event) = match next {
                Next::Said(choice, event) => (choice, event),
                // Its reader is too slow, and counts as gone.
                Next::TooMuch(_) if generate.stream => return Err(Gone),
                Next::TooMuch(Full::Own) => break,
                Next::TooMuch(Full::All) => {
                    self.reservation = None;
                    out.error(&crowded()).await?;
                    return Ok(None);
                }
            };
            let pieces = running.take(choice, &event);
            let written = match event {
                Event::Token(token) => answer.pieces(choice, pieces, token.scores.filter(|_| !token.end)),
                Event::Rest(_) => answer.pieces(choice, pieces, None),
                Event::Done { reason, .. } => {
                    let mut written = answer.pieces(choice, pieces, None);
                    let reason = openai::answer::reason_text(reason, running.calls(choice));
                    written.extend(answer.end_choice(choice, reason));
                    reasons[choice] = Some(reason);
                    written
                }
                failed => {
                    // Free, whether or not anybody still reads why.
                    self.reservation = None;
                    let error = failed_error(&failed, generate);
                    if generate.stream {
                        waiting.extend(answer.error(&error));
                        out.data(&waiting).await?;
                    } else {
                        out.error(&error).await?;
                    }
                    return Ok(None);
                }
            };
            if generate.stream {
                waiting.extend(written);
                // What has come meanwhile is no longer than one that waits may be.
                if waiting.len() >= TOGETHER {
                    out.data(&waiting).await?;
                    waiting.clear();
                }
            } else {
                match running.keep(answer.grown()) {
                    Ok(()) => {}
                    Err(Full::Own) => break,
                    Err(Full::All) => {
                        self.reservation = None;
                        out.error(&crowded()).await?;
                        return Ok(None);
                    }
                }
            }
        }
        if reasons.contains(&None) {
            // It has become as long as an answer in one piece may be: it ends there, and is charged so far.
            running.abort();
            for (choice, reason) in reasons.iter_mut().enumerate().filter(|(_, reason)| reason.is_none()) {
                answer.pieces(choice, running.finish(choice), None);
                answer.end_choice(choice, "length");
                *reason = Some("length");
            }
        }
        self.tokens = running.counted();
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
        let mut reasons: Vec<&str> = reasons.into_iter().flatten().collect();
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
