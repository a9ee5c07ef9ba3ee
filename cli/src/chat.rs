//! `cocoon chat`: asks through the local proxy, as any OpenAI client would, and prints the answer as it arrives.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Arguments of `cocoon chat`.
#[derive(clap::Args)]
pub struct ChatArgs {
    /// The question; without one, questions are read line by line
    prompt: Vec<String>,
    /// The proxy that `cocoon up` or `cocoon proxy` serves
    #[arg(long, env = "COCOON_PROXY", default_value = "http://127.0.0.1:8787")]
    proxy: String,
    /// The model to ask; the first that the proxy lists if none is named
    #[arg(long)]
    model: Option<String>,
    /// The most tokens an answer may have
    #[arg(long, default_value_t = 256)]
    max_tokens: u32,
}

/// Runs the command.
///
/// # Errors
/// The proxy cannot be reached or refuses; the message says why.
pub async fn run(args: ChatArgs) -> Result<()> {
    let base = args.proxy.trim_end_matches('/').trim_end_matches("/v1").to_owned();
    let model = match args.model {
        Some(model) => model,
        None => first_model(&base).await?,
    };
    let mut chat = Chat { base, model, max_tokens: args.max_tokens, messages: Vec::new(), warned: false };
    if !args.prompt.is_empty() {
        return chat.ask(args.prompt.join(" ")).await;
    }
    let interactive = std::io::stdin().is_terminal();
    loop {
        if interactive {
            print!("> ");
            std::io::stdout().flush()?;
        }
        // Reading a line blocks, and a chat has nothing else to do meanwhile.
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        let question = line.trim();
        if question.is_empty() {
            continue;
        }
        if let Err(error) = chat.ask(question.to_owned()).await {
            // The next question starts afresh: what failed may be the conversation's length.
            eprintln!("{error:#}");
            chat.messages.clear();
        }
    }
}

struct Chat {
    base: String,
    model: String,
    max_tokens: u32,
    messages: Vec<Value>,
    warned: bool,
}

impl Chat {
    async fn ask(&mut self, question: String) -> Result<()> {
        self.messages.push(json!({"role": "user", "content": question}));
        let body = json!({
            "model": self.model,
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let request = Request::post(format!("{}/v1/chat/completions", self.base))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let response = http().request(request).await.with_context(|| unreachable(&self.base))?;
        let (head, mut body) = response.into_parts();
        if head.headers.contains_key("cocoon-platform") && !self.warned {
            eprintln!("*** {} ***", crate::ui::NOT_CONFIDENTIAL);
            self.warned = true;
        }
        if !head.status.is_success() {
            let text = body.collect().await?.to_bytes();
            bail!("the proxy refused: {}", message(&text));
        }
        let mut pending = Vec::new();
        let mut answer = String::new();
        let (mut usage, mut whole) = (None, false);
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.context("the answer broke off")?.into_data() {
                pending.extend_from_slice(&data);
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let Some(event) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { continue };
                whole |= event == b"[DONE]";
                let Ok(event) = serde_json::from_slice::<Value>(event) else { continue };
                if event.get("error").is_some() {
                    bail!("the answer failed: {}", message(event.to_string().as_bytes()));
                }
                if let Some(text) = event.pointer("/choices/0/delta/content").and_then(Value::as_str) {
                    // Whatever a model says, it does not steer the terminal.
                    let shown = text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}");
                    print!("{shown}");
                    std::io::stdout().flush()?;
                    answer.push_str(text);
                }
                if let Some(reported) = event.get("usage").filter(|usage| usage.is_object()) {
                    usage = Some(reported.clone());
                }
            }
        }
        println!();
        if !whole {
            bail!("the answer broke off before its end");
        }
        if let Some(usage) = usage {
            eprintln!("[{} prompt tokens, {} completion tokens]", usage["prompt_tokens"], usage["completion_tokens"]);
        }
        self.messages.push(json!({"role": "assistant", "content": answer}));
        Ok(())
    }
}

async fn first_model(base: &str) -> Result<String> {
    let request = Request::get(format!("{base}/v1/models")).body(Full::new(Bytes::new()))?;
    let response = http().request(request).await.with_context(|| unreachable(base))?;
    let text = response.into_body().collect().await?.to_bytes();
    let list: Value = serde_json::from_slice(&text).with_context(|| format!("{base} does not speak OpenAI's API"))?;
    match list.pointer("/data/0/id").and_then(Value::as_str) {
        Some(model) => Ok(model.to_owned()),
        None => bail!("{base} serves no model: {}", message(&text)),
    }
}

fn http() -> Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn unreachable(base: &str) -> String {
    format!("no proxy answers at {base}: start one with `cocoon up`")
}

/// The message of an OpenAI error object, or the text as it is.
fn message(text: &[u8]) -> String {
    serde_json::from_slice::<Value>(text)
        .ok()
        .and_then(|value| value.pointer("/error/message").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(text).into_owned())
}
