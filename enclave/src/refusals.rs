//! What goes wrong inside the enclave, in OpenAI's words.

use cocoon_engine::Event;

use crate::openai::{ApiError, Calls, Embed, Generate, Style};
use crate::{ledger, limits};

pub(crate) fn failure() -> ApiError {
    ApiError::other(500, "server_error", "engine_failed", cocoon_engine::Error::Failed.to_string())
}

/// How an engine that gave up is told. A schema comes from a format or from a tool.
pub(crate) fn failed_error(event: &Event, generate: &Generate) -> ApiError {
    let param = match (generate.calls, generate.style) {
        (Calls::Forced, _) => "tools",
        (_, Style::Response) => "text.format",
        _ => "response_format",
    };
    match event {
        Event::Schema => ApiError::invalid(param, cocoon_engine::Error::Schema.to_string()),
        _ => failure(),
    }
}

pub(crate) fn crowded() -> ApiError {
    let message = "more answers wait to be read than this enclave can hold: try again shortly";
    ApiError { retry_after: Some(1), ..ApiError::other(429, "rate_limit_error", "busy", message) }
}

pub(crate) fn limits_error(error: limits::Error) -> ApiError {
    ApiError {
        retry_after: Some(error.retry_after()),
        ..ApiError::other(429, "rate_limit_error", "rate_limit_exceeded", error.to_string())
    }
}

/// What the engine refuses. `param`: where the prompt came from.
pub(crate) fn engine_error(error: &cocoon_engine::Error, param: &str) -> ApiError {
    use cocoon_engine::Error;
    match error {
        Error::Busy => {
            ApiError { retry_after: Some(1), ..ApiError::other(429, "rate_limit_error", "busy", error.to_string()) }
        }
        Error::ContextFull { .. } => ApiError {
            param: Some(param.to_owned()),
            ..ApiError::other(400, "invalid_request_error", "context_length_exceeded", error.to_string())
        },
        Error::Template | Error::EmptyPrompt | Error::NoSuchToken { .. } | Error::Tokenizer | Error::TooShort => {
            ApiError::invalid(param, error.to_string())
        }
        Error::Incapable(_) => ApiError::invalid("model", error.to_string()),
        Error::Schema => ApiError::invalid("response_format", error.to_string()),
        Error::Failed => failure(),
        _ => ApiError::other(503, "server_error", "engine_ended", error.to_string()),
    }
}

pub(crate) fn ledger_error(error: &ledger::Error) -> ApiError {
    match error {
        ledger::Error::CapReached { used, needed, .. } => ApiError {
            least_cap: Some(used.saturating_add(*needed)),
            ..ApiError::other(402, "payment_error", "voucher_cap_reached", error.to_string())
        },
        ledger::Error::TooManyChannels => ApiError::other(503, "server_error", "too_many_channels", error.to_string()),
        _ => ApiError::other(400, "payment_error", "amount_out_of_range", error.to_string()),
    }
}

/// Bytes that a token takes in an answer until it is whole, roughly, and what more for each of its scores.
const TOKEN: u64 = 8;
const SCORE: u64 = 160;

/// The most tokens that an answer can have that is kept until it is whole.
pub(crate) fn most_whole(generate: &Generate, room: usize) -> u64 {
    room as u64 / bytes_a_token(generate)
}

fn bytes_a_token(generate: &Generate) -> u64 {
    TOKEN + scores(generate) * SCORE
}

fn scores(generate: &Generate) -> u64 {
    generate.sampling.logprobs.map_or(0, |top| top as u64 + 1)
}

/// Whether an answer that is not streamed can be kept until it is whole, should it become as long as it may.
pub(crate) fn whole_fits(generate: &Generate, most: u64, room: usize) -> Result<(), ApiError> {
    let (bytes, scores) = (most.saturating_mul(bytes_a_token(generate)), scores(generate));
    if generate.stream || bytes <= room as u64 {
        return Ok(());
    }
    let message = format!(
        "this answer could have {most} tokens with {scores} log-probabilities each, more than an answer in one piece may have: ask for fewer, or set stream to true"
    );
    Err(ApiError::invalid(if scores > 0 { "logprobs" } else { "max_tokens" }, message))
}

/// The most tokens of texts to embed in one request, as with OpenAI: they take their turns one after another, and others wait meanwhile.
const MAX_EMBEDDED: u64 = 300_000;

pub(crate) fn embeddable(tokens: u64) -> Result<(), ApiError> {
    if tokens <= MAX_EMBEDDED {
        return Ok(());
    }
    let message =
        format!("these texts have {tokens} tokens, and one request may have {MAX_EMBEDDED}: ask for fewer at once");
    Err(ApiError::invalid("input", message))
}

/// Whether so many vectors have the length that was asked for, and can be kept until they are whole.
pub(crate) fn vectors_fit(embed: &Embed, vectors: usize, dimensions: usize, room: usize) -> Result<(), ApiError> {
    if embed.dimensions.is_some_and(|wanted| wanted != dimensions as u64) {
        let message = format!("this model's vectors have {dimensions} dimensions: leave it out");
        return Err(ApiError::invalid("dimensions", message));
    }
    let most = room / (dimensions * size_of::<f32>()).max(1);
    if vectors > most {
        let message = format!("one answer has room for {most} vectors of this model: ask for fewer at once");
        return Err(ApiError::invalid("input", message));
    }
    Ok(())
}
