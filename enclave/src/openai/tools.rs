//! Tools: what a model may call, and how its calls are found in what it says.

use cocoon_engine::Chat;
use serde_json::{Value, json};

use super::fields::Fields;
use super::request::{Calls, schema};
use super::{ApiError, Generate};

const MAX_TOOLS: usize = 128;
const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const THINK: &str = "<think>";
const THOUGHT: &str = "</think>";

/// One tool's name and the schema of its arguments.
struct Tool {
    name: String,
    parameters: Value,
    strict: bool,
    /// As templates take it.
    definition: Value,
}

fn tool(index: usize, value: Value, nested: bool) -> Result<Tool, ApiError> {
    let at = format!("tools[{index}]");
    let mut outer = Fields::of(&at, value)?;
    if outer.text("type")?.as_deref() != Some("function") {
        return Err(ApiError::invalid(&format!("{at}.type"), "must be function: this enclave has no tools of its own"));
    }
    let (mut inner, path) = match nested {
        true => {
            let path = format!("{at}.function");
            let inner = outer.take("function").ok_or_else(|| ApiError::invalid(&path, "is missing"))?;
            outer.end(&format!("{at}."))?;
            (Fields::of(&path, inner)?, path)
        }
        false => (outer, at),
    };
    let plain = |name: &String| {
        (1..=64).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-')
    };
    let name = inner.text("name")?.filter(plain).ok_or_else(|| {
        ApiError::invalid(&format!("{path}.name"), "must be 1 to 64 letters, digits, underscores or hyphens")
    })?;
    let description = inner.text("description")?;
    let strict = inner.boolean("strict")?.unwrap_or(false);
    let parameters = match inner.take("parameters") {
        Some(parameters) => schema(&format!("{path}.parameters"), parameters)?,
        None => json!({"type": "object", "properties": {}}),
    };
    inner.end(&format!("{path}."))?;
    let mut function = json!({"name": name, "parameters": parameters});
    if let Some(description) = description {
        function["description"] = description.into();
    }
    Ok(Tool { name, parameters, strict, definition: json!({"type": "function", "function": function}) })
}

enum Choice {
    None,
    Auto,
    Required,
    Named(String),
}

fn choice(value: Option<Value>, nested: bool) -> Result<Choice, ApiError> {
    let wrong = || ApiError::invalid("tool_choice", "must be none, auto, required or a function of `tools` by name");
    match value {
        None => Ok(Choice::Auto),
        Some(Value::String(text)) => match text.as_str() {
            "none" => Ok(Choice::None),
            "auto" => Ok(Choice::Auto),
            "required" => Ok(Choice::Required),
            _ => Err(wrong()),
        },
        Some(value) => {
            let name = if nested {
                value.get("function").and_then(|function| function.get("name"))
            } else {
                value.get("name")
            };
            let name =
                name.and_then(Value::as_str).filter(|_| value.get("type").and_then(Value::as_str) == Some("function"));
            name.map(|name| Choice::Named(name.to_owned())).ok_or_else(wrong)
        }
    }
}

/// Reads `tools`, `tool_choice` and `parallel_tool_calls` into a request. `nested`: OpenAI's chat form, where a tool's fields lie in `function`.
pub(super) fn read(fields: &mut Fields, nested: bool, chat: &mut Chat, into: &mut Generate) -> Result<(), ApiError> {
    let several = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let wanted = fields.take("tool_choice");
    let tools = match fields.take("tools") {
        None => Vec::new(),
        Some(Value::Array(tools)) if tools.len() <= MAX_TOOLS => tools,
        Some(_) => return Err(ApiError::invalid("tools", format!("must be a list of at most {MAX_TOOLS} tools"))),
    };
    let tools: Vec<Tool> =
        tools.into_iter().enumerate().map(|(index, value)| tool(index, value, nested)).collect::<Result<_, _>>()?;
    let given = wanted.is_some();
    let choice = choice(wanted, nested)?;
    if tools.is_empty() {
        return match choice {
            Choice::None | Choice::Auto if !given => Ok(()),
            Choice::None | Choice::Auto => Ok(()),
            _ => Err(ApiError::invalid("tool_choice", "asks for a tool, and there are none in `tools`")),
        };
    }
    let callable: Vec<&Tool> = match &choice {
        Choice::None => return Ok(()),
        Choice::Named(name) => tools.iter().filter(|tool| tool.name == *name).collect(),
        Choice::Auto | Choice::Required => tools.iter().collect(),
    };
    if callable.is_empty() {
        return Err(ApiError::invalid("tool_choice", "names no function of `tools`"));
    }
    if matches!(choice, Choice::Auto) {
        if tools.iter().any(|tool| tool.strict) {
            return Err(ApiError::invalid(
                "tools",
                "strict arguments can be promised only where a call is certain: set tool_choice to required or to a function, or leave strict out",
            ));
        }
        if into.sampling.schema.is_some() {
            return Err(ApiError::invalid(
                "tools",
                "no call can come where response_format holds the whole answer to a schema: leave one of them out, or set tool_choice to none",
            ));
        }
        into.calls = Calls::Tagged { several };
    } else {
        if into.sampling.schema.is_some() {
            return Err(ApiError::invalid("tool_choice", "asks for a call, and response_format for something else"));
        }
        let call = |tool: &&Tool| {
            json!({"type": "object", "properties": {"name": {"const": tool.name}, "arguments": tool.parameters},
                "required": ["name", "arguments"], "additionalProperties": false})
        };
        let calls: Vec<Value> = callable.iter().map(call).collect();
        let whole = if let [one] = calls.as_slice() { one.clone() } else { json!({"anyOf": calls}) };
        into.sampling.schema = Some(hoisted(whole));
        into.calls = Calls::Forced;
        chat.opening = format!("{OPEN}\n");
    }
    chat.tools = tools.into_iter().map(|tool| tool.definition).collect();
    Ok(())
}

/// A schema that lies inside another one names its definitions from the root: they move there.
fn hoisted(mut schema: Value) -> Value {
    let mut definitions = serde_json::Map::new();
    fn lift(value: &mut Value, definitions: &mut serde_json::Map<String, Value>) {
        match value {
            Value::Object(fields) => {
                for key in ["$defs", "definitions"] {
                    if let Some(Value::Object(mut found)) = fields.remove(key) {
                        for value in found.values_mut() {
                            lift(value, definitions);
                        }
                        definitions.extend(found);
                    }
                }
                if let Some(Value::String(reference)) = fields.get_mut("$ref")
                    && let Some(name) = reference.strip_prefix("#/definitions/")
                {
                    *reference = format!("#/$defs/{name}");
                }
                fields.values_mut().for_each(|value| lift(value, definitions));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| lift(item, definitions)),
            _ => {}
        }
    }
    lift(&mut schema, &mut definitions);
    if !definitions.is_empty() {
        schema["$defs"] = Value::Object(definitions);
    }
    schema
}

/// A call of a tool.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// Its tool.
    pub name: String,
    /// JSON, as text.
    pub arguments: String,
}

fn call(text: &str) -> Option<Call> {
    let value: Value = serde_json::from_str(text.trim()).ok()?;
    let arguments = match value.get("arguments").or_else(|| value.get("parameters"))? {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(Call { name: value.get("name")?.as_str()?.to_owned(), arguments })
}

/// What a model said, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// For the reader.
    Text(String),
    /// Its thoughts.
    Thought(String),
    /// A call.
    Call(Call),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    Thought,
    Call,
}

/// Takes apart what a model says: thoughts between tags, calls between tags or as a whole, and text.
pub struct Splitter {
    place: Place,
    held: String,
    thoughts: bool,
    calls: Calls,
    found: usize,
    /// Whether nothing but white space has come in this place: it is left out there.
    fresh: bool,
}

impl Splitter {
    /// `thinking`: the prompt ended inside the model's thoughts.
    pub fn new(thoughts: bool, thinking: bool, calls: Calls) -> Self {
        let place = if thoughts && thinking { Place::Thought } else { Place::Text };
        Self { place, held: String::new(), thoughts, calls, found: 0, fresh: thoughts }
    }

    /// Whether the token that comes next is a thought.
    pub fn thinking(&self) -> bool {
        self.place == Place::Thought
    }

    /// Calls found so far.
    pub fn calls(&self) -> usize {
        self.found
    }

    /// Tags that may come next, and where they lead.
    fn tags(&self) -> &'static [(&'static str, Place)] {
        match (self.place, self.thoughts, self.calls) {
            (Place::Thought, ..) => &[(THOUGHT, Place::Text)],
            (Place::Call, ..) => &[(CLOSE, Place::Text)],
            (Place::Text, true, Calls::Tagged { .. }) => &[(THINK, Place::Thought), (OPEN, Place::Call)],
            (Place::Text, true, _) => &[(THINK, Place::Thought)],
            (Place::Text, false, Calls::Tagged { .. }) => &[(OPEN, Place::Call)],
            (Place::Text, false, _) => &[],
        }
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut out = Vec::new();
        if self.calls == Calls::Forced {
            return out;
        }
        loop {
            let tags = self.tags();
            let next =
                tags.iter().filter_map(|(tag, to)| Some((self.held.find(tag)?, *tag, *to))).min_by_key(|(at, ..)| *at);
            let Some((at, tag, to)) = next else { break };
            let inside = self.held[..at].to_owned();
            self.held.drain(..at + tag.len());
            self.give(inside, true, &mut out);
            self.place = to;
            self.fresh = true;
        }
        if self.place != Place::Call {
            let starts = self.held.char_indices().map(|(at, _)| at);
            let part = |at: &usize| self.tags().iter().any(|(tag, _)| tag.starts_with(&self.held[*at..]));
            let keep = starts.into_iter().find(part).unwrap_or(self.held.len());
            let rest = self.held.split_off(keep);
            let ready = std::mem::replace(&mut self.held, rest);
            self.give(ready, false, &mut out);
        }
        out
    }

    /// Takes the end.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut out = Vec::new();
        let rest = std::mem::take(&mut self.held);
        if self.calls == Calls::Forced {
            self.found = 1;
            // A limit of tokens can cut a call off: it is text then.
            out.push(call(&rest).map_or(Piece::Text(rest), Piece::Call));
            return out;
        }
        if self.place == Place::Call && call(&rest).is_none() {
            self.place = Place::Text;
            self.give(format!("{OPEN}{rest}"), true, &mut out);
        } else {
            self.give(rest, true, &mut out);
        }
        out
    }

    fn give(&mut self, text: String, whole: bool, out: &mut Vec<Piece>) {
        if self.place == Place::Call {
            if !whole {
                return;
            }
            let allowed = self.found == 0 || self.calls == Calls::Tagged { several: true };
            match call(&text) {
                Some(call) if allowed => {
                    self.found += 1;
                    out.push(Piece::Call(call));
                }
                Some(_) => {}
                None => out.push(Piece::Text(format!("{OPEN}{text}{CLOSE}"))),
            }
            return;
        }
        // Around tags models write line breaks that mean nothing.
        let text = if self.fresh { text.trim_start().to_owned() } else { text };
        if text.is_empty() {
            return;
        }
        self.fresh = false;
        out.push(if self.place == Place::Thought { Piece::Thought(text) } else { Piece::Text(text) });
    }
}
