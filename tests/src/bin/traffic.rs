//! What somebody between client and gateway sees of sealed traffic: measures and prints the tables of `docs/traffic-analysis.md`.
//!
//! The client's requests go through a relay that keeps sizes, times and headers, as any watcher could. What the client knows besides (text,
//! tokens, receipts) is only used to say how much of it those tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use cocoon_cli::data::DataDir;
use cocoon_cli::network::{MODEL_NAME, Network, Options, Tee};
use cocoon_cli::ui::{Output, Ui};
use cocoon_client::{Appraised, Client};
use cocoon_protocol::receipt::{FullReceipt, SignedFullReceipt};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire;
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// A name as long as those of models that people use.
const LONG_NAME: &str = "Qwen3-30B-A3B-Instruct-2507-FP8";
/// What a sealed chunk adds to a record's data, in bytes: its length and tag, the record's length and its header.
const OVERHEAD: usize = 2 + 16 + 2 + 8;
const CHAT: &str = "/v1/chat/completions";

/// One request and its answer, as they pass.
#[derive(Default)]
struct Exchange {
    voucher: String,
    started: Option<Instant>,
    /// Pieces of the sealed answer, and when they came.
    pieces: Vec<(Instant, Bytes)>,
}

impl Exchange {
    /// Sizes of the sealed chunks, lengths and tags included, and when the last byte of each came. Their lengths are in clear.
    fn chunks(&self) -> Result<Vec<(usize, Instant)>> {
        let all: Vec<u8> = self.pieces.iter().flat_map(|(_, piece)| piece.to_vec()).collect();
        let arrived = |offset: usize| {
            let mut end = 0;
            self.pieces.iter().find(|(_, piece)| {
                end += piece.len();
                end >= offset
            })
        };
        // A nonce comes first.
        let (mut chunks, mut at) = (Vec::new(), 16);
        while at < all.len() {
            let width = 1 << (all[at] >> 6);
            let prefix = all.get(at..at + width).context("a length")?;
            let length =
                prefix.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte)) & !(0xc0 << (8 * (width - 1)));
            let end = if length == 0 { all.len() } else { at + width + length };
            chunks.push((end - at, arrived(end).context("a whole chunk")?.0));
            at = end;
        }
        Ok(chunks)
    }
}

/// The watcher: a relay that notes what passes.
#[derive(Clone)]
struct Watcher {
    gateway: String,
    http: hyper_util::client::legacy::Client<HttpConnector, Body>,
    seen: Arc<Mutex<Exchange>>,
}

async fn relay(State(watcher): State<Watcher>, request: Request) -> Result<Response, hyper::StatusCode> {
    let failed = hyper::StatusCode::BAD_GATEWAY;
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| failed)?.to_bytes();
    let voucher = parts.headers.get(wire::VOUCHER_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    *watcher.seen.lock().unwrap_or_else(PoisonError::into_inner) =
        Exchange { voucher: voucher.to_owned(), started: Some(Instant::now()), pieces: Vec::new() };
    parts.uri = format!("{}{}", watcher.gateway, parts.uri.path()).parse().map_err(|_| failed)?;
    let answer = watcher.http.request(Request::from_parts(parts, Body::from(body))).await.map_err(|_| failed)?;
    let (parts, body) = answer.into_parts();
    let pieces = body.into_data_stream().inspect(move |piece| {
        if let Ok(piece) = piece {
            let mut seen = watcher.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.pieces.push((Instant::now(), piece.clone()));
        }
    });
    Ok(Response::from_parts(parts, Body::from_stream(pieces)))
}

/// What the client got, beside what was seen of it.
struct Asked {
    seen: Exchange,
    /// Data of each record of the body.
    records: Vec<Bytes>,
    receipt: Option<FullReceipt>,
}

impl Asked {
    fn tokens(&self) -> u64 {
        self.receipt.as_ref().map_or(0, |receipt| receipt.tokens.completion)
    }

    /// Chunks without the head before the body and the two behind it.
    fn body_chunks(&self) -> Result<Vec<(usize, Instant)>> {
        let chunks = self.seen.chunks()?;
        ensure!(chunks.len() == self.records.len() + 3, "one chunk for each record");
        Ok(chunks[1..chunks.len() - 2].to_vec())
    }

    /// Events in each record that carry text.
    fn texts(&self) -> impl Iterator<Item = usize> {
        self.records
            .iter()
            .map(|data| {
                let text = String::from_utf8_lossy(data);
                text.split("\n\n")
                    .filter(|event| {
                        let value = event
                            .lines()
                            .find_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
                        let value = value.unwrap_or_default();
                        let choice = &value["choices"][0];
                        [&choice["delta"]["content"], &choice["text"], &value["delta"]]
                            .iter()
                            .any(|text| text.as_str().is_some_and(|text| !text.is_empty()))
                    })
                    .count()
            })
            .collect::<Vec<_>>()
            .into_iter()
    }
}

struct Traffic {
    client: Arc<Client>,
    enclave: Appraised,
    seen: Arc<Mutex<Exchange>>,
}

impl Traffic {
    async fn ask(&self, path: &str, body: &Value) -> Result<Asked> {
        let mut voucher = self.client.voucher(&self.enclave).await?;
        loop {
            let call = self.client.seal(&self.enclave, voucher.clone(), "POST", path, body.to_string().into())?;
            let mut answer = self.client.send(call).await?;
            if answer.head().status == 402 {
                let (_, content, _) = answer.whole().await?;
                let error: Value = serde_json::from_slice(&content)?;
                let least = error["error"]["least_cap_nanoton"].as_u64().context("a cap to raise to")?;
                voucher = self.client.raised_voucher(&self.enclave, cocoon_settlement::Nanoton(least)).await?;
                continue;
            }
            let mut records = Vec::new();
            while let Some(data) = answer.next().await? {
                records.push(data);
            }
            let receipt = answer.finish().await?.map(|signed: SignedFullReceipt| signed.receipt);
            let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
            return Ok(Asked { seen, records, receipt });
        }
    }

    fn size(&self, body: &Value) -> Result<usize> {
        let voucher = self.client.voucher_with_cap(&self.enclave, self.client.config().voucher_step)?;
        Ok(self.client.seal(&self.enclave, voucher, "POST", CHAT, body.to_string().into())?.body.len())
    }
}

fn chat(prompt: &str, more: Value) -> Value {
    let mut body = json!({"model": MODEL_NAME, "temperature": 0, "messages": [{"role": "user", "content": prompt}]});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

/// Exactly so many tokens: what ends an answer is forbidden.
fn exactly(tokens: u64, stream: bool) -> Value {
    chat("What is Cocoon?", json!({"max_tokens": tokens, "logit_bias": {"2": -100}, "stream": stream}))
}

fn table(columns: &[&str]) {
    println!("\n| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
}

fn listed<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}

/// Equal sizes in a row as `n x size`.
fn runs(sizes: impl IntoIterator<Item = usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for size in sizes {
        match runs.last_mut() {
            Some((count, last)) if *last == size => *count += 1,
            _ => runs.push((1, size)),
        }
    }
    listed(runs.into_iter().map(|(count, size)| if count > 1 { format!("{count} x {size}") } else { size.to_string() }))
}

fn percentile(values: &mut [Duration], percent: usize) -> f64 {
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)].as_secs_f64() * 1e3
}

#[tokio::main]
async fn main() -> Result<()> {
    let (folder, models) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for name in [MODEL_NAME, LONG_NAME] {
        std::fs::create_dir(models.path().join(name))?;
        for entry in std::fs::read_dir(cocoon_tests::demo_model())? {
            let entry = entry?;
            std::fs::copy(entry.path(), models.path().join(name).join(entry.file_name()))?;
        }
    }
    let options = Options {
        enclave: cocoon_tests::enclave_binary(),
        model: models.path().to_owned(),
        tee: Tee::Tdx,
        guest: String::new(),
        vm: None,
        tap: None,
        endorser: None,
        claims: None,
        lifetime: cocoon_cli::network::ATTESTATION_LIFETIME,
        ui: Ui::new(Output::Json),
    };
    let network = Network::start(&DataDir::open(folder.path())?, options).await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let watcher = Watcher { gateway: network.urls.gateway.clone(), http, seen: Arc::default() };
    let seen = watcher.seen.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let gateway = format!("http://{}", listener.local_addr()?);
    let router = axum::Router::new().fallback(relay).with_state(watcher);
    tokio::spawn(async move { axum::serve(cocoon_host::no_delay(listener), router).await });
    let (enclaves, _) = network.client.enclaves().await?;
    let enclave = Appraised { gateway, ..enclaves.into_iter().next().context("an enclave")? };
    let traffic = Traffic { client: network.client.clone(), enclave, seen };
    println!("*** {} ***", cocoon_cli::ui::NOT_CONFIDENTIAL);
    requests(&traffic).await?;
    streams(&traffic).await?;
    token_lengths(&traffic).await?;
    unstreamed(&traffic).await?;
    endings(&traffic).await?;
    vouchers(&traffic).await?;
    network.stop().await;
    Ok(())
}

/// Sizes of sealed requests.
async fn requests(traffic: &Traffic) -> Result<()> {
    const MOST: usize = 4_000;
    let mut sizes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for prompt in 1..=MOST {
        sizes.entry(traffic.size(&chat(&"a".repeat(prompt), json!({})))?).or_default().push(prompt);
    }
    table(&["prompt, characters", "sealed request, bytes", "the same size as prompts of"]);
    for prompt in [1, 10, 100, 1_000, MOST] {
        let size = traffic.size(&chat(&"a".repeat(prompt), json!({})))?;
        let same = &sizes[&size];
        println!("| {prompt} | {size} | {} to {} |", same[0], same[same.len() - 1]);
    }
    let bits: f64 = sizes.values().map(|same| same.len() as f64 / MOST as f64).map(|share| -share * share.log2()).sum();
    println!("\n1 to {MOST} characters: {} sizes; {bits:.1} of {:.1} bits.", sizes.len(), (MOST as f64).log2());
    let filled = |prompt: usize| chat(&"a".repeat(prompt), json!({"metadata": {"": "x".repeat(MOST - prompt)}}));
    let sizes: Result<BTreeSet<usize>> = (1..=MOST).map(|prompt| traffic.size(&filled(prompt))).collect();
    let plain = traffic.ask(CHAT, &chat("What is Cocoon?", json!({}))).await?;
    let more = traffic.ask(CHAT, &chat("What is Cocoon?", json!({"metadata": {"": "x".repeat(MOST)}}))).await?;
    let prompt = |asked: &Asked| asked.receipt.as_ref().map_or(0, |receipt| receipt.tokens.prompt);
    println!(
        "\nThe same with `metadata` as filler: {} size; charged for {} tokens of prompt with {MOST} characters of it and {} without.",
        sizes?.len(),
        prompt(&more),
        prompt(&plain)
    );
    Ok(())
}

/// Streamed answers: chunks against tokens, and the time between them.
async fn streams(traffic: &Traffic) -> Result<()> {
    table(&[
        "tokens",
        "records of the body",
        "of them with 1, 2, more tokens",
        "tokens, told by records",
        "sealed answer, bytes",
        "sizes of records",
    ]);
    let mut event = 0;
    for tokens in [1, 2, 5, 10, 20, 50, 100, 400] {
        let asked = traffic.ask(CHAT, &exactly(tokens, true)).await?;
        let chunks = asked.body_chunks()?;
        let texts: Vec<usize> = asked.texts().filter(|texts| *texts > 0).collect();
        // The watcher knows how long an event is from asking itself. The first record and the last hold no token.
        if let Some((data, _)) = asked.records.iter().zip(asked.texts()).find(|(_, texts)| *texts == 1 && event == 0) {
            event = data.split(|byte| *byte == b'\n').next().map_or(1, <[u8]>::len) + 2;
        }
        let least = chunks.iter().map(|(size, _)| *size).min().context("a record")?;
        let events = |size: usize| if size == least { 1 } else { (size - OVERHEAD + event / 2) / event };
        let told: usize = chunks[..chunks.len() - 1].iter().map(|(size, _)| events(*size)).sum();
        let with = |least: usize, most: usize| texts.iter().filter(|n| (least..=most).contains(*n)).count();
        let mut sizes: Vec<usize> = chunks.iter().map(|(size, _)| *size).collect();
        sizes.sort_unstable();
        println!(
            "| {} | {} | {}, {}, {} | {} | {} | {} |",
            asked.tokens(),
            chunks.len(),
            with(1, 1),
            with(2, 2),
            with(3, usize::MAX),
            told.saturating_sub(1),
            asked.seen.pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>(),
            runs(sizes)
        );
    }
    let (mut gaps, mut first) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let asked = traffic.ask(CHAT, &exactly(100, true)).await?;
        let chunks = asked.body_chunks()?;
        first.push(chunks[1].1 - asked.seen.started.context("a start")?);
        gaps.extend(chunks[1..chunks.len() - 1].windows(2).map(|pair| pair[1].1 - pair[0].1));
    }
    println!(
        "\nTime between records, 20 answers of 100 tokens: {:.2} ms at the median, {:.2} ms p99; to the first text {:.2} ms at the median.",
        percentile(&mut gaps, 50),
        percentile(&mut gaps, 99),
        percentile(&mut first, 50)
    );
    Ok(())
}

/// Text of a token of each length in characters, and its number.
fn tokens_by_length() -> Result<BTreeMap<usize, u64>> {
    let path: &Path = &cocoon_tests::demo_model().join("tokenizer.json");
    let tokenizer: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let mut by_length = BTreeMap::new();
    for (token, number) in tokenizer["model"]["vocab"].as_object().context("a vocabulary")? {
        // The mark of a space before a word.
        let text = token.replace('\u{120}', " ");
        if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ') {
            by_length.insert(text.len(), number.as_u64().context("a number")?);
        }
    }
    Ok(by_length)
}

/// The size of a record with one token of text, by that token's length.
async fn token_lengths(traffic: &Traffic) -> Result<()> {
    let by_length: Vec<_> = tokens_by_length()?.into_iter().filter(|(length, _)| *length <= 12).collect();
    let mut columns =
        vec!["one token a record, of so many characters".to_owned(), "data with the shortest, bytes".to_owned()];
    columns.extend(by_length.iter().map(|(length, _)| length.to_string()));
    table(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    let usage = json!({"stream_options": {"include_usage": true}});
    let long = json!({"model": LONG_NAME});
    let both = json!({"model": LONG_NAME, "stream_options": {"include_usage": true}});
    for (way, path, more) in [
        ("chat", CHAT, json!({})),
        ("chat, usage asked for", CHAT, usage),
        ("chat, longer model name", CHAT, long),
        ("chat, both", CHAT, both),
        ("chat, 5 top_logprobs", CHAT, json!({"logprobs": true, "top_logprobs": 5})),
        ("completions", "/v1/completions", json!({"prompt": "What is", "messages": null})),
        (
            "responses",
            "/v1/responses",
            json!({"input": "x", "messages": null, "max_output_tokens": 12, "max_tokens": null}),
        ),
    ] {
        let (mut row, mut least) = (Vec::new(), usize::MAX);
        for (_, token) in &by_length {
            let mut body = chat("x", json!({"stream": true, "max_tokens": 12}));
            if let (Value::Object(body), Value::Object(more)) = (&mut body, more.clone()) {
                body.extend(more);
                body.insert("logit_bias".into(), json!({token.to_string(): 100}));
            }
            let mut found = BTreeMap::new();
            for _ in 0..3 {
                let asked = traffic.ask(path, &body).await?;
                // The first carries the beginning too, and the last two the end.
                let last = asked.records.len().saturating_sub(2);
                let chunks = asked.body_chunks()?.into_iter().zip(&asked.records).zip(asked.texts());
                for (((size, _), data), texts) in chunks.take(last).skip(2) {
                    if texts == 1 {
                        least = least.min(data.len());
                        *found.entry(size).or_insert(0) += 1;
                    }
                }
            }
            row.push(listed(found.into_keys()));
        }
        println!("| {way} | {least} | {} |", row.join(" | "));
    }
    println!("\nLonger model name: {LONG_NAME}.");
    Ok(())
}

/// Answers in one piece.
async fn unstreamed(traffic: &Traffic) -> Result<()> {
    table(&["tokens", "text, characters", "records of the body", "their sizes", "sealed answer, bytes"]);
    for tokens in [1, 5, 10, 20, 50, 100, 200, 400, 900] {
        let asked = traffic.ask(CHAT, &exactly(tokens, false)).await?;
        let value: Value = serde_json::from_slice(&asked.records.concat())?;
        let text = value["choices"][0]["message"]["content"].as_str().unwrap_or_default().len();
        let (chunks, whole) =
            (asked.body_chunks()?, asked.seen.pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>());
        println!("| {tokens} | {text} | {} | {} | {whole} |", chunks.len(), runs(chunks.iter().map(|(size, _)| *size)));
    }
    Ok(())
}

/// What is around an answer: the head before the body and the trailer behind it.
async fn endings(traffic: &Traffic) -> Result<()> {
    table(&["answer", "head", "trailer", "20 times the same: heads", "trailers"]);
    let tools = json!([{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]);
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let mut call = tools;
    call[0]["function"]["parameters"] = schema;
    for (name, body) in [
        ("streamed, came to its end", chat("What is Cocoon?", json!({"stream": true}))),
        ("streamed, cut at 20 tokens", exactly(20, true)),
        ("streamed, cut at 24 tokens", exactly(24, true)),
        ("streamed, cut at 300 tokens", exactly(300, true)),
        ("whole, came to its end", chat("What is Cocoon?", json!({}))),
        ("whole, cut at 20 tokens", exactly(20, false)),
        ("whole, a tool is called", chat("x", json!({"tools": call, "tool_choice": "required"}))),
        ("refused, 400", chat("x", json!({"unknown": 1}))),
        ("refused, 404", chat("x", json!({"model": "another"}))),
    ] {
        let (mut heads, mut trailers) = (BTreeMap::new(), BTreeMap::new());
        let mut one = (0, 0);
        for _ in 0..20 {
            let asked = traffic.ask(CHAT, &body).await?;
            let chunks = asked.seen.chunks()?;
            one = (chunks[0].0, chunks[chunks.len() - 2].0);
            *heads.entry(one.0).or_insert(0) += 1;
            *trailers.entry(one.1).or_insert(0) += 1;
        }
        println!(
            "| {name} | {} | {} | {} | {} |",
            one.0,
            one.1,
            listed(heads.into_keys()),
            listed(trailers.into_keys())
        );
    }
    Ok(())
}

/// What vouchers tell: who belongs together, and what was spent.
async fn vouchers(traffic: &Traffic) -> Result<()> {
    let step = traffic.client.config().voucher_step;
    let (mut channels, mut distinct) = (BTreeMap::new(), Vec::<(String, u64)>::new());
    table(&["request", "cap in the voucher, nanoton", "of the client's steps", "earned until then, by receipts"]);
    let mut earned = traffic.client.account(&traffic.enclave)?.total.0;
    for request in 1..=60 {
        let asked = traffic.ask(CHAT, &exactly(20 + request % 7, true)).await?;
        let voucher = SignedVoucher::from_header(&asked.seen.voucher)?.voucher;
        channels.insert(voucher.channel.to_string(), ());
        if distinct.last().is_none_or(|(last, _)| *last != asked.seen.voucher) {
            println!("| {request} | {} | {} | {earned} |", voucher.cap.0, voucher.cap.0 as f64 / step.0 as f64);
            distinct.push((asked.seen.voucher.clone(), request));
        }
        earned = asked.receipt.context("a receipt")?.settlement.receipt.total.0;
    }
    println!("\n60 requests: {} channel, {} vouchers.", channels.len(), distinct.len());
    Ok(())
}
