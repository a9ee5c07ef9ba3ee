//! `/v1/chat/completions`.

use cocoon_engine::{Chat, Engine};
use serde_json::{Value, json};

use super::fields::Fields;
use super::request::{self, Calls, HARMLESS, Input, MAX_MESSAGES, Style};
use super::{ApiError, Generate, tools};

/// Parameters that change nothing where they have this value, and that could not be honoured otherwise.
const NEUTRAL: &[(&str, &str)] = &[
    ("store", "false"),
    ("modalities", r#"["text"]"#),
    ("service_tier", r#""auto""#),
    ("service_tier", r#""default""#),
    ("functions", "[]"),
];

/// Reads a request body.
///
/// # Errors
/// No JSON object, a parameter of the wrong type or range, or one that would be ignored.
pub fn parse(body: &[u8]) -> Result<Generate, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let model = request::model(&mut fields)?;
    let mut chat = Chat { messages: messages(fields.take("messages"))?, ..Chat::default() };
    let (stream, include_usage) = request::stream(&mut fields)?;
    let old = fields.integer("max_tokens", 1, u64::MAX)?;
    let new = fields.integer("max_completion_tokens", 1, u64::MAX)?;
    if old.is_some() && new.is_some() && old != new {
        return Err(ApiError::invalid("max_tokens", "differs from max_completion_tokens: leave one of them out"));
    }
    let max_tokens = new.or(old);
    let mut sampling = request::sampling(&mut fields)?;
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    sampling.logprobs = match (wanted, fields.integer("top_logprobs", 0, 20)?) {
        (true, top) => Some(top.unwrap_or(0) as usize),
        (false, None | Some(0)) => None,
        (false, Some(_)) => return Err(ApiError::invalid("top_logprobs", "needs logprobs to be true")),
    };
    sampling.schema = request::format("response_format", fields.take("response_format"))?;
    chat.thinking = thinking(&mut fields)?;
    let mut generate = Generate {
        model,
        inputs: Vec::new(),
        max_tokens,
        choices: request::choices(&mut fields)?,
        stream,
        include_usage,
        style: Style::Chat,
        calls: Calls::None,
        thoughts: sampling.schema.is_none(),
        echo: false,
        repeated: Value::Null,
        sampling,
    };
    tools::read(&mut fields, true, &mut chat, &mut generate)?;
    fields.harmless(HARMLESS, NEUTRAL);
    fields.end("")?;
    finish(&mut generate, &mut chat)?;
    generate.inputs.push(Input::Chat(chat));
    Ok(generate)
}

/// What follows a schema does not think first: its thoughts would have to be JSON.
///
/// # Errors
/// It was asked to think.
pub(super) fn finish(generate: &mut Generate, chat: &mut Chat) -> Result<(), ApiError> {
    if generate.sampling.schema.is_some() {
        if chat.thinking == Some(true) {
            return Err(ApiError::invalid(
                THINKING,
                "an answer that follows a schema, as a call that must come does, begins without thoughts: leave one of them out",
            ));
        }
        chat.thinking = Some(false);
        chat.constrained = true;
        generate.thoughts = false;
    }
    Ok(())
}

const THINKING: &str = "chat_template_kwargs.enable_thinking";

/// `reasoning_effort` none, and vLLM's `chat_template_kwargs.enable_thinking`.
fn thinking(fields: &mut Fields) -> Result<Option<bool>, ApiError> {
    let effort = match fields.text("reasoning_effort")?.as_deref() {
        None => None,
        Some("none") => Some(false),
        Some(_) => {
            return Err(ApiError::invalid("reasoning_effort", "models think or do not: give none, or leave it out"));
        }
    };
    let Some(options) = fields.take("chat_template_kwargs") else { return Ok(effort) };
    let mut options = Fields::of("chat_template_kwargs", options)?;
    let switch = options.boolean("enable_thinking")?;
    options.end("chat_template_kwargs.")?;
    if effort.is_some() && switch == Some(true) {
        return Err(ApiError::invalid(THINKING, "contradicts reasoning_effort: leave one of them out"));
    }
    Ok(switch.or(effort))
}

/// Refuses what this model's template would ignore.
///
/// # Errors
/// Tools for a template without them, or a switch that it does not have.
pub fn possible(chat: &Chat, engine: &Engine) -> Result<(), ApiError> {
    if !chat.tools.is_empty() && !engine.offers_tools() {
        return Err(ApiError {
            message: "this model's chat template has no place for tools: leave them out or ask another model".into(),
            ..ApiError::unsupported("tools")
        });
    }
    if chat.thinking.is_some() && !chat.constrained && !engine.thinking_can_be_switched() {
        return Err(ApiError {
            message: "this model's thinking cannot be switched: leave the parameter out".into(),
            ..ApiError::unsupported("reasoning_effort")
        });
    }
    Ok(())
}

fn messages(value: Option<Value>) -> Result<Vec<Value>, ApiError> {
    let Some(Value::Array(items)) = value else {
        return Err(ApiError::invalid("messages", "must be a list of messages"));
    };
    if items.is_empty() || items.len() > MAX_MESSAGES {
        return Err(ApiError::invalid("messages", format!("must have 1 to {MAX_MESSAGES} messages")));
    }
    items.into_iter().enumerate().map(|(index, item)| message(index, item)).collect()
}

fn message(index: usize, item: Value) -> Result<Value, ApiError> {
    let path = format!("messages[{index}]");
    let at = |field: &str| format!("{path}.{field}");
    let mut fields = Fields::of(&path, item)?;
    let role = match fields.text("role").ok().flatten().as_deref() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool") => "tool",
        _ => return Err(ApiError::invalid(&at("role"), "must be system, developer, user, assistant or tool")),
    };
    let calls = match fields.take("tool_calls") {
        Some(Value::Array(calls)) if role == "assistant" => {
            calls.into_iter().map(|call| past_call(&at("tool_calls"), call)).collect::<Result<Vec<_>, _>>()?
        }
        Some(Value::Array(calls)) if calls.is_empty() => Vec::new(),
        None => Vec::new(),
        Some(_) => {
            return Err(ApiError::invalid(&at("tool_calls"), "must be a list of calls, in a message of the assistant"));
        }
    };
    let content = match fields.take("content") {
        Some(content) => content_text(&at("content"), content)?,
        None if !calls.is_empty() => String::new(),
        None => return Err(ApiError::invalid(&at("content"), "must be text")),
    };
    let mut message = json!({"role": role, "content": content});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    if role == "tool" {
        let id = fields.text("tool_call_id")?;
        let id = id.ok_or_else(|| ApiError::invalid(&at("tool_call_id"), "is missing: say which call this answers"))?;
        message["tool_call_id"] = id.into();
        if let Some(name) = fields.text("name")? {
            message["name"] = name.into();
        }
    }
    if role == "assistant" {
        // What other servers call it, so that an answer can be sent back as it came.
        if let Some(thoughts) = fields.text("reasoning_content")? {
            message["reasoning_content"] = thoughts.into();
        }
    }
    fields.harmless(&[], &[("annotations", "[]"), ("tool_calls", "[]")]);
    fields.end(&format!("{path}."))?;
    Ok(message)
}

pub(super) fn content_text(path: &str, content: Value) -> Result<String, ApiError> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let mut joined = String::new();
            for (index, part) in parts.into_iter().enumerate() {
                let wrong = |_| ApiError::invalid(path, "only parts of type text can be read");
                let at = format!("{path}[{index}]");
                let mut part = Fields::of(&at, part).map_err(wrong)?;
                match (part.text("type").map_err(wrong)?.as_deref(), part.text("text").map_err(wrong)?) {
                    (Some("text" | "input_text" | "output_text"), Some(text)) => joined.push_str(&text),
                    _ => return Err(ApiError::invalid(path, "only parts of type text can be read")),
                }
                // As parts of answers have them, which are sent back as they came.
                part.harmless(&[], &[("annotations", "[]"), ("logprobs", "[]")]);
                part.end(&format!("{at}."))?;
            }
            Ok(joined)
        }
        _ => Err(ApiError::invalid(path, "must be text")),
    }
}

/// A call of an earlier turn, with its arguments as an object: templates write them as JSON themselves.
pub(super) fn past_call(path: &str, call: Value) -> Result<Value, ApiError> {
    let wrong = || ApiError::invalid(path, "each call needs an id, and a function with name and arguments as text");
    let text = |fields: &mut Fields, name: &str| fields.text(name).ok().flatten().ok_or_else(wrong);
    let mut call = Fields::of(path, call)?;
    let id = text(&mut call, "id")?;
    let mut function = Fields::of(path, call.take("function").ok_or_else(wrong)?)?;
    let (name, written) = (text(&mut function, "name")?, text(&mut function, "arguments")?);
    function.end(&format!("{path}.function."))?;
    // Calls put together from a stream keep the place that they had there; here it is their place in the list.
    call.harmless(&["index"], &[("type", r#""function""#)]);
    call.end(&format!("{path}."))?;
    let arguments: Value = serde_json::from_str(&written).unwrap_or_else(|_| written.into());
    Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}
