//! What a request asks for, whatever API it came by.

use cocoon_engine::{Chat, Sampling};
use serde_json::Value;

use super::ApiError;
use super::fields::{Fields, MAX_DEPTH, depth};

/// What the model continues.
#[derive(Debug)]
pub enum Input {
    /// A conversation.
    Chat(Chat),
    /// Text.
    Text(String),
    /// The model's own tokens.
    Tokens(Vec<u32>),
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
    /// `/v1/responses`.
    Response,
}

impl Style {
    /// The parameter that holds what the model continues.
    pub fn input(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completion => "prompt",
            Self::Response => "input",
        }
    }
}

/// How tools may be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// Not at all.
    #[default]
    None,
    /// Between tags in the text, if the model wants to.
    Tagged {
        /// More than one in an answer.
        several: bool,
    },
    /// The whole answer is one call.
    Forced,
}

/// A request for generated text.
#[derive(Debug)]
pub struct Generate {
    /// Name of the model.
    pub model: String,
    /// What to continue, one or several.
    pub inputs: Vec<Input>,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// The most tokens of one choice; the context's rest if `None`.
    pub max_tokens: Option<u64>,
    /// Answers to each input.
    pub choices: usize,
    /// Whether to stream.
    pub stream: bool,
    /// Whether a stream ends with a chunk of usage.
    pub include_usage: bool,
    /// How to write the answer.
    pub style: Style,
    /// How tools may be called.
    pub calls: Calls,
    /// Whether thinking may be shown: not inside JSON.
    pub thoughts: bool,
    /// Whether to begin with the prompt.
    pub echo: bool,
    /// What a response repeats of its request.
    pub repeated: Value,
}

/// A request for vectors.
#[derive(Debug)]
pub struct Embed {
    /// Name of the model.
    pub model: String,
    /// What to embed.
    pub inputs: Vec<Input>,
    /// Base64 of little-endian floats instead of a list.
    pub base64: bool,
    /// The length that vectors must have.
    pub dimensions: Option<u64>,
}

pub(super) const MAX_MESSAGES: usize = 1_000;
const MAX_STOPS: usize = 4;
/// The longest stop string, in bytes: text that may begin one is held back, and compared with it at each token.
pub(super) const MAX_STOP: usize = 1_024;
const MAX_CHOICES: u64 = 8;
/// Prompts of one completion.
pub(super) const MAX_PROMPTS: usize = 64;
/// Texts of which one request may want vectors, as with OpenAI. What bounds them is their tokens.
pub(super) const MAX_EMBEDDED: usize = 2_048;
const MAX_BIASES: usize = 1_024;
/// The largest schema, in bytes of JSON: the engine works through it before the first token.
const MAX_SCHEMA: usize = 64 << 10;
/// Patterns that a schema may not have where it joins some: what holds all of fifty takes the engine minutes, during which it does nothing else.
const MAX_JOINED: usize = 9;

/// Parameters without any effect on the answer, by OpenAI's own definition.
pub(super) const HARMLESS: &[&str] = &["user", "metadata", "safety_identifier", "prompt_cache_key"];

pub(super) fn model(fields: &mut Fields) -> Result<String, ApiError> {
    fields.text("model")?.ok_or_else(|| ApiError::invalid("model", "name the model to ask"))
}

/// Whether to stream, and with usage.
pub(super) fn stream(fields: &mut Fields) -> Result<(bool, bool), ApiError> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(options) = fields.take("stream_options") else { return Ok((stream, false)) };
    if !stream {
        return Err(ApiError::invalid("stream_options", "is for streams: set stream to true, or leave it out"));
    }
    let mut options = Fields::of("stream_options", options)?;
    let usage = options.boolean("include_usage")?.unwrap_or(false);
    // All records of a stream are padded to one size already.
    options.harmless(&[], &[("include_obfuscation", "false")]);
    options.end("stream_options.")?;
    Ok((stream, usage))
}

/// What all kinds of generation have in common.
pub(super) fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    let penalty = |value: Option<f64>| value.unwrap_or(0.0) as f32;
    Ok(Sampling {
        temperature: Some(fields.number("temperature", 0.0, 2.0)?.unwrap_or(1.0)),
        // 0 would turn it off instead of choosing the likeliest.
        top_p: fields.number("top_p", f64::MIN_POSITIVE, 1.0)?,
        top_k: fields.integer("top_k", 1, u64::MAX)?.map(|k| usize::try_from(k).unwrap_or(usize::MAX)),
        min_p: fields.number("min_p", 0.0, 1.0)?.filter(|p| *p > 0.0),
        frequency_penalty: penalty(fields.number("frequency_penalty", -2.0, 2.0)?),
        presence_penalty: penalty(fields.number("presence_penalty", -2.0, 2.0)?),
        repetition_penalty: fields.number("repetition_penalty", 0.1, 10.0)?.map(|value| value as f32),
        logit_bias: biases(fields.take("logit_bias"))?,
        seed: seed(fields.take("seed"))?,
        logprobs: None,
        stop: stops(fields.take("stop"))?,
        schema: None,
    })
}

fn seed(value: Option<Value>) -> Result<Option<u64>, ApiError> {
    match value {
        None => Ok(None),
        // Negative seeds are seeds too.
        Some(value) => match value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)) {
            Some(seed) => Ok(Some(seed)),
            None => Err(ApiError::invalid("seed", "must be a whole number of 64 bits")),
        },
    }
}

fn biases(value: Option<Value>) -> Result<Vec<(u32, f32)>, ApiError> {
    let wrong = || {
        let message = format!("must be an object of at most {MAX_BIASES} tokens, each with a number from -100 to 100");
        ApiError::invalid("logit_bias", message)
    };
    match value {
        None => Ok(Vec::new()),
        Some(Value::Object(fields)) if fields.len() <= MAX_BIASES => fields
            .iter()
            .map(|(token, bias)| {
                let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).ok_or_else(wrong)?;
                Ok((token.parse().map_err(|_| wrong())?, bias as f32))
            })
            .collect(),
        Some(_) => Err(wrong()),
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

pub(super) fn choices(fields: &mut Fields) -> Result<usize, ApiError> {
    Ok(fields.integer("n", 1, MAX_CHOICES)?.unwrap_or(1) as usize)
}

/// A schema that the engine may be given.
pub(super) fn schema(name: &str, schema: Value) -> Result<Value, ApiError> {
    if !schema.is_object() && !schema.is_boolean() {
        return Err(ApiError::invalid(name, "must be a JSON schema"));
    }
    if depth(&schema) > MAX_DEPTH || schema.to_string().len() > MAX_SCHEMA {
        return Err(ApiError::invalid(
            name,
            format!("a schema may be {MAX_DEPTH} levels deep and have {MAX_SCHEMA} bytes: simplify it"),
        ));
    }
    if let (true, patterns @ MAX_JOINED..) = joined(&schema) {
        let message = format!(
            "it has {patterns} patterns and formats, and joins some (allOf, or other keywords beside anyOf, oneOf or $ref), where fewer than {MAX_JOINED} may be: simplify it"
        );
        return Err(ApiError::invalid(name, message));
    }
    Ok(schema)
}

/// Beside these an alternative or a reference joins nothing: they are for people, or lie elsewhere.
const ANNOTATIONS: &[&str] = &[
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "$comment",
    "$schema",
    "$id",
    "$defs",
    "definitions",
];

/// Whether a part of a schema holds a value to several others at once, and how many patterns and formats there are.
fn joined(value: &Value) -> (bool, usize) {
    let inner = |values: &mut dyn Iterator<Item = &Value>| {
        values.map(joined).fold((false, 0), |(joins, all), (more, patterns)| (joins | more, all + patterns))
    };
    match value {
        Value::Object(fields) => {
            let (mut joins, mut patterns) = inner(&mut fields.values());
            let alone = fields.keys().filter(|name| !ANNOTATIONS.contains(&name.as_str())).count() == 1;
            joins |= fields.get("allOf").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
            joins |= !alone && ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|name| fields.contains_key(*name));
            patterns +=
                ["pattern", "format"].iter().filter(|name| fields.get(**name).is_some_and(Value::is_string)).count();
            patterns += fields.get("patternProperties").and_then(Value::as_object).map_or(0, serde_json::Map::len);
            (joins, patterns)
        }
        Value::Array(items) => inner(&mut items.iter()),
        _ => (false, 0),
    }
}

/// `response_format`, or `text.format` of a response, whose schema lies one level higher.
pub(super) fn format(name: &str, value: Option<Value>) -> Result<Option<Value>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let mut fields = Fields::of(name, value)?;
    match fields.text("type")?.as_deref() {
        Some("text") => {
            fields.end(&format!("{name}."))?;
            Ok(None)
        }
        Some("json_object") => {
            fields.end(&format!("{name}."))?;
            Ok(Some(serde_json::json!({"type": "object"})))
        }
        Some("json_schema") => {
            let (mut inner, path) = match fields.take("json_schema") {
                Some(inner) => {
                    fields.end(&format!("{name}."))?;
                    let path = format!("{name}.json_schema");
                    (Fields::of(&path, inner)?, path)
                }
                None => (fields, name.to_owned()),
            };
            // The schema is followed whether strict or not.
            inner.harmless(&["name", "description", "strict"], &[]);
            let path = format!("{path}.schema");
            let found = inner.take("schema").ok_or_else(|| ApiError::invalid(&path, "is missing"))?;
            inner.end(&format!("{name}."))?;
            schema(&path, found).map(Some)
        }
        _ => Err(ApiError::invalid(&format!("{name}.type"), "must be text, json_object or json_schema")),
    }
}

/// `input` and `prompt`: a text, tokens, or a list of at most so many of either.
pub(super) fn inputs(name: &str, value: Option<Value>, most: usize) -> Result<Vec<Input>, ApiError> {
    let wrong =
        || ApiError::invalid(name, format!("must be a text, a list of tokens, or a list of at most {most} of them"));
    let tokens = |items: &[Value]| -> Option<Input> {
        let tokens = items.iter().map(|token| u32::try_from(token.as_u64()?).ok());
        Some(Input::Tokens(tokens.collect::<Option<_>>()?))
    };
    match value {
        Some(Value::String(text)) => Ok(vec![Input::Text(text)]),
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            tokens(&items).map(|input| vec![input]).ok_or_else(wrong)
        }
        Some(Value::Array(items)) if (1..=most).contains(&items.len()) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(Input::Text(text)),
                Value::Array(items) => tokens(&items).ok_or_else(wrong),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}
