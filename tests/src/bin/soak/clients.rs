//! What the clients of the soak do: one request after another, of every kind, each checked as far as a client can.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cocoon_cli::network::MODEL_NAME;
use cocoon_client::{Answer, Client};
use cocoon_protocol::receipt::SignedFullReceipt;
use cocoon_protocol::wire::RECEIPT_ID_HEADER;
use serde_json::{Value, json};

const PROMPTS: [&str; 6] = [
    "Who can read my prompt?",
    "What is Cocoon?",
    "How am I charged?",
    "What is seven times six?",
    "Name three rivers.",
    "What is a receipt?",
];
const PATH: &str = "/v1/chat/completions";
/// The longest answer that is asked for, in tokens.
const MOST_TOKENS: u64 = 64;
/// A request that takes longer is stuck. A thousand of them wait for a CPU that answers one at a time, in a tenth of a second each.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Numbers that differ from stream to stream and not from run to run.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }
}

/// How one request ended as it should.
enum Ended {
    As(&'static str),
    /// The queue was full, as the answer said.
    Busy,
}

/// How it should not have: in words without numbers, so that like ones are counted together.
type Failed = String;

fn failed(error: impl std::fmt::Display) -> Failed {
    error.to_string().chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(200).collect()
}

/// All clients, and how their requests ended.
pub struct Clients {
    client: Arc<Client>,
    /// What the model says to each prompt when nobody else asks.
    alone: Vec<String>,
    done: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<BTreeMap<Failed, u64>>,
    /// Requests that found the queue full.
    pub busy: AtomicU64,
    /// Requests that did not end.
    pub stuck: AtomicU64,
    /// Every receipt that verified, by its sequence: total and charge in nanoton.
    receipts: Mutex<BTreeMap<u64, (u64, u64)>>,
    /// The sequence of the newest receipt that the host has on disk.
    stored: Stored,
}

/// Looks into the host's record.
pub type Stored = Box<dyn Fn() -> Result<u64> + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn receipt_id(answer: &Answer) -> Option<String> {
    let header = answer.head().headers.iter().find(|(name, _)| name == RECEIPT_ID_HEADER);
    header.map(|(_, id)| id.clone())
}

fn body(prompt: &str, max_tokens: u64) -> Vec<u8> {
    json!({
        "model": MODEL_NAME, "temperature": 0, "stream": true, "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": prompt}],
    })
    .to_string()
    .into_bytes()
}

/// Requests that are wrong, each with the status and code of its refusal.
fn wrong(which: u64) -> (Vec<u8>, u16, &'static str) {
    let message = json!([{"role": "user", "content": "x"}]);
    let long = json!([{"role": "user", "content": "word ".repeat(3_000)}]);
    let (value, status, code) = match which {
        0 => (json!({"model": MODEL_NAME, "messages": message, "temperature": 9}), 400, "invalid_value"),
        1 => (json!({"model": MODEL_NAME, "messages": message, "best_guess": 1}), 400, "unsupported_parameter"),
        2 => (json!({"model": "another", "messages": message}), 404, "model_not_found"),
        3 => (json!({"model": MODEL_NAME, "messages": long}), 400, "context_length_exceeded"),
        _ => (json!("no object"), 400, "invalid_value"),
    };
    (value.to_string().into_bytes(), status, code)
}

/// Text and reason of the end of a stream; nothing unless it came to its end.
fn read(stream: &[u8]) -> Option<(String, String)> {
    let stream = std::str::from_utf8(stream).ok()?.strip_suffix("data: [DONE]\n\n")?;
    let (mut text, mut reason) = (String::new(), String::new());
    for event in stream.split_terminator("\n\n") {
        let chunk: Value = serde_json::from_str(event.strip_prefix("data: ")?).ok()?;
        let choice = chunk["choices"].get(0)?;
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        reason.push_str(choice["finish_reason"].as_str().unwrap_or_default());
    }
    Some((text, reason))
}

impl Clients {
    /// Clients that know what the model answers, since they have asked it alone.
    pub async fn new(client: Arc<Client>, stored: Stored) -> Result<Self> {
        let mut clients = Self {
            client,
            alone: Vec::new(),
            done: Mutex::default(),
            failures: Mutex::default(),
            busy: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
            receipts: Mutex::default(),
            stored,
        };
        for prompt in PROMPTS {
            let answer = clients.ask(body(prompt, MOST_TOKENS)).await.map_err(anyhow::Error::msg)?;
            let id = receipt_id(&answer);
            let (_, stream, receipt) = answer.whole().await?;
            clients.received(id, &receipt.context("a receipt")?).map_err(anyhow::Error::msg)?;
            clients.alone.push(read(&stream).context("a whole stream")?.0);
        }
        Ok(clients)
    }

    async fn ask(&self, body: Vec<u8>) -> Result<Answer, Failed> {
        self.client.call("POST", PATH, None, body).await.map_err(failed)
    }

    /// Whether the queue was full: then the answer says when to come again, and that is waited for.
    async fn busy(answer: &mut Answer) -> Result<bool, Failed> {
        if answer.head().status != 429 {
            return Ok(false);
        }
        let after = answer.head().headers.iter().find(|(name, _)| name == "retry-after");
        let seconds = after.and_then(|(_, value)| value.parse().ok()).ok_or("a 429 without retry-after")?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(true)
    }

    /// Reads an answer to its end, and checks all that can be checked of it.
    async fn whole(&self, prompt: usize, max_tokens: u64, pause: Option<Duration>) -> Result<Ended, Failed> {
        let mut answer = self.ask(body(PROMPTS[prompt], max_tokens)).await?;
        if Self::busy(&mut answer).await? {
            return Ok(Ended::Busy);
        }
        if answer.head().status != 200 {
            return Err(failed(format!("status {} of a good request", answer.head().status)));
        }
        let mut stream = Vec::new();
        while let Some(piece) = answer.next().await.map_err(failed)? {
            stream.extend_from_slice(&piece);
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        let id = receipt_id(&answer);
        let signed = answer.finish().await.map_err(failed)?.ok_or("an answer without a receipt")?;
        self.received(id, &signed)?;
        let receipt = signed.receipt;
        let (text, reason) = read(&stream).ok_or("an answer that is no whole stream")?;
        let alone = self.alone[prompt].as_str();
        if !alone.starts_with(&text) || (reason == "stop" && alone != text) {
            return Err("an answer that is not the one the model gives alone".into());
        }
        match (reason.as_str(), receipt.tokens.completion) {
            ("stop", 1..) => {}
            ("length", tokens) if tokens == max_tokens => {}
            _ => return Err("an answer that ends for no reason".into()),
        }
        Ok(Ended::As(if pause.is_some() { "read slowly" } else { "whole" }))
    }

    /// A receipt that verified, behind a whole answer: the host has had it on disk before, this client has it in its record, and its number
    /// is nobody else's.
    fn received(&self, id: Option<String>, signed: &SignedFullReceipt) -> Result<(), Failed> {
        let settlement = &signed.receipt.settlement.receipt;
        let kept = self.client.receipt(&id.ok_or("an answer without a receipt's identifier")?).map_err(failed)?;
        if kept.as_ref() != Some(signed) {
            return Err("a receipt that the client does not have in its record".into());
        }
        if (self.stored)().map_err(failed)? < settlement.sequence {
            return Err("a whole answer whose receipt the host had not kept".into());
        }
        let entry = (settlement.total.0, signed.receipt.charge.0);
        match lock(&self.receipts).insert(settlement.sequence, entry) {
            None => Ok(()),
            Some(_) => Err("two receipts of one number".into()),
        }
    }

    /// What contradicts among all receipts that verified: each total is the one before and its charge, and more only by what others in between
    /// were charged, who did not wait for their receipts; of those there are at most `dropped`. Gives the number, total of the newest receipt too.
    pub fn compare(&self, dropped: u64) -> (Vec<String>, usize, (u64, u64)) {
        let receipts = lock(&self.receipts);
        let (mut problems, mut before, mut unseen) = (Vec::new(), (0, 0), 0);
        for (sequence, (total, charge)) in receipts.iter() {
            let between = sequence - before.0 - 1;
            unseen += between;
            let others = total.checked_sub(before.1).and_then(|grown| grown.checked_sub(*charge));
            if others.is_none_or(|others| (others > 0) != (between > 0)) {
                problems.push(format!(
                    "receipt {sequence} of {total} and its charge of {charge} do not continue {before:?}"
                ));
            }
            before = (*sequence, *total);
        }
        if unseen > dropped {
            problems.push(format!("{unseen} receipts were signed that nobody saw, and {dropped} answers were dropped"));
        }
        (problems, receipts.len(), before)
    }

    /// Goes away: while it waits for the answer, or after some pieces of it.
    async fn dropped(&self, prompt: usize, random: &mut Random) -> Result<Ended, Failed> {
        let asked = self.ask(body(PROMPTS[prompt], MOST_TOKENS));
        if random.below(4) == 0 {
            let patience = Duration::from_millis(random.below(500));
            if let Ok(answer) = tokio::time::timeout(patience, asked).await {
                answer?;
            }
            return Ok(Ended::As("dropped early"));
        }
        let mut answer = asked.await?;
        if Self::busy(&mut answer).await? {
            return Ok(Ended::Busy);
        }
        for _ in 0..=random.below(6) {
            answer.next().await.map_err(failed)?;
        }
        Ok(Ended::As("dropped part-way"))
    }

    /// Asks wrongly, and is told so and charged nothing.
    async fn refused(&self, which: u64) -> Result<Ended, Failed> {
        let (body, status, code) = wrong(which);
        let mut answer = self.ask(body).await?;
        if Self::busy(&mut answer).await? {
            return Ok(Ended::Busy);
        }
        let (head, content, receipt) = answer.whole().await.map_err(failed)?;
        let error: Value = serde_json::from_slice(&content).unwrap_or_default();
        if (head.status, error["error"]["code"].as_str()) != (status, Some(code)) || receipt.is_some() {
            return Err(failed(format!("{} {} where {code} was due", head.status, error["error"]["code"])));
        }
        Ok(Ended::As("refused as wrong"))
    }

    async fn one(&self, random: &mut Random) -> Result<Ended, Failed> {
        let prompt = random.below(PROMPTS.len() as u64) as usize;
        let max_tokens = 8 + random.below(MOST_TOKENS - 7);
        match random.below(10) {
            0 | 1 => self.dropped(prompt, random).await,
            2 => self.whole(prompt, max_tokens, Some(Duration::from_millis(20 + random.below(180)))).await,
            3 => self.refused(random.below(5)).await,
            _ => self.whole(prompt, max_tokens, None).await,
        }
    }

    /// One of the streams at once, until the time is over.
    pub async fn stream(self: Arc<Self>, number: u64, until: Instant) {
        let mut random = Random(number);
        while Instant::now() < until {
            match tokio::time::timeout(LIMIT, self.one(&mut random)).await {
                Ok(Ok(Ended::As(kind))) => *lock(&self.done).entry(kind).or_default() += 1,
                Ok(Ok(Ended::Busy)) => drop(self.busy.fetch_add(1, Ordering::Relaxed)),
                Ok(Err(why)) => {
                    *lock(&self.failures).entry(why).or_default() += 1;
                    // Whatever it is, asking again at once would only make it more.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(_) => drop(self.stuck.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    /// Requests that ended as they should, by kind.
    pub fn done(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.done).clone()
    }

    /// Requests that did not, by what went wrong.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        lock(&self.failures).clone()
    }
}
