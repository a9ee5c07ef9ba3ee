//! OpenAI's chat completions, as far as the engine does what is asked. What it would ignore is refused by name, never swallowed.

use cocoon_engine::{Message, Role, Sampling};
use cocoon_protocol::receipt::TokenCounts;
use cocoon_settlement::Nanoton;
use serde_json::{Map, Value, json};

/// An OpenAI error object with its HTTP status. The message never quotes content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status inside the seal.
    pub status: u16,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`.
    pub code: &'static str,
    /// The parameter at fault.
    pub param: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
    /// The least cap with which a voucher would do.
    pub least_cap: Option<Nanoton>,
}

impl ApiError {
    /// A request that is wrong in itself.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            kind: "invalid_request_error",
            code: "invalid_value",
            param: Some(param.to_owned()),
            message: message.into(),
            least_cap: None,
        }
    }

    /// Another kind of refusal.
    pub fn other(status: u16, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), least_cap: None }
    }

    /// The JSON body.
    pub fn body(&self) -> Vec<u8> {
        let mut error = json!({"message": self.message, "type": self.kind, "param": self.param, "code": self.code});
        if let Some(least) = self.least_cap {
            error["least_cap_nanoton"] = least.0.into();
        }
        json!({ "error": error }).to_string().into_bytes()
    }
}

/// A chat completion to be made.
#[derive(Debug)]
pub struct ChatRequest {
    /// Name of the model.
    pub model: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// The most tokens to generate; the context's rest if `None`.
    pub max_tokens: Option<u64>,
    /// Whether to stream.
    pub stream: bool,
    /// Whether a stream ends with a chunk of usage.
    pub include_usage: bool,
}

const MAX_MESSAGES: usize = 1_000;
const MAX_STOPS: usize = 4;
/// The longest stop string, in bytes: text that may begin one is held back, and compared with it at each token.
const MAX_STOP: usize = 1_024;

/// Parameters that change nothing where they have this value, and that the engine could not honour otherwise.
const NEUTRAL: &[(&str, &str)] = &[
    ("n", "1"),
    ("logprobs", "false"),
    ("store", "false"),
    ("parallel_tool_calls", "true"),
    ("response_format", r#"{"type":"text"}"#),
    ("tool_choice", r#""none""#),
    ("tools", "[]"),
    ("logit_bias", "{}"),
    ("modalities", r#"["text"]"#),
    ("service_tier", r#""auto""#),
];

/// Parameters without any effect on the answer, by OpenAI's own definition.
const HARMLESS: &[&str] = &["user", "metadata", "safety_identifier"];

impl ChatRequest {
    /// Reads a request body.
    ///
    /// # Errors
    /// No JSON object, a parameter of the wrong type or range, or one that would be ignored.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(body) else {
            return Err(ApiError::invalid("body", "the body must be a JSON object"));
        };
        fields.retain(|_, value| !value.is_null());
        let model = match fields.remove("model") {
            Some(Value::String(model)) => model,
            _ => return Err(ApiError::invalid("model", "name the model to ask")),
        };
        let messages = messages(fields.remove("messages"))?;
        let stream = boolean(&mut fields, "stream")?.unwrap_or(false);
        let include_usage = match fields.remove("stream_options") {
            None => false,
            Some(Value::Object(mut options)) => {
                let include = boolean(&mut options, "include_usage")?.unwrap_or(false);
                boolean(&mut options, "include_obfuscation")?;
                if let Some(name) = options.keys().next() {
                    return Err(unsupported(&format!("stream_options.{name}")));
                }
                include
            }
            Some(_) => return Err(ApiError::invalid("stream_options", "must be an object")),
        };
        let max_tokens = match (integer(&mut fields, "max_completion_tokens")?, integer(&mut fields, "max_tokens")?) {
            (Some(0), _) | (None, Some(0)) => return Err(ApiError::invalid("max_tokens", "must be at least 1")),
            (completion, old) => completion.or(old),
        };
        let sampling = Sampling {
            temperature: Some(number(&mut fields, "temperature", 0.0, 2.0)?.unwrap_or(1.0)),
            // 0 would turn it off instead of choosing the likeliest.
            top_p: number(&mut fields, "top_p", f64::MIN_POSITIVE, 1.0)?,
            top_k: integer(&mut fields, "top_k")?.map(|k| usize::try_from(k).unwrap_or(usize::MAX)),
            frequency_penalty: number(&mut fields, "frequency_penalty", -2.0, 2.0)?.map(|value| value as f32),
            presence_penalty: number(&mut fields, "presence_penalty", -2.0, 2.0)?.map(|value| value as f32),
            stop: stops(fields.remove("stop"))?,
        };
        for (name, value) in &fields {
            let neutral = NEUTRAL.iter().any(|(known, text)| {
                known == name && serde_json::from_str::<Value>(text).is_ok_and(|neutral| neutral == *value)
            });
            if !neutral && !HARMLESS.contains(&name.as_str()) {
                return Err(unsupported(name));
            }
        }
        Ok(Self { model, messages, sampling, max_tokens, stream, include_usage })
    }
}

fn unsupported(name: &str) -> ApiError {
    // The name comes from outside: only its beginning, and only plain characters.
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-[]".contains(*c)).take(64).collect();
    ApiError {
        status: 400,
        kind: "invalid_request_error",
        code: "unsupported_parameter",
        message: format!("this enclave cannot honour the parameter '{name}': leave it out"),
        param: Some(name),
        least_cap: None,
    }
}

fn boolean(fields: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, ApiError> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(_) => Err(ApiError::invalid(name, "must be true or false")),
    }
}

fn integer(fields: &mut Map<String, Value>, name: &str) -> Result<Option<u64>, ApiError> {
    match fields.remove(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| ApiError::invalid(name, "must be a whole number")),
    }
}

fn number(fields: &mut Map<String, Value>, name: &str, least: f64, most: f64) -> Result<Option<f64>, ApiError> {
    match fields.remove(name) {
        None => Ok(None),
        Some(value) => value
            .as_f64()
            .filter(|value| (least..=most).contains(value))
            .map(Some)
            .ok_or_else(|| ApiError::invalid(name, format!("must be a number from {least} to {most}"))),
    }
}

fn stops(value: Option<Value>) -> Result<Vec<String>, ApiError> {
    let wrong = || {
        let message = format!("must be a string or at most {MAX_STOPS} strings, each of 1 to {MAX_STOP} bytes");
        ApiError::invalid("stop", message)
    };
    let stops = match value {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(items)) if items.len() <= MAX_STOPS => items
            .into_iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    if stops.iter().all(|stop| (1..=MAX_STOP).contains(&stop.len())) { Ok(stops) } else { Err(wrong()) }
}

fn messages(value: Option<Value>) -> Result<Vec<Message>, ApiError> {
    let Some(Value::Array(items)) = value else {
        return Err(ApiError::invalid("messages", "must be a list of messages"));
    };
    if items.is_empty() || items.len() > MAX_MESSAGES {
        return Err(ApiError::invalid("messages", format!("must have 1 to {MAX_MESSAGES} messages")));
    }
    items.into_iter().enumerate().map(|(index, item)| message(index, item)).collect()
}

fn message(index: usize, item: Value) -> Result<Message, ApiError> {
    let at = |field: &str| format!("messages[{index}].{field}");
    let Value::Object(mut fields) = item else {
        return Err(ApiError::invalid(&format!("messages[{index}]"), "must be an object"));
    };
    let role = match fields.remove("role").as_ref().and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => return Err(ApiError::invalid(&at("role"), "must be system, developer, user or assistant")),
    };
    let content = match fields.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let mut joined = String::new();
            for part in parts {
                match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
                    (Some("text"), Some(text)) => joined.push_str(text),
                    _ => return Err(ApiError::invalid(&at("content"), "only parts of type text can be read")),
                }
            }
            joined
        }
        _ => return Err(ApiError::invalid(&at("content"), "must be text")),
    };
    fields.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty()));
    match fields.keys().next() {
        Some(name) => Err(unsupported(&at(name))),
        None => Ok(Message { role, content }),
    }
}

/// What every body about one answer says.
pub struct Answer {
    /// OpenAI's identifier.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
}

impl Answer {
    /// One chunk of a stream, as a server-sent event.
    pub fn chunk(&self, delta: Value, finish_reason: Option<&str>) -> Vec<u8> {
        event(&json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}],
        }))
    }

    /// The chunk with usage and no choice.
    pub fn usage_chunk(&self, tokens: TokenCounts) -> Vec<u8> {
        event(&json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": [], "usage": usage(tokens),
        }))
    }

    /// The body of an answer that is not streamed.
    pub fn completion(&self, text: &str, finish_reason: &str, tokens: TokenCounts) -> Vec<u8> {
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": text, "refusal": null},
                "logprobs": null, "finish_reason": finish_reason,
            }],
            "usage": usage(tokens),
        })
        .to_string()
        .into_bytes()
    }
}

/// The end of a stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// An error in the middle of a stream.
pub fn error_event(error: &ApiError) -> Vec<u8> {
    [b"data: ".as_slice(), &error.body(), b"\n\n"].concat()
}

/// The list of models.
pub fn models(name: &str) -> Vec<u8> {
    json!({"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "cocoon"}]})
        .to_string()
        .into_bytes()
}

fn event(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

fn usage(tokens: TokenCounts) -> Value {
    let prompt = tokens.prompt + tokens.cached;
    let completion = tokens.completion + tokens.reasoning;
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &str) -> Result<ChatRequest, ApiError> {
        ChatRequest::parse(
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a secret"}}]{extra}}}"#).as_bytes(),
        )
    }

    #[test]
    fn what_openai_clients_send_by_default_is_taken() {
        let request =
            parse(r#","stream":true,"stream_options":{"include_usage":true},"temperature":0,"n":1,"stop":null"#)
                .unwrap();
        assert!(request.stream && request.include_usage);
        assert_eq!(request.sampling.temperature, Some(0.0));
        let parts = br#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
        assert_eq!(ChatRequest::parse(parts).unwrap().messages[0].content, "ab");
    }

    #[test]
    fn a_parameter_that_would_be_ignored_is_refused_by_name() {
        for (extra, name) in [
            (r#","seed":7"#, "seed"),
            (r#","min_p":0.1"#, "min_p"),
            (r#","n":2"#, "n"),
            (r#","logit_bias":{"1":2}"#, "logit_bias"),
            (r#","logprobs":true"#, "logprobs"),
            (r#","tools":[{}]"#, "tools"),
            (r#","response_format":{"type":"json_object"}"#, "response_format"),
        ] {
            let error = parse(extra).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), ("unsupported_parameter", Some(name)));
        }
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_name_and_no_error_quotes_content() {
        for (extra, name) in [
            (r#","temperature":3"#, "temperature"),
            (r#","max_tokens":0"#, "max_tokens"),
            (r#","max_tokens":-1"#, "max_tokens"),
            (r#","stop":["a","b","c","d","e"]"#, "stop"),
            (r#","stream":"yes""#, "stream"),
            (r#","messages":[]"#, "messages"),
        ] {
            let error = parse(extra).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name), "{extra}");
            assert!(!error.message.contains("secret"));
        }
        let stop = |len: usize| parse(&format!(r#","stop":"{}""#, "a".repeat(len)));
        assert!(stop(MAX_STOP).is_ok());
        assert_eq!(stop(MAX_STOP + 1).unwrap_err().param.as_deref(), Some("stop"));
        let image = br#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://a"}}]}]}"#;
        assert_eq!(ChatRequest::parse(image).unwrap_err().param.as_deref(), Some("messages[0].content"));
    }

    #[test]
    fn chunks_are_server_sent_events() {
        let answer = Answer { id: "chatcmpl-1".into(), created: 7, model: "m".into() };
        let text = String::from_utf8(answer.chunk(json!({"content": "a\nb"}), None)).unwrap();
        assert!(text.starts_with("data: {") && text.ends_with("}\n\n"));
        assert_eq!(text.matches('\n').count(), 2, "line breaks inside are escaped");
        let body: Value = serde_json::from_str(text.trim_start_matches("data: ").trim()).unwrap();
        assert_eq!(body["choices"][0]["delta"]["content"], "a\nb");
    }
}
