//! The model's chat template, rendered with bounded time and memory. The template is part of the model root; what it is given is not.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::Value as Json;
use tokio::sync::oneshot;

use crate::Error;
use crate::tokenizer::Tokenizer;

/// Steps that a rendering may take.
const FUEL: u64 = 5_000_000;
/// Bytes that it may write.
const MAX_RENDERED: usize = 8 << 20;
/// Bytes that it may have in memory at once. Two strings are put together in one step, however long they are.
const MAX_MEMORY: usize = 128 << 20;
/// How long it may take.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Renderings that never come back: with so many of them a template is not rendered any more.
const MAX_LOST: usize = 2;
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
    /// Renderings that nobody waits for any more.
    lost: AtomicUsize,
}

/// [`Template::render`], in a thread of its own with a bound of memory: one that asks for more is held for ever, and the request is refused after
/// a while, like one that takes too long.
pub(crate) async fn render(
    template: &Arc<Template>,
    messages: Vec<Json>,
    tools: Vec<Json>,
    thinking: Option<bool>,
) -> Result<String, Error> {
    if template.lost.load(Ordering::Relaxed) >= MAX_LOST {
        return Err(Error::Template);
    }
    let (sender, rendered) = oneshot::channel();
    // Set by whoever of the two is first: the thread that has come back, or who does not wait for it any more.
    let over = Arc::new(AtomicBool::new(false));
    let (working, back) = (template.clone(), over.clone());
    let work = move || {
        let text = cocoon_allowance::within(MAX_MEMORY, || working.render(&messages, &tools, thinking));
        let _ = sender.send(text);
        if back.swap(true, Ordering::Relaxed) {
            working.lost.fetch_sub(1, Ordering::Relaxed);
        }
    };
    std::thread::Builder::new().name("template".into()).spawn(work).map_err(|_| Error::Busy)?;
    match tokio::time::timeout(MAX_TIME, rendered).await {
        Ok(rendered) => rendered.map_err(|_| Error::Template)?,
        Err(_) => {
            template.lost.fetch_add(1, Ordering::Relaxed);
            if over.swap(true, Ordering::Relaxed) {
                template.lost.fetch_sub(1, Ordering::Relaxed);
            }
            tracing::error!("a chat template asked for too much memory or time");
            Err(Error::Template)
        }
    }
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
            lost: AtomicUsize::new(0),
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
            lost: AtomicUsize::new(0),
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

    /// The allocator holds what asks for too much, in whatever way a template comes to it; those who ask next are told at once.
    #[tokio::test]
    async fn a_template_that_takes_all_memory_costs_its_own_requests_only() {
        let doubling = "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}";
        let calling =
            "{% macro f(x, n) %}{% if n %}{{ f(x ~ x, n - 1) }}{% endif %}{% endmacro %}{{ f('xxxxxxxx', 40) }}";
        let captured =
            "{% set x %}{% for i in range(99999) %}{{ messages[0] }}{% endfor %}{% endset %}{{ x | length }}";
        let long = vec![json!("x".repeat(100_000))];
        for source in [doubling, calling, captured] {
            let hostile = Arc::new(template(source));
            let started = std::time::Instant::now();
            let asked =
                (render(&hostile, long.clone(), Vec::new(), None), render(&hostile, long.clone(), Vec::new(), None));
            let (one, other) = tokio::join!(asked.0, asked.1);
            assert!(matches!((one, other), (Err(Error::Template), Err(Error::Template))), "{source}");
            assert!(started.elapsed() < 2 * MAX_TIME);
            let started = std::time::Instant::now();
            assert!(matches!(render(&hostile, long.clone(), Vec::new(), None).await, Err(Error::Template)));
            assert!(started.elapsed() < MAX_TIME / 10, "there are as many of these threads as may be");
        }
        let good = Arc::new(template("{{ messages[0] }}"));
        assert_eq!(render(&good, long.clone(), Vec::new(), None).await.unwrap().len(), 100_000);
    }

    /// The most that a request can hold, in the forms that take the most memory, has room.
    #[tokio::test]
    async fn no_request_is_held_for_what_it_may_send() {
        let source = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ messages | tojson }}";
        let good = Arc::new(template(source));
        let tool = || json!({"parameters": vec![json!([]); 18_000]});
        let messages = vec![json!({"role": "user", "content": "<".repeat(100_000)})];
        let text = render(&good, messages, (0..14).map(|_| tool()).collect(), None).await.unwrap();
        assert!(text.len() > 700_000, "{}", text.len());
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
