//! What goes wrong inside the enclave, in OpenAI's words.

use cocoon_engine::Event;

use crate::openai::{ApiError, Calls, Generate, Style};
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

pub(crate) fn engine_error(error: &cocoon_engine::Error) -> ApiError {
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
