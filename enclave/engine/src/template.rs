//! The model's chat template, rendered with bounded time and memory. The template is part of the model root; what it is given is not.

use std::io::{self, Write};
use std::path::Path;

use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::Value as Json;

use crate::Error;
use crate::tokenizer::Tokenizer;

/// Steps that a rendering may take.
const FUEL: u64 = 5_000_000;
/// Bytes that it may write.
const MAX_RENDERED: usize = 8 << 20;
const NAME: &str = "chat";

/// Ends of a turn that a tokenizer's configuration does not always name.
const ENDS: &[&str] = &["<|im_end|>", "<end_of_turn>", "<|end_of_text|>", "<|end|>", "<|eot_id|>"];

/// A chat template and what it says of its model.
pub(crate) struct Template {
    environment: Environment<'static>,
    special: Json,
    /// Whether the template can offer tools.
    pub(crate) tools: bool,
    /// Whether the model thinks between `<think>` and `</think>`.
    pub(crate) thinks: bool,
    /// Whether thinking can be switched off.
    pub(crate) thinking_switch: bool,
    /// Tokens that end an answer.
    pub(crate) ends: Vec<u32>,
}

fn read(folder: &Path, name: &str) -> Option<Json> {
    serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok()
}

/// A token is given as its text, or as an object with it.
fn text(value: Option<&Json>) -> Option<String> {
    let value = value?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// Calls are read and forced in one form alone: JSON with name and arguments between tags. Qwen3-Coder writes others between the same tags.
fn offers_tools(source: &str) -> bool {
    source.contains("tools")
        && source.contains("<tool_call>")
        && source.contains("arguments")
        && !source.contains("<function=")
}

impl Template {
    /// Reads `tokenizer_config.json`, `chat_template.jinja` if there is one, and `generation_config.json`.
    pub(crate) fn load(folder: &Path, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let config = read(folder, "tokenizer_config.json")
            .ok_or_else(|| Error::Load("tokenizer_config.json is no JSON".to_owned()))?;
        let source = std::fs::read_to_string(folder.join("chat_template.jinja")).ok();
        let source = source.or_else(|| match config.get("chat_template")? {
            Json::String(source) => Some(source.clone()),
            Json::Array(named) => {
                let of = |name: &str| {
                    named.iter().find(|template| template.get("name").and_then(Json::as_str) == Some(name))
                };
                Some(of("tool_use").or_else(|| of("default"))?.get("template")?.as_str()?.to_owned())
            }
            _ => None,
        });
        // A model without one completes and embeds text, and cannot chat.
        let source = source.unwrap_or_else(|| "{{ raise_exception('no chat template') }}".to_owned());
        let mut ends: Vec<u32> = Vec::new();
        let mut end = |id: Option<u32>| match id {
            Some(id) if !ends.contains(&id) => ends.push(id),
            _ => {}
        };
        end(text(config.get("eos_token")).and_then(|token| tokenizer.id(&token)));
        for token in ENDS.iter().filter(|token| source.contains(**token)) {
            end(tokenizer.id(token));
        }
        for file in ["generation_config.json", "config.json"] {
            let ids = read(folder, file).and_then(|config| config.get("eos_token_id").cloned());
            for id in ids
                .as_ref()
                .map(|ids| ids.as_array().map_or(std::slice::from_ref(ids), Vec::as_slice))
                .unwrap_or_default()
            {
                end(id.as_u64().and_then(|id| u32::try_from(id).ok()));
            }
        }
        let of = |name: &str| text(config.get(name));
        let special = serde_json::json!({"bos": of("bos_token"), "eos": of("eos_token"), "unk": of("unk_token")});
        Ok(Self {
            tools: offers_tools(&source),
            thinks: source.contains("<think>"),
            thinking_switch: source.contains("enable_thinking"),
            environment: environment(&source)?,
            special,
            ends,
        })
    }

    /// The text that the model continues as the assistant.
    pub(crate) fn render(&self, messages: &[Json], tools: &[Json], thinking: Option<bool>) -> Result<String, Error> {
        let template = self.environment.get_template(NAME).map_err(|_| Error::Template)?;
        let mut out = Bounded(Vec::new());
        let values = context! {
            messages => messages,
            tools => if tools.is_empty() { Value::UNDEFINED } else { Value::from_serialize(tools) },
            add_generation_prompt => true,
            enable_thinking => thinking.unwrap_or(true),
            bos_token => self.special["bos"].as_str().unwrap_or_default(),
            eos_token => self.special["eos"].as_str().unwrap_or_default(),
            unk_token => self.special["unk"].as_str().unwrap_or_default(),
        };
        // What the template says of a conversation it refuses is not passed on: it could quote.
        template.render_captured_to(values, &mut out).map_err(|_| Error::Template)?;
        String::from_utf8(out.0).map_err(|_| Error::Template)
    }
}

fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_lstrip_blocks(true);
    environment.set_trim_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    // Python can reverse by a slice and mark what it trains on; minijinja does neither.
    let source =
        source.replace("[::-1]", "|reverse").replace("{% generation %}", "").replace("{% endgeneration %}", "");
    environment
        .add_template_owned(NAME, source)
        .map_err(|error| Error::Load(format!("the chat template cannot be read: {error}")))?;
    Ok(environment)
}

/// As in Python, where templates are written: nothing but JSON is escaped, with a space after each colon and comma.
fn tojson(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let wrong = |_| minijinja::Error::new(ErrorKind::BadSerialization, "cannot be written as JSON");
    let value: Json = serde_json::to_value(&value).map_err(wrong)?;
    let mut out = Vec::new();
    let written = match options.get::<Option<usize>>("indent").ok().flatten() {
        Some(width) => {
            let indent = " ".repeat(width.min(8));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut out, pretty))
        }
        None => serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut out, Python)),
    };
    written.map_err(wrong)?;
    // Other options change what this does not.
    let _ = options.get::<Option<bool>>("ensure_ascii");
    let _ = options.get::<Option<bool>>("sort_keys");
    Ok(Value::from(String::from_utf8(out).unwrap_or_default()))
}

struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.0.len() + piece.len() > MAX_RENDERED {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(source: &str) -> Template {
        Template {
            environment: environment(source).unwrap(),
            special: json!({}),
            tools: true,
            thinks: false,
            thinking_switch: false,
            ends: Vec::new(),
        }
    }

    #[test]
    fn tools_are_written_as_python_writes_them() {
        let tools = [json!({"type": "function", "function": {"name": "f", "parameters": {"a": ["<b>", "é"]}}})];
        let text = template("{{ tools[0] | tojson }}").render(&[], &tools, None).unwrap();
        let expected = r#"{"type": "function", "function": {"name": "f", "parameters": {"a": ["<b>", "é"]}}}"#;
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), serde_json::from_str::<Json>(expected).unwrap());
        assert!(text.contains(r#"["<b>", "é"]"#) && text.contains(r#""name": "f""#), "{text}");
    }

    #[test]
    fn a_template_that_does_not_end_or_writes_without_end_is_stopped() {
        let started = std::time::Instant::now();
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        assert!(matches!(template(endless).render(&[], &[], None), Err(Error::Template)));
        let long = "{% for a in range(99999) %}{{ messages[0] }}{% endfor %}";
        assert!(matches!(template(long).render(&[json!("x".repeat(1000))], &[], None), Err(Error::Template)));
        assert!(started.elapsed().as_secs() < 5);
    }

    /// Qwen3-Coder's calls stand between the same tags and are no JSON: they would be taken for text.
    #[test]
    fn a_template_whose_calls_are_written_otherwise_offers_no_tools() {
        let demo =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/tokenizer_config.json"));
        assert!(offers_tools(&demo.unwrap()));
        let json = "{% if tools %}<tool_call>{\"name\": <name>, \"arguments\": <arguments>}</tool_call>{% endif %}";
        assert!(offers_tools(json));
        let tagged = "{% if tools %}<tool_call><function=example><parameter=p>arguments</parameter></function></tool_call>{% endif %}";
        for other in [
            tagged,
            "{% if tools %}<tool_call>name(key=value)</tool_call>{% endif %}",
            "{% if tools %}arguments{% endif %}",
        ] {
            assert!(!offers_tools(other), "{other}");
        }
    }

    #[test]
    fn what_a_template_refuses_names_no_content() {
        let error = template("{{ raise_exception('saw ' + messages[0]) }}").render(&[json!("a secret")], &[], None);
        assert!(!format!("{error:?}").contains("secret"));
    }
}
