//! One sealed request, from opening to receipt.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_engine::{Engine, Event, FinishReason, Generation};
use cocoon_protocol::auth::Expected;
use cocoon_protocol::frame::Frame;
use cocoon_protocol::receipt::{FullReceipt, SignedSettlementReceipt, TokenCounts};
use cocoon_protocol::sealed::{AnswerHead, InnerRequest, Opened, ResponseSealer};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire::RECEIPT_TRAILER;
use cocoon_settlement::Nanoton;
use serde_json::json;
use tokio::sync::mpsc;

use crate::attester::Attester;
use crate::ledger::{self, Ledger, Reservation};
use crate::openai::{self, Answer, ApiError, ChatRequest};

/// Everything a request needs.
pub struct Enclave {
    /// Evidence, keys, clock.
    pub attester: Attester,
    /// Money.
    pub ledger: Ledger,
    /// The model.
    pub engine: Engine,
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
        self.frames.send(frame.encode()).await.map_err(|_| Gone)
    }

    async fn head(&mut self, status: u16, content_type: &str) -> Result<(), Gone> {
        let head = AnswerHead { status, headers: vec![("content-type".into(), content_type.into())] };
        let sealed = self.sealer.head(&head).map_err(|_| Gone)?;
        self.send(Frame::Sealed(sealed.into())).await
    }

    async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.digest.update(data);
        let sealed = self.sealer.data(data).map_err(|_| Gone)?;
        self.send(Frame::Sealed(sealed.into())).await
    }

    async fn refuse(mut self, error: &ApiError) -> Result<(), Gone> {
        self.head(error.status, "application/json").await?;
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
        let Terms { voucher, evidence_id, .. } = terms;
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/models") => {
                out.head(200, "application/json").await?;
                out.data(&openai::models(&self.attester.config().model_name)).await?;
                out.finish(&[]).await
            }
            ("POST", "/v1/chat/completions") => {
                let chat = match ChatRequest::parse(&request.body) {
                    Ok(chat) => chat,
                    Err(error) => return out.refuse(&error).await,
                };
                let context = Context {
                    evidence_id: *evidence_id,
                    salt,
                    request_digest: FullReceipt::digest(&salt, &request.body),
                };
                self.chat(chat, voucher, context, out).await
            }
            _ => {
                out.refuse(&ApiError::other(
                    404,
                    "invalid_request_error",
                    "unknown_path",
                    "this enclave serves POST /v1/chat/completions and GET /v1/models",
                ))
                .await
            }
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

    async fn chat(&self, chat: ChatRequest, voucher: &SignedVoucher, context: Context, out: Out) -> Result<(), Gone> {
        if chat.model != self.attester.config().model_name {
            let error = ApiError {
                param: Some("model".into()),
                ..ApiError::other(
                    404,
                    "invalid_request_error",
                    "model_not_found",
                    format!("this enclave serves the model '{}'", self.attester.config().model_name),
                )
            };
            return out.refuse(&error).await;
        }
        let prompt = match self.engine.prompt(&chat.messages).await {
            Ok(prompt) => prompt,
            Err(error) => return out.refuse(&engine_error(&error)).await,
        };
        let prompt_tokens = prompt.tokens();
        let room = self.engine.context() - prompt_tokens;
        let wanted = chat.max_tokens.unwrap_or(room).min(room);
        let reservation = match self.ledger.reserve(&voucher.voucher, prompt_tokens, wanted) {
            Ok(reservation) => reservation,
            Err(error) => return out.refuse(&ledger_error(&error)).await,
        };
        let generation = match self.engine.generate(prompt, &chat.sampling, reservation.max_tokens).await {
            Ok(generation) => generation,
            Err(error) => return out.refuse(&engine_error(&error)).await,
        };
        let most = reservation.max_tokens;
        let tokens = TokenCounts { prompt: prompt_tokens, ..TokenCounts::default() };
        let mut id = [0; 12];
        let _ = getrandom::fill(&mut id);
        let created = self.attester.now().map_or(0, |now| now.0);
        let answer = Answer { id: format!("chatcmpl-{}", hex::encode(id)), created, model: chat.model.clone() };
        Served { enclave: self, voucher, context, tokens, most, reservation: Some(reservation) }
            .run(&chat, generation, &answer, out)
            .await
    }
}

struct Context {
    evidence_id: EvidenceId,
    salt: [u8; 32],
    request_digest: Digest,
}

/// A request that is being generated and will be charged.
struct Served<'a> {
    enclave: &'a Enclave,
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
        mut self,
        chat: &ChatRequest,
        mut generation: Generation,
        answer: &Answer,
        mut out: Out,
    ) -> Result<(), Gone> {
        let generated = match chat.stream {
            true => self.stream(chat, &mut generation, answer, &mut out).await,
            false => self.whole(&mut generation, answer, &mut out).await,
        };
        match generated {
            Ok(Some(reason)) => {
                let Some((charge, settlement)) = self.settle() else { return Err(Gone) };
                out.send(Frame::Receipt(settlement.to_bytes().into())).await?;
                let trailer =
                    [(RECEIPT_TRAILER.to_owned(), self.receipt(charge, settlement, reason, out.body_digest()))];
                out.finish(&trailer).await
            }
            // The engine failed: an error was sent, and the answer is free.
            Ok(None) => out.finish(&[]).await,
            Err(Gone) => {
                self.tokens.completion = generation.tokens_so_far().await.min(self.most);
                drop(generation);
                self.settle();
                Err(Gone)
            }
        }
    }

    /// Streams chunks. Gives the finish reason, or `None` if the engine failed.
    async fn stream(
        &mut self,
        chat: &ChatRequest,
        generation: &mut Generation,
        answer: &Answer,
        out: &mut Out,
    ) -> Result<Option<&'static str>, Gone> {
        out.head(200, "text/event-stream").await?;
        out.data(&answer.chunk(json!({"role": "assistant", "content": ""}), None)).await?;
        loop {
            let event = tokio::select! {
                event = generation.next() => event,
                () = out.frames.closed() => return Err(Gone),
            };
            match event {
                Event::Text(text) => out.data(&answer.chunk(json!({"content": text}), None)).await?,
                Event::Done { reason, completion_tokens } => {
                    self.tokens.completion = completion_tokens.min(self.most);
                    let reason = reason_text(reason);
                    let mut end = answer.chunk(json!({}), Some(reason));
                    if chat.include_usage {
                        end.extend(answer.usage_chunk(self.tokens));
                    }
                    end.extend_from_slice(openai::DONE);
                    out.data(&end).await?;
                    return Ok(Some(reason));
                }
                Event::Failed => {
                    out.data(&openai::error_event(&failed())).await?;
                    return Ok(None);
                }
            }
        }
    }

    /// Waits for the whole answer.
    async fn whole(
        &mut self,
        generation: &mut Generation,
        answer: &Answer,
        out: &mut Out,
    ) -> Result<Option<&'static str>, Gone> {
        let mut text = String::new();
        loop {
            let event = tokio::select! {
                event = generation.next() => event,
                () = out.frames.closed() => return Err(Gone),
            };
            match event {
                Event::Text(piece) => text.push_str(&piece),
                Event::Done { reason, completion_tokens } => {
                    self.tokens.completion = completion_tokens.min(self.most);
                    let reason = reason_text(reason);
                    out.head(200, "application/json").await?;
                    out.data(&answer.completion(&text, reason, self.tokens)).await?;
                    return Ok(Some(reason));
                }
                Event::Failed => {
                    let error = failed();
                    out.head(error.status, "application/json").await?;
                    out.data(&error.body()).await?;
                    return Ok(None);
                }
            }
        }
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
            model_root: self.enclave.attester.model_root(),
            evidence_id: self.context.evidence_id,
            finish_reason: reason.to_owned(),
            settlement,
        }
        .sign(self.enclave.attester.key())
        .to_trailer()
    }
}

fn reason_text(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn failed() -> ApiError {
    ApiError::other(500, "server_error", "engine_failed", "the engine failed on this request, which is free: try again")
}

fn engine_error(error: &cocoon_engine::Error) -> ApiError {
    use cocoon_engine::Error;
    match error {
        Error::Busy => ApiError::other(429, "rate_limit_error", "busy", error.to_string()),
        Error::ContextFull { .. } => ApiError {
            param: Some("messages".into()),
            ..ApiError::other(400, "invalid_request_error", "context_length_exceeded", error.to_string())
        },
        Error::Template => ApiError::invalid("messages", error.to_string()),
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
