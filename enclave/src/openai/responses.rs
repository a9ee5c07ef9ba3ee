//! `/v1/responses`, as far as an enclave that keeps nothing can offer it: no stored responses, no tools of its own.

use cocoon_engine::{Chat, Sampling};
use serde_json::{Value, json};

use super::chat::{content_text, finish, past_call};
use super::fields::Fields;
use super::request::{self, Calls, HARMLESS, Input, MAX_MESSAGES, Style};
use super::{ApiError, Generate, tools};

const NEUTRAL: &[(&str, &str)] = &[
    // Nothing is ever stored, and whoever wants it stored is told.
    ("store", "false"),
    ("truncation", r#""disabled""#),
    ("service_tier", r#""auto""#),
    ("service_tier", r#""default""#),
    ("background", "false"),
    ("include", "[]"),
    ("top_logprobs", "0"),
];

/// Reads a request body.
///
/// # Errors
/// As for a chat.
pub fn parse(body: &[u8]) -> Result<Generate, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let model = request::model(&mut fields)?;
    let mut chat = Chat::default();
    let instructions = fields.text("instructions")?;
    if let Some(text) = &instructions {
        chat.messages.push(json!({"role": "system", "content": text}));
    }
    chat.messages.extend(items(fields.take("input"))?);
    let (stream, _) = request::stream(&mut fields)?;
    let max_tokens = fields.integer("max_output_tokens", 1, u64::MAX)?;
    let shared = request::sampling(&mut fields)?;
    if !shared.stop.is_empty() {
        return Err(ApiError::unsupported("stop"));
    }
    let format = match fields.take("text") {
        None => None,
        Some(text) => {
            let mut text = Fields::of("text", text)?;
            let format = text.take("format");
            text.harmless(&[], &[("verbosity", r#""medium""#)]);
            text.end("text.")?;
            format
        }
    };
    let schema = request::format("text.format", format.clone())?;
    let effort = fields.get("reasoning").and_then(|reasoning| reasoning.get("effort")).cloned();
    if let Some(reasoning) = fields.take("reasoning") {
        let mut reasoning = Fields::of("reasoning", reasoning)?;
        match reasoning.text("effort")?.as_deref() {
            None => {}
            Some("none") => chat.thinking = Some(false),
            Some(_) => {
                return Err(ApiError::invalid(
                    "reasoning.effort",
                    "models think or do not: give none, or leave it out",
                ));
            }
        }
        reasoning.end("reasoning.")?;
    }
    let asked = |name: &str, otherwise: Value| fields.get(name).cloned().unwrap_or(otherwise);
    let repeated = json!({
        "instructions": instructions, "max_output_tokens": max_tokens,
        "temperature": shared.temperature, "top_p": shared.top_p.unwrap_or(1.0),
        "text": {"format": format.unwrap_or_else(|| json!({"type": "text"}))},
        "tools": asked("tools", json!([])), "tool_choice": asked("tool_choice", "auto".into()),
        "parallel_tool_calls": asked("parallel_tool_calls", true.into()),
        "reasoning": {"effort": effort, "summary": null},
        "metadata": asked("metadata", json!({})), "user": asked("user", Value::Null),
    });
    let mut generate = Generate {
        model,
        inputs: Vec::new(),
        thoughts: schema.is_none(),
        sampling: Sampling { schema, ..shared },
        max_tokens,
        choices: 1,
        stream,
        include_usage: true,
        style: Style::Response,
        calls: Calls::None,
        echo: false,
        repeated,
    };
    tools::read(&mut fields, false, &mut chat, &mut generate)?;
    fields.harmless(HARMLESS, NEUTRAL);
    fields.end("")?;
    finish(&mut generate, &mut chat)?;
    generate.inputs.push(Input::Chat(chat));
    Ok(generate)
}

fn items(input: Option<Value>) -> Result<Vec<Value>, ApiError> {
    let items = match input {
        Some(Value::String(text)) => return Ok(vec![json!({"role": "user", "content": text})]),
        Some(Value::Array(items)) if (1..=MAX_MESSAGES).contains(&items.len()) => items,
        _ => return Err(ApiError::invalid("input", format!("must be a text or a list of 1 to {MAX_MESSAGES} items"))),
    };
    let mut messages: Vec<Value> = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let path = format!("input[{index}]");
        let at = |field: &str| format!("{path}.{field}");
        let mut fields = Fields::of(&path, item)?;
        fields.harmless(&["id", "status"], &[]);
        match fields.text("type")?.as_deref() {
            None | Some("message") => {
                let role = match fields.text("role")?.as_deref() {
                    Some("system" | "developer") => "system",
                    Some("user") => "user",
                    Some("assistant") => "assistant",
                    _ => return Err(ApiError::invalid(&at("role"), "must be system, developer, user or assistant")),
                };
                let content = fields.take("content").unwrap_or_default();
                let content = content_text(&at("content"), content)?;
                messages.push(json!({"role": role, "content": content}));
            }
            Some("function_call") => {
                let function = json!({"name": fields.take("name"), "arguments": fields.take("arguments")});
                let call = past_call(&path, json!({"id": fields.take("call_id"), "function": function}))?;
                // Calls of one turn belong to one message.
                match messages.last_mut().filter(|last| last["role"] == "assistant") {
                    Some(last) => match last.get_mut("tool_calls").and_then(Value::as_array_mut) {
                        Some(calls) => calls.push(call),
                        None => last["tool_calls"] = json!([call]),
                    },
                    None => messages.push(json!({"role": "assistant", "content": "", "tool_calls": [call]})),
                }
            }
            Some("function_call_output") => {
                let id = fields.text("call_id")?.ok_or_else(|| ApiError::invalid(&at("call_id"), "is missing"))?;
                let output = content_text(&at("output"), fields.take("output").unwrap_or_default())?;
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": output}));
            }
            // Its summary is for people; models are not given their old thoughts.
            Some("reasoning") => fields.harmless(&["summary", "content"], &[]),
            Some(_) => {
                return Err(ApiError::invalid(
                    &at("type"),
                    "must be message, function_call, function_call_output or reasoning",
                ));
            }
        }
        fields.end(&format!("{path}."))?;
    }
    Ok(messages)
}
