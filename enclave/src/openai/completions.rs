//! `/v1/completions` and `/v1/embeddings`.

use serde_json::Value;

use super::fields::Fields;
use super::request::{self, Calls, Embed, HARMLESS, Input, MAX_EMBEDDED, MAX_PROMPTS, Style};
use super::{ApiError, Generate};

/// OpenAI's default.
const MAX_TOKENS: u64 = 16;

/// Reads a request for a completion.
///
/// # Errors
/// As for a chat.
pub fn parse(body: &[u8]) -> Result<Generate, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let model = request::model(&mut fields)?;
    let inputs = request::inputs("prompt", fields.take("prompt"), MAX_PROMPTS)?;
    let (stream, include_usage) = request::stream(&mut fields)?;
    let max_tokens = fields.integer("max_tokens", 1, u64::MAX)?.unwrap_or(MAX_TOKENS);
    let mut sampling = request::sampling(&mut fields)?;
    sampling.logprobs = fields.integer("logprobs", 0, 5)?.map(|top| top as usize);
    let echo = fields.boolean("echo")?.unwrap_or(false);
    if echo && sampling.logprobs.is_some() {
        return Err(ApiError::invalid(
            "echo",
            "there are no log-probabilities of a prompt: leave echo or logprobs out",
        ));
    }
    if echo && inputs.iter().any(|input| matches!(input, Input::Tokens(_))) {
        return Err(ApiError::invalid("echo", "only text can be repeated: send the prompt as text, or leave echo out"));
    }
    let choices = request::choices(&mut fields)?;
    fields.harmless(HARMLESS, &[("best_of", "1"), ("suffix", r#""""#)]);
    fields.end("")?;
    Ok(Generate {
        model,
        inputs,
        sampling,
        max_tokens: Some(max_tokens),
        choices,
        stream,
        include_usage,
        style: Style::Completion,
        calls: Calls::None,
        thoughts: false,
        echo,
        repeated: Value::Null,
    })
}

/// Reads a request for vectors.
///
/// # Errors
/// As for a chat.
pub fn parse_embed(body: &[u8]) -> Result<Embed, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let model = request::model(&mut fields)?;
    let inputs = request::inputs("input", fields.take("input"), MAX_EMBEDDED)?;
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(ApiError::invalid("encoding_format", "must be float or base64")),
    };
    let dimensions = fields.integer("dimensions", 1, u64::MAX)?;
    fields.harmless(HARMLESS, &[]);
    fields.end("")?;
    Ok(Embed { model, inputs, base64, dimensions })
}
